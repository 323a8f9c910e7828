"""The assertions of Captum's own tests on our class, most of them under its `NoiseTunnel` (extra `bench`).

`make bench captum_suite` runs all of them, also on Captum's class.
"""

from __future__ import annotations

import warnings
from typing import Any

import pytest

from tests.compat.captum_cases import METHODS, OURS, checks

SELECTED = [name for name, _ in checks(None, object()) if not name.endswith(METHODS[:4])]
"""One rule of each check that goes through all rules."""


@pytest.fixture(scope="module")
def tunnel() -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return pytest.importorskip("captum.attr").NoiseTunnel


@pytest.mark.parametrize("name", SELECTED)
def test_what_captum_asserts(tunnel: Any, name: str) -> None:
    dict(checks(OURS, tunnel))[name]()
