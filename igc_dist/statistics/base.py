"""The contract of a statistic: which sums it needs, and what it makes of them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import ClassVar

from igc_dist.records import Attribution
from igc_dist.statistics.state import Array, Centre, State, empty, of


@dataclass(frozen=True)
class Finalized:
    """Named results: `outputs[name]` is (..., J), `features[i][name]` is (..., J, *P_i)."""

    outputs: dict[str, Array] = field(default_factory=dict)
    features: tuple[dict[str, Array], ...] = ()


class Statistic(ABC):
    """A monoid over inputs: declare `terms`, write `finalize`; update, merge and all-reduce are `State.__add__`.

    `linear` says whether the result is linear in the attribution. Only then may the baselines of one sample be cut
    into blocks, and may unbiased but noisy attributions be folded.
    """

    name: ClassVar[str]
    terms: ClassVar[tuple[str, ...]]
    linear: ClassVar[bool]

    def of(self, attribution: Attribution, centre: Centre) -> State:
        """The state of one micro-batch."""
        return of(attribution, centre, self.terms)

    def empty(self, centre: Centre, shapes: tuple[tuple[int, ...], ...]) -> State:
        """The identity of the merge."""
        return empty(centre, shapes, self.terms)

    @abstractmethod
    def finalize(self, state: State) -> Finalized:
        """Named arrays from a state of numpy arrays; leading axes pass through. The only place for roots and quotients."""
