"""The page of a run is in its plan."""

from __future__ import annotations

from dataclasses import replace

import pytest

from igc_dist.planning import Limits, Plan, Work, make_plan
from igc_dist.records import ConfigError, Shapes

MIB = 2**20


def plan(outputs: int, page: int, side: int = 64, n_inputs: int = 1) -> Plan:
    names = tuple(f"x{i}" for i in range(n_inputs))
    shapes = Shapes(64, outputs, names, ((3, side, side),) * n_inputs, 4, 1000, 100_000, 2**28)
    work = Work(outputs=tuple(range(outputs)), n_baselines=1, points=2, n_terms=2, n_maps=2, page=page)
    return make_plan(shapes, work, Limits(n_folds=4, host_memory=16.0), 0)


def test_panels_are_of_drawn_outputs_inputs_and_maps() -> None:
    cut = plan(50, 32, n_inputs=20)
    assert cut.page_cost.n_arrays == 40
    assert cut.page_cost.panels == 32 * (12 + 1)
    assert replace(cut, work=replace(cut.work, n_maps=8)).page_cost.panels == 32 * (6 * 4 + 1)
    assert plan(5, 32).page_cost.panels == 5 * 2


@pytest.mark.parametrize(("outputs", "drawn"), [(32, 32), (1000, 32), (1000, 1)])
def test_maps_are_held_as_read_and_masked(outputs: int, drawn: int) -> None:
    """Twice what is drawn; a chunk of the results as stored, decoded and copied; and all but nothing without a page."""
    cut = plan(outputs, drawn)
    one = 3 * 64 * 64 * 8
    held = (2 * drawn + 3 * cut.finalize_outputs) * one
    assert held + 96 * MIB < cut.page_cost.memory() < held + 128 * MIB
    assert plan(outputs, 0).page_cost.memory() == 0


def test_a_page_that_takes_the_most_is_the_peak() -> None:
    """Of one sample and few features all else is small; where finalize takes more, the page adds nothing."""
    small = plan(2, 32, side=2)
    assert small.memory()["host"] >= small.shapes.reserved_bytes + small.page_cost.memory()
    assert small.memory()["host"] > replace(small, work=replace(small.work, page=0)).memory()["host"]
    large = plan(100, 1)
    assert large.memory() == replace(large, work=replace(large.work, page=0)).memory()


def test_what_samples_are_chosen_from_is_held() -> None:
    """Tables of samples and outputs, of at most 2^22 cells; and the attributions of 500 samples, if stored."""
    small, cells = plan(2, 32), 2**20
    many = replace(small, shapes=replace(small.shapes, n_samples=cells // 2))
    assert 0 < many.page_cost.memory() - 96 * MIB - many.page_cost.evidence() < MIB
    assert many.page_cost.evidence() == 48 * cells
    kept = replace(many, work=replace(many.work, samples=True)).page_cost.evidence()
    assert kept == 80 * cells + 500 * 3 * 64 * 64 * 20
    more = replace(many, shapes=replace(many.shapes, n_samples=5 * cells))
    assert more.page_cost.evidence() == 0


def test_pictures_are_held_a_few_at_a_time() -> None:
    """Of photographs of 1,024 x 1,024 one, as it is read, and a sum: not 64."""
    large, one = plan(2, 1, side=1024), 3 * 1024**2 * 8
    maps, held = (2 * 1 + 3 * large.finalize_outputs) * one, 4 * one
    assert 0 < large.page_cost.memory() - 96 * MIB - maps - held < 2 * MIB


def test_a_page_that_does_not_fit_is_refused_by_its_name() -> None:
    """Without it the plan fits; where the page is not what takes the most, the cut of the plan is named."""
    cut = plan(2, 32, side=2)
    without = replace(cut, work=replace(cut.work, page=0))
    small = replace(cut.limits, host_memory=(without.memory()["host"] + MIB) / 2**30)
    replace(without, limits=small).check()
    with pytest.raises(ConfigError, match=r"raise the budget, or set report\.enabled=false"):
        replace(cut, limits=small).check()
    with pytest.raises(ConfigError, match=r"raise the budget, or lower plan\.output_block"):
        replace(without, limits=replace(small, host_memory=0.01)).check()
