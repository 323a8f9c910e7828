"""Reducers made from a user's function of arrays."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from igc_dist.features.names import Names, Shape, chosen_dims, feature_dims
from igc_dist.features.reducers import Reducer
from igc_dist.records import ConfigError
from igc_dist.tensors import Tensors


@dataclass(frozen=True)
class Function(Reducer):
    """The user's function of the attribution of one input: array (n, J, *P) in, array (n, J, *Q) out, for any n and J.

    It gets the values that would be folded, after the mean over baselines. It need not be linear or preserve the sum.
    `names` are the names of the reduced dimensions, if the names of the features do not fit.
    """

    fn: Any
    kwargs: Mapping[str, Any] | None = None
    names: Sequence[str] | None = None
    linear = False

    def __post_init__(self) -> None:
        _check_callable(self.fn)

    def shape(self, shape: Shape) -> Shape:
        (found,) = probed(lambda values, rows: (self._apply(values[0]),), (shape,))
        return found

    def dims(self, dims: Names, n_dims: int) -> Names:
        if self.names is not None:
            return chosen_dims((0,) * n_dims, self.names, category=False)
        return dims if len(dims) == n_dims else feature_dims(n_dims)

    def __call__(
        self, values: Float[Tensor, "n J *P"], x: Tensor, segments: Tensor | None = None
    ) -> Float[Tensor, "n J *Q"]:
        return torch.from_numpy(self._apply(values.cpu().numpy())).to(values.device)

    def _apply(self, values: np.ndarray) -> np.ndarray:
        return _checked(_called(self.fn, (values,), self.kwargs), values)


@dataclass(frozen=True)
class Joint:
    """The user's function of all inputs, in the older signature of the IGC package.

    It is called as ``fn(ig_1, ..., ig_m, x_1, ..., x_m, **kwargs)``, for any n and J: ig_i is (n, J, *P_i), and x_i is
    the raw input (n, *shape_i). It returns a tuple with an array (n, J, *Q_i) per input. For one input it may return
    the array alone.
    """

    fn: Any
    kwargs: Mapping[str, Any] | None = None

    def __post_init__(self) -> None:
        _check_callable(self.fn)

    def apply(self, values: tuple[np.ndarray, ...], rows: tuple[np.ndarray, ...]) -> tuple[np.ndarray, ...]:
        """The reduced attributions of all inputs."""
        found = _called(self.fn, (*values, *rows), self.kwargs)
        # an array is one result, not a sequence with one result per sample
        found = (found,) if isinstance(found, np.ndarray) else found
        if not isinstance(found, tuple | list) or len(found) != len(values):
            got = f"a {type(found).__name__}" + (f" of {len(found)}" if isinstance(found, tuple | list) else "")
            raise ConfigError(
                f"reduce: the function returned {got} for {len(values)} inputs, expected a tuple with one array for "
                "each"
            )
        return tuple(_checked(one, value) for one, value in zip(found, values, strict=True))


def _check_callable(fn: Any) -> None:
    if not callable(fn):
        raise ConfigError(
            f"reduce: {fn!r} is no function; give a function of arrays, or Segments, Patches, Channels, Total"
        )


def _called(fn: Callable[..., Any], arrays: tuple[np.ndarray, ...], kwargs: Mapping[str, Any] | None) -> Any:
    try:
        return fn(*arrays, **(kwargs or {}))
    except Exception as error:
        shapes = ", ".join(str(array.shape) for array in arrays)
        name = getattr(fn, "__qualname__", type(fn).__name__)
        raise ConfigError(
            f"reduce: {name} failed on arrays of shapes {shapes}: {type(error).__name__}: {error}"
        ) from error


def _checked(found: Any, values: np.ndarray) -> np.ndarray:
    """Return the array that a free function made, if it is floating point and keeps the axes of samples and outputs."""
    expected = f"expected a floating point array ({values.shape[0]} samples, {values.shape[1]} outputs, *features)"
    if not isinstance(found, np.ndarray):
        raise ConfigError(f"reduce: the function returned a {type(found).__name__}, {expected}")
    if found.shape[:2] != values.shape[:2] or found.dtype.kind != "f":
        raise ConfigError(
            f"reduce: the function returned an array of {found.dtype} and shape {found.shape}, {expected}"
        )
    found = np.ascontiguousarray(found, dtype=values.dtype)
    return found if found.flags.writeable else found.copy()  # torch warns about read-only arrays


Apply = Callable[[tuple[np.ndarray, ...], tuple[np.ndarray, ...]], tuple[np.ndarray, ...]]


def probed(apply: Apply, shapes: Sequence[Shape], inputs: Tensors = ()) -> tuple[Shape, ...]:
    """Shapes of the reduced features, found by calling the function on probe arrays.

    It is called once with 2 samples and 3 outputs, and once with the first of each alone. Raises `ConfigError` if the
    result for a sample and output depends on the others, because the plan decides how batches and blocks of outputs are
    cut.
    """
    rng = np.random.default_rng(0)
    values = tuple(rng.standard_normal((2, 3, *shape), np.float32) for shape in shapes)
    rows = tuple(x[[0, -1]] for x in map(array_of, inputs))
    with np.errstate(all="ignore"):
        # copies, because the function may write into its arguments
        many = apply(tuple(value.copy() for value in values), tuple(row.copy() for row in rows))
        alone = apply(tuple(value[:1, :1].copy() for value in values), tuple(row[:1].copy() for row in rows))
    for one, whole in zip(alone, many, strict=True):
        if one.shape[2:] != whole.shape[2:] or not np.allclose(
            one, whole[:1, :1], rtol=1e-3, atol=1e-5, equal_nan=True
        ):
            raise ConfigError(
                f"reduce: the function gives a sample and output something else on its own (shape {one.shape}) than "
                "among 2 samples and 3 "
                f"outputs (shape {whole.shape}): the first two axes must be independent, as the plan cuts them"
            )
    return tuple(whole.shape[2:] for whole in many)


def array_of(x: Tensor) -> np.ndarray:
    """A copy of a tensor as a numpy array. bfloat16 becomes float32, because numpy has no bfloat16."""
    return (x.float() if x.dtype == torch.bfloat16 else x).cpu().numpy().copy()
