"""Insertion and deletion by a dataset-wise map: how much of the correlation its first features carry."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
import xarray as xr
from jaxtyping import Bool, Float64, Int32, Int64
from scipy.integrate import trapezoid
from scipy.special import stdtrit
from torch import Tensor

from igc_dist import data as sources
from igc_dist import targets
from igc_dist.arrays import real
from igc_dist.metrics.base import Placed, Predict
from igc_dist.metrics.curves import ranks_of
from igc_dist.metrics.given import baselines
from igc_dist.metrics.parts import LEVEL
from igc_dist.model import Model
from igc_dist.records import ConfigError, DataError
from igc_dist.seeds import generator
from igc_dist.statistics import leave_one_out, standard_error

KINDS = ("insertion", "deletion")
RANDOM = "random"
FOLDS = 32
TERMS = 3
"""Sums of r, r^2 and y r in each fold, with y and r about the means of targets and predictions of all samples."""


@dataclass(frozen=True)
class Removal:
    """How `score_maps` exchanges features: in `steps` parts, with `n_random` random orders drawn by `seed` beside the
    maps, and samples in `n_folds` folds for the jackknife (None: 32, or one for each of fewer samples)."""

    steps: int = 20
    n_random: int = 4
    n_folds: int | None = None
    seed: int = 0

    def folds(self, n: int) -> int:
        """The number of folds of n samples. Raises `ConfigError` for numbers that cannot be."""
        for name in ("steps", "n_random"):
            number = getattr(self, name)
            if isinstance(number, bool) or not isinstance(number, int) or number < 1:
                raise ConfigError(f"{name}={number!r}: give a whole number above 0")
        folds = min(FOLDS, n) if self.n_folds is None else self.n_folds
        if not 2 <= folds <= n:
            raise ConfigError(f"n_folds={folds}: give from 2 to the {n} samples")
        return folds


def score_maps(
    model: Any,
    data: Any,
    maps: Mapping[str, Any],
    *,
    baseline: Any = 0.0,
    target: Any = None,
    removal: Removal = Removal(),
    batch_size: int = 64,
) -> xr.Dataset:
    """Insertion and deletion of features for all samples at once, in the order of a dataset-wise map.

    `maps`: by name, each (J, *P), such as ``tree["x/igc"]``. For t = 0 to `removal.steps`, the first ``m_t = floor(t S
    / steps)`` of the S features in the order of ``map[k]``, the largest first, are taken from x, and the others from
    the baseline (insertion), or the reverse (deletion). Channels of an image go together, by their sum. With ``r`` the
    output k of these samples::

        curve(t) = cov_n(r_n, y_n) / (std_n(y) std_n(f(x)))

    It goes from 0 to corr(f, y), or back, if all samples share their baseline. For a linear model each feature changes
    it by its IGC, so no order rises faster than that of IGC. ``_correlation_curve`` is corr(r, y) itself, 0 where r is
    constant. The score is the area under the curve over ``m_t / S``: a good map has a large one under insertion, and a
    small one under deletion. The order "random" is added: the mean over some random orders.

    `data`: as for `igc_dist.attribute`, with targets y; a missing one (NaN) leaves a sample out for its output.
    `baseline`: broadcast to (N, *P). `target`: the J outputs (None: all). `batch_size`: rows of a forward pass.

    The Dataset has, for insertion and deletion: the score (order, output), its jackknife standard error over
    folds of samples (`_se`) and 95 % interval (`_ci_low`, `_ci_high`); `_gain` with the same, the paired difference
    from random order, positive where the map is better; `_curve` (order, output, fraction) and `_correlation_curve`.

    Raises `ConfigError` and `DataError` for what does not fit.
    """
    if isinstance(batch_size, bool) or not isinstance(batch_size, int) or batch_size < 1:
        raise ConfigError(f"batch_size={batch_size!r}: give a whole number above 0")
    if not maps or RANDOM in maps:
        raise ConfigError(f"maps={[*maps]}: give one map at least, by any name but {RANDOM!r}, which is added")
    source, model = sources.ensure(data), model if isinstance(model, Model) else Model(model)
    n_folds, steps = removal.folds(len(source)), removal.steps
    with source.opened(), model.borrowed(model.device):
        asked = _asked(model, source, targets.ensure(target), baseline)
        ranks = {name: _ranks(values, name, asked) for name, values in maps.items()}
        drawn = [_drawn(asked, removal.seed, draw) for draw in range(removal.n_random)]
        ranks |= {f"{RANDOM} {draw}": each for draw, each in enumerate(drawn)}
        counts = np.arange(steps + 1, dtype=np.int64) * asked.n_positions // steps
        sums = asked.sums(ranks, counts, n_folds, batch_size)
    return _result(asked, [*maps], counts / asked.n_positions, sums, asdict(removal) | {"n_folds": n_folds})


@dataclass(frozen=True)
class _Asked(Placed):
    """Model and data, with what pass 1 found: targets and predictions (N, J), and where both are known."""

    model: Model
    source: sources.Source
    baseline: Tensor
    shape: tuple[int, ...]
    outputs: list[int]
    labels: np.ndarray
    y: Float64[np.ndarray, "N J"]
    f: Float64[np.ndarray, "N J"]

    @property
    def known(self) -> Bool[np.ndarray, "N J"]:
        return np.isfinite(self.y) & np.isfinite(self.f)

    def centred(self, values: Float64[np.ndarray, "N J"]) -> Float64[np.ndarray, "N J"]:
        """About the mean of the known samples, with 0 for the others."""
        known = self.known
        mean = np.where(known, values, 0).sum(0) / known.sum(0)
        return np.where(known, values - mean, 0.0)

    def sums(
        self, ranks: Mapping[str, Int32[Tensor, "J S"]], counts: Int64[np.ndarray, " T"], n_folds: int, rows: int
    ) -> Float64[np.ndarray, "G 3 O kinds J T"]:
        """The sums of each fold, for each order, kind, output and point. Sample n belongs to fold n mod `n_folds`."""
        table, n_outputs = torch.stack([*ranks.values()]), len(self.outputs)
        found = np.zeros((n_folds, TERMS, len(ranks), len(KINDS), n_outputs, len(counts)))
        y, mean = self.centred(self.y), np.where(self.known, self.f, 0).sum(0) / self.known.sum(0)
        predict = Predict(self.model, rows)
        below = torch.as_tensor(counts, device=self.model.device).int().reshape(-1, *(1,) * len(self.shape))
        spread = (1, *self.positions) if len(self.shape) == 3 else self.shape
        for batch in self.source.batches(range(len(self.source)), rows):
            x = batch.inputs[0].to(device=self.model.device, dtype=self.model.dtype((batch.inputs[0],)))
            x0 = self.baseline[batch.index if len(self.baseline) > 1 else [0]].to(x).expand_as(x)
            n, j = (part.flatten() for part in np.meshgrid(np.arange(len(x)), np.arange(n_outputs), indexing="ij"))
            output = torch.as_tensor(np.asarray(self.outputs)[j], device=x.device)
            for o, order in enumerate(table):
                of_row = order[j].reshape(-1, 1, *spread)
                for kind, (first, rest) in enumerate(((x, x0), (x0, x))):

                    def made(m: slice, t: slice, of_row=of_row, first=first, rest=rest, n=n) -> Tensor:  # type: ignore[no-untyped-def]
                        return torch.where(of_row[m] < below[t], first[n[m], None], rest[n[m], None])

                    r = predict.grid("logit", output, len(counts), made).reshape(len(x), n_outputs, -1).cpu().numpy()
                    for row, index in enumerate(batch.index):
                        r_n = np.where(self.known[index][:, None], r[row] - mean[:, None], 0.0)
                        y_n = y[index][:, None]
                        for term, value in enumerate((r_n, r_n * r_n, y_n * r_n)):
                            found[index % n_folds, term, o, kind] += value
        return found


def _asked(model: Model, source: sources.Source, wish: targets.Targets, baseline: Any) -> _Asked:
    """Pass 1: targets and predictions of all samples."""
    y, f = [], []
    shape: tuple[int, ...] = ()
    chosen: list[int] = []
    named = np.empty(0)
    for batch in source.batches(range(len(source)), 64):
        if len(batch.inputs) != 1 or not batch.inputs[0].is_floating_point():
            raise DataError("samples have several inputs, or no numbers: metrics take models of one input of numbers")
        x = batch.inputs[0].to(device=model.device, dtype=model.dtype(batch.inputs))
        said = model.predict((x,)).double().cpu()
        if not chosen:
            shape, chosen = tuple(x.shape[1:]), wish.select(said.shape[1])
            named = wish.labels(chosen, said.shape[1])
        y.append(wish.encode(batch.target.cpu(), said.shape[1])[:, chosen].numpy())
        f.append(said[:, chosen].numpy())
    start = baselines(baseline, len(source), shape)
    assert start is not None
    kept = start[:1] if np.size(baseline) <= np.prod(shape) else start
    return _Asked(model, source, kept, shape, chosen, named, np.concatenate(y), np.concatenate(f))


def _ranks(values: Any, name: str, asked: _Asked) -> Int32[Tensor, "J S"]:
    """The place of each feature in the order of a map."""
    found = real(values, f"maps[{name!r}]").double()
    if tuple(found.shape) != (len(asked.outputs), *asked.shape):
        raise DataError(
            f"maps[{name!r}] has shape {tuple(found.shape)}: give one for each of the outputs, "
            f"{(len(asked.outputs), *asked.shape)}"
        )
    if not bool(found.isfinite().all()):
        raise DataError(f"maps[{name!r}] has NaN or infinity: such a map has no order")
    flat = (found.sum(1) if len(asked.shape) == 3 else found).flatten(1)
    return ranks_of(flat.to(asked.model.device))


def _drawn(asked: _Asked, seed: int, draw: int) -> Int32[Tensor, "J S"]:
    orders = [generator(seed, k, "metrics.random", draw).permutation(asked.n_positions) for k in asked.outputs]
    return torch.as_tensor(np.stack(orders), device=asked.model.device).int()


def _result(
    asked: _Asked,
    names: Sequence[str],
    fraction: Float64[np.ndarray, " T"],
    sums: Float64[np.ndarray, "G 3 O kinds J T"],
    said: Mapping[str, Any],
) -> xr.Dataset:
    """Scores and curves, with intervals by leaving out each fold."""
    y, f = asked.centred(asked.y), asked.centred(asked.f)
    moments = np.stack([asked.known.astype(np.float64), y, y * y, f, f * f])
    fold = np.arange(len(y)) % len(sums)
    few = np.stack([moments[:, fold == g].sum(1) for g in range(len(sums))])
    whole, without = (_curves(change(sums), change(few)) for change in (lambda a: a.sum(0), leave_one_out))
    weight = few[:, 0]
    reach = stdtrit(len(sums) - 1, (1 + LEVEL) / 2)
    found = xr.Dataset(coords={"order": [*names, RANDOM], "output": asked.labels, "fraction": fraction})
    for kind, name in enumerate(KINDS):
        (curve, correlation), (left, _) = (
            tuple(_averaged(part[..., kind, :, :], len(names)) for part in parts) for parts in (whole, without)
        )
        score, scores = trapezoid(curve, fraction, axis=-1), trapezoid(left, fraction, axis=-1)
        sign = 1 if name == "insertion" else -1
        gain, gains = (sign * (area - area[..., -1:, :]) for area in (score, scores))
        for label, value, others in ((name, score, scores), (f"{name}_gain", gain, gains)):
            se = np.stack([standard_error(value[o], others[:, o], weight) for o in range(len(value))])
            for part, array in {
                "": value,
                "_se": se,
                "_ci_low": value - reach * se,
                "_ci_high": value + reach * se,
            }.items():
                found[f"{label}{part}"] = (("order", "output"), array)
        found[f"{name}_curve"] = (("order", "output", "fraction"), curve)
        found[f"{name}_correlation_curve"] = (("order", "output", "fraction"), correlation)
    found["n"] = ("output", asked.known.sum(0))
    found.attrs["metrics"] = json.dumps(dict(said))
    return found


def _curves(
    sums: Float64[np.ndarray, "*G 3 O kinds J T"], few: Float64[np.ndarray, "*G 5 J"]
) -> tuple[Float64[np.ndarray, "*G O kinds J T"], Float64[np.ndarray, "*G O kinds J T"]]:
    """What is carried of the correlation, and the correlation itself. `few`: sums of 1, y, y^2, f and f^2."""
    r, rr, yr = np.moveaxis(sums, -5, 0)
    n, y, yy, f, ff = np.moveaxis(few, -2, 0)[..., None, None, :, None]
    with np.errstate(invalid="ignore", divide="ignore"):
        cov, of_y, of_f, of_r = yr - y * r / n, yy - y * y / n, ff - f * f / n, rr - r * r / n
        correlation = np.where(of_r > 1e-12 * rr, cov / np.sqrt(of_y * of_r), 0.0)
        return cov / np.sqrt(of_y * of_f), correlation


def _averaged(curves: Float64[np.ndarray, "*G O J T"], n: int) -> Float64[np.ndarray, "*G names J T"]:
    """The mean over the random orders in place of each."""
    return np.concatenate((curves[..., :n, :, :], curves[..., n:, :, :].mean(-3, keepdims=True)), axis=-3)
