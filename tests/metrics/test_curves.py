"""Insertion and deletion: a literal twin in float64, closed forms of linear models, and what `score` makes of them."""

from __future__ import annotations

import itertools
import json
import re
from typing import Any

import numpy as np
import pytest
import torch
from scipy.integrate import trapezoid
from scipy.ndimage import gaussian_filter

from igc_dist import metrics
from igc_dist.metrics import Deletion, Insertion, score
from igc_dist.metrics.curves import blurred
from igc_dist.records import ConfigError, DataError
from tests.commands import ROOT

N, C, H, W, J = 5, 2, 3, 4, 3
DRAWS = np.random.default_rng(0)
X = DRAWS.normal(size=(N, C, H, W))
BASE = DRAWS.normal(size=(N, C, H, W))
MAPS = DRAWS.integers(-3, 4, size=(N, J, C, H, W)) / 2  # with many ties
NET = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(C * H * W, 4), torch.nn.Tanh(), torch.nn.Linear(4, J))
NET = NET.double()
DATA = (torch.as_tensor(X), torch.zeros(N))


def twin(metric: Any, n: int, j: int) -> tuple[list[float], list[float]]:
    """One image after the other, one pixel after the other."""
    x = X[n]
    x0 = {"black": 0 * x, "mean": X.mean(0), "baseline": BASE[n]}[metric.start]
    value = [sum(MAPS[n, j, c, h, w] for c in range(C)) for h in range(H) for w in range(W)]
    value = [abs(v) for v in value] if metric.rank == "absolute" else value
    order = sorted(range(H * W), key=lambda p: (-value[p], p))
    if metric.pixels is None:
        counts = [t * H * W // metric.steps for t in range(metric.steps + 1)]
    else:
        counts = [*range(0, H * W, metric.pixels), H * W]
    curve = []
    for count in counts:
        image, other = (x0.copy(), x) if metric.name == "insertion" else (x.copy(), x0)
        for p in order[:count]:
            image[:, p // W, p % W] = other[:, p // W, p % W]
        f = NET(torch.as_tensor(image[None]))[0].detach().numpy()
        curve.append(f[j] if metric.of == "logit" else np.exp(f[j]) / np.exp(f).sum())
    return [count / (H * W) for count in counts], curve


@pytest.mark.parametrize("kind", [Insertion, Deletion])
@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"start": "mean", "of": "logit", "steps": 5},
        {"start": "baseline", "pixels": 5, "rank": "absolute"},
    ],
)
def test_curves_equal_their_literal_twin_for_any_batch_size(kind: Any, settings: dict[str, Any]) -> None:
    metric = kind(**settings)
    for size in (1, 7, 64):
        found = score(NET, DATA, MAPS, {"it": metric}, baseline=BASE, batch_size=size)
        for n, j in itertools.product(range(N), range(J)):
            at, curve = twin(metric, n, j)
            np.testing.assert_allclose(found["it_fraction"], at, atol=1e-15)
            np.testing.assert_allclose(found["it_curve"][n, j], curve, atol=1e-12)
            area, whole = trapezoid(curve, at), curve[-1 if kind is Insertion else 0]
            np.testing.assert_allclose(found["it"][n, j], area, atol=1e-12)
            np.testing.assert_allclose(found["it_normalised"][n, j], area / whole, rtol=1e-9)
    assert json.loads(found.attrs["metrics"])["it"]["start"] == metric.start


def test_maps_of_a_linear_model_hit_the_extremes() -> None:
    """Of all orders of four features, the contributions give the best one, and their negatives the worst."""
    net = torch.nn.Linear(4, 1).double()
    x = torch.tensor([[1.0, -2.0, 0.5, 3.0]]).double()
    parts = (net.weight * x).detach()
    orders = np.array([np.argsort(order) for order in itertools.permutations(range(4))], dtype=float)
    many = (x.expand(len(orders), 4), torch.zeros(len(orders)))
    for metric, best in ((Insertion(of="logit", steps=4), "max"), (Deletion(of="logit", steps=4), "min")):
        every = score(net, many, orders, [metric])[metric.name]
        (perfect,), (inverted,) = (score(net, (x, torch.zeros(1)), s * parts, [metric])[metric.name] for s in (1, -1))
        low, high = every.min().item(), every.max().item()
        np.testing.assert_allclose([inverted, perfect], [low, high] if best == "max" else [high, low], rtol=1e-12)
        assert high - low > 0.1


class Flat(torch.nn.Module):
    """No forward of zero rows: -1 is then undefined."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.reshape(len(x), -1)[:, :J]


class Either(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return (x != 0).flatten(1).any(1, keepdim=True).double()


class All(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return (x != 0).flatten(1).all(1, keepdim=True).double()


def test_a_model_that_one_pixel_decides_case_88() -> None:
    x, a = torch.ones(1, 1, 16, 16).double(), torch.zeros(1, 1, 16, 16)
    for net, metric, area in ((All(), Deletion, 0), (Either(), Insertion, 1)):
        found = score(net, (x, torch.zeros(1)), a, [metric(of="logit", steps=256)])
        assert abs(found[metric.name].item() - area) <= 0.01


def test_the_blur_is_that_of_rise() -> None:
    kernel = np.zeros((11, 11))
    kernel[5, 5] = 1
    kernel = gaussian_filter(kernel, 5)
    padded = np.pad(X, ((0, 0), (0, 0), (5, 5), (5, 5)))
    literal = [[(padded[..., h : h + 11, w : w + 11] * kernel).sum((-1, -2)) for w in range(W)] for h in range(H)]
    np.testing.assert_allclose(blurred(torch.as_tensor(X)), np.moveaxis(literal, (0, 1), (2, 3)), atol=1e-12)
    begins = score(NET, DATA, MAPS, [Insertion.rise()])["insertion_curve"][:, :, 0]
    np.testing.assert_allclose(begins, NET(blurred(torch.as_tensor(X))).softmax(1).detach(), atol=1e-12)


def test_maps_with_nan_are_counted_and_not_averaged() -> None:
    broken = MAPS.copy()
    broken[1, 2, 0, 0, 0], broken[3, 2, 1, 1, 1], broken[0, 0, 0, 0, 0] = np.nan, np.inf, np.nan
    whole, found = (score(NET, DATA, maps, ["insertion"]) for maps in (MAPS, broken))
    assert found["skipped"].values.tolist() == [1, 0, 2]
    assert found["insertion_n"].values.tolist() == [4, 5, 3]
    kept = whole["insertion"].values[[0, 2, 4], 2]
    np.testing.assert_allclose(found["insertion"].values[[0, 2, 4], 2], kept, rtol=1e-12)
    np.testing.assert_allclose(found["insertion_mean"][2], kept.mean(), rtol=1e-12)
    error = kept.std(ddof=1) / np.sqrt(3)
    np.testing.assert_allclose(found["insertion_se"][2], error, rtol=1e-9)
    np.testing.assert_allclose(found["insertion_ci_high"][2], kept.mean() + 4.302652729911275 * error, rtol=1e-9)
    broken[0] = np.nan
    first = score(Flat(), DATA, broken, [Insertion(pixels=5)], batch_size=1)  # a batch without a map, and no rows
    assert first["insertion_n"].values.tolist() == [4, 4, 2]
    nothing = score(NET, DATA, np.full(MAPS.shape, np.nan), ["insertion"])
    assert nothing["insertion"].isnull().all()
    assert nothing["insertion_curve"].shape == (N, J, 21)
    assert nothing["skipped"].values.tolist() == [N] * J


def test_one_map_per_sample_explains_the_output_that_is_named() -> None:
    own = np.array([0, 2, 1, 1, 0])
    whole = score(NET, DATA, MAPS, ["deletion"])
    found = score(NET, DATA, MAPS[np.arange(N), own], ["deletion"], target=own)
    assert found["deletion"].dims == ("sample",)
    np.testing.assert_allclose(found["deletion"], whole["deletion"].values[np.arange(N), own], rtol=1e-12)
    some = score(NET, DATA, MAPS[:, [2, 0]], ["deletion"], target=[2, 0])
    np.testing.assert_allclose(some["deletion"], whole["deletion"].values[:, [2, 0]], rtol=1e-12)


ONE = (torch.nn.Linear(4, 1).double(), (torch.ones(2, 4).double(), torch.zeros(2)), np.ones((2, 4)))
SURE = (torch.nn.Sequential(NET, torch.nn.Softmax(1)), DATA, MAPS)


@pytest.mark.parametrize(
    ("given", "asked", "settings", "said"),
    [
        ((NET, DATA, MAPS), [Insertion(start="baseline")], {}, "needs the baseline"),
        (ONE, ["insertion"], {}, "softmax of one is always 1"),
        (SURE, ["deletion"], {}, "probabilities already"),
        (ONE, [Insertion(start="blurred", of="logit")], {}, "needs images"),
        ((NET, DATA, MAPS), ["insertio"], {}, "choose from insertion"),
        ((NET, DATA, MAPS), [Insertion(), Insertion()], {}, "give a mapping"),
        ((NET, DATA, MAPS), [], {}, "no metrics"),
        ((NET, DATA, MAPS), "insertion", {}, "give a list"),
        ((NET, DATA, MAPS[:, 0]), ["insertion"], {}, "give target"),
        ((NET, DATA, MAPS[:, 0]), ["insertion"], {"target": 3}, "from 0 to 2"),
        ((NET, DATA, MAPS[:, :2]), ["insertion"], {}, "give target"),
        ((NET, DATA, MAPS[:4]), ["insertion"], {}, "one map for each sample"),
        ((NET, DATA, MAPS), ["insertion"], {"batch_size": 0}, "batch_size=0"),
        ((NET, DATA, MAPS), ["insertion"], {"baseline": np.ones(7)}, "broadcasts"),
    ],
)
def test_what_does_not_fit_is_refused_with_the_reason(
    given: tuple[Any, Any, Any], asked: Any, settings: dict[str, Any], said: str
) -> None:
    with pytest.raises((ConfigError, DataError), match=said):
        score(*given, asked, **settings)


@pytest.mark.parametrize("settings", [{"start": "white"}, {"rank": "up"}, {"steps": 0}, {"pixels": 0}])
def test_settings_that_make_no_sense_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=f"insertion: {next(iter(settings))}="):
        Insertion(**settings)


def test_the_example_of_the_page_runs(capsys: pytest.CaptureFixture[str]) -> None:
    blocks = re.findall(r"^```python\n(.*?)^```$", (ROOT / "docs" / "metrics.md").read_text(), re.DOTALL | re.MULTILINE)
    (block,) = (text for text in blocks if "metrics.score(" in text)
    exec(compile(block, "docs/metrics.md", "exec", dont_inherit=True), {})
    assert "blurred_fraction" in capsys.readouterr().out
    assert metrics.METRICS.keys() >= {"insertion", "deletion"}
