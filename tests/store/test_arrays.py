"""What we write ourselves is what zarr would write, byte by byte; and a seal notices every bit."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
import pytest
import zarr
from zarr.codecs import ZstdCodec
from zarr.storage import MemoryStore

from igc_dist.store import Array, sealed, unsealed
from igc_dist.store.arrays import GROUP, LEVEL, chunks_of, document_of, groups_of
from igc_dist.store.documents import canonical

SHAPES = [((5, 4), (2, 3)), ((3,), (3,)), ((7, 2, 2), (3, 2, 2)), ((), ())]
KINDS = ("float64", "float32", "int64", "uint8", "bool", "datetime64[ns]", "string")


def by_zarr(array: Array, values: np.ndarray, plain: bool) -> dict[str, bytes]:
    memory: dict[str, Any] = {}
    text = array.dtype == "string"
    made = zarr.create_group(MemoryStore(memory), zarr_format=3).create_array(
        array.path, shape=array.shape, chunks=array.chunks or "auto",
        chunk_key_encoding={"name": "default", "separator": "."},
        dtype="string" if text else np.dtype(array.dtype),
        dimension_names=array.dims, compressors=None if plain else [ZstdCodec(level=LEVEL, checksum=True)],
        fill_value="" if text else (np.nan if array.dtype.startswith("f") else 0), config={"write_empty_chunks": True},
    )  # fmt: skip
    made[...] = values
    return {key: value.to_bytes() for key, value in memory.items() if key != "zarr.json"}


@pytest.mark.parametrize(("shape", "chunks"), SHAPES)
@pytest.mark.parametrize("kind", KINDS)
def test_bytes_are_those_of_zarr(kind: str, shape: tuple[int, ...], chunks: tuple[int, ...]) -> None:
    if kind == "string" and shape != chunks:
        pytest.skip("text is written whole")
    array = Array("above/it", shape, chunks, kind, ("x", "y", "z")[: len(shape)])
    numbers = np.asarray(np.random.default_rng(0).normal(size=shape) * 9)
    if kind == "string":
        values: Any = np.array(["é", "", "a\nb"], dtype=object) if shape else np.array("é", dtype=object)
    else:
        values = numbers.astype("int64").astype(kind) if kind.startswith("d") else numbers.astype(kind)
    expected = by_zarr(array, values, plain=False)
    mine = {"above/zarr.json": GROUP, "above/it/zarr.json": document_of(array), **dict(chunks_of(array, values))}
    assert groups_of(array.path) == ["above/zarr.json"]
    assert mine == expected
    assert document_of(array, plain=True) == by_zarr(array, values, plain=True)["above/it/zarr.json"]


def test_a_region_holds_whole_chunks() -> None:
    array = Array("x", (5, 4), (2, 3), "float64", ("a", "b"))
    assert [key for key, _ in chunks_of(array, np.ones((1, 4)), (4,))] == ["x/c.2.0", "x/c.2.1"]
    for shape, start in (((1, 4), (0,)), ((2, 4), (1,)), ((2, 2), (0, 0))):
        with pytest.raises(ValueError, match="cuts chunks"):
            list(chunks_of(array, np.ones(shape), start))


@pytest.mark.parametrize("metadata", [None, {"x": {"attributes": {"seal": "1" * 64}}}])
@pytest.mark.parametrize(
    "attributes", [{}, {"a": 1}, {"z": {"seal": "0" * 64}}, {"a": '\n  "seal": "' + "0" * 64 + '",', "z": [1]}]
)
def test_a_seal_notices_every_bit(attributes: dict[str, Any], metadata: dict[str, Any] | None) -> None:
    document: dict[str, Any] = {"zarr_format": 3, "node_type": "group", "attributes": attributes}
    if metadata is not None:
        document["consolidated_metadata"] = {"kind": "inline", "must_understand": False, "metadata": metadata}
    seal = hashlib.sha256(canonical(document)).hexdigest()
    text = sealed(attributes, metadata)
    assert text == canonical({**document, "attributes": {**attributes, "seal": seal}})
    assert unsealed(text) == attributes
    for at in range(8 * len(text)):
        changed = bytearray(text)
        changed[at // 8] ^= 1 << at % 8
        assert unsealed(bytes(changed)) is None, bytes(changed)
