"""Folders and tables of photographs: what is decoded, in which order, and what says that a file has changed."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import nn

import igc_dist
from igc_dist.config import from_config
from igc_dist.data import Decoding, ImageFolder, ensure
from igc_dist.records import ConfigError, DataError, StoreError
from igc_dist.targets import Targets
from tests.config.test_conf import composed
from tests.model.nets import ViT, stand_in

RED, BLUE = (255, 0, 0), (0, 0, 255)
CLASSES = ("cat", "dog", "emu")


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Four photographs of each of three classes; in colour, of several sizes, one of them in a folder below."""
    draw = np.random.default_rng(0)
    for name in CLASSES:
        (tmp_path / "photos" / name / "more").mkdir(parents=True)
        for n in range(4):
            file = tmp_path / "photos" / name / ("more" if n == 3 else ".") / f"{n}.png"
            Image.fromarray(draw.integers(0, 256, (10 + n, 12, 3), dtype=np.uint8)).save(file)
    (tmp_path / "photos" / "cat" / "notes.txt").write_text("no image")
    return tmp_path / "photos"


class Net(nn.Module):
    """Logits of the three classes, from the mean colour."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return (x - 0.4).mean((2, 3)) ** 2 * 30


def test_links_are_followed_and_hidden_folders_are_not(photos: Path, tmp_path: Path) -> None:
    """A class that is a link to a folder counts; one that leads back ends; one to nothing is named."""
    (photos / "emu").rename(tmp_path / "elsewhere")
    (photos / "emu").symlink_to(tmp_path / "elsewhere")
    (photos / "cat" / "back").symlink_to(photos)
    (photos / ".cache").mkdir()
    Image.new("RGB", (2, 2)).save(photos / ".cache" / "0.png")
    found = ImageFolder(photos, size=4)
    assert (list(found.classes), len(found)) == (list(CLASSES), 12)
    (photos / "dog" / "lost.jpg").symlink_to(tmp_path / "nowhere.jpg")
    with pytest.raises(DataError, match=r"dog/lost\.jpg is a link to a file that is not there \(1 such"):
        ImageFolder(photos, size=4)


def table(tmp_path: Path, text: str) -> Path:
    (tmp_path / "table.csv").write_text(text)
    return tmp_path / "table.csv"


# -- decoding ----------------------------------------------------------------------------------------------------------


def corner(image: Image.Image, tmp_path: Path, kind: str = "png", **saved: Any) -> list[float]:
    """Red, green and blue of the first pixel of an image that was saved and read."""
    image.save(tmp_path / f"image.{kind}", **saved)
    return [round(float(value), 3) for value in Decoding(None, background=BLUE)(tmp_path / f"image.{kind}")[:, 0, 0]]


def test_every_kind_of_image_is_three_colours(tmp_path: Path) -> None:
    """Gray, two colours, palette, CMYK; what is transparent shows the background; 16 bits keep their depth."""
    palette = Image.new("P", (2, 2), 1)
    palette.putpalette([0, 0, 0, *RED])
    assert corner(Image.new("RGB", (2, 2), RED), tmp_path) == [1, 0, 0]
    assert corner(Image.new("L", (2, 2), 51), tmp_path) == [0.2, 0.2, 0.2]
    assert corner(Image.new("1", (2, 2), 1), tmp_path) == [1, 1, 1]
    assert corner(palette, tmp_path) == [1, 0, 0]
    assert corner(palette, tmp_path, transparency=1) == [0, 0, 1]
    assert corner(Image.new("CMYK", (2, 2), (0, 255, 255, 0)), tmp_path, "tif") == [1, 0, 0]
    assert corner(Image.new("RGBA", (2, 2), (*RED, 51)), tmp_path) == [0.2, 0, 0.8]
    assert corner(Image.new("LA", (2, 2), (255, 0)), tmp_path) == [0, 0, 1]
    deep = Image.fromarray(np.full((2, 2), 12345, np.uint16))
    assert corner(deep, tmp_path) == [round(12345 / 65535, 3)] * 3
    deep.save(tmp_path / "deep.png")
    assert float(Decoding(4)(tmp_path / "deep.png")[0, 0, 0]) == pytest.approx(12345 / 65535, abs=1e-6)


def test_images_are_turned_upright(tmp_path: Path) -> None:
    """By the EXIF orientation 6, a quarter turn to the right: the left column becomes the top row."""
    values = np.zeros((2, 3, 3), np.uint8)
    values[:, 0] = 255
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(values).save(tmp_path / "turned.png", exif=exif)
    upright = Decoding(None)(tmp_path / "turned.png")
    assert upright.shape == (3, 3, 2)
    assert upright[0].tolist() == [[1, 1], [0, 0], [0, 0]]


@pytest.mark.parametrize(
    ("resize", "columns"),
    [
        (None, [80, 100, 120, 140]), (4, [80, 100, 120, 140]), (8, [95, 105, 115, 125]),
        ("squash", [20, 80, 140, 200]),
    ],
)  # fmt: skip
def test_the_centre_is_cut_out(resize: int | str | None, columns: list[int], tmp_path: Path) -> None:
    """Of a wide ramp; if it is first made twice as large, half of that; squashed, all of it."""
    ramp = np.tile(np.arange(0, 240, 20, dtype=np.uint8), (4, 1))
    Image.fromarray(ramp).save(tmp_path / "wide.png")
    found = Decoding(4, resize)(tmp_path / "wide.png")
    np.testing.assert_allclose(found.numpy() * 255, np.broadcast_to(columns, (3, 4, 4)), atol=1)


# -- folders and tables ------------------------------------------------------------------------------------------------


def test_folders_are_classes(photos: Path) -> None:
    found = ImageFolder(photos, size=8)
    assert (len(found), found.classes, found.y.tolist()) == (12, [*CLASSES], [0] * 4 + [1] * 4 + [2] * 4)
    assert [Path(path).relative_to(photos).as_posix() for path in found.paths[:4]] == [
        "cat/0.png", "cat/1.png", "cat/2.png", "cat/more/3.png",
    ]  # fmt: skip
    x, y = found[5]
    assert (x.shape, x.dtype, int(y)) == ((3, 8, 8), torch.float32, 1)
    assert torch.equal(x, Decoding(8)(photos / "dog" / "1.png"))


def test_tables_name_paths_labels_and_columns(photos: Path, tmp_path: Path) -> None:
    """Labels as names, as numbers, missing, or as several columns; other columns are slices or weights."""
    text = "path,label,number,place,a,b\ndog/0.png,dog,2,in,1,0.5\ncat/1.png,cat,0,out,0,0.25\nemu/2.png,,1,in,1,1\n"
    file = table(tmp_path, text)
    named = ImageFolder(photos, file, classes=["emu", "dog", "cat"], size=8)
    assert [Path(path).parent.name for path in named.paths] == ["dog", "cat", "emu"]
    assert named.y[:2].tolist() == [1, 2]
    assert bool(named.y[2].isnan())
    assert named["place"].tolist() == ["in", "out", "in"]
    assert ImageFolder(photos, file, label="number", size=8).y.tolist() == [2, 0, 1]
    assert ImageFolder(photos, file, label=["a", "b"], size=8).y.tolist() == [[1, 0.5], [0, 0.25], [1, 1]]
    source = ensure(named)
    assert source.column("place", "slices")[0].tolist() == ["in", "out", "in"]
    assert source.column("a", "weights")[0].tolist() == [1, 0, 1]


def test_names_of_classes_reach_the_results(photos: Path) -> None:
    """Also those of some outputs; a model of other outputs is refused, because labels would mean others."""
    tree = igc_dist.attribute(Net(), ImageFolder(photos, size=4), n_steps=2, n_folds=3, micro_batch=2)
    assert tree["output"].values.tolist() == [*CLASSES]
    part = igc_dist.attribute(Net(), ImageFolder(photos, size=4), target=[2, 0], n_steps=2, n_folds=3, micro_batch=2)
    assert part["output"].values.tolist() == ["emu", "cat"]
    np.testing.assert_array_equal(part["x/igc"].values, tree["x/igc"].values[[2, 0]])
    with pytest.raises(ConfigError, match=r"the data has 2 classes \(a, b\), but the model has 3 outputs: name all"):
        Targets(classes=("a", "b")).select(3)
    assert Targets(classes=("a", "b")).labels([0], 1).tolist() == [0]  # perhaps the one output for both


def test_a_folder_is_read_as_a_model_says(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Size and names of classes are the model's unless they are given; a label that is none of them is told."""
    stand_in(monkeypatch)
    save_file(ViT().state_dict(), tmp_path / "vit.safetensors")
    words = ["data=image_folder", f"data.root={photos}", "data.num_workers=0", "model=timm", "model.name=vit_mini"]
    words += [f"model.weights={tmp_path}/vit.safetensors", "target=one_hot", "target.outputs=[Dog,house_cat]"]
    names = "model.classes=['bird','House-Cat, cat',dog,fish,emu]"
    job = from_config(composed(*words, names), None)
    assert job.source.look([0]).inputs[0].shape == (1, 3, 16, 16)
    found = job.source.dataset.decoded
    assert (found.sides, found.resize, found.interpolation) == ((16, 16), 20, "bilinear")
    assert (job.source.dataset.y.tolist(), job.targets.outputs) == ([1] * 4 + [2] * 4 + [4] * 4, [2, 1])
    tree = igc_dist.attribute(job.model.module, job.source.dataset, target=["dog"], n_steps=1, n_folds=3)
    assert tree["output"].values.tolist() == ["dog"]
    with pytest.raises(DataError, match=r"label 'cat' is no class \(near are car\): there are 5, of the model or"):
        from_config(composed(*words, "model.classes=[bird,car,dog,fish,emu]"), None)


def test_outputs_are_chosen_by_the_labels_of_a_folder(photos: Path) -> None:
    (photos / "emu" / "0.png").unlink()
    words = ["data=image_folder", f"data.root={photos}", "data.num_workers=0", "data.size=8"]
    for wish, expected in (("present", [0, 1, 2]), ("top:2", [0, 1]), ("'positives>=4'", [0, 1])):
        assert from_config(composed(*words, f"target.outputs={wish}"), None).targets.outputs == expected


def test_a_folder_by_the_command(photos: Path) -> None:
    job = from_config(
        composed("data=image_folder", f"data.root={photos}", "data.size=[6,8]", "data.num_workers=0"), None
    )
    assert isinstance(job.source.dataset, ImageFolder)
    assert job.source.look([0]).inputs[0].shape == (1, 3, 6, 8)
    assert (job.targets.classes, job.source.num_workers) == ([*CLASSES], 0)


TEN = [*["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]]


@pytest.mark.parametrize("setting", ["model.classes", "data.classes"])
def test_names_are_given_to_any_model_and_data(setting: str, tmp_path: Path) -> None:
    """As a list, or in a file."""
    (tmp_path / "names.txt").write_text("\n".join(TEN))
    for said in (f"{setting}={tmp_path / 'names.txt'}", f"{setting}=[{','.join(TEN)}]"):
        targets = from_config(composed(said, "target.outputs=[Three,8]"), None).targets
        assert targets.labels(targets.select(10), 10).tolist() == ["three", "eight"]
    with pytest.raises(ConfigError, match=r"the data has 2 classes \(a, b\), but the model has 10 outputs"):
        from_config(composed(f"{setting}=[a,b]"), None).targets.select(10)


# -- files that change -------------------------------------------------------------------------------------------------


def test_the_manifest_is_of_all_files(photos: Path) -> None:
    found = ImageFolder(photos, size=8)
    lines = []
    for path in found.paths:
        content = Path(path).read_bytes()
        lines.append([Path(path).relative_to(photos).as_posix(), len(content), hashlib.sha256(content).hexdigest()])
    assert found.manifest.digest == hashlib.sha256(json.dumps(lines).encode()).hexdigest()


def test_unchanged_files_are_not_hashed_again(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One whose time or size is another is; what is remembered in another form is not believed."""
    before = ImageFolder(photos, size=8).manifest
    hashed: list[str] = []
    digest = hashlib.file_digest
    monkeypatch.setattr(hashlib, "file_digest", lambda file, kind: (hashed.append(file.name), digest(file, kind))[1])
    assert ImageFolder(photos, size=8).manifest == before
    assert hashed == []
    os.utime(photos / "dog" / "1.png", (1, 1))
    assert ImageFolder(photos, size=8).manifest == before
    assert hashed == [str(photos / "dog" / "1.png")]
    (kept,) = Path(os.environ["XDG_CACHE_HOME"], "igc-dist", "manifests").iterdir()
    state = (photos / "cat" / "0.png").stat()
    kept.write_text(json.dumps({"cat/0.png": [state.st_size, state.st_mtime_ns, 7]}))
    assert ImageFolder(photos, size=8).manifest == before
    assert len(hashed) == 13


def test_a_changed_photograph_is_another_run(photos: Path, tmp_path: Path) -> None:
    """Also one that is not among the samples that a run looks at first."""
    settings: dict[str, Any] = {"n_steps": 2, "n_folds": 3, "micro_batch": 2, "store": tmp_path / "store.zarr"}
    igc_dist.attribute(Net(), ImageFolder(photos, size=4), **settings)
    igc_dist.attribute(Net(), ImageFolder(photos, size=4), **settings)
    Image.new("RGB", (12, 11), RED).save(photos / "cat" / "1.png")
    with pytest.raises(StoreError, match=r"data\.identity\.files"):
        igc_dist.attribute(Net(), ImageFolder(photos, size=4), **settings)


def test_a_broken_photograph_is_left_out_by_its_path(photos: Path) -> None:
    broken = photos / "dog" / "2.png"
    broken.write_bytes(broken.read_bytes()[:60])
    settings: dict[str, Any] = {"n_steps": 2, "n_folds": 3, "micro_batch": 2}
    with pytest.raises(DataError, match=rf"sample 6 \({broken}\) cannot be read"):
        igc_dist.attribute(Net(), ImageFolder(photos, size=4), **settings)
    tree = igc_dist.attribute(Net(), ImageFolder(photos, size=4), on_bad_sample="skip", **settings)
    assert tree["n"].values.tolist() == [11, 11, 11]
    assert [(entry["index"], entry["path"]) for entry in tree.attrs["skipped"]] == [(6, str(broken))]


# -- what is refused ---------------------------------------------------------------------------------------------------

ROW = "path,label\ncat/0.png,cat\n"


@pytest.mark.parametrize(
    ("text", "settings", "message"),
    [
        (None, {"root": "nowhere"}, r"nowhere is no folder: give the folder of the images"),
        (None, {"root": "empty"}, r"no image below .*empty: images end with \.jpg, "),
        (None, {"root": "loose"}, r"a\.png is in no class folder \(1 such images\): put images into one folder"),
        (None, {"classes": ["cat", "dig", "emu"]}, r"label 'dog' is no class \(near are dig\): there are 3"),
        (None, {"classes": ["cat", "cat"]}, r"classes has 'cat' more than once"),
        (None, {"classes": "names.txt"}, r"classes=names\.txt: the file cannot be read"),
        (None, {"size": 0}, r"size=0: give the height and width"),
        (None, {"size": [4, 4, 4]}, r"size=\[4, 4, 4\]: give the height and width"),
        (None, {"resize": 4}, r"resize=4 with size=8"),
        (None, {"resize": "squish"}, r"resize=squish with size=8: give the shorter side before the cut, .*, or squash"),
        (None, {"interpolation": "cubic"}, r"interpolation='cubic': choose one of bicubic, bilinear"),
        (None, {"background": [0, 0, 256]}, r"background=\[0, 0, 256\]: give red, green and blue"),
        ("", {}, r"table\.csv cannot be read \(.*\): give a CSV or Parquet file"),
        ("path,label\n", {}, r"table\.csv has no rows"),
        ("path,lable\ncat/0.png,cat\n", {}, r"no column 'label' \(did you mean 'lable'\?\): there are 'path', 'lable'"),
        (f"{ROW}cat/0.png,cat\n", {}, r"has cat/0\.png twice or more \(1 such paths\): give each once"),
        (f"{ROW}cat/9.png,cat\n", {}, r"1 of 2 images of .* are not there, the first is .*cat/9\.png"),
        (ROW, {"label": ["label"]}, r"the columns label of .* are not all numbers"),
    ],
)
def test_what_is_no_folder_of_photographs(
    text: str | None, settings: dict[str, Any], message: str, photos: Path, tmp_path: Path
) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "loose").mkdir()
    Image.new("RGB", (2, 2)).save(tmp_path / "loose" / "a.png")
    root = tmp_path / settings.get("root", "photos")
    file = None if text is None else table(tmp_path, text)
    with pytest.raises((ConfigError, DataError), match=message):
        ImageFolder(root, file, **{"size": 8, **{k: v for k, v in settings.items() if k != "root"}})


def test_a_wrong_folder_ends_the_command_as_wrong_data(tmp_path: Path) -> None:
    """With the data set's own words."""
    with pytest.raises(DataError, match=r"^data: .*nowhere is no folder"):
        from_config(composed("data=image_folder", f"data.root={tmp_path}/nowhere"), None)
