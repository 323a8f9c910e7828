"""Pass 1, forward only: a first check of model and data, then predictions and targets of every sample.

It finds the centres of all sums of pass 2 and the samples that are not fit for use.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Float64, UInt8
from torch import Tensor

from igc_dist.data import Source, input_names
from igc_dist.inputs import Inputs, Walk
from igc_dist.model import PRECISIONS, footprint, memory, passes
from igc_dist.planning import Plan
from igc_dist.records import ConfigError, DataError, ModelError, NonFiniteError, Passes, Shapes
from igc_dist.statistics import Centre
from igc_dist.targets import Targets
from igc_dist.tensors import Batch, Tensors

log = logging.getLogger(__name__)

NO_LABEL, UNREAD = 5, 6
BAD = {
    **{k: f"NaN or infinity in its {what}" for k, what in enumerate(("input", "target", "prediction", "gradient"), 1)},
    NO_LABEL: "no label in slices",
    UNREAD: "it cannot be read",
}
"""Why a sample was left out. 0: the sample is fit for use. NaN in a target means that it is missing, which is allowed.
"""


def probe(inputs: Inputs, few: Batch, device: torch.device, baselines: bool) -> Walk:
    """A walk of one sample for measuring shapes and memory; it ends where it starts, or has no baselines.

    The model is not called.
    """
    one = tuple(x[:1].nan_to_num() for x in inputs.take(few.inputs, device))
    return inputs.walk(one, tuple(x[None] for x in one) if baselines else ())


def first_look(
    inputs: Inputs,
    walk: Walk,
    few: Batch,
    n_samples: int,
    targets: Targets,
    device: torch.device,
    gradients: bool = True,
) -> Shapes:
    """Check the model on a few of the `n_samples` samples, and measure what a plan needs for walks like the probe.

    Raises `DataError` if y does not fit the outputs. Raises `ModelError` if the forward fails, is not repeatable,
    depends on other samples of the batch, or has lost its graph.
    """
    model, taken = inputs.model, inputs.take(few.inputs, device)
    try:
        y = inputs.predict(taken)
    except (ModelError, ConfigError):
        raise
    except Exception as error:
        shapes = [tuple(x.shape) for x in taken]
        raise ModelError(f"the model failed on inputs of shapes {shapes}: {type(error).__name__}: {error}") from error
    targets.select(y.shape[1])
    targets.encode(few.target, y.shape[1])
    inputs.prove(taken)
    _check_function(inputs, taken, y, gradients)
    features = inputs.features(walk)
    return Shapes(
        n_samples,
        y.shape[1],
        input_names(len(features)),
        features,
        walk.inputs[0].element_size(),
        *footprint_of(walk, _gradients(walk)),
        memory.resident(),
        raw=tuple(tuple(x.shape[1:]) for x in few.inputs),
        walk=tuple(tuple(x.shape[1:]) for x in walk.inputs),
        n_latents=model.n_latents,
    )


def _check_function(kind: Inputs, inputs: Tensors, y: Tensor, gradients: bool) -> None:
    fine = torch.isfinite(y).all(1)
    fine &= torch.stack([torch.isfinite(x.flatten(1)).all(1) if x.ndim > 1 else torch.isfinite(x) for x in inputs]).all(
        0
    )
    rows = torch.nonzero(fine)[:, 0]
    inputs, y = tuple(x[rows] for x in inputs), y[rows]
    if not len(rows):
        return
    # a batch statistic moves outputs by about their spread; rounding by 1e-3 (TF32) or 1e-2 (bf16) of their size
    half = PRECISIONS[kind.model.precision] is not None
    tolerance = (0.1 if half else 1e-6 if y.dtype == torch.float64 else 1e-2) * float(y.abs().max()) + 1e-12
    again = kind.predict(inputs)
    if float((again - y).abs().max()) > tolerance:
        raise ModelError(
            "the model gives another output each time it sees the same batch, even in eval mode: make its forward "
            "deterministic"
        )
    if len(rows) > 1:
        part = max(1, len(rows) // 2)
        alone = kind.predict(tuple(x[:part] for x in inputs))
        if float((alone - y[:part]).abs().max()) > tolerance:
            raise ModelError(
                "the model's output for a sample depends on the other samples of its batch (a BatchNorm that uses "
                "batch statistics even in "
                "eval mode, with track_running_stats=False or an overridden train()?): give it running statistics"
            )
        walk = kind.walk(inputs, ())
        if gradients and not walk.function.differentiable(walk.inputs) and float(y.std(0).max()) > 0:
            raise ModelError(
                "the outputs change with the inputs, but have lost their graph: the forward detaches them, runs "
                "under torch.no_grad(), or calls autograd.grad without create_graph=True"
            )


def _gradients(walk: Walk) -> Callable[[Tensors], None]:
    def work(points: Tensors) -> None:
        for _ in walk.function.gradients(points, [0, 0]):
            pass

    return work


def footprint_of(walk: Walk, work: Callable[[Tensors], None]) -> tuple[int, int]:
    """Bytes of `work` on points of a walk of one sample: (fixed, per row), from 2 and 4 rows."""

    def peak(n_rows: int) -> int:
        points = tuple(x.expand(n_rows, *x.shape[1:]).contiguous() for x in walk.inputs)
        device = points[0].device
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
            before = torch.cuda.memory_allocated(device)
            work(points)
            return torch.cuda.max_memory_allocated(device) - before
        return footprint.peak_of(lambda: work(points))

    peak(2)  # first calls may build caches
    two, four = peak(2), peak(4)
    row = max(0, four - two) // 2
    return max(0, two - 2 * row), row


def passes_of(walk: Walk) -> Passes:
    """The work of the model for one row, from a walk of one sample."""
    return passes(lambda: walk.function.gradients(walk.inputs, [0, 0]))


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
