"""What to do if a precision may be too low: how much of a run is audited, and what happens if errors are large."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float64

from igc_dist.records import ConfigError, PrecisionError

TERMS = ("contribution", "contribution_error", "rise", "rise_error")
"""Sums of an audit, per output, over its micro-batches: ``|C'|^2, |C - C'|^2, |r'|^2, |d - d'|^2``. A prime marks the
higher precision. ``C = sum_n w a (y - c)`` is what a micro-batch adds to the IGC, a vector over features. ``r = f(x) -
mean_b f(x0)`` and the residual of completeness ``d = sum a - r`` are weighted vectors over its samples."""

BATCHES = 4
"""Number of micro-batches in the audit of a precision whose factors are rounded: mixed ones, and TF32."""


@dataclass
class Audit:  # not frozen: OmegaConf makes the fields of a frozen schema read-only
    """Settings of the audit.

    `audit`: the number of micro-batches that are computed again (None: 4 for mixed precisions and TF32, else 0).
    `tol`: the largest accepted relative error of an output's IGC contribution, and of its completeness (None: any
    error, it is only recorded). `on_error`: what happens above `tol`: the run fails, or falls back, which means that it
    starts again from pass 1 in the higher precision.
    """

    audit: int | None = None
    tol: float | None = 0.05
    on_error: str = "fail"

    def __post_init__(self) -> None:
        if self.on_error not in ("fail", "fallback"):
            raise ConfigError(
                f"precision.on_error={self.on_error!r}: choose fail, or fallback (do the run again in the higher "
                "precision)"
            )
        if self.audit is not None and (
            isinstance(self.audit, bool) or not isinstance(self.audit, int) or self.audit < 0
        ):
            raise ConfigError(
                f"precision.audit={self.audit!r}: give a number of micro-batches, 0 for none, or null for the default"
            )
        if self.tol is not None and not self.tol > 0:
            raise ConfigError(f"precision.tol={self.tol!r}: give a relative error above 0, or null to record it only")

    def batches(self, model: Any) -> int:
        """Number of micro-batches that are audited for this model.

        Raises `ConfigError` if the model cannot run in a higher precision.
        """
        rounded = model.rounded
        wanted = (BATCHES if rounded else 0) if self.audit is None else self.audit
        if wanted and model.above is None:
            raise ConfigError(
                f"precision.audit={wanted}: there is no precision above {model.precision} to audit it by, set it to 0"
            )
        if wanted and model.compiled and not rounded:
            raise ConfigError(
                f"precision.audit={wanted} needs the model in float64, but its compiled forward is one of float32: "
                "switch compiled off, or "
                "set precision.audit=0"
            )
        return wanted

    def memory(self, model: Any) -> int:
        """Bytes of the weights in float64, if the audit needs them."""
        weights = (t.numel() for t in (*model.module.parameters(), *model.module.buffers()))
        return 8 * sum(weights) if model.above == "64-true" and self.batches(model) else 0

    def judge(self, model: Any, found: Mapping[str, Float64[np.ndarray, " J"]], labels: np.ndarray) -> None:
        """Raise `PrecisionError` with the worst output and the possible remedies if an error of `errors` exceeds `tol`.

        An output without a contribution (nan) is accepted; an infinite error is not.
        """
        for name, values in found.items():
            if self.tol is None or np.isnan(values).all():
                continue
            worst = int(np.nanargmax(values))
            if values[worst] > self.tol:
                what = "IGC contribution" if name == "precision_error" else "completeness"
                raise PrecisionError(
                    f"{model.precision} changes the {what} of output {labels[worst]} by {values[worst]:.3g} of its "
                    "size, against "
                    f"{model.above} on the audited micro-batches; precision.tol is {self.tol:g}: take "
                    f"fabric.precision={model.above}, or precision.on_error=fallback, or raise "
                    "precision.tol, or set it to null to record the error only"
                )
