"""Attributors: one method, one file. Any attributor goes with any statistic.

May import: baselines, model, paths, seeds, tensors, records.
"""

from igc_dist.attributors.adaptive import AdaptiveIG
from igc_dist.attributors.base import Attributor, Note, Task
from igc_dist.attributors.blur import BlurIG
from igc_dist.attributors.decision import IDG, LeftIG
from igc_dist.attributors.expected import ExpectedGradients
from igc_dist.attributors.forward import Forward
from igc_dist.attributors.gradients import Gradients, GradientXInput
from igc_dist.attributors.guided import GuidedIG
from igc_dist.attributors.identity import Identity
from igc_dist.attributors.idgi import IDGI
from igc_dist.attributors.ig2 import IG2
from igc_dist.attributors.path_integral import PathIntegral
from igc_dist.attributors.shapley import BaselineShapley
from igc_dist.attributors.smoothgrad import SmoothGrad
from igc_dist.attributors.walk import Fixed, Points, Step, Walk, column

__all__ = [
    "IDG",
    "IDGI",
    "IG2",
    "AdaptiveIG",
    "Attributor",
    "BaselineShapley",
    "BlurIG",
    "ExpectedGradients",
    "Fixed",
    "Forward",
    "GradientXInput",
    "Gradients",
    "GuidedIG",
    "Identity",
    "LeftIG",
    "Note",
    "PathIntegral",
    "Points",
    "SmoothGrad",
    "Step",
    "Task",
    "Walk",
    "column",
]
