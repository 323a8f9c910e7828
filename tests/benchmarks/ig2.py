"""IG² by the engine's walk, one forward for both gradients, against two loops: the descent first, then the gradients
along it."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from functools import partial

import torch
from torch import Tensor, nn

from igc_dist.attributors import IG2
from igc_dist.demo import Digits, digits_cnn
from igc_dist.model import Model
from tests.benchmarks.measure import Report, compared, report, seconds
from tests.benchmarks.models import images

STEPS, STEP_SIZE, OUTPUT = 50, 0.02, 3


def ours(module: nn.Module, layer: str, x: Tensor, reference: Tensor) -> Tensor:
    """IG² of one output, (n, *P), of samples with one reference each."""
    ig2 = IG2(layer, STEPS, STEP_SIZE)
    return ig2.attribute(Model(module), (x,), (reference[None],), [OUTPUT], share=1.0, size=1)[0][:, 0]


def two_loops(module: nn.Module, phi: Callable[[Tensor], Tensor], x: Tensor, reference: Tensor) -> Tensor:
    """The same as its authors lay it out, in the same batches: the path is kept, and its points go through the model
    again.

    They leave gradients to the parameters switched on, which each backward pass then forms as well; see `run`.
    """

    def gradient(total: Tensor, z: Tensor) -> Tensor:
        module.zero_grad()
        total.backward()
        assert z.grad is not None
        return z.grad

    with torch.no_grad():
        goal = phi(reference)
    path = [x]
    for _ in range(STEPS):
        z = path[-1].detach().requires_grad_()
        g = gradient((phi(z) - goal).square().sum(), z)
        path.append(path[-1] - STEP_SIZE * g / g.flatten(1).norm(dim=1).reshape(-1, *(1,) * (x.ndim - 1)))
    total = torch.zeros_like(x)
    for here, there in itertools.pairwise(path):
        z = here.detach().requires_grad_()
        g = gradient(module(z)[:, OUTPUT].sum(), z)
        total += g * (here - there)
    return total


def parts(module: nn.Module, x: Tensor) -> tuple[float, float]:
    """CPU seconds of a forward pass with a graph, and of one gradient to the inputs."""

    def forward() -> Tensor:
        return module(x.detach().requires_grad_())[:, OUTPUT].sum()

    def both() -> None:
        z = x.detach().requires_grad_()
        torch.autograd.grad(module(z)[:, OUTPUT].sum(), z)

    one, two = (min(seconds(work)[1] for _ in range(10)) for work in (forward, both))
    return one, two - one


def run() -> Iterator[Report]:
    """Time of the engine over that of two loops: as the authors have them, and, without a bound, with frozen
    parameters.

    `ideal`: (F + 2 V) / (2 F + 2 V), what sharing the forward alone can save at most, by the cost of a forward and of a
    gradient here.
    """
    residual, data, cnn = images(16), Digits(), digits_cnn()
    nets = {
        "digits": (cnn, "head.input", cnn.features, data.x[:256], data.x[256:512]),
        "resnet64": (
            residual.module,
            f"{len(residual.module) - 1}.input",
            residual.module[:-1],
            residual.x[:8],
            residual.x[8:],
        ),
    }
    for name, (module, layer, phi, x, reference) in nets.items():
        one, two = partial(ours, module, layer, x, reference), partial(two_loops, module, phi, x, reference)
        change = float((one() - two()).abs().max() / two().abs().max())
        size = {"samples": len(x), "steps": STEPS, "outputs": 1}
        yield report(f"ig2/{name}/difference", change, at_most=1e-2, **size)
        for kept in (True, False):
            module.requires_grad_(kept)
            f, v = parts(module, x)
            ideal = {} if kept else {"ideal": round((f + 2 * v) / (2 * f + 2 * v), 3)}
            bound = {"at_most": 0.7} if kept else {}
            yield report(f"ig2/{name}{'' if kept else '/frozen'}", **compared(one, two, 3), **bound, **size, **ideal)
