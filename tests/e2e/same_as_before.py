"""Ten small runs whose bytes a refactor must not change: `python -m tests.e2e.same_as_before OUT.npz` keeps their
arrays.

They were kept before the package became wings. Bits hang on the kernels that a processor gets, so a canary tells
whether bytes can be compared at all: dot products, convolutions and reductions, of the libraries that the runs use.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xarray as xr
from torch import nn
from torch.utils.data import Subset

import igc_dist
from igc_dist.demo import Digits, digits_cnn

KEPT = Path(__file__).parent / "same_as_before.npz"


def digits(n: int, **settings: Any) -> xr.DataTree:
    """IGC, or another method, of the first digits."""
    return igc_dist.attribute(digits_cnn(), Subset(Digits(), range(n)), n_folds=4, threads=1, **settings)


def labelled(**settings: Any) -> xr.DataTree:
    """Labels of twelve classes through two layers."""
    torch.manual_seed(5)
    net = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 12))
    data = torch.randn(36, 6), torch.arange(36) % 12
    return igc_dist.attribute(net, data, target="one_hot", n_folds=3, threads=1, **settings)


def parted() -> xr.DataTree:
    """Weights, slices, stored samples and missing targets."""
    torch.manual_seed(6)
    net, x = nn.Sequential(nn.Linear(5, 7), nn.ReLU(), nn.Linear(7, 2)), torch.randn(30, 5)
    y = net(x).detach() + torch.randn(30, 2)
    y[::7, 0] = torch.nan
    more = {"weights": np.linspace(0.5, 1.5, 30), "slices": np.arange(30) % 3}
    return igc_dist.attribute(
        net, (x, y), n_steps=5, n_folds=5, samples=True, statistics=["correlation"], threads=1, **more
    )


RUNS: dict[str, Callable[[], xr.DataTree]] = {
    "igc": lambda: digits(48, n_steps=6, baseline=3),
    "moments and autocorrelation, 64-true": lambda: digits(
        24,
        n_steps=3,
        statistics=["correlation", "autocorrelation", "moments"],
        precision="64-true",
        quadrature="gauss_legendre",
    ),
    "shapley": lambda: digits(16, method="bsc", n_steps=4, target=[1, 7]),
    "guided": lambda: digits(16, method="guided_igc", n_steps=5, target=[1, 7]),
    "blur": lambda: digits(16, method="blur_igc", n_steps=5, target=[1, 7]),
    "smoothgrad of samples": lambda: digits(12, method="smoothgrad_ig", n_steps=3, target=[0, 3]),
    "t-test": lambda: digits(60, method="naive_ttest"),
    "pairs": lambda: labelled(design="pairs", n_draws=3),
    "others, replicates": lambda: labelled(n_others=2, n_steps=4, budget=igc_dist.Budget(replicates=2)),
    "parted": parted,
}


def canary() -> str:
    """A digest of what this processor's kernels make of fixed numbers."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(40, 37, generator=generator)
    images, kernel = torch.randn(9, 3, 17, 17, generator=generator), torch.randn(5, 3, 3, 3, generator=generator)
    found = [
        x @ x.T,
        x.double() @ x.double().T,
        torch.nn.functional.conv2d(images, kernel),
        x.sum(0),
        x.exp(),
        x.tanh(),
    ]
    arrays = [value.numpy() for value in found]
    arrays += [
        arrays[1] @ arrays[1],
        np.einsum("ij,kj->ik", arrays[1], arrays[1]),
        arrays[1].sum(0),
        np.sqrt(np.abs(arrays[1])),
    ]
    return hashlib.sha256(b"".join(np.ascontiguousarray(array).tobytes() for array in arrays)).hexdigest()


def arrays(tree: xr.DataTree) -> dict[str, np.ndarray]:
    """Every array of a result, by its path."""
    nodes = {node.path.strip("/"): node.to_dataset(inherit=False) for node in tree.subtree}
    return {
        f"{path}/{name}": np.asarray(values) for path, node in nodes.items() for name, values in node.variables.items()
    }


def all_arrays() -> dict[str, np.ndarray]:
    """Those of the ten runs, by the run and the path, and what identifies each run."""
    torch.set_num_threads(1)
    trees = {run: make() for run, make in RUNS.items()}
    found = {f"{run}//{path}": array for run, tree in trees.items() for path, array in arrays(tree).items()}
    found |= {f"{run}//spec_hash": np.asarray(tree.attrs["spec_hash"]) for run, tree in trees.items()}
    return {name: np.asarray(array.tolist()) if array.dtype.kind in "OT" else array for name, array in found.items()}


if __name__ == "__main__":
    np.savez_compressed(sys.argv[1], canary=np.asarray(canary()), **all_arrays())
