"""Slice labels and weights from arrays of any package: a missing one is neither a label nor a number."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch.utils.data import Subset, TensorDataset

import igc_dist
from igc_dist.data import Source, ensure, sliced, weighted
from igc_dist.records import ConfigError, DataError
from tests.ranks import Net, Rows

N = 6
GAP = 2
X = torch.zeros(N, 2)


def source(**columns: Any) -> Source:
    dataset = TensorDataset(X, X[:, 0])
    for name, values in columns.items():
        setattr(dataset, name, values)
    return ensure(dataset)


def gap(values: Any, missing: Any) -> list[Any]:
    return [missing if n == GAP else value for n, value in enumerate(values)]


LETTERS = list("babbab")
YEARS = np.array(["2021", "2020"] * 3, "M8[Y]")
LABELS: dict[str, tuple[Any, list[Any]]] = {
    "list": (LETTERS, ["a", "b"]),
    "bytes": (np.array(LETTERS, "S1"), ["a", "b"]),
    "text of any length": (pd.Series(LETTERS), ["a", "b"]),
    "categories": (pd.Categorical(LETTERS), ["a", "b"]),
    "dates": (YEARS, ["2020", "2021"]),
    "dates in a table": (
        pd.Series(YEARS.astype("M8[ns]"), dtype=object),
        ["2020-01-01 00:00:00", "2021-01-01 00:00:00"],
    ),
    "time differences": (np.array([2, 1] * 3, "m8[s]"), ["1 seconds", "2 seconds"]),
    "numbers": (torch.arange(N) % 2, [0, 1]),
    "other bytes": ((np.arange(N) % 2).astype(">i4"), [0, 1]),
    "truths": ([True, False] * 3, [False, True]),
    "numbers and text in a list": (["1.5", 2] * 3, ["1.5", "2"]),
    "numbers in objects": (np.array([10, 9] * 3, dtype=object), [9, 10]),
    "numbers and text": (np.array(["1.5", 2] * 3, dtype=object), ["1.5", "2"]),
}


@pytest.mark.parametrize("name", LABELS)
def test_labels_are_numbers_or_text(name: str) -> None:
    given, labels = LABELS[name]
    found = sliced(source(), given)
    assert found is not None
    assert found.labels.dtype.kind in "biufU"
    assert found.labels.tolist() == labels
    assert len(set(found.number.tolist())) == 2
    assert not found.unlabelled.any()


MISSING: dict[str, Any] = {
    "None": gap(LETTERS, None),
    "NaN among text": gap(LETTERS, np.nan),
    "NA among text": pd.Series(gap(LETTERS, pd.NA), dtype=object),
    "text of any length": pd.Series(gap(LETTERS, None)),
    "categories": pd.Categorical(gap(LETTERS, None)),
    "NaT": np.array(gap(YEARS, np.datetime64("NaT"))),
    "NaN": np.array(gap([1.0, 0.0] * 3, np.nan)),
    "masked": np.ma.array(np.arange(N) % 2, mask=np.arange(N) == GAP),
    "nullable integers": pd.Series(gap([1, 0] * 3, pd.NA), dtype="Int64"),
    "nullable truths": pd.Series(gap([True, False] * 3, pd.NA), dtype="boolean"),
}


@pytest.mark.parametrize("name", MISSING)
def test_a_missing_label_is_no_slice(name: str) -> None:
    data = source(group=MISSING[name])
    for wish in (MISSING[name], "group"):
        with pytest.raises(DataError, match=f"1 samples have no label.*sample {GAP}: .*on_unlabelled=skip"):
            sliced(data, wish)
    found = sliced(data, "group", "skip")
    assert found is not None
    assert len(found.labels) == 2
    assert np.flatnonzero(found.unlabelled).tolist() == [GAP]
    part = sliced(ensure(Subset(data.dataset, [4, GAP, 0])), "group", "skip")
    assert part is not None
    assert np.flatnonzero(part.unlabelled).tolist() == [1]


def test_numbers_are_numbers_beside_missing_labels_too() -> None:
    """Text would sort 10 before 9."""
    found = sliced(source(), pd.Series(gap([10, 9] * 3, pd.NA), dtype="Int64"), "skip")
    assert found is not None
    assert found.labels.tolist() == [9, 10]


@pytest.mark.parametrize(
    ("labels", "words"),
    [
        ([None] * N, "no sample has a label"),
        (np.arange(N) + 1j, "complex128.*numbers, text or dates"),
        (np.array([1, "1"] * 3, dtype=object), "both '1' as text"),
        ([1, "1"] * 3, "both '1' as text"),
        (np.array([True, "True"] * 3, dtype=object), "both 'True' as text"),
        (np.zeros(N, "i4,f4"), "numbers, text or dates"),
    ],
)
def test_labels_that_cannot_be_told_apart_are_refused(labels: Any, words: str) -> None:
    with pytest.raises(DataError, match=words):
        sliced(source(), labels, "skip")


def test_an_unknown_policy_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"on_unlabelled='ignore': choose one of fail, skip"):
        sliced(source(), LETTERS, "ignore")


def test_samples_without_a_label_are_left_out_and_listed() -> None:
    """As if the data set did not have them."""
    x, y = (torch.stack(part) for part in zip(*(Rows(12)[n] for n in range(12)), strict=True))
    settings: dict[str, Any] = {"n_steps": 2, "n_folds": 3, "statistics": ["correlation"]}
    group = np.array([n % 2 if n != GAP else None for n in range(12)], dtype=object)
    tree = igc_dist.attribute(Net(), (x, y), slices=group, on_unlabelled="skip", **settings)
    kept = [n for n in range(12) if n != GAP]
    small = igc_dist.attribute(Net(), (x[kept], y[kept]), slices=group[kept].astype(int), **settings)
    for name in ("correlation", "slices/correlation"):
        np.testing.assert_allclose(np.asarray(tree[name]), np.asarray(small[name]), rtol=1e-6)
    assert tree["slices"].coords["slice"].values.tolist() == [0, 1]
    [skipped] = tree.attrs["skipped"]
    assert skipped == {"index": GAP, "reason": "no label in slices"}


# -- weights -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "weights",
    [
        [0, 1, 2, 3, 4, 5],
        np.arange(N, dtype=">f4"),
        np.arange(N)[::-1][::-1],
        pd.Series(range(N), dtype="Int64"),
        torch.arange(N),
        np.array([Decimal(n) for n in range(N)]),
    ],
)
def test_weights_are_taken_from_any_array(weights: Any) -> None:
    found = weighted(source(), weights)
    assert found is not None
    assert found.tolist() == [0, 1, 2, 3, 4, 5]


@pytest.mark.parametrize(
    ("weights", "words"),
    [
        (np.ma.array(np.ones(N), mask=np.arange(N) == GAP), f"sample {GAP} has none .masked"),
        (gap(np.ones(N), None), f"sample {GAP} has none"),
        (pd.Series(gap([1, 2] * 3, pd.NA), dtype="Int64"), f"sample {GAP} has (none|nan)"),
        (gap(np.ones(N), np.nan), f"sample {GAP} has nan"),
        (np.ones(N) + 0j, "complex128: give real numbers"),
        (LETTERS, "weights holds text"),
        (YEARS, "weights holds dates"),
    ],
)
def test_weights_that_are_no_numbers_are_refused(weights: Any, words: str) -> None:
    with pytest.raises(DataError, match=words):
        weighted(source(), weights)


def test_a_name_that_the_data_lacks_is_refused() -> None:
    with pytest.raises(DataError, match=r"slices='group'.*; it has 'age'$"):
        sliced(source(age=LETTERS, size=3), "group")
    with pytest.raises(DataError, match=r"the data set list has no such attribute.*give an array"):
        weighted(ensure([(row, row[0]) for row in X]), "w")
