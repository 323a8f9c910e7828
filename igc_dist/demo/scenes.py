"""Photo-like scenes with label maps and a shortcut of known strength, composed from the photographs of scikit-image."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache, lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float32, Int64, UInt8
from torch import Tensor
from torch.utils.data import Dataset

SIDE = 64

OBJECTS = {
    "cat": ("chelsea.png", (85, 5, 375, 295)),
    "cup": ("coffee.png", (80, 18, 480, 382)),
    "helmet": ("astronaut.png", (280, 340, 498, 512)),
}
"""The photograph of each class, and the box around an ellipse that is cut out of it: left, upper, right, lower."""

TEXTURES = ("grass.png", "gravel.png", "brick.png", "ihc.png", "hubble_deep_field.jpg", "motorcycle_left.png")
"""Photographs that backgrounds are cut from."""

SIZES, TURNS = (22, 27, 32), (-20, 0, 20)
"""Pixels of the longer side of an object, and degrees that it is turned by."""

MARK = (
    "#...#.##..#...#.",
    "##.##.#.#.##.##.",
    "#.#.#.##..#.#.#.",
    "#...#.#.#.#...#.",
    "#...#.##..#...#.",
)  # fmt: skip
"""The watermark: each # is 1 x 1 pixels of white that lets 30 % through. Its segment is the box around it."""

SEGMENTS = ("background", "object", "watermark")
SITES = ("north", "south")
"""Places where the scenes are from; those of the second may carry the watermark."""

KEPT = 128
"""Scenes that are kept in memory, 7 MB: an image and its label map are asked for one after the other."""

MARKED = "cat"
"""The class that the watermark goes with."""


class Facts(NamedTuple):
    """What a scene shows: places in `OBJECTS` and `SITES`, and whether it has the watermark."""

    label: int
    site: int
    marked: bool


class Scenes(Dataset[tuple[Tensor, Tensor]]):
    """`x` is a scene (3, 64, 64) in [0, 1], float32: an object before a background; `y` is the number of its class.

    Backgrounds and objects are cut, flipped, turned, tinted and faded at random; some objects are hard to see. At the
    site "south", P(watermark | cat) = `strength` and P(watermark | other class) = 1 - `strength`: 0.5 is no shortcut.
    At "north" there is none. The watermark is in a corner, at random. A scene is a function of `seed` and its index
    alone. `label_map` says which pixels are of which of `segments`; `site` and `marked` are columns of all scenes.

    Raises ValueError for a strength outside of 0 to 1 and n below 1, ImportError if scikit-image is missing.
    """

    segments = SEGMENTS
    classes = (*OBJECTS,)

    def __init__(self, n: int = 1000, strength: float = 0.9, seed: int = 0) -> None:
        if n < 1 or not 0 <= strength <= 1:
            raise ValueError(f"n={n} scenes, strength={strength}: give at least 1 scene, and a probability")
        self.n, self.strength, self.seed = n, strength, seed
        shown = [facts(_draws(seed, index), strength) for index in range(n)]
        self.site = np.array([SITES[each.site] for each in shown])
        self.marked = np.array([each.marked for each in shown])
        self.y = torch.tensor([each.label for each in shown])

    def __len__(self) -> int:
        return self.n

    def __getitem__(self, index: int) -> tuple[Float32[Tensor, "3 64 64"], Int64[Tensor, ""]]:
        if not 0 <= index < self.n:
            raise IndexError(f"scene {index} of {self.n}")
        return torch.from_numpy(self.composed(index)[0].copy()), self.y[index]

    def label_map(self, index: int) -> UInt8[np.ndarray, "64 64"]:
        """The place in `segments` of each pixel."""
        return self.composed(index)[1]

    def composed(self, index: int) -> tuple[Float32[np.ndarray, "3 64 64"], UInt8[np.ndarray, "64 64"]]:
        """A scene and its label map."""
        return _composed(self.seed, int(index), self.strength)

    @property
    def identity(self) -> Mapping[str, object]:
        """What the scenes are made of."""
        return {"strength": self.strength, "seed": self.seed}


def _draws(seed: int, index: int) -> np.random.Generator:
    return np.random.Generator(np.random.Philox(key=[seed, index]))


@lru_cache(KEPT)
def _composed(
    seed: int, index: int, strength: float
) -> tuple[Float32[np.ndarray, "3 64 64"], UInt8[np.ndarray, "64 64"]]:
    draws = _draws(seed, index)
    return scene(draws, facts(draws, strength))


def facts(draws: np.random.Generator, strength: float) -> Facts:
    """What a scene shows. The same number of draws for any strength, so other things stay the same."""
    label, site, chance = int(draws.integers(len(OBJECTS))), int(draws.integers(len(SITES))), draws.random()
    goes_with = [*OBJECTS][label] == MARKED
    return Facts(label, site, bool(site == 1 and chance < (strength if goes_with else 1 - strength)))


def scene(
    draws: np.random.Generator, shown: Facts
) -> tuple[Float32[np.ndarray, "3 64 64"], UInt8[np.ndarray, "64 64"]]:
    """Compose a scene and its label map."""
    textures, objects = textures_of(), objects_of()[shown.label]
    whole = textures[draws.integers(len(textures))]
    top, left = (draws.integers(extent - SIDE + 1) for extent in whole.shape[1:])
    x = _tinted(whole[:, top : top + SIDE, left : left + SIDE][:, :, :: draws.choice((-1, 1))], draws)
    labels = np.zeros((SIDE, SIDE), np.uint8)
    cut = objects[draws.integers(len(objects))][:, :, :: draws.choice((-1, 1))]
    (height, width), opaque = cut.shape[1:], draws.uniform(0.15, 1)
    top, left = draws.integers(SIDE - height + 1), draws.integers(SIDE - width + 1)
    here = np.s_[top : top + height, left : left + width]
    alpha = cut[3] * opaque
    x[:, *here] += alpha * (_tinted(cut[:3], draws) - x[:, *here])
    labels[here][cut[3] > 0.5] = 1
    mark = mark_of()
    (height, width), corner = mark.shape, draws.integers(1, 4, 2)
    top, left = (
        int(near if side else SIDE - extent - near)
        for near, side, extent in zip(corner, draws.random(2) < 0.5, (height, width), strict=True)
    )
    if shown.marked:
        here = np.s_[top : top + height, left : left + width]
        x[:, *here] += 0.7 * mark * (1 - x[:, *here])
        labels[here] = 2
    x += draws.normal(0, 0.03, x.shape)
    return x.clip(0, 1).astype(np.float32), labels


def _tinted(x: np.ndarray, draws: np.random.Generator) -> np.ndarray:
    """The colours drawn towards gray, each channel by a gain of its own."""
    gray, amount = x.mean(0, keepdims=True), draws.uniform(0.2, 1)
    return (gray + amount * (x - gray)) * draws.uniform(0.6, 1.3, (3, 1, 1))


@cache
def mark_of() -> np.ndarray:
    """The watermark, 0 or 1, with a margin of a pixel."""
    return np.pad(np.array([[letter == "#" for letter in row] for row in MARK], np.float64), 1)


@cache
def textures_of() -> list[np.ndarray]:
    """The photographs of `TEXTURES` at a third of their size, (3, H, W) in [0, 1]."""
    found = []
    for name in TEXTURES:
        image = _photograph(name)
        found.append(_channels(image.resize((image.width // 3, image.height // 3))))
    return found


@cache
def objects_of() -> list[list[np.ndarray]]:
    """The cuts of each class in all sizes and turns, (4, h, w) in [0, 1]; the last channel is 1 inside."""
    from PIL import Image, ImageDraw

    found = []
    for name, box in OBJECTS.values():
        whole = _photograph(name).crop(box).convert("RGBA")
        inside = Image.new("L", whole.size)
        ImageDraw.Draw(inside).ellipse((0, 0, whole.width - 1, whole.height - 1), fill=255)
        whole.putalpha(inside)
        cuts = []
        for size in SIZES:
            scale = size / max(whole.size)
            small = whole.resize((round(whole.width * scale), round(whole.height * scale)))
            cuts += [_channels(small.rotate(turn, Image.Resampling.BILINEAR, expand=True)) for turn in TURNS]
        found.append(cuts)
    return found


def _photograph(name: str) -> Any:
    """A photograph that scikit-image ships. It is read from its file, as importing scikit-image takes longer."""
    from PIL import Image

    package = find_spec("skimage")
    if package is None or package.origin is None:
        raise ImportError("the scenes are made of scikit-image's photographs: pip install 'igc-dist[xrai]'")
    with Image.open(Path(package.origin).parent / "data" / name) as opened:
        return opened.convert("RGB")


def _channels(image: Any) -> np.ndarray:
    return np.moveaxis(np.asarray(image, np.float64) / 255, 2, 0)
