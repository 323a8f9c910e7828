"""Images in tar files and in tables of Hugging Face, and arrays in files: the samples, what identifies them, and what
is refused."""

from __future__ import annotations

import importlib
import io
import json
import os
import sys
import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import zarr
from PIL import Image

import igc_dist
from igc_dist.config import from_config
from igc_dist.data import Decoding, HuggingFace, ImageFolder, Source, StoredArrays, TarFolder, maps_in
from igc_dist.records import ConfigError, DataError
from igc_dist.store import ZarrArrays
from tests.config.test_conf import composed
from tests.data.test_images import Net

CLASSES = ("cat", "dog", "emu")


def png(n: int, sides: tuple[int, int] = (10, 12)) -> bytes:
    """An image that no other number gives."""
    draw, held = np.random.default_rng(n), io.BytesIO()
    Image.fromarray(draw.integers(0, 256, (*sides, 3), dtype=np.uint8)).save(held, "png")
    return held.getvalue()


def label_map(n: int) -> np.ndarray:
    """A label map for the image of this number."""
    return np.random.default_rng(n).choice(np.array([0, 200], np.uint8), (10, 12))


def labels(n: int, kind: str) -> bytes:
    """The label map as a file of this kind."""
    held = io.BytesIO()
    if kind.endswith("png"):
        Image.fromarray(label_map(n)).save(held, "png")
    else:
        np.savez(held, label_map(n)) if kind.endswith("npz") else np.save(held, label_map(n))
    return held.getvalue()


def packed(path: Path, members: Mapping[str, bytes], mode: str = "w") -> Path:
    with tarfile.open(path, mode) as tar:  # type: ignore[call-overload]
        for name, value in members.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(value)
            tar.addfile(entry, io.BytesIO(value))
    return path


def sample(n: int, *, place: str = "a") -> dict[str, bytes]:
    """One sample of a tar file: its image, its label, and more about it."""
    about = json.dumps({"place": place, "weight": n / 2, "box": [1, 2]})
    return {f"in/{n:04}.png": png(n), f"in/{n:04}.cls": CLASSES[n % 3].encode(), f"in/{n:04}.json": about.encode()}


@pytest.fixture
def tars(tmp_path: Path) -> Path:
    """Two tar files of seven and five samples."""
    (tmp_path / "tars").mkdir()
    packed(tmp_path / "tars" / "b.tar", {k: v for n in range(7, 12) for k, v in sample(n, place="b").items()})
    packed(tmp_path / "tars" / "a.tar", {k: v for n in range(7) for k, v in sample(n).items()})
    return tmp_path / "tars"


# -- tar files ---------------------------------------------------------------------------------------------------------


def test_samples_of_tar_files(tars: Path) -> None:
    """In the order of the files; by index, in any order; images as `Decoding` reads them from files of their own."""
    data = TarFolder(tars, size=8)
    assert (len(data), data.classes, data.column_names) == (12, [*CLASSES], ["place", "weight"])
    for n in (11, 0, 6, 7):
        x, y = data[n]
        assert torch.equal(x, Decoding(8)(io.BytesIO(png(n))))
        assert int(y) == n % 3
    assert data["place"].tolist() == ["a"] * 7 + ["b"] * 5
    assert data["weight"].tolist() == [n / 2 for n in range(12)]
    assert data.paths[7] == f"{tars}/b.tar/in/0007.png"
    assert len(TarFolder(tars / "b.tar", size=8)) == 5


def test_a_label_is_any_field(tars: Path) -> None:
    """Of `json`; several fields give a vector."""
    assert TarFolder(tars, label="place", size=8).classes == ["a", "b"]
    vectors = TarFolder(tars, label=["weight", "weight"], size=8)
    assert vectors.y.tolist() == [[n / 2] * 2 for n in range(12)]
    packed(tars / "a.tar", {"1.jpg": png(1), "1.cls": b"2\n"})
    assert TarFolder(tars / "a.tar", size=8).y.tolist() == [2]


def test_tar_files_are_read_through_once(tars: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The index is kept, per file; another file has another digest, and is indexed again."""
    first = TarFolder(tars, size=8)
    opened: list[str] = []
    inner = tarfile.open
    monkeypatch.setattr(tarfile, "open", lambda path, *rest: opened.append(Path(path).name) or inner(path, *rest))
    again = TarFolder(tars, size=8)
    assert (opened, again.digest, again.paths) == ([], first.digest, first.paths)
    assert torch.equal(again[9][0], first[9][0])
    monkeypatch.undo()
    packed(tars / "b.tar", sample(8))
    os.utime(tars / "b.tar", ns=(1, 1))
    assert TarFolder(tars, size=8).digest != first.digest
    assert len(TarFolder(tars, size=8)) == 8


def test_a_damaged_index_is_made_again(tars: Path, tmp_path: Path) -> None:
    TarFolder(tars, size=8)
    for kept in (tmp_path / "cache" / "igc-dist" / "tars").iterdir():
        kept.write_text('[[[["a.png", 0, "many"]], {}]]')
    assert len(TarFolder(tars, size=8)) == 12


def test_names_in_tar_files_are_no_paths(tmp_path: Path) -> None:
    """Nor are links in them followed, or anything unpacked."""
    (tmp_path / "away").mkdir()
    (tmp_path / "away" / "2.png").write_bytes(png(2))
    path = packed(tmp_path / "a.tar", {"../away/1.png": png(1), "../away/1.cls": b"0", "/etc/3.png": png(3)})
    with tarfile.open(path, "a") as tar:
        link = tarfile.TarInfo("2.png")
        link.type, link.linkname = tarfile.SYMTYPE, str(tmp_path / "away" / "2.png")
        tar.addfile(link)
    data = TarFolder(path, size=8)
    assert [Path(name).name for name in data.paths] == ["1.png", "3.png"]
    assert torch.equal(data[0][0], Decoding(8)(io.BytesIO(png(1))))
    assert {file.name for file in tmp_path.rglob("*.png")} == {"2.png"}


@pytest.mark.parametrize(
    ("members", "mode", "words"),
    [
        ({"1.png": b"x"}, "w:gz", "not compressed"),
        ({"1.txt": b"x"}, "w", "no image in the tar files"),
        ({"1.png": png(1), "2.png": png(2), "1.cls": b"0"}, "w", "sample 1 in two places"),
        ({"1.png": png(1), "1.json": b"{"}, "w", "1.json is no json"),
        ({"1.png": png(1), "1.cls": b"\xff"}, "w", "1.cls is no cls"),
        ({"1.png": png(1), "1.json": b'{"lable": 3}'}, "w", "no column 'cls': there are 'lable'"),
    ],
)
def test_other_tar_files_are_refused(members: dict[str, bytes], mode: str, words: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=words):
        TarFolder(packed(tmp_path / "a.tar", members, mode))


def test_a_broken_image_is_named_or_left_out(tars: Path) -> None:
    packed(tars / "b.tar", sample(7) | {"in/0008.png": png(8)[:60], "in/0008.cls": b"dog"})
    data = TarFolder(tars, size=8)
    with pytest.raises(DataError, match=r"sample 8 \(.*b.tar/in/0008.png\) cannot be read"):
        Source(data).fetch([8])
    assert [*Source(data, skip=True).look([7, 8]).unread] == [1]


def test_tar_files_are_as_a_folder(tars: Path, tmp_path: Path) -> None:
    """The same images in class folders give the same bits."""
    for n in range(12):
        (tmp_path / "photos" / CLASSES[n % 3]).mkdir(parents=True, exist_ok=True)
        (tmp_path / "photos" / CLASSES[n % 3] / f"{n:04}.png").write_bytes(png(n))
    found, folder = TarFolder(tars, size=8), ImageFolder(tmp_path / "photos", size=8)
    order = [int(Path(path).stem) for path in folder.paths]
    settings: dict[str, Any] = {"target": "one_hot", "n_steps": 4, "n_folds": 4, "baseline": 0.0}
    a = igc_dist.attribute(Net(), torch.utils.data.Subset(found, order), **settings)
    b = igc_dist.attribute(Net(), folder, **settings)
    assert a.equals(b)


@pytest.mark.parametrize("kind", ["seg.png", "seg.npy", "npz"])
def test_label_maps_lie_beside_their_images(kind: str, tmp_path: Path) -> None:
    """In the sample, by the end of their names, whatever comes first; they are part of the identity."""
    members = [{f"{n}.{kind}": labels(n, kind), f"{n}.png": png(n), f"{n}.cls": b"0"} for n in range(3)]
    packed(tmp_path / "a.tar", {name: value for one in members for name, value in one.items()})
    data = TarFolder(tmp_path / "a.tar", "cls", size=(5, 6), masks=kind, mask_names={0: "none", 200: "bird"})
    for n in range(3):
        assert torch.equal(data[n][0], Decoding((5, 6))(io.BytesIO(png(n))))
        expected = Image.fromarray(label_map(n)).resize((6, 5), Image.Resampling.NEAREST)
        np.testing.assert_array_equal(data.label_map(n), np.asarray(expected))
    assert maps_in(data)(1).unique().tolist() == [0, 1]
    plain = TarFolder(tmp_path / "a.tar", "cls", size=(5, 6))
    assert plain.identity != data.identity
    assert plain.identity["files"] == data.identity["files"]


def test_a_sample_without_its_label_map_is_named(tars: Path) -> None:
    with pytest.raises(DataError, match=r"12 of 12 images have no label map, the first is .*a.tar/in/0000.png.*\.seg"):
        TarFolder(tars, masks="seg.png", mask_names=["a"])
    packed(tars / "a.tar", {"0.png": png(0), "0.seg.png": png(0), "0.cls": b"0"})
    data = TarFolder(tars / "a.tar", masks=".seg.png", mask_names=["a"], size=8)
    with pytest.raises(DataError, match=r"a\.tar/0\.seg\.png has shape \(10, 12, 3\)"):
        data.label_map(0)
    with pytest.raises(ConfigError, match=r"data\.mask_names without data\.masks"):
        TarFolder(tars / "a.tar", mask_names=["a"])


# -- tables of Hugging Face --------------------------------------------------------------------------------------------


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """Six images with labels, places, and numbers."""
    datasets = pytest.importorskip("datasets")
    kinds = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=[*CLASSES]),
                               "place": datasets.Value("string"), "size": datasets.Value("float32"),
                               "seg": datasets.Image()})  # fmt: skip
    rows = {"image": [{"bytes": png(n), "path": None} for n in range(6)], "label": [n % 3 for n in range(6)],
            "place": ["a", "b"] * 3, "size": [n / 2 for n in range(6)],
            "seg": [{"bytes": labels(n, "png"), "path": None} for n in range(6)]}  # fmt: skip
    arrow = importlib.import_module("pyarrow").table(rows, schema=kinds.arrow_schema)
    made = datasets.Dataset(datasets.table.InMemoryTable(arrow), fingerprint="0")  # what makes one pickles the table
    made.save_to_disk(str(tmp_path / "table"))
    return tmp_path / "table"


def test_samples_of_a_saved_table(table: Path) -> None:
    data = HuggingFace(table, size=8)
    assert (len(data), data.classes, data.column_names) == (6, [*CLASSES], ["place", "size"])
    for n in range(6):
        x, y = data[n]
        assert torch.equal(x, Decoding(8)(io.BytesIO(png(n))))
        assert int(y) == n % 3
    assert data["place"].tolist() == ["a", "b"] * 3
    assert HuggingFace(table, label=["size", "label"], size=8).y.tolist() == [[n / 2, n % 3] for n in range(6)]


def test_label_maps_are_a_column_of_a_table(table: Path) -> None:
    data = HuggingFace(table, size=None, masks="seg", mask_names={0: "none", 200: "bird"})
    for n in range(6):
        np.testing.assert_array_equal(data.label_map(n), label_map(n))
    assert torch.equal(data[4][0], HuggingFace(table, size=None)[4][0])
    assert data.identity != HuggingFace(table, size=None).identity
    assert data.column_names == ["place", "size"]
    with pytest.raises(DataError, match=r"column 'place' .* no images: give data\.masks"):
        HuggingFace(table, masks="place", mask_names=["a"])
    with pytest.raises(DataError, match=r"image of row 0 has shape \(10, 12, 3\)"):
        HuggingFace(table, masks="image", mask_names=["a"]).label_map(0)


def test_labels_of_a_table_are_the_models_classes_by_name(table: Path) -> None:
    data = HuggingFace(table, classes=["emu", "x", "cat", "dog"], size=8)
    assert data.y.tolist() == [2, 3, 0] * 2


def test_other_folders_are_no_tables(table: Path, tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    with pytest.raises(DataError, match=r"no column 'imgae' \(did you mean 'image'"):
        HuggingFace(table, image="imgae")
    with pytest.raises(DataError, match="no images"):
        HuggingFace(table, image="place")
    with pytest.raises(DataError, match="no folder of save_to_disk"):
        HuggingFace(tmp_path)
    datasets.DatasetDict({"test": datasets.load_from_disk(str(table))}).save_to_disk(str(tmp_path / "parts"))
    with pytest.raises(DataError, match=r"has parts: give one of .*parts/test"):
        HuggingFace(tmp_path / "parts")


def test_without_the_library_it_is_said_what_to_install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(ConfigError, match=r"pip install 'igc-dist\[huggingface\]'"):
        HuggingFace(tmp_path)


# -- arrays ------------------------------------------------------------------------------------------------------------


def stored(path: Path, kind: str, arrays: Mapping[str, np.ndarray]) -> Path:
    if kind == "npz":
        np.savez(path / "a.npz", **arrays)
        return path / "a.npz"
    if kind == "npy":
        for name, values in arrays.items():
            np.save(path / f"{name}.npy", values)
        return path
    group = zarr.open_group(path, mode="w", zarr_format=2 if kind == "zarr2" else 3)
    for name, values in arrays.items():
        group.create_array(name, shape=values.shape, dtype=values.dtype, chunks=(4, *values.shape[1:]))[:] = values
    return path


@pytest.mark.parametrize("kind", ["npz", "npy", "zarr2", "zarr3"])
def test_rows_of_arrays_in_files(kind: str, tmp_path: Path) -> None:
    """The same results as of the arrays themselves, to the bit; one value per sample is a column."""
    draw = np.random.default_rng(0)
    x, y = draw.normal(size=(14, 3, 4)).astype(np.float32), draw.normal(size=(14, 2))
    (tmp_path / "data").mkdir()
    path = stored(tmp_path / "data", kind, {"x": x, "target": y, "place": np.arange(14) % 2, "odd": np.zeros(3)})
    kept = ZarrArrays if kind.startswith("zarr") else StoredArrays
    data = kept(path, y="target")
    assert (len(data), data.column_names, data["place"].tolist()) == (14, ["place"], [0, 1] * 7)
    assert torch.equal(data[5][0], torch.from_numpy(x[5]))
    net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(12, 2))
    settings: dict[str, Any] = {"n_steps": 4, "n_folds": 4, "slices": np.arange(14) % 2}
    expected = igc_dist.attribute(net, (x, y), **settings)
    assert igc_dist.attribute(net, data, **settings | {"slices": "place"}).equals(expected)
    before = data.digest
    stored(tmp_path / "data", kind, {"x": x + 1, "target": y})
    assert kept(path, y="target").digest != before


def test_several_arrays_are_several_inputs(tmp_path: Path) -> None:
    path = stored(tmp_path, "npz", {"a": np.ones((3, 2)), "b": np.zeros((3, 5)), "y": np.arange(3.0)})
    (a, b), y = StoredArrays(path, x=["a", "b"])[2]
    assert (a.shape, b.shape, float(y)) == ((2,), (5,), 2.0)


def test_other_arrays_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"is not there: give an .npz file"):
        StoredArrays(tmp_path / "nothing")
    with pytest.raises(DataError, match=r"has no .npy file: .* a Zarr group is data=zarr"):
        StoredArrays(tmp_path)
    with pytest.raises(DataError, match="is no Zarr group"):
        ZarrArrays(tmp_path)
    path = stored(tmp_path, "npz", {"x": np.array([{}, {}], dtype=object), "y": np.zeros(2)})
    with pytest.raises(DataError, match="cannot be read"):
        StoredArrays(path)
    path = stored(tmp_path, "npz", {"images": np.zeros((2, 1)), "y": np.zeros(2)})
    with pytest.raises(DataError, match="has no array 'x': it has 'images', 'y'"):
        StoredArrays(path)
    with pytest.raises(DataError, match="do not pair up"):
        StoredArrays(stored(tmp_path, "npz", {"x": np.zeros((3, 1)), "y": np.zeros(2)}))


@pytest.mark.parametrize("kind", ["tar", "arrays", "zarr"])
def test_forms_of_data_are_run_from_a_configuration(kind: str, tars: Path, tmp_path: Path) -> None:
    x, y = np.random.default_rng(0).random((12, 3, 8, 8), np.float32), np.arange(12) % 3
    root = tars if kind == "tar" else stored(tmp_path, {"arrays": "npz", "zarr": "zarr3"}[kind], {"x": x, "y": y})
    words = [f"data={kind}", f"data.root={root}", "model.build._target_=tests.data.test_images.Net",
             "target=one_hot", "quadrature.n_steps=2", "plan.n_folds=3", "baseline=zeros"]  # fmt: skip
    words += ["data.size=8", "data.num_workers=0"] if kind == "tar" else []
    job = from_config(composed(*words), None, allow=("tests.*",))
    assert len(job.source) == 12
    assert job.source.identity["files"]
