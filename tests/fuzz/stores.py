"""A small store whose files are changed as a fuzzer says, half the time sealed anew as who made it can: it is read, or
refused."""

from __future__ import annotations

import json
import os
import shutil
import warnings
from pathlib import Path

import numpy as np

from igc_dist.records import StoreError
from igc_dist.store import (
    Array,
    Dim,
    Phase,
    Store,
    admission,
    array,
    bound,
    guarded,
    reading,
    rebuilt,
    sealed,
    unsealed,
)
from tests.fuzz.choices import Choices, leaf

LAYOUT = (
    Phase(
        "predict", (2,), {"target": array("shards/predict/target", "float64", Dim("row", 3, 2, 0), Dim("output", 2))}
    ),
    Phase(
        "attribute",
        (2, 1),
        {
            "sums": array("shards/attribute/sums", "float64", Dim("part", 2, 1, 0), Dim("output", 2, 2, 1)),
            "note": array("shards/attribute/note", "int64", Dim("part", 2, 1, 0), Dim("block", 1, 1, 1)),
        },
        packed=("note", "sums"),
    ),
)
RESULTS = {
    Array("output", (2,), (2,), "string", ("output",)): np.array(["left", "right"], dtype=object),
    Array("x/igc", (2, 3), (1, 3), "float64", ("output", "feature")): np.ones((2, 3)),
    Array("samples/index", (3,), (3,), "int64", ("sample",)): np.array([2, 0, 1]),
    Array("samples/delta", (3, 2), (3, 2), "float32", ("sample", "output")): np.zeros((3, 2)),
}
SMALL = 1 << 22
"""Bytes of a chunk and a document here at most, so that what is not bounded by them shows."""


def make(path: Path) -> None:
    """A complete store without a run."""
    store = Store(path, LAYOUT, {"seed": 0}, "hash")
    store.prepare({"host": "a"}, {})
    for phase in LAYOUT:
        for number in range(len(phase)):
            for name, one in phase.arrays.items():
                store.write(
                    phase.name, number, name, np.ones([cut.stop - cut.start for cut in one.region(phase.cell(number))])
                )
            store.commit(phase.name, number)
    store.create_results(RESULTS)
    for one, values in RESULTS.items():
        store.put(one, values)
    store.complete({"budget": {"wish": {}, "used": {"predict": 2}}, "provenance": {}, "method": "igc"})


class Target:
    """What a fuzzer calls with bytes."""

    def __init__(self, folder: Path) -> None:
        limits = dict.fromkeys(("MAX_CHUNK", "MAX_TEXT", "MAX_DOCUMENT"), SMALL)
        limits |= dict.fromkeys(("MAX_SHARDS", "MAX_CHUNKS"), 1000) | {"LEAST": 64 << 20}
        for module in (admission, bound, guarded, rebuilt):
            for name in limits.keys() & vars(module).keys():
                setattr(module, name, limits[name])
        self.path = folder / "store.zarr"
        make(self.path)
        self.whole = {
            p.relative_to(self.path).as_posix(): p.read_bytes() for p in sorted(self.path.rglob("*")) if p.is_file()
        }
        self.touched: set[str] = set()
        self.story: list[str] = []

    def __call__(self, data: bytes) -> None:
        self.restore()
        choices = Choices(data)
        self.root(choices)
        for _ in range(3):
            if choices:
                self.file(choices)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of zarr, about what it does not know
            for read in (self.verify, self.open):
                try:
                    read()
                except StoreError:
                    continue

    def verify(self) -> None:
        Store.existing(self.path).verify()

    def open(self) -> None:
        reading.open(self.path, allow_partial=True).load()

    def restore(self) -> None:
        """The files as they were."""
        self.story.clear()
        for key in self.touched:
            file = self.path / key
            if file.is_dir() and not file.is_symlink():
                shutil.rmtree(file)
            else:
                file.unlink(missing_ok=True)
            if key in self.whole:
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_bytes(self.whole[key])
        self.touched.clear()

    def put(self, key: str, value: bytes) -> None:
        self.touched.add(key)
        (self.path / key).write_bytes(value)

    def root(self, choices: Choices) -> None:
        """Leaves of the root's document; the seal is right."""
        wish = choices.below(8)
        if wish == 0:
            return
        document = json.loads(self.whole["zarr.json"])
        about = unsealed(self.whole["zarr.json"]) or {}
        everything = {"attributes": about, "metadata": document["consolidated_metadata"]["metadata"]}
        for _ in range(choices.below(3) + 1):
            self.story.append(leaf(choices, everything["metadata" if choices.below(2) else "attributes"]))
        if choices.below(8) == 0:  # arrays are then described by their own documents
            about["status"] = "running"
        try:
            text = sealed(everything["attributes"], everything["metadata"] if choices.below(4) else None)
        except (ValueError, RecursionError):  # no JSON
            return
        self.put("zarr.json", text)
        if wish == 1:
            self.put("shards/zarr.json", text)

    def file(self, choices: Choices) -> None:
        """One file: some bytes, cut, gone, a link, a folder, or another's content."""
        key = choices.of([*self.whole])
        how = choices.below(9)
        text, file = bytearray(self.whole[key]), self.path / key
        self.story.append(f"file {key}: way {how}")
        self.touched.add(key)
        if not file.is_file() or file.is_symlink():
            return
        if how <= 2 and text:
            at = choices.below(len(text))
            new = choices.bytes(choices.below(5) + 1)
            text[at : at + len(new)] = new
            file.write_bytes(text)
        elif how == 3:
            file.write_bytes(text[: choices.below(len(text) + 1)])
        elif how == 4:
            file.write_bytes(self.whole[choices.of([*self.whole])])
        elif how == 5 and key.endswith("zarr.json"):
            document = json.loads(text)
            self.story.append(leaf(choices, document))
            file.write_text(json.dumps(document))
        elif how == 6:
            file.write_bytes(choices.bytes(choices.below(64)))
        elif how == 7:
            file.unlink()
            os.symlink(choices.of(["/etc/passwd", file.name, "zarr.json", "/dev/zero", ".."]), file)
        elif how == 8:
            file.unlink()
            if choices.below(2):
                file.mkdir()
