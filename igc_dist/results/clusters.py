"""Clusters of samples by how they carry an output, and whether there are clusters at all."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr
from jaxtyping import Float64, Int64

from igc_dist import seeds
from igc_dist.records import ConfigError
from igc_dist.results.influential import Rows
from igc_dist.results.stored import Stored, chosen

NEIGHBOURS, BINS, FEWEST = 10, 16, 30
"""Neighbours of a sample in the graph; bins of a dimension of features; the least number of samples to cluster."""


@dataclass(frozen=True)
class Grouping:
    """How samples are grouped: at most `most` clusters of at most `samples` samples, drawn by `seed` if there are more,
    with `examples` of each. `references`: data without clusters that the eigengap is compared with; there are clusters
    where p is at most `alpha`.

    Raises `ConfigError` for numbers that cannot be.
    """

    most: int = 8
    samples: int = 2000
    examples: int = 5
    references: int = 39
    alpha: float = 0.05
    seed: int = 0

    def __post_init__(self) -> None:
        least = {"most": 2, "samples": FEWEST, "examples": 1, "references": round(1 / self.alpha) - 1}
        for name, low in least.items():
            if getattr(self, name) < low:
                raise ConfigError(f"{name}={getattr(self, name)}: give {low} or more")


def strategies(
    tree: xr.DataTree,
    outputs: Sequence[str | int] | None = None,
    everyone: bool = False,
    how: Grouping = Grouping(),
) -> xr.DataTree:
    """Clusters of the samples of each output by their attributions: the strategies of the model (SpRAy).

    Rows are the terms of the IGC map, ``v_n (y[n,k] - mean y) a[n,k,i]``, of the samples with a target above its mean
    (of labels, those of the class), or of `everyone`; summed over bins, at most 16 of each dimension of features, and
    divided by their norm. They are the nodes of a graph of 10 nearest neighbours, whose normalised Laplacian has
    eigenvalues l_1 <= l_2 <= ...; m clusters make a gap between l_m and l_(m+1). Gaussian data of the same mean and
    covariance, divided by their norms, have no clusters. The gap that is largest beyond theirs gives m. The p value
    says how often one of theirs stands out as much, in their standard deviations; above ``how.alpha`` there is one
    cluster.

    Returns per output ``clusters``, ``p``, and ``eigenvalue`` (output, eigen); for each cluster, the largest first,
    ``size``, ``share`` (of the sum of the map, as `influence` has it) and ``example`` (output, cluster, example), the
    samples nearest to its mean, -1 beyond; ``cluster_of`` (output, sample), -1 for samples that were not clustered; and
    in the group of each input ``mean`` (output, cluster, *features), the mean map of a cluster, NaN beyond the last.

    Sources: Lapuschkin et al. 2019, Nature Communications 10, 1096 (SpRAy); von Luxburg 2007, Statistics and Computing
    17, 395-416 (eigengap, graph); Tibshirani, Walther, Hastie 2001 (comparison with data without clusters).
    Raises `ConfigError` without attributions of samples (``samples=True``), and for fewer than 30 samples.
    """
    stored = Stored(tree)
    rows, places = Rows(stored), chosen(stored, outputs)
    if not rows.kept:
        raise ConfigError(
            "strategies are clusters of the attributions of single samples, which were not kept: run with samples=True "
            "(store.samples=true), best with reduce= to regions or segments"
        )
    found = [_of_output(rows, place, everyone, how) for place in places]
    shapes = stored.plan.shapes
    dims_of: dict[str, tuple[str, ...]] = {
        "clusters": (), "p": (), "eigenvalue": ("eigen",), "size": ("cluster",), "share": ("cluster",),
        "example": ("cluster", "example"), "cluster_of": ("sample",),
    }  # fmt: skip
    coords = {"output": stored.names[places]}
    groups = {"/": xr.Dataset(_stacked(found, dims_of), coords)}
    for name, dims in zip(shapes.input_names, shapes.dims, strict=True):
        means = _stacked([each["means"] for each in found], {name: ("cluster", *dims)})
        named = {str(dim): at for dim, at in tree.children[name].coords.items() if dim in dims}
        groups[f"/{name}"] = xr.Dataset({"mean": means[name]}, named)
    answer = xr.DataTree.from_dict(groups)
    answer.attrs = {"question": "strategies", "alpha": how.alpha, "of": "all samples" if everyone else "target > mean"}
    return answer


def _stacked(found: Sequence[Mapping[str, Any]], dims: Mapping[str, tuple[str, ...]]) -> dict[str, Any]:
    return {key: (("output", *its), np.stack([each[key] for each in found])) for key, its in dims.items()}


def _of_output(rows: Rows, place: int, everyone: bool, how: Grouping) -> dict[str, Any]:
    """The arrays of an output."""
    y, weight = rows.target[:, place], rows.weight[:, place]
    members = np.flatnonzero(np.isfinite(y) & (weight != 0 if everyone else weight > 0))
    name = rows.stored.names[place]
    if len(members) < FEWEST:
        raise ConfigError(
            f"output {name}: {len(members)} samples count{'' if everyone else ' and have a target above its mean'}, "
            f"{FEWEST} are needed to cluster them: give outputs= (--outputs) without it"
        )
    if len(members) > how.samples:
        draw = seeds.generator(how.seed, place, "ask.strategies")
        members = np.sort(draw.choice(members, how.samples, replace=False))
    maps = {each: rows.maps(place, members, each) for each in rows.stored.inputs}
    flat = np.concatenate([_binned(values) for values in maps.values()], axis=1) * weight[members, None]
    size = np.linalg.norm(flat, axis=1)
    kept, flat = np.flatnonzero(size > 0), flat[size > 0] / size[size > 0, None]
    if len(kept) < FEWEST:
        raise ConfigError(f"output {name}: {len(kept)} samples have an attribution that is not 0, {FEWEST} are needed")
    number, p, eigenvalues = clusters(flat, how, place)
    label = _ordered(_grouped(flat, number, how.seed))
    every = np.full(len(y), -1)
    every[members[kept]] = label
    c = rows.contributions(place, None, None)
    sizes, shares, examples = np.zeros(how.most, np.int64), np.zeros(how.most), np.full((how.most, how.examples), -1)
    means = {each: np.full((how.most, *values.shape[1:]), np.nan) for each, values in maps.items()}
    for cluster in range(number):
        its = kept[label == cluster]
        sizes[cluster], shares[cluster] = len(its), c[members[its]].sum() / c.sum()
        far = np.linalg.norm(flat[label == cluster] - flat[label == cluster].mean(0), axis=1)
        nearest = members[its[np.argsort(far, kind="stable")[: how.examples]]]
        examples[cluster, : len(nearest)] = nearest
        for each, values in maps.items():
            means[each][cluster] = values[its].mean(0)
    return {
        "clusters": np.int64(number), "p": np.float64(p), "eigenvalue": eigenvalues, "size": sizes, "share": shares,
        "example": examples, "cluster_of": every, "means": means,
    }  # fmt: skip


def _binned(maps: Float64[np.ndarray, "n *P"]) -> Float64[np.ndarray, "n D"]:
    """Maps summed over bins, at most `BINS` of each dimension, one row for each sample."""
    for axis in range(1, maps.ndim):
        n = maps.shape[axis]
        if n > BINS:
            maps = np.add.reduceat(maps, np.arange(BINS) * n // BINS, axis=axis)
    return maps.reshape(len(maps), -1)


def clusters(rows: Float64[np.ndarray, "n D"], how: Grouping, draw: int = 0) -> tuple[int, float, np.ndarray]:
    """The number of clusters, the p value of there being more than one, and the eigenvalues (most + 1)."""
    n, mean = len(rows), rows.mean(0)
    _, size, axes = np.linalg.svd(rows - mean, full_matrices=False)
    generator = seeds.generator(how.seed, draw, "ask.references")
    found, drawn = eigenvalues(rows, how.most + 1), []
    for _ in range(how.references):
        other = mean + (generator.standard_normal((n, len(size))) * size / np.sqrt(n - 1)) @ axes
        drawn.append(eigenvalues(other / np.linalg.norm(other, axis=1, keepdims=True), how.most + 1))
    others = np.stack(drawn)
    gaps, theirs = np.diff(found)[1:], np.diff(others, axis=1)[:, 1:]  # after the second eigenvalue, and so on
    centre, spread = theirs.mean(0), theirs.std(0, ddof=1)
    stands_out = (gaps - centre) / np.where(spread > 0, spread, 1.0)
    null = ((theirs - centre) / np.where(spread > 0, spread, 1.0)).max(1)
    p = (1 + (null >= stands_out.max()).sum()) / (1 + how.references)
    return (2 + int((gaps - centre).argmax()) if p <= how.alpha else 1), float(p), found


def graph(rows: Float64[np.ndarray, "n D"]) -> Any:
    """The nearest neighbours of each sample as a sparse symmetric matrix."""
    from sklearn.neighbors import kneighbors_graph

    one = kneighbors_graph(rows, min(NEIGHBOURS, len(rows) - 1))
    return one.maximum(one.T)


def eigenvalues(rows: Float64[np.ndarray, "n D"], number: int) -> Float64[np.ndarray, " E"]:
    """The smallest eigenvalues of the normalised Laplacian of the graph of nearest neighbours, ascending."""
    from scipy.sparse import identity
    from scipy.sparse.csgraph import laplacian
    from scipy.sparse.linalg import eigsh

    turned = 2 * identity(len(rows)) - laplacian(graph(rows), normed=True)  # the largest ones converge at once
    start = np.ones(len(rows)) + np.arange(len(rows)) / len(rows)
    found = eigsh(turned, number, which="LA", v0=start, tol=1e-4, return_eigenvectors=False)
    return np.maximum(2 - np.sort(found)[::-1], 0.0)


def _grouped(rows: Float64[np.ndarray, "n D"], number: int, seed: int) -> Int64[np.ndarray, " n"]:
    if number == 1:
        return np.zeros(len(rows), np.int64)
    from sklearn.cluster import SpectralClustering

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Graph is not fully connected")  # clusters far apart: what is asked for
        model = SpectralClustering(number, affinity="precomputed", random_state=seed)
        return np.asarray(model.fit_predict(graph(rows)), np.int64)


def _ordered(label: Int64[np.ndarray, " n"]) -> Int64[np.ndarray, " n"]:
    """Clusters numbered by their size, the largest is 0."""
    sizes = np.bincount(label)
    place = np.empty(len(sizes), np.int64)
    place[np.argsort(-sizes, kind="stable")] = np.arange(len(sizes))
    return place[label]
