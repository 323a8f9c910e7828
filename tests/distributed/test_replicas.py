"""A replica of several ranks is one claim unit: the numbers of one rank, whoever dies or is told to stop."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

import igc_dist
from igc_dist.distributed import World, joined, sharding
from igc_dist.distributed.replicas import place
from igc_dist.model import Parts, Unfilled, fillable, without_weights
from igc_dist.records import ConfigError, ModelError
from igc_dist.store import Store
from tests.commands import TINY, until
from tests.ranks import arrays, ranks, run_ranks, values

pytestmark = pytest.mark.dist

HERE = "tests.distributed.test_replicas"
TENSOR = "model.parallelize={blocks.*.up: colwise, blocks.*.down: rowwise}"
WAYS: dict[str, tuple[str, ...]] = {
    "data": ("fabric.data_parallel_size=2",),
    "tensor": ("fabric.tensor_parallel_size=2", TENSOR),
    "own": ("fabric.tensor_parallel_size=2", f"+model.parallelize._target_={HERE}.split"),
    "both": ("fabric.data_parallel_size=2", "fabric.tensor_parallel_size=2", TENSOR),
}


class Block(nn.Module):
    """What a transformer has without its attention."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm, self.up, self.down = nn.LayerNorm(width), nn.Linear(width, 3 * width), nn.Linear(3 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.down(nn.functional.gelu(self.up(self.norm(x))))


class Deep(nn.Module):
    """Two outputs of five features, through two blocks, with fixed weights."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.head = nn.Linear(5, 8), nn.Linear(8, 2)
        self.blocks = nn.ModuleList(Block(8) for _ in range(2))
        generator = torch.Generator().manual_seed(0)
        with torch.no_grad():
            for p in self.parameters():
                p.copy_(0.5 * torch.randn(p.shape, generator=generator))

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x)
        for block in self.blocks:
            x = block(x)
        return self.head(x)


def split(module: nn.Module, mesh: Any) -> nn.Module:
    """A user's way to split the model."""
    return sharding.divided(module, mesh, Parts(1, 2, {"blocks.0.up": "colwise", "blocks.0.down": "rowwise"}))


def command_here(path: Path, *more: str) -> None:
    """The command in this process."""
    from igc_dist.__main__ import main

    net = ["--allow-target", f"{HERE}.*", *TINY, f"model.build._target_={HERE}.Deep", "store.samples=true"]
    main([*net, f"store.path={path}", f"hydra.run.dir={path.parent}", *more])


def replicas(way: str) -> list[str]:
    return ["fabric.strategy=model_parallel", *WAYS[way]]


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """What one rank finds."""
    path = tmp_path_factory.mktemp("alone") / "store.zarr"
    values(run_ranks(1, command_here, path))
    return igc_dist.open(path)


def check(path: Path, alone: Any) -> None:
    """The numbers are those of one rank, to a few units of float32."""
    found = igc_dist.open(path)
    for name in ("x/igc", "x/igc_se", "correlation", "quadrature_error", "samples/x/attribution"):
        np.testing.assert_allclose(found[name], alone[name], rtol=2e-6, atol=2e-6, err_msg=name)
    assert np.array_equal(found["samples/index"], alone["samples/index"])


@pytest.mark.parametrize("way", ["data", *(pytest.param(way, marks=pytest.mark.slow) for way in [*WAYS][1:])])
def test_replicas_find_the_numbers_of_one_rank(way: str, alone: Any, tmp_path: Path) -> None:
    """Two replicas of two ranks, or one of 2 x 2: each sample counts once, and each replica did some shards."""
    path = tmp_path / "store.zarr"
    values(run_ranks(4, command_here, path, *replicas(way)))
    check(path, alone)
    about = json.loads((path / "zarr.json").read_text())["attributes"]["provenance"]
    assert (about["ranks"], about["ranks_of_a_replica"]) == (1 if way == "both" else 2, 4 if way == "both" else 2)


@pytest.mark.slow
def test_any_number_of_replicas_gives_the_same_bits(tmp_path: Path) -> None:
    found = []
    for n in (2, 6):
        path = tmp_path / str(n) / "store.zarr"
        values(run_ranks(n, command_here, path, *replicas("data")))
        found.append(arrays(igc_dist.open(path)))
    assert found[0] == found[1]


@pytest.mark.slow
def test_replicas_start_again_in_the_higher_precision(alone: Any, tmp_path: Path) -> None:
    """The audit, and the fallback, of bf16-mixed: what is found then is what float32 finds."""
    path = tmp_path / "store.zarr"
    half = ["fabric.precision=bf16-mixed", "precision.tol=1e-6", "precision.on_error=fallback"]
    values(run_ranks(4, command_here, path, *half, *replicas("data")))
    check(path, alone)


@pytest.mark.slow
@pytest.mark.fault
@pytest.mark.parametrize("rank", [2, 3])
def test_a_replica_ends_with_a_rank_that_is_killed(rank: int, alone: Any, tmp_path: Path) -> None:
    """Its leader, or the other one: all ranks end, none hangs, and the same command goes on."""
    path, more = tmp_path / "store.zarr", replicas("data")
    with ranks(4, command_here, path, "+data.build.pause=0.1", *more) as group:
        until(lambda: committed(path))
        group.send(rank, signal.SIGKILL)
        ended = group.ends(60.0, agent=False)
    assert ended[rank].code == -9
    assert all(end.code not in (0, 75) and end.seconds < 55 for end in ended), [(end.code, end.trace) for end in ended]
    assert 0 < len(Store.existing(path).pending("attribute")) < 8
    values(run_ranks(4, command_here, path, *more))
    check(path, alone)


@pytest.mark.slow
@pytest.mark.fault
@pytest.mark.parametrize("rank", [0, 1, 3])
def test_a_signal_to_any_rank_stops_all_replicas(rank: int, tmp_path: Path) -> None:
    path = tmp_path / "store.zarr"
    with ranks(4, command_here, path, "+data.build.pause=0.1", *replicas("data")) as group:
        until(lambda: committed(path))
        group.send(rank, signal.SIGTERM)
        ended = group.ends(60.0)
    assert [end.code for end in ended] == [75] * 4, [end.trace for end in ended]


@pytest.mark.slow
@pytest.mark.fault
def test_the_shard_of_a_replica_with_a_rank_that_sleeps_is_done_by_another(alone: Any, tmp_path: Path) -> None:
    """By lease, as that of a silent rank; it counts once when the rank wakes up."""
    path = tmp_path / "store.zarr"
    more = ["+data.build.pause=0.1", "fabric.lease=2.0", *replicas("data")]
    with ranks(4, command_here, path, *more) as group:
        until(lambda: committed(path))
        group.send(3, signal.SIGSTOP)
        until(lambda: committed(path) == 8)
        group.send(3, signal.SIGCONT)
        values(group.ends(60.0))
    check(path, alone)


def committed(path: Path) -> int:
    """Shards of pass 2 that are done."""
    return len([p for p in path.glob("shards/attribute/record/c.*") if p.is_file() and p.suffix != ".partial"])


@pytest.mark.slow
def test_a_run_of_one_rank_for_each_model_is_not_continued_by_replicas(alone: Any, tmp_path: Path) -> None:
    """Their last bits differ, so a store says which of both it is of."""
    path = tmp_path / "store.zarr"
    values(run_ranks(1, command_here, path))
    ended = run_ranks(2, command_here, path, *replicas("data"))
    assert {end.code for end in ended} == {2}
    assert "model.parts" in (tmp_path / "run.json").read_text()


def held(path: Path, parts: Parts) -> tuple[int, list[bool]]:
    """Numbers of split layers that this rank holds, and whether each weight is the one in the file."""
    with without_weights():
        net = Deep().requires_grad_(False)
    assert all(p.is_meta for p in net.parameters())
    unfilled = Unfilled.of(net, str(path))
    with joined(accelerator="cpu", strategy=parts) as world:
        net, file = world.replica.split(net, unfilled), load_file(path)
        layers = [p.to_local() for p in net.parameters() if isinstance(p, DTensor)]
        whole = {name: p.full_tensor() if isinstance(p, DTensor) else p for name, p in net.named_parameters()}
        return sum(p.numel() for p in layers), [torch.equal(p, file[name]) for name, p in whole.items()]


@pytest.mark.parametrize("parts", [Parts(2), Parts(1, 2, {"blocks.*.up": "colwise", "blocks.*.down": "rowwise"})])
def test_each_rank_reads_and_holds_its_part_of_the_weights(parts: Parts, tmp_path: Path) -> None:
    """Of a file whose names have a prefix, as that of a LightningModule."""
    net = Deep()
    save_file({f"net.{name}": p + 1.0 for name, p in net.state_dict().items()}, tmp_path / "w.safetensors")
    save_file({name: p + 1.0 for name, p in net.state_dict().items()}, tmp_path / "plain.safetensors")
    unprefixed = Unfilled.of(net, str(tmp_path / "w.safetensors"))
    assert torch.equal(unprefixed.whole("head.bias"), net.head.bias + 1.0)
    (a, fine), (b, also) = values(run_ranks(2, held, tmp_path / "plain.safetensors", parts))
    assert all(fine)
    assert all(also)
    split_layers = [p for name, p in net.named_parameters() if parts.data > 1 or "up" in name or "down" in name]
    # the bias of a layer that is split by rows is whole on each rank
    doubled = 0 if parts.data > 1 else sum(block.down.bias.numel() for block in net.blocks)
    assert a + b == sum(p.numel() for p in split_layers) + doubled
    assert abs(a - b) < 0.2 * (a + b)


def test_weights_of_another_architecture_and_shared_weights_are_told(tmp_path: Path) -> None:
    save_file({"blocks.0.up.weight": torch.zeros(2, 2)}, tmp_path / "w.safetensors")
    with pytest.raises(ModelError, match=r"of another architecture: embed.weight is missing; .* and \d+ more"):
        Unfilled.of(Deep(), str(tmp_path / "w.safetensors"))
    tied = Deep()
    assert fillable(tied)
    tied.blocks[1].up.weight = tied.blocks[0].up.weight
    assert not fillable(tied)


@pytest.mark.slow
@pytest.mark.parametrize("way", ["data", "tensor", "both"])
def test_weights_from_a_file_give_the_numbers_of_one_rank(way: str, tmp_path: Path) -> None:
    """And the same identity of the model in the store."""
    file = f"model.weights={tmp_path / 'w.safetensors'}"
    save_file({name: 0.8 * p for name, p in Deep().state_dict().items()}, tmp_path / "w.safetensors")
    one, path = tmp_path / "one" / "store.zarr", tmp_path / "parts" / "store.zarr"
    values(run_ranks(1, command_here, one, file))
    values(run_ranks(4, command_here, path, file, *replicas(way)))
    check(path, igc_dist.open(one))
    assert identity(path) == identity(one)


def identity(path: Path) -> Any:
    return json.loads((path / "zarr.json").read_text())["attributes"]["spec"]["model"]["module"]


# -- refusals ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"data": 0}, "give 1 or more ranks"),
        ({"how": {"up": "colwise"}}, "no rank shares the model"),
        ({"tensor": 2}, "needs model.parallelize"),
        ({"data": 2, "how": {"up": "colwise"}}, "fabric.tensor_parallel_size is 1"),
        ({"tensor": 2, "how": {"up": "across"}}, "'across': choose colwise or rowwise"),
    ],
)
def test_parts_that_cannot_be_are_refused(given: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        Parts(**given)


def test_ranks_that_do_not_make_whole_replicas_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"3 ranks do not make whole replicas of 2 .* start a multiple of 2 ranks"):
        place(World(2, 3), Parts(2))


def test_a_plan_for_layers_that_are_not_there_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"'blocks.\*.side', which is no nn.Linear .*there are embed, head, "):
        sharding.check(Deep(), {"blocks.*.side": "colwise"})


def test_blocks_are_what_the_outermost_lists_hold() -> None:
    net = Deep()
    assert [*sharding.blocks(net)] == [*net.blocks]
    nested = nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2)))
    assert [*sharding.blocks(nested)] == [nested[0], nested[2]]
    lists = nn.ModuleList([nn.ModuleList([nn.Linear(2, 2)]), nn.Linear(2, 2)])
    assert [*sharding.blocks(lists)] == [lists[0][0], lists[1]]
