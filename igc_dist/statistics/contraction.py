"""The contraction of a micro-batch: every sum of a state from its samples, targets and attributions."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

import torch

from igc_dist.statistics.state import Centre, State, widen
from igc_dist.statistics.terms import FEATURE_TERMS, SCALAR_TERMS, feature_terms
from igc_dist.tensors import Attribution, there


def of(attribution: Attribution, centre: Centre, terms: Iterable[str], n_cells: int | None = None) -> State:
    """Fold one micro-batch: every sum of `SCALAR_TERMS` and of `terms`, on the device, in float64.

    With `n_cells` the sums are in that many cells. All sums linear in the attribution come from one contraction with
    the (T, C, n, J) weights, one output at a time, so that only one output has a float64 copy of its attributions.
    """
    # a masked sample may be NaN, and 0 * NaN is NaN: replace its values, not only its weight
    masked = attribution.weight == 0
    wanted = feature_terms(terms)
    kept = {"", "y"} if "z" in wanted else {""}
    kept |= {term[1:] for term in wanted if term in LINEAR}
    scalars, product = {}, {}
    for term, value in _products(attribution, centre, masked):  # one at a time, as a table has n J numbers
        if n_cells == 1:
            value = value[None]
        elif n_cells is not None:
            assert attribution.cell is not None
            inside = torch.arange(n_cells, device=masked.device)[:, None, None] == attribution.cell
            value = torch.where(inside, value, 0.0)  # C n J
        scalars[term] = value.sum(-2)
        if term in kept:
            product[term] = value
    contraction = _Contraction(product, masked, wanted)
    features = []
    for i, values in enumerate(attribution.values):
        offset = there(centre.of("a", i), masked.device, torch.float64).expand(values.shape[1:])
        baseline = None if attribution.baseline is None else attribution.baseline[i]
        area = None if attribution.area is None else attribution.area[i]
        features.append(contraction.of(values, offset, baseline, area))
    return State(centre, scalars, tuple(features))


LINEAR = tuple(term for term in FEATURE_TERMS if term[0] == "a" and term not in ("aa", "az"))
"""Sums that are linear in the attribution."""


def _products(attribution: Attribution, centre: Centre, masked: torch.Tensor) -> Iterator[tuple[str, torch.Tensor]]:
    """The addend of each sample in each scalar sum, (n, J), in the order of `SCALAR_TERMS`."""
    w = attribution.weight

    def centred(value: torch.Tensor, u: str) -> torch.Tensor:
        about = there(centre.of(u), w.device, torch.float64)
        return torch.where(masked, 0.0, value.double() - about)

    scalar = {
        "y": centred(attribution.target, "y"),
        "r": centred(attribution.prediction, "r"),
        "b": centred(attribution.baseline_prediction, "b"),
    }
    weighted = {u: w * value for u, value in scalar.items()}
    for term in SCALAR_TERMS:
        if term == "n":
            yield term, (~masked).double() * attribution.share
        elif term == "d":
            yield term, w * torch.where(masked, 0.0, attribution.delta.abs().double())
        elif not term:
            yield term, w
        else:
            yield term, weighted[term[0]] * scalar[term[1]] if term[1:] else weighted[term[0]]


class _Contraction:
    """Sums of features over the samples of a micro-batch, with weights (C, n, J) by term."""

    def __init__(self, product: Mapping[str, torch.Tensor], masked: torch.Tensor, terms: Sequence[str]) -> None:
        self.product, self.masked, self.terms = product, masked, terms
        self.linear = [term for term in terms if term in LINEAR]
        self.weights = torch.stack([product[term[1:]] for term in self.linear])  # T (C) n J

    def of(
        self,
        values: torch.Tensor,
        offset: torch.Tensor,
        baseline: torch.Tensor | None,
        area: torch.Tensor | None = None,
    ) -> dict[str, torch.Tensor]:
        """The sums of one input, (C, J, *P) by term."""
        shape = values.shape[1:]
        size = *self.weights.shape[1:-2], shape[0], shape[1:].numel()
        linear = self.weights.new_empty((len(self.linear), *size))
        own = dict(zip(self.linear, linear, strict=True))
        sums = {term: own[term] if term in own else self.weights.new_empty(size) for term in self.terms}
        for j in range(shape[0]):
            masked = widen(self.masked[:, j], len(shape) - 1)
            a = torch.where(masked, 0.0, values[:, j].double() - offset[j]).reshape(len(masked), shape[1:].numel())
            linear[..., j, :] = self.weights[..., j] @ a
            if "aa" in self.terms:
                sums["aa"][..., j, :] = self.product[""][..., j] @ a.square()
            if "z" in self.terms:
                assert baseline is not None
                self._baseline(sums, j, a, baseline)
            if "s" in self.terms:
                assert area is not None
                sums["s"][..., j, :] = self.product[""][..., j] @ area.double().reshape(a.shape)
        return {
            term: array.unflatten(-1, shape[1:]) if len(shape) > 1 else array[..., 0] for term, array in sums.items()
        }

    def _baseline(self, sums: Mapping[str, torch.Tensor], j: int, a: torch.Tensor, baseline: torch.Tensor) -> None:
        """Add the sums of the baseline for output j."""
        z = torch.where(self.masked[:, j, None], 0.0, baseline.double().reshape(a.shape))
        for term, weight, value in (("z", "", z), ("zz", "", z.square()), ("az", "", a * z), ("zy", "y", z)):
            sums[term][..., j, :] = self.product[weight][..., j] @ value
