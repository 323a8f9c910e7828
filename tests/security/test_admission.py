"""Hostile stores, written by hand: zarr gets nothing but documents made anew and chunks within their bounds, and no
command takes more memory than the stored bytes can be worth.

The store is that of the fuzzer, without a run; its documents say `complete`, and everything is sealed anew.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numcodecs.zstd import Zstd
from zarr.core.buffer import default_buffer_prototype
from zarr.core.sync import sync

import igc_dist
from igc_dist.cli import commands
from igc_dist.records import StoreError
from igc_dist.report import compare, write_report
from igc_dist.store import (
    Folder,
    Store,
    array_of,
    attributes,
    bound,
    guarded,
    holder,
    rebuilt,
    record,
    sealed,
    unsealed,
)
from igc_dist.upkeep import compact, merge, verify
from tests.fuzz import stores
from tests.ranks import attribute
from tests.security.test_stores import bounded

BOMB = Zstd(level=1).encode(bytes(1 << 24))
"""16 MiB of zeros in 513 bytes."""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("made") / "store.zarr"
    stores.make(path)
    return path


@pytest.fixture
def store(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "store.zarr"))


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store of a run, whose results can be made again."""
    path = tmp_path_factory.mktemp("ran") / "store.zarr"
    attribute(path, n=7, n_folds=4, micro_batch=2, output_block=1, n_steps=2)
    return path


def changed(store: Path, change: Callable[[dict[str, Any], dict[str, Any]], None], consolidated: bool = True) -> None:
    """Change the root's attributes and consolidated metadata, and seal it anew, as who made the store can."""
    about = unsealed((store / "zarr.json").read_bytes())
    assert about is not None
    metadata = json.loads((store / "zarr.json").read_text())["consolidated_metadata"]["metadata"]
    change(about, metadata)
    (store / "zarr.json").write_bytes(sealed(about, metadata if consolidated else None))


IMPORTED = compare, write_report
"""Before memory is measured."""


def an_array(like: dict[str, Any], shape: list[int], cut: list[int], dims: list[str], kind: str = "float64") -> Any:
    grid = {"name": "regular", "configuration": {"chunk_shape": cut}}
    return {**like, "shape": shape, "chunk_grid": grid, "dimension_names": dims, "data_type": kind}


def put(store: Path, key: str, value: bytes) -> None:
    (store / key).parent.mkdir(parents=True, exist_ok=True)
    (store / key).write_bytes(value)


# -- zarr parses what we write -----------------------------------------------------------------------------------------

PICKLE = {
    "zarr_format": 2,
    "node_type": "group",
    "attributes": {},
    "shape": [1],
    "chunks": [1],
    "dtype": "|O",
    "fill_value": None,
    "order": "C",
    "filters": [{"id": "vlen-utf8"}, {"id": "pickle"}],
    "compressor": None,
    "dimension_separator": ".",
}
"""A group for who looks at `node_type`, an array of pickles for who looks at the format."""

NODES: dict[str, Any] = {
    "a pickle": PICKLE,
    "format 2": {**PICKLE, "dtype": "<f8", "filters": None, "shape": [1 << 24], "chunks": [1 << 24]},
    "format 2 without a kind": {"zarr_format": 2, "attributes": {}},
    "a format that equals 3": {"zarr_format": 3.0, "node_type": "group", "attributes": {}},
    "a format that is true": {"zarr_format": True, "node_type": "group", "attributes": {}},
    "no kind": {"zarr_format": 3, "attributes": {}},
    "another kind": {"zarr_format": 3, "node_type": "pickle", "attributes": {}},
    "text": "group",
    "nothing": None,
}


@pytest.mark.parametrize("kind", NODES)
def test_nodes_of_another_kind(kind: str, store: Path) -> None:
    """In the consolidated metadata, and as a document of its own in a store that is not complete."""
    changed(store, lambda _, metadata: metadata.update(evil=NODES[kind]))
    with bounded(), pytest.raises(StoreError, match=r"evil/zarr\.json describes nothing that a run writes"):
        igc_dist.open(store)
    put(store, "evil/zarr.json", json.dumps(NODES[kind]).encode())
    changed(store, lambda about, _: about.update(status="running"), consolidated=False)
    with bounded(), pytest.raises(StoreError, match=r"evil/zarr\.json (describes nothing|is no document)"):
        igc_dist.open(store, allow_partial=True)


def test_a_group_has_nothing_inside(store: Path) -> None:
    """Consolidated metadata below the root are not read, nor are attributes, nor the formats that lie beside ours."""
    inside = {"kind": "inline", "must_understand": False, "metadata": {"evil": PICKLE}}
    odd = {"attributes": {"scale_factor": 7.0, "dtype": "bool", "coordinates": "x"}, "fill_value": 7.0}

    def change(_: Any, metadata: dict[str, Any]) -> None:
        metadata["x"] = {**metadata["x"], "consolidated_metadata": inside, "attributes": {"evil": 1}}
        metadata["x/igc"] |= odd

    changed(store, change)
    for key in (".zgroup", "x/.zgroup", "evil/.zarray", "x/evil/.zarray", ".zmetadata"):
        put(store, key, json.dumps(PICKLE).encode())
    tree = igc_dist.open(store).load()
    assert [*tree["x"].data_vars] == ["igc"]
    assert "evil" not in [*tree.children, *tree["x"].children]
    assert not tree["x"].attrs | tree["x/igc"].attrs
    assert (tree["x/igc"].values == 1).all()
    assert np.isnan(tree["x/igc"].encoding["fill_value"])


def test_the_guarded_store_denies_by_default(store: Path) -> None:
    """It answers for its one document and for chunks inside of the grid of an admitted array."""
    for key in ("x/igc/c.2.0", "x/igc/c.00.0", "x/igc/c.1.1.1", "x/igc/c.3", "evil/c.0", "user.txt", ".zgroup", "0.0"):
        put(store, key, b"secret")
    admitted = Folder(store).reader()
    keys = [path.relative_to(store).as_posix() for path in store.rglob("*") if path.is_file()]
    inside = [f"shards/attribute/{name}/c.{at}" for name in ("sums", "note") for at in ("0.0", "1.0", "2.0", "0.0.0")]
    keys += inside  # they lie in records
    answered = {key for key in keys if sync(admitted.get(key, default_buffer_prototype())) is not None}
    expected = {"zarr.json"} | {
        f"{name}/c" + "".join(f".{i}" for i in at)
        for name, bound in admitted.bounds.items()
        for at in np.ndindex(bound.grid)
    }
    assert answered == expected
    assert b"seed" not in admitted.documents["zarr.json"]  # nor what the root says about the run
    with pytest.raises(ValueError, match="read-only"):
        sync(admitted.set("x/igc/c.0.0", default_buffer_prototype().buffer.from_bytes(b"")))


def test_what_is_served_is_what_was_admitted(store: Path) -> None:
    """A running store whose consolidated metadata say less than the disk, and a disk that changes afterwards."""
    document = json.loads((store / "x/igc/zarr.json").read_text())
    evil = an_array(document, [2, 1 << 30], [1, 1 << 30], ["output", "feature"])
    put(store, "x/igc/zarr.json", json.dumps(evil).encode())

    def change(about: dict[str, Any], metadata: dict[str, Any]) -> None:
        about["status"] = "running"
        for name in [name for name in metadata if name.startswith("x")]:
            del metadata[name]

    changed(store, change)
    with bounded():
        assert "x" not in igc_dist.open(store, allow_partial=True).load().children
    (store / "x/igc/zarr.json").write_text(json.dumps(document))
    changed(store, lambda about, _: about.update(status="running"), consolidated=False)
    tree = igc_dist.open(store, allow_partial=True)
    put(store, "x/igc/zarr.json", json.dumps(evil).encode())
    with bounded():
        assert tree["x/igc"].shape == tree["x/igc"].values.shape == (2, 3)


def test_single_arrays_are_documents_made_anew_too(store: Path) -> None:
    """As verify, merge and compact read them, from the disk."""
    document = json.loads((store / "x/igc/zarr.json").read_text())
    for evil in (PICKLE, {**document, "codecs": [{"name": "numcodecs.pickle", "configuration": {}}]}):
        put(store, "x/igc/zarr.json", json.dumps(evil).encode())
        with pytest.raises(StoreError, match=r"x/igc/zarr\.json describes"):
            Store.existing(store).array("x/igc")
    put(store, "x/igc/zarr.json", json.dumps({"zarr_format": 3, "node_type": "group", "attributes": {}}).encode())
    with pytest.raises(StoreError, match=r"x/igc/zarr\.json describes a group"):
        Store.existing(store).array("x/igc")


# -- chunks ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("key", "array"),
    [
        ("x/igc/c.0.0", "x/igc"),
        ("x/igc/c/0/0", "x/igc"),
        ("x/igc/c.0/0", ""),
        ("c/c/c.0.0", "c/c"),
        ("samples/c/attribution/c.0", "samples/c/attribution"),
        ("n/c", "n"),
        ("c/c", "c"),
        ("c/zarr.json", ""),
        ("x/c/y/zarr.json", ""),
        ("zarr.json", ""),
        ("c", ""),
    ],
)
def test_a_chunk_belongs_to_one_array(key: str, array: str) -> None:
    """Whose path may have parts that are called as the folder of chunks is."""
    assert array_of(key) == array


@pytest.mark.parametrize("at", ["", ".0", ".2.0", ".0.1", ".00.0", ".0.0.0", ".².0", "." + "9" * 25 + ".0", "/0/0"])
def test_coordinates_outside_of_the_grid(at: str) -> None:
    assert bound.Bound(8, grid=(2, 1)).has("x/igc/c.1.0")
    assert bound.Bound(8, grid=(2, 1), separator="/").has("x/igc/c/1/0")
    assert not bound.Bound(8, grid=(2, 1), separator="/").has("x/igc/c.1.0")
    assert not bound.Bound(8, grid=(2, 1)).has(f"x/igc/c{at}")


def test_a_bomb_in_an_array_whose_path_holds_the_folder_of_chunks(store: Path) -> None:
    def change(_: Any, metadata: dict[str, Any]) -> None:
        metadata["c"] = metadata["x"]
        metadata["c/c"] = an_array(metadata["x/igc"], [2, 3], [2, 3], ["output", "feature"])

    changed(store, change)
    put(store, "c/c/c.0.0", BOMB)
    with bounded(), pytest.raises(StoreError, match=r"c/c/c.0.0 decodes to 16,777,216 bytes, its array declares 48"):
        igc_dist.open(store)["c/c"].load()


def test_only_chunks_that_are_some_count(store: Path) -> None:
    """Empty files, and files outside of the grid, do not make a shape of gigabytes plausible."""

    def change(_: Any, metadata: dict[str, Any]) -> None:
        metadata["x/igc"] = an_array(metadata["x/igc"], [1 << 10, 1 << 17], [1 << 8, 1 << 17], ["output", "feature"])

    changed(store, change)
    for number in range(4):
        put(store, f"x/igc/c.{number}.0", b"")
        put(store, f"x/igc/c.{number + 4}.0", b"something")
        put(store, f"x/igc/c.0{number}.0", b"something")
    with bounded(), pytest.raises(StoreError, match=r"x/igc/zarr\.json describes 4 chunks, 0 are there"):
        igc_dist.open(store)


def test_many_chunks_that_are_not_there(store: Path) -> None:
    """Each one that is filled in takes memory too, however small it is."""

    def change(_: Any, metadata: dict[str, Any]) -> None:
        metadata["x/igc"] = an_array(metadata["x/igc"], [1 << 20, 1], [1, 1], ["output", "feature"])

    changed(store, change)
    with bounded(), pytest.raises(StoreError, match=r"describes 1,048,576 chunks, [02] are there"):
        igc_dist.open(store)


def test_a_bomb_in_a_shard(store: Path, ran: Path, tmp_path: Path) -> None:
    """Sealed by its digest, as who made the store can: whatever reads shards decodes them within their bound."""
    bomb = Store.existing(store)
    bomb.objects.set(bomb.phases["predict"].keys(0)[0], BOMB)
    bomb.commit("predict", 0)
    assert bomb.is_done("predict", 0)
    for read in (lambda: bomb.read_own("predict", 0, "target"), lambda: bomb.read("predict", "target")):
        with bounded(), pytest.raises(StoreError, match="decodes to 16,777,216 bytes, its array declares 32"):
            read()
    path = Path(shutil.copytree(ran, tmp_path / "ran.zarr"))
    its = Store.existing(path)
    family = its.phases["attribute"]
    its.objects.set(family.digest_key(0), record.joined(BOMB, its._digest(family, 0, BOMB) or b""))
    assert its.is_done("attribute", 0)
    for use in (verify, lambda path: compact(path, tmp_path / "out")):
        with bounded(), pytest.raises(StoreError, match=r"decodes to 16,777,216 bytes"):
            use(path)


@pytest.mark.timeout(60)
@pytest.mark.parametrize("key", ["shards/predict/digest/c.0.0", "shards/predict/target/c.0.0", "x/igc/c.0.0"])
def test_a_chunk_of_a_terabyte(key: str, store: Path, tmp_path: Path) -> None:
    """Sparse, so that it costs nothing here: it is refused before a byte of it is read."""
    with (store / key).open("r+b") as file:
        file.truncate(1 << 40)
    uses: list[Callable[[], Any]] = [
        lambda: igc_dist.open(store),
        lambda: Store.existing(store).verify(),
        lambda: Folder(store).get(key),
    ]
    if key.startswith("shards/"):
        uses.append(lambda: merge([store, store], tmp_path / "out"))
    for use in uses:
        with bounded(), pytest.raises(StoreError, match=rf"{key} has 1,099,511,627,776 bytes"):
            use()


# -- memory ------------------------------------------------------------------------------------------------------------

COMMANDS = {"report": ("report", "A"), "compare": ("compare", "A", "B"), "info": ("info", "A")}


@pytest.mark.parametrize("command", COMMANDS)
def test_results_that_are_much_larger_than_the_store(command: str, store: Path, tmp_path: Path) -> None:
    """256 MiB of zeros in 64 chunks of a few bytes, each of which is fine alone: refused before one is decoded."""

    def change(_: Any, metadata: dict[str, Any]) -> None:
        metadata["x/igc"] = an_array(metadata["x/igc"], [2, 32, 1 << 19], [1, 1, 1 << 19], ["output", "row", "feature"])

    changed(store, change)
    for chunk in store.glob("x/igc/c.*"):
        chunk.unlink()
    chunk = Zstd(level=1).encode(bytes(1 << 22))
    for output, row in np.ndindex(2, 32):
        put(store, f"x/igc/c.{output}.{row}.0", chunk)
    shutil.copytree(store, tmp_path / "B")
    arguments = [str(store if name == "A" else tmp_path / name) for name in COMMANDS[command][1:]]
    with bounded(), pytest.raises(StoreError, match=r"would take 2\d\d,\d{3},\d{3} in memory"):
        commands.call(command, arguments)
    with bounded():
        assert igc_dist.open(store)["x/igc"][0, 0].values.sum() == 0  # one of them is read on request


def test_verify_has_a_budget_too(ran: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """For all that it reads: shards and samples."""
    monkeypatch.setattr(guarded, "LEAST", 0)
    monkeypatch.setattr(guarded, "RATIO", 1)
    for use in (verify, lambda path: compact(path, tmp_path / "out")):
        with pytest.raises(StoreError, match="in memory, more than 1 times as many"):
            use(ran)


def test_coordinates_that_are_read_at_once(store: Path) -> None:
    """Three indexes of 60 MB that are not there: each could be filled in alone."""

    def change(_: Any, metadata: dict[str, Any]) -> None:
        for group in "abc":
            metadata[group] = metadata["x"]
            metadata[f"{group}/n"] = an_array(metadata["x/igc"], [7_500_000], [7_500_000], ["n"])

    changed(store, change)
    with bounded(), pytest.raises(StoreError, match=r"would take 18\d,\d{3},\d{3} in memory"):
        igc_dist.open(store)


@pytest.mark.timeout(60)
def test_many_empty_groups(store: Path) -> None:
    """They are not opened: there is nothing in them."""
    group = {"zarr_format": 3, "node_type": "group", "attributes": {}}
    changed(store, lambda _, metadata: metadata.update({f"g{number}": group for number in range(3000)}))
    assert {*igc_dist.open(store).children} == {"shards", "samples", "x"}


@pytest.mark.parametrize(
    ("names", "what"),
    [
        ([f"g{number}/a" for number in range(20)], "groups, a run writes at most 20"),
        ([f"x/a{number}" for number in range(30)], "arrays, a run writes at most 30"),
        (["/".join("a" * 9)], "describes nothing that a run writes"),
        (["x/igc/a"], "x/igc is an array and holds another one"),
    ],
)
def test_trees_that_no_run_writes(names: list[str], what: str, store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rebuilt, "MAX_GROUPS", 20)
    monkeypatch.setattr(rebuilt, "MAX_ARRAYS", 30)
    changed(store, lambda _, metadata: metadata.update(dict.fromkeys(names, metadata["x/igc"])))
    with pytest.raises(StoreError, match=what):
        igc_dist.open(store)


# -- what the root says ------------------------------------------------------------------------------------------------

WRONG: dict[str, Any] = {
    "spec": [],
    "spec_hash": 7,
    "status": 7,
    "error": ["a"],
    "method": {"a": 1},
    "provenance": 7,
    "recipe": [1],
    "cost": {"forwards": [1]},
    "budget": {"folds": "many", "of": 3},
    "budget.reason": {"reason": 7},
    "budget.used": {"used": 7},
    "fallback": {},
    "sums_to_prediction": "yes",
    "digests": 7,
    "skipped": 7,
    "skipped.entry": [7],
    "skipped.index": [{"index": [1], "reason": "a"}],
    "retried": 7,
    "retried.entry": [{"shard": 0, "micro_batch": 7}],
    "layout": {"a": 1},
    "schema": "4",
}


@pytest.mark.parametrize("name", WRONG)
def test_entries_of_another_type(name: str, store: Path) -> None:
    """For every command: an error of ours that says what is wrong."""
    changed(store, lambda about, _: about.update({name.partition(".")[0]: WRONG[name]}))
    for read in (igc_dist.open, attributes, Store.existing, lambda path: commands.call("info", [str(path)])):
        with pytest.raises(StoreError, match=r"says what no run|names no version"):
            read(store)


def test_arrays_that_do_not_go_together(store: Path, tmp_path: Path) -> None:
    """Other shapes than the outputs have: no traceback from what reads arrays side by side."""

    def change(_: Any, metadata: dict[str, Any]) -> None:
        metadata["correlation"] = an_array(metadata["x/igc"], [2, 2], [2, 2], ["a", "b"])
        metadata["constant"] = an_array(metadata["x/igc"], [1], [1], ["c"])

    changed(store, change)
    for command in (("report", str(store), str(tmp_path)), ("compare", str(store), str(store) + "/.")):
        with pytest.raises(StoreError, match="do not go together"):
            commands.call(command[0], command[1:])


def test_a_deep_document(store: Path) -> None:
    """Four hundred levels in the spec: refused before anything calls itself as often."""
    spec: Any = 1
    for _ in range(400):
        spec = {"a": spec}
    changed(store, lambda about, _: about.update(spec={"a": spec}))
    for read in (igc_dist.open, attributes, lambda path: commands.call("info", [str(path)])):
        with pytest.raises(StoreError, match="is not a readable igc-dist store"):
            read(store)


# -- beside the store --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "changes",
    [
        {"seed": 10**40},
        {"seed": 0.5},
        {"pieces": [[10**15, 10**14]]},
        {"work": None},
        {"host_memory": "a"},
    ],
)
def test_recipes_that_lie(changes: dict[str, Any], ran: Path, tmp_path: Path) -> None:
    path = Path(shutil.copytree(ran, tmp_path / "store.zarr"))
    changed(path, lambda about, _: about["recipe"]["plan"].update(changes))
    with bounded(), pytest.raises(StoreError, match=r"no run writ|no run wrote"):
        verify(path)


def test_a_budget_of_more_folds_than_there_are(ran: Path, tmp_path: Path) -> None:
    path = Path(shutil.copytree(ran, tmp_path / "store.zarr"))
    changed(path, lambda about, _: about["budget"].update(used={"attribute": 10**9}))
    with bounded(), pytest.raises(StoreError, match="more folds than there are"):
        compact(path, tmp_path / "out")


LOCKS: dict[str, bytes] = {
    "deep": b"[" * 50_000,
    "a process of all": json.dumps(
        {"owner": {"host": "a", "machine": "b", "pid": -1, "began": 0}, "ranks": 1, "since": 0, "token": "t", "beat": 0}
    ).encode(),
    "a number that is none": b'{"owner": {"host": "a", "machine": "b", "pid": NaN, "began": 1e999}}',
    "no time": json.dumps(
        {"owner": {"host": "\x1b[2J", "machine": "b", "pid": 7, "began": 0}, "ranks": 1, "since": 1e300, "token": "t",
         "beat": 0}
    ).encode(),
}  # fmt: skip


@pytest.mark.parametrize("kind", LOCKS)
def test_locks_that_lie(kind: str, store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """No advice to end the processes of others, no escapes, and a store with them opens."""
    put(store, ".lock-000007", LOCKS[kind])
    put(store, ".lock-" + "9" * 200, LOCKS[kind])
    put(store, ".beacon", LOCKS[kind])
    found = holder(Folder(store))
    assert found is None if kind != "no time" else "\x1b" not in str(found) and "an unknown time" in str(found)
    assert commands.call("info", [str(store)]) == 0
    assert "\x1b" not in capsys.readouterr().out


def test_a_lock_of_megabytes(store: Path) -> None:
    put(store, ".lock-000007", b"")
    with (store / ".lock-000007").open("r+b") as file:
        file.truncate(1 << 20)
    with bounded(), pytest.raises(StoreError, match=r"\.lock-000007 has 1,048,576 bytes"):
        holder(Folder(store))


def test_a_shard_that_is_much_larger_than_its_array_is_not_merged(store: Path, tmp_path: Path) -> None:
    """Although its digest is right."""
    its = Store.existing(store)
    its.objects.set(its.phases["predict"].keys(0)[0], bytes(1 << 16))
    its.commit("predict", 0)
    with pytest.raises(StoreError, match="has 65,536 bytes, such a chunk of a store has at most 1,056"):
        merge([store, store], tmp_path / "out")
