"""The command as a user meets it: from a shell, in any folder, alone and under torchrun."""

from __future__ import annotations

import csv
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import igc_dist
from igc_dist.attributors import BaselineShapley
from igc_dist.features import Patches
from igc_dist.statistics import TTest
from igc_dist.store import Store
from tests import models, problems
from tests.commands import ROOT, SMALL, TINY, command, environment, torchrun
from tests.ranks import Net, Rows, files, run_ranks, values

pytestmark = pytest.mark.e2e


def command_here(cwd: str, said: str, *arguments: str) -> None:
    """The command in a forked process, which has imported everything already."""
    from igc_dist.__main__ import main

    os.chdir(cwd)
    with open(said, "wb") as file:
        for stream in (1, 2):
            os.dup2(file.fileno(), stream)
    main(arguments)


def forked(cwd: Path, *arguments: str | Path) -> tuple[int, str]:
    """``igc-dist ARGUMENTS`` to its end, cheaply; returns its exit code and what it said, in one line."""
    with tempfile.NamedTemporaryFile() as said:
        code = run_ranks(1, command_here, str(cwd), said.name, *map(str, arguments), COLUMNS="200")[0].code
        return code, " ".join(said.read().decode().split())


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo on one rank, in a folder with a blank, from a folder that is not the repository."""
    folder = tmp_path_factory.mktemp("one rank")
    found = command(*SMALL, "report.enabled=true", "store.path=A.zarr", "fabric.devices=1", cwd=folder)
    assert found.returncode == 0, found.stderr
    assert "Traceback" not in found.stderr
    assert re.search(r"output.*n.*correlation.*sum of IGC.*quadrature error.*standard error", found.stdout)
    assert "store:  A.zarr" in found.stdout
    assert "report: A.zarr.run/report.html" in found.stdout
    return folder / "A.zarr"


def test_what_a_run_leaves(alone: Path) -> None:
    """The store, a log per rank, metrics as CSV, the page and its pictures; nothing else in the folder."""
    assert igc_dist.open(alone)["n"].values.tolist() == [1797, 1797]
    beside = alone.with_name("A.zarr.run")
    assert "attribute" in (beside / "logs" / "rank-0.log").read_text()
    (metrics,) = beside.rglob("metrics.csv")
    with metrics.open() as file:
        rows = list(csv.DictReader(file))
    assert [int(float(row["shards_done"])) for row in rows][-1] == 4
    assert {"grad_evals_per_s", "images_per_s", "rank_skew", "memory_peak_gib/rank_0"} <= set(rows[0])
    assert (beside / "report.html").stat().st_size > 10_000
    assert list(beside.rglob("*.png"))
    assert {p.name for p in alone.parent.iterdir()} <= {"A.zarr", "A.zarr.run", "outputs"}


def test_torchrun_on_two_ranks_stores_the_same_bytes(alone: Path, tmp_path: Path) -> None:
    found = torchrun(2, *SMALL, "store.path=B.zarr", cwd=tmp_path)
    assert found.returncode == 0, found.stderr
    assert files(tmp_path / "B.zarr") == files(alone)
    assert {p.name for p in (tmp_path / "B.zarr.run" / "logs").glob("*.log")} == {"rank-0.log", "rank-1.log"}


@pytest.mark.slow
def test_three_ranks_of_the_command_store_the_same_bytes(alone: Path, tmp_path: Path) -> None:
    """It starts them itself, from a folder whose name Hydra would take apart; the store is in the run's folder."""
    folder = tmp_path / "a=1, b='c'"
    folder.mkdir()
    found = command(*SMALL, "fabric.devices=3", "name=three", cwd=folder)
    assert found.returncode == 0, found.stderr
    assert files(folder / "outputs" / "three" / "store.zarr") == files(alone)
    assert {p.name for p in (folder / "outputs" / "three" / "logs").glob("*.log")} == {
        f"rank-{rank}.log" for rank in range(3)
    }


@pytest.mark.slow
def test_a_finished_job_is_skipped(alone: Path) -> None:
    """Nothing is computed and nothing is written again."""
    before = {p: p.stat().st_mtime_ns for p in alone.rglob("*")}
    code, said = forked(alone.parent, *SMALL, "store.path=A.zarr")
    assert (code, "is complete: nothing to do" in said) == (0, True), said
    assert {p: p.stat().st_mtime_ns for p in alone.rglob("*")} == before


def test_audit_is_an_experiment_in_one_word(monkeypatch: pytest.MonkeyPatch) -> None:
    """What follows it reaches the run, a sweep too."""
    from igc_dist.__main__ import main

    seen: list[Any] = []
    monkeypatch.setattr("igc_dist.cli.main._on_config", lambda *taken, **own: seen.append(taken[:2]) or 0)
    for more in ([], ["data.root=photos", "-m", "seed=1,2"]):
        with pytest.raises(SystemExit) as ended:
            main(["audit", *more])
        assert ended.value.code == 0
        assert seen.pop() == ("run", ["experiment=audit", *more])


def test_commands_on_stores(alone: Path, tmp_path: Path) -> None:
    """verify says what is damaged and leaves with 2; info, compare and report read."""
    code, said = forked(tmp_path, "verify", alone)
    assert (code, "complete and undamaged" in said) == (0, True), said
    path = tmp_path / "copy.zarr"
    subprocess.run(["cp", "-r", alone, path], check=True)
    (path / "x/igc/c.0.0.0.0").write_bytes(b"")
    code, said = forked(tmp_path, "verify", path)
    assert code == 2
    assert "x/igc/c.0.0.0.0: changed" in said
    assert "1 damage" in said
    assert forked(tmp_path, *SMALL, f"store.path={path}")[0] == 0
    assert Store.existing(path).verify() == []
    for arguments in (("info", alone), ("compare", alone, path), ("report", alone, tmp_path / "page")):
        code, said = forked(tmp_path, *arguments)
        assert code == 0, said
    assert (tmp_path / "page" / "report.html").exists()


def test_multirun_makes_a_directory_per_job_and_skips_finished_ones(tmp_path: Path) -> None:
    """The same sweep again, with one value more, computes one store more; paths with "=" and "," and blanks are
    fine."""
    folder = tmp_path / "a b=c, d"
    folder.mkdir()
    code, said = forked(folder, "-m", *TINY, "seed=1,2", "baseline=zeros,mean")
    assert code == 0, said
    stores = sorted(folder.rglob("store.zarr"))
    assert [path.parent.name for path in stores] == [
        f"baseline={baseline}__seed={seed}" for baseline in ("mean", "zeros") for seed in (1, 2)
    ]
    assert len({igc_dist.open(path).attrs["spec_hash"] for path in stores}) == 4
    written = {p: p.stat().st_mtime_ns for path in stores for p in path.rglob("*")}
    code, said = forked(folder, "-m", *TINY, "seed=1,2,3", "baseline=zeros,mean")
    assert code == 0, said
    assert {p: p.stat().st_mtime_ns for p in written} == written
    assert len(sorted(folder.rglob("store.zarr"))) == 6


@pytest.mark.slow
def test_a_sweep_starts_ranks_for_each_job(tmp_path: Path) -> None:
    folder = tmp_path / "a=1, b"
    folder.mkdir()
    found = command("-m", *TINY, "seed=1,2", "fabric.devices=2", cwd=folder)
    assert found.returncode == 0, found.stderr
    two = sorted(folder.rglob("store.zarr"))
    assert len(two) == 2
    assert all(igc_dist.open(path).attrs["provenance"]["ranks"] == 2 for path in two)


PLAN = ("plan", *SMALL)
MANY = (
    "fabric.num_nodes=64",
    "fabric.devices=8",
    "fabric.rates.flops=4e14",
    "fabric.rates.bandwidth=1e10",
    "fabric.rates.disk=1e9",
)


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        ((*PLAN, "data.num_workers=1"), 0, ["shards", "gradient evaluations", "peak host memory per "
"rank", "store on disk", "data workers 1 process per rank, whose memory", "outlook 1 rank, each as fast"]),
        (("plan", "target.outputs=[0,3]", "quadrature=auto", "quadrature.tol=0.5"), 0,
         ["rule chosen", "by a pilot of 57 samples, which leaves", "open (tol 50.0%)"]),
        (("plan", "design=stratified", "quadrature.n_steps=32"), 0, ["baselines x nodes 1 x 32",
         "design stratified takes 32 nodes for each baseline, as many as design=grid has by default (midpoint-32)"]),
        (("plan", "design=shifted"), 0, ["baselines x nodes 1 x 4"]),
        ((*PLAN, *MANY), 0, ["outlook 512 ranks time", "an all-reduce:", "first bottleneck"]),
        (("fabric.num_nodes=2", "fabric.devices=4"), 2, ["fabric.num_nodes=2", "torchrun --nnodes=2 "
"--nproc-per-node=4", "multinode.sh"]),
        ((*PLAN, "fabric.rates=h200"), 0, ["rates NVIDIA H200, measured: ViT-B/16", "h200-2026-11-27.json"]),
        ((*PLAN, "fabric.rates=h100"), 2, ["fabric.rates='h100'", "choose h200"]),
        ((*PLAN, "fabric.rates.disk=0"), 2, ["fabric.rates.disk=0", "above 0"]),
        ((*PLAN, "plan.host_memory=0.001"), 2, ["projected peak host memory "
"is", "plan.host_memory is 1.0 MiB", "raise the budget"]),
        ((*PLAN, "plan.disk=1e-6"), 2, ["on disk", "the budget plan.disk is"]),
        (("quadrature.n_step=3",), 2, ["unknown setting 'quadrature.n_step'", "did you mean 'quadrature.n_steps'?"]),
        (("baselin=zeros",), 2, ["baselin"]),
        (("method=igx",), 2, ["igx", "igc"]),
        (("quadrature.n_steps=many",), 2, ["quadrature.n_steps", "many"]),
        (("quadrature=simpson", "quadrature.n_steps=4"), 2, ["n_steps=4", "odd"]),
        (("on_nonfinite=perhaps",), 2, ["on_nonfinite='perhaps'", "fail", "skip"]),
        (("fabric.devices=-1",), 2, ["fabric.devices=-1: give an integer of at least 1"]),
        (("report.max_outputs=0",), 2, ["report.max_outputs=0: give an integer of at least 1"]),
        (("store.path=",), 2, ["store.path='': give the name of a folder"]),
        (("target.outputs=[1.5]",), 2, ["target.outputs has 1.5"]),
        (("seed=99999999999999999999",), 2, ["seed=99999999999999999999 has more than 64 bits"]),
        (("fabric.loggers=[tape]",), 2, ["'tape'", "csv"]),
        (("baseline=samples", "baseline.k=5000"), 2, ["baseline.k=5000", "1797"]),
        (("target.outputs=[11]",), 2, ["11", "10 outputs"]),
        (("model.weights=nowhere.safetensors",), 3, ["nowhere.safetensors", "no such file"]),
        (("model.build._target_=os.getcwd",), 2, ["os.getcwd", "not allowed", "--allow-target os"]),
        (("--allow-target",), 2, ["--allow-target needs a package"]),
        (("--allow-target", "tests.ranks.*", "data.build._target_=tests.ranks.Rows"), 3,
         ["the model failed on inputs of shapes", "It is DigitsCNN, the demo's"]),
        (("data=image_folder",), 2, ["data.root must be given"]),
        (("plan", "model=transformers"), 2, ["model.name must be given"]),
        (("reduce._target_=mypkg.Half",), 2, ["reduce=total reduce._target_="]),
        (("model=module",), 2, ["model.build.module._target_ must be given", "--allow-target mypkg model.build"]),
        (("verify", "nowhere.zarr"), 2, ["nowhere.zarr", "there is nothing"]),
        (("verify",), 2, ["igc-dist verify takes a store"]),
        (("compare", "a.zarr"), 2, ["takes stores"]),
        (("info", "nowhere.zarr"), 2, ["there is nothing"]),
    ],
)  # fmt: skip
def test_exit_codes_and_their_words(arguments: tuple[str, ...], code: int, words: list[str], tmp_path: Path) -> None:
    """What was given, what was expected, what to do: and no traceback for a user's mistake."""
    found, said = forked(tmp_path, *arguments)
    assert found == code, said
    assert [word for word in words if word not in said] == [], said
    assert "Traceback" not in said


def test_non_finite_values_leave_with_four(tmp_path: Path) -> None:
    """The sample is named; under `skip` it is left out and recorded."""
    tiny = [*TINY, "data.build._target_=tests.ranks.Holed"]
    code, said = forked(tmp_path, *tiny, "store.path=failed.zarr")
    assert (code, "sample 5 has NaN or infinity in its input" in said) == (4, True), said
    assert forked(tmp_path, *tiny, "store.path=skipped.zarr", "on_nonfinite=skip")[0] == 0
    tree = igc_dist.open(tmp_path / "skipped.zarr")
    assert tree["n"].values.tolist() == [23, 23]
    assert tree.attrs["skipped"] == [{"index": 5, "reason": "NaN or infinity in its input"}]


def test_samples_that_cannot_be_read_leave_with_three(tmp_path: Path) -> None:
    """The sample is named, without a traceback; under `skip` it is left out and recorded, and the table names it."""
    tiny = [*TINY, "data.build._target_=tests.ranks.Torn"]
    code, said = forked(tmp_path, *tiny, "store.path=failed.zarr")
    assert (code, "sample 5 cannot be read: OSError: truncated" in said, "Traceback" in said) == (3, True, False), said
    code, said = forked(tmp_path, *tiny, "store.path=skipped.zarr", "on_bad_sample=skip")
    assert (code, "1 sample was left out: sample 5: it cannot be read" in said) == (0, True), said
    assert igc_dist.open(tmp_path / "skipped.zarr").attrs["skipped"] == [{"index": 5, "reason": "it cannot be read"}]


# -- settings ----------------------------------------------------------------------------------------------------------

ANY = ("--allow-target", "tests.*", *TINY[2:])
LOOKUP = ("model.build._target_=tests.models.Lookup", "data.build._target_=tests.problems.Coded")
CONV = ("model.build._target_=tests.models.conv", "data.build._target_=tests.problems.Images")
PARTED = ("data.build._target_=tests.problems.Parted",)
Setting = tuple[tuple[str, ...], Callable[[], Any], Callable[..., Any], dict[str, Any]]
SETTINGS: dict[str, Setting] = {
    "weights": ((*PARTED, "data.weights=weight"), Net, problems.Parted, {"weights": "weight"}),
    "slices": ((*PARTED, "data.slices=site"), Net, problems.Parted, {"slices": "site"}),
    "limits of a t-test": (
        ("method=naive_ttest", "statistic.low=-0.5", "statistic.high=0.5"),
        Net, Rows, {"method": "naive_ttest", "statistics": [TTest(-0.5, 0.5)]},
    ),
    "final layer": (
        (
            "model.build._target_=tests.problems.wide", "data.build._target_=tests.problems.Wide",
            "model.final_layer=layer",
        ),
        problems.wide, problems.Wide, {"final_layer": "layer"},
    ),
    "embedding": (
        (
            "model.build._target_=tests.models.Sequence", "data.build._target_=tests.problems.Tokens",
            "model.forward=body", "model.embedding=embed", "+model.embedding_kwargs.scale=2.0",
        ),
        models.Sequence, problems.Tokens,
        {"forward": "body", "embedding": "embed", "embedding_kwargs": {"scale": 2.0}},
    ),
    "categories": (
        (*LOOKUP, "model.categories=5", "model.n_categorical=1"),
        models.Lookup, problems.Coded, {"categories": 5, "n_categorical": 1},
    ),
    "categories of each input": ((*LOOKUP, "model.categories=[5]"), models.Lookup, problems.Coded, {"categories": [5]}),
    "patches": ((*CONV, "reduce=patches", "reduce.size=3"), models.conv, problems.Images, {"reduce": Patches(3)}),
    "names and dims": (
        (*CONV, "data.names=[photo]", "data.dims=[[band,up,along]]", "target.names=[one,two]"),
        models.conv, problems.Images,
        {"names": ["photo"], "dims": [["band", "up", "along"]], "target": igc_dist.Targets(names=["one", "two"])},
    ),
    "iterations": (
        ("method=bsc", "method.attributor.n_iter=4"), Net, Rows, {"method": "bsc", "attributor": BaselineShapley(4)},
    ),
    "gradients by pearson": (
        ("method=gradients", "statistic.names=[pearson]"),
        Net, Rows, {"method": "gradients", "statistics": ["pearson"]},
    ),
    "shapley by moments": (
        ("method=bsc", "statistic.names=[moments]"), Net, Rows, {"method": "bsc", "statistics": ["moments"]},
    ),
}  # fmt: skip
RESULTS = {
    "weights": "x/igc", "slices": "slices/x/igc_within", "limits of a t-test": "x/naive_ttest", "final layer": "x/igc",
    "embedding": "x/igc", "categories": "x1/igc", "categories of each input": "x1/igc", "patches": "x/igc",
    "names and dims": "photo/igc", "iterations": "x/bsc", "gradients by pearson": "x/gradient_pearson",
    "shapley by moments": "x/bs_std",
}  # fmt: skip
"""A result that only the setting makes."""


def settings_by_command(folder: str, said: str) -> dict[str, int]:
    """The command with each setting, and a sweep, one after the other; returns the exit codes."""
    from igc_dist.__main__ import main

    os.chdir(folder)
    codes = {}
    with open(said, "wb") as file:
        for stream in (1, 2):
            os.dup2(file.fileno(), stream)
    lines = {name: (*overrides, f"store.path='{name}.zarr'") for name, (overrides, *_) in SETTINGS.items()}
    for name, overrides in {**lines, "sweep": ("-m", "method=igc,bsc", "seed=3")}.items():
        try:
            main([*ANY, *overrides])
        except SystemExit as end:
            codes[name] = int(end.code or 0)
    return codes


def settings_by_python(folder: str) -> None:
    """The same from Python."""
    same = {"n_folds": 8, "micro_batch": 3, "n_steps": 4, "threads": 1}
    for name, (_, model, data, settings) in SETTINGS.items():
        igc_dist.attribute(model(), data(n=24), store=Path(folder) / f"{name}.zarr", **same, **settings)
    for method in ("igc", "bsc"):
        igc_dist.attribute(Net(), Rows(24), store=Path(folder) / f"{method}.zarr", method=method, seed=3, **same)


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, dict[str, int], str]:
    """Folders of the stores of the command and of Python, exit codes, and what the command said."""
    by_command, by_python = tmp_path_factory.mktemp("command"), tmp_path_factory.mktemp("python")
    (codes,) = values(run_ranks(1, settings_by_command, str(by_command), str(by_python / "said"), timeout=110))
    values(run_ranks(1, settings_by_python, str(by_python)))
    return by_command, by_python, codes, (by_python / "said").read_text()


@pytest.mark.parametrize("name", SETTINGS)
def test_settings_reach_the_run(name: str, settings: tuple[Path, Path, dict[str, int], str]) -> None:
    """What the command stores under a setting is what Python stores, byte by byte, and is not what it would be
    without."""
    by_command, by_python, codes, said = settings
    assert codes[name] == 0, said
    assert "Traceback" not in said
    store = by_command / f"{name}.zarr"
    assert files(store) == files(by_python / f"{name}.zarr")
    tree = igc_dist.open(store)
    assert bool(tree[RESULTS[name]].notnull().any())
    expected = {
        "slices": {"slice": 3}, "categories": {"feature": 2, "category": 5},
        "patches": {"height_patch": 2, "width_patch": 2},
        "embedding": {"height": 4, "width": 4}, "names and dims": {"band": 1, "up": 6, "along": 6},
        "final layer": {"output": 9},
    }.get(name, {})  # fmt: skip
    sizes = tree[RESULTS[name]].sizes
    assert {dim: sizes.get(dim) for dim in expected} == expected, sizes
    if name == "names and dims":
        assert tree["output"].values.tolist() == ["one", "two"]
    if name == "iterations":
        assert tree.attrs["cost"]["forwards"] == 24 * 4 * 6


def test_a_sweep_over_methods(settings: tuple[Path, Path, dict[str, int], str]) -> None:
    """One store for each, with the bytes that Python stores."""
    by_command, by_python, codes, said = settings
    assert codes["sweep"] == 0, said
    stores = {
        igc_dist.open(path).attrs["method"]: path for path in (by_command / "outputs" / "sweep").rglob("store.zarr")
    }
    assert set(stores) == {"igc", "bsc"}
    for method, path in stores.items():
        assert files(path) == files(by_python / f"{method}.zarr")


@pytest.mark.parametrize(
    ("overrides", "code", "words"),
    [
        (("method=bsc", "method.attributor.n_iter=0"), 2, ["method.attributor.n_iter=0", "at least 1"]),
        (("method=igc", "+method.attributor.n_iter=4"), 2, ["PathIntegral could not be built", "n_iter"]),
        (("statistic.names=[corelation]",), 2, ["'corelation' is unknown", "did you mean 'correlation'?"]),
        (("statistic.low=low",), 2, ["statistic.low", "low"]),
        (("method=igc", "statistic.low=0.5"), 2, ["statistic.low=0.5", "ttest"]),
        ((*PARTED, "method=naive_ttest", "data.weights=weight"), 2, ["'ttest' is not defined for weighted samples"]),
        ((*PARTED, "data.weights=wait"), 3, ["weights='wait'", "no such attribute", "'weight'"]),
        ((*PARTED, "data.slices=place"), 3, ["slices='place'", "no such attribute", "'site'"]),
        (("model.final_layer=hed",), 2, ["final_layer='hed' is no module of Net", "did you mean 'head'?"]),
        (("model.final_layer=hidden",), 3, ["final_layer (hidden) must be the last learned step"]),
        (("model.embedding=embed",), 3, ["Net has no method 'embed'"]),
        ((*LOOKUP, "model.categories=5", "model.embedding=body"), 2, ["embedding and categories are both given"]),
        ((*LOOKUP, "model.categories=0"), 2, ["categories=0", "at least 1"]),
        ((*LOOKUP, "model.categories=3"), 3, ["category 3", "0 to 2"]),
        ((*LOOKUP, "model.categories=many"), 2, ["categories='many'"]),
        (("reduce=patches",), 2, ["patches of size", "at least 2 dimensions"]),
        ((*CONV, "reduce=patches", "reduce.size=0"), 2, ["patches of size 0"]),
        (("reduce=patch",), 2, ["patch", "patches"]),
        (("data.names=[a,b]",), 2, ["names", "2", "1"]),
        ((*CONV, "data.dims=[[up,along]]"), 2, ["dims", "up", "3"]),
    ],
)  # fmt: skip
def test_settings_that_cannot_be(overrides: tuple[str, ...], code: int, words: list[str], tmp_path: Path) -> None:
    found, said = forked(tmp_path, *ANY, *overrides)
    assert found == code, said
    assert [word for word in words if word not in said] == [], said
    assert "Traceback" not in said


def test_help_and_version() -> None:
    """Help names every command, every group with its choices, and every exit code; it needs no torch, so it is
    quick."""
    code = (
        "import sys; from igc_dist.__main__ import main\ntry: main(['--help'])\nfinally: sys.exit(9 if 'torch' in "
        "sys.modules else 0)"
    )
    text = subprocess.run(
        [sys.executable, "-c", code], env=environment(), capture_output=True, text=True, check=True
    ).stdout
    for command_name in ("run", "plan", "verify", "report", "compare", "info", "torchrun", "-m", "--allow-target"):
        assert command_name in text
    for group in (path for path in (ROOT / "conf").iterdir() if path.is_dir()):
        line = next(line for line in text.splitlines() if line.split()[:1] == [group.name])
        assert set(line.split()[1:]) >= {path.stem for path in group.glob("*.yaml")}
    for exit_code in ("0 done", "2 bad configuration", "3 bad model or data", "4 non-finite", "75 stopped"):
        assert exit_code in text
    found = subprocess.run(
        [sys.executable, "-m", "igc_dist", "--version"], env=environment(), capture_output=True, text=True, check=True
    )
    assert re.fullmatch(r"\d+\.\d+\.\d+\S*", found.stdout.strip())
