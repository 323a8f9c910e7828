"""Pass 1, forward only: a first look that checks model and data, then predictions and targets of every sample.

It finds the centres of all sums of pass 2 and the samples that are not fit for use.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float64, UInt8
from torch import Tensor

from igc_dist import footprint
from igc_dist.data import Source, input_names
from igc_dist.model import PRECISIONS, Model
from igc_dist.records import Batch, DataError, ModelError, NonFiniteError, Shapes, Tensors
from igc_dist.statistics import Centre
from igc_dist.targets import Targets

BAD = {1: "input", 2: "target", 3: "prediction", 4: "gradient"}
"""Why a sample was skipped: where NaN or infinity was found. 0 is a sample fit for use."""


def to_inputs(batch: Batch, model: Model, device: torch.device | str) -> Tensors:
    """The inputs of a batch in the run's dtype, on its device. Raises `DataError` for inputs that are not floating point."""
    for name, x in zip(input_names(len(batch.inputs)), batch.inputs, strict=True):
        if not x.is_floating_point():
            raise DataError(
                f"input {name} has type {x.dtype}: gradients need floating point; convert it in the data set (images: x.float() / 255)"
            )
    dtype = model.dtype(batch.inputs)
    return tuple(x.to(device=device, dtype=dtype, non_blocking=True) for x in batch.inputs)


def first_look(model: Model, source: Source, targets: Targets, device: torch.device) -> tuple[Shapes, int]:
    """Check model and data on a few samples, and measure what a plan needs: returns shapes and the model's number of outputs.

    Raises `DataError` if reads are not repeatable or y does not fit the outputs; `ModelError` if the forward fails, is
    not repeatable, depends on batch mates, or has lost its graph.
    """
    source.check_deterministic()
    few = source.fetch(range(min(4, len(source))))
    inputs = to_inputs(few, model, device)
    try:
        y = model.predict(inputs)
    except ModelError:
        raise
    except Exception as error:
        raise ModelError(
            f"the model failed on inputs of shapes {[tuple(x.shape) for x in inputs]}: {type(error).__name__}: {error}"
        ) from error
    targets.encode(few.target, y.shape[1])
    targets.select(y.shape[1])
    _check_function(model, inputs, y)
    fixed, row = _footprint(model, inputs, device)
    features = tuple(tuple(x.shape[1:]) for x in inputs)
    names = input_names(len(inputs))
    return Shapes(len(source), y.shape[1], names, features, inputs[0].element_size(), fixed, row, footprint.resident()), y.shape[1]


def _check_function(model: Model, inputs: Tensors, y: Tensor) -> None:
    fine = torch.isfinite(y).all(1)
    fine &= torch.stack([torch.isfinite(x.flatten(1)).all(1) if x.ndim > 1 else torch.isfinite(x) for x in inputs]).all(0)
    rows = torch.nonzero(fine)[:, 0]
    inputs, y = tuple(x[rows] for x in inputs), y[rows]
    if not len(rows):
        return
    # a batch statistic moves outputs by about their spread; rounding by 1e-3 (TF32) or 1e-2 (bf16) of their size
    half = PRECISIONS[model.precision] is not None
    tolerance = (0.1 if half else 1e-6 if y.dtype == torch.float64 else 1e-2) * float(y.abs().max()) + 1e-12
    again = model.predict(inputs)
    if float((again - y).abs().max()) > tolerance:
        raise ModelError(
            "the model gives another output each time it sees the same batch, even in eval mode: make its forward deterministic"
        )
    if len(rows) > 1:
        part = max(1, len(rows) // 2)
        alone = model.predict(tuple(x[:part] for x in inputs))
        if float((alone - y[:part]).abs().max()) > tolerance:
            raise ModelError(
                "the model's output for a sample depends on the other samples of its batch (a BatchNorm that uses batch statistics even in "
                "eval mode, with track_running_stats=False or an overridden train()?): give it running statistics"
            )
        if not model.differentiable(inputs) and float(y.std(0).max()) > 0:
            raise ModelError(
                "the outputs change with the inputs, but have lost their graph: the forward detaches them or runs under torch.no_grad()"
            )


def _footprint(model: Model, inputs: Tensors, device: torch.device) -> tuple[int, int]:
    """Bytes of a forward and backward pass: (fixed, per row), from passes of 2 and 4 rows."""

    def peak(n_rows: int) -> int:
        points = tuple(x[:1].nan_to_num().expand(n_rows, *x.shape[1:]).contiguous() for x in inputs)

        def work() -> None:
            for _ in model.gradients(points, [0, 0]):
                pass

        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
            before = torch.cuda.memory_allocated(device)
            work()
            return torch.cuda.max_memory_allocated(device) - before
        return footprint.peak_of(work)

    peak(2)  # first calls may build caches
    two, four = peak(2), peak(4)
    row = max(0, four - two) // 2
    return max(0, two - 2 * row), row


@dataclass(frozen=True)
class Predicted:
    """What pass 1 knows of one fold, in fold order. `sums` are those of the inputs that are fit for use, if asked."""

    prediction: Tensor
    target: Float64[Tensor, "n J"]
    bad: UInt8[np.ndarray, " n"]
    sums: tuple[np.ndarray, ...]

    def arrays(self, names: tuple[str, ...]) -> dict[str, np.ndarray]:
        """What the store keeps of it: the tables, and count and means of the samples that are fit for use."""
        fine = torch.from_numpy(self.bad == 0)
        count = int(fine.sum())
        means = [(table.double()[fine].sum(0) / max(count, 1)).numpy() for table in (self.target, self.prediction)]
        return {
            "prediction": self.prediction.numpy(),
            "target": self.target.numpy(),
            "bad": self.bad,
            "count": np.asarray([count]),
            "means": np.stack(means)[None],
            **{f"{name}_sum": array[None] for name, array in zip(names, self.sums, strict=False)},
        }


def predict_fold(
    model: Model,
    source: Source,
    targets: Targets,
    chosen: list[int],
    index: np.ndarray,
    rows: int,
    device: torch.device,
    *,
    skip: bool,
    sums: bool,
) -> Predicted:
    """Predictions and targets of the samples at `index`, `rows` at a time.

    NaN or infinity in x, y or a prediction raises `NonFiniteError` with the sample's index, or is recorded if `skip`.
    """
    predictions, encoded, bad = [], [], []
    totals: list[np.ndarray] = []
    for batch in source.batches(index.tolist(), rows):
        inputs = to_inputs(batch, model, device)
        full = model.predict(inputs)
        y = targets.encode(batch.target, full.shape[1])[:, chosen]
        r = full[:, chosen].cpu()
        codes = _codes(batch.inputs, y, r)
        if codes.any() and not skip:
            n = int(np.flatnonzero(codes)[0])
            raise NonFiniteError(
                f"sample {batch.index[n]} has NaN or infinity in its {BAD[int(codes[n])]}: mend it, "
                "or set on_nonfinite=skip to leave such samples out and record them"
            )
        if sums:
            fine = torch.from_numpy(codes == 0)
            part = [x[fine].double().sum(0).numpy() for x in batch.inputs]
            totals = [a + b for a, b in zip(totals, part, strict=True)] if totals else part
        predictions.append(r)
        encoded.append(y)
        bad.append(codes)
    return Predicted(torch.cat(predictions), torch.cat(encoded), np.concatenate(bad), tuple(totals))


def _codes(inputs: Tensors, y: Tensor, r: Tensor) -> UInt8[np.ndarray, " n"]:
    def broken(values: Tensor) -> np.ndarray:
        return ~torch.isfinite(values.reshape(len(values), -1)).all(1).numpy()

    codes = np.where(broken(r), 3, 0)
    codes = np.where(broken(y), 2, codes)
    for x in inputs:
        codes = np.where(broken(x), 1, codes)
    return codes.astype(np.uint8)


def centre_of(counts: np.ndarray, means: np.ndarray) -> Centre:
    """The centres of pass 2 from the folds' counts (F,) and means (F, 2, J): means of targets and of predictions.

    Baseline predictions are summed about the mean prediction, attributions about 0.
    """
    total = counts.sum()
    if not total:
        raise DataError("no sample is left: every one has NaN or infinity in its input, target or prediction")
    y, r = (counts[:, None, None] * means).sum(0) / total
    return Centre(y=y, r=r, b=r)
