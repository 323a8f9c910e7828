"""The input itself, so that statistics of the data alone need no other machinery."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from igc_dist.attributors.base import Attributor, Task
from igc_dist.tensors import Tensors


@dataclass(frozen=True)
class Identity(Attributor):
    """``a[n, j, i] = x[n, i]`` for every output. The model is not called.

    It gives the naive correlation and t-test of Lelièvre and Chen (2024).
    """

    name = "input"
    complete = False
    baselines = False
    gradients = False
    raw = True
    labels = {  # noqa: RUF012 - a class constant of the base
        "pearson": "naive_correlation",
        "ttest_p": "naive_ttest",
        "ttest_t": "naive_ttest_t",
    }

    def points(self, features: Sequence[tuple[int, ...]]) -> int:
        return 0

    def of(self, task: Task) -> Tensors:
        """Views of the inputs (n, J, *P_i), the same memory for all outputs: do not write to them."""
        task.watch(0)  # lets the caller stop, as in other attributors
        return tuple(x[:, None].expand(len(x), len(task.outputs), *x.shape[1:]) for x in task.inputs)
