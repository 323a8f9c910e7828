"""A network of ImageNet on labelled photographs, from packages of PyPI (extra `audit`)."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

import numpy as np
import pytest
import torch

import igc_dist
from igc_dist.config import from_config
from igc_dist.demo import Photographs, lite0
from igc_dist.demo.efficientnet import PACKAGE, Convolution, Lite0
from tests.config.test_conf import composed

there = pytest.mark.skipif(
    find_spec(PACKAGE) is None or find_spec("foolbox") is None, reason="needs pip install 'igc-dist[audit]'"
)


def test_convolutions_are_padded_as_tensorflow_pads() -> None:
    """The odd pixel comes after the image: ``SAME`` with a stride of 2 begins at the first pixel."""
    x = torch.arange(1.0, 7).reshape(1, 1, 1, 6).expand(1, 1, 6, 6)
    for side, expected in ((3, [1 + 2 + 3, 3 + 4 + 5, 5 + 6]), (5, [1 + 2 + 3 + 4, 2 + 3 + 4 + 5 + 6, 4 + 5 + 6])):
        layer = Convolution(1, 1, side, 2)
        torch.nn.init.constant_(layer[-2].weight, 1 / side)
        rows = min(side, 4) / side  # of the padded column, above
        found = torch.nn.Sequential(*[*layer][:-1])(x)[0, 0]
        np.testing.assert_allclose(found[1].tolist(), expected, rtol=1e-6)
        assert found[0, 0] <= rows * expected[0] + 1e-6


def test_the_network_has_the_published_size() -> None:
    """4.65 million weights, as Lite0 is published with, and 1,000 outputs of images whose sides 32 divides."""
    net = Lite0().eval()
    assert sum(p.numel() for p in net.parameters()) == 4_652_008
    assert net(torch.rand(2, 3, 64, 96)).shape == (2, 1000)


@there
def test_it_recognises_the_photographs() -> None:
    """18 of the 20; the other two are a jeep and a convertible, whose neighbours among the classes it names."""
    data, net = Photographs(), lite0()
    x, y = torch.stack([data[i][0] for i in range(20)]), torch.tensor(data.y)
    assert x.shape == (20, 3, 224, 224)
    assert 0 <= float(x.min()) < float(x.max()) <= 1
    with torch.no_grad():
        found = net(x).argmax(1)
    assert int((found == y).sum()) == 18
    assert {*y[found != y].tolist()} == {609}
    with pytest.raises(ValueError, match="give 1 to 20"):
        Photographs(21)


@there
def test_the_experiment_scores_maps_of_each_label() -> None:
    cfg = composed("experiment=photographs", "data.build.n=2", "quadrature.n_steps=2", "plan.n_folds=2")
    built = from_config(cfg, None)
    assert isinstance(built.model.module, Lite0)
    assert [*built.metrics] == ["insertion", "deletion"]
    tree = igc_dist.attribute(
        built.model.module, built.source.dataset, method="ig", target="own", n_steps=2, metrics=["sparseness"]
    )
    assert tree["samples/explained"].values.ravel().tolist() == [243, 559]
    assert tree["samples/x/attribution"].shape == (2, 1, 3, 224, 224)


def test_who_has_not_the_packages_is_told_how_to_get_them(monkeypatch: pytest.MonkeyPatch) -> None:
    def nowhere(name: str) -> Any:
        return None

    monkeypatch.setattr("igc_dist.demo.efficientnet.find_spec", nowhere)
    monkeypatch.setattr("igc_dist.demo.photographs.find_spec", nowhere)
    for made in (lite0, Photographs):
        with pytest.raises(ImportError, match=r"pip install 'igc-dist\[audit\]'"):
            made()
