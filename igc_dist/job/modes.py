"""Forward or reverse mode of differentiation, chosen before the plan by the cost of each."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from igc_dist.attributors import Attributor, Fixed, Forward
from igc_dist.features import Reduction
from igc_dist.inputs import Inputs, OneHot, Walk
from igc_dist.model import PRECISIONS, Model
from igc_dist.passes import footprint_of
from igc_dist.planning import Plan
from igc_dist.records import ConfigError, ModelError
from igc_dist.tensors import Tensors

log = logging.getLogger(__name__)

PER_GROUP = 3.0
"""The time of a directional derivative over that of a backward pass.

Measured on one CPU core with 56 x 56 pixels at 64 rows: 1.7 for a small convolutional net and 2.0 for two transformer
layers. At 8 rows, where the overhead of operators counts, it is 3.7 and 2.8.
"""


@dataclass(frozen=True)
class Mode:
    """The mode and its cost.

    `n_groups`: in forward mode, the number of groups of features that are moved one after the other; 0: reverse mode.
    `memory`: bytes of a forward pass in forward mode, (fixed, per row).
    """

    n_groups: int = 0
    memory: tuple[int, int] = (0, 0)


def choose(
    wish: str,
    attributor: Attributor,
    kind: Inputs,
    probe: Walk,
    reduction: Reduction,
    outputs: Sequence[int],
    block: int | None,
) -> Mode:
    """Choose the mode from the wish `plan.mode`.

    `block`: the number of `outputs` at a time (None: all). `probe` is a walk of one sample. `auto` takes forward mode
    if ``PER_GROUP * groups`` is less than the number of gradients that a block of outputs (or of latents) needs, and if
    the model supports it: forward mode must run on the probe and agree with reverse mode. Raises `ConfigError` with the
    reason if `wish` is forward and this is not possible.
    """
    if wish == "reverse":
        return Mode()
    groups = reduction.groups(kind.features(probe))
    reason = _unfit(attributor, kind)
    if groups is None and reason is None:
        reason = "reduce has a reducer that is not a sum over groups of features"
    n_groups = 0 if groups is None else sum(int(own.max()) + 1 for own in groups if own.size)
    if reason is None:
        latent = probe.function.latent(outputs)
        model, columns = (probe.function, list(outputs)) if latent is None else (latent.model, latent.outputs)
        n_gradients = min(len(columns), block or len(outputs))
        if wish == "auto" and PER_GROUP * n_groups >= n_gradients:
            return Mode()
        reason = _failure(model, probe.inputs, columns)
        if reason is None:
            return Mode(n_groups, _memory(model, probe, columns))
        if wish == "auto":
            log.warning(
                "reverse mode, %d gradients per point where forward mode would take %d: %s",
                n_gradients,
                n_groups,
                reason,
            )
    if wish == "forward":
        raise ConfigError(f"plan.mode=forward is not possible: {reason}. Set plan.mode to auto or reverse")
    return Mode()


def walker(attributor: Attributor, reduction: Reduction, plan: Plan) -> tuple[Attributor, Reduction]:
    """The attributor for the plan's mode, and the reduction that remains for its result."""
    if not plan.work.groups:
        return attributor, reduction
    groups = reduction.groups(plan.shapes.attributed)
    assert isinstance(attributor, Fixed)
    assert groups is not None
    return Forward(attributor, groups, plan.shapes.features), Reduction()


def _unfit(attributor: Attributor, kind: Inputs) -> str | None:
    """The reason why a method has no forward mode, or None."""
    if not isinstance(attributor, Fixed) or type(attributor).of is not Fixed.of or attributor.own_baseline:
        return f"the attributor {attributor.name!r} is no plain sum of gradients"
    if PRECISIONS[kind.model.precision] is torch.float16:
        return "float16 has too small a range for directions, and only gradients are scaled into it"
    if isinstance(kind, OneHot):
        return "categories are walked in two coordinates each, which are no features"
    return None


def _failure(model: Model, inputs: Tensors, outputs: Sequence[int]) -> str | None:
    """The reason why forward mode fails on a probe of one sample, or None if it agrees with reverse mode.

    Both modes are compared at x and x / 2, in a random direction, one input at a time, for the first output, the last
    output and the output that changes most. They may differ by rounding, relative to ``|gradient| |direction|``. A
    forward that detaches or stops gradients gives a much larger difference.
    """
    points = tuple(torch.cat((x, x / 2)) for x in inputs)
    generator = torch.Generator().manual_seed(0)
    half = PRECISIONS[model.precision] is not None
    for i, x in enumerate(points):
        tangent = torch.randn(x.shape, generator=generator, dtype=torch.float64).to(x)
        try:
            forward = model.directional(points, i, tangent, outputs)
        except (RuntimeError, ModelError) as error:
            return f"an operator of the model has no forward rule ({str(error).splitlines()[0]})"
        some = sorted({0, len(outputs) - 1, int(forward.abs().sum(0).argmax())})
        tolerance = 0.1 if half else 1e-9 if x.dtype == torch.float64 else 5e-3
        for j, grads in model.gradients(points, [outputs[k] for k in some]):
            product = (grads[i] * tangent).double().flatten(1)
            size = grads[i].double().flatten(1).norm(dim=1) * tangent.double().flatten(1).norm(dim=1)
            off = (forward[:, some[j]].double() - product.sum(1)).abs()
            if not bool((off <= tolerance * size + 1e-30).all()):
                return (
                    f"forward and reverse mode disagree on a probe (output {outputs[some[j]]}): the forward may stop "
                    "gradients"
                )
    return None


def _memory(model: Model, probe: Walk, outputs: Sequence[int]) -> tuple[int, int]:
    def work(points: Tensors) -> None:
        for i, x in enumerate(points):
            model.directional(points, i, x, outputs)

    return footprint_of(probe, work)
