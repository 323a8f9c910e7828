"""The trees that Python users get: `open`, and `.igc` on every tree of xarray once this file is imported."""

from __future__ import annotations

import html
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from igc_dist import data as sources
from igc_dist import report, results, store
from igc_dist.records import ConfigError


class Results:
    """What can be asked of a result of `attribute` or `open`, as ``tree.igc``.

    Raises `ConfigError` in each method if the tree is no result, or a group of one.
    """

    def __init__(self, tree: xr.DataTree) -> None:
        self._tree = tree

    def _whole(self) -> xr.DataTree:
        """The tree, if it is a result."""
        if _is_result(self._tree):
            return self._tree
        if _is_result(self._tree.root):
            raise ConfigError(f"{self._tree.path} is a group of a result: ask the whole tree, tree.root.igc")
        raise ConfigError(
            "this tree is no result of igc_dist: .igc needs what igc_dist.attribute or igc_dist.open returned, whole"
        )

    def summary(
        self, level: float = 0.95, outputs: Sequence[str | int] | None = None, sort: str | None = None
    ) -> pd.DataFrame:
        """A table with a row for each output, by its name, and a column for each result that has one number per output.

        A result with a standard error also has its interval (`ci`), as ``correlation_ci_low`` and
        ``correlation_ci_high``. The last column, ``flag``, says why the numbers of an output do not exist, or are not
        accurate ('' if nothing is known against them). `outputs`: names or numbers, in this order. `sort`:
        "correlation", "n" or "se", as ``igc-dist report --sort``.
        Raises `ConfigError` for an output, an order or a level that cannot be.
        """
        tree = report.selected(self._whole(), outputs, sort)
        columns: dict[str, Any] = {}
        for name, array in sorted(tree.data_vars.items(), key=_place):
            if array.dims != ("output",):
                continue
            columns[str(name)] = array.values
            if f"{name}_se" in tree.data_vars:
                columns |= {str(end.name): end.values for end in report.interval(tree, str(name), level)}
        index = pd.Index(report.labels(tree), name="output")
        return pd.DataFrame(columns | {"flag": report.verdicts(tree)}, index=index)

    def ci(self, level: float = 0.95) -> xr.DataTree:
        """The confidence intervals of all results that have a standard error, as a tree with the groups of the result.

        ``tree.igc.ci()["x/igc_ci_low"]`` and ``["x/igc_ci_high"]`` are the ends for ``tree["x/igc"]``, in its unit: see
        `igc_dist.interval`, which gives those of one result. Raises `ConfigError` for a level that is not between 0 and
        1, and for a result without standard errors.
        """
        tree = self._whole()
        found: dict[str, xr.Dataset] = {}
        for group in ("", *report.inputs(tree)):
            dataset = (tree[group] if group else tree).to_dataset()
            names = [str(name) for name in dataset.data_vars if f"{name}_se" in dataset]
            ends = [end for name in names for end in report.interval(tree, f"{group}/{name}".strip("/"), level)]
            if ends:
                found[f"/{group}"] = xr.Dataset({str(end.name): end for end in ends})
        if not found:
            raise ConfigError(
                "no result here has a standard error: it needs the samples in two folds or more (n_folds)"
            )
        return xr.DataTree.from_dict(found)

    def report(
        self,
        folder: str | Path,
        max_outputs: int = 32,
        outputs: Sequence[str | int] | None = None,
        sort: str | None = None,
        data: Any = None,
    ) -> Path:
        """Write the page ``folder/report.html``, as ``igc-dist report`` does. Returns its path.

        At most `max_outputs` outputs are drawn in each figure. `outputs`, `sort`: as in `summary`. `data`, as for
        `igc_dist.attribute`: its pictures are seen beside attributions of samples, and their means behind maps. Raises
        `ConfigError` for an output that is not there, a `max_outputs` below 1, and a folder that is a link.
        """
        tree = self._whole()
        path = tree.encoding.get("source")
        found = report.Beside(run=None if path is None else store.beside(path))
        if data is not None:
            fetch = partial(_first, data)
            means = report.means_of(report.selected(tree, outputs, sort), fetch, max_outputs)
            found = replace(found, fetch=fetch, means=means)
        return report.write_report(tree, folder, max_outputs, outputs, sort, found)

    def export(self, to: str, folder: str | Path, data: Any = None) -> Path:
        """Write the result into a new folder for another program, as ``igc-dist export``. Returns what to open first.

        `to`: "folder" (PNG and CSV), "fiftyone" or "virelay", both of results with attributions of samples. `data`, as
        for `igc_dist.attribute`: the samples are beside their maps. Raises `ConfigError` for another word, a folder
        that is a link or has files, attributions of samples that are needed and not there, and virelay without h5py.
        """
        fetch = None if data is None else partial(_first, data)
        return report.write_export(self._whole(), to, folder, fetch)

    @property
    def plot(self) -> Any:
        """Pictures, the page's own: ``tree.igc.plot.maps()``, and more (`igc_dist.report.Plots`)."""
        return report.Plots(self._whole(), _fetched)

    @property
    def ask(self) -> Any:
        """Questions: ``tree.igc.ask.slices()``, and more (`igc_dist.results.Questions`)."""
        return results.Questions(self._whole())

    def __repr__(self) -> str:
        if not _is_result(self._tree):
            return "<igc: this tree is no result of igc_dist, or a group of one>"
        return f"<igc: {_line(self._tree)}>"

    def _repr_html_(self) -> str:
        """The line of `repr`, and the first rows of `summary`."""
        if not _is_result(self._tree):
            return html.escape(repr(self))
        table = self.summary().to_html(max_rows=ROWS, float_format="{:.4g}".format, border=0)
        return f"<p><strong>{html.escape(_line(self._tree))}</strong></p>{table}"


ROWS = 20
"""The largest number of outputs in a notebook's table."""


def open(path: str | Path, *, allow_partial: bool = False) -> xr.DataTree:
    """A store, in a folder or under a URL, as a labelled tree; ``tree.igc`` has its summary, intervals and page.

    Arrays are in memory once accessed; per-sample rows are in the order of the data. Raises `StoreError` for a store
    that is not complete, unless `allow_partial`.
    """
    return store.open(path, allow_partial=allow_partial)


def _fetched(data: Any, indices: list[int]) -> list[np.ndarray]:
    """Samples of data that `attribute` would take, as the model gets them: an array (n, *P) for each input."""
    source = sources.ensure(data)
    with source.opened():
        return [x.numpy() for x in source.fetch(indices).inputs]


def _first(data: Any, indices: list[int]) -> np.ndarray:
    """The first input of samples, (n, *P)."""
    return _fetched(data, indices)[0]


FIRST = ("n", "correlation")
"""Columns of a summary that lead; the sums of the maps follow."""


def _place(item: tuple[Any, Any]) -> int:
    """Where a result stands in a summary; others keep their order."""
    name = str(item[0]).removesuffix("_se")
    return FIRST.index(name) if name in FIRST else len(FIRST) + (not name.endswith("_sum"))


def _is_result(tree: xr.DataTree) -> bool:
    return "output" in tree.dims and "spec" in tree.attrs


def _line(tree: xr.DataTree) -> str:
    """Method, outputs, samples and inputs in a few words."""
    counts = np.asarray(tree["n"].values) if "n" in tree.data_vars else np.empty(0)
    samples = f", {report.span(counts)} samples" if counts.size else ""
    groups = ", ".join(report.inputs(tree))
    status = "" if (said := report.leaf(tree.attrs.get("status", "complete"))) == "complete" else f", {said}"
    method = report.title_of(str(tree.attrs.get("method", "attribution")))
    return f"{method} of {tree.sizes['output']:,} outputs{samples}, inputs {groups or 'none'}{status}"


class _Door:
    """``tree.igc``. In the group of an input, where an array has that name, it stays the array.

    `xarray.register_datatree_accessor` would hide the array.
    """

    def __get__(self, tree: xr.DataTree | None, _: type) -> Any:
        if tree is None:
            return Results
        return tree["igc"] if "igc" in tree.data_vars else Results(tree)


xr.DataTree.igc = _Door()  # type: ignore[attr-defined]
