"""Completeness: closed forms, and the residuals along the path."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from igc_dist.metrics import Completeness, score
from igc_dist.records import ConfigError

X, X0 = torch.tensor([[1.0, 2.0], [3.0, -1.0], [0.5, 0.5]]).double(), torch.tensor([0.5, 0.5]).double()
DATA = (X, torch.zeros(3))


class Square(torch.nn.Module):
    """``f_0 = x0^2 + x0 x1``, ``f_1 = -f_0``."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        f = x[:, 0] ** 2 + x[:, 0] * x[:, 1]
        return torch.stack([f, -f], 1)


def maps() -> np.ndarray:
    """The exact map: by parts along the line, ``(x0 - b)(x0 + b)`` and half of each cross term."""
    d, m = X - X0, (X + X0) / 2
    a = torch.stack([d[:, 0] * (2 * m[:, 0] + m[:, 1]), d[:, 1] * m[:, 0]], 1)
    return torch.stack([a, -a], 1).numpy()


def test_an_exact_map_is_complete_for_either_sign() -> None:
    for size in (1, 7):
        found = score(Square(), DATA, maps(), ["completeness"], baseline=X0, batch_size=size)
        np.testing.assert_allclose(found["completeness"], 0, atol=1e-12)
        f = (X[:, 0] ** 2 + X[:, 0] * X[:, 1] - 0.5).numpy()
        np.testing.assert_allclose(found["completeness_difference"], np.abs(np.stack([f, f], 1)), atol=1e-12)


def test_an_error_counts_by_its_size_and_against_the_difference() -> None:
    """The difference is negative for the second output: a signed sum against ``|d|`` would be far off."""
    found = score(Square(), DATA, maps() + 0.25, ["completeness"], baseline=X0)
    np.testing.assert_allclose(found["completeness"], 0.5, rtol=1e-12)
    np.testing.assert_allclose(found["completeness_relative"][:2], 0.5 / found["completeness_difference"][:2])
    assert found["completeness_relative"][2].isnull().all()  # x is the baseline: no difference to compare with
    assert found["completeness_relative_n"].values.tolist() == [2, 2]


def test_residuals_of_segments_are_those_of_the_trapezoid_rule() -> None:
    """f along the line is a parabola, ``f = a t^2 + ...``: no error; a cubic leaves ``-d^3 / (2 S^3)`` in each."""

    class Cube(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x[:, :1] ** 3

    for size in (1, 2, 64):
        flat = score(Square(), DATA, maps(), [Completeness(segments=4)], baseline=X0, batch_size=size)
        assert flat["completeness_fraction"].values.tolist() == [0.25, 0.5, 0.75, 1]
        np.testing.assert_allclose(flat["completeness_curve"], 0, atol=1e-12)
        cube = score(Cube(), DATA, X.numpy(), [Completeness(segments=2)], baseline=0.0, batch_size=size)
        np.testing.assert_allclose(cube["completeness_curve"], np.tile(-(X[:, :1].numpy() ** 3) / 16, 2), atol=1e-12)


def test_segments_of_a_probability_are_refused() -> None:
    with pytest.raises(ConfigError, match="segments take gradients"):
        Completeness(of="probability", segments=3)
    with pytest.raises(ConfigError, match="segments=-1, give a whole number"):
        Completeness(segments=-1)
    with pytest.raises(ConfigError, match="needs the baseline"):
        score(Square(), DATA, maps(), ["completeness"])
