"""The family `torchvision`: classifiers of torchvision by name, with weights from a file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from igc_dist.model.families.library import chosen, distinct, imported, plain
from igc_dist.model.vision import Intake, Vision, last_linear
from igc_dist.targets import class_names

NOTES = ("attention of the ViTs has a fast path in eval mode, which forward mode cannot take: it takes the plain form",)


def torchvision(
    name: str,
    weights: str | None = None,
    classes: Sequence[str] | str | Path | None = None,
    recipe: str | None = None,
    **options: Any,
) -> Vision:
    """A classifier of torchvision. `options`: arguments of `torchvision.models.get_model`, such as ``num_classes=10``.

    Size, crop, interpolation, mean, std and class names are those of the published weights `recipe`
    (``IMAGENET1K_V2``; None: the default ones). `weights`: the file. Raises `ConfigError` for an unknown name.
    """
    models = imported("torchvision.models", "torchvision")
    name = chosen(name, names(), "torchvision")
    published = models.get_model_weights(name)
    known = [each.name for each in published]
    about = published.DEFAULT if recipe is None else published[chosen(recipe, known, f"{name} recipes")]
    net = models.get_model(name, weights=None, **plain(options))
    named = class_names(classes)
    if named is None and "num_classes" not in options:
        named = distinct(about.meta["categories"])
    identity = {"family": "torchvision", "name": name, "options": dict(options)}
    made = Vision(net, _intake(about.transforms()), identity, named, last_linear(net), NOTES, pending=True)
    if weights is not None:
        made.load(str(weights))
    return made


def names() -> list[str]:
    """All names of classifiers."""
    models = imported("torchvision.models", "torchvision")
    return sorted(models.list_models(module=models))


def _intake(recipe: Any) -> Intake:
    (side,), (resize,) = recipe.crop_size, recipe.resize_size
    return Intake(
        size=(side, side),
        resize=resize,
        interpolation=recipe.interpolation.value,
        mean=recipe.mean,
        std=recipe.std,
    )
