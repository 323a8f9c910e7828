"""What a metric says that it spends on a map is what it spends: the plan counts by it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from igc_dist.metrics import METRICS, Completeness, Insertion, Metric, Sic, Steps, Subject, score, weighted
from tests.models import Counted

N, J, SHAPE = 5, 3, (1, 12, 12)
DRAWS = np.random.default_rng(0)
X = torch.as_tensor(DRAWS.uniform(size=(N, *SHAPE))).float()
MAPS = DRAWS.normal(size=(N, J, *SHAPE))
INSIDE = DRAWS.random((N, 12, 12)) < 0.3
SETTINGS: dict[str, dict[str, Any]] = {
    "steps": {"n_steps": 4},
    "pointing_game": {"masks": INSIDE},
    "overlap": {"masks": INSIDE},
}
MEMBERS = [kind(**SETTINGS.get(name, {})) for name, kind in METRICS.items()]
MORE = [Completeness(segments=4), Insertion(pixels=50), Sic(thresholds=6, fill="bokeh"), Completeness(of="probability")]


@pytest.mark.parametrize(
    "metric",
    [
        # aic walks as sic does
        *(pytest.param(one, marks=pytest.mark.slow if one.name == "aic" else ()) for one in MEMBERS),
        *MORE,
    ],
    ids=lambda metric: metric.name,
)
def test_a_metric_spends_what_it_says(metric: Metric) -> None:
    """Rows of the model, gradients, and maps that it asks for, per map."""
    torch.manual_seed(0)
    net = Counted(
        torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(144, 8), torch.nn.Tanh(), torch.nn.Linear(8, J))
    )
    asked = 0

    def explain(x: torch.Tensor, output: torch.Tensor, **settings: Any) -> torch.Tensor:
        nonlocal asked
        asked += len(x) * (2 if "n_steps" in settings else 1)  # a walk of twice the steps is two
        return x.double()

    labels = {"target": torch.arange(J)}
    before = net.forwards
    score(net, (X, torch.zeros(N)), MAPS, [metric], baseline=0.0, explain=explain, batch_size=7, **labels)
    spent = net.forwards - before - 1  # the first look
    effort = metric.effort(Subject(N, SHAPE, torch.zeros(J, dtype=torch.float64), len(weighted(net))))
    assert (spent, net.backwards, asked) == tuple(N * J * number for number in effort[:3])


def test_steps_of_a_run_is_of_two_walks() -> None:
    assert Steps().effort(Subject(1, SHAPE, torch.zeros(J, dtype=torch.float64))).walks == 2


def test_workers_share_the_codecs_and_a_map_holds_its_images() -> None:
    subject = Subject(1, SHAPE, torch.zeros(J, dtype=torch.float64))
    one, two, more = (Sic(**some).effort(subject) for some in ({}, {"workers": 2}, {"thresholds": 25}))
    assert 0 < 2 * two.seconds == one.seconds < more.seconds
    assert more.held - one.held == 12 * subject.size  # a byte for each pixel of 12 more images
