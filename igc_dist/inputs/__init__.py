"""Inputs: how raw batches become the inputs of a walk, and how attributions return to features.

There are five kinds. `Plain`: floating-point inputs are walked unchanged. `Embedded`: the trailing inputs are
categories, and a method of the module embeds them; walks and attributions are in the embedding space. `OneHot`: the
trailing inputs are categories that the forward itself looks up; attributions are to the categories, by the one-hot
relaxation of the lookup. `Transformed`: images are walked in an orthonormal basis. `Layered`: activations of a layer
are walked. Baselines are raw like the inputs and are converted in the same way.

May import: attributors, features, baselines, data, model, tensors, records.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from igc_dist.features import Basis
from igc_dist.inputs.base import Inputs, Plain, Walk
from igc_dist.inputs.embedded import Embedded
from igc_dist.inputs.layered import Layered
from igc_dist.inputs.onehot import OneHot
from igc_dist.inputs.transformed import Transformed
from igc_dist.model import Model
from igc_dist.records import ConfigError

__all__ = ["Embedded", "Inputs", "Layered", "OneHot", "Plain", "Transformed", "Walk", "ensure", "in_basis"]


def ensure(
    model: Model,
    layer: str | Sequence[str] | None = None,
    embedding: str | None = None,
    embedding_kwargs: Mapping[str, Any] | None = None,
    n_categorical: int | None = None,
    categories: int | Sequence[int] | None = None,
) -> Inputs:
    """The inputs of a model, from its settings for categories, or a `layer` whose activations are explained.

    Raises `ConfigError` for settings that conflict.
    """
    if n_categorical is not None and (
        isinstance(n_categorical, bool) or not isinstance(n_categorical, int) or n_categorical < 1
    ):
        raise ConfigError(
            f"n_categorical={n_categorical!r}: give the number of trailing inputs that are categorical, at least 1"
        )
    if embedding is not None and categories is not None:
        raise ConfigError(
            "embedding and categories are both given: attributions are either to what the embedding method gives, or "
            "to categories"
        )
    if embedding is None and embedding_kwargs:
        raise ConfigError("embedding_kwargs are given, but no embedding: name the method that takes them")
    if layer is not None:
        if embedding is not None or categories is not None:
            raise ConfigError(
                "layer with embedding or categories: attributions are either to activations of a layer, which takes "
                "inputs of any type, or to what the inputs become"
            )
        return Layered(model, layer)
    if embedding is not None:
        return Embedded(model, embedding, embedding_kwargs, n_categorical)
    if categories is not None:
        return OneHot(model, categories, n_categorical)
    if n_categorical is not None:
        raise ConfigError(
            f"n_categorical={n_categorical} needs embedding, the method that embeds them, or categories, their number"
        )
    return Plain(model)


def in_basis(inputs: Inputs, basis: Basis) -> Inputs:
    """The inputs, walked in a basis of images. Raises `ConfigError` if they are no images."""
    if not basis or isinstance(inputs, Transformed):
        return inputs
    if not isinstance(inputs, Plain):
        raise ConfigError(
            "reduce: bands and colour are of images, and this model has categories, or a layer: take another reducer"
        )
    return Transformed(inputs.model, basis)
