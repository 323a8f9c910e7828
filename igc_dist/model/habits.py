"""What a forward was found to do, so that it is called accordingly."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class Habits:
    """What a forward was found to do. The views of a model share it."""

    writes: bool | None = None
    """Whether it writes into its inputs; None: not known yet."""
    differentiates: bool = False
    """Whether it takes gradients itself (forces are those of an energy), so that it needs a graph in every pass."""
    squeezes: bool = False
    """Whether it drops the batch dimension of a single row."""
    in_one_order: bool | None = None
    """Whether its kernels on a card add in one order when they are asked to; None: not known yet, or no card."""
