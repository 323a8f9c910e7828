"""Stores of others are read as data: what is too large, of another kind, or elsewhere is refused by name and in bounded
memory."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numcodecs.zstd import Zstd

import igc_dist
from igc_dist.records import StoreError
from igc_dist.store import Folder, Store, bound, parsed, sealed, unsealed
from tests.ranks import attribute

pytestmark = pytest.mark.filterwarnings("ignore:The `srun` command")

MEMORY = 32 << 20
"""Bytes that refusing a store may take."""


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A complete store."""
    path = tmp_path_factory.mktemp("whole") / "store.zarr"
    attribute(path, n=7, n_folds=4, micro_batch=2, output_block=1, n_steps=2)
    igc_dist.open(path).load()  # what reading imports is no memory of a store
    return path


@pytest.fixture
def store(whole: Path, tmp_path: Path) -> Path:
    """A copy of it."""
    return Path(shutil.copytree(whole, tmp_path / "store.zarr"))


@contextmanager
def bounded() -> Iterator[None]:
    """Fails if the process holds `MEMORY` more meanwhile.

    By Linux's count of its peak, which costs nothing: tracemalloc doubled the time of these tests.
    """
    counted = Path("/proc/self/clear_refs")
    if not counted.exists():
        yield
        return
    counted.write_text("5")  # the peak is what is held now
    before = _peak()
    yield
    assert _peak() - before < MEMORY


def _peak() -> int:
    """The most bytes that the process held in memory."""
    return 1024 * int(re.findall(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())[0])


def rewrite(store: Path, change: Callable[[dict[str, Any], dict[str, Any]], None]) -> None:
    """Change the attributes and the consolidated metadata of the root, and seal it anew, as who made the store can."""
    document = json.loads((store / "zarr.json").read_text())
    attributes = unsealed((store / "zarr.json").read_bytes())
    assert attributes is not None
    metadata = document["consolidated_metadata"]["metadata"]
    change(attributes, metadata)
    (store / "zarr.json").write_bytes(sealed(attributes, metadata))


def set_at(document: Any, keys: str, value: Any) -> None:
    *first, last = [int(key) if key.isdigit() else key for key in keys.split(".")]
    for key in first:
        document = document[key]
    document[last] = value


def test_a_store_of_ours_is_admitted(store: Path) -> None:
    """With what each array may decode to; and all of it is read."""
    bounds = Folder(store).reader().bounds
    assert bounds["x/igc"] == bound.Bound(5 * 8, grid=(2, 1))
    assert bounds["shards/attribute/term"].texts == 2
    assert bounds["shards/predict/record"].packed
    assert not bounds["shards/predict/target"].packed  # it is cut out of decoded records
    igc_dist.open(store).load()
    assert Store.existing(store).verify() == []


# -- arrays that lie ---------------------------------------------------------------------------------------------------

ARRAYS = {
    "a huge map": ("x/igc", "shape", [10**12, 5]),
    "a huge index": ("samples/index", "shape", [10**12]),
    "a huge coordinate": ("convergence/fold", "shape", [10**10]),
    "a huge chunk": ("x/igc", "chunk_grid.configuration.chunk_shape", [10**12, 5]),
    "many chunks of a shard": ("shards/attribute/record", "shape", [10**9, 2, 5]),
    "a negative shape": ("x/igc", "shape", [-2, 5]),
    "a shape of booleans": ("x/igc", "shape", [True, 5]),
    "a shape of text": ("x/igc", "shape", "25"),
    "chunks of nothing": ("x/igc", "chunk_grid.configuration.chunk_shape", [0, 5]),
    "too few dimensions": ("x/igc", "chunk_grid.configuration.chunk_shape", [2]),
    "objects": ("x/igc", "data_type", "object"),
    "objects of numpy": ("x/igc", "data_type", "|O"),
    "a structure": ("x/igc", "data_type", {"name": "structured", "configuration": {"fields": [["a", "float64"]]}}),
    "bytes of any length": ("x/igc", "data_type", "variable_length_bytes"),
    "another codec": ("x/igc", "codecs", [{"name": "bytes"}, {"name": "gzip", "configuration": {"level": 1}}]),
    "a pickle": ("x/igc", "codecs", [{"name": "numcodecs.pickle", "configuration": {}}]),
    "text as numbers": ("x/igc", "codecs", [{"name": "vlen-utf8"}]),
    "shards in shards": ("x/igc", "codecs", [{"name": "sharding_indexed", "configuration": {}}]),
    "a transformer": ("x/igc", "storage_transformers", [{"name": "x"}]),
    "other keys": ("x/igc", "chunk_key_encoding", {"name": "default", "configuration": {"separator": "/../"}}),
    "the other order": ("x/igc", "codecs.0.configuration.endian", "big"),
    "dimensions elsewhere": ("x/igc", "dimension_names", ["output", "../feature"]),
    "no grid": ("x/igc", "chunk_grid", {}),
    "no array": ("x/igc", "node_type", ["array"]),
}  # fmt: skip


@pytest.mark.parametrize("lie", ARRAYS)
def test_arrays_that_lie(lie: str, store: Path) -> None:
    """In the consolidated metadata of a complete store, and in the documents of one that is not; the file is named."""
    array, keys, value = ARRAYS[lie]
    rewrite(store, lambda attributes, metadata: set_at(metadata[array], keys, value))
    with bounded(), pytest.raises(StoreError, match=array):
        igc_dist.open(store).load()
    document = json.loads((store / array / "zarr.json").read_text())
    set_at(document, keys, value)
    (store / array / "zarr.json").write_text(json.dumps(document))
    attributes = unsealed((store / "zarr.json").read_bytes())
    (store / "zarr.json").write_bytes(sealed({**(attributes or {}), "status": "running"}))
    with bounded(), pytest.raises(StoreError, match=array):
        igc_dist.open(store, allow_partial=True).load()


@pytest.mark.parametrize(
    "name",
    [
        "../outside",
        "/etc",
        "x/../../y",
        "x//y",
        "a\0b",
        "x/..",
        "a\\b",
        "a" * 256,
        "é" * 200,
        "a/" * 600 + "a",
        "\ud800",
    ],
)
def test_arrays_elsewhere(name: str, store: Path) -> None:
    rewrite(store, lambda attributes, metadata: metadata.update({name: metadata["x/igc"]}))
    with pytest.raises(StoreError, match="is no name of an object in it"):
        igc_dist.open(store)
    rewrite(store, lambda attributes, metadata: (metadata.pop(name), attributes["digests"].update({name: "0"}))[0])
    for read in (igc_dist.open, Store.existing):
        with pytest.raises(StoreError, match="is no name of an object in it"):
            read(store)
    with pytest.raises(StoreError, match="is no name of an object in it"):
        Folder(store).get(name)


# -- chunks that lie ---------------------------------------------------------------------------------------------------


def streamed(values: bytes) -> bytes:
    """A zstd frame of one raw block that does not say its size."""
    return bound.MAGIC + b"\x00\x00" + (len(values) << 3 | 1).to_bytes(3, "little") + values


CHUNKS = {
    "a bomb": ("x/igc/c.0.0", Zstd().encode(bytes(1 << 24)), r"decodes to 16,777,216 bytes, its array declares 40"),
    "too little": ("x/igc/c.0.0", Zstd().encode(bytes(39)), "decodes to 39 bytes, its array declares 40"),
    "no size": ("x/igc/c.0.0", streamed(bytes(40)), "does not say its size"),
    "no zstd": ("x/igc/c.0.0", b"PK\x03\x04 and so on", "does not say its size"),
    "nothing": ("x/igc/c.0.0", b"", "does not say its size"),
    "a size of its own": (
        "x/igc/c.0.0",
        bound.MAGIC + b"\xe0" + b"\xff" * 8,
        "decodes to 18,446,744,073,709,551,615 bytes",
    ),
    "more than it may": ("x/igc/c.0.0", bytes(2000), "has 2,000 bytes, its array declares chunks of 40"),
    "many strings": (
        "shards/attribute/term/c.0",
        Zstd().encode(b"\xff\xff\xff\xff" + bytes(9)),
        "holds 4,294,967,295 strings",
    ),
    "long strings": ("shards/attribute/term/c.0", Zstd().encode(bytes(1 << 27)), "decodes to 134,217,728 bytes"),
    "a bomb in a record": ("shards/predict/record/c.0.0", Zstd().encode(bytes(1 << 24)), "decodes to 16,777,216 bytes"),
    "a record without its digest": ("shards/predict/record/c.0.0", Zstd().encode(bytes(39)), "decodes to 39 bytes"),
    "half a frame": ("x/igc/c.0.0", Zstd().encode(np.random.default_rng(0).bytes(40))[:-9], "does not decode"),
    "strings that are none": ("shards/attribute/term/c.0", Zstd().encode(b"\2\0\0\0" + b"\xff" * 9), "does not decode"),
    "strings that are cut": ("shards/attribute/term/c.0", Zstd().encode(b"\2\0\0"), "does not decode"),
}


@pytest.mark.parametrize("lie", CHUNKS)
def test_chunks_that_lie(lie: str, store: Path) -> None:
    key, value, message = CHUNKS[lie]
    (store / key).write_bytes(value)
    with bounded(), pytest.raises(StoreError, match=message) as error:
        igc_dist.open(store).load()
    assert key in str(error.value)


@pytest.mark.parametrize("size", [0, 1, 255, 256, 257, 65_791, 65_792, 1 << 20])
def test_frames_say_their_size(size: int) -> None:
    """Every width of the field."""
    assert bound._frame(Zstd(checksum=True).encode(bytes(size))) == (
        size or bound._frame(Zstd(checksum=True).encode(b""))
    )
    assert bound._frame(Zstd().encode(np.random.default_rng(0).bytes(size or 3))) == (size or 3)


# -- documents ---------------------------------------------------------------------------------------------------------

DEEP = b"[" * 100_000 + b"]" * 100_000
DOCUMENTS = {
    "deep": b'{"attributes": {"seal": ' + DEEP + b"}}",
    "deep objects": b'{"attributes":' * 50_000 + b"1" + b"}" * 50_000,
    "nan": b'{"attributes": {"seal": "x", "a": NaN}}',
    "infinity": b'{"attributes": {"seal": "x", "a": -Infinity}}',
    "twice": b'{"attributes": {"seal": "x"}, "attributes": {"seal": "y"}}',
    "a long number": b'{"attributes": {"seal": ' + b"9" * 100_000 + b"}}",
    "a list": b"[1, 2]",
    "text": b'"attributes"',
    "bytes": b"\xff\xfe\x00",
    "empty": b"",
}


@pytest.mark.parametrize("name", DOCUMENTS)
def test_documents_that_are_none(name: str, store: Path) -> None:
    """No root is readable then; other documents are refused by name."""
    if name != "twice" and not name.startswith("a "):
        with pytest.raises(ValueError):  # noqa: PT011 - or what json says
            parsed(DOCUMENTS[name])
    assert unsealed(DOCUMENTS[name]) is None
    (store / "zarr.json").write_bytes(DOCUMENTS[name])
    (store / "shards" / "zarr.json").write_bytes(DOCUMENTS[name])
    for read in (igc_dist.open, Store.existing):
        with bounded(), pytest.raises(StoreError, match="is not a readable igc-dist store"):
            read(store)


def test_a_document_below_the_root(store: Path) -> None:
    attributes = unsealed((store / "zarr.json").read_bytes())
    (store / "zarr.json").write_bytes(sealed({**(attributes or {}), "status": "running"}))
    for text in (b'{"a": 1, "a": 2}', DOCUMENTS["deep"], DOCUMENTS["nan"], b"[]"):
        (store / "x" / "igc" / "zarr.json").write_bytes(text)
        with bounded(), pytest.raises(StoreError, match=r"x/igc/zarr\.json is no document of a store"):
            igc_dist.open(store, allow_partial=True)


@pytest.mark.parametrize("key", ["zarr.json", "shards/zarr.json", "x/igc/zarr.json"])
def test_a_document_of_a_gigabyte(key: str, store: Path) -> None:
    """Sparse, so that it costs nothing here; it is refused before it is read."""
    os.truncate(store / key, 1 << 30)
    with (
        bounded(),
        pytest.raises(StoreError, match=rf"{key} has 1,073,741,824 bytes, a document of a store has at most"),
    ):
        igc_dist.open(store)
    with bounded(), pytest.raises(StoreError, match=rf"{key} has 1,073,741,824 bytes"):
        Store.existing(store)
    with bounded(), pytest.raises(StoreError, match=rf"{key} has 1,073,741,824 bytes"):
        Folder(store).get(key)


LAYOUTS = {
    "many shards": ("layout.0.grid", [10**12]),
    "a huge shape": ("layout.0.arrays.prediction.shape", [10**15, 2]),
    "a negative shape": ("layout.0.arrays.prediction.shape", [-7, 2]),
    "chunks of nothing": ("layout.0.arrays.prediction.chunks", [0, 2]),
    "a huge chunk": ("layout.0.arrays.prediction.chunks", [10**12, 2]),
    "a path elsewhere": ("layout.0.arrays.prediction.path", "../../etc/passwd"),
    "an absolute path": ("layout.0.arrays.prediction.path", "/etc/passwd"),
    "a name elsewhere": ("layout.0.name", "../x"),
    "an axis that is not there": ("layout.0.arrays.prediction.axes", [7, None]),
    "objects": ("layout.0.arrays.prediction.dtype", "O"),
    "no number": ("layout.0.grid", ["4"]),
    "a field more": ("layout.0.arrays.prediction.c", 1),
    "a field less": ("layout.0.arrays.prediction", {"path": "shards/predict/prediction"}),
    "names that are none": ("layout.0.arrays.prediction.dims", [7, None]),
    "an array at another's place": ("layout.0.arrays.prediction.path", "shards/predict/target"),
    "an array below another": ("layout.0.arrays.prediction.path", "shards/predict/target/c"),
    "an array at a record's place": ("layout.0.arrays.prediction.path", "shards/predict/record"),
    "a packed array that is none": ("layout.0.packed", ["nothing"]),
    "an array that is packed twice": ("layout.0.packed", ["bad", "bad"]),
    "packed text": ("layout.0.packed", "bad"),
    "a packed array of many chunks": ("layout.0.arrays.bad.chunks", [1]),
    "a packed array of no shard": ("layout.0.arrays.bad.axes", [None]),
    "a packed array of all shards": ("layout.1.arrays.scalars.axes", [0, None, None, None]),
    "keys elsewhere": ("layout.0.arrays.bad.separator", "/../"),
    "no arrays": ("layout.0", {"name": "predict", "grid": [4], "arrays": {}}),
    "no layout": ("layout", 7),
    "no phase": ("layout.0", [1, 2]),
    "no spec": ("spec", None),
    "no digests": ("digests", ["a"]),
    "digests of numbers": ("digests", {"x/igc/c.0.0": 7}),
    "no budget": ("budget.used", {"predict": "all"}),
}


@pytest.mark.parametrize("lie", LAYOUTS)
def test_layouts_that_lie(lie: str, store: Path) -> None:
    """Before a list of shards or of keys is made."""
    rewrite(store, lambda attributes, metadata: set_at(attributes, *LAYOUTS[lie]))
    for read in (igc_dist.open, Store.existing):
        with bounded(), pytest.raises(StoreError, match=r"its root document zarr\.json says what no run writes"):
            read(store)


def test_samples_without_their_dimension(store: Path) -> None:
    """Found by the fuzzer: there is an index of the samples, and nothing that it could be of."""

    def rename(attributes: dict[str, Any], metadata: dict[str, Any]) -> None:
        for key, about in metadata.items():
            if key.startswith("samples/") and about["node_type"] == "array":
                about["dimension_names"] = [f"{name}_" for name in about["dimension_names"]]

    rewrite(store, rename)
    with pytest.raises(
        StoreError, match=r"cannot be read as a tree \(ValueError: Dimensions \{'sample'\} do not exist"
    ):
        igc_dist.open(store)


# -- links -------------------------------------------------------------------------------------------------------------


def test_links_that_lead_out(store: Path, tmp_path: Path) -> None:
    """A file, a folder, a pipe: none is followed. A store that is a link itself is fine."""
    (tmp_path / "secret").write_bytes((store / "x/igc/c.0.0").read_bytes())
    (store / "x/igc/c.0.0").unlink()
    (store / "x/igc/c.0.0").symlink_to(tmp_path / "secret")
    with pytest.raises(StoreError, match=r"x/igc/c\.0\.0 is a link that leads out of the store"):
        igc_dist.open(store)
    (store / "x/igc/c.0.0").unlink()
    os.mkfifo(store / "x/igc/c.0.0")
    with pytest.raises(StoreError, match="is neither a file nor a folder"):
        igc_dist.open(store)
    (store / "x/igc/c.0.0").unlink()
    shutil.copy(tmp_path / "secret", store / "x/igc/c.0.0")
    (store / "y").symlink_to(tmp_path)
    with pytest.raises(StoreError, match="y is a link that leads out of the store"):
        igc_dist.open(store)
    (store / "y").unlink()
    (tmp_path / "link.zarr").symlink_to(store)
    igc_dist.open(tmp_path / "link.zarr").load()


@pytest.mark.parametrize("key", ["x/igc/c.0.0", "x/zarr.json", "zarr.json"])
def test_links_to_themselves(key: str, store: Path) -> None:
    """Found by the fuzzer: the system refuses to look where they lead."""
    (store / key).unlink()
    (store / key).symlink_to(store / key)
    for read in (igc_dist.open, Store.existing):
        with pytest.raises(
            StoreError, match=rf"{key} is a link that leads out of the store, or to no file|cannot be read"
        ):
            read(store)


@pytest.mark.timeout(20)
@pytest.mark.parametrize("key", ["zarr.json", "shards/attribute/record/c.0.0.0"])
def test_what_never_ends_is_not_read(key: str, store: Path) -> None:
    """A device or a pipe in the place of a file, found by the fuzzer; by a run that would go on there too."""
    assert (store / key).is_file()
    for put in (lambda file: file.symlink_to("/dev/null"), os.mkfifo):
        (store / key).unlink()
        put(store / key)
        with pytest.raises(StoreError, match=rf"{key} is no file"):
            Folder(store).get(key)
        for use in (
            igc_dist.open,
            lambda path: attribute(path, n=7, n_folds=4, micro_batch=2, output_block=1, n_steps=2),
        ):
            with pytest.raises(StoreError, match=rf"{key} is (no file|a link that leads out|neither a file)"):
                use(store)
