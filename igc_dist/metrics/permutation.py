"""Label permutation: which values of a dataset-wise map differ from those of targets that say nothing."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr
from jaxtyping import Float64

from igc_dist.arrays import real
from igc_dist.records import ConfigError, DataError
from igc_dist.seeds import generator


def label_permutation(attribution: Any, target: Any, prediction: Any, n: int = 200, seed: int = 0) -> xr.Dataset:
    """IGC under `n` permutations of the targets over the samples, from the attributions of all samples.

    `attribution` (N, J, *P), `target` and `prediction` (N, J), as in ``tree["samples/x/attribution"]``,
    ``tree["samples/target"]`` and ``tree["samples/prediction"]``. With y permuted, the same for all outputs::

        IGC_r[k, i] = mean_n( a[n, k, i] (y_r[n, k] - mean y[k]) ) / (std y[k] std f_k)

    The Dataset has `igc`, the map of the targets as they are, and for each value `p`, its two-sided p-value
    ``(1 + #{r: |IGC_r| >= |IGC|}) / (n + 1)``, and `p_family`, the same against the largest ``|IGC_r|`` over all
    features of the output, which holds for the whole map at once (Westfall and Young 1993); (output, *features).
    `similarity` (permutation, output) is the correlation of the map with that of a permutation over the features, near
    0 for a map that depends on the targets: the dataset-wise twin of the randomisation of labels of Adebayo et al.
    2018, arXiv:1810.03292.

    Raises `ConfigError` and `DataError` for what does not fit. Targets are known: NaN is an error.
    """
    if isinstance(n, bool) or not isinstance(n, int) or n < 1:
        raise ConfigError(f"n={n!r} permutations: give a whole number above 0")
    values = real(attribution, "attribution").double().cpu().numpy()
    y, f = (real(part, name).double().cpu().numpy() for part, name in ((target, "target"), (prediction, "prediction")))
    if not (y.shape == f.shape == values.shape[:2]):
        raise DataError(
            f"an attribution of shape {values.shape} with targets of shape {y.shape} and predictions of shape "
            f"{f.shape}: give (N, J, *P) and twice (N, J)"
        )
    if not all(np.isfinite(part).all() for part in (values, y, f)):
        raise DataError("attribution, target or prediction has NaN or infinity: leave such samples out")
    flat = values.reshape(*y.shape, -1)
    flat = flat - flat.mean(0)
    with np.errstate(invalid="ignore", divide="ignore"):  # a constant output has no correlation
        w = (y - y.mean(0)) / (len(y) * y.std(0) * f.std(0))
    whole = _weighed(w, flat)
    more, most, similarity = np.zeros(whole.shape), np.zeros(whole.shape), np.empty((n, y.shape[1]))
    for draw in range(n):
        other = _weighed(w[generator(seed, 0, "metrics.permutation", draw).permutation(len(y))], flat)
        more += np.abs(other) >= np.abs(whole)
        most += np.abs(other).max(1, keepdims=True) >= np.abs(whole)
        a, b = (part - part.mean(1, keepdims=True) for part in (whole, other))
        with np.errstate(invalid="ignore", divide="ignore"):
            similarity[draw] = (a * b).sum(1) / np.sqrt((a * a).sum(1) * (b * b).sum(1))
    dims = ("output", *_features(attribution, values.ndim - 2))
    found = {"igc": whole, "p": (1 + more) / (n + 1), "p_family": (1 + most) / (n + 1)}
    defined = np.isfinite(whole)
    arrays = {name: (dims, np.where(defined, part, np.nan).reshape(values.shape[1:])) for name, part in found.items()}
    return xr.Dataset({**arrays, "similarity": (("permutation", "output"), similarity)}, attrs={"n": n, "seed": seed})


def _weighed(w: Float64[np.ndarray, "N J"], flat: Float64[np.ndarray, "N J P"]) -> Float64[np.ndarray, "J P"]:
    return np.einsum("nj,njp->jp", w, flat)


def _features(attribution: Any, n: int) -> tuple[str, ...]:
    """The names of the feature dimensions: those of a DataArray."""
    return tuple(map(str, attribution.dims[-n:])) if isinstance(attribution, xr.DataArray) and n else tuple(
        f"feature_{i}" for i in range(n)
    )  # fmt: skip
