"""The loader that checks configurations goes with its permissions."""

from __future__ import annotations

import pickle

from hydra._internal.config_search_path_impl import ConfigSearchPathImpl
from hydra.core.plugins import Plugins

from igc_dist.config.loader import Checked


def test_permissions_go_with_the_loader() -> None:
    """To the processes of a launcher plug-in, which get a pickle of it."""
    Plugins.instance()  # knows the kinds of sources
    path = ConfigSearchPathImpl()
    path.append("schema", "structured://")
    assert vars(pickle.loads(pickle.dumps(Checked(path, ("mine.*",)))))["allow"] == ("mine.*",)
