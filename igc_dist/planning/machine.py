"""The machine of a run: the work that a rank does in a second, as fitted or as given by the user."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from math import inf

from igc_dist.records import ConfigError, Passes, Tally


@dataclass(frozen=True)
class Measured:
    """FLOP/s that a walk sustained on a card, by precision, and where the numbers come from."""

    card: str
    flops: Mapping[str, float]
    source: str


CARDS = {
    "h200": Measured(
        "NVIDIA H200",
        {"bf16-mixed": 1.62e14, "32-true": 3.7e13},
        "ViT-B/16 at 224 pixels, 10 outputs: 4,003 and 915 gradients per second in "
        "tests/benchmarks/gpu/h200-2026-11-27.json, of 4.06e10 FLOP each with their part of the forward pass",
    )
}
"""Rates by the name that a user gives. Only of runs whose report is kept; none is a vendor's figure."""


@dataclass
class Rates:  # not frozen: a schema of OmegaConf
    """Known rates of the machine of a run; null: the value of `Machine`, fitted on one core of a CPU."""

    flops: float | None = None
    """Floating point operations per second that a rank sustains on this model, all overheads included."""
    bandwidth: float | None = None
    """Bytes per second that a rank sends to the others."""
    disk: float | None = None
    """Bytes per second that the storage accepts from all ranks together."""
    card: str | None = None
    """The card of a rank, one of `CARDS`, whose FLOP/s were measured; `flops` counts if both are given."""

    def __post_init__(self) -> None:
        if self.card is not None and self.card not in CARDS:
            raise ConfigError(
                f"fabric.rates={self.card!r}: no run on such a card was measured, choose {', '.join(CARDS)}, or give "
                "fabric.rates.flops"
            )
        for one in fields(self):
            value = None if one.name == "card" else getattr(self, one.name)
            if value is not None and not value > 0:
                raise ConfigError(f"fabric.rates.{one.name}={value!r}: give a number above 0, per second, or null")

    def of(self, precision: str) -> Rates:
        """The rates with the card's FLOP/s in this precision. Raises `ConfigError` if they were not measured."""
        if self.card is None or self.flops is not None:
            return self
        found = CARDS[self.card]
        if precision not in found.flops:
            raise ConfigError(
                f"fabric.rates={self.card} with fabric.precision={precision}: measured were {', '.join(found.flops)}, "
                "so give fabric.rates.flops"
            )
        return replace(self, flops=found.flops[precision])


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
    start: float = 6.0
    """Seconds until the first pass: imports, and a first look at model and data; measured by `igc-dist plan`."""
    batch: float = 7e-4
    """Seconds of a micro-batch beside its data and the model."""
    part: float = 1.5e-4
    """Seconds of an input of a micro-batch or of a shard, beside the model."""
    shard: float = 1.6e-3
    """Seconds to claim a shard, to write its small arrays and to commit it."""
    record: float = 3e-4
    """Seconds to read the record of a shard, and each array in it, back."""
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
    end: float = 5e-2
    """Seconds to create the arrays of the results and to write their tables, whatever their size."""
    array: float = 1.8e-3
    """Seconds of each array of maps: to create it, to write its document, and for the page to open it again."""
    page: float = 1.5
    """Seconds of a page that draws next to nothing."""
    panel: float = 6e-2
    """Seconds to draw a panel: a map, and its standard error."""

    def known(self, rates: Rates) -> Machine:
        """The machine with known values in place of fitted ones.

        Known FLOP/s replace all three rates of the model: they already include all overheads.
        """
        names = (one.name for one in fields(rates) if one.name != "card")
        given = {name: value for name in names if (value := getattr(rates, name)) is not None}
        own = {"operator": 0.0, "traffic": inf} if rates.flops is not None else {}
        return replace(self, **own, **given)

    def timed(self, done: Passes, rows: int, forward: float, gradient: float) -> Machine:
        """The machine on which a forward pass of `rows` rows took `forward` seconds, and a gradient `gradient`."""
        told = self.model(done.forward, rows, 1) + self.model(done.gradient, rows, 1)
        ratio = (forward + gradient) / told if told else 1.0
        return replace(self, operator=self.operator * ratio, flops=self.flops / ratio, traffic=self.traffic / ratio)

    def model(self, done: Tally, rows: int, calls: int) -> float:
        """Seconds of a pass over `rows` rows in `calls` calls."""
        return self.operator * done.operators * calls + rows * (done.flops / self.flops + done.bytes / self.traffic)

    def rows(self, done: Passes, seconds: float) -> int:
        """Rows of a forward pass that takes so many seconds with a gradient."""
        none, one = (self.model(done.forward, n, 1) + self.model(done.gradient, n, 1) for n in (0, 1))
        return max(1, int((seconds - none) / max(one - none, 1e-12)))
