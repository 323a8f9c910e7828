"""Secrets of a configuration: what is a secret is learned while it is composed, and what Hydra writes is masked."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from copy import deepcopy
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf, open_dict, read_write
from omegaconf.errors import OmegaConfBaseException
from omegaconf.resolvers import oc

from igc_dist import files, secrets
from igc_dist.records import ConfigError

SUBDIR = "hydra.sweep.subdir"


@contextmanager
def discreet() -> Iterator[None]:
    """While it lasts, the values that `${oc.env:NAME}` gives are secrets, and YAML of configurations is masked.

    Hydra writes such YAML into multirun.yaml and .hydra, and prints it for --cfg.
    """
    plain = OmegaConf.to_yaml

    def masked(cfg: Any, *, resolve: bool = False, sort_keys: bool = False) -> str:
        learn(cfg)
        whole = cfg if OmegaConf.is_config(cfg) else OmegaConf.create(cfg)
        nodes = secrets.masked(OmegaConf.to_container(whole, resolve=resolve, enum_to_str=True))
        return plain(OmegaConf.create(nodes), sort_keys=sort_keys)

    def given(key: str, *default: Any) -> Any:
        value = oc.env(key, *default)
        secrets.given(key, value)
        return value

    OmegaConf.to_yaml = staticmethod(masked)  # type: ignore[method-assign]
    OmegaConf.register_new_resolver("oc.env", given, replace=True)
    try:
        yield
    finally:
        OmegaConf.to_yaml = staticmethod(plain)  # type: ignore[method-assign]
        OmegaConf.register_new_resolver("oc.env", oc.env, replace=True)


def learn(cfg: Any) -> None:
    """Remember the values under keys that say secret, resolved as far as they can be."""
    secrets.learn(OmegaConf.to_container(cfg, resolve=False) if OmegaConf.is_config(cfg) else cfg)
    with suppress(OmegaConfBaseException):
        secrets.learn(OmegaConf.to_container(cfg, resolve=True) if OmegaConf.is_config(cfg) else cfg)


def check_folder(cfg: Any, key: str) -> list[Path]:
    """The folders that Hydra will make, the innermost first.

    Raises `ConfigError` if Hydra would name a folder after a secret, or write through a link. `cfg` is composed, with
    Hydra's own node, in which `key` says the folder.
    """
    whole = deepcopy(cfg)
    with read_write(whole), open_dict(whole):
        whole.hydra.job.num, whole.hydra.job.id = 0, "0"  # not known yet, and no secrets
    with suppress(OmegaConfBaseException):  # Hydra says better what is wrong with it
        name, above = OmegaConf.select(whole, key), "" if key != SUBDIR else OmegaConf.select(whole, "hydra.sweep.dir")
        check_name(key, name)
        path = Path(above, str(name))
        files.refuse_links(path, "multirun.yaml", *filter(None, [cfg.hydra.output_subdir]))
        return files.missing(path)
    return []


def check_name(setting: str, value: Any) -> None:
    """Raise `ConfigError` for the name of a file or folder that holds the value of a secret."""
    if secrets.holds_secret(str(value)):
        raise ConfigError(
            f"{setting}={secrets.masked_text(str(value))} would name a folder after a secret, or after a variable of "
            "the environment: if it is none, write it out"
        )
