"""The base of all classes of the IGC package: the model, how to call it, the data, and the meaning of arguments."""

from __future__ import annotations

import inspect
import numbers
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import torch
import xarray as xr
from torch import Tensor, nn
from torch.utils.data import DataLoader

from igc_dist import baselines, distributed, seeds
from igc_dist import data as sources
from igc_dist.api import attribute
from igc_dist.arrays import real
from igc_dist.attributors import Identity
from igc_dist.compat.arguments import Seed, rows_of, takes_one
from igc_dist.compat.drawn import Addressed
from igc_dist.data import Source, input_names, random_states_kept
from igc_dist.features import Function, Joint
from igc_dist.model import Model
from igc_dist.records import ConfigError
from igc_dist.tensors import Batch, Tensors

Arrays = np.ndarray | tuple[np.ndarray, ...]
"""One array, or a tuple of arrays if there are several inputs."""

PRECISION = {torch.float16: "16-mixed", torch.float32: "32-true", torch.float64: "64-true"}
CATEGORIES = (torch.int16, torch.int32, torch.int64)
OURS = {"dataset", "batch_size", "shuffle", "sampler", "batch_sampler", "generator"}
"""Arguments of a `DataLoader` that the user may not set."""


class Method:
    """What all methods share: the model, how to call it, and the data.

    `dtld_kwargs`: arguments of a `DataLoader`. `forward_method_name`, `forward_method_kwargs`: how to call the module.
    `n_embedding_categories`: the number of categories of the trailing categorical inputs, one number for all or one for
    each; attributions are then to categories. `dtype`: type of the results; float64 also computes in float64, float16
    runs the forward under autocast and gives float32. `dtype_cat`: type of given categories. Version 1.1 of the package
    has no `n_embedding_categories`: a type in its place is `dtype`, and the one after it `dtype_cat`. Raises what
    `igc_dist.attribute` raises.
    """

    compute: Callable[..., Any]

    def __init__(
        self,
        module: nn.Module,
        dataset: Any,
        dtld_kwargs: Mapping[str, Any] | None = None,
        forward_method_name: str | None = None,
        forward_method_kwargs: Mapping[str, Any] | None = None,
        n_embedding_categories: int | Sequence[int] | torch.dtype | None = None,
        dtype: torch.dtype = torch.float32,
        dtype_cat: torch.dtype = torch.int32,
    ) -> None:
        if isinstance(n_embedding_categories, torch.dtype):
            if dtype in CATEGORIES:
                dtype_cat = dtype
            elif dtype != torch.float32:
                raise ConfigError(f"dtype is given twice, {n_embedding_categories} and {dtype}: give it once")
            dtype = n_embedding_categories
            n_embedding_categories = None
        for name, value, known in (("dtype", dtype, tuple(PRECISION)), ("dtype_cat", dtype_cat, CATEGORIES)):
            if value not in known:
                raise ConfigError(f"{name}={value}: choose one of {', '.join(map(str, known))}")
        self.module, self.dataset, self.dtld_kwargs = module, dataset, dict(dtld_kwargs or {})
        self.dtype, self.dtype_cat = dtype, dtype_cat
        for name in self.dtld_kwargs:
            if name in OURS or name not in inspect.signature(DataLoader).parameters:
                raise ConfigError(
                    f"dtld_kwargs has {name!r}: give arguments of a DataLoader, but none of {', '.join(sorted(OURS))}"
                )
        self._model: dict[str, Any] = {
            "forward": forward_method_name,
            "forward_kwargs": forward_method_kwargs,
            "categories": n_embedding_categories,
            "precision": PRECISION[dtype],
        }

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.compute(*args, **kwargs)

    def add_final_linear_layer(self, final_linear_layer: nn.Module | str) -> Any:
        """Use the final linear layer, a module or its name, if that is cheaper. Returns self.

        The layer may be part of the forward or left out of it.
        """
        self._model["final_layer"] = final_linear_layer
        return self

    def add_embedding_method(
        self,
        embedding_method_name: str,
        embedding_method_kwargs: Mapping[str, Any] | None = None,
        embedding_n_cat: int | None = None,
    ) -> Any:
        """The module's method that embeds the trailing `embedding_n_cat` inputs (None: those of integer type).

        Returns self.
        """
        self._model |= {
            "embedding": embedding_method_name,
            "embedding_kwargs": embedding_method_kwargs,
            "n_categorical": embedding_n_cat,
        }
        return self

    def add_ig_post_function(self, ig_post_func: Any, ig_post_func_kwargs: Mapping[str, Any] | None = None) -> Any:
        """Apply a function to the attributions of each batch before they are folded. Returns self.

        There are two forms. ``f(ig_1, ..., ig_m, x_1, ..., x_m, **kwargs)`` of all inputs returns a tuple, or an array
        if there is one input. ``f(ig, **kwargs)`` of each input may also be a tuple with one function per input (None:
        no change). A function that needs one argument beside `kwargs` has the second form. Arrays are (n, n_y_idx,
        *shape) for ig, and (n, *shape) for x.
        """
        kwargs = dict(ig_post_func_kwargs or {})
        if isinstance(ig_post_func, tuple | list):
            self._model["reduce"] = tuple(None if f is None else Function(f, kwargs) for f in ig_post_func)
        else:
            self._model["reduce"] = (Function if takes_one(ig_post_func, kwargs) else Joint)(ig_post_func, kwargs)
        return self

    # -- the meaning of the package's arguments ----------------------------------------------------------------------

    def _source(self, seed: Seed) -> Source:
        """The whole data set; if it draws its items, `seed` seeds the draws."""
        drawn = isinstance(getattr(self.dataset, "rng", None), torch.Generator)
        dataset = Addressed(self.dataset, int(seed or 0)) if drawn else self.dataset
        return sources.ensure(DataLoader(dataset, **self.dtld_kwargs))

    @cached_property
    def _example(self) -> Batch:
        """The first sample, for the kinds of the inputs and the target."""
        return _read(self._source(None), range(1))

    @property
    def x_size(self) -> tuple[torch.Size, ...]:
        """The shape of each input of a sample."""
        return tuple(x.shape[1:] for x in self._example.inputs)

    @property
    def y_size(self) -> int:
        """The number of targets of a sample; 1 for a label."""
        return self._example.target.numel()

    @property
    def multi_x(self) -> bool:
        """Whether a sample has several inputs."""
        return len(self._example.inputs) > 1

    def _given(self, name: str, value: Any) -> Tensors:
        """The user's arrays, one per input, with one row per sample; categories have `dtype_cat`.

        Raises `ConfigError` for arrays that do not fit the data.
        """
        arrays, found = (tuple(value) if self.multi_x else (value,)), []
        if len(arrays) != len(self._example.inputs):
            raise ConfigError(f"{name} has {len(arrays)} arrays for {len(self._example.inputs)} inputs: give one each")
        for value, like in zip(arrays, self._example.inputs, strict=True):
            # lists of floats become float64, as in numpy
            array = real(value, name, ConfigError)
            shape = tuple(like.shape[1:])
            rows = array[None] if array.ndim == len(shape) else array
            if tuple(rows.shape[1:]) != shape or not len(rows):
                raise ConfigError(f"{name} has an array of shape {tuple(array.shape)}: give {shape}, or (n, *{shape})")
            kind = (
                self.dtype_cat
                if not like.is_floating_point()
                else array.dtype
                if array.is_floating_point()
                else like.dtype
            )
            if not torch.equal(rows.to(kind).to(rows.dtype).nan_to_num(), rows.nan_to_num()):
                raise ConfigError(f"{name} has numbers of {rows.dtype} that are none of {kind}")
            found.append(rows.to(kind))
        return tuple(found)

    def _data(self, x: Any, seed: Seed, arrays: bool = False) -> Any:
        """The data of a call: all rows, `x` rows drawn by `seed`, or given inputs with meaningless targets."""
        whole = self._source(seed)
        if x is None:
            return whole
        if arrays and not isinstance(x, numbers.Integral):
            rows, y = self._given("x", x), self._example.target
            return rows if self.multi_x else rows[0], y.new_zeros(len(rows[0]), *y.shape[1:])
        if isinstance(x, bool) or not isinstance(x, numbers.Integral) or not 0 < int(x) <= len(whole):
            raise ConfigError(f"n_x={x!r}: give None, or a number of inputs, 1 to {len(whole)}, which the data set has")
        chosen = seeds.generator(int(seed or 0), 0, "compat.rows").choice(len(whole), int(x), replace=False)
        return whole.part(sorted(chosen.tolist()))

    def _baseline(self, x_0: Any, seed: Seed) -> baselines.Baseline:
        """The baseline for `x_0`.

        None: zeros; an int: rows of the whole data set, drawn for each input; a float: a constant; arrays: these, for
        all inputs.
        """
        if isinstance(x_0, numbers.Integral) and not isinstance(x_0, bool):
            return baselines.Resampled(int(x_0), self._source(seed))
        if isinstance(x_0, Tensor | np.ndarray | list | tuple):
            return baselines.Given(self._given("x_0", x_0))
        return baselines.ensure(x_0)

    def _outputs(self, y_idx: Any) -> tuple[list[int] | None, Any]:
        """The selected outputs, each once, and the position of each requested output among them."""
        if y_idx is None:
            return None, slice(None)
        wishes, y = np.atleast_1d(np.asarray(y_idx)), self._example.target
        label = y.numel() == 1 and not y.is_floating_point()  # for a label only the model knows the number of outputs
        low, high = (0, np.iinfo(np.int64).max) if label else (-y.numel(), y.numel())
        if (
            wishes.ndim != 1
            or wishes.dtype.kind not in "iu"
            or not len(wishes)
            or not ((low <= wishes) & (wishes < high)).all()
        ):
            wanted = "integers of at least 0, as y is a label" if label else f"integers from {low} to {high - 1}"
            raise ConfigError(f"y_idx={y_idx!r}: give None, one or several {wanted}")
        chosen, where = np.unique(wishes % high, return_inverse=True)
        return chosen.tolist(), where

    # -- the run, and the package's return values ---------------------------------------------------------------------

    def _run(
        self, data: Any, outputs: Any, rows: int | None, seed: Seed, store: Any, fabric: Any, **more: Any
    ) -> xr.DataTree:
        settings = {**self._model, "micro_batch": rows, **(fabric or {}), **more}
        return attribute(self.module, data, target=outputs, seed=int(seed or 0), store=store, **settings)

    def _cast(self, values: Any) -> np.ndarray:
        values = np.asarray(values)
        return (
            values.astype(np.float64 if self.dtype == torch.float64 else np.float32)
            if values.dtype.kind == "f"
            else values
        )

    def _maps(self, node: Any, name: str, at: Any) -> Arrays:
        """The maps of a result, one per input."""
        n_inputs = sum(name in child for child in node.children.values())
        maps = tuple(self._cast(np.asarray(node[f"{key}/{name}"])[at]) for key in input_names(n_inputs))
        return maps if self.multi_x or len(maps) > 1 else maps[0]

    def _samples(self, tree: xr.DataTree, data: Any, where: Any, *tables: str) -> tuple[Any, ...]:
        """Inputs, targets, tables (n_x, n_y_idx), attributions (n_x, n_y_idx, *shape). Given inputs: NaN targets."""
        own, samples = isinstance(data, Source), tree["samples"]
        with Model(self.module, precision=self._model["precision"]).reserved():  # data may draw numbers of its type
            rows = _read(data, range(len(data))).inputs if own else data[0] if self.multi_x else (data[0],)
        x = tuple(self._cast(row.float() if row.dtype == torch.bfloat16 else row) for row in rows)
        y, *others = (self._cast(np.asarray(samples[name])[:, where]) for name in ("target", *tables))
        return (
            x if self.multi_x else x[0],
            y if own else np.full_like(y, np.nan),
            *others,
            self._maps(samples, "attribution", np.s_[:, where]),
        )

    def _error(self, maps: Arrays, y_idx: Any, batch_size: Any, x_seed: Seed, n_x: Any) -> np.ndarray:
        """``|sum_i a_i - corr|`` per output, with the correlation from a forward-only pass."""
        outputs, where = self._outputs(y_idx)
        model = {key: value for key, value in self._model.items() if key != "reduce"}
        settings = {"attributor": Identity(), "statistics": [], "micro_batch": rows_of(batch_size, 1), **model}
        tree = attribute(self.module, self._data(n_x, x_seed), target=outputs, seed=int(x_seed or 0), **settings)
        return np.abs(total(maps) - np.asarray(tree["correlation"])[where])


@random_states_kept()
def _read(source: Source, indices: Sequence[int]) -> Batch:
    return source.fetch(indices)


def total(maps: Arrays) -> np.ndarray:
    arrays = maps if isinstance(maps, tuple) else (maps,)
    return np.sum([np.asarray(array, dtype=np.float64).reshape(len(array), -1).sum(1) for array in arrays], axis=0)


def mean_error(values: Any) -> float:
    """The mean absolute error, over the errors that are defined."""
    errors = np.abs(np.asarray(values, dtype=np.float64))
    errors = errors[np.isfinite(errors)]
    return float(errors.mean()) if errors.size else float("nan")


def say(line: str) -> None:
    """Print on the first rank."""
    if distributed.rank() == 0:
        print(line)
