"""Categorical inputs, and inputs that a method of the module embeds."""

from __future__ import annotations

from collections.abc import Mapping
from operator import attrgetter
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from igc_dist.baselines import Baseline, Blur, Constant, Given, Mean, Noise
from igc_dist.inputs.base import Inputs, Walk
from igc_dist.model import Model, numerics
from igc_dist.records import ConfigError, DataError, ModelError
from igc_dist.tensors import Batch, Tensors


class Categorical(Inputs):
    """The trailing inputs are categories: `n_trailing` of them, or every input of integer type (None)."""

    def __init__(self, model: Model, n_trailing: int | None) -> None:
        super().__init__(model)
        self.n_trailing = n_trailing

    def n_categorical(self, raw: Tensors) -> int:
        if self.n_trailing is not None:
            if self.n_trailing > len(raw):
                raise ConfigError(
                    f"{self.n_trailing} inputs are to be categorical, but the data set gives {len(raw)}: x of an "
                    "item, as a tuple"
                )
            return self.n_trailing
        floats = [i for i, x in enumerate(raw) if x.is_floating_point()]
        m = len(raw) - 1 - max(floats, default=-1)
        if not m:
            raise DataError(
                f"no trailing input is of integer type ({', '.join(str(x.dtype) for x in raw)}), so none is "
                "categorical: give integers, in "
                "the last inputs, or say how many inputs are categorical (n_categorical)"
            )
        return m

    def check(self, few: Batch, baseline: Baseline | None) -> None:
        super().check(few, baseline)
        m = self.n_categorical(few.inputs)
        if isinstance(baseline, Mean | Noise | Blur):
            raise ConfigError(
                f"baseline {type(baseline).__name__} makes no categories: give a constant category, tensors, or "
                "samples of the data"
            )
        if isinstance(baseline, Constant) and not all(x.is_floating_point() for x in few.inputs[-m:]):
            self._check_whole(torch.tensor([float(baseline.value)]))
        if isinstance(baseline, Given):
            for value, x in zip(baseline.values[-m:], few.inputs[-m:], strict=False):
                if not x.is_floating_point():
                    self._check_whole(value)

    @staticmethod
    def _check_whole(value: Tensor) -> None:
        broken = value[value != value.round()] if value.is_floating_point() else value[:0]
        if broken.numel():
            raise ConfigError(
                f"baseline {float(broken.reshape(-1)[0])} is not a whole number, but stands for a category"
            )


class Embedded(Categorical):
    """A method of the module embeds the categorical inputs.

    ``embedding(*categories, **kwargs)`` returns one or several float tensors. The forward takes ``(*floats,
    *embeddings)``. Attributions have the shapes of the floats and the embeddings. Raises `ModelError` if the module has
    no such method.
    """

    def __init__(self, model: Model, embedding: str, kwargs: Mapping[str, Any] | None, n_trailing: int | None) -> None:
        super().__init__(model, n_trailing)
        try:
            self.method = attrgetter(embedding)(model.module)
        except AttributeError:
            self.method = None
        if not callable(self.method):
            raise ModelError(
                f"{type(model.module).__name__} has no method {embedding!r}: give the name of the method that maps "
                "categories to embeddings"
            )
        self.embedding, self.kwargs = embedding, dict(kwargs or {})

    def describe(self) -> dict[str, Any]:
        return {"embedding": self.embedding, "embedding_kwargs": self.kwargs, "n_categorical": self.n_trailing}

    def _embedded(self, taken: Tensors) -> Tensors:
        cut = len(taken) - self.n_categorical(taken)
        with torch.no_grad(), numerics.as_called(taken[0].device):
            made = self.method(*taken[cut:], **self.kwargs)
        made = (made,) if isinstance(made, Tensor) else tuple(made) if isinstance(made, list | tuple) else (made,)
        for e in made:
            if not isinstance(e, Tensor) or not e.is_floating_point() or e.shape[:1] != taken[0].shape[:1]:
                got = f"{e.dtype} of shape {tuple(e.shape)}" if isinstance(e, Tensor) else type(e).__name__
                raise ModelError(
                    f"embedding {self.embedding!r} gives {got} for {len(taken[0])} inputs: one or several float "
                    "tensors (n, ...)"
                )
        dtype = self.model.dtype(taken)
        return *taken[:cut], *(e.detach().to(dtype) for e in made)

    def predict(self, taken: Tensors) -> Float[Tensor, "n J"]:
        return self.model.predict(self._embedded(taken))

    def walk(self, taken: Tensors, baselines: Tensors) -> Walk:
        flat = self._embedded(tuple(x0.flatten(0, 1) for x0 in baselines)) if baselines else ()
        return Walk(self.model, self._embedded(taken), tuple(e.unflatten(0, baselines[0].shape[:2]) for e in flat))
