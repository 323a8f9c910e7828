"""Stores of every version of the schema open: a small example of each is kept, with numbers read by the version that
wrote it."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import igc_dist
from igc_dist.cli import commands
from igc_dist.records import StoreError
from igc_dist.report import write_report
from igc_dist.store import SCHEMA, Store, attributes, schema, sealed, unsealed
from igc_dist.store.schema import upgraded
from igc_dist.upkeep import compact, verify
from tests.ranks import attribute, files
from tests.store.examples import make

EXAMPLES = Path(__file__).parent / "examples"
VERSIONS = range(1, SCHEMA + 1)


def unpacked(version: int | str, path: Path) -> Path:
    with zipfile.ZipFile(EXAMPLES / f"schema-{version}.zip") as file:
        file.extractall(path)
    return path


@pytest.mark.parametrize("version", VERSIONS)
def test_an_old_store_opens(version: int, tmp_path: Path) -> None:
    """Its values are those that its own version read; its bytes stay as they are; it verifies, by its results if it
    says how."""
    path = unpacked(version, tmp_path / "store.zarr")
    before, said = files(path), json.loads((EXAMPLES / f"schema-{version}.json").read_text())
    tree = igc_dist.open(path)
    assert tree.attrs["schema"] == said.pop("schema") == version
    for name, values in said.items():
        np.testing.assert_array_equal(tree[name].values, np.asarray(values), err_msg=name)
    assert tree.attrs["sums_to_prediction"] is True
    assert (tree.attrs["budget"]["folds"], tree.attrs["budget"]["of"], tree.attrs["budget"]["used"]) == (
        3,
        3,
        {"attribute": 3},
    )
    verdict = verify(path)
    assert verdict.lines == []
    assert verdict.left_out == (
        "" if version >= 4 else f"it has no recipe to make its results by (schema {version} had none)"
    )
    assert files(path) == before


def test_a_run_of_schema_4_goes_on(tmp_path: Path) -> None:
    """In its own layout, with the shards that it has: they are not computed again; its results are those of a new
    run."""
    path, whole = unpacked("4-stopped", tmp_path / "store.zarr"), tmp_path / "whole.zarr"
    store, before = Store.existing(path), files(path)
    done = {(phase, n) for phase in store.phases for n in range(len(store.phases[phase])) if store.is_done(phase, n)}
    assert done == {("predict", n) for n in range(3)} | {("attribute", n) for n in range(2)}
    make.run(path)
    make.run(whole)
    after = Store.existing(path)
    for phase, number in done:
        for key in (*(family := after.phases[phase]).keys(number), family.digest_key(number)):
            assert (path / key).read_bytes() == before[key]
    assert verify(path).lines == []
    one, two = igc_dist.open(path), igc_dist.open(whole)
    for name in make.NAMES:
        np.testing.assert_allclose(one[name].values, two[name].values, rtol=1e-12, err_msg=name)
    changed = files(path)
    make.run(path)
    assert files(path) == changed


def test_commands_read_stores_of_all_versions(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    paths = [unpacked(version, tmp_path / str(version)) for version in VERSIONS]
    assert commands.call("compare", [str(path) for path in paths[1:]]) == 0
    for path in paths:
        assert commands.call("verify", [str(path)]) == commands.call("info", [str(path)]) == 0
    assert (
        "results were not made again: it has no recipe to make its results by (schema 1 had none)"
        in capsys.readouterr().out
    )
    assert write_report(igc_dist.open(paths[0]), tmp_path / "page").is_file()
    with pytest.raises(StoreError, match=r"schema 3 had none\)\. Run it again into another store\.path"):
        compact(paths[2], tmp_path / "out")


def test_damage_of_an_old_store_is_noticed(tmp_path: Path) -> None:
    path = unpacked(1, tmp_path / "a")
    (path / "x" / "igc" / "c" / "0" / "0" / "0" / "0").write_bytes(b"")
    Store.existing(path).objects.drop(Store.existing(path).phases["attribute"].keys(3)[0])
    lines = verify(path).lines
    assert len(lines) == 2
    assert "x/igc/c/0/0/0/0: changed (its digest does not match)" in lines


def test_a_newer_store_is_refused_naming_both_versions(tmp_path: Path) -> None:
    """Wherever it is opened, also by a run."""
    path = tmp_path / "store.zarr"
    settings: dict[str, Any] = {"n": 5, "n_folds": 2, "n_steps": 2, "samples": False}
    attribute(path, **settings)
    store = Store.existing(path)
    about = unsealed(store.objects.get("zarr.json")) or {}
    store.objects.set("zarr.json", sealed({**about, "schema": SCHEMA + 1}))
    before = files(path)
    words = rf"has schema {SCHEMA + 1}, this version of igc-dist reads 1 to {SCHEMA}: a newer one wrote it, upgrade"
    for do in (igc_dist.open, verify, Store.existing, lambda path: attribute(path, **settings)):
        with pytest.raises(StoreError, match=words):
            do(path)
    for wrong in (None, "4", 0, True, 1.0):
        store.objects.set("zarr.json", sealed({**about, "schema": wrong}))
        with pytest.raises(StoreError, match="names no version of its schema"):
            igc_dist.open(path)
    # one of an older version and of another layout is not gone on with
    other = [phase for phase in about["layout"] if phase["name"] == "predict"]
    older = {**about, "schema": SCHEMA - 1, "layout": other, "status": "running"}
    store.objects.set("zarr.json", sealed(older))
    with pytest.raises(
        StoreError, match=rf"of schema {SCHEMA - 1} where this version writes {SCHEMA}.*Give another store\.path"
    ):
        attribute(path, **settings)
    assert files(path) == before


def test_steps_are_pure(tmp_path: Path) -> None:
    """They change no document, and say nothing of one that is not complete."""
    document = unsealed((unpacked(1, tmp_path / "a") / "zarr.json").read_bytes()) or {}
    text = json.dumps(document)
    found = upgraded(document, "a")
    assert json.dumps(document) == text
    assert {*found} - {*document} == {"sums_to_prediction", "budget", "retried", "fallback", "recipe", "written"}
    assert (found["schema"], found["written"]) == (SCHEMA, 1)
    assert found == attributes(tmp_path / "a")
    assert len(schema.STEPS) == SCHEMA - 1
    running = {key: value for key, value in document.items() if key not in ("digests", "status")}
    assert "budget" not in upgraded(running, "a")
