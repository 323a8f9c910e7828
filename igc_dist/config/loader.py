"""Hydra's loader of configurations, with a check of each before Hydra acts on it.

What files say is data of others. They reach Hydra only through this loader: in a run, in each job of a sweep, and in
the processes of a launcher plug-in, which get this object.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra.core.config_search_path import ConfigSearchPath
from hydra.types import RunMode
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from igc_dist.config.discreet import check_folder, learn
from igc_dist.config.permitted import check_file, check_hydra, check_search, check_word
from igc_dist.records import ConfigError

SEARCH = "hydra.searchpath"

OURS = ("pkg://", "structured://")
"""Where Hydra itself and installed plug-ins keep their settings. A file that is named may not come from there."""


class Checked(ConfigLoaderImpl):
    """Hydra's loader, which checks what files, and then Hydra's own node, would have Hydra do.

    `allow`: what the command line allows, prefixes of `_target_`s. `made`: gets the folders that Hydra then makes.
    """

    def __init__(
        self, config_search_path: ConfigSearchPath, allow: Sequence[str] = (), made: list[Path] | None = None
    ) -> None:
        self.allow = tuple(allow)
        self.made = [] if made is None else made
        super().__init__(config_search_path)

    def load_configuration(self, config_name: Any, overrides: list[str], *args: Any, **keywords: Any) -> Any:
        """Compose a configuration. Raises `ConfigError` for what is not allowed."""
        for word in overrides:
            check_word(word)
        if keywords.get("validate_sweep_overrides") is False and not any("mode" in word for word in overrides):
            # Hydra first asks for `hydra.mode` alone, which no file may set, and would compose everything for it
            return OmegaConf.create({"hydra": {"mode": None}})
        cfg = super().load_configuration(config_name, overrides, *args, **keywords)
        learn(cfg)
        # not resolved, because some values are not known yet
        node: dict[str, Any] = dict(OmegaConf.to_container(cfg.hydra, resolve=False))  # type: ignore[arg-type]
        said = node["overrides"]
        if Counter([*said["hydra"], *said["task"]]) != Counter(overrides):
            raise ConfigError("hydra.overrides is not allowed: overrides are what stands on the command line")
        check_hydra(node, self.allow)
        _check_interpolations(cfg.hydra)
        _check_lines(cfg.hydra.launcher, "hydra.launcher")
        sweeps = keywords.get("run_mode") == RunMode.MULTIRUN
        self.made += check_folder(cfg, "hydra.sweep.dir" if sweeps else "hydra.run.dir")
        return cfg

    def load_sweep_config(self, *args: Any, **keywords: Any) -> Any:
        """Compose a job of a sweep, by `load_configuration`, and check its folder."""
        cfg = super().load_sweep_config(*args, **keywords)
        self.made[:0] = check_folder(cfg, "hydra.sweep.subdir")
        return cfg

    def _process_config_searchpath(self, config_name: Any, parsed_overrides: Any, repo: Any) -> None:
        """Hydra reads the search path here, and imports what it names as a package."""
        named = [override.value() for override in parsed_overrides if override.get_key_element() == SEARCH]
        primary = None if config_name is None else repo.load_config(config_path=config_name)
        if primary is not None and OmegaConf.is_dict(primary.config):
            named.append(OmegaConf.select(primary.config, SEARCH))
        for folders in named:
            for folder in [folders] if isinstance(folders, str) else folders or ():
                check_search(folder)
        super()._process_config_searchpath(config_name, parsed_overrides, repo)

    def _load_single_config(self, default: Any, repo: Any) -> Any:
        found = super()._load_single_config(default, repo)
        if not found.path.startswith(OURS) and OmegaConf.is_dict(found.config):
            node = OmegaConf.to_container(found.config, resolve=False)
            check_file(f"{default.config_path}.yaml", node.get("hydra"))  # type: ignore[union-attr]
        return found


def _check_interpolations(node: Any) -> None:
    """Raise `ConfigError` if a mapping or a list of Hydra's node is an interpolation: its result was not checked."""
    for key in range(len(node)) if OmegaConf.is_list(node) else node:
        if OmegaConf.is_missing(node, key):
            continue
        if OmegaConf.is_interpolation(node, key):
            raw = str(node._get_node(key)._value())
            try:
                whole = OmegaConf.is_config(node[key])
            except OmegaConfBaseException:
                whole = (
                    raw.count("${") > 1
                )  # not known yet: the job's number or folder is text, but a nested name may be anything
            if whole:
                raise ConfigError(f"hydra: {key}={raw} is not allowed: give the node itself, not an interpolation")
        elif OmegaConf.is_config(node[key]):
            _check_interpolations(node[key])


def _check_lines(node: Any, name: str) -> None:
    """Raise `ConfigError` for a text of more than one line among the settings of a launcher.

    They become lines of a script, and may come from what a file sets, as the name of the job.
    """
    for key in range(len(node)) if OmegaConf.is_list(node) else node:
        try:
            value = None if OmegaConf.is_missing(node, key) else node[key]
        except OmegaConfBaseException:  # not known yet
            continue
        if OmegaConf.is_config(value):
            _check_lines(value, f"{name}.{key}")
        elif isinstance(value, str) and not value.isprintable():
            raise ConfigError(f"{name}.{key}={value!r} is not allowed: a setting of a launcher is one line")
