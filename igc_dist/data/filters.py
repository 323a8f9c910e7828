"""Which samples count: those that the model knows, those of a column of the data, or those of a list."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Float64, UInt8
from torch import Tensor

from igc_dist import files
from igc_dist.arrays import numbers
from igc_dist.data.source import Source
from igc_dist.records import ConfigError, DataError

WRONG, UNSURE, UNNAMED = 7, 8, 9
"""Codes of samples that a filter leaves out, after those of samples that are not fit for use."""
LEFT_OUT = {
    WRONG: "the model predicts another class than its label",
    UNSURE: "its probability is not above the threshold",
    UNNAMED: "the filter names other samples",
}

_CONFIDENT = re.compile(r"confident\(\s*([0-9.eE+-]+)\s*(?:,\s*(label|predicted)\s*)?\)")
FORMS = "correct, confident(0.8), confident(0.8, predicted), COLUMN==VALUE, or indices FILE"


@dataclass(frozen=True)
class Filter:
    """A condition on samples. Samples that it leaves out are in no number of a run, and are not walked.

    "correct": the largest output is that of the label. "confident(p)": correct, and the probability of the label is
    above p, as the study of arXiv:2409.09043 filters (p = 0.8). "confident(p, predicted)": the largest probability is
    above p, also where it is not the label's, as PAIR's information curves do. Both compare strictly, and take outputs
    as logits unless every row is a distribution. "COLUMN==VALUE": a column of the data set. "indices FILE": the numbers
    in a text file; in Python also an array of numbers, or one value of true or false for each sample.

    `kept`: decided before the model is called; None: decided by pass 1.
    """

    text: str
    kept: Bool[np.ndarray, " N"] | None = None
    correct: bool = False
    above: float | None = None

    def codes(
        self, outputs: Float[Tensor, "n J"], scores: Float64[np.ndarray, "n 2"], labelled: bool
    ) -> UInt8[np.ndarray, " n"]:
        """0 for samples that are kept, else why not. `scores`: correctness and the label's probability.

        Raises `DataError` if it needs labels, and y is none.
        """
        if self.correct and not labelled:
            raise DataError(
                f"filter={self.text} compares predictions with labels, and y is no label: give integer labels, or take "
                "confident(p, predicted)"
            )
        found = np.zeros(len(outputs), np.uint8)
        if self.above is not None:
            sure = scores[:, 1] if self.correct else probabilities(outputs).amax(1).numpy()
            found[~(sure > self.above)] = UNSURE
        if self.correct:
            found[scores[:, 0] != 1] = WRONG
        return found


def probabilities(outputs: Float[Tensor, "n J"]) -> Float64[Tensor, "n J"]:
    """The outputs themselves if every row of finite numbers is a distribution, else their softmax."""
    f = outputs.double()
    known = f.isfinite().all(1)
    distribution = (f >= 0).all(1) & ((f.sum(1) - 1).abs() < 1e-3)
    return f if bool((distribution | ~known).all()) else f.softmax(1)


def filtered(source: Source, wish: Any) -> Filter | None:
    """The filter that a text describes, or of an array of indices.

    Raises `ConfigError` for a text that is none, and for a filter that keeps no sample; `DataError` for a column that
    is not there.
    """
    if wish is None or isinstance(wish, Filter):
        return wish
    if not isinstance(wish, str):
        return _of_indices(wish, f"{np.size(wish)} indices", len(source))
    text = wish.strip()
    if text == "correct":
        return Filter(text, correct=True)
    if found := _CONFIDENT.fullmatch(text):
        return Filter(text, correct=found[2] != "predicted", above=_threshold(found[1], text))
    if text.startswith("indices "):
        return _of_indices(_listed(text.removeprefix("indices ").strip()), text, len(source))
    if "==" in text:
        column, value = (part.strip() for part in text.split("==", 1))
        return _of_column(source, column, value, text)
    raise ConfigError(f"filter={text!r} is none: give {FORMS}")


def _threshold(number: str, text: str) -> float:
    try:
        above = float(number)
    except ValueError:
        above = -1.0
    if not 0 <= above < 1:
        raise ConfigError(f"filter={text}: give a probability of at least 0 and below 1, such as confident(0.8)")
    return above


def _listed(path: str) -> list[int]:
    """The numbers in a text file."""
    try:
        words = files.read(os.path.expanduser(path)).decode().replace(",", " ").split()
        return [int(word) for word in words]
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"filter=indices {path}: the file cannot be read ({error}): give a text file of whole numbers, one on each "
            "line"
        ) from error


def _of_indices(given: Sequence[int] | Any, text: str, n: int) -> Filter:
    found, _ = numbers(given, "filter", ConfigError)
    if found.dtype == bool and found.shape == (n,):
        found, text = np.flatnonzero(found), f"{int(found.sum())} indices"
    if not found.size:
        raise ConfigError("filter keeps no sample: give different numbers of samples, at least one")
    if found.dtype.kind not in "iu" or found.ndim != 1:
        raise ConfigError(f"filter of type {found.dtype} and shape {found.shape}: give {FORMS}, or indices of samples")
    if found.min() < 0 or found.max() >= n or len(np.unique(found)) < len(found):
        raise ConfigError(f"filter={text}: give different numbers from 0 to {n - 1}, at least one")
    kept = np.zeros(n, bool)
    kept[found] = True
    return Filter(text, kept)


def _of_column(source: Source, name: str, value: str, text: str) -> Filter:
    column, missing = source.column(name, "filter")
    kept = ~missing & np.array([_same(each, value) for each in column.tolist()])
    if not kept.any():
        some = ", ".join(map(str, np.unique(column[~missing].astype(str))[:5]))
        raise ConfigError(f"filter={text}: no sample has it; the column {name} has {some}, ...")
    return Filter(text, kept)


def _same(entry: Any, value: str) -> bool:
    """Whether an entry of a column is this value, as a number or as text."""
    if isinstance(entry, bool | str) or entry is None:
        return str(entry).casefold() == value.casefold() if isinstance(entry, bool) else entry == value
    if isinstance(entry, bytes):
        return entry.decode(errors="backslashreplace") == value
    try:
        return bool(entry == float(value))
    except ValueError:
        return str(entry) == value
