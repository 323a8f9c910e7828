"""Strategies of a model: planted ones are found with their samples and maps, and none where there are none."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr

import igc_dist
from igc_dist.cli import commands
from igc_dist.features import Masks
from igc_dist.records import ConfigError
from igc_dist.results import Grouping, strategies
from igc_dist.results.clusters import clusters, eigenvalues, graph

N, QUICK = 120, Grouping(references=19, most=4)


class Either(torch.nn.Module):
    """The class is seen by a mark at the left (features 0, 1) or at the right (4, 5): two strategies."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x.flatten(1)
        left, right = torch.relu(x[:, :2]).sum(1), torch.relu(x[:, 4:]).sum(1)
        return torch.stack([left + right, 1 - left - right], 1)


def planted() -> tuple[torch.Tensor, torch.Tensor]:
    """A third of the samples has the mark at the left, a quarter at the right."""
    x = 0.05 * torch.randn(N, 6, generator=torch.Generator().manual_seed(0)).abs()
    x[:40, :2] += 1.0
    x[40:70, 4:] += 1.0
    return x, (torch.arange(N) >= 70).long()


def run(*, x: Any = None, y: Any = None, **settings: Any) -> xr.DataTree:
    data = planted() if x is None else (x, y)
    wishes = {"target": "one_hot", "n_steps": 2, "n_folds": 4, "threads": 1, "samples": True}
    return igc_dist.attribute(Either(), data, **wishes | settings)


def test_planted_strategies_are_found() -> None:
    tree = run()
    found = strategies(tree, [0], how=QUICK)
    assert found["clusters"].values.tolist() == [2]
    assert found["p"].values.item() == 0.05
    assert found["size"].values.tolist() == [[40, 30, 0, 0]]
    of = found["cluster_of"].values[0]
    assert (of[:40] == 0).all()
    assert (of[40:70] == 1).all()
    assert (of[70:] == -1).all()
    maps = tree["samples/x/attribution"].values[:, 0]
    np.testing.assert_allclose(found["x/mean"].values[0, 0], maps[:40].mean(0), rtol=1e-6)
    np.testing.assert_allclose(found["x/mean"].values[0, 1], maps[40:70].mean(0), rtol=1e-6)
    assert np.isnan(found["x/mean"].values[0, 2:]).all()
    example = found["example"].values[0]
    assert {*example[0].tolist()} <= {*range(40)}
    assert {*example[1].tolist()} <= {*range(40, 70)}
    # two clusters that do not touch: two eigenvalues of 0, then a gap
    assert found["eigenvalue"].values[0, :2].max() < 1e-3
    assert found["eigenvalue"].values[0, 2] > 0.05
    # their share and that of the others is the whole
    c = igc_dist.results.influence(tree, [0], most=N)
    rest = sum(
        value for n, value in zip(c["sample"].values.ravel(), c["contribution"].values.ravel(), strict=True) if n >= 70
    )
    np.testing.assert_allclose(found["share"].values.sum() + rest / c["total"].values[0], 1.0, rtol=1e-6)


def test_there_are_no_clusters_where_there_are_none() -> None:
    """Gaussian terms, and half of them: one cluster, whatever the eigengap."""
    rng, wrong = np.random.default_rng(0), 0
    for draw in range(5):
        z = rng.standard_normal((160, 5)) * [2, 1, 1, 0.5, 0.5]
        for rows in (z, z[z[:, 0] > 0]):
            wrong += clusters(rows / np.linalg.norm(rows, axis=1, keepdims=True), QUICK, draw)[0] > 1
    assert wrong <= 1


def test_eigenvalues_are_those_of_the_whole_matrix() -> None:
    """By the definition, ``1 - D^-1/2 A D^-1/2``, with all eigenvalues at once."""
    rows = np.random.default_rng(0).standard_normal((50, 3))
    weight = np.asarray(graph(rows).todense())
    np.testing.assert_array_equal(weight, weight.T)
    assert (weight.sum(1) >= 10).all()
    degree = weight.sum(1)
    whole = np.linalg.eigvalsh(np.eye(50) - weight / np.sqrt(degree[:, None] * degree))
    np.testing.assert_allclose(eigenvalues(rows, 6), whole[:6], atol=1e-3)


def test_large_maps_are_binned_and_many_samples_drawn() -> None:
    """Bins keep sums, so strategies are the same; of the samples that are left out nothing is said."""
    x, y = planted()
    wide = x.repeat_interleave(7, dim=1) / 7  # 42 features

    class Wide(Either):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return super().forward(x.unflatten(1, (6, 7)).sum(2))

    tree = igc_dist.attribute(Wide(), (wide, y), target="one_hot", n_steps=2, n_folds=4, threads=1, samples=True)
    found = strategies(tree, [0], how=Grouping(references=19, most=3, samples=50))
    assert found["clusters"].values.tolist() == [2]
    assert found["x/mean"].shape == (1, 3, 42)
    of = found["cluster_of"].values[0]
    assert (of >= 0).sum() == 50
    assert len({*of[:40].tolist()} - {-1}) == 1


def test_what_cannot_be_asked() -> None:
    with pytest.raises(ConfigError, match=r"were not kept: run with samples=True \(store.samples=true\), best with"):
        strategies(run(samples=False))
    few = run(x=planted()[0][:40], y=(torch.arange(40) > 30).long())
    with pytest.raises(ConfigError, match="output 1: 9 samples count and have a target above its mean, 30 are needed"):
        strategies(few, [1])
    with pytest.raises(ConfigError, match="references=3: give 19 or more"):
        Grouping(references=3)


def test_features_have_their_names(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Segments of label maps, in the answer and on the command line."""
    x, y = planted()
    maps = np.tile(np.repeat([0, 1, 2], 2).astype(np.uint8), (N, 1, 1))
    tree = run(x=x[:, None], y=y, reduce=Masks(["left", "middle", "right"], maps), store=tmp_path / "a")
    assert strategies(tree, [0], how=QUICK)["x/mean"].coords["segment"].values.tolist() == ["left", "middle", "right"]
    assert commands.call("ask", [str(tmp_path / "a"), "strategies", "--outputs", "0"]) == 0
    assert "left +" in capsys.readouterr().out


def test_strategies_on_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(store=tmp_path / "a")
    assert commands.call("ask", [str(tmp_path / "a"), "strategies", "--outputs", "0"]) == 0
    out = capsys.readouterr().out
    assert "0: 2 clusters (p = 0.025)" in out
    assert "samples with a target above its mean" in out
