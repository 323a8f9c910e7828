"""The composition root: one run, from a job to a complete store. Read this file first.

The config names the model, the data, the baselines and the targets; a first pass predicts; the plan cuts inputs x
baselines x outputs into shards; ranks claim shards; for each shard the engine walks a path with a quadrature and hands
on attributions; statistics fold them; the store keeps what was folded; an all-reduce joins the ranks; the report shows it.
"""

from __future__ import annotations

import inspect
import logging
import platform
import time
from collections.abc import Mapping, Sequence
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xarray as xr

from igc_dist import baselines, config, footprint, inputs, layout, results, targets
from igc_dist import data as sources
from igc_dist.baselines import Surroundings
from igc_dist.distributed import World, joined
from igc_dist.engine import Engine, Known
from igc_dist.faults import fault
from igc_dist.job import NONFINITE, Job, limits_of, named_statistics, plan_of
from igc_dist.layout import Array
from igc_dist.model import Model
from igc_dist.plan import Plan
from igc_dist.predict import BAD, Predictor, centre_of
from igc_dist.progress import Meter, metered
from igc_dist.quadrature import Quadrature, ensure
from igc_dist.reading import tree
from igc_dist.records import Attribution, ConfigError, IgcError, Shard, Stopped
from igc_dist.spec import spec_hash
from igc_dist.statistics import Centre
from igc_dist.statistics.state import SCALAR_TERMS
from igc_dist.store import Store

log = logging.getLogger(__name__)


def run(job: Job, world: World, meter: Meter) -> Store:
    """Do the job on this rank, together with the others: returns the complete store. Resumes what the store already holds."""
    started = time.time()
    footprint.keep_freed()
    with job.model.borrowed(world.device):
        plan = plan_of(job, world.device)
        spec = job.spec(plan, world)
        float_type = "float64" if plan.shapes.itemsize == 8 else "float32"
        phases = layout.phases(plan, job.terms, float_type, sums=job.needs_mean, skip=job.skip)
        store = Store(job.store, phases, spec, spec_hash(spec))
        try:
            if _prepare(store, world, _provenance(job, world, started)):
                log.info("store %s is complete: nothing to do", job.store)
                return store
            predict_all(job, plan, store, world, meter)
            centre, pool, mean = _known(job, plan, store)
            mine = attribute_all(job, plan, store, world, meter, centre, Surroundings(job.source, pool, job.seed, mean))
            footprint.give_back()
            _finalize(job, plan, store, world, mine, centre, _provenance(job, world, started))
            footprint.give_back()
        except Stopped:
            raise
        except IgcError as error:
            if world.first or store.path is None:
                store.fail(str(error))
            raise
    return store


def _prepare(store: Store, world: World, provenance: Mapping[str, Any]) -> bool:
    if store.path is None and not world.first:
        store.prepare(provenance)  # every rank has its own memory
    return bool(world.share(lambda: store.prepare(provenance)))


def predict_all(job: Job, plan: Plan, store: Store, world: World, meter: Meter) -> None:
    """Pass 1 over the folds that are not done."""
    pending = world.share(lambda: store.pending("predict"))
    meter.start("predict", plan.n_folds, plan.n_folds - len(pending))
    predictor = Predictor(job.inputs, job.source, job.targets, plan, world.device, job.skip, job.needs_mean)
    done = []
    for number in world.claims("predict", pending):
        for name, values in predictor.run(number).arrays(plan.shapes.input_names).items():
            store.write("predict", number, name, values)
        store.commit("predict", number)
        done.append(number)
        meter.rows(len(plan.fold(number)))
        meter.shard()
    _hand_round(store, world, meter, "predict", done)


def _hand_round(store: Store, world: World, meter: Meter, phase: str, done: Sequence[int]) -> None:
    """Wait for the end of a pass. Without a store on disk, every rank then takes over what the others hold."""
    world.meet(phase, meter.show)
    meter.end()
    if store.path is None:
        for objects in world.gather(store.objects_of(phase, done)) if world.size > 1 else []:
            store.absorb(objects)


def _known(job: Job, plan: Plan, store: Store) -> tuple[Centre, np.ndarray, tuple[torch.Tensor, ...] | None]:
    """What pass 1 found: centres, indices of the samples that are fit for use, and the mean input if asked."""
    fine = store.read("predict", "bad") == 0
    counts = np.add.reduceat(fine, np.arange(0, len(fine), plan.fold_size), dtype=np.int64)
    centre = centre_of(counts, store.read("predict", "means"))
    pool = np.sort(plan.order[fine])
    if job.attributor.baselines:
        job.baseline.count(len(pool), plan.shapes.raw)  # again, as some samples may not be fit for use
    if not job.needs_mean:
        return centre, pool, None
    return (
        centre,
        pool,
        tuple(torch.from_numpy(store.read("predict", f"{name}_sum").sum(0) / len(pool)) for name in plan.shapes.input_names),
    )


def attribute_all(job: Job, plan: Plan, store: Store, world: World, meter: Meter, centre: Centre, around: Surroundings) -> list[int]:
    """Pass 2 over the shards that are not done; returns those that this rank contributes to the all-reduce."""
    pending = world.share(lambda: store.pending("attribute"))
    per_sample = plan.forwards // plan.shapes.n_samples
    meter.start("attribute", plan.n_shards, plan.n_shards - len(pending), plan.output_block, per_sample)
    engine = Engine(
        job.inputs, job.source, job.attributor, job.baseline, around, plan, centre, job.terms, world.device, job.skip, meter.rows
    )
    done = []
    for number in world.claims("attribute", pending):
        _attribute_shard(job, plan, store, engine, number)
        done.append(number)
        world.log({"shards": meter.shard(), **meter.rates()})
    _hand_round(store, world, meter, "attribute", done)
    # shards of an earlier run are contributed by turns
    earlier = sorted(set(range(plan.n_shards)) - set(pending))
    return done + [number for number in earlier if number % world.size == world.rank]


def _attribute_shard(job: Job, plan: Plan, store: Store, engine: Engine, number: int) -> None:
    """Compute, write and commit one shard. A function of its own, so that its state is gone before the next is computed."""
    fault("compute")
    shard = plan.shard(number)
    rows = slice(shard.rows.start, shard.rows.stop)
    known = Known(*(store.read_own("predict", shard.fold, name) for name in ("target", "prediction", "bad")))
    state, lost = engine.run(shard, known, _keeper(store, plan, shard) if job.samples else None)
    if job.skip:
        store.write("attribute", number, "skipped", np.isin(plan.order[rows], lost).astype(np.uint8)[:, None])
    for name, values in results.packed(state, job.terms, plan.shapes.input_names).items():
        store.write("attribute", number, name, values)
    store.commit("attribute", number)


def _keeper(store: Store, plan: Plan, shard: Shard) -> Any:
    """Writes per-sample rows, one micro-batch at a time: chunks are as long as micro-batches."""

    def keep(rows: range, attribution: Attribution) -> None:
        start = (rows.start, shard.outputs.start)
        for name, values in zip(plan.shapes.input_names, attribution.values, strict=True):
            store.write("attribute", shard.number, f"{name}/attribution", values.cpu().numpy(), start)
        store.write("attribute", shard.number, "delta", attribution.delta().cpu().numpy(), start)
        store.write("attribute", shard.number, "prediction_baseline", attribution.baseline_prediction.cpu().numpy(), start)

    return keep


Tables = dict[str, tuple[tuple[str, ...], np.ndarray]]
"""Arrays by path, with their dimensions."""


def _finalize(job: Job, plan: Plan, store: Store, world: World, mine: Sequence[int], centre: Centre, provenance: Mapping[str, Any]) -> None:
    """Exchange the states, a few outputs at a time; rank 0 writes the results (every rank, in memory)."""
    writes = world.first or store.path is None
    n = len(plan.work.outputs)
    per_output: dict[str, list[np.ndarray]] = {}
    running: dict[str, list[np.ndarray]] = {}
    for cut in results.output_cuts(plan):
        slots = results.exchange(world, store, plan, mine, cut, centre, job.terms)
        if not writes:
            continue
        block = results.results(slots, job.statistics, job.attributor)
        for kept, new in ((per_output, block.outputs), (running, block.running)):
            for name, values in new.items():
                kept.setdefault(name, []).append(values)
        for input_name, shape, maps in zip(plan.shapes.input_names, plan.shapes.features, block.maps, strict=True):
            dims = ("output", *layout.feature_dims(len(shape)))
            if cut.start == 0:
                store.create_results(
                    [Array(f"{input_name}/{name}", (n, *shape), (plan.finalize_outputs, *shape), "float64", dims) for name in maps]
                )
            for name, values in maps.items():
                store.put(f"{input_name}/{name}", (cut,), values)
    if writes:
        tables: Tables = {name: (("output",), np.concatenate(values)) for name, values in per_output.items()}
        tables |= {f"convergence/{name}": (("fold", "output"), np.concatenate(values, axis=1)) for name, values in running.items()}
        _write_tables(job, plan, store, tables)
        store.complete({"method": job.method, "skipped": _skipped(job, plan, store), "provenance": dict(provenance), "cost": _cost(plan)})
    world.meet("complete")


def _write_tables(job: Job, plan: Plan, store: Store, tables: Tables) -> None:
    """Write results that are not maps, coordinates, and the tables of the samples."""
    tables["output"] = (("output",), job.targets.labels(plan.work.outputs))
    tables["convergence/fold"] = (("fold",), np.arange(1, plan.n_folds + 1))
    tables["shards/attribute/term"] = (("term",), np.asarray([term or "1" for term in job.terms], dtype=object))
    tables["shards/attribute/scalar_term"] = (("scalar_term",), np.asarray([term or "1" for term in SCALAR_TERMS], dtype=object))
    if job.samples:
        tables |= {"samples/index": (("sample",), plan.order)}
        tables |= {f"samples/{name}": (("sample", "output"), store.read("predict", name)) for name in ("target", "prediction")}
    for path, (dims, values) in tables.items():
        kind = "string" if values.dtype.kind == "O" else str(values.dtype)
        store.create_results([Array(path, values.shape, values.shape, kind, dims)])
        store.put(path, ..., values)


def _skipped(job: Job, plan: Plan, store: Store) -> list[dict[str, Any]]:
    bad = store.read("predict", "bad").copy()
    if job.skip:
        bad = np.where((bad == 0) & store.read("attribute", "skipped").any(1), 4, bad)
    rows = np.flatnonzero(bad)
    return sorted(
        ({"index": int(plan.order[row]), "reason": f"NaN or infinity in its {BAD[int(bad[row])]}"} for row in rows),
        key=lambda entry: entry["index"],
    )


def _cost(plan: Plan) -> dict[str, int]:
    return {"gradient_evaluations": plan.gradient_evaluations, "forwards": plan.forwards, "shards": plan.n_shards}


def _provenance(job: Job, world: World, started: float) -> dict[str, Any]:
    packages = ("igc-dist", "torch", "lightning", "numpy", "zarr")
    return {
        "versions": {name: _version(name) for name in packages} | {"python": platform.python_version()},
        "platform": platform.platform(),
        "device": torch.cuda.get_device_name(world.device) if world.device.type == "cuda" else platform.processor() or platform.machine(),
        "ranks": world.size,
        "threads": torch.get_num_threads(),
        "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(started)),
        "seconds": round(time.time() - started, 3),
        **{name: str(value) for name, value in job.labels.items()},
    }


@cache
def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def attribute(
    model: torch.nn.Module,
    data: Any,
    *,
    method: str = "igc",
    statistics: Sequence[str] | None = None,
    baseline: Any = None,
    quadrature: str | Quadrature = "midpoint",
    n_steps: int = 32,
    target: Any = None,
    samples: bool = False,
    store: str | Path | None = None,
    seed: int = 0,
    forward: str | None = None,
    forward_kwargs: Mapping[str, Any] | None = None,
    output: Any = None,
    precision: str = "32-true",
    channels_last: bool = False,
    compiled: bool = False,
    final_layer: torch.nn.Module | str | None = None,
    embedding: str | None = None,
    embedding_kwargs: Mapping[str, Any] | None = None,
    n_categorical: int | None = None,
    categories: int | Sequence[int] | None = None,
    accelerator: str | None = None,
    num_workers: int = 0,
    stage: str = "test",
    threads: int | None = None,
    on_nonfinite: str = "fail",
    progress: bool = False,
    timeout: float = 1800.0,
    **limits: Any,
) -> xr.DataTree:
    """Attribute a task: fold attributions of a whole data set into maps, one per output.

    `model`: an `nn.Module` or `LightningModule`, handed back as it was. `data`: see `igc_dist.data.ensure`. `method`: a preset
    (igc, igac, ig_mean_std, ig, gradients, gradient_x_input); `statistics` overrides what it folds (correlation,
    autocorrelation, moments; all from one pass). `baseline`: None (zeros), a float, a tensor or tuple, an int K (K shared
    data samples), or an object of `igc_dist.baselines`. `quadrature`: a rule by name with `n_steps` gradient evaluations, or
    a `Quadrature`. `final_layer`: the last linear layer or its name, which makes many outputs cheap (`igc_dist.final`).
    `categories` (numbers of categories of the trailing inputs; attributions get a category axis) or `embedding` (a method of
    the model, with `embedding_kwargs`; attributions are to what it gives) serve categorical inputs: see `igc_dist.inputs`;
    `n_categorical` says how many are (None: all of integer type). `target`: None (all outputs), an int, a list, "one_hot", or
    `Targets`. `samples`: also keep every sample's attribution. `store`: a folder to keep the results in and to resume from;
    None keeps them in memory. `limits` are the fields of `plan.Limits` (n_folds, output_block, baseline_block, micro_batch,
    host_memory, ...).
    Under torchrun or srun all ranks share the work and each returns the same tree.

    Returns a tree with the layout of the store: ``tree["x/igc"]`` (output, *features), ``tree["correlation"]`` (output),
    ``tree["samples/x/attribution"]`` (sample, output, *features) in the order of the data.

    Raises `ConfigError`, `ModelError`, `DataError`, `NonFiniteError` (all `ValueError`s) and `StoreError`, with the value
    given and the way out; before any forward pass where it can be known then.
    """
    if on_nonfinite not in NONFINITE:
        raise ConfigError(f"on_nonfinite={on_nonfinite!r}: choose fail (with the sample's index) or skip (leave out and record)")
    wish = config.preset(method)
    rule = ensure(quadrature, n_steps)
    names = wish.statistics if statistics is None else list(statistics)
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
    job = Job(
        inputs=kind,
        source=sources.ensure(data, num_workers, stage),
        targets=targets.ensure(target),
        baseline=baselines.ensure(baseline),
        attributor=config.build_attributor(wish.attributor, rule),
        statistics=named_statistics(names),
        limits=limits_of(limits, list(inspect.signature(attribute).parameters)),
        samples=samples or wish.samples,
        seed=seed,
        skip=on_nonfinite == "skip",
        store=store,
        method=method,
    )
    accelerator = accelerator or {"cpu": "cpu", "cuda": "cuda", "mps": "mps"}.get(lent.device.type, lent.device.type)
    with joined(accelerator=accelerator, timeout=timeout, threads=threads) as world, metered(world, progress) as meter:
        done = run(job, world, meter)
    return tree(done.objects)
