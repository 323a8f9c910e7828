"""The rates of `igc_dist.planning.Machine`, fitted on one core; how well they foretell runs; and ImageNet x
ViT-L on 512 ranks.

To renew the defaults of `Machine`, copy what the line `outlook/rates` gives.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from scipy.optimize import least_squares
from torch import nn

import igc_dist
from igc_dist import data as sources
from igc_dist import inputs, results
from igc_dist import run as composition
from igc_dist.attributors import PathIntegral
from igc_dist.distributed import joined
from igc_dist.job import named_statistics
from igc_dist.model import Model, footprint, passes
from igc_dist.passes import passes_of, probe
from igc_dist.paths import rule
from igc_dist.planning import Limits, Machine, Outlook, Plan, Rates, Work, advised, make_plan, outlook_of, told
from igc_dist.records import Passes, Shapes
from igc_dist.results import Finalizer
from igc_dist.statistics import SCALAR_TERMS, Cells, Centre, feature_terms
from igc_dist.store import Store, layout
from tests.benchmarks.measure import ROOT, Report, busy, report
from tests.benchmarks.models import Task, Transformer, digits, images, patches, planned, resnet, vit_large
from tests.ranks import run_ranks, values

WITHIN = 1.5
"""A time is foretold if it is right within this factor."""


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


def walked(module: nn.Module, x: torch.Tensor) -> tuple[Any, Passes]:
    """The function that is walked, and what it does for one row."""
    kind = inputs.ensure(Model(module))
    with kind.model.borrowed("cpu"):
        walk = probe(kind, sources.ensure((x[:1], torch.zeros(1, 10))).fetch(range(1)), torch.device("cpu"), True)
        return walk.function, passes_of(walk)


def compute_rates() -> tuple[dict[str, float], list[float]]:
    """Operators, FLOP/s and bytes/s by least squares, and the ratios of fitted over measured times."""
    rows, times = [], []
    for module, shape, sizes in fitted_on():
        function, done = walked(module, torch.rand(1, *shape))
        for n in sizes:
            forward, gradient = timed(function, torch.rand(n, *shape))
            for tally, seconds in ((done.forward, forward), (done.gradient, gradient)):
                rows.append([tally.operators, n * tally.flops, n * tally.bytes])
                times.append(seconds)
    # of the logarithms of what is told over what is measured, in the logarithms of the rates: twice and half are as
    # wrong
    fit = least_squares(lambda rates: np.log(np.asarray(rows) @ np.exp(rates) / times), np.log([3e-5, 1e-11, 4e-10]))
    operator, flop, byte = np.exp(fit.x).tolist()
    return {"operator": operator, "flops": 1 / flop, "traffic": 1 / byte}, np.exp(fit.fun).tolist()


def timed(function: Any, x: torch.Tensor, rounds: int = 5) -> tuple[float, float]:
    """CPU seconds of a forward pass, and of one gradient: the least, since other load only ever adds."""
    forward = gradient = float("inf")
    for _ in range(rounds):
        began, marks = time.process_time(), []
        for _ in function.gradients((x,), [0, 1, 2]):
            marks.append(time.process_time())
        gradient = min(gradient, marks[1] - marks[0], marks[2] - marks[1])
        forward = min(forward, marks[0] - began - gradient)
    return forward, gradient


# -- the store, the exchange, the end ----------------------------------------------------------------------------------


def store_rates(folder: Path) -> dict[str, float]:
    """Seconds of a small shard; bytes of states per second that are written, and read back."""

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
    return {"shard": small, "encode": size / (large - small), "decode": size / read}


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


def end_rate(folder: Path) -> float:
    """Seconds of the end of a run whose results are small."""
    task, seconds = digits(60), []

    whole = Finalizer.finalize

    def timed(*arguments: Any) -> None:
        now = clock()
        began = now()
        whole(*arguments)
        seconds.append(now() - began)

    with patch.object(Finalizer, "finalize", timed):
        for number in range(2):
            igc_dist.attribute(
                task.module, (task.x, task.y), n_steps=1, n_folds=2, store=folder / f"end {number}", threads=1
            )
    return min(seconds)


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


def fitted() -> tuple[Machine, list[float]]:
    """The rates of this machine."""
    compute, ratios = compute_rates()
    latency, sending = np.max(values(run_ranks(2, exchanged, timeout=200.0)), 0)
    with tempfile.TemporaryDirectory() as folder:
        rest = {**store_rates(Path(folder)), "end": end_rate(Path(folder))}
    return Machine(
        **compute, **rest, bandwidth=2**26 / (sending - latency), latency=latency, element=element_rate()
    ), ratios


# -- runs that were not fitted -----------------------------------------------------------------------------------------


def held_out(name: str) -> tuple[Task, dict[str, Any]]:
    """A task, and the settings of its run."""
    if name == "digits":
        return digits(1200), {"n_steps": 12, "n_folds": 24}
    if name == "resnet24":
        task = images(24)
        return Task(name, resnet(width=24), task.x, task.y), {"n_steps": 8, "n_folds": 8}
    if name == "vit128":
        task = patches(48)
        return Task(name, Transformer(width=128, blocks=2), task.x, task.y), {"n_steps": 8, "n_folds": 12}
    torch.manual_seed(1)
    wide = nn.Sequential(
        nn.Flatten(), nn.Linear(3 * 64 * 64, 48), nn.GELU(), nn.Linear(48, 40)
    ).eval()  # whose states take the time
    return Task(name, wide, torch.rand(256, 3, 64, 64), torch.randn(256, 40)), {
        "n_steps": 2,
        "n_folds": 16,
        "output_block": 20,
    }


HELD_OUT = ("digits", "resnet24", "vit128", "wide")


def rank(folder: Path, name: str) -> None:
    """One rank of a run: writes the seconds of both passes, and of the end."""
    torch.set_num_threads(1)
    task, settings = held_out(name)
    spent: dict[str, float] = {}

    def clocked(part: str, original: Any) -> Any:
        def wrapped(whole: composition.Run, *arguments: Any) -> Any:
            whole.world.meet(f"start of {part}")
            now = clock()
            began = now()
            done = original(whole, *arguments)
            spent[part] = now() - began
            return done

        return wrapped

    with contextlib.ExitStack() as stack:
        for part in ("predict", "attribute", "finalize"):
            wrapped = clocked(part, getattr(composition.Run, part))
            stack.enter_context(patch.object(composition.Run, part, wrapped))
        igc_dist.attribute(task.module, (task.x, task.y), **settings, store=folder / "store", threads=1)
    if int(os.environ.get("RANK", "0")) == 0:
        (folder / "seconds").write_text(json.dumps(spent))


def measured(name: str, ranks: int) -> dict[str, float]:
    """Seconds of the parts of a run on so many ranks of one thread."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(ranks)]
        done = subprocess.run(
            [*command, "-m", "tests.benchmarks.outlook", folder, name],
            capture_output=True, text=True, check=False, env={**os.environ, "OMP_NUM_THREADS": "1"}, cwd=ROOT,
        )  # fmt: skip
        if done.returncode:
            raise RuntimeError(f"{ranks} ranks failed: {done.stderr[-2000:]}")
        return json.loads((Path(folder) / "seconds").read_text())


def foretold(name: str, machine: Machine, ranks: int) -> Outlook:
    task, settings = held_out(name)
    _, done = walked(task.module, task.x)
    limits = {key: value for key, value in settings.items() if key != "n_steps"}
    plan = planned(task, settings["n_steps"], **limits)
    return outlook_of(plan, done, machine, ranks)


# -- on paper ----------------------------------------------------------------------------------------------------------

RANK = Rates(flops=4e14, bandwidth=2.5e10, disk=1e10)
"""An H100 in bfloat16 at 40 % of its peak, half of a 400 Gbit/s link, and a parallel file system."""
NODES, DEVICES = 64, 8


def large(**limits: Any) -> tuple[Plan, Passes]:
    """ImageNet's validation set x ViT-L/16 x 1,000 outputs: IGC from 32 nodes; memory and FLOPs counted on tensors
    without data."""
    with torch.device("meta"):
        module = vit_large().requires_grad_(False)

    def gradients(rows: int) -> Iterator[Any]:
        x = torch.empty(rows, 3, 224, 224, device="meta", requires_grad=True)
        y = module(x)
        for k in (0, 1):
            yield torch.autograd.grad(y[:, k].sum(), x, retain_graph=k == 0)

    two, four = (footprint.peak_of(lambda rows=rows: list(gradients(rows))) for rows in (2, 4))
    row = (four - two) // 2
    weights = sum(p.numel() * 4 for p in module.parameters())
    shapes = Shapes(50_000, 1000, ("x",), ((3, 224, 224),), 4, two - 2 * row, row, 2**30 + weights)
    work = Work(outputs=tuple(range(1000)), n_baselines=1, points=32, n_terms=2, on_device=True, ahead=True)
    budget = Limits(**{"host_memory": 64.0, "device_memory": 70.0, **limits})
    return make_plan(shapes, work, budget, 0), passes(lambda: gradients(1))


def run() -> Iterator[Report]:
    """Runs that were not fitted, foretold within 1.5 times, on one rank and on two; and a figure that is only
    printed."""
    machine, ratios = fitted()
    worst = max(max(ratio, 1 / ratio) for ratio in ratios)
    rates = {name: float(f"{value:.3g}") for name, value in asdict(machine).items() if np.isfinite(value)}
    yield report("outlook/rates", worst, **rates, note="value: the worst ratio of what was fitted")
    for name in HELD_OUT:
        for ranks in (1, 2):
            expected = foretold(name, machine, ranks)
            spent = measured(name, ranks)
            ratio = expected.seconds / sum(spent.values())
            yield report(
                f"outlook/{name}/{ranks}",
                max(ratio, 1 / ratio),
                at_most=WITHIN,
                foretold_over_measured=round(ratio, 3),
                foretold_s=[
                    round(part, 3)
                    for part in (expected.pass_1, expected.pass_2.seconds, expected.exchange + expected.finalize)
                ],
                measured_s=[round(part, 3) for part in spent.values()],
                clock="cpu" if busy() else "wall",
            )
    yield from on_paper()


def on_paper() -> Iterator[Report]:
    """The outlook of ImageNet x ViT-L on 512 ranks, as it is planned and as is advised."""
    plan, done = large()
    machine = Machine().known(RANK, 5e-3)  # 5 ms to read and decode an image
    as_planned = outlook_of(plan, done, machine, NODES * DEVICES)
    lines = told(plan, done, RANK, 5e-3, NODES, DEVICES)
    yield report(
        "outlook/imagenet_vit_large/planned_h", as_planned.seconds / 3600, at_most=None, **lines, shards=plan.n_shards
    )
    better = advised(plan, done, machine, NODES * DEVICES)
    if better is not None:
        settings, found = better
        yield report("outlook/imagenet_vit_large/advised_h", found.seconds / 3600, settings=settings, **found.summary())


if __name__ == "__main__":
    rank(Path(sys.argv[1]), sys.argv[2])
