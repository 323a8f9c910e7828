"""The classes of the IGC package (Lelievre and Chen 2024, arXiv:2404.13910; version 1.1), over `igc_dist.attribute`.

Change the import and keep the rest: constructor, `add_*` methods and `compute` have the package's signatures. Every number
comes from the engine, so it is the same on any number of ranks. What differs from the package is listed in README.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
import xarray as xr
from torch import Tensor, nn
from torch.utils.data import Dataset, Subset, default_collate

from igc_dist import baselines, seeds
from igc_dist.api import attribute
from igc_dist.attributors import BaselineShapley as _Shapley
from igc_dist.attributors import Identity
from igc_dist.data import Source, input_names
from igc_dist.features import Function, Joint
from igc_dist.quadrature import rule
from igc_dist.records import ConfigError
from igc_dist.statistics import TTest

Arrays = np.ndarray | tuple[np.ndarray, ...]

PRECISION = {torch.float16: "16-mixed", torch.float32: "32-true", torch.float64: "64-true"}

LOADER = ("num_workers", "collate_fn")
"""Loader arguments that matter here. Those that only matter for speed are taken and not used."""
HARMLESS = ("pin_memory", "timeout", "worker_init_fn", "multiprocessing_context", "prefetch_factor", "persistent_workers", "drop_last")


class _Prepared(Dataset[Any]):
    """The user's data set, its inputs in the wished types; every item a function of its index.

    A data set with a generator `rng` may draw a new item at each access, whatever the index. It is copied, and its
    generator seeded by (seed, index) before each access, so that it can be read in any order, twice, and on several ranks.
    """

    def __init__(self, dataset: Any, dtype: torch.dtype, dtype_cat: torch.dtype, seed: int | None) -> None:
        self.dataset, self.dtype, self.dtype_cat, self.seed = dataset, dtype, dtype_cat, seed or 0
        if isinstance(getattr(dataset, "rng", None), torch.Generator):
            self.dataset = copy.copy(dataset)
            self.dataset.rng = torch.Generator(device=dataset.rng.device)

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> Any:
        if isinstance(getattr(self.dataset, "rng", None), torch.Generator):
            self.dataset.rng.manual_seed(seeds.seed(self.seed, int(index), "compat.rng", 0) % 2**63)
        x, y = self.dataset[index]
        return (tuple(map(self._cast, x)) if isinstance(x, list | tuple) else self._cast(x)), y

    def _cast(self, value: Any) -> Tensor:
        value = torch.as_tensor(value)
        return (
            value.to(torch.float32 if self.dtype == torch.float16 else self.dtype)
            if value.is_floating_point()
            else value.to(self.dtype_cat)
        )


class _Method:
    """What all methods share: the model, how to call it, the data.

    `dtld_kwargs`: arguments of the loader (num_workers, collate_fn). `forward_method_name`, `forward_method_kwargs`: how to
    call the module. `n_embedding_categories`: numbers of categories of the trailing categorical inputs, for attributions to
    categories. `dtype`: float64 computes in float64, float16 under autocast. Raises what `igc_dist.attribute` raises.
    """

    def __init__(
        self,
        module: nn.Module,
        dataset: Any,
        dtld_kwargs: Mapping[str, Any] | None = None,
        forward_method_name: str | None = None,
        forward_method_kwargs: Mapping[str, Any] | None = None,
        n_embedding_categories: int | Sequence[int] | None = None,
        dtype: torch.dtype = torch.float32,
        dtype_cat: torch.dtype = torch.int32,
    ) -> None:
        if dtype not in PRECISION:
            raise ConfigError(f"dtype={dtype}: choose one of {', '.join(map(str, PRECISION))}")
        self.module, self.dataset, self.dtype, self.dtype_cat = module, dataset, dtype, dtype_cat
        self.dtld_kwargs = dict(dtld_kwargs or {})
        for name in self.dtld_kwargs:
            if name not in (*LOADER, *HARMLESS):
                raise ConfigError(f"dtld_kwargs has {name!r}: the loader takes {', '.join((*LOADER, *HARMLESS))}")
        self._model: dict[str, Any] = {
            "forward": forward_method_name,
            "forward_kwargs": forward_method_kwargs,
            "categories": n_embedding_categories,
            "precision": PRECISION[dtype],
        }

    def add_final_linear_layer(self, layer: nn.Module | str) -> Any:
        """Attribute the input of a final linear layer, a module or its name, where that is cheaper; returns self."""
        self._model["final_layer"] = layer
        return self

    def add_embedding_method(
        self, embedding_method_name: str, embedding_method_kwargs: Mapping[str, Any] | None = None, embedding_n_cat: int | None = None
    ) -> Any:
        """The module's method that embeds the trailing `embedding_n_cat` inputs (None: those of integer type); returns self."""
        self._model |= {"embedding": embedding_method_name, "embedding_kwargs": embedding_method_kwargs, "n_categorical": embedding_n_cat}
        return self

    # -- what the package's arguments mean ---------------------------------------------------------------------------

    @property
    def _multi(self) -> bool:
        return isinstance(self.dataset[0][0], list | tuple)

    def _data(self, x: Any, seed: int | None) -> Any:
        """The data set of a call: all of it, `x` rows of it, or given inputs, which have no targets."""
        whole = _Prepared(self.dataset, self.dtype, self.dtype_cat, seed)
        if x is not None and not isinstance(x, int | np.integer):
            given = tuple(whole._cast(array) for array in (x if self._multi else (x,)))
            shapes = [torch.as_tensor(value).shape for value in (self.dataset[0][0] if self._multi else (self.dataset[0][0],))]
            rows = tuple(array[None] if array.shape == shape else array for array, shape in zip(given, shapes, strict=True))
            return rows if self._multi else rows[0], torch.zeros(len(rows[0]), *torch.as_tensor(self.dataset[0][1]).shape)
        if x is not None:
            if isinstance(x, bool) or not 0 < x <= len(whole):
                raise ConfigError(f"n_x={x}: give a number of samples from 1 to {len(whole)}, which the data set has")
            chosen = seeds.generator(seed or 0, 0, "compat.rows", 0).choice(len(whole), int(x), replace=False)
            whole = Subset(whole, sorted(chosen.tolist()))  # type: ignore[assignment]
        return Source(whole, self.dtld_kwargs.get("collate_fn") or default_collate, self.dtld_kwargs.get("num_workers", 0))

    def _baseline(self, x_0: Any, seed: int | None) -> baselines.Baseline:
        if isinstance(x_0, int | np.integer) and not isinstance(x_0, bool):
            return baselines.Resampled(int(x_0), _Prepared(self.dataset, self.dtype, self.dtype_cat, seed))
        if x_0 is None or isinstance(x_0, float | np.floating | baselines.Baseline):
            return baselines.ensure(x_0)
        return baselines.ensure(tuple(torch.as_tensor(array) for array in (x_0 if self._multi else (x_0,))))

    def _outputs(self, y_idx: Any) -> tuple[list[int] | None, Any]:
        """The selected outputs, each once, and where each wish is among them."""
        if y_idx is None:
            return None, slice(None)
        n = int(np.prod(torch.as_tensor(self.dataset[0][1]).shape, dtype=int))
        wishes = np.atleast_1d(np.asarray(y_idx))
        if wishes.ndim != 1 or wishes.dtype.kind not in "iu" or not len(wishes) or not ((-n <= wishes) & (wishes < n)).all():
            raise ConfigError(f"y_idx={y_idx!r}: give None, an integer or integers from {-n} to {n - 1}: the data set has {n} outputs")
        chosen, where = np.unique(wishes % n, return_inverse=True)
        return chosen.tolist(), where

    def _run(
        self, data: Any, wish: Any, batch_size: Any, points: int, seed: int | None, store: Any, fabric: Any, **more: Any
    ) -> xr.DataTree:
        settings = {"micro_batch": _rows(batch_size, points), **self._model, **(fabric or {}), **more}
        return attribute(self.module, data, target=wish, seed=seed or 0, store=store, **settings)

    def _maps(self, tree: xr.DataTree, name: str, where: Any, samples: bool = False) -> Any:
        """The arrays of a result, one per input, outputs as they were wished."""
        node: Any = tree["samples"] if samples else tree
        inputs = [key for key in node.children if name in node[key]]
        found = [_values(node, f"{key}/{name}") for key in input_names(len(inputs))]
        dtype = np.float64 if self.dtype == torch.float64 else np.float32
        picked = tuple((values[:, where] if samples else values[where]).astype(dtype) for values in found)
        return picked if self._multi else picked[0]

    def _table(self, tree: xr.DataTree, name: str, where: Any) -> np.ndarray:
        return _values(tree, f"samples/{name}")[:, where].astype(np.float64 if self.dtype == torch.float64 else np.float32)

    def _inputs(self, data: Any) -> Arrays:
        source = (
            data
            if isinstance(data, Source)
            else Source([*zip(zip(*data[0], strict=True) if self._multi else data[0], data[1], strict=True)])
        )
        arrays = tuple(x.numpy() for x in source.fetch(range(len(source))).inputs)
        return arrays if self._multi else arrays[0]


def _rows(batch_size: Any, points: int) -> int | None:
    """Rows of a forward pass: the package counts (input, baseline, output) triples, each of which walks `points` rows."""
    if batch_size is None:
        return None
    sizes = batch_size if isinstance(batch_size, tuple | list) else (batch_size,)
    if any(size is not None and (isinstance(size, bool) or int(size) < 1) for size in sizes):
        raise ConfigError(f"batch_size={batch_size!r}: give None, an integer of at least 1, or a tuple of them")
    return int(np.prod([size or 1 for size in sizes[:2]])) * points


class Gradients(_Method):
    """Gradients of the outputs at the inputs."""

    def compute(
        self, x: Any = None, y_idx: Any = None, batch_size: Any = None, x_seed: int | None = None, *, store: Any = None, fabric: Any = None
    ) -> tuple[Arrays, np.ndarray, np.ndarray, Arrays]:
        """Inputs, targets, predictions (n_x, n_y_idx), gradients (n_x, n_y_idx, *x shape). `x`: None (all), a number, or arrays."""
        data, (wish, where) = self._data(x, x_seed), self._outputs(y_idx)
        tree = self._run(data, wish, batch_size, 1, x_seed, store, fabric, method="gradients")
        grad = self._maps(tree, "attribution", where, samples=True)
        return self._inputs(data), self._target(tree, where, data), self._table(tree, "prediction", where), grad

    def _target(self, tree: xr.DataTree, where: Any, data: Any) -> np.ndarray:
        """Targets; NaN for inputs that were given, which have none."""
        found = self._table(tree, "target", where)
        return found if isinstance(data, Source) else np.full_like(found, np.nan)


class IntegratedGradients(Gradients):
    """Integrated Gradients by the trapezoidal rule on `n_steps` points, mean over baselines."""

    _method, _result, _per_input = "ig", "ig", True

    def add_ig_post_function(self, ig_post_func: Any, ig_post_func_kwargs: Mapping[str, Any] | None = None) -> Any:
        """Apply a function to the attributions of each batch before they are folded; returns self.

        ``f(ig_1, ..., ig_m, x_1, ..., x_m, **kwargs)`` on all inputs; or ``f(ig)``, one per input in a tuple (None: leave as
        it is), or alone for a model of one input. Arrays are (n, n_y_idx, *shape) and (n, *shape).
        """
        kwargs = dict(ig_post_func_kwargs or {})
        if isinstance(ig_post_func, tuple | list):
            self._model["reduce"] = tuple(None if f is None else Function(f, kwargs) for f in ig_post_func)
        else:
            single = _positional(ig_post_func) - len(kwargs) == 1
            self._model["reduce"] = Function(ig_post_func, kwargs) if single else Joint(ig_post_func, kwargs)
        return self

    def compute(  # type: ignore[override]
        self,
        x: Any = None,
        x_0: Any = None,
        y_idx: Any = None,
        n_steps: int = 64,
        batch_size: Any = None,
        x_seed: int | None = None,
        x_0_seed: int | None = 100,
        check_error: bool = True,
        *,
        store: Any = None,
        fabric: Any = None,
    ) -> tuple[Arrays, np.ndarray, np.ndarray, np.ndarray, Arrays]:
        """Inputs, targets, predictions, baseline predictions (n_x, n_y_idx), IG (n_x, n_y_idx, *x shape).

        `x`: None (all), a number, or arrays. `x_0`: None (zeros), a float (constant), an int (that many rows of the data for
        each input), or arrays.
        """
        data, (wish, where) = self._data(x, x_seed), self._outputs(y_idx)
        more = {"method": "ig", "baseline": self._baseline(x_0, x_0_seed), "quadrature": rule("trapezoid", n_steps)}
        tree = self._run(data, wish, batch_size, n_steps, x_0_seed, store, fabric, **more)
        return self._samples(tree, data, where, check_error)

    def _samples(self, tree: xr.DataTree, data: Any, where: Any, check_error: bool) -> Any:
        if check_error:
            print(f"ig err: {float(np.nanmean(np.abs(_values(tree, 'samples/delta')))):>9.6f}")
        tables = (self._table(tree, name, where) for name in ("prediction", "prediction_baseline"))
        return self._inputs(data), self._target(tree, where, data), *tables, self._maps(tree, "attribution", where, samples=True)


class IntGradMeanStd(IntegratedGradients):
    """Mean and standard deviation of Integrated Gradients over the data set."""

    def compute(  # type: ignore[override]
        self,
        x_0: Any = None,
        y_idx: Any = None,
        n_steps: int = 64,
        batch_size: Any = None,
        x_seed: int | None = None,
        x_0_seed: int | None = 100,
        n_x: int | None = None,
        check_error: bool = True,
        *,
        store: Any = None,
        fabric: Any = None,
    ) -> tuple[Arrays, Arrays]:
        """Mean and standard deviation, (n_y_idx, *x shape) each; arguments as `IntGradCorr.compute`."""
        tree, where = self._folded("ig_mean_std", x_0, y_idx, n_steps, batch_size, x_seed, x_0_seed, n_x, check_error, store, fabric)
        return self._maps(tree, "ig_mean", where), self._maps(tree, "ig_std", where)

    def _folded(
        self,
        method: str,
        x_0: Any,
        y_idx: Any,
        n_steps: int,
        batch_size: Any,
        x_seed: Any,
        x_0_seed: Any,
        n_x: Any,
        check: bool,
        *where: Any,
    ) -> tuple[xr.DataTree, Any]:
        wish, at = self._outputs(y_idx)
        more = {"method": method, "baseline": self._baseline(x_0, x_0_seed), "quadrature": rule("trapezoid", n_steps)}
        tree = self._run(self._data(n_x, x_seed), wish, batch_size, n_steps, x_0_seed, *where, **more)
        if check:
            _say(tree, method)
        return tree, at


class IntGradCorr(IntGradMeanStd):
    """Integrated Gradient Correlation."""

    _method = "igc"

    def compute(  # type: ignore[override]
        self,
        x_0: Any = None,
        y_idx: Any = None,
        n_steps: int = 64,
        batch_size: Any = None,
        x_seed: int | None = None,
        x_0_seed: int | None = 100,
        n_x: int | None = None,
        check_error: bool = True,
        *,
        store: Any = None,
        fabric: Any = None,
    ) -> Arrays:
        """The correlation of predictions and targets, split over the inputs: (n_y_idx, *x shape), a tuple for several inputs.

        `x_0`: None (zeros), a float (constant), an int (that many rows of the data for each input), or arrays. `y_idx`:
        None (all outputs), an integer or several. `n_steps`: points of the trapezoidal rule. `batch_size`: for speed only.
        `x_seed`, `n_x`: as many inputs, sampled. `check_error`: print what the sums leave open. `store`: a folder to keep the
        results in and to resume from. `fabric`: settings of `igc_dist.attribute` such as accelerator, precision, threads.
        """
        tree, where = self._folded(self._method, x_0, y_idx, n_steps, batch_size, x_seed, x_0_seed, n_x, check_error, store, fabric)
        return self._maps(tree, self._method, where)

    def error(
        self, igc: Arrays, y_idx: Any = None, batch_size: Any = None, x_seed: int | None = None, n_x: int | None = None
    ) -> np.ndarray:
        """``|sum_i IGC_i - corr|`` per output, the correlation from a forward-only pass."""
        return np.abs(_total(igc) - self._expected(y_idx, batch_size, x_seed, n_x))

    def _expected(self, y_idx: Any, batch_size: Any, x_seed: int | None, n_x: int | None) -> np.ndarray:
        wish, where = self._outputs(y_idx)
        model = {key: value for key, value in self._model.items() if key != "reduce"}
        settings = {"attributor": Identity(), "statistics": [], "micro_batch": _rows(batch_size, 1), **model}
        tree = attribute(self.module, self._data(n_x, x_seed), target=wish, seed=x_seed or 0, **settings)
        return _values(tree, "correlation")[where]


class IntGradAutoCorr(IntGradCorr):
    """Integrated Gradient auto-Correlation: targets are the predictions themselves, so that the sum is 1."""

    _method = "igac"

    def _expected(self, y_idx: Any, batch_size: Any, x_seed: int | None, n_x: int | None) -> np.ndarray:
        return np.float64(1.0)  # type: ignore[return-value]


class NaiveCorrelation(_Method):
    """Correlation of every input component with every target."""

    def compute(
        self,
        y_idx: Any = None,
        batch_size: Any = None,
        x_seed: int | None = None,
        n_x: int | None = None,
        *,
        store: Any = None,
        fabric: Any = None,
    ) -> Arrays:
        """Pearson's correlations (n_y_idx, *x shape), a tuple for several inputs."""
        wish, where = self._outputs(y_idx)
        tree = self._run(self._data(n_x, x_seed), wish, batch_size, 1, x_seed, store, fabric, method="naive_correlation")
        return self._maps(tree, "naive_correlation", where)


class NaiveTTest(_Method):
    """Two-sample t-tests of every input component between samples with a low and with a high target."""

    def compute(
        self,
        cat_ranges: Any,
        y_idx: Any = None,
        batch_size: Any = None,
        x_seed: int | None = None,
        n_x: int | None = None,
        *,
        store: Any = None,
        fabric: Any = None,
    ) -> Arrays:
        """Two-sided p-values (n_y_idx, *x shape). `cat_ranges`: (a, b) for the groups y <= a and y >= b, or one pair per output."""
        wish, where = self._outputs(y_idx)
        ranges = np.asarray(cat_ranges, dtype=np.float64)
        if ranges.ndim == 2 and not isinstance(where, slice):  # in the order of the wishes; each output once
            if len(ranges) != len(where):
                raise ConfigError(f"cat_ranges has {len(ranges)} pairs for {len(where)} outputs: give one pair, or one each")
            ranges = ranges[np.unique(where, return_index=True)[1]]
        if ranges.ndim not in (1, 2) or ranges.shape[-1] != 2:
            raise ConfigError(f"cat_ranges={cat_ranges!r}: give (a, b), or one such pair per output")
        test = TTest(low=ranges[..., 0].tolist(), high=ranges[..., 1].tolist())
        tree = self._run(self._data(n_x, x_seed), wish, batch_size, 1, x_seed, store, fabric, attributor=Identity(), statistics=[test])
        return self._maps(tree, "naive_ttest", where)


class BaselineShapley(IntegratedGradients):
    """Baseline Shapley values by `n_iter` random orders of the components for each baseline."""

    def compute(  # type: ignore[override]
        self,
        x: Any = None,
        x_0: Any = None,
        y_idx: Any = None,
        n_iter: int = 8,
        x_0_batch_size: int | None = 1,
        x_seed: int | None = None,
        x_0_seed: int | None = 100,
        check_error: bool = True,
        *,
        store: Any = None,
        fabric: Any = None,
    ) -> tuple[Arrays, np.ndarray, np.ndarray, np.ndarray, Arrays]:
        """As `IntegratedGradients.compute`, with Shapley values. `x_0_batch_size` is for speed only."""
        data, (wish, where) = self._data(x, x_seed), self._outputs(y_idx)
        more = {"attributor": _Shapley(n_iter), "statistics": [], "samples": True, "baseline": self._baseline(x_0, x_0_seed)}
        tree = self._run(data, wish, None, 1, x_0_seed, store, fabric, **more)
        return self._samples(tree, data, where, check_error)


class BslShapCorr(IntGradCorr):
    """Baseline Shapley Correlation."""

    _method = "bsc"

    def compute(  # type: ignore[override]
        self,
        x_0: Any = None,
        y_idx: Any = None,
        n_iter: int = 8,
        x_0_batch_size: int | None = 1,
        x_seed: int | None = None,
        x_0_seed: int | None = 100,
        n_x: int | None = None,
        check_error: bool = True,
        *,
        store: Any = None,
        fabric: Any = None,
    ) -> Arrays:
        """As `IntGradCorr.compute`, with Shapley values in place of Integrated Gradients."""
        wish, where = self._outputs(y_idx)
        more = {"attributor": _Shapley(n_iter), "statistics": ["correlation"], "baseline": self._baseline(x_0, x_0_seed)}
        tree = self._run(self._data(n_x, x_seed), wish, None, 1, x_0_seed, store, fabric, **more)
        if check_error:
            _say(tree, "bsc")
        return self._maps(tree, "bsc", where)


def _values(tree: Any, path: str) -> np.ndarray:
    return np.asarray(tree[path])


def _total(maps: Arrays) -> np.ndarray:
    arrays = maps if isinstance(maps, tuple) else (maps,)
    return np.stack([np.asarray(array, dtype=np.float64).reshape(len(array), -1).sum(1) for array in arrays]).sum(0)


def _say(tree: xr.DataTree, method: str) -> None:
    """The errors that the package prints, and of which part they consist."""
    if "completeness_error" in tree:
        print(f"{'bs' if method == 'bsc' else 'ig'} err: {float(tree['completeness_error'].mean()):>9.6f}")
    if method == "igac" and "igac_sum" in tree:
        print(f"igac err: {float(np.abs(tree['igac_sum'] - 1).mean()):>9.6f}")
    if "igc_error" in tree:
        parts = (float(np.abs(tree[name]).mean()) for name in ("igc_error", "baseline_term", "quadrature_error"))
        print("{} err: {:>9.6f} (of which baselines {:.6f}, quadrature {:.6f})".format(method, *parts))


def _positional(function: Callable[..., Any]) -> int:
    """Number of positional parameters of a function; 0 where it takes any number."""
    kinds = [parameter.kind for parameter in inspect.signature(function).parameters.values()]
    if inspect.Parameter.VAR_POSITIONAL in kinds:
        return 0
    return sum(kind in (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD) for kind in kinds)
