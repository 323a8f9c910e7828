"""A job on the ranks of a replica, which hold its model together."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

from igc_dist.distributed import World
from igc_dist.job.job import Job
from igc_dist.job.spec import describe_module
from igc_dist.model import divide


@contextmanager
def in_step(job: Job, world: World) -> Iterator[bool]:
    """Whether this rank does the run: it is the leader of its replica, or alone with its model.

    Any other rank of a replica goes through the model with its leader, here, until the leader is done.
    """
    replica, model = world.replica, job.model
    if replica is None:
        yield True
        return
    waiting = model.unfilled
    if world.member == 0:  # before no rank has all weights
        model.known = {"module": describe_module(model.module, None if waiting is None else waiting.whole)}
    divide(model, partial(replica.split, unfilled=waiting), replica)
    assert model.steps is not None
    if world.member > 0:
        world.early = False
        model.steps.follow(model)
        yield False
        return
    yield True
    model.steps.end()
