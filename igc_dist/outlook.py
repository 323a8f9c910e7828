"""The outlook: what a plan would take on so many ranks, from rates of a machine, and what bounds it. Pure Python, nothing is run.

Claims are simulated as they go: whoever is free takes the next shard (list scheduling). The exchange is that of `results`: the
states of a range of outputs go to one rank, which finalizes them and writes their maps.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, fields, replace
from functools import cache
from itertools import product
from math import ceil, inf

from igc_dist.plan import GIB, Plan, make_plan, size
from igc_dist.records import ConfigError
from igc_dist.tally import Passes, Tally


@dataclass
class Rates:  # not frozen: a schema of OmegaConf
    """What is known of the machine of a run; null: as `Machine` has it, fitted on one core of a CPU."""

    flops: float | None = None
    """Floating point operations per second that a rank sustains on this model, all overheads included."""
    bandwidth: float | None = None
    """Bytes per second that a rank sends to the others."""
    disk: float | None = None
    """Bytes per second that the storage takes from all ranks together."""

    def __post_init__(self) -> None:
        for one in fields(self):
            value = getattr(self, one.name)
            if value is not None and not value > 0:
                raise ConfigError(f"fabric.rates.{one.name}={value!r}: give a number above 0, per second, or null")


@dataclass(frozen=True)
class Machine:
    """Rates of a rank. The defaults were fitted by `python -m tests.benchmarks outlook` (its page says how well they foretell runs),
    on one core of an AMD EPYC with torch 2.13, gloo over loopback and the page cache of a local disk."""

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
    """Bytes of states per second that a rank compresses, digests and writes."""
    decode: float = 3.5e8
    """Bytes of states per second that a rank reads back."""
    disk: float = inf
    """Bytes per second that the storage takes from all ranks together."""
    bandwidth: float = 3.6e9
    """Bytes per second that a rank sends."""
    latency: float = 1.8e-2
    """Seconds of an exchange of nothing."""
    element: float = 2.4e-8
    """Seconds to finalize an element of the state of a fold."""
    end: float = 0.16
    """Seconds to create the arrays of the results and to write their tables, whatever their size."""

    def known(self, rates: Rates, sample: float | None = None) -> Machine:
        """With what is known in place of what was fitted: sustained FLOP/s take the place of all three rates of the model."""
        given = {one.name: value for one in fields(rates) if (value := getattr(rates, one.name)) is not None}
        own = {"operator": 0.0, "traffic": inf} if rates.flops is not None else {}
        return replace(self, **own, **given, **({} if sample is None else {"sample": sample}))

    def model(self, done: Tally, rows: int, calls: int) -> float:
        """Seconds of a pass over so many rows in so many calls."""
        return self.operator * done.operators * calls + rows * (done.flops / self.flops + done.bytes / self.traffic)


@dataclass(frozen=True)
class Schedule:
    """How ranks shared the shards: `seconds` until the last was done, and shards and busy seconds of each rank."""

    seconds: float
    shards: tuple[int, ...]
    busy: tuple[float, ...]

    @property
    def used(self) -> float:
        """Part of the time that the ranks had work."""
        return sum(self.busy) / (self.seconds * len(self.busy)) if self.seconds else 1.0


def scheduled(seconds: Iterable[float], ranks: int) -> Schedule:
    """Ranks that claim shards from a counter: the first that is free takes the next."""
    free = [(0.0, rank) for rank in range(ranks)]
    shards = [0] * ranks
    for each in seconds:
        at, rank = heapq.heappop(free)
        shards[rank] += 1
        heapq.heappush(free, (at + each, rank))
    busy = {rank: at for at, rank in free}
    return Schedule(max(busy.values()), tuple(shards), tuple(busy[rank] for rank in range(ranks)))


@dataclass(frozen=True)
class Outlook:
    """What a plan would take: seconds, and bytes of a rank unless they are said to be `in_all`."""

    ranks: int
    pass_1: float
    pass_2: Schedule
    exchange: float
    finalize: float
    parts: dict[str, float] = field(repr=False)
    """Seconds of the total by what they are spent on."""
    reduction: int
    reduction_in_all: int
    all_reduce: int
    """Bytes that a rank would send if all states were summed on all ranks."""
    memory: int
    """What a rank holds in the exchange."""
    store_in_all: int
    fits: bool

    @property
    def seconds(self) -> float:
        """From the first forward pass to the complete store."""
        return self.pass_1 + self.pass_2.seconds + self.exchange + self.finalize

    @property
    def bottleneck(self) -> str:
        """What the largest part of the time goes to, or memory that does not suffice."""
        return max(self.parts, key=self.parts.__getitem__) if self.fits else "memory"

    def summary(self) -> dict[str, str]:
        """What `igc-dist plan` prints."""
        second, share = self.pass_2, self.parts[self.bottleneck] / self.seconds if self.fits else 0.0
        told = f"{self.bottleneck}, {share:.0%} of the time" if self.fits else "memory, see the peak above"
        return {
            "time": f"{duration(self.seconds)}: pass 1 {duration(self.pass_1)}, pass 2 {duration(second.seconds)}, "
            f"exchange {duration(self.exchange)}, finalize {duration(self.finalize)}",
            "shards per rank": f"{min(second.shards)} to {max(second.shards)}; ranks are busy for {second.used:.0%} of pass 2",
            "reduction per rank": f"{size(self.reduction)} of {size(self.reduction_in_all)} (an all-reduce: {size(self.all_reduce)})",
            "memory of the exchange": f"{size(self.memory)} per rank",
            "first bottleneck": f"{told}: {CURES[self.bottleneck]}",
        }


def outlook(plan: Plan, passes: Passes, machine: Machine, ranks: int) -> Outlook:
    """What `plan` would take on so many ranks; `passes`: what the model does for one row, and for the gradient of one output."""
    cost = _Cost(plan, passes, machine)
    sizes = [len(plan.fold(fold)) for fold in range(plan.n_folds)]
    predict, walk = cache(cost.predict), cache(cost.walk)  # few differ
    folds = [predict(n) for n in sizes]
    walks = [walk(n, n_baselines, n_outputs) for n_outputs in cost.outputs for n in sizes for n_baselines in cost.baselines]
    first, second = scheduled(map(sum, folds), ranks), scheduled(map(sum, walks), ranks)
    state = cost.state(plan.n_parts, len(plan.work.outputs))
    late = max(0.0, state / machine.disk - second.seconds)  # the storage is not done when the ranks are
    second = replace(second, seconds=second.seconds + late)
    n_cuts = sum(ceil(n_outputs / plan.finalize_outputs) for n_outputs in cost.outputs)
    rounds, one_cut = ceil(n_cuts / ranks), cost.state(plan.n_parts, plan.finalize_outputs)
    others = (ranks - 1) / ranks
    reduction = int(max(rounds * one_cut, state / ranks) * others)  # an owner takes in what is of its cuts; all send alike
    reread = ceil(plan.output_block / plan.finalize_outputs / ranks)  # a chunk is of a whole block, and is read in each of its rounds
    exchange = reduction / machine.bandwidth + n_cuts * machine.latency * (ranks > 1) + reread * state / ranks / machine.decode
    maps = min(rounds * plan.finalize_outputs, len(plan.work.outputs)) * plan.shapes.n_features * 8 * 6
    finalize = machine.end + machine.element * rounds * one_cut / 8 + max(maps / machine.encode, maps * min(ranks, n_cuts) / machine.disk)
    computing, reading, writing = (sum(column) / ranks for column in zip(*folds, *walks, strict=True))
    parts = {
        "compute": computing,
        "reading data": reading,
        "writing shards": writing + late,
        "idle ranks": first.seconds + second.seconds - computing - reading - writing - late,
        "exchange": exchange,
        "finalize": finalize,
    }
    memory = 2 * one_cut + 2 * cost.state(1, plan.output_block)  # what is sent and what is heard; a chunk as read, and its copy
    fits = all(plan.memory()[place] <= getattr(plan.limits, f"{place}_memory") * GIB for place in ("host", "device"))
    all_reduce = int(2 * state * others)
    return Outlook(
        ranks, first.seconds, second, exchange, finalize, parts, reduction, int(state * others), all_reduce, memory, plan.disk(), fits
    )


PER_GROUP = 3
"""Time of a directional derivative over that of a gradient: `modes.PER_GROUP`."""


class _Cost:
    """Seconds of the shards of a plan."""

    def __init__(self, plan: Plan, passes: Passes, machine: Machine) -> None:
        self.plan, self.passes, self.machine = plan, passes, machine
        self.outputs = [len(plan.shard(block * plan.n_parts).outputs) for block in range(plan.n_output_blocks)]
        self.baselines = [len(plan.shard(block).baselines) for block in range(plan.n_baseline_blocks)]
        self.rows = plan.rows_per_pass

    def state(self, n_parts: int, n_outputs: int) -> int:
        """Bytes of states."""
        work = self.plan.work
        return n_parts * n_outputs * work.n_cells * (work.n_terms * self.plan.shapes.n_features + 11) * 8

    def predict(self, n: int) -> tuple[float, float, float]:
        """A shard of n samples of pass 1: computing, waiting for data, writing."""
        computing = self.machine.model(self.passes.forward, n, ceil(n / self.rows[0]))
        return computing, self.waiting(n, computing), self.machine.shard

    def waiting(self, n: int, computing: float) -> float:
        """For the data of n samples, which are read beside the computing if they are read ahead."""
        reading = n * self.machine.sample
        return max(0.0, reading - computing) if self.plan.work.ahead else reading

    def walk(self, n: int, n_baselines: int, n_outputs: int) -> tuple[float, float, float]:
        """A shard of n samples of pass 2: computing, waiting for data, writing."""
        plan, machine = self.plan, self.machine
        rows, gradients = (n * n_baselines * each for each in plan.evaluations(n_outputs))
        gradients *= PER_GROUP if plan.work.groups else 1
        full = self.rows[1]
        computing = machine.model(self.passes.forward, rows, ceil(rows / full))
        computing += machine.model(self.passes.gradient, gradients, ceil(gradients / full))
        computing += n * n_outputs * plan.shapes.n_features * 8 / machine.traffic  # what is folded, in float64
        samples = n * n_outputs * plan.shapes.n_features * plan.shapes.itemsize if plan.work.samples else 0
        return computing, self.waiting(n, computing), machine.shard + (self.state(1, n_outputs) + samples) / machine.encode


CURES = {
    "compute": "more ranks, or less to do (quadrature.n_steps, target.outputs, design=pairs)",
    "reading data": "data.num_workers, or larger plan.output_block, each of which reads all samples",
    "writing shards": "a faster store, or lower plan.n_folds",
    "idle ranks": "more shards than ranks (plan.output_block, plan.n_folds), or fewer ranks",
    "exchange": "lower plan.n_folds, each of which has a state",
    "finalize": "lower plan.n_folds, each of which has a state",
    "memory": "raise plan.host_memory, or lower plan.output_block",
}
"""What to change, by what is the bottleneck."""


def duration(seconds: float) -> str:
    """Seconds in human units."""
    for unit, factor in (("h", 3600), ("min", 60)):
        if seconds >= 2 * factor:
            return f"{seconds / factor:.1f} {unit}"
    return f"{seconds:.1f} s" if seconds >= 1 else f"{1000 * seconds:.0f} ms"


MOST = 6
"""Times that shards are halved, at most."""
WORTH = 0.95
"""A change of the plan is worth its trouble if it takes this part of the time, or less."""


def advised(plan: Plan, passes: Passes, machine: Machine, ranks: int) -> tuple[str, Outlook] | None:
    """Settings of the plan that fit the budget and are faster, or that fit at all, with their outlook; None if there are none."""
    best, settings = outlook(plan, passes, machine, ranks), ""
    for text, other in _variants(plan):
        found = outlook(other, passes, machine, ranks)
        if found.fits and (not best.fits or found.seconds < WORTH * best.seconds):
            best, settings = found, text
    return (settings, best) if settings else None


def _variants(plan: Plan) -> Iterator[tuple[str, Plan]]:
    """Plans that are cut finer, the least changed first: fewer outputs per shard cost forward passes, more folds cost states."""
    for more, fewer in product(range(4), range(MOST + 1)):
        n_folds, block = plan.n_folds * 2**more, ceil(plan.output_block / 2**fewer)
        if not more + fewer or n_folds > plan.shapes.n_samples or plan.output_block < 2**fewer or more + fewer > MOST:
            continue
        settings = {**({"n_folds": n_folds} if more else {}), **({"output_block": block} if fewer else {})}
        limits = replace(plan.limits, **{"output_block": plan.output_block, **settings})
        yield " ".join(f"plan.{name}={value}" for name, value in settings.items()), make_plan(plan.shapes, plan.work, limits, plan.seed)


def told(plan: Plan, passes: Passes, rates: Rates, sample: float, nodes: int, devices: int) -> dict[str, str]:
    """What `igc-dist plan` prints for so many nodes of so many ranks; `sample`: seconds to read one. Raises `ConfigError` for none."""
    if min(nodes, devices) < 1:
        raise ConfigError(f"fabric.num_nodes={nodes}, fabric.devices={devices}: give integers of at least 1")
    ranks, machine = nodes * devices, Machine().known(rates, sample)
    lines = {"outlook": f"{ranks} rank{'s' * (ranks > 1)}"} | outlook(plan, passes, machine, ranks).summary()
    if rates.flops is None:
        lines["outlook"] += ", each as fast as the CPU core that was measured: set fabric.rates.flops"
    if (better := advised(plan, passes, machine, ranks)) is not None:
        settings, found = better
        lines["a better plan"] = f"{settings}: {duration(found.seconds)}"
    return lines
