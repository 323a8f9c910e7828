"""Whether the numbers of a store can be trusted: one rule, for the table of the command, for Python and for the page.

An output is flagged if the magnitude of its quadrature error is above 5 % of its correlation, or above the standard
error of the sum of its map. Where nodes are drawn, the standard error holds their noise, so only three of them count.
Without a correlation (IGaC, single samples), the mean residual of completeness is compared with 5 % of the standard
deviation of the predictions. Errors below 1e-4 are rounding, and never flagged.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import xarray as xr

from igc_dist.report.contents import column, flags, labels, leaf, mapping_of, number

SHARE, ROUNDING, DRAWN = 0.05, 1e-4, 3.0
LISTED = 5
"""The number of outputs that a sentence names."""


def verdicts(tree: xr.DataTree) -> list[str]:
    """Per output, why its numbers do not exist or are wrong; '' if nothing is known against them."""
    pairs = zip(flags(tree), coarse_outputs(tree), strict=True)
    return [", ".join(filter(None, (flag, "quadrature error" if bad else ""))) for flag, bad in pairs]


def coarse_outputs(tree: xr.DataTree) -> list[bool]:
    """Per output, whether its path was walked with too few nodes."""
    error, correlation, spread = (column(tree, name) for name in ("quadrature_error", "correlation", "igc_sum_se"))
    if error is not None and correlation is not None:
        size, spread = np.abs(error), np.full_like(error, np.nan) if spread is None else spread
        # a comparison with NaN is False: what is not known switches off its own part of the rule alone
        wrong = size > DRAWN * spread if _drawn(tree) else (size > SHARE * np.abs(correlation)) | (size > spread)
        return list((wrong & (size > ROUNDING)).tolist())
    residual, deviation = column(tree, "completeness_error"), column(tree, "prediction_std")
    if residual is None or deviation is None or _drawn(tree):
        return [False] * len(labels(tree))
    return list((residual > np.maximum(SHARE * deviation, ROUNDING * deviation.max(initial=0.0))).tolist())


def judged(tree: xr.DataTree) -> Iterator[tuple[str, str]]:
    """What a reader must know about the errors, as (kind, sentence). A kind is 'warning' or 'note'."""
    wrong, names, sums = np.flatnonzero(coarse_outputs(tree)).tolist(), labels(tree), column(tree, "igc_sum")
    flat = [] if sums is None else [k for k in wrong if sums[k] == 0]
    if flat:
        yield (
            "warning",
            f"The map of {len(flat)} of {len(names)} outputs ({_listed(tree, flat)}) is 0, though the prediction "
            "changes: no gradient reaches it from the inputs (a step such as argmax or round, or a detached part). "
            "Explain what is before the step, or take a method without gradients (method=bsc).",
        )
    wrong = [k for k in wrong if k not in flat]
    if wrong:
        yield (
            "warning",
            f"The quadrature error is too large in {len(wrong)} of {len(names)} outputs ({_listed(tree, wrong)}), so "
            f"their maps are not accurate: {_advice(tree)}.",
        )
    if column(tree, "quadrature_error") is not None and all(flagged := flags(tree)):
        yield "note", f"No output has a correlation, so maps are NaN: output {names[0]} has a {flagged[0]}."
    half = leaf(mapping_of(tree, "provenance").get("half_steps", ""))
    if half.replace(".", "", 1).isdecimal() and float(half) > SHARE:
        yield (
            "warning",
            f"The map of a pilot's samples changes by {float(half):.0%} of the correlation against half of the steps, "
            f"which completeness does not show in this method: take twice the steps ({_steps(tree)}).",
        )
    reasons: dict[str, list[int]] = {}
    for output, reason in _unknown(tree):
        reasons.setdefault(reason, []).append(output)
    for reason, outputs in reasons.items():
        told = ", ".join(names[k] for k in outputs[:LISTED]) + ", ..." * (len(outputs) > LISTED)
        yield "note", f"No standard error for {len(outputs)} of {len(names)} outputs ({told}): {reason}."


def _listed(tree: xr.DataTree, outputs: list[int]) -> str:
    """The first of these outputs with their numbers."""
    titles = {"igc_sum": "sum of map", "correlation": "correlation", "quadrature_error": "error"}
    if column(tree, "quadrature_error") is None:
        titles = {"completeness_error": "mean residual", "prediction_std": "prediction SD"}
    columns = {title: values for name, title in titles.items() if (values := column(tree, name)) is not None}
    told = [
        f"{labels(tree)[k]}: " + ", ".join(f"{title} {number(float(values[k]))}" for title, values in columns.items())
        for k in outputs[:LISTED]
    ]
    return "; ".join(told) + "; ..." * (len(outputs) > LISTED)


def _advice(tree: xr.DataTree) -> str:
    if _drawn(tree):
        return "draw more nodes (n_steps, n_draws), or take design=grid"
    provenance, (said, where) = mapping_of(tree, "provenance"), _attributor(tree)
    rule = leaf(provenance.get("rule", "unknown"))
    if "quadrature_tol" in provenance:
        tol = leaf(provenance["quadrature_tol"])
        return f"take more nodes (n_steps, now {rule}), or a smaller quadrature.tol (now {tol})"
    if "quadrature" in said:
        return f"take twice the nodes (n_steps, now {rule}), or quadrature=auto with a tolerance, quadrature.tol"
    for setting, way in {"n_steps": "twice the steps", "tol": "a smaller tolerance"}.items():
        if setting in said:
            return f"take {way} ({where}.{setting}, now {leaf(said[setting])})"
    return "take more nodes, or another method"


def _drawn(tree: xr.DataTree) -> bool:
    """Whether nodes were drawn, or outputs: errors of single samples are then large by design."""
    target, design = mapping_of(tree, "spec").get("target"), _attributor(tree)[0].get("design")
    if isinstance(target, Mapping) and target.get("n_others") is not None:
        return True
    return isinstance(design, Mapping) and not str(design.get("kind", "")).endswith("Grid")


def _attributor(tree: xr.DataTree) -> tuple[Mapping[str, Any], str]:
    """The innermost attributor that the spec tells of, by its settings, and the name of its place."""
    said, where = mapping_of(tree, "spec").get("attributor"), "method.attributor"
    while isinstance(said, Mapping) and isinstance(said.get("attributor"), Mapping):
        said, where = said["attributor"], f"{where}.attributor"
    return (said if isinstance(said, Mapping) else {}), where


def _steps(tree: xr.DataTree) -> str:
    """The setting for the number of steps of a walk, the innermost one, and its value."""
    said, where, found = mapping_of(tree, "spec").get("attributor"), "method.attributor", "n_steps"
    while isinstance(said, Mapping):
        if said.get("n_steps") is not None:
            found = f"{where}.n_steps, now {leaf(said['n_steps'])}"
        said, where = said.get("attributor"), f"{where}.attributor"
    return found


def _unknown(tree: xr.DataTree) -> Iterator[tuple[int, str]]:
    """The outputs that have a correlation but no standard error, and why."""
    correlation, spread = column(tree, "correlation"), column(tree, "correlation_se")
    if correlation is None or spread is None:
        return
    outputs = np.flatnonzero(np.isfinite(correlation) & ~np.isfinite(spread)).tolist()
    targets = _targets(tree) if outputs else None
    for k in outputs:
        reason = "target or prediction are constant in all folds but one"
        if mapping_of(tree, "budget").get("folds") == 1:
            reason = "it needs at least two folds; has 1"
        elif targets is not None:
            y, fold = targets[0][:, k], targets[1]
            y, fold = y[np.isfinite(y)], fold[np.isfinite(y)]
            values, counts = np.unique(y, return_counts=True)
            there = len(np.unique(fold[y != values[counts.argmax()]]))
            what = "positives" if {*values.tolist()} <= {0.0, 1.0} else "targets that differ"
            reason = f"it needs {what} in at least two folds; has {there}" if there < 2 else reason
        yield k, reason


def _targets(tree: xr.DataTree) -> tuple[np.ndarray, np.ndarray] | None:
    """The targets in fold order, and the fold of each row, if the store keeps them."""
    try:
        target = np.asarray(tree["shards/predict/target"].values, np.float64)
        size = int(mapping_of(tree, "spec")["plan"]["fold_size"])
    except (KeyError, TypeError, ValueError):
        return None
    return target, np.arange(len(target)) // size
