"""Exports, read back as the documents of each program describe its format: every number is of its own sample."""

from __future__ import annotations

import base64
import csv
import io
import json
import zlib
from pathlib import Path

import h5py
import matplotlib.image
import numpy as np
import pytest
import torch
import xarray as xr

import igc_dist
from igc_dist.records import ConfigError
from igc_dist.report import write_export

N = 10
NAMES = ["one", "a,b", "=1+1", 'quo"te: {x}']
X = torch.rand(N, 3, 6, 5, generator=torch.Generator().manual_seed(0))
LABEL = torch.arange(N) % 4
Y = torch.eye(4)[LABEL]


@pytest.fixture(scope="module")
def tree() -> xr.DataTree:
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(90, 4), torch.nn.Tanh())
    named = igc_dist.Targets(names=NAMES)
    return igc_dist.attribute(net, (X, Y), method="igc", n_steps=4, n_folds=2, threads=1, target=named, samples=True)


def own(tree: xr.DataTree, i: int) -> np.ndarray:
    """The attribution of a sample to its label, (3, 6, 5)."""
    return np.asarray(tree["samples/x/attribution"].values[i, int(LABEL[i])])


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_folder(tree: xr.DataTree, tmp_path: Path) -> None:
    """Tables have all digits; a picture is red where its numbers are above zero, blue where below."""
    assert tree.igc.export("folder", tmp_path / "out", data=(X, Y)) == tmp_path / "out"
    outputs = rows(tmp_path / "out/outputs.csv")
    assert [row["output"] for row in outputs] == NAMES
    assert [float(row["correlation"]) for row in outputs] == tree["correlation"].values.tolist()
    samples = tree["samples"].to_dataset()
    for i, row in enumerate(rows(tmp_path / "out/samples.csv")):
        k = int(LABEL[i])
        assert (row["index"], row["output"]) == (str(i), NAMES[k])
        assert float(row["prediction"]) == samples["prediction"].values[i, k]
        assert row["largest"] == NAMES[int(samples["prediction"].values[i].argmax())]
        assert float(row["residual"]) == samples["delta"].values[i, k]
        values = np.loadtxt((tmp_path / "out" / row["map"]).with_suffix(".csv"), delimiter=",")
        np.testing.assert_allclose(values, own(tree, i).sum(0), rtol=1e-6)
        seen = matplotlib.image.imread(tmp_path / "out" / row["map"])
        assert min(seen.shape[:2]) >= 128
        step = seen.shape[0] // 6
        redder = seen[step // 2 :: step, step // 2 :: step, 0] - seen[step // 2 :: step, step // 2 :: step, 2]
        clear = np.abs(values) > 0.05 * np.abs(values).max()
        assert (np.sign(redder) == np.sign(values))[clear].all()
        picture = matplotlib.image.imread(tmp_path / "out" / row["image"])[step // 2 :: step, step // 2 :: step, :3]
        image = X[i].numpy()
        np.testing.assert_allclose(picture, np.moveaxis((image - image.min()) / np.ptp(image), 0, -1), atol=2.5e-3)
    maps = np.loadtxt(tmp_path / "out/maps/x/igc-0002.csv", delimiter=",")
    np.testing.assert_allclose(maps, tree["x/igc"].values[2].sum(0), rtol=1e-12)


def test_fiftyone(tree: xr.DataTree, tmp_path: Path) -> None:
    """As ``FiftyOneDataset`` in its JSON form, and as ``FiftyOneImageClassificationDataset``."""
    tree.igc.export("fiftyone", tmp_path, data=(X, Y))
    assert "version" not in json.loads((tmp_path / "metadata.json").read_text())  # it would be one of a data base
    samples = json.loads((tmp_path / "samples.json").read_text())["samples"]
    simple = json.loads((tmp_path / "labels.json").read_text())
    assert simple["classes"] == NAMES
    for i, sample in enumerate(samples):
        assert sample["target"] == {"_cls": "Classification", "label": NAMES[int(LABEL[i])]}
        assert simple["labels"][Path(sample["filepath"]).stem]["label"] == NAMES[int(LABEL[i])]
        assert (tmp_path / sample["filepath"]).read_bytes().startswith(b"\x89PNG")
        heat = sample["attribution"]
        values = np.load(io.BytesIO(zlib.decompress(base64.b64decode(heat["map"]["$binary"]["base64"]))))
        np.testing.assert_allclose(values, own(tree, i).sum(0), rtol=1e-5, atol=1e-8)
        assert heat["range"] == [-np.abs(values).max(), np.abs(values).max()]
        assert sample["tags"] == []


def test_virelay(tree: xr.DataTree, tmp_path: Path) -> None:
    """The project names its files; both databases number samples alike, and labels by their place in the label map."""
    path = tree.igc.export("virelay", tmp_path, data=(X, Y))
    project = json.loads(path.read_text())["project"]
    label_map = json.loads((tmp_path / project["label_map"]).read_text())
    assert project["attributions"]["attribution_strategy"] == "true_label"
    with h5py.File(tmp_path / project["dataset"]["path"]) as inputs:
        images = X.numpy()
        low, high = images.min((1, 2, 3), keepdims=True), images.max((1, 2, 3), keepdims=True)
        np.testing.assert_allclose(inputs["data"], (images - low) / (high - low), atol=2.5e-3)
        assert [label_map[k]["name"] for k in inputs["label"]] == [NAMES[int(k)] for k in LABEL]
    (source,) = project["attributions"]["sources"]
    with h5py.File(tmp_path / source) as made:
        assert made["index"][:].tolist() == [*range(N)]
        assert made["attribution"].dtype == made["prediction"].dtype == np.float32
        np.testing.assert_array_equal(made["attribution"], [own(tree, i) for i in range(N)])
        names = [entry["name"] for entry in label_map]
        np.testing.assert_array_equal(
            made["prediction"], tree["samples/prediction"].values[:, [NAMES.index(name) for name in names]]
        )
        assert made["label"].dtype == np.uint16  # the one that its reader takes for an index


def test_samples_that_are_not_at_hand(tree: xr.DataTree, tmp_path: Path) -> None:
    """They are left out, marked, or grey; never another picture, and never the wrong one."""
    images = X.numpy().copy()
    images[1] = np.nan

    def fetch(index: list[int]) -> list[np.ndarray | None]:
        return [None if i == 2 else images[i] for i in index]

    for to in ("folder", "fiftyone", "virelay"):
        write_export(tree, to, tmp_path / to, fetch)
    assert [i for i, row in enumerate(rows(tmp_path / "folder/samples.csv")) if not row["image"]] == [1, 2]
    tags = [each["tags"] for each in json.loads((tmp_path / "fiftyone/samples.json").read_text())["samples"]]
    assert [i for i, tag in enumerate(tags) if tag == ["map only"]] == [1, 2]
    with h5py.File(tmp_path / "virelay/inputs.h5") as inputs:
        assert [i for i in range(N) if (inputs["data"][i] == 0.5).all()] == [1, 2]


def test_what_is_refused(tree: xr.DataTree, tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full/file").write_text("theirs")
    with pytest.raises(ConfigError, match="has files already"):
        write_export(tree, "folder", tmp_path / "full")
    with pytest.raises(ConfigError, match="an export to word: choose one of fiftyone, folder, virelay"):
        write_export(tree, "word", tmp_path / "new")
    alone = tree.copy()
    del alone["samples"]
    with pytest.raises(ConfigError, match=r"keeps no attributions of samples: run with store.samples=true"):
        write_export(alone, "virelay", tmp_path / "new")
    assert not (tmp_path / "new").exists()
    write_export(alone, "folder", tmp_path / "new")
    assert not (tmp_path / "new/samples.csv").exists()
