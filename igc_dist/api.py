"""The main function of the package: attribute a task, from Python."""

from __future__ import annotations

import functools
import inspect
import traceback
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import torch
import xarray as xr

import igc_dist.accessor  # noqa: F401  .igc on the tree
from igc_dist import baselines, config, inputs, targets
from igc_dist import data as sources
from igc_dist.attributors import Attributor
from igc_dist.data import filtered, random_states_kept, sliced, weighted
from igc_dist.distributed import World, joined
from igc_dist.job import Job, limits_of, named, named_statistics, skipping
from igc_dist.metrics import labelled
from igc_dist.model import Model
from igc_dist.paths import Auto, Design, Pairs, Quadrature, ensure_design, ensure_rule
from igc_dist.planning import Audit, Budget, Limits
from igc_dist.records import AccuracyWarning, ConfigError, Interrupted, Stopped
from igc_dist.report import judged
from igc_dist.run import run
from igc_dist.statistics import Statistic
from igc_dist.store import tree
from igc_dist.targets import Targets
from igc_dist.watching import metered

P = ParamSpec("P")
R = TypeVar("R")


def grouped(function: Callable[P, R]) -> Callable[P, R]:
    """Wrap the function: it also takes group objects (`igc_dist.config.groups`), and the model is reserved for it."""

    @functools.wraps(function)
    def call(model: Any, data: Any, *rest: Any, **given: Any) -> R:
        model, data, flat = config.flattened(model, data, given)
        config.check_kinds(function, flat)
        with Model(model, precision=flat.get("precision", "32-true")).reserved():
            return function(model, data, *rest, **flat)

    return call  # type: ignore[return-value]


@random_states_kept()
@grouped
def attribute(
    model: torch.nn.Module | config.Model,
    data: Any,
    *,
    method: str | config.Method = "igc",
    attributor: Attributor | None = None,
    statistics: Sequence[str | Statistic] | None = None,
    statistic: config.Statistic | None = None,
    baseline: Any = None,
    quadrature: str | Quadrature | Auto | config.Rule | None = None,
    n_steps: int | None = None,
    quadrature_tol: float | None = None,
    design: str | Design | config.Design = "grid",
    n_draws: int | None = None,
    target: Any = None,
    n_others: int | None = None,
    fields: Any = None,
    weights: Any = None,
    slices: Any = None,
    filter: Any = None,
    on_unlabelled: str = "fail",
    reduce: Any = None,
    metrics: Any = (),
    names: Sequence[str] | None = None,
    dims: Sequence[Any] | None = None,
    samples: bool = False,
    budget: Budget | None = None,
    store: str | Path | config.Store | None = None,
    seed: int = 0,
    forward: str | None = None,
    forward_kwargs: Mapping[str, Any] | None = None,
    output: Any = None,
    precision: str | config.Precision = "32-true",
    precision_audit: int | None = None,
    precision_tol: float | None = 0.05,
    precision_on_error: str = "fail",
    channels_last: bool | str = False,
    compiled: bool = False,
    cuda_graphs: bool = False,
    final_layer: torch.nn.Module | str | None = None,
    layer: str | Sequence[str] | None = None,
    embedding: str | None = None,
    embedding_kwargs: Mapping[str, Any] | None = None,
    n_categorical: int | None = None,
    categories: int | Sequence[int] | None = None,
    accelerator: str | None = None,
    strategy: str = "auto",
    loggers: Sequence[Any] = (),
    num_workers: int = 0,
    prefetch: bool = True,
    stage: str = "test",
    threads: int | None = None,
    on_nonfinite: str = "fail",
    on_bad_sample: str = "fail",
    progress: bool = False,
    timeout: float = 1800.0,
    lease: float | None = None,
    plan: Limits | None = None,
    fabric: config.Fabric | None = None,
    **limits: Any,
) -> xr.DataTree:
    """Attribute a task: fold attributions of a whole data set into maps, one per output.

    Keywords are grouped as on the command line. Each group is also an object with the same fields (its docstring
    explains them): ``attribute(Model(net, forward="logits"), data, plan=Limits(n_folds=8))``. A setting that is given
    both ways is an error.

    `model`: an `nn.Module` or LightningModule, which is restored afterwards; or `igc_dist.Model` (`forward`,
    `forward_kwargs`, `output`, `channels_last`, `compiled`, `cuda_graphs`, `final_layer`, `layer`, `embedding`,
    `embedding_kwargs`, `n_categorical`, `categories`). `data`: see `igc_dist.data.ensure`; or `igc_dist.Data`
    (`stage`, `num_workers`, `prefetch`, `fields`, `weights`, `slices`, `on_unlabelled`, `names`, `dims`).

    `method`: a preset of conf/method by name (igc, bsc, guided_igc, ...; per sample ig, ig2, smoothgrad, ...), or
    `igc_dist.Method`; `attributor` and `statistics` (or `statistic`, `igc_dist.Statistic`) override its parts.
    `baseline`: None (zeros), a float or several, a tensor or tuple, an int K (K shared samples of the data), or an
    object of `igc_dist.baselines`. `quadrature`, `n_steps`, `quadrature_tol`: a rule by name, a `Quadrature`, "auto" (a
    pilot chooses, the default if there is no `n_steps`), or `igc_dist.Rule`; `n_steps` alone: that many midpoints.
    `design`, `n_draws`: see `igc_dist.paths.designs`, or `igc_dist.Design`. `target`: None (all outputs), an int, a
    list, "one_hot", "own", "predicted", "top:k", or `igc_dist.Targets`, whose `n_others` is a keyword too. NaN in y
    leaves a sample out for that output. `filter`: which samples count, "correct", "confident(0.8)", "confident(0.8,
    predicted)", "COLUMN==VALUE", "indices FILE", or indices (`igc_dist.data.filters.Filter`); rows of the others are
    NaN. `reduce`: how features are summed before anything is folded, see `igc_dist.features`.

    `metrics`: scores of every sample's maps, names of `igc_dist.metrics.METRICS` or objects, in a list or by their
    names in the result: ``tree["samples/metrics/insertion"]`` (sample, output), means in ``tree["metrics"]``.

    `budget`: `igc_dist.Budget`. `store`: a folder or URL to keep results in and to resume from (None: in memory), or
    `igc_dist.Store`, whose `samples` keeps every sample's attribution. `plan`: `igc_dist.Limits`, whose fields are
    keywords too. `precision`: a name, or `igc_dist.Precision` (`precision_audit`, `precision_tol`,
    `precision_on_error`). `fabric`: `igc_dist.Fabric` (`accelerator`, `strategy`, `precision`, `threads`, `timeout`,
    `lease`, `loggers`). Under torchrun or srun all ranks share the work and each returns the same tree.

    Returns a tree with the layout of the store: ``tree["x/igc"]`` (output, *features), ``tree["correlation"]``
    (output), ``tree["samples/x/attribution"]`` (sample, output, *features) in the order of the data.

    Warns with `AccuracyWarning` if an error is too large for the numbers (`igc_dist.report.judgement`).

    The global random states (torch, numpy, `random`) are afterwards what they were before.

    Raises `ConfigError`, `ModelError`, `DataError`, `NonFiniteError`, `PrecisionError` or `StoreError` (all are
    `ValueError`s). The message says what to do. A signal raises `Stopped` after the micro-batch at hand, Ctrl-C
    `Interrupted`, a `KeyboardInterrupt`: what was committed to the store is safe, and the same call goes on from there.
    """
    skip = skipping(on_nonfinite)
    # `grouped` has already split group objects into keywords
    assert not isinstance(method, config.Method)
    assert isinstance(precision, str)
    assert not isinstance(quadrature, config.Rule)
    assert not isinstance(design, config.Design)
    assert not isinstance(store, config.Store)
    wish = config.preset(method)
    rule = ensure_rule(quadrature, n_steps, quadrature_tol)
    lent = Model(
        model,
        forward=forward,
        forward_kwargs=forward_kwargs,
        output=output,
        precision=precision,
        channels_last=channels_last,
        compiled=compiled,
        cuda_graphs=cuda_graphs,
        final_layer=final_layer,
    )
    kind = inputs.ensure(lent, layer, embedding, embedding_kwargs, n_categorical, categories)
    source = sources.ensure(data, num_workers, stage, prefetch, fields, on_bad_sample)
    start = baselines.ensure(baseline)
    sampling = ensure_design(design, rule, n_steps, n_draws, lambda: baselines.number(start, source))
    method_of = (
        config.build_attributor(wish.attributor, rule, sampling, n_steps=n_steps) if attributor is None else attributor
    )
    if baseline is None and isinstance(getattr(method_of, "design", None), Pairs):
        start = baselines.Partners()
    job = Job(
        inputs=kind,
        source=source,
        targets=named(_targets(target, n_others), lent, source),
        baseline=start,
        attributor=method_of,
        statistics=named_statistics(wish.statistics if statistics is None else statistics),
        audit=Audit(precision_audit, precision_tol, precision_on_error),
        limits=limits_of(limits, list(inspect.signature(attribute).parameters)),
        samples=samples or wish.samples,
        reduce=reduce,
        metrics=labelled(metrics) if metrics else {},
        names=names,
        dims=dims,
        seed=seed,
        skip=skip,
        store=store,
        budget=budget or Budget(),
        method=method if attributor is None else getattr(attributor, "name", ""),
        weights=weighted(source, weights),
        slices=sliced(source, slices, on_unlabelled),
        filter=filtered(source, filter),
    )
    ranks = joined(accelerator=accelerator or lent.device.type, strategy=strategy, timeout=timeout, lease=lease,
                   threads=threads, loggers=loggers)  # fmt: skip
    with _interruptible(), ranks as world, metered(world, progress) as meter:
        done = run(job, world, meter)
    return _judged(tree(done.objects), world)


def _judged(found: xr.DataTree, world: World) -> xr.DataTree:
    """The tree, after warnings of its errors on rank 0.

    They are at the line that called the package, past its decorators and the signatures of others in `compat`.
    """
    names = [str(frame.f_globals.get("__name__")) for frame, _ in traceback.walk_stack(inspect.currentframe())]
    level = max(n for n, name in enumerate(names) if name.partition(".")[0] == __package__) + 2
    while level < len(names) and names[level - 1] == "contextlib":
        level += 1
    for severity, text in judged(found) if world.first else ():
        if severity == "warning":
            warnings.warn(text, AccuracyWarning, stacklevel=level)
    return found


@contextmanager
def _interruptible() -> Iterator[None]:
    """Raise `Interrupted` in place of a `Stopped` by Ctrl-C."""
    try:
        yield
    except Stopped as error:
        if error.interrupted:
            raise Interrupted(str(error)) from None
        raise


def _targets(target: Any, n_others: int | None) -> Targets:
    wanted = targets.ensure(target)
    if n_others is None:
        return wanted
    if wanted.n_others is not None:
        raise ConfigError("n_others is given in target=Targets(...) and as n_others=: give it once")
    return replace(wanted, n_others=n_others)
