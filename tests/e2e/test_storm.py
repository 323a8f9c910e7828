"""Twenty rounds of a storm from outside (`tests.storm`); `make soak` has two hundred."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.storm import storm

pytestmark = [pytest.mark.e2e, pytest.mark.fault, pytest.mark.slow]


@pytest.mark.timeout(3600)
@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="needs Linux's /proc")
def test_equal_bytes_and_nothing_left(tmp_path: Path) -> None:
    assert sum(storm(20, 1, tmp_path).values()) >= 20
