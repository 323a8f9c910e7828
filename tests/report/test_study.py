"""A study: stores of several methods and steps in one table, with paired differences and Holm's correction."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr
from scipy.stats import t, ttest_rel
from torch import nn

import igc_dist
from igc_dist import report
from igc_dist.cli import commands
from igc_dist.records import StoreError
from igc_dist.report.study import steps_of

N, SHAPE = 14, (1, 4, 4)
X = torch.as_tensor(np.random.default_rng(0).uniform(size=(N, *SHAPE))).float()
DATA = torch.utils.data.TensorDataset(X, torch.arange(N) % 3)
METRICS = ["insertion", "insertion_normalised", "sparseness", "sparseness_entropy"]
RUNS = (("ig", 2), ("ig", 4), ("idgi", 2), ("idgi", 4), ("guided_ig", 2))


def run(method: str, n_steps: int, **settings: Any) -> xr.DataTree:
    torch.manual_seed(2)
    net = nn.Sequential(nn.Flatten(), nn.Linear(16, 6), nn.Tanh(), nn.Linear(6, 3))
    chosen = {"metrics": ["insertion", "sparseness"], "target": "own", "n_folds": 2, **settings}
    return igc_dist.attribute(net, DATA, method=method, n_steps=n_steps, **chosen)


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, int], Path]:
    folder = tmp_path_factory.mktemp("study")
    paths = {(method, n): folder / f"{method}-{n}" / "store.zarr" for method, n in RUNS}
    for (method, n), path in paths.items():
        run(method, n, store=path)
    return paths


def of(stores: dict[tuple[str, int], Path], at: tuple[str, int], metric: str) -> np.ndarray:
    return igc_dist.open(stores[at])[f"samples/metrics/{metric}"].values[:, 0]


def test_the_table_holds_means_and_paired_differences(stores: dict[tuple[str, int], Path]) -> None:
    """Against scipy's paired t-test and interval, of the numbers in the stores."""
    table = report.joined({str(at): igc_dist.open(path) for at, path in stores.items()}, "ig")
    assert table["method"].values.tolist() == ["ig", "idgi", "guided_ig"]
    assert table["steps"].values.tolist() == [2, 4]
    assert table["metric"].values.tolist() == METRICS
    for at in RUNS:
        for metric in ("insertion", "sparseness"):
            cell = table.sel({"method": at[0], "steps": at[1], "metric": metric})
            values = of(stores, at, metric)
            se = values.std(ddof=1) / np.sqrt(N)
            want = {"mean": values.mean(), "se": se, "median": np.median(values), "n": N}
            want |= {"ci_low": values.mean() - t.ppf(0.975, N - 1) * se}
            if at[0] != "ig":
                other = of(stores, ("ig", at[1]), metric)
                tested = ttest_rel(values, other)
                interval = tested.confidence_interval(0.95)
                want |= {"difference": (values - other).mean(), "p": tested.pvalue}
                want |= {"difference_ci_low": interval.low, "difference_ci_high": interval.high}
            for name, number in want.items():
                np.testing.assert_allclose(cell[name].item(), number, rtol=1e-9, err_msg=f"{at} {metric} {name}")
            assert np.isfinite(cell["difference"].item()) == (at[0] != "ig")
    assert np.isnan(table["mean"].sel({"method": "guided_ig", "steps": 4})).all()  # it was not run
    assert table["gradients"].sel({"method": "ig"}).values.tolist() == [2.0, 4.0]


def test_the_command_writes_csv_zarr_and_page(stores: dict[tuple[str, int], Path], tmp_path: Path) -> None:
    paths = [str(path) for path in stores.values()]
    assert commands.call("compare", [*paths, "--reference", "idgi", "--to", str(tmp_path / "out")]) == 0
    rows = [*csv.DictReader((tmp_path / "out" / "study.csv").read_text().splitlines())]
    assert len(rows) == len(RUNS) * len(METRICS)
    first = next(row for row in rows if (row["metric"], row["method"], row["steps"]) == ("insertion", "ig", "2"))
    np.testing.assert_allclose(float(first["mean"]), of(stores, ("ig", 2), "insertion").mean(), rtol=1e-12)
    assert first["reference"] == "idgi"
    assert float(first["difference_n"]) == N
    table = xr.open_zarr(tmp_path / "out" / "study.zarr")
    assert table["mean"].dims == ("method", "steps", "metric")
    page = (tmp_path / "out" / "study.html").read_text()
    for text in ("What n steps are", "guided_ig", "ends at the image for every n", "data:image/png"):
        assert text in page


def test_a_sample_with_several_outputs_counts_once() -> None:
    one, two = (run(method, 2, target=None, metrics=["sparseness"]) for method in ("ig", "idgi"))
    table = report.joined({"a": one, "b": two})
    cell = table.sel({"method": "ig", "steps": 2, "metric": "sparseness"})
    want = one["samples/metrics/sparseness"].values.mean(1)
    np.testing.assert_allclose([cell["mean"], cell["se"]], [want.mean(), want.std(ddof=1) / np.sqrt(N)], rtol=1e-12)


def test_stores_of_other_samples_are_not_joined(stores: dict[tuple[str, int], Path]) -> None:
    ig, idgi = (igc_dist.open(stores[at]) for at in (("ig", 2), ("idgi", 2)))
    with pytest.raises(StoreError, match="they differ in target"):
        report.joined({"a": ig, "b": run("idgi", 2, target="predicted")})
    with pytest.raises(StoreError, match="they differ in filter"):
        report.joined({"a": ig, "b": run("idgi", 2, filter=[0, 1, 2, 3])})
    with pytest.raises(StoreError, match="are both ig with 2 steps"):
        report.joined({"a": ig, "b": ig})
    with pytest.raises(StoreError, match="choose one of them"):
        report.joined({"a": ig, "b": idgi}, "blur_ig")
    with pytest.raises(StoreError, match="no metric in common"):
        report.joined({"a": ig, "b": run("idgi", 2, metrics=["road"])})
    with pytest.raises(StoreError, match="b has no scores of samples"):
        report.joined({"a": ig, "b": run("idgi", 2, metrics=[])})


def test_steps_are_those_that_were_given() -> None:
    inner = {"kind": "GuidedIG", "n_steps": 16}
    assert steps_of({"quadrature": {"name": "midpoint-32"}}) == 32
    assert steps_of({"n_steps": None, "attributor": inner}) == 16
    assert steps_of({"n_steps": 8, "attributor": {"quadrature": {"name": "left-9"}}}) == 8
    assert steps_of({"kind": "Gradients"}) == 0
