"""Outputs of each sample's own: the maps are those of all outputs, picked, at the price of those that are asked for."""

from __future__ import annotations

from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import igc_dist
from igc_dist import Targets, config, report, upkeep
from igc_dist.baselines import References, Resampled
from igc_dist.metrics import Insertion, MaxSensitivity, score
from igc_dist.model import Model
from igc_dist.records import ConfigError, DataError, NonFiniteError
from tests import models

N, J, SHAPE = 9, 5, (1, 4, 4)
DRAWS = np.random.default_rng(0)
X, LABEL = torch.as_tensor(DRAWS.uniform(size=(N, *SHAPE))), torch.arange(N) * 2 % J
DATA = torch.utils.data.TensorDataset(X, LABEL)
NAMES = ("cat", "dog", "owl", "fox", "elk")
METHODS = sorted(
    path.stem
    for path in (config.folder() / "method").glob("*.yaml")
    if not (preset := config.preset(path.stem)).statistics and preset.samples
)
START: dict[str, Any] = {"ig2": References(2), "idgi_ig2": References(2), "expected_gradients": Resampled(3)}


def net() -> nn.Module:
    torch.manual_seed(3)
    parts = {"flat": nn.Flatten(), "body": nn.Linear(16, 9), "bend": nn.Tanh(), "head": nn.Linear(9, J)}
    return nn.Sequential(OrderedDict(parts)).double()


def run(target: Any, data: Any = DATA, **settings: Any) -> Any:
    return igc_dist.attribute(net(), data, **{"method": "ig", "n_steps": 4, "n_folds": 3, "target": target, **settings})


def picked(maps: Any, which: np.ndarray) -> np.ndarray:
    """(n, L, *P) of (n, J, *P)."""
    return np.take_along_axis(maps.values, which.reshape(*which.shape, *(1,) * len(SHAPE)), 1)


@pytest.mark.parametrize(
    "method", [pytest.param(name, marks=pytest.mark.slow if "_" in name else ()) for name in METHODS]
)
def test_every_method_finds_the_maps_of_all_outputs_picked(method: str) -> None:
    settings = {"method": method, "baseline": START.get(method), "micro_batch": 7, "seed": 4}
    every = run(None, **settings)
    with torch.no_grad():
        order = net()(X).numpy().argsort(1)[:, ::-1]
    for target, which in (("own", LABEL.numpy()[:, None]), ("top:2", order[:, :2])):
        own = run(target, **settings)
        np.testing.assert_array_equal(own["samples/explained"], which)
        want = picked(every["samples/x/attribution"], which)
        np.testing.assert_allclose(own["samples/x/attribution"], want, rtol=1e-9, atol=1e-12)
        for table in ("prediction", "prediction_baseline", "delta", "target"):
            want = np.take_along_axis(every[f"samples/{table}"].values, which, 1)
            np.testing.assert_allclose(own[f"samples/{table}"], want, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(("target", "n_asked"), [("own", 1), ("predicted", 1), ("top:3", 3)])
def test_a_sample_costs_the_gradients_of_its_own_outputs(target: str, n_asked: int) -> None:
    model = models.Counted(net())
    igc_dist.attribute(model, DATA, method="ig", n_steps=1, n_folds=3, target=target)
    once = model.backwards
    igc_dist.attribute(model, DATA, method="ig", n_steps=11, n_folds=3, target=target)
    assert model.backwards - 2 * once == 10 * N * n_asked


@pytest.mark.parametrize("steps", [1, 3])
def test_categories_that_are_walked_in_pairs_have_outputs_of_their_own(steps: int) -> None:
    """Such a forward needs more of a sample than its point, as the picked outputs do."""
    model, label = models.Sequence(), torch.arange(N) % 2
    x = torch.randint(0, 6, (N, 4), generator=torch.Generator().manual_seed(N))
    settings: dict[str, Any] = {"method": "ig", "n_steps": steps, "n_folds": 2, "categories": 6}
    every, own = (igc_dist.attribute(model, (x, label), target=target, **settings) for target in ("one_hot", "own"))
    maps = every["samples/x/attribution"].values
    np.testing.assert_allclose(
        own["samples/x/attribution"].values[:, 0], maps[np.arange(N), label.numpy()], rtol=1e-5, atol=1e-7
    )


def test_rows_of_other_samples_are_asked_for_by_number() -> None:
    model, picks = Model(net()), torch.tensor([[1], [4], [0]])
    view = model.picking(picks)
    with model.borrowed("cpu"):
        every = model.predict((X[:3],))
        torch.testing.assert_close(view.predict((X[:3],)), every.gather(1, picks))
        rows = torch.tensor([2, 2, 0, 1])
        found = view.of_rows(rows).predict((X[rows],))
        torch.testing.assert_close(found, every[rows].gather(1, picks[rows]))
        assert torch.equal(model.predict((X[:3],)), every)


def test_names_are_those_of_the_classes() -> None:
    tree = run(Targets(each="top:2", classes=NAMES))
    which = tree["samples/explained"].values
    assert tree["samples/explained_name"].values.tolist() == [[NAMES[k] for k in row] for row in which]
    assert tree["output"].values.tolist() == ["top 1", "top 2"]
    assert run("own")["samples/explained_name"].values[:, 0].tolist() == [str(k) for k in LABEL.tolist()]


def test_equal_outputs_are_taken_in_their_order() -> None:
    flat = nn.Sequential(nn.Flatten(), nn.Linear(16, J)).double()
    nn.init.zeros_(flat[1].weight), nn.init.zeros_(flat[1].bias)
    tree = igc_dist.attribute(flat, DATA, method="ig", n_steps=1, n_folds=2, target="top:3")
    assert tree["samples/explained"].values.tolist() == [[0, 1, 2]] * N


def test_metrics_score_each_map_for_its_output() -> None:
    metrics = [Insertion(start="mean"), MaxSensitivity(draws=2)]
    tree = run("top:2", metrics=metrics, samples=True, output_block=1)
    every = run(None, metrics=metrics, samples=True)
    which = tree["samples/explained"].values
    for name in ("insertion", "max_sensitivity"):
        want = np.take_along_axis(every[f"samples/metrics/{name}"].values, which, 1)
        np.testing.assert_allclose(tree[f"samples/metrics/{name}"], want, rtol=1e-9)
    own = run("own", metrics=metrics[:1])
    found = score(net(), DATA, own["samples/x/attribution"].values[:, 0], metrics[:1], target=LABEL.numpy())
    np.testing.assert_allclose(own["samples/metrics/insertion"].values[:, 0], found["insertion"], rtol=1e-9)


def test_predictions_of_other_outputs_have_no_correlation_in_common() -> None:
    tree = run("own")
    assert not {"correlation", "baseline_term", "correlation_se", "constant"} & {*tree.data_vars}
    assert not {"weight", "importance"} & {*tree["known"].data_vars}


def test_a_sample_without_a_label_has_no_output() -> None:
    label = LABEL.double()
    label[4] = torch.nan
    data = torch.utils.data.TensorDataset(X, label)
    target = Targets(each="own", one_hot=True)
    with pytest.raises(NonFiniteError, match="sample 4 has NaN or infinity in its target"):
        run(target, data)
    assert run(target, data, on_nonfinite="skip").attrs["skipped"] == [
        {"index": 4, "reason": "NaN or infinity in its target"}
    ]
    free = run(Targets(each="predicted", one_hot=True), data)  # the prediction is there all the same
    assert np.isfinite(free["samples/x/attribution"].values).all()


def test_the_store_verifies_and_the_page_names_the_outputs(tmp_path: Path) -> None:
    tree = run(Targets(each="own", classes=NAMES), store=tmp_path / "s.zarr")
    assert upkeep.verify(tmp_path / "s.zarr").lines == []
    page = report.write_report(tree, tmp_path, beside=report.Beside(lambda indices: X[indices].numpy())).read_text()
    for name in {NAMES[k] for k in LABEL.tolist()}:
        assert name in page


@pytest.mark.parametrize(
    ("settings", "error", "said"),
    [
        ({"target": "own", "method": "igc"}, ConfigError, "'correlation' is of one output over all samples"),
        ({"target": "top:2", "final_layer": "head"}, ConfigError, "two ways to make many outputs cheap"),
        ({"target": "top:6"}, ConfigError, "the model has 5 outputs, give top:5 at most"),
        ({"target": "top:0"}, ConfigError, "'own', 'predicted' and 'top:k'"),
        ({"target": "own", "n_others": 2}, ConfigError, "target.n_others=2 with target.each=own"),
        ({"target": "predicted", "baseline": References(2, "top_k")}, ConfigError, "keeps those of each sample alone"),
        ({"target": "own", "data": (X, torch.rand(N, J))}, DataError, "target=own explains each sample for its label"),
    ],
)  # fmt: skip
def test_what_has_no_own_output_is_refused(settings: dict[str, Any], error: type[Exception], said: str) -> None:
    with pytest.raises(error, match=said):
        run(**settings)
    with pytest.raises(ConfigError, match=r"outputs of its own: leave target\.outputs null"):
        Targets(outputs=(1,), each="own")
