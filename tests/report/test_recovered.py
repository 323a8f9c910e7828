"""The picture of the benchmark, and the command that makes it."""

from __future__ import annotations

import csv
from pathlib import Path

import matplotlib.image
import numpy as np
import pytest
from omegaconf import OmegaConf

from igc_dist import config
from igc_dist.cli import runs
from igc_dist.records import ConfigError
from igc_dist.report import Recovered, write_recovered
from igc_dist.report.recovered import draw_recovered
from tests.cli.test_cli import forked
from tests.config.test_conf import composed

SCORES = {"correlation": np.array([0.5, 0.25]), "auc": np.array([0.75, np.nan])}


def row(run: str, name: str) -> Recovered:
    return Recovered(run, name, np.eye(4)[None, None].repeat(2, 0), np.ones((2, 1, 4, 4)), SCORES)


def test_each_row_is_a_task_and_a_model(tmp_path: Path) -> None:
    """Runs of one row share it; the table has a line for each map and output."""
    found = [
        row("model=simulation data.build.task=A", "igc"), row("model=simulation data.build.task=A method=bsc", "bsc"),
        row("model=simulation_net data.build.task=A", "igc"),
    ]  # fmt: skip
    figure = draw_recovered(found)
    assert len(figure.axes) == (1 + 2) + (1 + 1)
    np.testing.assert_array_equal(figure.axes[0].images[0].get_array(), np.eye(4))
    assert figure.axes[1].get_xlabel() == "r = 0.50"
    lines = [*csv.reader(write_recovered(found, tmp_path).read_text().splitlines())]
    assert lines[0] == ["run", "map", "output", "correlation", "auc"]
    assert lines[2] == ["model=simulation data.build.task=A", "igc", "1", "0.25", "nan"]
    assert len(lines) == 1 + 6
    assert matplotlib.image.imread(tmp_path / "recovery.png").ndim == 3


def test_data_without_a_mask_are_refused() -> None:
    with pytest.raises(ConfigError, match="an attribute mask"):
        runs._mask(composed(), ())
    assert runs._mask(composed("data=simulation", "model=simulation", "data.build.task=D"), ()).shape == (4, 1, 64, 64)


@pytest.mark.slow
def test_every_entry_of_the_benchmark_composes() -> None:
    """All four tasks, all methods, the statistic and the network."""
    cfg = composed("experiment=igc_simulation")
    assert len(cfg.gallery) == 16
    assert config.typed(cfg).picture == "recovery"
    for column in cfg.gallery:
        its = composed("experiment=igc_simulation", *column.split())
        assert OmegaConf.select(its, "model.build.task") == its.data.build.task
        assert f"task={its.data.build.task}" in column


@pytest.mark.e2e
@pytest.mark.slow
def test_the_command_makes_picture_and_table(tmp_path: Path) -> None:
    """Two entries of few images; a second call finds them done."""
    columns = "['data.build.task=B','data.build.task=B method=naive_correlation statistic.names=[pearson]']"
    words = [
        "experiment=igc_simulation",
        "data.build.n=24",
        "plan.n_folds=4",
        "quadrature.n_steps=2",
        f"gallery={columns}",
    ]
    for _ in range(2):
        code, said = forked(tmp_path, *words)
        assert code == 0, said
        assert "2 of 2 in" in said
    lines = [*csv.reader((tmp_path / "outputs/igc_simulation/recovery.csv").read_text().splitlines())]
    assert {line[1] for line in lines[1:]} == {"igc", "igac", "ig_mean", "ig_std", "naive_correlation"}
    assert all(-1 <= float(line[3]) <= 1 for line in lines[1:])
