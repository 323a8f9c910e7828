"""The family `transformers`: image classifiers from a local folder in the format of Hugging Face."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from igc_dist.model.families.library import imported
from igc_dist.model.vision import Intake, Vision, last_linear
from igc_dist.records import ConfigError, ModelError
from igc_dist.targets import class_names

RESAMPLING = {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic"}
"""Numbers of pillow's filters, as processors write them."""

PROCESSORS = ("preprocessor_config.json", "processor_config.json")

NOTES = (
    "attention is torch's (attn_implementation=sdpa); forward mode takes its plain form. Activation checkpointing "
    "(gradient_checkpointing) is off, as it is reentrant in many of these models",
)


def transformers(
    name: str,
    weights: str | None = None,
    classes: Sequence[str] | str | Path | None = None,
) -> Vision:
    """An image classifier of `transformers` from the folder `name`: config.json, the processor's JSON and safetensors.

    Nothing is fetched, and no code of the folder runs. `weights`: another file of weights; None: those of the folder.
    `classes`: None is the config's `id2label`. Raises `ConfigError` for a folder without the files, and `ModelError`
    for weights that do not fit.
    """
    folder = folder_of(name, "transformers")
    library = imported("transformers", "transformers")
    net = from_folder(library.AutoModelForImageClassification, folder)
    labels = getattr(net.config, "id2label", None) or {}
    named = class_names(classes)
    if named is None and not all(str(label) == f"LABEL_{k}" for k, label in labels.items()):
        named = [str(labels[k]) for k in sorted(labels)]
    identity = {"family": "transformers", "name": type(net).__name__, "config": net.config.to_diff_dict()}
    made = Vision(net, intake_of(folder), identity, named, last_linear(net), NOTES)
    if weights is not None:
        made.load(str(weights))
    return made


def folder_of(name: str, family: str) -> Path:
    """The local folder. Raises `ConfigError`."""
    folder = Path(os.path.expanduser(name))
    if not (folder / "config.json").is_file():
        raise ConfigError(
            f"model.name={name!r}: model={family} takes a local folder with config.json, "
            f"{PROCESSORS[0]} and model.safetensors (as save_pretrained writes it); nothing is downloaded"
        )
    return folder


def from_folder(kind: Any, folder: Path) -> Any:
    """A model with all of its weights. Raises `ModelError` if the folder has those of another."""
    try:
        net, found = kind.from_pretrained(
            str(folder),
            local_files_only=True,
            use_safetensors=True,
            trust_remote_code=False,
            output_loading_info=True,
        )
    except Exception as error:
        raise ModelError(
            f"the model in {folder} does not load ({type(error).__name__}: {str(error).splitlines()[0]}): it needs "
            "config.json of a known architecture and model.safetensors"
        ) from error
    lost = sorted(found["missing_keys"]) + [str(each[0]) for each in found["mismatched_keys"]]
    if lost:
        raise ModelError(
            f"the weights in {folder} are not those of {type(net).__name__}: {len(lost)} tensors are missing or of "
            f"another shape, such as {', '.join(lost[:5])}"
        )
    return net.eval()


def intake_of(folder: Path) -> Intake:
    """What the processor's JSON says of resizing, cropping, rescaling and normalising; nothing, if there is none."""
    for name in PROCESSORS:
        if (folder / name).is_file():
            try:
                said = json.loads((folder / name).read_text(encoding="utf-8"))
            except (OSError, ValueError) as error:
                raise ConfigError(f"{folder / name} cannot be read: {error}") from error
            return intake(said.get("image_processor", said))
    return Intake()


def intake(said: Mapping[str, Any]) -> Intake:
    """An `Intake` from the fields of an image processor.

    Its pixels are ``255 x`` for our x; ``rescale_factor r`` and ``rescale_offset`` make ``255 r x - o`` of them, and
    ``(255 r x - o - m) / s = (x - (m + o) / 255 r) / (s / 255 r)``.
    """
    rescaled = said.get("do_rescale", True)
    scale = 255 * float(said.get("rescale_factor", 1 / 255)) if rescaled else 255.0
    offset = 1.0 if rescaled and said.get("rescale_offset") else 0.0
    normal = said.get("do_normalize", True)
    mean = said.get("image_mean", [0.5] * 3) if normal else [0.0] * 3
    std = said.get("image_std", [0.5] * 3) if normal else [1.0] * 3
    size, resize = _cut(said)
    return Intake(
        size=size,
        resize=resize,
        interpolation=RESAMPLING.get(said.get("resample", 2), "bicubic"),
        mean=[(float(m) + offset) / scale for m in mean],
        std=[float(s) / scale for s in std],
    )


def _cut(said: Mapping[str, Any]) -> tuple[tuple[int, int] | None, int | str | None]:
    """The size of the image, and the shorter side before the cut or "squash"."""
    size, crop = said.get("size"), said.get("crop_size")
    both, shortest = _sides(size), size.get("shortest_edge") if isinstance(size, Mapping) else None
    if said.get("do_center_crop") and crop is not None:
        return _sides(crop), shortest or "squash"
    if "crop_pct" in said and shortest is not None and shortest < 384:  # as ConvNeXt does
        return (shortest, shortest), math.floor(shortest / float(said["crop_pct"] or 224 / 256))
    return both, "squash"


def _sides(size: Any) -> tuple[int, int] | None:
    if isinstance(size, Mapping):
        side = size.get("shortest_edge")
        height, width = size.get("height", side), size.get("width", side)
        return None if height is None or width is None else (int(height), int(width))
    return None if size is None else (int(size), int(size))
