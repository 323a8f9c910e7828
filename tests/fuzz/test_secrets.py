"""The masker over any texts and documents, as the fuzzer puts them together; and over any text at all."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from igc_dist.secrets import masked, masked_text
from tests.fuzz import secrets
from tests.fuzz.choices import Choices

KINDS = ("text", "document", "spec", "plain", "long")


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.binary(max_size=64))
def test_no_secret_is_left(kind: str, monkeypatch: pytest.MonkeyPatch, data: bytes) -> None:
    """Nor a part of one; and other words stay, keys and nesting too."""
    monkeypatch.setenv("FUZZ_SECRET", secrets.BY_VALUE)
    getattr(secrets.Target(Path()), kind)(Choices(data))


@settings(max_examples=100)
@given(text=st.text(max_size=60))
def test_any_text_is_masked(text: str) -> None:
    """Without an error; and under a key nothing of it is left."""
    masked_text(text)
    assert masked({"password": text})["password"] in ("***", "")
