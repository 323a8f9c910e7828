"""Filters: results are those of a run over the samples that they keep, others are not walked, and it is said."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import igc_dist
from igc_dist import report, upkeep
from igc_dist.records import ConfigError, DataError
from tests import models

N, J, STEPS = 29, 3, 4
X = torch.as_tensor(np.random.default_rng(1).normal(size=(N, 5)))
LABEL = torch.arange(N) % J


class Rows(torch.utils.data.TensorDataset):
    """The samples, with the site of each and a number."""

    def __init__(self, *tensors: torch.Tensor) -> None:
        super().__init__(*tensors)
        self.site = ["north" if n % 4 else "south" for n in range(N)]
        self.batch = np.arange(N) // 10


DATA = Rows(X, LABEL)


def net() -> nn.Module:
    torch.manual_seed(5)
    return nn.Sequential(nn.Linear(5, 7), nn.Tanh(), nn.Linear(7, J)).double()


def answers() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Whether each prediction is right, the probability of the label, and the largest one: by numpy."""
    with torch.no_grad():
        f = net()(X).numpy()
    p = np.exp(f) / np.exp(f).sum(1, keepdims=True)
    return f.argmax(1) == LABEL.numpy(), p[np.arange(N), LABEL.numpy()], p.max(1)


RIGHT, OWN, MOST = answers()
LEVEL = float(np.quantile(OWN[RIGHT], 0.4))
KEPT = {
    "correct": RIGHT,
    f"confident({LEVEL})": RIGHT & (OWN > LEVEL),
    f"confident({LEVEL}, predicted)": MOST > LEVEL,
    "site==south": np.arange(N) % 4 == 0,
    "batch==1": np.arange(N) // 10 == 1,
}


def run(filter: Any, method: str = "ig", **settings: Any) -> Any:
    chosen = {"n_steps": STEPS, "n_folds": 4, "micro_batch": 6, "filter": filter, "target": "one_hot", **settings}
    return igc_dist.attribute(chosen.pop("model", None) or net(), DATA, method=method, **chosen)


@pytest.mark.parametrize("text", KEPT)
def test_results_are_those_of_the_samples_that_are_kept(text: str) -> None:
    """The maps over the data set, against a run over these samples alone; and those of single samples."""
    kept = np.flatnonzero(KEPT[text])
    assert 2 < len(kept) < N
    tree, every = run(text, "igc"), run(None)
    few = torch.utils.data.TensorDataset(X[kept], LABEL[kept])
    alone = igc_dist.attribute(net(), few, n_steps=STEPS, n_folds=4, target="one_hot")
    for name in ("x/igc", "correlation", "igc_sum", "prediction_mean", "target_std", "n"):
        np.testing.assert_allclose(tree[name], alone[name], rtol=1e-9, atol=1e-12)
    single = run(text)["samples/x/attribution"].values
    np.testing.assert_allclose(single[kept], every["samples/x/attribution"].values[kept], rtol=1e-9, atol=1e-12)
    assert np.isnan(np.delete(single, kept, axis=0)).all()


def test_indices_come_from_a_file_or_an_array(tmp_path: Path) -> None:
    chosen = [4, 20, 3, 7]
    (tmp_path / "list.txt").write_text("4\n20, 3\n7\n")
    kept = [*map(run, (f"indices {tmp_path}/list.txt", chosen, np.array(chosen)))]
    for tree in kept:
        there = np.isfinite(tree["samples/x/attribution"].values).all((1, 2))
        assert np.flatnonzero(there).tolist() == sorted(chosen)
        assert tree["n"].values.tolist() == [4] * J


def test_samples_that_are_left_out_are_not_walked_and_not_read() -> None:
    model = models.Counted(net())
    run([4, 20], model=model, n_steps=1)
    once = model.backwards
    run([4, 20], model=model, n_steps=11)
    assert model.backwards - 2 * once == 10 * 2 * J
    model = models.Counted(net())
    run("correct", model=model, n_steps=1)
    once = model.backwards
    run("correct", model=model, n_steps=11)
    assert model.backwards - 2 * once == 10 * RIGHT.sum() * J


def test_the_store_says_which_samples_and_why(tmp_path: Path) -> None:
    text = f"confident({LEVEL})"
    tree = run(text, store=tmp_path / "s.zarr")
    wrong, unsure = ~RIGHT, RIGHT & ~(OWN > LEVEL)
    codes = tree["known/left_out"].values
    assert np.array_equal(codes, np.where(wrong, 7, np.where(unsure, 8, 0)))
    said = tree.attrs["filter"]
    assert (said["filter"], said["kept"]) == (text, int((codes == 0).sum()))
    assert said["left_out"] == {said["codes"]["7"]: int(wrong.sum()), said["codes"]["8"]: int(unsure.sum())}
    assert tree.attrs["skipped"] == []
    assert tree.attrs["cost"]["gradient_evaluations"] == said["kept"] * J * STEPS
    assert upkeep.verify(tmp_path / "s.zarr").lines == []
    assert f"keeps {said['kept']} samples" in report.write_report(tree, tmp_path).read_text()


def test_metrics_of_samples_that_are_left_out_are_nan_and_no_part_of_means() -> None:
    metrics = ["sparseness"]
    tree, every = run("correct", metrics=metrics), run(None, metrics=metrics)
    found = tree["samples/metrics/sparseness"].values
    np.testing.assert_allclose(found[RIGHT], every["samples/metrics/sparseness"].values[RIGHT], rtol=1e-9)
    assert np.isnan(found[~RIGHT]).all()
    np.testing.assert_allclose(tree["metrics/sparseness_mean"], found[RIGHT].mean(0), rtol=1e-9)
    assert tree["metrics/scored"].values.tolist() == [RIGHT.sum()] * J


def test_another_filter_is_another_run(tmp_path: Path) -> None:
    run("correct", store=tmp_path / "s.zarr")
    with pytest.raises(ValueError, match="filter"):
        run("site==south", store=tmp_path / "s.zarr")


def test_a_mask_of_samples_keeps_those_that_are_true() -> None:
    kept = np.arange(N) % 3 != 1
    tree, same = run(kept), run(np.flatnonzero(kept))
    assert tree["samples/x/attribution"].identical(same["samples/x/attribution"])
    assert tree.attrs["spec_hash"] == same.attrs["spec_hash"]
    with pytest.raises(ConfigError, match="keeps no sample"):
        run(np.zeros(N, bool))


@pytest.mark.parametrize(
    ("filter", "error", "said"),
    [
        ("right", ConfigError, "is none: give correct"),
        ("confident(1.2)", ConfigError, "at least 0 and below 1"),
        ("site==west", ConfigError, "no sample has it; the column site has north, south"),
        ("place==west", DataError, "has no such attribute"),
        ("indices nowhere.txt", ConfigError, "cannot be read"),
        ([0, N], ConfigError, "different numbers from 0 to 28"),
        ([1, 1], ConfigError, "different numbers"),
        ([0.5], ConfigError, "give correct"),
    ],
)
def test_what_is_no_filter_is_refused(filter: Any, error: type[Exception], said: str) -> None:
    with pytest.raises(error, match=said):
        run(filter)


def test_a_filter_of_answers_needs_labels() -> None:
    data = torch.utils.data.TensorDataset(X, torch.rand(N, J).double())
    with pytest.raises(DataError, match="y is no label"):
        igc_dist.attribute(net(), data, n_steps=2, filter="correct")
    tree = igc_dist.attribute(net(), data, n_steps=2, filter=f"confident({LEVEL}, predicted)")
    assert tree["n"].values.tolist() == [(MOST > LEVEL).sum()] * J
