"""The family `timm`: models of pytorch-image-models by name (Wightman 2019), with weights from a file."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from igc_dist.model.families.library import chosen, distinct, imported, plain
from igc_dist.model.vision import Intake, Vision, last_linear
from igc_dist.targets import class_names

NOTES = (
    "attention is fused where torch has a kernel (TIMM_FUSED_ATTN=0 switches that off); forward mode takes its plain "
    "form. Activation checkpointing (set_grad_checkpointing) is reentrant by default, which gradients to inputs do not "
    "allow: it is off here",
)


def timm(
    name: str,
    weights: str | None = None,
    classes: Sequence[str] | str | Path | None = None,
    **options: Any,
) -> Vision:
    """A model of timm. `options`: arguments of `timm.create_model` such as ``num_classes=10`` or ``img_size=384``.

    Size, crop, interpolation, mean and std are those of the model's `pretrained_cfg`. `classes`: the names of the
    outputs; None: those of ImageNet, where timm says that the model was trained on it. Raises `ConfigError` for an
    unknown name, with the near ones.
    """
    library = imported("timm", "timm")
    plain_name = chosen(name.partition(".")[0], library.list_models(), "timm")
    tagged = name if name == plain_name else chosen(name, library.list_models(pretrained=True), "timm")
    net = library.create_model(tagged, pretrained=False, **plain(options))
    config = net.pretrained_cfg
    named = class_names(classes)
    if named is None and "num_classes" not in options:
        named = _imagenet(library, net)
    layer = getattr(net, "get_classifier", lambda: None)()
    identity = {"family": "timm", "name": tagged, "options": dict(options)}
    last = last_linear(net, layer) or last_linear(net)
    made = Vision(net, _intake(config, options.get("img_size")), identity, named, last, NOTES, pending=True)
    if weights is not None:
        made.load(str(weights))
    return made


def names() -> list[str]:
    """All names, with the tags of their configurations."""
    return sorted({*imported("timm", "timm").list_models(), *imported("timm", "timm").list_models(pretrained=True)})


def _intake(config: Mapping[str, Any], size: Any) -> Intake:
    """What a `pretrained_cfg` says: the image is resized to ``size / crop_pct``, then its centre is cut out."""
    _, height, width = config["input_size"]
    if size is not None:
        height, width = (size, size) if isinstance(size, int) else size
    part = float(config.get("crop_pct") or 0.875)
    squash = config.get("crop_mode") == "squash"
    return Intake(
        size=(height, width),
        resize="squash" if squash else math.floor(min(height, width) / part),
        interpolation=str(config.get("interpolation") or "bicubic"),
        mean=config["mean"],
        std=config["std"],
    )


def _imagenet(library: Any, net: Any) -> list[str] | None:
    """The names of the classes of ImageNet, if the model has as many outputs."""
    subset = library.data.infer_imagenet_subset(net)
    if subset is None:
        return None
    info = library.data.ImageNetInfo(subset)
    found = [info.index_to_description(k) for k in range(info.num_classes())]
    return distinct(found)
