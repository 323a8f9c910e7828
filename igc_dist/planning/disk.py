"""What the store of a plan takes on a disk, at most: bytes as a file system counts them, files and folders.

A file takes whole blocks, however little it holds, and a folder takes one too. So many small files take far more than
their bytes: the plan counts each of them. It mirrors the layout of the store (`igc_dist.store.plan_layout`), for data
that do not compress.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import ceil, prod
from typing import TYPE_CHECKING

from igc_dist.planning.limits import GIB, LARGE
from igc_dist.planning.limits import size as human
from igc_dist.planning.precision import TERMS
from igc_dist.records import ConfigError

if TYPE_CHECKING:
    from igc_dist.planning.plan import Plan

BLOCK = 4096
"""Bytes of a block: the usual size, of ext4, XFS, tmpfs and APFS."""

SCALARS = 12
"""Scalar sums of a state: `statistics.SCALAR_TERMS`."""

ENTRY = 64
"""Bytes that a file takes in its folder."""

RUN, RESULT, PART = 64 << 10, 1536, 1024
"""Bytes in the root's document: of the run itself, of each result, and of each array of the shards."""

SUMMARIES = 6
"""Results of a metric, at most, with their coordinates."""

NAME = 64
"""Bytes of the name of an output, at most for nearly all."""

OUTPUTS, RUNNING = 32, 8
"""Result arrays of outputs, and their courses over the folds; at most, apart from slices."""


SHARDS, RESULTS, SAMPLES = "states of folds", "results", "rows of samples"
WAYS = {
    SHARDS: "lower plan.n_folds, take fewer outputs or slices, or sum features by reduce=",
    RESULTS: "take fewer outputs, slices or statistics, or sum features by reduce=",
    SAMPLES: "leave store.samples and metrics off, or sum features by reduce=",
}
"""The parts of a store, and what makes each smaller."""


@dataclass(frozen=True)
class Footprint:
    """Bytes in whole blocks, files and folders."""

    size: int = 0
    files: int = 0
    folders: int = 0

    def __str__(self) -> str:
        return f"{human(self.size)} in {self.files:,} files and {self.folders:,} folders"

    def __add__(self, other: Footprint) -> Footprint:
        return Footprint(self.size + other.size, self.files + other.files, self.folders + other.folders)


def files(n: int, n_bytes: int) -> Footprint:
    """`n` files of so many bytes each before compression, which adds a little to what does not compress."""
    return Footprint(n * (ceil((n_bytes + n_bytes // 256 + 128) / BLOCK) * BLOCK + ENTRY), n)


def array(n: int, n_bytes: int) -> Footprint:
    """An array of `n` chunks: they lie in one folder, with its document."""
    return files(n, n_bytes) + files(1, 0) + Footprint(BLOCK, 0, 1)


GROUP = files(1, 0) + Footprint(BLOCK, 0, 1)
"""A group: a folder with a document."""


def footprint(plan: Plan) -> Footprint:
    """What the store takes at most."""
    return sum(parts(plan).values(), Footprint())


def parts(plan: Plan) -> dict[str, Footprint]:
    """What its parts take at most, by the names of `WAYS`."""
    found = {name: [array(*of) for of in by(plan)] for name, by in ((RESULTS, _results), (SAMPLES, _samples))}
    n_inputs, n_arrays = len(plan.shapes.input_names), sum(map(len, found.values()))
    groups = 10 + n_inputs * (1 + (plan.work.n_slices > 1) + plan.work.samples)
    layout = RUN + PART * (2 * n_inputs + 16)  # the group of the shards has a copy
    found[RESULTS] += [*[GROUP] * groups, files(1, layout + RESULT * n_arrays), files(1, layout)]
    found[SHARDS] = [*_shards(plan)]
    return {name: sum(each, Footprint()) for name, each in found.items()}


def check(plan: Plan) -> None:
    """Raise `ConfigError` if the store is over its budget of disk or files: the numbers, and what most of it is."""
    limits, whole, found = plan.limits, plan.footprint, parts(plan)
    if limits.disk is not None and whole.size > limits.disk * GIB:
        most = max(found, key=lambda name: found[name].size)
        raise ConfigError(
            f"the store needs up to {human(whole.size)} on disk, the budget plan.disk is {human(limits.disk * GIB)}: "
            f"{human(found[most].size)} of it are {most}, {WAYS[most]}, or raise the budget"
        )
    if limits.files is not None and whole.files + whole.folders > limits.files:
        most = max(found, key=lambda name: found[name].files + found[name].folders)
        raise ConfigError(
            f"the store needs up to {whole.files:,} files and {whole.folders:,} folders, the budget plan.files is "
            f"{limits.files:,}: {found[most].files:,} of the files are {most}, {WAYS[most]}, or raise the budget"
        )


def _shards(plan: Plan) -> Iterator[Footprint]:
    work, fold, n_outputs = plan.work, plan.fold_size, len(plan.work.outputs)
    tables = [8 * plan.table_rows * n_outputs] * (2 + work.each) + [plan.table_rows, 16 * plan.table_rows]
    sums = [8 * prod(shape) for shape in plan.shapes.walk] if work.sums else []
    if plan.table_rows < fold:  # a piece of a fold is an object
        yield sum((array(ceil(plan.shapes.n_samples / plan.table_rows), size) for size in tables), Footprint())
        tables = []
    yield _phase(plan.n_folds, [*tables, 24 * n_outputs, *sums])
    block, lead = plan.output_block, 8 * work.n_cells * plan.output_block
    states = [SCALARS * lead, *[work.n_terms * lead * prod(shape) for shape in plan.shapes.features]]
    notes = [16, fold, 16 * block, 8 * len(TERMS) * block]
    yield _phase(plan.n_shards, states + notes)
    if work.replicates:
        yield _phase(min(work.replicates, plan.n_folds) * plan.n_baseline_blocks * plan.n_output_blocks, states)


def _phase(n: int, chunks: list[int]) -> Footprint:
    """The shards of a phase: the small arrays of a shard are one object, the record, and a large one is one by
    itself."""
    large = [size for size in chunks if size > LARGE]
    apart = sum((array(n, size) for size in large), Footprint())
    return apart + array(n, sum(chunks) - sum(large)) + GROUP


def _results(plan: Plan) -> Iterator[tuple[int, int]]:
    """Chunks of the result arrays, and bytes of each."""
    work, n, n_outputs = plan.work, plan.shapes.n_samples, len(plan.work.outputs)
    cut, sliced = plan.finalize_outputs, work.n_slices > 1
    for shape in plan.shapes.features:
        one = 8 * cut * prod(shape)
        yield from [(ceil(n_outputs / cut), one)] * (work.n_maps + sliced)
        if sliced:
            yield from [(ceil(n_outputs / cut), work.n_slices * one)] * (work.n_maps + 1)
    yield from [(1, 64 * n_outputs)] * OUTPUTS
    yield from [(1, 8 * n_outputs * plan.n_folds)] * RUNNING
    if sliced:
        yield from [(1, 8 * n_outputs * work.n_slices)] * OUTPUTS
    yield from [(1, 8 * n)] * 6  # facts of samples
    yield 1, 8 * n * n_outputs
    yield from [(1, 64 * 32)] * 2  # names of the sums
    yield from ((1, 8 * n_outputs * prod(shape)) for shape in plan.shapes.features)  # their centres, for some methods


def _samples(plan: Plan) -> Iterator[tuple[int, int]]:
    """Chunks of the arrays of scores and attributions of samples, if they are stored, and bytes of each."""
    work, n, size = plan.work, plan.shapes.n_samples, plan.samples_per_batch
    chunks = plan.n_folds * ceil(plan.fold_size / size) * plan.n_output_blocks
    for _, _, _, points in work.scores:
        yield chunks, 8 * size * plan.output_block * max(1, len(points))
        yield from [(1, 8 * len(work.outputs) * max(1, len(points)))] * SUMMARIES
    if work.scores:
        yield chunks, size * plan.output_block
        yield 1, 8 * len(work.outputs)
    if work.each:
        yield from [(1, NAME * n * len(work.outputs))] * 2
    if not work.samples:
        return
    for shape in plan.shapes.features:
        yield chunks, size * plan.output_block * prod(shape) * plan.shapes.itemsize
    yield from [(chunks, 8 * size * plan.output_block)] * (4 if work.certified else 2)
    yield from [(1, 8 * n * len(work.outputs))] * 2
    yield 1, 8 * n
