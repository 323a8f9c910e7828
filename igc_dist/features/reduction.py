"""How the attributions of all inputs of a run are reduced."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Int64
from torch import Tensor

from igc_dist.features.functions import Function, Joint, array_of, probed
from igc_dist.features.names import Names, Shape, feature_dims
from igc_dist.features.reducers import Reducer
from igc_dist.records import ConfigError
from igc_dist.tensors import Tensors


@dataclass(frozen=True)
class Reduction:
    """How the attributions of all inputs are reduced: one reducer each (None: unchanged), or one joint function."""

    reducers: tuple[Reducer | None, ...] = ()
    joint: Joint | None = None

    @property
    def trivial(self) -> bool:
        """Whether nothing is reduced."""
        return self.joint is None and not any(self.reducers)

    @property
    def linear(self) -> bool:
        """Whether no free function is used. Then sums are preserved, and blocks of baselines are reduced one by one."""
        return self.joint is None and all(reducer is None or reducer.linear for reducer in self.reducers)

    def shapes(self, shapes: Sequence[Shape], inputs: Tensors) -> tuple[Shape, ...]:
        """The reduced shapes *Q_i from *P_i. `inputs` are a few raw samples for probing a free function.

        Raises `ConfigError` that names the input.
        """
        if self.joint is not None:
            return probed(self.joint.apply, shapes, inputs)
        found: list[Shape] = []
        for i, (reducer, shape) in enumerate(zip(self.reducers, shapes, strict=True)):
            try:
                found.append(shape if reducer is None else reducer.shape(shape))
            except ConfigError as error:
                raise ConfigError(f"reduce, input {i}: {str(error).removeprefix('reduce: ')}") from error
        return tuple(found)

    def dims(self, dims: Sequence[Names], reduced: Sequence[Shape]) -> tuple[Names, ...]:
        """Names of the reduced dimensions (of the shapes `reduced`), from the names before the reduction."""
        if self.joint is not None:
            return tuple(
                mine if len(mine) == len(q) else feature_dims(len(q)) for mine, q in zip(dims, reduced, strict=True)
            )
        each = zip(self.reducers, dims, reduced, strict=True)
        return tuple(mine if reducer is None else reducer.dims(mine, len(q)) for reducer, mine, q in each)

    def __call__(self, values: Tensors, inputs: Tensors, segments: Tensor | None = None) -> Tensors:
        """Reduce (n, J, *P_i) to (n, J, *Q_i) per input. `inputs` are the raw inputs from the data set.

        `segments`: the label maps of the samples, if `masks` are among the reducers.
        """
        if self.joint is not None:
            found = self.joint.apply(tuple(v.cpu().numpy() for v in values), tuple(map(array_of, inputs)))
            return tuple(torch.from_numpy(one).to(v.device) for one, v in zip(found, values, strict=True))
        # activations of a layer have no inputs of their own
        inputs = inputs if len(inputs) == len(values) else inputs[:1] * len(values)
        each = zip(self.reducers, values, inputs, strict=True)
        return tuple(v if reducer is None else reducer(v, x, segments) for reducer, v, x in each)

    def groups(self, shapes: Sequence[Shape]) -> tuple[Int64[np.ndarray, "..."], ...] | None:
        """Per input, the number of the reduced feature that each feature is added to.

        None if a reducer does more than add features.
        """
        if self.joint is not None:
            return None
        found = []
        for reducer, shape in zip(self.reducers or (None,) * len(shapes), shapes, strict=True):
            own = np.arange(np.prod(shape, dtype=np.int64)).reshape(shape) if reducer is None else reducer.groups(shape)
            if own is None:
                return None
            found.append(np.array(own))  # a copy, because torch needs memory of its own
        return tuple(found)

    def complete(self, shapes: Sequence[Shape], inputs: Tensors, dtype: torch.dtype = torch.float32) -> bool:
        """Whether the sum over all features of all inputs is preserved. For linear reducers it is.

        A free function is probed with a few of the real `inputs` and random attributions. These have both signs and
        sizes from 1e-3 to 1e3, so that a threshold in the function is detected. The tolerance, relative to the sum of
        absolute values, is 1e-10 in float64 and 1e-4 in float32.
        """
        if self.linear:
            return True
        generator, tolerance = torch.Generator().manual_seed(0), 1e-10 if dtype == torch.float64 else 1e-4
        scale = 10.0 ** torch.arange(-3, 4, 2, dtype=torch.float64)
        drawn = (torch.randn(4, 3, *shape, dtype=torch.float64, generator=generator) for shape in shapes)
        values = tuple((scale.reshape(-1, 1, *(1,) * (a.ndim - 2)) * a).to(dtype) for a in drawn)
        before, size = (_total(some) for some in (values, [v.abs() for v in values]))
        rows = [n % len(inputs[0]) for n in range(4)]
        with np.errstate(all="ignore"):
            reduced = self(values, tuple(x[rows] for x in inputs))
        after = _total(reduced)
        return bool(((after - before).abs() <= tolerance * size).all())


def _total(values: Sequence[Tensor]) -> Tensor:
    """The sum over all features of all inputs, (n, J)."""
    return torch.stack([a.double().reshape(*a.shape[:2], -1).sum(2) for a in values]).sum(0)


def ensure(reduce: Any, n_inputs: int) -> Reduction:
    """Make a `Reduction` of `n_inputs` inputs from what the user gives.

    Accepted are None (no reduction), a `Reducer` or a function of arrays (a `Function`) for every input, a list or
    tuple with one of these for each input, or a `Joint`. Raises `ConfigError` for a wrong number or type.
    """
    if isinstance(reduce, Reduction | Joint):
        return reduce if isinstance(reduce, Reduction) else Reduction((None,) * n_inputs, reduce)
    each = tuple(reduce) if isinstance(reduce, list | tuple) else (reduce,) * n_inputs
    if len(each) != n_inputs:
        raise ConfigError(
            f"reduce has {len(each)} reducers for {n_inputs} inputs: give one each, None for an input to leave as it is"
        )
    for one in each:
        if isinstance(one, type) or not (one is None or isinstance(one, Reducer) or callable(one)):
            raise ConfigError(f"reduce={one!r}: give an object like Patches(4), a function of arrays, or None")
    return Reduction(tuple(one if one is None or isinstance(one, Reducer) else Function(one) for one in each))
