"""Releases that are known to be bad satisfy no range of ours; those that the tests run with satisfy every one."""

from __future__ import annotations

import re
import tomllib

import numcodecs
import numpy as np
import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.commands import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = [requirement for extra in PROJECT["optional-dependencies"].values() for requirement in extra]
RANGES = {canonicalize_name(r.name): r for r in map(Requirement, [*EXTRAS, *PROJECT["dependencies"]])}
PINS = {
    canonicalize_name(name): version
    for name, version in re.findall(r"^([\w.-]+)==(\S+)$", (ROOT / "constraints.txt").read_text(), re.M)
}

BAD = {
    "lightning": ("2.6.2", "2.6.3", "2.6.5"),  # a thief of credentials that ran at import; GHSA-qqmf-gpg7-g8gw
    "hydra-core": ("1.3.2", "1.3.3", "1.3.6", "1.4.0"),  # CVE-2026-68508, CVE-2026-106439; another list of what may run
    "omegaconf": ("2.4.0",),
    "torch": ("2.4.1", "2.5.1"),  # CVE-2025-32434: weights_only=True ran code
    "jinja2": ("3.1.3", "3.1.4", "3.1.5"),  # CVE-2024-34064, CVE-2024-56201, CVE-2025-27516
    "scikit-learn": ("1.4.2",),  # CVE-2024-5206
    "zarr": ("2.18.7",),  # has no format 3, so it would read whatever a store says in another format
    "numcodecs": ("0.15.1", "0.16.3"),  # its filter `pickle`, which a stored document may name, ran code
}


@pytest.mark.parametrize("name", BAD)
def test_known_bad_releases_are_excluded(name: str) -> None:
    assert not [version for version in BAD[name] if RANGES[name].specifier.contains(version, prereleases=True)]


@pytest.mark.parametrize("name", RANGES)
def test_each_range_has_a_floor(name: str) -> None:
    """So that a resolver cannot go back to a release from before a mend."""
    assert [one for one in RANGES[name].specifier if one.operator in (">=", "==", "~=")]


def test_the_pins_satisfy_the_ranges() -> None:
    """Each dependency is pinned, within its range."""
    for requirement in map(Requirement, PROJECT["dependencies"]):
        assert PINS[canonicalize_name(requirement.name)] in requirement.specifier, requirement
    for name, version in PINS.items():
        assert name not in RANGES or version in RANGES[name].specifier, name


def test_numcodecs_refuses_pickles() -> None:
    pickles = numcodecs.get_codec({"id": "pickle"})
    with pytest.raises(numcodecs.errors.UnsafeDecodeError):
        pickles.decode(pickles.encode(np.array(["a"], dtype=object)))
