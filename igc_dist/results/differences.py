"""Tests of many differences at once: p values, their corrections, intervals of each and bands that hold for all."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float64

from igc_dist import seeds
from igc_dist.records import ConfigError
from igc_dist.results.folds import Estimate
from igc_dist.statistics import benjamini_hochberg, holm, p_values

ROTATIONS = 2000
"""Draws for a simultaneous band: its level is then known to half a percent."""

AT_ONCE = 1 << 13
"""Features that are rotated at once: 128 MB of float64 for all rotations."""


@dataclass(frozen=True)
class Level:
    """How sure: the `level` of intervals and bands, the false discovery rate `fdr` of significant features, a `seed`.

    Raises `ConfigError` for what is not between 0 and 1.
    """

    level: float = 0.95
    fdr: float = 0.05
    seed: int = 0

    def __post_init__(self) -> None:
        for name, value in (("level", self.level), ("fdr", self.fdr)):
            if not 0 < value < 1:
                raise ConfigError(f"{name}={value!r}: give a number between 0 and 1, such as {getattr(Level, name)}")


def reach(of: Estimate, level: float) -> Float64[np.ndarray, "*rest"]:
    """Half the width of the interval of each number by itself: Student's t times the standard error."""
    from scipy.special import stdtrit

    return np.asarray(stdtrit(of.freedom, (1 + level) / 2) * of.se)


def band(parts: Mapping[str, Estimate], how: Level) -> dict[str, Float64[np.ndarray, "J *P"]]:
    """Half the width of a band that holds the true values of all features of an output at once, with ``how.level``.

    The largest ``|t|`` over the features (of all inputs in `parts`) has a distribution that follows from rotations of
    the folds' deviations: with a random unit vector u, ``b_i = (u . d_i)**2 / |d_i|**2`` has the distribution of
    ``t_i**2 / (t_i**2 + G - 1)``, and all b together keep the dependence of the features (rotation tests, Langsrud
    2005, Statistics and Computing 15, 53-60). For one feature the band is the interval.
    """
    from scipy.special import betainc, stdtrit

    first = next(iter(parts.values()))
    n_folds, n_outputs = first.deviations.shape[:2]
    directions = seeds.generator(how.seed, 0, "ask.band").standard_normal((ROTATIONS, n_folds))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    chance = np.empty(n_outputs)
    for j in range(n_outputs):
        largest = np.zeros(ROTATIONS)
        for part in parts.values():
            found = part.deviations[:, j].reshape(n_folds, -1)
            size = np.linalg.norm(found, axis=0)
            found = found[:, size > 0] / size[size > 0]  # NaN is left out too
            for start in range(0, found.shape[1], AT_ONCE):
                largest = np.maximum(largest, ((directions @ found[:, start : start + AT_ONCE]) ** 2).max(1))
        b = np.quantile(largest, how.level)
        # the p value of the largest t that level allows; as a p value it serves features of any freedom
        chance[j] = 1 - betainc(0.5, (n_folds - 1) / 2, b)
    wide = {name: chance.reshape(-1, *(1,) * (part.value.ndim - 1)) for name, part in parts.items()}
    return {name: np.asarray(stdtrit(part.freedom, 1 - wide[name] / 2) * part.se) for name, part in parts.items()}


@dataclass(frozen=True)
class Corrected:
    """P values of the features of one input, each (J, *P), corrected within an output, over all inputs."""

    p: Float64[np.ndarray, "J *P"]
    holm: Float64[np.ndarray, "J *P"]
    fdr: Float64[np.ndarray, "J *P"]

    def significant(self, rate: float) -> Bool[np.ndarray, "J *P"]:
        """Features that differ; among them at most the share `rate` is wrong, on average (Benjamini-Hochberg)."""
        return self.fdr <= rate


def corrected(parts: Mapping[str, Estimate]) -> dict[str, Corrected]:
    """The p values of all features, corrected for as many as an output has, over its inputs together."""
    plain = {name: p_values(part.value, part.se, part.freedom) for name, part in parts.items()}
    both = within_outputs(plain, holm), within_outputs(plain, benjamini_hochberg)
    return {name: Corrected(p, both[0][name], both[1][name]) for name, p in plain.items()}


def within_outputs(
    p: Mapping[str, Float64[np.ndarray, "J *P"]], by: Callable[[np.ndarray], np.ndarray]
) -> dict[str, Float64[np.ndarray, "J *P"]]:
    """P values corrected over all features of an output, those of all inputs together."""
    n_outputs = len(next(iter(p.values())))
    flat = np.concatenate([values.reshape(n_outputs, -1) for values in p.values()], axis=1)
    ends = np.cumsum([values[0].size for values in p.values()])[:-1]
    cuts = np.split(np.stack([by(row) for row in flat]), ends, axis=1)
    return {name: cut.reshape(values.shape) for (name, values), cut in zip(p.items(), cuts, strict=True)}
