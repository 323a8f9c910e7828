"""Merged stores keep metrics, filters and outputs of each sample's own, as one run over all data has them."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import igc_dist
from igc_dist.metrics import Insertion
from igc_dist.records import StoreError
from igc_dist.store import Store
from igc_dist.upkeep import compact, merge, verify
from igc_dist.upkeep.verify import Verdict
from tests.ranks import files
from tests.upkeep.test_merge import different, part

N, J, SHAPE = 26, 4, (1, 5, 6)
DRAWS = np.random.default_rng(0)
X = torch.as_tensor(DRAWS.uniform(size=(N, *SHAPE)))
PARTS = {"a": range(9), "b": range(9, 16), "c": range(16, N)}


def net() -> torch.nn.Module:
    torch.manual_seed(1)
    return torch.nn.Sequential(
        torch.nn.Flatten(), torch.nn.Linear(30, 8), torch.nn.Tanh(), torch.nn.Linear(8, J)
    ).double()


class Labelled(torch.utils.data.Dataset[tuple[torch.Tensor, int]]):
    """Labels that the model knows of three samples in four, and a site."""

    def __init__(self, rows: Iterable[int]) -> None:
        self.rows = [*rows]
        self.site = ["south" if row % 3 else "north" for row in self.rows]

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        row = self.rows[index]
        with torch.no_grad():
            known = int(net()(X[row][None]).argmax())
        return X[row], (known + (row % 4 == 0)) % J


def run(path: Path, rows: Iterable[int], **settings: Any) -> Path:
    chosen = {"n_steps": 2, "n_folds": 2, "baseline": 0.0, "precision": "64-true", "seed": 2} | settings
    igc_dist.attribute(net(), Labelled(rows), store=path, **chosen)
    return path


CURVES = {"insertion": "insertion", "from_start": Insertion(start="baseline", of="logit", steps=5), "steps": "steps"}
QUESTIONS: dict[str, dict[str, Any]] = {
    "own": {"method": "ig", "target": "own", "metrics": CURVES, "filter": "correct", "samples": True},
    "top": {"method": "guided_ig", "target": "top:2", "metrics": CURVES, "filter": "site==south", "micro_batch": 2},
    "igc": {"target": "one_hot", "metrics": {"completeness": "completeness"}, "filter": "confident(0.3, predicted)"},
}


@pytest.mark.parametrize("name", ["top", *(pytest.param(name, marks=pytest.mark.slow) for name in ("own", "igc"))])
def test_disjoint_data_give_what_one_run_over_all_would(name: str, tmp_path: Path) -> None:
    """Scores, curves, means and intervals; which samples the filter left out and why; which outputs were explained."""
    settings = QUESTIONS[name]
    whole = run(tmp_path / "whole", range(N), **settings)
    found = [run(tmp_path / part, rows, **settings) for part, rows in PARTS.items()]
    merge(found, tmp_path / "all")
    one, tree = igc_dist.open(whole), igc_dist.open(tmp_path / "all")
    assert {node.path for node in one.subtree} == {node.path for node in tree.subtree}
    assert different(one, tree, 1e-10) == []
    assert {key: tree.attrs[key] for key in ("filter", "metrics")} == {
        key: one.attrs[key] for key in ("filter", "metrics")
    }
    assert 0 < sum(one.attrs["filter"]["left_out"].values()) < N
    assert verify(tmp_path / "all") == Verdict([])
    # in two goes; and in few files
    merge(found[:2], tmp_path / "ab")
    merge([tmp_path / "ab", found[2]], tmp_path / "again")
    specs = [Store.existing(tmp_path / each).spec for each in ("all", "again")]
    assert specs[0]["filter"] == specs[1]["filter"]
    if name == "top":  # whose filter was decided by the data of each
        assert len(specs[0]["filter"]["kept"]["merged"]) == 3
    compact(whole, tmp_path / "few")
    assert different(one, igc_dist.open(tmp_path / "few"), 0.0) == []


def test_shards_from_two_sites_keep_their_scores(tmp_path: Path) -> None:
    settings = QUESTIONS["own"] | {"n_folds": 4}
    whole = run(tmp_path / "whole", range(N), **settings)
    part(whole, tmp_path / "a", lambda phase, number: number < 2)
    part(whole, tmp_path / "b", lambda phase, number: number != 3)
    merge([tmp_path / "a", tmp_path / "b"], tmp_path / "all")
    run(tmp_path / "all", range(N), **settings)
    assert files(tmp_path / "all") == files(whole)


def test_scores_from_the_mean_sample_are_not_those_of_other_data(tmp_path: Path) -> None:
    settings = {"method": "ig", "target": "own", "metrics": [Insertion(start="mean")]}
    found = [run(tmp_path / name, PARTS[name], **settings) for name in "ab"]
    with pytest.raises(StoreError, match="a metric takes the mean sample of the data, so its numbers would be others"):
        merge(found, tmp_path / "all")


def test_stores_of_other_filters_are_not_merged(tmp_path: Path) -> None:
    one = run(tmp_path / "a", PARTS["a"], **QUESTIONS["own"])
    for name, wish in (("b", "confident(0.3)"), ("c", None)):
        other = run(tmp_path / name, PARTS[name], **QUESTIONS["own"] | {"filter": wish})
        with pytest.raises(StoreError, match=r"different questions cannot be merged: .*filter"):
            merge([one, other], tmp_path / "all")
