"""The outlook: the predicted time of a plan on a number of ranks, and its bottleneck. Pure Python, nothing is run.

It uses rates of a machine, and simulates how ranks claim shards (`schedule.py`). The exchange is that of `results`: the
states of a range of outputs go to one rank, which finalizes them and writes their maps.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from itertools import product
from math import ceil

from igc_dist.planning.cut import make_plan
from igc_dist.planning.limits import GIB, size
from igc_dist.planning.machine import CARDS, Machine, Rates
from igc_dist.planning.plan import Plan
from igc_dist.planning.schedule import Schedule, scheduled
from igc_dist.planning.shard_cost import ShardCost, outputs_of, state_of
from igc_dist.records import ConfigError, Passes

CURES = {
    "compute": "more ranks, or less to do (quadrature.n_steps, target.outputs, design=pairs)",
    "reading data": "data.num_workers, or larger plan.output_block, each of which reads all samples",
    "writing shards": "a faster store, or lower plan.n_folds",
    "idle ranks": "more shards than ranks (plan.output_block, plan.n_folds), or fewer ranks",
    "exchange": "lower plan.n_folds, each of which has a state",
    "finalize": "lower plan.n_folds, each of which has a state",
    "start-up": "none: more samples per run take no longer to start",
    "page": "lower report.max_outputs, or report.enabled=false",
    "memory": "raise plan.host_memory, or lower plan.output_block",
}
"""The advice for each bottleneck."""


@dataclass(frozen=True)
class Outlook:
    """The predicted cost of a plan: seconds, and bytes per rank (of all ranks if the name ends with `in_all`)."""

    ranks: int
    start: float
    pass_1: float
    pass_2: Schedule
    exchange: float
    finalize: float
    page: float
    parts: dict[str, float] = field(repr=False)
    """Seconds of each part of the total."""
    reduction: int
    reduction_in_all: int
    all_reduce: int
    """Bytes that a rank would send if all states were summed on all ranks."""
    memory: int
    """Bytes that a rank holds in the exchange."""
    store_in_all: int
    fits: bool

    @property
    def seconds(self) -> float:
        """From the command to the complete store, and to its page if there is one."""
        return self.start + self.pass_1 + self.pass_2.seconds + self.exchange + self.finalize + self.page

    @property
    def bottleneck(self) -> str:
        """The part that takes the most time, or memory if it is too small."""
        return max(self.parts, key=self.parts.__getitem__) if self.fits else "memory"

    def summary(self) -> dict[str, str]:
        """What `igc-dist plan` prints."""
        second, share = self.pass_2, self.parts[self.bottleneck] / self.seconds if self.fits else 0.0
        told = f"{self.bottleneck}, {share:.0%} of the time" if self.fits else "memory, see the peak above"
        return {
            "time": f"{duration(self.seconds)}: start-up {duration(self.start)}, pass 1 {duration(self.pass_1)}, "
            f"pass 2 {duration(second.seconds)}, exchange {duration(self.exchange)}, finalize "
            f"{duration(self.finalize)}" + f", page {duration(self.page)}" * (self.page > 0),
            "shards per rank": f"{min(second.shards)} to {max(second.shards)}; ranks are busy for {second.used:.0%} of "
            "pass 2",
            "reduction per rank": f"{size(self.reduction)} of {size(self.reduction_in_all)} (an all-reduce: "
            f"{size(self.all_reduce)})",
            "memory of the exchange": f"{size(self.memory)} per rank",
            "first bottleneck": f"{told}: {CURES[self.bottleneck]}",
        }


def outlook_of(plan: Plan, passes: Passes, machine: Machine, ranks: int) -> Outlook:
    """The outlook of `plan` on `ranks` ranks.

    `passes`: the work of the model for one row, and for the gradient of one output.
    """
    cost, exchange = ShardCost(plan, passes, machine), _Exchange(plan, machine, ranks)
    page = plan.page_cost.seconds(machine)
    folds, walks = cost.folds(), cost.walks()
    first, second = scheduled(map(sum, folds), ranks), scheduled(map(sum, walks), ranks)
    late = max(0.0, exchange.state / machine.disk - second.seconds)  # the storage finishes after the ranks
    second = replace(second, seconds=second.seconds + late)
    computing, reading, writing = (sum(column) / ranks for column in zip(*folds, *walks, strict=True))
    parts = {
        "compute": computing,
        "reading data": reading,
        "writing shards": writing + late,
        "idle ranks": first.seconds + second.seconds - computing - reading - writing - late,
        "exchange": exchange.seconds,
        "finalize": exchange.finalize,
        "start-up": machine.start,
        "page": page,
    }
    fits = all(plan.memory()[place] <= getattr(plan.limits, f"{place}_memory") * GIB for place in ("host", "device"))
    return Outlook(
        ranks,
        machine.start,
        first.seconds,
        second,
        exchange.seconds,
        exchange.finalize,
        page,
        parts,
        exchange.reduction,
        reduction_in_all=int(exchange.state * exchange.others),
        all_reduce=int(2 * exchange.state * exchange.others),
        memory=exchange.memory,
        store_in_all=plan.disk(),
        fits=fits,
    )


class _Exchange:
    """The work after the shards: states go to the ranks that own their outputs, and these finalize them.

    An owner takes one cut of an output block per round.
    """

    def __init__(self, plan: Plan, machine: Machine, ranks: int) -> None:
        self.plan, self.machine, self.ranks = plan, machine, ranks
        self.n_cuts = sum(ceil(n_outputs / plan.finalize_outputs) for n_outputs in outputs_of(plan))
        self.rounds, self.one_cut = ceil(self.n_cuts / ranks), state_of(plan, plan.n_parts, plan.finalize_outputs)
        self.state = state_of(plan, plan.n_parts, len(plan.work.outputs))
        """Bytes of all states."""
        self.others = (ranks - 1) / ranks

    @property
    def reduction(self) -> int:
        """Bytes that a rank sends or receives: owners receive their cuts; all ranks send the same amount."""
        return int(max(self.rounds * self.one_cut, self.state / self.ranks) * self.others)

    @property
    def seconds(self) -> float:
        """Seconds until the owners have all states."""
        plan, machine, ranks = self.plan, self.machine, self.ranks
        # a chunk covers a whole output block, and is read again in each round of the block
        reread = ceil(plan.output_block / plan.finalize_outputs / ranks)
        sending = self.reduction / machine.bandwidth + self.n_cuts * machine.latency * (ranks > 1)
        records = plan.n_parts * self.n_cuts * (1 + len(plan.shapes.input_names)) * machine.record
        return sending + (reread * self.state / machine.decode + records) / ranks

    @property
    def finalize(self) -> float:
        """Seconds to finalize the states, and to write the maps."""
        plan, machine = self.plan, self.machine
        maps = min(self.rounds * plan.finalize_outputs, len(plan.work.outputs)) * plan.shapes.n_features * 8 * 6
        writing = max(maps / machine.encode, maps * min(self.ranks, self.n_cuts) / machine.disk)
        writing += machine.array * plan.page_cost.n_arrays
        writing += plan.shapes.n_samples * len(plan.work.outputs) * 8 / machine.encode  # targets of samples
        return machine.end + machine.element * self.rounds * self.one_cut / 8 + writing

    @property
    def memory(self) -> int:
        """Bytes that are sent and received, plus a chunk as read and its copy."""
        return 2 * self.one_cut + 2 * state_of(self.plan, 1, self.plan.output_block)


MOST = 6
"""Largest number of times that shards are halved."""
WORTH = 0.95
"""A change of the plan is advised if the run then takes at most this part of the time."""


def advised(plan: Plan, passes: Passes, machine: Machine, ranks: int) -> tuple[str, Outlook] | None:
    """Settings that make the plan faster within the budget, or make it fit at all, with their outlook; or None."""
    best, settings = outlook_of(plan, passes, machine, ranks), ""
    for text, other in _variants(plan):
        found = outlook_of(other, passes, machine, ranks)
        if found.fits and (not best.fits or found.seconds < WORTH * best.seconds):
            best, settings = found, text
    return (settings, best) if settings else None


def _variants(plan: Plan) -> Iterator[tuple[str, Plan]]:
    """Plans that are cut finer, the smallest change first.

    Fewer outputs per shard cost forward passes; more folds cost states.
    """
    for more, fewer in product(range(4), range(MOST + 1)):
        n_folds, block = plan.n_folds * 2**more, ceil(plan.output_block / 2**fewer)
        if not more + fewer or n_folds > plan.shapes.n_samples or plan.output_block < 2**fewer or more + fewer > MOST:
            continue
        settings = {**({"n_folds": n_folds} if more else {}), **({"output_block": block} if fewer else {})}
        limits = replace(plan.limits, **{"output_block": plan.output_block, **settings})
        yield (
            " ".join(f"plan.{name}={value}" for name, value in settings.items()),
            make_plan(plan.shapes, plan.work, limits, plan.seed),
        )


def told(plan: Plan, passes: Passes, machine: Machine, rates: Rates, nodes: int, devices: int) -> dict[str, str]:
    """The text that `igc-dist plan` prints for `nodes` nodes with `devices` ranks each.

    `machine`: as it was measured here. Raises `ConfigError` if there are no ranks.
    """
    if min(nodes, devices) < 1:
        raise ConfigError(f"fabric.num_nodes={nodes}, fabric.devices={devices}: give integers of at least 1")
    ranks, machine = nodes * devices, machine.known(rates)
    lines = {"outlook": f"{ranks} rank{'s' * (ranks > 1)}"} | outlook_of(plan, passes, machine, ranks).summary()
    if rates.flops is None:
        lines["outlook"] += ", each as fast as this one, where the model was timed: of others set fabric.rates.flops"
    if rates.card is not None and rates.flops is not None:
        known = CARDS[rates.card]
        own = rates.flops not in known.flops.values()
        lines["rates"] = f"{rates.flops:.3g} FLOP/s, as given" if own else f"{known.card}, measured: {known.source}"
    if (better := advised(plan, passes, machine, ranks)) is not None:
        settings, found = better
        lines["a better plan"] = f"{settings}: {duration(found.seconds)}"
    return lines


def duration(seconds: float) -> str:
    """Seconds in human units."""
    for unit, factor in (("h", 3600), ("min", 60)):
        if seconds >= 2 * factor:
            return f"{seconds / factor:.1f} {unit}"
    return f"{seconds:.1f} s" if seconds >= 1 else f"{1000 * seconds:.0f} ms"
