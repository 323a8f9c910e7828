"""Projected peak memory against the peak that a fresh process really reached, over configurations that differ in what
dominates."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import igc_dist
from igc_dist import baselines
from igc_dist import report as report_of
from igc_dist import run as composition
from igc_dist.attributors import IDG, IDGI, GuidedIG
from igc_dist.features import Patches
from igc_dist.metrics import Insertion, Lossy, MuFidelity, SensitivityN, Sic
from igc_dist.model import resident
from igc_dist.planning import Plan
from tests.benchmarks.measure import ROOT, Report, report
from tests.benchmarks.models import SEED, Task, digits, images, resnet

MIB = 2**20


@dataclass(frozen=True)
class Case:
    """A run: which task, and how it differs from the defaults."""

    task: str
    samples: int
    outputs: int = 10
    side: int = 64
    n_steps: int = 2
    in_memory: bool = False
    page: int = 0
    """Outputs of a figure of the page that is written after the run, at most."""
    arguments: dict[str, Any] = field(default_factory=dict)


CASES = {
    "digits": Case("digits", 600, n_steps=32),
    "convolutions": Case("resnet64", 32, n_steps=8, arguments={"n_folds": 4}),
    "one_big_batch": Case("resnet64", 128, n_steps=1, arguments={"n_folds": 1, "micro_batch": 128}),
    "many_outputs": Case("resnet64", 16, outputs=100, arguments={"n_folds": 8}),
    "wide_state": Case("linear", 64, outputs=50, side=128, arguments={"n_folds": 4}),
    "many_folds": Case("linear", 96, outputs=20, side=64, arguments={"n_folds": 96}),
    "cut_finalize": Case("linear", 128, outputs=40, side=64, arguments={"n_folds": 128, "host_memory": 1.5}),
    "samples": Case("linear", 128, outputs=20, side=64, arguments={"n_folds": 4, "samples": True}),
    "many_baselines": Case(
        "linear", 128, outputs=5, side=96, arguments={"n_folds": 2, "baseline": baselines.Resampled(16)}
    ),
    "baseline_blocks": Case(
        "linear", 64, outputs=20, side=64, arguments={"n_folds": 16, "baseline": 8, "baseline_block": 2}
    ),
    "float64": Case("linear", 128, outputs=20, side=64, arguments={"n_folds": 4, "precision": "64-true"}),
    "all_statistics": Case(
        "linear",
        64,
        outputs=20,
        side=64,
        arguments={"n_folds": 32, "statistics": ["correlation", "autocorrelation", "moments"]},
    ),
    "moments": Case("linear", 256, outputs=20, side=96, arguments={"n_folds": 4, "statistics": ["moments"]}),
    "slices": Case("linear", 128, outputs=10, side=64, arguments={"n_folds": 8, "slices": torch.arange(128) % 4}),
    "t_test": Case("linear", 128, outputs=10, side=64, arguments={"n_folds": 8, "method": "naive_ttest"}),
    "reduced": Case("linear", 256, outputs=50, side=96, arguments={"n_folds": 4, "reduce": Patches(16)}),
    "forward_mode": Case("resnet64", 32, outputs=500, arguments={"n_folds": 4, "reduce": Patches(16)}),
    "audited": Case("resnet64", 32, n_steps=8, arguments={"n_folds": 4, "precision_audit": 4, "precision_tol": None}),
    "pairs": Case("resnet64", 128, arguments={"design": "pairs", "n_draws": 4}),
    "pairs_of_wide_inputs": Case(
        "linear", 256, outputs=10, side=128, arguments={"design": "importance_pairs", "n_draws": 4}
    ),
    "some_outputs": Case(
        "labels", 128, outputs=500, side=32, n_steps=4, arguments={"n_others": 3, "n_folds": 4, "target": "one_hot"}
    ),
    "control_variate": Case(
        "linear",
        128,
        outputs=10,
        side=64,
        arguments={
            "n_folds": 4,
            "baseline": baselines.Resampled(4),
            "statistics": ["correlation", "controlled_correlation"],
        },
    ),
    "guided": Case(
        "linear", 64, outputs=5, side=96, arguments={"n_folds": 2, "method": "guided_igc", "attributor": GuidedIG(3)}
    ),
    "idgi": Case(
        "linear", 128, outputs=10, side=96, arguments={"n_folds": 2, "method": "idgic", "attributor": IDGI(n_steps=4)}
    ),
    "idg": Case("linear", 64, outputs=5, side=96, arguments={"n_folds": 2, "method": "idg", "attributor": IDG(4)}),
    "latents": Case("resnet64", 16, outputs=200, arguments={"n_folds": 4, "final_layer": "13"}),
    "store_in_memory": Case("linear", 128, outputs=20, side=64, in_memory=True, arguments={"n_folds": 64}),
    "tables": Case(
        "labels", 20_000, outputs=1000, side=4, n_steps=1, arguments={"n_others": 3, "n_folds": 4, "host_memory": 0.75}
    ),
    "large_tables": Case("labels", 100_000, outputs=1000, side=4, n_steps=1, arguments={"n_others": 3}),
    "tables_in_float64": Case(
        "labels",
        20_000,
        outputs=1000,
        side=4,
        n_steps=1,
        arguments={"n_folds": 1, "n_others": 3, "precision": "64-true"},
    ),
    "tables_of_samples": Case("tiny", 20_000, outputs=100, n_steps=1, arguments={"n_folds": 2, "samples": True}),
    "tables_for_pairs": Case(
        "labels", 20_000, outputs=500, side=4, arguments={"design": "importance_pairs", "n_draws": 1, "n_folds": 4}
    ),
    "tiny_samples": Case("tiny", 200_000, outputs=100, n_steps=3),
    "tiny_samples_in_memory": Case("tiny", 200_000, outputs=20, n_steps=1, in_memory=True),
    "images": Case("images", 32, side=224, n_steps=4),
    "insertion": Case("linear", 128, outputs=20, side=96, arguments={"n_folds": 2, "metrics": [Insertion()]}),
    "blurred": Case("resnet64", 64, arguments={"n_folds": 2, "metrics": [Insertion(start="blurred")]}),
    "sic": Case(
        "linear", 32, outputs=8, side=96, arguments={"n_folds": 2, "metrics": [Sic(fill="bokeh", measure="png")]}
    ),
    "lossy": Case("linear", 128, outputs=20, side=96, arguments={"n_folds": 2, "metrics": [Lossy(qualities=(75,))]}),
    "mufidelity": Case("linear", 32, outputs=8, side=96, arguments={"n_folds": 2, "metrics": [MuFidelity()]}),
    "subsets_of_few_features": Case(
        "tiny", 2000, outputs=20, n_steps=1, arguments={"n_folds": 4, "metrics": [SensitivityN()]}
    ),
    "many_inputs": Case("inputs", 64, outputs=4, arguments={"n_folds": 8}),
    "page_of_many_inputs": Case("inputs", 16, outputs=4, page=32, arguments={"n_folds": 4}),
    "page_of_images": Case("linear", 8, outputs=32, side=224, n_steps=1, page=32, arguments={"n_folds": 4}),
    "page_of_many_outputs": Case("linear", 16, outputs=1000, side=32, n_steps=1, page=32, arguments={"n_folds": 4}),
    "page_of_samples": Case("tiny", 20_000, outputs=100, n_steps=1, page=32, arguments={"n_folds": 2, "samples": True}),
    "page_of_many_cells": Case("tiny", 40_000, outputs=100, n_steps=1, page=32, arguments={"n_folds": 4}),
    "many_patches": Case("patches", 5000, outputs=1000, side=14, n_steps=1, arguments={"final_layer": "3"}),
    "one_sample": Case("resnet64", 1),
    "two_samples": Case("resnet64", 2),
}


class Added(nn.Module):
    """A sum of 300 inputs, one weight matrix each."""

    n_inputs = 300

    def __init__(self, outputs: int) -> None:
        super().__init__()
        self.heads = nn.ModuleList(nn.Linear(4, outputs) for _ in range(self.n_inputs))

    def forward(self, *inputs: Tensor) -> Tensor:
        return sum(head(x) for head, x in zip(self.heads, inputs, strict=True)).tanh()


def task_of(case: Case) -> Task:
    """The net and the data of a case; `linear` has inputs (3, side, side) and hardly any activations."""
    if case.task == "digits":
        return digits(case.samples)
    if case.task == "resnet64":
        return images(case.samples, case.outputs)
    torch.manual_seed(SEED)
    if case.task == "images":
        x, y = torch.rand(case.samples, 3, case.side, case.side), torch.randn(case.samples, case.outputs)
        return Task("images", resnet(case.outputs), x, y)
    if case.task == "inputs":
        many = tuple(torch.rand(case.samples, 4) for _ in range(Added.n_inputs))
        return Task("inputs", Added(case.outputs).eval(), many, torch.randn(case.samples, case.outputs))
    if case.task == "tiny":
        module = nn.Sequential(nn.Linear(4, case.outputs), nn.Tanh()).eval()
        return Task("tiny", module, torch.rand(case.samples, 4), torch.randn(case.samples, case.outputs))
    if case.task == "patches":  # what is left of images and of a large net: 14 x 14 patches, few latents
        module = nn.Sequential(nn.Flatten(), nn.Linear(case.side**2, 16), nn.Tanh(), nn.Linear(16, case.outputs))
        x, y = torch.rand(case.samples, case.side, case.side), torch.arange(case.samples) % case.outputs
        return Task("patches", module.eval(), x, y)
    x = torch.rand(case.samples, 3, case.side, case.side)
    y = torch.randn(case.samples, case.outputs) if case.task != "labels" else torch.arange(case.samples) % case.outputs
    module = nn.Sequential(nn.AvgPool2d(4), nn.Flatten(), nn.Linear(3 * (case.side // 4) ** 2, case.outputs), nn.Tanh())
    return Task("linear", module.eval(), x, y)


def peak() -> int:
    """Most bytes that this process ever held. Not `getrusage`, which shows the parent's if that was larger at the
    fork."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) * 1024


def measure(name: str) -> dict[str, int]:
    """Run a case in this process: projected and measured peak, and what was held before the run."""
    torch.set_num_threads(1)
    case, plans, original = CASES[name], [], composition.plan_of

    def planned(*arguments: Any, **keywords: Any) -> Plan:
        plan = original(*arguments, **keywords)
        plans.append(replace(plan, work=replace(plan.work, page=case.page)))
        return plan

    composition.plan_of = planned
    task = task_of(case)
    before = resident()
    with tempfile.TemporaryDirectory() as folder:
        store = None if case.in_memory else Path(folder) / "store"
        igc_dist.attribute(task.module, (task.x, task.y), n_steps=case.n_steps, store=store, **case.arguments)
        if case.page:
            report_of.write_report(igc_dist.open(store), folder, case.page)
    return {"projected": plans[0].memory()["host"], "measured": peak(), "before": before}


def in_fresh_process(name: str) -> dict[str, int]:
    """`measure` in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.benchmarks.memory", name], capture_output=True, text=True, check=False, cwd=ROOT
    )
    if done.returncode:
        raise RuntimeError(f"memory case {name} failed: {done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def run() -> Iterator[Report]:
    """Projected over measured, never below 1 and at most 1.5."""
    with ThreadPoolExecutor(2) as pool:  # memory does not mind company
        measured = dict(zip(CASES, pool.map(in_fresh_process, CASES), strict=True))
    for name, found in measured.items():
        line = report(
            f"memory/{name}",
            found["projected"] / found["measured"],
            at_most=1.5,
            of_what_the_run_adds=round(
                (found["projected"] - found["before"]) / max(found["measured"] - found["before"], 1), 3
            ),
            **{f"{key}_mib": round(value / MIB) for key, value in found.items()},
        )
        yield line | {"ok": line["ok"] and line["value"] >= 1}


if __name__ == "__main__":
    print(json.dumps(measure(sys.argv[1])))
