"""Whole runs on a card: all classes at once, Captum, and images from a folder."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import Dataset

import igc_dist
from igc_dist import data as sources
from igc_dist import inputs, targets
from igc_dist.attributors import PathIntegral
from igc_dist.job import Job, limits_of, named_statistics, plan_of
from igc_dist.model import Model
from igc_dist.passes import passes_of, probe, timed
from igc_dist.paths import Pairs
from igc_dist.planning import Machine, outlook_of
from tests.benchmarks.gpu.loops import best, walk_of
from tests.benchmarks.gpu.sizes import Size, images, net
from tests.benchmarks.measure import Report, report
from tests.card import Card

NET = "vit_base_patch16_224"
WHOLE = 50_000
"""Samples of ImageNet's validation set."""


class Noise(Dataset[tuple[Tensor, int]]):
    """Images that are drawn from a few, with a label each: reading them takes no time."""

    def __init__(self, n: int, size: Size) -> None:
        self.n, self.size = n, size
        self.images, _ = images(min(n, 64), size)

    def __len__(self) -> int:
        return self.n

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.images[index % len(self.images)].roll(index, 2), index % self.size.n_classes


def classes(card: Card, size: Size) -> Iterator[Report]:
    """IGC of all classes by pairs, and by `n_others=3`; and what 50,000 samples would take at that rate."""
    module = net(NET, card, size)
    for label, settings in (
        ("pairs", {"design": "pairs", "n_draws": 1}),
        ("n_others", {"design": "stratified", "n_draws": 1, "n_others": min(3, size.n_classes - 1)}),
    ):
        data = Noise(size.classes_n, size)

        def whole(settings: dict[str, object] = settings, data: Noise = data) -> None:
            igc_dist.attribute(
                module, data, target="one_hot", n_folds=8, precision="bf16-mixed", precision_audit=0,
                baseline=None if settings["design"] == "pairs" else igc_dist.baselines.Resampled(1),
                host_memory=96.0, device_memory=60.0, **settings,
            )  # fmt: skip

        seconds = card.once(whole)
        bound: dict[str, Any] = {"at_most": 60.0} if label == "pairs" else {}
        planned = {"hours_planned": round(hours_of_pairs(module, card, size), 3)} if label == "pairs" else {}
        yield report(
            f"classes/{label}", seconds, **bound, samples=size.classes_n, outputs=size.n_classes,
            hours_of_50000=round(seconds * WHOLE / size.classes_n / 3600, 3), **planned,
        )  # fmt: skip
        card.empty()


def hours_of_pairs(module: nn.Module, card: Card, size: Size) -> float:
    """What `igc-dist plan` tells of pairs of all samples on one such card, where the model was timed."""
    model = Model(module, precision="bf16-mixed")
    job = Job(
        inputs=inputs.ensure(model), source=sources.ensure(Noise(WHOLE, size)), targets=targets.ensure("one_hot"),
        baseline=igc_dist.baselines.Partners(), attributor=PathIntegral(design=Pairs(1)),
        statistics=named_statistics(["correlation"]),
        limits=limits_of({"n_folds": 8, "host_memory": 96.0, "device_memory": 60.0}),
    )  # fmt: skip
    with model.borrowed(card.device):
        plan = plan_of(job, card.device, check=False)
        walk = probe(job.inputs, job.source.look(range(1)), card.device, True)
        counted, machine = passes_of(walk), Machine()
        rows = min(max(plan.rows_per_pass), machine.rows(counted, 0.3))
        return outlook_of(plan, counted, machine.timed(counted, rows, *timed(walk, rows)), 1).seconds / 3600


def captum(card: Card, size: Size) -> Iterator[Report]:
    """IG of 10 outputs by Captum, at its best `internal_batch_size`, over the engine's walk."""
    if find_spec("captum") is None:
        print("captum is not installed (extra `bench`)", file=sys.stderr)
        return
    from captum.attr import IntegratedGradients

    some = replace(size, samples=size.captum_n, rows=size.captum_rows)
    walk = walk_of(NET, "bf16-mixed", card, some)
    walk.module.requires_grad_(False)
    ig, there = IntegratedGradients(walk.module), walk.x.to(card.device)

    def theirs(rows: int) -> float:
        def loop() -> None:
            with torch.autocast(card.kind, dtype=torch.bfloat16):
                for k in range(some.outputs):
                    ig.attribute(there, 0.0, target=k, n_steps=some.steps, internal_batch_size=rows)

        return card.once(loop)

    captums, their_rows = best(theirs, some.rows, some.repeats)
    ours, rows = best(lambda rows: walk.engine(card, some, rows), some.rows, some.repeats)
    yield report(
        f"captum/{NET}", captums / ours, at_least=1.5, samples=some.samples, outputs=some.outputs, nodes=some.steps,
        micro_batch=rows, internal_batch_size=their_rows,
    )  # fmt: skip


class Folder(Dataset[tuple[Tensor, int]]):
    """JPEGs of a folder, as float images."""

    def __init__(self, folder: Path, side: int) -> None:
        self.paths, self.side = sorted(folder.glob("*.jpg")), side

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        with Image.open(self.paths[index]) as image:
            pixels = np.asarray(image.convert("RGB").resize((self.side, self.side)), dtype=np.float32)
        return torch.from_numpy(pixels / 255).permute(2, 0, 1), index % 10


def loader(card: Card, size: Size) -> Iterator[Report]:
    """The share of a run that waits for a folder of JPEGs: time from the folder over time from memory, less one."""
    module = net("resnet50", card, size)
    with tempfile.TemporaryDirectory() as folder:
        random = np.random.default_rng(0)
        for k in range(size.jpegs):
            pixels = random.integers(0, 255, (size.side + 32, size.side + 32, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(Path(folder) / f"{k:05d}.jpg", quality=90)
        jpegs = Folder(Path(folder), size.side)
        loaded = [jpegs[k] for k in range(len(jpegs))]
        memory = torch.stack([x for x, _ in loaded]), torch.tensor([y for _, y in loaded])
        times = {}
        for label, data, workers in (("memory", memory, 0), ("thread", jpegs, 0), ("workers", jpegs, 4)):

            def whole(data: object = data, workers: int = workers) -> None:
                igc_dist.attribute(
                    module, data, target=igc_dist.Targets([0, 1], one_hot=True), n_steps=size.steps, n_folds=4,
                    precision="bf16-mixed", precision_audit=0, num_workers=0 if card.dry else workers,
                    host_memory=64.0, device_memory=60.0,
                )  # fmt: skip

            if label == "memory":
                card.once(whole)
            times[label] = card.once(whole)
    for label in ("thread", "workers"):
        yield report(f"loader/{label}", times[label] / times["memory"] - 1, samples=size.jpegs, nodes=size.steps)
