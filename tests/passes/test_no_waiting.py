"""Pass 2 on a device: the host hands on work and does not wait for it, but to ask once whether all was finite and to
fetch a shard's sums. Seen on a device that is none (`tests/fake_device.py`)."""

from __future__ import annotations

from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
import torch
from torch import nn

import igc_dist
from igc_dist.attributors import Gradients
from igc_dist.features import Patches, Segments
from igc_dist.passes import DrawnEngine, Engine
from igc_dist.statistics import SCALAR_TERMS
from igc_dist.tensors import there
from tests import fake_device
from tests.fake_device import THERE

LABELS = np.arange(16).reshape(4, 4) % 3
CASES: dict[str, dict[str, Any]] = {
    "a grid": {"n_steps": 3},
    "baselines of each sample": {"n_steps": 2, "baseline": igc_dist.baselines.Resampled(2)},
    "stratified": {"design": "stratified", "n_draws": 2, "baseline": igc_dist.baselines.Resampled(2)},
    "patches": {"n_steps": 2, "reduce": Patches(2), "mode": "reverse"},
    "segments": {"n_steps": 2, "reduce": Segments(LABELS), "mode": "reverse"},
    "three statistics": {"n_steps": 2, "statistics": ["correlation", "autocorrelation", "moments"]},
    "gradients": {"attributor": Gradients(), "statistics": ["moments"]},
    "slices": {"n_steps": 2, "slices": np.arange(12) % 2},
    "pairs": {"design": "pairs", "n_draws": 2},
}
ON_HOST = ("pairs",)
"""Sums of outputs without features are on the host all along."""


def net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 3, 3), nn.Tanh(), nn.Flatten(), nn.Linear(12, 4)).requires_grad_(False).eval()


def run(model: nn.Module, settings: dict[str, Any]) -> Any:
    torch.manual_seed(1)
    x, y = torch.randn(12, 1, 4, 4), torch.randn(12, 4)
    return igc_dist.attribute(model, (x, y), n_folds=2, micro_batch=4, **settings)


@pytest.mark.parametrize("case", CASES)
def test_the_host_waits_once_for_a_shard(case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """For one look at whether all was finite, besides the sums that it fetches; and the maps are those of the CPU."""
    expected = run(net(), CASES[case])
    asked: list[list[str]] = []
    sums: list[int] = []
    kind = DrawnEngine if case == "pairs" else Engine
    walked = kind.run

    def watched(self: Engine, *arguments: Any) -> Any:
        before = len(fake_device.waits)
        found = walked(self, *arguments)
        asked.append(fake_device.waits[before:])
        sums.append(len(self.terms) + (0 if case in ON_HOST else len(SCALAR_TERMS)))
        return found

    monkeypatch.setattr("igc_dist.distributed.joining._device", lambda *_: THERE)
    with fake_device.device():
        model = net().to(THERE)
        with patch.object(kind, "run", watched):
            found = run(model, CASES[case])
    assert len(asked) == 2
    assert asked == [["copy to the host"] * (1 + n) for n in sums]
    name = next(iter(expected["x"].data_vars))
    np.testing.assert_array_equal(found["x"][name].values, expected["x"][name].values)


def test_what_would_wait_or_fail_on_a_card_is_noticed() -> None:
    """The device that is none is no better than a card."""
    with fake_device.device() as waits:
        x = torch.arange(6.0).reshape(2, 3).to(THERE)
        waits.clear()
        assert float(x.sum()) == 15.0
        x.cpu()
        torch.nonzero(x)
        torch.ones(2).to(THERE)
        assert [*waits] == ["item", "copy to the host", "nonzero", "copy to the device"]
        waits.clear()
        there(np.arange(2.0), THERE)
        assert not waits
        with pytest.raises(RuntimeError, match="same device"):
            x + torch.ones(2, 3)
        with pytest.raises(NotImplementedError):
            x[:, [0, 1]]
