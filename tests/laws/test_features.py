"""Laws of the features: reducers against loops, sums, names; and whole runs with reduced features."""

from __future__ import annotations

import functools
import inspect
import json
import logging
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch

import igc_dist
from igc_dist import features
from igc_dist.features import (
    XRAI,
    Bands,
    Chain,
    Channels,
    Colour,
    Function,
    Heads,
    Joint,
    Masks,
    Patches,
    Reducer,
    Segments,
    Sums,
    Tokens,
    Total,
    Units,
)
from igc_dist.features.bases import LUMINANCE, cosines, haar, scales
from igc_dist.features.names import TAKEN, TAKEN_DIMS, TAKEN_ENDS
from igc_dist.job import Job, describe
from igc_dist.planning import Limits, Work, make_plan
from igc_dist.records import ConfigError, Shapes
from tests import models
from tests.oracles import features as oracle

LINE, GRID = np.array([0, 2, 2, 0, 3]), np.array([[0, 1, 1, 4], [2, 2, 0, 4], [1, 0, 0, 0]])
IMAGE = (2, 3, 4)
MAPS = torch.tensor(np.random.default_rng(5).integers(0, 3, (3, 3, 4)), dtype=torch.uint8)
MAPS[1][MAPS[1] == 2] = 0  # a sample without the last segment
SHOWN = ("background", "eye", "mark")

CASES: dict[str, tuple[Reducer, tuple[int, ...], Callable[[np.ndarray], np.ndarray]]] = {
    "segments of a vector": (Segments(LINE), (5,), lambda a: oracle.segments(a, LINE)),
    "segments of an image": (Segments(GRID), (3, 4), lambda a: oracle.segments(a, GRID)),
    "segments over channels": (Segments(GRID), IMAGE, lambda a: oracle.segments(a, GRID)),
    "segments of columns": (Segments([1, 0, 1, 1]), IMAGE, lambda a: oracle.segments(a, np.array([1, 0, 1, 1]))),
    "a mask": (Segments(GRID > 1), IMAGE, lambda a: oracle.segments(a, (GRID > 1).astype(int))),
    "patches": (Patches(2), (4, 6), lambda a: oracle.patches(a, 2, 2)),
    "uneven patches": (Patches((2, 3)), IMAGE, lambda a: oracle.patches(a, 2, 3)),
    "a patch beyond the image": (Patches(99), IMAGE, lambda a: oracle.patches(a, 3, 4)),
    "patches of pixels": (Patches(1), IMAGE, lambda a: a),
    "channels": (Channels(), IMAGE, oracle.channels),
    "channels of a vector": (Channels(), (5,), oracle.channels),
    "total": (Total(), IMAGE, oracle.total),
    "total of a number": (Total(), (), oracle.total),
    "bands": (Bands(n=3), IMAGE, lambda a: oracle.bands(a, 3)),
    "bands of scales": (Bands("haar"), (2, 4, 4), oracle.haar_scales),
    "colour": (Colour(), (3, 2, 4), oracle.luminance),
    "a chain": (Chain([Channels(), Patches(2)]), (3, 4, 6), lambda a: oracle.patches(oracle.channels(a), 2, 2)),
    "a chain by names": (
        Chain(["colour", "bands:2", "total"]),
        (3, 4, 4),
        lambda a: oracle.total(oracle.bands(oracle.luminance(a), 2)),
    ),
    "masks of each sample": (Masks(SHOWN), IMAGE, lambda a: oracle.masks(a, MAPS.numpy(), 3)),
    "masks of the channels' sum": (
        Chain(["channels", Masks(SHOWN)]),
        IMAGE,
        lambda a: oracle.masks(a, MAPS.numpy(), 3),
    ),
    "tokens": (Tokens(), (3, 4), lambda a: oracle.summed(a, (3,), lambda p: p[:1])),
    "units of tokens": (Units(), (3, 4), lambda a: oracle.summed(a, (4,), lambda p: p[1:])),
    "units of places": (Units(), IMAGE, lambda a: oracle.summed(a, (2,), lambda p: p[:1])),
    "units of a vector": (Units(), (5,), lambda a: a),
    "heads": (Heads(2), (3, 4), lambda a: oracle.summed(a, (2,), lambda p: (p[1] // 2,))),
    # a flat image, as the inputs are here, is one segment
    "regions": (
        XRAI(min_pixels=1),
        IMAGE,
        lambda a: np.broadcast_to(a.max(2).mean((2, 3), keepdims=True), (*a.shape[:2], *a.shape[3:])),
    ),
    "regions of one channel": (
        XRAI(min_pixels=1),
        IMAGE[1:],
        lambda a: np.broadcast_to(a.mean((2, 3), keepdims=True), a.shape),
    ),
    "a function": (Function(lambda a: np.abs(a).max(2)), IMAGE, lambda a: np.abs(a).max(2)),
    "a function with kwargs": (Function(np.sum, {"axis": (2, 4)}), IMAGE, lambda a: a.sum((2, 4))),
}
LINEAR = [name for name, case in CASES.items() if case[0].linear]


def drawn(shape: tuple[int, ...], seed: int = 0, n: int = 3, outputs: int = 2) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).standard_normal((n, outputs, *shape)))


def members(kind: type = Reducer) -> Iterator[type]:
    for child in kind.__subclasses__():
        yield from members(child)
        if not inspect.isabstract(child) and child.__module__.startswith("igc_dist."):
            yield child


# -- every member ------------------------------------------------------------------------------------------------------


def test_every_reducer_has_a_case() -> None:
    assert {type(case[0]) for case in CASES.values()} == {*members()}


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize(
    ("kind", "tolerance"), [(torch.float64, 1e-13), (torch.float32, 1e-5)], ids=["float64", "float32"]
)
def test_equals_its_loop(name: str, kind: torch.dtype, tolerance: float) -> None:
    """To rounding, in the type of the attributions; shape and dims are those of the result. Strides do not matter."""
    reducer, shape, loop = CASES[name]
    values = drawn(shape).to(kind).transpose(0, 1).contiguous().transpose(0, 1)
    found = reducer(values, torch.zeros(3, *shape), MAPS)
    expected = loop(values.double().numpy())
    assert found.dtype == kind
    assert tuple(found.shape[2:]) == reducer.shape(shape) == expected.shape[2:]
    np.testing.assert_allclose(found, expected, rtol=tolerance, atol=tolerance)
    named = reducer.dims(features.feature_dims(len(shape)), found.ndim - 2)
    assert len(named) == len(set(named)) == found.ndim - 2
    assert not set(named) & TAKEN_DIMS


@pytest.mark.parametrize("name", LINEAR)
def test_linear_reducers_are_linear_and_preserve_sums(name: str) -> None:
    reducer, shape, _ = CASES[name]
    a, b, x = drawn(shape, 1), drawn(shape, 2), torch.zeros(3)
    torch.testing.assert_close(
        reducer(2 * a - b, x, MAPS), 2 * reducer(a, x, MAPS) - reducer(b, x, MAPS), rtol=1e-12, atol=1e-12
    )
    torch.testing.assert_close(
        reducer(a, x, MAPS).reshape(3, 2, -1).sum(2), a.reshape(3, 2, -1).sum(2), rtol=1e-12, atol=1e-12
    )
    assert features.ensure(reducer, 1).complete([shape], (torch.zeros(3, *shape),))


@pytest.mark.parametrize("name", CASES)
def test_samples_and_outputs_do_not_mix(name: str) -> None:
    """To the bit: batches and blocks of outputs are cut by the plan."""
    reducer, shape, _ = CASES[name]
    values, x = drawn(shape), torch.zeros(3, *shape)
    whole = reducer(values, x, MAPS)
    assert torch.equal(whole[1:2], reducer(values[1:2], x[1:2], MAPS[1:2]))
    assert torch.equal(whole[:, 1:], reducer(values[:, 1:], x, MAPS))


@pytest.mark.parametrize("name", [name for name in LINEAR if CASES[name][0].groups(CASES[name][1]) is not None])
def test_groups_say_what_is_added(name: str) -> None:
    """Forward mode takes one derivative for each reduced feature, along the features that are added to it."""
    reducer, shape, _ = CASES[name]
    groups, values = np.asarray(reducer.groups(shape)), drawn(shape)
    found = reducer(values, torch.zeros(3)).reshape(3, 2, -1)
    for q in range(found.shape[2]):
        torch.testing.assert_close(found[:, :, q], values.reshape(3, 2, -1)[:, :, groups.reshape(-1) == q].sum(2))


@pytest.mark.parametrize("n", [1, 3, 4, 6, 8])
def test_bases_are_orthonormal(n: int) -> None:
    """To the published rows: the DCT-II by its sum; Haar has a mean, and differences of ever finer halves."""
    for made in (cosines(n), haar(n), LUMINANCE):
        np.testing.assert_allclose(made @ made.T, np.eye(len(made)), atol=1e-14)
    np.testing.assert_allclose(cosines(n), oracle.dct(n), atol=1e-14)
    expected = np.array([[1, 1, 1, 1], [1, 1, -1, -1], [2**0.5, -(2**0.5), 0, 0], [0, 0, 2**0.5, -(2**0.5)]]) / 2
    np.testing.assert_allclose(haar(4), expected, atol=1e-14)
    assert [scales(side).tolist() for side in (3, 4, 6)] == [[0, 0, 0], [0, 1, 2, 2], [0, 0, 0, 1, 1, 1]]


def test_chains_that_mean_nothing_are_refused() -> None:
    for parts, message in (
        ([], "a chain of"), (["channels", "patch"], r"'patch' is unknown \(did you mean 'patches'\?\)"),
        (["patches:2", "masks"], "masks after patches: it is of the image"),
        ([Function(np.abs)], "expected linear reducers"), (["patches:2", "bands"], "bands after patches: it is of the"),
        (["bands", "patches"], "no places in the image left"), (["channels:3"], "has no such size"),
    ):  # fmt: skip
        with pytest.raises(ConfigError, match=message):
            Chain(parts)
    with pytest.raises(ConfigError, match="bands and colour are for all inputs or for none"):
        features.basis_of([Bands(), Patches(2)])
    with pytest.raises(ConfigError, match="choose one of dct, haar"):
        Bands("sine")
    with pytest.raises(ConfigError, match="colour needs images"):
        Colour().shape((2, 4, 4))


def test_a_reducer_is_part_of_the_identity() -> None:
    """Equal ones have equal descriptions, others do not: labels count, sizes, functions and their keyword arguments."""
    clipped = [Function(functools.partial(np.clip, a_min=low, a_max=9)) for low in (0, 1)]
    functions = [
        Function(np.abs),
        Function(np.sum, {"axis": 2}),
        Function(np.sum, {"axis": 3}),
        Function(np.abs, names=["a"]),
        *clipped,
    ]
    others = [
        None,
        Segments(GRID),
        Segments(GRID.T),
        Segments(LINE),
        Patches(2),
        Patches(3),
        Patches((2, 3)),
        Channels(),
        Total(),
        Masks(SHOWN),
        Masks(SHOWN[::-1]),
        Masks(SHOWN, MAPS.numpy()),
        XRAI(),
        XRAI(scales=(50,)),
        XRAI(fast=True),
        *functions,
    ]
    described = [json.dumps(describe(features.ensure(other, 1))) for other in others]
    assert len(set(described)) == len(others)
    assert describe(Segments(GRID)) == describe(Segments(GRID.tolist())) == describe(Segments(GRID.astype(np.uint8)))
    assert describe(XRAI(scales=[50, 60])) == describe(XRAI(scales=(50.0, 60.0)))
    assert describe(Patches(2)) == describe(Patches([2, 2]))
    assert describe(features.ensure(Joint(np.add), 1)) != describe(features.ensure(Joint(np.subtract), 1))


def test_long_sums_do_not_lose_digits_in_float32() -> None:
    """A thousand times a thousand small numbers and a large one."""
    values = torch.full((1, 1, 1000, 1000), 1e-3)
    values[..., 0, 0] = 1e4
    exact = values.double().sum()
    for reducer in (Segments(np.zeros((1000, 1000), int)), Total(), Patches(1000)):
        assert abs(reducer(values, values).double().sum() - exact) <= 1e-7 * exact


# -- errors ------------------------------------------------------------------------------------------------------------

ZEROS = torch.zeros(4, 3, 4)
WRONG: dict[str, tuple[Callable[[], Any], str]] = {
    "negative label": (
        lambda: Segments([0, -1, -3]),
        r"2 labels are negative \(the lowest is -3\).*every feature must belong",
    ),
    "float label": (lambda: Segments([0.0, 1.0]), "labels of type float64"),
    "no label": (lambda: Segments(np.zeros((0,), int)), r"shape \(0,\)"),
    "one number": (lambda: Segments(3), r"shape \(\)"),
    "labels do not fit": (
        lambda: Segments(GRID).shape((4, 3)),
        r"labels of shape \(3, 4\) do not fit .* shape \(4, 3\)",
    ),
    "labels with too many dimensions": (lambda: Segments(GRID).shape((4,)), r"\(3, 4\) do not fit"),
    "patches of nothing": (lambda: Patches(0), "patches of size 0"),
    "patches of three": (lambda: Patches((1, 2, 3)), r"patches of size \(1, 2, 3\)"),
    "patches of a bool": (lambda: Patches(True), "patches of size"),
    "patches of a vector": (lambda: Patches(2).shape((7,)), r"at least 2 dimensions, these have shape \(7,\)"),
    "channels of a number": (lambda: Channels().shape(()), "no feature dimension"),
    "masks of a vector": (lambda: Masks(SHOWN).shape((4,)), r"need features \(..., height, width\)"),
    "masks of unknown segments": (lambda: Masks().shape((4, 4)), "without names"),
    "masks without label maps": (lambda: Masks(SHOWN)(ZEROS[:1, None], ZEROS), "these have no label maps"),
    "masks that differ": (
        lambda: features.masks_of([Masks(SHOWN), Masks(SHOWN[:2])]),
        "masks of several inputs are the same",
    ),
    "tokens of a vector": (lambda: Tokens().shape((4,)), "tokens are of a layer of tokens"),
    "heads that do not fit": (lambda: Heads(3).shape((5, 8)), "8 units are not 3 heads of the same size"),
    "no heads": (lambda: Heads(0), "n=0 heads"),
    "units of a number": (lambda: Units().shape(()), "units are of features with a dimension"),
    "no function": (lambda: Function("numpy.abs"), "'numpy.abs' is no function"),
    "no joint function": (lambda: Joint(3), "3 is no function"),
    "too many": (lambda: features.ensure([None, None, Total()], 2), "3 reducers for 2 inputs"),
    "too few": (lambda: features.ensure((Total(),), 2), "1 reducers for 2 inputs"),
    "a name": (lambda: features.ensure("patches", 1), "reduce='patches': give an object"),
    "a class": (lambda: features.ensure(Total, 1), "give an object like"),
    "which input": (
        lambda: features.ensure((None, Patches(2)), 2).shapes([(3,), (5,)], ()),
        "reduce, input 1: patches of size",
    ),
    "returns a list": (
        lambda: Function(lambda a: a.tolist()).shape((3,)),
        r"returned a list, expected .*\(2 samples, 3 outputs",
    ),
    "returns integers": (
        lambda: Function(lambda a: a.astype(int)).shape((3,)),
        r"of int64 and shape \(2, 3, 3\), expected a floating",
    ),
    "loses the samples": (lambda: Function(lambda a: a.sum(0)).shape((3,)), r"shape \(3, 3\), expected"),
    "loses the outputs": (lambda: Function(lambda a: a.sum(1)).shape((2,)), r"shape \(2, 2\), expected"),
    "raises": (
        lambda: Function(lambda a: a[:, :, 9]).shape((3,)),
        r"failed on arrays of shapes \(2, 3, 3\): IndexError",
    ),
    "mixes samples": (lambda: Function(lambda a: a - a.mean(0)).shape((3,)), "on its own .* must be independent"),
    "mixes outputs": (lambda: Function(lambda a: a / a.sum(1, keepdims=True)).shape((3,)), "must be independent"),
    "joint returns one": (
        lambda: features.ensure(Joint(lambda a, b, x, z: a), 2).shapes([(3, 4), (3, 4)], (ZEROS, ZEROS)),
        "returned a tuple of 1 for 2 inputs|returned a ndarray",
    ),
    "joint returns a dict": (
        lambda: features.ensure(Joint(lambda a, x: {}), 1).shapes([(3, 4)], (ZEROS,)),
        "returned a dict for 1 inputs",
    ),
    "dims of another number": (
        lambda: features.dims([(3, 4)], [["a", "b", "c"]]),
        r"3 names for features of shape \(3, 4\)",
    ),
    "dims for two": (lambda: features.dims([(3,), (4,)], [["a"]]), "for each of the 2 inputs"),
    "dims flat for two": (lambda: features.dims([(3,), (4,)], ["a", "b"]), "for each of the 2 inputs"),
    "dims twice": (lambda: features.dims([(3, 4)], ["a", "a"]), "'a' cannot be used"),
    "dims taken": (lambda: features.dims([(3, 4)], ["a", "output"]), "'output' cannot be used"),
    "dims with a dot": (lambda: features.dims([(3,)], ["a.b"]), "'a.b' cannot be used"),
    "names too few": (lambda: features.names(2, ["a"]), "1 names for 2 inputs"),
    "names twice": (lambda: features.names(2, ["a", "a"]), "'a' is there twice"),
    **{
        f"names {bad}": ((lambda bad=bad: features.names(1, [bad])), "names: ")
        for bad in (
            "a/b",
            "a.b",
            "",
            "2x",
            "a b",
            "__a",
            "output",
            "samples",
            "shards",
            "convergence",
            "x_sum",
            "correlation_se",
            3,
        )
    },
}


@pytest.mark.parametrize("name", WRONG)
def test_mistakes_are_refused_with_the_way_out(name: str) -> None:
    make, pattern = WRONG[name]
    with pytest.raises(ConfigError, match=pattern):
        make()


# -- names -------------------------------------------------------------------------------------------------------------


def test_names_and_dims() -> None:
    """Defaults; given ones; one input without the outer list; the categories of a relaxed input."""
    assert features.names(3) == ("x", "x1", "x2")
    assert features.names(2, ["image", "text"]) == ("image", "text")
    assert features.names(1, "image") == ("image",)
    shapes = [(5,), (2, 3, 4)]
    assert features.dims(shapes) == (("feature",), ("channel", "height", "width"))
    assert features.dims(shapes, [None, ["c", "h", "w"]]) == (("feature",), ("c", "h", "w"))
    assert features.dims([(2, 3)], ["h", "w"]) == features.dims([(2, 3)], [("h", "w")]) == (("h", "w"),)
    assert features.dims([()]) == ((),)
    relaxed = [True, True]
    assert features.dims([(5, 7), (2, 3, 7)], None, relaxed) == (
        ("feature", "category"),
        ("height", "width", "category"),
    )
    assert features.dims([(5, 7), (2, 7)], [["token"], ["a", "b"]], relaxed) == (("token", "category"), ("a", "b"))


def test_dims_of_the_reduced() -> None:
    reduction = features.ensure((Patches(2), Segments(LINE), Channels(), Total(), None), 5)
    image, line = ("c", "h", "w"), ("t",)
    shapes = ((1, 4, 4), (5,), (1, 4, 4), (5,), (5,))
    found = reduction.dims((image, line, image, line, line), reduction.shapes(shapes, ()))
    assert found == (("c", "h_patch", "w_patch"), ("segment",), ("h", "w"), (), ("t",))
    assert Function(np.abs).dims(image, 3) == image
    assert Function(np.abs).dims(image, 1) == ("feature",)
    assert Function(np.abs, names=["area"]).dims(image, 1) == ("area",)


# -- free functions ----------------------------------------------------------------------------------------------------


def halves(a: np.ndarray) -> np.ndarray:
    """Preserves the sum, and is not linear: it goes to the one side or the other by its sign."""
    total = a.reshape(*a.shape[:2], -1).sum(2, keepdims=True)
    return np.concatenate([np.maximum(total, 0), np.minimum(total, 0)], axis=2)


FREE: dict[str, tuple[Callable[..., Any], bool]] = {
    "itself": (lambda a: a, True),
    "half and half": (lambda a: np.stack([0.5 * a, 0.5 * a], 2), True),
    "by its sign": (halves, True),
    "single precision": (lambda a: a.astype(np.float32), True),
    "size": (np.abs, False),
    "positive part": (lambda a: np.maximum(a, 0), False),
    "a small threshold": (lambda a: np.where(abs(a) > 0.02, a, 0), False),
    "a large threshold": (lambda a: np.minimum(a, 50), False),
    "a hundredth more": (lambda a: 1.01 * a, False),
    "not a number": (lambda a: np.log(a), False),
}


@pytest.mark.parametrize("name", FREE)
@pytest.mark.parametrize("shape", [(1,), (6,), (2, 3)], ids=str)
def test_a_probe_finds_whether_sums_hold(name: str, shape: tuple[int, ...]) -> None:
    fn, complete = FREE[name]
    reduction = features.ensure(fn, 1)
    assert not reduction.linear
    assert reduction.complete([shape], (torch.zeros(2, *shape),)) is complete
    loses_digits = name == "single precision"
    assert reduction.complete([shape], (torch.zeros(2, *shape),), torch.float64) is (complete and not loses_digits)


def test_joint_functions() -> None:
    """Inputs and attributions in this order; a bare array is one result for one input, not one for each sample."""
    seen: list[tuple[tuple[int, ...], ...]] = []

    def swap(a: np.ndarray, b: np.ndarray, x: np.ndarray, z: np.ndarray, factor: float = 1.0) -> tuple[np.ndarray, ...]:
        seen.append((a.shape, b.shape, x.shape, z.shape))
        return factor * b * x[:, None, :1], a

    inputs = torch.full((4, 5), 3.0), torch.zeros(4, 2)
    reduction = features.ensure(Joint(swap, {"factor": 2.0}), 2)
    assert reduction.shapes([(5,), (2,)], inputs) == ((2,), (5,))
    assert seen == [((2, 3, 5), (2, 3, 2), (2, 5), (2, 2)), ((1, 1, 5), (1, 1, 2), (1, 5), (1, 2))]
    a, b = drawn((5,), n=4), drawn((2,), n=4)
    one, two = reduction((a, b), inputs)
    assert torch.equal(one, 6 * b)
    assert torch.equal(two, a)
    assert not reduction.complete([(5,), (2,)], inputs)
    assert features.ensure(Joint(lambda a, b, x, z: (b, a)), 2).complete([(5,), (2,)], inputs)
    for n in (1, 3):  # three samples, three outputs, three features
        values = drawn((3,), n=n, outputs=3)
        bare = features.ensure(Joint(lambda a, x: 2 * a), 1)
        assert bare.shapes([(3,)], (torch.zeros(n, 3),)) == ((3,),)
        (found,) = bare((values,), (torch.zeros(n, 3),))
        assert torch.equal(found, 2 * values)


def test_a_function_may_write_into_what_it_gets() -> None:
    """And hand back an array that cannot be written: the data set's own samples stay as they are."""

    def rude(a: np.ndarray, x: np.ndarray) -> np.ndarray:
        a *= 2
        x[:] = 0
        result = a.copy()
        result.flags.writeable = False
        return result

    x, values = torch.ones(2, 3), drawn((3,), n=2)
    twice = 2 * values.clone()
    (found,) = features.ensure(Joint(rude), 1)((values,), (x,))
    assert torch.equal(found, twice)
    assert bool((x == 1).all())


# -- whole runs --------------------------------------------------------------------------------------------------------

ALL = ["correlation", "autocorrelation", "moments"]


def net() -> torch.nn.Module:
    """For images (2, 5, 4)."""
    torch.manual_seed(6)
    return torch.nn.Sequential(
        torch.nn.Conv2d(2, 3, 3), torch.nn.GELU(), torch.nn.Flatten(), torch.nn.Linear(18, 2)
    ).double()


def run(reduce: Any = None, **settings: Any) -> Any:
    model = net()
    data = models.data(model, 20, ((2, 5, 4),))
    return igc_dist.attribute(model, data, reduce=reduce, **{"n_steps": 3, "n_folds": 4, "statistics": ALL, **settings})


@functools.cache
def plain() -> Any:
    """The run without reduction."""
    return run(samples=True)


def close(found: Any, expected: Any) -> None:
    np.testing.assert_allclose(np.asarray(found), np.asarray(expected), rtol=1e-12, atol=1e-12)


REGIONS = np.arange(20).reshape(5, 4) % 6
RUNS: dict[str, tuple[Reducer, Callable[[np.ndarray], np.ndarray]]] = {
    "segments": (Segments(REGIONS), lambda a: oracle.segments(a, REGIONS)),
    "patches": (Patches((2, 3)), lambda a: oracle.patches(a, 2, 3)),
    "channels": (Channels(), oracle.channels),
    "total": (Total(), oracle.total),
}


@pytest.mark.parametrize("name", RUNS)
def test_a_run_with_reduced_features(name: str) -> None:
    """Linear results are the reduced ones; the deviation is that of the reduced attributions; rows and states shrink;
    sums stay."""
    reducer, loop = RUNS[name]
    whole, found = plain(), run(reducer, samples=True)
    for result in ("igc", "igac", "ig_mean"):
        close(found[f"x/{result}"], loop(whole[f"x/{result}"].values[None])[0])
    rows = loop(whole["samples/x/attribution"].values)
    close(found["samples/x/attribution"], rows)
    close(found["x/ig_std"], rows.std(0))
    for result in (
        "igc_sum",
        "igac_sum",
        "igc_error",
        "quadrature_error",
        "igc_sum_se",
        "convergence/igc_sum",
        "samples/delta",
    ):
        close(found[result], whole[result])
    n_features = rows[0, 0].size
    assert found["shards/attribute/x/sums"].size * 40 == whole["shards/attribute/x/sums"].size * n_features
    assert found.attrs["sums_to_prediction"] is True
    assert abs(found["x/ig_std"].values - loop(whole["x/ig_std"].values[None])[0]).max() > 1e-3


def test_bands_are_attributions_of_coefficients() -> None:
    """Of the model ``f(T' z)`` at ``z = T x`` in full matrices, summed by loops; sums are those of the pixels."""
    whole, found = plain(), run(Bands(n=4), samples=True)
    t = np.kron(np.eye(2), np.kron(oracle.dct(5), oracle.dct(4)))
    (x, y), model = models.data(net(), 20, ((2, 5, 4),)), net()
    forth = torch.nn.Linear(40, 40, bias=False).double()
    forth.weight.data = torch.from_numpy(t.T.copy())
    back = torch.nn.Sequential(torch.nn.Flatten(), forth, torch.nn.Unflatten(1, (2, 5, 4)), model)
    z = torch.from_numpy((np.asarray(x).reshape(20, 40) @ t.T).reshape(20, 2, 5, 4))
    settings: dict[str, Any] = {"n_steps": 3, "n_folds": 4, "statistics": ALL, "samples": True}
    coefficients = igc_dist.attribute(back, (z, y), **settings)
    rows = oracle.bands(coefficients["samples/x/attribution"].values, 4)
    np.testing.assert_allclose(found["samples/x/attribution"].values, rows, atol=1e-12)
    np.testing.assert_allclose(
        found["x/igc"].values, oracle.bands(coefficients["x/igc"].values[None], 4)[0], atol=1e-12
    )
    for result in ("igc_sum", "igc_error", "samples/delta", "correlation"):
        np.testing.assert_allclose(found[result], whole[result], atol=1e-12)
    assert found["x/igc"].dims == ("output", *whole["x/igc"].dims[1:2], "band")


def test_colour_is_of_luminance_and_chroma() -> None:
    """A model of the luminance alone has all of its attribution there; a chain with bands has both."""
    draw = torch.Generator().manual_seed(0)
    x = torch.rand(12, 3, 4, 4, generator=draw)
    gray = models.Function(lambda x: torch.stack((x.sum(1).square().mean((1, 2)), x[:, 0, 0, 0]), 1))
    data = (x, gray(x) + torch.randn(12, 2, generator=draw))
    found = igc_dist.attribute(gray, data, reduce=Chain(["colour", "haar"]), n_steps=3, n_folds=3)
    assert found["x/igc"].shape == (2, 2, 3)
    np.testing.assert_allclose(found["x/igc"][0, 1], 0, atol=1e-6)
    assert abs(found["x/igc"][1, 1]).max() > 1e-2
    whole = igc_dist.attribute(gray, data, n_steps=3, n_folds=3)
    np.testing.assert_allclose(found["x/igc"].sum(("luminance_chroma", "band")), whole["igc_sum"], atol=1e-6)


def test_bands_are_the_same_forwards_in_cuts_and_drawn() -> None:
    """In forward mode, in other micro-batches, and from pairs: the walk in coefficients is a walk as any other."""
    found = run(Chain(["channels", "bands:4"]))
    for settings in ({"mode": "forward"}, {"micro_batch": 3, "output_block": 1}):
        other = run(Chain(["channels", "bands:4"]), **settings)
        np.testing.assert_allclose(other["x/igc"], found["x/igc"], atol=1e-12)
    pairs = run(Chain(["channels", "bands:4"]), design="pairs", n_draws=4, statistics=["correlation"])
    assert pairs["x/igc"].shape == found["x/igc"].shape
    with pytest.raises(ConfigError, match="bands and colour walk coefficients of the image, and attributor"):
        run(Bands(), method="blur_igc", statistics=["correlation"])


def test_cuts_leave_no_trace_in_reduced_features() -> None:
    whole = run(Patches(4), statistics=["correlation"], baseline=3)
    for cut in ({"baseline_block": 1}, {"output_block": 1}, {"micro_batch": 2}):
        close(run(Patches(4), statistics=["correlation"], baseline=3, **cut)["x/igc"], whole["x/igc"])


def test_one_of_two_inputs_is_reduced() -> None:
    """None leaves an input as it is; names and dims reach the store in the order given, before and after reduction."""
    model = models.TwoInputs()
    data = models.data(model, 15, ((3,), (2, 2)))
    settings: dict[str, Any] = {"n_steps": 3, "n_folds": 3, "samples": True, "baseline": igc_dist.baselines.Mean()}
    whole = igc_dist.attribute(model, data, **settings)
    named = {"names": ["vector", "image"], "dims": [["place"], ("row_of", "column")]}
    found = igc_dist.attribute(model, data, reduce=(None, Patches((1, 2))), **named, **settings)
    close(found["vector/igc"], whole["x/igc"])
    close(found["image/igc"], oracle.patches(whole["x1/igc"].values[None], 1, 2)[0])
    close(found["igc_sum"], whole["igc_sum"])
    assert found["vector/igc"].dims == ("output", "place")
    assert found["image/igc"].dims == ("output", "row_of_patch", "column_patch")
    assert found["samples/image/attribution"].dims == ("sample", "output", "row_of_patch", "column_patch")
    assert found["shards/attribute/image/sums"].dims == (
        "part",
        "term",
        "cell",
        "output",
        "row_of_patch",
        "column_patch",
    )
    assert {"vector", "image"} < set(found.children)
    assert not {"x", "x1"} & set(found.children)
    every = igc_dist.attribute(model, data, reduce=Total(), **settings)
    close(every["x/igc"].values + every["x1/igc"].values, whole["igc_sum"])


def test_two_inputs_of_one_rank_and_other_sizes() -> None:
    """The sums of inputs for the mean baseline lie in one group, where a dimension can have one size only."""
    model = models.Function(lambda x, z: torch.stack([x.sum(1) * z[:, 0], z.sum(1)], 1))
    data = models.data(model, 8, ((3,), (2,)))
    tree = igc_dist.attribute(model, data, n_steps=2, baseline=igc_dist.baselines.Mean())
    assert (tree["x/igc"].shape, tree["x1/igc"].shape) == ((2, 3), (2, 2))


def test_a_free_function_has_sums_only_if_it_preserves_them(caplog: pytest.LogCaptureFixture) -> None:
    """Flagged in the log, once, and in the attributes; rows, maps and deviations are those of the function's values."""
    rows = plain()["samples/x/attribution"].values
    with caplog.at_level(logging.WARNING, "igc_dist"):
        sizes = run(np.abs, samples=True)
    assert [record.message for record in caplog.records if "reduce" in record.message] == [
        "reduce has a function that does not preserve the sum over features: no sums of maps are reported"
    ]
    close(sizes["samples/x/attribution"], abs(rows))
    close(sizes["x/ig_mean"], abs(rows).mean(0))
    close(sizes["x/ig_std"], abs(rows).std(0))
    assert sizes.attrs["sums_to_prediction"] is False
    everything = {str(name) for node in sizes.subtree for name in node.data_vars}
    assert not [
        name
        for name in everything
        if "igc_sum" in name or "igac_sum" in name or name in ("igc_error", "quadrature_error")
    ]
    close(sizes["samples/delta"], plain()["samples/delta"])
    caplog.clear()
    kept = run(halves, samples=True)
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert kept.attrs["sums_to_prediction"] is True
    close(kept["igc_sum"], plain()["igc_sum"])
    assert run(np.abs, method="gradients").attrs["sums_to_prediction"] is False


def test_a_joint_function_sees_the_raw_inputs() -> None:
    x, _ = models.data(net(), 20, ((2, 5, 4),))
    found = run(Joint(lambda a, x: a * (x[:, None] > 0)), samples=True, micro_batch=3)
    close(found["samples/x/attribution"], plain()["samples/x/attribution"].values * (x.numpy()[:, None] > 0))


def test_functions_do_not_go_with_cut_baselines() -> None:
    with pytest.raises(ConfigError, match=r"baseline_block=1 cuts 3 baselines, but reduce has a function"):
        run(np.abs, statistics=["correlation"], baseline=3, baseline_block=1)


def test_a_function_that_changes_its_mind() -> None:
    """Another shape than when it was tried, and NaN, are noticed."""
    calls: list[int] = []

    def fickle(a: np.ndarray) -> np.ndarray:
        calls.append(len(a))
        return a if len(calls) < 6 else a[..., :1]

    with pytest.raises(ConfigError, match=r"features of shape \(2, 5, 1\), and \(2, 5, 4\) when it was tried"):
        run(fickle)
    with pytest.raises(igc_dist.records.NonFiniteError, match="its reduction"):
        run(lambda a: np.where(a.shape[0] > 4, np.nan, a), micro_batch=15, n_folds=1)


def test_mistakes_come_before_the_first_forward_pass() -> None:
    model = models.Function(lambda x: x)
    for wrong in ({"reduce": Segments(LINE)}, {"names": ["output"]}, {"dims": ["a", "b"]}, {"reduce": [None, None]}):
        with pytest.raises(ConfigError):
            igc_dist.attribute(model, (torch.randn(8, 3), torch.randn(8, 3)), **wrong)
    assert model.calls == 0


def test_a_store_with_other_features_is_refused(tmp_path: Any) -> None:
    run(Patches(2), store=tmp_path / "a")
    for other in ({"reduce": Patches(3)}, {"reduce": None}, {"reduce": Patches(2), "names": ["image"]}):
        with pytest.raises(igc_dist.records.StoreError, match="features"):
            run(store=tmp_path / "a", **other)


def test_every_name_of_the_store_is_taken() -> None:
    """Names of inputs become groups at the root, among the samples and among the shards: nothing else there may be
    called so."""
    everything = {"slices": np.arange(20) % 2, "statistics": [*ALL, "pearson", "ttest"]}
    tree = run(
        samples=True,
        names=["mine"],
        baseline=igc_dist.baselines.Mean(),
        on_nonfinite="skip",
        dims=["a", "b", "c"],
        **everything,
    )
    used, dims = set(), set()
    for path in ("/", "/samples", "/shards", "/shards/predict", "/shards/attribute", "/convergence", "/slices"):
        node = tree[path]
        used |= {*map(str, node.data_vars), *map(str, node.coords), *node.children}
    for node in tree.subtree:
        dims |= {str(dim) for array in node.data_vars.values() for dim in array.dims}
    assert [name for name in used - {"mine"} if name not in TAKEN and not name.endswith(TAKEN_ENDS)] == []
    assert {dim for dim in dims - TAKEN_DIMS if not dim.startswith("mine_dim_")} == {"a", "b", "c"}


def test_the_plan_sees_the_reduced_features() -> None:
    """States, disk and finalising by the reduced features; path points by those of the walk."""
    shapes = Shapes(
        20, 2, ("x",), ((10,),), 8, 1000, 100, 0, walk=((1000,),), attributed=((1000,),), dims=(("segment",),)
    )
    full = Shapes(20, 2, ("x",), ((1000,),), 8, 1000, 100, 0, walk=((1000,),), dims=(("feature",),))
    small = Shapes(20, 2, ("x",), ((10,),), 8, 1000, 100, 0, walk=((10,),), attributed=((10,),), dims=(("segment",),))
    work = Work(outputs=(0, 1), n_baselines=2, points=5, n_terms=3, reduced=True)
    plans = [make_plan(one, work, Limits(micro_batch=8), 0) for one in (small, shapes, full)]
    memory, disk = [p.memory()["host"] for p in plans], [p.disk() for p in plans]
    assert memory[0] < memory[1] < memory[2]
    assert disk[0] == disk[1] < disk[2] / 1.5  # every file takes a block at least
    assert "reduced to" in plans[1].summary()["features"]
    assert "reduced to" not in plans[2].summary()["features"]


def test_the_job_knows_its_reduction() -> None:
    assert Job.__dataclass_fields__["reduce"].default is None
    assert features.ensure(None, 2).trivial
    assert not features.ensure((None, Total()), 2).trivial
    assert issubclass(Segments, Sums)
