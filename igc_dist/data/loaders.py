"""The loader of a data module, and the samples that a user's `DataLoader` chooses."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from torch import Tensor
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    Dataset,
    DistributedSampler,
    IterableDataset,
    RandomSampler,
    SequentialSampler,
    Subset,
    SubsetRandomSampler,
    WeightedRandomSampler,
)

from igc_dist.data.samples import first_line
from igc_dist.records import ConfigError, DataError, IgcError

STAGES = {"train": "fit", "val": "validate", "test": "test", "predict": "predict"}
"""The argument of a data module's `setup` for the loader of each stage."""
WAY_OUT = "give the data set instead of its loader, or torch.utils.data.Subset(dataset, indices) for a part of it"


def chosen(loader: DataLoader[Any]) -> Any:
    """The data set of a loader; a `Subset` of it, in the order of the data, if its sampler takes only some samples.

    Batches do not matter: `batch_size`, `shuffle` and `drop_last` change nothing, as every sample counts once. Raises
    `DataError` for a sampler whose samples are not a fixed set.
    """
    dataset = loader.dataset
    if isinstance(dataset, IterableDataset) or not hasattr(dataset, "__len__"):
        return dataset  # it has no samples to choose from; `Source` says what to do
    if type(loader).__iter__ is not DataLoader.__iter__:
        raise DataError(f"the loader ({type(loader).__name__}) makes its batches in a way of its own: {WAY_OUT}")
    if loader.batch_sampler is None:
        raise DataError(f"the DataLoader has batch_size=None, so that its items may be whole batches: {WAY_OUT}")
    if type(loader.batch_sampler) is not BatchSampler:
        kind = type(loader.batch_sampler).__name__
        raise DataError(f"the DataLoader has a batch_sampler of its own ({kind}), whose samples are unknown: {WAY_OUT}")
    indices, n = _indices(loader.batch_sampler.sampler), len(dataset)
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


def loader_of(module: Any, stage: str) -> Any:
    """The loader of a `LightningDataModule` for a stage. Raises `DataError` unless there is exactly one."""
    if stage not in STAGES:
        raise ConfigError(f"data.stage={stage!r}: choose one of {', '.join(STAGES)}")
    name, of = f"{stage}_dataloader", type(module).__name__
    own = [each for each in STAGES if _own(module, f"{each}_dataloader")]
    if stage not in own:
        raise DataError(f"{of} has no {name}: choose another data.stage" + (f", of {', '.join(own)}" if own else ""))
    try:
        module.prepare_data()
        module.setup(STAGES[stage])
        loader = getattr(module, name)()
    except IgcError:
        raise
    except Exception as error:
        raise DataError(
            f"{of} fails to make its {name}: {type(error).__name__}: {first_line(error)}; mend it, or choose another "
            f"data.stage of {', '.join(own)}"
        ) from error
    if isinstance(loader, list | tuple) and len(loader) == 1:
        (loader,) = loader
    return one_data_set(loader, f"{of}.{name}() gives")


def _own(module: Any, name: str) -> bool:
    """Whether a data module has its own loader, and does not only inherit the one that refuses."""
    method = getattr(module, name, None)  # an instance may carry a loader of its own too
    return callable(method) and getattr(method, "__module__", "").split(".")[0] not in (
        "lightning",
        "pytorch_lightning",
    )


def one_data_set(data: Any, words: str = "the data are") -> Any:
    """The data. Raises `DataError` if they are None, or several data sets or loaders, such as a dict of splits."""
    several = [*data.values()] if isinstance(data, Mapping) else data if isinstance(data, list | tuple) else []
    if data is None or (len(several) and all(map(_is_data_set, several))):
        what = "None" if data is None else f"{len(several)} data sets or loaders"
        raise DataError(f"{words} {what}: give one of them (torch.utils.data.ConcatDataset joins several data sets)")
    return data


def _is_data_set(value: Any) -> bool:
    return isinstance(value, DataLoader | Dataset) or hasattr(value, "column_names")
