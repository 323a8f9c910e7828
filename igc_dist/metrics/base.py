"""What a metric is given, and what it has to be."""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from jaxtyping import Float, Float64, Int64, Shaped
from torch import Tensor

from igc_dist.model import Model
from igc_dist.records import ConfigError, Effort

OF = ("probability", "logit")
"""What of the model is scored: the softmax over its outputs, or the output as the model gives it."""


@dataclass(frozen=True)
class Maps:
    """M maps of one batch, all finite, each of one output of the model for one sample.

    `x`, `values`: sample and map of the same shape *P. `sample`: the number of the sample in the data. `output`: the
    number of the output that the map explains. `baseline`: that of the sample; `mean`: the mean sample of the data set.
    These two are None unless a metric `needs` them.
    """

    x: Float[Tensor, "M *P"]
    values: Float64[Tensor, "M *P"]
    sample: Int64[Tensor, " M"]
    output: Int64[Tensor, " M"]
    baseline: Float[Tensor, "M *P"] | None = None
    mean: Float[Tensor, "*P"] | None = None

    def __len__(self) -> int:
        return len(self.x)

    def positions(self) -> Float64[Tensor, "M S"]:
        """One value per position: the channels of an image (C, H, W) are summed; other features stand for themselves.

        Positions are in row-major order.
        """
        return (self.values.sum(1) if self.values.ndim == 4 else self.values).flatten(1)

    def spread(self, positions: Shaped[Tensor, "M S"]) -> Shaped[Tensor, "M *Q"]:
        """One value per position in the form of the samples: (M, 1, H, W) for images, so that channels share it."""
        return (
            positions.reshape(len(self), 1, *self.x.shape[2:]) if self.x.ndim == 4 else positions.reshape(self.x.shape)
        )


class Placed:
    """What is of samples of one shape *P."""

    shape: tuple[int, ...]

    @property
    def positions(self) -> tuple[int, ...]:
        """The shape of the positions of a map (see `Maps.positions`): (H, W) of images (C, H, W), else *P."""
        return self.shape[1:] if len(self.shape) == 3 else self.shape

    @property
    def n_positions(self) -> int:
        """How many there are."""
        return int(np.prod(self.positions))


@dataclass(frozen=True)
class Subject(Placed):
    """What is scored, as far as a metric may refuse it: before any map is read.

    `n_samples` of shape *P, `shape`. `first`: the model's outputs (J,) for the first sample. `n_layers`: the
    number of layers with weights, and `n_weights` of these.
    """

    n_samples: int
    shape: tuple[int, ...]
    first: Float64[Tensor, " J"]
    n_layers: int = 0
    n_weights: int = 0

    @property
    def worked(self) -> int:
        """Positions, as far as they take time: the calls for an image, of any size, take that of 100 more."""
        return self.n_positions + 100

    @property
    def size(self) -> int:
        """Elements of a map."""
        return int(np.prod(self.shape))


Explain = Callable[..., Float64[Tensor, "M *P"]]
"""``explain(x, output, sample, **settings)``: maps of `output` for other x, by the method whose maps are scored."""


@dataclass(frozen=True)
class Predict:
    """The model's scores of rows, at most `rows` of them in one forward pass; `explain` for metrics that `needs` it."""

    model: Model
    rows: int
    explain: Explain | None = None

    def __call__(
        self, of: str, output: Int64[Tensor, " R"], made: Callable[[Int64[Tensor, " r"]], Float[Tensor, "r *P"]]
    ) -> Float64[Tensor, " R"]:
        """The score of `output[i]` for row i. ``made(numbers)`` makes the rows of these numbers.

        With "probability" it is ``exp(f_k) / sum_j exp(f_j)``, with "logit" it is ``f_k``, and with "recognised" 1 if
        f_k is the largest output, else 0.
        """
        found = [output.new_empty(0, dtype=torch.float64)]
        for numbers in torch.arange(len(output), device=output.device).split(self.rows) if len(output) else ():
            found.append(self._of(of, made(numbers), output[numbers]))
        return torch.cat(found)

    def grid(
        self, of: str, output: Int64[Tensor, " M"], points: int, made: Callable[[slice, slice], Float[Tensor, "m t *P"]]
    ) -> Float64[Tensor, "M T"]:
        """The scores of `output[m]` for T = `points` rows of each map. ``made(m, t)`` makes the rows of slices of both.

        Rows of whole maps lie side by side, so that they can be made by broadcasting, without a copy of each sample.
        """
        found = torch.empty(len(output), points, dtype=torch.float64, device=output.device)
        for m in slices(len(output), max(1, self.rows // points)):
            for t in slices(points, self.rows):
                rows = made(m, t)
                mine = output[m].repeat_interleave(rows.shape[1])
                found[m, t] = self._of(of, rows.flatten(0, 1), mine).reshape(rows.shape[:2])
        return found

    def explained(self, x: Float[Tensor, "M *P"], maps: Maps, **settings: Any) -> Float64[Tensor, "M *P"]:
        """The maps of other x in place of those of `maps`."""
        assert self.explain is not None  # `needs` says so
        return self.explain(x, maps.output, maps.sample, **settings) if len(maps) else maps.values

    def slopes(
        self, output: Int64[Tensor, " m"], points: Float[Tensor, "m t *P"], along: Float[Tensor, "m 1 *P"]
    ) -> tuple[Float64[Tensor, "m t"], Float64[Tensor, "m t"]]:
        """``f(z)`` and ``<grad f(z), along>`` at each point z, of the output of its map."""
        n_maps, n_points = points.shape[:2]
        table, ends = output.repeat_interleave(n_points)[:, None], along.expand_as(points).flatten(0, 1)
        f, slope = [], []
        for rows in slices(n_maps * n_points, self.rows):
            ((_, (gradient,)),) = self.model.gradients(
                (points.flatten(0, 1)[rows],), table[rows], lambda y: f.append(y[:, 0].double())
            )
            slope.append((gradient.double() * ends[rows]).flatten(1).sum(1))
        return torch.cat(f).reshape(n_maps, n_points), torch.cat(slope).reshape(n_maps, n_points)

    def _of(self, of: str, rows: Float[Tensor, "r *P"], output: Int64[Tensor, " r"]) -> Float64[Tensor, " r"]:
        y = self.model.predict((rows,)).double()
        if of == "recognised":
            return (y.argmax(1) == output).double()
        return (y.softmax(1) if of == "probability" else y).gather(1, output[:, None])[:, 0]


def slices(stop: int, size: int) -> list[slice]:
    """The range to `stop` in parts of `size`."""
    return [slice(start, min(start + size, stop)) for start in range(0, stop, size)]


FOUR = 4 * 8
"""Bytes of four numbers in float64: what any metric holds of each element of a map, for parts and products."""


class Metric(ABC):
    """A score of each map, and maybe a curve. Members are frozen dataclasses: their fields are stored with the score.

    `name`: what users call it. `needs`: which of "baseline" and "mean" it takes from `Maps`, and whether "explain" of
    `Predict`; "doubled": with twice the steps, as only a run can. `counted`: scores of 0 and 1 that are counted, and
    not averaged. `median`: whether the median curve over samples is wanted too, with its area.
    """

    name: ClassVar[str]
    counted: ClassVar[tuple[str, ...]] = ()
    median: ClassVar[bool] = False

    @property
    def needs(self) -> frozenset[str]:
        return frozenset()

    def check(self, subject: Subject) -> None:  # noqa: B027 - most fit everything
        """Raise `ConfigError` with the reason if the metric does not fit."""

    def axis(self, subject: Subject) -> Float64[np.ndarray, " T"] | None:
        """Where the points of the curve are; None for a metric without one."""
        return None

    def effort(self, subject: Subject) -> Effort:
        """What it spends on one map; a metric of the map alone spends no more than memory."""
        return Effort(held=FOUR * subject.size)

    @abstractmethod
    def __call__(self, predict: Predict, maps: Maps) -> dict[str, Float64[Tensor, "M *T"]]:
        """Scores (M,) by their names: "" is the metric itself, others are appended to its name. A "curve" is (M, T).

        NaN is a score that is not defined for a map: it is left out of means, and counted. A score does not depend on
        the other maps of the batch.
        """


def check_of(metric: Metric, of: str, subject: Subject) -> None:
    """Raise `ConfigError` unless the model has what is to be scored."""
    if of not in OF:
        raise ConfigError(f"{metric.name}: of={of!r}, choose one of {', '.join(OF)}")
    if of == "logit":
        return
    if len(subject.first) == 1:
        raise ConfigError(
            f"{metric.name} of the probability needs a model with several outputs, and the softmax of one is always 1: "
            f"set of='logit', as in {type(metric).__name__}(of='logit')"
        )
    if bool((subject.first >= 0).all()) and abs(float(subject.first.sum()) - 1) < 1e-5:
        raise ConfigError(
            f"{metric.name}: the model's outputs for the first sample are probabilities already, and no logits: set "
            "of='logit', which takes them as they are"
        )


def whole(metric: Metric, field: str, least: int = 1) -> None:
    """Raise `ConfigError` unless the field is a whole number of at least `least`."""
    number = getattr(metric, field)
    if isinstance(number, bool) or not isinstance(number, int) or number < least:
        raise ConfigError(f"{metric.name}: {field}={number!r}, give a whole number of at least {least}")


def choice(metric: Metric, field: str, choices: tuple[str, ...]) -> None:
    """Raise `ConfigError` unless the field is one of the choices."""
    if getattr(metric, field) not in choices:
        raise ConfigError(f"{metric.name}: {field}={getattr(metric, field)!r}, choose one of {', '.join(choices)}")


def said(metric: Metric) -> dict[str, Any]:
    """The name and the parameters of a metric; arrays by their shapes."""

    def plain(value: Any) -> Any:
        small = isinstance(value, str | int | float | None) or (isinstance(value, list | tuple) and np.ndim(value) == 1)
        return value if small else f"{type(value).__name__} {np.shape(value)}"

    fields = dataclasses.fields(metric)  # type: ignore[arg-type]
    return {"name": metric.name} | {field.name: plain(getattr(metric, field.name)) for field in fields if field.init}
