"""How well the outlook foretells runs that `rates` was not fitted on; and ImageNet x ViT-L on 512 ranks.

To renew the defaults of `igc_dist.planning.Machine`, copy what the line `outlook/rates` gives.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from igc_dist import data as sources
from igc_dist.model import footprint, passes
from igc_dist.passes import reading, timed
from igc_dist.planning import Limits, Machine, Outlook, Plan, Rates, Work, advised, make_plan, outlook_of, told
from igc_dist.records import Passes, Shapes
from tests.benchmarks.measure import ROOT, Report, busy, report
from tests.benchmarks.models import Task, Transformer, digits, images, patches, planned, resnet, vit_large
from tests.benchmarks.rates import DRAWN, clock, fitted, many, run_timed, walked

WITHIN = 1.5
"""A time is foretold if it is right within this factor."""


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
    if name == "many_folds":
        return many(1000, 20, 3), {"n_steps": 2, "n_folds": 1000}
    if name == "many_inputs":
        return many(24, 4, 4, n_inputs=150), {"n_steps": 2, "n_folds": 8}
    if name == "tiny_samples":
        return many(40_000, 4, 3), {"n_steps": 4}
    torch.manual_seed(1)
    wide = nn.Sequential(
        nn.Flatten(), nn.Linear(3 * 64 * 64, 48), nn.GELU(), nn.Linear(48, 40)
    ).eval()  # whose states take the time
    return Task(name, wide, torch.rand(256, 3, 64, 64), torch.randn(256, 40)), {
        "n_steps": 2,
        "n_folds": 16,
        "output_block": 20,
    }


HELD_OUT = ("digits", "resnet24", "vit128", "wide", "many_folds", "many_inputs", "tiny_samples")


def rank(folder: Path, name: str) -> None:
    """One rank of a run: writes the seconds of its parts."""
    torch.set_num_threads(1)
    task, settings = held_out(name)
    first = int(os.environ.get("RANK", "0")) == 0
    found = run_timed(task, folder, page=first, **settings)
    if first:
        (folder / "seconds").write_text(json.dumps(found.seconds))


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
    """The outlook, with reading and the model timed as `igc-dist plan` times them."""
    task, settings = held_out(name)
    walk, done = walked(task.module, task.x)
    limits = {key: value for key, value in settings.items() if key != "n_steps"}
    plan = planned(task, settings["n_steps"], **limits)
    plan = replace(plan, work=replace(plan.work, page=DRAWN))
    rows = min(max(plan.rows_per_pass), machine.rows(done, 0.3))
    here = machine.timed(done, rows, *timed(walk, rows, 3, clock()))
    here = replace(
        here, start=0.0, sample=reading(sources.ensure((task.x, task.y)), 0.3, clock())
    )  # a rank has started
    return outlook_of(plan, done, here, ranks)


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
                    for part in (
                        expected.pass_1,
                        expected.pass_2.seconds,
                        expected.exchange + expected.finalize,
                        expected.page,
                    )
                ],
                measured_s=[round(part, 3) for part in spent.values()],
                clock="cpu" if busy() else "wall",
            )
    yield from on_paper()


def on_paper() -> Iterator[Report]:
    """The outlook of ImageNet x ViT-L on 512 ranks, as it is planned and as is advised."""
    plan, done = large()
    machine = Machine(sample=5e-3).known(RANK)  # 5 ms to read and decode an image
    as_planned = outlook_of(plan, done, machine, NODES * DEVICES)
    lines = told(plan, done, Machine(sample=5e-3), RANK, NODES, DEVICES)
    yield report(
        "outlook/imagenet_vit_large/planned_h", as_planned.seconds / 3600, at_most=None, **lines, shards=plan.n_shards
    )
    better = advised(plan, done, machine, NODES * DEVICES)
    if better is not None:
        settings, found = better
        yield report("outlook/imagenet_vit_large/advised_h", found.seconds / 3600, settings=settings, **found.summary())


if __name__ == "__main__":
    rank(Path(sys.argv[1]), sys.argv[2])
