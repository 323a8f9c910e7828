"""IG²: Integrated Gradients along the descent of an input towards references, as the model represents them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from math import isfinite
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from igc_dist.attributors.base import Task
from igc_dist.attributors.walk import Step, Walk
from igc_dist.baselines import check_positive
from igc_dist.model import PRECISIONS, Model
from igc_dist.records import ConfigError, Price
from igc_dist.tensors import Tensors

ROUNDING = 16
"""A representation is at its reference if it differs by at most this number of units in the last place."""


@dataclass(frozen=True)
class IG2(Walk):
    """``IG²_i = mean_r sum_t (x_t - x_(t+1))_i * d f(x_t) / d x_i`` along the GradPath (Zhuo and Ge 2024,
    arXiv:2406.10852, eq. 3):

        x_0 = x,   x_(t+1) = clip( x_t - step_size * g_t / max(||g_t||_2, epsilon) ),   t = 0 ... n_steps - 1,
        g_t = d D / d x (x_t),   D(z) = || phi(z) - phi(x_r) ||_2**2,

    for each of the references x_r, which are the baselines that it gets; the norm is over the features of all inputs.
    The last point, GradCF, is the baseline: ``sum_i IG²_i = f(x) - mean_r f(GradCF_r)`` up to the error of a sum of
    first order. The model's prediction there is noted. So the baseline term of a correlation, which is not 0 on average
    here, is known.

    phi is the `layer` of the module (`representation.Reading`): "fc.input", the input of the layer fc, as in the paper;
    "body", the output of body; or a method that the forward calls. One forward serves D and f. Everything is
    differentiated through the preprocessing inside the model: steps and attributions are in the units of the input.
    Only the last point of the path is kept, in float64.

    `step_size`: in units of the input, so it has no default. The authors use: 256 in images of 268,203 numbers from 0
    to 255 with 201 steps, 0.01 in word embeddings with 501, 0.05 in wafer maps from 0 to 1 with 1001. `clip`: lowest
    and highest value of a feature; the data must lie between them as well. `stop`: a path ends where ``D <= stop *
    D_0``. With 0 it ends only after `n_steps`; but steps keep their length, so a path that has reached its reference
    moves to and fro around it, which amplifies rounding.

    A path also ends if it is at the reference, up to rounding (if x itself is there, the attribution is 0), or if it
    cannot move: ``||g|| <= epsilon``, or `clip` holds it. A path that cannot move before it reaches the reference, or
    the distance of `stop`, has failed. `evaluations` are the steps of a sample. Rows that have ended cost nothing more,
    and change nothing for others.

    Raises `ConfigError` for settings out of range; `ConfigError` or `ModelError` for a layer that cannot be read.
    """

    layer: str = ""
    n_steps: int = 201
    step_size: float = 0.02
    clip: Sequence[float] | None = None
    epsilon: float = 1e-12
    stop: float = 0.0

    name = "ig2"
    complete = True
    baselines = True
    linear = False
    certified = True
    own_baseline = True
    outwards = True
    n_ending = 0  # the prediction there is noted in any case
    held = 4
    labels = {"correlation": "ig2c"}  # noqa: RUF012 - a class constant of the base

    def __post_init__(self) -> None:
        if not self.layer or not isinstance(self.layer, str):
            raise ConfigError(
                f"method.attributor.layer={self.layer!r}: name the layer whose representation leads the path: the "
                "input of the last layer "
                "(fc.input), a submodule (its output), or a method that the forward calls"
            )
        check_positive("method.attributor.n_steps", self.n_steps)
        if not _number(self.step_size) or not self.step_size > 0:
            raise ConfigError(
                f"method.attributor.step_size={self.step_size!r}: give a length above 0, in units of the input"
            )
        if not _number(self.epsilon) or not self.epsilon > 0:
            raise ConfigError(f"method.attributor.epsilon={self.epsilon!r}: give a number above 0")
        if not _number(self.stop) or not 0 <= self.stop < 1:
            raise ConfigError(
                f"method.attributor.stop={self.stop!r}: give a part of the first squared distance, from 0 to below 1"
            )
        if self.clip is not None and not (
            len(self.clip) == 2 and all(map(_number, self.clip)) and self.clip[0] < self.clip[1]
        ):
            raise ConfigError(
                f"method.attributor.clip={self.clip!r}: give the lowest and the highest value of a feature, or null"
            )

    @property
    def rule(self) -> str:
        return f"{self.n_steps} steps of {self.step_size:g} towards {self.layer}"

    @property
    def doubled(self) -> IG2:
        return replace(self, n_steps=2 * self.n_steps, step_size=self.step_size / 2)

    def prove(self, model: Model, inputs: Tensors) -> None:
        _, z = model.represent(inputs, self.layer)
        model.towards(inputs, z, self.layer, [])

    def points(self, features: Sequence[tuple[int, ...]]) -> int:
        return self.n_steps

    def price(self, features: Sequence[tuple[int, ...]]) -> Price:
        """The largest cost: the reference, the steps and GradCF; a gradient of D at each step, and one per output."""
        return Price(rows=self.n_steps + 2, gradients=self.n_steps, gradients_per_output=self.n_steps)

    def steps(self, task: Task, ends: bool = False) -> Iterator[Step]:
        for start in range(0, len(task.baselines[0]), task.size):
            some = tuple(x0[start : start + task.size] for x0 in task.baselines)
            yield from self._descend(replace(task, baselines=some), ends)

    def _descend(self, task: Task, ends: bool) -> Iterator[Step]:
        """The walks of n samples towards b references. Their rows go through the model together until they end."""
        n, (b, own), device = task.n, task.baselines[0].shape[:2], task.inputs[0].device
        sample = torch.arange(n, device=device).repeat(b)
        flat = tuple(x0.flatten(0, 1) for x0 in task.baselines)
        _, z = task.model.of_rows(torch.arange(own, device=device).repeat(b)).represent(flat, self.layer)
        task.watch(b * own)
        goal = z.unflatten(0, (b, own)).expand(b, n, -1).flatten(0, 1)
        at = tuple(x.double().repeat(b, *(1,) * (x.ndim - 1)) for x in task.inputs)
        going = torch.arange(b * n, device=device)  # rows whose paths have not ended
        taken, failed = torch.zeros_like(going), torch.zeros_like(going, dtype=torch.bool)
        for t in range(self.n_steps):
            here = tuple(p[going] for p in at)
            found = task.model.of_rows(sample[going]).towards(
                _like(here, task.inputs), goal[going], self.layer, task.outputs
            )
            task.watch(len(going))
            if t == 0:
                values, near = found.value, self._near(found.distance, goal, task.model)
            values = values.index_copy(0, going, found.value)
            there, moved = self._next(here, found.descent)
            reached = found.distance <= near[going]
            goes = moved & ~reached
            there = tuple(torch.where(_column(goes, p), q, p) for p, q in zip(here, there, strict=True))
            failed[going] = ~moved & ~reached
            taken[going] += goes
            if not bool(goes.any()):
                break
            moves = _like(tuple(task.share * (p - q) for p, q in zip(here, there, strict=True)), task.inputs)
            shares = tuple(_spread(m, going, b, n) for m in moves)
            for j, gradients in found.gradients:
                yield Step(
                    j, values[:, j].unflatten(0, (b, n)), tuple(_spread(g, going, b, n) for g in gradients), shares
                )
            for p, q in zip(at, there, strict=True):
                p.index_copy_(0, going, q)
            going = going[goes]
        values = task.model.of_rows(sample).predict(_like(at, task.inputs))[:, list(task.outputs)].unflatten(0, (b, n))
        task.watch(b * n)
        self._tell(task, values, failed.unflatten(0, (b, n)), taken.unflatten(0, (b, n)))
        if ends:
            yield from (Step(j, values[..., j]) for j in range(len(task.outputs)))

    def _near(self, distance: Float[Tensor, " R"], goal: Float[Tensor, "R Z"], model: Model) -> Float[Tensor, " R"]:
        """The distances at which paths end, from their first distances."""
        noise = ROUNDING * torch.finfo(PRECISIONS[model.precision] or goal.dtype).eps
        return torch.maximum(self.stop * distance, noise**2 * goal.square().sum(1))

    def _next(self, here: Tensors, descent: Tensors) -> tuple[Tensors, Bool[Tensor, " R"]]:
        """The next points, in float64, and whether they differ from the current ones."""
        norm = torch.stack([g.double().flatten(1).square().sum(1) for g in descent]).sum(0).sqrt()
        length = self.step_size / norm.clamp_min(self.epsilon)
        there = tuple(p - _column(length, p) * g for p, g in zip(here, descent, strict=True))
        if self.clip is not None:
            there = tuple(q.clamp(*self.clip) for q in there)
        moved = torch.stack([(p != q).flatten(1).any(1) for p, q in zip(here, there, strict=True)]).any(0)
        return there, moved & ~(norm <= self.epsilon)  # NaN goes on; the engine refuses it

    def _tell(
        self, task: Task, ends: Float[Tensor, "b n J"], failed: Bool[Tensor, "b n"], taken: Int64[Tensor, "b n"]
    ) -> None:
        """Note the predictions at the ends of the walks, which of them failed, and their steps, for b references."""
        like = ends.shape[1:]
        task.note(
            failed=np.broadcast_to(failed.any(0).cpu().numpy()[:, None], like),
            evaluations=np.broadcast_to(taken.sum(0).cpu().numpy()[:, None], like),
            baseline_prediction=task.share * ends.double().sum(0),
        )


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and isfinite(value)


def _column(values: Tensor, like: Tensor) -> Tensor:
    """Numbers (R,) as (R, 1, ...), to go with rows (R, *P)."""
    return values.reshape(-1, *(1,) * (like.ndim - 1))


def _like(points: Tensors, inputs: Tensors) -> Tensors:
    """Points in the types of the inputs."""
    return tuple(p.to(x.dtype) for p, x in zip(points, inputs, strict=True))


def _spread(values: Tensor, rows: Int64[Tensor, " R"], b: int, n: int) -> Tensor:
    """Values of some rows of b * n as (b, n, *P), 0 elsewhere."""
    if len(rows) < b * n:
        values = values.new_zeros(b * n, *values.shape[1:]).index_copy_(0, rows, values)
    return values.unflatten(0, (b, n))
