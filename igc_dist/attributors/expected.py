"""Expected Gradients: Integrated Gradients over many baselines, with one gradient for each baseline."""

from __future__ import annotations

from dataclasses import dataclass

from igc_dist.attributors.path_integral import PathIntegral
from igc_dist.paths import Design, Random, Stratified
from igc_dist.records import ConfigError

ONE_NODE: dict[str, Design] = {"stratified": Stratified(1), "random": Random(1)}


@dataclass(frozen=True)
class ExpectedGradients(PathIntegral):
    """``EG_i = mean_b (x_i - x0_bi) d f(x0_b + t_b (x - x0_b)) / d x_i`` (Erion et al. 2021), x0_b from the data.

    Each draw b is one baseline with one node t_b, uniform on [0, 1], and costs one gradient. The number of draws is the
    number of baselines, so take many: ``Resampled(200)``. The average over draws is Integrated Gradients, averaged over
    the baselines, and complete; a single attribution is not. `design`: `stratified`, all nodes of an input together are
    a Latin hypercube, which costs nothing and has less noise; or `random`, independent nodes, as in the paper. The node
    is the same for all features and inputs of a draw. Raises `ConfigError` for another design.
    """

    design: Design | str | None = "stratified"  # type: ignore[assignment]

    name = "eg"
    estimate = True
    labels = {}  # noqa: RUF012 - a class constant of the base

    def __post_init__(self) -> None:
        design = ONE_NODE.get(self.design) if isinstance(self.design, str) else self.design
        if design not in ONE_NODE.values():
            raise ConfigError(
                f"method.attributor.design={self.design!r}: Expected Gradients take one node for each baseline, "
                "choose one of "
                f"{', '.join(ONE_NODE)}, and leave the design of the run at grid"
            )
        object.__setattr__(self, "design", design)
