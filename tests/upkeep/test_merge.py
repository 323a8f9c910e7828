"""Stores made one: runs over disjoint data as one run over all would be, shards of one run from several sites to the
bit."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr

import igc_dist
from igc_dist.baselines import Resampled
from igc_dist.cli import commands
from igc_dist.records import StoreError
from igc_dist.report import write_report
from igc_dist.store import Store
from igc_dist.upkeep import merge, verify
from igc_dist.upkeep.verify import Verdict
from tests.problems import Rest
from tests.ranks import Net, Rows, arrays, attribute, files, rewrite

Made = Callable[..., Path]

BY_FOLD = ("_se", "shards/", "convergence/")
"""Ends and beginnings of names of what depends on how the samples lie in folds."""


def different(one: xr.DataTree, two: xr.DataTree, tolerance: float) -> list[str]:
    """Names of arrays, but for those by fold, that differ by more than this part of their largest value; or of 1, if
    they are shares."""
    found = []
    for node in one.subtree:
        for name, array in {**node.data_vars, **node.coords}.items():
            path = f"{node.path}/{name}".lstrip("/")
            if path.startswith(BY_FOLD) or path.endswith(BY_FOLD):
                continue
            mine, its = np.asarray(array.values), np.asarray(two[path].values)
            if mine.dtype.kind in "OT":
                found += [path] * (mine.tolist() != its.tolist())
                continue
            size = np.nanmax(np.abs(mine), initial=0.0)
            size = max(size, 1.0) if "baseline_term" in path or "error" in path else size
            if mine.shape != its.shape or not np.allclose(mine, its, rtol=0, atol=tolerance * size, equal_nan=True):
                found.append(path)
    return found


@pytest.mark.parametrize("naive", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_disjoint_data_give_what_one_run_over_all_would(naive: bool, made: Made) -> None:
    """Maps, correlations, moments, slices (the first part lacks one), weights, rows of samples; also about a centre far
    from 0."""
    out = made("a+b+c", naive)
    one, tree = igc_dist.open(made("all", naive)), igc_dist.open(out)
    assert {node.path for node in one.subtree} == {node.path for node in tree.subtree}
    assert different(one, tree, 1e-10) == []
    assert tree["n"].values.tolist() == one["n"].values.tolist()
    assert tree["known/index"].values.tolist() == [*range(24)]
    assert tree["convergence/n"].values[-1].tolist() == one["n"].values.tolist()
    assert len(tree["convergence/fold"]) == sum(
        len(igc_dist.open(made(name, naive))["convergence/fold"]) for name in "abc"
    )
    assert verify(out) == Verdict([])


class Files(Rows):
    """Samples with paths, of which one cannot be read."""

    def __init__(self, n: int, folder: str, broken: int) -> None:
        super().__init__(n)
        self.samples, self.broken = [(f"{folder}/{i}.jpg", 0) for i in range(n)], broken

    def __getitem__(self, index: int) -> Any:
        if index == self.broken:
            raise OSError("image file is truncated")
        return super().__getitem__(index)


def test_samples_that_could_not_be_read_keep_their_paths(tmp_path: Path) -> None:
    """By their index in all data; also where a merged store is merged again, and where it is verified."""
    common = {"n_steps": 1, "n_folds": 2, "on_bad_sample": "skip"}
    for n, name, broken in ((12, "a", 3), (11, "b", 7), (10, "c", 0)):
        igc_dist.attribute(Net(), Files(n, name, broken), store=tmp_path / name, **common)
    merge([tmp_path / "a", tmp_path / "b"], tmp_path / "ab", overlap=True)
    merge([tmp_path / "ab", tmp_path / "c"], tmp_path / "abc", overlap=True)
    skipped = igc_dist.open(tmp_path / "abc").attrs["skipped"]
    assert [(each["index"], each["path"]) for each in skipped] == [(3, "a/3.jpg"), (19, "b/7.jpg"), (23, "c/0.jpg")]
    assert verify(tmp_path / "abc") == Verdict([])


def test_standard_errors_are_over_the_folds_of_all(made: Made) -> None:
    """The jackknife over the union of folds, by hand."""
    tree = igc_dist.open(made("a+b+c"))
    order, index = [], 0
    for name, n in (("a", 9), ("b", 7), ("c", 8)):
        store = Store.existing(made(name))
        size = store.spec["plan"]["fold_size"]
        rows = store.array("known/index")[...]
        order += [rows[at : at + size] + index for at in range(0, n, size)]
        index += n
    target, prediction = (tree[f"samples/{name}"].values for name in ("target", "prediction"))
    w = tree["known/sample_weight"].values
    used = ~np.isnan(target[:, 1])

    def correlation(rows: np.ndarray) -> float:
        rows = rows[used[rows]]
        c = np.cov(target[rows, 1], prediction[rows, 1], aweights=w[rows], ddof=0)
        return float(c[0, 1] / np.sqrt(c[0, 0] * c[1, 1]))

    every = np.arange(24)
    weight = np.array([w[fold][used[fold]].sum() for fold in order])
    h = weight.sum() / weight
    left = np.array([correlation(np.setdiff1d(every, fold)) for fold in order])
    pseudo = h * correlation(every) - (h - 1) * left
    error = np.sqrt(np.mean((pseudo - pseudo.mean()) ** 2 / (h - 1)))
    np.testing.assert_allclose(tree["correlation_se"].values[1], error, rtol=1e-9)


@pytest.mark.slow
def test_merging_is_associative(made: Made, tmp_path: Path) -> None:
    merge([made("a"), made("b")], tmp_path / "ab")
    merge([tmp_path / "ab", made("c")], tmp_path / "ab+c")
    one, two = igc_dist.open(made("a+b+c")), igc_dist.open(tmp_path / "ab+c")
    assert different(one, two, 1e-12) == []
    for name in ("x/igc_se", "slices/x/igc_se", "correlation_se", "convergence/correlation"):
        np.testing.assert_allclose(two[name].values, one[name].values, rtol=1e-9, err_msg=name)
    assert one.attrs["spec"] == two.attrs["spec"]
    assert one.attrs["spec"]["data"]["n"] == 24
    assert len(one.attrs["spec"]["data"]["merged"]) == 3


@pytest.mark.slow
def test_a_merged_store_reports_compares_and_is_not_gone_on_with(made: Made, tmp_path: Path) -> None:
    out = str(made("a+b+c"))
    assert commands.call("info", [out]) == commands.call("compare", [str(made("all")), out]) == 0
    assert write_report(igc_dist.open(out), tmp_path / "page").is_file()
    data = Rest(range(24))
    with pytest.raises(StoreError, match=r"holds another run: .*data\.digest"):
        igc_dist.attribute(Net().double(), data, store=out, n_steps=2)


def test_what_does_not_go_together_is_refused(made: Made, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """With the reason and a way on; nothing is written."""
    out, small = tmp_path / "out", {"n_steps": 2, "samples": False, "n_folds": 3}
    attribute(tmp_path / "pooled", n=7, **small, baseline=Resampled(2))
    attribute(tmp_path / "groups", n=7, **small, statistics=("ttest",))
    attribute(tmp_path / "budget", n=8, **small, budget=igc_dist.Budget(gradients=24))
    attribute(tmp_path / "plain", n=7, **small)
    attribute(tmp_path / "refolded", n=7, **{**small, "n_folds": 2})
    attribute(tmp_path / "finer", n=8, **{**small, "n_steps": 3})
    plain = tmp_path / "plain"
    for other, words in (
        (
            "pooled",
            r"baseline Resampled is drawn from the data, so its numbers would be others\. Run once over all data",
        ),
        ("groups", r"groups of ttest follow from its targets\. Run once over all data, or give ttest\.low and high"),
        ("budget", "a budget left folds out"),
        ("finer", "different questions cannot be merged: .*midpoint-2.* in .*plain.*midpoint-3.* in .*finer"),
        ("refolded", "7 of 7 samples have the same target and prediction .* Merge disjoint data sets; .* --overlap"),
        ("absent", "there is nothing"),
    ):
        with pytest.raises(StoreError, match=words) as refused:
            merge([plain, tmp_path / other], out)
        assert refused.value.exit_code == 2
        assert not out.exists()
    with pytest.raises(StoreError, match="weights: in one of them only; "):
        merge([plain, made("a")], out)
    assert (
        commands.call("merge", [str(plain), str(tmp_path / "refolded"), str(out), "--overlap"]) == 0
    )  # who says so gets it
    assert "complete, of the data of 2 stores" in capsys.readouterr().out
    with pytest.raises(StoreError, match="out is not empty: give another place"):
        merge([plain, tmp_path / "refolded"], out)
    half = Store.existing(plain)
    half.objects.drop(half.phases["attribute"].digest_key(1))
    with pytest.raises(
        StoreError, match=r"cannot be merged with one over other data: shards/attribute/record/c.1.0.0: missing"
    ):
        merge([plain, tmp_path / "refolded"], tmp_path / "other", overlap=True)


# -- one run at several sites ------------------------------------------------------------------------------------------


def part(whole: Path, path: Path, keep: Callable[[str, int], bool]) -> Store:
    """A store in which only some of the shards are done."""
    shutil.copytree(whole, path)
    store = Store.existing(path)
    for name, phase in store.phases.items():
        for number in range(len(phase)):
            if not keep(name, number):
                for key in (phase.digest_key(number), *phase.keys(number)[:1]):
                    store.objects.drop(key)
    store.objects.set("zarr.json", store.objects.get("shards/zarr.json") or b"")
    return store


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("whole") / "store.zarr"
    attribute(path, n=7, n_folds=4, n_steps=2)
    return path


@pytest.mark.parametrize("left", [0, 1])
def test_shards_of_one_run_from_two_sites(
    left: int, whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Byte by byte; the run then does what is left, at once if nothing is, with the bits of one run."""
    a, b, out = tmp_path / "a", tmp_path / "b", tmp_path / "out"
    part(whole, a, lambda phase, number: number < 2)
    part(whole, b, lambda phase, number: number != 3 or left == 0)
    assert commands.call("merge", [str(a), str(b), str(out)]) == 0
    assert (
        f"{8 - 2 * left} of 8 shards; run the same command with store.path={out} to finish" in capsys.readouterr().out
    )
    done = Store.existing(out)
    assert [done.pending(phase) for phase in ("predict", "attribute")] == [[3][:left]] * 2
    with pytest.raises(StoreError, match="is running, not complete"):
        igc_dist.open(out)
    attribute(out, n=7, n_folds=4, n_steps=2)
    assert files(out) == files(whole)


def test_shards_that_differ_between_sites_are_named(whole: Path, tmp_path: Path) -> None:
    a = part(whole, tmp_path / "a", lambda phase, number: True)
    part(whole, tmp_path / "b", lambda phase, number: True)
    rewrite(a, "attribute", 2, scalars=a.read_own("attribute", 2, "scalars") + 1)
    with pytest.raises(
        StoreError, match=r"attribute shard 2 is not the same in .*/a and .*/b, although both are of one run"
    ):
        merge([tmp_path / "a", tmp_path / "b"], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_sources_stay_as_they_are(whole: Path, tmp_path: Path) -> None:
    part(whole, tmp_path / "a", lambda phase, number: number != 1)
    before = files(tmp_path / "a"), arrays(igc_dist.open(whole))
    merge([tmp_path / "a", whole], tmp_path / "out")
    assert (files(tmp_path / "a"), arrays(igc_dist.open(whole))) == before
