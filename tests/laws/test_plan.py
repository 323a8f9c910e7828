"""Laws of the plan: shards tile the grid exactly once, by the configuration alone."""

from __future__ import annotations

import dataclasses
from dataclasses import replace
from itertools import product
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from igc_dist.planning import GIB, Limits, Plan, Work, cut, make_plan
from igc_dist.planning import plan as plans
from igc_dist.records import ConfigError, Effort, Shapes

SHAPES = Shapes(20, 4, ("x", "x1"), ((3,), (2, 2)), 4, 1000, 100, 10_000)
WORK = Work(outputs=(0, 1, 3), n_baselines=2, points=5, n_terms=3)


def plan(n: int = 20, outputs: int = 3, baselines: int = 2, seed: int = 0, **limits: Any) -> Plan:
    shapes = replace(SHAPES, n_samples=n, n_outputs=outputs)
    return make_plan(
        shapes, replace(WORK, outputs=tuple(range(outputs)), n_baselines=baselines), Limits(**limits), seed
    )


maybe = lambda most: st.none() | st.integers(1, most)  # noqa: E731
GRIDS = {
    "n": st.integers(1, 60),
    "outputs": st.integers(1, 5),
    "baselines": st.integers(1, 5),
    "n_folds": st.integers(1, 40),
    "output_block": maybe(6),
    "baseline_block": maybe(6),
    "micro_batch": maybe(40),
}


@settings(max_examples=60)
@given(**GRIDS)
def test_shards_tile_the_grid_exactly_once(n: int, outputs: int, baselines: int, **limits: Any) -> None:
    """Every (input, baseline, output) is in exactly one shard, and every sample in exactly one fold, whatever the
    sizes."""
    made = plan(n, outputs, baselines, **limits)
    seen = np.zeros((n, baselines, outputs), int)
    for number in range(made.n_shards):
        shard = made.shard(number)
        assert shard.number == number
        assert len(shard.rows)
        assert shard.rows == made.fold(shard.fold)
        rows = made.order[shard.rows.start : shard.rows.stop]
        seen[np.ix_(rows, shard.baselines, shard.outputs)] += 1
    assert (seen == 1).all()
    assert sorted(made.order) == list(range(n))
    assert sorted(row for fold in range(made.n_folds) for row in made.fold(fold)) == list(range(n))


@settings(max_examples=60)
@given(**GRIDS)
def test_within_the_wishes(n: int, outputs: int, baselines: int, **limits: Any) -> None:
    """No more folds, no larger blocks and no larger forward passes than asked for; folds are whole micro-batches but
    for the last."""
    made = plan(n, outputs, baselines, **limits)
    assert 1 <= made.n_folds <= limits["n_folds"]
    assert made.output_block <= (limits["output_block"] or outputs)
    assert made.baseline_block <= (limits["baseline_block"] or baselines)
    assert made.samples_per_batch * made.points_per_batch <= (limits["micro_batch"] or 512)
    assert made.fold_size % made.samples_per_batch == 0
    assert all(len(made.fold(fold)) == made.fold_size for fold in range(made.n_folds - 1))


@settings(max_examples=60)
@given(n=st.integers(1, 60), outputs=st.integers(1, 5), drawn=st.booleans(), n_folds=st.integers(1, 9), size=maybe(8))
def test_pieces_tile_the_folds(n: int, outputs: int, drawn: bool, n_folds: int, size: int | None) -> None:
    """Tables of 16 elements at most, or of one row: equal pieces, of which only the last of all may be smaller."""
    shapes = replace(SHAPES, n_samples=n, n_outputs=outputs)
    work = replace(WORK, outputs=tuple(range(outputs)), drawn=drawn)
    with pytest.MonkeyPatch.context() as patch:
        for module in (cut, plans):
            patch.setattr(module, "TABLE", 16)
        made = make_plan(shapes, work, Limits(n_folds=n_folds, micro_batch=size), 0)
        pieces = list(made.tables())
    assert [row for piece in pieces for row in piece.rows] == list(range(n))
    assert all(set(piece.rows) <= set(made.fold(piece.fold)) for piece in pieces)
    assert all(piece.whole == (piece.rows == made.fold(piece.fold)) for piece in pieces)
    assert {len(piece.rows) for piece in pieces[:-1]} <= {made.table_rows}
    assert made.table_rows * outputs <= 16
    assert made.fold_size % made.table_rows == 0


def test_a_million_samples_of_a_thousand_outputs_fit_into_two_gib() -> None:
    """Targets and predictions of one of 32 folds alone would take 0.5 GiB."""
    work = replace(WORK, outputs=tuple(range(1000)), n_baselines=1, n_terms=2)
    for shape in ((3,), (3, 32, 32), (3, 224, 224)):
        shapes = Shapes(1_280_000, 1000, ("x",), (shape,), 4, 10 * 2**20, 2**20, 300 * 2**20)
        made = make_plan(shapes, work, Limits(host_memory=2.0), 0)
        made.check()
        assert made.n_folds in (31, 32)


def test_costs() -> None:
    """Gradient evaluations are inputs x baselines x nodes x outputs; rows of forwards are so per block of outputs."""
    made = plan(20, 3, 2, output_block=2)
    assert made.gradient_evaluations == 20 * 2 * 5 * 3
    assert made.forwards == 20 * 2 * 5 * 2
    assert (made.summary()["gradient evaluations"], made.summary()["baselines x nodes"]) == ("600", "2 x 5")


@pytest.mark.parametrize("points", [0, 5])
def test_costs_without_gradients(points: int) -> None:
    """Forward passes alone, or not even those: no gradient is counted, and pass 1 still has its rows."""
    made = make_plan(SHAPES, replace(WORK, points=points, gradients=False), Limits(micro_batch=8), 0)
    assert (made.gradient_evaluations, made.forwards) == (0, 20 * 2 * points)
    assert made.points_per_batch >= 1
    assert made.memory()["host"] > 0
    assert (made.summary()["gradient evaluations"], made.summary()["baselines x points"]) == ("0", f"2 x {points}")


def test_order_is_seeded_and_mixes() -> None:
    """Folds are drawn by the seed: the same again, another for another seed, not the order of the data (it comes sorted
    by class)."""
    one, again, other = plan(60).order, plan(60).order, plan(60, seed=1).order
    assert (one == again).all()
    assert not (one == other).all()
    assert not (one == np.arange(60)).all()


def test_independent_of_the_world(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same plan for any number of ranks and whatever the process holds: all that it cuts comes from its
    arguments."""
    alone = plan(n_folds=4)
    for name, value in {"RANK": "1", "WORLD_SIZE": "3", "LOCAL_RANK": "1", "OMP_NUM_THREADS": "7"}.items():
        monkeypatch.setenv(name, value)
    beside = plan(n_folds=4)
    held = make_plan(replace(SHAPES, reserved_bytes=2 * GIB), replace(WORK, outputs=(0, 1, 2)), Limits(n_folds=4), 0)
    for other in (beside, held):
        assert [alone.shard(k) for k in range(alone.n_shards)] == [other.shard(k) for k in range(other.n_shards)]
        assert (alone.samples_per_batch, alone.points_per_batch) == (other.samples_per_batch, other.points_per_batch)
        assert (alone.order == other.order).all()


@given(micro_batch=maybe(40), row=st.sampled_from([100, 10**6, 10**8]))
def test_rows_fit_the_memory(micro_batch: int | None, row: int) -> None:
    """A row that costs more makes smaller micro-batches, down to one row; a wish for a micro-batch is kept whatever it
    costs."""
    shapes = replace(SHAPES, row_bytes=row)
    made = make_plan(shapes, WORK, Limits(micro_batch=micro_batch), 0)
    if micro_batch is None:
        assert made.memory()["host"] <= 4 * GIB
    assert made.samples_per_batch * made.points_per_batch >= 1


@pytest.mark.parametrize(
    ("n", "row", "rows", "fold"),
    [
        (32 * 512, 100, 512, 512),
        (200_000, 100, 3125, 6250),  # a row takes 312 bytes: at most 3,360 of them, in equal parts of a fold
        (20_000, 100, 625, 625),
        (200_000, 4000, 512, 6656),
    ],
)
def test_cheap_rows_of_large_folds_are_walked_together(n: int, row: int, rows: int, fold: int) -> None:
    """Micro-batches take a MiB, and no fold changes for it; what was 512 rows or less stays."""
    shapes = replace(SHAPES, n_samples=n, row_bytes=row)
    made = make_plan(shapes, WORK, Limits(), 0)
    assert (made.samples_per_batch, made.fold_size) == (rows, fold)
    assert make_plan(shapes, WORK, Limits(micro_batch=64), 0).samples_per_batch == 64
    assert make_plan(shapes, replace(WORK, drawn=True), Limits(), 0).samples_per_batch <= 512


def test_memory_grows_with_what_is_held() -> None:
    """The projection grows with rows, outputs, terms and features, and an accelerator carries the walk."""
    base = make_plan(SHAPES, WORK, Limits(micro_batch=8), 0).memory()["host"]
    for shapes, work in [
        (replace(SHAPES, row_bytes=10**7), WORK),
        (replace(SHAPES, fixed_bytes=10**9), WORK),
        (replace(SHAPES, features=((3000,), (2000, 2))), WORK),
        (replace(SHAPES, reserved_bytes=10**9), WORK),
        (replace(SHAPES, features=((3000,), (2000, 2))), replace(WORK, n_terms=4)),
    ]:
        more = make_plan(shapes, work, Limits(micro_batch=8), 0).memory()["host"]
        assert more > base
    device = make_plan(SHAPES, replace(WORK, on_device=True), Limits(micro_batch=8), 0).memory()["device"]
    assert 0 < device < base


def test_check_refuses_with_the_numbers() -> None:
    """A plan over its budget of host memory, device memory or disk is refused with need, budget and what to lower."""
    big = replace(SHAPES, features=((10**6,), (2, 2)), reserved_bytes=0)
    cases = [
        (WORK, {"host_memory": 0.01}),
        (replace(WORK, on_device=True), {"device_memory": 0.01}),
        (WORK, {"disk": 0.0001}),
    ]
    for work, limit in cases:
        (name, value), made = *limit.items(), make_plan(big, work, Limits(**limit), 0)  # type: ignore[misc]
        with pytest.raises(ConfigError, match=rf"plan\.{name}") as caught:
            made.check()
        assert {0.01: "10.2 MiB", 0.0001: "104.9 KiB"}[value] in str(caught.value)
        assert "GiB" in str(caught.value) or "MiB" in str(caught.value)
        assert "lower" in str(caught.value) or "take fewer" in str(caught.value)
    make_plan(SHAPES, WORK, Limits(disk=1.0), 0).check()


def test_baselines_are_cut_only_where_that_is_exact() -> None:
    """Refused under a statistic that is not linear, by its name, and under stored samples; fine else, and where the
    block holds all."""
    cut = Limits(baseline_block=1)
    with pytest.raises(ConfigError, match=r"baseline_block=1 cuts 2 baselines.*'moments' is not linear.*null"):
        make_plan(SHAPES, replace(WORK, nonlinear=("moments",)), cut, 0)
    with pytest.raises(ConfigError, match=r"baseline_block=1 with store\.samples"):
        make_plan(SHAPES, replace(WORK, samples=True), cut, 0)
    assert make_plan(SHAPES, WORK, cut, 0).n_baseline_blocks == 2
    for work in (replace(WORK, nonlinear=("moments",)), replace(WORK, samples=True)):
        assert make_plan(SHAPES, work, Limits(baseline_block=2), 0).n_baseline_blocks == 1


@pytest.mark.parametrize(
    ("name", "value"), [*product(("n_folds", "output_block", "baseline_block", "micro_batch"), (0, -3))]
)
def test_limits_below_one(name: str, value: int) -> None:
    """A wish for no folds or no rows is refused by name and value."""
    with pytest.raises(ConfigError, match=rf"plan\.{name}={value}"):
        Limits(**{name: value})


@pytest.mark.parametrize("name", ["host_memory", "device_memory", "disk"])
def test_budgets_above_zero(name: str) -> None:
    """A budget of nothing, or of NaN, is refused."""
    for value in (0.0, -1.0, float("nan")):
        with pytest.raises(ConfigError, match=rf"plan\.{name}={value}"):
            Limits(**{name: value})


@pytest.mark.parametrize(("latents", "block", "expected"), [(0, 7, 7), (3, 7, 3), (3, 2, 7), (3, 4, 6), (50, 7, 7)])
def test_gradients_through_latents(latents: int, block: int, expected: int) -> None:
    """A block of outputs takes a gradient for each of them, or for each latent if these are fewer."""
    shapes = Shapes(10, 7, ("x",), ((3,),), 4, 1000, 100, 0, n_latents=latents)
    work = Work(outputs=tuple(range(7)), n_baselines=2, points=5, n_terms=2)
    plan = make_plan(shapes, work, Limits(output_block=block), 0)
    assert plan.gradient_evaluations == 10 * 2 * 5 * expected
    assert (
        make_plan(
            shapes, dataclasses.replace(work, gradients=False), Limits(output_block=block), 0
        ).gradient_evaluations
        == 0
    )


EFFORTS = tuple(
    (name, Effort(*counts))
    for name, *counts in (("insertion", 21), ("completeness", 7, 5), ("sparseness",), ("lossy", 0, 0, 3, 0.25))
)


def test_metrics_are_counted_by_map_and_their_walks_by_sample() -> None:
    """Rows and gradients for each output; a walk as the run's own, of all baselines and points."""
    work = replace(WORK, efforts=EFFORTS)
    made = make_plan(SHAPES, work, Limits(), 0)
    rows, gradients = made.evaluations(3)
    assert made.scoring(3) == (3 * 28 + 3 * 2 * rows, 3 * 5 + 3 * 2 * gradients)
    one = make_plan(SHAPES, work, Limits(output_block=2), 0)
    assert [one.scoring(n) for n in (2, 1)] == [(2 * 28 + 3 * 2 * 5, 2 * 5 + 3 * 2 * 10), (28 + 30, 5 + 30)]
    said = one.summary()["metrics"]
    assert said == (
        f"at most {20 * (86 + 58):,} forward rows and {20 * (70 + 35):,} gradients; for a map insertion 21 forward "
        "rows, completeness 7 forward rows + 5 gradients, sparseness none, lossy 3 walks + 0.25 s on the host"
    )
    assert "metrics" not in plan().summary()
    assert plan().scoring(3) == (0, 0)
