"""Names of the inputs, which are groups of the store, and of the dimensions of their features."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from igc_dist import data
from igc_dist.records import ConfigError
from igc_dist.secrets import holds_secret, masked

Shape = tuple[int, ...]
Names = tuple[str, ...]

TAKEN = frozenset((
    "output", "n", "correlation", "constant", "baseline_term", "target_mean", "target_std", "prediction_mean",
    "prediction_std", "samples", "index", "target", "prediction", "prediction_baseline", "delta", "convergence",
    "fold", "map_distance", "shards", "predict", "attribute", "bad", "means", "scalars", "skipped", "audit",
    "micro_batch", "digest", "record", "term", "scalar_term", "slices", "slice", "n_low", "n_high", "scores", "known",
    "metrics", "weight", "importance", "stratum", "correct", "confidence", "replicate", "rel_se", "draw_share",
))  # fmt: skip
"""Names that the store itself uses. Names that end in one of `TAKEN_ENDS` are also taken."""

TAKEN_ENDS = ("_sum", "_se", "_error", "_share")

TAKEN_DIMS = frozenset(
    (
        "output",
        "sample",
        "fold",
        "part",
        "row",
        "term",
        "scalar_term",
        "output_block",
        "byte",
        "table",
        "score",
        "extent",
        "count",
        "audit_term",
        "sums",
        "attribution",
        "cell",
        "slice",
        "audit_term",
    )
)


def names(n_inputs: int, given: Sequence[Any] | None = None) -> Names:
    """Names of the inputs, which are groups of the store: the `given` ones, or x, x1, x2, ...

    Raises `ConfigError` if their number is wrong, or if a name is no identifier, occurs twice, or is used by the store.
    """
    if given is None:
        return data.input_names(n_inputs)
    chosen = (given,) if isinstance(given, str) else tuple(given)
    if len(chosen) != n_inputs:
        raise ConfigError(f"names={list(chosen)}: {len(chosen)} names for {n_inputs} inputs, give one each")
    for name in chosen:
        if holds_secret(str(name)):
            raise ConfigError(f"names={masked([*chosen])}: a group of the store would have the name of a secret")
        if not isinstance(name, str) or not name.isidentifier() or name.startswith("__"):
            raise ConfigError(
                f"names: {name!r} cannot name a group of the store, use letters, digits and _ (not a digit first)"
            )
        if name in TAKEN or name.endswith(TAKEN_ENDS):
            raise ConfigError(
                f"names: the store has another use for {name!r} (or for names that end so), give this input another "
                "name"
            )
        if chosen.count(name) > 1:
            raise ConfigError(f"names={list(chosen)}: {name!r} is there twice, give every input its own")
    return chosen


def feature_dims(n_dims: int, category: bool = False) -> Names:
    """Names of the dimensions of an input. With `category`, the last one is the category axis of a relaxed input."""
    if category:
        return (*feature_dims(n_dims - 1), "category")
    return {1: ("feature",), 2: ("height", "width"), 3: ("channel", "height", "width")}.get(
        n_dims, tuple(f"dim_{i}" for i in range(n_dims))
    )


def dims(
    shapes: Sequence[Shape], given: Sequence[Any] | None = None, categories: Sequence[bool] | None = None
) -> tuple[Names, ...]:
    """Names of the dimensions of every input before it is reduced.

    `given` has one sequence of names per input (None: default names). For a single input the outer sequence may be
    omitted. `categories` marks inputs whose last dimension is the category axis; the name of this axis may be omitted.
    Raises `ConfigError` for a wrong number of names, and for names that cannot be used.
    """
    relaxed = [False] * len(shapes) if categories is None else list(categories)
    chosen: list[Any] = [None] * len(shapes) if given is None else list(given)
    if len(shapes) == 1 and chosen and all(isinstance(name, str) for name in chosen):
        chosen = [chosen]
    if len(chosen) != len(shapes) or any(isinstance(per_input, str) for per_input in chosen):
        raise ConfigError(
            f"dims={given!r}: give a list of names for each of the {len(shapes)} inputs, or null for the default ones"
        )
    return tuple(chosen_dims(*of_input) for of_input in zip(shapes, chosen, relaxed, strict=True))


def chosen_dims(shape: Shape, given: Sequence[str] | None, category: bool) -> Names:
    """Names of the dimensions of one input: `given`, or the default ones."""
    if given is None:
        return feature_dims(len(shape), category)
    chosen = (*given, "category") if category and len(given) == len(shape) - 1 else tuple(given)
    if len(chosen) != len(shape):
        raise ConfigError(
            f"dims {list(given)}: {len(given)} names for features of shape {shape}, which has {len(shape)} dimensions"
        )
    for name in chosen:
        if holds_secret(str(name)):
            raise ConfigError(f"dims={masked([*chosen])}: a dimension of the store would have the name of a secret")
        if not isinstance(name, str) or not name.isidentifier() or name in TAKEN_DIMS or chosen.count(name) > 1:
            raise ConfigError(
                f"dims {list(chosen)}: {name!r} cannot be used; names are identifiers, each once, none of "
                f"{', '.join(sorted(TAKEN_DIMS))}"
            )
    return chosen
