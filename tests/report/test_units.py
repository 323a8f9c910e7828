"""Every axis and scale says what its numbers are counted in."""

from __future__ import annotations

import pytest

from igc_dist.report.contents import scale_of

CORRELATION, VARIANCE, OUTPUT = "part of the correlation", "part of the prediction's variance", "unit of the output"


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("igc", f"IGC, {CORRELATION}"),
        ("igc_se", f"standard error of IGC, {CORRELATION}"),
        ("guided_igc", f"guided igc, {CORRELATION}"),
        ("ig2c", f"ig2c, {CORRELATION}"),
        ("bsc_between", f"BSC between slices, {CORRELATION}"),
        ("idgi_correlation", f"idgi correlation, {CORRELATION}"),
        ("igc_per_area", f"IGC per area, {CORRELATION} for each unit of area"),
        ("igac", f"IGaC, {VARIANCE}"),
        ("idgi_autocorrelation", f"idgi autocorrelation, {VARIANCE}"),
        ("ig_mean", f"mean of IG, {OUTPUT}"),
        ("ig_std_se", f"standard error of standard deviation of IG, {OUTPUT}"),
        ("guided_ig", f"Guided IG, {OUTPUT}"),
        ("area", "area, part of the image"),
        ("naive_correlation", "naive correlation"),
        ("naive_ttest", "p-value of the naive t-test"),
    ],
)
def test_a_scale_has_a_title_and_a_unit(name: str, text: str) -> None:
    assert scale_of(name) == text
