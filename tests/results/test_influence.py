"""The samples that carry an output: contributions add up to the results, planted mistakes and duplicates are found."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr

import igc_dist
from igc_dist.cli import commands
from igc_dist.records import ConfigError
from igc_dist.results import influence, samples_in

N = 60


def problem() -> tuple[torch.nn.Module, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    model = torch.nn.Linear(3, 2, dtype=torch.float64)
    x = torch.randn(N, 3, generator=generator, dtype=torch.float64)
    return model, x, model(x).detach() + 0.2 * torch.randn(N, 2, generator=generator, dtype=torch.float64)


def run(*data: Any, **settings: Any) -> xr.DataTree:
    model, *rest = data
    wishes = {"n_steps": 1, "n_folds": 5, "precision": "64-true", "threads": 1}
    return igc_dist.attribute(model, tuple(rest), **wishes | settings)


def of_samples(found: xr.Dataset, output: int = 0) -> np.ndarray:
    """Contributions by sample, from both sides."""
    every = np.zeros(N)
    for side in ("for", "against"):
        cut = found.isel(output=output).sel(side=side)
        there = cut["sample"].values >= 0
        every[cut["sample"].values[there]] = cut["contribution"].values[there]
    return every


@pytest.mark.parametrize("weights", [None, np.arange(N) % 3 + 0.5])
def test_contributions_are_those_of_the_definition(weights: np.ndarray | None) -> None:
    """One term of the sum for each sample; they add up to the sum of the map, to a feature, and to the correlation."""
    linear, x, y = problem()
    model = torch.nn.Sequential(linear, torch.nn.Softplus())  # one node of the path is not enough for it
    y[7, 0] = torch.nan
    tree = run(model, x, y, samples=True, weights=weights, baseline=4)
    v = np.where(np.arange(N) == 7, 0.0, np.ones(N) if weights is None else weights)
    a = tree["samples/x/attribution"].values.astype(float)[:, 0]
    r, target = model(x).detach().numpy()[:, 0], np.nan_to_num(y.numpy()[:, 0])

    def centred(of: np.ndarray) -> np.ndarray:
        return of - (v * of).sum() / v.sum()

    scale = np.sqrt((v * centred(target) ** 2).sum() * (v * centred(r) ** 2).sum())
    for feature, value, total in (
        (None, a.sum(1), tree["igc_sum"].values[0]),
        ([2], a[:, 2], tree["x/igc"].values[0, 2]),
    ):
        found = influence(tree, [0], feature, most=N)
        np.testing.assert_allclose(of_samples(found), v * centred(target) * centred(value) / scale, atol=1e-7)
        np.testing.assert_allclose(found["total"], [total], atol=1e-7)
        np.testing.assert_allclose(np.nansum(found["share"]), 1.0, rtol=1e-6)
    bare = influence(run(model, x, y, weights=weights), [0], most=N)
    np.testing.assert_allclose(bare["total"], [tree["correlation"].values[0]], rtol=1e-9)
    np.testing.assert_allclose(of_samples(bare), v * centred(target) * centred(r) / scale, atol=1e-12)
    assert bare.attrs["total_of"] == "the correlation"


def test_samples_are_ranked_on_both_sides() -> None:
    model, x, y = problem()
    found = run(model, x, y).igc.ask.influence([1], most=N)
    for side, sign in (("for", 1), ("against", -1)):
        c = found["contribution"].sel(side=side).values[0]
        c = sign * c[np.isfinite(c)]
        assert (c > 0).all()
        assert (np.diff(c) <= 0).all()
    gains = np.sort(found["contribution"].sel(side="for").values[0])
    gains = gains[np.isfinite(gains)][::-1]
    half = int(found["half"].values[0])
    assert gains[:half].sum() >= gains.sum() / 2 > gains[: half - 1].sum()
    assert (found["sample"].values >= 0).sum() == N


def test_wrong_targets_and_duplicates_are_candidates() -> None:
    """A turned target far from the line of the predictions; a sample that comes three times."""
    model, x, y = problem()
    far = int(model(x)[:, 0].argmax())
    y[far, 0] = -6.0
    twin = (far + 1) % N
    x[[(far + 9) % N, (far + 20) % N]], y[[(far + 9) % N, (far + 20) % N]] = x[twin].clone(), y[twin].clone()
    found = influence(run(model, x, y), [0], most=N)
    rows = {row["sample"]: row for row in samples_in(found)}
    assert [sample for sample, row in rows.items() if row["candidate"]] == [far]
    assert rows[far]["side"] == "against"
    assert [rows[n]["twins"] for n in (twin, (far + 9) % N, (far + 20) % N, far)] == [2, 2, 2, 0]
    assert rows[(far + 9) % N]["twin"] == min(twin, (far + 20) % N)
    assert sum(row["twins"] > 0 for row in rows.values()) == 3


def test_labels_that_the_model_contradicts_are_candidates() -> None:
    generator = torch.Generator().manual_seed(0)
    label = torch.arange(N) % 3
    x = torch.nn.functional.one_hot(label, 3).double() + 0.1 * torch.randn(N, 3, generator=generator)
    wrong = label.clone()
    wrong[[5, 17]] = (label[[5, 17]] + 1) % 3
    x[9] = torch.tensor([0.45, 0.55, 0.0])  # label 0: for output 0, against output 1, where it is a candidate
    x[12] = torch.tensor([3.0, 2.5, 0.0])  # label 0, and 0 is predicted: far from the line of output 1, but right
    tree = run(torch.nn.Identity(), x, wrong, target="one_hot")
    found = influence(tree, most=N)
    rows = [row for row in samples_in(found) if row["candidate"]]
    assert {row["sample"] for row in rows} == {5, 9, 17}
    assert all(row["side"] == "against" for row in rows)
    assert {(row["label"], row["predicted"]) for row in rows if row["sample"] == 5} == {("0", "2")}
    assert found.attrs["labels"]


def test_what_cannot_be_asked() -> None:
    model, x, y = problem()
    bare, kept = run(model, x, y), run(model, x, y, samples=True)
    with pytest.raises(ConfigError, match=r"were not kept: run with samples=True \(store.samples=true\)"):
        influence(bare, feature=[1])
    with pytest.raises(ConfigError, match=r"feature 3: give 1 numbers below \(3,\)"):
        influence(kept, feature=[3])
    with pytest.raises(ConfigError, match="there is no input 'z': choose from x"):
        influence(kept, feature=[0], of="z")
    with pytest.raises(ConfigError, match="1 or more"):
        influence(kept, most=0)


def test_influence_on_the_command_line(tmp_path: Any, capsys: pytest.CaptureFixture[str]) -> None:
    model, x, y = problem()
    run(model, x, y, store=tmp_path / "a")
    assert commands.call("ask", [str(tmp_path / "a"), "influence", "--outputs", "1", "--top", "2"]) == 0
    out = capsys.readouterr().out
    assert "1: samples that carry the correlation" in out
    assert out.count("against") == 2
    with pytest.raises(ConfigError, match="give the numbers of a feature"):
        commands.call("ask", [str(tmp_path / "a"), "influence", "--feature", "a"])
