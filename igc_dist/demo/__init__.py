"""The embedded demo: handwritten digits (scikit-learn's 1,797 real images) and a small network trained on four fifths
of them.

May import: nothing of the package.
"""

from igc_dist.demo.digits import Digits, DigitsCNN, digits_cnn

__all__ = ["Digits", "DigitsCNN", "digits_cnn"]
