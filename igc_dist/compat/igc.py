"""The classes of the IGC package (Lelievre and Chen 2024, arXiv:2404.13910; version 1.1), over `igc_dist.attribute`.

Change only the import: the constructor, the `add_*` methods, `compute` and `error` have the package's signatures; our
own arguments come after them, by keyword only. Every number comes from the engine, so it is the same on any number of
ranks, and with any batch size. `docs/coming.md` lists the differences from the package.

Common arguments. `x`: None (all inputs of the data set), a number of them to sample, or arrays. `n_x`: a number of
them, or None. `x_0`: None (zeros), a float (constant), an int (that many rows of the data set, sampled for each input),
or arrays, for all inputs. `y_idx`: None (all outputs), an integer or several. `n_steps`: points of the trapezoidal
rule. `batch_size`: only affects speed. `x_seed`, `x_0_seed`: seeds of sampled inputs and baselines. `check_error`:
print the errors of the sums. `store`: a folder to keep the results in and to resume from. `fabric`: settings of
`igc_dist.attribute`, such as accelerator, precision, threads.
"""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import xarray as xr

from igc_dist.arrays import real
from igc_dist.attributors import BaselineShapley as Shapley
from igc_dist.attributors import Identity
from igc_dist.compat.arguments import Int, Seed, plain, rows_of
from igc_dist.compat.base import Arrays, Method, mean_error, say, total
from igc_dist.paths import rule
from igc_dist.records import ConfigError
from igc_dist.statistics import TTest

__all__ = [
    "BaselineShapley",
    "BslShapCorr",
    "Gradients",
    "IntGradAutoCorr",
    "IntGradCorr",
    "IntGradMeanStd",
    "IntegratedGradients",
    "NaiveCorrelation",
    "NaiveTTest",
]


class Gradients(Method):
    """Gradients of the outputs at the inputs."""

    def compute(
        self,
        x: Any = None,
        y_idx: Any = None,
        batch_size: Any = None,
        x_seed: Seed = None,
        *,
        store: Any = None,
        fabric: Any = None,
    ) -> tuple[Arrays, np.ndarray, np.ndarray, Arrays]:
        """Inputs, targets, predictions (n_x, n_y_idx), gradients (n_x, n_y_idx, *shape)."""
        data, (outputs, where) = self._data(x, x_seed, arrays=True), self._outputs(y_idx)
        tree = self._run(data, outputs, rows_of(batch_size, 1), x_seed, store, fabric, method="gradients")
        x, y, r, a = self._samples(tree, data, where, "prediction")
        return x, y, r, a


class _Walk(Method):
    """A comparison with baselines, for every sample or folded over the data set."""

    _short: ClassVar[str] = "ig"
    _preset: ClassVar[str] = "ig"
    _results: ClassVar[tuple[str, ...]] = ()

    def _each(
        self, x: Any, x_0: Any, y_idx: Any, x_seed: Seed, x_0_seed: Seed, check: bool, *how: Any, **what: Any
    ) -> Any:
        """Inputs, targets, predictions, baseline predictions, attributions of every sample."""
        data, (outputs, where) = self._data(x, x_seed, arrays=True), self._outputs(y_idx)
        what |= {"statistics": [], "samples": True, "baseline": self._baseline(x_0, x_0_seed)}
        tree = self._run(data, outputs, how[0], x_0_seed, *how[1:], **what)
        if check:
            say(f"{self._short} err: {mean_error(tree['samples/delta']):>9.6f}")
        return self._samples(tree, data, where, "prediction", "prediction_baseline")

    def _folded(
        self, n_x: Any, x_0: Any, y_idx: Any, x_seed: Seed, x_0_seed: Seed, check: bool, *how: Any, **what: Any
    ) -> Any:
        """The maps named in `_results`."""
        data, (outputs, where) = self._data(n_x, x_seed), self._outputs(y_idx)
        tree = self._run(data, outputs, how[0], x_0_seed, *how[1:], baseline=self._baseline(x_0, x_0_seed), **what)
        if check:
            self._report(tree)
        maps = tuple(self._maps(tree, name, where) for name in self._results)
        return maps if len(maps) > 1 else maps[0]

    def _report(self, tree: xr.DataTree) -> None:
        """Print the errors that the package prints, their parts, and the outputs that have none."""
        say(f"{self._short} err: {mean_error(tree['completeness_error']):>9.6f}")
        if "igac_sum" in tree:
            say(f"igac err: {mean_error(tree['igac_sum'] - 1):>9.6f}")
        if "igc_error" in tree:
            error, base, rest = (mean_error(tree[name]) for name in ("igc_error", "baseline_term", "quadrature_error"))
            say(f"{self._preset} err: {error:>9.6f} (of which baselines {base:.6f}, quadrature {rest:.6f})")
        constant = np.asarray(tree["output"])[np.asarray(tree["constant"]) > 0]
        if len(constant):
            say(f"{self._preset}: NaN for outputs {constant.tolist()}, whose target or prediction is constant")


class IntegratedGradients(_Walk):
    """Integrated Gradients by the trapezoidal rule, mean over baselines."""

    def compute(
        self,
        x: Any = None,
        x_0: Any = None,
        y_idx: Any = None,
        n_steps: Int = 64,
        batch_size: Any = None,
        x_seed: Seed = None,
        x_0_seed: Seed = 100,
        check_error: bool = True,
        *,
        store: Any = None,
        fabric: Any = None,
    ) -> Any:
        """Inputs, targets, predictions, baseline predictions (n_x, n_y_idx), attributions (n_x, n_y_idx, *shape)."""
        how = rows_of(batch_size, n_steps), store, fabric
        what = {"method": "ig", "quadrature": rule("trapezoid", plain(n_steps))}
        return self._each(x, x_0, y_idx, x_seed, x_0_seed, check_error, *how, **what)


class _OfDataSet(IntegratedGradients):
    def compute(  # type: ignore[override]
        self,
        x_0: Any = None,
        y_idx: Any = None,
        n_steps: Int = 64,
        batch_size: Any = None,
        x_seed: Seed = None,
        x_0_seed: Seed = 100,
        n_x: Any = None,
        check_error: bool = True,
        *,
        store: Any = None,
        fabric: Any = None,
    ) -> Any:
        """The map (n_y_idx, *shape), a tuple for several inputs.

        `IntGradMeanStd` gives two: the mean and the standard deviation.
        """
        how = rows_of(batch_size, n_steps), store, fabric
        what = {"method": self._preset, "quadrature": rule("trapezoid", plain(n_steps))}
        return self._folded(n_x, x_0, y_idx, x_seed, x_0_seed, check_error, *how, **what)


class IntGradMeanStd(_OfDataSet):
    """Mean and standard deviation of Integrated Gradients over the data set."""

    _preset, _results = "ig_mean_std", ("ig_mean", "ig_std")


class IntGradCorr(_OfDataSet):
    """Integrated Gradient Correlation: the correlation of predictions and targets, split over the inputs."""

    _preset, _results = "igc", ("igc",)

    def error(
        self, igc: Arrays, y_idx: Any = None, batch_size: Any = None, x_seed: Seed = None, n_x: Any = None
    ) -> np.ndarray:
        """``|sum_i IGC_i - corr|`` per output."""
        return self._error(igc, y_idx, batch_size, x_seed, n_x)


class IntGradAutoCorr(_OfDataSet):
    """Integrated Gradient auto-Correlation: the predictions themselves are the targets, so the sum is 1."""

    _preset, _results = "igac", ("igac",)

    def error(self, igac: Arrays) -> np.ndarray:
        """``|sum_i IGaC_i - 1|`` per output."""
        return np.abs(total(igac) - 1)


class NaiveCorrelation(Method):
    """Correlation of every input component with every target."""

    def compute(
        self,
        y_idx: Any = None,
        batch_size: Any = None,
        x_seed: Seed = None,
        n_x: Any = None,
        *,
        store: Any = None,
        fabric: Any = None,
    ) -> Arrays:
        """Pearson's correlations (n_y_idx, *shape), a tuple for several inputs."""
        data, (outputs, where) = self._data(n_x, x_seed), self._outputs(y_idx)
        tree = self._run(data, outputs, rows_of(batch_size, 1), x_seed, store, fabric, method="naive_correlation")
        return self._maps(tree, "naive_correlation", where)


class NaiveTTest(Method):
    """Two-sample t-tests of every input component between samples with a low and with a high target."""

    def compute(
        self,
        cat_ranges: Any,
        y_idx: Any = None,
        batch_size: Any = None,
        x_seed: Seed = None,
        n_x: Any = None,
        *,
        store: Any = None,
        fabric: Any = None,
    ) -> Arrays:
        """Two-sided p-values (n_y_idx, *shape).

        `cat_ranges`: (a, b) for the groups y <= a and y >= b, or one pair per output.
        """
        data, (outputs, where) = self._data(n_x, x_seed), self._outputs(y_idx)
        ranges = real(cat_ranges, "cat_ranges", ConfigError).numpy().astype(np.float64)
        if ranges.ndim not in (1, 2) or ranges.shape[-1] != 2:
            raise ConfigError(f"cat_ranges={cat_ranges!r}: give (a, b), or one such pair per output")
        if ranges.ndim == 2 and outputs is not None:  # from the requested order to that of the outputs
            given, ranges = ranges, np.full((len(outputs), 2), np.nan)
            if len(given) == len(where):
                ranges[where] = given
            if not np.array_equal(ranges[where], given):
                raise ConfigError(
                    f"cat_ranges has {len(given)} pairs for {len(where)} outputs: give one pair, or one for each output"
                )
        what = {
            "attributor": Identity(),
            "statistics": [TTest(low=ranges[..., 0].tolist(), high=ranges[..., 1].tolist())],
        }
        tree = self._run(data, outputs, rows_of(batch_size, 1), x_seed, store, fabric, **what)
        return self._maps(tree, "naive_ttest", where)


class BaselineShapley(_Walk):
    """Baseline Shapley values by `n_iter` random orders of the components for each baseline.

    `x_0_batch_size` is accepted but not used: the plan sizes the batches.
    """

    _short = "bs"

    def compute(
        self,
        x: Any = None,
        x_0: Any = None,
        y_idx: Any = None,
        n_iter: Int = 8,
        x_0_batch_size: Int | None = 1,
        x_seed: Seed = None,
        x_0_seed: Seed = 100,
        check_error: bool = True,
        *,
        store: Any = None,
        fabric: Any = None,
    ) -> Any:
        """Inputs, targets, predictions, baseline predictions (n_x, n_y_idx), attributions (n_x, n_y_idx, *shape)."""
        rows_of(x_0_batch_size, 1)
        return self._each(
            x, x_0, y_idx, x_seed, x_0_seed, check_error, None, store, fabric, attributor=Shapley(plain(n_iter))
        )


class BslShapCorr(BaselineShapley):
    """Baseline Shapley Correlation."""

    _preset, _results = "bsc", ("bsc",)

    def compute(  # type: ignore[override]
        self,
        x_0: Any = None,
        y_idx: Any = None,
        n_iter: Int = 8,
        x_0_batch_size: Int | None = 1,
        x_seed: Seed = None,
        x_0_seed: Seed = 100,
        n_x: Any = None,
        check_error: bool = True,
        *,
        store: Any = None,
        fabric: Any = None,
    ) -> Any:
        """The map (n_y_idx, *shape), a tuple for several inputs."""
        rows_of(x_0_batch_size, 1)
        what = {"attributor": Shapley(plain(n_iter)), "statistics": ["correlation"]}
        return self._folded(n_x, x_0, y_idx, x_seed, x_0_seed, check_error, None, store, fabric, **what)

    def error(
        self, bsc: Arrays, y_idx: Any = None, batch_size: Any = None, x_seed: Seed = None, n_x: Any = None
    ) -> np.ndarray:
        """``|sum_i BSC_i - corr|`` per output."""
        return self._error(bsc, y_idx, batch_size, x_seed, n_x)
