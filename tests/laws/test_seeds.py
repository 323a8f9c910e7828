"""Laws of randomness: addressed, not sequenced."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from igc_dist import seeds

ADDRESS = st.tuples(
    st.integers(-(2**62), 2**62), st.integers(0, 2**62), st.sampled_from(["a", "b", "plan.folds"]), st.integers(0, 99)
)


@given(ADDRESS, ADDRESS)
def test_equal_addresses_and_only_those_have_equal_seeds(one: tuple, two: tuple) -> None:
    """A seed is a pure function of its address, and differs between addresses."""
    assert seeds.seed(*one) == seeds.seed(*one)
    assert (seeds.seed(*one) == seeds.seed(*two)) == (one == two)
    assert 0 <= seeds.seed(*one) < 2**128


def test_each_part_of_the_address_counts() -> None:
    """Run seed, index, purpose and draw each change the draw."""
    address = (1, 2, "purpose", 3)
    drawn = {seeds.generator(*address).random()}
    for part, other in enumerate((9, 9, "other", 9)):
        changed = (*address[:part], other, *address[part + 1 :])
        drawn.add(seeds.generator(*changed).random())
    assert len(drawn) == 5


@given(st.permutations(range(8)))
def test_order_of_drawing_does_not_matter(order: list[int]) -> None:
    """Draws made in any order, with others in between, are the same."""
    expected = [seeds.generator(5, index, "x").standard_normal(3) for index in range(8)]
    found = {}
    for index in order:
        np.random.default_rng().random()
        found[index] = seeds.generator(5, index, "x").standard_normal(3)
    assert all((found[index] == expected[index]).all() for index in range(8))


def test_address_of_a_batch() -> None:
    """The n-th sample of a batch draws by its global index, wherever it stands."""
    address = seeds.Address(5, np.array([30, 7]), range(2, 4), 6)
    for n, index in enumerate((30, 7)):
        assert address.generator(n, "x", 3).random() == seeds.generator(5, index, "x", 3).random()


def test_known_value() -> None:
    """Another definition would change the numbers of every store with the same seed: BLAKE2b of the packed address."""
    import hashlib
    import struct

    digest = hashlib.blake2b(struct.pack("<qqq", 7, 11, 2) + b"plan.folds", digest_size=16).digest()
    assert seeds.seed(7, 11, "plan.folds", 2) == int.from_bytes(digest, "little")


def test_streams_of_neighbours_are_unrelated() -> None:
    """Streams of neighbouring indices are uncorrelated and standard normal."""
    table = np.array([seeds.generator(0, index, "x").standard_normal(200) for index in range(100)])
    assert abs(table.mean()) < 4 / np.sqrt(table.size)
    assert abs(table.std() - 1) < 0.02
    together = np.corrcoef(table)[np.triu_indices(100, 1)]
    assert np.abs(together).max() < 6 / np.sqrt(200)
    assert abs(together.mean()) < 4 / np.sqrt(together.size * 200)
