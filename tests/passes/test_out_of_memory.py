"""Out of memory inside a shard: it is walked again in smaller micro-batches, the numbers stay, and the store says which
shards."""

from __future__ import annotations

import logging
import weakref
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console
from torch import Tensor, nn

import igc_dist
from igc_dist.model import out_of_memory
from igc_dist.passes import Chunks
from igc_dist.passes.retry import smaller
from igc_dist.planning import Limits, make_plan
from igc_dist.records import ConfigError
from igc_dist.report import info
from tests.laws.test_plan import SHAPES, WORK

SETTINGS = {
    "n_steps": 4,
    "n_folds": 2,
    "micro_batch": 10,
    "samples": True,
}  # two folds of 5 samples, passes of 5 x 2 rows
REAL = 1 << 60
"""Bytes that no machine has."""


class Scarce(nn.Module):
    """Two outputs of three features. A walk's passes `first` to `last` with more than `most` rows ask for too much
    memory.

    The first look takes four passes.
    """

    def __init__(self, most: int, first: int = 5, last: int = 10**9, place: str = "forward") -> None:
        super().__init__()
        self.most, self.first, self.last, self.place = most, first, last, place
        self.net = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2)).double().requires_grad_(False)
        torch.manual_seed(1)
        for p in self.net.parameters():
            p.copy_(torch.randn(p.shape))
        self.passes: list[int] = []
        self.left: Any = None

    def forward(self, x: Tensor) -> Tensor:
        assert self.left is None or self.left() is None, "tensors of the failed walk are still held"
        if torch.is_grad_enabled():
            self.passes.append(len(x))
            if len(x) > self.most and self.first <= len(self.passes) <= self.last:
                y = self.net(x)
                self.left = weakref.ref(y)
                if self.place == "forward":
                    torch.empty(REAL, dtype=torch.uint8)
                y.register_hook(lambda grad: torch.empty(REAL, dtype=torch.uint8))
                return y
        return self.net(x)


def data() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return tuple(torch.randn(10, n, generator=generator, dtype=torch.float64) for n in (3, 2))  # type: ignore[return-value]


def run(module: nn.Module, store: Path | None = None, **settings: Any) -> Any:
    return igc_dist.attribute(module, data(), store=store, **{**SETTINGS, **settings})


@pytest.mark.parametrize(("place", "most", "batch"), [("forward", 5, [5, 1]), ("backward", 4, [2, 1])])
def test_a_shard_is_walked_again_in_smaller_pieces(
    place: str, most: int, batch: list[int], caplog: pytest.LogCaptureFixture
) -> None:
    """Points are halved first, then samples; chunks of per-sample rows, 5 long, are joined from pieces of 2. Rounding
    apart, the same."""
    expected = run(Scarce(10**9))
    assert expected.attrs["retried"] == []
    with caplog.at_level(logging.WARNING):
        found = run(Scarce(most, place=place))
    assert found.attrs["retried"] == [{"shard": n, "micro_batch": batch} for n in (0, 1)]
    assert sum("out of memory in" in r.message and "set plan.micro_batch" in r.message for r in caplog.records) >= 2
    for group, name in (
        ("x", "igc"),
        ("x", "igc_se"),
        ("samples/x", "attribution"),
        ("samples", "delta"),
        ("samples", "prediction_baseline"),
    ):
        one, two = (tree[group][name].values for tree in (expected, found))
        np.testing.assert_allclose(one, two, rtol=0, atol=1e-13, err_msg=name)


def test_only_the_shard_that_failed_is_walked_in_smaller_pieces_and_a_resumed_run_remembers_it(tmp_path: Path) -> None:
    """The first shard that is claimed fails once; the other has the bits of a run where nothing failed, and so has that
    one's table."""
    path, whole = tmp_path / "a.zarr", run(Scarce(10**9))
    module = Scarce(5, last=5)
    first = run(module, path)
    assert first.attrs["retried"] == [{"shard": 0, "micro_batch": [5, 1]}]
    for name in ("scalars", "x/sums"):
        a, b = (tree[f"shards/attribute/{name}"].values[1] for tree in (first, whole))
        assert a.tobytes() == b.tobytes()
    (path / "x" / "igc" / "c.0.0").unlink()
    again = run(Scarce(10**9), path)
    assert again.attrs["retried"] == first.attrs["retried"]
    console = Console(record=True, width=200)
    console.print(info(again))
    assert "1 shards walked in smaller micro-batches: shard 0 at 5 x 1" in console.export_text()


def test_one_sample_and_one_point_that_do_not_fit_are_an_error(tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"out of memory in shard 0.*one sample and one point.*memory.*plan\.output_block.*2 outputs"
    ) as error:
        run(Scarce(0))
    assert not isinstance(error.value.__cause__, RuntimeError)


def test_other_errors_of_a_walk_pass() -> None:
    class Broken(Scarce):
        def forward(self, x: Tensor) -> Tensor:
            if torch.is_grad_enabled() and len(x) > 4:
                raise RuntimeError("boom")
            return self.net(x)

    with pytest.raises(RuntimeError, match="boom"):
        run(Broken(0))


def test_what_running_out_of_memory_looks_like() -> None:
    with pytest.raises(RuntimeError) as real:
        torch.empty(REAL, dtype=torch.uint8)
    with pytest.raises(MemoryError) as array:
        np.empty(REAL, dtype=np.uint8)
    errors = [real.value, array.value, torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")]
    errors += [
        RuntimeError(text)
        for text in (
            "MPS backend out of memory",
            "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling x",
            "CUDA error: out of memory",
        )
    ]
    assert all(out_of_memory(error) for error in errors)
    assert not out_of_memory(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
    assert not out_of_memory(ValueError("out of memory"))


def test_smaller_plans_end_at_one_by_one() -> None:
    plan, seen = make_plan(SHAPES, WORK, Limits(micro_batch=20, n_folds=20), 0), []
    while (less := smaller(plan)) is not None:
        assert less.fold_size == plan.fold_size
        plan = less
        seen.append((plan.samples_per_batch, plan.points_per_batch))
    assert seen[-1] == (1, 1)
    assert all(a[0] * a[1] > b[0] * b[1] for a, b in pairwise(seen))
    samples = [n for n, _ in seen]
    assert samples == sorted(samples, reverse=True)
    assert all(c == 1 for (n, c), before in zip(seen[1:], samples, strict=False) if n != before)


@pytest.mark.parametrize("pieces", [[5, 5, 3], [2, 2, 2, 2, 2, 2, 1], [1] * 13, [3, 7, 3], [13], [4, 9], [6, 6, 1]])
def test_pieces_of_rows_become_whole_chunks(pieces: list[int]) -> None:
    rows, got, at = np.arange(100.0, 113.0), [], 0
    chunks = Chunks(
        lambda start, arrays: got.append((start, arrays["a"].copy(), arrays["b"].shape)), size=5, start=100, stop=113
    )
    for n in pieces:
        chunks.add({"a": rows[at : at + n], "b": np.zeros((n, 2))})
        at += n
    assert [start for start, _, _ in got] == [100, 105, 110]
    assert [len(a) for _, a, _ in got] == [5, 5, 3]
    assert [shape for _, _, shape in got] == [(5, 2), (5, 2), (3, 2)]
    np.testing.assert_array_equal(np.concatenate([a for _, a, _ in got]), rows)


def test_a_compiled_model_is_given_fewer_rows_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its passes are filled up to one shape, which shrinks with the micro-batch, and for that shard only."""
    monkeypatch.setattr(torch, "compile", lambda call, **settings: call)
    module = Scarce(5, last=5)
    assert run(module, compiled=True).attrs["retried"] == [{"shard": 0, "micro_batch": [5, 1]}]
    assert module.passes[4:] == [10, 5, 5, 5, 5, 10, 10]
