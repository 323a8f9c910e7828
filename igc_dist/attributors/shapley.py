"""Baseline Shapley: credit for switching components from the baseline to the input, one by one, in random order."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Int64
from torch import Tensor

from igc_dist.attributors.base import Attributor, Task
from igc_dist.baselines import check_positive
from igc_dist.seeds import Address
from igc_dist.tensors import Tensors


@dataclass(frozen=True)
class BaselineShapley(Attributor):
    """``BS_i = mean_b mean_pi [ f(z_(r_i + 1)) - f(z_(r_i)) ]`` (Sundararajan and Najmi 2020, arXiv:1908.08474).

    ``z_k`` has the first k components of the permutation pi at x and the others at the baseline x0_b; ``r_i`` is the
    place of component i in pi, counted from 0. The mean is over `n_iter` random permutations (Castro, Gomez and Tejada
    2009) of the components of all inputs together, drawn for each sample and each of its baselines. Complete for every
    permutation, as the sum over i telescopes: ``sum_i BS_i = f(x) - mean_b f(x0_b)`` to rounding. Equal to Integrated
    Gradients in expectation where no interaction is of more than two components.

    The points of a permutation do not depend on the model's outputs, so they are evaluated many at a time, for all
    outputs at once and without a gradient: P + 1 rows per permutation. Differences of predictions cancel, but keep the
    rounding of the predictions, so mixed precision is a poor choice here.

    Raises `ConfigError` if `n_iter` is less than 1.
    """

    n_iter: int = 8

    name = "bs"
    complete = True
    baselines = True
    gradients = False
    labels = {"correlation": "bsc"}  # noqa: RUF012 - a class constant of the base

    def __post_init__(self) -> None:
        check_positive("method.attributor.n_iter", self.n_iter)

    def points(self, features: Sequence[tuple[int, ...]]) -> int:
        return self.n_iter * (sum(int(np.prod(shape, dtype=np.int64)) for shape in features) + 1)

    def of(self, task: Task) -> Tensors:
        """As in the base class; `address` is needed, for the given baselines.

        Sums are kept in the type of the inputs: the rounding of the predictions is larger than that of the few sums.
        """
        if task.address is None:
            raise TypeError("BaselineShapley draws permutations: it needs the address of the batch")
        n, sizes = task.n, [x.shape[1:].numel() for x in task.inputs]
        samples = torch.arange(n, device=task.inputs[0].device)[:, None]
        total = task.inputs[0].new_zeros(len(task.outputs), n, sum(sizes))
        last = task.inputs[0].new_empty(0)
        for stretches in self._forwards(task.inputs, task.address, task.size):
            points = tuple(
                torch.cat([stretch.points(i, x, x0[stretch.baseline]) for stretch in stretches])
                for i, (x, x0) in enumerate(zip(task.inputs, task.baselines, strict=True))
            )
            c = len(points[0])
            predictions = task.model.predict(tuple(p.flatten(0, 1) for p in points))[:, task.outputs].unflatten(
                0, (c, n)
            )
            task.watch(c * n)
            for stretch, f in zip(stretches, predictions.split([len(s) for s in stretches]), strict=True):
                if stretch.start:  # its first step begins at the last point of the previous forward pass
                    f = torch.cat((last, f))
                # each component is switched once, so no element is met twice and the order of the sum is fixed on any
                # device
                total[:, samples, stretch.switched] += f.diff(dim=0).permute(2, 1, 0) * (task.share / self.n_iter)
                last = f[-1:].clone()
        return tuple(
            part.reshape(len(task.outputs), *x.shape).transpose(0, 1)
            for part, x in zip(total.split(sizes, dim=2), task.inputs, strict=True)
        )

    def _forwards(self, inputs: Tensors, address: Address, size: int) -> Iterator[list[_Stretch]]:
        """The content of each forward pass: stretches of one or more permutations, together `size` points.

        The last one may be shorter.
        """
        n, shapes = len(inputs[0]), [x.shape for x in inputs]
        sizes = [shape[1:].numel() for shape in shapes]
        stretches: list[_Stretch] = []
        room = size
        for b, number in enumerate(address.baselines):
            for draw in range(number * self.n_iter, (number + 1) * self.n_iter):
                drawn = [address.generator(k, "attributors.shapley", draw).permutation(sum(sizes)) for k in range(n)]
                order = torch.from_numpy(np.stack(drawn)).to(inputs[0].device)
                ranks = tuple(
                    r.reshape(shape) for r, shape in zip(order.argsort(1).split(sizes, dim=1), shapes, strict=True)
                )
                start = 0
                while start <= sum(sizes):
                    stop = min(start + room, sum(sizes) + 1)
                    stretches.append(_Stretch(b, order, ranks, start, stop))
                    room -= stop - start
                    start = stop
                    if not room:
                        yield stretches
                        stretches, room = [], size
        if stretches:
            yield stretches


@dataclass(frozen=True)
class _Stretch:
    """Points `start` to `stop` of the P + 1 points of one permutation per sample: point k has k components switched."""

    baseline: int
    order: Int64[Tensor, "n P"]
    """The component that is switched at each place."""
    ranks: Tensors
    """The place of each component: (n, *P_i) per input."""
    start: int
    stop: int

    def __len__(self) -> int:
        return self.stop - self.start

    @property
    def switched(self) -> Int64[Tensor, "n steps"]:
        """Components switched from the point before `start`, if there is one, to the last point."""
        return self.order[:, max(self.start - 1, 0) : self.stop - 1]

    def points(self, i: int, x: Tensor, x0: Tensor) -> Tensor:
        """The points of input i, (len, n, *P_i), between `x0`, (n or 1, *P_i), and `x`, (n, *P_i)."""
        k = torch.arange(self.start, self.stop, device=x.device).reshape(-1, *(1,) * x.ndim)
        return torch.where(self.ranks[i] < k, x, x0)
