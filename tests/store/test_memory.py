"""A store in memory gives the same tree as one in a folder, although zarr opens only that one."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
import xarray as xr
from torch import nn

import igc_dist
from igc_dist import passes
from igc_dist.store import documents, memory


def run(store: Path | None) -> xr.DataTree:
    """A run with every kind of array: texts, maps, slices, tables of samples, and shards."""
    torch.manual_seed(5)
    module, data = nn.Linear(4, 3).eval(), (torch.rand(9, 4), torch.randn(9, 3))
    slices = ["even", "odd"] * 4 + ["even"]
    return igc_dist.attribute(
        module, data, n_steps=1, n_folds=3, samples=True, slices=slices, method="igc", store=store, names=["pixels"]
    )


def test_the_tree_is_the_one_of_a_folder(tmp_path: Path) -> None:
    mine, its = run(None), run(tmp_path / "store")
    assert {node.path for node in mine.subtree} == {node.path for node in its.subtree}
    for node in its.subtree:
        xr.testing.assert_identical(mine[node.path].to_dataset().drop_attrs(), node.to_dataset().drop_attrs())
        for name, variable in node.variables.items():
            assert mine[node.path].variables[name].dtype == variable.dtype
            assert mine[node.path].variables[name].encoding["chunks"] == variable.encoding["chunks"]
    assert mine.attrs.keys() == its.attrs.keys()


def test_it_can_be_saved(tmp_path: Path) -> None:
    mine = run(None)
    mine.to_zarr(tmp_path / "copy", consolidated=False)
    with xr.open_datatree(tmp_path / "copy", engine="zarr", consolidated=False) as again:
        xr.testing.assert_equal(again["pixels"], mine["pixels"])


def test_zarr_opens_nothing_for_the_results(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "opened", None)
    tree = run(None)
    assert tree["pixels/igc"].values.shape == (3, 4)


def test_a_small_run_does_nothing_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its time is that of the work around the model: documents, looks, loaders. Calls are counted, as seconds flake."""
    counts: Counter[str] = Counter()

    def counted(owner: Any, name: str, where: str = "") -> None:
        done = getattr(owner, name)

        def count(*arguments: Any, **given: Any) -> Any:
            counts[name] += 1
            return done(*arguments, **given)

        monkeypatch.setattr(f"{where}.{name}" if where else f"{owner.__name__}.{name}", count)

    counted(documents, "canonical")
    counted(passes, "first_look", "igc_dist.job.planned")
    counted(torch.utils.data.DataLoader, "__iter__", "torch.utils.data.DataLoader")
    counted(json.encoder, "_make_iterencode")  # the encoder in Python
    module, data = nn.Linear(4, 3).eval(), (torch.rand(9, 4), torch.randn(9, 3))
    igc_dist.attribute(module, data)  # documents of arrays are kept
    counts.clear()
    igc_dist.attribute(module, data)  # with a pilot, which looks at the model too
    assert counts["first_look"] == 1
    assert counts["canonical"] == 3, "the root document as it begins and ends, and its copy beside the shards"
    assert counts["__iter__"] == 0
    assert counts["_make_iterencode"] <= 2, "the documents of the records of both passes"
