"""Flip a bit, truncate, delete: `verify` names the damage and a rerun repairs it, for every kind of file in a store."""

from __future__ import annotations

import hashlib
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import igc_dist
from igc_dist.records import StoreError
from igc_dist.store import Store, layout
from igc_dist.store.folder import PIECE
from tests.ranks import arrays, attribute, files

pytestmark = pytest.mark.fault


def make(path: Path) -> None:
    """A store with every kind of file: samples, skipped rows, sums for the mean baseline, two blocks of outputs, a
    ragged end."""
    attribute(
        path, n=7, n_folds=4, micro_batch=2, output_block=1, baseline=igc_dist.baselines.Mean(), on_nonfinite="skip",
        n_steps=2,
        statistics=("correlation", "moments"),
    )  # fmt: skip


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A complete store that nobody damages."""
    path = tmp_path_factory.mktemp("whole") / "store.zarr"
    make(path)
    assert Store.existing(path).verify() == []
    return path


def kind(key: str) -> str:
    """The kind of a file: its array, or that it is a document; chunks of one array are of one kind."""
    return re.sub(r"/c\..*", "/c", key)


def kinds(path: Path) -> dict[str, str]:
    """One file of each kind: the last, so that it is not always the first fold's."""
    return {
        kind(p.relative_to(path).as_posix()): p.relative_to(path).as_posix()
        for p in sorted(path.rglob("*"))
        if p.is_file()
    }


def flip(at: float) -> Callable[[Path], None]:
    def damage(file: Path) -> None:
        text = bytearray(file.read_bytes())
        byte = min(int(at * len(text)), len(text) - 1)
        text[byte] ^= 1 << (byte % 7)
        file.write_bytes(bytes(text))

    return damage


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def empty(file: Path) -> None:
    file.write_bytes(b"")


def longer(file: Path) -> None:
    file.write_bytes(file.read_bytes() + b"\n")


def elsewhere(file: Path) -> None:
    """The file is a folder now, as after a careless copy."""
    file.unlink()
    (file / "x").mkdir(parents=True)


DAMAGES: dict[str, Callable[[Path], None]] = {
    "first bit": flip(0.0), "middle bit": flip(0.5), "last bit": flip(1.0), "cut": cut, "empty": empty,
    "longer": longer,
    "deleted": Path.unlink, "a folder": elsewhere,
}  # fmt: skip


def test_the_store_has_every_kind_of_file(whole: Path) -> None:
    """What the parametrised tests walk: if a kind goes missing here, they test less than they say."""
    found = set(kinds(whole))
    documents = {
        "zarr.json",
        "x/zarr.json",
        "shards/zarr.json",
        "samples/zarr.json",
        "convergence/zarr.json",
        "samples/x/zarr.json",
    }
    chunks = {
        "x/igc/c", "x/igc_se/c", "x/ig_mean/c", "correlation/c", "output/c", "convergence/fold/c",
        "convergence/correlation/c",
        "samples/index/c", "samples/x/attribution/c", "samples/delta/c", "shards/predict/record/c",
        "shards/attribute/record/c", "shards/attribute/term/c",
    }  # fmt: skip
    assert found >= documents | chunks | {f"{chunk.removesuffix('c')}zarr.json" for chunk in chunks}


def halves(keys: list[str]) -> list[list[str]]:
    """Every second key, and the others: so that each damaged file has healthy neighbours."""
    return [keys[::2], keys[1::2]]


@pytest.mark.parametrize("damage", DAMAGES)
def test_verify_names_damage_of_any_file(damage: str, whole: Path, tmp_path: Path) -> None:
    """Each damaged file is named, in a line of its own or in its shard's, and no healthy chunk is blamed."""
    keys = [key for key in kinds(whole).values() if key != "zarr.json"]
    for number, chosen in enumerate(halves(keys)):
        path = tmp_path / str(number)
        shutil.copytree(whole, path)
        for key in chosen:
            DAMAGES[damage](path / key)
        lines = Store.existing(path).verify()
        assert [key for key in chosen if not any(key in line for line in lines)] == []
    for number, chosen in enumerate(halves([key for key in keys if not key.endswith("zarr.json")])):
        path = tmp_path / f"chunks-{number}"
        shutil.copytree(whole, path)
        for key in chosen:
            DAMAGES[damage](path / key)
        assert [line for line in Store.existing(path).verify() if not any(key in line for key in chosen)] == []


@pytest.mark.parametrize("damage", DAMAGES)
def test_verify_names_damage_of_the_root(damage: str, whole: Path, tmp_path: Path) -> None:
    """The layout is then read from its copy beside the shards."""
    path = tmp_path / "store.zarr"
    shutil.copytree(whole, path)
    DAMAGES[damage](path / "zarr.json")
    assert Store.existing(path).verify() == ["zarr.json: missing or changed (its seal does not match)"]


@pytest.mark.parametrize("damage", ["middle bit", "cut", "deleted"])
def test_a_rerun_repairs_damage_of_any_file(damage: str, whole: Path, tmp_path: Path) -> None:
    """Half the kinds of files at a time: the same bytes as before. One copy of the spec has to be left."""
    for chosen in halves([key for key in kinds(whole).values() if key != "shards/zarr.json"]):
        path = tmp_path / "store.zarr"
        shutil.copytree(whole, path)
        for key in chosen:
            DAMAGES[damage](path / key)
        make(path)
        assert Store.existing(path).verify() == []
        assert files(path) == files(whole)
        assert arrays(igc_dist.open(path)) == arrays(igc_dist.open(whole))
        shutil.rmtree(path)


DOCUMENTS = {
    "zarr.json": "deleted",
    "shards/zarr.json": "middle bit",
    "x/zarr.json": "middle bit",
    "shards/attribute/record/zarr.json": "cut",
}


def test_a_result_that_is_missing_is_not_read_as_nan(whole: Path, tmp_path: Path) -> None:
    shutil.copytree(whole, tmp_path / "s.zarr")
    (lost,) = (tmp_path / "s.zarr" / "correlation").glob("c.*")
    lost.unlink()
    tree = igc_dist.open(tmp_path / "s.zarr")
    assert np.isfinite(tree["igc_sum"].values).all()
    with pytest.raises(
        StoreError, match=r"s\.zarr is damaged, correlation/c\.0 is missing: run the same command again"
    ):
        _ = tree["correlation"].values


@pytest.mark.parametrize("key", DOCUMENTS)
def test_a_rerun_repairs_a_document_alone(key: str, whole: Path, tmp_path: Path) -> None:
    """Either copy of the spec, or the document of a group or an array, with all else healthy."""
    path = tmp_path / "store.zarr"
    shutil.copytree(whole, path)
    DAMAGES[DOCUMENTS[key]](path / key)
    make(path)
    assert Store.existing(path).verify() == []
    assert files(path) == files(whole)


def test_only_what_is_damaged_is_computed_again(whole: Path, tmp_path: Path) -> None:
    """The healthy shards keep their files."""
    path = tmp_path / "store.zarr"
    shutil.copytree(whole, path)
    store = Store.existing(path)
    phase = store.phases["attribute"]
    flip(0.5)(path / phase.digest_key(1))
    assert store.pending("attribute") == [1]
    assert store.pending("predict") == []
    kept = [key for n in range(len(phase)) if n != 1 for key in (*phase.keys(n), phase.digest_key(n))]
    written = {key: (path / key).stat().st_mtime_ns for key in kept}
    make(path)
    assert {key: (path / key).stat().st_mtime_ns for key in kept} == written
    assert files(path) == files(whole)


def test_damage_to_both_copies_of_the_spec_is_refused(whole: Path, tmp_path: Path) -> None:
    """Nothing says any more what the store holds: neither a reader nor a run may guess."""
    path = tmp_path / "store.zarr"
    shutil.copytree(whole, path)
    for key in ("zarr.json", "shards/zarr.json"):
        flip(0.5)(path / key)
    with pytest.raises(StoreError, match="not a readable igc-dist store"):
        igc_dist.open(path)
    with pytest.raises(StoreError, match="not a readable igc-dist store"):
        Store.existing(path)
    before = files(path)
    with pytest.raises(StoreError, match=r"damaged beyond repair.*give another store\.path, or delete it"):
        make(path)
    assert files(path) == before


def test_every_byte_of_the_root_document_counts(whole: Path, tmp_path: Path) -> None:
    """One flipped bit anywhere in the root's document is noticed, also in what zarr and xarray would not read."""
    path = tmp_path / "store.zarr"
    shutil.copytree(whole, path)
    text = (path / "zarr.json").read_bytes()
    for at in range(0, len(text), max(1, len(text) // 100)):
        changed = bytearray(text)
        changed[at] ^= 1 << (at % 7)
        (path / "zarr.json").write_bytes(bytes(changed))
        assert Store.existing(path).verify() == ["zarr.json: missing or changed (its seal does not match)"], at


@pytest.mark.parametrize("size", [PIECE // 8, PIECE, 5 * PIECE // 2])
def test_every_byte_of_a_large_chunk_counts(size: int, tmp_path: Path) -> None:
    """It is hashed in pieces: the digest is that of its key, size and bytes, and a bit in any piece changes it."""
    arrays = {"x": layout.array("shards/predict/x", "uint8", layout.Dim("part", 1, 1, 0), layout.Dim("feature", size))}
    store = Store(tmp_path / "store", [layout.Phase("predict", (1,), arrays)], {}, "")
    store.prepare({}, {})
    store.write("predict", 0, "x", np.random.default_rng(0).integers(0, 256, (1, size), dtype=np.uint8))
    store.commit("predict", 0)
    (key,) = store.phases["predict"].keys(0)
    file = tmp_path / "store" / key
    stored = file.read_bytes()
    digest = (tmp_path / "store" / store.phases["predict"].digest_key(0)).read_bytes()
    assert digest == hashlib.sha256(f"{key} {len(stored)} ".encode() + stored).digest()
    for at in (0.0, 0.5, 1.0):
        flip(at)(file)
        assert not store.is_done("predict", 0)
        file.write_bytes(stored)
        assert store.is_done("predict", 0)
    file.unlink()
    assert not store.is_done("predict", 0)
