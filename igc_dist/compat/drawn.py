"""Data sets of the IGC package that draw their items, whatever the index."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch.utils.data import Dataset

from igc_dist import seeds


class Addressed(Dataset[Any]):
    """A data set that draws its items from its generator `rng`, made a function of the index.

    The items do not depend on the order of access or the rank: the generator of a copy is seeded by (seed, index)
    before each access.
    """

    def __init__(self, dataset: Any, seed: int) -> None:
        self.dataset, self.seed = copy.copy(dataset), seed
        self.dataset.rng = torch.Generator(device=dataset.rng.device)

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> Any:
        self.dataset.rng.manual_seed(seeds.seed(self.seed, int(index), "compat.rng") % 2**63)
        return self.dataset[index]
