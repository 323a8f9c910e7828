"""Recovery: how well a dataset-wise map finds a mask that is known to be true, as in a simulation."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float64
from scipy.special import stdtrit
from scipy.stats import rankdata

from igc_dist.metrics.parts import LEVEL
from igc_dist.records import ConfigError
from igc_dist.statistics import standard_error

INSIDE = 0.1
"""A feature is inside a mask where it is above this part of its largest size: masks may have tails."""


def agreement(maps: Float64[np.ndarray, "*G J P"], mask: Float64[np.ndarray, "J P"]) -> dict[str, np.ndarray]:
    """For each map, its correlation with the mask, and the probability that a feature inside has a larger |value|.

    "correlation" is Pearson's over the features, with the signs of the mask; "auc" takes ties half. NaN for a constant
    map, and for one that has NaN.
    """
    inside = np.abs(mask) > INSIDE * np.abs(mask).max(-1, keepdims=True)
    size, total = inside.sum(-1), mask.shape[-1]
    a, b = (values - values.mean(-1, keepdims=True) for values in (maps, mask))
    with np.errstate(invalid="ignore", divide="ignore"):
        correlation = (a * b).sum(-1) / np.sqrt(np.square(a).sum(-1) * np.square(b).sum(-1))
        ranks = np.where(inside, rankdata(np.abs(maps), axis=-1, nan_policy="propagate"), 0.0).sum(-1)
        auc = (ranks - size * (size + 1) / 2) / (size * (total - size))
    return {"correlation": correlation, "auc": np.where(np.isnan(correlation), np.nan, auc)}


def recovery(
    mask: Float64[np.ndarray, "J *M"],
    whole: Float64[np.ndarray, "J *P"],
    without: Float64[np.ndarray, "G J *P"],
    weight: Float64[np.ndarray, "G J"],
) -> dict[str, np.ndarray]:
    """`agreement` of a map with the mask, each (J,), with its standard error and 95 % interval by the jackknife.

    `without` are the maps without each fold, which has the `weight`. Raises `ConfigError` for a mask of another shape.
    """
    if mask.shape != whole.shape:
        raise ConfigError(f"the true mask has shape {mask.shape}, and the map {whole.shape}: they must be the same")
    flat = mask.reshape(len(mask), -1).astype(np.float64)
    value, others = (agreement(part.reshape(*part.shape[: -mask.ndim], *flat.shape), flat) for part in (whole, without))
    found: dict[str, np.ndarray] = {}
    reach = stdtrit(len(weight) - 1, (1 + LEVEL) / 2)
    for name, score in value.items():
        se = standard_error(score, others[name], weight)
        found |= {name: score, f"{name}_se": se}
        found |= {f"{name}_ci_low": score - reach * se, f"{name}_ci_high": score + reach * se}
    return found
