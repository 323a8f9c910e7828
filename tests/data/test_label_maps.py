"""Label maps of samples: read with the photographs, resized as they are, and sums over their segments in a run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torch.utils.data import Subset, TensorDataset

import igc_dist
from igc_dist.config import from_config
from igc_dist.data import Decoding, ImageFolder, Source, maps_in
from igc_dist.data.label_maps import named
from igc_dist.features import Masks
from igc_dist.records import ConfigError, DataError, StoreError
from igc_dist.upkeep import merge
from tests.config.test_conf import composed

SIDE, N = 6, 12
NAMES = ("background", "eye", "mark")


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Photographs with label maps of three kinds of file; "mark" is in the even ones only."""
    draw, rows = np.random.default_rng(0), ["path,label,mask,site"]
    (tmp_path / "photos").mkdir()
    for n in range(N):
        Image.fromarray(draw.integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)).save(tmp_path / f"photos/{n}.png")
        labels, kind = draw.integers(0, 3 - n % 2, (SIDE, SIDE), dtype=np.uint8), ("png", "npz", "npy")[n % 3]
        mask = tmp_path / f"photos/mask{n}.{kind}"
        if kind == "png":
            Image.fromarray(labels).save(mask)
        else:
            np.savez(mask, labels) if kind == "npz" else np.save(mask, labels)
        rows.append(f"{n}.png,{n % 3 != 1:d},mask{n}.{kind},{'ab'[n % 2]}")
    (tmp_path / "table.csv").write_text("\n".join(rows))
    return tmp_path / "photos"


def folder(photos: Path, **settings: Any) -> ImageFolder:
    chosen = {"masks": "mask", "mask_names": NAMES, "size": SIDE, **settings}
    return ImageFolder(photos, photos.parent / "table.csv", **chosen)


class Linear(nn.Module):
    """Two outputs, linear in the pixels."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.weight = nn.Parameter(torch.randn(2, 3, SIDE, SIDE, generator=generator, dtype=torch.float64))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.einsum("jchw,nchw->nj", self.weight, x.double())


def expected(data: ImageFolder) -> np.ndarray:
    """IGC of each segment, (J, Q), from the equations: ``a_nq = sum_(p in q) w_p x_p`` about a baseline of 0."""
    w = Linear().weight.detach().numpy()
    x, maps = (np.stack([read(n) for n in range(N)]).astype(float) for read in (data.image, data.label_map))
    y = np.eye(2)[data.y.numpy()]
    found = np.zeros((2, 3))
    for j in range(2):
        pixels = (w[j] * x).sum(1)
        for q in range(3):
            a = np.array([pixels[n][maps[n] == q].sum() for n in range(N)])
            covariance = np.mean((a - a.mean()) * (y[:, j] - y[:, j].mean()))
            found[j, q] = covariance / (y[:, j].std() * pixels.sum((1, 2)).std())
    return found


def test_a_linear_model_has_known_sums_over_segments(photos: Path) -> None:
    """To the equations; segments add up to the correlation, and areas are those of the maps, by slice as well."""
    data = folder(photos)
    settings = {"n_folds": 3, "target": "one_hot", "slices": "site", "precision": "64-true"}
    found = igc_dist.attribute(Linear(), data, reduce=Masks(), **settings)
    np.testing.assert_allclose(found["x/igc"], expected(data), rtol=1e-6)
    np.testing.assert_allclose(found["igc_sum"], found["correlation"], rtol=1e-12)
    assert [*found["x/igc"].coords["segment"].values] == [*found["slices/x/igc"].coords["segment"].values] == [*NAMES]
    maps = np.stack([data.label_map(n) for n in range(N)])
    area = np.stack([(maps == q).mean((1, 2)) for q in range(3)], 1)
    np.testing.assert_allclose(found["x/area"], np.stack([area.mean(0)] * 2), rtol=1e-12)
    np.testing.assert_allclose(found["slices/x/area"].isel(output=0), [area[::2].mean(0), area[1::2].mean(0)])
    np.testing.assert_allclose(found["x/igc_per_area"], expected(data) / area.mean(0), rtol=1e-6)
    absent = found["slices/x"].sel(slice="b", segment="mark")
    assert not absent["area"].any()
    assert not absent["igc"].any()
    assert absent["igc_per_area"].isnull().all()


@pytest.mark.parametrize("workers", [0, 2])
def test_the_command_line_takes_masks_of_a_table(photos: Path, workers: int) -> None:
    """The same maps as in Python, whoever reads them."""
    words = (
        "data=image_folder", f"data.root={photos}", f"data.table={photos.parent}/table.csv", "data.size=6",
        f"data.num_workers={workers}", "data.masks=mask", f"data.mask_names=[{','.join(NAMES)}]", "reduce=masks",
    )  # fmt: skip
    job = from_config(composed(*words), None)
    with job.source.opened():
        batches = list(job.source.batches(range(N), 5))
    read = torch.cat([batch.segments for batch in batches]).numpy()
    np.testing.assert_array_equal(read, [folder(photos).label_map(n) for n in range(N)])
    assert job.source.look([0]).segments is None  # baselines and first looks need none
    assert [statistic.name for statistic in job.statistics] == ["correlation", "area"]


def test_maps_are_resized_and_cut_as_their_images_are(tmp_path: Path) -> None:
    """A map whose labels are the red of its image stays so, by nearest pixels; turned photographs are seen upright."""
    draw = np.random.default_rng(1)
    labels = draw.integers(0, 200, (9, 14), dtype=np.uint8)
    Image.fromarray(np.stack([labels] * 3, 2)).save(tmp_path / "image.png")
    Image.fromarray(labels).save(tmp_path / "map.png")
    for settings in ({"size": 4}, {"size": (4, 7), "resize": 8}, {"size": (5, 3), "resize": "squash"}, {"size": None}):
        decoding = Decoding(**settings, interpolation="nearest")
        image = decoding(tmp_path / "image.png")[0].numpy()
        found = decoding.labels(tmp_path / "map.png", tmp_path / "image.png")
        np.testing.assert_array_equal(found, np.rint(image * 255))
    turned = Image.Exif()
    turned[0x0112] = 6
    Image.new("RGB", (14, 9)).save(tmp_path / "turned.jpg", exif=turned)
    with pytest.raises(DataError, match=r"14 x 9 pixels.*9 x 14 as it is seen, turned"):
        Decoding(4).labels(tmp_path / "map.png", tmp_path / "turned.jpg")
    Image.fromarray(labels.T).save(tmp_path / "upright.png")
    assert Decoding(4).labels(tmp_path / "upright.png", tmp_path / "turned.jpg").shape == (4, 4)


def test_a_map_that_does_not_fit_is_refused_with_its_path(photos: Path) -> None:
    """Of another size, in colours, of a label without a name; with skip the sample is left out and listed."""
    Image.new("L", (SIDE + 1, SIDE)).save(photos / "mask6.png")
    settings = {"n_folds": 3, "target": "one_hot", "reduce": Masks()}
    with pytest.raises(DataError, match=r"sample 6 .*mask6\.png has 7 x 6 pixels, and its image .*6\.png has 6 x 6"):
        igc_dist.attribute(Linear(), folder(photos), **settings)
    found = igc_dist.attribute(Linear(), folder(photos), on_bad_sample="skip", **settings)
    assert [entry["index"] for entry in found.attrs["skipped"]] == [6]
    assert found["n"].values.tolist() == [N - 1] * 2
    for image, message in (
        (Image.new("RGB", (SIDE, SIDE)), r"mask6\.png has shape \(6, 6, 3\).*in one channel"),
        (Image.new("L", (SIDE, SIDE), 7), r"the label 7 in 36 pixels, and segments have the labels 0, 1, 2"),
    ):
        image.save(photos / "mask6.png")
        with pytest.raises(DataError, match=message):
            igc_dist.attribute(Linear(), folder(photos), **settings)
    (photos / "mask0.png").unlink()
    with pytest.raises(DataError, match=r"1 of 12 images have no label map, the first is .*0\.png with 'mask0\.png'"):
        folder(photos)
    with pytest.raises(DataError, match=r"data\.masks='masc' is no column of the table \(did you mean 'mask'\?\)"):
        folder(photos, masks="masc")
    with pytest.raises(ConfigError, match=r"data\.masks without data\.mask_names"):
        folder(photos, mask_names=None)


def test_a_map_that_changes_is_another_data_set(photos: Path) -> None:
    """Files of maps and names of segments are part of the identity."""
    identities = [folder(photos).identity, folder(photos, mask_names={0: "a", 1: "b", 2: "c"}).identity]
    np.save(photos / "mask2.npy", np.zeros((SIDE, SIDE), np.uint8))
    identities.append(folder(photos).identity)
    assert len({str(identity) for identity in identities}) == 3


def test_masks_are_an_array_a_file_or_an_attribute(tmp_path: Path) -> None:
    """Of all samples, or of a part of a data set that has them; labels may have names out of their order."""
    maps = np.arange(5 * 4).reshape(5, 2, 2) % 3
    data = TensorDataset(torch.zeros(5, 1, 2, 2), torch.zeros(5))
    data.shown = maps
    np.savez(tmp_path / "maps.npz", maps)
    for masks in (maps, str(tmp_path / "maps.npz"), "shown"):
        found = Masks(masks=masks).of(data)
        assert found.names == ("segment 0", "segment 1", "segment 2")
        assert found(3).tolist() == maps[3].tolist()
    assert Masks(masks="shown").of(Subset(data, [4, 1]))(0).tolist() == maps[4].tolist()
    source = Source(data).labelled(maps_in(data, maps, {2: "two", 0: "none", 1: "one"}))
    assert torch.equal(source.part([2, 4]).fetch([1], maps=True).segments[0], torch.tensor([1, 2, 0])[maps[4]])


def test_stores_with_maps_of_their_own_are_merged(tmp_path: Path) -> None:
    """Maps are of the data, segments of the question: parts give the whole, and other names are another question."""
    x, y, maps = torch.rand(20, 1, 4, 4), torch.rand(20, 1), np.arange(320).reshape(20, 4, 4) % 3
    net = nn.Sequential(nn.Flatten(), nn.Linear(16, 1))

    def run(name: str, rows: slice, names: tuple[str, ...] = NAMES) -> Path:
        path = tmp_path / f"{name}.zarr"
        igc_dist.attribute(net, (x[rows], y[rows]), reduce=Masks(names, maps[rows]), n_folds=4, store=path)
        return path

    parts = [run("a", slice(0, 12)), run("b", slice(12, 20))]
    merge(parts, tmp_path / "both.zarr")
    both, whole = igc_dist.open(tmp_path / "both.zarr"), igc_dist.open(run("whole", slice(None)))
    for name in ("igc", "area", "igc_per_area"):
        np.testing.assert_allclose(both[f"x/{name}"], whole[f"x/{name}"], rtol=1e-5)
    assert [*both["x/igc"].coords["segment"].values] == [*NAMES]
    with pytest.raises(StoreError, match=r"features\.reduce.*names"):
        merge([parts[0], run("c", slice(12, 20), ("sky", "eye", "mark"))], tmp_path / "no.zarr")
    with pytest.raises(StoreError, match=r"data\.label_maps"):
        igc_dist.attribute(net, (x[:12], y[:12]), reduce=Masks(NAMES, maps[8:20]), n_folds=4, store=parts[0])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda data: Masks().of(data), r"TensorDataset has no label maps: say where they are .*data\.masks"),
        (lambda data: Masks(masks="shown").of(data), "reduce.masks='shown' is no .npy or .npz file, and the data set"),
        (lambda data: Masks(masks=np.zeros((4, 2, 2), int)).of(data), r"shape \(4, 2, 2\), expected integers .*\(5, "),
        (lambda data: Masks(masks=np.zeros((5, 2, 2))).of(data), "type float64 and shape"),
        (lambda data: named(["a", "a"]), "'a' more than once"),
        (lambda data: named({"eye": 1}), "names in the order of their labels, or label: name"),
        (lambda data: named({1: "eye", 2: "eye"}), "a name of its own"),
    ],
)
def test_refusals(make: Any, message: str) -> None:
    with pytest.raises((ConfigError, DataError), match=message):
        make(TensorDataset(torch.zeros(5, 1, 2, 2), torch.zeros(5)))


def test_maps_of_another_size_than_the_features_are_refused() -> None:
    data = TensorDataset(torch.rand(6, 1, 4, 4), torch.rand(6, 1))
    net = nn.Sequential(nn.Flatten(), nn.Linear(16, 1))
    with pytest.raises(DataError, match="label maps of 2 x 2 pixels, and features of 4 x 4"):
        igc_dist.attribute(net, data, reduce=Masks(masks=np.zeros((6, 2, 2), int)), n_folds=2)
