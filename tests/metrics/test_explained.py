"""Metrics that ask for maps of other inputs, of more steps, or of a model with random weights."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from scipy import stats
from skimage.metrics import structural_similarity

from igc_dist import seeds
from igc_dist.metrics import Lossy, MaxSensitivity, Randomisation, Steps, score
from igc_dist.records import ConfigError, DataError

N, J, SIDE = 3, 2, 16
DRAWS = np.random.default_rng(0)
PHOTOS = np.stack(
    [np.asarray(Image.fromarray(DRAWS.integers(0, 256, (4, 4, 3), np.uint8)).resize((SIDE, SIDE))) for _ in range(N)]
)
X = torch.as_tensor(PHOTOS / 255).permute(0, 3, 1, 2).contiguous()
DATA = (X, torch.zeros(N))
NET = torch.nn.Sequential(
    torch.nn.Conv2d(3, 4, 3), torch.nn.Tanh(), torch.nn.Flatten(), torch.nn.Linear(4 * (SIDE - 2) ** 2, J)
).double()


def gradient(x: torch.Tensor, output: torch.Tensor, n_steps: int = 0) -> torch.Tensor:
    """Gradient x input."""
    x = x.detach().requires_grad_()
    with torch.enable_grad():
        total = NET(x).gather(1, output[:, None]).sum()
    return x.detach() * torch.autograd.grad(total, x)[0]


MAPS = np.stack([gradient(X, torch.full((N,), j)).numpy() for j in range(J)], 1)


def test_max_sensitivity_equals_its_literal_twin() -> None:
    metric = MaxSensitivity(draws=3, radius=0.1)
    found = [score(NET, DATA, MAPS, [metric], explain=gradient, batch_size=size) for size in (1, 7)]
    for n, j in np.ndindex(N, J):
        changes = []
        for draw in range(3):
            u = torch.as_tensor(seeds.generator(0, n, "max_sensitivity", draw).uniform(-0.1, 0.1, X.shape[1:]))
            near = gradient((X[n] + u)[None], torch.tensor([j]))[0].numpy()
            changes.append(np.sqrt(((near - MAPS[n, j]) ** 2).sum()) / np.sqrt((MAPS[n, j] ** 2).sum()))
        for some in found:
            np.testing.assert_allclose(some["max_sensitivity"][n, j], max(changes), rtol=1e-9)
            np.testing.assert_allclose(some["max_sensitivity_average"][n, j], np.mean(changes), rtol=1e-9)
    zeros = score(NET, DATA, 0 * MAPS, [MaxSensitivity(draws=1)], explain=lambda x, output: 0 * x + 1)
    np.testing.assert_allclose(zeros["max_sensitivity"], np.sqrt(3) * SIDE, rtol=1e-12)


def test_lossy_equals_its_literal_twin() -> None:
    found = [score(NET, DATA, MAPS, [Lossy(qualities=(90, 30))], explain=gradient, batch_size=s) for s in (1, 7)]
    for n, j in np.ndindex(N, J):
        twins = []
        for quality in (90, 30):
            held = io.BytesIO()
            Image.fromarray(PHOTOS[n]).save(held, "jpeg", quality=quality)
            x = torch.as_tensor(np.array(Image.open(held)) / 255).permute(2, 0, 1)[None]
            a, b = MAPS[n, j], gradient(x, torch.tensor([j]))[0].numpy()
            norms = [np.abs(a).sum(), np.abs(b).sum(), a.sum(), b.sum(), np.sqrt((a**2).sum()), np.sqrt((b**2).sum())]
            p, q = a.sum(0), b.sum(0)
            span = max(p.max(), q.max()) - min(p.min(), q.min())
            twins.append([
                *(np.mean((a / norms[i] - b / norms[i + 1]) ** 2) for i in (0, 2, 4)),
                stats.spearmanr(p.ravel(), q.ravel()).statistic,
                structural_similarity(
                    p, q, data_range=span, gaussian_weights=True, sigma=1.5, use_sample_covariance=False
                ),
            ])  # fmt: skip
        names = ("lossy", "lossy_sum", "lossy_l2", "lossy_spearman", "lossy_ssim")
        for some in found:
            np.testing.assert_allclose([some[name][n, j] for name in names], np.mean(twins, 0), rtol=1e-6)


def test_a_map_whose_sum_is_zero_has_no_score_by_its_sum() -> None:
    """The defect of a division by the signed sum is named, and counted: other norms go on."""
    balanced = MAPS - MAPS.mean((2, 3, 4), keepdims=True)
    balanced = np.concatenate([MAPS[..., :8], -MAPS[..., :8]], -1)
    found = score(NET, DATA, balanced, [Lossy()], explain=lambda x, output: torch.cat([x[..., :8], -x[..., :8]], -1))
    assert found["lossy_sum_n"].values.tolist() == [0, 0]
    assert found["lossy_n"].values.tolist() == [N, N]


def test_steps_compares_with_twice_the_steps() -> None:
    asked = []

    def explain(x: torch.Tensor, output: torch.Tensor, n_steps: int) -> torch.Tensor:
        asked.append(n_steps)
        return 1.25 * gradient(x, output)

    found = score(NET, DATA, MAPS, [Steps(n_steps=8)], explain=explain)
    assert set(asked) == {16}
    np.testing.assert_allclose(found["steps"], 0.2, rtol=1e-9)
    np.testing.assert_allclose(found["steps_spearman"], 1, rtol=1e-9)


def test_randomisation_goes_from_the_last_layer_to_the_first() -> None:
    before = [p.detach().clone() for p in NET.parameters()]
    found = score(NET, DATA, MAPS, [Randomisation()], explain=gradient)
    alone = score(NET, DATA, MAPS, [Randomisation(order="independent")], explain=gradient)
    for p, was in zip(NET.parameters(), before, strict=True):
        assert torch.equal(p, was)
    assert found["randomisation_fraction"].values.tolist() == [0.5, 1]
    np.testing.assert_array_equal(found["randomisation"], found["randomisation_curve"][..., -1])
    np.testing.assert_array_equal(alone["randomisation_curve"][..., 0], found["randomisation_curve"][..., 0])
    np.testing.assert_allclose(alone["randomisation"], alone["randomisation_curve"].mean("randomisation_fraction"))
    assert (alone["randomisation_curve"][..., 1] != found["randomisation_curve"][..., 1]).any()
    # a method that does not look at the model is found out
    deaf = score(NET, DATA, X.numpy(), [Randomisation()], explain=lambda x, output: x, target=0)
    np.testing.assert_allclose(deaf["randomisation_curve"], 1, rtol=1e-9)
    np.testing.assert_allclose(deaf["randomisation_ssim"], 1, rtol=1e-9)
    assert (found["randomisation"] < 0.9).all()


@pytest.mark.parametrize(
    ("made", "said"),
    [
        (lambda: score(NET, DATA, MAPS, ["max_sensitivity"]), "give score\\(..., explain="),
        (lambda: score(NET, DATA, MAPS, [Steps()], explain=gradient), "give n_steps"),
        (lambda: Steps(n_steps=0), "n_steps=0"),
        (lambda: Lossy(qualities=(0,)), "qualities="),
        (lambda: MaxSensitivity(radius=0.0), "radius="),
        (lambda: Randomisation(order="up"), "order='up'"),
        (lambda: score(NET, DATA, MAPS, ["lossy"], explain=lambda x, output: x[:, :1]), "explain returned maps"),
        (
            lambda: score(torch.nn.Linear(4, 1), (torch.ones(2, 4), torch.zeros(2)), np.ones((2, 4)), ["lossy"],
                          explain=lambda x, output: x),
            "lossy needs images",
        ),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused_with_the_reason(made: Any, said: str) -> None:
    with pytest.raises((ConfigError, DataError), match=said):
        made()
