"""Samples whose attributions are kept, one after the other: what a page and an export show of each."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import xarray as xr

from igc_dist.records import printable
from igc_dist.report.contents import Floats, all_inputs, labels
from igc_dist.report.maps import fold_features
from igc_dist.secrets import masked

Fetch = Callable[[list[int]], "np.ndarray | list[np.ndarray | None]"]
"""The first input of the samples with given indices, (n, *P), or a list; NaN or None where it cannot be read."""

AT_ONCE, HELD = 64, 2**24
"""How many samples are fetched together, and bytes that they may take: 13 photographs of 224 x 224 in float64."""


@dataclass(frozen=True)
class Row:
    """A sample, and its attribution to the output with its largest target: for a classifier, its label.

    `place`: the position of that output, `output` its name. `predictions` (O,), of the outputs `names`. `confidence`:
    of a classifier, its largest probability. `residual`: what the map misses of the prediction less that at the
    baseline; None where nothing has to add up. `attribution`: over the features of the first input. `image`: (*P), as
    the model got it; None where it is not known.
    """

    index: int
    place: int
    names: list[str]
    target: float
    predictions: Floats
    confidence: float | None
    residual: float | None
    attribution: xr.DataArray
    image: np.ndarray | None

    @property
    def output(self) -> str:
        return self.names[self.place]

    @property
    def order(self) -> list[int]:
        """The outputs, the largest prediction first."""
        return [int(k) for k in np.argsort(-np.nan_to_num(self.predictions, nan=-np.inf), kind="stable")]

    @property
    def map(self) -> Floats:
        """The attribution with at most two dimensions (*F)."""
        return np.asarray(fold_features(self.attribution.expand_dims("output"))[0][0])


def first_group(tree: xr.DataTree) -> str | None:
    """The first input whose attributions of samples are kept; None if there is none."""
    if "samples" not in tree.children:
        return None
    return next((name for name in all_inputs(tree) if name in tree["samples"].children), None)


def rows_of(tree: xr.DataTree, fetch: Fetch | None, most: int | None = None) -> Iterator[Row]:
    """The first `most` samples in the order of the data; all if None. They are read one at a time: memory is short."""
    group = first_group(tree)
    if group is None:
        return
    samples = tree.children["samples"].to_dataset()
    arrays = tree.children["samples"].children[group].to_dataset()
    names, complete = labels(tree), bool(tree.attrs.get("sums_to_prediction"))
    confidence = known_confidence(tree)
    index = samples["index"].values[:most].tolist()
    for row, (i, image) in enumerate(zip(index, fetched(fetch, index), strict=True)):
        its = samples.isel(sample=row)
        target = np.asarray(its["target"].values, np.float64)
        place = int(np.nan_to_num(target, nan=-np.inf).argmax())
        own = names
        if "explained_name" in its:
            own = [printable(name) for name in masked(list(map(str, its["explained_name"].values)))]
        attribution = arrays["attribution"].isel(sample=row).isel(output=place, drop=True)
        seen = image is not None and bool(np.isfinite(image).any())
        yield Row(
            index=int(i),
            place=place,
            names=own,
            target=float(target[place]),
            predictions=np.asarray(its["prediction"].values, np.float64),
            confidence=confidence.get(int(i), probability(its["prediction"].values)),
            residual=float(its["delta"].values[place]) if complete else None,
            attribution=attribution,
            image=image if seen else None,
        )


def fetched(fetch: Fetch | None, index: Sequence[int]) -> Iterator[np.ndarray | None]:
    """The samples with these indices in turn: as many are held as were small enough before, the first one alone."""
    start, most = 0, 1
    while start < len(index):
        part = list(index[start : start + most])
        images = [None] * len(part) if fetch is None else list(fetch(part))
        yield from images
        start += len(part)
        largest = max((image.nbytes for image in images if image is not None), default=0)
        most = min(AT_ONCE, max(1, HELD // max(largest, 1)))


def probability(predictions: np.ndarray) -> float | None:
    """The largest prediction (O,), if all are probabilities of one of them."""
    values = np.asarray(predictions, np.float64)
    whole = values.size > 1 and bool((values >= 0).all()) and abs(float(values.sum()) - 1) < 1e-3
    return float(values.max()) if whole else None


def known_confidence(tree: xr.DataTree) -> dict[int, float]:
    """The confidence of each sample by its index, as pass 1 knows it; empty where the targets are no labels."""
    if "known" not in tree.children or "confidence" not in tree["known"].data_vars:
        return {}
    known = tree["known"].to_dataset()
    return dict(zip(known["index"].values.tolist(), map(float, known["confidence"].values), strict=True))
