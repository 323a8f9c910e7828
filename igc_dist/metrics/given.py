"""What users give to `score`, made plain: maps, the outputs that they explain, and baselines."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Float64, Int64
from torch import Tensor

from igc_dist.arrays import real
from igc_dist.records import ConfigError, DataError


@dataclass(frozen=True)
class Given:
    """Maps of any origin, read batch by batch.

    `values`: an array (N, *P), one map per sample, or (N, J, *P). `shape`: *P of the samples. `outputs`: (N, J), the
    outputs that the maps explain. `single`: whether there is one map per sample.
    """

    values: Any
    shape: tuple[int, ...]
    outputs: Int64[np.ndarray, "N J"]
    single: bool

    def part(self, rows: slice) -> Float64[Tensor, "n J *P"]:
        """The maps of some samples."""
        values = real(self.values[rows], "attribution").double()
        return values[:, None] if self.single else values


def given(values: Any, target: Any, n: int, shape: tuple[int, ...], n_outputs: int) -> Given:
    """Check the maps against the data and the model.

    Raises `DataError` for maps of other shapes, and `ConfigError` for a `target` that does not say which outputs they
    explain.
    """
    values = values if hasattr(values, "shape") else np.asarray(values)
    got, maps = tuple(values.shape), tuple(values.shape)[1 : len(values.shape) - len(shape)]
    if got[:1] != (n,) or got[len(got) - len(shape) :] != shape or len(maps) > 1:
        raise DataError(
            f"an attribution of shape {got} for {n} samples of shape {shape}: give one map for each sample, "
            f"{(n, *shape)}, or one for each sample and output, {(n, 'outputs', *shape)}"
        )
    wish = None if target is None else real(target, "target", ConfigError).cpu().numpy()
    if wish is not None and (wish.dtype.kind not in "iu" or wish.min() < 0 or wish.max() >= n_outputs):
        raise ConfigError(f"target={target!r}: give numbers of outputs of the model, from 0 to {n_outputs - 1}")
    if maps:
        outputs = np.arange(n_outputs) if wish is None else wish
        if outputs.shape != maps:
            raise ConfigError(
                f"the attribution has maps of {maps[0]} outputs, and the model {n_outputs}: give target, a list of the "
                "outputs that they explain"
            )
        return Given(values, shape, np.tile(outputs.astype(np.int64), (n, 1)), False)
    if wish is None and n_outputs > 1:
        raise ConfigError(
            f"there is one map for each sample, and the model has {n_outputs} outputs: give target, the output that "
            "the maps explain, one number or one for each sample"
        )
    outputs = np.zeros(1, np.int64) if wish is None else wish.astype(np.int64)
    if outputs.shape not in ((), (1,), (n,)):
        raise ConfigError(f"target of shape {outputs.shape}: give one number, or one for each of the {n} samples")
    return Given(values, shape, np.broadcast_to(outputs.reshape(-1, 1), (n, 1)).copy(), True)


def baselines(wish: Any, n: int, shape: tuple[int, ...]) -> Float[Tensor, "N *P"] | None:
    """Baselines as (N, *P); one that all samples share is not copied. Raises `ConfigError` for another shape."""
    if wish is None:
        return None
    value = real(wish, "baseline", ConfigError).double()
    if value.ndim <= len(shape):
        value = value[None]
    try:
        if value.shape[0] not in (1, n):
            raise RuntimeError
        return value.expand(n, *shape)
    except RuntimeError:
        raise ConfigError(
            f"a baseline of shape {tuple(np.shape(wish))} for {n} samples of shape {shape}: give one that broadcasts "
            "to a sample, or one for each of them"
        ) from None
