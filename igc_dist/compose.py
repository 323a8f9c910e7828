"""From a composed configuration to a job."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from igc_dist import baselines, config, data, designs, inputs
from igc_dist.data import sliced, weighted
from igc_dist.job import NONFINITE, Job, named_statistics
from igc_dist.model import Model
from igc_dist.permitted import TRUST
from igc_dist.quadrature import ensure
from igc_dist.records import ConfigError
from igc_dist.targets import Targets
from igc_dist.weights import load_weights


def from_config(cfg: Any, store: str | Path | None, allow: Sequence[str] = ()) -> Job:
    """The job that a composed configuration describes. Raises `ConfigError`, `ModelError` or `DataError`.

    `allow`: what the command line allows, prefixes of `_target_`s and `permitted.TRUST`.
    """
    c = config.typed(cfg)
    if c.on_nonfinite not in NONFINITE:
        raise ConfigError(f"on_nonfinite={c.on_nonfinite!r}: choose fail (with the sample's index) or skip (leave out and record)")
    for name, limit in (("low", c.statistic.low), ("high", c.statistic.high)):
        if limit is not None and "ttest" not in c.statistic.names:
            raise ConfigError(
                f"statistic.{name}={limit} is a limit of the groups of a t-test, but statistic.names={c.statistic.names} has no ttest: "
                "add it, or leave the limit out"
            )
    module = config.build(c.model.build, allow)
    model = Model(
        module,
        forward=c.model.forward,
        forward_kwargs=c.model.forward_kwargs,
        output=config.build(c.model.output, allow) if isinstance(c.model.output, Mapping) else c.model.output,
        precision=c.fabric.precision,
        channels_last=c.model.channels_last,
        compiled=c.model.compiled,
        final_layer=c.model.final_layer,
    )
    if c.model.weights is not None:
        load_weights(module, c.model.weights, trust=TRUST in allow)
    quadrature = ensure(c.quadrature.name, c.quadrature.n_steps)
    source = data.ensure(config.build(c.data.build, allow), c.data.num_workers, c.data.stage, c.data.prefetch)
    baseline = baselines.ensure(config.build(c.baseline, allow))
    design = designs.ensure(
        c.design.name, quadrature, c.quadrature.n_steps or 32, c.design.n_draws, lambda: baselines.number(baseline, source)
    )
    return Job(
        inputs=inputs.ensure(
            model,
            embedding=c.model.embedding,
            embedding_kwargs=c.model.embedding_kwargs,
            n_categorical=c.model.n_categorical,
            categories=c.model.categories,
        ),
        source=source,
        targets=Targets(c.target.outputs, c.target.one_hot, c.target.names, c.target.n_others),
        baseline=baseline,
        attributor=config.build_attributor(c.method.attributor, quadrature, design, allow),
        statistics=named_statistics(c.statistic.names, ttest={"low": c.statistic.low, "high": c.statistic.high}),
        limits=c.plan,
        samples=c.store.samples or c.method.samples,
        seed=c.seed,
        skip=c.on_nonfinite == "skip",
        reduce=None if c.reduce is None else config.build(c.reduce, allow),
        names=c.data.names,
        dims=c.data.dims,
        store=store,
        method=c.method.name,
        weights=weighted(source, c.data.weights),
        slices=sliced(source, c.data.slices),
        budget=c.budget,
        audit=c.precision,
        labels={"model": c.model.build["_target_"], "data": c.data.build["_target_"]},
    )
