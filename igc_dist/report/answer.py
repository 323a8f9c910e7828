"""What a reader gets first: the answer in three sentences made from the numbers, and how to make it again."""

from __future__ import annotations

import json
import re
import shlex
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import xarray as xr

from igc_dist import files
from igc_dist.records import printable
from igc_dist.report.contents import Floats, column, inputs, labels, main_map, number, span, title_of
from igc_dist.report.intervals import quantile
from igc_dist.report.maps import fold_features
from igc_dist.report.panels import whole_heading
from igc_dist.report.ranked import names_of
from igc_dist.report.standing import AVOID, LOOK, TRUST, Standing
from igc_dist.secrets import masked_text

SHARE = 0.1
"""The part of the features whose share of a map is told."""


def answer(tree: xr.DataTree, judged: Sequence[Standing]) -> list[str]:
    """Three sentences: what was found over the outputs, which features carry it, how sure that is."""
    return [sentence for sentence in (_outputs(tree), _features(tree), _sure(tree, judged)) if sentence]


def _outputs(tree: xr.DataTree) -> str:
    names, correlation = labels(tree), column(tree, "correlation")
    over = f"Over {span(tree.data_vars['n'].values)} samples" if "n" in tree.data_vars else "Here"
    if correlation is None and not inputs(tree):  # single samples, each perhaps with an output of its own
        return ""
    if correlation is None or not np.isfinite(correlation).any():
        return f"{over}, none of the {len(names)} outputs has a correlation of prediction and target."
    best, worst = int(np.nanargmax(correlation)), int(np.nanargmin(correlation))
    told = f"{over}, the predictions follow the targets with a correlation of {correlation[best]:.2f}"
    if best == worst:
        return f"{told} ({whole_heading(names[best])})."
    known = f"median {float(np.nanmedian(correlation)):.2f} of {int(np.isfinite(correlation).sum())} outputs"
    return (
        f"{told} for {whole_heading(names[best])} at best and {correlation[worst]:.2f} for "
        f"{whole_heading(names[worst])} at worst ({known})."
    )


def _features(tree: xr.DataTree) -> str:
    """Which features carry the output that is predicted best."""
    correlation = column(tree, "correlation")
    group, dataset = next(((name, each) for name, each in inputs(tree).items() if main_map(each)), ("", None))
    if dataset is None:
        count = f"{tree['samples'].sizes.get('sample', 0):,} samples" if "samples" in tree.children else "no sample"
        return f"Attributions are kept of {count}, one by one: there is no map of the data set."
    name = main_map(dataset)
    assert name is not None
    # one output at a time is read: maps may be large
    order = range(tree.sizes["output"]) if correlation is None else np.argsort(-np.nan_to_num(correlation, nan=-np.inf))
    place = int(next(iter(order)))
    values = fold_features(dataset[name].isel(output=[place]))[0][0]
    if not np.isfinite(values).any():
        return ""
    head = f"In {title_of(name)} of {whole_heading(labels(tree)[place])}"
    head += f" (input {printable(group)})" if len(inputs(tree)) > 1 else ""
    if values.ndim == 0:
        return f"{head} the value is {number(float(values))}."
    size = np.nan_to_num(np.abs(values)).ravel()
    top = int(size.argmax())
    if values.ndim == 1:
        features = names_of(dataset[name], values.size)
        listed = [f"{features[each]} ({values[each]:+.3g})" for each in np.argsort(-size, kind="stable")[:3].tolist()]
        return f"{head} the largest of {values.size:,} features are {', '.join(listed)}."
    few = max(round(SHARE * size.size), 1)
    share = float(np.sort(size)[::-1][:few].sum() / size.sum()) if size.sum() > 0 else 0.0
    row, across = np.unravel_index(top, values.shape)
    return (
        f"{head} a tenth of the {size.size:,} positions hold {100 * share:.0f} % of all magnitude; the largest value "
        f"is {float(values[row, across]):+.3g}, {_where(values, int(row), int(across))}."
    )


def _where(values: Floats, row: int, across: int) -> str:
    """A place in words: which third of the map."""
    high = ("upper", "middle", "lower")[min(3 * row // values.shape[0], 2)]
    side = ("left", "centre", "right")[min(3 * across // values.shape[1], 2)]
    return f"in the {high} {side} (row {row}, column {across})"


def _sure(tree: xr.DataTree, judged: Sequence[Standing]) -> str:
    counts = Counter(each.word for each in judged)
    error = column(tree, "correlation_se")
    reach = np.empty(0) if error is None else (error * quantile(tree))[np.isfinite(error)]
    reach = reach[np.isfinite(reach)]
    known = "are known to" if reach.size and np.median(reach) < 1 else "are not known,"  # none is beyond 1
    width = f"Correlations {known} ±{float(np.median(reach)):.2g} (95 %, median); " if reach.size else ""
    # those of single samples are judged without the correlation
    of = "" if inputs(tree) else "attributions of "
    verdict = [f"{of}{counts[TRUST]} of {len(judged)} outputs can be trusted as they are"]
    verdict += [f"{counts[LOOK]} should be looked at"] if counts[LOOK] else []
    verdict += [f"{counts[AVOID]} should not be used"] if counts[AVOID] else []
    said = f"{width}{', '.join(verdict)}."
    return said[0].upper() + said[1:]


def command_of(tree: xr.DataTree, folder: Path) -> str | None:
    """The command that made the store, from the account of its run in `folder`; None if that is not there."""
    try:
        said = json.loads(files.read(folder / "run.json"))
        overrides = [str(each) for each in said["overrides"]]
        options = [str(each) for each in said.get("options", [])]
        same = said["spec_hash"] == tree.attrs["spec_hash"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None
    words = [_QUOTED.sub(r"\1\2", each) for each in overrides]
    line = " ".join(["igc-dist", *map(shlex.quote, options), *map(_for_shell, words)])
    return masked_text(printable(line)) if same else None


_QUOTED = re.compile(r"^([\w.+~@/-]+=)'([\w.+:@%-]*/(?:[\w./+:@%-]| (?! |$))*)'$", re.ASCII)
"""A path that is quoted for Hydra without need, as a launcher does it for its ranks. A quoted number would be another
value without."""


def _for_shell(word: str) -> str:
    """An override, quoted for a shell as shortly as it can be.

    Hydra's own quotes are single ones most often, and `shlex.quote` writes five letters for each. So either the shell
    gets double quotes, or Hydra does, which takes both.
    """
    forms = [shlex.quote(word)]
    if not {*word} & {'"', "\\"}:  # then quotes are a pair round a text, and none is a part of it
        forms.append(shlex.quote(word.replace("'", '"')))
    if not {*word} & {"$", "`", "!"}:  # which a shell replaces in double quotes
        forms.append('"' + re.sub(r'([\\"])', r"\\\1", word) + '"')
    return min(forms, key=len)
