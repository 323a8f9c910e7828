"""Runs over parts of a data set and over all of it, made once: for merging and compacting."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest

import igc_dist
from igc_dist.baselines import Constants
from igc_dist.statistics import TTest
from igc_dist.upkeep import merge
from tests.problems import Rest
from tests.ranks import Net

ROWS = {"a": range(9), "b": range(9, 16), "c": range(16, 24), "ab": range(16), "all": range(24)}
FOLDS = {"a": 4, "b": 3, "c": 4, "ab": 5, "all": 8}


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """The store of a part by its name, or of all of them merged, "a+b+c".

    With weights, slices of which a part lacks one, missing targets, samples and blocks of outputs; or `naive`: sums
    about a centre far from 0, and groups by given limits.
    """
    folder = tmp_path_factory.mktemp("parts")

    @cache
    def merged(naive: bool) -> Path:
        path = folder / f"merged{'-naive' * naive}"
        merge([run(name, naive) for name in "abc"], path)
        return path

    @cache
    def run(name: str, naive: bool = False) -> Path:
        if name == "a+b+c":
            return merged(naive)
        path, data = folder / f"{name}{'-naive' * naive}", Rest(ROWS[name])
        common = {"store": path, "n_folds": FOLDS[name], "micro_batch": 3 if name == "c" else 4, "output_block": 1}
        if naive:
            kinds = ("pearson", TTest(low=0.0, high=0.5))
            igc_dist.attribute(Net().double(), data, method="naive_correlation", statistics=kinds, **common)
        else:
            kinds = ("correlation", "moments", "autocorrelation")
            more = {
                "baseline": Constants([0.0, 1.0]),
                "samples": True,
                "weights": data.weight.numpy(),
                "slices": data.site,
            }
            igc_dist.attribute(Net().double(), data, n_steps=2, statistics=kinds, **more, **common)
        return path

    return run
