"""Global random states that stay as they are."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch


@contextmanager
def random_states_kept() -> Iterator[None]:
    """After the block, the global generators of torch (CPU and CUDA), numpy and `random` are as they were before it.

    The package draws from generators of its own, but a data set or a model may draw from the global ones, or seed them.
    """
    cards = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else ()
    of_numpy, of_python = np.random.get_state(legacy=False), random.getstate()
    with torch.random.fork_rng(cards):
        try:
            yield
        finally:
            np.random.set_state(of_numpy)
            random.setstate(of_python)
