"""A metric scores each map alone: the other maps of its batch, the size of batches and the ranks change nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import igc_dist
from igc_dist.metrics import METRICS, Metric, Steps, score
from tests.ranks import run_ranks, values

N, J, SHAPE = 5, 2, (1, 12, 12)
DRAWS = np.random.default_rng(0)
X = torch.as_tensor(DRAWS.uniform(size=(N, *SHAPE)))
MAPS = DRAWS.normal(size=(N, J, *SHAPE))
SMALL: dict[str, dict[str, Any]] = {
    "pointing_game": {"masks": DRAWS.random((N, 12, 12)) < 0.3},
    "overlap": {"masks": DRAWS.random((N, 12, 12)) < 0.3},
    "aic": {"min_score": 0.0, "thresholds": 3, "points": 20},
    "sic": {"min_score": 0.0, "thresholds": 3, "points": 20, "workers": 2},
    "sensitivity_n": {"subsets": 5},
    "mufidelity": {"subsets": 10},
    "completeness": {"segments": 3},
    "road": {"shares": (0.2, 0.6)},
    "lossy": {"qualities": (75,)},
}


def net() -> torch.nn.Module:
    torch.manual_seed(0)
    layers = torch.nn.Flatten(), torch.nn.Linear(144, 8), torch.nn.Tanh(), torch.nn.Linear(8, J)
    return torch.nn.Sequential(*layers).double()


def chosen(**more: Metric) -> dict[str, Metric]:
    return {name: kind(**SMALL.get(name, {})) for name, kind in METRICS.items()} | more


def test_scores_and_curves_are_the_same_for_any_batch_size() -> None:
    model = net()

    def explain(x: torch.Tensor, output: torch.Tensor, n_steps: int = 1) -> torch.Tensor:
        with torch.enable_grad():  # gradient times input
            z = x.detach().requires_grad_()
            (gradient,) = torch.autograd.grad(model(z).gather(1, output[:, None]).sum(), z)
        return (gradient * x).detach()

    some = chosen(steps=Steps(n_steps=4))
    one, seven, all_ = (
        score(model, (X, torch.zeros(N)), MAPS, some, baseline=0.1, explain=explain, batch_size=size)
        for size in (1, 7, 64)
    )
    for name, found in one.items():
        for other in (seven, all_):
            np.testing.assert_allclose(other[name], found, rtol=1e-9, atol=1e-12, err_msg=str(name))
    assert not [name for name in some if not np.isfinite(one[name]).any()]


def scored(path: Path) -> dict[str, bytes]:
    """What a rank finds."""
    tree = igc_dist.attribute(
        net().float(), (X.float(), torch.zeros(N, J)), store=path, n_steps=3, n_folds=3, micro_batch=4, baseline=0.1,
        metrics=chosen(), threads=1,
    )  # fmt: skip
    groups = ("metrics", "samples/metrics")
    return {f"{group}/{name}": array.values.tobytes() for group in groups for name, array in tree[group].items()}


@pytest.mark.slow
def test_every_metric_has_the_same_bits_on_any_number_of_ranks(tmp_path: Path) -> None:
    one, *others = (values(run_ranks(n, scored, tmp_path / f"{n}.zarr")) for n in (1, 2, 3))
    assert {f"metrics/{name}_mean" for name in ("insertion_curve", "sic", "lossy", "steps", "road")} <= set(one[0])
    assert all(found == one[0] for ranks in others for found in ranks)
