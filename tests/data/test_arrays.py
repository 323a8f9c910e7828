"""Arrays of any package as data: their numbers are read, missing ones are never numbers, and what has no numbers is
refused with the way out."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import scipy.sparse
import torch
import xarray
import zarr
from torch.utils.data import DataLoader, Dataset, default_collate

from igc_dist.data import ensure
from igc_dist.records import DataError
from igc_dist.targets import Targets

N = 6
X = np.arange(12, dtype=np.float32).reshape(N, 2) / 8
Y = np.array([3.0, 1.0, 4.0, 1.0, 5.0, 9.0])
GAP = 2
MISSING = np.where(np.arange(N) == GAP, np.nan, Y)


def inside(x: np.ndarray) -> np.ndarray:
    """The numbers as a field of records: steps that are no multiple of their size."""
    records = np.zeros(x.shape, dtype=np.dtype([("flag", "u1"), ("value", x.dtype)]))
    records["value"] = x
    return records["value"]


def read_only(x: np.ndarray) -> np.ndarray:
    x = x.copy()
    x.setflags(write=False)
    return x


def nullable(x: np.ndarray) -> Any:
    return (pd.DataFrame if x.ndim == 2 else pd.Series)(x).convert_dtypes()


def filtered(x: np.ndarray) -> Any:
    """Rows of a table that are every second one, so that their labels are not their places."""
    frame = pd.DataFrame(np.repeat(x.reshape(N, -1), 2, axis=0))[::2]
    return frame if x.ndim == 2 else frame[0]


FORMS: dict[str, Any] = {
    "list": lambda x: x.tolist(),
    "rows": list,
    "tensor": torch.from_numpy,
    "parameter": lambda x: torch.nn.Parameter(torch.from_numpy(x)),
    "negative strides": lambda x: x[::-1].copy()[::-1],
    "other bytes": lambda x: x.astype(x.dtype.newbyteorder()),
    "field of records": inside,
    "read-only": read_only,
    "longest floats": lambda x: x.astype(np.longdouble),
    "masked nowhere": np.ma.array,
    "objects": lambda x: x.astype(object),
    "decimals": lambda x: np.vectorize(lambda v: Decimal(float(v)), otypes=[object])(x),
    "pandas": lambda x: (pd.DataFrame if x.ndim == 2 else pd.Series)(x),
    "pandas filtered": filtered,
    "pandas nullable": nullable,
    "xarray": xarray.DataArray,
    "zarr": lambda x: zarr.array(x, chunks=(4, *x.shape[1:])),
}


@pytest.mark.parametrize("form", FORMS)
def test_numbers_are_taken_from_any_array(form: str) -> None:
    source = ensure((FORMS[form](X), FORMS[form](Y)))
    batch = source.fetch([4, 1, 1])
    assert np.array_equal(batch.inputs[0].numpy(), X[[4, 1, 1]])
    assert np.array_equal(batch.target.numpy(), Y[[4, 1, 1]])
    assert not batch.inputs[0].requires_grad
    [one] = source.batches(range(N), N)
    assert np.array_equal(one.inputs[0].numpy(), X)


@pytest.mark.parametrize("form", sorted({*FORMS} - {"list", "rows", "zarr"}))  # a list is several inputs in an item
def test_numbers_are_taken_from_any_item(form: str) -> None:
    items = [(FORMS[form](X)[n] if "pandas" not in form else FORMS[form](X).iloc[n], Y[n]) for n in range(N)]
    assert np.array_equal(ensure(items).fetch([5, 0]).inputs[0].numpy(), X[[5, 0]])


def test_arrays_of_several_inputs_pair_up() -> None:
    batch = ensure(((pd.DataFrame(X), X[::-1]), Y)).fetch([1, 2])
    assert [x.numpy().tolist() for x in batch.inputs] == [X[1:3].tolist(), X[::-1][1:3].tolist()]


@pytest.mark.parametrize("where", [[3], [5, 0, 5, 2], [-1, 1]])
@pytest.mark.parametrize("two", [False, True])
@pytest.mark.parametrize("form", ["tensor", "numpy", "memmap", "channels_last"])
def test_rows_that_are_read_together_are_the_batch_of_their_items(
    form: str, two: bool, where: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Arrays are not taken apart into items and put together again: this took half of the time of small samples."""
    x: Any = np.random.default_rng(0).random((6, 3, 2, 4), dtype=np.float32)
    if form == "memmap":
        file = np.memmap(tmp_path / "x", np.float32, "w+", shape=x.shape)
        file[:] = x
        x = file
    elif form != "numpy":
        x = torch.from_numpy(x)
        x = x.contiguous(memory_format=torch.channels_last) if form == "channels_last" else x
    source = ensure(((x, x[:, 0]) if two else x, torch.arange(6)))
    expected = default_collate([source.dataset[index] for index in where])
    monkeypatch.setattr(type(source.reading), "_items", None)  # not called
    found = source.look(where)
    inputs = expected[0] if two else [expected[0]]
    for one, other in zip((*found.inputs, found.target), (*inputs, expected[1]), strict=True):
        assert one.dtype == other.dtype
        assert one.stride() == other.stride()
        assert torch.equal(one, other)


def test_integers_stay_integers() -> None:
    for values in (np.arange(N), list(range(N)), pd.Series(range(N)), pd.Series(range(N), dtype="Int64")):
        assert ensure((X, values)).fetch([0, 3]).target.tolist() == [0, 3]
        assert not ensure((X, values)).fetch([0]).target.is_floating_point()


class OnDisk:
    """An array that can only be asked for rows, and keeps what it was asked for."""

    def __init__(self, values: np.ndarray) -> None:
        self.values, self.asked = values, []  # type: ignore[var-annotated]
        self.dtype, self.shape = values.dtype, values.shape

    def __getitem__(self, rows: Any) -> np.ndarray:
        self.asked.append(np.atleast_1d(rows).tolist())
        return self.values[rows]


def test_arrays_on_disk_are_read_row_by_row() -> None:
    """In rising order, each row once: a chunk holds rows that follow each other."""
    x = OnDisk(X)
    source = ensure((x, Y), prefetch=False)
    assert x.asked == [[0]]  # to see what is in it
    assert np.array_equal(source.fetch([4, 1, 4]).inputs[0].numpy(), X[[4, 1, 4]])
    assert x.asked == [[0], [1, 4]]


def test_arrays_on_disk_are_read_ahead(tmp_path: Path) -> None:
    on_disk = np.memmap(tmp_path / "x", np.float32, "w+", shape=X.shape)
    on_disk[:] = X
    assert ensure((on_disk, Y)).ahead
    assert not ensure((X, Y)).ahead
    assert np.array_equal(ensure((on_disk, Y)).fetch([3]).inputs[0].numpy(), X[[3]])


# -- missing values ----------------------------------------------------------------------------------------------------

GAPS: dict[str, Any] = {
    "NaN": MISSING,
    "masked": np.ma.array(np.where(np.isnan(MISSING), -9999.0, Y), mask=np.isnan(MISSING)),
    "masked integers": np.ma.array(Y.astype(np.int64), mask=np.isnan(MISSING)),
    "masked tensor": lambda: torch.masked.as_masked_tensor(torch.from_numpy(Y), torch.from_numpy(~np.isnan(MISSING))),
    "None in objects": np.array([None if np.isnan(v) else v for v in MISSING], dtype=object),
    "None in a list": [None if np.isnan(v) else v for v in MISSING],
    "NaN in objects": MISSING.astype(object),
    "nullable floats": pd.Series(MISSING, dtype="Float64"),
    "nullable integers": pd.Series(MISSING, dtype="Float64").astype("Int64"),
    "NA in objects": pd.Series([pd.NA if np.isnan(v) else v for v in MISSING], dtype=object),
}


@pytest.mark.filterwarnings("ignore:The PyTorch API of MaskedTensors")
@pytest.mark.parametrize("name", GAPS)
def test_a_missing_target_is_nan(name: str) -> None:
    y = GAPS[name]() if callable(GAPS[name]) else GAPS[name]
    whole = ensure((X, y)).fetch(range(N)).target
    assert np.array_equal(whole.double().numpy(), MISSING, equal_nan=True)
    entries = list(y) if not isinstance(y, torch.Tensor) else [y[n] for n in range(N)]
    if None in entries or name in ("None in objects", "None in a list"):
        return  # an item without a target is refused, as it may be a mistake
    for order in (range(N), [GAP, 0, 1, 3, 4, 5]):
        batch = ensure(list(zip(X, entries, strict=True))).fetch(order)
        assert np.array_equal(batch.target.double().numpy(), MISSING[list(order)], equal_nan=True)


class Same(Dataset[Any]):
    """Items of one kind."""

    def __init__(self, item: Any) -> None:
        self.item = item

    def __len__(self) -> int:
        return N

    def __getitem__(self, index: int) -> Any:
        return self.item


def test_masks_survive_workers_and_collation() -> None:
    rows = np.ma.array([1.0, 2.0], mask=[False, True])
    for source in (
        ensure(Same((X[0], rows)), num_workers=2),
        ensure(DataLoader(Same((X[0], rows)), collate_fn=lambda items: (X[: len(items)], np.ma.stack([rows] * 2)))),
    ):
        with source.opened():
            [first, *_] = source.batches(range(2), 2)
        assert np.array_equal(first.target.numpy(), [[1.0, np.nan]] * 2, equal_nan=True)


@pytest.mark.parametrize("x", [np.ma.masked_greater(X, 1.3), np.where(X > 1.3, None, X.astype(object)).tolist()])
def test_a_missing_input_is_refused_with_its_place(x: Any) -> None:
    with pytest.raises(DataError, match=r"x has a missing value .*at index \(5, 1\): fill it in"):
        ensure((x, Y))
    if isinstance(x, np.ndarray):
        with pytest.raises(DataError, match=r"x of sample 5 has a missing value .*at index \(1,\)"):
            ensure(list(zip(x, Y, strict=True))).fetch([4, 5])
        with pytest.raises(DataError, match=r"x\[1\] of sample 5 has a missing value"):
            ensure([((row, row), 0.0) for row in X[:5]] + [((X[5], x[5]), 0.0)]).fetch([4, 5])


def test_missing_labels_have_no_one_hot_code() -> None:
    labels = np.ma.array([0, 2, 1, 7], mask=[False, False, False, True])
    y = ensure((X[:4], labels)).fetch(range(4)).target
    code = Targets(one_hot=True).encode(y, 3)
    assert np.array_equal(code.numpy(), [[1, 0, 0], [0, 0, 1], [0, 1, 0], [np.nan] * 3], equal_nan=True)
    with pytest.raises(DataError, match="one integer label"):
        Targets(one_hot=True).encode(y + 0.5, 3)
    with pytest.raises(DataError, match="0 to 2, but the model has 2"):
        Targets(one_hot=True).encode(y, 2)


def test_a_batch_has_the_type_of_all_its_items() -> None:
    """torch would take that of the first: a float32 of 2 ** 24 + 1 is another number."""
    large = 2**24 + 1
    assert ensure([(X[0], large), (X[1], pd.NA)]).fetch([0, 1]).target[0] == large
    assert ensure([(X[0], np.int64(large)), (X[1], 0.5)]).fetch([0, 1]).target.tolist() == [large, 0.5]


# -- no numbers --------------------------------------------------------------------------------------------------------

text = np.array(list("ababab"))
REFUSED: dict[str, tuple[Any, str]] = {
    "sparse matrix": (scipy.sparse.csr_matrix(X), "sparse.*csr_matrix.*toarray"),
    "sparse array": (scipy.sparse.coo_array(X), "sparse.*coo_array.*toarray"),
    "sparse tensor": (torch.from_numpy(X).to_sparse(), "sparse.*to_dense"),
    "sparse rows": (lambda: torch.from_numpy(X).to_sparse_csr(), "sparse.*to_dense"),
    "nested tensor": (lambda: torch.nested.nested_tensor([torch.ones(1 + n % 2) for n in range(N)]), "nested.*pad"),
    "text": (text, "text.*np.unique"),
    "bytes": (text.astype("S1"), "text.*np.unique"),
    "text of any length": (pd.Series(text), "text.*np.unique"),
    "text in objects": (text.astype(object), "text.*np.unique"),
    "text in a list": (text.tolist(), "text.*np.unique"),
    "text among numbers": (pd.DataFrame({"a": Y, "b": text}), "text.*np.unique"),
    "text on disk": (OnDisk(text), "text.*np.unique"),
    "categories": (pd.Categorical(text), "text.*np.unique"),
    "dates": (pd.date_range("2020", periods=N), "dates.*timedelta64"),
    "dates in objects": (pd.Series(pd.date_range("2020", periods=N, tz="UTC")), "objects that are no numbers"),
    "time differences": (np.arange(N).astype("m8[s]"), "time differences.*timedelta64"),
    "records": (np.zeros(N, "i4,f4"), "fields.*table of numbers"),
    "lists of other sizes": ([[0.0] * (1 + n % 2) for n in range(N)], "no array.*numbers of one shape"),
    "objects": (np.array([object()] * N), "objects that are no numbers"),
}


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested", "ignore:Sparse CSR")
@pytest.mark.parametrize("name", REFUSED)
def test_what_has_no_numbers_is_refused(name: str) -> None:
    values, words = REFUSED[name]
    values = values() if callable(values) else values
    for pair, part in (((values, Y), "x"), ((X, values), "y")):
        with pytest.raises(DataError, match=f"(?s)^{part}.*{words}"):
            ensure(pair)


@pytest.mark.parametrize("x", [scipy.sparse.csr_matrix(X)[0], torch.from_numpy(X[0]).to_sparse(), np.array(["a", "b"])])
def test_an_item_without_numbers_is_refused_with_its_index(x: Any) -> None:
    items = [(X[0], 0.0), (x, 0.0)]
    with pytest.raises(DataError, match=r"x of sample 1 (is sparse.*dense|holds text)"):
        ensure(items).fetch([0, 1])
