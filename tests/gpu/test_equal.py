"""Every method, statistic, design and kind of input gives in float64 what it gives on the CPU."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.data import Subset

import igc_dist
from igc_dist.attributors import IDGI, IG2
from igc_dist.demo import Digits, digits_cnn
from igc_dist.features import Patches
from tests.benchmarks.models import Transformer
from tests.card import Card
from tests.gpu.problems import Words, assert_equal, maps, relative, values

METHODS = (
    "igc", "igac", "ig_mean_std", "bsc", "naive_correlation", "naive_ttest", "guided_igc", "blur_igc", "idgic", "ig",
    "ig_adaptive", "gradients", "gradient_x_input", "baseline_shapley", "guided_ig", "blur_ig", "idgi",
    "idgi_guided_ig", "idgi_blur_ig", "left_ig", "idg", "expected_gradients", "smoothgrad", "smoothgrad_ig",
)  # fmt: skip
"""Presets that need no layer by name."""
LAYERED = ("ig2", "ig2c", "idgi_ig2")
"""Presets that read a layer."""
NO_STEPS = ("ig_adaptive", "naive_correlation", "naive_ttest")


@pytest.mark.parametrize("method", METHODS)
def test_methods(method: str, card: Card) -> None:
    """Draws among them: they are addressed, and made on the host."""
    settings = {} if method in NO_STEPS else {"n_steps": 3}

    def of(device: Any) -> Any:
        return igc_dist.attribute(
            digits_cnn().to(device), Subset(Digits(), range(12)), method=method, n_folds=2, target=[0, 3],
            precision="64-true", **settings,
        )  # fmt: skip

    assert_equal(of(card.device), of("cpu"))


@pytest.mark.parametrize("names", [["correlation", "autocorrelation", "moments"], ["ttest"], ["pearson"]])
def test_statistics(names: list[str], card: Card) -> None:
    def of(device: Any) -> Any:
        return maps(device, 32, statistics=names, precision="64-true", n_folds=2)

    assert_equal(of(card.device), of("cpu"))


DRAWN = {
    "pairs": {"design": "pairs", "n_draws": 3},
    "importance pairs": {"design": "importance_pairs", "n_draws": 2},
    "stratified": {"design": "stratified", "n_draws": 4, "baseline": igc_dist.baselines.Resampled(2)},
    "others": {"n_others": 2},
    "final layer": {"final_layer": "2"},
}  # fmt: skip


@pytest.mark.parametrize("name", DRAWN)
def test_designs_and_outputs(name: str, card: Card) -> None:
    """Pairs, drawn nodes, drawn outputs, and the latents of a final layer go the same ways."""

    def of(device: Any) -> Any:
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 12)).to(device)
        x, y = torch.randn(24, 6), torch.arange(24) % 12
        return igc_dist.attribute(model, (x, y), n_folds=2, precision="64-true", target="one_hot", **DRAWN[name])

    assert relative(values(of(card.device)), values(of("cpu"))) < 1e-9


@pytest.mark.parametrize("settings", [{"categories": [7]}, {"embedding": "embed", "forward": "body"}])
def test_categories(settings: dict[str, Any], card: Card) -> None:
    """Categories one by one, and words by their embedding."""

    def of(device: Any) -> Any:
        torch.manual_seed(0)
        x, words, y = torch.randn(16, 3), torch.randint(0, 7, (16, 2)), torch.randn(16, 4)
        return igc_dist.attribute(
            Words().to(device), ((x, words), y), n_folds=2, n_steps=3, precision="64-true", target=[0, 2], **settings
        )

    assert_equal(of(card.device), of("cpu"))


@pytest.mark.parametrize("precision", ["64-true", "32-true", "bf16-mixed"])
def test_forward_mode(precision: str, card: Card) -> None:
    """Fused attention has no forward rule: it takes its plain form."""
    torch.manual_seed(0)
    x, y = torch.rand(4, 3, 32, 32), torch.randn(4, 10)

    def of(mode: str) -> Any:
        return igc_dist.attribute(
            Transformer(size=32).to(card.device), (x, y), n_steps=1, n_folds=2, reduce=Patches(16), mode=mode,
            precision=precision, precision_audit=0,
        )  # fmt: skip

    tolerance = {"64-true": 1e-9, "32-true": 1e-4, "bf16-mixed": 0.1}[precision]
    assert relative(values(of("forward")), values(of("reverse"))) < tolerance


@pytest.mark.parametrize("method", LAYERED)
def test_layered_methods(method: str, card: Card) -> None:
    ig2 = IG2("head.input", n_steps=6, step_size=0.1)

    def of(device: Any) -> Any:
        return igc_dist.attribute(
            digits_cnn().to(device), Subset(Digits(), range(8)), method=method, n_folds=2, target=[0, 3],
            attributor=IDGI(ig2) if method == "idgi_ig2" else ig2, baseline=igc_dist.baselines.References(2),
            precision="64-true",
        )  # fmt: skip

    assert_equal(of(card.device), of("cpu"))


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_recorded_gradients(precision: str, card: Card) -> None:
    """A graph has the kernels of the eager walk, and so its bits; also where the last micro-batch has fewer rows."""

    def of(recorded: bool) -> Any:
        return maps(
            card.device, 20, micro_batch=16, precision=precision, precision_audit=0,
            cuda_graphs=recorded,
        )  # fmt: skip

    with card.recording() as recorded:
        ours = of(True)
    assert card.dry or len(recorded) > 1
    assert values(ours).tobytes() == values(of(False)).tobytes()


def test_what_cannot_be_recorded_goes_on(card: Card, caplog: pytest.LogCaptureFixture) -> None:
    """A forward that waits for the device, which a graph cannot hold."""

    class Waits(nn.Linear):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return super().forward(x) * (1.0 if float(x.detach().sum()) > -1e9 else 2.0)

    torch.manual_seed(0)
    net, data = Waits(3, 2).to(card.device), (torch.randn(8, 3), torch.randn(8, 2))
    settings = {"n_folds": 2, "n_steps": 2, "cuda_graphs": True}
    with caplog.at_level("WARNING"):
        ours = igc_dist.attribute(net, data, **settings)
    assert card.dry or "without CUDA graphs" in caplog.text
    plain = igc_dist.attribute(net.cpu(), data, precision="64-true", n_folds=2, n_steps=2)
    assert relative(values(ours), values(plain)) < 1e-5
