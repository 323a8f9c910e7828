"""Whatever a stored document says: what zarr gets is refused, or is the document that a run would write for an array of
that shape and type, without compression; and making it anew twice changes nothing."""

from __future__ import annotations

import json
from copy import deepcopy
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from zarr.core.metadata import ArrayV3Metadata

from igc_dist.records import StoreError
from igc_dist.store import Array, arrays, rebuilt
from tests.fuzz.choices import Choices, leaf

OURS = [
    json.loads(arrays.document_of(array, plain))
    for array, plain in (
        (Array("x/igc", (2, 3), (1, 3), "float64", ("output", "feature")), False),
        (Array("shards/predict/digest", (4, 32), (1, 32), "uint8", ("fold", "byte")), True),
        (Array("output", (2,), (2,), "string", ("output",)), False),
        (Array("n", (), (), "bool", ()), False),
    )
] + [{"attributes": {"seal": "x"}, "zarr_format": 3, "node_type": "group"}]


def made_anew(path: str, document: Any) -> dict[str, Any] | None:
    """What zarr gets of a document; None for a group, and for one that is refused."""
    try:
        found = rebuilt.rebuilt(path, document, "place")
        if found is None:
            assert document["node_type"] == "group"
            return None
        served = rebuilt.tree_of({path: found[0]}, "place")["consolidated_metadata"]["metadata"][path]
    except StoreError:
        return None
    served = json.loads(json.dumps(served))  # without anything of the stored document in it
    array, bound = found
    assert served == json.loads(arrays.document_of(array, plain=True))
    assert bound.grid == array.grid
    assert bound.held >= bound.empty >= bound.n
    assert bound.size <= 1 << 31
    ArrayV3Metadata.from_dict(deepcopy(served))
    return dict(served)


@settings(max_examples=400, deadline=None)
@given(
    st.integers(0, len(OURS) - 1), st.binary(max_size=48), st.sampled_from(["x/igc", "a/../b", "c/c/c", "zarr.json"])
)
def test_documents_made_anew(which: int, data: bytes, path: str) -> None:
    choices, document = Choices(data), deepcopy(OURS[which])
    while choices:
        leaf(choices, document)
    served = made_anew(path, document)
    if served is not None:
        assert path in ("x/igc", "c/c/c")
        assert made_anew(path, served) == served
