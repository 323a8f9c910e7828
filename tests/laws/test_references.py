"""References: rows of other labels, or of the next classes of the model; drawn by address; what cannot be had is
refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import igc_dist
from igc_dist import baselines
from igc_dist import data as sources
from igc_dist.attributors import IG2
from igc_dist.records import ConfigError


def random(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape)


def labelled(n: int = 12, classes: int = 3) -> tuple[Tensor, Tensor]:
    return torch.from_numpy(random(n, 3)), torch.arange(n) % classes


def around(data: tuple[Tensor, Tensor], pool: Any = None, seed: int = 0) -> tuple[Any, baselines.Surroundings]:
    source = sources.ensure(data)
    return source, baselines.Surroundings(source, np.arange(len(source)) if pool is None else np.asarray(pool), seed)


def rows(x: Tensor, drawn: Tensor) -> np.ndarray:
    """Which rows of x were drawn, (B, n)."""
    return (drawn[:, :, None] == x).all(-1).long().argmax(-1).numpy()


@pytest.mark.parametrize("kind", ["integers", "one-hot", "whole floats", "a column"])
def test_references_never_have_the_label_of_the_sample(kind: str) -> None:
    """Of the pool, none twice, whatever form labels have; the address decides, so another seed draws others."""
    x, y = labelled()
    target = {"integers": y, "one-hot": torch.eye(3)[y], "whole floats": y.double(), "a column": y[:, None]}[kind]
    source, surroundings = around((x, target), pool=[0, 1, 2, 3, 4, 6, 8, 9, 10])
    found = rows(x, baselines.References(4).draw(source.fetch(range(12)), range(4), surroundings)[0])
    assert (y.numpy()[found] != y.numpy()[None]).all()
    assert set(found.ravel().tolist()) <= set(surroundings.pool.tolist())
    assert all(len(set(column)) == 4 for column in found.T.tolist())
    other = rows(x, baselines.References(4).draw(source.fetch(range(12)), range(4), around((x, target), seed=1)[1])[0])
    assert (found != other).any()
    part = baselines.References(4).draw(source.fetch([7, 3]), range(1, 3), surroundings)[0]
    np.testing.assert_array_equal(rows(x, part), found[1:3][:, [7, 3]])


def test_references_that_cannot_be_had() -> None:
    """One label only, too few rows of others, targets that are no labels; a missing label serves nobody."""
    x, y = labelled()
    one, few = (
        (y * 0, "k=2 references of another label: sample 0 has label 0, only 0 of 12"),
        ((torch.arange(12) > 10).long(), "only 1 of 12"),
    )
    for target, message in (one, few):
        source, surroundings = around((x, target))
        with pytest.raises(ConfigError, match=message):
            baselines.References(2).draw(source.fetch([0, 1]), range(2), surroundings)
    source, surroundings = around((x, torch.from_numpy(random(12))))
    with pytest.raises(ConfigError, match="y is no label but a real number"):
        baselines.References(2).draw(source.fetch([0, 1]), range(2), surroundings)
    holed = torch.eye(3)[y]
    holed[3:, 1] = torch.nan
    source, surroundings = around((x, holed))
    found = rows(x, baselines.References(1).draw(source.fetch([0, 4]), range(1), surroundings)[0])
    assert found[0, 0] in (1, 2)
    assert found[0, 1] in (0, 1, 2)
    with pytest.raises(ConfigError, match="choice='nearest': choose one of other_label, top_k"):
        baselines.References(2, "nearest")
    with pytest.raises(ConfigError, match="13 rows cannot be drawn from 12"):
        baselines.References(13).count(12, ((3,),))


class Three(nn.Module):
    """Three classes by the largest of three features; a fourth that is never the first."""

    def forward(self, x: Tensor) -> Tensor:
        self.encode(x)
        return torch.cat((x, x.mean(1, keepdim=True)), 1)

    def encode(self, x: Tensor) -> Tensor:
        return x


def test_relevant_references() -> None:
    """Number b is a row that is taken for the class that is (b + 2)-nd for the sample, of those that any row is taken
    for."""
    x, y = labelled(20)
    y = torch.eye(4)[y]
    x[5] = torch.nan
    settings = {
        "attributor": IG2("encode", 150, 0.05, stop=1e-3),
        "samples": True,
        "on_nonfinite": "skip",
        "n_folds": 1,
    }
    tree = igc_dist.attribute(Three(), (x, y), baseline=baselines.References(2, "top_k"), **settings)
    fine = np.arange(20) != 5
    ends = tree["samples/prediction_baseline"].values[fine, :3]  # phi(x) = x: the mean of both references, nearly
    order = np.argsort(-x.numpy()[fine], axis=1)
    first = x.numpy()[fine].argmax(1)
    candidates = [[x.numpy()[fine][first == c] for c in of_n[1:]] for of_n in order]
    for end, (second, third) in zip(ends, candidates, strict=True):
        means = (second[:, None] + third[None]).reshape(-1, 3) / 2
        assert abs(means - end).max(1).min() < 0.1
    assert not tree["failed"].any()
    with pytest.raises(
        ConfigError,
        match=r"needs rows of 4 predicted classes, but the model predicts 3 for these data: give baseline\.k of at "
        r"most "
        r"2",
    ):
        igc_dist.attribute(Three(), (x, y), baseline=baselines.References(3, "top_k"), **settings)
    with pytest.raises(
        ConfigError, match=r"ranks all 4 outputs of the model, 2 are selected: leave target\.outputs null"
    ):
        igc_dist.attribute(Three(), (x, y), baseline=baselines.References(2, "top_k"), target=[0, 1], **settings)
