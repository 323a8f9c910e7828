"""Law: the projected peak memory of a run is never below the peak that its process reaches."""

from __future__ import annotations

import pytest

from tests.benchmarks.memory import in_fresh_process


@pytest.mark.slow
@pytest.mark.parametrize(
    "case",
    [
        "convolutions", "images", "audited", "one_sample", "two_samples", "many_inputs", "many_folds", "cut_finalize",
        "samples", "store_in_memory", "tables", "large_tables", "tables_of_samples", "tiny_samples", "page_of_images",
        "page_of_many_inputs", "page_of_many_outputs", "page_of_samples", "insertion", "blurred", "sic", "lossy",
        "many_patches", "page_of_many_cells", "subsets_of_few_features",
    ],
)  # fmt: skip
def test_projected_memory_is_not_below_the_measured_peak(case: str) -> None:
    found = in_fresh_process(case)
    assert found["measured"] > 1.15 * found["before"], "too small a run to tell anything"
    assert found["measured"] <= found["projected"] <= 1.5 * found["measured"]
