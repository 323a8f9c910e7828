"""Law: the projected peak memory of a run is never below the peak that its process reaches."""

from __future__ import annotations

import pytest

from tests.benchmarks.memory import in_fresh_process


@pytest.mark.slow
@pytest.mark.parametrize(
    "case", ["convolutions", "samples", "store_in_memory", "audited", "tables", "tables_of_samples", "one_sample"]
)
def test_projected_memory_is_not_below_the_measured_peak(case: str) -> None:
    found = in_fresh_process(case)
    assert found["measured"] > 1.15 * found["before"], "too small a run to tell anything"
    assert found["measured"] <= found["projected"] <= 1.5 * found["measured"]
