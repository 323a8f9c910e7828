"""Laws of the outlook: claims are simulated as ranks make them; costs add up; the first bottleneck is the one that was
made."""

from __future__ import annotations

import time
from dataclasses import fields, replace
from functools import partial
from math import inf
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from igc_dist.distributed import claims, joined
from igc_dist.job import modes
from igc_dist.planning import (
    Limits,
    Machine,
    Outlook,
    Plan,
    Rates,
    Work,
    advised,
    make_plan,
    outlook_of,
    page_cost,
    scheduled,
    shard_cost,
    told,
)
from igc_dist.records import ConfigError, Effort, Passes, Shapes, Tally
from igc_dist.report import evidence, figures, rows, samples
from tests.ranks import run_ranks, values

SHAPES = Shapes(6400, 100, ("x",), ((3, 32, 32),), 4, 1000, 100_000, 2**28)
PASSES = Passes(Tally(50, 10**9, 10**6), Tally(60, 10**9, 10**6))
FREE = Machine(
    **{
        one.name: inf if one.name in ("traffic", "encode", "decode", "disk", "bandwidth") else 0.0
        for one in fields(Machine)
    }
    | {"flops": 7e10}
)
"""Of which only arithmetic takes time."""


def plan(outputs: int = 100, n_steps: int = 16, n: int = 6400, **limits: Any) -> Plan:
    work = Work(outputs=tuple(range(outputs)), n_baselines=1, points=n_steps, n_terms=2)
    return make_plan(
        replace(SHAPES, n_samples=n), work, Limits(**{"host_memory": 16.0, "micro_batch": 50, **limits}), 0
    )


def test_metrics_take_the_time_of_what_they_ask_for() -> None:
    """As long as a walk for each of their walks; forward rows and gradients of a map as any other."""
    plain = plan(outputs=3)
    scored = replace(plain, work=replace(plain.work, efforts=(("lossy", Effort(walks=3)),)))
    rows = replace(plain, work=replace(plain.work, efforts=(("some", Effort(16, 16)),)))
    both = (("sic", Effort(seconds=0.5)), ("png", Effort(seconds=1.0)))
    host = replace(plain, work=replace(plain.work, efforts=both))
    one, four, other, codecs = (
        shard_cost.ShardCost(each, PASSES, FREE).walk(50, 1, 3)[0] for each in (plain, scored, rows, host)
    )
    assert four == pytest.approx(4 * one)
    assert codecs == pytest.approx(one + 50 * 3 * 1.5)
    assert other == pytest.approx(2 * one + 50 * 2 * 16 * PASSES.forward.flops / FREE.flops)


@settings(deadline=None)
@given(seconds=st.lists(st.floats(0, 1e3), max_size=60), ranks=st.integers(1, 40))
def test_list_scheduling_keeps_its_bounds(seconds: list[float], ranks: int) -> None:
    """The makespan is at least the mean load and the longest shard, and at most their sum."""
    found = scheduled(seconds, ranks)
    mean, longest = sum(seconds) / ranks, max(seconds, default=0.0)
    assert max(mean, longest) <= found.seconds * (1 + 1e-12)
    assert found.seconds <= (mean + longest) * (1 + 1e-12)
    assert sum(found.shards) == len(seconds)
    assert sum(found.busy) == pytest.approx(sum(seconds))
    assert 0 <= found.used <= 1 + 1e-12


PAUSES = [0.2, *[0.03] * 12, 0.15, *[0.02] * 8, 0.1]


def pause(number: int) -> bool:
    time.sleep(PAUSES[number])
    return True


def claimed() -> tuple[float, list[int]]:
    """The seconds that a rank was at work, and what it claimed."""
    with joined(threads=1, timeout=30) as world:
        world.meet("start of the clock")
        began, mine = time.monotonic(), []
        for claim in claims(world, "test", range(len(PAUSES))):
            claim.do(partial(pause, claim.number))
            mine.append(claim.number)
        return time.monotonic() - began, mine


@pytest.mark.dist
def test_ranks_claim_as_it_is_simulated() -> None:
    """Shards that sleep, on two ranks: the last is done when the simulation says so. To meet takes 0.05 s."""
    found = values(run_ranks(2, claimed))
    expected = scheduled(PAUSES, 2)
    assert sorted(number for _, mine in found for number in mine) == list(range(len(PAUSES)))
    assert max(seconds for seconds, _ in found) == pytest.approx(expected.seconds, abs=0.25)


def test_arithmetic_adds_up() -> None:
    """All that a plan counts is done once: rows and gradients of both passes at the rate of a rank, shared by the
    ranks."""
    for outputs, block in ((100, 100), (100, 30)):
        cut = plan(outputs, output_block=block)
        rows, gradients = cut.forwards, cut.gradient_evaluations
        for ranks in (1, 4, 32):
            found = outlook_of(cut, PASSES, FREE, ranks)
            assert found.pass_1 == pytest.approx(SHAPES.n_samples * 1e9 / FREE.flops / ranks)
            assert sum(found.pass_2.busy) == pytest.approx((rows + gradients) * 1e9 / FREE.flops)
            assert found.seconds == pytest.approx(sum(found.parts.values()))
            assert found.parts["compute"] == pytest.approx(found.pass_1 + sum(found.pass_2.busy) / ranks)


def test_a_directional_derivative_costs_what_the_choice_of_the_mode_says() -> None:
    """In forward mode: one for each group of features and all outputs."""
    assert shard_cost.PER_GROUP == modes.PER_GROUP
    cut = plan()
    found = outlook_of(replace(cut, work=replace(cut.work, groups=49)), PASSES, FREE, 1)
    assert sum(found.pass_2.busy) == pytest.approx(6400 * 16 * (1 + 3 * 49) * 1e9 / FREE.flops)


def test_sustained_flops_take_the_place_of_what_was_fitted() -> None:
    """The time of the model is then its arithmetic alone, ten times as fast."""
    known = replace(FREE, operator=1.0, traffic=1.0).known(Rates(flops=10 * FREE.flops))
    fast, slow = (outlook_of(plan(), PASSES, machine, 4) for machine in (known, FREE))
    assert fast.seconds == pytest.approx(slow.seconds / 10)


def test_every_state_is_sent_once() -> None:
    """Of 100 outputs in two cuts, 1 rank sends nothing; of two ranks each owns a cut, and hears half of it from the
    other."""
    cut = plan(output_block=50)
    assert cut.finalize_outputs == 50
    states = cut.n_folds * 100 * (2 * 3 * 32 * 32 + 11) * 8
    alone, two, many = (outlook_of(cut, PASSES, Machine(), ranks) for ranks in (1, 2, 8))
    assert (alone.reduction, alone.all_reduce) == (0, 0)
    assert (two.reduction, two.reduction_in_all, two.all_reduce) == (states // 4, states // 2, states)
    assert many.reduction == states // 2 * 7 // 8  # of eight ranks six own none
    assert many.memory == states + 2 * (2 * 3 * 32 * 32 + 11) * 8 * 50


@pytest.mark.parametrize(
    ("machine", "ranks", "bottleneck"),
    [
        (FREE, 4, "compute"),
        (FREE, 500, "idle ranks"),
        (replace(FREE, sample=1e4), 4, "reading data"),
        (replace(FREE, encode=1e3), 4, "writing shards"),
        (replace(FREE, disk=1e2), 4, "writing shards"),
        (replace(FREE, bandwidth=1e3), 4, "exchange"),
        (replace(FREE, decode=1e2), 4, "exchange"),
        (replace(FREE, record=1e5), 4, "exchange"),
        (replace(FREE, element=1.0), 4, "finalize"),
        (replace(FREE, array=1e5), 4, "finalize"),
        (replace(FREE, start=1e5), 4, "start-up"),
        (replace(FREE, page=1e5), 4, "page"),
        (replace(FREE, flops=inf, sample=1.0), 32, "reading data"),
    ],
)
def test_the_first_bottleneck_is_the_one_that_was_made(machine: Machine, ranks: int, bottleneck: str) -> None:
    cut = plan()
    found = outlook_of(replace(cut, work=replace(cut.work, page=32)), PASSES, machine, ranks)
    assert found.bottleneck == bottleneck, found.parts
    assert found.seconds == pytest.approx(sum(found.parts.values()))
    assert bottleneck in found.summary()["first bottleneck"]


def test_advice_makes_it_faster_and_fits() -> None:
    """Too few shards are cut finer, as the plan itself would cut them; where all is well there is no advice."""
    assert advised(plan(), PASSES, FREE, 4) is None
    settings, better = advised(plan(), PASSES, FREE, 512) or ("", None)
    given = dict(part.removeprefix("plan.").split("=") for part in settings.split())
    other = plan(**{name: int(value) for name, value in given.items()})
    assert better == outlook_of(other, PASSES, FREE, 512)
    assert better.seconds < outlook_of(plan(), PASSES, FREE, 512).seconds / 4
    tight = plan(output_block=100, host_memory=0.35)
    assert outlook_of(tight, PASSES, FREE, 4).bottleneck == "memory"
    found = advised(tight, PASSES, FREE, 4)
    assert found is not None
    assert found[1].fits


def test_rates_of_a_card() -> None:
    """By precision, as measured, with their source; numbers that are given count more; others are refused."""
    rates = Rates(card="h200").of("bf16-mixed")
    assert rates.flops == pytest.approx(4003 * 4.06e10, rel=0.01)  # gradients per second x FLOP of each, of the report
    assert Rates(card="h200").of("32-true").flops == pytest.approx(915 * 4.06e10, rel=0.01)
    assert "h200-2026-11-27.json" in told(plan(), PASSES, Machine(), rates, 1, 1)["rates"]
    assert Rates(card="h200", flops=1e12).of("bf16-mixed").flops == 1e12
    assert Rates().of("16-mixed") == Rates()
    with pytest.raises(ConfigError, match=r"fabric.rates='h100': no run on such a card was measured, choose h200"):
        Rates(card="h100")
    with pytest.raises(ConfigError, match=r"fabric.precision=16-mixed: measured were bf16-mixed, 32-true"):
        Rates(card="h200").of("16-mixed")


def test_many_inputs_and_small_shards_are_counted() -> None:
    """Each micro-batch, each input of it, each record and each array of maps has its own cost, whatever its size."""
    shapes = replace(SHAPES, input_names=tuple(f"x{i}" for i in range(30)), features=((4,),) * 30, n_samples=640)
    work = Work(outputs=tuple(range(10)), n_baselines=1, points=3, n_terms=2, n_maps=2, page=32)
    cut = make_plan(shapes, work, Limits(n_folds=64, micro_batch=5), 0)
    assert (cut.n_folds, cut.samples_per_batch, cut.points_per_batch) == (64, 5, 1)

    def outlook(**costs: float) -> Outlook:
        return outlook_of(cut, PASSES, replace(FREE, **costs), 1)

    idle = outlook().seconds
    assert outlook(batch=1.0).pass_1 == pytest.approx(128 + outlook().pass_1)
    assert outlook(batch=1.0).seconds == pytest.approx(idle + 128 + 128 * 3)
    assert outlook(part=1.0).seconds == pytest.approx(idle + 30 * (128 + 128 * 3 + 2 * 128 + 64))
    assert outlook(record=1.0).exchange == pytest.approx(64 * 31)
    assert outlook(array=1.0).finalize == 60
    assert outlook(panel=1.0).page == 10 * 12 + 10
    assert outlook_of(replace(cut, work=replace(work, page=0)), PASSES, Machine(), 1).page == 0


def test_a_page_draws_what_the_plan_counts() -> None:
    assert (figures.MOST_INPUTS, figures.MOST_MAPS, samples.MOST) == (
        page_cost.MOST_INPUTS,
        page_cost.MOST_MAPS,
        page_cost.MOST_SAMPLES,
    )
    for name, at in (
        ("CELLS", evidence),
        ("SAMPLES", evidence),
        ("VALUES", evidence),
        ("AT_ONCE", rows),
        ("HELD", rows),
    ):
        assert getattr(page_cost, name) == getattr(at, name), name


def test_a_timed_model_takes_what_it_took() -> None:
    """The ratio of what is told to what was timed is 1, and other sizes move with it."""
    timed = Machine().timed(PASSES, 16, 2.0, 3.0)
    assert timed.model(PASSES.forward, 16, 1) + timed.model(PASSES.gradient, 16, 1) == pytest.approx(5.0)
    assert timed.model(PASSES.forward, 7, 2) / Machine().model(PASSES.forward, 7, 2) == pytest.approx(
        timed.operator / Machine().operator
    )
    rows = Machine().rows(PASSES, 0.3)
    assert Machine().model(PASSES.forward, rows, 1) + Machine().model(PASSES.gradient, rows, 1) <= 0.3


def test_what_is_told() -> None:
    lines = told(plan(), PASSES, Machine(sample=1e-3), Rates(flops=1e12), 64, 8)
    assert lines["outlook"] == "512 ranks"
    assert "plan.n_folds=" in lines["a better plan"] or "plan.output_block=" in lines["a better plan"]
    assert "fabric.rates.flops" in told(plan(), PASSES, Machine(), Rates(), 1, 1)["outlook"]
    with pytest.raises(ConfigError, match=r"fabric.num_nodes=0, fabric.devices=8: give integers of at least 1"):
        told(plan(), PASSES, Machine(), Rates(), 0, 8)
    with pytest.raises(ConfigError, match=r"fabric.rates.flops=0.0: give a number above 0"):
        Rates(flops=0.0)
