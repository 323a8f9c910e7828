"""`verify` makes the results again from the shards, so it notices what was changed and sealed again."""

from __future__ import annotations

import shutil
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import zarr

import igc_dist
from igc_dist.baselines import Noise, Resampled
from igc_dist.cli import commands
from igc_dist.records import StoreError
from igc_dist.store import Store, unsealed
from igc_dist.upkeep import verify
from tests.problems import Parted
from tests.ranks import Holed, Net, arrays, attribute, rewrite

SMALL: dict[str, Any] = {"n": 11, "n_folds": 4, "n_steps": 2, "samples": False}


def parted(path: Path, **settings: Any) -> None:
    """With weights, slices and missing targets."""
    data = Parted()
    igc_dist.attribute(
        Net(), data, store=path, weights=data.weight.numpy(), slices=data.site, n_steps=2, n_folds=4, **settings
    )


def holed(path: Path) -> None:
    """With a sample that is left out."""
    igc_dist.attribute(Net(), Holed(9), store=path, on_nonfinite="skip", n_steps=2, n_folds=3, micro_batch=2)


MADE = {
    "plain": partial(
        attribute, n=11, n_folds=4, n_steps=2, output_block=1, statistics=("correlation", "moments", "ttest")
    ),
    "weights and slices": parted,
    "left out": holed,
    "blocks of baselines": partial(attribute, **SMALL, baseline=Resampled(3), baseline_block=1),
    "naive": partial(attribute, **SMALL, method="naive_correlation"),
    "pairs": partial(attribute, n=16, n_folds=4, design="pairs", samples=False),
    "budget": partial(
        attribute,
        n=16,
        n_folds=8,
        n_steps=2,
        samples=False,
        baseline=Noise(0.1),
        budget=igc_dist.Budget(gradients=300, replicates=2),
    ),
}


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("plain") / "store.zarr"
    MADE["plain"](path)
    return path


QUICK = ("plain", "weights and slices", "blocks of baselines")


@pytest.mark.parametrize(
    "name", [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in MADE]
)
def test_results_are_those_of_the_shards(name: str, tmp_path: Path) -> None:
    """To the bit, whatever the run: made without its model, its data or its settings."""
    MADE[name](tmp_path / "store.zarr")
    before = arrays(igc_dist.open(tmp_path / "store.zarr"))
    verdict = verify(tmp_path / "store.zarr")
    assert (verdict.lines, verdict.left_out) == ([], "")
    assert arrays(igc_dist.open(tmp_path / "store.zarr")) == before


def reseal(path: Path, change: Any) -> None:
    """Change a store and seal it again, by our own functions."""
    store = Store.existing(path)
    about = unsealed(store.objects.get("zarr.json")) or {}
    change(store)
    store.complete(about)
    assert store.verify() == []  # nothing to see


def writable(store: Store, name: str) -> Any:
    return zarr.open_array(store.path, path=name, mode="r+")


TAMPERED = ("x/igc", "igc_sum_se", "x/ig_std", "x/ig_ttest_t", "known/weight", "convergence/map_distance", "n")


def test_results_that_were_changed_and_sealed_again_are_noticed(
    plain: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "store.zarr"
    shutil.copytree(plain, path)

    def change(store: Store) -> None:
        for name in TAMPERED:
            array = writable(store, name)
            values = np.asarray(array[...])
            values[(-1,) * values.ndim] += 1 if values.dtype.kind == "i" else 1e-3
            array[...] = values

    reseal(path, change)
    assert commands.call("verify", [str(path)]) == 2
    *lines, last = capsys.readouterr().out.splitlines()
    assert {line.split(":")[0] for line in lines} == {*TAMPERED}
    assert "x/igc: not what the shards give (largest difference 0.001 at output 1, feature 4)" in lines
    assert "n: not what the shards give (largest difference 1 at output 1)" in lines
    assert last.endswith(
        "no file changed since it was sealed, but 7 things do not follow from its shards: do not use it"
    )
    assert commands.call("verify", [str(path), "--quick"]) == 0


def test_a_last_bit_is_noticed(plain: Path, tmp_path: Path) -> None:
    shutil.copytree(plain, tmp_path / "a")

    def change(store: Store) -> None:
        array = writable(store, "x/igc")
        array[0, 0] = np.nextafter(array[0, 0], 9.0)

    reseal(tmp_path / "a", change)
    (line,) = verify(tmp_path / "a").lines
    assert line.startswith("x/igc: not what the shards give (largest difference ")
    assert line.endswith("at output 0, feature 0)")


def test_rows_and_counts_that_do_not_add_up_are_noticed(plain: Path, tmp_path: Path) -> None:
    """A sample that is in two rows; a fold that says it folded one sample more."""
    shutil.copytree(plain, tmp_path / "a")

    def change(store: Store) -> None:
        array = writable(store, "known/index")
        array[:1] = array[1:2]

    reseal(tmp_path / "a", change)
    lines = verify(tmp_path / "a").lines
    assert [line.split(":")[0] for line in lines] == ["known/index"] * 3
    assert "is in 2 rows, not in one" in "".join(lines)
    assert "is in 0 rows, not in one" in "".join(lines)
    shutil.copytree(plain, tmp_path / "b")

    def more(store: Store) -> None:
        values = store.read_own("attribute", 0, "scalars")
        values[0, 1] += 1 / values.shape[2]
        rewrite(store, "attribute", 0, scalars=values)

    reseal(tmp_path / "b", more)
    assert "shards: 12 samples in the states of output 0, pass 1 found 11" in verify(tmp_path / "b").lines


def test_arrays_that_no_shard_gives_are_noticed(plain: Path, tmp_path: Path) -> None:
    from igc_dist.store import Array

    shutil.copytree(plain, tmp_path / "a")

    def add(store: Store) -> None:
        better = Array("better", (2,), (2,), "float64", ("output",))
        correlation = Array("correlation", (1,), (1,), "float64", ("other",))
        store.create_results([better, correlation])
        store.put(better, np.ones(2))
        store.put(correlation, np.ones(1))

    reseal(tmp_path / "a", add)
    assert sorted(verify(tmp_path / "a").lines) == [
        "better: the shards give no such array",
        "correlation: is float64 (1,) ('other',), the shards give float64 (2,) ('output',)",
    ]


def test_what_the_root_says_of_the_results_is_checked(plain: Path, tmp_path: Path) -> None:
    shutil.copytree(plain, tmp_path / "a")
    store = Store.existing(tmp_path / "a")
    about = unsealed(store.objects.get("zarr.json")) or {}
    store.complete({**about, "skipped": [{"index": 3, "reason": "I did not like it"}]})
    assert verify(tmp_path / "a").lines == ["zarr.json: skipped is not what the shards give"]


def test_a_statistic_of_ones_own_is_not_remembered(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from igc_dist.statistics import Moments

    class Mine(Moments):
        name = "mine"

    path = tmp_path / "store.zarr"
    igc_dist.attribute(Net(), (torch.rand(6, 5), torch.rand(6, 2)), store=path, n_steps=2, statistics=[Mine()])
    assert commands.call("verify", [str(path)]) == 0
    assert "results were not made again" in capsys.readouterr().out


def test_a_recipe_that_no_run_writes_is_refused(plain: Path, tmp_path: Path) -> None:
    """Data only: names are looked up among ours, numbers must add up and fit the arrays before anything is allocated
    for them."""
    shutil.copytree(plain, tmp_path / "a")
    store = Store.existing(tmp_path / "a")
    about = unsealed(store.objects.get("zarr.json")) or {}
    recipe = about["recipe"]
    for change in (
        {"statistics": [{"name": "os.system", "settings": {}}]},
        {"plan": {**recipe["plan"], "pieces": [[10**15, 1]]}},
        {
            "plan": {
                **recipe["plan"],
                "pieces": [[10**15, 1]],
                "shapes": {**recipe["plan"]["shapes"], "n_samples": 10**15},
            }
        },
        {"plan": {**recipe["plan"], "pieces": [[11, 0]]}},
        {"plan": {**recipe["plan"], "work": {}}},
        {"labels": None},
        {"plan": {**recipe["plan"], "baseline_block": 0}},
        {"plan": {**recipe["plan"], "output_block": "2"}},
        None,
    ):
        store.complete({**about, "budget": {}} if change is None else {**about, "recipe": {**recipe, **change}})
        with pytest.raises(StoreError, match="no run w"):
            verify(tmp_path / "a")
