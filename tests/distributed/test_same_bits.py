"""The same bits on any number of ranks, in any claiming order, on disk and in memory (design, section 6: run)."""

from __future__ import annotations

import os
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import igc_dist
from igc_dist import Budget, results
from igc_dist.baselines import Mean, Resampled
from igc_dist.distributed import world as distributed
from igc_dist.distributed.leases import Claim
from igc_dist.features import Masks, Total
from igc_dist.job import trial
from igc_dist.metrics import Insertion, MaxSensitivity
from igc_dist.planning import Plan
from igc_dist.records import StoreError
from igc_dist.store import Store
from tests import ranks
from tests.ranks import Net, Rows, arrays, attribute, files, run_ranks, values

pytestmark = pytest.mark.dist

SHOWN = np.arange(23 * 5).reshape(23, 1, 5) % 7 // 4  # the segment of each pixel of each sample

CASES: dict[str, dict[str, Any]] = {
    "seven samples": {"n": 7},
    "blocks": {
        "n": 23, "outputs": 4, "output_block": 3, "baseline": 5, "baseline_block": 2, "micro_batch": 6, "n_folds": 4,
        "samples": False,
    },
    "statistics": {
        "n": 23, "statistics": ("correlation", "autocorrelation", "moments"), "baseline": Mean(), "micro_batch": 4,
        "host_memory": 4.0,
    },
    "stratified": {
        "n": 23, "design": "stratified", "n_steps": 1, "baseline": Resampled(3), "baseline_block": 2, "samples": False,
    },
    "pairs": {
        "n": 40, "design": "pairs", "n_draws": 3, "samples": False, "output_block": 1, "budget": Budget(replicates=2),
    },
    "importance": {
        "n": 40, "design": "importance_pairs", "n_draws": 2, "samples": False,
        "budget": Budget(rel_se=0.6, replicates=0),
    },
    "others": {
        "n": 23, "labels": True, "n_others": 1, "design": "shifted", "n_steps": 2,
        "baseline": Resampled(3, stratify=True), "outputs": 4, "baseline_block": 2, "samples": False,
    },
    "fallback": {
        "n": 23, "precision": "bf16-mixed", "precision_tol": 1e-6, "precision_on_error": "fallback", "micro_batch": 8,
    },
    "controlled": {
        "n": 23, "design": "random", "n_draws": 4, "baseline": Resampled(2), "samples": False,
        "statistics": ("correlation", "controlled_correlation"),
    },
    "forward mode": {"n": 23, "outputs": 7, "reduce": Total(), "mode": "forward", "micro_batch": 8},
    "masks": {
        "n": 23, "image": True, "reduce": Masks(["low", "high"], SHOWN), "output_block": 1, "micro_batch": 5,
    },
    "layer": {"n": 23, "layer": "hidden", "baseline": 3, "output_block": 1, "micro_batch": 5},
    "audited": {
        "n": 23, "precision": "bf16-mixed", "precision_audit": 3, "precision_tol": None, "micro_batch": 8,
        "output_block": 1,
    },
    "metrics": {
        "n": 23, "outputs": 4, "output_block": 3, "micro_batch": 5, "samples": False,
        "metrics": [Insertion(of="logit", start="mean"), MaxSensitivity(draws=2)],
    },
    "own outputs": {
        "n": 23, "outputs": 5, "labels": True, "target": "top:2", "method": "ig", "output_block": 1, "micro_batch": 5,
        "metrics": [Insertion(of="logit", start="mean"), MaxSensitivity(draws=2)], "filter": "correct",
    },
    "resampled": {"n": 23, "baseline": Resampled(3), "output_block": 1, "micro_batch": 5, "on_nonfinite": "skip"},
}  # fmt: skip
LONG = ("controlled", "importance", "others", "fallback", "stratified")


def run(path: Path | None, settings: dict[str, Any]) -> dict[str, bytes]:
    return attribute(path, **settings)


@pytest.mark.parametrize(
    "case", [pytest.param(case, marks=pytest.mark.slow) if case in LONG else case for case in CASES]
)
def test_same_bits_on_any_number_of_ranks(case: str, tmp_path: Path) -> None:
    """Every array and every file of the store (the root's document apart, which tells the time) is the same on any
    number of ranks."""
    settings = CASES[case]
    worlds = {
        "seven samples": (1, 2, 3, 4),
        "statistics": (1, 3),
        "resampled": (1, 2),
        "forward mode": (1, 2),
        "audited": (1, 2),
        "masks": (1, 2),
        "layer": (1, 3),
        "pairs": (1, 3),
        "metrics": (1, 3),
        "own outputs": (1, 2),
    }.get(case, (1, 2, 3))
    stores = {n: tmp_path / f"{n}.zarr" for n in worlds}
    trees = {n: values(run_ranks(n, run, path, settings)) for n, path in stores.items()}
    expected = {"x/igc", "x/igc_se", "correlation", "igc_sum_se"}
    assert ({"samples/explained"} if case == "own outputs" else expected) <= set(trees[1][0])
    assert ("samples/x/attribution" in trees[1][0]) == settings.get("samples", True)
    for n, path in stores.items():
        for tree in trees[n]:  # every rank returns the whole tree
            assert tree == trees[1][0], (
                f"{n} ranks differ in {[name for name in tree if tree[name] != trees[1][0].get(name)]}"
            )
        assert files(path) == files(stores[1])
        assert arrays(igc_dist.open(path)) == trees[1][0]


@pytest.mark.parametrize("case", ["blocks", pytest.param("seven samples", marks=pytest.mark.slow)])
def test_memory_holds_what_the_disk_holds(case: str, tmp_path: Path) -> None:
    """With store=None every rank returns the same tree, and it is the one that a store on disk would hold."""
    on_disk = run(tmp_path / "a.zarr", CASES[case])
    for n in (1, 3):
        assert [tree == on_disk for tree in values(run_ranks(n, run, None, CASES[case]))] == [True] * n


def claimed(path: Path | None, settings: dict[str, Any]) -> tuple[dict[str, bytes], list[int]]:
    """The tree, and the shards of pass 2 that this rank did."""
    mine: list[int] = []
    original = Claim.do

    def spied(self: Claim, work: Any) -> bool:
        if self.phase == "attribute":
            mine.append(self.number)
        return original(self, work)

    Claim.do = spied  # type: ignore[method-assign]
    return run(path, settings), mine


@pytest.mark.parametrize("slow", [pytest.param(0, marks=pytest.mark.slow), 1])
def test_claiming_order_changes_no_bit(slow: int, tmp_path: Path) -> None:
    """A slow rank does fewer shards; who did which shard leaves no trace. Each shard is done once."""
    settings = {"n": 24, "n_folds": 8, "micro_batch": 3}
    expected = run(None, settings)
    ended = values(run_ranks(2, claimed, tmp_path / "a.zarr", {**settings, "slow": slow, "pause": 0.1}))
    assert [tree == expected for tree, _ in ended] == [True, True]
    counts = [len(mine) for _, mine in ended]
    assert sorted(ended[0][1] + ended[1][1]) == list(range(8))
    assert counts[slow] < counts[1 - slow]


CUTS: dict[str, Any] = {
    "n": 24,
    "outputs": 5,
    "n_folds": 4,
    "micro_batch": 3,
    "samples": False,
    "slices": np.arange(24) % 2,
}


def cut(path: Path | None, outputs: int, settings: dict[str, Any]) -> dict[str, bytes]:
    """As if memory sufficed to finalise so many outputs at a time only."""
    Plan.finalize_outputs = property(lambda plan: outputs)  # type: ignore[assignment]
    return run(path, {**CUTS, **settings})


@pytest.mark.slow
@pytest.mark.parametrize(
    "settings",
    [
        {"output_block": 4, "baseline_block": 1, "baseline": 2},
        {"budget": Budget(rel_se=0.3, replicates=2), "baseline": Resampled(2)},
    ],
)
def test_outputs_are_dealt_to_ranks(settings: dict[str, Any], tmp_path: Path) -> None:
    """Each rank finalises some of the outputs and writes their maps: the same results as of one rank that does all at
    once."""
    expected = run(None, {**CUTS, **settings})
    for n, outputs in ((2, 2), (3, 1)):
        for path in (tmp_path / f"{n}.zarr", None):
            assert [tree == expected for tree in values(run_ranks(n, cut, path, outputs, settings))] == [True] * n
        assert Store.existing(tmp_path / f"{n}.zarr").verify() == []


def test_a_state_that_did_not_come_is_no_zero(monkeypatch: pytest.MonkeyPatch) -> None:
    """A shard that nobody contributes, or two, ends the run before anything is made of it."""
    whole = results.Exchange.states

    def short(exchange: Any, phase: str, walked: Any, cuts: Any) -> Any:
        return whole(exchange, phase, replace(walked, mine=walked.mine[1:]), cuts)

    monkeypatch.setattr(results.Exchange, "states", short)
    with pytest.raises(StoreError, match="3 of 4 states of attribute came, 3 in all"):
        attribute(None)


def test_seven_samples_on_three_ranks_are_seven() -> None:
    """Nothing is padded or dropped: n = 7 for every output, and the agreement is numpy's over the seven samples."""
    (tree, *others) = values(run_ranks(3, numbers))
    assert others == [tree, tree]
    data = ranks.Rows(7)
    with torch.no_grad():
        predictions = ranks.Net()(data.x).double().numpy()
    y = data.y.double().numpy()
    assert tree["n"] == [7, 7]
    assert tree["index"] == list(range(7))
    np.testing.assert_allclose(
        tree["correlation"], [np.corrcoef(predictions[:, k], y[:, k])[0, 1] for k in (0, 1)], rtol=1e-6
    )
    np.testing.assert_allclose(tree["target_mean"], y.mean(0), rtol=1e-12)


def numbers() -> dict[str, list[Any]]:
    tree = igc_dist.attribute(ranks.Net(), ranks.Rows(7), samples=True, n_steps=2, threads=1)
    return {
        "index": tree["samples/index"].values.tolist(),
        **{k: tree[k].values.tolist() for k in ("n", "correlation", "target_mean")},
    }


def twice(first: Path, second: Path | None) -> tuple[dict[str, bytes], dict[str, bytes]]:
    """Rank 0 is late to leave the first run, while the others begin the second."""
    leave = distributed.dist.destroy_process_group
    if os.environ.get("RANK") == "0":
        distributed.dist.destroy_process_group = lambda group: (time.sleep(0.5), leave(group))  # type: ignore[assignment, return-value]
    return attribute(first, n=7), attribute(second, n=23, seed=3)


@pytest.mark.parametrize("memory", [False, True])
def test_two_runs_in_one_group(memory: bool, tmp_path: Path) -> None:
    """A second attribute() in the same processes finds no claims, heartbeats or sums of the first, nor its store as it
    closes."""
    one, two = values(run_ranks(1, twice, tmp_path / "a1.zarr", None))[0]
    for a, b in values(run_ranks(2, twice, tmp_path / "a2.zarr", None if memory else tmp_path / "b2.zarr")):
        assert a == one
        assert b == two


class Dead(nn.Module):
    """The second feature has no influence, with a negative weight on the way: its gradients are -0.0."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.stack([x[:, 0] ** 2 - 0.0 * x[:, 1], -(x[:, 0] ** 3) + 0.0 * x[:, 1]], dim=1)


def zeros(path: Path | None) -> dict[str, bytes]:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(7, 2, generator=generator)
    return arrays(
        igc_dist.attribute(
            Dead(), (x, torch.randn(7, 2, generator=generator)), store=path, n_folds=7, n_steps=2, threads=1
        )
    )


def test_negative_zeros_do_not_tell_the_number_of_ranks(tmp_path: Path) -> None:
    """-0.0 plus the zeros of other ranks is 0.0: so no state keeps a -0.0, or one rank would store other bits than
    two."""
    path = tmp_path / "1.zarr"
    one = values(run_ranks(1, zeros, path))[0]
    states = igc_dist.open(path)["shards/attribute/x/sums"].values
    assert (states == 0).any()
    assert not (np.signbit(states) & (states == 0)).any()
    for n in (2, 3):
        assert values(run_ranks(n, zeros, tmp_path / f"{n}.zarr")) == [one] * n


def tried(path: Path) -> tuple[int, dict[str, bytes]]:
    def timed(walk: Any, plan: Any, rows: int, device: Any) -> float:
        assert os.environ["RANK"] == "0", "another rank tries"
        return float(abs(rows - 8) + 1)

    trial._seconds = timed
    tree = igc_dist.attribute(Net(), Rows(40), n_steps=4, n_folds=2, trial=True, store=path, threads=1, timeout=60.0)
    return tree.attrs["spec"]["plan"]["samples_per_batch"], arrays(tree)


def test_all_ranks_have_what_a_trial_of_the_first_chose(tmp_path: Path) -> None:
    one, two = values(run_ranks(2, tried, tmp_path / "a.zarr", XDG_CACHE_HOME=str(tmp_path / "cache")))
    assert one[0] == 8
    assert one == two
