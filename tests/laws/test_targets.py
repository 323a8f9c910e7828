"""Laws of targets: which outputs, and how y becomes a vector of outputs."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from igc_dist.records import ConfigError, DataError
from igc_dist.targets import Targets, ensure


def test_selection() -> None:
    """None is all, an int is one, a list keeps its order; numpy and torch integers count as integers."""
    assert ensure(None).select(3) == [0, 1, 2]
    assert ensure(2).select(3) == [2]
    assert ensure([2, 0]).select(3) == [2, 0]
    assert ensure(np.int64(1)).select(3) == [1]
    assert ensure(np.array([1, 2])).select(3) == ensure(torch.tensor([1, 2])).select(3) == [1, 2]
    mine = Targets(outputs=(1,), names=("one",))
    assert ensure(mine) is mine
    assert mine.labels([1], 3).tolist() == ["one"]
    assert ensure([2, 0]).labels([2, 0], 3).tolist() == [2, 0]


def test_what_data_call_their_labels_names_outputs_where_they_are_as_many() -> None:
    """Names in `outputs` make them the names of the outputs, and then they have to fit."""
    said = Targets(classes=("cat", "cup", "helmet"), supposed=True)
    assert said.labels(said.select(3), 3).tolist() == ["cat", "cup", "helmet"]
    assert said.labels(said.select(2), 2).tolist() == [0, 1]
    for chosen in ("cup", ["cup"], [1], ["1"]):
        one = replace(said, outputs=chosen).resolved(None)
        assert one.labels(one.select(3), 3).tolist() == ["cup"]
        if "cup" not in chosen:
            assert one.labels(one.select(2), 2).tolist() == [1]
            continue
        with pytest.raises(ConfigError, match=r"the data has 3 classes \(cat, cup, helmet\), but .* 2 outputs"):
            one.select(2)


@pytest.mark.parametrize(
    ("target", "text"),
    [
        (-1, "-1.*count from 0"),
        (3, "has 3.*0 to 2"),
        ([0, 1, 0], r"\[0\] more than once"),
        ([], "empty"),
        ([1, -2], "-2.*count from 0"),
    ],
)
def test_wrong_outputs(target: object, text: str) -> None:
    """Negative, out of range, duplicate and no outputs are refused with the value and the range."""
    with pytest.raises(ConfigError, match=text):
        ensure(target).select(3)


@pytest.mark.parametrize("outputs", [[0, 1.5], ["cat", 1.5], [True, False], np.array([True, False])])
def test_outputs_that_are_no_numbers(outputs: object) -> None:
    """As the command line makes them: a fraction, a mask."""
    with pytest.raises(ConfigError, match=r"target.outputs has .*(1\.5|True).*: give integers or names of outputs"):
        Targets(outputs)


@pytest.mark.parametrize("target", [True, 1.5, {"k": 1}, "onehot", [0.5], [True]])
def test_wrong_kinds(target: object) -> None:
    """What cannot name outputs is refused with the value and what would."""
    with pytest.raises(ConfigError, match="int") as caught:
        ensure(target)
    assert repr(target).strip("[]") in str(caught.value)


CLASSES = ("tench, Tinca tinca", "Golden retriever", "crane", "crane_bird, bird", "bird")


@pytest.mark.parametrize(
    ("outputs", "expected"),
    [
        (["golden_retriever", 2], [1, 2]), (["GOLDEN-retriever", "Tinca tinca"], [1, 0]), (["bird", "3"], [4, 3]),
        ("crane", [2]), ("present", [0, 1, 3]), ("top:2", [1, 3]), ("top:9", [0, 1, 3]), ("positives>=2", [1, 3]),
        ("positives >= 3", [1]), ([4, 0], [4, 0]), (None, None),
    ],
)  # fmt: skip
def test_outputs_by_name_and_by_number_of_samples(outputs: Any, expected: Any) -> None:
    """Labels as integers with missing ones, or as columns of 0 and 1; capitals and underscores make no difference."""
    labels = torch.tensor([1.0, 3, 1, torch.nan, 0, 3, 1])
    columns = torch.nn.functional.one_hot(labels[labels.isfinite()].long(), 5)
    for y in (labels, columns):
        assert Targets(outputs, classes=CLASSES).resolved(y).outputs == expected


@pytest.mark.parametrize(
    ("outputs", "classes", "message"),
    [
        (["golden"], CLASSES, r"'golden', which is no class: near are Golden retriever; or give present"),
        (["Xyz"], CLASSES, r"'Xyz', which is no class: they are tench, Tinca tinca, Golden"),
        (["dog"], None, r"neither model nor data name their classes"),
        ("positives>=4", None, r"no output has so many positive samples, the most are 3"),
        (["crane", 2], CLASSES, r"\[2\] more than once"),
        (3, None, r"target\.outputs=3 of type int: give a list"),
    ],
)
def test_outputs_that_are_not_there(outputs: Any, classes: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Targets(outputs, classes=classes).resolved(torch.tensor([1, 1, 1]))


def test_outputs_by_labels_need_labels() -> None:
    with pytest.raises(ConfigError, match=r"target\.outputs=present needs the labels of all samples at once"):
        Targets("present").resolved(None)


def test_names_must_pair_up() -> None:
    """One name per selected output."""
    with pytest.raises(ConfigError, match="2 names for 3 selected"):
        Targets(names=("a", "b")).select(3)


def test_names_differ() -> None:
    """Each output has a name of its own."""
    with pytest.raises(ConfigError, match=r"\['a', 'c'\] more than once"):
        Targets(names=("a", "c", "a", "b", "c"))


def test_encoding() -> None:
    """Float vectors stay, a scalar serves one output, integer labels become one-hot by themselves where there are
    several outputs."""
    vector = torch.tensor([[0.1, 2.0], [3.0, 4.0]])
    assert torch.equal(Targets().encode(vector, 2), vector.double())
    assert Targets().encode(torch.tensor([1.0, 2.0]), 1).tolist() == [[1], [2]]
    labels = torch.tensor([2, 0])
    hot = torch.tensor([[0, 0, 1], [1, 0, 0]]).double()
    for y in (labels, labels.int(), labels[:, None]):
        assert torch.equal(Targets().encode(y, 3), hot)
        assert torch.equal(Targets(one_hot=True).encode(y, 3), hot)
    assert Targets().encode(labels, 1).tolist() == [[2], [0]]  # a count, not a label: there is one output
    assert Targets(one_hot=False).encode(torch.tensor([[1, 2], [3, 4]]), 2).tolist() == [[1, 2], [3, 4]]
    assert Targets().encode(vector, 2).dtype is torch.float64


@pytest.mark.parametrize(
    ("y", "one_hot", "text"),
    [
        (torch.zeros(2, 3), None, "3 values per sample.*4 outputs"),
        (torch.tensor([0, 4]), None, "0 to 4.*4 outputs"),
        (torch.tensor([-1, 0]), None, "-1 to 0.*4 outputs"),
        (torch.tensor([0.0, 0.5]), True, "integer label.*float32"),
        (torch.zeros(2, 2, dtype=torch.long), True, "integer label"),
        (torch.tensor([0.0, 1.0]), None, "1 values per sample.*one_hot"),
    ],
)
def test_targets_that_do_not_fit(y: torch.Tensor, one_hot: bool | None, text: str) -> None:
    """A y that does not fit the outputs is refused with both numbers and the way out."""
    with pytest.raises(DataError, match=text):
        Targets(one_hot=one_hot).encode(y, 4)
