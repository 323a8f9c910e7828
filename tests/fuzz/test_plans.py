"""Plans of any sizes and limits, and the layouts of their stores: every chunk has one writer, and only `ConfigError` is
raised."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import asdict, replace
from math import prod
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from igc_dist.planning import Limits, Plan, Work, make_plan
from igc_dist.records import ConfigError, Shapes
from igc_dist.store import Phase, check_root, phases_of

SMALL = (
    Shapes(20, 4, ("x",), ((3,),), 4, 1000, 100, 10_000),
    Work(outputs=(0, 1, 3), n_baselines=2, points=5, n_terms=3),
)

maybe = lambda most: st.none() | st.integers(1, most)  # noqa: E731
Grid = tuple[dict[str, Any], dict[str, Any]]
"""What `Shapes` and `Work` are made of: not they themselves, as the checks of their types are random, which a strategy
may not be."""

extents = st.lists(st.integers(1, 4), min_size=1, max_size=3).map(tuple)
sizes = st.integers(0, 10**4) | st.integers(0, 2**50)
limits = st.builds(
    Limits,
    n_folds=st.integers(2, 8) | st.integers(1, 40),
    output_block=maybe(6),
    baseline_block=st.none() | maybe(6),
    micro_batch=st.integers(2, 6) | maybe(40),
    host_memory=st.floats(1e-3, 1e3),
    device_memory=st.floats(1e-3, 1e3),
    disk=st.none() | st.floats(1e-6, 1e3),
)


@st.composite
def asked(draw: st.DrawFn) -> Grid:
    """What the data, the model and the method are like, whatever goes together."""
    features = tuple(draw(st.lists(extents, min_size=1, max_size=3)))
    walk = features if draw(st.booleans()) else tuple(draw(extents) for _ in features)
    names = tuple(f"x{number or ''}" for number in range(len(features)))
    shapes = {
        "n_samples": draw(st.integers(20, 60) | st.integers(1, 60)),
        "n_outputs": 5,
        "input_names": names,
        "features": features,
        "itemsize": draw(st.sampled_from([2, 4, 8])),
        **{f"{name}_bytes": draw(sizes) for name in ("fixed", "row", "reserved")},
        "walk": walk,
        "dims": tuple(
            tuple(f"{name}_{axis}" for axis in range(len(shape))) for name, shape in zip(names, features, strict=True)
        ),
        "n_latents": draw(st.integers(0, 3)),
    }
    flags = (
        "gradients",
        "samples",
        "on_device",
        "in_memory",
        "ahead",
        "shared",
        "reduced",
        "audited",
        "free",
        "certified",
    )
    pairs = draw(st.booleans()) and draw(st.booleans())
    work = {
        "outputs": tuple(sorted(draw(st.sets(st.integers(0, 4), min_size=1)))),
        "n_baselines": draw(st.integers(1, 5)),
        "points": draw(st.integers(0, 40)),
        "n_terms": draw(st.integers(1, 8)),
        "n_cells": draw(st.sampled_from([1, 1, 4])),
        "nonlinear": draw(st.sampled_from([(), (), ("moments",)])),
        "pairs": pairs,
        "drawn": pairs,
        **{flag: draw(st.booleans()) for flag in flags},
    }
    work["samples"] &= not pairs  # which have no attributions of samples: a job refuses both
    return shapes, work


def made(shapes: Shapes, work: Work, wish: Limits) -> Plan | None:
    """The plan, None if it is refused."""
    try:
        return make_plan(shapes, work, wish, 0)
    except ConfigError as error:
        assert "plan.baseline_block" in str(error)  # noqa: PT017 - what else can be refused before a look at the budget
        return None


def laid(plan: Plan, sums: bool, skip: bool, replicates: int) -> list[Phase]:
    terms = tuple("abcdefgh"[: plan.work.n_terms])
    return phases_of(plan, terms, "float32", sums=sums, skip=skip, replicates=replicates)


def check(grid: Grid, wish: Limits, sums: bool, skip: bool, replicates: int) -> None:
    plan = made(Shapes(**grid[0]), Work(**grid[1]), wish)
    if plan is None:
        return
    # shards tile the grid; the numbers of shards are those of the phase
    cells = Counter(
        (row, baseline, output)
        for shard in map(plan.shard, range(plan.n_shards))
        for row in plan.order[shard.rows.start : shard.rows.stop]
        for baseline in shard.baselines
        for output in shard.outputs
    )
    assert len(cells) == plan.shapes.n_samples * plan.work.n_baselines * len(plan.work.outputs)
    assert {*cells.values()} == {1}
    found = laid(plan, sums, skip, replicates)
    assert [len(phase) for phase in found[:2]] == [plan.n_folds, plan.n_shards]
    # one writer per chunk, and every chunk of every array has one
    writers = Counter(
        key for phase in found for n in range(len(phase)) for key in (*phase.keys(n), phase.digest_key(n))
    )
    assert {*writers.values()} == {1}
    for phase in found:
        for array in phase.every:
            n_chunks = prod(-(-size // chunk) for size, chunk in zip(array.shape, array.chunks, strict=True))
            assert sum(key.startswith(f"{array.path}/c.") for key in writers) == n_chunks, array.path
            inside = [{*range(cut.start, cut.stop)} for cut in array.region(phase.cell(len(phase) - 1))]
            assert all(rows and max(rows) < size for rows, size in zip(inside, array.shape, strict=True))
    # as it is kept, and as it is read again, from whoever wrote it
    document = {"spec": {}, "spec_hash": "", "layout": json.loads(json.dumps([asdict(phase) for phase in found]))}
    check_root(document, "here")
    assert [Phase.read(phase) for phase in document["layout"]] == found
    # costs are whole numbers of bytes, more is never cheaper, and a plan over its budget says so
    memory = plan.memory()
    assert all(
        isinstance(bytes_, int) and bytes_ >= 0 for bytes_ in (*memory.values(), plan.disk(), plan.gradient_evaluations)
    )
    for more in _more(plan):
        # an output costs no less; where fewer are then finalised at a time, all of them may hold less
        assert more._finalize_bytes() >= plan._finalize_bytes()
        assert more.finalize_outputs <= plan.finalize_outputs
        assert more.memory()["host"] >= memory["host"] or more.finalize_outputs < plan.finalize_outputs
        assert more.memory()["device"] >= memory["device"]
        assert more.disk() >= plan.disk()
    assert all(isinstance(value, str) for value in plan.summary().values())
    try:
        plan.check()
    except ConfigError as error:
        assert "budget plan." in str(error)  # noqa: PT017


def _more(plan: Plan) -> list[Plan]:
    """The same cut of larger problems."""
    shapes, work = plan.shapes, plan.work
    return [
        replace(plan, shapes=replace(shapes, row_bytes=2 * shapes.row_bytes + 1)),
        replace(
            plan,
            shapes=replace(shapes, fixed_bytes=shapes.fixed_bytes + 10**6, reserved_bytes=shapes.reserved_bytes + 1),
        ),
        replace(plan, shapes=replace(shapes, features=tuple((*shape, 3) for shape in shapes.features))),
        replace(plan, work=replace(work, n_terms=work.n_terms + 1)),
        replace(plan, work=replace(work, samples=True)),
    ]


SWITCHES: dict[str, Any] = {"sums": st.booleans(), "skip": st.booleans(), "replicates": st.integers(0, 3)}


@settings(max_examples=30)
@given(grid=asked(), wish=limits, **SWITCHES)
def test_any_plan(grid: Grid, wish: Limits, sums: bool, skip: bool, replicates: int) -> None:
    check(grid, wish, sums, skip, replicates)


@pytest.mark.slow
@pytest.mark.timeout(600)
@settings(max_examples=3000)
@given(grid=asked(), wish=limits, **SWITCHES)
def test_many_plans(grid: Grid, wish: Limits, sums: bool, skip: bool, replicates: int) -> None:
    check(grid, wish, sums, skip, replicates)


NUMBERS = {
    "n_folds": int,
    "output_block": int,
    "baseline_block": int,
    "micro_batch": int,
    "host_memory": float,
    "disk": float,
}


@settings(max_examples=60)
@given(name=st.sampled_from([*NUMBERS]), whole=st.integers(-(10**30), 10**30), real=st.floats())
def test_any_limit(name: str, whole: int, real: float) -> None:
    """A number is taken, or refused by its name."""
    value = whole if NUMBERS[name] is int else real
    try:
        made = Limits(**{name: value})
    except ConfigError as error:
        assert f"plan.{name}={value!r}" in str(error)  # noqa: PT017
        assert not value >= 1
    else:
        assert getattr(made, name) > 0
        assert make_plan(*SMALL, made, 0).n_shards > 0
