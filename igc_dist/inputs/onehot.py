"""Categories that the forward looks up in embedding tables, attributed by the one-hot relaxation of the lookup."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torch.nn.functional import one_hot

from igc_dist.attributors import Attributor, Task
from igc_dist.baselines import Baseline, Constant, Given
from igc_dist.data import input_names
from igc_dist.inputs.base import Walk, attributed
from igc_dist.inputs.embedded import Categorical
from igc_dist.inputs.lookups import Lookups, numbered
from igc_dist.model import PRECISIONS, Model
from igc_dist.records import ConfigError, DataError, ModelError
from igc_dist.tensors import Batch, Tensors

USE = (
    "categories need a forward that uses them for lookups in nn.Embedding and for nothing else, no mask, offset or "
    "EmbeddingBag: name a "
    "method that embeds them instead (embedding)"
)


@dataclass(frozen=True)
class Relaxed(Walk):
    """A walk whose last `m` inputs are coefficients of the categories `pairs`, (n, *S, 2) each."""

    m: int
    pairs: Tensors


class OneHot(Categorical):
    """Categories that the forward looks up in `nn.Embedding`s, attributed by one-hot relaxation: features (*S, C).

    Between categories x and x0 only two coordinates of the one-hot code change, so only these are walked. A position
    has the coefficients ``(alpha, beta)`` of ``alpha W[x] + beta W[x0]``: x is (1, 0) and the baseline is (0, 1). With
    g the gradient with respect to the embedding, the gradients with respect to the coefficients are ``<W[x], g>`` and
    ``<W[x0], g>``. Attributions to the coefficients are added at x and at x0 of the category axis. The result is
    exactly that of the one-hot code, ``A_c = ([c = x] - [c = x0]) <W_c, integral of g>`` for Integrated Gradients,
    without a one-hot forward. Where x = x0 the attribution is 0. Since x0 depends on the baseline, baselines are walked
    one by one. Attributors without baselines get the one-hot code itself, ``coefficients @ W``.

    `categories`: the number of categories, one number for all inputs or one for each. Raises `ConfigError` for numbers
    below 1, and under `torch.compile`, which would bypass the intercepted lookups.
    """

    def __init__(self, model: Model, categories: int | Sequence[int], n_trailing: int | None) -> None:
        single = isinstance(categories, int)
        numbers = [categories] if isinstance(categories, int) else list(categories)
        if not numbers or any(isinstance(c, bool) or not isinstance(c, int) or c < 1 for c in numbers):
            raise ConfigError(
                f"categories={categories!r}: give a number of categories of at least 1, or one for each categorical "
                "input"
            )
        if not single and n_trailing not in (None, len(numbers)):
            raise ConfigError(
                f"categories={categories!r} are {len(numbers)}, but n_categorical={n_trailing}: the numbers must agree"
            )
        if model.compiled:
            raise ConfigError(
                "categories cannot be used with torch.compile: switch compiled off, or name an embedding method "
                "(embedding)"
            )
        super().__init__(model, n_trailing if single else len(numbers))
        self.categories = numbers

    def describe(self) -> dict[str, Any]:
        return {"categories": self.categories, "n_categorical": self.n_trailing}

    def _numbers(self, m: int) -> list[int]:
        return self.categories * m if len(self.categories) == 1 else self.categories

    def take(self, raw: Tensors, device: torch.device | str, what: str = "input") -> Tensors:
        """As for other inputs, with categories as int64. Raises `DataError` for a category out of range."""
        m = self.n_categorical(raw)
        taken = super().take(raw, device, what)
        names = input_names(len(raw))[-m:]
        ids = (_ids(x, c, f"{what} {name}") for x, c, name in zip(raw[-m:], self._numbers(m), names, strict=True))
        return *taken[:-m], *(x.to(device) for x in ids)

    def check(self, few: Batch, baseline: Baseline | None) -> None:
        super().check(few, baseline)
        m = self.n_categorical(few.inputs)
        for c, name, i in zip(self._numbers(m), input_names(len(few.inputs))[-m:], range(-m, 0), strict=True):
            if isinstance(baseline, Constant):
                _ids(torch.tensor([float(baseline.value)]), c, f"baseline of input {name}")
            if isinstance(baseline, Given) and len(baseline.values) == len(few.inputs):
                _ids(baseline.values[i], c, f"baseline of input {name}")

    def predict(self, taken: Tensors) -> Float[Tensor, "n J"]:
        return self.model.predict(taken)

    def features(self, walk: Walk) -> tuple[tuple[int, ...], ...]:
        assert isinstance(walk, Relaxed)
        m = walk.m
        shapes = [tuple(x.shape[1:]) for x in walk.inputs]
        return *shapes[:-m], *((*shape[:-1], c) for shape, c in zip(shapes[-m:], self._numbers(m), strict=True))

    def walk(self, taken: Tensors, baselines: Tensors) -> Relaxed:
        """The walk in coefficients of one baseline, (1, n or 1, *P). Without baselines it is in the one-hot code."""
        m, dtype = self.n_categorical(taken), self.model.dtype(taken)
        floats, x = taken[:-m], taken[-m:]
        if not baselines:
            code = tuple(one_hot(ids, c).to(dtype) for ids, c in zip(x, self._numbers(m), strict=True))
            return Relaxed(self.model.calling(self._forward(m, None)), (*floats, *code), (), m, ())
        assert len(baselines[0]) == 1
        pairs = tuple(torch.stack((ids, x0[0].expand_as(ids)), -1) for ids, x0 in zip(x, baselines[-m:], strict=True))
        start = tuple(torch.stack((p[..., 0] == p[..., 1], p[..., 0] != p[..., 1]), -1).to(dtype) for p in pairs)
        end = tuple(torch.stack((torch.ones_like(s[..., 0]), torch.zeros_like(s[..., 0])), -1) for s in start)
        own = tuple(x0.expand(1, len(x[0]), *x0.shape[2:]) for x0 in baselines[:-m])
        of_rows = lambda samples: self._forward(m, tuple(p[samples] for p in pairs))  # noqa: E731
        return Relaxed(
            self.model.calling(self._forward(m, pairs), of_rows),
            (*floats, *end),
            (*own, *(s[None] for s in start)),
            m,
            pairs,
        )

    def _forward(self, m: int, pairs: Tensors | None, met: list[Any] | None = None) -> Callable[..., Any]:
        """The forward as a function of floats and coefficients. Its batch is any number of repetitions of `pairs`."""

        def forward(*points: Tensor, **kwargs: Any) -> Any:
            numbers, coefficients = numbered(points[-m:])
            ids = None
            if pairs is not None:
                times = len(points[0]) // len(pairs[0])
                ids = torch.cat([p.expand(times, *p.shape).reshape(-1, p.shape[-1]) for p in pairs])
            with Lookups(coefficients, ids) as lookups:
                result = self.model._call(*points[:-m], *numbers, **kwargs)
            if met is not None:
                met.extend(lookups.met)
            return result

        return forward

    def prove(self, taken: Tensors) -> None:
        """Check that the coefficients of x and of x0 give the same output as the categories themselves."""
        m = self.n_categorical(taken)
        same = self.walk(taken, tuple(x[None] for x in taken))
        met: list[tuple[Tensor, int]] = []
        self._tried(same, same.inputs, met)
        rows = self._check_tables(taken, m, met)
        other = (*taken[:-m], *(_cycle(x, n) for x, n in zip(taken[-m:], rows, strict=True)))
        walk = self.walk(taken, tuple(x[None] for x in other))
        found = self._tried(walk, walk.inputs), self._tried(walk, tuple(x0[0] for x0 in walk.baselines))
        expected = self.predict(taken), self.predict(other)
        for one, two in zip(found, expected, strict=True):
            one, two = one[fine := torch.isfinite(two).all(1)], two[fine]
            tolerance = 1e-2 if PRECISIONS[self.model.precision] else 1e-10 if two.dtype == torch.float64 else 1e-5
            if len(two) and not float((one - two).abs().max()) <= tolerance * float(two.abs().max()) + 1e-30:
                raise ModelError(f"{USE} (outputs are off by {float((one - two).abs().max()):.2g})")

    def _tried(self, walk: Relaxed, points: Tensors, met: list[tuple[Tensor, int]] | None = None) -> Tensor:
        try:
            return self.model.calling(self._forward(walk.m, walk.pairs, met)).predict(points)
        except Exception as error:
            raise ModelError(f"{USE} ({type(error).__name__}: {error})") from error

    def _check_tables(self, taken: Tensors, m: int, met: list[tuple[Tensor, int]]) -> list[int]:
        """Categories that all tables of an input have. Columns of one input may have tables of different lengths."""
        names, start, known = input_names(len(taken))[-m:], 0, []
        for name, x, c in zip(names, taken[-m:], self._numbers(m), strict=True):
            rows = [n for positions, n in met if bool(((positions >= start) & (positions < start + x.numel())).any())]
            start += x.numel()
            if not rows:
                raise ModelError(
                    f"input {name} is declared categorical, but the forward looks it up in no nn.Embedding. {USE}"
                )
            known.append(min(*rows, c))
            if max(rows) < c:
                raise ConfigError(
                    f"categories says {c} for input {name}, but it is looked up in a table of {max(rows)} rows: give "
                    f"{max(rows)}"
                )
        return known

    def attribute(self, attributor: Attributor, task: Task) -> Tensors:
        if attributor.unrelaxed:
            raise ConfigError(
                f"attributor {attributor.name!r} with categories: {attributor.unrelaxed}. Instead name an embedding "
                "method "
                "(embedding), or take another method"
            )
        if not task.baselines:
            return super().attribute(attributor, task)
        m = self.n_categorical(task.inputs)
        total: Tensors = ()
        for one in task.alone():
            walk = self.walk(one.inputs, one.baselines)
            values = attributed(attributor, walk, one)
            if not total:
                codes = [v.new_zeros(*v.shape[:-1], c) for v, c in zip(values[-m:], self._numbers(m), strict=True)]
                total = *(torch.zeros_like(v) for v in values[:-m]), *codes
            for sums, value in zip(total[:-m], values[:-m], strict=True):
                sums += value
            for sums, value, pair in zip(total[-m:], values[-m:], walk.pairs, strict=True):
                for k in (
                    0,
                    1,
                ):  # one at a time: no element is added to twice, so the order of the sum is fixed on any device
                    sums.scatter_add_(-1, pair[:, None, ..., k, None].expand(*value.shape[:-1], 1), value[..., k, None])
        return total


def _ids(x: Tensor, n: int, name: str) -> Int64[Tensor, "..."]:
    """Categories as int64. NaN, which occurs in samples that are left out, becomes 0.

    Raises `DataError` for a category that is not a whole number from 0 to n - 1.
    """
    finite = x.nan_to_num(0.0, 0.0, 0.0) if x.is_floating_point() else x
    broken = finite[(finite < 0) | (finite >= n) | (finite != finite.round() if x.is_floating_point() else False)]
    if broken.numel():
        raise DataError(
            f"{name} has category {broken.reshape(-1)[0].item()}: with categories={n} they are whole numbers, 0 to "
            f"{n - 1}"
        )
    return finite.long()


def _cycle(x: Int64[Tensor, "..."], n: int) -> Int64[Tensor, "..."]:
    """Categories of the same shape that cycle through all n categories and include 0 and the last one."""
    ids = torch.arange(x.numel(), device=x.device) % n
    ids[-1] = n - 1
    return ids.reshape(x.shape)
