"""Metrics that compare maps with masks of the data: where the object is, or the features that should count."""

from __future__ import annotations

from abc import ABC
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool
from torch import Tensor

from igc_dist.metrics.base import Maps, Metric, Subject, choice
from igc_dist.metrics.curves import RANKS
from igc_dist.records import ConfigError


@dataclass(frozen=True)
class OfMasks(Metric, ABC):
    """A metric of maps against `masks`: an array (N, *S), or the path of an .npy file of it; other than 0 is inside.

    S are the positions of a map, (H, W) of images. A sample whose mask is empty or full has no score (NaN). `rank`:
    "signed" takes values as they are, "absolute" their size.
    """

    masks: Any = None
    rank: str = "signed"
    _loaded: Any = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        choice(self, "rank", RANKS)
        loaded = None
        if isinstance(self.masks, str):
            try:
                loaded = np.load(self.masks, allow_pickle=False, mmap_mode="r")
            except (OSError, ValueError) as error:
                raise ConfigError(f"{self.name}: masks={self.masks!r} is no .npy file of numbers ({error})") from error
        elif self.masks is not None:
            loaded = self.masks.numpy(force=True) if isinstance(self.masks, Tensor) else np.asarray(self.masks)
        object.__setattr__(self, "_loaded", loaded)

    def check(self, subject: Subject) -> None:
        if self._loaded is None:
            raise ConfigError(f"{self.name} compares maps with masks of the data: give masks, an array (N, *positions)")
        wanted = (subject.n_samples, *subject.positions)
        if self._loaded.shape != wanted:
            raise ConfigError(f"{self.name}: masks of shape {self._loaded.shape}, and the data want {wanted}")

    def inside(self, maps: Maps) -> tuple[Bool[Tensor, "M S"], Bool[Tensor, " M"]]:
        """The masks of the samples of the maps, and which of them have an inside and an outside."""
        found = np.asarray(self._loaded[maps.sample.cpu().numpy()]).reshape(maps.positions().shape) != 0
        mask = torch.as_tensor(found, device=maps.x.device)
        return mask, mask.any(1) & ~mask.all(1)
