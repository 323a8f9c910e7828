"""A compact store answers as the one it was made of, to the bit, with few files."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import igc_dist
from igc_dist.baselines import Noise
from igc_dist.cli import commands
from igc_dist.records import StoreError
from igc_dist.report import write_report
from igc_dist.store import LOCK, Folder, Lock, Store
from igc_dist.upkeep import compact, folded, merge, verify
from igc_dist.upkeep.verify import Verdict
from tests.ranks import arrays, attribute, files

Made = Callable[..., Path]

SETTINGS: dict[str, Any] = {
    "n": 16,
    "n_folds": 8,
    "n_steps": 2,
    "samples": False,
    "baseline": Noise(0.1, k=3),
    "baseline_block": 1,
}
"""Three shards a fold; of eight folds some are left out, and two are walked twice."""

BUDGET = igc_dist.Budget(gradients=170, replicates=2)


@pytest.fixture(scope="module")
def limited(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("limited") / "store.zarr"
    attribute(path, **SETTINGS, budget=BUDGET)
    return path


def answers(path: Path) -> dict[str, bytes]:
    """Bytes of every result."""
    return {name: value for name, value in arrays(igc_dist.open(path)).items() if not name.startswith("shards/")}


@pytest.mark.parametrize("chunk", [1 << 26, 2000])
def test_results_are_the_same_bits(chunk: int, made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where an array does not fit one chunk; and `verify` makes them again from the folded states."""
    monkeypatch.setattr(folded, "CHUNK", chunk)
    whole, small = made("all"), tmp_path / "small"
    before = files(whole)
    compact(whole, small)
    assert files(whole) == before
    assert answers(small) == answers(whole)
    assert verify(small) == Verdict([])
    shards = [key for key in files(small) if key.startswith(("shards/", "samples/")) and "/c." in key]
    if chunk > 2000:
        assert (
            len(shards) < 60 < len([key for key in before if key.startswith(("shards/", "samples/")) and "/c." in key])
        )
        assert igc_dist.open(small)["shards/attribute/x/sums"].dims[0] == "fold"
    attributes = [
        {key: value for key, value in igc_dist.open(path).attrs.items() if key not in CHANGED}
        for path in (whole, small)
    ]
    assert attributes[0] == attributes[1]


CHANGED = ("layout", "digests", "recipe", "seal")


def test_blocks_of_baselines_are_one_state_for_each_fold(
    limited: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Also of a run that left folds out, and walked some twice."""
    small = tmp_path / "small"
    assert commands.call("compact", [str(limited), str(small)]) == 0
    said = capsys.readouterr().out
    few, many = (len(files(path)) + 1 for path in (small, limited))
    assert f"complete, {few} files instead of {many}; {limited} may go" in said
    assert few < many
    assert answers(small) == answers(limited)
    assert verify(limited) == verify(small) == Verdict([])
    budget = igc_dist.open(small).attrs["budget"]
    assert (budget["folds"], budget["of"]) == (5, 8)
    store = Store.existing(small)
    assert store.phases["attribute"].arrays["scalars"].shape[0] == 8
    assert store.phases["replicate"].arrays["scalars"].shape[0] == 2
    assert np.isfinite(store.read("attribute", "scalars")).all(axis=(1, 2, 3)).tolist() == [True] * 5 + [False] * 3


@pytest.mark.slow
def test_reports_and_merges_go_on(made: Made, tmp_path: Path) -> None:
    small = tmp_path / "small"
    compact(made("a"), small)
    assert write_report(igc_dist.open(small), tmp_path / "page").is_file()
    merge([small, made("b")], tmp_path / "one")
    merge([made("a"), made("b")], tmp_path / "two")
    assert files(tmp_path / "one") == files(tmp_path / "two")


def test_a_job_is_not_done_again_over_a_compact_store(limited: Path, tmp_path: Path) -> None:
    """It is complete; once it is damaged, or asked for more, that is refused."""
    small = tmp_path / "small"
    compact(limited, small)
    before = files(small)
    assert attribute(small, **SETTINGS, budget=BUDGET) == arrays(igc_dist.open(small))
    with pytest.raises(
        StoreError, match=r"holds this run in another layout .*of another budget: it cannot be gone on with"
    ):
        attribute(small, **SETTINGS, budget=igc_dist.Budget(replicates=2))
    assert files(small) == before
    (small / "x" / "igc" / "c.0.0").write_bytes(b"")
    with pytest.raises(StoreError, match=r"holds this run in another layout .*damaged"):
        attribute(small, **SETTINGS, budget=BUDGET)
    assert "x/igc/c.0.0: changed (its digest does not match)" in verify(small).lines


@pytest.mark.slow
def test_what_cannot_be_made_compact_is_refused(limited: Path, made: Made, tmp_path: Path) -> None:
    half = tmp_path / "half"
    shutil.copytree(limited, half)
    store = Store.existing(half)
    store.objects.drop(store.phases["attribute"].digest_key(1))
    with pytest.raises(StoreError, match=r"cannot be made compact: shards/attribute/record/c\.1\.0\.0: missing"):
        compact(half, tmp_path / "out")
    with pytest.raises(StoreError, match="is not empty"):
        compact(limited, half)
    with pytest.raises(StoreError, match="is compact already"):
        compact(made("a+b+c"), tmp_path / "out")
    with pytest.raises(StoreError, match="there is nothing"):
        compact(tmp_path / "absent", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_an_interrupted_write_is_no_store(limited: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is there is not complete, and is not gone on with; the source is as it was."""

    def full(self: Store, *rest: Any) -> None:
        raise OSError(28, "No space left on device")

    out, before = tmp_path / "out", files(limited)
    with monkeypatch.context() as patch:
        patch.setattr(Store, "complete", full)
        with pytest.raises(OSError, match="No space"):
            compact(limited, out)
    assert files(limited) == before
    with pytest.raises(StoreError, match="is running, not complete"):
        igc_dist.open(out)
    with pytest.raises(StoreError, match=r"holds this run in another layout"):
        attribute(out, **SETTINGS, budget=BUDGET)
    with pytest.raises(StoreError, match="is not empty"):
        compact(limited, out)


def test_one_at_a_time_writes_a_new_store(limited: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its lock is held meanwhile, and nothing that came before the lock was taken is written over."""
    out, lock = tmp_path / "out", Lock(Folder(tmp_path / "out"))
    lock.take()
    for write in (lambda: compact(limited, out), lambda: merge([limited, limited], out)):
        with pytest.raises(StoreError, match=r"out is in use: process \d+ on .* is filling it"):
            write()
    assert [*Folder(out).keys()] == [".lock-000001"]
    lock.release()

    def late(self: Lock) -> None:
        took(self)
        shutil.copytree(limited, out, dirs_exist_ok=True)

    took = Lock.take
    with monkeypatch.context() as patch:
        patch.setattr(Lock, "take", late)
        with pytest.raises(StoreError, match="is not empty"):
            compact(limited, out)
    assert files(out) == files(limited)
    assert not [*Folder(out).beginning(LOCK)]
