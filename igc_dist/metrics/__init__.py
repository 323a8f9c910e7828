"""Metrics of faithfulness: one score, one file.

May import: records.
"""

from igc_dist.metrics.pic import inpainted, random_mask

__all__ = ["inpainted", "random_mask"]
