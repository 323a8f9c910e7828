"""The embedded demos: handwritten digits (scikit-learn's 1,797 real images) and a small network trained on four fifths
of them, and the benchmark of the IGC paper (images made from an index, four tasks with known masks, a network).

May import: nothing of the package.
"""

from igc_dist.demo.digits import Digits, DigitsCNN, digits_cnn
from igc_dist.demo.network import simulation_net
from igc_dist.demo.spectrum import Simulation
from igc_dist.demo.tasks import statistic

__all__ = ["Digits", "DigitsCNN", "Simulation", "digits_cnn", "simulation_net", "statistic"]
