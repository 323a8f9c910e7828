"""XRAI by loops over pixels and segments, in float64, as Algorithm 1 of Kapishnikov et al. (2019). Nothing of the
package is used."""

from __future__ import annotations

from itertools import product

import numpy as np

Segment = set[tuple[int, int]]


def mean(a: np.ndarray, pixels: Segment) -> float:
    return sum(float(a[pixel]) for pixel in sorted(pixels)) / len(pixels)


def greedy(a: np.ndarray, segments: list[Segment], area: float = 1.0, min_pixels: int = 1) -> np.ndarray:
    """At each turn the segment with the highest mean over its pixels that are not covered yet."""
    result, covered, left = np.full(a.shape, np.nan), set(), list(segments)
    while len(covered) / a.size <= area:
        left = [segment for segment in left if len(segment - covered) >= min_pixels]
        if not left:
            break
        best = left[0]
        for segment in left:
            if mean(a, segment - covered) > mean(a, best - covered):
                best = segment
        for pixel in best - covered:
            result[pixel] = mean(a, best - covered)
        covered |= best
        left.remove(best)
    return rest(a, result, covered)


def fast(a: np.ndarray, segments: list[Segment], area: float = 1.0, min_pixels: int = 1) -> np.ndarray:
    """In the order of the means over whole segments."""
    result, covered = np.full(a.shape, np.nan), set()
    for segment in sorted(segments, key=lambda segment: -mean(a, segment)):
        if len(covered) / a.size > area:
            break
        if len(segment - covered) < min_pixels:
            continue
        for pixel in segment - covered:
            result[pixel] = mean(a, segment - covered)
        covered |= segment
    return rest(a, result, covered)


def rest(a: np.ndarray, result: np.ndarray, covered: Segment) -> np.ndarray:
    """The pixels that no segment covers get their own mean."""
    left = set(product(*map(range, a.shape))) - covered
    for pixel in left:
        result[pixel] = mean(a, left)
    return result


def grown(segment: Segment, radius: int, shape: tuple[int, ...]) -> Segment:
    """All pixels of the image within `radius` of one of the segment."""
    near = lambda p, q: (p[0] - q[0]) ** 2 + (p[1] - q[1]) ** 2 <= radius**2  # noqa: E731
    return {p for p in product(*map(range, shape)) if any(near(p, q) for q in segment)}


def channels(a: np.ndarray) -> np.ndarray:
    """(H, W) from (C, H, W): the largest of each pixel."""
    result = np.empty(a.shape[1:])
    for i, j in product(*map(range, result.shape)):
        result[i, j] = max(float(value) for value in a[:, i, j])
    return result
