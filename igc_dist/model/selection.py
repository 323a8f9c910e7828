"""The selection of the outputs in what a model returns."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import Tensor

from igc_dist.records import ModelError

Select = str | int | Sequence[str | int] | Callable[[Any], Tensor] | None

LOGITS = "logits"
"""The part of a dict or ModelOutput that is taken without being told."""


def selected(raw: Any, output: Select) -> Tensor:
    """The part of a model's result that `output` names. Otherwise raises `ModelError` with the available names."""
    if callable(output):
        return output(raw)
    flatten = output == "flatten"
    steps = [] if output is None or flatten else [output] if isinstance(output, str | int) else list(output)
    value = raw
    if isinstance(value, list | tuple) and not steps and len(value) == 1:
        value = value[0]
    if not steps and isinstance(value, Mapping) and LOGITS in value:
        value = value[LOGITS]
    for step in steps:
        try:
            value = value[:, int(step)] if isinstance(value, Tensor) else value[step]
        except (KeyError, IndexError, TypeError, ValueError) as error:
            raise ModelError(f"model.output={output!r}: {step!r} is not in {_inside(value)}") from error
    if not isinstance(value, Tensor):
        raise ModelError(
            f"the model returns {_inside(value)}: set output (model.output) to the name or index of the tensor to "
            "explain"
        )
    return value.flatten(1) if flatten and value.ndim > 2 else value


def _inside(value: Any) -> str:
    def kind(v: Any) -> str:
        return f"tensor {tuple(v.shape)}" if isinstance(v, Tensor) else type(v).__name__

    if isinstance(value, Mapping):
        return f"a {type(value).__name__} of " + ", ".join(f"{k!r}: {kind(v)}" for k, v in value.items())
    if isinstance(value, list | tuple):
        return f"a {type(value).__name__} of " + ", ".join(f"{i}: {kind(v)}" for i, v in enumerate(value))
    return f"a {kind(value)}"
