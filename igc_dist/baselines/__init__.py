"""Baselines: where the paths start.

A baseline object gives `count` baselines for each of the n samples of a micro-batch: (B, n, *P) per input. If it is
`shared`, all samples have the same baselines. The baseline output is then constant and completeness is exact (``rho0 =
0``, see `statistics/correlation.py`).

May import: data, seeds, tensors, arrays, records.
"""

from __future__ import annotations

import numbers
from typing import Any

from igc_dist.arrays import is_array, real
from igc_dist.baselines.base import Baseline, Surroundings, check_positive, is_number
from igc_dist.baselines.drawn import Blur, Noise, Partners, Resampled
from igc_dist.baselines.references import References
from igc_dist.baselines.shared import Constant, Constants, Given, Mean, Samples, Zeros
from igc_dist.data import Source
from igc_dist.records import ConfigError

__all__ = [
    "Baseline", "Blur", "Constant", "Constants", "Given", "Mean", "Noise", "Partners", "References", "Resampled",
    "Samples", "Surroundings",
    "Zeros", "check_positive", "ensure", "number",
]  # fmt: skip


def number(baseline: Baseline, source: Source) -> int:
    """The number of baselines per sample. Raises `ConfigError` if the data cannot give them."""
    return baseline.count(len(source), tuple(tuple(x.shape[1:]) for x in source.look([0]).inputs))


def ensure(baseline: Any) -> Baseline:
    """Coerce a user's wish to a `Baseline`.

    None gives zeros, a float a constant, a list of floats several constants, and an int K gives K shared data samples.
    Arrays, one for each input, and `Baseline` objects are also accepted. Raises `ConfigError`.
    """
    if isinstance(baseline, Baseline):
        return baseline
    if baseline is None:
        return Zeros()
    if isinstance(baseline, bool):
        raise ConfigError(f"baseline={baseline!r}: give None, a float, an int K, tensors, or a baseline object")
    if isinstance(baseline, numbers.Integral):
        if baseline < 1:
            raise ConfigError(
                f"baseline={baseline}: an int is a number of data samples, at least 1; for a constant give a float "
                f"({float(baseline)})"
            )
        return Samples(int(baseline))
    if isinstance(baseline, numbers.Real):
        return Constant(float(baseline))
    if is_array(baseline):
        value = real(baseline, "baseline", ConfigError)
        return Given((value,)) if value.ndim else ensure(value.item())
    if isinstance(baseline, list | tuple) and baseline and all(map(is_array, baseline)):
        return Given(tuple(baseline))
    if isinstance(baseline, list | tuple) and baseline and all(map(is_number, baseline)):
        return Constants(tuple(baseline))
    raise ConfigError(
        f"baseline={baseline!r} of type {type(baseline).__name__}: give None, a float or several, an int K, tensors, "
        "or a baseline object"
    )
