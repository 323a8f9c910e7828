"""The one function of the package: attribute a task, from Python."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import xarray as xr

from igc_dist import baselines, config, designs, inputs, targets
from igc_dist import data as sources
from igc_dist.attributors import Attributor
from igc_dist.audit import Audit
from igc_dist.budget import Budget
from igc_dist.data import sliced, weighted
from igc_dist.designs import Design
from igc_dist.distributed import joined
from igc_dist.job import NONFINITE, Job, limits_of, named_statistics
from igc_dist.model import Model
from igc_dist.progress import metered
from igc_dist.quadrature import Auto, Quadrature, ensure
from igc_dist.reading import tree
from igc_dist.records import ConfigError
from igc_dist.run import run
from igc_dist.statistics import Statistic


def attribute(
    model: torch.nn.Module,
    data: Any,
    *,
    method: str = "igc",
    attributor: Attributor | None = None,
    statistics: Sequence[str | Statistic] | None = None,
    baseline: Any = None,
    quadrature: str | Quadrature | Auto = "midpoint",
    n_steps: int | None = None,
    design: str | Design = "grid",
    n_draws: int | None = None,
    target: Any = None,
    n_others: int | None = None,
    weights: Any = None,
    slices: Any = None,
    reduce: Any = None,
    names: Sequence[str] | None = None,
    dims: Sequence[Any] | None = None,
    samples: bool = False,
    budget: Budget | None = None,
    store: str | Path | None = None,
    seed: int = 0,
    forward: str | None = None,
    forward_kwargs: Mapping[str, Any] | None = None,
    output: Any = None,
    precision: str = "32-true",
    precision_audit: int | None = None,
    precision_tol: float | None = 0.05,
    precision_on_error: str = "fail",
    channels_last: bool | str = False,
    compiled: bool = False,
    final_layer: torch.nn.Module | str | None = None,
    embedding: str | None = None,
    embedding_kwargs: Mapping[str, Any] | None = None,
    n_categorical: int | None = None,
    categories: int | Sequence[int] | None = None,
    accelerator: str | None = None,
    num_workers: int = 0,
    prefetch: bool = True,
    stage: str = "test",
    threads: int | None = None,
    on_nonfinite: str = "fail",
    progress: bool = False,
    timeout: float = 1800.0,
    lease: float | None = None,
    **limits: Any,
) -> xr.DataTree:
    """Attribute a task: fold attributions of a whole data set into maps, one per output.

    What. `model`: an `nn.Module` or `LightningModule`, handed back as it was. `data`: see `igc_dist.data.ensure`. `method`: a preset (igc,
    igac, ig_mean_std, bsc, naive_correlation, naive_ttest, guided_igc, blur_igc, ig2c, idgic; per sample ig, ig_adaptive, gradients,
    gradient_x_input, baseline_shapley, guided_ig, blur_ig, ig2, idgi, idgi_guided_ig, idgi_blur_ig, idgi_ig2, left_ig, idg,
    expected_gradients, smoothgrad, smoothgrad_ig); `attributor` and `statistics` override its parts: an object of `igc_dist.attributors`;
    names or objects of `igc_dist.statistics` (correlation, autocorrelation, moments, pearson, ttest), all from one pass.

    Walks. `baseline`: None (zeros), a float or several, a tensor or tuple, an int K (K shared data samples), or an object of
    `igc_dist.baselines`. `quadrature`: a rule by name with `n_steps` gradient evaluations (32; the steps of a method that has its own), a
    `Quadrature`, or "auto": midpoint for models with kinks (ReLU), else Gauss-Legendre (8). `design`: grid (every baseline with every
    node), or one that is right on average over the data set, see `igc_dist.designs`: shifted, stratified, random draw `n_steps` nodes for
    each (input, baseline), or `n_draws` for each input; pairs and importance_pairs draw `n_draws` (4) partners for each input from the
    data, in place of a baseline.

    Outputs. `target`: None (all outputs), an int, a list, "one_hot", or `Targets`. NaN in y leaves a sample out for that
    output only. `n_others`: of labels, ask at each path point for the label's output and so many of the others, drawn, in
    place of all. `final_layer`: the last linear layer or its name, which makes many outputs cheap (`igc_dist.final`).

    Inputs. `categories` (numbers of categories of the trailing inputs; attributions get a category axis) or `embedding` (a
    method of the model, with `embedding_kwargs`; attributions are to what it gives) serve categorical inputs, see
    `igc_dist.inputs`; `n_categorical` says how many are (None: all of integer type). `reduce`: how features are summed before
    anything is folded, an object of `igc_dist.features` or a function of arrays (n, J, *features), or one for each input
    (None: as it is). `names` of the inputs and `dims`, names of the dimensions of each, for the result.

    Samples. `weights`: an array or the name of an attribute of the data set. `slices`: labels, likewise: every slice gets
    results of its own, ``tree["slices/x/igc"]`` (slice, output, *features), and the whole is split into a part within slices
    and one between. `samples`: also keep every sample's attribution.

    Budget. `budget`: a `Budget` of gradients, of seconds, or with a standard error to reach: folds are added until then, and a
    later run with a larger one goes on from there. With replicates it says how much of the error comes from the draws.

    Runs. `store`: a folder or a URL ("s3://bucket/prefix", see `igc_dist.remote`) to keep the results in and to resume from; None: in
    memory. `limits` are the fields of `plan.Limits` (n_folds, output_block, baseline_block, micro_batch, host_memory, mode, ...).
    `precision_audit` micro-batches (None: 4 of a mixed `precision`) are done again in a higher one; a relative change above `precision_tol`
    (None: any) is a `PrecisionError`, or with `precision_on_error="fallback"` the whole run is done again in the higher one. `trial` and
    `channels_last="auto"` let a clock choose, see `igc_dist.trial`; `prefetch`: a thread reads the next batch; attribute `retried`: shards
    that ran out of memory, see `igc_dist.retry`. Under torchrun or srun all ranks share the work and each returns the same tree; the shard
    of a rank that is silent for `lease` seconds (None: a sixth of `timeout`) is done by others, after `timeout` the run ends.

    Returns a tree with the layout of the store: ``tree["x/igc"]`` (output, *features), ``tree["correlation"]`` (output),
    ``tree["samples/x/attribution"]`` (sample, output, *features) in the order of the data.

    Raises `ConfigError`, `ModelError`, `DataError`, `NonFiniteError`, `PrecisionError`, `StoreError` (all `ValueError`s), with the way out.
    """
    if on_nonfinite not in NONFINITE:
        raise ConfigError(f"on_nonfinite={on_nonfinite!r}: choose fail (with the sample's index) or skip (leave out and record)")
    wish = config.preset(method)
    rule = ensure(quadrature, n_steps)
    lent = Model(
        model,
        forward=forward,
        forward_kwargs=forward_kwargs,
        output=output,
        precision=precision,
        channels_last=channels_last,
        compiled=compiled,
        final_layer=final_layer,
    )
    kind = inputs.ensure(lent, embedding=embedding, embedding_kwargs=embedding_kwargs, n_categorical=n_categorical, categories=categories)
    source = sources.ensure(data, num_workers, stage, prefetch)
    start = baselines.ensure(baseline)
    sampling = designs.ensure(design, rule, 32 if n_steps is None else n_steps, n_draws, lambda: baselines.number(start, source))
    method_of = config.build_attributor(wish.attributor, rule, sampling, n_steps=n_steps) if attributor is None else attributor
    if baseline is None and isinstance(getattr(method_of, "design", None), designs.Pairs):
        start = baselines.Partners()
    wanted = targets.ensure(target)
    job = Job(
        inputs=kind,
        source=source,
        targets=wanted if n_others is None else replace(wanted, n_others=n_others),
        baseline=start,
        attributor=method_of,
        statistics=named_statistics(wish.statistics if statistics is None else list(statistics)),
        audit=Audit(precision_audit, precision_tol, precision_on_error),
        limits=limits_of(limits, list(inspect.signature(attribute).parameters)),
        samples=samples or wish.samples,
        reduce=reduce,
        names=names,
        dims=dims,
        seed=seed,
        skip=on_nonfinite == "skip",
        store=store,
        budget=budget or Budget(),
        method=method if attributor is None else attributor.name,
        weights=weighted(source, weights),
        slices=sliced(source, slices),
    )
    accelerator = accelerator or {"cpu": "cpu", "cuda": "cuda", "mps": "mps"}.get(lent.device.type, lent.device.type)
    with joined(accelerator=accelerator, timeout=timeout, lease=lease, threads=threads) as world, metered(world, progress) as meter:
        done = run(job, world, meter)
    return tree(done.objects)
