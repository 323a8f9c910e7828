"""What is refused where several ranks hold the model together: only the plain way through autograd is left."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from igc_dist.attributors import IG2
from igc_dist.inputs import Plain
from igc_dist.job.rule import Rule
from igc_dist.model import TF32


def _together(broken: Callable[[Any], bool], setting: str, reason: str, way_out: str) -> Rule:
    """What cannot be where several ranks hold the model together."""
    return Rule(
        lambda job: job.model.parts.ranks > 1 and broken(job),
        f"{setting} with fabric.strategy=model_parallel: {reason}",
        f"{way_out}, or let each rank hold the model (fabric.strategy=auto)",
    )


def _reads_a_layer(attributor: Any) -> bool:
    inner = getattr(attributor, "attributor", None)
    return isinstance(attributor, IG2) or (inner is not None and _reads_a_layer(inner))


TOGETHER = (
    _together(
        lambda job: not isinstance(job.inputs, Plain),
        "embeddings, categories, layers, bands and colour",
        "their walks replace the forward on one rank, and the others would call the module itself",
        "walk the inputs as they are",
    ),
    _together(
        lambda job: _reads_a_layer(job.attributor),
        "the attributor ig2",
        "it reads a layer inside the forward, of which each rank has a part",
        "take another method",
    ),
    _together(
        lambda job: any(metric.name == "randomisation" for metric in job.metrics.values()),
        "the metric randomisation",
        "it replaces weights, and no rank has whole ones",
        "drop it",
    ),
    _together(
        lambda job: job.model.final is not None,
        "model.final_layer",
        "the last layer is called by itself with whole weights, and no rank has them",
        "leave it null",
    ),
    _together(
        lambda job: job.model.forward is not None and job.model.parts.data > 1,
        "model.forward",
        "FSDP2 gathers weights where the module itself is called",
        "give a module whose forward it is",
    ),
    _together(
        lambda job: job.model.compiled or job.model.cuda_graphs,
        "model.compiled and model.cuda_graphs",
        "ranks exchange weights and activations inside the forward",
        "leave them false",
    ),
    _together(
        lambda job: job.model.channels_last is not False or job.limits.trial,
        "model.channels_last and plan.trial",
        "parts of weights have no layout of their own, and a trial would be of one rank",
        "leave them false",
    ),
    _together(
        lambda job: job.model.precision == TF32 or (job.audited > 0 and job.model.above == "64-true"),
        "fabric.precision=32-tf32, and an audit of 32-true",
        "the other precision would be set on one rank only",
        "take precision.audit=0 with 32-true, 64-true or bf16-mixed",
    ),
)
