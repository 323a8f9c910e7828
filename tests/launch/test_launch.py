"""The files of launch/: they parse, tell their use and pass arguments on; those for one machine run. Others:
test_slurm, test_nodes."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from tests.commands import ROOT, TINY, command, environment
from tests.ranks import files, free_port

pytestmark = [pytest.mark.e2e]

LAUNCH = ROOT / "launch"
SCRIPTS = sorted([*LAUNCH.glob("*.sh"), *LAUNCH.glob("*.sbatch")])
PATH = f"{Path(sys.executable).parent}:{os.environ['PATH']}"


def script(name: str, *arguments: str, cwd: Path, path: str = PATH, **environ: str) -> subprocess.CompletedProcess[str]:
    """A launch file to its end."""
    return subprocess.run(
        [LAUNCH / name, *arguments],
        cwd=cwd,
        env=environment(PATH=path, **environ),
        text=True,
        capture_output=True,
        timeout=100,
    )


def test_which_there_are() -> None:
    """A new file must be tested too."""
    assert {p.name for p in LAUNCH.iterdir()} == {
        "local.sh", "torchrun.sh", "multinode.sh", "slurm.sbatch", "sweep.sh", "kubernetes.yaml"
    }  # fmt: skip


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_scripts_parse_and_tell_their_use(path: Path) -> None:
    """The header shows the command and every variable that is read; "$@" is passed on; an error ends the script."""
    assert subprocess.run(["bash", "-n", path], capture_output=True, text=True).stderr == ""
    text = path.read_text()
    header = text[: text.index("set -euo pipefail")]
    assert f"launch/{path.name}" in header
    assert '"$@"' in text
    assert path.suffix == ".sbatch" or os.access(path, os.X_OK)
    for name in (
        "NPROC",
        "NNODES",
        "RDZV_ENDPOINT",
        "RDZV_ID",
        "MAX_RESTARTS",
        "MAX_REQUEUES",
        "WAIT",
        "SWEEP",
        "LAUNCHER",
        "MINUTES",
    ):
        assert (f"#   {name} " in header) == (f"${{{name}" in text or f"${name}" in text), name


@pytest.mark.skipif(shutil.which("shellcheck") is None, reason="needs shellcheck (apt-get install shellcheck)")
def test_shellcheck_finds_nothing() -> None:
    assert subprocess.run(["shellcheck", *SCRIPTS], capture_output=True, text=True).stdout == ""


RECORD = '#!/bin/sh\nfor word in "$0" "$@"; do printf "%s\\n" "${word##*/}"; done\n'
"""A command that prints its name and its arguments, one a line."""


def recorded(folder: Path, *names: str) -> str:
    """A PATH on which these commands record."""
    (folder / "bin").mkdir()
    for name in names:
        (folder / "bin" / name).write_text(RECORD)
        (folder / "bin" / name).chmod(0o755)
    return f"{folder / 'bin'}:{os.environ['PATH']}"


@pytest.mark.parametrize("name", [path.name for path in SCRIPTS if path.suffix == ".sh"])
def test_arguments_are_passed_on_as_they_are(name: str, tmp_path: Path) -> None:
    """Blanks, quotes and commas arrive, and what the user says comes last, so that it wins."""
    path = recorded(tmp_path, "igc-dist", "torchrun")
    mine = ["target.names=['a b','c']", "data.build.root=a  b", "seed=1,2"]
    found = script(name, *mine, cwd=tmp_path, path=path, RDZV_ENDPOINT="127.0.0.1:29400")
    assert found.stdout.splitlines()[-3:] == mine, found.stderr


@pytest.mark.dist
@pytest.mark.slow
@pytest.mark.parametrize("name", ["local.sh", "torchrun.sh"])
def test_two_ranks_here_store_the_same_bytes(name: str, alone: dict[str, bytes], tmp_path: Path) -> None:
    found = script(name, *TINY, "store.path=a.zarr", cwd=tmp_path, NPROC="2")
    assert found.returncode == 0, found.stderr
    assert sorted(p.name for p in (tmp_path / "a.zarr.run/logs").glob("rank-*.log")) == ["rank-0.log", "rank-1.log"]
    assert files(tmp_path / "a.zarr") == alone


def test_an_endpoint_that_cannot_be(tmp_path: Path) -> None:
    """Without an endpoint, or with one that is none, multinode.sh says what to give, before torchrun starts."""
    path = recorded(tmp_path, "torchrun")
    for endpoint, expected in (
        ("", "set RDZV_ENDPOINT to host:port"),
        ("here", "give host:port"),
        ("no.invalid:1", "out of reach"),
    ):
        found = script("multinode.sh", cwd=tmp_path, path=path, RDZV_ENDPOINT=endpoint)
        assert found.returncode != 0
        assert expected in found.stderr
        assert found.stdout == ""


@pytest.mark.slow
@pytest.mark.parametrize("launcher", ["basic", "submitit_local"])
def test_a_sweep(launcher: str, alone: dict[str, bytes], tmp_path: Path) -> None:
    """A store for each combination; the first is that of a run by itself."""
    if launcher != "basic":
        pytest.importorskip("hydra_plugins.hydra_submitit_launcher", reason="needs hydra-submitit-launcher")
    found = script("sweep.sh", *TINY, "seed=0,1", cwd=tmp_path, LAUNCHER=launcher)
    assert found.returncode == 0, found.stderr
    stores = sorted((tmp_path / "outputs/sweep").glob("*/store.zarr"))
    assert len(stores) == 2, stores
    assert files(stores[0]) == alone


# -- Kubernetes --------------------------------------------------------------------------------------------------------


@pytest.fixture
def job() -> Any:
    return OmegaConf.to_container(OmegaConf.load(LAUNCH / "kubernetes.yaml"))


def test_kubernetes_has_the_fields_of_a_pytorchjob(job: Any) -> None:
    """By hand, what the schema of kubeflow.org/v1 and the operator's own checks ask of a PyTorchJob."""
    assert (job["apiVersion"], job["kind"], set(job)) == (
        "kubeflow.org/v1",
        "PyTorchJob",
        {"apiVersion", "kind", "metadata", "spec"},
    )
    spec = job["spec"]
    assert set(spec) <= {"elasticPolicy", "runPolicy", "nprocPerNode", "pytorchReplicaSpecs"}
    elastic = spec["elasticPolicy"]
    assert set(elastic) <= {
        "minReplicas", "maxReplicas", "rdzvBackend", "rdzvPort", "rdzvHost", "rdzvId", "rdzvConf", "standalone",
        "nProcPerNode",
        "maxRestarts", "metrics",
    }  # fmt: skip
    assert elastic["rdzvBackend"] == "c10d"
    assert set(spec["runPolicy"]) <= {
        "cleanPodPolicy", "ttlSecondsAfterFinished", "activeDeadlineSeconds", "backoffLimit", "schedulingPolicy",
        "suspend", "managedBy"
    }  # fmt: skip
    assert spec["runPolicy"]["cleanPodPolicy"] in ("All", "Running", "None")
    assert set(spec["pytorchReplicaSpecs"]) == {"Worker"}  # an elastic job has no Master
    worker = spec["pytorchReplicaSpecs"]["Worker"]
    assert set(worker) == {"replicas", "restartPolicy", "template"}
    assert 1 <= elastic["minReplicas"] <= worker["replicas"] <= elastic["maxReplicas"]
    assert worker["restartPolicy"] in ("Always", "OnFailure", "Never", "ExitCode")
    pod = worker["template"]["spec"]
    (container,) = pod["containers"]
    assert container["name"] == "pytorch"
    assert container["resources"]["limits"]["nvidia.com/gpu"] == elastic["nProcPerNode"]
    assert all(isinstance(word, str) for word in [*container["command"], *container["args"]])
    assert all(isinstance(variable["value"], str) for variable in container["env"])
    assert {mount["name"] for mount in container["volumeMounts"]} == {volume["name"] for volume in pod["volumes"]}


def test_the_overrides_of_kubernetes_compose(job: Any, tmp_path: Path) -> None:
    """They are settings that exist; the store is on the volume that outlives the pods."""
    container = job["spec"]["pytorchReplicaSpecs"]["Worker"]["template"]["spec"]["containers"][0]
    found = command(*container["args"], "--cfg", "job", cwd=tmp_path)
    assert found.returncode == 0, found.stderr
    assert OmegaConf.create(found.stdout).store.path.startswith(f"{container['volumeMounts'][0]['mountPath']}/")


@pytest.mark.dist
@pytest.mark.slow
def test_the_command_of_kubernetes_runs(job: Any, alone: dict[str, bytes], tmp_path: Path) -> None:
    """The container's command with the variables that the operator sets from elasticPolicy, on one pod of two ranks."""
    elastic = job["spec"]["elasticPolicy"]
    program, *flags = job["spec"]["pytorchReplicaSpecs"]["Worker"]["template"]["spec"]["containers"][0]["command"]
    environ = {
        "PET_RDZV_BACKEND": elastic["rdzvBackend"],
        "PET_RDZV_ENDPOINT": f"localhost:{free_port()}",
        "PET_NNODES": "1:1",
        "PET_NPROC_PER_NODE": "2",
        "PET_MAX_RESTARTS": str(elastic["maxRestarts"]),
    }
    found = subprocess.run(
        [Path(sys.executable).parent / program, *flags, *TINY, "store.path=a.zarr"],
        cwd=tmp_path, env=environment(PATH=PATH, **environ), text=True, capture_output=True, timeout=100,
    )  # fmt: skip
    assert found.returncode == 0, found.stderr
    assert sorted(p.name for p in (tmp_path / "a.zarr.run/logs").glob("rank-*.log")) == ["rank-0.log", "rank-1.log"]
    assert files(tmp_path / "a.zarr") == alone
