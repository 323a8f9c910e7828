"""The embedded demos: handwritten digits (scikit-learn's 1,797 real images) and a small network trained on four fifths
of them, the benchmark of the IGC paper (images made from an index, four tasks with known masks, a network), and scenes
with a planted shortcut (composed from scikit-image's photographs, with label maps, two networks); and a network of
ImageNet with twenty of its photographs, from packages of PyPI.

May import: nothing of the package.
"""

from igc_dist.demo.digits import Digits, DigitsCNN, digits_cnn
from igc_dist.demo.efficientnet import lite0
from igc_dist.demo.network import simulation_net
from igc_dist.demo.photographs import Photographs
from igc_dist.demo.scene_net import scene_net
from igc_dist.demo.scenes import Scenes
from igc_dist.demo.spectrum import Simulation
from igc_dist.demo.tasks import statistic

__all__ = [
    "Digits",
    "DigitsCNN",
    "Photographs",
    "Scenes",
    "Simulation",
    "digits_cnn",
    "lite0",
    "scene_net",
    "simulation_net",
    "statistic",
]
