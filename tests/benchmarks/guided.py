"""Guided IG: all samples of a micro-batch with one sort a step, against one sample at a time."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import torch

from igc_dist.attributors import GuidedIG
from igc_dist.model import Model
from tests.benchmarks.measure import Report, compared, report
from tests.benchmarks.models import digits


def run(samples: int = 64, at_once: int = 32, n_steps: int = 25) -> Iterator[Report]:
    """Digits, one output: samples a second, 32 side by side over one at a time, at least 8."""
    task, attributor = digits(samples), GuidedIG(n_steps)
    start = torch.zeros(1, 1, *task.x.shape[1:])
    with Model(task.module).borrowed("cpu") as model:

        def attribute(size: int) -> torch.Tensor:
            parts = [attributor.attribute(model, (x,), (start,), [3], share=1.0, size=1)[0] for x in task.x.split(size)]
            return torch.cat(parts)

        one, all_ = attribute(1), attribute(at_once)
        timed = compared(partial(attribute, 1), partial(attribute, at_once), 5)
    rate = samples / min(pair[0] for pair in timed["seconds"])
    details = {
        "samples": samples, "at_once": at_once, "steps": n_steps, "features": task.x[0].numel(),
        "samples_per_second": [round(rate, 1), round(rate * timed["value"], 1)],
        "difference": float((all_ - one).abs().max()),
    }  # fmt: skip
    yield report("guided/batched", **timed, at_least=8, **details)
