"""Targets: which outputs are explained, and how y in the data set becomes a vector of outputs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float64, Int64
from torch import Tensor
from torch.nn.functional import one_hot

from igc_dist.records import ConfigError, DataError


@dataclass(frozen=True)
class Targets:
    """Selected outputs (`None` = all) and the encoding of y.

    `one_hot`: y is an integer label, and the target of output k is 1 for label k, else 0. `None` decides by the data:
    an integer scalar y with a model of several outputs is a label. `names`: labels of the selected outputs in the
    store, in their order. `n_others`: for one-hot targets, take gradients at each path point for the label's own output
    and for this number of other outputs, which are drawn, instead of for all. `classes`: the names of all outputs of
    the model, in their order, if the data set has them.

    Raises `ConfigError` for no, negative or duplicate outputs, and for duplicate names.
    """

    outputs: Sequence[int] | None = None
    one_hot: bool | None = None
    names: Sequence[str] | None = None
    n_others: int | None = None
    classes: Sequence[str] | None = None

    def __post_init__(self) -> None:
        n = self.n_others
        if n is not None and (isinstance(n, bool) or not isinstance(n, int | np.integer) or n < 1):
            raise ConfigError(
                f"target.n_others={n!r}: give the number of outputs to draw beside the label's, at least 1, or null "
                "for all"
            )
        called = [str(name) for name in self.names or ()]
        if doubled := sorted({name for name in called if called.count(name) > 1}):
            raise ConfigError(f"target.names has {doubled} more than once: give each output a name of its own")
        if self.outputs is None:
            return
        chosen = [int(k) for k in self.outputs]
        if not chosen:
            raise ConfigError("target.outputs is empty: select at least one output, or null for all")
        if min(chosen) < 0:
            raise ConfigError(f"target.outputs has {min(chosen)}: outputs count from 0")
        if len(set(chosen)) < len(chosen):
            twice = sorted({k for k in chosen if chosen.count(k) > 1})
            raise ConfigError(f"target.outputs has {twice} more than once: give each output once")

    def select(self, n_outputs: int) -> list[int]:
        """The selected outputs of a model with `n_outputs`.

        Raises `ConfigError` for an output out of range, or if `names` or `classes` do not fit.
        """
        known = self.classes
        if known is not None and len(known) != n_outputs and (len(known), n_outputs) != (2, 1):
            some = f"{', '.join(known[:5])}{', ...' if len(known) > 5 else ''}"
            raise ConfigError(
                f"the data has {len(known)} classes ({some}), but the model has {n_outputs} outputs: name all outputs, "
                "in the model's order (data.classes, a list, or a file with one on each line)"
            )
        chosen = list(range(n_outputs)) if self.outputs is None else [int(k) for k in self.outputs]
        if max(chosen) >= n_outputs:
            raise ConfigError(
                f"target.outputs has {max(chosen)}: the model has {n_outputs} outputs, give 0 to {n_outputs - 1}"
            )
        if self.names is not None and len(self.names) != len(chosen):
            raise ConfigError(
                f"target.names has {len(self.names)} names for {len(chosen)} selected outputs: give one each"
            )
        return chosen

    def are_labels(self, y: Tensor, n_outputs: int) -> bool:
        """Whether y is one integer label per sample: the target is then 1 for one output and 0 for all others."""
        if self.one_hot is not None:
            return self.one_hot
        integer = not (y.is_floating_point() or y.is_complex() or y.dtype == torch.bool)
        return integer and y[:1].numel() == 1 and n_outputs > 1

    def encode(self, y: Tensor, n_outputs: int) -> Float64[Tensor, "n J"]:
        """The data set's y as (n, n_outputs) float64; NaN or infinity for all outputs where a label is so.

        Integer labels with missing ones come as floats. Raises `DataError` if y does not fit the outputs.
        """
        if y.is_complex():
            raise DataError(f"y is complex ({y.dtype}): give real targets, such as y.abs() or y.real")
        flat = y.reshape(len(y), -1)
        if self.are_labels(y, n_outputs):
            known = flat.isfinite()
            whole = flat[known]
            if flat.shape[1] != 1 or bool((whole != whole.long()).any()):
                raise DataError(
                    f"target.one_hot needs one integer label per sample, got y of shape {tuple(y.shape[1:])} and type "
                    f"{y.dtype}"
                )
            if len(whole) and (whole.min() < 0 or whole.max() >= n_outputs):
                raise DataError(
                    f"labels run from {int(whole.min())} to {int(whole.max())}, but the model has {n_outputs} outputs "
                    f"(0 to {n_outputs - 1})"
                )
            code = one_hot(torch.where(known, flat, 0)[:, 0].long(), n_outputs).double()
            return torch.where(known, code, flat.double())
        if flat.shape[1] != n_outputs:
            raise DataError(
                f"y has {flat.shape[1]} values per sample (shape {tuple(y.shape[1:])}), but the model has {n_outputs} "
                "outputs: "
                "they must match, or y must be an integer label with target=one_hot (say so if some labels are missing)"
            )
        return flat.double()

    def labels(self, chosen: Sequence[int]) -> np.ndarray:
        """The coordinate of the dimension `output`: the names, else the classes, else the indices of the outputs."""
        names, known = self.names, self.classes
        if names is None and known is not None and (len(known) != 2 or len(chosen) > 1):  # else it may be one for both
            names = [known[k] for k in chosen]
        return (
            np.asarray(chosen, dtype=np.int64)
            if names is None
            else np.asarray([str(name) for name in names], dtype=object)
        )


def asked(
    keys: Float64[np.ndarray, "R J"], label: Int64[np.ndarray, " R"], n_others: int
) -> Float64[np.ndarray, "R J"]:
    """Draw outputs, and return how often each counts: 0 if it is not drawn (Horvitz and Thompson 1952).

    On average each output counts once. The output of the label counts once (a label of -1 is none of these outputs).
    `n_others` of the other outputs are drawn, those with the smallest random `keys`. Each of them counts as often as
    the number of others over the number of drawn ones.
    """
    own = np.arange(keys.shape[1]) == label[:, None]
    others = keys.shape[1] - own.sum(1, keepdims=True)
    drawn = np.minimum(n_others, others)
    often = np.zeros(keys.shape)
    if (k := min(n_others, keys.shape[1])) > 0:  # if k is their number, all are chosen, including the label
        chosen = np.argpartition(np.where(own, np.inf, keys), k - 1, axis=1)[:, :k]
        np.put_along_axis(often, chosen, others / np.maximum(drawn, 1), axis=1)
    return np.where(own, 1.0, often)


def ensure(target: Any) -> Targets:
    """Coerce "None, an int, a list of ints, the word one_hot, or Targets" to `Targets`."""
    if isinstance(target, Targets):
        return target
    if target is None:
        return Targets()
    if isinstance(target, str):
        if target != "one_hot":
            raise ConfigError(
                f"target={target!r}: the only name is 'one_hot'; otherwise give None, an int, a list of ints, or "
                "Targets(...)"
            )
        return Targets(one_hot=True)
    if isinstance(target, bool) or not isinstance(target, int | np.integer | Sequence | np.ndarray | Tensor):
        raise ConfigError(
            f"target={target!r} of type {type(target).__name__}: give None, an int, a list of ints, or Targets(...)"
        )
    if isinstance(target, int | np.integer):
        return Targets(outputs=(int(target),))
    chosen = [k.item() if hasattr(k, "item") else k for k in target]
    if any(isinstance(k, bool) or not isinstance(k, int) for k in chosen):
        raise ConfigError(f"target={target!r}: outputs are selected by integers")
    return Targets(outputs=tuple(chosen))
