"""Pass 1, forward only: predictions and targets of every sample.

It finds the centres of all sums of pass 2 and the samples that are not fit for use.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Float64, UInt8
from torch import Tensor

from igc_dist.data import Source
from igc_dist.inputs import Inputs
from igc_dist.planning import Plan
from igc_dist.records import DataError, NonFiniteError
from igc_dist.statistics import Centre
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


@dataclass(frozen=True)
class Predicted:
    """The results of pass 1 for one fold, in fold order. `sums`: sums of the inputs fit for use, if requested."""

    weight: Float64[Tensor, " n"]
    prediction: Tensor
    target: Float64[Tensor, "n J"]
    bad: UInt8[np.ndarray, " n"]
    scores: Float64[np.ndarray, "n 2"]
    """Whether the largest of all outputs is that of the label, and the label's probability; NaN if y is not a label."""
    sums: tuple[np.ndarray, ...]

    def arrays(self, names: tuple[str, ...]) -> dict[str, np.ndarray]:
        """The arrays that the store keeps.

        These are the tables, and per output the weight and the means of the samples that are fit for use.
        """
        fine = torch.from_numpy(self.bad == 0)[:, None] & ~self.target.isnan()
        weight = torch.where(fine, self.weight[:, None], 0.0)
        total = weight.sum(0)
        means = [
            (torch.where(fine, weight * table.double(), 0.0).sum(0) / torch.where(total > 0, total, 1.0)).numpy()
            for table in (self.target, self.prediction)
        ]
        return {
            "prediction": self.prediction.numpy(),
            "target": self.target.numpy(),
            "bad": self.bad,
            "scores": self.scores,
            "means": np.stack([total.numpy(), *means])[None],
            **{f"{name}_sum": array[None] for name, array in zip(names, self.sums, strict=False)},
        }


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

    def run(self, fold: int) -> Predicted:
        """Predictions and targets of a fold.

        NaN or infinity in x or a prediction, or infinity in y, raises `NonFiniteError` with the sample's index, unless
        `skip`. Of a sample that cannot be read, and is to be left out, prediction and target are NaN.
        """
        rows = self.plan.fold(fold)
        order = self.plan.order[rows.start : rows.stop]
        size = self.plan.samples_per_batch * self.plan.points_per_batch
        predictions, encoded, bad, scores = [], [], [], []
        totals: list[np.ndarray] = []
        for batch in self.source.batches(order.tolist(), size, self.device.type == "cuda"):
            every = self.targets.encode(batch.target, self.plan.shapes.n_outputs)
            for n, fault in batch.unread.items():
                log.warning("%s is left out, it cannot be read: %s", self.source.title(int(batch.index[n])), fault)
                every[n] = torch.nan
            y = every[:, self.plan.work.outputs]
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
            r = f[:, self.plan.work.outputs]
            codes = np.where(codes > 0, codes, _codes(r, 3))
            self._refuse(codes, batch)
            if self.sums:
                fine = torch.from_numpy(codes == 0)
                part = [x.cpu()[fine].double().sum(0).numpy() for x in batch.inputs]
                totals = [a + b for a, b in zip(totals, part, strict=True)] if totals else part
            predictions.append(r)
            encoded.append(y.cpu())
            scores.append(
                scored(f, every.cpu())
                if self.targets.are_labels(batch.target, self.plan.shapes.n_outputs)
                else np.full((len(f), 2), np.nan)
            )
            bad.append(codes)
        weight = np.ones(len(order)) if self.weight is None else self.weight[order]
        tables = (torch.cat(predictions), torch.cat(encoded), np.concatenate(bad), np.concatenate(scores))
        return Predicted(torch.from_numpy(weight), *tables, tuple(totals))

    def _refuse(self, codes: UInt8[np.ndarray, " n"], batch: Batch) -> None:
        wrong = np.flatnonzero((codes > 0) & (codes != UNREAD) & (codes != NO_LABEL))
        if len(wrong) and not self.skip:
            n = int(wrong[0])
            raise NonFiniteError(
                f"sample {batch.index[n]} has {BAD[int(codes[n])]}: mend it, "
                "or set on_nonfinite=skip to leave such samples out and record them"
            )


def _codes(values: Tensor, code: int) -> UInt8[np.ndarray, " n"]:
    finite = torch.isfinite(values.reshape(len(values), -1)).all(1).cpu().numpy()
    return np.where(finite, 0, code).astype(np.uint8)


def scored(outputs: Float[Tensor, "n J"], one_hot: Float64[Tensor, "n J"]) -> Float64[np.ndarray, "n 2"]:
    """Correctness (0 or 1) and the probability of the label, from all outputs.

    Outputs are probabilities if every row is a distribution, otherwise logits. NaN where an output is not finite or the
    label is missing.
    """
    f, label = outputs.double(), one_hot.argmax(1)
    known = f.isfinite().all(1)
    probable = bool(((f >= 0).all(1) & ((f.sum(1) - 1).abs() < 1e-3) | ~known).all())
    p = (f if probable else f.softmax(1)).gather(1, label[:, None])[:, 0]
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
            "no sample is left: every one has NaN or infinity in its input, target or prediction, has weight 0, or "
            "cannot be read"
        )
    y, r = (weight * means[:, 1:]).sum(0) / np.where(total > 0, total, 1.0)
    return Centre(y=y, r=r, b=r)
