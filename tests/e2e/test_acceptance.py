"""The acceptance cases, by number: facts measured from peers, and closed forms that the engine must hit where a peer
does not."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import igc_dist
from igc_dist.paths import RULES, rule
from igc_dist.records import ConfigError
from tests import models
from tests.models import D4, Y4

GL = "gauss_legendre"


def close(found: Any, expected: Any, tolerance: float = 1e-12) -> None:
    np.testing.assert_allclose(np.asarray(found), np.asarray(expected), rtol=0, atol=tolerance)


def explained(
    model: nn.Module, *x: Any, k: int = 0, method: str = "ig", **settings: Any
) -> tuple[list[np.ndarray], np.ndarray]:
    """Per-sample attributions to output k, one array (N, *P) per input, and the completeness residuals (N,)."""
    xs = tuple(torch.as_tensor(value, dtype=torch.float64) for value in x)
    with torch.no_grad():
        y = torch.zeros_like(model(*xs))
    tree = igc_dist.attribute(model, (xs, y), method=method, target=k, n_folds=1, **settings)
    names = [f"samples/{name}/attribution" for name in ("x", "x1", "x2")[: len(xs)]]
    return [tree[name].values[:, 0] for name in names], tree["samples/delta"].values[:, 0]


RULE_CASES = {
    1: ("left", 2, [0, 0.5], [0.5, 0.5]),
    2: ("left", 4, [0, 0.25, 0.5, 0.75], [0.25] * 4),
    3: ("right", 3, [1 / 3, 2 / 3, 1], [1 / 3] * 3),
    4: ("midpoint", 4, [0.125, 0.375, 0.625, 0.875], [0.25] * 4),
    5: ("trapezoid", 3, [0, 0.5, 1], [0.25, 0.5, 0.25]),
    6: ("trapezoid", 4, [0, 1 / 3, 2 / 3, 1], [1 / 6, 1 / 3, 1 / 3, 1 / 6]),
    7: (GL, 2, [0.5 - 3**-0.5 / 2, 0.5 + 3**-0.5 / 2], [0.5, 0.5]),
    8: (GL, 3, [0.5 - 0.6**0.5 / 2, 0.5, 0.5 + 0.6**0.5 / 2], [5 / 18, 4 / 9, 5 / 18]),
    9: (GL, 4, [0.069432, 0.330009, 0.669991, 0.930568], [0.173927, 0.326073, 0.326073, 0.173927]),
}
CAPTUM_TRAPEZOID = {5: [1 / 6, 1 / 3, 1 / 6], 6: [1 / 8, 1 / 4, 1 / 4, 1 / 8]}


@pytest.mark.parametrize("case", RULE_CASES, ids=lambda case: f"case-{case}")
def test_nodes_and_weights(case: int) -> None:
    """Cases 1-9: nodes and weights of each rule (9 to six digits); 5 and 6 differ from captum's trapezoid, whose
    weights sum to 1 - 1/n."""
    name, n, nodes, weights = RULE_CASES[case]
    found = rule(name, n)
    close(found.nodes, nodes, 5e-7 if case == 9 else 1e-15)
    close(found.weights, weights, 5e-7 if case == 9 else 1e-15)
    if case in CAPTUM_TRAPEZOID:
        assert np.abs(found.weights - CAPTUM_TRAPEZOID[case]).max() > 0.08


FACTORS = {
    10: ("left", 0.65625, 0.855),
    11: ("right", 1.40625, 1.155),
    12: ("midpoint", 0.984375, 0.9975),
    14: ("trapezoid", 1 + 1 / 18, 1 + 1 / 162),
    16: (GL, 1.0, 1.0),
}


@pytest.mark.parametrize("case", FACTORS, ids=lambda case: f"case-{case}")
def test_sum_of_cubes(case: int) -> None:
    """Cases 10-12, 14, 16: the factor on the exact answer [1, 8, -27] that each rule gives, at 4 and 10 gradient
    evaluations."""
    name, *factors = FACTORS[case]
    for n, factor in zip((4, 10), factors, strict=True):
        (a,), _ = explained(models.CU(), [[1.0, 2, -3]], quadrature=name, n_steps=n)
        close(a[0], factor * np.array([1, 8, -27]), 1e-12)


def test_trapezoids_of_peers_cases_13_15() -> None:
    """Cases 13 and 15: captum's short weights and PAIR's equal weights are refused as rules or differ, ours is the true
    trapezoid."""
    (ours,), _ = explained(models.CU(), [[1.0, 2, -3]], quadrature="trapezoid", n_steps=4)
    assert abs(ours[0, 0] - 0.791667) > 0.2
    with pytest.raises(ConfigError, match="sum to 1"):
        igc_dist.Quadrature("captum", np.linspace(0, 1, 4), np.array(CAPTUM_TRAPEZOID[6]), 1)
    pair = igc_dist.Quadrature("pair", np.linspace(0, 1, 4), np.full(4, 0.25), 0)
    (a,), _ = explained(models.CU(), [[1.0, 2, -3]], quadrature=pair)  # a legal rule, only a poor one
    close(a[0], (1 + 1 / 6) * np.array([1, 8, -27]), 1e-12)
    assert abs(ours[0, 0] - a[0, 0]) > 0.1


@pytest.mark.parametrize("name", RULES)
def test_sum_of_squares_and_linear_cases_10_to_16(name: str) -> None:
    """Section 2: exact on squares but for the one-sided rules, and exact on a linear model for every rule from its
    minimum."""
    n = 9
    factor = {"left": (n - 1) / n, "right": (n + 1) / n}.get(name, 1.0)
    (a,), _ = explained(models.SQ(), [[1.0, 2, -3]], quadrature=name, n_steps=n)
    close(a[0], factor * np.array([1, 4, 9]), 1e-12)
    for steps in ({"trapezoid": 2, "simpson": 3}.get(name, 1), 9, 51):
        (a,), _ = explained(models.L123(), [[1.0, 1, 1]], quadrature=name, n_steps=steps)
        close(a[0], [1, 2, 3], 1e-12)


def test_float64_floor_case_17() -> None:
    """Case 17: in float64 the residual of a linear model is below 1e-12; captum's float32 weights leave -1.34e-7."""
    (a,), delta = explained(models.L123(), [[1.0, 1, 1]], quadrature="midpoint", n_steps=50)
    close([*a[0], delta[0]], [1, 2, 3, 0], 1e-12)


@pytest.mark.parametrize("model", [models.M2, models.M3], ids=["case-18", "case-19"])
def test_implementation_invariance(model: Any) -> None:
    """Cases 18-20: two networks of the same function have the same attributions, 1.5 and -0.5."""
    for name, n in (("midpoint", 500), ("right", 500), (GL, 50), (GL, 500)):
        (a1, a2), delta = explained(model(), [[3.0]], [[1.0]], quadrature=name, n_steps=n)
        close([a1[0, 0], a2[0, 0], delta[0]], [1.5, -0.5, 0])
    # case 22: divided by the input, as peers with multiply_by_inputs=False
    close([a1[0, 0] / 3, a2[0, 0] / 1], [0.5, -0.5])


def test_left_rule_at_a_kink_case_21() -> None:
    """Case 21: the left rule misses one node of the half where the gradient lives."""
    for n, expected in ((50, (1.44, -0.48)), (500, (1.494, -0.498))):
        (a1, a2), _ = explained(models.M2(), [[3.0]], [[1.0]], quadrature="left", n_steps=n)
        close([a1[0, 0], a2[0, 0]], expected)


def test_one_scalar_cases_23_24_25() -> None:
    """Cases 23-25: one scalar input, a kink at the end of the path, an input on the baseline, a baseline beside 0."""
    (a,), delta = explained(models.M1(), [[1.0]], quadrature=GL, n_steps=500)
    close([a[0, 0], delta[0]], [1, 0])
    (a,), _ = explained(models.M1(), [[1.0]], quadrature="right", n_steps=500)
    close(a[0, 0], 0.998)
    (a,), _ = explained(models.M1(), [[0.0]])
    assert a[0, 0] == 0
    (a,), _ = explained(models.M1(), [[-1.0]], baseline=1e-5, quadrature=GL, n_steps=50)
    close(a[0, 0], -1.00001)


def test_two_vectors_cases_27_28() -> None:
    """Cases 27-28: a kink between nodes: each rule misses completeness by its own known amount, and says so in
    delta."""
    x = [[1.5, 2.0, 34.3]], [[3.0, 3.5, 23.2]]
    for name, expected, tolerance in (
        (GL, [0.363107, 0.635438, -0.00145], 6e-6),
        ("midpoint", [0.364, 0.637, 0.001], 1e-12),
    ):
        (a1, a2), delta = explained(models.M6(), *x, quadrature=name, n_steps=500)
        close([a1[0, 1], a2[0, 1], delta[0]], expected, tolerance)
        assert not np.stack([a1, a2])[..., [0, 2]].any()
    (a1, a2), _ = explained(models.M6(), *x, quadrature="left", n_steps=500)
    close([a1[0, 1], a2[0, 1]], [0.364, 0.637])


@pytest.mark.parametrize("k", [0, 1], ids=["case-29", "case-30"])
def test_network_where_one_unit_never_fires(k: int) -> None:
    """Cases 29-30: 3 x exactly, for both outputs and any correct rule."""
    x = [[1.5, 2.0, 1.3], [0.5, 0.1, 2.3], [1.5, 2.0, 1.3]]
    for name in RULES:
        (a,), _ = explained(models.ML(), x, k=k, quadrature=name, n_steps=5)
        close(a, 3 * np.array(x))


def test_network_of_two_inputs_case_32() -> None:
    """Case 32: two inputs that are added have 3 x each."""
    x1, x2 = [[0.5, 0, 0.7], [1.5, 2.1, 1.1]], [[0.5, 0.6, 2.1], [1.2, 2.1, 0.2]]
    (a1, a2), _ = explained(models.ML(), x1, x2, n_steps=4)
    close(a1, 3 * np.array(x1))
    close(a2, 3 * np.array(x2))


KINK = {
    33: ("midpoint", 10, 390.0, 1e-9),
    34: ("midpoint", 50, 390.0, 1e-9),
    340: ("midpoint", 500, 390.0, 1e-9),
    35: (GL, 50, 390.179, 6e-4),
    350: (GL, 500, 390.051, 6e-4),
    36: ("left", 50, 388.0, 1e-9),
    360: ("left", 500, 389.8, 1e-9),
}


@pytest.mark.parametrize("case", KINK, ids=lambda case: f"case-{case if case < 100 else case // 10}-{KINK[case][1]}")
def test_network_with_a_kink(case: int) -> None:
    """Cases 33-36: a hidden unit that fires from a tenth of the path; Gauss-Legendre is worse here than the midpoint
    rule."""
    name, n, expected, tolerance = KINK[case]
    (a,), delta = explained(models.ML(), [[0.0, 100, 0]], quadrature=name, n_steps=n)
    close([*a[0], delta[0]], [0, expected, 0, expected - 390], tolerance)


def test_separate_units_cases_39_40_41_42() -> None:
    """Cases 39-42: a dead unit, a kink, saturation by tanh and by a sigmoid."""
    (a1, a2), delta = explained(models.RL(), [[-10.0, 1, -5]], [[3.0, 3, 1]], n_steps=3)
    close(np.concatenate([a1[0], a2[0], delta]), [0, 0, 0, 6, 9, 0, 0])
    for n, expected in ((50, 1.04512), (500, 1.00453)):
        (a1, a2), _ = explained(models.RD(), [[1.0]], [[2.0]], quadrature=GL, n_steps=n)
        close([a1[0, 0], a2[0, 0]], [2, expected], 6e-6)
    (a1, a2), _ = explained(models.RD(), [[1.0]], [[2.0]], n_steps=100)
    close([a1[0, 0], a2[0, 0]], [2, 1])  # 25 of 100 nodes lie beyond the kink at 3/4
    (a1, a2), delta = explained(models.TD(), [[-1.0]], [[-2.0]], quadrature=GL, n_steps=50)
    close([a1[0, 0], a2[0, 0], delta[0]], [-1.523188, -0.186059, 0], 1e-6)
    x = np.arange(20)[None] / 100
    (a,), _ = explained(models.SG(), x, quadrature=GL, n_steps=50)
    close([a.sum(), a[0, -1]], [0.4999251, 0.0499925], 1e-7)
    close(a[0] / a.sum(), x[0] / x.sum(), 1e-12)


BASELINES = {
    "zeros": None,
    "ones": torch.ones(3),
    "two-rows": torch.tensor([[1.0, 1, 1], [0, 2, 0]]),
    "all-rows": 4,
    "resampled": igc_dist.baselines.Resampled(4),
}


@pytest.mark.parametrize("baseline", BASELINES)
def test_linear_igc_case_97(baseline: str) -> None:
    """Case 97: IGC of a linear model is ``w_i cov(x_i, y) / (std y std F)``, whatever the baseline and the number of
    steps."""
    for n_steps in (1, 5):
        tree = igc_dist.attribute(models.linear4(), (D4, Y4), baseline=BASELINES[baseline], n_steps=n_steps, n_folds=2)
        close(tree["x/igc"][0], [1.11628086, -0.08586776, -0.08586776], 5e-9)
        close([tree["igc_sum"][0], tree["correlation"][0]], [0.94454534] * 2, 5e-9)


def product(**settings: Any) -> Any:
    """Cases 98 to 101: the nonlinear model on D4."""
    return igc_dist.attribute(
        models.product4(), (D4, Y4), **{"quadrature": "trapezoid", "n_steps": 2, "n_folds": 2, **settings}
    )


def test_nonlinear_igc_case_98() -> None:
    """Case 98: per-sample IG and IGC of a product model; two points of the true trapezoid are exact."""
    tree = product(samples=True)
    close(tree["samples/x/attribution"][:, 0], [[0, 0, 2], [1, 0, 1], [6, 2, 0], [10.5, 1.5, 1]])
    close(tree["x/igc"][0], [0.89509832, 0.14229768, -0.07344397], 5e-9)
    close(tree["igc_sum"][0], 0.96395204, 5e-9)


def test_expected_gradients_case_99() -> None:
    """Case 99: baselines are all four rows; the maps move, their sum does not."""
    for baseline in (4, D4, igc_dist.baselines.Resampled(4)):
        tree = product(baseline=baseline)
        close(tree["x/igc"][0], [0.98690328, 0.05049273, -0.07344397], 5e-9)
        close(tree["igc_sum"][0], 0.96395204, 5e-9)


def test_autocorrelation_case_100() -> None:
    """Case 100: IGaC, which sums to exactly 1."""
    tree = product(method="igac")
    close(tree["x/igac"][0], [0.9100295, 0.16076696, -0.07079646], 5e-9)
    close(tree["igac_sum"][0], 1)


def test_mean_and_deviation_case_101() -> None:
    """Case 101: the standard deviation is a standard deviation; igc 1.1.0 returns the variance under that name."""
    tree = product(method="ig_mean_std")
    variance, found = np.array([17.671875, 0.796875, 0.5]), tree["x/ig_std"].values[0]
    close(tree["x/ig_mean"][0], [4.375, 0.875, 1.0])
    close(found, np.sqrt(variance))
    assert np.abs(found - variance).min() > 0.05


def test_input_output_correlation_case_102() -> None:
    """Case 102: corr(x_i, y); igc 1.1.0 divides by the variance of x where the deviation belongs, which is the value
    listed."""
    identity = models.Function(lambda x: x)
    tree = igc_dist.attribute(
        identity, (D4, Y4[:, None].expand(4, 3)), method="gradient_x_input", statistics=["correlation"], n_folds=2
    )
    # of the identity, gradient times input is x and the prediction is x: Cov(x_i, y) / (std y std x_i)
    found = np.diagonal(tree["x/gradient_x_input_correlation"])
    close(found, np.corrcoef(D4.T, Y4)[3, :3])
    peer = [0.87896042, 0.3380617, -0.6761234]
    close(found / D4.numpy().std(0), peer, 5e-9)
    assert np.abs(found - peer).min() > 0.09


SEVEN = torch.cat([D4, D4[:3]]), torch.cat([Y4, Y4[:3]])


@pytest.mark.parametrize("micro_batch", [1, 2, 3, 4, None])
def test_no_sample_is_dropped_cases_111_118(micro_batch: int | None) -> None:
    """Cases 111 and 118: 7 rows count 7 for any micro-batch and number of folds; igc 1.1.0 uses 4 of them."""
    for n_folds in (1, 3):
        tree = igc_dist.attribute(models.linear4(), SEVEN, n_steps=2, micro_batch=micro_batch, n_folds=n_folds)
        close(tree["x/igc"][0], [1.1738674, -0.12839175, -0.12839175], 5e-8)
        assert tree["n"].values.tolist() == [7]


def test_constant_output_case_112() -> None:
    """Case 112: a constant output has NaN and a flag, without a warning; the output beside it is unharmed."""

    def beside(x: Tensor) -> Tensor:
        return torch.stack([models.linear4()(x), torch.full((len(x),), 3.7, dtype=x.dtype)], 1)

    tree = igc_dist.attribute(models.Function(beside), (D4, Y4[:, None].expand(4, 2)), n_folds=2)
    close(tree["x/igc"][0], [1.11628086, -0.08586776, -0.08586776], 5e-9)
    assert np.isnan(tree["x/igc"].values[1]).all()
    assert tree["constant"].values.tolist() == [0, 2]


def test_cuts_do_not_change_the_numbers_case_117() -> None:
    """Case 117, in one process: a nonlinear model of two outputs gives the same IGC for any cut (ranks only claim the
    pieces)."""
    model = models.mlp(nn.GELU)
    x, y = models.data(model, 7)
    expected = igc_dist.attribute(model, (x, y), baseline=2, n_folds=1)
    for cut in (
        {"n_folds": 3},
        {"n_folds": 7, "output_block": 1},
        {"n_folds": 2, "baseline_block": 1, "micro_batch": 3},
    ):
        found = igc_dist.attribute(model, (x, y), baseline=2, **cut)
        close(found["x/igc"], expected["x/igc"], 1e-12)
        assert found["n"].values.tolist() == [7, 7]
