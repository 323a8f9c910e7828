"""`igc-dist plan`: shows the cost of a run before it starts."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from igc_dist import cli, config, distributed, job, passes, planning
from igc_dist.cli.screen import say


def plans(cfg: Any, allow: Sequence[str]) -> int:
    """Print the plan of a run, or of each run of a gallery. Raises `ConfigError` if one does not fit."""
    for column, its in (cli.runs.columns(cfg) if cfg.gallery else {"": cfg}).items():
        if column:
            say(f"\n{column}")
        _plan(its, allow)
    return 0


def _plan(cfg: Any, allow: Sequence[str]) -> None:
    todo = config.from_config(cfg, cli.runs.located(cfg), allow)
    with (
        distributed.joined(accelerator=cfg.fabric.accelerator, threads=cfg.fabric.threads) as world,
        todo.model.reserved(),
    ):
        todo = job.settled(todo, world)
        with todo.source.opened(), todo.model.borrowed(world.device):
            todo = job.tuned(todo, world)
            plan = job.plan_of(todo, world.device, check=False)
            dear = job.as_dear_as_the_grid(todo, world.device)
            began, few = time.perf_counter(), todo.source.look(range(min(4, len(todo.source))))
            sample = (time.perf_counter() - began) / len(few.target) / max(1, cfg.data.num_workers)
            walk = passes.probe(todo.inputs, few, world.device, todo.attributor.baselines)
            counted = passes.passes_of(walk)
    stages = todo.stages(plan)
    looks = f"at most {stages[-1]} of {plan.n_folds} folds" + (f", a look every {stages[0]}" if len(stages) > 1 else "")
    more = {"budget": looks} if todo.budget.limited else {}
    more |= {"rule chosen": todo.labels["quadrature"]} if "quadrature" in todo.labels else {}
    more |= {"design": dear} if dear else {}
    for name, value in (plan.summary() | more).items():
        say(f"{name:<28} {value}")
    fabric = config.typed(cfg).fabric
    say()
    told = planning.told(plan, counted, fabric.rates.of(fabric.precision), sample, fabric.num_nodes, fabric.devices)
    for name, value in told.items():
        say(f"{name:<28} {value}")
    plan.check()
