"""What is shown of the answers to the questions of `igc-dist ask`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

# wings are loaded when a name in them is first used: a refused question needs no torch
from igc_dist import results
from igc_dist.records import ConfigError, printable

TOP = 10
"""Rows of an output in a table on the terminal, without --top."""

Given = Mapping[str, str | None]
Rows = list[dict[str, Any]]


class Said(NamedTuple):
    """An answer: its `rows` for CSV and JSON, what the terminal shows in tables by their titles, lines below them."""

    rows: Rows
    tables: Mapping[str, Rows]
    lines: Sequence[str] = ()


def text(value: Any) -> str:
    if value is None or value != value:  # NaN
        return ""
    return f"{value:.3g}" if isinstance(value, float) else printable(value)


def _ends(row: Mapping[str, Any], name: str, low: str = "ci_low", high: str = "ci_high") -> str:
    """An interval in one cell."""
    return f"{row[f'{name}{low}']:.2g} to {row[f'{name}{high}']:.2g}"


def _level(given: Given) -> results.Level:
    """The level and the false discovery rate of a command line. Raises `ConfigError`."""
    return results.Level(_number(given, "--level", 0.95), _number(given, "--fdr", 0.05))


def _number(given: Given, flag: str, default: float) -> float:
    text = given.get(flag)
    try:
        return default if text is None else float(text)
    except ValueError:
        raise ConfigError(f"{flag} {text}: give a number") from None


def _top(given: Given) -> int | None:
    """The number of rows of an output; all of them in CSV and JSON, unless --top says otherwise."""
    text = given.get("--top")
    if text is None:
        return None if {"--json", "--csv"} & {*given} else TOP
    if not text.isdecimal() or not int(text):
        raise ConfigError(f"--top {text}: give the number of rows of an output, 1 or more")
    return int(text)


def _list(given: Given, flag: str) -> list[str] | None:
    text = given.get(flag)
    return None if text is None else text.split(",")


def slices(trees: Sequence[Any], given: Given) -> Said:
    answer = results.between_slices(
        trees[0], _list(given, "--slices"), _list(given, "--outputs"), given.get("--map"), _level(given)
    )
    return _differences(answer, given)


def _differences(answer: Any, given: Given) -> Said:
    """What is shown of an answer about differences."""
    sure, rows = f"{answer.attrs['level']:.0%}", results.features_in(answer, _top(given))
    whole, tables = results.differences_in(answer), {}
    for pair, first, second in zip(
        *(answer[at].values.tolist() for at in ("pair", "pair_first", "pair_second")), strict=True
    ):
        its = [row for row in whole if row["pair"] == pair]
        scalars = [name for name in ("correlation", f"{answer.attrs['map']}_sum") if name in its[0]]
        tables[f"{pair}: correlation and sum of {answer.attrs['map']}"] = [
            {"output": row["output"]}
            | {
                text: cell
                for name in scalars
                for text, cell in ((name, row[name]), (f"{sure} of {name}", _ends(row, f"{name}_")))
            }
            | {"features that differ": f"{row['significant']:,} of {row['features']:,}"}
            for row in its
        ]
        tables[f"{pair}: {answer.attrs['map']} by feature"] = [
            {
                "output": row["output"],
                "feature": _feature(answer, row),
                first: row["first"],
                second: row["second"],
                "difference": row["difference"],
                sure: _ends(row, "difference_"),
                "band": _ends(row, "", "band_low", "band_high"),
                "FDR": f"{text(row['p_fdr'])}{'*' * row['significant']}",
            }
            for row in rows
            if row["pair"] == pair
        ]
    return Said(
        rows,
        tables,
        [
            *(f"Also different: {line.split(':')[0]}" for line in answer.attrs.get("also", ())),
            f"{answer.attrs['pairing'].capitalize()}.",
            f"{sure}: the interval of one difference; band: of all features of an output at once.",
            f"FDR: p after Benjamini and Hochberg, over the features of an output; * differs, at "
            f"{answer.attrs['fdr']:.0%}.",
        ],
    )


def _feature(answer: Any, row: Mapping[str, Any]) -> str:
    """The name of a feature, with that of its input where there are several."""
    return row["feature"] if len(answer.children) == 1 else f"{row['input']} {row['feature']}"


def models(trees: Sequence[Any], given: Given) -> Said:
    return _differences(
        results.between_models(trees[0], trees[1], _list(given, "--outputs"), given.get("--map"), _level(given)), given
    )


def drift(trees: Sequence[Any], given: Given) -> Said:
    return _differences(
        results.between_data(trees[0], trees[1], _list(given, "--outputs"), given.get("--map"), _level(given)), given
    )


def spurious(trees: Sequence[Any], given: Given) -> Said:
    answer = results.spurious(
        trees[0], _list(given, "--slices"), _list(given, "--outputs"), given.get("--map"), _level(given)
    )
    rows, sure = results.spurious_in(answer, _top(given)), f"{answer.attrs['level']:.0%}"
    shown = [
        {
            "output": row["output"],
            "feature": _feature(answer, row),
            "counts in": f"{row['high']}: {text(row['value_high'])}",
            "not in": f"{row['low']}: {text(row['value_low'])}",
            f"{sure} there": _ends(row, "value_low_"),
            "is": row["kind"],
            "differs by": f"> {row['at_least']:.2g}",
            "FDR": row["p_fdr"],
        }
        for row in rows
    ]
    if not rows:
        rate = f"{answer.attrs['fdr']:.0%}"
        return Said(
            rows, {}, [f"no feature counts in one slice and not in another, at a false discovery rate of {rate}"]
        )
    return Said(
        rows,
        {f"features whose {answer.attrs['map']} one slice has, and another has not": shown},
        [
            f"absent: the {sure} interval of the other slice holds 0; reversed: it has the other sign.",
            f"Ranked by the end of the {sure} interval of the difference nearest to 0.",
        ],
    )


def influence(trees: Sequence[Any], given: Given) -> Said:
    feature, most = _list(given, "--feature"), _top(given) or ALL
    if feature is not None and not all(part.isdecimal() for part in feature):
        raise ConfigError(f"--feature {','.join(feature)}: give the numbers of a feature, such as 3,4")
    answer = results.influence(
        trees[0],
        _list(given, "--outputs"),
        None if feature is None else [*map(int, feature)],
        given.get("--input"),
        most,
    )
    rows, tables = results.samples_in(answer), {}
    for output, half in zip(answer["output"].values.tolist(), answer["half"].values.tolist(), strict=True):
        tables[f"{output}: samples that carry {answer.attrs['total_of']}; {half:,} carry half of what is for it"] = [
            {
                "": row["side"],
                "sample": row["sample"],
                "share": f"{row['share']:.1%}",
                "target": row["target"],
                "prediction": row["prediction"],
                "predicted": row["predicted"],
                "twins": f"{row['twins']}: {row['twin']}" if row["twins"] else "",
                "target wrong?": "perhaps" if row["candidate"] else "",
            }
            for row in rows
            if row["output"] == str(output)
        ]
    return Said(
        rows,
        tables,
        [
            "Shares are of the total. twins: others with the same targets and predictions, how many and the first.",
            "target wrong?: another output is predicted than the label."
            if answer.attrs["labels"]
            else "target wrong?: more than 4 robust standard deviations from the line of the predictions.",
        ],
    )


ALL = 100
"""Samples of an output and side in CSV and JSON, without --top."""


def strategies(trees: Sequence[Any], given: Given) -> Said:
    answer = results.strategies(trees[0], _list(given, "--outputs"), "--everyone" in given)
    rows, tables, root = results.clusters_in(answer), {}, answer.to_dataset()
    for output, number, p in zip(*(root[key].values.tolist() for key in ("output", "clusters", "p")), strict=True):
        what = "no clusters stand out" if number == 1 else f"{number} clusters"
        tables[f"{output}: {what} (p = {text(p)})"] = [
            {
                "size": row["size"],
                "share": f"{row['share']:.1%}",
                "strongest of the mean map": row["strongest"],
                "examples": row["examples"],
            }
            for row in rows
            if row["output"] == str(output)
        ]
    said = "all samples" if "--everyone" in given else "the samples with a target above its mean"
    return Said(
        rows,
        tables,
        [
            f"Clusters of {said}, by their attributions; shares are of the sum of the map over all samples.",
            "p: how often the gap between eigenvalues stands out as much in Gaussian data, which have no clusters.",
        ],
    )
