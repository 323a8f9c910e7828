"""Rules of a job: each has a case that breaks it, and no other before it; the documents show the same table."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import igc_dist
from igc_dist.attributors import IG2, Gradients, GuidedIG, SmoothGrad
from igc_dist.baselines import Constant, Partners, References
from igc_dist.features import Bands, Masks, Total
from igc_dist.job import rules
from igc_dist.metrics import Steps
from igc_dist.model import Model, Parts
from igc_dist.records import ConfigError
from igc_dist.statistics import ControlledCorrelation, TTest
from tests.commands import ROOT

CASES: tuple[dict[str, Any], ...] = (
    {"seed": 2**63},
    {"target": "own"},
    {"target": "top:2", "statistics": [], "samples": True, "final_layer": "2"},
    {"target": "predicted", "statistics": [], "samples": True, "baseline": References(2, "top_k")},
    {"design": "stratified", "statistics": ["moments"]},
    {"n_others": 1, "samples": True},
    {"baseline": Partners()},
    {"design": "pairs", "baseline": Constant(1.0)},
    {"design": "pairs", "n_others": 1},
    {"attributor": GuidedIG(4), "n_others": 1},
    {"n_others": 1, "categories": [3]},
    {"n_others": 1, "final_layer": "2"},
    {"design": "pairs", "slices": [0, 1] * 6},
    {"samples": True, "budget": igc_dist.Budget(seconds=1.0)},
    {"metrics": ["sparseness"], "budget": igc_dist.Budget(seconds=1.0)},
    {"metrics": ["sparseness"], "design": "stratified"},
    {"metrics": ["sparseness"], "categories": [3]},
    {"reduce": Bands(), "method": "blur_igc"},
    {"design": "pairs", "reduce": Masks(masks=np.zeros((12, 1, 4), int))},
    {"statistics": ["area"]},
    {"layer": "1", "method": "blur_igc"},
    {"metrics": ["sparseness"], "reduce": Total()},
    {"metrics": ["completeness"], "attributor": Gradients()},
    {"metrics": [Steps(n_steps=4)]},
    {"metrics": ["steps"], "attributor": Gradients()},
    {"statistics": ["ttest"], "budget": igc_dist.Budget(rel_se=0.1)},
    {"statistics": ["ttest", "ttest_again"]},
    {"statistics": [ControlledCorrelation()]},
    {"statistics": ["ttest"], "weights": [1.0] * 12},
    {"mode": "forward", "design": "pairs"},
    {"mode": "forward", "statistics": [ControlledCorrelation()], "baseline": igc_dist.baselines.Resampled(2)},
    {"parts": Parts(2), "categories": [3]},
    {"parts": Parts(2), "attributor": SmoothGrad(IG2("1"), n_samples=2)},
    {"parts": Parts(2), "method": "ig", "metrics": ["randomisation"]},
    {"parts": Parts(2), "final_layer": "2"},
    {"parts": Parts(2), "forward": "__call__"},
    {"parts": Parts(2), "compiled": True},
    {"parts": Parts(2), "trial": True},
    {"parts": Parts(2), "precision_audit": 1},
)
"""In the order of the rules."""


def refused(settings: dict[str, Any]) -> str:
    """What `attribute` says of settings."""
    torch.manual_seed(0)
    net: nn.Module = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3))
    x: Any = torch.randn(12, 4)
    if "categories" in settings:
        net, x = Coded(), torch.arange(12)[:, None] % 3
    if settings.get("statistics") == ["ttest", "ttest_again"]:
        other = type("Again", (TTest,), {"name": "ttest_again"})
        settings = {"statistics": [TTest(), other()]}
    settings = {"target": "one_hot", **settings}
    with pytest.MonkeyPatch.context() as patch:
        if "parts" in settings:  # a setting of the command line
            patch.setattr("igc_dist.api.Model", partial(Model, parts=settings.pop("parts")))
        with pytest.raises(ConfigError) as error:
            igc_dist.attribute(net, (x, torch.arange(12) % 3), n_folds=2, **settings)
    return str(error.value)


class Coded(nn.Module):
    """A category, one-hot, through a layer."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(3, 3)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        return self.table(ids).sum(1)


def test_every_rule_has_a_case() -> None:
    assert len(CASES) == len(rules.RULES)


@pytest.mark.parametrize("number", range(len(CASES)))
def test_a_broken_rule_says_its_reason_and_the_way_out(number: int) -> None:
    rule, said = rules.RULES[number], refused(CASES[number])
    for text in (rule.reason, rule.way_out):
        start = 0
        for part in text.replace("}", "{").split("{")[::2]:  # what stands between the fields, in order
            assert part in said[start:], (text, said)
            start = said.index(part, start) + len(part)
    assert "{" not in said


def test_the_documents_show_the_table() -> None:
    """Written by `python -m igc_dist.job.rules`."""
    assert (ROOT / "docs" / "refusals.md").read_text().endswith(rules.table())
