"""The interface of all path methods: walks yield their steps, and the caller weighs them."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from igc_dist.attributors.base import Attributor, Task
from igc_dist.tensors import Tensors, there


@dataclass(frozen=True)
class Step:
    """c consecutive steps of the walks of n samples for one output, or the place where a walk ends.

    `output`: its place among the requested outputs. `value` (c, n): the model's prediction for it where the gradients
    are taken. `gradients[i]` (c, n, *P_i): the gradients to input i. `moves[i]`, which broadcasts against them: how far
    the walk goes there, times the weight of its baseline. Both are empty where a walk ends; `value` is then the
    prediction there.
    """

    output: int
    value: Float[Tensor, "c n"]
    gradients: Tensors = ()
    moves: Tensors = ()

    def part(self, some: slice) -> Step:
        """Some of the steps, as copies, so that the others can be freed."""
        gradients = tuple(g[some].clone() for g in self.gradients)
        moves = tuple(m[some] if len(m) > 1 else m for m in self.moves)
        return Step(self.output, self.value[some].clone(), gradients, moves)


class Walk(Attributor):
    """The steps of a path per sample. By default ``a[n, j, i] = sum_c move[c, n, i] * d f_j(point[c, n]) / d x_i``.

    `outwards`: the walk leads from the input to the baseline, but its moves are those of the way back, so that they sum
    to ``x - x0`` as in other walks. `n_ending`: number of rows for the prediction where the walk ends.
    """

    outwards: ClassVar[bool] = False
    n_ending: ClassVar[int] = 1

    @abstractmethod
    def steps(self, task: Task, ends: bool = False) -> Iterator[Step]:
        """The steps, for each output in the order of its walk, one baseline after another.

        With `ends`, and one baseline at most, the last step of each output is the place where its walk ends, which may
        cost a forward pass.
        """

    def of(self, task: Task) -> Tensors:
        totals = task.zeros()
        for step in self.steps(task):
            for total, move, grad in zip(totals, step.moves, step.gradients, strict=True) if step.gradients else ():
                own = total[step.output]
                own.addcmul_(move[0], grad[0]) if len(grad) == 1 else own.add_((move * grad).sum(0))
        return tuple(total.transpose(0, 1) for total in totals)

    def arrived(self, task: Task) -> Iterator[Step]:
        """The last steps of walks that end at the inputs."""
        values = task.model.predict(task.inputs).index_select(1, there(list(task.outputs), task.inputs[0].device))
        task.watch(task.n)
        yield from (Step(j, values[None, :, j]) for j in range(len(task.outputs)))

    def rises(self, steps: Iterator[Step]) -> Iterator[tuple[Step, Float[Tensor, "c n"]]]:
        """Each step of `steps`, which include ends, with the output's rise over its moves, in the direction from x0.

        The rise of a step is known only with the next step, so the last step of a stretch waits. The rises of a walk
        sum to ``f(x) - f(x0)``, up to rounding.
        """
        waiting: dict[int, Step] = {}
        sign = -1 if self.outwards else 1
        for step in steps:
            if (last := waiting.pop(step.output, None)) is not None:
                yield last, sign * (step.value[:1] - last.value)
            if step.gradients:
                if len(step.value) > 1:
                    yield step.part(slice(None, -1)), sign * step.value.diff(dim=0)
                waiting[step.output] = step.part(slice(-1, None))


@dataclass(frozen=True)
class Points:
    """Some points of walks that are known before the model is called, for one forward pass.

    `points[i]` is (c, n, *P_i). Each gradient there is multiplied by `factors[i]`, which broadcasts against it; the sum
    over c is the attribution.
    """

    points: Tensors
    factors: Tensors


class Fixed(Walk):
    """Walks that do not depend on the model and are the same for all outputs."""

    def points(self, features: Sequence[tuple[int, ...]]) -> int:
        return 1

    @abstractmethod
    def course(self, task: Task) -> Iterator[Points]:
        """The walks of n samples, at most `size` points at a time."""

    def steps(self, task: Task, ends: bool = False) -> Iterator[Step]:
        n, values = task.n, torch.empty(0)

        def see(y: Tensor) -> None:
            nonlocal values
            values = y.detach()

        for part in self.course(task):
            c = len(part.points[0])
            for j, grads in task.model.gradients(tuple(p.flatten(0, 1) for p in part.points), task.outputs, see):
                yield Step(
                    j, values[:, j].unflatten(0, (c, n)), tuple(g.unflatten(0, (c, n)) for g in grads), part.factors
                )
            task.watch(c * n)
        if ends:
            yield from self.arrived(task)


def column(values: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """Numbers (c,), or (c, n), as (c, 1, 1, ...) or (c, n, 1, ...), with the type and device of `like` (c, n, *P)."""
    return there(values.to(like.dtype), like.device).reshape(*values.shape, *(1,) * (like.ndim - values.ndim))
