"""The settings by which several ranks hold one model go together, and name nothing that is not allowed."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

import igc_dist
from igc_dist.config import from_config
from igc_dist.records import ConfigError
from tests.config.test_conf import composed
from tests.distributed.test_replicas import Deep

BOTH = ("fabric.strategy=model_parallel", "fabric.tensor_parallel_size=2")


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        (["fabric.data_parallel_size=2"], "set both, or neither"),
        (["fabric.strategy=model_parallel"], "set both, or neither"),
        ([*BOTH, "model.parallelize=up"], "give a mapping of layers"),
        ([*BOTH, "+model.parallelize={_target_: os.system}"], "the command line may allow it with --allow-target"),
    ],
)
def test_settings_that_do_not_go_together_are_refused(settings: list[str], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        from_config(composed(*settings), None)


def test_python_has_no_parts() -> None:
    """It is told so, as the model that it gives is whole."""
    net = torch.nn.Linear(3, 2)
    with pytest.raises(ConfigError, match="on the command line alone"):
        igc_dist.attribute(net, (torch.randn(8, 3), torch.randn(8, 2)), strategy="model_parallel")


def test_the_settings_are_the_parts_of_the_model() -> None:
    """A function is kept to be called with the module, and not called before."""
    plan = "model.parallelize={body.*.up: colwise}"
    parts = from_config(composed(*BOTH, "fabric.data_parallel_size=3", plan), None).model.parts
    assert (parts.data, parts.tensor, parts.ranks, dict(parts.how)) == (3, 2, 6, {"body.*.up": "colwise"})
    own = "+model.parallelize={_target_: tests.distributed.test_replicas.split}"
    parts = from_config(composed(*BOTH, own), None, ["tests.distributed.*"]).model.parts
    assert parts.how.func.__name__ == "split"
    assert from_config(composed(), None).model.parts.ranks == 1


def test_weights_wait_in_their_file_where_ranks_read_parts_of_them(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Not where the process is alone, as for the page, and not where each rank has to hold all of them first."""
    data = ("fabric.strategy=model_parallel", "fabric.data_parallel_size=2")
    plan = "model.parallelize={head: colwise}"
    save_file(Deep().state_dict(), tmp_path / "w.safetensors")
    net = ("model.build._target_=tests.distributed.test_replicas.Deep", f"model.weights={tmp_path}/w.safetensors")

    def waiting(*settings: str) -> bool:
        model = from_config(composed(*net, *settings), None, ["tests.distributed.*"]).model
        assert all(p.is_meta == (model.unfilled is not None) for p in model.module.parameters())
        return model.unfilled is not None

    assert not waiting(*data)
    monkeypatch.setattr("igc_dist.distributed.environment", lambda: object())
    assert waiting(*data)
    assert waiting(*BOTH, plan)
    assert not waiting(*BOTH, plan, "fabric.data_parallel_size=2")
    assert not waiting()
