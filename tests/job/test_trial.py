"""The trial: what it tries, that the fastest wins on all ranks alike, and that it is remembered and never changes a
store that is there."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import igc_dist
from igc_dist.job import trial
from igc_dist.planning import GIB, Limits, Work, make_plan
from igc_dist.records import ConfigError, Shapes
from tests import models
from tests.ranks import Net, Rows, arrays


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "igc-dist" / "trials.json"


def clocked(monkeypatch: pytest.MonkeyPatch, seconds: Any) -> list[tuple[bool, int]]:
    """Replace the clock: `seconds(channels_last, rows)` per row; returns what was tried."""
    tried: list[tuple[bool, int]] = []

    def timed(walk: Any, plan: Any, rows: int, device: Any) -> float:
        tried.append((walk.function.channels_last, rows))
        return float(seconds(*tried[-1]))

    monkeypatch.setattr(trial, "_seconds", timed)
    return tried


def batch(tree: Any) -> int:
    plan = tree.attrs["spec"]["plan"]
    return int(plan["samples_per_batch"] * plan["points_per_batch"])


def attribute(module: Any = None, data: Any = None, **settings: Any) -> Any:
    return igc_dist.attribute(module or Net(), data or Rows(40), **{"n_steps": 4, "n_folds": 2, **settings})


def test_the_fastest_micro_batch_is_taken_and_remembered(own_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Powers of two up to the whole fold (20 samples x 4 nodes), until one is slower; the plan is that of the
    micro-batch found."""
    tried = clocked(monkeypatch, lambda last, rows: abs(rows - 16) + 1)
    found = attribute(trial=True)
    assert tried == [(False, rows) for rows in (1, 2, 4, 8, 16, 20)]  # 32 rows are a fold of 20 samples, once
    assert batch(found) == 16
    assert arrays(found) == arrays(attribute(micro_batch=16))
    (entry,) = json.loads(own_cache.read_text()).values()
    assert (entry["micro_batch"], entry["channels_last"], entry["model"]) == (16, False, "Net")
    clocked(monkeypatch, lambda last, rows: 1 / 0)  # not asked again
    assert batch(attribute(trial=True)) == 16
    assert batch(attribute(trial=True, data=Rows(40, slow=0))) == 16  # the same shapes


@pytest.mark.parametrize("on_device", [False, True])
def test_the_memory_model_bounds_what_is_tried(on_device: bool) -> None:
    """Every size fits the budget, as that of a micro-batch that is wished for, and twice the last does not."""
    shapes = Shapes(5000, 2, ("x",), ((8,),), 4, 0, 100_000, 0)
    work = Work(outputs=(0, 1), n_baselines=1, points=64, n_terms=3, on_device=on_device)
    wide = make_plan(shapes, work, Limits(), 0)
    assert [rows for rows, _ in trial._sizes(wide)] == [2**i for i in range(13)]
    plan = make_plan(shapes, work, Limits(host_memory=0.2, device_memory=0.2), 0)
    sizes = [
        rows
        for rows, made in trial._sizes(plan)
        if made == make_plan(shapes, work, replace(plan.limits, micro_batch=rows), 0)
    ]
    place, limit = ("device" if on_device else "host"), 0.2 * GIB
    memory = [
        make_plan(shapes, work, Limits(micro_batch=rows), 0).memory()[place] for rows in (sizes[-1], 2 * sizes[-1])
    ]
    assert memory[0] <= limit < memory[1]


def test_layouts_of_convolutions_are_tried_where_there_are_any(monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = models.data(models.conv(), 12, ((1, 6, 6),))
    tried = clocked(monkeypatch, lambda last, rows: 1.0 if last else 2.0)
    found = attribute(models.conv(), (x, y), channels_last="auto", micro_batch=6)
    assert tried == [(False, 6), (True, 6)]
    assert found.attrs["spec"]["model"]["channels_last"] is True
    assert arrays(found) == arrays(attribute(models.conv(), (x, y), channels_last=True, micro_batch=6))
    tried.clear()
    assert attribute(channels_last="auto").attrs["spec"]["model"]["channels_last"] is False
    assert tried == []


def test_a_store_keeps_its_micro_batch(own_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever is remembered since, or would be found now."""
    path = tmp_path / "a.zarr"
    clocked(monkeypatch, lambda last, rows: abs(rows - 4) + 1)
    assert batch(attribute(trial=True, store=path)) == 4
    (path / "x" / "igc" / "c.0.0").unlink()
    own_cache.unlink()
    clocked(monkeypatch, lambda last, rows: abs(rows - 16) + 1)
    assert batch(attribute(trial=True, store=path)) == 4
    assert batch(attribute(trial=True)) == 16


@pytest.mark.parametrize(
    "damage",
    [
        "not JSON {",
        "[1, 2]",
        "[" * 100_000,
        '{"KEY": 3}',
        '{"KEY": {"micro_batch": 0, "channels_last": false}}',
        '{"KEY": {"micro_batch": 1000000000, "channels_last": false}}',
    ],
)
def test_a_file_that_cannot_be_used_is_ignored(damage: str, own_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clocked(monkeypatch, lambda last, rows: abs(rows - 8) + 1)
    monkeypatch.setattr(trial, "_key", lambda job, device: "KEY")
    own_cache.parent.mkdir(parents=True)
    own_cache.write_text(damage)
    assert trial._is_choice({"micro_batch": 8, "channels_last": False}, True)
    assert not trial._is_choice({"micro_batch": None, "channels_last": False}, True)
    if damage.startswith('{"KEY": {'):
        assert batch(attribute(trial=True)) == 8
        assert json.loads(own_cache.read_text())["KEY"]["micro_batch"] == 8
    else:
        found = trial._read(own_cache).get("KEY", {})
        assert not trial._is_choice(found, True)


def test_a_folder_that_cannot_be_written_is_no_reason_to_stop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "cache").write_text("a file")
    clocked(monkeypatch, lambda last, rows: abs(rows - 8) + 1)
    assert batch(attribute(trial=True)) == 8


def test_real_times_are_of_the_real_model(own_cache: Path) -> None:
    """No clock replaced: a model whose passes cost the same whatever their rows is faster in a large one."""

    class Slow(Net):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            time.sleep(0.002)
            return super().forward(x)

    assert batch(attribute(Slow(), trial=True)) >= 8  # of 80; on a busy machine the last steps are lost in noise
    (entry,) = json.loads(own_cache.read_text()).values()
    assert 0.002 / 80 < entry["seconds_per_row"] < 0.01


@pytest.mark.parametrize(
    ("settings", "message"),
    [({"trial": True, "micro_batch": 4}, "leave one of them out"), ({"channels_last": "yes"}, "auto")],
)
def test_wishes_that_do_not_fit_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        attribute(**settings)
