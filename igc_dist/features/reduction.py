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
from igc_dist.records import ConfigError, Tensors


@dataclass(frozen=True)
class Reduction:
    """How the attributions of all inputs are reduced: one reducer each (None: as they are), or one function of all."""

    reducers: tuple[Reducer | None, ...] = ()
    joint: Joint | None = None

    @property
    def trivial(self) -> bool:
        """Whether nothing is reduced."""
        return self.joint is None and not any(self.reducers)

    @property
    def linear(self) -> bool:
        """Whether there is no free function in it: so the sum is preserved, and blocks of baselines may be reduced one by one."""
        return self.joint is None and all(reducer is None or reducer.linear for reducer in self.reducers)

    def shapes(self, shapes: Sequence[Shape], inputs: Tensors) -> tuple[Shape, ...]:
        """*Q_i from *P_i; `inputs` are a few raw samples for a free function to see. Raises `ConfigError` that names the input."""
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
        """Names of the dimensions of features of the shapes `reduced`, from those before."""
        if self.joint is not None:
            return tuple(mine if len(mine) == len(q) else feature_dims(len(q)) for mine, q in zip(dims, reduced, strict=True))
        each = zip(self.reducers, dims, reduced, strict=True)
        return tuple(mine if reducer is None else reducer.dims(mine, len(q)) for reducer, mine, q in each)

    def __call__(self, values: Tensors, inputs: Tensors) -> Tensors:
        """(n, J, *Q_i) per input from (n, J, *P_i); `inputs` are the raw ones, as the data set gave them."""
        if self.joint is not None:
            found = self.joint.apply(tuple(v.cpu().numpy() for v in values), tuple(map(array_of, inputs)))
            return tuple(torch.from_numpy(one).to(v.device) for one, v in zip(found, values, strict=True))
        each = zip(self.reducers, values, inputs, strict=True)
        return tuple(v if reducer is None else reducer(v, x) for reducer, v, x in each)

    def groups(self, shapes: Sequence[Shape]) -> tuple[Int64[np.ndarray, "..."], ...] | None:
        """The reduced feature of its input that each feature is added to, per input; None if a reducer is more than such a sum."""
        if self.joint is not None:
            return None
        found = []
        for reducer, shape in zip(self.reducers or (None,) * len(shapes), shapes, strict=True):
            own = np.arange(np.prod(shape, dtype=np.int64)).reshape(shape) if reducer is None else reducer.groups(shape)
            if own is None:
                return None
            found.append(np.array(own))  # their own memory, as torch wants it
        return tuple(found)

    def complete(self, shapes: Sequence[Shape], inputs: Tensors, dtype: torch.dtype = torch.float32) -> bool:
        """Whether the sum over all features of all inputs is preserved: of linear reducers it is.

        Of free functions by a probe, to 1e-10 of the sum of sizes in float64 and 1e-4 in float32: random attributions of both
        signs and of sizes from 1e-3 to 1e3, so that a threshold shows, for a few of the real `inputs`.
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
    """A `Reduction` of `n_inputs` inputs from what users give.

    None (no reduction), a `Reducer` or a function of arrays (a `Function`) for every input, a list or tuple with one of
    these for each input, or a `Joint`. Raises `ConfigError` for a wrong number or type.
    """
    if isinstance(reduce, Reduction | Joint):
        return reduce if isinstance(reduce, Reduction) else Reduction((None,) * n_inputs, reduce)
    each = tuple(reduce) if isinstance(reduce, list | tuple) else (reduce,) * n_inputs
    if len(each) != n_inputs:
        raise ConfigError(f"reduce has {len(each)} reducers for {n_inputs} inputs: give one each, None for an input to leave as it is")
    for one in each:
        if isinstance(one, type) or not (one is None or isinstance(one, Reducer) or callable(one)):
            raise ConfigError(f"reduce={one!r}: give an object like Patches(4), a function of arrays, or None")
    return Reduction(tuple(one if one is None or isinstance(one, Reducer) else Function(one) for one in each))
