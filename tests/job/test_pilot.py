"""`quadrature=auto`, the default: a pilot on a few samples finds the number of nodes."""

from __future__ import annotations

import warnings
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import igc_dist
from igc_dist.config import preset
from igc_dist.job import pilot
from igc_dist.paths import Auto, ensure_rule
from igc_dist.records import ConfigError, StoreError
from igc_dist.report import judged
from tests import models
from tests.ranks import run_ranks, values

pytestmark = pytest.mark.pilot


def problem(kind: type[nn.Module] = nn.ReLU, n: int = 24) -> tuple[nn.Module, tuple[torch.Tensor, torch.Tensor]]:
    """A net with a bias, which bends along the path, and targets that its outputs explain in part."""
    torch.manual_seed(3)
    net = nn.Sequential(nn.Linear(3, 16), kind(), nn.Linear(16, 2)).double()
    x = torch.randn(n, 3).double()
    return net, (x, net(x).detach() + 0.1 * torch.randn(n, 2).double())


def attributed(model: nn.Module, data: Any, **settings: Any) -> Any:
    return igc_dist.attribute(model, data, **{"n_folds": 2, "threads": 1, **settings})


def rule_of(tree: Any) -> str:
    return str(tree.attrs["spec"]["attributor"]["quadrature"]["name"])


def test_nodes_are_doubled_until_the_map_stands_still() -> None:
    """The oracle is the run itself, with fixed numbers of nodes, over the samples of the pilot: here all of them."""
    model, data = problem(n=16)  # so few that the pilot takes them all
    tree = attributed(model, data)
    runs = cache(lambda n: attributed(model, data, quadrature="midpoint", n_steps=n))
    scale = np.maximum(np.abs(tree["correlation"]), pilot.LEAST)

    def change(n: int) -> float:
        more, less = runs(n), runs(n // 2)
        size = np.maximum(scale, np.linalg.norm(more["x/igc"], axis=1))
        step = np.linalg.norm(more["x/igc"] - less["x/igc"], axis=1) / size
        return float(np.maximum(step, np.abs(more["quadrature_error"]) / scale).max())

    wanted = next(n for n in pilot.NODES[1:] if change(n) <= 0.01)
    assert rule_of(tree) == f"midpoint-{wanted}"
    assert wanted > 8, "the first try fits: the case shows nothing"
    np.testing.assert_array_equal(tree["x/igc"], runs(wanted)["x/igc"])
    assert tree.attrs["provenance"]["quadrature"].startswith("by a pilot of 16 samples, which leaves ")
    assert str(tree.attrs["provenance"]["quadrature_tol"]) == "0.01"


def test_a_smooth_model_takes_few_nodes_and_a_smaller_tolerance_more() -> None:
    assert rule_of(attributed(*problem(nn.Tanh))) == "gauss_legendre-8"
    loose, tight = (rule_of(attributed(*problem(), quadrature_tol=tol)) for tol in (0.3, 0.01))
    assert int(loose.split("-")[1]) < int(tight.split("-")[1])


def test_a_number_of_nodes_or_a_rule_is_taken_as_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pilot, "_piloted", None)  # calling it fails
    model, data = problem()
    given: dict[str, dict[str, Any]] = {
        "midpoint-4": {"n_steps": 4},
        "trapezoid-32": {"quadrature": "trapezoid"},
        "simpson-33": {"quadrature": "simpson"},
        "midpoint-5": {"quadrature": "auto", "n_steps": 5},
    }
    for name, settings in given.items():
        tree = attributed(model, data, **settings)
        assert rule_of(tree) == name
        assert "quadrature" not in tree.attrs["provenance"]


@pytest.mark.parametrize("settings", [{"n_steps": 4}, {"quadrature": "midpoint"}, {"quadrature": "auto", "n_steps": 4}])
def test_a_tolerance_of_a_fixed_number_is_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=r"quadrature.tol=0.1 is for a number of nodes that is open"):
        ensure_rule(settings.get("quadrature"), settings.get("n_steps"), 0.1)
    with pytest.raises(ConfigError, match=r"quadrature.tol=0.0: give a number between 0 and 1"):
        Auto(tol=0.0)


def by_rank() -> tuple[str, Any]:
    tree = attributed(*problem())
    return tree.attrs["spec_hash"], tree["x/igc"].values


@pytest.mark.dist
def test_ranks_agree_on_the_nodes() -> None:
    """One rank chooses for all: the same spec and the same bits on one rank and on two."""
    alone, pair = by_rank(), values(run_ranks(2, by_rank))
    for found in pair:
        assert found[0] == alone[0]
        np.testing.assert_array_equal(found[1], alone[1])


def test_a_run_that_goes_on_keeps_its_nodes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They were chosen with the tolerance of the run or with a smaller one; no pilot is made again."""
    model, data = problem()
    first = attributed(model, data, store=tmp_path / "s.zarr")
    with monkeypatch.context() as patch:
        patch.setattr(pilot, "_piloted", None)
        for tol in (None, 0.1):
            again = attributed(model, data, store=tmp_path / "s.zarr", quadrature_tol=tol)
            assert again.attrs["spec_hash"] == first.attrs["spec_hash"]
    with pytest.raises(StoreError, match="quadrature"):  # more nodes
        attributed(model, data, store=tmp_path / "s.zarr", quadrature_tol=1e-3)


def test_stores_from_before_the_pilot_go_on(tmp_path: Path) -> None:
    """They hold the old default, and do not say who chose it. A number that was not the default is not mixed in."""
    model, data = problem()
    for n, name in ((32, "old"), (4, "few")):
        attributed(model, data, n_steps=n, store=tmp_path / f"{name}.zarr")
    assert rule_of(attributed(model, data, store=tmp_path / "old.zarr")) == "midpoint-32"
    with pytest.raises(StoreError, match=r"quadrature.*midpoint-4"):
        attributed(model, data, store=tmp_path / "few.zarr")


def test_a_pilot_that_does_not_settle_says_so(caplog: pytest.LogCaptureFixture) -> None:
    """A function with a jump: its error is far above the tolerance with any number of nodes."""
    model = models.Function(lambda x: (x.sum(1, keepdim=True) > 0.3).double() * 5 + x.sum(1, keepdim=True).relu())
    x = torch.randn(16, 3).double()
    tree = attributed(model, (x, model(x)))
    assert rule_of(tree) == "midpoint-256"
    assert "256 nodes, the most that are tried, leave" in caplog.text


@pytest.mark.parametrize("method", ["ig", "igac", "ig_mean_std", "smoothgrad_ig", "guided_igc", "bsc", "ig_adaptive"])
def test_methods_find_their_nodes_or_have_none_to_find(method: str) -> None:
    model, data = problem(nn.Tanh, 8)
    wish = preset(method)
    tree = attributed(model, data, method=method, n_steps=2 if method == "guided_igc" else None)
    found = "quadrature" in tree.attrs["provenance"]
    assert found == (method in ("ig", "igac", "ig_mean_std", "smoothgrad_ig")), wish
    if found:
        assert "gauss_legendre-8" in tree.attrs["provenance"]["rule"]


def test_targets_and_inputs_that_say_little_do_not_stop_a_pilot() -> None:
    """Constant targets, missing targets, samples that are skipped, a single sample."""
    model, (x, y) = problem(nn.Tanh, 20)
    constant, missing, bad = torch.zeros_like(y), y.clone(), x.clone()
    missing[:, 0], bad[3] = float("nan"), float("inf")
    for data, settings in (
        ((x, constant), {}),
        ((x, missing), {}),
        ((bad, y), {"on_nonfinite": "skip"}),
        ((x[:1], y[:1]), {"method": "ig", "n_folds": 1}),
    ):
        assert rule_of(attributed(model, data, **settings)) == "gauss_legendre-8"


def test_a_class_that_no_sample_of_the_pilot_has_is_measured_by_its_mean() -> None:
    """The predictions are all near 0, so that what a correlation finds is rounding. By hand: the mean error along the
    path, as a part of the mean distance from the baseline."""
    x = np.linspace(2.0, 3.0, 16)
    model = models.Function(lambda x: torch.sigmoid(-9 * x).double())
    tree = attributed(model, (torch.from_numpy(x[:, None]), torch.zeros(16, 1).double()))

    def left_open(n: int) -> float:
        at, weight = np.polynomial.legendre.leggauss(n)
        points = 1 / (1 + np.exp(9 * np.outer(x, (at + 1) / 2)))
        mean = (x * ((-9 * points * (1 - points)) @ (weight / 2))).mean()
        return float(mean / (1 / (1 + np.exp(9 * x)) - 0.5).mean())

    wanted = next(
        n for n in pilot.NODES[1:] if max(abs(left_open(n) - left_open(n // 2)), abs(left_open(n) - 1)) <= 0.01
    )
    assert rule_of(tree) == f"gauss_legendre-{wanted}"
    assert 8 < wanted < 256


def test_a_pilot_leaves_no_trace_in_the_numbers() -> None:
    """The run is that of the rule given by name, with drawn baselines too."""
    model, data = problem(nn.Tanh)
    for settings in ({"baseline": 3}, {"baseline": igc_dist.baselines.Mean()}):
        auto = attributed(model, data, **settings)
        named = attributed(model, data, quadrature="gauss_legendre", n_steps=8, **settings)
        assert auto.attrs["spec_hash"] == named.attrs["spec_hash"]
        np.testing.assert_array_equal(auto["x/igc"], named["x/igc"])


def test_a_method_that_is_complete_with_any_steps_is_compared_with_half_of_them() -> None:
    """The change of IDGI's map, by hand from two runs over the samples of the pilot; few steps are warned of."""
    model, data = problem(n=16)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", igc_dist.AccuracyWarning)
        coarse, fine, half = (attributed(model, data, method="idgic", n_steps=n) for n in (2, 128, 64))
    size = np.maximum(np.maximum(np.abs(fine["correlation"]), pilot.LEAST), np.linalg.norm(fine["x/idgic"], axis=1))
    wanted = (np.linalg.norm(fine["x/idgic"] - half["x/idgic"], axis=1) / size).max()
    np.testing.assert_allclose(float(fine.attrs["provenance"]["half_steps"]), wanted, rtol=0.06)
    said = [[text for _, text in judged(tree) if "against half of the steps" in text] for tree in (coarse, fine)]
    assert said[1] == []
    assert said[0][0].endswith("take twice the steps (method.attributor.n_steps, now 2).")
