"""What samples may be: pairs, and dicts with keys that are given. Anything else is named with its index and a way
out."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import lightning
import numpy as np
import PIL.Image
import pytest
import torch
from torch.utils.data import DataLoader, Dataset, IterableDataset, Subset, TensorDataset

import igc_dist
from igc_dist.data import ensure
from igc_dist.records import ConfigError, DataError
from tests.ranks import Net, Rows, arrays

SETTINGS: dict[str, Any] = {"n_steps": 2, "n_folds": 3, "micro_batch": 2}
N = 6


class Dicts(Dataset[Any]):
    """Samples as Hugging Face's data sets give them: dicts, read together, of tensors or of lists of numbers."""

    def __init__(self, n: int = 12, lists: bool = False) -> None:
        self.rows, self.lists = Rows(n), lists
        self.column_names = ["pixel_values", "labels", "path"]

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Any:
        x, y = self.rows[index]
        plain = (x.tolist(), y.tolist()) if self.lists else (x, y)
        return {"path": f"{index}.jpg", "labels": plain[1], "pixel_values": plain[0]}

    def __getitems__(self, indices: list[int]) -> list[Any]:
        return [self[index] for index in indices]


class Made(Dataset[Any]):
    """Samples that a function makes."""

    def __init__(self, make: Any, n: int = N) -> None:
        self.make, self.n = make, n

    def __len__(self) -> int:
        return self.n

    def __getitem__(self, index: int) -> Any:
        return self.make(index)


class Stream(IterableDataset[Any]):
    """It has a length, and even items by index."""

    def __len__(self) -> int:
        return N

    def __iter__(self) -> Iterator[Any]:
        return iter([])

    def __getitem__(self, index: int) -> Any:
        return torch.zeros(2), torch.zeros(1)


class Unsized(Dataset[Any]):
    def __getitem__(self, index: int) -> Any:
        return torch.zeros(2), torch.zeros(1)


FIELDS = ("pixel_values", "labels")


@pytest.mark.parametrize("lists", [False, True])
def test_dicts_with_given_keys_are_pairs(lists: bool) -> None:
    expected = arrays(igc_dist.attribute(Net(), Rows(12), **SETTINGS))
    found = igc_dist.attribute(Net(), Dicts(lists=lists), fields=FIELDS, **SETTINGS)
    assert arrays(found) == expected
    loader = DataLoader(Dicts(lists=lists), 5)
    assert arrays(igc_dist.attribute(Net(), igc_dist.Data(loader, fields=FIELDS), **SETTINGS)) == expected


def test_a_dict_of_arrays_and_batches_of_a_collate_function() -> None:
    data = Rows(12)
    expected = arrays(igc_dist.attribute(Net(), data, **SETTINGS))
    assert arrays(igc_dist.attribute(Net(), {"labels": data.y, "pixel_values": data.x}, fields=FIELDS, **SETTINGS)) == (
        expected
    )

    def collate(items: list[Any]) -> Any:
        return {name: torch.stack([item[name] for item in items]) for name in FIELDS}

    loader = DataLoader(Dicts(), 5, collate_fn=collate)
    assert arrays(igc_dist.attribute(Net(), loader, fields=FIELDS, **SETTINGS)) == expected


def test_several_keys_are_several_inputs() -> None:
    source = ensure(Made(lambda i: {"a": torch.ones(2), "b": [1.0, 2.0, 3.0], "y": i}), fields=(["a", "b"], "y"))
    batch = source.fetch([4, 2])
    assert [tuple(x.shape) for x in batch.inputs] == [(2, 2), (2, 3)]
    assert batch.target.tolist() == [4, 2]


def test_fields_are_part_of_what_was_computed() -> None:
    def of(fields: Any) -> Any:
        return igc_dist.attribute(Net(), Dicts(), fields=fields, **SETTINGS).attrs["spec"]["data"]

    assert of(FIELDS)["fields"] == [*FIELDS]
    assert "fields" not in igc_dist.attribute(Net(), Rows(12), **SETTINGS).attrs["spec"]["data"]


def image(index: int) -> Any:
    return PIL.Image.fromarray(np.zeros((4, 4), np.uint8)), 0


X, Y = torch.zeros(3), torch.zeros(2)

# samples, settings, and what is said: the index and the way out
ITEMS: dict[str, tuple[Any, dict[str, Any], str]] = {
    "dicts": (lambda i: {"a": X, "b": Y}, {}, r"sample 0 is a dict with the keys 'a', 'b'.*fields=\(x, y\).*data\.x"),
    "dicts without the key": (lambda i: {"a": X}, {"fields": FIELDS}, "sample 0 has no key 'pixel_values': it has 'a'"),
    "pairs, but fields": (lambda i: (X, Y), {"fields": FIELDS}, "sample 0 is a tuple of 2.*leave fields out"),
    "dicts inside": (lambda i: ({"a": X}, Y), {}, "sample 0: x collates to a dict.* give its arrays as a tuple"),
    "images": (image, {}, "sample 0: x is a PIL image: turn it into a tensor.*ToTensor"),
    "nothing": (lambda i: None, {}, "sample 0 cannot be read: the data set gives None"),
    "no target": (lambda i: (X, None), {}, "sample 0: y is None.*NaN says that a target is missing"),
    "x alone": (lambda i: X, {}, r"sample 0 is a Tensor: it must be a pair \(x, y\)"),
    "one of three": (lambda i: (X, X, Y) if i == 5 else (X, Y), {}, "sample 5 is a tuple of 3: it must be a pair"),
    "text": (lambda i: ("a", Y), {}, "sample 0: x.*str.*give arrays, tensors or numbers"),
    "other sizes": (lambda i: (X[: 2 + i % 2], Y), {}, r"sample 1: x has shape \(3,\), but in sample 0 .*2.*resize"),
    "other sizes later": (lambda i: (X, Y[: 1 + i // 2]), {}, r"sample 2: y has shape \(2,\), but in sample 0 .*1"),
    "lists of other sizes": (lambda i: (X, [0.0] * (1 + i)), {}, r"sample 1: y has shape \(2,\), but in sample 0 .*1"),
    "ragged lists": (lambda i: (X, [[0.0], [0.0, 1.0]]), {}, "sample 0: y collates to a list of 2, expected a tensor"),
}  # fmt: skip


@pytest.mark.parametrize("name", ITEMS)
@pytest.mark.parametrize("num_workers", [0, 1])
def test_other_samples_are_named_with_index_and_way_out(name: str, num_workers: int) -> None:
    make, settings, said = ITEMS[name]
    source = ensure(Made(make), num_workers, **settings)
    with source.opened(), pytest.raises(DataError, match=f"(?s){said}") as caught:
        for _ in source.batches(range(N), 2):
            pass
    assert "Traceback" not in str(caught.value)


@pytest.mark.parametrize("broken", [{4}, {2, 3, 4}])
def test_none_is_a_sample_that_cannot_be_read_however_it_is_read(broken: set[int]) -> None:
    data = Made(lambda i: None if i in broken else (X, Y))
    for read in (data, Subset(data, range(N))):  # a `Subset` reads several at once
        with pytest.raises(DataError, match=r"sample \d cannot be read: the data set gives None"):
            list(ensure(read).batches(range(N), 2))
        found = ensure(read, on_bad_sample="skip").batches(range(N), 2)
        assert {int(batch.index[n]) for batch in found for n in batch.unread} == broken


@pytest.mark.parametrize("data", [Stream(), Unsized(), DataLoader(Stream()), DataLoader(Unsized())])
def test_data_without_an_index(data: Any) -> None:
    with pytest.raises(DataError, match=r"cannot be addressed by index.*list\(dataset\)"):
        ensure(data)


def test_fields_without_both_keys() -> None:
    for wish in ("pixel_values", ("pixel_values",), (None, "labels"), ("pixel_values", None), ([], "labels")):
        with pytest.raises(ConfigError, match=r'fields=.*fields=\("pixel_values", "labels"\).*data\.y=labels'):
            ensure(Dicts(), fields=wish)


# -- data modules ------------------------------------------------------------------------------------------------------


class Module(lightning.LightningDataModule):
    def __init__(self, loaders: Any = None, setup: Exception | None = None) -> None:
        super().__init__()
        self.loaders, self.error = loaders, setup

    def setup(self, stage: str) -> None:
        if self.error is not None:
            raise self.error

    def val_dataloader(self) -> Any:
        return self.loaders


def part(n: int = 3) -> DataLoader[Any]:
    return DataLoader(TensorDataset(torch.zeros(n, 2), torch.zeros(n, 1)))


@pytest.mark.parametrize(
    ("module", "stage", "said"),
    [
        (Module(part()), "test", "Module has no test_dataloader: choose another data.stage, of val"),
        (Module([part(), part()]), "val", r"Module.val_dataloader\(\) gives 2 data sets or loaders.*ConcatDataset"),
        (Module({"a": part(), "b": part()}), "val", "gives 2 .*loaders: give one"),
        (Module(), "val", "gives None"),
        (
            Module(part(), AttributeError("no data_val\nmore")),
            "val",
            "fails to make its val_dataloader.*no data_val;",
        ),
    ],
)
def test_a_data_module_gives_one_loader(module: Any, stage: str, said: str) -> None:
    with pytest.raises(DataError, match=said):
        ensure(module, stage=stage)


def test_the_one_loader_of_a_data_module() -> None:
    assert len(ensure(Module([part(5)]), stage="val")) == 5
    for several in ([part(), part()], (Rows(), Rows()), {"train": Dicts(), "test": Dicts()}):
        with pytest.raises(DataError, match="the data are 2 data sets or loaders: give one of them"):
            ensure(several, fields=FIELDS)
