"""A store under any sequence of writes, crashes, damages and resumes: what counts as done is what was committed, to the
byte."""

from __future__ import annotations

import shutil
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import Phase as Stage
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from igc_dist.records import StoreError
from igc_dist.store import Array, Dim, Folder, Phase, Store, array, machine

ROW, OUTPUT = Dim("row", 5, 3, 0), Dim("output", 3, 2, 1)
LAYOUT = (
    Phase("predict", (2,), {"target": array("shards/predict/target", "float64", ROW, Dim("output", 3))}),
    Phase(
        "attribute",
        (2, 2),
        {
            "scalars": array("shards/attribute/scalars", "float64", Dim("part", 2, 1, 0), OUTPUT),
            # two chunks of rows to a shard, but for the last fold, which is ragged
            "x/attribution": array("samples/x/attribution", "float32", Dim("sample", 7, 2, 0, 2), OUTPUT),
        },
    ),
)
RESULT = Array("x/igc", (3, 2), (2, 2), "float64", ("output", "feature"))
SPEC, WISH = {"seed": 0, "model": {"_target_": "a.b"}}, {"gradients": None}
SHARDS = [(phase.name, number) for phase in LAYOUT for number in range(len(phase))]
COPIES = ("zarr.json", "shards/zarr.json")
DEAD = 2**22 + 1
"""A number above those that Linux gives to processes."""


class CrashError(Exception):
    """The process is no more."""


class Dying(Folder):
    """The objects of a process that dies at its n-th write from now: before it, in its middle, or after it."""

    left, how = 0, ""

    def set(self, key: str, value: bytes) -> None:
        self.left -= 1
        if self.left == 0 and self.how == "middle":
            file = self.path / f"{key}.{machine()}-{DEAD}-1.partial"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(value[: len(value) // 2])
        if self.left == 0 and self.how != "after":
            raise CrashError
        super().set(key, value)
        if self.left == 0:
            raise CrashError


@cache
def documents() -> dict[str, bytes]:
    """Those of the layout: zarr takes 10 ms for them, and they are the same each time."""
    return Store._documents(Store(None, LAYOUT, SPEC, "hash"))


class Stores(RuleBasedStateMachine):
    """One folder. `committed` is what the model knows: the bytes of a shard when it was last declared done."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix="igc-fuzz-"))
        self.path = self.folder / "store.zarr"
        self.committed: dict[tuple[str, int], dict[str, bytes]] = {}
        self.good: dict[str, bytes] = {}
        """Files other than of shards, as they were last written."""
        self.complete = False
        self.opened = self.prepare()

    def teardown(self) -> None:
        try:
            self.resume()
        finally:
            shutil.rmtree(self.folder)

    # -- what is there -------------------------------------------------------------------------------------------------

    def new(self) -> Store:
        store = Store(self.path, LAYOUT, SPEC, "hash")
        store.objects, store._documents = Dying(self.path), documents  # type: ignore[method-assign]
        return store

    def prepare(self) -> Store:
        """A run that takes the store up."""
        store = self.new()
        whole = self.complete and not self.damaged() and self.done() == {*SHARDS}
        try:
            assert store.prepare({"host": "a"}, WISH) is whole
        except StoreError as error:
            # only for what nobody can know any more
            assert "damaged beyond repair" in str(error)  # noqa: PT017
            assert {*COPIES} <= self.damaged()
            shutil.rmtree(self.path)
            self.committed, self.complete = {}, False
            assert not store.prepare({"host": "a"}, WISH)
            whole = False
        if not whole:
            self.complete = False
        self.know(store)
        # those beside chunks go when their folder is written again, or the store completed
        assert whole or not [found for found in self.path.rglob("*.partial") if "c" not in found.parts[:-1]]
        return store

    def know(self, store: Store) -> None:
        """Take what is stored beside the shards for right; documents of the layout have to be."""
        assert all(store.objects.get(key) == text for key, text in documents().items())
        owned = store._owned()
        self.good = {key: store.objects.get(key) or b"" for key in store.objects.names() if key not in owned}

    def keys(self, phase: str, number: int) -> list[str]:
        family = self.opened.phases[phase]
        return [*family.keys(number), family.digest_key(number)]

    def stored(self, keys: Any) -> dict[str, bytes]:
        return {key: (self.path / key).read_bytes() for key in keys if (self.path / key).is_file()}

    def done(self) -> set[tuple[str, int]]:
        return {shard for shard, kept in self.committed.items() if self.stored(kept) == kept}

    def damaged(self) -> set[str]:
        """Files beside the shards that are not as they were written."""
        return {key for key, value in self.good.items() if self.stored([key]).get(key) != value}

    # -- what a run does -----------------------------------------------------------------------------------------------

    def fill(self, phase: str, number: int, seed: int) -> None:
        """Write the arrays of a shard as a run does, rows of samples as they come, and commit it."""
        store, random = self.opened, np.random.default_rng(seed)
        family = store.phases[phase]
        for name, one in family.arrays.items():
            region = one.region(family.cell(number))
            starts = range(region[0].start, region[0].stop, one.chunks[0])
            for start in starts:
                rows = min(start + one.chunks[0], region[0].stop) - start
                shape = (rows, *(cut.stop - cut.start for cut in region[1:]))
                at = (start, *(cut.start for cut in region[1:]))
                store.write(phase, number, name, random.standard_normal(shape), at if len(starts) > 1 else None)
        store.commit(phase, number)
        self.committed[phase, number] = self.stored(self.keys(phase, number))

    @rule(shard=st.sampled_from(SHARDS), seed=st.integers(0, 2))
    def shard(self, shard: tuple[str, int], seed: int) -> None:
        self.fill(*shard, seed)

    @rule(
        shard=st.sampled_from(SHARDS),
        seed=st.integers(0, 2),
        at=st.integers(1, 4),
        how=st.sampled_from(("before", "middle", "after")),
    )
    def crash_in_a_shard(self, shard: tuple[str, int], seed: int, at: int, how: str) -> None:
        """Then another process goes on: it sees old bytes or new ones, and a left-over."""
        objects = self.opened.objects
        objects.left, objects.how = at, how
        try:
            self.fill(*shard, seed)
        except CrashError:
            digest = self.keys(*shard)[-1]
            # the digest is written last; a crash right after it leaves a shard that is done
            if how == "after" and at == len(self.keys(*shard)):
                self.committed[shard] = self.stored(self.keys(*shard))
                assert digest in self.committed[shard]
        self.opened = self.new()

    @rule()
    def reopen(self) -> None:
        self.opened = self.prepare()

    @rule(at=st.integers(1, 8), how=st.sampled_from(("before", "middle", "after")))
    def crash_while_reopening(self, at: int, how: str) -> None:
        store = self.new()
        store.objects.left, store.objects.how = at, how
        try:
            store.prepare({"host": "b"}, WISH)
        except CrashError:
            # where documents stand is known again once a run has repaired them
            self.opened, self.complete = self.prepare(), False
        except StoreError:
            self.opened = self.prepare()
        else:
            self.complete &= store.objects.left == at  # a whole store is not written to
            self.opened = self.prepare()

    @rule()
    def resume(self) -> None:
        """Whatever happened: what is not done is done, and the store is complete and undamaged."""
        self.opened = store = self.prepare()
        left = [(phase.name, number) for phase in LAYOUT for number in store.pending(phase.name)]
        assert {*left} == {*SHARDS} - self.done(), "a run does again what is not done, and nothing else"
        if self.complete:
            assert not left
            return
        for shard in left:
            self.fill(*shard, 3)
        store.create_results([RESULT])
        store.put(RESULT, np.ones(RESULT.shape))
        store.complete({"budget": {"wish": WISH, "used": {}}})
        self.complete = True
        self.know(store)
        assert store.verify() == Store.existing(self.path).verify() == []

    @rule()
    def forget(self) -> None:
        """A fall to a higher precision: every shard is forgotten, and the next run remembers it."""
        self.opened = self.prepare()
        self.opened.restart()
        self.committed = {}
        self.opened = self.new()
        self.opened.prepare({}, WISH)
        assert self.opened.fallen()
        self.complete = False
        self.know(self.opened)

    @rule()
    def another_run(self) -> None:
        """Of another spec: refused, and nothing is touched."""
        before = self.stored(Folder(self.path).names())
        with pytest.raises(StoreError, match=r"holds another run|damaged beyond repair"):
            Store(self.path, LAYOUT, {**SPEC, "seed": 1}, "other").prepare({}, WISH)
        assert self.stored(Folder(self.path).names()) == before

    # -- what happens to files -----------------------------------------------------------------------------------------

    @precondition(lambda self: self.path.exists())
    @rule(
        key=st.one_of(
            st.sampled_from(COPIES),
            st.sampled_from(SHARDS),
            st.integers(0, 40),
        ),
        which=st.integers(0, 5),
        how=st.sampled_from(("flip", "cut", "empty", "longer", "delete", "swap")),
        at=st.floats(0, 1),
    )
    def damage(self, key: Any, which: int, how: str, at: float) -> None:
        """One file: a copy of the spec, one of a shard, or any."""
        names = Folder(self.path).names()
        if isinstance(key, tuple):
            names = [name for name in self.keys(*key) if name in names]
        elif isinstance(key, str):
            names = [name for name in [key] if name in names]
        if not names:
            return
        file = self.path / names[(key if isinstance(key, int) else which) % len(names)]
        text = bytearray(file.read_bytes())
        if how == "delete":
            file.unlink()
        elif how == "flip" and text:
            text[min(int(at * len(text)), len(text) - 1)] ^= 1 << which
            file.write_bytes(text)
        elif how == "swap":  # bytes that are right elsewhere
            file.write_bytes((self.path / names[which % len(names)]).read_bytes())
        else:
            file.write_bytes({"cut": text[: int(at * len(text))], "empty": b""}.get(how, text + b"\n"))

    @rule(shard=st.sampled_from(SHARDS))
    def left_over(self, shard: tuple[str, int]) -> None:
        """A half-written file of a process that is gone is no object, and goes with the next run."""
        file = self.path / f"{self.keys(*shard)[0]}.{machine()}-{DEAD}-7.partial"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(b"half")

    # -- what holds ----------------------------------------------------------------------------------------------------

    @invariant()
    def done_is_what_was_committed(self) -> None:
        store = self.opened
        assert {shard for shard in SHARDS if store.is_done(*shard)} == self.done()

    @rule()
    def verify(self) -> None:
        """Every damage has a line, and what is right has none."""
        damaged, done = self.damaged(), self.done()
        if {*COPIES} <= damaged:
            with pytest.raises(StoreError, match="not a readable igc-dist store"):
                Store.existing(self.path)
            return
        lines = Store.existing(self.path).verify()
        if "zarr.json" in damaged:
            assert lines == ["zarr.json: missing or changed (its seal does not match)"]
            return
        assert bool(lines) == bool(damaged or not self.complete or done != {*SHARDS})
        said = {key for key in self.good if any(line.startswith(f"{key}: ") for line in lines)}
        assert said - {"zarr.json"} == damaged
        assert ("zarr.json" in said) == (not self.complete)
        blamed = {(phase, n) for phase, n in SHARDS if any(f"{phase} shard {n}" in line for line in lines)}
        assert blamed == {*SHARDS} - done


# without shrinking, which takes longer than a test may: a history that fails is printed as it is, and short enough
def test_any_history() -> None:
    run_state_machine_as_test(
        Stores, settings=settings(max_examples=10, stateful_step_count=14, phases=[Stage.generate])
    )


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_many_histories() -> None:
    run_state_machine_as_test(
        Stores, settings=settings(max_examples=100, stateful_step_count=30, phases=[Stage.generate])
    )
