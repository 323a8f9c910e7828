"""Adapters from a model's structured result to a table of outputs (n, J). Each of them can be `model.output`.

Each takes a part of the model's result, `of`: a name, an index, or a list of them (see `selection.py`); None is the
result itself. Raises `ConfigError` for a result of another shape than it needs, and names both shapes.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from igc_dist.arrays import real
from igc_dist.model.selection import selected
from igc_dist.records import ConfigError, ModelError


@dataclass(frozen=True, eq=False, kw_only=True)
class Adapter(ABC):
    """A function of the part `of` of a model's result."""

    of: str | int | Sequence[str | int] | None = None

    def __call__(self, raw: Any) -> Float[Tensor, "n J"]:
        try:
            part = selected(raw, None if self.of is None else [self.of] if isinstance(self.of, str) else self.of)
        except ModelError as error:
            raise ModelError(f"{error} (of {type(self).__name__}: say with `of` which part it takes)") from error
        if part.is_complex():
            raise ModelError(
                f"{type(self).__name__} takes real numbers, and the result is complex ({part.dtype}): give output a "
                "function that makes them real, for example lambda z: z.abs()"
            )
        # under autocast the result has half precision, which is too low for the next steps
        return self.outputs(part if part.dtype == torch.float64 else part.float())

    @abstractmethod
    def outputs(self, part: Tensor) -> Float[Tensor, "n J"]:
        """The table."""

    def _check(self, part: Tensor, fits: bool, expected: str) -> None:
        if not fits:
            raise ConfigError(
                f"{type(self).__name__} needs a result of shape {expected}, got {tuple(part.shape)}: name the part of "
                "the result that has "
                f"it (of), or change the settings of {type(self).__name__}"
            )


@dataclass(frozen=True, eq=False)
class Probability(Adapter):
    """``y_j = exp(s_j) / sum_k exp(s_k)``, the softmax of scores (n, J)."""

    def outputs(self, part: Tensor) -> Float[Tensor, "n J"]:
        self._check(part, part.ndim == 2, "(n, J)")
        return part.softmax(1)


@dataclass(frozen=True, eq=False)
class Segmentation(Adapter):
    """Scores (n, C, *S) of C classes at positions S, summed over a region: ``y_c = sum_s m_cs s_cs``, or their mean.

    `mask`: None, all positions; (*S) of 0 and 1, the same region for all samples and classes; "argmax", for each class
    the positions where its score is the largest (y_c = 0 if there are none). The gradient treats the region as fixed.
    With "argmax" the region is found again at every point of a path, and y jumps where it changes; attributions are
    complete except for these jumps. `reduce`: "mean" or "sum".
    """

    mask: Any = None
    reduce: str = "mean"

    def __post_init__(self) -> None:
        if self.reduce not in ("mean", "sum"):
            raise ConfigError(f"Segmentation: reduce={self.reduce!r}, choose mean or sum")
        if isinstance(self.mask, str) and self.mask != "argmax":
            raise ConfigError(
                f"Segmentation: mask={self.mask!r}, choose argmax, give an array of the positions, or None for all of "
                "them"
            )

    def outputs(self, part: Tensor) -> Float[Tensor, "n J"]:
        self._check(part, part.ndim > 2, "(n, C, *S)")
        if isinstance(self.mask, str):
            classes = torch.arange(part.shape[1], device=part.device).reshape(-1, *(1,) * (part.ndim - 2))
            region = (part.detach().argmax(1, keepdim=True) == classes).to(part)
        else:
            region = part.new_ones(part.shape[2:]) if self.mask is None else _tensor(self.mask, part)
            self._check(part, region.shape == part.shape[2:], f"(n, C, *{tuple(region.shape)}), that of the mask")
            region = region.expand_as(part)
        total = (region * part).flatten(2).sum(2)
        return total if self.reduce == "sum" else total / region.flatten(2).sum(2).clamp_min(1)


@dataclass(frozen=True, eq=False)
class Detection(Adapter):
    """How well M proposals find J given objects: ``y_j = max_m IoU(B_j, b_m) o_m p_m[l_j] / |p_m|``.

    Source: Petsiuk et al. 2021, eq. 2 and 3. The result is (n, M, 4 + 1 + C): corners (x1, y1, x2, y2) of the box b,
    the objectness o, and the probabilities p of C classes. `boxes`: (J, 4), the corners of the objects B. `labels`:
    (J,), their classes l; the last factor is the cosine of p_m and the class's one-hot code. The order of proposals
    does not matter; the gradient is that of the best one.
    """

    boxes: Any
    labels: Sequence[int]

    def __post_init__(self) -> None:
        boxes = real(self.boxes, "Detection: boxes", ConfigError)
        if boxes.ndim != 2 or boxes.shape != (len(self.labels), 4):
            raise ConfigError(
                f"Detection: boxes of shape {tuple(boxes.shape)} for {len(self.labels)} labels, give (J, 4) and (J,)"
            )
        if not bool((boxes[:, :2] < boxes[:, 2:]).all()) or min(self.labels) < 0:
            raise ConfigError("Detection: boxes are (x1, y1, x2, y2) with x1 < x2 and y1 < y2, labels count from 0")

    def outputs(self, part: Tensor) -> Float[Tensor, "n J"]:
        least = 5 + max(self.labels) + 1
        self._check(part, part.ndim == 3 and part.shape[2] >= least, f"(n, M, 5 + C) with C of at least {least - 5}")
        theirs, mine = part[:, :, None, :4], _tensor(self.boxes, part)  # n M 1 4, J 4
        sides = (torch.minimum(theirs[..., 2:], mine[:, 2:]) - torch.maximum(theirs[..., :2], mine[:, :2])).clamp_min(0)
        shared = sides.prod(-1)  # n M J
        areas = [(box[..., 2:] - box[..., :2]).clamp_min(0).prod(-1) for box in (theirs, mine)]
        overlap = shared / (areas[0] + areas[1] - shared)
        return (overlap * part[..., 4:5] * _unit(part[..., 5:])[..., list(self.labels)]).amax(1)


@dataclass(frozen=True, eq=False)
class Tokens(Adapter):
    """The scores of some words at one position: ``y_j = s[position, vocabulary_j]`` of logits (n, T, V).

    `vocabulary` None: all V words. A negative `position` counts from the end.
    """

    position: int = -1
    vocabulary: Sequence[int] | None = None

    def __post_init__(self) -> None:
        if self.vocabulary is not None and (not len(self.vocabulary) or min(self.vocabulary) < 0):
            raise ConfigError(
                f"Tokens: vocabulary={list(self.vocabulary)}, give at least one index from 0, or None for all"
            )

    def outputs(self, part: Tensor) -> Float[Tensor, "n J"]:
        words, position = self.vocabulary, self.position
        length, least = (position + 1 if position >= 0 else -position), 1 if words is None else max(words) + 1
        self._check(
            part,
            part.ndim == 3 and part.shape[1] >= length and part.shape[2] >= least,
            f"(n, T >= {length}, V >= {least})",
        )
        return part[:, position] if words is None else part[:, position, list(words)]


@dataclass(frozen=True, eq=False)
class Cosine(Adapter):
    """Cosine of an embedding z (n, E) and each of J references (J, E): ``y_j = z r_j / (|z| |r_j|)``, 0 at z = 0."""

    reference: Any

    def outputs(self, part: Tensor) -> Float[Tensor, "n J"]:
        reference = _references(self, part, self.reference)
        return _unit(part) @ _unit(reference).T


@dataclass(frozen=True, eq=False)
class Distance(Adapter):
    """The distance of an embedding z (n, E) to each of J references (J, E): ``y_j = |z - r_j|``."""

    reference: Any

    def outputs(self, part: Tensor) -> Float[Tensor, "n J"]:
        reference = _references(self, part, self.reference)
        return (part[:, None] - reference).norm(dim=2)


def _references(adapter: Adapter, part: Tensor, reference: Any) -> Float[Tensor, "J E"]:
    found = _tensor(reference, part)
    fits = found.ndim == 2 and part.ndim == 2 and part.shape[1:] == found.shape[1:]
    adapter._check(part, fits, f"(n, E), with a reference of {tuple(found.shape)}, (J, E)")
    return found


def _tensor(values: Any, like: Tensor) -> Tensor:
    return real(values, "the array of an output", ConfigError).to(dtype=like.dtype, device=like.device)


def _unit(z: Tensor) -> Tensor:
    """z scaled to length 1 in the last dimension; 0 if z = 0, with a finite gradient there."""
    length = z.norm(dim=-1, keepdim=True)
    return z / torch.where(length > 0, length, 1.0)
