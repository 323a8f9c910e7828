"""The samples that carry the agreement of an output most, for and against."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import xarray as xr
from jaxtyping import Bool, Float64, Int64

from igc_dist.records import ConfigError
from igc_dist.results.stored import Stored, chosen

SIDES = ("for", "against")

ALIKE = 1e-5
"""Twins have predictions this close, in standard deviations of the output: batches round a forward to 1e-6 or so."""

FAR = 4.0
"""Robust standard deviations of the residual beyond which a target is a candidate for a wrong one."""


def influence(
    tree: xr.DataTree,
    outputs: Sequence[str | int] | None = None,
    feature: Sequence[int] | None = None,
    of: str | None = None,
    most: int = 10,
) -> xr.Dataset:
    """The samples with the largest contributions to the IGC of each output, for and against.

    The IGC of output k is a sum over samples, ``sum_n c[n,k]`` with ``c[n,k] = v_n (y[n,k] - mean y) (a[n,k] - mean a)
    / (W std y std f)``: v the weight of a sample, W the sum of weights, and a the sum of its attributions over all
    features, or that of one `feature` (its index) of the input `of` (the first one). Then the c of an output add up to
    ``igc_sum``, or to the IGC of that feature. A store without attributions of samples (``samples=True``,
    ``store.samples=true``) has no a: there the prediction stands for it, and the c add up to the correlation.

    Returns (output, side, rank), side "for" or "against", `most` samples each: ``sample`` (its index in the data, -1
    beyond the last), ``contribution``, ``share`` (of the total), ``target``, ``prediction``; ``twins``, how many other
    samples have the same targets and predictions, and ``twin``, the first of them (duplicates, or samples that the
    model does not tell apart); ``candidate``, true where the target may be wrong: of labels, another output is
    predicted; of other targets, it is more than 4 robust standard deviations from the line of the predictions. Only
    samples against are candidates; ``predicted`` is the output that is largest, ``label`` that of a label. Per output:
    ``total``, and ``half``, the least number of samples whose contributions add up to half of all that are for.

    Raises `ConfigError` for a feature without stored attributions, or one that is not there.
    """
    stored = Stored(tree)
    places = chosen(stored, outputs)
    if most < 1:
        raise ConfigError(f"most={most}: give the number of samples, 1 or more")
    rows = Rows(stored)
    found = [_of_output(rows, place, rows.contributions(place, feature, of), most) for place in places]
    dims = ("output", "side", "rank")
    arrays = {key: (dims[: np.ndim(found[0][key]) + 1], np.stack([each[key] for each in found])) for key in found[0]}
    return xr.Dataset(
        arrays,
        {"output": stored.names[places], "side": [*SIDES]},
        {"question": "influence", "total_of": rows.total_of(feature), "labels": int(rows.labelled)},
    )


@dataclass(frozen=True)
class Rows:
    """What a store knows of each sample, in the order of the data."""

    stored: Stored

    @cached_property
    def _order(self) -> Int64[np.ndarray, " N"]:
        return np.argsort(self.stored.plan.order)

    @cached_property
    def weight(self) -> Float64[np.ndarray, "N J"]:
        """``v_n (y_n - mean y) / (W std y std f)``; 0 for a sample that does not count."""
        return np.asarray(self.stored.tree["known/weight"].values, np.float64)

    @cached_property
    def target(self) -> Float64[np.ndarray, "N J"]:
        return np.asarray(self.stored.tree["shards/predict/target"].values, np.float64)[self._order]

    @cached_property
    def prediction(self) -> Float64[np.ndarray, "N J"]:
        return np.asarray(self.stored.tree["shards/predict/prediction"].values, np.float64)[self._order]

    @cached_property
    def own(self) -> Float64[np.ndarray, " N"]:
        """The weight of each sample."""
        known = self.stored.tree["known"].data_vars
        return np.asarray(known["sample_weight"].values) if "sample_weight" in known else np.ones(len(self.target))

    @cached_property
    def labelled(self) -> bool:
        """Whether the targets are labels: one of several outputs is 1, or none of those that were chosen."""
        target = self.target[~np.isnan(self.target).any(1)]
        return target.shape[1] > 1 and bool(np.isin(target, (0, 1)).all() and (target.sum(1) <= 1).all())

    @cached_property
    def label(self) -> Bool[np.ndarray, "N J"]:
        """Which output is the label of a sample; none where targets are no labels."""
        return (self.target == 1) & self.labelled

    @property
    def kept(self) -> bool:
        """Whether attributions of samples were kept."""
        return "samples" in self.stored.tree.children and bool(self.stored.tree["samples"].children)

    def total_of(self, feature: Sequence[int] | None) -> str:
        """What contributions add up to."""
        if feature is not None:
            return "the feature"
        return "the sum of the map" if self._sums is not None else "the correlation"

    @cached_property
    def _sums(self) -> np.ndarray | None:
        """Sums of the attributions of each sample, (N, J); None where they are not known."""
        if not self.kept or "delta" not in self.stored.tree["samples"].data_vars:
            return None
        samples = self.stored.tree["samples"].to_dataset()
        rise = samples["prediction"] - samples["prediction_baseline"] + samples["delta"]
        return np.asarray(rise.values, np.float64) if np.isfinite(rise.values).any() else None

    def contributions(self, place: int, feature: Sequence[int] | None, of: str | None) -> Float64[np.ndarray, " N"]:
        """``c[n]`` of an output; 0 for a sample that does not count."""
        if feature is not None:
            value = self.attribution(place, feature, of)
        else:
            value = (self.prediction if self._sums is None else self._sums)[:, place]
        weight = self.weight[:, place]
        counts = ~np.isnan(self.target[:, place]) & np.isfinite(value) & np.isfinite(weight)
        own = np.where(counts, self.own, 0.0)
        centred = np.where(counts, value, 0.0) - (own * np.where(counts, value, 0.0)).sum() / (own.sum() or 1.0)
        return np.where(counts, weight * centred, 0.0)

    def attribution(self, place: int, feature: Sequence[int], of: str | None) -> Float64[np.ndarray, " N"]:
        """The attribution of each sample to a feature. Raises `ConfigError` where it is not there."""
        name = self.stored.inputs[0] if of is None else of
        if not self.kept:
            raise ConfigError(
                "the attributions of single samples were not kept: run with samples=True (store.samples=true), or ask "
                "without a feature"
            )
        if name not in self.stored.inputs:
            raise ConfigError(f"there is no input {name!r}: choose from {', '.join(self.stored.inputs)}")
        array = self.stored.tree[f"samples/{name}"].to_dataset()["attribution"]
        shape = array.shape[2:]
        if len(feature) != len(shape) or not all(0 <= at < n for at, n in zip(feature, shape, strict=True)):
            raise ConfigError(f"feature {','.join(map(str, feature))}: give {len(shape)} numbers below {shape}")
        return np.asarray(array[(slice(None), place, *feature)].values, np.float64)

    def maps(self, place: int, samples: Int64[np.ndarray, " n"], name: str) -> Float64[np.ndarray, "n *P"]:
        """The attributions of some samples to an input, where they were kept."""
        array = self.stored.tree[f"samples/{name}"].to_dataset()["attribution"]
        return np.asarray(array.isel(output=place).isel(sample=samples).values, np.float64)

    def twins(self, sample: int, place: int) -> Int64[np.ndarray, " T"]:
        """Other samples with the targets and predictions of this one."""
        near = np.abs(self.prediction[:, place] - self.prediction[sample, place]) <= ALIKE * self._spread[place]
        near &= _same(self.target[:, place], self.target[sample, place])
        near[sample] = False
        found = np.flatnonzero(near)
        gap = np.abs(self.prediction[found] - self.prediction[sample])
        alike = (gap <= ALIKE * self._spread).all(1) & _same(self.target[found], self.target[sample]).all(1)
        return found[alike]

    @cached_property
    def _spread(self) -> np.ndarray:
        return np.nanstd(self.prediction, axis=0)

    def candidates(self, place: int) -> np.ndarray:
        """Which targets may be wrong, (N,)."""
        if self.labelled:
            wrong = np.where(self.label, self.prediction, -np.inf).max(1) < self.prediction.max(1)
            return self.label.any(1) & wrong
        y, r = self.target[:, place], self.prediction[:, place]
        fit = np.isfinite(y) & np.isfinite(r)
        r_c, y_c = r - r[fit].mean(), y - y[fit].mean()
        residual = y_c - (r_c[fit] @ y_c[fit]) / ((r_c[fit] ** 2).sum() or 1.0) * r_c
        residual -= np.median(residual[fit])
        spread = 1.4826 * np.median(np.abs(residual[fit]))
        return fit & (np.abs(residual) > FAR * spread) & bool(spread > 0)


def _same(one: np.ndarray, two: np.ndarray | np.float64) -> np.ndarray:
    return (one == two) | (np.isnan(one) & np.isnan(two))


def _of_output(rows: Rows, place: int, c: Float64[np.ndarray, " N"], most: int) -> dict[str, np.ndarray]:
    """The arrays of an output, () and (side, rank)."""
    total, order = c.sum(), np.argsort(c, kind="stable")
    picked = np.stack([order[::-1][:most], order[:most]])
    there = np.stack([c[picked[0]] > 0, c[picked[1]] < 0])
    twins = [
        [rows.twins(int(n), place) if ok else np.empty(0, np.int64) for n, ok in zip(*side, strict=True)]
        for side in zip(picked, there, strict=True)
    ]
    gains = np.cumsum(np.sort(c[c > 0])[::-1])
    with np.errstate(invalid="ignore", divide="ignore"):
        share = c / total
    candidate = rows.candidates(place)[picked] & there
    candidate[0] = False
    names = np.array([str(name) for name in rows.stored.names.tolist()], dtype=object)
    return {
        "sample": np.where(there, picked, -1),
        **{
            key: np.where(there, values[picked], np.nan)
            for key, values in (
                ("contribution", c),
                ("share", share),
                ("target", rows.target[:, place]),
                ("prediction", rows.prediction[:, place]),
            )
        },
        "label": np.where(there & rows.label[picked].any(-1), names[rows.label[picked].argmax(-1)], ""),
        "predicted": np.where(there, names[rows.prediction[picked].argmax(-1)], ""),
        "candidate": candidate,
        "twins": np.array([[len(each) for each in side] for side in twins]),
        "twin": np.array([[each[0] if len(each) else -1 for each in side] for side in twins], dtype=np.int64),
        "total": np.float64(total),
        "half": np.int64(np.searchsorted(gains, gains[-1] / 2) + 1 if len(gains) else 0),
    }
