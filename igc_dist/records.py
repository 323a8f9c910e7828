"""Types that cross two or more stages, and the shape legend of the whole package.

Shape legend (suffixes of array names and dimension names in annotations):

    N  samples of the data set          n  samples of one micro-batch
    F  folds of the samples             G  folds that hold samples (jackknife groups)
    B  baselines per sample             K  nodes of the quadrature
    c  path points of one micro-batch   J  outputs of one block (or all selected outputs)
    *P feature shape of one input       T  terms of a state (see `statistics/state.py`)
    *Q the same, reduced (`features`)

A forward pass of the walk has ``c * n`` rows; a gradient evaluation is one row, one output.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import numpy as np
import torch
from jaxtyping import Float, Float64, Int64, UInt8
from torch import Tensor

Tensors = tuple[Tensor, ...]
"""One tensor per input of the model, batch dimension first."""


class IgcError(Exception):
    """Base of the errors that end a run with a documented exit code."""

    exit_code: ClassVar[int] = 1


class ConfigError(IgcError, ValueError):
    """A setting cannot be used: exit code 2."""

    exit_code = 2


class StoreError(IgcError, ValueError):
    """A store is damaged, taken by another spec, or cannot be written: exit code 2."""

    exit_code = 2


class ModelError(IgcError, ValueError):
    """The model cannot be attributed as given: exit code 3."""

    exit_code = 3


class DataError(IgcError, ValueError):
    """The data set does not fit the model or the contract of `data.py`: exit code 3."""

    exit_code = 3


class NonFiniteError(IgcError, ValueError):
    """NaN or infinity under the policy `fail`: exit code 4."""

    exit_code = 4


class PrecisionError(IgcError, ValueError):
    """An audit found that the precision changes the results by more than is allowed: exit code 4."""

    exit_code = 4


class Stopped(IgcError, RuntimeError):  # noqa: N818 - not an error of anybody's
    """A signal asked the run to stop; the store resumes: exit code 75 (EX_TEMPFAIL)."""

    exit_code = 75


class Superseded(IgcError, RuntimeError):  # noqa: N818 - not an error of anybody's
    """This rank was silent for so long that another one does its shard (`igc_dist.leases`)."""


class PeerError(IgcError, RuntimeError):
    """Another rank failed or fell silent; `exit_code` is that rank's where it is known."""

    def __init__(self, message: str, exit_code: int = 1) -> None:
        super().__init__(message)
        self.exit_code = exit_code  # type: ignore[misc]


@dataclass(frozen=True)
class Batch:
    """Samples of the data set with their global indices; targets are raw, as the data set gave them."""

    index: Int64[np.ndarray, " n"]
    inputs: Tensors
    target: Tensor


@dataclass(frozen=True)
class Attribution:
    """What the engine hands to statistics: one micro-batch of attributions, averaged over baselines.

    `values[i]` is (n, J, *P_i). `weight` is 0 for a sample that is masked for an output; otherwise it is the sample's
    weight times `share`, the fraction of the baselines in this block, so that blocks of baselines add up to the whole.
    `cell`: which cell of the data set a sample belongs to, per output.
    """

    values: Tensors
    target: Float64[Tensor, "n J"]
    prediction: Float64[Tensor, "n J"]
    baseline_prediction: Float64[Tensor, "n J"]
    weight: Float64[Tensor, "n J"]
    share: float = 1.0
    cell: Int64[Tensor, "n J"] | None = None
    unreduced: Float64[Tensor, "n J"] | None = None
    """What the features summed to before they were reduced: a free function need not preserve it."""
    baseline: Tensors | None = None
    """The mean baseline of each sample, (n, *P_i), if a statistic asks for it."""
    failed: UInt8[np.ndarray, "n J"] | None = None
    """1 where an attributor that aims at a tolerance did not reach it."""
    evaluations: Int64[np.ndarray, "n J"] | None = None
    """Gradients that it took."""

    def total(self) -> Float[Tensor, "n J"]:
        """The sum over all features of all inputs, in float64."""
        # an output at a time, in one buffer: small results carved out of the holes that big copies leave would scatter the heap
        total = torch.zeros_like(self.target)
        for value in self.values:
            a = torch.empty_like(value[:, 0], dtype=total.dtype, memory_format=torch.contiguous_format)
            for j in range(value.shape[1]):
                total[:, j] += a.copy_(value[:, j]).reshape(len(a), a[:1].numel()).sum(1)
        return total

    @cached_property
    def delta(self) -> Float[Tensor, "n J"]:
        """Completeness residual of each sample, ``sum_i a_i - (f(x) - mean_b f(x0_b))``, in float64, of the features before reduction."""
        total = self.total() if self.unreduced is None else self.unreduced
        return total - (self.prediction - self.baseline_prediction)


@contextmanager
def at(place: str) -> Iterator[None]:
    """Note on an error where it happened, unless it says so itself or is about something outside; `said` reads it."""
    try:
        yield
    except (PeerError, Stopped):
        raise
    except Exception as error:
        if not getattr(error, "__notes__", ()):
            error.add_note(f"at {place}")
        raise


def said(error: BaseException) -> str:
    """The text of an error and where it happened."""
    return " ".join([str(error), *(f"[{note}]" for note in getattr(error, "__notes__", ()))])


@dataclass(frozen=True)
class Shard:
    """The unit of work, of commit and of retry: (fold of inputs) x (block of baselines) x (block of outputs).

    `rows` are positions in fold order (see `Plan.order`); `baselines` and `outputs` are ranges of positions among
    the baselines of a sample and among the selected outputs.
    """

    number: int
    fold: int
    rows: range
    baseline_block: int
    baselines: range
    output_block: int
    outputs: range

    def __str__(self) -> str:
        return (
            f"shard {self.number} (fold {self.fold}, baselines {self.baselines.start}-{self.baselines.stop - 1}, "
            f"outputs {self.outputs.start}-{self.outputs.stop - 1})"
        )


@dataclass(frozen=True)
class Shapes:
    """What a first look at the data and the model tells: everything that a plan needs to know of them."""

    n_samples: int
    n_outputs: int
    input_names: tuple[str, ...]
    features: tuple[tuple[int, ...], ...]
    itemsize: int
    """Bytes of one element of a path point."""
    fixed_bytes: int
    """Memory of one forward and backward pass that does not grow with its rows."""
    row_bytes: int
    """Memory of one forward and backward pass for each row."""
    reserved_bytes: int
    """Memory that the process holds before the run: interpreter, libraries, weights."""
    raw: tuple[tuple[int, ...], ...] = ()
    """Shapes of the inputs as the data set gives them."""
    walk: tuple[tuple[int, ...], ...] = ()
    """Shapes of the features of a path point; empty if they are those that are folded, `features`."""
    attributed: tuple[tuple[int, ...], ...] = ()
    """Shapes of the attributions before they are reduced, likewise."""
    dims: tuple[tuple[str, ...], ...] = ()
    """Names of the dimensions of `features`."""
    complete: bool = True
    """Whether the features that are folded add up to what those of the walk add up to."""
    n_latents: int = 0
    """Latents before the final linear layer, of all positions; 0 without one."""

    @property
    def n_features(self) -> int:
        """Features that are folded."""
        return int(sum(np.prod(shape, dtype=np.int64) for shape in self.features))

    @property
    def n_walk(self) -> int:
        """Features of a path point."""
        return int(sum(np.prod(shape, dtype=np.int64) for shape in self.walk or self.features))

    @property
    def n_attributed(self) -> int:
        """Features of an attribution before they are reduced."""
        return int(sum(np.prod(shape, dtype=np.int64) for shape in self.attributed or self.features))
