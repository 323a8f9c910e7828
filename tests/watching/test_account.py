"""run.json: one document at the end of a run; and the trace of `profile=true`."""

from __future__ import annotations

import gzip
import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import igc_dist
from igc_dist.watching import account, profiling
from tests.cli.test_cli import command_here
from tests.commands import TINY
from tests.ranks import files, run_ranks

pytestmark = pytest.mark.e2e


def of(*names: str) -> dict[str, Any]:
    return {name: {} for name in names}


RANK = of(
    "rank", "shards", "busy_s", "data_wait_s", "images_per_s", "grad_evals_per_s", "memory_peak_gib", "gpu_mem_peak_gib"
)
PHASE = {**of("images_per_s", "grad_evals_per_s", "rank_skew"), "ranks": RANK}
SPAN = of("min", "max")
KEYS = {
    "schema": {},
    "status": {},
    "exit_code": {},
    "error": {},
    "store": {},
    "spec_hash": {},
    "spec": "any",
    "overrides": {},
    "options": {},
    "versions": of("igc-dist", "torch", "lightning", "numpy", "zarr", "python"),
    "machine": of("platform", "device", "ranks", "threads", "rule"),
    "started": {},
    "seconds": {},
    "timings": of("first_look", "predict", "attribute", "replicate", "finalize"),
    "throughput": {"predict": PHASE, "attribute": PHASE},
    "completeness": {"igc_error": SPAN, "quadrature_error": SPAN, "completeness_error": SPAN},
    "precision": {"audited": {}, "precision_error": SPAN, "precision_completeness_error": SPAN, "fallback": {}},
    "cost": of("mode", "shards", "gradient_evaluations", "forwards"),
    "budget": "any",
    "skipped": {},
    "retried": {},
    "survived": of(
        "earlier_attempts", "restarts", "lock_takeovers", "out_of_memory_shards", "reissued_leases", "slow_ranks"
    )
    | {"resumed_shards": {"predict": {}, "attribute": {}}},
}
"""What a user's script may ask for: a change here is a change of the schema."""


def keys(found: Any, expected: Any) -> Any:
    """The tree of keys of a document; of a list of mappings those of the first."""
    if expected == "any":
        return "any"
    if isinstance(found, list) and found and isinstance(found[0], Mapping):
        found = found[0]
    if not isinstance(found, Mapping):
        return {}
    known = expected if isinstance(expected, Mapping) else {}
    return {key: keys(item, known.get(key, {})) for key, item in found.items()}


def run(folder: Path, *arguments: str, name: str = "a.zarr", **environment: str) -> tuple[int, dict[str, Any]]:
    """A run of the command in a process of its own: its exit code, and run.json."""
    with tempfile.NamedTemporaryFile() as said:
        every = (*TINY, f"store.path={name}", *arguments)
        ended = run_ranks(1, command_here, str(folder), said.name, *every, COLUMNS="200", **environment)[0]
        assert ended.code in (-9, 0, 2, 4, 75), said.read().decode()
    return ended.code, json.loads((folder / f"{name}.run" / "run.json").read_text())


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """A run with an audit and a profile, and its document."""
    folder = tmp_path_factory.mktemp("account")
    code, found = run(folder, "profile=true", "precision.audit=1")
    assert code == 0
    return folder, found


def test_the_schema(done: tuple[Path, dict[str, Any]]) -> None:
    assert keys(done[1], KEYS) == KEYS


def test_the_values_are_those_of_the_store(done: tuple[Path, dict[str, Any]]) -> None:
    folder, found = done
    tree = igc_dist.open(folder / "a.zarr")
    assert (found["status"], found["exit_code"], found["error"], found["schema"]) == ("complete", 0, None, 1)
    assert {name: found[name] for name in ("spec_hash", "spec", "budget", "cost")} == {
        name: tree.attrs[name] for name in ("spec_hash", "spec", "budget", "cost")
    }
    for name in ("igc_error", "quadrature_error", "completeness_error"):
        values = np.asarray(tree[name].values, dtype=np.float64)
        assert found["completeness"][name] == {"min": values.min(), "max": values.max()}
    for name in ("precision_error", "precision_completeness_error"):
        assert found["precision"][name]["max"] == tree[name].values.max()
    for phase in ("predict", "attribute"):
        (rank,) = found["throughput"][phase]["ranks"]
        assert (rank["rank"], rank["shards"]) == (0, 8)
        assert 0 < rank["busy_s"] < found["timings"][phase]
    rate, seconds = found["throughput"]["attribute"]["grad_evals_per_s"], found["timings"]["attribute"]
    again = 2 * 4 * 2  # the audit's: half a micro-batch, four points, two outputs
    assert rate * seconds == pytest.approx(tree.attrs["cost"]["gradient_evaluations"] + again, rel=1e-6)
    assert sum(value or 0.0 for value in found["timings"].values()) < found["seconds"] + 0.01
    assert found["survived"]["resumed_shards"] == {"predict": 0, "attribute": 0}


def test_a_profile_has_operators_and_changes_no_bit(done: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
    """A packed trace that a browser opens, the top operators in the log, and the bytes of a run without."""
    folder = done[0]
    with gzip.open(folder / "a.zarr.run" / "trace.json.gz") as file:
        names = {event.get("name", "") for event in json.load(file)["traceEvents"]}
    assert {"aten::addmm", "aten::tanh"} <= names
    assert "Self CPU" in (folder / "a.zarr.run" / "logs" / "rank-0.log").read_text()
    assert run(tmp_path, "precision.audit=1")[0] == 0
    assert not (tmp_path / "a.zarr.run" / "trace.json.gz").exists()
    assert files(tmp_path / "a.zarr") == files(folder / "a.zarr")


@pytest.mark.slow
def test_what_a_run_survived(tmp_path: Path) -> None:
    """Killed, it is left as running; taken up again, it says what was there; found complete, the document stays as it
    is."""
    code, found = run(tmp_path, IGC_FAULT="compute:0:4")
    assert (code, found["status"], found["exit_code"], found["timings"]["attribute"]) == (-9, "running", None, None)
    code, found = run(tmp_path, IGC_FAULT="compute:0:2:sigterm")
    assert (code, found["status"], found["exit_code"], found["error"]["type"]) == (75, "stopped", 75, "Stopped")
    code, found = run(tmp_path)
    assert (code, found["status"]) == (0, "complete")
    lost = found["survived"]
    assert (lost["earlier_attempts"], lost["resumed_shards"]) == (2, {"predict": 8, "attribute": 4})
    assert lost["lock_takeovers"] == 0  # the second run gave its lock back
    assert run(tmp_path) == (0, found)


def test_a_run_that_fails_says_why(tmp_path: Path) -> None:
    """With an error of the data, and before there is a store; secrets are in neither."""
    code, found = run(tmp_path, "data.build._target_=tests.ranks.Holed")
    assert (code, found["status"], found["exit_code"]) == (4, "failed", 4)
    assert found["error"]["type"] == "NonFiniteError"
    assert "sample 5" in found["error"]["message"]
    assert found["completeness"] == {"igc_error": None, "quadrature_error": None, "completeness_error": None}
    code, found = run(tmp_path, "+data.build.api_key=hunter2hunter2", name="b.zarr")
    assert (code, found["status"], found["error"]["type"], found["spec"]) == (2, "failed", "ConfigError", None)
    assert {*found} == {*KEYS}
    assert "+data.build.api_key=***" in found["overrides"]
    assert "hunter2" not in json.dumps(found)


def test_a_document_of_somebody_else_is_no_attempt_of_ours(tmp_path: Path) -> None:
    """What cannot be read, or is of another run, counts for nothing; a folder that cannot be written is told of."""
    for text in ("", "[]", "{", '{"spec_hash": "x", "status": "failed", "survived": 3}'):
        (tmp_path / "run.json").write_text(text)
        made = account.Account(tmp_path / "run.json", tmp_path / "a.zarr")
        made.close(ValueError("why"))
        found = json.loads((tmp_path / "run.json").read_text())
        assert (found["error"], found["exit_code"]) == ({"type": "ValueError", "message": "why"}, 1)
        assert found["survived"]["earlier_attempts"] == 0
    (tmp_path / "file").touch()
    account.Account(tmp_path / "file" / "run.json", tmp_path / "a.zarr").close(None)


def test_a_trace_is_short(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It begins with pass 2, after the first forward pass, and ends after some passes, or seconds, or with the run."""
    made = profiling.Profile(tmp_path / "trace.json.gz")
    made.passed("predict")
    assert made._recording is None
    for _ in range(profiling.SKIP + profiling.PASSES - 1):
        made.passed("attribute")
        torch.ones(3).sum()
        assert made._recording is not None
    made.passed("attribute")
    assert made._recording is None
    written = made.file.stat().st_mtime_ns
    for _ in range(3):
        made.passed("attribute")
    made.end()
    assert made.file.stat().st_mtime_ns == written
    monkeypatch.setattr(profiling, "SECONDS", 0.0)
    long = profiling.Profile(tmp_path / "long.json.gz")
    long.passed("attribute")
    long.passed("attribute")
    assert long.file.exists()
    with profiling.profiled(tmp_path / "none.json.gz") as none:
        assert none is not None
    assert not none.file.exists()
