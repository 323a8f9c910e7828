"""What went wrong in the program of the reproducibility study (arXiv:2409.09043) does not go wrong here: T1 to T8."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import igc_dist
from igc_dist.metrics import Lossy, Sic, score
from igc_dist.paths import Blurred

DRAWS = np.random.default_rng(0)
X = torch.as_tensor(DRAWS.uniform(size=(4, 3, 8, 8)))
DATA = (X, torch.zeros(4, 2))
WEIGHTS = torch.as_tensor(DRAWS.normal(size=(2, 192)))


class Normalised(nn.Module):
    """A linear model of pixels that are normalised first, as vision models have it."""

    def __init__(self, scale: float = 1.0) -> None:
        super().__init__()
        self.head = nn.Linear(192, 2).double()
        self.head.weight.data = scale * WEIGHTS
        self.mean, self.std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(((x - self.mean[:, None, None]) / self.std[:, None, None]).flatten(1))


def maps(method: str, model: nn.Module, **settings: Any) -> np.ndarray:
    found = igc_dist.attribute(model, DATA, method=method, baseline=0.0, n_folds=1, **settings)
    return np.asarray(found["samples/x/attribution"].values)


def rises(model: nn.Module) -> np.ndarray:
    with torch.no_grad():
        return (model(X) - model(torch.zeros_like(X))).numpy()


@pytest.mark.parametrize("n_steps", [8, 16])
@pytest.mark.parametrize("method", ["ig", "guided_ig", "idgi", "idgi_guided_ig"])
def test_paths_reach_the_image_at_every_number_of_steps(method: str, n_steps: int) -> None:
    """T1: 8 of 128 strided nodes ended at 0.882 of the way. T3: the last difference of IDGI over Guided IG was lost.

    Either would leave a part of f(x) - f(x0) out, which for a linear model is exact with any number of steps.
    """
    model = Normalised()
    found = maps(method, model, n_steps=n_steps, precision="64-true").sum((2, 3, 4))
    np.testing.assert_allclose(found, rises(model), rtol=1e-6)


@pytest.mark.parametrize("method", ["ig", "guided_ig"])
def test_gradients_and_ways_are_in_the_same_units(method: str) -> None:
    """T2: gradients of normalised pixels times ways of raw ones lacked the factor 1 / std of each channel."""
    model = Normalised()
    slope = (WEIGHTS.reshape(2, 3, 8, 8) / model.std[:, None, None]).numpy()
    found = maps(method, model, n_steps=4, precision="64-true")
    np.testing.assert_allclose(found, slope * X.numpy()[:, None], rtol=1e-6, atol=1e-9)


def test_small_attributions_are_kept_with_their_digits() -> None:
    """T4: float16 has no numbers below 6e-8, so maps of small probabilities became ties of zeros."""
    small, large = (maps("ig", Normalised(scale), n_steps=2, precision="64-true") for scale in (1e-9, 1.0))
    np.testing.assert_allclose(small * 1e9, large, rtol=1e-5)


def test_a_gradient_of_zero_gives_no_nan() -> None:
    """T5: squared gradients were divided by their sum, also where it is 0."""
    assert not maps("idgi", Normalised(0.0), n_steps=4, precision="64-true").any()


def test_the_blurring_path_has_no_jumps() -> None:
    """T6: the size of the kernel changed between sigma and sigma + h, so differences jumped. Derivatives change little
    between near nodes, and add up to the way from the blurred image to the image."""
    nodes = (np.arange(400) + 0.5) / 400
    _, velocity = Blurred(3.0, "sigma", "reflect").at(X[:1], nodes)
    (ends, _) = Blurred(3.0, "sigma", "reflect").at(X[:1], np.array([0.0, 1.0]))
    assert (velocity[1:] - velocity[:-1]).abs().max() < 0.05 * velocity.abs().max()
    np.testing.assert_allclose(velocity.mean(0), ends[1] - ends[0], atol=1e-3)
    assert velocity[-20].abs().max() > 0


def test_the_measure_of_information_is_named() -> None:
    """T7: lengths of PNG files stood for the lossless WebP of earlier papers. WebP it is, and every score says so."""
    assert Sic().measure == "webp"
    assert Sic.study().measure == "png"
    net = nn.Sequential(nn.Flatten(), nn.Linear(192, 2)).double()
    found = score(net, DATA, X, {"earlier": Sic(), "study": Sic.study()}, target=0)
    said = json.loads(found.attrs["metrics"])
    assert (said["earlier"]["measure"], said["study"]["measure"]) == ("webp", "png")


def test_a_map_whose_values_cancel_is_stable_as_any_other() -> None:
    """T8: maps were divided by their signed sum, which may be 0. Normalised by their size, scores stay finite, and the
    map of the compressed image has the precision of the other."""
    net = nn.Sequential(nn.Flatten(), nn.Linear(192, 2)).double()
    seen = []

    def explain(x: torch.Tensor, output: torch.Tensor) -> torch.Tensor:
        seen.append(x.dtype)
        found = x.double()
        return found - found.mean((1, 2, 3), keepdim=True)

    found = score(net, DATA, explain(X, torch.zeros(4)), [Lossy(qualities=(75,))], target=0, explain=explain)
    assert 0 < found["lossy"].max() < 1e-3
    assert {*seen} == {torch.float64}
