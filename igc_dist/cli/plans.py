"""`igc-dist plan`: shows the cost of a run before it starts."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from igc_dist import cli, config, distributed, job, passes, planning
from igc_dist.cli.screen import say
from igc_dist.records import ConfigError


def plans(cfg: Any, allow: Sequence[str]) -> int:
    """Print the plan of a run, or of each run of a gallery. Raises `ConfigError` if one does not fit."""
    for column, its in (cli.runs.columns(cfg) if cfg.gallery else {"": cfg}).items():
        if column:
            say(f"\n{column}")
        _plan(its, allow)
    return 0


LIGHTNING, LONGER = 128 * 2**20, 1.4
"""Memory of Lightning and what it imports, which a run that logs holds, and this command does without; and the time of
the start of such a run over that of this command."""

AT_MOST = 0.3
"""Seconds of a forward pass and a gradient that are timed, and of samples that are read for it, about."""


def _measured(todo: Any, plan: Any, device: Any, num_workers: int) -> tuple[Any, Any]:
    """This machine as it reads and computes, and what the model does for a row."""
    start = time.process_time()  # what a run does until now too
    sample = passes.reading(todo.source, AT_MOST) / max(1, num_workers)
    walk = passes.probe(todo.inputs, todo.source.look(range(1)), device, todo.attributor.baselines)
    counted, machine = passes.passes_of(walk), planning.Machine(start=start, sample=sample)
    rows = min(max(plan.rows_per_pass), machine.rows(counted, AT_MOST))
    return machine.timed(counted, rows, *passes.timed(walk, rows)), counted


def _plan(cfg: Any, allow: Sequence[str]) -> None:
    todo = config.from_config(cfg, cli.runs.located(cfg), allow)
    if todo.model.parts.ranks > 1:
        raise ConfigError(
            "fabric.strategy=model_parallel: a plan is made with the model on one rank, and this one is for several: "
            "plan with fabric.strategy=auto and sizes of 1 where the model fits, and set plan.micro_batch where not"
        )
    with (
        distributed.joined(accelerator=cfg.fabric.accelerator, threads=cfg.fabric.threads) as world,
        todo.model.reserved(),
    ):
        todo = job.settled(todo, world)
        with todo.source.opened(), todo.model.borrowed(world.device):
            todo = job.tuned(todo, world)
            plan = job.plan_of(todo, world.device, check=False)
            machine, counted = _measured(todo, plan, world.device, cfg.data.num_workers)
            if cfg.fabric.loggers and "lightning" not in sys.modules:
                machine = replace(machine, start=LONGER * machine.start)
                held = plan.shapes.reserved_bytes + LIGHTNING
                plan = replace(plan, shapes=replace(plan.shapes, reserved_bytes=held))
            dear = job.as_dear_as_the_grid(todo, world.device)
    stages = todo.stages(plan)
    looks = f"at most {stages[-1]} of {plan.n_folds} folds" + (f", a look every {stages[0]}" if len(stages) > 1 else "")
    more = {"budget": looks} if todo.budget.limited else {}
    more |= {"rule chosen": todo.labels["quadrature"]} if "quadrature" in todo.labels else {}
    more |= {"design": dear} if dear else {}
    if n := todo.source.num_workers:
        more["data workers"] = f"{n} {'process' if n == 1 else 'processes'} per rank, whose memory is not in its peak"
    for name, value in (plan.summary() | more).items():
        say(f"{name:<28} {value}")
    fabric = config.typed(cfg).fabric
    say()
    rates = fabric.rates.of(fabric.precision)
    told = planning.told(plan, counted, machine, rates, fabric.num_nodes, fabric.devices)
    for name, value in told.items():
        say(f"{name:<28} {value}")
    plan.check()
