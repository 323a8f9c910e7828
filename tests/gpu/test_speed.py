"""The host hands on work to a card and does not wait for it."""

from __future__ import annotations

from typing import Any
from unittest.mock import patch

import pytest

from igc_dist.passes import Engine
from igc_dist.statistics import SCALAR_TERMS
from tests.card import Card
from tests.gpu.problems import maps


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_the_host_waits_once_for_a_shard(precision: str, card: Card) -> None:
    """Torch counts: one look at whether all was finite, and one copy of each sum. `tests/passes` sees the same on a
    device that is none."""
    walked, counted = Engine.run, []

    def watched(self: Engine, *arguments: Any) -> Any:
        with card.waits() as said:
            found = walked(self, *arguments)
        counted.append((len(said), len(self.terms) + len(SCALAR_TERMS)))
        return found

    with patch.object(Engine, "run", watched):
        maps(card.device, n_folds=2, micro_batch=8, precision=precision, precision_audit=0)
    assert len(counted) == 2
    assert all(waits <= 1 + sums for waits, sums in counted), counted
