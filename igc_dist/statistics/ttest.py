"""Student's two-sample t-test between the attributions of samples with a low and with a high target."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float64
from torch import Tensor

from igc_dist.arrays import real
from igc_dist.records import ConfigError
from igc_dist.statistics.base import Finalized, Statistic
from igc_dist.statistics.state import Array, State, widen

LOW, HIGH = 1, 2
"""Bits of the number of a group: a sample may be in neither group or in both."""


@dataclass(frozen=True)
class TTest(Statistic):
    """Group A holds the samples with ``y <= low``, group B those with ``y >= high``, separately for each output.

    ``t = (m_B - m_A) / (s sqrt(1/n_A + 1/n_B))`` with the pooled ``s**2 = ((n_A - 1) s_A**2 + (n_B - 1) s_B**2) / (n_A
    + n_B - 2)`` (Student 1908). p-values are two-sided, from the t distribution with ``n_A + n_B - 2`` degrees of
    freedom. NaN if a group has fewer than two samples or s = 0. With a = x this is the naive t-test of inputs.

    `low`, `high`: a number, or one per selected output. None: halfway between the two values of a target that has only
    two, such as a one-hot label; else its 10 % and 90 % quantiles. Raises `ConfigError` for what is no number.
    """

    low: Any = None
    high: Any = None

    def __post_init__(self) -> None:
        for name, given in (("low", self.low), ("high", self.high)):
            if given is not None and bool(real(given, f"ttest.{name}", ConfigError).isnan().any()):
                raise ConfigError(f"ttest.{name}={given!r}: give numbers, NaN has no samples below or above")

    name = "ttest"
    terms = ("a", "aa")
    linear = False
    n_maps = 2
    n_groups = 4
    weighted = False
    jackknifed = False

    def thresholds(self, target: Float64[np.ndarray, "N J"]) -> Float64[np.ndarray, "2 J"]:
        """(low, high) for each output; NaN if there are none. Raises `ConfigError` for the wrong number of them."""
        found = np.full((2, target.shape[1]), np.nan)
        for j, y in enumerate(target.T):
            values = np.unique(y[np.isfinite(y)])
            if len(values):
                found[:, j] = values.mean() if len(values) == 2 else np.quantile(y[np.isfinite(y)], (0.1, 0.9))
        for row, (name, given) in zip(found, (("low", self.low), ("high", self.high)), strict=True):
            if given is not None:
                wish = np.asarray(given, dtype=np.float64)
                if wish.ndim and wish.shape != row.shape:
                    raise ConfigError(
                        f"ttest.{name} has {wish.size} values for {len(row)} selected outputs: give one number, or "
                        "one each"
                    )
                row[:] = wish
        return found

    def groups(self, target: Tensor, thresholds: Array) -> Tensor:
        """Group number of each sample and output: the bits LOW and HIGH."""
        low, high = (target.new_tensor(row) for row in thresholds)
        return LOW * (target <= low).long() + HIGH * (target >= high).long()

    def finalize(self, state: State) -> Finalized:
        """`features[i]["ttest_p"]`, `["ttest_t"]` (..., J, *P_i) and `outputs["n_low"]`, `["n_high"]` (..., J).

        The state has groups: (..., 4, J, *P).
        """
        low, high = (state.at(group) + state.at(LOW | HIGH) for group in (LOW, HIGH))
        n_a, n_b = (np.rint(part.scalars["n"]) for part in (low, high))
        maps = tuple(self._test(low, high, n_a, n_b, i) for i in range(len(state.features)))
        return Finalized({"n_low": n_a.astype(np.int64), "n_high": n_b.astype(np.int64)}, maps)

    @staticmethod
    def _test(low: State, high: State, n_a: np.ndarray, n_b: np.ndarray, i: int) -> dict[str, np.ndarray]:
        dims = low.features[i]["a"].ndim - n_a.ndim
        n_a, n_b = widen(n_a, dims), widen(n_b, dims)
        with np.errstate(invalid="ignore", divide="ignore"):
            s_a, s_b = (part.std("a", i) * np.sqrt(n / (n - 1)) for part, n in ((low, n_a), (high, n_b)))
            from scipy.stats import ttest_ind_from_stats  # half a second, for t-tests only

            t, p = ttest_ind_from_stats(high.mean("a", i), s_b, n_b, low.mean("a", i), s_a, n_a)
        undefined = (n_a < 2) | (n_b < 2) | ((s_a == 0) & (s_b == 0))
        return {"ttest_p": np.where(undefined, np.nan, p), "ttest_t": np.where(undefined, np.nan, t)}
