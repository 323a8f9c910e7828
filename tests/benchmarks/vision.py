"""What an audit of photographs costs beside the model: decoding, waiting for data, and reducing attributions."""

from __future__ import annotations

import multiprocessing
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from skimage.data import astronaut, cat, coffee, rocket

import igc_dist
from igc_dist.data import ImageFolder, ensure
from igc_dist.features import Bands, Chain, Masks, Patches
from tests.benchmarks.measure import Report, compared, ratio, report, seconds
from tests.benchmarks.models import images, resnet

PHOTOS, SIDE, SIZE, CLASSES = 2000, 500, 64, 10


def run() -> Iterator[Report]:
    """2,000 JPEGs of 500 px: 0.9 of the throughput of pillow alone, and less than 10 % of a run spent waiting.

    Masks, bands and chains: at most 5 % on top of the walk. A layer: at most 1.1 times what is above it.
    """
    with tempfile.TemporaryDirectory() as folder:
        paths = photographs(Path(folder))
        yield decoding(Path(folder), paths)
        yield waiting(Path(folder))
    yield from reducers()
    yield layer()


def photographs(folder: Path) -> list[str]:
    """Crops of scikit-image's photographs, in class folders."""
    draw, made = np.random.default_rng(0), []
    whole = [Image.fromarray(image) for image in (astronaut(), cat(), coffee(), rocket())]
    for n in range(PHOTOS):
        photo = whole[n % len(whole)]
        left, top = (int(draw.integers(0, side // 3)) for side in photo.size)
        cut = photo.crop((left, top, photo.size[0], photo.size[1])).resize((SIDE, SIDE * 3 // 4))
        file = folder / str(n % CLASSES) / f"{n:04}.jpg"
        file.parent.mkdir(exist_ok=True)
        cut.save(file, quality=90)
        made.append(str(file))
    return made


def bare(path: str) -> int:
    """What pillow alone needs for one image of the size that a model takes."""
    with Image.open(path) as opened:
        image = opened.convert("RGB").resize((SIZE * 4 // 3, SIZE), Image.Resampling.BICUBIC)
        left = (image.size[0] - SIZE) // 2
        return int(np.asarray(image.crop((left, 0, left + SIZE, SIZE)), np.float32).size)


def decoding(folder: Path, paths: list[str], rounds: int = 3) -> Report:
    """Images a second with two workers, over a loop of pillow in two processes. Both are started before."""
    source = ensure(ImageFolder(folder, size=SIZE), num_workers=2)
    with source.opened(), multiprocessing.get_context("fork").Pool(2) as pool:

        def ours() -> None:
            assert sum(len(batch.index) for batch in source.batches(range(PHOTOS), 32)) == PHOTOS

        def theirs() -> None:
            assert len(pool.map(bare, paths, chunksize=32)) == PHOTOS

        ours(), theirs()
        found = ratio([(seconds(theirs), seconds(ours)) for _ in range(rounds)])
    walls = found["ratios"]["wall"]  # the work is in other processes, whose CPU time is not this one's
    rate = PHOTOS / min(pair[1] for pair in found["seconds"])
    return report("vision/decoding", walls["minima"], at_least=0.9, a_second=round(rate), seconds=found["seconds"])


def waiting(folder: Path) -> Report:
    """The part of a run's time that the walk waits for images, with a small net and two workers."""
    source = ensure(ImageFolder(folder, size=SIZE), num_workers=2)
    with tempfile.TemporaryDirectory() as store:
        net = resnet(CLASSES)
        wall, _ = seconds(
            lambda: igc_dist.attribute(
                net, source, target="one_hot", n_steps=2, n_folds=8, store=Path(store, "s.zarr"), threads=1
            )
        )
    return report("vision/waiting", source.waited / wall, at_most=0.1, seconds=round(wall, 1), samples=PHOTOS)


def reducers(rounds: int = 5) -> Iterator[Report]:
    """A run that reduces its attributions over one that keeps them."""
    task = images(32)
    maps = np.arange(64)[:, None] // 16 + np.zeros((32, 1, 64), np.int64)

    def attributed(reduce: Any) -> Callable[[], Any]:
        return lambda: igc_dist.attribute(task.module, (task.x, task.y), n_steps=8, n_folds=2, reduce=reduce, threads=1)

    kinds = {"masks": Masks(["a", "b", "c", "d"], maps), "bands": Bands(), "chain": Chain(["channels", Patches(8)])}
    for name, reduce in kinds.items():
        attributed(reduce)()
        found = compared(attributed(reduce), attributed(None), rounds)
        yield report(f"vision/{name}", found.pop("value"), at_most=1.05, **found)


def layer(rounds: int = 5, at: int = 6) -> Report:
    """Attributions to the activations of a block, over those of the net above it to the same activations as data."""
    task = images(32)
    with torch.no_grad():
        z = task.module[:at](task.x)  # type: ignore[index]
    settings: dict[str, Any] = {"n_steps": 16, "n_folds": 2, "baseline": 0.0, "threads": 1}
    above = task.module[at:]  # type: ignore[index]

    def inside() -> Any:
        return igc_dist.attribute(task.module, (task.x, task.y), layer=str(at - 1), **settings)

    def alone() -> Any:
        return igc_dist.attribute(above, (z, task.y), **settings)

    inside(), alone()
    found = compared(inside, alone, rounds)
    return report("vision/layer", found.pop("value"), at_most=1.1, layer=f"block {at - 3} of 8", **found)
