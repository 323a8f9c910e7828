"""AIC and SIC: a literal twin in float64, the study's variants, and images that are left out and counted."""

from __future__ import annotations

import io
import json
import threading
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageFilter
from scipy.interpolate import griddata
from threadpoolctl import ThreadpoolController

from igc_dist import seeds
from igc_dist.metrics import Aic, Sic, performance, random_mask, score
from igc_dist.records import ConfigError, DataError

SIDE, N = 16, 3
DRAWS = np.random.default_rng(3)
PHOTOS = np.stack(
    [np.asarray(Image.fromarray(DRAWS.integers(0, 256, (6, 6, 3), np.uint8)).resize((SIDE, SIDE))) for _ in range(N)]
)
X = torch.as_tensor(PHOTOS / 255).permute(0, 3, 1, 2).contiguous()
DATA = (X, torch.zeros(N))
MAPS = DRAWS.normal(size=(N, 2, 3, SIDE, SIDE))
SHARES = (0.05, 0.3, 0.3, 0.7)


class Detail(torch.nn.Module):
    """Sure of output 0 if an image has detail, and of output 1 if it has not."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = torch.nn.Parameter(torch.tensor(400.0).double())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        rough = (x[..., 1:] - x[..., :-1]).abs().flatten(1).mean(1, keepdim=True)
        return torch.cat([self.scale * (rough - 0.08), 0 * rough], 1)


def length(image: np.ndarray, codec: str) -> int:
    held = io.BytesIO()
    Image.fromarray(image).save(held, codec, **({"lossless": True, "quality": 100} if codec == "webp" else {}))
    return len(held.getvalue())


def filled(image: np.ndarray, kept: np.ndarray) -> np.ndarray:
    kept = kept.copy()
    kept[0, 0] = kept[0, -1] = kept[-1, 0] = kept[-1, -1] = True
    every = np.argwhere(np.ones_like(kept))
    found = griddata(np.argwhere(kept), image[kept].astype(float), every, method="linear").reshape(image.shape)
    return np.where(kept[..., None], image, np.rint(found).astype(np.uint8))


def twin(metric: Any, n: int, j: int) -> tuple[float, np.ndarray] | str:
    """One image after the other, as the paper says it."""

    def p(image: np.ndarray) -> float:
        z = Detail()(torch.as_tensor(image / 255).permute(2, 0, 1)[None])[0].detach().numpy()
        return float(z.argmax() == j) if metric.name == "aic" else float(np.exp(z[j]) / np.exp(z).sum())

    x, values = PHOTOS[n], MAPS[n, j].sum(0)
    if metric.fill == "linear":
        mask = random_mask((SIDE, SIDE), metric.fraction, seeds.generator(0, n, "information"))
        base = filled(x, mask)
        shown = [filled(x, mask | (values >= np.quantile(values, 1 - t))) for t in metric.thresholds]
    else:
        base = np.asarray(Image.fromarray(x).filter(ImageFilter.GaussianBlur(20)))
        order, shown = sorted(range(SIDE**2), key=lambda i: -values.flat[i]), []
        for t in range(metric.thresholds):
            image = base.copy()
            for i in order[: t * SIDE**2 // (metric.thresholds - 1)]:
                image[i // SIDE, i % SIDE] = x[i // SIDE, i % SIDE]
            shown.append(image)
    low, high = length(base, metric.measure), length(x, metric.measure)
    if p(x) < 0.8:
        return "unsure"
    if low >= high:
        return "dense"
    if p(base) >= p(x):
        return "recognised"
    points, best = {0.0: 0.0}, 0.0
    for image in shown:
        at = min(max((length(image, metric.measure) - low) / (high - low), 0.0), 1.0)
        best = max(best, min(max((p(image) - p(base)) / (p(x) - p(base)), 0.0), 1.0))
        points[at] = max(points.get(at, 0.0), best)
    points[1.0] = 1.0
    grid = np.linspace(0, 1, metric.points + 1)
    curve = np.interp(grid, sorted(points), [points[at] for at in sorted(points)])
    return sum((curve[1:] + curve[:-1]) / 2) / metric.points, curve


@pytest.mark.parametrize(
    "metric",
    [
        Sic(thresholds=SHARES, points=50, fraction=0.02),
        Aic(thresholds=SHARES, points=50, fraction=0.02),
        Sic.study(),
        Aic.study(),
    ],
    ids=lambda metric: f"{metric.name}-{metric.fill}",
)
def test_curves_equal_their_literal_twin_for_any_batch_size(metric: Any) -> None:
    twins = [[twin(metric, n, j) for j in range(2)] for n in range(N)]
    found = [score(Detail(), DATA, MAPS, {"it": metric}, batch_size=size) for size in (1, 64)]
    for n, j in np.ndindex(N, 2):
        is_ = twins[n][j]
        for some in found:
            if isinstance(is_, str):
                assert some["it"][n, j].isnull()
            else:
                np.testing.assert_allclose(some["it_curve"][n, j], is_[1], atol=1e-12)
                np.testing.assert_allclose(some["it"][n, j], is_[0], atol=1e-12)
    reasons = [[twins[n][j] for n in range(N)] for j in range(2)]
    for reason in ("unsure", "dense", "recognised"):
        assert found[0][f"it_{reason}"].values.tolist() == [some.count(reason) for some in reasons]
    used = [twins[n][0][1] for n in range(N) if not isinstance(twins[n][0], str)]
    assert used
    np.testing.assert_allclose(found[0]["it_median_curve"][0], np.median(used, axis=0), atol=1e-12)
    assert json.loads(found[0].attrs["metrics"])["it"]["fill"] == metric.fill


def test_images_whose_blurred_version_is_recognised_are_counted() -> None:
    """A model that is sure of output 0 whatever it sees."""
    net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * SIDE * SIDE, 2).double())
    for parameter in net.parameters():
        torch.nn.init.zeros_(parameter)
    torch.nn.init.constant_(net[1].bias[:1], 9.0)
    found = score(net, DATA, MAPS, ["aic", "sic"])
    assert found["aic_recognised"].values.tolist() == [N, 0]
    assert found["sic_unsure"].values.tolist() == [0, N]
    assert found["aic"].isnull().all()
    assert found["sic_median"].isnull().all()


def test_two_workers_find_the_same() -> None:
    one, two = (score(Detail(), DATA, MAPS, [Sic(thresholds=SHARES, workers=n)]) for n in (1, 2))
    np.testing.assert_array_equal(one["sic_curve"], two["sic_curve"])


def test_images_are_filled_and_packed_beside_the_model(monkeypatch: pytest.MonkeyPatch) -> None:
    """The last image waits for a forward pass of the first."""
    passes, whole, drawn = threading.Semaphore(0), Sic._images, []

    def images(self: Sic, *rest: Any) -> Any:
        drawn.append(len(drawn) < 2 * N - 1 or passes.acquire(timeout=10))
        return whole(self, *rest)

    class Told(Detail):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            if drawn:
                passes.release()
            return super().forward(x)

    monkeypatch.setattr(Sic, "_images", images)
    score(Told(), DATA, MAPS, [Sic(thresholds=SHARES)], batch_size=2 * N)
    assert drawn == [True] * 2 * N


def test_blas_has_one_thread_while_images_are_filled(monkeypatch: pytest.MonkeyPatch) -> None:
    """More of them spin on its 2 x 2 matrices, and hold up the workers. The caller's number comes back."""
    blas, seen, whole = ThreadpoolController().select(internal_api="openblas"), set(), performance.inpainted

    def told(*rest: Any) -> Any:
        seen.update(one["num_threads"] for one in blas.info())
        return whole(*rest)

    monkeypatch.setattr(performance, "inpainted", told)
    with blas.limit(limits=2):
        score(Detail(), DATA, MAPS, [Sic(thresholds=SHARES)])
        assert {one["num_threads"] for one in blas.info()} == {2}
    assert seen == {1}


TABLE = (torch.nn.Linear(4, 2), (torch.ones(2, 4), torch.zeros(2)), np.ones((2, 2, 4)))


@pytest.mark.parametrize(
    ("given", "asked", "said"),
    [
        (TABLE, "sic", "sic needs images"),
        ((Detail(), DATA, MAPS), Aic(mean=(0.5, 0.5)), "mean has 2 numbers for 3 channels"),
        ((Detail(), DATA, MAPS), Sic(measure="ms_ssim"), "at least 176 pixels"),
        ((Detail(), (4 * X, DATA[1]), MAPS), "aic", "not from 0 to 1: give the mean and std"),
    ],
)
def test_what_is_no_image_is_refused(given: tuple[Any, Any, Any], asked: Any, said: str) -> None:
    with pytest.raises((ConfigError, DataError), match=said):
        score(*given, [asked])


@pytest.mark.parametrize("settings", [{"measure": "gif"}, {"fill": "cubic"}, {"thresholds": (2.0,)}, {"workers": 0}])
def test_settings_that_make_no_sense_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=f"sic: {next(iter(settings))}="):
        Sic(**settings)
