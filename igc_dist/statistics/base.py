"""The contract of a statistic: the sums that it needs, and the results that it computes from them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
from jaxtyping import Float64
from torch import Tensor

from igc_dist.statistics.contraction import of
from igc_dist.statistics.state import Array, Centre, State, empty
from igc_dist.tensors import Attribution


@dataclass(frozen=True)
class Finalized:
    """Named results: `outputs[name]` is (..., J), `features[i][name]` is (..., J, *P_i)."""

    outputs: dict[str, Array] = field(default_factory=dict)
    features: tuple[dict[str, Array], ...] = ()


class Statistic(ABC):
    """A monoid over inputs: declare `terms`, write `finalize`; `State.__add__` updates, merges and reduces over ranks.

    `linear`: the result is linear in the attribution. Only then may the baselines of one sample be cut into blocks, and
    unbiased but noisy attributions be folded. A statistic with `n_groups` > 1 divides the samples by their target
    (`groups`); its states have an axis of groups before the outputs. `weighted`: it is defined for samples of unequal
    weight. `jackknifed`: a standard error of its result makes sense. `whole`: although linear, it needs all baselines
    of a sample at once. `n_maps`: results of each input.
    """

    name: ClassVar[str]
    terms: ClassVar[tuple[str, ...]]
    linear: ClassVar[bool]
    n_groups: ClassVar[int] = 1
    weighted: ClassVar[bool] = True
    jackknifed: ClassVar[bool] = True
    whole: ClassVar[bool] = False
    n_maps: ClassVar[int] = 1

    def thresholds(self, target: Float64[np.ndarray, "N J"]) -> Array:
        """The values that `groups` needs from the targets of all samples."""
        raise NotImplementedError

    def groups(self, target: Tensor, thresholds: Array) -> Tensor:
        """Group number of each sample and output, from (n, J) targets."""
        raise NotImplementedError

    @property
    def _n_cells(self) -> int | None:
        return self.n_groups if self.n_groups > 1 else None

    def of(self, attribution: Attribution, centre: Centre) -> State:
        """The state of one micro-batch; with an axis of groups, if any."""
        return of(attribution, centre, self.terms, self._n_cells)

    def empty(self, centre: Centre, shapes: tuple[tuple[int, ...], ...]) -> State:
        """The identity of the merge."""
        return empty(centre, shapes, self.terms, n_cells=self._n_cells)

    @abstractmethod
    def finalize(self, state: State) -> Finalized:
        """Named arrays from a state of numpy arrays; leading axes are kept.

        Only this method takes roots and quotients.
        """
