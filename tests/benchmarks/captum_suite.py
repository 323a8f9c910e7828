"""The assertions of Captum's own tests of Integrated Gradients, on our class and on Captum's (extra `bench`)."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterator
from typing import Any

from tests.benchmarks.measure import Report, report
from tests.compat.captum_cases import OURS, checks


def failures(kind: Any, tunnel: Any) -> tuple[int, list[str]]:
    """How many checks there are, and the names of those that fail."""
    every, failed = [*checks(kind, tunnel)], []
    for name, check in every:
        try:
            check()
        except Exception as error:
            print(f"{name}: {type(error).__name__}: {error}", file=sys.stderr)
            failed.append(name)
    return len(every), failed


def run() -> Iterator[Report]:
    """No check fails; without Captum those under its `NoiseTunnel` and those of its own class are left out, and the
    line says so."""
    theirs, tunnel, skipped = None, None, {"skipped": "Captum is not installed: pip install 'igc-dist[bench]'"}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            from captum.attr import IntegratedGradients as theirs  # noqa: N813
            from captum.attr import NoiseTunnel as tunnel  # noqa: N813

            skipped = {}
        except ImportError:
            print(skipped["skipped"], file=sys.stderr)
        for name, kind in (("shim", OURS), ("captum", theirs)):
            n, failed = failures(kind, tunnel) if kind is not None else (0, [])
            yield report(f"captum_suite/{name}", len(failed), at_most=0, checks=n, failed=failed, **skipped)
