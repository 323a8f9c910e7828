"""The rates of `igc_dist.planning.Machine`, fitted on one core: of the model, the store, the exchange, and of what each
shard, micro-batch, input, array and panel takes, whatever its size.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, fields, replace
from math import inf
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from scipy.optimize import least_squares, nnls
from torch import nn

import igc_dist
from igc_dist import data as sources
from igc_dist import inputs, report, results
from igc_dist import run as composition
from igc_dist.attributors import PathIntegral
from igc_dist.distributed import joined
from igc_dist.inputs import Walk
from igc_dist.job import named_statistics
from igc_dist.model import Model
from igc_dist.passes import passes_of, probe, reading, timed
from igc_dist.paths import rule
from igc_dist.planning import Machine, Plan, outlook_of
from igc_dist.records import Passes
from igc_dist.statistics import SCALAR_TERMS, Cells, Centre, feature_terms
from igc_dist.store import Store, layout
from tests.benchmarks.measure import busy
from tests.benchmarks.models import Task, Transformer, digits, resnet
from tests.ranks import run_ranks, values

DRAWN = 32
"""Outputs of a figure of the pages that are timed."""


def clock() -> Callable[[], float]:
    """The wall's; or of this process, if the machine is busy: other load would be taken for slowness. Waiting costs
    nothing then."""
    return time.process_time if busy() else time.perf_counter


# -- the model ---------------------------------------------------------------------------------------------------------


def perceptron(width: int) -> nn.Module:
    layers = [nn.Linear(784, width), nn.GELU(), nn.Linear(width, width), nn.Tanh(), nn.Linear(width, 10)]
    return nn.Sequential(nn.Flatten(), *layers).eval()


def fitted_on() -> Iterator[tuple[nn.Module, tuple[int, ...], tuple[int, ...]]]:
    """Models, the shapes of their inputs, and numbers of rows."""
    torch.manual_seed(0)
    yield digits(1).module, (1, 8, 8), (64, 256, 512)
    yield perceptron(256), (784,), (16, 128, 512)
    yield perceptron(1024), (784,), (16, 256)
    yield resnet(), (3, 64, 64), (4, 16, 64)
    yield resnet(width=32), (3, 64, 64), (4, 16)
    yield Transformer(), (3, 64, 64), (4, 16, 64)
    yield Transformer(width=192, blocks=4), (3, 64, 64), (4, 16)


def walked(module: nn.Module, x: Any) -> tuple[Walk, Passes]:
    """A walk of the first sample, and what the model does for one row."""
    kind = inputs.ensure(Model(module))
    with kind.model.borrowed("cpu"):
        one = tuple(each[:1] for each in x) if isinstance(x, tuple) else x[:1]
        walk = probe(kind, sources.ensure((one, torch.zeros(1, 10))).fetch(range(1)), torch.device("cpu"), True)
        return walk, passes_of(walk)


def compute_rates() -> tuple[dict[str, float], list[float]]:
    """Operators, FLOP/s and bytes/s by least squares, and the ratios of fitted over measured times."""
    rows, times = [], []
    for module, shape, sizes in fitted_on():
        walk, done = walked(module, torch.rand(1, *shape))
        for n in sizes:
            forward, gradient = timed(walk, n, 5, time.process_time)
            for tally, seconds in ((done.forward, forward), (done.gradient, gradient)):
                rows.append([tally.operators, n * tally.flops, n * tally.bytes])
                times.append(seconds)
    # of the logarithms of what is told over what is measured, in the logarithms of the rates: twice and half are as
    # wrong
    fit = least_squares(lambda rates: np.log(np.asarray(rows) @ np.exp(rates) / times), np.log([3e-5, 1e-11, 4e-10]))
    operator, flop, byte = np.exp(fit.x).tolist()
    return {"operator": operator, "flops": 1 / flop, "traffic": 1 / byte}, np.exp(fit.fun).tolist()


# -- the store, the exchange, the end ----------------------------------------------------------------------------------


def store_rates(folder: Path) -> dict[str, float]:
    """Bytes of states per second that are written, and read back."""

    def once(n_shards: int, features: int) -> tuple[float, float, int]:
        part, block = layout.Dim("part", n_shards, 1, 0), layout.Dim("output", 4, 4, 1)
        arrays = {
            "scalars": layout.array("shards/attribute/scalars", "float64", part, layout.Dim("term", 9), block),
            "x": layout.array(
                "shards/attribute/x/sums",
                "float64",
                part,
                layout.Dim("term", 2),
                block,
                layout.Dim("feature", features),
            ),
        }
        store = Store(folder / str(features), [layout.Phase("attribute", (n_shards, 1), arrays)], {}, "")
        store.prepare({}, {})
        random = np.random.default_rng(0)
        chunks = {name: random.standard_normal((1, *array.shape[1:])) for name, array in arrays.items()}
        now = clock()
        began = now()
        for number in range(n_shards):
            for name, chunk in chunks.items():
                store.write("attribute", number, name, chunk)
            store.commit("attribute", number)
        between = now()
        for number in range(n_shards):
            store.read_own("attribute", number, "x")
        return (between - began) / n_shards, (now() - between) / n_shards, chunks["x"].nbytes

    small, _, _ = once(100, 64)
    large, read, size = once(4, 2**20)
    return {"encode": size / (large - small), "decode": size / read}


def element_rate() -> float:
    """Seconds to finalize an element of the state of a fold: of 32 folds and IGC."""
    statistics = tuple(named_statistics(["correlation"]))
    terms = feature_terms(term for statistic in statistics for term in statistic.terms)
    random, zero = np.random.default_rng(0), np.zeros(4)
    scalars, sums = (
        1 + random.random((32, len(SCALAR_TERMS), 1, 4)),
        random.standard_normal((32, len(terms), 1, 4, 3, 64, 64)),
    )
    slots = results.Slots(Centre(y=zero, r=zero, b=zero), terms, scalars, (sums,))
    recipe = results.Recipe(statistics, PathIntegral(rule("midpoint", 2)), Cells(), complete=True)
    now = clock()
    began = now()
    results.block_of(slots, recipe)
    return (now() - began) / sums.size


def exchanged() -> list[float]:
    """Seconds of an exchange of nothing, and of 64 MiB that each of two ranks sends."""
    found = []
    with joined(threads=1, timeout=60) as world:
        for size in (1, 2**23):
            array = np.ones(size)
            world.sum(array)
            world.meet(str(size))
            began = time.perf_counter()
            for _ in range(3):
                world.sum(array)
            found.append((time.perf_counter() - began) / 3)
    return found


# -- what each shard, micro-batch, input, array and panel takes --------------------------------------------------------


class Added(nn.Module):
    """A sum of many inputs, one weight matrix each."""

    def __init__(self, n_inputs: int, features: int, outputs: int) -> None:
        super().__init__()
        self.heads = nn.ModuleList(nn.Linear(features, outputs) for _ in range(n_inputs))

    def forward(self, *inputs: torch.Tensor) -> torch.Tensor:
        return sum(head(x) for head, x in zip(self.heads, inputs, strict=True)).tanh()


def many(samples: int, features: int, outputs: int, n_inputs: int = 1) -> Task:
    """Tiny samples of one or many inputs."""
    torch.manual_seed(2)
    x = tuple(torch.rand(samples, features) for _ in range(n_inputs))
    module = Added(n_inputs, features, outputs).eval()
    return Task(f"many{n_inputs}", module, x if n_inputs > 1 else x[0], torch.randn(samples, outputs))


@dataclass(frozen=True)
class Timed:
    """A run, its plan, and the seconds of its parts: both passes, the end, and the page."""

    task: Task
    plan: Plan
    seconds: dict[str, float]


PARTS = ("predict", "attribute", "finalize")


def run_timed(task: Task, folder: Path, page: bool, **settings: Any) -> Timed:
    """Run a task in this process, with or without its page."""
    spent: dict[str, float] = {}
    plans: list[Plan] = []

    def clocked(part: str, original: Any) -> Any:
        def wrapped(whole: composition.Run, *arguments: Any) -> Any:
            plans.append(whole.plan)
            whole.world.meet(f"start of {part}")
            now = clock()
            began = now()
            done = original(whole, *arguments)
            spent[part] = now() - began
            return done

        return wrapped

    with ExitStack() as stack:
        for part in PARTS:
            stack.enter_context(patch.object(composition.Run, part, clocked(part, getattr(composition.Run, part))))
        igc_dist.attribute(task.module, (task.x, task.y), **settings, store=folder / "store", threads=1)
    if page:
        now = clock()
        began = now()
        report.write_report(igc_dist.open(folder / "store"), folder, DRAWN)
        spent["page"] = now() - began
    plan = replace(plans[0], work=replace(plans[0].work, page=DRAWN * page))
    return Timed(task, plan, spent)


FREE = Machine(
    **{one.name: 0.0 for one in fields(Machine)}
    | dict.fromkeys(("flops", "traffic", "encode", "decode", "disk", "bandwidth"), inf)
)
"""Where nothing takes time."""

OVERHEADS = ("batch", "part", "shard", "record", "end", "array", "page", "panel")
"""The rates that are fitted on whole runs."""


def told(plan: Plan, done: Passes, machine: Machine) -> list[float]:
    """The seconds of `Timed` on one rank."""
    found = outlook_of(plan, done, machine, 1)
    return [found.pass_1, found.pass_2.seconds, found.exchange + found.finalize, found.page]


def overheads(machine: Machine) -> dict[str, float]:
    """What is left of the times of some small runs beside what `machine` says of model, data and states.

    Each part of an outlook is linear in these rates: a machine where one of them is 1, and all else free, tells how
    often it counts. They are not negative, and relative errors count.
    """
    rows, rest = [], []
    tasks = {
        "warm up": (many(8, 4, 3), {"n_folds": 4}),
        "folds": (many(200, 20, 3), {"n_folds": 200}),
        "batches": (many(600, 20, 3), {"n_folds": 4, "micro_batch": 1}),
        "inputs": (many(16, 4, 3, n_inputs=80), {"n_folds": 8}),
        "panels": (many(64, 20, 32), {"n_folds": 4}),
    }
    for name, (task, settings) in tasks.items():
        with tempfile.TemporaryDirectory() as folder:
            run = run_timed(task, Path(folder), page=True, n_steps=2, **settings)
        walk, done = walked(task.module, task.x)
        size = max(run.plan.rows_per_pass)
        here = replace(machine.timed(done, size, *timed(walk, size, 3, clock())), **dict.fromkeys(OVERHEADS, 0.0))
        here = replace(here, sample=reading(sources.ensure((task.x, task.y)), 0.3, clock()))
        left = np.asarray([run.seconds[part] for part in (*PARTS, "page")])
        counts = np.transpose([told(run.plan, done, replace(FREE, **{one: 1.0})) for one in OVERHEADS])
        if name != "warm up":
            rows += list(counts / left[:, None])
            rest += list(np.maximum(0.0, 1 - np.asarray(told(run.plan, done, here)) / left))
    found, _ = nnls(np.asarray(rows), np.asarray(rest))
    return dict(zip(OVERHEADS, found.tolist(), strict=True))


def fitted() -> tuple[Machine, list[float]]:
    """The rates of this machine, and the ratios of fitted over measured times of models."""
    compute, ratios = compute_rates()
    latency, sending = np.max(values(run_ranks(2, exchanged, timeout=200.0)), 0)
    with tempfile.TemporaryDirectory() as folder:
        rest = store_rates(Path(folder))
    machine = Machine(**compute, **rest, bandwidth=2**26 / (sending - latency), latency=latency, element=element_rate())
    return replace(machine, **overheads(machine)), ratios
