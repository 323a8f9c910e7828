"""A SLURM cluster of this machine alone: munged, slurmctld and slurmd of Debian's slurm-wlm, up in seconds; all state
in one folder.

Root is needed (slurmd starts jobs as their user); cgroups, systemd, a database and a network are not.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.commands import environment, until
from tests.ranks import free_port

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "scontrol", "scancel")

CONF = """\
ClusterName=igc
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
CredType=cred/munge
# a requeued job waits until the credentials of its last start are void: 120 s by default
AuthInfo=socket={folder}/munge.socket,cred_expire=5
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
ProctrackType=proctrack/pgid
TaskPlugin=task/none
MpiDefault=none
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SlurmdParameters=config_overrides
SchedulerParameters=sched_interval=1,bf_interval=1,batch_sched_delay=0
ReturnToService=2
KillWait=10
NodeName={host} NodeAddr=127.0.0.1 CPUs=4 State=UNKNOWN
PartitionName=all Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""


def missing() -> str:
    """What this machine lacks for a cluster, or nothing."""
    lacks = [name for name in PROGRAMS if _program(name) is None]
    if lacks:
        return f"needs SLURM (apt-get install slurm-wlm munge): no {', '.join(lacks)}"
    return "" if os.geteuid() == 0 else "needs root, which slurmd needs to start jobs"


def _program(name: str) -> str | None:
    return shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")


@dataclass(frozen=True)
class Cluster:
    """A cluster that runs."""

    folder: Path

    def call(self, *arguments: str | Path, cwd: Path | None = None, check: bool = True, **environ: str) -> str:
        """Run a SLURM command to its end; returns what it printed."""
        found = subprocess.run(
            list(map(str, arguments)), cwd=cwd, env=environment(SLURM_CONF=str(self.folder / "slurm.conf"), **environ),
            text=True, capture_output=True, timeout=30,
        )  # fmt: skip
        assert found.returncode == 0 or not check, (arguments, found.stderr)
        return found.stdout.strip()

    def job(self, number: str) -> dict[str, str]:
        """The fields of a job, as scontrol shows them."""
        words = self.call("scontrol", "-o", "show", "job", number).split()
        return dict(word.split("=", 1) for word in words if "=" in word)

    def ended(self, number: str, seconds: float = 100.0) -> dict[str, str]:
        """Wait for the end of a job; returns its fields."""
        until(
            lambda: self.job(number)["JobState"] in ("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL"),
            seconds,
        )
        return self.job(number)


@contextmanager
def cluster() -> Iterator[Cluster]:
    """Start the three daemons; at the end all jobs and daemons are gone, and the folder too."""
    folder = Path(tempfile.mkdtemp(prefix="igc-slurm-", dir="/tmp"))  # the path of a socket has at most 107 letters
    folder.chmod(0o755)
    for name in ("state", "spool"):
        (folder / name).mkdir()
    host = socket.gethostname().split(".")[0]
    (folder / "slurm.conf").write_text(CONF.format(host=host, folder=folder, ports=(free_port(), free_port())))
    (folder / "munge.key").write_bytes(os.urandom(128))
    (folder / "munge.key").chmod(0o600)
    kept = [
        f"--{name}={folder}/munge.{end}"
        for name, end in (("key-file", "key"), ("socket", "socket"), ("pid-file", "pid"), ("seed-file", "seed"))
    ]
    daemons: list[subprocess.Popen[bytes]] = []
    try:
        with (folder / "daemons.log").open("wb") as log:

            def start(name: str, *arguments: str) -> None:
                environ = environment(SLURM_CONF=str(folder / "slurm.conf"))
                daemons.append(
                    subprocess.Popen([str(_program(name)), *arguments], env=environ, stdout=log, stderr=log, cwd=folder)
                )

            start("munged", "--foreground", "--force", "--num-threads=2", f"--log-file={folder}/munge.log", *kept)
            until((folder / "munge.socket").exists, 20)
            start("slurmctld", "-D")
            start("slurmd", "-D")
            found = Cluster(folder)
            until(lambda: _up(found), 40)
            yield found
            found.call("scancel", "--full", "--signal=KILL", "--state=RUNNING")
    finally:
        for daemon in reversed(daemons):
            daemon.send_signal(signal.SIGTERM)
            try:
                daemon.wait(15)
            except subprocess.TimeoutExpired:
                daemon.kill()
                daemon.wait()
        shutil.rmtree(folder, ignore_errors=True)


def _up(found: Cluster) -> bool:
    time.sleep(0.1)
    try:
        return "State=IDLE" in found.call("scontrol", "-o", "show", "node")
    except AssertionError:  # the controller does not listen yet
        return False
