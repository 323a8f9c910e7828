"""What a store takes on disk is not above what its plan says, in bytes of whole blocks, files and folders."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import torch

import igc_dist
from igc_dist.planning import Limits, Plan
from igc_dist.records import ConfigError


class Many(torch.nn.Module):
    """Several inputs, each of its own shape."""

    def forward(self, *x: torch.Tensor) -> torch.Tensor:
        total = torch.stack([one.flatten(1).sum(1) * (i + 1) for i, one in enumerate(x)]).sum(0)
        return torch.stack([total.sin(), total.cos(), total], 1)


def run(path: Path, n: int, shapes: list[tuple[int, ...]], settings: dict[str, Any]) -> None:
    draw = torch.Generator().manual_seed(0)
    x = tuple(torch.randn(n, *shape, generator=draw) for shape in shapes)
    y = torch.randn(n, 3, generator=draw)
    data = [(tuple(one[i] for one in x) if len(x) > 1 else x[0][i], y[i]) for i in range(n)]
    igc_dist.attribute(Many(), data, store=path, n_steps=2, **settings)


def taken(path: Path) -> tuple[int, int, int]:
    """Bytes in blocks of 4 KiB, files and folders."""
    files, folders, size = 0, 0, 0
    for _, _, names in os.walk(path):
        folders += 1
        files += len(names)
    size = sum(-(-file.stat().st_size // 4096) * 4096 for file in path.rglob("*") if file.is_file())
    return size + folders * 4096, files, folders


CASES: dict[str, tuple[int, list[tuple[int, ...]], dict[str, Any]]] = {
    "small": (12, [(5,)], {"n_folds": 3}),
    "many folds": (120, [(5,)], {"n_folds": 120}),
    "many inputs": (12, [(3,)] * 20, {"n_folds": 4}),
    "large states": (8, [(3, 100, 100)], {"n_folds": 8}),
    "blocks": (12, [(5,), (2, 2)], {"n_folds": 4, "output_block": 1}),
    "samples": (24, [(40,)], {"n_folds": 4, "samples": True, "micro_batch": 4}),
    "statistics": (12, [(50,)], {"n_folds": 4, "statistics": ("correlation", "autocorrelation", "moments", "ttest")}),
    "mean baseline": (12, [(5,)], {"n_folds": 4, "baseline": igc_dist.baselines.Mean()}),
    "slices": (12, [(5,)], {"n_folds": 4, "slices": [0, 1, 2] * 4}),
}


@pytest.mark.parametrize("case", CASES)
def test_a_store_takes_no_more_than_planned(case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plans: list[Plan] = []
    monkeypatch.setattr(Plan, "check", lambda self: plans.append(self))
    n, shapes, settings = CASES[case]
    run(tmp_path / "store.zarr", n, shapes, settings)
    said = plans[0].footprint
    size, files, folders = taken(tmp_path / "store.zarr")
    assert size <= said.size <= 1.5 * size + 2**20, (size, said)
    assert files <= said.files <= files + 110, (files, said)
    assert folders <= said.folders <= folders + 60, (folders, said)
    assert f"in {said.files:,} files and {said.folders:,} folders" in plans[0].summary()["store on disk, at most"]


def test_a_shard_is_one_file(tmp_path: Path) -> None:
    """And there is no folder for a shard: 60 folds are 60 files in each pass."""
    run(tmp_path / "store.zarr", 60, [(5,)], {"n_folds": 60})
    for phase in ("predict", "attribute"):
        files = [file for file in (tmp_path / "store.zarr/shards" / phase).rglob("c*") if file.name.startswith("c.")]
        assert len([file for file in files if file.parent.name == "record"]) == 60
        assert len(files) <= 63  # names of the sums
    assert taken(tmp_path / "store.zarr")[2] < 50


@pytest.mark.parametrize(
    ("n", "shapes", "settings", "over", "most", "better"),
    [
        (150, [(5,)], {"n_folds": 150}, {"files": 350}, "states of folds, lower plan.n_folds", {"n_folds": 6}),
        (
            12, [(3,)] * 8, {"n_folds": 2, "slices": [0, 1] * 6}, {"files": 290},
            "results, take fewer outputs, slices or statistics", {"slices": None},
        ),
        (
            200, [(30, 30)], {"n_folds": 2, "samples": True}, {"disk": 2 / 1024},
            "rows of samples, leave store.samples and metrics off", {"samples": False},
        ),
    ],
)  # fmt: skip
def test_what_is_over_the_budget_is_refused_with_its_largest_part(
    n: int, shapes: list[tuple[int, ...]], settings: dict[str, Any], over: dict[str, Any], most: str,
    better: dict[str, Any], tmp_path: Path,
) -> None:  # fmt: skip
    """And what the words say makes it fit."""
    (name, limit), path = *over.items(), tmp_path / "store.zarr"  # type: ignore[misc]
    with pytest.raises(ConfigError, match=rf"the store needs up to .*, the budget plan\.{name} is .* are {most}"):
        run(path, n, shapes, {**settings, name: limit})
    assert not path.exists()
    run(path, n, shapes, {**settings, **better, name: limit})
    size, files, folders = taken(path)
    assert (size <= limit * 2**30) if name == "disk" else (files + folders <= limit)


def test_a_budget_of_no_files_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"plan\.files=0: give an integer of at least 1, or null for no limit"):
        Limits(files=0)
