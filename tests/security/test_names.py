"""Names that become paths of the store: identifiers and nothing else."""

from __future__ import annotations

import pytest

from igc_dist import features
from igc_dist.records import ConfigError

PATHS = ("..", "../x", "/etc/passwd", "x/../../y", "x/y", ".", "", "x\0", "C:\\x", "~", "%2e%2e", "zarr.json", "x\n",
" x", "${x}",
         "__x__", "c d", "\uff0e\uff0e")  # fmt: skip


@pytest.mark.parametrize("name", PATHS)
def test_names_are_no_paths(name: str) -> None:
    with pytest.raises(ConfigError, match="cannot name a group of the store"):
        features.names(1, [name])
    if name != "__x__":  # only groups of zarr may not be called so
        with pytest.raises(ConfigError, match="cannot be used"):
            features.dims([(3,)], [[name]])
