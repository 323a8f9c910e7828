"""The names of the sums of a state (see `state.py`), without torch, for the layout of a store."""

from __future__ import annotations

from collections.abc import Iterable

SCALAR_TERMS = ("", "n", "d", "y", "r", "b", "yy", "rr", "bb", "yr", "yb", "rb")
"""Sums that are always computed: a few numbers per output, enough for every correlation between y, r and b."""

FEATURE_TERMS = ("a", "aa", "ay", "ar", "z", "zz", "az", "zy", "s")


def feature_terms(wanted: Iterable[str]) -> tuple[str, ...]:
    """The union of feature terms in canonical order. "a" is always included, because second-order sums shift by it."""
    wanted = {"a", *wanted}
    assert wanted <= set(FEATURE_TERMS), wanted
    return tuple(term for term in FEATURE_TERMS if term in wanted)
