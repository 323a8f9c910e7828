"""The samples that a user's `DataLoader` chooses."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
from torch import Tensor
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    DistributedSampler,
    IterableDataset,
    RandomSampler,
    SequentialSampler,
    Subset,
    SubsetRandomSampler,
    WeightedRandomSampler,
)

from igc_dist.records import DataError

WAY_OUT = "give the data set instead of its loader, or torch.utils.data.Subset(dataset, indices) for a part of it"


def chosen(loader: DataLoader[Any]) -> Any:
    """The data set of a loader; a `Subset` of it, in the order of the data, if its sampler takes only some samples.

    Batches do not matter: `batch_size`, `shuffle` and `drop_last` change nothing, as every sample counts once. Raises
    `DataError` for a sampler whose samples are not a fixed set.
    """
    dataset = loader.dataset
    if isinstance(dataset, IterableDataset):
        return dataset  # it has no samples to choose from; `Source` says what to do
    if loader.batch_sampler is None:
        raise DataError(f"the DataLoader has batch_size=None, so that its items may be whole batches: {WAY_OUT}")
    if type(loader.batch_sampler) is not BatchSampler:
        kind = type(loader.batch_sampler).__name__
        raise DataError(f"the DataLoader has a batch_sampler of its own ({kind}), whose samples are unknown: {WAY_OUT}")
    indices, n = _indices(loader.batch_sampler.sampler), len(dataset)  # type: ignore[arg-type]
    if not len(indices):
        raise DataError(f"the sampler of the DataLoader takes no sample: {WAY_OUT}")
    if indices.ndim != 1 or indices.dtype.kind not in "iu" or indices.min() < 0 or indices.max() >= n:
        raise DataError(f"the sampler of the DataLoader takes others than indices from 0 to {n - 1}: {WAY_OUT}")
    once, counts = np.unique(indices, return_counts=True)
    if len(once) < len(indices):
        twice = once[counts > 1][0]
        warnings.warn(
            f"the sampler of the DataLoader takes sample {twice} {counts.max()} times: here every sample counts once, "
            "its weight is set by weights=",
            stacklevel=2,
        )
    return dataset if len(once) == n else Subset(dataset, once.tolist())


def _indices(sampler: Any) -> np.ndarray:
    """The indices that a sampler takes. A subclass may take others, so kinds are compared exactly."""
    kind = type(sampler)
    if kind is SequentialSampler:
        return np.arange(len(sampler.data_source))
    if kind is RandomSampler and not sampler.replacement and sampler.num_samples == len(sampler.data_source):
        return np.arange(len(sampler.data_source))
    if kind is DistributedSampler:  # a share of the whole for each rank; here ranks share the work themselves
        return np.arange(len(sampler.dataset))
    if kind is SubsetRandomSampler:
        return np.asarray(sampler.indices)
    if isinstance(sampler, Sequence | np.ndarray | Tensor):
        return np.asarray(sampler)
    if kind is RandomSampler:
        why = f"draws {sampler.num_samples} of {len(sampler.data_source)} samples" + (
            " with repetition" if sampler.replacement or sampler.num_samples > len(sampler.data_source) else ""
        )
    elif kind is WeightedRandomSampler:
        why = "draws by weights (weights=... weighs samples without a draw)"
    else:
        why = "may take any samples"
    raise DataError(f"the sampler of the DataLoader ({kind.__name__}) {why}: {WAY_OUT}")
