"""Loaders: the samples that their samplers choose, each once and in the order of the data."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    Dataset,
    DistributedSampler,
    RandomSampler,
    Sampler,
    SequentialSampler,
    Subset,
    SubsetRandomSampler,
    TensorDataset,
    WeightedRandomSampler,
)

import igc_dist
from igc_dist.data import ensure, sliced
from igc_dist.records import DataError
from tests.ranks import Net, Rows, arrays

N = 12


class Backwards(Sampler[int]):
    """A sampler of the user's own."""

    def __iter__(self) -> Iterator[int]:
        return iter(range(N - 1, -1, -1))

    def __len__(self) -> int:
        return N


class Weird(SubsetRandomSampler):
    """A subclass takes what it likes."""

    def __iter__(self) -> Iterator[int]:
        return iter([0, 0, 0])


def samples(loader: DataLoader[Any]) -> list[int]:
    source = ensure(loader)
    read = torch.cat([batch.target for batch in source.batches(range(len(source)), 5)])
    return read[:, 0].long().tolist()


def loader(data: Dataset[Any] | None = None, **settings: Any) -> DataLoader[Any]:
    """A loader of samples whose target is their index."""
    return DataLoader(data or TensorDataset(torch.randn(N, 3), torch.arange(N)[:, None].float()), **settings)


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, range(N)),
        ({"shuffle": True, "batch_size": 5, "drop_last": True}, range(N)),
        ({"sampler": SequentialSampler(range(N))}, range(N)),
        ({"sampler": RandomSampler(range(N))}, range(N)),
        ({"sampler": DistributedSampler(range(N), num_replicas=5, rank=1)}, range(N)),
        ({"sampler": SubsetRandomSampler([7, 2, 5])}, [2, 5, 7]),
        ({"sampler": SubsetRandomSampler(torch.tensor([7, 2, 5]))}, [2, 5, 7]),
        ({"batch_sampler": BatchSampler(SubsetRandomSampler([9, 1]), 2, False)}, [1, 9]),
        ({"sampler": [4, 3]}, [3, 4]),
        ({"sampler": np.array([4, 3])}, [3, 4]),
        ({"sampler": range(8, 10)}, [8, 9]),
        ({"sampler": SequentialSampler(range(4))}, range(4)),
        ({"sampler": RandomSampler(range(4))}, range(4)),
        ({"sampler": DistributedSampler(range(4), num_replicas=3, rank=0)}, range(4)),
    ],
)
def test_a_sampler_of_a_fixed_set_chooses_the_samples(settings: dict[str, Any], expected: Any) -> None:
    assert samples(loader(**settings)) == list(expected)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"sampler": RandomSampler(range(N), replacement=True)}, "RandomSampler.* draws 12 of 12 samples with rep"),
        ({"sampler": RandomSampler(range(N), num_samples=5)}, "draws 5 of 12 samples"),
        ({"sampler": RandomSampler(range(N), num_samples=30)}, "draws 30 of 12 samples with repetition"),
        ({"sampler": WeightedRandomSampler([1.0] * N, N, replacement=False)}, "by weights .weights="),
        ({"sampler": Backwards()}, r"Backwards\) may take any samples"),
        ({"sampler": Weird([1, 2])}, r"Weird\) may take any samples"),
        ({"batch_sampler": [[0, 1], [2]]}, r"batch_sampler of its own \(list\)"),
        ({"batch_sampler": BatchSampler(Backwards(), 2, False)}, "Backwards"),
        ({"batch_size": None}, "batch_size=None"),
        ({"sampler": [N]}, "others than indices from 0 to 11"),
        ({"sampler": [-1]}, "others than indices"),
        ({"sampler": [0.5]}, "others than indices"),
        ({"sampler": SubsetRandomSampler([])}, "takes no sample"),
    ],
)
def test_what_is_no_fixed_set_is_refused_with_the_way_out(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(DataError, match=words + r".*Subset\(dataset, indices\)"):
        ensure(loader(**settings))


def test_a_sample_that_a_sampler_takes_twice_counts_once_and_this_is_said() -> None:
    with pytest.warns(UserWarning, match="takes sample 5 2 times: here every sample counts once"):
        assert samples(loader(sampler=SubsetRandomSampler([5, 2, 5]))) == [2, 5]


def test_the_numbers_are_those_of_the_part() -> None:
    """Of a loader, and of a loader of a data module; columns of the data set follow the choice."""
    data, part = Rows(N), [9, 3, 4, 10, 0]
    data.site = ["north", "south"] * (N // 2)  # type: ignore[attr-defined]

    class Module:
        def prepare_data(self) -> None: ...

        def setup(self, stage: str) -> None: ...

        def test_dataloader(self) -> DataLoader[Any]:
            return loader(data, sampler=SubsetRandomSampler(part))

    settings: dict[str, Any] = {"n_steps": 2, "n_folds": 2, "slices": "site"}
    expected = igc_dist.attribute(Net(), Subset(data, sorted(part)), **settings)
    assert expected["n"].values.tolist() == [5, 5]
    for given in (Module().test_dataloader(), Module()):
        assert arrays(igc_dist.attribute(Net(), given, **settings)) == arrays(expected)
    found = sliced(ensure(Module()), "site")
    assert found is not None
    assert found.labels[found.number].tolist() == ["north", "south", "north", "south", "north"]
