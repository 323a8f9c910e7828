"""Laws of paths: both ends exact, and the velocity is the derivative of the point."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from igc_dist.paths import Path, Straight

PATHS = [kind() for kind in Path.__subclasses__()]


def test_every_path_is_in_the_list() -> None:
    """The laws below run over every subclass of Path."""
    assert Straight() in PATHS


@pytest.mark.parametrize("path", PATHS, ids=str)
@given(seed=st.integers(0, 2**31), scale=st.sampled_from([1e-3, 1.0, 1e6]))
def test_both_ends_are_exact(path: Path, seed: int, scale: float) -> None:
    """gamma(0) = x0 and gamma(1) = x to the bit, also where ``x0 + 1 * (x - x0)`` rounds; in float32 as in float64."""
    generator = torch.Generator().manual_seed(seed)
    for dtype in (torch.float32, torch.float64):
        x0, x = (torch.randn(2, 3, 4, generator=generator, dtype=dtype) * s for s in (scale, 1.0))
        for t, end in ((0.0, x0), (1.0, x)):
            assert torch.equal(path.point(x0, x, torch.full((2, 1, 1), t, dtype=dtype)), end)


@pytest.mark.parametrize("path", PATHS, ids=str)
@given(seed=st.integers(0, 2**31), t=st.floats(0.01, 0.99))
def test_velocity_is_the_derivative(path: Path, seed: int, t: float) -> None:
    """velocity(t) equals the central difference of point(t)."""
    generator = torch.Generator().manual_seed(seed)
    x0, x = (torch.randn(2, 3, 4, generator=generator, dtype=torch.float64) for _ in range(2))
    at = torch.tensor([t, 1 - t], dtype=torch.float64)[:, None, None]
    h = 1e-5
    difference = (path.point(x0, x, at + h) - path.point(x0, x, at - h)) / (2 * h)
    velocity = path.velocity(x0, x, at).expand_as(difference)
    torch.testing.assert_close(velocity, difference, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("path", PATHS, ids=str)
def test_still_where_both_ends_meet(path: Path) -> None:
    """x = x0 gives a path that stays, with velocity 0."""
    x = torch.randn(2, 3, 4, dtype=torch.float64)
    t = torch.tensor([0.3, 0.7], dtype=torch.float64)[:, None, None]
    assert torch.equal(path.point(x, x, t), x)
    assert not path.velocity(x, x, t).any()
