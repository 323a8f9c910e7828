"""Strictness for every test: one thread, deterministic kernels, default types as they were; and why a GPU test is
skipped."""

from __future__ import annotations

import os
from collections.abc import Iterator

os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS is not deterministic without it
# of numpy and scipy: its threads spin for each other on matrices of any size, which several busy processes pay for:
# a twin that fills 20 small images took 15 s in place of 0.5
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import pytest
import torch
from hypothesis import settings

import tests.checker  # noqa: F401  before the package, whose functions it decorates

settings.register_profile("strict", deadline=None, derandomize=True, database=None, max_examples=8)
settings.load_profile("strict")


@pytest.fixture(autouse=True)
def fixed_rule(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a rule, tests take 32 midpoints: a pilot before each run would be about something else. Tests of the
    default are marked `pilot`."""
    if "pilot" not in request.keywords:
        monkeypatch.setattr("igc_dist.paths.quadrature.DEFAULT", "midpoint")


@pytest.fixture(autouse=True)
def strict() -> Iterator[None]:
    """Results must not hang on threads, on the order of tests, or on a default type that an earlier test left
    behind."""
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    # without a card torch.manual_seed keeps the stack of each call for one to come: 4 ms
    (torch.manual_seed if torch.cuda.is_available() else torch.default_generator.manual_seed)(0)
    yield
    assert torch.get_default_dtype() is torch.float32, "the test, or the code under test, changed the default type"
    assert torch.is_grad_enabled(), "the test, or the code under test, left gradients switched off"
    assert torch.get_num_threads() == 1, "the test, or the code under test, changed the number of threads"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    # those that start ranks and commands first: their files are the longest, and with several processes none should
    # begin at the end
    if "PYTEST_XDIST_WORKER" in os.environ:
        items.sort(key=lambda item: not {"dist", "e2e"} & {*item.keywords})
    if not torch.cuda.is_available() and os.environ.get("IGC_DRY_CARD") != "1":  # see `tests/card.py`
        for item in items:
            if "gpu" in item.keywords:
                item.add_marker(pytest.mark.skip(reason="needs a CUDA device, torch.cuda.is_available() is False"))
