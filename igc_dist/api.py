"""The one function of the package: attribute a task, from Python."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import xarray as xr

from igc_dist import baselines, config, designs, inputs, targets
from igc_dist import data as sources
from igc_dist.attributors import Attributor
from igc_dist.data import sliced, weighted
from igc_dist.designs import Design
from igc_dist.distributed import joined
from igc_dist.job import NONFINITE, Job, limits_of, named_statistics
from igc_dist.model import Model
from igc_dist.progress import metered
from igc_dist.quadrature import Quadrature, ensure
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
    quadrature: str | Quadrature = "midpoint",
    n_steps: int = 32,
    design: str | Design = "grid",
    target: Any = None,
    weights: Any = None,
    slices: Any = None,
    reduce: Any = None,
    names: Sequence[str] | None = None,
    dims: Sequence[Any] | None = None,
    samples: bool = False,
    store: str | Path | None = None,
    seed: int = 0,
    forward: str | None = None,
    forward_kwargs: Mapping[str, Any] | None = None,
    output: Any = None,
    precision: str = "32-true",
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
    **limits: Any,
) -> xr.DataTree:
    """Attribute a task: fold attributions of a whole data set into maps, one per output.

    What. `model`: an `nn.Module` or `LightningModule`, handed back as it was. `data`: see `igc_dist.data.ensure`. `method`: a
    preset (igc, igac, ig_mean_std, bsc, naive_correlation, naive_ttest; per sample ig, gradients, gradient_x_input,
    baseline_shapley); `attributor` and `statistics` override its parts: an object of `igc_dist.attributors`; names or objects
    of `igc_dist.statistics` (correlation, autocorrelation, moments, pearson, ttest), all from one pass.

    Walks. `baseline`: None (zeros), a float, a tensor or tuple, an int K (K shared data samples), or an object of
    `igc_dist.baselines`. `quadrature`: a rule by name with `n_steps` gradient evaluations, or a `Quadrature`.
    `design`: grid (every baseline with every node), or shifted, stratified, random: `n_steps` nodes drawn for each (input,
    baseline), which is right on average over the data set; see `igc_dist.designs`.

    Outputs. `target`: None (all outputs), an int, a list, "one_hot", or `Targets`. NaN in y leaves a sample out for that
    output only. `final_layer`: the last linear layer or its name, which makes many outputs cheap (`igc_dist.final`).

    Inputs. `categories` (numbers of categories of the trailing inputs; attributions get a category axis) or `embedding` (a
    method of the model, with `embedding_kwargs`; attributions are to what it gives) serve categorical inputs, see
    `igc_dist.inputs`; `n_categorical` says how many are (None: all of integer type). `reduce`: how features are summed before
    anything is folded, an object of `igc_dist.features` or a function of arrays (n, J, *features), or one for each input
    (None: as it is). `names` of the inputs and `dims`, names of the dimensions of each, for the result.

    Samples. `weights`: an array or the name of an attribute of the data set. `slices`: labels, likewise: every slice gets
    results of its own, ``tree["slices/x/igc"]`` (slice, output, *features), and the whole is split into a part within slices
    and one between. `samples`: also keep every sample's attribution.

    Runs. `store`: a folder to keep the results in and to resume from; None keeps them in memory. `limits` are the fields of
    `plan.Limits` (n_folds, output_block, baseline_block, micro_batch, host_memory, ...). Under torchrun or srun all ranks
    share the work and each returns the same tree. `trial` and `channels_last="auto"` let a clock choose, see `igc_dist.trial`;
    `prefetch`: a thread reads the next batch; attribute `retried`: shards that ran out of memory, see `igc_dist.retry`.

    Returns a tree with the layout of the store: ``tree["x/igc"]`` (output, *features), ``tree["correlation"]`` (output),
    ``tree["samples/x/attribution"]`` (sample, output, *features) in the order of the data.

    Raises `ConfigError`, `ModelError`, `DataError`, `NonFiniteError` (all `ValueError`s) and `StoreError`, with the value
    given and the way out; before any forward pass where it can be known then.
    """
    if on_nonfinite not in NONFINITE:
        raise ConfigError(f"on_nonfinite={on_nonfinite!r}: choose fail (with the sample's index) or skip (leave out and record)")
    wish = config.preset(method)
    rule = ensure(quadrature, n_steps)
    sampling = designs.ensure(design, rule, n_steps)
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
    job = Job(
        inputs=kind,
        source=source,
        targets=targets.ensure(target),
        baseline=baselines.ensure(baseline),
        attributor=config.build_attributor(wish.attributor, rule, sampling) if attributor is None else attributor,
        statistics=named_statistics(wish.statistics if statistics is None else list(statistics)),
        limits=limits_of(limits, list(inspect.signature(attribute).parameters)),
        samples=samples or wish.samples,
        reduce=reduce,
        names=names,
        dims=dims,
        seed=seed,
        skip=on_nonfinite == "skip",
        store=store,
        method=method if attributor is None else attributor.name,
        weights=weighted(source, weights),
        slices=sliced(source, slices),
    )
    accelerator = accelerator or {"cpu": "cpu", "cuda": "cuda", "mps": "mps"}.get(lent.device.type, lent.device.type)
    with joined(accelerator=accelerator, timeout=timeout, threads=threads) as world, metered(world, progress) as meter:
        done = run(job, world, meter)
    return tree(done.objects)
