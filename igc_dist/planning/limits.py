"""The limits of a plan: how a user wants the grid cut, and what a run may cost."""

from __future__ import annotations

from dataclasses import dataclass

from igc_dist.records import ConfigError

GIB = 2**30
LARGE = 2**20
"""Bytes of a shard's part of an array beyond which it is an object by itself (`igc_dist.store.record`)."""

KEPT = 8 * 2**20
"""Bytes of small arrays of shards that a process keeps decoded (`igc_dist.store.shards`)."""

MODES = ("auto", "forward", "reverse")


@dataclass
class Limits:  # not frozen: OmegaConf makes the fields of a frozen schema read-only
    """How to cut the grid, and what it may cost. None means: the plan chooses."""

    n_folds: int = 32
    """Largest number of folds of the inputs: units of work and groups of the jackknife."""
    output_block: int | None = None
    """Outputs of one shard."""
    baseline_block: int | None = None
    """Baselines of one shard (None: all of them)."""
    micro_batch: int | None = None
    """Rows of one forward pass of the walk."""
    trial: bool = False
    """Whether a trial on the real model chooses `micro_batch` by measured time (`trial.py`)."""
    host_memory: float = 4.0
    """Budget of host memory per rank, in GiB, for everything that the process holds."""
    device_memory: float = 8.0
    """Budget of accelerator memory per rank, in GiB; not used on CPU."""
    disk: float | None = None
    """Budget of the store on disk, in GiB as a file system counts them (None: no limit)."""
    files: int | None = None
    """Largest number of files and folders of the store (None: no limit)."""
    mode: str = "auto"
    """How walks are differentiated. reverse: one gradient per output. forward: one directional derivative per reduced
    feature, for all outputs at once. auto: the cheaper one."""

    def __post_init__(self) -> None:
        for name in ("n_folds", "output_block", "baseline_block", "micro_batch", "files"):
            value = getattr(self, name)
            if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
                raise ConfigError(
                    f"plan.{name}={value!r}: give an integer of at least 1"
                    + {"n_folds": "", "files": ", or null for no limit"}.get(name, ", or null to let the plan choose")
                )
        if self.trial and self.micro_batch is not None:
            raise ConfigError(
                f"plan.trial=true chooses plan.micro_batch, which is set to {self.micro_batch}: leave one of them out"
            )
        for name in ("host_memory", "device_memory", "disk"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise ConfigError(f"plan.{name}={value!r}: give a number of GiB above 0")
        if self.mode not in MODES:
            raise ConfigError(f"plan.mode={self.mode!r}: choose one of {', '.join(MODES)}")


def size(n_bytes: int | float) -> str:
    """Bytes in human units."""
    for unit in ("B", "KiB", "MiB"):
        if abs(n_bytes) < 1024:
            return f"{n_bytes:.0f} {unit}" if unit == "B" else f"{n_bytes:.1f} {unit}"
        n_bytes /= 1024
    return f"{n_bytes:.2f} GiB"
