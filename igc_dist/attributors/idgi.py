"""Important Direction Gradient Integration: squared gradients divide the output's rise over each step of a walk."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from igc_dist.attributors.around import Around
from igc_dist.attributors.base import Task
from igc_dist.attributors.path_integral import PathIntegral
from igc_dist.attributors.walk import Step, Walk, column
from igc_dist.paths import rule
from igc_dist.records import ConfigError, Price
from igc_dist.tensors import Tensors

N_STEPS = 128
"""Default number of steps on a path without steps of its own, as in the originals."""


@dataclass(frozen=True)
class IDGI(Around):
    """``IDGI_i = mean_b sum_k d_k g_ki**2 / ||g_k||**2`` with ``d_k = f(x_k+1) - f(x_k)``.

    x_0 ... x_K are the points of another walk (Yang, Wang, Bilgic 2023, arXiv 2303.14242).

    g_k is the gradient where step k begins, and its norm is over all features of all inputs. On a walk outwards from x,
    as that of IG², g_k is taken at the end of the step nearer to x, and d_k counts from its other end. The walk is that
    of `attributor`: Integrated Gradients, or any other complete one. If the points of its path are known before
    the model is called, they are `n_steps` (128) equal steps of its own parameter, whatever rule the walk had, because
    gradients are needed where steps begin. Walks that make their own steps leave `n_steps` out.

    Complete to rounding at any number of steps: ``sum_i IDGI_i = f(x) - mean_b f(x0_b)``, as the d_k telescope and the
    last one leads to x. If the gradient of a step is 0, no feature can receive its d_k. Such a step is left out, never
    0 / 0, and the completeness residual of the sample (`delta`) shows the missing amount. A gradient with NaN or
    infinity makes the whole sample NaN.

    Not invariant to the units of features: with x_i in units s times as small, its g_i**2 is s**2 times as small, and
    so roughly is its share of each d_k; standardise features that are not pixels. Not linear in f. Raises `ConfigError`
    for walks that are not complete or that draw their nodes, and for an `n_steps` that is invalid or not for this walk.
    """

    attributor: Walk = field(default_factory=PathIntegral)
    n_steps: int | None = None

    complete = True
    linear = False

    def __post_init__(self) -> None:
        walk, n = self.attributor, self.n_steps
        if not isinstance(walk, Walk) or not walk.complete:
            raise ConfigError(
                f"method.attributor.attributor={getattr(walk, 'name', walk)!r}: IDGI needs a complete walk, such as "
                "PathIntegral, whose "
                "steps lead from a baseline to the input: give one"
            )
        if n is not None and (isinstance(n, bool) or not isinstance(n, int) or n < 1):
            raise ConfigError(f"method.attributor.n_steps={n!r}: give an integer of at least 1")
        if getattr(walk, "design", None) is not None:
            raise ConfigError(
                "design with attributor 'idgi': nodes that are drawn are not the points of a walk whose steps follow "
                "each other, "
                "take design=grid, and no design in method.attributor.attributor"
            )
        if any(f.name == "quadrature" for f in fields(walk)):  # type: ignore[arg-type]
            left = rule("left", N_STEPS if n is None else n)
            object.__setattr__(self, "attributor", replace(walk, quadrature=left))  # type: ignore[type-var]
        elif n is not None:
            raise ConfigError(
                f"method.attributor.n_steps={n}: the walk of {walk.name!r} makes its own steps, set "
                "method.attributor.attributor.n_steps"
            )

    @property
    def name(self) -> str:  # type: ignore[override]
        return "idgi" if self.attributor.name == "ig" else f"idgi_{self.attributor.name}"

    @property
    def halved(self) -> IDGI | None:
        # complete to rounding with any number of steps: only other steps show whether there are enough
        walk: Any = self.attributor
        if any(f.name == "quadrature" for f in fields(walk)):
            return replace(self, n_steps=max(1, (self.n_steps or N_STEPS) // 2))
        return replace(self, attributor=replace(walk, n_steps=max(1, walk.n_steps // 2)))

    @property
    def doubled(self) -> IDGI | None:
        if any(f.name == "quadrature" for f in fields(self.attributor)):  # type: ignore[arg-type]
            return replace(self, n_steps=2 * (self.n_steps or N_STEPS))
        return super().doubled

    @property
    def labels(self) -> dict[str, str]:  # type: ignore[override]
        return {"correlation": f"{self.name}c"}

    @property
    def held(self) -> int:  # type: ignore[override]
        return self.attributor.held + 2  # copies of the current steps, and their shares

    def price(self, features: Sequence[tuple[int, ...]]) -> Price:
        """The cost of the walk, of the prediction where it ends, and of holding the last step of each output."""
        walk = self.attributor.price(features)
        return replace(walk, rows=walk.rows + self.attributor.n_ending, sums=walk.sums + 1)

    def of(self, task: Task) -> Tensors:
        totals = task.zeros()
        for one in task.alone():
            for step, rise in self.attributor.rises(_bare(self.attributor.steps(one, ends=True))):
                for total, part in zip(totals, shares(step.gradients), strict=True):
                    total[step.output] += part.mul_(column(task.share * rise, part)).sum(0)
        return tuple(total.transpose(0, 1) for total in totals)


def _bare(steps: Iterator[Step]) -> Iterator[Step]:
    """Steps without their moves, which are not needed, and with float64 predictions, so that rises telescope."""
    for step in steps:
        yield Step(step.output, step.value.double(), step.gradients)


def shares(gradients: Tensors) -> tuple[Float[Tensor, "c n ..."], ...]:
    """``g_i**2 / ||g||**2`` of each point in float64, (c, n, *P) per input.

    0 if all of g is 0; NaN if any of it is not finite.
    """
    rows = [g.to(torch.float64, copy=True).reshape(*g.shape[:2], -1) for g in gradients]
    # squares of numbers of at most 1 do not overflow, and not all of them vanish
    top = torch.stack([own.abs().amax(2) for own in rows]).amax(0)
    top = torch.where(top == 0, 1.0, top)[..., None]
    norm = torch.stack([own.div_(top).square_().sum(2) for own in rows]).sum(0)
    norm = torch.where(norm == 0, 1.0, norm)[..., None]
    return tuple(own.div_(norm).reshape(g.shape) for own, g in zip(rows, gradients, strict=True))
