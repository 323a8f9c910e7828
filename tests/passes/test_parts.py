"""Missing targets, sample weights and slices: which samples count where, in whole runs against sums over samples."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import Dataset, Subset

import igc_dist
from igc_dist import seeds
from igc_dist.records import ConfigError, DataError, NonFiniteError
from igc_dist.report import summary_table, write_report
from igc_dist.statistics import TTest
from tests import models
from tests.oracles import attributions, statistics

N = 24
SITE = np.array(["north", "south", "east"])[np.arange(N) % 3]


def problem() -> tuple[torch.nn.Module, torch.Tensor, torch.Tensor]:
    model = models.mlp(torch.nn.GELU)
    x, y = models.data(model, N)
    return model, x, y


def run(model: Any, data: Any, **settings: Any) -> Any:
    return igc_dist.attribute(model, data, **{"n_steps": 4, "n_folds": 5, **settings})


def tables(model: Any, x: torch.Tensor) -> tuple[np.ndarray, np.ndarray]:
    """IG of every sample, and predictions."""
    tree = run(model, (x, torch.zeros(len(x), 2).double()), samples=True, statistics=[])
    return tree["samples/x/attribution"].values, attributions.predictions(model, [x.numpy()], [0, 1])


def close(found: Any, expected: Any, tolerance: float = 1e-11) -> None:
    np.testing.assert_allclose(np.asarray(found), np.asarray(expected), rtol=tolerance, atol=tolerance)


ALL = ["correlation", "autocorrelation", "moments", "pearson"]


def test_a_missing_target_leaves_the_sample_out_for_that_output_only() -> None:
    """Every result of an output is that of the samples that have its target, with their number."""
    model, x, y = problem()
    y[[0, 3, 7], 0] = torch.nan
    y[5] = torch.nan
    tree = run(model, (x, y), statistics=ALL, baseline=2)
    assert tree["n"].values.tolist() == [N - 4, N - 1]
    for k in (0, 1):
        kept = ~torch.isnan(y[:, k])
        alone = run(
            model,
            (x[kept], y[kept]),
            statistics=ALL,
            baseline=igc_dist.baselines.Given((baseline_rows(x),)),
            target=[k],
        )
        again = run(model, (x, y), statistics=ALL, baseline=igc_dist.baselines.Given((baseline_rows(x),)), target=[k])
        for name in (
            "x/igc",
            "x/igac",
            "x/ig_mean",
            "x/ig_std",
            "x/ig_pearson",
            "correlation",
            "target_std",
            "prediction_std",
            "igc_sum",
        ):
            close(again[name], alone[name])


def baseline_rows(x: torch.Tensor) -> torch.Tensor:
    return x[:2] * 0.5


@pytest.mark.parametrize("policy", ["fail", "skip"])
def test_infinity_in_a_target_is_not_missing(policy: str) -> None:
    """It is an error, or the whole sample is left out and recorded."""
    model, x, y = problem()
    y[4, 1], y[6, 0] = torch.inf, torch.nan
    if policy == "fail":
        with pytest.raises(NonFiniteError, match="sample 4 has NaN or infinity in its target"):
            run(model, (x, y))
    else:
        tree = run(model, (x, y), on_nonfinite="skip")
        assert tree["n"].values.tolist() == [N - 2, N - 1]
        assert tree.attrs["skipped"] == [{"index": 4, "reason": "NaN or infinity in its target"}]


def test_an_output_without_any_target_is_nan() -> None:
    """n = 0, and a run without a single target is refused."""
    model, x, y = problem()
    y[:, 1] = torch.nan
    tree = run(model, (x, y))
    assert tree["n"].values.tolist() == [N, 0]
    assert np.isfinite(tree["x/igc"].values[0]).all()
    assert np.isnan(tree["x/igc"].values[1]).all()
    with pytest.raises(DataError, match="no sample is left"):
        run(model, (x, torch.full_like(y, torch.nan)))


def test_weights_are_repetitions() -> None:
    """Integer weights give what a data set gives in which samples occur as often; n counts samples of any weight."""
    model, x, y = problem()
    times = np.arange(N) % 4
    kept = np.repeat(np.arange(N), times)
    weighted = run(model, (x, y), weights=times, statistics=ALL, n_folds=1)
    repeated = run(model, (x[kept], y[kept]), statistics=ALL, n_folds=1)
    for name in (
        "x/igc",
        "x/igac",
        "x/ig_mean",
        "x/ig_std",
        "x/ig_pearson",
        "correlation",
        "target_mean",
        "target_std",
        "igc_sum",
    ):
        close(weighted[name], repeated[name])
    assert weighted["n"].values.tolist() == [int((times > 0).sum())] * 2
    close(run(model, (x, y), weights=0.5 * np.ones(N))["x/igc"], run(model, (x, y))["x/igc"])


@pytest.mark.parametrize("baseline_block", [None, 1])
def test_slices_are_runs_of_their_own(baseline_block: int | None) -> None:
    """Results of a slice are those of a run on its samples; the whole is what it is without slices."""
    model, x, y = problem()
    y[4, 0] = torch.nan
    given = igc_dist.baselines.Given((baseline_rows(x),))
    wishes = {"baseline": given, "statistics": ["correlation", "autocorrelation"], "baseline_block": baseline_block}
    tree = run(model, (x, y), slices=SITE, **wishes)
    assert tree["slices/slice"].values.tolist() == ["east", "north", "south"]
    assert tree["slices/x/igc"].dims == ("slice", "output", "feature")
    assert tree["slices/n"].values.tolist() == [[8, 8], [8, 8], [7, 8]]
    for number, label in enumerate(tree["slices/slice"].values):
        rows = label == SITE
        alone = run(model, (x[rows], y[rows]), **wishes)
        for name in ("igc", "igac"):
            close(tree[f"slices/x/{name}"][number], alone[f"x/{name}"])
        for name in ("correlation", "baseline_term", "igc_sum", "target_std", "prediction_mean"):
            close(tree[f"slices/{name}"][number], alone[name])
    whole = run(model, (x, y), **wishes)
    for name in ("x/igc", "x/igac", "correlation", "x/igc_se", "correlation_se"):
        close(tree[name], whole[name])


def test_standard_errors_of_slices() -> None:
    """Those of the jackknife over the same folds, with the other slices left out."""
    model, x, y = problem()
    tree = run(model, (x, y), slices=SITE, n_folds=4)
    rows, size = seeds.generator(0, 0, "plan.folds").permutation(N), N // 4
    a, r = tables(model, x)
    folds = [[int(n) for n in rows[at : at + size] if SITE[n] == "east"] for at in range(0, N, size)]
    assert all(folds)
    expected = statistics.jackknife(lambda kept: statistics.igc(a[kept], y.numpy()[kept], r[kept]), folds)
    close(tree["slices/x/igc_se"][0], expected, 1e-9)


def test_within_and_between_slices() -> None:
    """``IGC = sum_s share_s IGC_s + beta``, each part as the sums over samples say; here the slices have other
    means."""
    model, x, y = problem()
    y += torch.from_numpy(np.arange(N) % 3)[:, None] * 0.8  # the site moves the target, not the input
    x[:, 0] += torch.from_numpy(np.arange(N) % 3) * 0.5
    tree = run(model, (x, y), slices=SITE, statistics=["correlation"])
    a, r = tables(model, x)
    by_slice, shares, beta, whole = statistics.slices(a, y.numpy(), r, SITE)
    close(tree["slices/x/igc"], by_slice)
    close(tree["slices/igc_share"], shares)
    close(tree["x/igc_between"], beta)
    assert np.abs(beta).max() > 0.05
    close(tree["slices/x/igc_within"], shares[:, :, None] * by_slice)
    close(tree["slices/x/igc_within"].values.sum(0) + tree["x/igc_between"].values, whole)


def test_a_slice_of_constant_target_has_no_share() -> None:
    """Its IGC is NaN, its part of the whole is 0, and the decomposition still adds up."""
    model, x, y = problem()
    y[SITE == "east"] = 1.0
    tree = run(model, (x, y), slices=SITE)
    assert np.isnan(tree["slices/x/igc"].values[0]).all()
    assert np.abs(tree["slices/x/igc_within"].values[0]).max() < 1e-15
    close(tree["slices/x/igc_within"].values.sum(0) + tree["x/igc_between"].values, tree["x/igc"])


class Named(Dataset[Any]):
    """A data set with columns as attributes."""

    def __init__(self) -> None:
        self.model, self.x, self.y = problem()
        self.site, self.importance, self.short = SITE.tolist(), torch.arange(N), [1, 2]

    def __len__(self) -> int:
        return N

    def __getitem__(self, index: int) -> Any:
        return self.x[index], self.y[index]


def test_columns_of_the_data_set_by_name() -> None:
    """Also through a subset."""
    data = Named()
    tree = run(data.model, data, slices="site", weights="importance")
    close(tree["slices/x/igc"], run(data.model, data, slices=SITE, weights=np.arange(N))["slices/x/igc"])
    rows = [5, 2, 11, 8, 7, 20, 13, 4]
    part = run(data.model, Subset(data, rows), slices="site")
    close(part["slices/x/igc"], run(data.model, (data.x[rows], data.y[rows]), slices=SITE[rows])["slices/x/igc"])


@pytest.mark.parametrize(
    ("settings", "error", "words"),
    [
        ({"slices": "place"}, DataError, "no such attribute with one value per sample; it has .*'site'"),
        ({"slices": "short"}, DataError, r"slices has shape \(2,\): expected one value for each of the 24 samples"),
        ({"slices": np.full(N, np.nan)}, DataError, "24 samples have no label"),
        ({"slices": np.arange(N)[:-1]}, DataError, r"slices has shape \(23,\)"),
        ({"weights": -np.ones(N)}, DataError, "sample 0 has -1.0, weights are finite and at least 0"),
        ({"weights": np.zeros(N)}, DataError, "weights: all are 0"),
        ({"weights": SITE}, DataError, "give numbers"),
        ({"weights": np.ones(N), "statistics": ["ttest"]}, ConfigError, "'ttest' is not defined for weighted samples"),
        ({"statistics": [TTest(low=[0.1, 0.2, 0.3])]}, ConfigError, "ttest.low has 3 values for 2 selected outputs"),
        ({"statistics": ["ttest"], "baseline": 2, "baseline_block": 1}, ConfigError, "'ttest' is not linear in the "
"attribution"),
        ({"statistics": ["pearson"], "baseline": 2, "baseline_block": 1}, ConfigError, "'pearson' is not linear in the "
"attribution"),
    ],
)  # fmt: skip
def test_what_is_refused(settings: dict[str, Any], error: type[Exception], words: str) -> None:
    data = Named()
    with pytest.raises(error, match=words):
        run(data.model, data, **settings)


def test_too_many_slices() -> None:
    with pytest.raises(DataError, match="300 different labels among 300 samples, at most 256"):
        run(models.linear(), (torch.zeros(300, 3), torch.zeros(300, 2)), slices=np.arange(300))


@pytest.mark.parametrize("slices", [None, SITE])
def test_t_test_of_attributions(slices: Any) -> None:
    """The groups by the target of each output, ties with both limits in both groups; together with other statistics and
    slices."""
    model, x, y = problem()
    y[:6, 0] = 0.25
    y[9, 0] = torch.nan
    tree = run(model, (x, y), statistics=["correlation", TTest(low=0.25, high=(0.25, 0.6))], slices=slices)
    a, _ = tables(model, x)
    low, high = y.numpy() <= 0.25, y.numpy() >= np.array([0.25, 0.6])
    t, p = statistics.t_test(a, low, high)
    close(tree["x/ig_ttest_t"], t, 1e-9)
    close(tree["x/ig_ttest_p"], p, 1e-9)
    assert "ig_ttest_p_se" not in tree["x"]
    assert tree["n_low"].values.tolist() == low.sum(0).tolist()
    assert tree["n_high"].values.tolist() == high.sum(0).tolist()
    close(tree["x/igc"], run(model, (x, y))["x/igc"])
    cut = run(
        model, (x, y), statistics=["correlation", TTest(low=0.25, high=(0.25, 0.6))], slices=slices, output_block=1
    )
    close(cut["x/ig_ttest_p"], p, 1e-9)
    if slices is not None:
        rows = SITE == "south"
        close(tree["slices/x/ig_ttest_p"][2], statistics.t_test(a[rows], low[rows], high[rows])[1], 1e-9)


def test_default_limits_of_the_t_test() -> None:
    """Halfway between two values; else the 10 % and 90 % quantiles; one sample in a group gives NaN, and so do equal
    attributions."""
    y = np.stack([np.arange(101.0), (np.arange(101) < 7) * 3.0, np.full(101, np.nan)], axis=1)
    np.testing.assert_array_equal(TTest().thresholds(y), [[10, 1.5, np.nan], [90, 1.5, np.nan]])
    model, x, _ = problem()
    few = torch.zeros(N, 2).double()
    few[3, 0], few[[3, 4], 1] = 1, 1
    tree = run(model, (x, few), statistics=["ttest"])
    assert np.isnan(tree["x/ig_ttest_p"].values[0]).all()
    assert np.isfinite(tree["x/ig_ttest_p"].values[1]).all()
    assert np.isnan(
        run(models.linear(), (torch.ones(N, 3).double(), few), statistics=["ttest"])["x/ig_ttest_p"].values
    ).all()


@pytest.mark.parametrize("method", ["igc", pytest.param("bsc", marks=pytest.mark.slow)])
def test_the_report_shows_slices(method: str, tmp_path: Path) -> None:
    """A row per slice and output, with its share; and what is between the slices. The sum of the map is that of the
    method."""
    model, x, y = problem()
    tree = run(model, (x, y), slices=SITE, method=method)
    page = write_report(tree, tmp_path).read_text()
    section = page[page.index('id="slices"') :]
    for s, label in enumerate(tree["slices/slice"].values):
        row = section[section.index(f"{label}, output 1") :].split("</tr>")[0]
        for name in ("n", "correlation", f"{method}_sum", f"{method}_share"):
            value = float(tree[f"slices/{name}"][s, 1])
            assert (f"{value:.0f}" if name == "n" else f"{value:.4f}") in row
    between = float(tree[f"x/{method}_between"][1].sum())
    assert f"1: {between:.4f}" in section or f"1: {between:.2e}" in section
    assert "sum of" in "".join(str(column.header) for column in summary_table(tree).columns)
    assert 'id="completeness"' in page
    assert "need not sum" not in page


def test_naive_statistics_of_inputs_far_from_zero() -> None:
    """Inputs of deviation 1 about 1e6, in float64: correlations and t-tests keep their digits, on any number of
    folds."""
    model, x, y = problem()
    tree = run(model, (x + 1e6, y), method="naive_correlation", statistics=["pearson", "ttest"], slices=SITE)
    far = (x + 1e6).numpy()
    a = np.broadcast_to(far[:, None], (N, 2, 3))
    close(
        tree["x/naive_correlation"], [[np.corrcoef(far[:, i], y[:, k])[0, 1] for i in range(3)] for k in (0, 1)], 1e-9
    )
    low, high = (TTest().thresholds(y.numpy())[row] for row in (0, 1))
    close(tree["x/naive_ttest"], statistics.t_test(a, y.numpy() <= low, y.numpy() >= high)[1], 1e-6)
    rows = SITE == "east"
    close(tree["slices/x/naive_correlation"][0], statistics.pearson(a[rows], y.numpy()[rows]), 1e-9)


def test_shapley_values_need_no_gradient() -> None:
    """A model that detaches its input: IGC refuses it, BSC is right."""
    x, y = torch.randn(N, 3).double(), torch.randn(N, 1).double()
    w = torch.tensor([1.0, -2.0, 0.5]).double()
    model = models.Function(lambda x: (x.detach() @ w)[:, None])
    tree = run(model, (x, y), method="bsc")
    r = (x @ w)[:, None].numpy()
    close(tree["x/bsc"], statistics.igc((x * w)[:, None].numpy(), y.numpy(), r))
