"""A trial of the real model on this machine finds the fastest micro-batch and layout of convolutions.

It is opt-in, by `plan.trial` and `model.channels_last=auto`. Micro-batch and layout decide the rounding of gradients,
so the bits of such a run depend on a clock. The choice is part of the store's spec, as for any plan: a run that resumes
keeps it, whatever a new trial would find. It is remembered per model, shapes, device, precision, threads and version of
torch in ``$XDG_CACHE_HOME/igc-dist/trials.json`` (by default below ``~/.cache``), so the next run makes the same
choice.
"""

from __future__ import annotations

import copy
import hashlib
import json
import logging
import platform
import time
from collections.abc import Iterator
from dataclasses import replace
from math import inf
from pathlib import Path
from typing import Any

import torch
from torch import nn

from igc_dist import files
from igc_dist.distributed import World
from igc_dist.inputs import Walk
from igc_dist.job.job import Job
from igc_dist.job.planned import decided, plan_of
from igc_dist.job.spec import describe
from igc_dist.model import AUTO, footprint
from igc_dist.passes import probe
from igc_dist.planning import GIB, Plan, make_plan
from igc_dist.records import ConfigError, StoreError
from igc_dist.store import store

log = logging.getLogger(__name__)

LARGEST = 4096
"""The largest number of rows of a forward pass that is tried."""
OUTPUTS = 4
"""The largest number of outputs whose gradients are timed. All outputs cost the same."""
REPEATS = 3
"""The number of timed runs, after one warm-up. The fastest counts, because other load only adds time."""
SLOWER = 1.1
"""The trial ends at a micro-batch that is slower per row by this factor: its tensors no longer fit the caches."""

Choice = dict[str, Any]
"""The result of a trial: `micro_batch` and `channels_last`."""


def settled(job: Job, world: World) -> Job:
    """The job with the result of its trial; the job itself if it asks for no trial.

    The result comes from the store that the job resumes, else from memory, else from a trial of rank 0 for all ranks.
    """
    if not job.limits.trial and job.model.channels_last != AUTO:
        return job
    choice = world.share(lambda: _kept(job) or _chosen(job, world.device))
    kind, model = copy.copy(job.inputs), copy.copy(job.model)
    kind.model, model.channels_last = model, choice["channels_last"]
    return replace(job, inputs=kind, limits=replace(job.limits, micro_batch=choice["micro_batch"], trial=False))


def _kept(job: Job) -> Choice | None:
    """The choice in the store to be resumed, if it exists. Other code checks whether the store is of the same run."""
    if job.store is None:
        return None
    try:
        spec = store.attributes(job.store, also="shards/zarr.json")["spec"]
        rows = spec["plan"]["samples_per_batch"] * spec["plan"]["points_per_batch"]  # a plan makes the same batch of it
        layout = spec["model"]["channels_last"]
    except (StoreError, LookupError, TypeError):
        return None
    auto = job.model.channels_last == AUTO
    return {
        "micro_batch": rows if job.limits.trial else job.limits.micro_batch,
        "channels_last": layout if auto else job.model.channels_last,
    }


def _chosen(job: Job, device: torch.device) -> Choice:
    """The remembered choice. If there is none, the fastest choice, which is then remembered."""
    path, key = remembered(), _key(job, device)
    known = _read(path)
    found: Choice = known.get(key, {})
    if not _is_choice(found, job.limits.trial):
        best, found = inf, {"micro_batch": job.limits.micro_batch, "channels_last": False}
        for choice, seconds in _tried(job, device):
            log.info("trial: micro-batch %s, channels_last %s: %.3g s per row", *choice.values(), seconds)
            if seconds < best:
                best, found = seconds, choice
        if best < inf:
            _write(path, {**known, key: {**found, "model": type(job.model.module).__name__, "seconds_per_row": best}})
    log.info("trial: micro-batch %s, channels_last %s", found["micro_batch"], found["channels_last"])
    return {name: found[name] for name in ("micro_batch", "channels_last")}


def _tried(job: Job, device: torch.device) -> Iterator[tuple[Choice, float]]:
    """Yield every choice with its seconds per row: layout by layout, micro-batches from small to large."""
    wish, convolves = job.model.channels_last, any(isinstance(m, nn.Conv2d) for m in job.model.module.modules())
    layouts = [wish] if wish != AUTO else [False, True] if convolves else [False]
    if len(layouts) == 1 and not job.limits.trial:
        return
    few = job.source.look(range(min(4, len(job.source))))
    for layout in layouts:
        kind, model = copy.copy(job.inputs), copy.copy(job.model)
        kind.model, model.channels_last = model, layout
        limits = replace(job.limits, trial=False)
        with model.borrowed(device):
            plan = plan_of(
                decided(replace(job, inputs=kind, limits=limits), device), device, check=False
            )  # plans that are too large are not tried
            walk = probe(kind, few, device, job.attributor.baselines)
            best = inf
            for wished, made in _sizes(plan) if job.limits.trial else [(limits.micro_batch, plan)]:
                rows = made.samples_per_batch * made.points_per_batch
                model.fix((rows, rows))
                seconds = _seconds(walk, made, rows, device)
                if seconds < inf:
                    yield {"micro_batch": wished, "channels_last": layout}, seconds
                best = min(best, seconds)
                if seconds > SLOWER * best:
                    break


def _sizes(plan: Plan) -> Iterator[tuple[int, Plan]]:
    """Powers of two up to the limit of the memory model, with their plans, as long as the plans differ."""
    rows, before = 1, 0
    while rows <= LARGEST and plan.work.points:
        made = make_plan(plan.shapes, plan.work, replace(plan.limits, micro_batch=rows), plan.seed)
        memory, real = made.memory(), made.samples_per_batch * made.points_per_batch
        if (
            real <= before
            or memory["host"] > plan.limits.host_memory * GIB
            or memory["device"] > plan.limits.device_memory * GIB
        ):
            return
        yield rows, made
        rows, before = 2 * rows, real


def _seconds(walk: Walk, plan: Plan, rows: int, device: torch.device) -> float:
    """Seconds per row of a forward pass and the gradients that follow it; infinity if memory does not suffice."""
    outputs = list(plan.work.outputs[: plan.output_block])
    latent = walk.function.latent(outputs) if plan.work.gradients else None
    function, columns = (walk.function, outputs) if latent is None else (latent.model, latent.outputs)
    times = []
    try:
        points = tuple(x[:1].expand(rows, *x.shape[1:]).contiguous() for x in walk.inputs)
        for _ in range(1 + REPEATS):
            _wait(device)
            began = time.perf_counter()
            if plan.work.gradients:
                for _ in function.gradients(points, columns[:OUTPUTS]):
                    pass
            else:
                function.predict(points)
            _wait(device)
            times.append(time.perf_counter() - began)
    except (RuntimeError, MemoryError) as error:
        if not footprint.out_of_memory(error):
            raise
        return inf
    return min(times[1:]) / rows


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


# -- what is remembered ------------------------------------------------------------------------------------------------


def remembered() -> Path:
    """The file with the choices made on this machine."""
    return files.cache() / "trials.json"


def _key(job: Job, device: torch.device) -> str:
    """A hash of everything that affects the speed of a walk or limits the choice.

    Weights do not affect speed, so only their shapes are included.
    """
    model, sample = job.model, job.source.look([0])
    parts = {
        "model": [
            type(model.module).__qualname__,
            str(model.module),
            [(list(p.shape), str(p.dtype)) for p in model.module.parameters()],
        ],
        "call": [
            model.forward,
            describe(model.forward_kwargs),
            describe(model.output),
            model.precision,
            model.compiled,
            model.cuda_graphs,
            model.channels_last,
        ],
        "final": None if model.final is None else str(model.final.layer),
        "inputs": [job.inputs.describe(), [(list(x.shape), str(x.dtype)) for x in sample.inputs], len(job.source)],
        "walk": [
            describe(job.attributor),
            describe(type(job.baseline)),
            describe(job.targets.outputs),
            describe(job.limits),
        ],
        "statistics": [describe(s) for s in job.statistics],
        "machine": [
            torch.cuda.get_device_name(device)
            if device.type == "cuda"
            else f"{device.type} {platform.processor()} {platform.machine()}"
        ],
        "torch": [torch.__version__, torch.get_num_threads()],
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()


def _read(path: Path) -> dict[str, Any]:
    """The choices by key; empty if the file is missing or cannot be read."""
    try:
        found = json.loads(files.read(path))
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _is_choice(found: Any, sized: bool) -> bool:
    if not isinstance(found, dict) or not isinstance(found.get("channels_last"), bool) or "micro_batch" not in found:
        return False
    rows = found["micro_batch"]
    return (isinstance(rows, int) and not isinstance(rows, bool) and 1 <= rows <= LARGEST) or (
        rows is None and not sized
    )


def _write(path: Path, choices: dict[str, Any]) -> None:
    """Replace the file atomically. If the folder cannot be written, the run goes on without."""
    try:
        files.folder(path.parent)
        files.write(path, json.dumps(choices, indent=1, sort_keys=True).encode())
    except (OSError, ConfigError) as error:
        log.info("trial: not remembered, %s cannot be written (%s)", path, error)
