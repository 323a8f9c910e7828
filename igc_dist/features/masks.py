"""Features by what they show: sums over the named segments of each sample's own label map."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from igc_dist.data import LabelMaps, loaded, maps_in
from igc_dist.features.names import Names, Shape
from igc_dist.features.reducers import Reducer, by_label
from igc_dist.records import ConfigError, DataError
from igc_dist.tensors import there

DIM = "segment"
"""The dimension of named segments."""


@dataclass(frozen=True, eq=False)
class Masks(Reducer):
    """``R(a)_q = sum of a_p over the pixels p of segment q of the sample``: eye, sky, watermark, background.

    Each sample has its own label map; every pixel belongs to one segment, so sums are preserved. Channels are summed as
    well. A sample without a segment has 0 there. `names`: names of the segments, in the order of their labels 0, 1,
    ..., or label: name; None: what the data set says. `masks`: an array of labels (N, H, W), an .npy or .npz file of
    it, the name of an attribute of the data set, or None: the label maps of the data set (`data.masks`).

    The mean area of each segment is folded beside them (the statistic `Area`). Raises `ConfigError`, or `DataError` for
    a map of another size than the features.
    """

    names: Any = None
    masks: Any = None
    labels: tuple[int, ...] | None = None
    """The labels of the names in a run, which finds both."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "masks", loaded(self.masks))

    def of(self, dataset: Any) -> LabelMaps:
        """The label maps of the samples of a data set."""
        return maps_in(dataset, self.masks, self.names)

    @property
    def size(self) -> int:
        """The number of segments. Raises `ConfigError` if it is not known yet."""
        if self.names is None:
            raise ConfigError("reduce: masks without names: they are those of the data set, so give them to a run")
        return len(self.names)

    def shape(self, shape: Shape) -> Shape:
        if len(shape) < 2:
            raise ConfigError(f"masks need features (..., height, width), these have shape {shape}")
        return (self.size,)

    def dims(self, dims: Names, n_dims: int) -> Names:
        return (DIM,)

    def __call__(
        self, values: Float[Tensor, "n J *P"], x: Tensor, segments: Tensor | None = None
    ) -> Float[Tensor, "n J Q"]:
        labels = self._labels(segments, tuple(values.shape[-2:]), values.device)
        found = values.new_empty(values.shape[1], len(values), self.size)
        for j in range(values.shape[1]):  # one output at a time, as `Sums` does
            a = values[:, j].double().reshape(len(values), -1, labels.shape[1])
            found[j] = by_label(a.sum(1), labels, self.size)
        return found.transpose(0, 1)

    def _labels(self, segments: Tensor | None, shape: Shape, device: torch.device) -> Int64[Tensor, "n M"]:
        if segments is None:
            raise ConfigError("reduce: masks sum over segments of the samples, and these have no label maps")
        if tuple(segments.shape[1:]) != shape:
            raise DataError(
                f"label maps of {' x '.join(map(str, segments.shape[1:]))} pixels, and features of "
                f"{' x '.join(map(str, shape))}: give maps of the size of the model's input"
            )
        return there(segments, device).flatten(1).long()


def masks_of(reduce: Any) -> Masks | None:
    """The masks among reducers. Raises `ConfigError` if several differ: a sample has one label map."""
    if isinstance(reduce, Masks):
        return reduce
    inner = reduce if isinstance(reduce, list | tuple) else reduce.parts if _chain(reduce) else ()
    found = [masks for each in inner if (masks := masks_of(each)) is not None]
    if len({(id(each.masks), str(each.names)) for each in found}) > 1:
        raise ConfigError("reduce: masks of several inputs are the same label maps: give the same masks and names")
    return found[0] if found else None


def with_names(reduce: Any, maps: LabelMaps) -> Any:
    """The reducers, with the names and labels of the segments in their masks. The maps themselves are of the data."""
    if isinstance(reduce, Masks):
        return replace(reduce, names=maps.names, labels=maps.labels, masks=None)
    if isinstance(reduce, list | tuple):
        return type(reduce)(with_names(each, maps) for each in reduce)
    return replace(reduce, parts=with_names(reduce.parts, maps)) if _chain(reduce) else reduce


def _chain(reduce: Any) -> bool:
    return isinstance(reduce, Reducer) and hasattr(reduce, "parts")
