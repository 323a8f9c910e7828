"""The layout of a store, as data: which arrays there are, how they are cut into chunks, and which shard writes which.

Every chunk has one writer.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import product
from math import prod
from typing import Any, NamedTuple

from igc_dist.audit import TERMS as AUDIT_TERMS
from igc_dist.plan import Plan
from igc_dist.statistics.state import SCALAR_TERMS

DIGEST = 32
"""Bytes of a shard's digest, a SHA-256."""


@dataclass(frozen=True)
class Array:
    """An array of the layout, as data.

    For arrays that shards write, `axes` names per dimension the axis of the shard grid that cuts it (None: not cut), and
    `per` the number of chunks of one cell along it; so a chunk belongs to one shard.
    """

    path: str
    shape: tuple[int, ...]
    chunks: tuple[int, ...]
    dtype: str
    dims: tuple[str, ...]
    axes: tuple[int | None, ...] = ()
    per: tuple[int, ...] = ()

    def box(self, cell: tuple[int, ...]) -> list[range]:
        """Chunks of a shard, as a range per dimension of the chunk grid."""
        ranges = []
        for size, chunk, axis, per in zip(self.shape, self.chunks, self.axes, self.per, strict=True):
            whole = range(-(-size // chunk))
            ranges.append(whole if axis is None else whole[cell[axis] * per : (cell[axis] + 1) * per])
        return ranges

    def region(self, cell: tuple[int, ...]) -> tuple[slice, ...]:
        """Elements of a shard."""
        box = zip(self.box(cell), self.chunks, self.shape, strict=True)
        return tuple(slice(r.start * chunk, min(r.stop * chunk, size)) for r, chunk, size in box)

    def keys(self, cell: tuple[int, ...]) -> list[str]:
        """Object keys of a shard's chunks."""
        return ["/".join([self.path, "c", *map(str, at)]) for at in product(*self.box(cell))]


@dataclass(frozen=True)
class Phase:
    """A family of shards, as data: its grid and the arrays that each shard writes a cell of."""

    name: str
    grid: tuple[int, ...]
    arrays: Mapping[str, Array]

    @cached_property
    def digest(self) -> Array:
        dims = ("fold",) if len(self.grid) == 1 else ("part", "output_block")
        if any(array.dims[0] == dims[0] and array.shape[0] != self.grid[0] for array in self.arrays.values()):
            dims = ("whole", *dims[1:])  # many folds are one shard (`folded`)
        ones = (1,) * len(self.grid)
        shape, axes = (*self.grid, DIGEST), (*range(len(self.grid)), None)
        return Array(f"shards/{self.name}/digest", shape, (*ones, DIGEST), "uint8", (*dims, "byte"), axes, (*ones, 1))

    def cell(self, number: int) -> tuple[int, ...]:
        """Position of a shard in the grid; the last of two axes is the output block, which numbers vary slowest."""
        return (number,) if len(self.grid) == 1 else (number % self.grid[0], number // self.grid[0])

    def numbers(self, upto: int | None = None) -> list[int]:
        """Numbers of all shards, or of those in the first parts of the grid."""
        return [number for number in range(len(self)) if upto is None or self.cell(number)[0] < upto]

    def keys(self, number: int) -> list[str]:
        """Object keys of a shard's chunks, in fixed order."""
        return [key for _, array in sorted(self.arrays.items()) for key in array.keys(self.cell(number))]

    def digest_key(self, number: int) -> str:
        """Object key of a shard's digest."""
        return self.digest.keys(self.cell(number))[0]

    def __len__(self) -> int:
        return prod(self.grid)

    @staticmethod
    def read(document: Mapping[str, Any]) -> Phase:
        """A phase from its JSON form, as kept in the root document."""

        def frozen(value: Any) -> Any:
            return tuple(value) if isinstance(value, list) else value

        arrays = {name: Array(**{key: frozen(value) for key, value in array.items()}) for name, array in document["arrays"].items()}
        return Phase(document["name"], tuple(document["grid"]), arrays)


class Dim(NamedTuple):
    """A dimension: name, size, chunk (None: one), the axis of the shard grid that cuts it, and chunks per cell."""

    name: str
    size: int
    chunk: int | None = None
    axis: int | None = None
    per: int = 1


def array(path: str, dtype: str, *dims: Dim) -> Array:
    """An array from its dimensions."""
    names, sizes, chunks, axes, per = zip(*dims, strict=True)
    cuts = tuple(size if chunk is None else chunk for size, chunk in zip(sizes, chunks, strict=True))
    return Array(path, sizes, cuts, dtype, names, axes, per)


def phases(plan: Plan, terms: tuple[str, ...], float_type: str, *, sums: bool, skip: bool, replicates: int = 0) -> list[Phase]:
    """The layout of the shard arrays of a run.

    `sums`: of the inputs, in pass 1; `skip`: samples left out in pass 2; `replicates`: folds that are walked twice.
    """
    n, shapes, here, there = plan.shapes.n_samples, plan.shapes, "shards/predict", "shards/attribute"
    fold, row, every = Dim("fold", plan.n_folds, 1, 0), Dim("row", n, plan.fold_size, 0), Dim("output", len(plan.work.outputs))
    part, block = Dim("part", plan.n_parts, 1, 0), every._replace(chunk=plan.output_block, axis=1)
    # a chunk of per-sample rows is a micro-batch, so that rows are written as they come
    sample = Dim("sample", n, plan.samples_per_batch, 0, plan.fold_size // plan.samples_per_batch)
    first = {
        "prediction": array(f"{here}/prediction", float_type, row, every),
        "target": array(f"{here}/target", "float64", row, every),
        "bad": array(f"{here}/bad", "uint8", row),
        "scores": array(f"{here}/scores", "float64", row, Dim("score", 2)),
        "means": array(f"{here}/means", "float64", fold, Dim("table", 3), every),
    }
    cell = Dim("cell", plan.work.n_cells)
    second = {"scalars": array(f"{there}/scalars", "float64", part, Dim("scalar_term", len(SCALAR_TERMS)), cell, block)}
    # samples and points: smaller than planned where memory ran out
    second["micro_batch"] = array(f"{there}/micro_batch", "int64", part, Dim("output_block", plan.n_output_blocks, 1, 1), Dim("extent", 2))
    for name, shape, dims, raw in zip(shapes.input_names, shapes.features, shapes.dims, shapes.walk, strict=True):
        features = [Dim(dim, size) for dim, size in zip(dims, shape, strict=True)]
        if sums:
            # inputs are not reduced; and all are in one group, where a dimension has one size
            axes = [Dim(f"{name}_dim_{axis}", size) for axis, size in enumerate(raw)]
            first[f"{name}_sum"] = array(f"{here}/{name}_sum", "float64", fold, *axes)
        second[name] = array(f"{there}/{name}/sums", "float64", part, Dim("term", len(terms)), cell, block, *features)
        if plan.work.samples:
            second[f"{name}/attribution"] = array(f"samples/{name}/attribution", float_type, sample, block, *features)
    if plan.work.samples:
        second |= {name: array(f"samples/{name}", "float64", sample, block) for name in ("prediction_baseline", "delta")}
        if plan.work.certified:
            second |= {"failed": array("samples/failed", "uint8", sample, block)}
            second |= {"evaluations": array("samples/evaluations", "int64", sample, block)}
    if plan.work.certified:
        second["certificate"] = array(f"{there}/certificate", "int64", part, Dim("count", 2), block)
    if plan.work.audited:
        second["audit"] = array(f"{there}/audit", "float64", part, Dim("audit_term", len(AUDIT_TERMS)), block)
    if skip and plan.n_baseline_blocks == 1:  # no sample is left out for a part of its baselines
        second["skipped"] = array(f"{there}/skipped", "uint8", row, Dim("output_block", plan.n_output_blocks, 1, 1))
    found = [Phase("predict", (plan.n_folds,), first), Phase("attribute", (plan.n_parts, plan.n_output_blocks), second)]
    if replicates:
        n_parts = min(replicates, plan.n_folds) * plan.n_baseline_blocks
        again = {
            name: replace(second[name], path=second[name].path.replace(there, "shards/replicate"), shape=(n_parts, *second[name].shape[1:]))
            for name in ("scalars", *shapes.input_names)
        }
        found.append(Phase("replicate", (n_parts, plan.n_output_blocks), again))
    return found
