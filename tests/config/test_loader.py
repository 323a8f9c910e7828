"""The loader that checks configurations goes with its permissions."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest
from hydra._internal.config_search_path_impl import ConfigSearchPathImpl
from hydra.core.plugins import Plugins

from igc_dist import config
from igc_dist.config.loader import Checked, ConfigLoaderImpl


def test_permissions_go_with_the_loader() -> None:
    """To the processes of a launcher plug-in, which get a pickle of it."""
    Plugins.instance()  # knows the kinds of sources
    path = ConfigSearchPathImpl()
    path.append("schema", "structured://")
    assert vars(pickle.loads(pickle.dumps(Checked(path, ("mine.*",)))))["allow"] == ("mine.*",)


@pytest.mark.parametrize(
    ("arguments", "composed", "jobs"),
    [(["seed=3"], 1, [3]), (["-m", "seed=3,4"], 5, [3, 4]), (["hydra.mode=MULTIRUN", "seed=3,4"], 6, [3, 4])],
)
def test_a_command_composes_once(
    arguments: list[str], composed: int, jobs: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Hydra asks for its mode first, which nobody sets but this command line."""
    monkeypatch.chdir(tmp_path)
    composing, calls, seeds = ConfigLoaderImpl._load_configuration_impl, [], []
    monkeypatch.setattr(
        ConfigLoaderImpl, "_load_configuration_impl", lambda *a, **k: (calls.append(1), composing(*a, **k))[1]
    )
    config.compose_and_call(lambda cfg: seeds.append(cfg.seed), arguments)
    assert (len(calls), seeds) == (composed, jobs)
