"""Configuration: typed schemas of the Hydra groups, allow-listed instantiation, the spec and its hash."""

from __future__ import annotations

import dataclasses
import difflib
import os
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import hydra
from hydra._internal import hydra as internal
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.utils import instantiate
from omegaconf import MISSING, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from igc_dist.audit import Audit
from igc_dist.budget import Budget
from igc_dist.designs import Design, Grid
from igc_dist.outlook import Rates
from igc_dist.permitted import ALLOWED, check_hydra, check_targets
from igc_dist.plan import Limits
from igc_dist.quadrature import Auto, Quadrature
from igc_dist.records import ConfigError


@dataclass
class ModelConfig:
    """The model: what builds it, its weights, how to call it, which output counts, its final linear layer, and what is categorical."""

    build: dict[str, Any] = MISSING
    weights: str | None = None
    forward: str | None = None
    forward_kwargs: dict[str, Any] = field(default_factory=dict)
    output: Any = None
    channels_last: Any = False
    compiled: bool = False
    final_layer: str | None = None
    embedding: str | None = None
    embedding_kwargs: dict[str, Any] = field(default_factory=dict)
    n_categorical: int | None = None
    categories: Any = None


@dataclass
class DataConfig:
    """The data set or LightningDataModule, its loader, and what its inputs and their dimensions are called."""

    build: dict[str, Any] = MISSING
    stage: str = "test"
    num_workers: int = 0
    prefetch: bool = True
    weights: str | None = None
    slices: str | None = None
    names: list[str] | None = None
    dims: list[Any] | None = None


@dataclass
class TargetConfig:
    """Which outputs, how y becomes a vector of outputs, and how many outputs to draw beside that of a label."""

    outputs: list[int] | None = None
    one_hot: bool | None = None
    names: list[str] | None = None
    n_others: int | None = None


@dataclass
class QuadratureConfig:
    """Rule and number of gradient evaluations per (input, baseline); null: 32, or what suits the rule that `auto` takes."""

    name: str = MISSING
    n_steps: int | None = 32


@dataclass
class DesignConfig:
    """Where gradients are taken: see `designs.py`. `n_draws`: gradients per input; null: `quadrature.n_steps` per baseline, or 4 pairs."""

    name: str = "grid"
    n_draws: int | None = None


@dataclass
class MethodConfig:
    """A preset: an attributor and statistics; `samples`: its result is per sample."""

    name: str = MISSING
    attributor: dict[str, Any] = MISSING
    statistics: list[str] = MISSING
    samples: bool = False


@dataclass
class StatisticConfig:
    """Statistics to fold, all from one pass; `low` and `high` are the limits of the groups of a t-test."""

    names: list[str] = MISSING
    low: float | None = None
    high: float | None = None


@dataclass
class FabricConfig:
    """Ranks, devices and precision, in Lightning's words."""

    accelerator: str = "auto"
    devices: int = 1
    num_nodes: int = 1
    strategy: str = "auto"
    precision: str = "32-true"
    threads: int | None = 1
    timeout: float = 1800.0
    lease: float | None = None
    loggers: list[str] = field(default_factory=lambda: ["csv"])
    rates: Rates = field(default_factory=Rates)


@dataclass
class StoreConfig:
    """Where the results go (a folder or a URL; null: store.zarr in the run's folder), and whether per-sample attributions are kept."""

    path: str | None = None
    samples: bool = False


@dataclass
class ReportConfig:
    """The page to look at."""

    enabled: bool = True
    max_outputs: int = 32


@dataclass
class Config:
    """The whole configuration of a run."""

    model: ModelConfig = field(default_factory=ModelConfig)
    data: DataConfig = field(default_factory=DataConfig)
    target: TargetConfig = field(default_factory=TargetConfig)
    baseline: dict[str, Any] = MISSING
    quadrature: QuadratureConfig = field(default_factory=QuadratureConfig)
    design: DesignConfig = field(default_factory=DesignConfig)
    method: MethodConfig = field(default_factory=MethodConfig)
    statistic: StatisticConfig = field(default_factory=StatisticConfig)
    reduce: dict[str, Any] | None = None
    fabric: FabricConfig = field(default_factory=FabricConfig)
    store: StoreConfig = field(default_factory=StoreConfig)
    report: ReportConfig = field(default_factory=ReportConfig)
    plan: Limits = field(default_factory=Limits)
    budget: Budget = field(default_factory=Budget)
    precision: Audit = field(default_factory=Audit)
    seed: int = 0
    on_nonfinite: str = "fail"
    name: str = "igc"
    profile: bool = False
    gallery: list[str] = field(default_factory=list)


ConfigStore.instance().store(name="base_config", node=Config)


def typed(cfg: Any) -> Config:
    """The configuration as dataclasses. Raises `ConfigError` for a value that is missing."""
    try:
        return OmegaConf.to_object(cfg)  # type: ignore[return-value]
    except ConfigError:
        raise
    except Exception as error:
        raise ConfigError(f"configuration: {str(error).splitlines()[0]}") from error


def folder() -> Path:
    """The folder of the groups: inside the wheel, or beside the package in a checkout (where an editable install leaves stale copies)."""
    here = Path(__file__).resolve().parent
    return next(path for path in (here / "conf", here.parent / "conf") if (path / "config.yaml").is_file())


def preset(name: str) -> MethodConfig:
    """The method preset `name` from its file in conf/method. Raises `ConfigError` with the near names for an unknown one."""
    known = sorted(path.stem for path in (folder() / "method").glob("*.yaml"))
    if name not in known:
        raise ConfigError(f"method={name!r} is unknown{near(name, known)}: choose one of {', '.join(known)}")
    merged = OmegaConf.merge(OmegaConf.structured(MethodConfig), OmegaConf.load(folder() / "method" / f"{name}.yaml"))
    return OmegaConf.to_object(merged)  # type: ignore[return-value]


def near(name: str, known: Sequence[str]) -> str:
    """ " (did you mean ...?)" for the nearest of `known`, or nothing."""
    found = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return f" (did you mean {found[0]!r}?)" if found else ""


def build(node: Any, allow: Sequence[str] = (), **extra: Any) -> Any:
    """Instantiate a node with `_target_`, after checking every `_target_` in it against the allow-list.

    Raises `ConfigError` for a target outside it: a configuration is data, and Hydra's own block list still lets
    `torch.load`, `torch.hub.load` or `pathlib.Path.unlink` run.
    """
    try:
        plain = OmegaConf.to_container(node, resolve=True) if OmegaConf.is_config(node) else node
    except OmegaConfBaseException as error:
        raise ConfigError(f"configuration: {str(error).splitlines()[0]}") from error
    if not isinstance(plain, Mapping) or "_target_" not in plain:
        raise ConfigError(f"{plain!r} cannot be built: it needs a _target_, the dotted name of a class or function")
    check_targets(plain, (*ALLOWED, *allow))
    try:
        return instantiate({**plain, **extra}, _convert_="all")
    except ConfigError:
        raise
    except Exception as error:
        cause = error.__cause__ or error
        if isinstance(cause, ConfigError):
            raise cause from error
        raise ConfigError(f"{plain['_target_']} could not be built: {type(cause).__name__}: {cause}") from error


def build_attributor(
    node: Any, quadrature: Quadrature | Auto | None, design: Design | None = None, allow: Sequence[str] = (), n_steps: int | None = None
) -> Any:
    """An attributor; one that integrates gets the quadrature, and the design if it is not the grid; or the innermost, if one holds another.

    `n_steps` is for the innermost that makes its own steps. Raises `ConfigError` for a design that draws and an attributor that has none.
    """
    return _with_rule(build(node, allow), quadrature, design, n_steps)


def _with_rule(attributor: Any, quadrature: Quadrature | Auto | None, design: Design | None, n_steps: int | None) -> Any:
    fields = {f.name for f in dataclasses.fields(attributor)}
    own = {"n_steps": n_steps} if n_steps is not None and "n_steps" in fields else {}
    if "attributor" in fields:
        inner = attributor.attributor
        own = {} if hasattr(inner, "n_steps") else own
        return dataclasses.replace(attributor, attributor=_with_rule(inner, quadrature, design, n_steps), **own)
    mine: dict[str, Any] = own if quadrature is None or "quadrature" not in fields else {"quadrature": quadrature}
    if design is not None and not isinstance(design, Grid):
        if "design" not in fields:
            raise ConfigError(
                f"design={design.name} with attributor {attributor.name!r}, which does not draw its nodes: it is for Integrated Gradients, "
                "take design=grid"
            )
        mine["design"] = design
    return dataclasses.replace(attributor, **mine) if mine else attributor


# -- Hydra -------------------------------------------------------------------------------------------------------------


class Checked(ConfigLoaderImpl):
    """Hydra's loader, whose own node is checked before Hydra acts on it; each job of a sweep is composed, and checked, anew.

    A class of its own, as launchers of plug-ins hand it to other processes.
    """

    allow: tuple[str, ...] = ()

    def load_configuration(self, *args: Any, **keywords: Any) -> Any:
        cfg = super().load_configuration(*args, **keywords)
        # not resolved, as some of it is not known yet
        check_hydra(dict(OmegaConf.to_container(cfg.hydra, resolve=False)), self.allow)  # type: ignore[arg-type]
        _check_interpolations(cfg.hydra)
        return cfg


def _check_interpolations(node: Any) -> None:
    """Raise `ConfigError` where a mapping or a list of Hydra's node is an interpolation: what it will be was not looked at."""
    for key in range(len(node)) if OmegaConf.is_list(node) else node:
        if OmegaConf.is_missing(node, key):
            continue
        if OmegaConf.is_interpolation(node, key):
            raw = str(node._get_node(key)._value())
            try:
                whole = OmegaConf.is_config(node[key])
            except OmegaConfBaseException:
                whole = raw.count("${") > 1  # not known yet; the job's number or folder is text, a name within a name may be anything
            if whole:
                raise ConfigError(f"hydra: {key}={raw} is not allowed: give the node itself, not an interpolation")
        elif OmegaConf.is_config(node[key]):
            _check_interpolations(node[key])


def compose_and_call(task: Callable[[Any], None], arguments: Sequence[str], allow: Sequence[str] = ()) -> None:
    """Compose the configuration from the command line and call `task` with it, once, or once per job of a sweep.

    Raises `ConfigError` with the nearest key or choice for an override that fits nothing, and for what Hydra may not run.
    """
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra would print its errors and leave with 1
    tasks: list[Any] = []

    def told(cfg: Any) -> None:
        tasks.append(cfg)
        task(cfg)
        tasks.clear()

    before, sys.argv = sys.argv, ["igc-dist", *arguments]
    loader = internal.ConfigLoaderImpl
    internal.ConfigLoaderImpl, Checked.allow = Checked, tuple(allow)  # type: ignore[misc]
    try:
        hydra.main(config_path=str(folder()), config_name="config", version_base="1.3")(told)()
    except (HydraException, OmegaConfBaseException) as error:
        raise ConfigError(_explain(error)) from error
    except Exception as error:
        if tasks or isinstance(error, ConfigError):
            raise
        # Hydra asserts what it expects: `hydra.verbose=1`, `+=x`, a key below null
        said = f"{type(error).__name__}: {error}".rstrip(": ")
        raise ConfigError(f"the command line {[*arguments]} composes to no configuration ({said}): see igc-dist --help") from error
    except SystemExit as leaving:
        if leaving.code not in (0, None):
            raise ConfigError("the command line does not parse: see igc-dist --help") from leaving
    finally:
        sys.argv = before
        internal.ConfigLoaderImpl = loader  # type: ignore[misc]


def _explain(error: Exception) -> str:
    text = " ".join(f"{error} {error.__cause__ or ''}".split())
    key = re.search(r"Could not override '([^']+)'", text)
    if key is None:
        return text
    hint = near(key[1], leaves())
    return f"unknown setting {key[1]!r}{hint}. {text}"


def leaves() -> list[str]:
    """Every dotted key of the default configuration."""

    def walk(node: Any, prefix: str) -> list[str]:
        if not isinstance(node, Mapping):
            return [prefix]
        return [key for name in node for key in walk(node[name], f"{prefix}.{name}" if prefix else str(name))]

    GlobalHydra.instance().clear()
    with hydra.initialize_config_dir(str(folder()), version_base="1.3"):
        return walk(OmegaConf.to_container(hydra.compose("config")), "")


def hydra_job() -> tuple[Path, list[str]]:
    """Inside a task: the job's folder, and its overrides."""
    found = HydraConfig.get()
    return Path(found.runtime.output_dir), list(found.overrides.task)


def compose_again(overrides: Sequence[str]) -> Any:
    """Inside a task: the configuration of other overrides. Raises `ConfigError` for one that fits nothing."""
    try:
        return hydra.compose("config", list(overrides))
    except (HydraException, OmegaConfBaseException) as error:
        raise ConfigError(_explain(error)) from error


def override(key: str, value: Any) -> str:
    """An override with its value quoted, as folders of sweeps hold "=" and ","."""
    escaped = str(value).replace("\\", "\\\\").replace("'", "\\'")
    return f"{key}='{escaped}'"


def folder_flags(arguments: Sequence[str]) -> list[str]:
    """The --config-dir of a command line and its overrides of Hydra's search path, for handing on to ranks."""
    kept = [argument for argument in arguments if argument.startswith(("hydra.searchpath=", "--config-dir="))]
    for flag in ("--config-dir", "-cd"):
        if flag in arguments[:-1]:
            kept += ["--config-dir", arguments[list(arguments).index(flag) + 1]]
    return kept
