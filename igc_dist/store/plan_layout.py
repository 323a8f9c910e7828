"""The layout that a plan asks for: the phases of its shards, with the arrays of each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from igc_dist.planning import TERMS as AUDIT_TERMS
from igc_dist.planning import Plan
from igc_dist.statistics import SCALAR_TERMS
from igc_dist.store.layout import Array, Dim, Phase, array
from igc_dist.store.record import packable


def phases_of(
    plan: Plan, terms: tuple[str, ...], float_type: str, *, sums: bool, skip: bool, replicates: int = 0
) -> list[Phase]:
    """The layout of the shard arrays of a run.

    `sums`: sums of the inputs, in pass 1; `skip`: samples that pass 2 leaves out; `replicates`: folds walked twice.
    """
    dims = _Dims(plan)
    first = _predictions(plan, dims, float_type) | (_input_sums(plan, dims) if sums else {})
    second = _states(plan, dims, terms, float_type)
    if plan.work.samples:
        second |= _tables(plan, dims)
    if plan.work.scores:
        second |= _scores(plan, dims)
    second |= _findings(plan, dims, skip)
    found = [
        _phase("predict", (plan.n_folds,), first),
        _phase("attribute", (plan.n_parts, plan.n_output_blocks), second),
    ]
    if replicates:
        found.append(_replicate(plan, second, min(replicates, plan.n_folds) * plan.n_baseline_blocks))
    return found


PREDICT, ATTRIBUTE, REPLICATE = "shards/predict", "shards/attribute", "shards/replicate"
"""Groups of the shard arrays."""


class _Dims:
    """The dimensions of the shard arrays of a plan, each named after the thing that it counts."""

    def __init__(self, plan: Plan) -> None:
        n, per = plan.shapes.n_samples, plan.fold_size // plan.samples_per_batch
        self.fold, self.row = Dim("fold", plan.n_folds, 1, 0), Dim("row", n, plan.fold_size, 0)
        # a chunk of the tables of pass 1 is a piece of a fold, which most often is the fold
        self.piece = Dim("row", n, plan.table_rows, 0, plan.fold_size // plan.table_rows)
        self.output = Dim("output", len(plan.work.outputs))
        self.part, self.block = Dim("part", plan.n_parts, 1, 0), self.output._replace(chunk=plan.output_block, axis=1)
        self.output_block = Dim("output_block", plan.n_output_blocks, 1, 1)
        # a chunk of per-sample rows is a micro-batch, so that each micro-batch is written at once
        self.sample = Dim("sample", n, plan.samples_per_batch, 0, per)
        self.cell = Dim("cell", plan.work.n_cells)


def _predictions(plan: Plan, dims: _Dims, float_type: str) -> dict[str, Array]:
    """Arrays of samples and folds that pass 1 writes."""
    own = {"explained": array(f"{PREDICT}/explained", "int64", dims.piece, dims.output)} if plan.work.each else {}
    return own | {
        "prediction": array(f"{PREDICT}/prediction", float_type, dims.piece, dims.output),
        "target": array(f"{PREDICT}/target", "float64", dims.piece, dims.output),
        "bad": array(f"{PREDICT}/bad", "uint8", dims.piece),
        "scores": array(f"{PREDICT}/scores", "float64", dims.piece, Dim("score", 2)),
        "means": array(f"{PREDICT}/means", "float64", dims.fold, Dim("table", 3), dims.output),
    }


def _input_sums(plan: Plan, dims: _Dims) -> dict[str, Array]:
    """Arrays of sums of the inputs that pass 1 writes. Inputs are not reduced. A dimension has one size in a group."""
    arrays = {}
    for name, shape in zip(plan.shapes.raw_names, plan.shapes.raw or plan.shapes.walk, strict=False):
        axes = [Dim(f"{name}_dim_{axis}", size) for axis, size in enumerate(shape)]
        arrays[f"{name}_sum"] = array(f"{PREDICT}/{name}_sum", "float64", dims.fold, *axes)
    return arrays


def _states(plan: Plan, dims: _Dims, terms: tuple[str, ...], float_type: str) -> dict[str, Array]:
    """The states that pass 2 writes, and the attributions if they are stored."""
    shapes, lead = plan.shapes, (dims.cell, dims.block)
    arrays = {
        "scalars": array(f"{ATTRIBUTE}/scalars", "float64", dims.part, Dim("scalar_term", len(SCALAR_TERMS)), *lead),
        # samples and points, which are fewer than planned if memory ran out
        "micro_batch": array(f"{ATTRIBUTE}/micro_batch", "int64", dims.part, dims.output_block, Dim("extent", 2)),
    }
    for name, shape, names in zip(shapes.input_names, shapes.features, shapes.dims, strict=True):
        features = [Dim(dim, size) for dim, size in zip(names, shape, strict=True)]
        sums = (dims.part, Dim("term", len(terms)), *lead, *features)
        arrays[name] = array(f"{ATTRIBUTE}/{name}/sums", "float64", *sums)
        if plan.work.samples:
            each = (dims.sample, dims.block, *features)
            arrays[f"{name}/attribution"] = array(f"samples/{name}/attribution", float_type, *each)
    return arrays


def _tables(plan: Plan, dims: _Dims) -> dict[str, Array]:
    """Per-sample arrays that pass 2 writes beside attributions."""
    kinds = {"prediction_baseline": "float64", "delta": "float64"}
    if plan.work.certified:
        kinds |= {"failed": "uint8", "evaluations": "int64"}
    return {name: array(f"samples/{name}", kind, dims.sample, dims.block) for name, kind in kinds.items()}


def _scores(plan: Plan, dims: _Dims) -> dict[str, Array]:
    """Scores of the metrics of each sample, which pass 2 writes, and whether its map was finite."""
    arrays = {"metrics/scored": array("samples/metrics/scored", "uint8", dims.sample, dims.block)}
    for name, _, along, axis in plan.work.scores:
        points = [Dim(along, len(axis))] if along else []
        arrays[f"metrics/{name}"] = array(f"samples/metrics/{name}", "float64", dims.sample, dims.block, *points)
    return arrays


def _findings(plan: Plan, dims: _Dims, skip: bool) -> dict[str, Array]:
    """Per-shard arrays of pass 2: the number of failed samples, the sums of the audit, and the samples left out."""
    arrays = {}
    if plan.work.certified:
        arrays["certificate"] = array(f"{ATTRIBUTE}/certificate", "int64", dims.part, Dim("count", 2), dims.block)
    if plan.work.audited:
        term = Dim("audit_term", len(AUDIT_TERMS))
        arrays["audit"] = array(f"{ATTRIBUTE}/audit", "float64", dims.part, term, dims.block)
    if skip and plan.n_baseline_blocks == 1:  # a sample is left out for all of its baselines or for none
        arrays["skipped"] = array(f"{ATTRIBUTE}/skipped", "uint8", dims.row, dims.output_block)
    return arrays


def _replicate(plan: Plan, attribute: Mapping[str, Array], n_parts: int) -> Phase:
    """The states of the first parts again, from independent draws."""
    again = {
        name: replace(
            (one := attribute[name]), path=one.path.replace(ATTRIBUTE, REPLICATE), shape=(n_parts, *one.shape[1:])
        )
        for name in ("scalars", *plan.shapes.input_names)
    }
    return _phase("replicate", (n_parts, plan.n_output_blocks), again)


def _phase(name: str, grid: tuple[int, ...], arrays: Mapping[str, Array]) -> Phase:
    return Phase(name, grid, arrays, packable(grid, arrays))
