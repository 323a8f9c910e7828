"""The selection of the outputs in what a model returns."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields, is_dataclass
from typing import Any

from torch import Tensor

from igc_dist.records import ModelError

Select = str | int | Sequence[str | int] | Callable[[Any], Tensor] | None

LOGITS = "logits"
"""The part of a dict, ModelOutput or other record that is taken without being told."""


def selected(raw: Any, output: Select) -> Tensor:
    """The part of a model's result that `output` names. Otherwise raises `ModelError` with the available names."""
    if callable(output):
        return output(raw)
    flatten = output == "flatten"
    steps = [] if output is None or flatten else [output] if isinstance(output, str | int) else list(output)
    value = raw
    if isinstance(value, list | tuple) and not steps and len(value) == 1:
        value = value[0]
    if not steps and LOGITS in _named(value):
        value = _named(value)[LOGITS]
    for step in steps:
        try:
            if isinstance(value, Tensor):
                value = value[:, int(step)]
            else:
                value = (_named(value) if step in _named(value) else value)[step]
        except (KeyError, IndexError, TypeError, ValueError) as error:
            raise ModelError(f"model.output={output!r}: {step!r} is not in {_inside(value)}") from error
    if not isinstance(value, Tensor):
        several = isinstance(value, list | tuple) or bool(_named(value))
        raise ModelError(
            f"the model returns {_inside(value)}: "
            + ("set output (model.output) to the name or index of the tensor to explain" if several else
               "expected a tensor (n, outputs), or a dict, tuple or record that has one")
        )  # fmt: skip
    return value.flatten(1) if flatten and value.ndim > 2 else value


def _named(value: Any) -> Mapping[Any, Any]:
    """The entries of a dict or ModelOutput, the fields of a named tuple or dataclass, the attributes of a record."""
    if isinstance(value, Mapping):
        return value
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return dict(zip(value._fields, value, strict=True))
    if is_dataclass(value):
        return {each.name: getattr(value, each.name) for each in fields(value) if hasattr(value, each.name)}
    if isinstance(value, Tensor | list | tuple) or not hasattr(value, "__dict__"):
        return {}
    return {name: part for name, part in vars(value).items() if not name.startswith("_")}


def _inside(value: Any) -> str:
    def kind(v: Any) -> str:
        return f"tensor {tuple(v.shape)}" if isinstance(v, Tensor) else type(v).__name__

    if _named(value):
        return f"a {type(value).__name__} of " + ", ".join(f"{k!r}: {kind(v)}" for k, v in _named(value).items())
    if isinstance(value, list | tuple):
        return f"a {type(value).__name__} of " + ", ".join(f"{i}: {kind(v)}" for i, v in enumerate(value))
    return f"a {kind(value)}"
