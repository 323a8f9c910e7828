"""Addressed randomness: a draw is a pure function of (run seed, sample index, purpose, draw number).

It does not depend on rank, batch, worker or order, so results do not depend on how the work is divided.
"""

from __future__ import annotations

import hashlib
import struct
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int64


def seed(run: int, index: int, purpose: str, draw: int = 0) -> int:
    """The 128-bit key of one draw, by BLAKE2b: distinct addresses collide with probability 2**-128 each."""
    address = struct.pack("<qqq", run, index, draw) + purpose.encode()
    return int.from_bytes(hashlib.blake2b(address, digest_size=16).digest(), "little")


def generator(run: int, index: int, purpose: str, draw: int = 0) -> np.random.Generator:
    """A counter-based generator (Philox; Salmon et al. 2011) with the key `seed`."""
    return np.random.Generator(np.random.Philox(key=seed(run, index, purpose, draw)))


@dataclass(frozen=True, eq=False)
class Address:
    """The address of the random draws of a micro-batch: the run's seed, the samples, the baselines of the block.

    `index` are the global indices of the n samples. `baselines` are the numbers of the current baselines, out of
    `n_baselines`.
    """

    seed: int
    index: Int64[np.ndarray, " n"]
    baselines: range
    n_baselines: int

    def generator(self, n: int, purpose: str, draw: int = 0) -> np.random.Generator:
        """The generator of the n-th sample of the batch."""
        return generator(self.seed, int(self.index[n]), purpose, draw)
