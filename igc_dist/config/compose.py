"""From a composed configuration to a job."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from igc_dist import baselines, data, distributed, inputs
from igc_dist.config import building, schemas
from igc_dist.config.permitted import TRUST, check_public
from igc_dist.data import filtered, sliced, weighted
from igc_dist.job import Job, named, named_statistics, skipping
from igc_dist.metrics import Metric, labelled
from igc_dist.model import AUTO, PARALLEL, Model, Parts, Unfilled, Vision, fillable, load, without_weights
from igc_dist.paths import ensure_design, ensure_rule
from igc_dist.records import ConfigError
from igc_dist.statistics import Statistic
from igc_dist.targets import Targets, class_names

OF_INPUTS = ("embedding", "embedding_kwargs", "n_categorical", "categories")
"""The settings of a model that say what its inputs are, beside `layer`."""


def from_config(cfg: Any, store: str | Path | None, allow: Sequence[str] = ()) -> Job:
    """The job that a composed configuration describes. Raises `ConfigError`, `ModelError` or `DataError`.

    `allow`: what the command line allows, prefixes of `_target_`s and `permitted.TRUST`.
    """
    c = schemas.typed(cfg)
    for setting in ("forward", "layer", "embedding", "final_layer"):
        check_public(f"model.{setting}", getattr(c.model, setting))
    for setting in ("weights", "slices"):
        check_public(f"data.{setting}", getattr(c.data, setting))
    skip, statistics = skipping(c.on_nonfinite), _statistics(c)
    model = _model(c, allow)
    quadrature = ensure_rule(c.quadrature.name, c.quadrature.n_steps, c.quadrature.tol)
    source = data.ensure(
        building.build(_fitted(c, model.module), allow, "data"),
        c.data.num_workers,
        c.data.stage,
        c.data.prefetch,
        None if c.data.x is c.data.y is None else (c.data.x, c.data.y),
        c.on_bad_sample,
    )
    baseline = baselines.ensure(building.build(c.baseline, allow))
    design = ensure_design(
        c.design.name,
        quadrature,
        c.quadrature.n_steps,
        c.design.n_draws,
        lambda: baselines.number(baseline, source),
    )
    return Job(
        inputs=inputs.ensure(model, _layers(c.model.layer), **{name: getattr(c.model, name) for name in OF_INPUTS}),
        source=source,
        targets=named(
            Targets(c.target.outputs, c.target.one_hot, c.target.names, c.target.n_others, _classes(c), c.target.each),
            model,
            source,
        ),
        baseline=baseline,
        attributor=building.build_attributor(c.method.attributor, quadrature, design, allow, c.quadrature.n_steps),
        statistics=statistics,
        limits=c.plan,
        samples=c.store.samples or c.method.samples,
        seed=c.seed,
        skip=skip,
        reduce=None if c.reduce is None else building.build(c.reduce, allow),
        metrics=_metrics(c, allow),
        names=c.data.names,
        dims=c.data.dims,
        store=store,
        page=c.report.max_outputs * c.report.enabled,
        method=c.method.name,
        weights=weighted(source, c.data.weights),
        slices=sliced(source, c.data.slices, c.data.on_unlabelled),
        filter=filtered(source, c.filter),
        budget=c.budget,
        audit=c.precision,
        labels={"model": c.model.build["_target_"], "data": c.data.build["_target_"]},
    )


def _statistics(c: schemas.Config) -> tuple[Statistic, ...]:
    """The statistics. Raises `ConfigError` for limits of a t-test that is not among them."""
    for name, limit in (("low", c.statistic.low), ("high", c.statistic.high)):
        if limit is not None and "ttest" not in c.statistic.names:
            raise ConfigError(
                f"statistic.{name}={limit} is a limit of the groups of a t-test, but "
                f"statistic.names={c.statistic.names} has no ttest: add it, or leave the limit out"
            )
    return named_statistics(c.statistic.names, ttest={"low": c.statistic.low, "high": c.statistic.high})


def _metrics(c: schemas.Config, allow: Sequence[str]) -> dict[str, Metric]:
    """The metrics by their names in the store."""
    return labelled({label: building.build(node, allow) for label, node in c.metric.items()}) if c.metric else {}


def _layers(given: Any) -> str | list[str] | None:
    """The names of layers, which are numbers in an `nn.Sequential`."""
    return None if given is None else [*map(str, given)] if isinstance(given, list) else str(given)


def _model(c: schemas.Config, allow: Sequence[str]) -> Model:
    """The model, with its weights. Where ranks hold parts of it, they read their parts of the weights later."""
    parts, output, path, waiting = _parts(c, allow), c.model.output, c.model.weights, None
    module = _without_weights(c, parts, allow)
    if module is not None:
        assert path is not None
        waiting = Unfilled.of(module, os.path.expanduser(path))
    else:
        module = building.build(c.model.build, allow, "model")
        if path is not None:
            load(module, path, trust=TRUST in allow)
    made = Model(
        module,
        forward=c.model.forward,
        forward_kwargs=c.model.forward_kwargs,
        output=building.build(output, allow) if isinstance(output, Mapping) else output,
        precision=c.fabric.precision,
        channels_last=c.model.channels_last,
        compiled=c.model.compiled,
        cuda_graphs=c.model.cuda_graphs,
        final_layer=c.model.final_layer,
        parts=parts,
    )
    made.unfilled = waiting
    return made


def _without_weights(c: schemas.Config, parts: Parts, allow: Sequence[str]) -> Any:
    """The module without numbers in its parameters, if each can be read by itself from a file of safetensors."""
    path = os.path.expanduser(c.model.weights or "")
    alone = parts.ranks == 1 or distributed.environment() is None
    if alone or callable(parts.how) or min(parts.data, parts.tensor) > 1 or not path.endswith(".safetensors"):
        return None
    if not os.path.isfile(path):  # which `load` tells
        return None
    with without_weights():
        module = building.build(c.model.build, allow, "model")
    return module if not isinstance(module, Vision) and fillable(module) else None


def _parts(c: schemas.Config, allow: Sequence[str]) -> Parts:
    """How several ranks hold the model together. Raises `ConfigError` for sizes without the strategy, or vice versa."""
    how, ranks = c.model.parallelize, c.fabric.data_parallel_size * c.fabric.tensor_parallel_size
    if (c.fabric.strategy == PARALLEL) != (ranks > 1):
        raise ConfigError(
            f"fabric.strategy={c.fabric.strategy} with fabric.data_parallel_size={c.fabric.data_parallel_size} and "
            f"fabric.tensor_parallel_size={c.fabric.tensor_parallel_size}: {PARALLEL} is the strategy where several "
            "ranks hold one model together, and the sizes say how many: set both, or neither"
        )
    if isinstance(how, Mapping) and "_target_" in how:
        how = building.build({"_partial_": True, **how}, allow)
    elif how is not None and not isinstance(how, Mapping):
        raise ConfigError(
            f"model.parallelize={how!r}: give a mapping of layers to colwise and rowwise, a function "
            "(model.parallelize._target_=mypkg.split), or null for FSDP2 of the module's blocks"
        )
    return Parts(c.fabric.data_parallel_size, c.fabric.tensor_parallel_size, how)


def _classes(c: schemas.Config) -> list[str] | None:
    """The names of the outputs that the user gives."""
    return class_names(c.model.classes if c.data.classes == AUTO else c.data.classes)


def _fitted(c: schemas.Config, module: Any) -> dict[str, Any]:
    """What builds the data set, with what the model takes in place of `AUTO`."""
    takes = {"size": 224, "resize": None, "interpolation": "bicubic", "classes": class_names(c.model.classes)}
    if isinstance(module, Vision):
        takes |= module.takes
    return {key: takes.get(key) if value == AUTO else value for key, value in c.data.build.items()}
