"""Laws of baselines: shapes and values of each kind, drawn by address; what cannot serve is refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from igc_dist import baselines as kinds
from igc_dist.baselines import Baseline, Surroundings, ensure
from igc_dist.data import Source
from igc_dist.data import ensure as source_of
from igc_dist.records import ConfigError
from igc_dist.tensors import Batch

N, FEATURES = 10, ((3,), (2, 4, 4))


def source() -> Source:
    rng = np.random.default_rng(0)
    return source_of(
        (tuple(torch.from_numpy(rng.standard_normal((N, *shape))) for shape in FEATURES), torch.arange(N)[:, None] % 3)
    )


def surroundings(seed: int = 0, pool: Any = None) -> Surroundings:
    data = source()
    mean = tuple(x.mean(0) for x in data.fetch(range(N)).inputs)
    chosen = np.arange(N) if pool is None else np.asarray(pool)
    classes = np.arange(N)[:, None] % 3 + np.arange(3)
    return Surroundings(data, chosen, seed, mean, np.random.default_rng(5).permutation(chosen), classes % 3)


GIVEN = tuple(torch.full((3, *shape), 0.5, dtype=torch.float64) for shape in FEATURES)
FAMILY: dict[str, tuple[Baseline, int, tuple[tuple[int, ...], ...]]] = {
    "zeros": (kinds.Zeros(), 1, FEATURES),
    "constant": (kinds.Constant(0.3), 1, FEATURES),
    "constants": (kinds.Constants([0.0, 0.3, -1.0]), 3, FEATURES),
    "given": (kinds.Given(GIVEN), 3, FEATURES),
    "mean": (kinds.Mean(), 1, FEATURES),
    "samples": (kinds.Samples(4), 4, FEATURES),
    "resampled": (kinds.Resampled(4), 4, FEATURES),
    "resampled, stratified": (kinds.Resampled(4, stratify=True), 4, FEATURES),
    "references": (kinds.References(4), 4, FEATURES),
    "references, relevant": (kinds.References(2, "top_k"), 2, FEATURES),
    "noise": (kinds.Noise(std=2.0, mean=1.0, k=3), 3, FEATURES),
    "blur": (kinds.Blur(1.0), 1, FEATURES[1:]),
}
every = pytest.mark.parametrize("name", FAMILY)


def draw(name: str, rows: list[int], block: range, seed: int = 0) -> list[torch.Tensor]:
    """(b, n, *P) per input, shared baselines expanded."""
    baseline, _, features = FAMILY[name]
    batch = source().fetch(rows)
    keep = slice(len(FEATURES) - len(features), None)
    batch = type(batch)(batch.index, batch.inputs[keep], batch.target)
    drawn = baseline.draw(batch, block, surroundings(seed))
    assert all(x0.shape[1] == (1 if baseline.shared else len(rows)) for x0 in drawn)
    return [x0.expand(len(block), len(rows), *shape) for x0, shape in zip(drawn, features, strict=True)]


def test_the_family_is_whole() -> None:
    """Every baseline of the package is under these laws."""

    def below(kind: type) -> set[type]:
        return {kind}.union(*map(below, kind.__subclasses__()))

    mine = {kind for kind in below(Baseline) if kind.__module__.startswith("igc_dist.")} - {
        Baseline,
        kinds.Partners,
    }  # which draw nothing
    assert {type(baseline) for baseline, _, _ in FAMILY.values()} == mine


@every
def test_drawn_by_address(name: str) -> None:
    """A sample's baselines are the same whichever batch it is in, in whichever order, and however the baselines are
    cut."""
    baseline, count, features = FAMILY[name]
    assert baseline.count(N, features) == count
    whole = draw(name, list(range(N)), range(count))
    for rows in ([3], [7, 3, 0], list(range(N))[::-1]):
        for cut in [range(b, b + 1) for b in range(count)] + [range(0, count)]:
            for found, expected in zip(draw(name, rows, cut), whole, strict=True):
                assert torch.equal(found, expected[list(cut)][:, rows])
                assert found.dtype is torch.float64


@pytest.mark.parametrize(("shared", "made"), [(True, (3, 2, 3)), (False, (3, 1, 3)), (False, (2, 3)), (False, None)])
def test_what_a_baseline_of_others_draws_is_checked(shared: bool, made: tuple[int, ...] | None) -> None:
    class Own(Baseline):
        def draw(self, batch: Batch, block: range, around: Surroundings) -> Any:
            return (np.zeros((3, 2, 3)) if made is None else torch.zeros(made),)

    own = Own()
    own.shared = shared  # type: ignore[misc]
    batch = Batch(np.arange(2), (torch.zeros(2, 3),), torch.zeros(2))
    with pytest.raises(ConfigError, match=rf"Own\.draw gave .*expected .*\[\(3, {1 if shared else 2}, 3\)\]"):
        own.drawn(batch, range(3), Surroundings(source(), np.arange(N), 0))


@pytest.mark.parametrize("name", ["samples", "resampled", "noise"])
def test_the_seed_counts(name: str) -> None:
    """Another seed, other draws."""
    count = FAMILY[name][1]
    one, two = (draw(name, [0, 1, 2], range(count), seed) for seed in (0, 1))
    assert not torch.equal(one[0], two[0])


def test_values() -> None:
    """What each kind is: zeros, the constant, several constants, the given rows, the mean input."""
    assert not any(x0.any() for x0 in draw("zeros", [0, 1], range(1)))
    assert all((x0 == 0.3).all() for x0 in draw("constant", [0, 1], range(1)))
    for found, value in zip(zip(*draw("constants", [0, 1], range(3)), strict=True), (0.0, 0.3, -1.0), strict=True):
        assert all((x0 == value).all() for x0 in found)
    assert all((x0 == 0.5).all() for x0 in draw("given", [0, 1], range(3)))
    for found, x in zip(draw("mean", [0, 1], range(1)), source().fetch(range(N)).inputs, strict=True):
        torch.testing.assert_close(found[0, 1], x.mean(0), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", ["samples", "resampled"])
def test_rows_of_the_data_without_replacement(name: str) -> None:
    """Each baseline is a row of the data, the same row in every input; no row twice for a sample; only rows of the
    pool."""
    table, image = source().fetch(range(N)).inputs
    drawn, pictures = draw(name, list(range(N)), range(4))
    for n in range(N):
        rows = [int(torch.nonzero((table == x0).all(1))[0, 0]) for x0 in drawn[:, n]]
        assert len(set(rows)) == 4
        assert torch.equal(pictures[:, n], image[rows])
    baseline = FAMILY[name][0]
    x0 = baseline.draw(source().fetch([0, 1]), range(4), surroundings(pool=[1, 4, 5, 8]))[0]
    for n in range(x0.shape[1]):
        assert sorted(int(torch.nonzero((table == row).all(1))[0, 0]) for row in x0[:, n]) == [1, 4, 5, 8]


def test_resampled_differs_between_samples_and_covers_the_data() -> None:
    """Each sample has its own rows, uniform over the data."""
    drawn = draw("resampled", list(range(N)), range(4))[0]
    assert len({tuple(drawn[:, n].flatten().tolist()) for n in range(N)}) == N
    table = source().fetch(range(N)).inputs[0]
    data, around, counts = source(), surroundings(), np.zeros(N)
    for seed in range(40):
        around = Surroundings(data, np.arange(N), seed)
        x0 = kinds.Resampled(4).draw(data.fetch(range(N)), range(4), around)[0].flatten(0, 1)
        counts += (x0[:, None] == table[None]).all(2).sum(0).numpy()
    assert counts.sum() == 40 * N * 4
    assert ((counts - 160) ** 2 / 160).sum() < 30  # chi-square of 9 degrees, beyond 0.999


def test_noise_has_the_moments_it_says() -> None:
    """Mean and deviation in the units of the input; other inputs and draws have their own noise."""
    rows = list(range(N))
    images = draw("noise", rows, range(3))[1]
    assert images.mean() == pytest.approx(1, abs=0.3)
    assert images.std() == pytest.approx(2, abs=0.2)
    assert not torch.equal(images[0], images[1])


def test_blur_is_the_literal_gaussian() -> None:
    """Equal to a convolution with exp(-d^2 / 2 sigma^2), edges reflected, cut at 4 sigma; channels are not mixed; the
    mean is kept."""
    x = source().fetch([2]).inputs[1][0].numpy()
    found = draw("blur", [2], range(1))[0][0, 0].numpy()
    d = np.arange(-4, 5)
    kernel = np.exp(-(d**2) / 2)
    kernel /= kernel.sum()
    for axis in (1, 2):
        padded = np.pad(x, [(4, 4) if a == axis else (0, 0) for a in range(3)], mode="symmetric")
        x = sum(k * np.take(padded, range(i, i + 4), axis) for i, k in enumerate(kernel))
    np.testing.assert_allclose(found, x, rtol=1e-12)


def test_coercion() -> None:
    """None, a float, an int, tensors, arrays and objects become what they say; an int is a number of samples, a float a
    value."""
    assert ensure(None) == kinds.Zeros()
    assert ensure(0.5) == kinds.Constant(0.5)
    assert ensure(1.0) == kinds.Constant(1.0)
    assert ensure([0.0, 1]) == ensure((0.0, 1.0)) == kinds.Constants([0, 1]) == kinds.Constants((0.0, 1.0))
    assert ensure(3) == kinds.Samples(3)
    assert ensure(np.int64(3)) == kinds.Samples(3)
    mine = kinds.Resampled(2)
    assert ensure(mine) is mine
    for value in (torch.zeros(3), np.zeros(3), (torch.zeros(3),), [np.zeros(3)]):
        assert isinstance(ensure(value), kinds.Given)


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: ensure(True), "True"),
        (lambda: ensure(0), "at least 1.*0.0"),
        (lambda: ensure("zeros"), "'zeros' of type str"),
        (lambda: ensure(()), r"\(\)"),
        (lambda: ensure([0.0, True]), r"\[0.0, True\] of type list: give .* a float or several"),
        (lambda: ensure([0.0, float("nan")]), r"baseline.values=.*nan.*finite numbers"),
        (lambda: kinds.Constants(()), r"baseline.values=\(\): give finite numbers"),
        (lambda: kinds.Constants("black"), "baseline.values='black'"),
        (lambda: kinds.Samples(0), "baseline.k=0"),
        (lambda: kinds.Resampled(-2), "baseline.k=-2"),
        (lambda: kinds.Noise(std=-1.0), "-1.0"),
        (lambda: kinds.Noise(k=0), "baseline.k=0"),
        (lambda: kinds.Blur(0.0), "0.0"),
        (lambda: kinds.Zeros(1.0), "Constant"),
        (lambda: kinds.Samples(11).count(10, FEATURES), "k=11.*10 usable.*at most 10"),
        (lambda: kinds.Resampled(11).count(10, FEATURES), "k=11.*10 usable.*at most 10"),
        (lambda: kinds.Blur(1.0).count(10, FEATURES), r"two dimensions.*\(3,\)"),
        (lambda: kinds.Given((torch.zeros(3),)).count(10, FEATURES), "1 tensors.*2 inputs"),
        (lambda: kinds.Given((torch.zeros(4), torch.zeros(2, 4, 4))).count(10, FEATURES), r"\(4,\): expected \(3,\)"),
        (lambda: kinds.Given((torch.zeros(0, 3), torch.zeros(2, 4, 4))).count(10, FEATURES), r"\(0, 3\): expected"),
        (lambda: kinds.Given((torch.zeros(2, 3), torch.zeros(5, 2, 4, 4))).count(10, FEATURES), r"\[2, 5\].*agree"),
    ],
)
def test_refusals(make: Any, text: str) -> None:
    """Impossible baselines are refused with the value and what would do."""
    with pytest.raises(ConfigError, match=text):
        make()
