"""Scenes with a planted shortcut are what they say; the audit names the watermark where it is, and only there."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
import torch
import xarray as xr

import igc_dist
from igc_dist.baselines import Resampled, Samples
from igc_dist.config import from_config
from igc_dist.demo import Scenes, scene_net, train_scene_nets
from igc_dist.demo.scene_net import NETS, weights_of
from igc_dist.demo.scenes import mark_of, objects_of
from igc_dist.features import Masks, Patches
from igc_dist.report import interval
from igc_dist.targets import Targets
from tests.config.test_conf import composed

N = 300


def test_a_scene_is_a_function_of_seed_and_index() -> None:
    """Whatever was read before; of any strength it is the same but for the watermark."""
    one, other = Scenes(40, 0.9), Scenes(50, 0.1)
    late = other.composed(3)[0]
    assert np.array_equal(one.composed(3)[0], Scenes(4).composed(3)[0])
    assert not np.array_equal(one.composed(3)[0], Scenes(4, seed=1).composed(3)[0])
    assert np.array_equal(late, other.composed(3)[0])
    assert torch.equal(one.y, other.y[:40])
    differing = [n for n in range(40) if one.marked[n] != other.marked[n]]
    assert differing
    for n in range(40):
        (a, labels), (b, without) = one.composed(n), other.composed(n)
        mark = (labels == 2) | (without == 2)
        assert np.array_equal(a[:, ~mark], b[:, ~mark])
        assert np.array_equal(a, b) == (n not in differing)
    assert len([*one]) == 40  # ends, as a sequence does


def test_a_label_map_says_what_is_where() -> None:
    """The object as large as its cut, the watermark as its box, and in marked scenes alone."""
    data = Scenes(60)
    largest = max(cut[3].size for cuts in objects_of() for cut in cuts)
    for n in range(60):
        x, labels = data.composed(n)
        assert (x.shape, x.dtype, labels.shape) == ((3, 64, 64), np.float32, (64, 64))
        assert 0 <= x.min() <= x.max() <= 1
        assert (labels == 2).sum() == mark_of().size * data.marked[n]
        assert 100 < (labels == 1).sum() < largest
        assert np.array_equal(data.label_map(n), labels)


def test_the_shortcut_has_the_strength_that_was_asked() -> None:
    data = Scenes(3000, 0.8)
    cats, south = data.y.numpy() == 0, data.site == "south"
    assert not data.marked[~south].any()
    assert data.marked[south & cats].mean() == pytest.approx(0.8, abs=0.05)
    assert data.marked[south & ~cats].mean() == pytest.approx(0.2, abs=0.05)
    assert (np.bincount(data.y) > 900).all()


def test_an_output_is_chosen_by_the_name_of_its_class() -> None:
    """In the experiment and in Python, for a data set that is not one of ours."""
    targets = from_config(composed("experiment=shortcut", "data.build.n=9", "target.outputs=[Cup]"), None).targets
    assert targets.labels(targets.select(3), 3).tolist() == ["cup"]
    tree = igc_dist.attribute(scene_net(), Scenes(8), target=["helmet"], n_steps=1, n_folds=2)
    assert tree["output"].values.tolist() == ["helmet"]


@cache
def audited(trained: str, n: int) -> xr.DataTree:
    """What the experiment `shortcut` computes, of some scenes."""
    return igc_dist.attribute(
        scene_net(trained), Scenes(n), target="one_hot", slices="site", reduce=Masks(), baseline=Resampled(4),
        design="stratified", n_draws=4,
    )  # fmt: skip


def found(trained: str, site: str, segment: str) -> tuple[float, float]:
    """The IGC of a segment for cats at a site, and half its interval of 95 %."""
    tree = audited(trained, N)
    at = {"slice": site, "segment": segment}
    value = float(tree["slices/x/igc"].sel(at)[0])
    return value, float(interval(tree, "slices/x/igc")[1].sel(at)[0]) - value


def test_the_audit_names_the_watermark_where_it_is() -> None:
    """At the one site, in the network that has learnt it; the interval excludes 0. At the other site it is absent."""
    value, half = found("shortcut", "south", "watermark")
    assert value > 0.1
    assert value - half > 0
    assert found("shortcut", "north", "watermark") == (0, 0)


def test_the_audit_names_no_watermark_in_a_clean_network() -> None:
    """The scenes have it all the same; the object carries the agreement at both sites."""
    value, half = found("clean", "south", "watermark")
    assert abs(value) <= half
    assert abs(audited("clean", N)["slices/x/igc"].sel(segment="watermark")).max() < 0.02
    for site in ("north", "south"):
        value, half = found("clean", site, "object")
        assert value - half > 0.1


def named(trained: str, n: int) -> list[tuple[str, str]]:
    """What `ask spurious` names, an output and a segment, that which differs most first."""
    table = audited(trained, n).igc.ask.spurious()["x"].dataset.to_dataframe()
    return [*table[table["kind"] != ""].sort_values("at_least", ascending=False).index]


def test_the_question_for_what_is_spurious_names_the_watermark() -> None:
    """Of cats first; in the clean network it is not named."""
    assert named("shortcut", N)[0] == ("cat", "watermark")
    assert "watermark" not in [segment for _, segment in named("clean", N)]


@pytest.mark.slow
def test_nothing_is_spurious_in_a_clean_network() -> None:
    """With 2,000 scenes an interval alone may miss 0 by 0.003; corrected, nothing is named."""
    assert named("shortcut", 2000)[0] == ("cat", "watermark")
    assert named("clean", 2000) == []


@pytest.mark.slow
def test_the_strategies_are_the_corners_of_the_watermark() -> None:
    """The experiment `strategies`: cats recognised by a watermark in one corner are clusters of their own."""
    tree = igc_dist.attribute(
        scene_net(), (data := Scenes(1000)), target=Targets(("cat",), True), reduce=Patches(8),
        baseline=Samples(2), n_steps=8, samples=True,
    )  # fmt: skip
    of = tree.igc.ask.strategies()["cluster_of"].values[0]
    pure = [np.flatnonzero(of == cluster) for cluster in range(of.max() + 1) if data.marked[of == cluster].all()]
    assert len(pure) >= 2
    for its in pure:
        assert len(its) >= 15
        corners = {tuple(np.argwhere(data.label_map(int(n)) == 2).mean(0) > 32) for n in its}
        assert len(corners) == 1


@pytest.mark.slow
def test_training_is_reproducible_and_learns() -> None:
    """A few steps; the weights that ship are small."""
    one, two = (train_scene_nets.train(0.9, n=128, epochs=2) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters(), strict=True))
    assert all(weights_of(name).stat().st_size < 2**20 for name in NETS)
    assert set(train_scene_nets.accuracies(one)) == {"all", "with it", "against it"}


def test_what_cannot_be_is_refused() -> None:
    for make, message in (
        (lambda: Scenes(0), "at least 1 scene"),
        (lambda: Scenes(3, 1.5), "a probability"),
        (lambda: scene_net("dirty"), "choose one of shortcut, clean"),
    ):
        with pytest.raises(ValueError, match=message):
            make()
    with pytest.raises(IndexError, match="scene 3 of 3"):
        Scenes(3)[3]
