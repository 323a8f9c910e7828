"""Every preset, input and setting on one and on three ranks: the same bytes in the store, in memory, and by the
command."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from torch import nn

import igc_dist
from igc_dist import baselines, config
from igc_dist.attributors import AdaptiveIG
from igc_dist.features import XRAI, Patches
from igc_dist.records import StoreError
from igc_dist.statistics import TTest
from igc_dist.store import Store
from tests import models, problems
from tests.attributors import members
from tests.commands import TINY
from tests.ranks import Net, Rows, arrays, files, run_ranks, values

pytestmark = pytest.mark.dist

PRESETS = tuple(sorted(path.stem for path in (config.folder() / "method").glob("*.yaml")))
IMAGES: dict[str, Any] = {
    "problem": (models.conv, problems.Images),
    "command": (
        "--allow-target", "tests.*",
        "model.build._target_=tests.models.conv", "data.build._target_=tests.problems.Images",
    ),
}  # fmt: skip


PRESET_SETTINGS: dict[str, dict[str, Any]] = dict.fromkeys(("blur_ig", "blur_igc", "idgi_blur_ig"), IMAGES)
"""What a preset needs in place of the tiny problem: `problem` (model, data), more arguments of the `command`."""


def folded(preset: str) -> list[str]:
    """Statistics beside the samples of a path method, so that it is folded as well; what is right on average only has
    no moments."""
    if preset not in members.named("PRESETS") or not config.preset(preset).samples:
        return []
    return ["correlation"] if preset == "expected_gradients" else ["correlation", "autocorrelation", "moments"]


def few(preset: str) -> list[str]:
    """4 steps by the command, for a method that has a number of its own, as `n_steps` does in Python."""
    node, where, found = config.preset(preset).attributor, "method.attributor", list[str]()
    while node:
        found = [f"{where}.n_steps=4"] if "n_steps" in node else found
        node, where = node.get("attributor"), f"{where}.attributor"
    return found


EVERY = ["correlation", "autocorrelation", "moments", "pearson"]
HALVES = [*EVERY, TTest(low=0.0, high=0.0)]
Case = tuple[Callable[[], nn.Module], Callable[[], Any], dict[str, Any]]
CASES: dict[str, Case] = {
    "slices, weights and missing targets": (
        Net, problems.Parted, {"slices": "site", "weights": "weight", "statistics": EVERY, "baseline": 2}
    ),
    "slices, missing targets and groups of a t-test": (
        Net, problems.Parted,
        {"slices": "site", "statistics": HALVES, "baseline": baselines.Resampled(2), "samples": True},
    ),
    "adaptive, some failed": (
        Net, problems.Parted,
        {
            "attributor": AdaptiveIG(kind="piecewise", tol=1e-4, max_evaluations=60), "samples": True, "baseline": 2,
        },
    ),
    "categories": (
        models.Lookup, problems.Coded,
        {"categories": [5], "n_categorical": 1, "baseline": baselines.Resampled(2), "samples": True},
    ),
    "categories by shapley": (models.Lookup, problems.Coded, {"categories": 5, "method": "bsc", "baseline": 2}),
    "embedding": (
        models.Sequence, problems.Tokens, {"embedding": "embed", "forward": "body", "baseline": 2, "samples": True},
    ),
    "final layer": (problems.wide, problems.Wide, {"final_layer": "layer", "baseline": 2, "samples": True}),
    "final layer in blocks": (problems.wide, problems.Wide, {"final_layer": "layer", "baseline": 2, "output_block": 5}),
    "reducer": (models.conv, problems.Images, {"reduce": Patches(3), "baseline": 2, "samples": True}),
    "regions": (
        models.conv, problems.Images,
        {"reduce": XRAI(scales=[5, 50], min_size=2, dilation=1, min_pixels=2), "baseline": [0.0, 1.0], "samples": True},
    ),
    "inputs of mixed types": (
        problems.Mixture, problems.Mixed, {"baseline": baselines.Resampled(2), "statistics": EVERY, "samples": True},
    ),
    "inputs of mixed types by shapley": (problems.Mixture, problems.Mixed, {"method": "bsc", "baseline": 2}),
}  # fmt: skip


def digests(tree: Any) -> dict[str, str]:
    """One per array: the trees of many runs would not fit into the pipe that a rank hands them back through."""
    return {name: hashlib.sha256(array).hexdigest() for name, array in arrays(tree).items()}


def by_preset(preset: str, path: Path | None) -> dict[str, str]:
    """The problem that TINY describes, from Python."""
    given = PRESET_SETTINGS.get(preset, {})
    model, data = given.get("problem", (Net, Rows))
    settings = {"n_folds": 4, "micro_batch": 3, "n_steps": 4, "statistics": folded(preset) or None}
    return digests(igc_dist.attribute(model(), data(24), method=preset, **settings, threads=1, store=path))


def by_case(case: str, path: Path | None) -> dict[str, str]:
    model, data, settings = CASES[case]
    return digests(
        igc_dist.attribute(
            model(), data(), **{"n_folds": 5, "micro_batch": 4, "n_steps": 3, **settings}, threads=1, store=path
        )
    )


def from_python(
    names: tuple[str, ...], run: Callable[[str, Path | None], dict[str, str]], folder: Path | None
) -> dict[str, Any]:
    """Runs one after the other in this group of ranks."""
    return {name: run(name, None if folder is None else folder / f"{name}.zarr") for name in names}


def from_command(names: tuple[str, ...], folder: Path) -> dict[str, int]:
    """The command for each preset, on this rank; returns the exit codes."""
    from igc_dist.__main__ import main

    os.chdir(folder)
    codes = {}
    for name in names:
        try:
            given = PRESET_SETTINGS.get(name, {}).get("command", ())
            statistics = [f"statistic.names=[{','.join(folded(name))}]"] if folded(name) else []
            main(
                [*TINY, *given, *statistics, "plan.n_folds=4", f"method={name}", *few(name), f"store.path={name}.zarr"]
            )
        except SystemExit as end:
            codes[name] = int(end.code or 0)
    return codes


class Worlds:
    """Groups of ranks that do all runs one after the other, as a group takes longer to start than a run; each only if
    asked for."""

    def __init__(self, root: Path, kinds: dict[str, tuple[int, Callable[[Path], tuple[Any, ...]]]]) -> None:
        self.root, self.kinds, self.found = root, kinds, dict[str, list[dict[str, Any]]]()

    def __getitem__(self, kind: str) -> list[dict[str, Any]]:
        """What each rank returned."""
        if kind not in self.found:
            n, work = self.kinds[kind]
            (self.root / kind).mkdir()
            self.found[kind] = values(run_ranks(n, *work(self.root / kind), timeout=110))
        return self.found[kind]


def of_python(names: tuple[str, ...], run: Callable[[str, Path | None], dict[str, str]]) -> dict[str, Any]:
    return {
        "one": (1, lambda folder: (from_python, names, run, folder)),
        "three": (3, lambda folder: (from_python, names, run, folder)),
        "memory": (1, lambda folder: (from_python, names, run, None)),
        "memory of three": (3, lambda folder: (from_python, names, run, None)),
    }


@pytest.fixture(scope="module")
def presets(tmp_path_factory: pytest.TempPathFactory) -> Worlds:
    commands = {
        "command": (1, lambda folder: (from_command, PRESETS, folder)),
        "command of three": (3, lambda folder: (from_command, PRESETS, folder)),
    }
    return Worlds(tmp_path_factory.mktemp("presets"), of_python(PRESETS, by_preset) | commands)


@pytest.mark.slow
@pytest.mark.parametrize(
    "kind",
    ["three", "command", "memory", "memory of three", "command of three"],
)
@pytest.mark.parametrize("preset", PRESETS)
def test_presets_on_one_rank_and_otherwise(preset: str, kind: str, presets: Worlds) -> None:
    """On three ranks, in memory and by the command: the same tree on each rank, and the same bytes of every file of the
    store."""
    (one,) = presets["one"]
    found = [of_rank[preset] for of_rank in presets[kind]]
    assert len(found) == (3 if "three" in kind else 1)
    assert found == [0 if "command" in kind else one[preset]] * len(found)
    if "memory" not in kind:
        path = presets.root / kind / f"{preset}.zarr"
        assert files(path) == files(presets.root / "one" / f"{preset}.zarr")
        assert Store.existing(path).verify() == []
        tree = igc_dist.open(path)
        assert (tree.attrs["method"], tree.attrs["provenance"]["ranks"]) == (preset, len(found))
        assert digests(tree) == one[preset]


@pytest.fixture(scope="module")
def cases(tmp_path_factory: pytest.TempPathFactory) -> Worlds:
    return Worlds(tmp_path_factory.mktemp("cases"), of_python(tuple(CASES), by_case))


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["three", "memory", "memory of three"])
@pytest.mark.parametrize("case", CASES)
def test_inputs_and_settings_of_every_kind(case: str, kind: str, cases: Worlds) -> None:
    """The same trees, and the same bytes of every file of the store; every map is finite somewhere."""
    (one,) = cases["one"]
    found = [of_rank[case] for of_rank in cases[kind]]
    assert found == [one[case]] * (3 if "three" in kind else 1)
    if "memory" in kind:
        return
    path = cases.root / kind / f"{case}.zarr"
    assert files(path) == files(cases.root / "one" / f"{case}.zarr")
    tree = igc_dist.open(path)
    maps = [
        path
        for path in one[case]
        if re.fullmatch(r"(slices/)?x[0-9]*/\w+(?<!_se)", path) and "output" in tree[path].dims
    ]
    assert maps
    assert [path for path in maps if not np.isfinite(tree[path].values).any()] == []


# -- kill -9 -----------------------------------------------------------------------------------------------------------

KILLED: dict[str, dict[str, Any]] = {
    "shapley": {"method": "bsc", "baseline": 2, "samples": True},
    "slices": {"slices": "site", "statistics": HALVES},
    "pairs": {
        "design": "pairs",
        "n_draws": 2,
        "statistics": ["correlation", "autocorrelation"],
        "budget": igc_dist.Budget(rel_se=1e-3, replicates=2),
    },
}


def killed(case: str, path: Path) -> dict[str, str]:
    return digests(
        igc_dist.attribute(
            Net(), problems.Parted(), n_steps=4, n_folds=6, micro_batch=4, threads=1, store=path, **KILLED[case]
        )
    )


@pytest.mark.fault
@pytest.mark.parametrize("case", KILLED)
def test_kill_and_resume(case: str, tmp_path: Path) -> None:
    """Killed in the middle of the walk on one rank, or at the exchange of one of two, then completed on three: the same
    bytes."""
    undisturbed = values(run_ranks(1, killed, case, tmp_path / "whole.zarr"))[0]
    path = tmp_path / "half.zarr"
    for world, fault in ((1, "compute:0:4"), (2, "barrier:1:2")):
        assert -9 in [end.code for end in run_ranks(world, killed, case, path, IGC_FAULT=fault)]
        with pytest.raises(StoreError, match="running, not complete"):
            igc_dist.open(path)
    assert [tree == undisturbed for tree in values(run_ranks(3, killed, case, path))] == [True] * 3
    assert files(path) == files(tmp_path / "whole.zarr")
    assert Store.existing(path).verify() == []
