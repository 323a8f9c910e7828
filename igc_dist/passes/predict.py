"""Pass 1, forward only: predictions and targets of every sample.

It finds the centres of all sums of pass 2 and the samples that are not fit for use.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from jaxtyping import Bool, Float, Float64, Int64, UInt8
from torch import Tensor

from igc_dist.data import UNNAMED, Filter, Source, probabilities
from igc_dist.inputs import Inputs
from igc_dist.passes.chunks import Chunks
from igc_dist.planning import Plan
from igc_dist.records import DataError, NonFiniteError
from igc_dist.statistics import Centre
from igc_dist.store import Store
from igc_dist.targets import Targets
from igc_dist.tensors import Batch

log = logging.getLogger(__name__)

NO_LABEL, UNREAD = 5, 6
BAD = {
    **{k: f"NaN or infinity in its {what}" for k, what in enumerate(("input", "target", "prediction", "gradient"), 1)},
    NO_LABEL: "no label in slices",
    UNREAD: "it cannot be read",
}
"""Why a sample was left out. 0: the sample is fit for use. NaN in a target means that it is missing, which is allowed.
"""


Write = Callable[[int, dict[str, np.ndarray]], None]
"""Receives tables of some rows (in fold order), and the number of the first of them: `prediction` and `target` (n, J),
`bad` (n,), `scores` (n, 2), which says whether the largest of all outputs is that of the label, and the label's
probability; NaN if y is not a label. If each sample has outputs of its own, `explained` (n, J) says which."""


@dataclass
class _Means:
    """Sums over the samples of a fold that are fit for use, per output: weights, weighted targets and predictions."""

    sums: Float64[Tensor, "3 J"]

    def add(self, weight: Float64[np.ndarray, " n"], tables: Mapping[str, np.ndarray]) -> None:
        """Add some rows."""
        fit, w = torch.from_numpy(tables["bad"] == 0)[:, None], torch.from_numpy(weight)[:, None]
        for cut in columns(*tables["target"].shape):
            y, r = (torch.from_numpy(tables[name][:, cut]) for name in ("target", "prediction"))
            fine = fit & ~y.isnan()
            own = torch.where(fine, w, 0.0)
            self.sums[0, cut] += own.sum(0)
            for sums, table in zip(self.sums[1:], (y, r), strict=True):
                sums[cut] += torch.where(fine, own * table.double(), 0.0).sum(0)

    def means(self) -> Float64[np.ndarray, "3 J"]:
        """The weights, and the means of targets and of predictions."""
        total = self.sums[0]
        return torch.stack([total, *(self.sums[1:] / torch.where(total > 0, total, 1.0))]).numpy()


def columns(n: int, n_outputs: int) -> Iterator[slice]:
    """Cuts of the outputs, so that a product of one cut with n rows takes 2 MiB or little more in float64.

    At multiples of 32, where torch adds up a column of a cut as it does one of the whole table.
    """
    width = max(32, 2**18 // max(n, 1) // 32 * 32)
    starts = range(0, max(1, n_outputs - 31), width)
    for start, stop in pairwise([*starts, n_outputs]):
        yield slice(start, stop)


@dataclass(frozen=True)
class Predictor:
    """The data that folds share in pass 1.

    `skip`: record samples that are not finite; `sums`: also sum the inputs.
    """

    inputs: Inputs
    source: Source
    targets: Targets
    plan: Plan
    device: torch.device
    skip: bool
    sums: bool
    weight: Float64[np.ndarray, " N"] | None = None
    """Weight of each sample of the data set."""
    unlabelled: Bool[np.ndarray, " N"] | None = None
    """Samples that are to be left out, as they have no label in slices."""
    filter: Filter | None = None

    def shard(self, store: Store, fold: int) -> dict[str, int]:
        """Predict, write and commit a fold. Returns its report: how many samples are not fit for use."""
        lost = 0

        def write(start: int, tables: dict[str, np.ndarray]) -> None:
            nonlocal lost
            for name, values in tables.items():
                store.write("predict", fold, name, values, (start,))
            lost += int((tables["bad"] > 0).sum())

        for name, values in self.run(fold, write).items():
            store.write("predict", fold, name, values)
        store.commit("predict", fold)
        return {"lost": lost}

    def run(self, fold: int, write: Write) -> dict[str, np.ndarray]:
        """Hand predictions and targets of a fold to `write`, and return the arrays of one entry for the fold.

        These are `means`, per output the weight and the means of targets and predictions, and sums of the inputs, over
        the samples that are fit for use.

        NaN or infinity in x or a prediction, or infinity in y, raises `NonFiniteError` with the sample's index, unless
        `skip`. Of a sample that cannot be read, and is to be left out, prediction and target are NaN.
        """
        rows = self.plan.fold(fold)
        places = np.arange(rows.start, rows.stop)
        if self.filter is not None and self.filter.kept is not None:
            places = places[self.filter.kept[self.plan.order[places]]]
        size = self.plan.samples_per_batch * self.plan.points_per_batch
        totals: list[np.ndarray] = []
        means = _Means(torch.zeros(3, len(self.plan.work.outputs), dtype=torch.float64))

        def add_up(start: int, tables: dict[str, np.ndarray]) -> None:
            its = self.plan.order[start : start + len(tables["bad"])]
            means.add(np.ones(len(its)) if self.weight is None else self.weight[its], tables)
            write(start, tables)

        chunks, at = Chunks(add_up, self.plan.table_rows, rows.start, rows.stop, self._unnamed), 0
        for batch in self.source.batches(self.plan.order[places].tolist(), size, self.device.type == "cuda"):
            every = self.targets.encode(batch.target, self.plan.shapes.n_outputs)
            for n, fault in batch.unread.items():
                log.warning("%s is left out, it cannot be read: %s", self.source.title(int(batch.index[n])), fault)
                every[n] = torch.nan
            y = every if self.targets.each else every[:, self.plan.work.outputs]
            codes = _codes(y.nan_to_num(posinf=torch.inf, neginf=-torch.inf), 2)
            if self.unlabelled is not None:
                codes = np.where(self.unlabelled[batch.index], np.uint8(NO_LABEL), codes)
            codes[[*batch.unread]] = UNREAD
            for x in batch.inputs:
                codes = np.where(codes > 0, codes, _codes(x, 1))
            self._refuse(codes, batch)  # before the forward, which may fail on such inputs
            f = self.inputs.predict(self.inputs.take(batch.inputs, self.device)).cpu()
            for n in batch.unread:
                f[n] = torch.nan
            picks = picked(self.targets, every.cpu(), f)
            if picks is None:
                r = f[:, self.plan.work.outputs]
            else:
                y, r = every.cpu().gather(1, picks), f.gather(1, picks)
                if self.targets.each == "own":  # without a label there is no output
                    codes = np.where(codes > 0, codes, _codes(y, 2))
            codes = np.where(codes > 0, codes, _codes(r, 3))
            self._refuse(codes, batch)
            if self.sums:
                fine = torch.from_numpy(codes == 0)
                part = [x.cpu()[fine].double().sum(0).numpy() for x in batch.inputs]
                totals = [a + b for a, b in zip(totals, part, strict=True)] if totals else part
            labelled = self._labelled(batch.target, every)
            score = scored(f, every.cpu()) if labelled else np.full((len(f), 2), np.nan)
            if self.filter is not None:
                codes = np.where(codes > 0, codes, self.filter.codes(f, score, labelled))
            tables = {"prediction": r.numpy(), "target": y.cpu().numpy(), "bad": codes, "scores": score}
            here, at = places[at : at + len(codes)], at + len(codes)
            chunks.put(here, tables if picks is None else tables | {"explained": picks.numpy()})
        chunks.fill(rows.stop)
        sums = zip(self.plan.shapes.raw_names, totals, strict=False)
        return {"means": means.means()[None], **{f"{name}_sum": array[None] for name, array in sums}}

    def _labelled(self, y: Tensor, every: Float64[Tensor, "n J"]) -> bool:
        """Whether y is a label: an integer, or a one-hot row where predictions are compared with it."""
        compared = self.filter is not None or self.targets.each is not None
        return self.targets.are_labels(y, every.shape[1]) or (compared and are_one_hot(every))

    def _unnamed(self, n: int) -> dict[str, np.ndarray]:
        """The tables of n samples that the filter does not name: they are not read."""
        nothing = np.full((n, len(self.plan.work.outputs)), np.nan)
        own = {"explained": np.zeros(nothing.shape, np.int64)} if self.targets.each else {}
        codes, scores = np.full(n, UNNAMED, np.uint8), np.full((n, 2), np.nan)
        return own | {"prediction": nothing, "target": nothing, "bad": codes, "scores": scores}

    def _refuse(self, codes: UInt8[np.ndarray, " n"], batch: Batch) -> None:
        wrong = np.flatnonzero(codes)
        wrong = wrong[(codes[wrong] != UNREAD) & (codes[wrong] != NO_LABEL)] if len(wrong) else wrong
        if len(wrong) and not self.skip:
            n = int(wrong[0])
            raise NonFiniteError(
                f"sample {batch.index[n]} has {BAD[int(codes[n])]}: mend it, "
                "or set on_nonfinite=skip to leave such samples out and record them"
            )


def _codes(values: Tensor, code: int) -> UInt8[np.ndarray, " n"]:
    finite = torch.isfinite(values)
    if bool(finite.all()):
        return np.zeros(len(values), np.uint8)
    return np.where(finite.reshape(len(values), -1).all(1).cpu().numpy(), 0, code).astype(np.uint8)


def are_one_hot(table: Float64[Tensor, "n J"]) -> bool:
    """Whether each row of several outputs has a single 1 and else 0; rows that are not finite are ignored."""
    whole = table[table.isfinite().all(1)]
    return table.shape[1] > 1 and bool(((whole == 1).sum(1) == 1).all() and (whole.count_nonzero(1) == 1).all())


def check_labels(every: Float64[Tensor, "n J"]) -> None:
    """Raise `DataError` unless targets are labels, where each sample is explained for its own."""
    if not are_one_hot(every):
        raise DataError(
            f"target=own explains each sample for its label, and y is none for a model of {every.shape[1]} outputs: "
            "give integer labels or one-hot rows, or take target=predicted"
        )


def picked(
    targets: Targets, every: Float64[Tensor, "n J"], outputs: Float[Tensor, "n J"]
) -> Int64[Tensor, "n L"] | None:
    """The outputs of its own of each sample, from its targets and its predictions; None if all have the same.

    Arbitrary for a sample without a label, or with a prediction that is not a number. Raises `DataError` if labels are
    needed, and y is none.
    """
    if targets.each is None:
        return None
    if targets.each == "own":
        check_labels(every)
        return every.argmax(1)[:, None]
    return outputs.sort(dim=1, descending=True, stable=True).indices[:, : targets.n_each].contiguous()


def scored(outputs: Float[Tensor, "n J"], one_hot: Float64[Tensor, "n J"]) -> Float64[np.ndarray, "n 2"]:
    """Correctness (0 or 1) and the probability of the label, from all outputs.

    Outputs are probabilities if every row is a distribution, otherwise logits. NaN where an output is not finite or the
    label is missing.
    """
    f, label = outputs.double(), one_hot.argmax(1)
    known = f.isfinite().all(1)
    p = probabilities(outputs).gather(1, label[:, None])[:, 0]
    both = torch.stack([(f.argmax(1) == label).double(), p], 1)
    return torch.where((known & ~one_hot.isnan().any(1))[:, None], both, torch.nan).numpy()


def centre_of(means: Float64[np.ndarray, "F 3 J"]) -> Centre:
    """The centres of pass 2 from the weights of the folds, and their means of targets and of predictions, per output.

    Baseline predictions are summed about the mean prediction, attributions about 0. The centre of an output without
    samples is 0.
    """
    weight = means[:, :1]
    total = weight.sum(0)
    if not total.any():
        raise DataError(
            "no sample is left: every one has NaN or infinity in its input, target or prediction, has weight 0, "
            "cannot be read, or is left out by the filter"
        )
    y, r = (weight * means[:, 1:]).sum(0) / np.where(total > 0, total, 1.0)
    return Centre(y=y, r=r, b=r)
