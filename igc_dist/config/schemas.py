"""The configuration of a run: a schema for each Hydra group, and the presets of methods."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from hydra.core.config_store import ConfigStore
from omegaconf import MISSING, MissingMandatoryValue, OmegaConf

from igc_dist.planning import Audit, Budget, Limits, Rates
from igc_dist.records import ConfigError, near

AUTO = "auto"
"""As `igc_dist.model.AUTO`, which loads torch."""


def at_least(least: int, key: str, value: int) -> None:
    """Raise `ConfigError` for a number below the least."""
    if value < least:
        raise ConfigError(f"{key}={value}: give an integer of at least {least}")


@dataclass
class ModelConfig:
    """The model: how to build it, its weights, how to call it, its output and final layer, and categorical inputs.

    `name`, `classes`: what a family (timm, torchvision, ...) builds, and the names of its outputs; null: its own.
    `parallelize`: how several ranks hold it together (`FabricConfig`); null: its blocks by FSDP2.
    """

    build: dict[str, Any] = MISSING
    name: str | None = None
    classes: Any = None
    weights: str | None = None
    forward: str | None = None
    forward_kwargs: dict[str, Any] = field(default_factory=dict)
    output: Any = None
    channels_last: Any = False
    compiled: bool = False
    cuda_graphs: bool = False
    final_layer: str | None = None
    layer: Any = None
    embedding: str | None = None
    embedding_kwargs: dict[str, Any] = field(default_factory=dict)
    n_categorical: int | None = None
    categories: Any = None
    parallelize: Any = None


@dataclass
class DataConfig:
    """The data set or LightningDataModule, its loader, and what its inputs and their dimensions are called.

    `x`, `y`: for samples that are dicts, the key of x (or a list of several) and of y. `root`, `table`, `label`,
    `classes`, `size`, `resize`, `interpolation`, `masks`, `mask_names`: what images are read with; auto: what the model
    takes.
    """

    build: dict[str, Any] = MISSING
    stage: str = "test"
    num_workers: int = 0
    prefetch: bool = True
    x: Any = None
    y: str | None = None
    weights: str | None = None
    slices: str | None = None
    on_unlabelled: str = "fail"
    names: list[str] | None = None
    dims: list[Any] | None = None
    root: str | None = None
    table: str | None = None
    label: Any = "label"
    classes: Any = AUTO
    size: Any = AUTO
    resize: Any = AUTO
    interpolation: str = AUTO
    masks: str | None = None
    mask_names: Any = None


@dataclass
class TargetConfig:
    """Which outputs to explain, how y becomes a vector of outputs, and how many outputs to draw besides the label's.

    `each`: own, predicted or top:k explains each sample for outputs of its own.
    """

    outputs: Any = None
    one_hot: bool | None = None
    names: list[str] | None = None
    n_others: int | None = None
    each: str | None = None


@dataclass
class QuadratureConfig:
    """Rule, and number of gradient evaluations per (input, baseline); null: 32, or the number that suits `auto`.

    `name`: null is auto, or midpoint if `n_steps` is given. `tol`: the error that auto allows, as a part of the
    correlation; null: 0.01. `n_steps` is also taken by methods that have steps of their own instead of a rule.
    """

    name: str | None = None
    n_steps: int | None = None
    tol: float | None = None


@dataclass
class DesignConfig:
    """Where gradients are taken: see `designs.py`.

    `n_draws`: gradients per input; null: `quadrature.n_steps` per baseline (1 if that is null, 4 if shifted), or 4
    pairs.
    """

    name: str = "grid"
    n_draws: int | None = None


@dataclass
class MethodConfig:
    """A preset: an attributor and statistics. `samples`: its results are per sample."""

    name: str = MISSING
    attributor: dict[str, Any] = MISSING
    statistics: list[str] = MISSING
    samples: bool = False


@dataclass
class StatisticConfig:
    """Statistics to fold in one pass. `low` and `high` are the limits of the groups of a t-test."""

    names: list[str] = MISSING
    low: float | None = None
    high: float | None = None


@dataclass
class FabricConfig:
    """Ranks, devices and precision, in Lightning's words.

    `data_parallel_size` times `tensor_parallel_size` ranks hold one model together, see `igc_dist.model.Parts`.
    """

    accelerator: str = "auto"
    devices: int = 1
    num_nodes: int = 1
    strategy: str = "auto"
    data_parallel_size: int = 1
    tensor_parallel_size: int = 1
    precision: str = "32-true"
    threads: int | None = 1
    timeout: float = 1800.0
    lease: float | None = None
    loggers: list[str] = field(default_factory=lambda: ["csv"])
    rates: Rates = field(default_factory=Rates)

    def __post_init__(self) -> None:
        for name in ("devices", "num_nodes", "data_parallel_size", "tensor_parallel_size"):
            at_least(1, f"fabric.{name}", getattr(self, name))


@dataclass
class StoreConfig:
    """Where the results go: a folder or a URL; null: store.zarr in the run's folder.

    `samples`: whether per-sample attributions are kept.
    """

    path: str | None = None
    samples: bool = False


@dataclass
class ReportConfig:
    """The report page. `images`: true, or false or "none", which keeps all pictures of samples off it and off the disk.
    `thumbnails`: the number of samples of which small pictures are kept beside the store; 0 keeps none, nor means."""

    enabled: bool = True
    max_outputs: int = 32
    images: Any = True
    thumbnails: int = 64

    def __post_init__(self) -> None:
        at_least(1, "report.max_outputs", self.max_outputs)
        at_least(0, "report.thumbnails", self.thumbnails)


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
    metric: dict[str, Any] = field(default_factory=dict)
    fabric: FabricConfig = field(default_factory=FabricConfig)
    store: StoreConfig = field(default_factory=StoreConfig)
    report: ReportConfig = field(default_factory=ReportConfig)
    plan: Limits = field(default_factory=Limits)
    budget: Budget = field(default_factory=Budget)
    precision: Audit = field(default_factory=Audit)
    filter: str | None = None
    seed: int = 0
    on_nonfinite: str = "fail"
    on_bad_sample: str = "fail"
    name: str = "igc"
    profile: bool = False
    gallery: list[str] = field(default_factory=list)
    picture: str = "samples"


ConfigStore.instance().store(name="base_config", node=Config)


def typed(cfg: Any) -> Config:
    """The configuration as dataclasses. Raises `ConfigError` for a missing value."""
    try:
        return OmegaConf.to_object(cfg)  # type: ignore[return-value]
    except ConfigError:
        raise
    except MissingMandatoryValue as error:
        missing = sorted(OmegaConf.missing_keys(cfg))
        one = missing[0].removesuffix("._target_")
        word = "" if missing[0] != one else "+"  # what is not in the file is added
        raise ConfigError(
            f"{' and '.join(missing)} must be given: a value, or for an object of yours "
            f"--allow-target mypkg {word}{one}._target_=mypkg.name (--path DIR for its folder)"
        ) from error
    except Exception as error:
        raise ConfigError(f"configuration: {str(error).splitlines()[0]}") from error


def folder() -> Path:
    """The folder of the groups: inside the wheel, or beside the package in a checkout.

    In a checkout, an editable install leaves stale copies inside the package.
    """
    here = Path(__file__).resolve().parents[1]
    return next(path for path in (here / "conf", here.parent / "conf") if (path / "config.yaml").is_file())


def preset(name: str) -> MethodConfig:
    """The method preset `name` from its file in conf/method. Raises `ConfigError` with similar names if unknown."""
    known = sorted(path.stem for path in (folder() / "method").glob("*.yaml"))
    if name not in known:
        raise ConfigError(f"method={name!r} is unknown{near(name, known)}: choose one of {', '.join(known)}")
    return OmegaConf.to_object(_read(name))  # type: ignore[return-value]


@cache
def _read(name: str) -> Any:
    """The preset, parsed once: it took a tenth of a small run."""
    return OmegaConf.merge(OmegaConf.structured(MethodConfig), OmegaConf.load(folder() / "method" / f"{name}.yaml"))
