"""The names that families know: `igc-dist models FAMILY PATTERN`."""

from __future__ import annotations

from collections.abc import Callable

from igc_dist.model.families.clip import names as of_clip
from igc_dist.model.families.library import matching
from igc_dist.model.families.timm import names as of_timm
from igc_dist.model.families.torchvision import names as of_torchvision
from igc_dist.records import ConfigError, near

FAMILIES: dict[str, Callable[[], list[str]] | str] = {
    "timm": of_timm,
    "torchvision": of_torchvision,
    "clip": of_clip,
    "transformers": "takes a local folder as model.name, as save_pretrained writes it",
    "lightning_checkpoint": "takes a module of your own (model.build.module) and a checkpoint (model.weights)",
    "module": "takes a module of your own (model.build.module)",
}
"""Each family with the function that lists its names, or what it takes instead of one."""


def listed(family: str, pattern: str = "*") -> list[str]:
    """The names of a family that match. Raises `ConfigError` for a family that is unknown or has no names."""
    if family not in FAMILIES:
        raise ConfigError(
            f"model={family} is no family{near(family, [*FAMILIES])}: choose one of {', '.join(FAMILIES)}"
        )
    names = FAMILIES[family]
    if isinstance(names, str):
        raise ConfigError(f"model={family} has no list of names: it {names}")
    return matching(names(), pattern)
