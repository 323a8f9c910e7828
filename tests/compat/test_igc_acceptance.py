"""The acceptance cases of the IGC package by `igc_dist.compat`, by number (97-102, 110-112)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import igc_dist
from igc_dist import compat
from igc_dist.baselines import Baseline, Surroundings
from igc_dist.tensors import Batch
from tests import models
from tests.compat.cases import D4, Drawn, Items, close

DOUBLE: dict[str, Any] = {"dtype": torch.float64}
FAST: dict[str, Any] = {"check_error": False, "fabric": {"n_folds": 2}}

LINEAR = [[1.11628086, -0.08586776, -0.08586776]]


@pytest.mark.parametrize("x_0", [None, 1.0, [[1, 1, 1], [0, 2, 0]], 4], ids=["zeros", "ones", "two-rows", "all-rows"])
def test_case_97(x_0: Any) -> None:
    """IGC of a linear model is ``w_i cov(x_i, y) / (std y std F)``, whatever the baseline and the number of points."""
    attr = compat.IntGradCorr(models.linear4(), D4, **DOUBLE)
    found = attr.compute(x_0, n_steps=3, **FAST)
    close(found, LINEAR, 5e-9)
    close(found.sum(), 0.94454534, 5e-9)
    close(attr.error(found), [0])


def test_case_98() -> None:
    """Per-sample IG and IGC of a product model: two points of the trapezoid are exact."""
    for n_steps in (2, 64):
        close(compat.IntGradCorr(models.product4(), D4, **DOUBLE).compute(None, None, n_steps, **FAST), [PRODUCT], 5e-9)
    a = compat.IntegratedGradients(models.product4(), D4, **DOUBLE).compute(None, n_steps=2, **FAST)[4]
    close(a[:, 0], [[0, 0, 2], [1, 0, 1], [6, 2, 0], [10.5, 1.5, 1]])


PRODUCT = [0.89509832, 0.14229768, -0.07344397]


@pytest.mark.parametrize("x_0", [4, models.D4.numpy(), models.D4.tolist()], ids=["sampled", "array", "list"])
def test_case_99(x_0: Any) -> None:
    """All four rows as baselines: other maps, the same sum. As many sampled rows as the data set has are all of its
    rows."""
    found = compat.IntGradCorr(models.product4(), D4, **DOUBLE).compute(x_0, n_steps=2, **FAST)
    close(found, [[0.98690328, 0.05049273, -0.07344397]], 5e-9)
    close(found.sum(), 0.96395204, 5e-9)


def test_case_100() -> None:
    """IGaC, which sums to 1."""
    attr = compat.IntGradAutoCorr(models.product4(), D4, **DOUBLE)
    found = attr.compute(n_steps=2, **FAST)
    close(found, [[0.9100295, 0.16076696, -0.07079646]], 5e-9)
    close(attr.error(found), [0])


def test_case_101() -> None:
    """Mean and standard deviation; the package returned the variance [17.671875, .796875, .5] under that name."""
    mean, std = compat.IntGradMeanStd(models.product4(), D4, **DOUBLE).compute(n_steps=2, **FAST)
    close(mean, [[4.375, 0.875, 1.0]])
    close(std, [[4.203793, 0.892679, 0.707107]], 5e-7)


def test_case_102() -> None:
    """Naive correlation: the case lists corr(x_i, y) divided by the deviation of x_i, which is what the package
    returned (IGC-03)."""
    found = compat.NaiveCorrelation(models.product4(), D4, **DOUBLE).compute()
    close(found, np.corrcoef(models.D4.T, models.Y4)[3:, :3])
    close(found / models.D4.numpy().std(0), [[0.87896042, 0.3380617, -0.6761234]], 5e-9)


class Guide(nn.Module):
    """The model of the package's guide."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(100)
        self.lin1, self.relu, self.lin2 = nn.Linear(5, 3), nn.ReLU(), nn.Linear(3, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.lin2(self.relu(self.lin1(x)))


LISTED = [[0.31934428, -0.20948061, 0.05070509, -0.08051807, 0.02530288]]


class PerSample(Baseline):
    """Given baselines of each sample, (B, N, P)."""

    shared = False

    def __init__(self, rows: Tensor) -> None:
        self.rows = rows

    def count(self, n_pool: int, features: Sequence[tuple[int, ...]]) -> int:
        return len(self.rows)

    def draw(self, batch: Batch, block: range, around: Surroundings) -> tuple[Tensor, ...]:
        return (self.rows[block.start : block.stop][:, torch.from_numpy(batch.index)],)


def listed_draws() -> tuple[Items, Tensor]:
    """The random numbers of the guide's run: its data set draws from one generator in the order of access.

    Inputs: 100 draws of a generator seeded 100. Baselines: for every batch of 4 inputs the generator is seeded anew, by
    a number that numpy's generator of seed 101 draws, and gives 32 rows, which are 8 baselines of 4 inputs.
    """
    rng = torch.Generator().manual_seed(100)
    x = torch.stack([torch.rand(5, generator=rng) for _ in range(100)])
    numbers, batches = np.random.default_rng(101), []
    for _ in range(25):
        rng.manual_seed(int(numbers.integers(10**9, size=1)[0]))
        batches.append(torch.stack([torch.rand(5, generator=rng) for _ in range(32)]).reshape(8, 4, 5))
    return Items(x, x.mean(1, keepdim=True)), torch.cat(batches, 1)


def test_case_110_with_the_listed_draws(capsys: Any) -> None:
    """The documentation's example, with its own random numbers as given data: IGC as printed there, and both errors.

    The draws follow the order of access, which depends on the batches, so they are no function of a seed here;
    everything that is computed from them is compared. The listed IGC was summed in float32, ours in float64, so what
    can be asked for is the rounding of a float32 sum: 2e-7 are seen, 11 units of .32. The same in float64 throughout is
    within 1e-7 of ours.
    """
    data, starts = listed_draws()
    how = {
        "x_0": PerSample(starts),
        "y_idx": None,
        "n_steps": 64,
        "batch_size": (4, 8, None),
        "x_seed": 100,
        "x_0_seed": 101,
        "n_x": None,
    }
    attr = compat.IntGradCorr(Guide(), data)
    found = attr.compute(**how)
    close(found, LISTED, 3e-7)
    close(compat.IntGradCorr(Guide(), data, **DOUBLE).compute(**how), found, 1e-7)
    close(attr.error(found), [0.002362], 5e-7)
    said = capsys.readouterr().out
    assert "ig err:  0.000095\n" in said
    assert "igc err:  0.002362 (of which baselines 0.0027" in said


@pytest.mark.slow
def test_case_110_with_our_draws(tmp_path: Path) -> None:
    """The same example as a user runs it: our draws are addressed by seed and index, so the same for any batches, and
    twice.

    It agrees with the listed run within sampling error. Both estimate the same number from N = 100 samples and B = 8
    baselines each, so the difference of a feature has the deviation ``sqrt(2) SE``, with SE from our own jackknife of
    20 folds (other samples and baselines); four of these for the largest of five. The error is the baseline term, of
    deviation ``1 / sqrt(N B) = .035`` at most.
    """

    def run(batch_size: Any, seed: int = 100, store: Path | None = None) -> np.ndarray:
        attr = compat.IntGradCorr(Guide(), Drawn(100, seed))
        return attr.compute(8, None, 64, batch_size, 100, 101, check_error=False, store=store, fabric={"n_folds": 20})

    first = run((4, 8, None), store=tmp_path / "a.zarr")
    close(run((4, 8, None), seed=5), first, 0)  # whatever the state of the data set's generator
    for batch_size in (None, 7, (64, 2, 1)):
        close(run(batch_size), first, 1e-6)
    error = igc_dist.open(tmp_path / "a.zarr")["x/igc_se"].values
    assert error.max() < 0.1  # or the comparison would say nothing
    assert (np.abs(first - LISTED) < 4 * np.sqrt(2) * error).all()
    assert compat.IntGradCorr(Guide(), Drawn()).error(first, x_seed=100)[0] < 4 * 0.035


def test_case_111() -> None:
    """Seven rows count seven, in batches of four too; the package used four and returned case 97."""
    seven = Items(torch.cat([models.D4, models.D4[:3]]), torch.cat([models.Y4, models.Y4[:3]])[:, None])
    for batch_size in (None, 4, (4, 1, 1)):
        found = compat.IntGradCorr(models.linear4(), seven, **DOUBLE).compute(n_steps=2, batch_size=batch_size, **FAST)
        close(found, [[1.1738674, -0.12839175, -0.12839175]], 5e-8)


def test_case_112(capsys: Any) -> None:
    """A constant output is NaN, and said to be; warnings are errors here."""
    constant = models.Function(lambda x: torch.full((len(x), 1), 3.7, dtype=x.dtype))
    for kind in (compat.IntGradCorr, compat.IntGradAutoCorr, compat.BslShapCorr):
        assert np.isnan(kind(constant, D4).compute()).all()
        assert "NaN for outputs [0], whose target or prediction is constant" in capsys.readouterr().out
