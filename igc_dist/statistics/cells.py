"""Cells: the parts of the data set into which samples are folded, and how the parts make up the whole."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float64, Int64
from torch import Tensor

from igc_dist.statistics.base import Statistic
from igc_dist.statistics.correlation import Correlation, over
from igc_dist.statistics.state import Array, State
from igc_dist.tensors import there


@dataclass(frozen=True)
class Cells:
    """Every sample is in one cell per output, number ``slice * n_groups + group``.

    `slices` holds the slice number of each sample of the data set (None: all in one slice). `grouping` is the statistic
    that divides the samples of an output into groups by their target, with its `thresholds`.
    """

    slices: Int64[np.ndarray, " N"] | None = None
    n_slices: int = 1
    grouping: Statistic | None = None
    thresholds: Float64[np.ndarray, "2 J"] | None = None

    @property
    def n_groups(self) -> int:
        return 1 if self.grouping is None else self.grouping.n_groups

    def __len__(self) -> int:
        return self.n_slices * self.n_groups

    def of(
        self, index: Int64[np.ndarray, " n"], target: Float64[Tensor, "n J"], outputs: slice
    ) -> Int64[Tensor, "n J"]:
        """The cells of samples, by their global index and their target for the given outputs."""
        cell = torch.zeros(target.shape, dtype=torch.int64, device=target.device)
        if self.slices is not None:
            cell += there(self.slices[index] * self.n_groups, target.device)[:, None]
        if self.grouping is not None and self.thresholds is not None:
            cell += self.grouping.groups(target, self.thresholds[:, outputs])
        return cell


def parted(statistic: Correlation, slices: State, whole: State) -> tuple[Array, tuple[Array, ...], tuple[Array, ...]]:
    """The parts of ``IGC_i = sum_s lambda_s IGC_i^(s) + beta_i``, an exact identity.

    Returns the weights (S, J), ``lambda_s IGC^(s)`` (S, J, *P_i) and ``beta_i`` (J, *P_i). With C the co-moments of a
    slice about its own means, ``lambda_s = sqrt(C_yy^(s) C_rr^(s) / (C_yy C_rr))``. beta is the part between slices,
    ``sum_s W_s (m_a^(s) - m_a) (m_y^(s) - m_y) / sqrt(C_yy C_rr)``: if it is large, the correlation comes from
    differences between slices (Simpson's paradox).
    """
    weight = slices.scalars[""]
    with np.errstate(invalid="ignore", divide="ignore"):
        share = np.where(weight > 0, weight / whole.scalars[""], 0.0)
    scale = np.broadcast_to(statistic.scale(whole), share.shape)
    shares = over(share * np.where(weight > 0, statistic.scale(slices), 0.0), scale)
    within = []
    for i in range(len(whole.features)):
        covariance = slices.covariance("a", statistic.against, i)
        wide = (..., *(None,) * (covariance.ndim - share.ndim))
        within.append(over(np.where(weight[wide] > 0, share[wide] * covariance, 0.0), scale))
    total = [over(whole.covariance("a", statistic.against, i), scale[0]) for i in range(len(whole.features))]
    return shares, tuple(within), tuple(every - part.sum(0) for every, part in zip(total, within, strict=True))
