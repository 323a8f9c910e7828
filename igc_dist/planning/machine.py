"""The machine of a run: the work that a rank does in a second, as fitted or as given by the user."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from math import inf

from igc_dist.records import ConfigError, Tally


@dataclass
class Rates:  # not frozen: a schema of OmegaConf
    """Known rates of the machine of a run; null: the value of `Machine`, fitted on one core of a CPU."""

    flops: float | None = None
    """Floating point operations per second that a rank sustains on this model, all overheads included."""
    bandwidth: float | None = None
    """Bytes per second that a rank sends to the others."""
    disk: float | None = None
    """Bytes per second that the storage accepts from all ranks together."""

    def __post_init__(self) -> None:
        for one in fields(self):
            value = getattr(self, one.name)
            if value is not None and not value > 0:
                raise ConfigError(f"fabric.rates.{one.name}={value!r}: give a number above 0, per second, or null")


@dataclass(frozen=True)
class Machine:
    """Rates of a rank.

    The defaults were fitted by `python -m tests.benchmarks outlook` (its page says how well they predict runs), on one
    core of an AMD EPYC with torch 2.13, gloo over loopback and the page cache of a local disk.
    """

    operator: float = 5.2e-5
    """Seconds to call an operator of the model, whatever its size."""
    flops: float = 1.2e11
    """Floating point operations per second."""
    traffic: float = 2.2e9
    """Bytes per second that operators write."""
    sample: float = 2e-5
    """Seconds to read a sample; measured by `igc-dist plan` on the data."""
    shard: float = 9e-4
    """Seconds to claim a shard, to write its small arrays and to commit it."""
    encode: float = 2.2e8
    """Bytes of states per second that a rank compresses, hashes and writes."""
    decode: float = 3.5e8
    """Bytes of states per second that a rank reads back."""
    disk: float = inf
    """Bytes per second that the storage accepts from all ranks together."""
    bandwidth: float = 3.6e9
    """Bytes per second that a rank sends."""
    latency: float = 1.8e-2
    """Seconds of an empty exchange."""
    element: float = 2.4e-8
    """Seconds to finalize an element of the state of a fold."""
    end: float = 0.16
    """Seconds to create the arrays of the results and to write their tables, whatever their size."""

    def known(self, rates: Rates, sample: float | None = None) -> Machine:
        """The machine with known values in place of fitted ones.

        Known FLOP/s replace all three rates of the model: they already include all overheads.
        """
        given = {one.name: value for one in fields(rates) if (value := getattr(rates, one.name)) is not None}
        own = {"operator": 0.0, "traffic": inf} if rates.flops is not None else {}
        return replace(self, **own, **given, **({} if sample is None else {"sample": sample}))

    def model(self, done: Tally, rows: int, calls: int) -> float:
        """Seconds of a pass over `rows` rows in `calls` calls."""
        return self.operator * done.operators * calls + rows * (done.flops / self.flops + done.bytes / self.traffic)
