"""Randomisation: whether a map notices that the model has lost its weights."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float64
from torch import Tensor, nn

from igc_dist.metrics.base import FOUR, Effort, Maps, Metric, Predict, Subject, choice
from igc_dist.metrics.similarity import LIKENESS, spearman, ssim
from igc_dist.seeds import generator


@dataclass(frozen=True)
class Randomisation(Metric):
    """The rank correlation of a map with the map of the same model with random weights; near 0 is good.

    The curve goes over the layers with weights, the last first. `order`: "cascading", the layers from the last to this
    one are random; "independent", this one alone is. The score is the last point of the cascade, or the mean of the
    points of "independent". "_ssim" is the same with the structural similarity of images, of values summed over
    channels. Each tensor of a layer becomes normal numbers with the mean and standard deviation that it had: a model of
    the same scale that knows nothing. Maps are asked of `explain`, whose model must be the module that is scored.

    Source: Adebayo et al. 2018, arXiv:1810.03292.
    """

    name = "randomisation"
    order: str = "cascading"
    seed: int = 0

    def __post_init__(self) -> None:
        choice(self, "order", ("cascading", "independent"))

    @property
    def needs(self) -> frozenset[str]:
        return frozenset({"explain"})

    def axis(self, subject: Subject) -> Float64[np.ndarray, " T"]:
        return np.arange(1, subject.n_layers + 1) / subject.n_layers

    def effort(self, subject: Subject) -> Effort:
        return Effort(
            walks=subject.n_layers,
            seconds=subject.n_layers * LIKENESS * subject.worked,
            held=FOUR * subject.size,
            fixed=2 * 8 * subject.n_weights,
        )

    def __call__(self, predict: Predict, maps: Maps) -> dict[str, Float64[Tensor, "M *T"]]:
        layers = list(reversed(weighted(predict.model.module)))
        ranks, alike = [], []
        for depth in range(len(layers)):
            chosen = layers[: depth + 1] if self.order == "cascading" else layers[depth : depth + 1]
            with self.random(chosen, [depth] if self.order == "independent" else range(depth + 1)):
                other = predict.explained(maps.x, maps)
            a, b = (z.sum(1) if z.ndim == 4 else z for z in (maps.values, other))
            ranks.append(spearman(a.flatten(1), b.flatten(1)))
            if a.ndim == 3:
                pairs = zip(a.cpu().numpy(), b.cpu().numpy(), strict=True)
                alike.append(torch.tensor([ssim(p, q) for p, q in pairs], dtype=torch.float64, device=a.device))
        found = {"curve": torch.stack(ranks, 1), "": self._whole(ranks)}
        return found | {"ssim": self._whole(alike)} if alike else found

    def _whole(self, points: list[Tensor]) -> Tensor:
        return points[-1] if self.order == "cascading" else torch.stack(points, 1).mean(1)

    @contextmanager
    def random(self, layers: list[nn.Module], numbers: range | list[int]) -> Iterator[None]:
        """Layers with random weights while the block lasts."""
        held = [(p, p.data) for layer in layers for p in layer.parameters(recurse=False)]
        try:
            for layer, number in zip(layers, numbers, strict=True):
                draws = generator(self.seed, number, self.name)
                for p in layer.parameters(recurse=False):
                    scale = float(p.data.double().std(correction=0)), float(p.data.double().mean())
                    p.data = torch.as_tensor(draws.standard_normal(tuple(p.shape)) * scale[0] + scale[1]).to(p.data)
            yield
        finally:
            for p, data in held:
                p.data = data


def weighted(module: nn.Module) -> list[nn.Module]:
    """The layers with weights of their own, in the order in which the module names them."""
    return [layer for layer in module.modules() if any(p.ndim > 1 for p in layer.parameters(recurse=False))]
