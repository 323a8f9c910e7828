"""Inputs: how a raw batch of the data set becomes the inputs of a walk, and attributions to these become those of features.

Three kinds. `Plain`: floating-point inputs, walked as they are. `Embedded`: the trailing inputs are categories, and a method
of the module embeds them; walks and attributions are in the space of the embeddings. `OneHot`: the trailing inputs are
categories that the forward itself looks up; attributions are to the categories, by the one-hot relaxation of the lookup.
Baselines are raw as the inputs are, and go the same way.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from igc_dist.inputs.base import Inputs, Plain, Walk
from igc_dist.inputs.embedded import Embedded
from igc_dist.inputs.onehot import OneHot
from igc_dist.model import Model
from igc_dist.records import ConfigError

__all__ = ["Embedded", "Inputs", "OneHot", "Plain", "Walk", "ensure"]


def ensure(
    model: Model,
    *,
    embedding: str | None = None,
    embedding_kwargs: Mapping[str, Any] | None = None,
    n_categorical: int | None = None,
    categories: int | Sequence[int] | None = None,
) -> Inputs:
    """The inputs of a model, by what is said of categorical ones. Raises `ConfigError` for settings that do not go together."""
    if n_categorical is not None and (isinstance(n_categorical, bool) or not isinstance(n_categorical, int) or n_categorical < 1):
        raise ConfigError(f"n_categorical={n_categorical!r}: give the number of trailing inputs that are categorical, at least 1")
    if embedding is not None and categories is not None:
        raise ConfigError(
            "embedding and categories are both given: attributions are either to what the embedding method gives, or to categories"
        )
    if embedding is None and embedding_kwargs:
        raise ConfigError("embedding_kwargs are given, but no embedding: name the method that takes them")
    if embedding is not None:
        return Embedded(model, embedding, embedding_kwargs, n_categorical)
    if categories is not None:
        return OneHot(model, categories, n_categorical)
    if n_categorical is not None:
        raise ConfigError(f"n_categorical={n_categorical} needs embedding, the method that embeds them, or categories, their number")
    return Plain(model)
