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

import difflib
import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import numpy as np


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
    """The data set does not fit the model or the contract of `data/source.py`: exit code 3."""

    exit_code = 3


class NonFiniteError(IgcError, ValueError):
    """NaN or infinity under the policy `fail`: exit code 4."""

    exit_code = 4


class PrecisionError(IgcError, ValueError):
    """An audit found that the precision changes the results by more than is allowed: exit code 4."""

    exit_code = 4


class Stopped(IgcError, RuntimeError):  # noqa: N818 - not an error of anybody's
    """A signal asked the run to stop; the store resumes: exit code 75 (EX_TEMPFAIL).

    `interrupted`: the signal was Ctrl-C, at this rank or another.
    """

    exit_code = 75

    def __init__(self, message: str, interrupted: bool = False) -> None:
        super().__init__(message)
        self.interrupted = interrupted


class Interrupted(KeyboardInterrupt):
    """The same after Ctrl-C in Python: no `Exception`, so that ``except Exception`` in a loop does not go on."""


class Superseded(IgcError, RuntimeError):  # noqa: N818 - not an error of anybody's
    """This rank was silent for so long that another one does its shard (`igc_dist.distributed.leases`)."""


class AccuracyWarning(UserWarning):
    """A run is complete, but its numbers are not accurate: see the advice in the message."""


class PeerError(IgcError, RuntimeError):
    """Another rank failed or fell silent; `exit_code` is that rank's where it is known."""

    def __init__(self, message: str, exit_code: int = 1) -> None:
        super().__init__(message)
        self.exit_code = exit_code  # type: ignore[misc]


@contextmanager
def at(place: str) -> Iterator[None]:
    """Add to an error the place where it happened; `said` reads it.

    Errors that already have a note, and `PeerError` and `Stopped`, are not changed.
    """
    try:
        yield
    except (PeerError, Stopped):
        raise
    except Exception as error:
        if not getattr(error, "__notes__", ()):
            error.add_note(f"at {place}")
        raise


def check_asserts() -> None:
    """Raise `ConfigError` where Python leaves out asserts: zarr's reader has one that does work."""
    if sys.flags.optimize:
        raise ConfigError("python -O (PYTHONOPTIMIZE) breaks zarr, which then cannot read its stores: run without it")


def said(error: BaseException) -> str:
    """The text of an error, and where it happened."""
    return " ".join([str(error), *(f"[{note}]" for note in getattr(error, "__notes__", ()))])


def printable(value: object) -> str:
    """Text without control characters, so that a name from others cannot control a terminal or break a page."""
    text = value.decode(errors="replace") if isinstance(value, bytes) else str(value)
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text)


def shown(text: object) -> str:
    """The same for text of several lines: line feeds and tabs stay."""
    return "".join(part if part in "\n\t" else printable(part) for part in re.split(r"([\n\t])", str(text)))


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
    """The facts about data and model that a plan needs, found by a first look at them."""

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
    """Shapes of the raw inputs in the data set."""
    walk: tuple[tuple[int, ...], ...] = ()
    """Shapes of the features of a path point; empty if they equal `features`, which are folded."""
    attributed: tuple[tuple[int, ...], ...] = ()
    """Shapes of the attributions before they are reduced; empty if they equal `features`."""
    dims: tuple[tuple[str, ...], ...] = ()
    """Names of the dimensions of `features`."""
    coordinates: tuple[tuple[str, tuple[str, ...]], ...] = ()
    """Names along dimensions of all inputs that have them: those of segments."""
    complete: bool = True
    """Whether the folded features have the same sum as the features of the walk."""
    n_latents: int = 0
    """The number of latents before the final linear layer, over all positions; 0 without such a layer."""

    @property
    def raw_names(self) -> tuple[str, ...]:
        """Names of the raw inputs: those of the walk, if it has as many, else their numbers."""
        n = len(self.raw or self.walk or self.features)
        return self.input_names if n == len(self.input_names) else tuple(f"input_{i}" for i in range(n))

    @property
    def n_features(self) -> int:
        """The number of features that are folded."""
        return int(sum(np.prod(shape, dtype=np.int64) for shape in self.features))

    @property
    def n_walk(self) -> int:
        """The number of features of a path point."""
        return int(sum(np.prod(shape, dtype=np.int64) for shape in self.walk or self.features))

    @property
    def n_attributed(self) -> int:
        """The number of features of an attribution before the reduction."""
        return int(sum(np.prod(shape, dtype=np.int64) for shape in self.attributed or self.features))


@dataclass(frozen=True)
class Price:
    """The cost of the walks from one baseline to one sample.

    It counts rows of forward passes and gradients, for all outputs together and for each output. `sums`: how many more
    arrays of the size of a batch's attributions are held besides the result.
    """

    rows: int = 0
    rows_per_output: int = 0
    gradients: int = 0
    gradients_per_output: int = 0
    sums: int = 0


class Effort(NamedTuple):
    """What a metric spends on one map, at most.

    `rows` of forward passes, and `gradients` of single outputs. `walks`: how often the method goes again, for all
    outputs of a sample together. `seconds` beside the model, of one core: codecs, filling in,
    likeness of maps. Bytes: `held` for each map of a batch, `row` for each row of a forward pass beside the row itself,
    and `fixed` in any case.
    """

    rows: int = 0
    gradients: int = 0
    walks: int = 0
    seconds: float = 0.0
    held: int = 0
    row: int = 0
    fixed: int = 0


@dataclass(frozen=True)
class Tally:
    """The work for one row of a pass.

    `operators` make tensors (their number does not depend on the number of rows), with `flops` operations, and write
    `bytes`.
    """

    operators: int = 0
    flops: int = 0
    bytes: int = 0

    def __add__(self, other: Tally) -> Tally:
        return Tally(self.operators + other.operators, self.flops + other.flops, self.bytes + other.bytes)

    def __sub__(self, other: Tally) -> Tally:
        return Tally(self.operators - other.operators, self.flops - other.flops, self.bytes - other.bytes)


@dataclass(frozen=True)
class Passes:
    """The work of a forward pass of one row, and of the gradient of one output after it."""

    forward: Tally
    gradient: Tally


def near(name: str, known: Sequence[str]) -> str:
    """ " (did you mean ...?)" with the nearest name of `known`, or nothing."""
    found = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return f" (did you mean {found[0]!r}?)" if found else ""


def place_of(name: str | int, names: Sequence[str]) -> int:
    """The place of an output, by its name or its number. Raises `ConfigError`."""
    if (text := str(name)) in names:
        return names.index(text)
    if text.isdecimal() and int(text) < len(names):
        return int(text)
    raise ConfigError(
        f"output {text!r} is none of the {len(names)} of the store{near(text, names)}: give names or numbers from 0"
    )


def near_names(name: str, known: Sequence[str], most: int = 5) -> list[str]:
    """Several known names: those that contain the name, the shortest first, then those that look like it."""
    inside = sorted((each for each in known if name and name.lower() in each.lower()), key=len)
    return [*dict.fromkeys([*inside, *difflib.get_close_matches(name, known, n=most, cutoff=0.5)])][:most]
