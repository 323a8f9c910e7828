"""Attributors: one method, one file. Any attributor goes with any statistic."""

from igc_dist.attributors.base import Attributor, Step
from igc_dist.attributors.gradients import Gradients, GradientXInput
from igc_dist.attributors.path_integral import PathIntegral

__all__ = ["Attributor", "GradientXInput", "Gradients", "PathIntegral", "Step"]
