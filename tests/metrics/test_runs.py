"""Metrics of a run: as `score` finds them, in the store, the tables and the page, with the same bits on any world."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import igc_dist
from igc_dist import report
from igc_dist.attributors import IDGI, IG2
from igc_dist.metrics import Completeness, Insertion, MaxSensitivity, Randomisation, Steps, score
from igc_dist.records import ConfigError

N, J, SHAPE = 23, 3, (1, 4, 5)
DRAWS = np.random.default_rng(0)
X, Y = torch.as_tensor(DRAWS.uniform(size=(N, *SHAPE))).float(), torch.as_tensor(DRAWS.normal(size=(N, J))).float()
DATA = torch.utils.data.TensorDataset(X, Y)
START = torch.full(SHAPE, 0.25)


def net() -> torch.nn.Module:
    torch.manual_seed(3)
    return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(20, 6), torch.nn.Tanh(), torch.nn.Linear(6, J))


def run(metrics: Any, **settings: Any) -> Any:
    return igc_dist.attribute(
        net(), DATA, n_steps=4, n_folds=4, baseline=START, metrics=metrics, samples=True, **settings
    )


CHOSEN = {
    "insertion": Insertion(start="mean"),
    "from_start": Insertion(start="baseline", of="logit", steps=5),
    "completeness": Completeness(),
    "sparseness": "sparseness",
}


def test_a_run_finds_what_score_finds() -> None:
    tree = run(CHOSEN, output_block=2)
    maps = tree["samples/x/attribution"].values
    found = score(net(), DATA, maps, CHOSEN, baseline=START)
    for name in ("insertion", "insertion_curve", "from_start", "completeness", "completeness_relative", "sparseness"):
        np.testing.assert_allclose(tree[f"samples/metrics/{name}"], found[name], rtol=2e-4, atol=2e-5)
        if name != "insertion_curve":
            for end in ("mean", "se", "ci_low", "ci_high", "n"):
                np.testing.assert_allclose(tree[f"metrics/{name}_{end}"], found[f"{name}_{end}"], rtol=2e-3, atol=2e-5)
    np.testing.assert_allclose(tree["metrics/insertion_fraction"], found["insertion_fraction"])
    assert tree["metrics/scored"].values.tolist() == [N] * J
    assert tree.attrs["metrics"]["insertion"]["start"] == "mean"


def test_maps_that_a_metric_asks_for_are_those_of_the_run() -> None:
    """IG of a model that is linear changes by ``w u``; a run without kept samples has no maps, but scores."""
    line = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(20, J))
    metrics = [MaxSensitivity(draws=3, radius=0.1), Randomisation()]
    tree = igc_dist.attribute(line, DATA, n_steps=2, n_folds=3, metrics=metrics, output_block=2)
    assert "x" not in tree["samples"].children
    w = line[1].weight.detach().reshape(J, *SHAPE)

    def explain(x: torch.Tensor, output: torch.Tensor) -> torch.Tensor:
        return x * line[1].weight.detach().reshape(J, *SHAPE)[output].to(x)

    found = score(line, DATA, X[:, None] * w, metrics, explain=explain)
    for name in ("max_sensitivity", "randomisation", "randomisation_ssim"):
        np.testing.assert_allclose(tree[f"samples/metrics/{name}"], found[name], rtol=1e-3, atol=1e-5)
    np.testing.assert_array_equal(line[1].weight.detach().reshape(J, *SHAPE), w)


TWICE = {
    "ig": {},
    "trapezoid": {"method": "ig", "quadrature": "trapezoid", "then": 7},  # the node of the middle counts once
    "smoothgrad_ig": {},
    "blur_ig": {},
    "idgi": {},
    "idgi_blur_ig": {},
    "guided_ig": {},
    "idgi_guided_ig": {},
    "idg": {},
    "left_ig": {},
}


@pytest.mark.parametrize("name", TWICE)
def test_steps_is_the_change_from_a_run_of_twice_the_steps(name: str) -> None:
    settings: dict[str, Any] = {"method": name} | TWICE[name]
    then = settings.pop("then", 8)

    def made(n_steps: int, **more: Any) -> Any:
        model = net().double()
        return igc_dist.attribute(
            model,
            DATA,
            n_steps=n_steps,
            n_folds=3,
            baseline=START,
            samples=True,
            precision="64-true",
            **settings,
            **more,
        )

    tree = made(4, metrics=["steps"])
    a, b = (t["samples/x/attribution"].values.reshape(N, J, -1) for t in (tree, made(then)))
    expected = abs(b - a).sum(2) / abs(b).sum(2)
    assert expected.max() > 1e-4
    np.testing.assert_allclose(tree["samples/metrics/steps"], expected, rtol=1e-6)


def test_steps_in_forward_mode_is_that_of_reverse_mode() -> None:
    torch.manual_seed(0)
    wide = torch.nn.Sequential(torch.nn.Linear(3, 6), torch.nn.Tanh(), torch.nn.Linear(6, 12)).double()
    data = torch.utils.data.TensorDataset(X.flatten(1)[:, :3].double(), torch.zeros(N, 12))
    found = [
        igc_dist.attribute(
            wide, data, n_steps=2, n_folds=2, metrics=["steps"], mode=mode, baseline=0.0, precision="64-true"
        )
        for mode in ("forward", "reverse")
    ]
    one, other = (tree["samples/metrics/steps"].values for tree in found)
    assert (other > 0).all()
    np.testing.assert_allclose(one, other, rtol=1e-9)


def test_twice_the_steps_of_ig2_are_half_as_long() -> None:
    """The walk is as long as before; IDGI on it doubles the walk's own steps."""
    walk = IG2("fc.input", n_steps=5, step_size=0.5)
    assert walk.doubled == IG2("fc.input", n_steps=10, step_size=0.25)
    assert IDGI(walk).doubled == IDGI(walk.doubled)
    assert IDGI(n_steps=5).doubled == IDGI(n_steps=10)


def test_tables_and_page_show_the_means(tmp_path: Path) -> None:
    tree = run(["insertion", "sparseness"])
    table = report.scores_table(tree)
    assert table is not None
    cells = [str(cell) for column in table.columns for cell in column.cells]
    mean = report.scores.number(tree["metrics/insertion_mean"].values[0])
    assert any(cell.startswith(f"{mean} (") and cell.endswith(f"n {N})") for cell in cells)
    page = report.write_report(tree, tmp_path).read_text()
    assert '<h2 id="metrics">' in page
    assert mean in page
    assert "insertion.start" in page
    without = igc_dist.attribute(net(), DATA, n_steps=2, n_folds=3)
    assert report.scores_table(without) is None
    assert '<h2 id="metrics">' not in report.write_report(without, tmp_path).read_text()


def test_samples_that_are_left_out_are_not_scored() -> None:
    broken = X.clone()
    broken[5, 0, 0, 0] = torch.nan
    data = torch.utils.data.TensorDataset(broken, Y)
    tree = igc_dist.attribute(net(), data, n_steps=2, n_folds=3, metrics=["sparseness"], on_nonfinite="skip")
    assert tree["metrics/scored"].values.tolist() == [N - 1] * J
    assert tree["samples/metrics/sparseness"].isnull().sum().item() == J
    assert tree["samples/metrics/sparseness"][5].isnull().all()


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"metrics": ["aic"], "data": "wide"}, "aic needs images"),
        ({"metrics": [Completeness()], "baseline": 3}, "take one for each sample"),
        ({"metrics": [Completeness()], "method": "gradients"}, "needs the baseline of the maps"),
        ({"metrics": ["insertion"], "reduce": igc_dist.features.Total()}, "reduce sums over features"),
        ({"metrics": ["insertion"], "budget": igc_dist.Budget(seconds=5.0)}, "metrics with a budget"),
        ({"metrics": ["insertion"], "design": "stratified"}, "metrics score maps of single samples"),
        ({"metrics": [Steps(n_steps=4)]}, "n_steps is given"),
        ({"metrics": ["steps"], "method": "gradients"}, "asks for maps of twice the steps"),
        ({"metrics": ["steps"], "method": "ig_adaptive"}, "or chooses them itself"),
        ({"metrics": {"a b": "insertion"}}, "is no name for scores"),
        ({"metrics": ["insertion"], "baseline": 3, "baseline_block": 1}, "'insertion' is not linear"),
    ],
)
def test_what_does_not_fit_a_run_is_refused(settings: dict[str, Any], said: str) -> None:
    wide = torch.utils.data.TensorDataset(X.flatten(1), Y)
    data = wide if settings.pop("data", None) else DATA
    with pytest.raises(ConfigError, match=said):
        igc_dist.attribute(net(), data, n_folds=3, **settings)
