"""The groups of the command line as objects in Python.

For example, `attribute(Model(net, forward="logits"), data, plan=Limits(n_folds=8))`: what the command line calls
`plan.n_folds` is the field `n_folds` of the object that the keyword `plan` takes. Each field is also a keyword of
`attribute`. A field that is set in an object and also given as a keyword is an error. The groups:

    model       Model      data     Data        target   Targets     baseline    an object of `igc_dist.baselines`
    quadrature  Rule       design   Design      method   Method      statistic   Statistic
    budget      Budget     plan     Limits      fabric   Fabric      precision   Precision      store   Store
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from igc_dist.model import load
from igc_dist.planning import Audit, Limits
from igc_dist.records import ConfigError
from igc_dist.statistics import TTest

Precision = Audit
"""The group `precision`: how much is audited, and what happens if an audit fails."""


@dataclass(frozen=True)
class Model:
    """The group `model`: a module, its weights, and how to call it.

    `module`: an `nn.Module` or LightningModule. `weights`: a file that is loaded into it, as safetensors or a
    checkpoint of tensors. `forward`: name of the method to call (None: the module itself), with the constant
    `forward_kwargs`. `output`: which part of the result to use, see `igc_dist.model.Model`. `channels_last`: the layout
    of convolutions; "auto" lets a trial choose. `compiled`: `torch.compile` the forward. `cuda_graphs`: record the
    gradients of a small net and replay them, on a CUDA device. `final_layer`: the last linear layer, its name, or auto,
    which makes many outputs cheap. `layer`: the dotted name of a submodule, or a list of them, whose activations are
    explained in place of the inputs. `embedding`: a method whose result replaces categorical inputs, with
    `embedding_kwargs`. `n_categorical`: the number of categorical inputs (None: all of integer type).
    `categories`: numbers of categories of the trailing inputs, which then get a category axis.
    """

    module: Any
    weights: str | Path | None = None
    forward: str | None = None
    forward_kwargs: Mapping[str, Any] | None = None
    output: Any = None
    channels_last: bool | str = False
    compiled: bool = False
    cuda_graphs: bool = False
    final_layer: Any = None
    layer: Any = None
    embedding: str | None = None
    embedding_kwargs: Mapping[str, Any] | None = None
    n_categorical: int | None = None
    categories: int | Sequence[int] | None = None

    own: ClassVar[tuple[str, ...]] = ("module", "weights")


@dataclass(frozen=True)
class Data:
    """The group `data`: the data set or LightningDataModule, its loader, sample weights and slices, and names.

    `dataset`: see `igc_dist.data.ensure`; for a data module the loader of `stage` is used. `num_workers`: the number of
    processes that read. `prefetch`: a thread reads the next batch. `fields`: the keys of x and of y, for samples that
    are dicts. `weights`, `slices`: an array or the name of an attribute of the data set; every slice gets its own
    results. `on_unlabelled`: "fail" refuses samples without a slice label, "skip" leaves them out and lists them.
    `names`: the names of the inputs. `dims`: the names of the dimensions of each input.
    """

    dataset: Any
    stage: str = "test"
    num_workers: int = 0
    prefetch: bool = True
    fields: Any = None
    weights: Any = None
    slices: Any = None
    on_unlabelled: str = "fail"
    names: Sequence[str] | None = None
    dims: Sequence[Any] | None = None

    own: ClassVar[tuple[str, ...]] = ("dataset",)


@dataclass(frozen=True)
class Rule:
    """The group `quadrature`: a rule's name, and gradient evaluations per (input, baseline); None: what suits it.

    Without a name it is "auto", or midpoint if `n_steps` is given. `tol`: the error that "auto" allows, as a part of
    the correlation (None: 0.01).
    """

    name: str | None = None
    n_steps: int | None = None
    tol: float | None = None

    flat: ClassVar[dict[str, str]] = {"name": "quadrature", "tol": "quadrature_tol"}


@dataclass(frozen=True)
class Design:
    """The group `design`: where gradients are taken, see `igc_dist.paths.designs`; `n_draws`: gradients per input."""

    name: str = "grid"
    n_draws: int | None = None

    flat: ClassVar[dict[str, str]] = {"name": "design"}


@dataclass(frozen=True)
class Method:
    """The group `method`: a preset by name, which an attributor and statistics may override.

    `samples`: whether every sample's attribution is kept.
    """

    name: str = "igc"
    attributor: Any = None
    statistics: Sequence[Any] | None = None
    samples: bool = False

    flat: ClassVar[dict[str, str]] = {"name": "method"}


@dataclass(frozen=True)
class Statistic:
    """The group `statistic`: names or objects, all computed in one pass.

    `low` and `high`: limits of the groups of a t-test.
    """

    names: Sequence[Any] | None = None
    low: float | None = None
    high: float | None = None

    flat: ClassVar[dict[str, str]] = {"names": "statistics"}
    own: ClassVar[tuple[str, ...]] = ("low", "high")

    def limited(self) -> Statistic:
        """Move the limits into the t-test. Raises `ConfigError` if there is no t-test."""
        if self.low is None and self.high is None:
            return self
        if "ttest" not in (self.names or ()):
            raise ConfigError(
                f"Statistic(low={self.low}, high={self.high}) has limits of the groups of a t-test, but "
                f"names={self.names} "
                "has no ttest: add it, or leave the limits out"
            )
        test = TTest(low=self.low, high=self.high)
        return Statistic([test if name == "ttest" else name for name in self.names or ()])


@dataclass(frozen=True)
class Fabric:
    """The group `fabric`: the device and precision of this rank.

    The numbers of ranks and nodes are set by the program that starts them (torchrun, srun). `timeout`: seconds of
    silence after which a rank counts as lost. `lease`: seconds of silence after which other ranks do its shard (None: a
    sixth of `timeout`). `threads`: CPU threads of each rank (None: unchanged). `loggers`: names (csv, tensorboard,
    wandb; only on the command line, because they need a folder) or loggers of Lightning.
    """

    accelerator: str | None = None
    strategy: str = "auto"
    precision: str = "32-true"
    threads: int | None = None
    timeout: float = 1800.0
    lease: float | None = None
    loggers: Sequence[Any] = field(default_factory=tuple)


@dataclass(frozen=True)
class Store:
    """The group `store`: a folder or a URL to keep the results in and to resume from (None: in memory).

    `samples`: whether every sample's attribution is kept.
    """

    path: str | Path | None = None
    samples: bool = False

    flat: ClassVar[dict[str, str]] = {"path": "store"}


AUDITED = {"audit": "precision_audit", "tol": "precision_tol", "on_error": "precision_on_error"}

GROUPS: dict[str, type] = {
    "quadrature": Rule,
    "design": Design,
    "method": Method,
    "statistic": Statistic,
    "precision": Precision,
    "plan": Limits,
    "fabric": Fabric,
    "store": Store,
}
"""The group objects that a keyword of `attribute` accepts besides plain values.

`target`, `baseline` and `budget` take their objects whole.
"""

ALONE = ("statistic", "plan", "fabric")
"""Keywords that accept only an object."""


def flattened(model: Any, data: Any, given: Mapping[str, Any]) -> tuple[Any, Any, dict[str, Any]]:
    """Module, data set and keywords of `attribute`, with every group object split into single keywords.

    Raises `ConfigError` for a setting given both in an object and as a keyword, and for an object of the wrong group.
    """
    flat: dict[str, Any] = {name: value for name, value in given.items() if not _is_group(name, value)}
    objects = {name: value for name, value in given.items() if name not in flat}
    if isinstance(data, Data):
        objects["data"], data = data, data.dataset
    if isinstance(model, Model):
        objects["model"], model = model, model.module
        if objects["model"].weights is not None:
            load(model, str(objects["model"].weights))
    found: dict[str, str] = {}
    for name, value in objects.items():
        for keyword, setting in _set(name, value.limited() if isinstance(value, Statistic) else value).items():
            other = f"in {found[keyword]}=" if keyword in found else f"as {keyword}=" if keyword in flat else None
            if other is not None and flat[keyword] is not setting:
                raise ConfigError(f"{keyword} is given in {name}={type(value).__name__}(...) and {other}: give it once")
            found[keyword] = name
            flat |= {keyword: setting}
    return model, data, flat


def _is_group(name: str, value: Any) -> bool:
    kind = GROUPS.get(name)
    if kind is not None and isinstance(value, kind):
        return True
    if name in ALONE and value is not None:
        assert kind is not None
        raise ConfigError(
            f"{name}={value!r}: give an object of the group, igc_dist.{kind.__name__}({', '.join(_names(kind))})"
        )
    if isinstance(value, tuple(GROUPS.values())):
        home = next(group for group, its in GROUPS.items() if isinstance(value, its))
        raise ConfigError(f"{name}={type(value).__name__}(...): that is an object of the group {home}, give {home}=...")
    return name in ALONE


def _names(kind: Any) -> list[str]:
    return [each.name for each in dataclasses.fields(kind)]


def _set(name: str, group: Any) -> dict[str, Any]:
    """The fields of an object that differ from their defaults, by the keywords of `attribute`."""
    if group is None:
        return {}
    called = AUDITED if isinstance(group, Precision) else getattr(group, "flat", {})
    bare = {each.name: each for each in dataclasses.fields(group) if each.name not in getattr(group, "own", ())}
    settings = {}
    for field_name, each in bare.items():
        value = getattr(group, field_name)
        made = each.default_factory
        default = each.default if made is dataclasses.MISSING else made()
        if value is not default and not (type(value) is type(default) and value == default):
            settings[called.get(field_name, field_name)] = value
    return settings
