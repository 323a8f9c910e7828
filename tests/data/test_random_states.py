"""No call moves a global random state: neither by a draw of ours, nor by what a data set or a model draws."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

import igc_dist
from igc_dist.compat import Gradients
from igc_dist.data import ensure
from tests.ranks import Net, Rows

METHODS = sorted(path.stem for path in (Path(igc_dist.__file__).parents[1] / "conf/method").glob("*.yaml"))


def states() -> dict[str, Any]:
    """Of each global generator."""
    _, keys, *rest = np.random.get_state()
    return {
        "torch": torch.get_rng_state().numpy().tobytes(),
        "numpy": (keys.tobytes(), *rest),
        "random": random.getstate(),
    }


@contextmanager
def unmoved(*but: str) -> Iterator[None]:
    """Fails if a state after the block is another than before it."""
    for seed, draw in (
        (torch.manual_seed, torch.rand),
        (np.random.seed, np.random.rand),
        (random.seed, random.uniform),
    ):
        seed(5)
        draw(2, 3)
    before = states()
    yield
    assert [name for name, state in states().items() if state != before[name] and name not in but] == []


class Seeds(Rows):
    """A data set that seeds every global generator by the index, so that its items are the same each time."""

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        for seed in (torch.manual_seed, np.random.seed, random.seed):
            seed(index)
        x, y = super().__getitem__(index)
        return x + torch.rand(()) + np.random.rand() + random.random(), y


class Named(nn.Module):
    """A head, as IG2 asks for one."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(16, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(x.flatten(1)).tanh()  # type: ignore[no-any-return]


@pytest.mark.parametrize("method", METHODS)
def test_no_method_draws_from_a_global_generator(method: str) -> None:
    """What `attribute` wraps, so nothing puts the states back."""
    data, model = (torch.rand(6, 1, 4, 4), torch.rand(6, 2)), Named()
    bare = igc_dist.attribute.__wrapped__.__wrapped__  # type: ignore[attr-defined]
    with unmoved("random"):  # from which beartype draws, in tests
        bare(model, data, method=method, n_steps=2, n_folds=2)


@pytest.mark.parametrize("num_workers", [0, 2])
@pytest.mark.parametrize("prefetch", [False, True])
def test_no_loader_draws_from_a_global_generator(num_workers: int, prefetch: bool) -> None:
    source = ensure(DataLoader(Rows(9), 4, shuffle=True, generator=torch.Generator()), num_workers, prefetch=prefetch)
    with unmoved("random"):
        assert len(list(source.batches(range(9), 4))) == 3


@pytest.mark.parametrize(
    "settings",
    [
        {"baseline": 3},
        {"design": "random", "n_draws": 2, "baseline": igc_dist.baselines.Noise()},
        {"design": "pairs"},
        {"store": True, "samples": True},
    ],
)
def test_what_a_data_set_draws_is_put_back(settings: dict[str, Any], tmp_path: Path) -> None:
    if settings.get("store"):
        settings = settings | {"store": tmp_path / "s.zarr"}
    loader: Any = DataLoader(Seeds(12), 4, shuffle=True)
    for data in (loader, Seeds(12)):
        model = Net()
        with unmoved():
            igc_dist.attribute(model, data, n_steps=2, n_folds=2, **settings)


def test_they_are_put_back_after_an_error_too() -> None:
    class Broken(Seeds):
        def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
            x, y = super().__getitem__(index)
            return x[: index + 1], y

    model, data = Net(), Broken(12)
    with unmoved(), pytest.raises(Exception, match="same shape"):
        igc_dist.attribute(model, data, n_steps=2, n_folds=2)


def test_the_igc_package_reads_outside_of_a_run() -> None:
    """Shapes of inputs are found from a sample, and inputs are handed back from the data."""
    method = Gradients(Net(), Seeds(4))
    with unmoved("random"):
        assert len(method.x_size) == 1
        assert len(method.compute()[0]) == 4
