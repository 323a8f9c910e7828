"""Addressed randomness: a draw is a pure function of (run seed, sample index, purpose, draw number).

Never of rank, batch, worker or order, so that results do not depend on how the work was cut.
"""

from __future__ import annotations

import hashlib
import struct

import numpy as np


def seed(run: int, index: int, purpose: str, draw: int = 0) -> int:
    """128-bit key of one draw, by BLAKE2b: distinct addresses collide with probability 2**-128 each."""
    address = struct.pack("<qqq", run, index, draw) + purpose.encode()
    return int.from_bytes(hashlib.blake2b(address, digest_size=16).digest(), "little")


def generator(run: int, index: int, purpose: str, draw: int = 0) -> np.random.Generator:
    """Counter-based generator (Philox; Salmon et al. 2011) keyed by `seed`."""
    return np.random.Generator(np.random.Philox(key=seed(run, index, purpose, draw)))
