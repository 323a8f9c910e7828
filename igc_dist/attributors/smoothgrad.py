"""SmoothGrad: another attributor over noisy copies of the input."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np
import torch

from igc_dist.attributors.around import Around
from igc_dist.attributors.base import Attributor, Note, Task
from igc_dist.attributors.gradients import Gradients
from igc_dist.baselines import check_positive
from igc_dist.paths import Pairs
from igc_dist.records import ConfigError, Price
from igc_dist.seeds import Address
from igc_dist.tensors import Tensors

FORMS = {"linear": 1, "squared": 1, "variance": 3}
"""The ways to join the maps of the copies, and the number of maps that each holds beside the returned one."""


@dataclass(frozen=True)
class SmoothGrad(Around):
    """``a(x) = 1/M sum_m A(x + eps_m)`` with ``eps_m ~ N(0, (noise * (max x - min x))**2)`` (Smilkov et al. 2017).

    `attributor` is A, any other attributor, and `n_samples` is M. The range of each input of each sample sets its
    noise; baselines are not noisy. `form`: linear, as above; squared, ``1/M sum_m A(x + eps_m)**2`` (Hooker et al.
    2019); variance, the population variance of ``A(x + eps_m)`` over m (VarGrad, Adebayo et al. 2018). `antithetic`:
    copies in pairs, ``eps`` and ``-eps``. Not complete, though with a complete A the sum of the linear form is ``1/M
    sum_m f(x + eps_m) - f(x0)``. Attributions (n, J, *P_i) per input, as of A.

    Noise is drawn for each sample by draw number m, or m // 2 if antithetic, for all inputs in their order at one
    address. Draws of A itself are the same for all copies of a sample. Raises `ConfigError` for settings out of range,
    and for an A that cannot be used here.
    """

    attributor: Attributor = field(default_factory=Gradients)
    n_samples: int = 25
    noise: float = 0.15
    antithetic: bool = False
    form: str = "linear"

    complete = False

    def __post_init__(self) -> None:
        if (
            self.attributor.raw
            or isinstance(self.attributor, SmoothGrad)
            or isinstance(getattr(self.attributor, "design", None), Pairs)
        ):
            raise ConfigError(
                f"method.attributor.attributor={type(self.attributor).__name__} under SmoothGrad, which is for what "
                "asks the model, once, "
                "and for no pairs of samples: give gradients, or Integrated Gradients with another design"
            )
        check_positive("method.attributor.n_samples", self.n_samples)
        if self.form not in FORMS:
            raise ConfigError(f"method.attributor.form={self.form!r}: choose one of {', '.join(FORMS)}")
        if (self.antithetic and self.n_samples % 2) or (self.form == "variance" and self.n_samples < 2):
            what = "antithetic=true takes copies in pairs" if self.antithetic else "there is no variance of one copy"
            raise ConfigError(f"method.attributor.n_samples={self.n_samples}: {what}, give an even number")
        if (
            isinstance(self.noise, bool)
            or not isinstance(self.noise, int | float)
            or not 0 <= self.noise < float("inf")
        ):
            raise ConfigError(
                f"method.attributor.noise={self.noise!r}: give a standard deviation of at least 0, relative to the "
                "range of x"
            )

    @property
    def name(self) -> str:  # type: ignore[override]
        return "smoothgrad" if isinstance(self.attributor, Gradients) else f"smoothgrad_{self.attributor.name}"

    @property
    def linear(self) -> bool:  # type: ignore[override]
        return self.form == "linear" and self.attributor.linear

    @property
    def held(self) -> int:  # type: ignore[override]
        # copies of the input, of its baselines, and their attributions: at most as many as a forward pass has rows
        return self.attributor.held + 3

    @property
    def unrelaxed(self) -> str:
        return "there is no room for noise between two categories"

    @property
    def rule(self) -> str:
        return ", ".join(filter(None, (f"{self.n_samples} noisy copies", self.attributor.rule)))

    def points(self, features: Sequence[tuple[int, ...]]) -> int:
        return self.n_samples * self.attributor.points(features)

    def price(self, features: Sequence[tuple[int, ...]]) -> Price:
        one = self.attributor.price(features)
        return Price(
            self.n_samples * one.rows,
            self.n_samples * one.rows_per_output,
            self.n_samples * one.gradients,
            self.n_samples * one.gradients_per_output,
            sums=one.sums + FORMS[self.form],
        )

    def of(self, task: Task) -> Tensors:
        """As in the base class; `address` is needed.

        Raises `ConfigError` if baselines are cut under a form that is not linear.
        """
        if task.address is None:
            raise TypeError("SmoothGrad draws noise: it needs the address of the batch")
        if self.form != "linear" and len(task.address.baselines) < task.address.n_baselines:
            raise ConfigError(
                f"plan.baseline_block cuts {task.address.n_baselines} baselines, but form={self.form} is not linear "
                "in their attributions: "
                "leave it null"
            )
        n, joined = task.n, _Joined(self.form, self.n_samples)
        # the number of copies at a time: neither their points nor their attributions may exceed the rows of a forward
        # pass
        walk = self.attributor.points([tuple(x.shape[1:]) for x in task.inputs]) * (
            len(task.baselines[0]) if task.baselines else 1
        )
        together = max(1, min(self.n_samples, task.size // max(walk, len(task.outputs))))
        for start in range(0, self.n_samples, together):
            copies = range(start, min(start + together, self.n_samples))
            m = len(copies)
            noisy = self._noisy(task.inputs, task.address, copies)
            starts = tuple(x0.repeat(1, m, *(1,) * (x0.ndim - 2)) if x0.shape[1] > 1 else x0 for x0 in task.baselines)
            tiled = replace(task.address, index=np.tile(task.address.index, m))
            note = partial(_averaged, task.note, n, self.n_samples)
            found = self.attributor.of(
                replace(task, inputs=noisy, baselines=starts, size=task.size // m, address=tiled, note=note)
            )
            joined.add(tuple(value.unflatten(0, (m, n)) for value in found))
        return joined.maps()

    def _noisy(self, inputs: Tensors, address: Address, copies: range) -> Tensors:
        """Copies of all samples, (m * n, *P_i) per input; samples vary fastest."""
        eps = [np.empty((len(copies), *x.shape)) for x in inputs]
        for m, number in enumerate(copies):
            draw, sign = (number // 2, 1 - 2 * (number % 2)) if self.antithetic else (number, 1)
            for k in range(len(inputs[0])):
                generator = address.generator(k, "attributors.smoothgrad", draw)
                for own in eps:
                    own[m, k] = sign * generator.standard_normal(own.shape[2:])
        noisy = []
        for x, own in zip(inputs, eps, strict=True):
            flat = x.reshape(len(x), -1)
            width = (self.noise * (flat.amax(1) - flat.amin(1))).reshape(len(x), *(1,) * (x.ndim - 1))
            noisy.append((x + width * torch.from_numpy(own).to(x)).flatten(0, 1))
        return tuple(noisy)


class _Joined:
    """Joins the maps of copies into one, copy by copy."""

    def __init__(self, form: str, n_samples: int) -> None:
        self.form, self.n = form, n_samples
        self.first: Tensors = ()
        self.mean: Tensors = ()
        self.square: Tensors = ()

    def add(self, found: Tensors) -> None:
        """Add maps of more copies, (m, n, J, *P_i) per input; they are overwritten."""
        if not self.mean and not self.square:
            self.mean = () if self.form == "squared" else tuple(torch.zeros_like(v[0]) for v in found)
            self.square = () if self.form == "linear" else tuple(torch.zeros_like(v[0]) for v in found)
            self.first = tuple(v[0].clone() for v in found) if self.form == "variance" else ()
        for i, value in enumerate(found):
            for one in value:
                if self.first:  # subtract a map near all others: squares of large numbers would cancel
                    one.sub_(self.first[i])
                if self.mean:
                    self.mean[i].add_(one, alpha=1 / self.n)
                if self.square:
                    self.square[i].addcmul_(one, one, value=1 / self.n)

    def maps(self) -> Tensors:
        if self.form == "linear":
            return self.mean
        if self.form == "variance":
            for square, mean in zip(self.square, self.mean, strict=True):
                square.addcmul_(mean, mean, value=-1).clamp_(min=0)
        return self.square


def _averaged(note: Note, n: int, n_samples: int, **said: Any) -> None:
    """Turn notes about the copies of n samples into notes about the samples.

    A sample fails if one of its copies fails; evaluations add up; predictions are averaged.
    """
    if "failed" in said:
        said["failed"] = said["failed"].reshape(-1, n, said["failed"].shape[1]).any(0)
    if "evaluations" in said:
        said["evaluations"] = said["evaluations"].reshape(-1, n, said["evaluations"].shape[1]).sum(0)
    if "baseline_prediction" in said:
        said["baseline_prediction"] = said["baseline_prediction"].unflatten(0, (-1, n)).sum(0) / n_samples
    note(**said)
