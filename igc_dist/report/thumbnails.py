"""Small pictures of samples that a run keeps beside its store, so that a page can show them when the data is elsewhere.

In ``thumbnails`` beside the page: ``INDEX.jpg`` of the samples whose attributions are kept, ``mean-PLACE.jpg`` of the
samples of an output, and ``about.json``, which says of which run they are.
"""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib.image
import numpy as np
import xarray as xr

from igc_dist import files
from igc_dist.report.contents import Floats, labels
from igc_dist.report.pictures import as_bytes
from igc_dist.report.rows import Fetch, fetched

SIDE = 224
"""The longest side of a thumbnail in pixels; larger pictures are averaged over squares."""
LEAST = 96
"""The shorter side at least, by repeating pixels: JPEG would blur a picture of 8 x 8 into its neighbours."""
QUALITY = 85
"""Of the JPEG: a photograph of 224 x 224 takes about 12 kB."""
READ = 512
"""The largest number of samples that are read for all means together, the same number of each output."""
JPEG = b"\xff\xd8\xff"


@dataclass(frozen=True)
class Mean:
    """The mean (H, W, 3) of `n` samples of an output, among the `of` whose target lies above its mean."""

    image: Floats
    n: int
    of: int


@dataclass(frozen=True)
class Thumbnails:
    """The pictures in a folder; none where another run has made them. `means`: by the name of the output."""

    folder: Path
    means: dict[str, Mean]
    known: bool

    @classmethod
    def beside(cls, tree: xr.DataTree, beside: str | Path) -> Thumbnails:
        """Those of the store `tree`, whose page lies in `beside`."""
        folder = Path(beside) / "thumbnails"
        try:
            about = json.loads(files.read(folder / "about.json"))
            known = about["spec_hash"] == tree.attrs["spec_hash"]
            listed = about["means"] if known else []
            found = {
                str(name): Mean(image, int(n), int(of))
                for name, place, n, of in listed
                if (image := loaded(folder / f"mean-{int(place):04d}.jpg")) is not None
            }
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            return cls(folder, {}, False)
        return cls(folder, found, known)

    def fetch(self, indices: list[int]) -> list[np.ndarray | None]:
        """The pictures of samples, (3, H, W) from 0 to 1; None where there is none."""
        found = [loaded(self.folder / f"{i}.jpg") if self.known else None for i in indices]
        return [None if image is None else np.moveaxis(image, -1, 0) for image in found]


def keep_thumbnails(
    tree: xr.DataTree, beside: str | Path, fetch: Fetch, most: int, max_outputs: int, named: Sequence[int] = ()
) -> None:
    """Write the pictures of at most `most` samples, and the means of at most `max_outputs` outputs.

    The samples are those that are `named`, then the first ones whose attributions are kept.

    Data that is no picture, (H, W), or (C, H, W) with one or three channels, has none. Raises `ConfigError` for links,
    OSError for what cannot be written.
    """
    forget_thumbnails(beside)
    folder, written = files.folder(files.folder(beside) / "thumbnails"), 0
    first = np.asarray(tree["samples/index"].values)[:most].tolist() if "samples" in tree.children else []
    index = [*dict.fromkeys([*named, *first])][:most]
    for i, image in zip(index, fetched(fetch, index), strict=True):
        if image is not None and pictured(image):
            files.write(folder / f"{i}.jpg", jpeg(image))
            written += 1
    means: list[list[Any]] = []
    for place, (name, mean) in enumerate(means_of(tree, fetch, max_outputs).items()):
        files.write(folder / f"mean-{place:04d}.jpg", jpeg(np.moveaxis(mean.image, -1, 0)))
        means.append([name, place, mean.n, mean.of])
    about = {"spec_hash": tree.attrs.get("spec_hash"), "samples": written, "means": means}
    files.write(folder / "about.json", json.dumps(about).encode())


def forget_thumbnails(beside: str | Path) -> None:
    """Remove what an earlier run has kept. Raises `ConfigError` for links, OSError for what cannot be removed."""
    files.refuse_links(beside, "thumbnails")
    for name in ("about.json", "*.jpg"):
        for old in (Path(beside) / "thumbnails").glob(name):
            old.unlink()


def means_of(tree: xr.DataTree, fetch: Fetch, max_outputs: int) -> dict[str, Mean]:
    """The means of samples whose target lies above its mean, for labels those of the class, by the name of the output.

    Some of them are read, at even distances. Empty where the data is no picture, or pass 1 has kept no weights: these
    have the sign of target less mean.
    """
    if "known" not in tree.children or "weight" not in tree["known"].data_vars:
        return {}
    known, names = tree["known"].to_dataset(), labels(tree)[:max_outputs]
    index, found = known["index"].values, dict[str, Mean]()
    for place, name in enumerate(names):
        above = index[known["weight"].isel(output=place).values > 0]
        share = min(max(READ // len(names), 1), above.size)
        if not share:
            continue
        chosen = above[np.linspace(0, above.size - 1, share).astype(int)].tolist()
        total, n = np.zeros(()), 0  # a sum: 512 photographs of 224 x 224 are 617 MB
        for image in fetched(fetch, chosen):
            if image is not None and pictured(image):
                total, n = total + image, n + 1
        if not n:
            break
        found[name] = Mean(smaller(as_bytes(total / n)) / 255, n, int(above.size))
    return found


def pictured(image: np.ndarray) -> bool:
    """Whether a sample can be drawn as a picture, and could be read."""
    shape = image.shape
    flat = image.ndim == 2 or (image.ndim == 3 and shape[0] in (1, 3))
    return flat and min(shape[-2:]) > 3 and bool(np.isfinite(image).all())


def smaller(pixels: np.ndarray) -> np.ndarray:
    """Pixels (H, W, 3) of bytes, of at most `SIDE` on a side: averages of squares."""
    if (times := -(-max(pixels.shape[:2]) // SIDE)) == 1:
        return pixels
    height, width = (side // times for side in pixels.shape[:2])
    cut = pixels[: height * times, : width * times].reshape(height, times, width, times, 3)
    return np.rint(cut.mean((1, 3))).astype(np.uint8)


def jpeg(image: np.ndarray) -> bytes:
    pixels = smaller(as_bytes(image))
    times = -(-LEAST // min(pixels.shape[:2]))
    held, large = io.BytesIO(), np.ascontiguousarray(pixels.repeat(times, 0).repeat(times, 1))
    matplotlib.image.imsave(held, large, format="jpeg", pil_kwargs={"quality": QUALITY})
    return held.getvalue()


def loaded(path: Path) -> Floats | None:
    """A JPEG as (H, W, 3) from 0 to 1; None for what is no JPEG. Other formats are not decoded: some run programs."""
    try:
        found = files.read(path)
        if not found.startswith(JPEG):
            return None
        image = np.asarray(matplotlib.image.imread(io.BytesIO(found), format="jpeg"), np.float64) / 255
    except Exception:  # Pillow has errors of its own, also for pictures of too many pixels
        return None
    return image if image.ndim == 3 and image.shape[-1] == 3 else None
