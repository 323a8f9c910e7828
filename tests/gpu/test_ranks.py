"""Ranks: alone under torchrun with NCCL, two that share a card, one that is killed, one that loses its device."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import igc_dist
from tests.card import Card
from tests.commands import SMALL, command, torchrun
from tests.ranks import attribute, run_ranks, values

SHARED = {"LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "1"}
"""As if each rank were alone on its machine: so all of them take the first card."""


def test_one_rank_under_torchrun(tmp_path: Path, card: Card) -> None:
    """torchrun's variables are there, the group starts with NCCL for the device, which is the rank's."""
    done = torchrun(1, *SMALL, f"hydra.run.dir={tmp_path}/out", f"fabric.accelerator={card.kind}", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    device = igc_dist.open(tmp_path / "out" / "store.zarr").attrs["provenance"]["device"]
    assert card.dry or device == card.name


def test_the_command_runs_on_the_device(tmp_path: Path, card: Card) -> None:
    """`igc-dist` alone finds the device, and a second run finds the store complete."""
    words = (*SMALL, f"hydra.run.dir={tmp_path}/out")
    for _ in range(2):
        done = command(*words, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
    device = igc_dist.open(tmp_path / "out" / "store.zarr").attrs["provenance"]["device"]
    assert card.dry or device == card.name


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_two_ranks_share_a_card(precision: str, card: Card, tmp_path: Path) -> None:
    """The same bits as one rank; states are exchanged over gloo."""
    settings = {"n": 23, "accelerator": card.kind, "precision": precision, "precision_tol": None, "micro_batch": 4}
    (alone,) = values(run_ranks(1, on_disk, tmp_path / "1.zarr", settings))
    for one in values(run_ranks(2, on_disk, tmp_path / "2.zarr", settings, **SHARED)):
        assert one == alone


def run(settings: dict[str, object]) -> dict[str, bytes]:
    return attribute(None, **settings)  # type: ignore[arg-type]


def on_disk(path: Path, settings: dict[str, object]) -> dict[str, bytes]:
    return attribute(path, **settings)  # type: ignore[arg-type]


def test_killed_and_resumed(tmp_path: Path, card: Card) -> None:
    """A rank is killed in the middle of a shard; the run that goes on has the bits of one that was not."""
    settings = {"n": 23, "accelerator": card.kind}
    (killed,) = run_ranks(1, on_disk, tmp_path / "a.zarr", settings, IGC_FAULT="arrays:0:3:kill")
    assert killed.code == -9
    (resumed,) = values(run_ranks(1, on_disk, tmp_path / "a.zarr", settings))
    (whole,) = values(run_ranks(1, on_disk, tmp_path / "b.zarr", settings))
    assert resumed == whole


def lost(settings: dict[str, object]) -> dict[str, bytes]:
    """A kernel fails on the device in the middle of the run, after which this process can use it no more."""
    import torch

    from igc_dist.passes import Engine

    walked, calls = Engine.run, []

    def failing(self: Engine, *arguments: object) -> object:
        calls.append(1)
        if len(calls) == 2:
            if self.device.type == "cpu":
                raise RuntimeError("CUDA error: device-side assert triggered")
            torch.zeros(2, device=self.device)[torch.tensor([5], device=self.device)].cpu()
        return walked(self, *arguments)  # type: ignore[arg-type]

    Engine.run = failing  # type: ignore[assignment,method-assign]
    return attribute(None, **settings)  # type: ignore[arg-type]


def test_a_rank_that_loses_its_device(card: Card) -> None:
    """It ends with the error of the device, and does not take it for missing memory, which it would try again."""
    (end,) = run_ranks(1, lost, {"n": 23, "accelerator": card.kind})
    assert end.code == 1
    assert "assert" in end.message
    assert "out of memory" not in end.message


def test_ranks_agree_with_the_cpu(card: Card) -> None:
    (ours,) = values(run_ranks(1, run, {"n": 23, "accelerator": card.kind, "precision": "64-true"}))
    (theirs,) = values(run_ranks(1, run, {"n": 23, "accelerator": "cpu", "precision": "64-true"}))
    one, two = (np.frombuffer(tree["x/igc"].split(b") ", 1)[1]) for tree in (ours, theirs))
    np.testing.assert_allclose(one, two, rtol=1e-9, atol=1e-12)
