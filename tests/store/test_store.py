"""The store from outside: it opens with plain xarray, refuses what is not its own, and is never torn."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr
import zarr
from zarr.storage import LocalStore

import igc_dist
from igc_dist.records import StoreError
from igc_dist.store import Folder, Store
from tests.ranks import Net, Rows, arrays, attribute, files

NAMES = ("left", "right")
SETTINGS: dict[str, Any] = {
    "n": 7,
    "n_folds": 4,
    "micro_batch": 2,
    "n_steps": 2,
    "target": igc_dist.Targets(names=NAMES),
}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("whole") / "store.zarr"
    attribute(path, **SETTINGS)
    return path


def test_plain_xarray_opens_it(whole: Path) -> None:
    """Without any option and without a warning, as a tree and as its root: named dimensions, coordinates, names as
    strings."""
    tree = xr.open_datatree(whole, engine="zarr")
    assert {
        "output",
        "n",
        "correlation",
        "correlation_se",
        "target_mean",
        "target_std",
        "prediction_mean",
        "prediction_std",
    } <= set(tree.to_dataset().variables)
    assert {"igc_error", "quadrature_error", "igc_sum", "igc_sum_se", "baseline_term", "constant"} <= set(
        tree.to_dataset().variables
    )
    assert tree["output"].values.tolist() == list(NAMES)
    assert (tree["x/igc"].dims, tree["x/igc"].shape, tree["x/igc"].dtype) == (("output", "feature"), (2, 5), np.float64)
    assert tree["x/igc"].sel(output="right").shape == (5,)
    assert tree["samples/x/attribution"].dims == ("sample", "output", "feature")
    assert (
        tree["samples/target"].dims
        == tree["samples/delta"].dims
        == tree["samples/prediction_baseline"].dims
        == ("sample", "output")
    )
    assert tree["convergence/correlation"].dims == ("fold", "output")
    assert tree["convergence/fold"].values.tolist() == [1, 2, 3, 4]
    root = xr.open_zarr(whole)
    assert root["correlation"].dims == ("output",)
    assert root.attrs["status"] == "complete"
    assert {"schema", "spec", "spec_hash", "provenance", "digests"} <= set(root.attrs)
    np.testing.assert_array_equal(xr.open_zarr(whole, group="x")["igc"].values, tree["x/igc"].values)
    tree.close()
    root.close()


def test_images_have_named_dimensions(tmp_path: Path) -> None:
    """(channel, height, width) for pictures; further inputs are groups x1, x2."""

    class Two(torch.nn.Module):
        def forward(self, x: torch.Tensor, z: torch.Tensor) -> torch.Tensor:
            return (x.flatten(1).sum(1) * z[:, 0])[:, None]

    data = ((torch.rand(5, 1, 2, 3), torch.rand(5, 2)), torch.rand(5, 1))
    tree = igc_dist.attribute(Two(), data, store=tmp_path / "store.zarr", n_steps=2)
    assert tree["x/igc"].dims == ("output", "channel", "height", "width")
    assert tree["x1/igc"].dims == ("output", "feature")


def test_samples_are_handed_out_in_the_order_of_the_data(whole: Path) -> None:
    """They lie in fold order with their index; `open` sorts them, so that row i is sample i."""
    tree = igc_dist.open(whole)
    stored = xr.open_zarr(whole, group="samples")["index"].values
    assert stored.tolist() != list(range(7))
    assert sorted(stored) == tree["samples/index"].values.tolist() == list(range(7))
    data = Rows(7)
    np.testing.assert_array_equal(tree["samples/target"].values, data.y.double().numpy())
    with torch.no_grad():
        f, f0 = Net()(data.x).double().numpy(), Net()(torch.zeros(1, 5)).double().numpy()
    np.testing.assert_allclose(tree["samples/prediction"].values, f, atol=1e-6)
    np.testing.assert_allclose(tree["samples/prediction_baseline"].values, np.broadcast_to(f0, (7, 2)), atol=1e-6)
    residual = tree["samples/x/attribution"].values.sum(-1, dtype=np.float64) - (f - f0)
    np.testing.assert_allclose(tree["samples/delta"].values, residual, atol=1e-5)


def test_every_array_is_checksummed_and_writes_its_empty_chunks(whole: Path, tmp_path: Path) -> None:
    """A missing chunk would read as the fill value without a word: so an all-NaN result has its chunk, and every codec
    a checksum."""
    for document in whole.rglob("zarr.json"):
        found = json.loads(document.read_text())
        if found["node_type"] == "array" and found["data_type"] != "string":
            (codec,) = [c for c in found["codecs"] if c["name"] == "zstd"]
            assert codec["configuration"]["checksum"] is True, document
            if found["data_type"].startswith("float"):
                assert found["fill_value"] == "NaN", document
    x = torch.rand(6, 3)
    tree = igc_dist.attribute(
        Net(3, 2), (x, torch.stack([x[:, 0], torch.ones(6)], 1)), store=tmp_path / "a", output_block=1, n_steps=2
    )
    assert np.isnan(tree["x/igc"].values[1]).all()  # a constant target
    for name in ("x/igc", "x/igc_se"):
        assert len([*(tmp_path / "a" / name).glob("c.*")]) == 2
    assert Store.existing(tmp_path / "a").verify() == []


def test_a_partial_store_is_refused_unless_asked_for(whole: Path, tmp_path: Path) -> None:
    path = tmp_path / "store.zarr"
    with pytest.raises(StoreError, match="there is nothing"):
        igc_dist.open(path)
    (tmp_path / "page" / "figures").mkdir(parents=True)
    (tmp_path / "page" / "report.html").write_text("")
    with pytest.raises(StoreError, match=r"page is not .*holds no zarr\.json, but report\.html, \.\.\.: give"):
        igc_dist.open(tmp_path / "page")
    shutil.copytree(whole, path)
    store = Store.existing(path)
    store.objects.set("zarr.json", (path / "shards" / "zarr.json").read_bytes())  # a root without a status
    with pytest.raises(
        StoreError, match="not complete: run the same command again to finish it, or open it with allow_partial=True"
    ):
        igc_dist.open(path)
    assert "shards" in igc_dist.open(path, allow_partial=True).children


def test_another_spec_is_refused_with_the_keys_that_differ(whole: Path, tmp_path: Path) -> None:
    """Never mixed: the store stays as it was."""
    path = tmp_path / "store.zarr"
    shutil.copytree(whole, path)
    before = files(path)
    for change, words in (
        ({"seed": 4}, ["seed: 0 in the store, 4 asked for"]),
        ({"n_steps": 3}, ['attributor.quadrature.name: "midpoint-2" in the store, "midpoint-3" asked for']),
        (
            {"n": 23, "samples": False},
            ["data.n: 7 in the store, 23 asked for", "samples: true in the store, false asked for"],
        ),
        ({"baseline": 0.5}, ["baseline.value: 0.0 in the store, 0.5 asked for"]),
    ):
        with pytest.raises(StoreError, match=r"Give another store\.path, or delete that store") as refused:
            attribute(path, **{**SETTINGS, **change})
        assert [word for word in words if word not in str(refused.value)] == []
        assert "weights" not in str(refused.value)
    assert files(path) == before
    assert attribute(path, **SETTINGS, threads=1, progress=True) == arrays(
        igc_dist.open(whole)
    )  # nothing of it changes the numbers


def test_a_folder_that_is_no_store_is_refused(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(StoreError, match="not empty and not an igc-dist store"):
        attribute(tmp_path, **SETTINGS)
    zarr.create_group(tmp_path / "other.zarr", attributes={"mine": 1})
    with pytest.raises(StoreError, match="not empty and not an igc-dist store"):
        attribute(tmp_path / "other.zarr", **SETTINGS)
    assert (tmp_path / "thesis.txt").read_text() == "years of work"


def test_the_layout_survives_the_round_trip(whole: Path) -> None:
    """`Store.existing` knows the phases from the root's document, and from the copy beside the shards."""
    store = Store.existing(whole)
    assert {name: phase.grid for name, phase in store.phases.items()} == {"predict": (4,), "attribute": (4, 1)}
    assert store.pending("predict") == store.pending("attribute") == []
    assert store.spec["seed"] == 0
    keys = [
        key
        for phase in store.phases.values()
        for n in range(len(phase))
        for key in (*phase.keys(n), phase.digest_key(n))
    ]
    assert len(keys) == len(set(keys))  # one writer per chunk
    assert set(keys) <= {*files(whole)}
    for phase in store.phases.values():  # and together the shards write every chunk of their arrays
        for array in phase.every:
            assert {k for k in keys if k.startswith(f"{array.path}/c.")} == {
                k for k in files(whole) if k.startswith(f"{array.path}/c.")
            }


def test_left_overs_of_interrupted_writes_are_swept(whole: Path, tmp_path: Path) -> None:
    """A file being written is under another name until it is whole; what a kill leaves of it is no object, and goes at
    the next run."""
    path = tmp_path / "store.zarr"
    shutil.copytree(whole, path)
    partial = path / "x" / "igc" / "c.0.0.abc.partial"
    partial.write_bytes(b"half")
    (path / "zarr.json.0123.partial").write_bytes(b"half")
    (path / "shards" / "attribute" / "record" / "c.0.0.0.0123.partial").write_bytes(b"half")  # of a shard that is done
    assert Store.existing(path).verify() == []
    assert not any(name.endswith(".partial") for name in Folder(path).names())
    (path / "x" / "igc" / "c.0.0").unlink()
    attribute(path, **SETTINGS)
    assert not list(path.rglob("*.partial"))
    assert files(path) == files(whole)


def fail_from(patch: pytest.MonkeyPatch, error: int, after: int) -> None:
    """Chunks of shards are written by `Folder`, those of results by zarr: the disk is full from the `after`-th chunk
    on."""
    real, real_zarr, calls = Folder.set, LocalStore.set, iter(range(10**6))

    def check() -> None:
        if next(calls) >= after:
            raise OSError(error, "No space left on device")

    def broken(self: Folder, key: str, value: bytes) -> None:
        if "/c." in key:
            check()
        real(self, key, value)

    async def broken_zarr(self: LocalStore, key: str, value: Any, *rest: Any) -> None:
        check()
        await real_zarr(self, key, value, *rest)

    patch.setattr(Folder, "set", broken)
    patch.setattr(LocalStore, "set", broken_zarr)


@pytest.mark.parametrize("after", [1, 4, 9, 22])
def test_a_full_disk_is_an_error_that_costs_no_shard(
    after: int, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In pass 1, in the middle of a shard, and in the results: a clear error; what was committed is safe, and a rerun
    completes it."""
    path, committed, commit = tmp_path / "store.zarr", set(), Store.commit

    def counted(self: Store, phase: str, number: int) -> None:
        commit(self, phase, number)
        committed.add((phase, number))

    with monkeypatch.context() as patch:
        fail_from(patch, 28, after)
        patch.setattr(Store, "commit", counted)
        with pytest.raises(
            StoreError, match=r"No space left on device \(errno 28\).*Shards that were committed are safe: free space"
        ) as full:
            attribute(path, **SETTINGS)
    assert full.value.exit_code == 2
    with pytest.raises(StoreError, match="failed, not complete"):
        igc_dist.open(path)
    half = Store.existing(path)
    assert {(phase, n) for phase in half.phases for n in range(4) if half.is_done(phase, n)} == committed
    assert len(committed) == {1: 1, 4: 4, 9: 5, 22: 8}[after]
    attribute(path, **SETTINGS)
    assert files(path) == files(whole)


def test_a_read_only_place_is_refused_before_any_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: Folder, key: str, value: bytes) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(Folder, "set", refuse)
    with pytest.raises(StoreError, match="Read-only file system"):
        attribute(tmp_path / "store.zarr", **SETTINGS)


def test_notes_beside_the_arrays_are_no_part_of_the_store(tmp_path: Path) -> None:
    """A file of the user's, there when the store is completed, may go without being called damage."""
    path = tmp_path / "store.zarr"
    attribute(path, **SETTINGS)
    (path / "x" / "igc" / "c.0.0").unlink()
    (path / "notes.txt").write_text("mine")
    attribute(path, **SETTINGS)
    (path / "notes.txt").unlink()
    assert Store.existing(path).verify() == []


def test_a_place_below_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="cannot be written"):
        attribute(tmp_path / "file" / "store.zarr", **SETTINGS)


def test_tables_of_a_shard_are_read_together(whole: Path, tmp_path: Path) -> None:
    """They are those of the array, also in a last fold with fewer rows, and a record that is gone is named."""
    shutil.copytree(whole, tmp_path / "copy")
    store = Store.existing(tmp_path / "copy")
    names = ("target", "prediction", "bad")
    every = [store.read("predict", name) for name in names]
    for fold in range(4):
        found = store.read_tables("predict", fold, names)
        for one, array in zip(found, every, strict=True):
            np.testing.assert_array_equal(one, array[2 * fold : 2 * fold + 2])
            one[:] = 0  # a copy
    next((tmp_path / "copy" / "shards" / "predict" / "record").glob("c.3.*")).unlink()
    with pytest.raises(StoreError, match=r"record/c\.3\.0 is missing"):
        Store.existing(tmp_path / "copy").read_tables("predict", 3, names)
