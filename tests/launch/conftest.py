"""What the tests of launch files compare with."""

from __future__ import annotations

import pytest

from tests.commands import TINY, command
from tests.ranks import files


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The files of one rank, without a launcher."""
    folder = tmp_path_factory.mktemp("alone")
    found = command(*TINY, "store.path=a.zarr", cwd=folder)
    assert found.returncode == 0, found.stderr
    return files(folder / "a.zarr")
