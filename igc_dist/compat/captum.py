"""Captum's Integrated Gradients (version 0.9): its signatures over our path integral. Change only the import.

Some results differ because Captum is wrong there. Our weights of riemann_trapezoid sum to 1; Captum's sum to ``1 - 1 /
n_steps``, which shrinks all attributions. Our weights and nodes are float64, Captum's float32. A module runs in eval
mode and is restored. No global generator is drawn from, but by a function that does. Additional tensors that do not
have the batch size are passed on, not repeated.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from itertools import chain
from typing import Any, NoReturn

import torch
from jaxtyping import Float
from torch import Tensor, nn

from igc_dist.arrays import real
from igc_dist.attributors import PathIntegral
from igc_dist.model import Model
from igc_dist.paths import rule
from igc_dist.records import ConfigError, ModelError
from igc_dist.tensors import Tensors

RULES = {
    "gausslegendre": "gauss_legendre",
    "riemann_left": "left",
    "riemann_right": "right",
    "riemann_middle": "midpoint",
    "riemann_trapezoid": "trapezoid",
}
"""Our name of each of Captum's rules."""


def _wrapped(method: Callable[..., Any]) -> Callable[..., Any]:
    """The same method with a `__wrapped__`: Captum logs calls of its methods, and `NoiseTunnel` calls the inner one."""

    @wraps(method)
    def call(*args: Any, **kwargs: Any) -> Any:
        return method(*args, **kwargs)

    return call


class IntegratedGradients:
    """``IG = integral_0^1 d F(x0 + t (x - x0)) / d x dt * (x - x0)`` (Sundararajan, Taly, Yan 2017, eq. 1).

    `forward_func`: a module, a method of one, or any function of tensors. `multiply_by_inputs`: False leaves ``x - x0``
    out. Captum's classes that take an attribution method, such as `NoiseTunnel`, take this one.
    """

    def __init__(self, forward_func: Callable[..., Any], multiply_by_inputs: bool = True) -> None:
        self.forward_func, self.multiplies_by_inputs = forward_func, multiply_by_inputs

    @classmethod
    def get_name(cls) -> str:
        return "Integrated Gradients"

    def has_convergence_delta(self) -> bool:
        return True

    def attribute_future(self, *args: Any, **kwargs: Any) -> NoReturn:
        """Not implemented, as in Captum."""
        raise NotImplementedError("attribute_future is not implemented for IntegratedGradients: call attribute")

    @_wrapped
    def attribute(
        self,
        inputs: Any,
        baselines: Any = None,
        target: Any = None,
        additional_forward_args: Any = None,
        n_steps: int = 50,
        method: str = "gausslegendre",
        internal_batch_size: int | None = None,
        return_convergence_delta: bool = False,
    ) -> Any:
        """Attributions, in the form and shapes of `inputs`: (n, *P_i), a tensor or a tuple of them.

        `baselines`: None (zeros), or for each input a number, or a tensor (n, *P_i) or (1, *P_i). `target`: the output
        to explain: None, if there is one number per sample; an int, or a tuple of indices and of slices of one index,
        after the batch; or one of these per sample, as a list or a tensor (n,). `additional_forward_args`: further
        arguments of the function; tensors of n rows are repeated along the path. `n_steps`: gradients per sample, at
        the nodes of `method`, a key of `RULES`. `internal_batch_size`: largest number of rows of a forward pass (None:
        all at once), but at least the number of samples. With `return_convergence_delta`, also ``sum(IG) - (F(x) -
        F(x0))`` (n,).

        The path and the sums are float32 or float64; a model or function in half precision gets points in its own type.
        Raises `ConfigError` for an unknown method or a target, input or baseline that does not fit, `ModelError` for a
        model that cannot be attributed; both are `ValueError`s.
        """
        if method not in RULES:
            raise ConfigError(f"method={method!r} is unknown: choose one of {', '.join(RULES)}")
        walk = PathIntegral(rule(RULES[method], n_steps), multiply_by_inputs=self.multiplies_by_inputs)
        xs = _tensors("inputs", inputs)
        n = len(xs[0])
        if internal_batch_size is not None and internal_batch_size < n:
            warnings.warn(
                f"internal_batch_size={internal_batch_size} is less than the {n} samples: {n} is used", stacklevel=3
            )
        size = n_steps if internal_batch_size is None else max(1, internal_batch_size // n)
        with self._model(xs, target, additional_forward_args) as (model, device):
            points, starts = _ends(model, xs, baselines, device)
            values = walk.attribute(model, points, tuple(x0[None] for x0 in starts), [0], share=1.0, size=size)
        found = tuple(
            a[:, 0].to(x.device, x.dtype if x.is_floating_point() else a.dtype) for a, x in zip(values, xs, strict=True)
        )
        attributions = found if isinstance(inputs, tuple) else found[0]
        if not return_convergence_delta:
            return attributions
        return attributions, self.compute_convergence_delta(
            attributions, baselines, inputs, target, additional_forward_args
        )

    def compute_convergence_delta(
        self,
        attributions: Any,
        start_point: Any,
        end_point: Any,
        target: Any = None,
        additional_forward_args: Any = None,
    ) -> Float[Tensor, " n"]:
        """``sum_i a_i - (F(end_point) - F(start_point))`` per sample, summed in float64.

        `start_point` is like `baselines` of `attribute`. Raises `ConfigError` for attributions of another form than
        `end_point`.
        """
        xs, maps = _tensors("end_point", end_point), _tensors("attributions", attributions)
        if [a.shape for a in maps] != [x.shape for x in xs]:
            raise ConfigError(
                f"attributions of shapes {[tuple(a.shape) for a in maps]} for an end_point of "
                f"{[tuple(x.shape) for x in xs]}: give the attributions of these inputs"
            )
        with self._model(xs, target, additional_forward_args) as (model, device):
            points, starts = _ends(model, xs, start_point, device)
            at_start = model.predict(tuple(x0.expand_as(x) for x0, x in zip(starts, points, strict=True)))
            rise = (model.predict(points).double() - at_start.double())[:, 0].to(maps[0].device)
        total = torch.stack([a.detach().double().reshape(len(a), -1).sum(1) for a in maps]).sum(0)
        return (total - rise).to(maps[0].dtype)

    @contextmanager
    def _model(self, xs: Tensors, target: Any, more: Any) -> Iterator[tuple[Model, torch.device]]:
        """A model of one output: the function with its additional arguments and target; and the device that it uses."""
        function, n = self.forward_func, len(xs[0])
        owner = function if isinstance(function, nn.Module) else getattr(function, "__self__", None)  # of a method
        lent, wanted = Model(owner if isinstance(owner, nn.Module) else nn.Module()), _Target(target, n)
        args = () if more is None else more if isinstance(more, tuple) else (more,)

        def call(*points: Tensor) -> Tensor:
            rows = len(points[0])
            own = (_repeated(arg, n, rows // n) for arg in args)
            return wanted.of(function(*(point.to(kind) for point in points), *own), rows)

        # a function does not state its device: use that of its inputs
        device = (
            lent.device
            if next(chain(lent.module.parameters(), lent.module.buffers()), None) is not None
            else xs[0].device
        )
        with lent.borrowed(device):
            # that of the weights, or of the inputs: the points themselves are float32 at least
            kinds = {x.dtype for x in [*lent.module.parameters()] or xs if x.is_floating_point()}
            kind = kinds.pop() if len(kinds) == 1 else lent.dtype(xs)
            yield lent.calling(call), device


class _Target:
    """The output to explain for each row, (rows, 1); rows are the n samples, repeated any number of times."""

    def __init__(self, target: Any, n: int) -> None:
        if isinstance(target, Tensor):
            target = target.item() if target.numel() == 1 else target.tolist()
        self.each = isinstance(target, list)
        if self.each and len(target) != n:
            raise ConfigError(
                f"target has {len(target)} entries for {n} samples: give one for each, or a single one for all"
            )
        wishes = target if self.each else [() if target is None else target]
        self.wishes = [wish if isinstance(wish, tuple) else (wish,) for wish in wishes]
        if len({len(wish) for wish in self.wishes}) > 1 or not all(
            isinstance(k, int | slice) and not isinstance(k, bool) for wish in self.wishes for k in wish
        ):
            raise ConfigError(
                f"target={target!r}: give None, an int, a tuple of ints and slices, or a list of these with one for "
                "each sample"
            )
        self.target = target

    def of(self, y: Any, n_rows: int) -> Tensor:
        """The numbers to explain in the result `y` of a forward pass of `n_rows` rows."""
        if not isinstance(y, Tensor):
            raise ConfigError(
                f"forward_func returns a {type(y).__name__}: give a function that returns the tensor to explain"
            )
        if y.is_complex():
            raise ModelError(
                "forward_func returns complex numbers, which have no gradient of one number: let it return a real one, "
                "such as z.abs()"
            )
        if torch.is_grad_enabled() and not y.requires_grad:
            raise ModelError("the output of forward_func has no gradient: let it act on its inputs without detach")
        if y.ndim == 0 and n_rows == 1:  # squeezed
            y = y.reshape(1)
        if y.ndim == 0 or len(y) != n_rows:
            raise ModelError(
                f"forward_func returns shape {tuple(y.shape)} for {n_rows} rows: let it return a result for each row"
            )
        rows = torch.arange(len(y), device=y.device)
        try:
            table = torch.tensor([self._indices(wish, y) for wish in self.wishes], device=y.device, dtype=torch.long)
            chosen = y[(rows, *table[rows % len(table)].T)]  # table: (n or 1, indices)
        except IndexError as error:
            raise ConfigError(
                f"target={self.target!r} does not fit an output of shape {tuple(y.shape)}: {error}"
            ) from error
        if chosen.numel() != len(y):
            raise ConfigError(
                f"target={self.target!r} leaves {tuple(chosen.shape[1:])} numbers per sample of an output of shape "
                f"{tuple(y.shape)}: give "
                "the index of one of them, a tuple after several dimensions"
            )
        return chosen.reshape(-1, 1)

    def _indices(self, wish: tuple[int | slice, ...], y: Tensor) -> list[int]:
        """The indices of a tuple after the batch; a slice must leave one.

        Raises `ConfigError` or `IndexError` if it does not.
        """
        found = []
        for k, size in zip(wish, y.shape[1:], strict=False):
            left = range(size)[k] if isinstance(k, slice) else (k,)
            if len(left) != 1:
                raise ConfigError(
                    f"target={self.target!r}: {k} leaves {len(left)} of {size} numbers per sample, leave one"
                )
            found.append(left[0])
        if len(wish) > len(found):
            raise IndexError(f"{len(wish)} indices after the batch are too many")
        return found


def _tensors(name: str, given: Any) -> Tensors:
    """A tensor (n, ...) or a tuple of them, as a tuple.

    Raises `ConfigError` for other things, and if the numbers of rows differ.
    """
    found = given if isinstance(given, tuple) else (given,)
    shapes = [tuple(x.shape) if isinstance(x, Tensor) else type(x).__name__ for x in found]
    if not found or not all(isinstance(x, Tensor) and x.ndim for x in found):
        raise ConfigError(f"{name} is of {shapes}: give a tensor (n, ...), or a tuple of them")
    if len({len(x) for x in found}) > 1:
        raise ConfigError(f"{name} has shapes {shapes}: give the same number of samples in each")
    if any(x.is_complex() for x in found):
        raise ConfigError(f"{name} has complex numbers: give real ones, such as torch.view_as_real of them")
    return found


def _repeated(arg: Any, n: int, times: int) -> Any:
    rows = isinstance(arg, Tensor) and arg.ndim > 0 and len(arg) == n
    return torch.cat([arg] * times) if rows else arg


def _ends(model: Model, xs: Tensors, baselines: Any, device: torch.device) -> tuple[Tensors, Tensors]:
    """Inputs (n, *P_i) and baselines (n or 1, *P_i) on the model's device, in its dtype.

    Raises `ConfigError` for values that do not fit.
    """
    given = (0.0,) * len(xs) if baselines is None else baselines if isinstance(baselines, tuple) else (baselines,)
    if len(given) != len(xs):
        raise ConfigError(f"{len(given)} baselines for {len(xs)} inputs: give a tuple with one for each")
    dtype, starts = model.dtype(xs), []
    for x, x0 in zip(xs, given, strict=True):
        start = real(x0, "a baseline", ConfigError).to(device, dtype)
        start = start.expand(1, *x.shape[1:]) if start.ndim == 0 else start
        if start.shape[1:] != x.shape[1:] or len(start) not in (1, len(x)):
            raise ConfigError(
                f"a baseline has shape {tuple(start.shape)} for an input of shape {tuple(x.shape)}: give that, or one "
                "row"
            )
        starts.append(start)
    return tuple(x.detach().to(device, dtype) for x in xs), tuple(starts)
