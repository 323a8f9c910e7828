"""The rules that refuse a job, each with its reason and the way out. `python -m igc_dist.job.rules` prints them.

Rules are checked in this order before the first forward pass. The first broken rule is the error.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from igc_dist.attributors import PathIntegral
from igc_dist.baselines import Noise, Partners, Resampled
from igc_dist.inputs import Layered, OneHot, Plain, Transformed
from igc_dist.job.replica_rules import TOGETHER
from igc_dist.job.rule import Rule
from igc_dist.statistics import ControlledCorrelation


def _first(job: Any, wanted: Callable[[Any], bool]) -> Mapping[str, str]:
    """The name of the first statistic for which `wanted` is true."""
    return {"statistic": next(repr(statistic.name) for statistic in job.statistics if wanted(statistic))}


def _nonlinear(statistic: Any) -> bool:
    return not statistic.linear


def _unweighted(statistic: Any) -> bool:
    return not statistic.weighted


def _needing(job: Any, need: str) -> str:
    """The name of the first metric that needs something."""
    return next(repr(label) for label, metric in job.metrics.items() if need in metric.needs)


def _grouped(job: Any) -> list[str]:
    return [statistic.name for statistic in job.statistics if statistic.n_groups > 1]


def _drawn_by(job: Any) -> Mapping[str, str]:
    return {"what": "design=pairs" if job.pairs else "target.n_others"}


def _has_control(job: Any) -> bool:
    """Whether a control variate is known: the baseline is drawn for each input, and its mean is walked unchanged."""
    drawn = isinstance(job.baseline, Resampled | Noise) and isinstance(job.inputs, Plain)
    return drawn and not job.drawn and not job.attributor.own_baseline


def _controlled(job: Any) -> bool:
    return any(isinstance(statistic, ControlledCorrelation) for statistic in job.statistics)


def _each(job: Any) -> Mapping[str, str]:
    return {"target": str(job.targets.each)} | ({"statistic": repr(job.statistics[0].name)} if job.statistics else {})


ON_AVERAGE = "a design that draws its nodes, or its outputs, is right on average only, but "
NOISE = ", so its noise would pass for a property of the model"


RULES = (
    Rule(
        lambda job: not -(2**63) <= job.seed < 2**63,
        "seed={seed} has more than 64 bits",
        "give a smaller one",
        lambda job: {"seed": str(job.seed)},
    ),
    Rule(
        lambda job: job.targets.each is not None and bool(job.statistics),
        "target={target} explains each sample for outputs of its own, and the statistic {statistic} is of one output "
        "over all samples",
        "take a method of single samples, such as method=ig with statistic=method, or target=all",
        _each,
    ),
    Rule(
        lambda job: job.targets.each is not None and job.model.final is not None,
        "target={target} and model.final_layer are two ways to make many outputs cheap",
        "use one of them",
        _each,
    ),
    Rule(
        lambda job: (
            job.targets.each is not None and job.attributor.baselines and getattr(job.baseline, "needs_classes", 0) > 0
        ),
        "baseline.choice=top_k ranks all outputs of the model, and target={target} keeps those of each sample alone",
        "take choice=other_label, or target=all",
        _each,
    ),
    Rule(
        lambda job: not job.exact and any(map(_nonlinear, job.statistics)),
        ON_AVERAGE + "the statistic {statistic} is not linear in the attribution" + NOISE,
        "take design=grid and target.n_others=null, or drop it",
        lambda job: _first(job, _nonlinear),
    ),
    Rule(
        lambda job: not job.exact and job.samples and not (job.attributor.estimate and job.targets.n_others is None),
        ON_AVERAGE + "attributions of single samples are stored" + NOISE,
        "take design=grid and target.n_others=null, or drop it",
    ),
    Rule(
        lambda job: isinstance(job.baseline, Partners) and not job.pairs,
        "baseline=partners are drawn by design=pairs or importance_pairs",
        "set one of them, or another baseline",
    ),
    Rule(
        lambda job: job.pairs and not isinstance(job.baseline, Partners),
        "design=pairs takes other rows of the data as baselines, but baseline {baseline} is given",
        "leave it out (on the command line baseline=partners), or take design=stratified",
        lambda job: {"baseline": type(job.baseline).__name__},
    ),
    Rule(
        lambda job: job.targets.n_others is not None and job.pairs,
        "target.n_others with design=pairs, and where y is a label, pairs ask for the outputs of both labels only",
        "leave target.n_others null",
    ),
    Rule(
        lambda job: job.targets.n_others is not None and not isinstance(job.attributor, PathIntegral),
        "target.n_others with attributor {attributor}, and it is for Integrated Gradients",
        "leave it null",
        lambda job: {"attributor": repr(job.attributor.name)},
    ),
    Rule(
        lambda job: job.drawn and isinstance(job.inputs, OneHot),
        "{what} with categories, which are walked one baseline at a time",
        "name an embedding method",
        _drawn_by,
    ),
    Rule(
        lambda job: job.drawn and job.model.final is not None,
        "{what} and model.final_layer are two ways to make many outputs cheap",
        "use one of them",
        _drawn_by,
    ),
    Rule(
        lambda job: job.pairs and job.slices is not None,
        "design=pairs with slices, and a pair of two slices would be in neither",
        "take design=stratified",
    ),
    Rule(
        lambda job: job.samples and job.budget.limited,
        "store.samples=true with a budget, which leaves folds out",
        "drop one of them",
    ),
    Rule(
        lambda job: bool(job.metrics) and job.budget.limited,
        "metrics with a budget, which leaves folds out",
        "drop one of them",
    ),
    Rule(
        lambda job: bool(job.metrics) and not job.exact,
        ON_AVERAGE + "metrics score maps of single samples" + NOISE,
        "take design=grid and target.n_others=null, or drop them",
    ),
    Rule(
        lambda job: bool(job.metrics) and not isinstance(job.inputs, Plain),
        "metrics exchange numbers of the input, and this model walks embeddings or categories",
        "drop the metrics",
    ),
    Rule(
        lambda job: isinstance(job.inputs, Transformed) and job.attributor.own_baseline,
        "bands and colour walk coefficients of the image, and attributor {attributor} makes a baseline of its pixels",
        "take another method, or another reducer",
        lambda job: {"attributor": repr(job.attributor.name)},
    ),
    Rule(
        lambda job: job.drawn and job.source.maps is not None,
        "{what} adds up draws of many samples before they are reduced, and reduce=masks has segments of each sample",
        "take design=stratified and target.n_others=null, or another reducer",
        _drawn_by,
    ),
    Rule(
        lambda job: "s" in job.terms and job.source.maps is None,
        "the statistic area is of segments, and nothing says which there are",
        "take reduce=masks, which adds it by itself, or drop it",
    ),
    Rule(
        lambda job: isinstance(job.inputs, Layered) and job.attributor.own_baseline,
        "model.layer walks activations, and attributor {attributor} makes a baseline of the inputs",
        "take another method, or layer=null",
        lambda job: {"attributor": repr(job.attributor.name)},
    ),
    Rule(
        lambda job: bool(job.metrics) and job.reduce is not None,
        "metrics score maps of the samples' own shape, and reduce sums over features",
        "take reduce=none, or drop the metrics",
    ),
    Rule(
        lambda job: "baseline" in job.needed and (not job.attributor.baselines or job.attributor.own_baseline),
        "the metric {metric} needs the baseline of the maps, and attributor {attributor} has none, or its own",
        "choose another start of the metric, or drop it",
        lambda job: {"metric": _needing(job, "baseline"), "attributor": repr(job.attributor.name)},
    ),
    Rule(
        lambda job: any(metric.name == "steps" and metric.n_steps for metric in job.metrics.values()),
        "the metric steps of a run compares with twice the steps of the run, and n_steps is given",
        "leave it null",
    ),
    Rule(
        lambda job: "doubled" in job.needed and job.attributor.doubled is None,
        "the metric {metric} asks for maps of twice the steps, and attributor {attributor} has none, or chooses them "
        "itself",
        "drop it",
        lambda job: {"metric": _needing(job, "doubled"), "attributor": repr(job.attributor.name)},
    ),
    Rule(
        lambda job: (
            bool(job.budget.rel_se or job.budget.replicates)
            and not any(statistic.jackknifed for statistic in job.statistics)
        ),
        "budget.rel_se and budget.replicates need a statistic with a standard error",
        "add correlation, or leave them null",
    ),
    Rule(
        lambda job: len(_grouped(job)) > 1,
        "statistics {statistics} each divide the samples into groups of their own",
        "take one of them in a run",
        lambda job: {"statistics": ", ".join(_grouped(job))},
    ),
    Rule(
        lambda job: _controlled(job) and not _has_control(job),
        "controlled_correlation needs floating point inputs, and baselines that are drawn for each of them",
        "take baseline=resampled or noise, without pairs or target.n_others, and an attributor that walks from them",
    ),
    Rule(
        lambda job: job.weights is not None and any(map(_unweighted, job.statistics)),
        "the statistic {statistic} is not defined for weighted samples",
        "drop it, or the weights",
        lambda job: _first(job, _unweighted),
    ),
    Rule(
        lambda job: job.limits.mode == "forward" and job.drawn,
        "plan.mode=forward is not possible with {what}, whose draws are folded one by one",
        "set plan.mode to auto or reverse",
        _drawn_by,
    ),
    Rule(
        lambda job: job.limits.mode == "forward" and "z" in job.terms,
        "plan.mode=forward is not possible with controlled_correlation, whose control variate is of all features",
        "set plan.mode to auto or reverse",
    ),
    *TOGETHER,
)


def table() -> str:
    """The rules as a table in Markdown."""
    rows = [f"| {rule.reason} | {rule.way_out} |" for rule in RULES]
    return "\n".join(["| refused | the way out |", "|---|---|", *rows]) + "\n"


if __name__ == "__main__":
    print(table(), end="")
