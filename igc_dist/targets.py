"""Targets: which outputs are explained, and how y in the data set becomes a vector of outputs."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float64
from torch import Tensor
from torch.nn.functional import one_hot

from igc_dist.records import ConfigError, DataError, near_names

_EACH = re.compile(r"own|predicted|top:([1-9][0-9]{0,8})")


@dataclass(frozen=True)
class Targets:
    """Selected outputs (`None` = all) and the encoding of y.

    `outputs`: numbers or names of classes; or, by the labels of the data, "present" (classes that occur), "top:20" (the
    20 that occur most) or "positives>=30". `resolved` turns all of them into numbers.

    `one_hot`: y is an integer label, and the target of output k is 1 for label k, else 0. `None` decides by the data:
    an integer scalar y with a model of several outputs is a label. `names`: labels of the selected outputs in the
    store, in their order. `n_others`: for one-hot targets, take gradients at each path point for the label's own output
    and for this number of other outputs, which are drawn, instead of for all. `classes`: the names of all outputs of
    the model, in their order, if they are known. `supposed`: a data set of another package calls its labels so; names
    that are not as many as the outputs are then left out.

    `each`: every sample is explained for outputs of its own, in place of the same ones for all: "own", that of its
    label; "predicted", the largest; "top:k", the k largest in their order, of equal ones the first. Then "output"
    counts these, and `/samples/explained` says which output of the model each of them is.

    Raises `ConfigError` for no, negative or duplicate outputs, and for duplicate names.
    """

    outputs: Any = None
    one_hot: bool | None = None
    names: Sequence[str] | None = None
    n_others: int | None = None
    classes: Sequence[str] | None = None
    each: str | None = None
    supposed: bool = False

    def __post_init__(self) -> None:
        self._check_each()
        n = self.n_others
        if n is not None and (isinstance(n, bool) or not isinstance(n, int | np.integer) or n < 1):
            raise ConfigError(
                f"target.n_others={n!r}: give how many outputs to draw beside the label's, 1 or more, or null for all"
            )
        called = [str(name) for name in self.names or ()]
        if doubled := sorted({name for name in called if called.count(name) > 1}):
            raise ConfigError(f"target.names has {doubled} more than once: give each output a name of its own")
        if self.outputs is None:
            return
        if not isinstance(self.outputs, Sequence | np.ndarray | Tensor):
            raise ConfigError(
                f"target.outputs={self.outputs!r} of type {type(self.outputs).__name__}: give a list of numbers or "
                "names, present, top:20 or positives>=30"
            )
        if isinstance(self.outputs, str):
            return
        if wrong := [k for k in self.outputs if not isinstance(k, str) and np.asarray(k).dtype.kind not in "iu"]:
            raise ConfigError(f"target.outputs has {wrong[0]!r}: give integers or names of outputs")
        if any(isinstance(k, str) for k in self.outputs):
            return  # `resolved` makes numbers of them
        chosen = [int(k) for k in self.outputs]
        if not chosen:
            raise ConfigError("target.outputs is empty: select at least one output, or null for all")
        if min(chosen) < 0:
            raise ConfigError(f"target.outputs has {min(chosen)}: outputs count from 0")
        if twice := sorted({k for k in chosen if chosen.count(k) > 1}):
            raise ConfigError(f"target.outputs has {twice} more than once: give each output once")

    def resolved(self, labels: Tensor | None) -> Targets:
        """The same with numbers in place of names and of "present", "top:20", "positives>=30".

        `labels`: y of all samples, integers or columns of 0 and 1; None: they are not known before they are read.
        Raises `ConfigError` for an unknown class, with the near ones, and for a choice that nothing meets.
        """
        if self.outputs is None:
            return self
        if isinstance(self.outputs, str) and (said := _BY_LABELS.fullmatch(self.outputs.replace(" ", ""))):
            return replace(self, outputs=self._occurring(said, labels))
        wished = [self.outputs] if isinstance(self.outputs, str) else self.outputs
        numbers = [self._number(k) if isinstance(k, str) else int(k) for k in wished]
        by_name = [f"{k}" for k in wished] != [f"{k}" for k in numbers]  # then classes have to be the outputs
        return replace(self, outputs=numbers, supposed=self.supposed and not by_name)

    def _number(self, name: str) -> int:
        if name.isdecimal():
            return int(name)
        found = place(name, places(self.classes or ()))
        if found is None:
            there = "neither model nor data name their classes (model.classes, data.classes): give numbers"
            if self.classes:
                near = near_names(name, self.classes)
                there = f"near are {', '.join(near)}" if near else f"they are {', '.join(self.classes[:5])}, ..."
            raise ConfigError(
                f"target.outputs has {name!r}, which is no class: {there}; or give present, top:20 or positives>=30"
            )
        return found

    def _occurring(self, said: re.Match[str], labels: Tensor | None) -> list[int]:
        """The outputs by their number of positive samples, in the order of the outputs."""
        if labels is None:
            raise ConfigError(
                f"target.outputs={self.outputs} needs the labels of all samples at once, and these data have no y with "
                "one value per sample: name the outputs, or take data=image_folder or arrays"
            )
        if labels.ndim == 1:
            known = labels[labels.isfinite()].long()
            often = torch.bincount(known[known >= 0]).tolist()
        else:
            often = (labels > 0).sum(0).tolist()
        if said["top"]:
            first = sorted((k for k, n in enumerate(often) if n), key=lambda k: (-often[k], k))[: int(said["top"])]
        else:
            least = int(said["least"] or 1)
            first = [k for k, n in enumerate(often) if n >= max(least, 1)]
        if not first:
            raise ConfigError(
                f"target.outputs={self.outputs}: no output has so many positive samples, the most are "
                f"{max(often, default=0)}"
            )
        return sorted(first)

    def _check_each(self) -> None:
        if self.each is None:
            return
        if not isinstance(self.each, str) or not _EACH.fullmatch(self.each):
            raise ConfigError(f"target.each={self.each!r}: give own, predicted, or top:k such as top:5")
        for name in ("outputs", "names", "n_others"):
            if getattr(self, name) is not None:
                raise ConfigError(
                    f"target.{name}={getattr(self, name)!r} with target.each={self.each}, where each sample has "
                    f"outputs of its own: leave target.{name} null"
                )

    @property
    def n_each(self) -> int:
        """How many outputs of its own each sample is explained for; 0 without `each`."""
        found = None if self.each is None else _EACH.fullmatch(self.each)
        return 0 if found is None else int(found[1] or 1)

    def select(self, n_outputs: int) -> list[int]:
        """The selected outputs of a model with `n_outputs`; with `each`, the places among the outputs of a sample.

        Raises `ConfigError` for an output out of range, or if `names` or `classes` do not fit.
        """
        self.called(n_outputs)
        if self.n_each > n_outputs:
            raise ConfigError(f"target={self.each}: the model has {n_outputs} outputs, give top:{n_outputs} at most")
        if self.each is not None:
            return list(range(self.n_each))
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
                "outputs: they must match, or y must be a label, with target=one_hot (say so if some are missing)"
            )
        return flat.double()

    def called(self, n_outputs: int) -> Sequence[str] | None:
        """The names of all outputs of a model with `n_outputs`. Raises `ConfigError` for another number of them."""
        known = self.classes
        if known is None or (len(known), n_outputs) in ((n_outputs, n_outputs), (2, 1)):
            return known
        if self.supposed:
            return None
        raise ConfigError(
            f"the data has {len(known)} classes ({', '.join(known[:5])}{', ...' * (len(known) > 5)}), but the model "
            f"has {n_outputs} outputs: name all outputs, in their order (data.classes, a list or a file)"
        )

    def labels(self, chosen: Sequence[int], n_outputs: int) -> np.ndarray:
        """The coordinate of the dimension `output`: the names, else the classes, else the indices of the outputs."""
        names, known = self.names, self.called(n_outputs)
        if self.each is not None:
            names = [f"top {k + 1}" for k in chosen] if self.each.startswith("top") else [self.each]
        if names is None and known is not None and (len(known) != 2 or len(chosen) > 1):  # else it may be one for both
            names = [known[k] for k in chosen]
        if names is None:
            return np.asarray(chosen, dtype=np.int64)
        return np.asarray([str(name) for name in names], dtype=object)


_BY_LABELS = re.compile(r"present|top:(?P<top>\d+)|positives>=(?P<least>\d+)")


def plain(name: str) -> str:
    """A name of a class without what people write differently: capitals, and ``_`` or ``-`` for a space."""
    return " ".join(re.split(r"[\s_-]+", name.strip().casefold()))


def places(classes: Sequence[str]) -> Mapping[str, int]:
    """The number of each class by its name; by its `plain` name, and those of its synonyms ("tench, Tinca tinca"), if
    no other class has them."""
    words = {(plain(part), k) for k, name in enumerate(classes) for part in (name, *name.split(","))}
    often = Counter(word for word, _ in words)
    own = {word: k for word, k in words if often[word] == 1}
    return {**own, **{name: k for k, name in enumerate(classes)}}


def place(name: str, known: Mapping[str, int]) -> int | None:
    """The number of a class in what `places` gives; None for no class."""
    return known.get(name, known.get(plain(name)))


def class_names(given: Sequence[str] | str | Path | None) -> list[str] | None:
    """The names of a model's outputs in their order: a list, or a text file with one on each line.

    Raises `ConfigError` for a file that cannot be read, and for a name that is there twice.
    """
    if given is None:
        return None
    if isinstance(given, str | Path):
        try:
            lines = Path(os.path.expanduser(given)).read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"classes={given}: the file cannot be read ({error})") from error
        names = [line.strip() for line in lines if line.strip()]
    else:
        names = [str(name) for name in given]
    if doubled := sorted(name for name, often in Counter(names).items() if often > 1):
        raise ConfigError(f"classes has {doubled[0]!r} more than once")
    return names


def ensure(target: Any) -> Targets:
    """Coerce "None, an int, a list of ints, the words one_hot, own, predicted and top:k, or Targets" to `Targets`."""
    if isinstance(target, Targets):
        return target
    if target is None:
        return Targets()
    if isinstance(target, str):
        if _EACH.fullmatch(target):
            return Targets(each=target)
        if target != "one_hot":
            raise ConfigError(
                f"target={target!r}: the names are 'one_hot', 'own', 'predicted' and 'top:k', such as 'top:5'; "
                "otherwise give None, an int, a list of ints, or Targets(...)"
            )
        return Targets(one_hot=True)
    if isinstance(target, bool) or not isinstance(target, int | np.integer | Sequence | np.ndarray | Tensor):
        raise ConfigError(
            f"target={target!r} of type {type(target).__name__}: give None, an int, a list of ints, or Targets(...)"
        )
    if isinstance(target, int | np.integer):
        return Targets(outputs=(int(target),))
    return Targets(outputs=tuple(k.item() if hasattr(k, "item") else k for k in target))
