"""IG² by the engine's walk, one forward for both gradients, against two loops: the descent first, then the gradients along it."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from functools import partial

import torch
from torch import Tensor, nn

from igc_dist.attributors import IG2
from igc_dist.demo import Digits, digits_cnn
from igc_dist.model import Model
from tests.benchmarks.measure import Report, compared, report
from tests.benchmarks.models import images

STEPS, STEP_SIZE, OUTPUT = 100, 0.02, 3


def ours(module: nn.Module, layer: str, x: Tensor, reference: Tensor) -> Tensor:
    """IG² of one output, (n, *P), of samples with one reference each."""
    ig2 = IG2(layer, STEPS, STEP_SIZE)
    return ig2.attribute(Model(module), (x,), (reference[None],), [OUTPUT], share=1.0, size=1)[0][:, 0]


def two_loops(module: nn.Module, phi: Callable[[Tensor], Tensor], x: Tensor, reference: Tensor) -> Tensor:
    """The same as its authors lay it out, in the same batches: the path is kept, and its points go through the model again."""
    with torch.no_grad():
        goal = phi(reference)
    path = [x]
    for _ in range(STEPS):
        z = path[-1].detach().requires_grad_()
        (g,) = torch.autograd.grad((phi(z) - goal).square().sum(), z)
        path.append(path[-1] - STEP_SIZE * g / g.flatten(1).norm(dim=1).reshape(-1, *(1,) * (x.ndim - 1)))
    total = torch.zeros_like(x)
    for here, there in itertools.pairwise(path):
        z = here.detach().requires_grad_()
        (g,) = torch.autograd.grad(module(z)[:, OUTPUT].sum(), z)
        total += g * (here - there)
    return total


def run() -> Iterator[Report]:
    """Time of the engine over that of two loops; parameters are frozen in both, and only inputs are differentiated."""
    residual = images(16)
    digits = Digits()
    cnn = digits_cnn()
    nets = {
        "digits": (cnn, "head.input", cnn.features, digits.x[:64], digits.x[64:128]),
        "resnet64": (residual.module, f"{len(residual.module) - 1}.input", residual.module[:-1], residual.x[:8], residual.x[8:]),
    }
    for name, (module, layer, phi, x, reference) in nets.items():
        module.requires_grad_(False)
        one, two = partial(ours, module, layer, x, reference), partial(two_loops, module, phi, x, reference)
        first, second = one(), two()
        size = {"samples": len(x), "steps": STEPS, "outputs": 1}
        yield report(f"ig2/{name}", **compared(one, two, 3), at_most=0.7, **size)
        change = float((first - second).abs().max() / second.abs().max())
        yield report(f"ig2/{name}/difference", change, at_most=1e-2, **size)
