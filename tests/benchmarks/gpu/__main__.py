"""The engine on a CUDA device against a bare loop of forward passes and input gradients, for nets of timm with random
weights.

`python -m tests.benchmarks.gpu report.json` prints a line for each net and precision, and writes them with the card and
the versions.
"""

from __future__ import annotations

import json
import platform
import sys
import time
import traceback
from collections.abc import Callable
from contextlib import nullcontext
from datetime import date
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor, nn

import igc_dist
from igc_dist import run as composition
from igc_dist.demo import digits_cnn

NETS = ("vit_base_patch16_224", "resnet50", "convnext_base", "vit_large_patch16_224")
HALF = {"32-true": None, "bf16-mixed": torch.bfloat16}
OUTPUTS, STEPS, SAMPLES = 10, 16, 32
ROWS = (128, 256)


def net(name: str) -> nn.Module:
    """Random weights, as nothing is downloaded."""
    torch.manual_seed(0)
    if name == "digits":
        return digits_cnn().cuda()
    import timm

    return timm.create_model(name, num_classes=1000).eval().cuda()


def bare(module: nn.Module, x: Tensor, rows: int, outputs: int, half: torch.dtype | None) -> None:
    """As many rows through the model and one gradient per output, in passes of `rows` rows; nothing else."""
    module.requires_grad_(False)
    total = len(x) * STEPS
    for start in range(0, total, rows):
        points = x[torch.arange(start, min(start + rows, total), device=x.device) % len(x)].requires_grad_()
        with torch.autocast("cuda", dtype=half) if half else nullcontext():
            y = module(points)
        columns = y.float().unbind(1)[:outputs]
        for k, column in enumerate(columns):
            torch.autograd.grad(column.sum(), points, retain_graph=k < outputs - 1)


def timed(work: Callable[[], Any]) -> float:
    """Seconds of a call, with what it started on the device."""
    torch.cuda.synchronize()
    began = time.perf_counter()
    work()
    torch.cuda.synchronize()
    return time.perf_counter() - began


def walked(module: nn.Module, x: Tensor, y: Tensor, rows: int, outputs: int, precision: str) -> tuple[float, float]:
    """Seconds of pass 2, and of the whole call."""
    seconds: list[float] = []
    whole = composition.Run.attribute

    def clocked(*arguments: Any) -> Any:
        found: list[Any] = []
        seconds.append(timed(lambda: found.append(whole(*arguments))))
        return found[0]

    with patch.object(composition.Run, "attribute", clocked):
        total = timed(
            lambda: igc_dist.attribute(
                module,
                (x, y),
                n_steps=STEPS,
                n_folds=2,
                target=list(range(outputs)),
                micro_batch=rows,
                precision=precision,
                precision_audit=0,
                host_memory=64.0,
                device_memory=120.0,
            )
        )
    return seconds[0], total


def compared(name: str, precision: str) -> dict[str, Any]:
    """Gradients per second of the walk and of the bare loop, each at its best micro-batch."""
    module, small = net(name), name == "digits"
    shape, samples = ((1, 8, 8), 512) if small else ((3, 224, 224), SAMPLES)
    x = torch.rand(samples, *shape, generator=torch.Generator().manual_seed(0))
    y = torch.randn(samples, 10 if small else 1000, generator=torch.Generator().manual_seed(1))
    there, rows = x.cuda(), (512, 2048) if small else ROWS
    gradients = samples * STEPS * OUTPUTS
    theirs, ours = {}, {}
    for size in rows:
        bare(module, there[:8], size, OUTPUTS, HALF[precision])  # warm
        theirs[size] = timed(partial(bare, module, there, size, OUTPUTS, HALF[precision]))
    walked(module, x[:8], y[:8], rows[0], OUTPUTS, precision)  # warm
    torch.cuda.reset_peak_memory_stats()
    for size in rows:
        ours[size] = walked(module, x, y, size, OUTPUTS, precision)
    best, own = min(theirs, key=theirs.__getitem__), min(ours, key=ours.__getitem__)
    return {
        "net": name,
        "precision": precision,
        "engine_gradients_per_s": round(gradients / ours[own][0]),
        "bare_gradients_per_s": round(gradients / theirs[best]),
        "engine_over_bare": round(theirs[best] / ours[own][0], 3),
        "whole_call_s": round(ours[own][1], 2),
        "walk_s": round(ours[own][0], 2),
        "micro_batch": own,
        "bare_micro_batch": best,
        "peak_GiB": round(torch.cuda.max_memory_allocated() / 2**30, 2),
    }


def main(out: str) -> None:
    """All nets, most telling first; what fails is a line too."""
    about = {
        "card": torch.cuda.get_device_name(0),
        "date": date.today().isoformat(),
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "python": platform.python_version(),
    }
    lines: list[dict[str, Any]] = []
    for name, precision in [
        *((name, "bf16-mixed") for name in (*NETS, "digits")),
        *((name, "32-true") for name in ("digits", *NETS[:3])),
    ]:
        try:
            line = compared(name, precision)
        except Exception as error:
            traceback.print_exc()
            line = {"net": name, "precision": precision, "failed": f"{type(error).__name__}: {error}"[:300]}
        torch.cuda.empty_cache()
        lines.append(line)
        print(json.dumps(line), flush=True)
        Path(out).write_text(json.dumps({**about, "lines": lines}, indent=1))


if __name__ == "__main__":
    main(*sys.argv[1:])
