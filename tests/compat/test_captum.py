"""Captum's Integrated Gradients by our engine: Captum itself, a literal twin, and the cases of acceptance.md, sections
2 and 3."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import relu

import igc_dist
from igc_dist.baselines import Constant, Zeros
from igc_dist.compat.captum import RULES, IntegratedGradients
from igc_dist.config import from_config
from igc_dist.demo import digits_cnn
from igc_dist.records import ConfigError, ModelError
from tests import models
from tests.config.test_conf import composed
from tests.oracles import attributions as oracle

N = 5
RIGHT = sorted(set(RULES) - {"riemann_trapezoid"})
"""Captum's methods but the one whose weights do not sum to 1."""


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.from_numpy(np.random.default_rng(seed).standard_normal(shape))


def rows(*values: list[float]) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def close(found: Any, expected: Any, tolerance: float = 1e-9) -> None:
    np.testing.assert_allclose(np.asarray(found), np.asarray(expected), rtol=0, atol=tolerance)


@pytest.fixture(scope="module")
def peer() -> Any:
    """Captum's class (extra `bench`)."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return pytest.importorskip("captum.attr").IntegratedGradients


class Grid(nn.Module):
    """ML with outputs (n, 2, 2, 2), as in Captum's tests."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = models.ML()

    def forward(self, x: Tensor) -> Tensor:
        y = self.inner(x)
        s = torch.stack([y, 2 * y], 2)
        return torch.stack([s, 4 * s], 3)


# -- Captum itself -----------------------------------------------------------------------------------------------------

TARGETS: dict[str, tuple[Callable[[], nn.Module], Any]] = {
    "int": (models.MODELS["gelu"], 1),
    "tensor of one": (models.MODELS["gelu"], torch.tensor([1])),
    "list": (models.MODELS["gelu"], [0, 1, 1, 0, 1]),
    "tensor": (models.MODELS["gelu"], torch.tensor([0, 1, 1, 0, 1])),
    "tuple": (Grid, (1, 0, 1)),
    "list of tuples": (Grid, [(0, 0, 1), (1, 0, 1), (1, 1, 1), (0, 1, 0), (1, 0, 0)]),
    "none of (n,)": (models.CU, None),
    "none of (n, 1)": (lambda: models.Function(lambda x: (x**3).sum(1, keepdim=True)), None),
}


@pytest.mark.parametrize("method", RIGHT)
@pytest.mark.parametrize("name", models.MODELS)
def test_equals_captum(peer: Any, name: str, method: str) -> None:
    """To 1e-6, as Captum rounds weights to float32; times x - x0 and not, with what the sums leave open."""
    model, x, x0 = models.MODELS[name](), random(N, 3), random(N, 3, seed=1)
    settings = {"target": [0, 1, 1, 0, 1], "n_steps": 12, "method": method, "return_convergence_delta": True}
    for multiply in (True, False):
        found, theirs = (
            kind(model, multiply_by_inputs=multiply).attribute(x, x0, **settings)
            for kind in (IntegratedGradients, peer)
        )
        for one, two in zip(found, theirs, strict=True):
            assert (one.shape, one.dtype) == (two.shape, two.dtype)
            close(one, two.detach(), 1e-6)


@pytest.mark.parametrize("kind", TARGETS)
def test_targets_are_captums(peer: Any, kind: str) -> None:
    """An index for all, one for each sample, of outputs of one and of several dimensions, and none where there is one
    output."""
    make, target = TARGETS[kind]
    model, x = make(), random(N, 3)
    found, delta = IntegratedGradients(model).attribute(x, target=target, return_convergence_delta=True)
    theirs, error = peer(model).attribute(x, target=target, return_convergence_delta=True)
    close(found, theirs, 2e-6)
    close(delta, error, 2e-6)


def test_all_nodes_of_a_shared_path_case_43(peer: Any) -> None:
    """internal_batch_size is for memory only; Captum gives the same, and warns as we do where it is less than the
    samples."""
    x = rows([1.5, 2.0, 1.3], [0.5, 0.1, 2.3], [1.5, 2.0, 1.3])
    ig, settings = IntegratedGradients(models.ML()), {"target": 0, "n_steps": 100, "method": "riemann_middle"}
    whole = ig.attribute(x, **settings)
    close(whole, 3 * x)  # case 29
    close(ig.attribute(x, **{**settings, "target": 1}), 3 * x)  # case 30
    for size in (10, 20, 1000):
        close(ig.attribute(x, internal_batch_size=size, **settings), whole, 1e-12)
        close(peer(models.ML()).attribute(x, internal_batch_size=size, **settings), whole, 1e-6)
    with pytest.warns(UserWarning, match="internal_batch_size=1 is less than the 3 samples"):
        close(ig.attribute(x, internal_batch_size=1, **settings), whole, 1e-12)


def test_passes_are_no_larger() -> None:
    """n_steps rows per sample in one pass, or so many as internal_batch_size allows."""
    for size, expected in ((None, [20]), (10, [10, 10]), (14, [10, 10]), (16, [15, 5])):
        seen: list[int] = []
        function = lambda x: seen.append(len(x)) or x.sum(1)  # type: ignore[func-returns-value]  # noqa: E731, B023
        IntegratedGradients(function).attribute(random(N, 3), n_steps=4, internal_batch_size=size)
        assert seen == expected


def test_the_experiments_are_the_peers_defaults(peer: Any) -> None:
    """captum_ig: the maps of Captum's defaults, for all outputs of the demo; xplique_ig: 50 points of the true
    trapezoid."""
    built = from_config(composed("experiment=captum_ig"), None)
    assert (built.method, built.samples, built.baseline, built.attributor.quadrature.name) == (
        "ig",
        True,
        Zeros(),
        "gauss_legendre-50",
    )
    net, x = digits_cnn(), torch.rand(2, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    tree = igc_dist.attribute(
        net, (x, torch.tensor([1, 2])), method="ig", quadrature=built.attributor.quadrature, baseline=built.baseline
    )
    theirs = np.stack([peer(net).attribute(x, target=k).detach().numpy() for k in range(10)], 1)
    close(tree["samples/x/attribution"], theirs, 1e-5)
    other = from_config(composed("experiment=xplique_ig"), None)
    assert (other.method, other.samples, other.baseline) == ("ig", True, Constant(0.0))
    nodes, weights = other.attributor.quadrature.nodes, other.attributor.quadrature.weights
    close(nodes, np.linspace(0, 1, 50), 1e-15)
    close(weights, np.trapezoid(np.eye(50), dx=1 / 49), 1e-15)


# -- without Captum ----------------------------------------------------------------------------------------------------


def literal_rule(method: str, n: int) -> tuple[list[float], list[float]]:
    """Nodes and weights as the literature writes them."""
    if method == "gausslegendre":
        t, w = np.polynomial.legendre.leggauss(n)
        return ((1 + t) / 2).tolist(), (w / 2).tolist()
    if method == "riemann_trapezoid":
        return [k / (n - 1) for k in range(n)], [(0.5 if k in (0, n - 1) else 1.0) / (n - 1) for k in range(n)]
    offset = {"riemann_left": 0.0, "riemann_middle": 0.5, "riemann_right": 1.0}[method]
    return [(k + offset) / n for k in range(n)], [1 / n] * n


@pytest.mark.parametrize("multiply", [True, False], ids=["times", "not times"])
@pytest.mark.parametrize("method", RULES)
@pytest.mark.parametrize("name", models.MODELS)
def test_equals_the_literal_twin(name: str, method: str, multiply: bool) -> None:
    """To 1e-12 in float64, for all methods, Captum's trapezoid with weights that sum to 1."""
    model, x, x0 = models.MODELS[name](), random(N, 3), random(N, 3, seed=1)
    found = IntegratedGradients(model, multiply_by_inputs=multiply).attribute(x, x0, target=1, n_steps=7, method=method)
    nodes, weights = literal_rule(method, 7)
    starts = [[(row,)] for row in x0.numpy()]
    expected = oracle.integrated_gradients(model, (x.numpy(),), starts, [1], nodes, weights)[0][:, 0]
    close(found, expected if multiply else expected / (x - x0).numpy(), 1e-12)


@pytest.mark.parametrize("n", [2, 4, 10, 50])
def test_the_trapezoid_is_whole_cases_5_6_13_14(n: int) -> None:
    """A linear model gets its weights, where Captum's gets ``(n - 1) / n`` of them; cubes get the factor of the true
    rule."""
    (linear, delta) = IntegratedGradients(models.L123()).attribute(
        rows([1, 1, 1]), n_steps=n, method="riemann_trapezoid", return_convergence_delta=True
    )
    close(linear, [[1, 2, 3]], 1e-12)
    close(delta, [0], 1e-12)  # case 17
    cubes = IntegratedGradients(models.CU()).attribute(rows([1, 2, -3]), n_steps=n, method="riemann_trapezoid")
    close(cubes, (1 + 1 / (2 * (n - 1) ** 2)) * rows([1, 8, -27]), 1e-12)


def test_two_networks_of_one_function_cases_18_to_22() -> None:
    """Also the average gradient, which leaves x - x0 out, and times x - x0 gives the rest (case 47)."""
    x, settings = (rows([3.0]), rows([1.0])), {"n_steps": 500, "method": "riemann_right"}
    for model in (models.M2(), models.M3()):
        (a, b), delta = IntegratedGradients(model).attribute(x, return_convergence_delta=True, **settings)
        close([a.item(), b.item(), delta.item()], [1.5, -0.5, 0], 1e-12)
    a, b = IntegratedGradients(models.M2(), multiply_by_inputs=False).attribute(x, **settings)
    close([a.item(), b.item()], [0.5, -0.5], 1e-12)
    a, b = IntegratedGradients(models.M2()).attribute(x, n_steps=50, method="riemann_left")
    close([a.item(), b.item()], [1.44, -0.48], 1e-12)


def test_kinks_cases_33_to_36() -> None:
    """Every rule misses the kink of ML by its own known amount, and delta says by how much; Captum's sign."""
    ig, x = IntegratedGradients(models.ML()), rows([0, 100, 0])
    for n, method, expected, tolerance in (
        (50, "riemann_middle", 390.0, 1e-9), (50, "gausslegendre", 390.179, 5e-4),
        (500, "gausslegendre", 390.051, 5e-4),
        (50, "riemann_left", 388.0, 1e-9), (500, "riemann_left", 389.8, 1e-9),
    ):  # fmt: skip
        a, delta = ig.attribute(x, target=0, n_steps=n, method=method, return_convergence_delta=True)
        close(a, [[0, expected, 0]], tolerance)
        close(delta, [expected - 390], tolerance)
        close(ig.compute_convergence_delta(a, None, x, target=0), delta, 0)  # case 46


def test_more_arguments_cases_32_37_38() -> None:
    """What is no input of the attribution goes along: tensors of as many rows as there are samples, and anything else
    as it is."""

    def m4(x1: Tensor, x2: Tensor, c: Tensor, k: int) -> Tensor:
        assert c.shape == (len(x1), 3) or c.shape == (3,)
        return relu(relu(x1 - 1) - relu(x2) / c)[:, k]

    x, c = (rows([1.5, 2.0, 34.3]), rows([3.0, 3.5, 23.2])), rows([1, 2, 3])
    for n, expected in ((50, (33.0217, -7.44513)), (500, (33.0074, -7.44190))):
        for given in (c, c[0]):
            a1, a2 = IntegratedGradients(m4).attribute(x, additional_forward_args=(given, 2), n_steps=n)
            close([a1[0], a2[0]], [[0, 0, expected[0]], [0, 0, expected[1]]], 5e-5)

    def m5(x1: Tensor, x2: Tensor, c: list[float], k: int) -> Tensor:
        return relu(c[0] * relu(x1 - 1) - c[1] * relu(x2))[:, k]

    a1, a2 = IntegratedGradients(m5).attribute(
        (rows([3.4, 1.2, 2.0]), rows([2.3, 1.2, 0.3])), None, None, ([2, 3], 2), 500
    )
    close([a1[0], a2[0]], [[0, 0, 1.418491], [0, 0, -0.319161]], 5e-6)

    x1, x2 = rows([0.5, 0, 0.7], [1.5, 2.1, 1.1]), rows([0.5, 0.6, 2.1], [1.2, 2.1, 0.2])
    for found, expected in zip(
        IntegratedGradients(models.ML()).attribute((x1, x2), target=0), (3 * x1, 3 * x2), strict=True
    ):
        close(found, expected)
    # each sample has its own row of them, however many steps a pass has
    for size in (None, 2, 6):
        product = IntegratedGradients(lambda x, more: (x * more) ** 2).attribute(
            x1, None, [0, 2], x2, 4, internal_batch_size=size
        )
        close(product, (x1 * x2) ** 2 * rows([1, 0, 0], [0, 0, 1]))


def test_other_models_cases_39_to_42() -> None:
    a1, a2 = IntegratedGradients(models.RL()).attribute((rows([-10, 1, -5]), rows([3, 3, 1])))
    close([a1[0], a2[0]], [[0, 0, 0], [6, 9, 0]])
    found, delta = IntegratedGradients(models.TD()).attribute(
        (rows([-1.0]), rows([-2.0])), return_convergence_delta=True
    )
    close([a.item() for a in found], [-1.523188, -0.186059], 5e-7)
    close(delta, [[0]][0], 2e-7)
    x = torch.arange(20, dtype=torch.float64)[None] / 100
    a = IntegratedGradients(models.SG()).attribute(x)
    close(a.sum(), 0.4999251, 5e-7)
    close(a[0] / a[0, -1], x[0] / 0.19)


def test_baselines_are_broadcast_case_48() -> None:
    """None is zeros; a number fills; one row serves all; each sample may have its own; a tuple has one of these per
    input."""
    model, (x, image) = models.TwoInputs(), (random(N, 3), random(N, 2, 2, seed=1))
    ig, own = IntegratedGradients(model), random(1, 3, seed=2)

    def found(*starts: Any) -> Any:
        return ig.attribute((x, image), starts or None, target=1, n_steps=4)

    def same(one: Any, two: Any) -> None:
        assert isinstance(one, tuple)
        assert isinstance(two, tuple)
        for a, b in zip(one, two, strict=True):
            assert torch.equal(a, b)

    same(found(), found(0, 0.0))
    same(found(own, 0.5), found(own.expand(N, 3), torch.full((N, 2, 2), 0.5)))
    one_by_one = [ig.attribute((x[k : k + 1], image[k : k + 1]), (own, 0.5), target=1, n_steps=4) for k in range(N)]
    same(found(own, 0.5), tuple(torch.cat(rows) for rows in zip(*one_by_one, strict=True)))
    alone = IntegratedGradients(lambda z: model(z, image[:1].expand(len(z), 2, 2)))
    assert torch.equal(alone.attribute(x, own, 1), alone.attribute(x, (own,), 1))


@pytest.mark.parametrize("shape", [(N,), (N, 3), (N, 2, 2, 2)], ids=str)
def test_inputs_of_any_number_of_dimensions(shape: tuple[int, ...]) -> None:
    x = random(*shape)
    found, delta = IntegratedGradients(lambda z: (z**2).reshape(len(z), -1).sum(1)).attribute(
        x, return_convergence_delta=True
    )
    close(found, x**2, 1e-12)
    close(delta, np.zeros(N), 1e-12)


def test_a_slice_of_one_index_is_that_index() -> None:
    """In a tuple for all samples, and in one for each; negative bounds too."""
    ig, x = IntegratedGradients(Grid()), random(N, 3)
    expected = ig.attribute(x, target=(1, 0, 1))
    for target in ((slice(1, 2), 0, slice(-1, None)), [(1, slice(0, 1), 1)] * N):
        assert torch.equal(ig.attribute(x, target=target), expected)
    with pytest.raises(ConfigError, match=r"slice\(None, None, None\) leaves 2 of 2 numbers per sample, leave one"):
        ig.attribute(x, target=(1, 0, slice(None)))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_half_precision_models(dtype: torch.dtype) -> None:
    """A module, and a function of inputs in half precision: points in their type, sums in float32, results in that of
    the inputs."""
    torch.manual_seed(0)
    net, x = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 3)), torch.randn(N, 4)
    expected = IntegratedGradients(net).attribute(x, target=1)
    half = copy.deepcopy(net).to(dtype)
    for function, inputs in ((half, x), (half, x.to(dtype)), (lambda z: half(z), x.to(dtype))):
        found, delta = IntegratedGradients(function).attribute(inputs, target=1, return_convergence_delta=True)
        assert (found.dtype, next(half.parameters()).dtype) == (inputs.dtype, dtype)
        close(found.float(), expected, 0.02)
        close(delta.float(), np.zeros(N), 0.02)


def test_one_squeezed_row() -> None:
    found, delta = IntegratedGradients(lambda z: (z**2).sum(1).squeeze()).attribute(
        rows([1, 2]), return_convergence_delta=True
    )
    close(found, [[1, 4]], 1e-12)
    close(delta, [0], 1e-12)


def test_it_answers_what_captums_classes_ask(peer: Any) -> None:
    """Every public name of Captum's class is there, and the method under what would log its calls."""
    ig = IntegratedGradients(models.linear())
    missing = {name for name in dir(peer) if not name.startswith("_")} - set(dir(ig))
    assert not missing
    theirs = peer(models.linear())
    assert (ig.has_convergence_delta(), ig.get_name()) == (theirs.has_convergence_delta(), theirs.get_name())
    with pytest.raises(NotImplementedError, match="call attribute"):
        ig.attribute_future(random(N, 3))
    x = random(N, 3)
    assert torch.equal(ig.attribute.__wrapped__(ig, x, target=0), ig.attribute(x, target=0))


def test_images_sum_to_the_rise() -> None:
    """(n, 1, 6, 6) in, (n, 1, 6, 6) out; case 49: completeness."""
    x, x0 = random(4, 1, 6, 6), random(1, 1, 6, 6, seed=3)
    found, delta = IntegratedGradients(models.conv()).attribute(x, x0, [0, 1, 1, 0], return_convergence_delta=True)
    assert found.shape == x.shape
    close(delta, np.zeros(4), 1e-12)
    rise = models.conv()(x) - models.conv()(x0)
    close(found.flatten(1).sum(1), rise[range(4), [0, 1, 1, 0]].detach(), 1e-12)


def test_a_sample_on_its_baseline_is_zero() -> None:
    x = random(3, 3)
    found, delta = IntegratedGradients(models.MODELS["relu"]()).attribute(
        x, x.clone(), 0, return_convergence_delta=True
    )
    assert not found.any()
    assert not delta.any()


class Noisy(nn.Module):
    """A dropout, a batch norm with running statistics, and a method beside the forward."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.drop, self.last = nn.BatchNorm1d(3), nn.Dropout(0.5), nn.Linear(3, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.drop(self.norm(x)))

    def twice(self, x: Tensor) -> Tensor:
        return 2 * self(x)


def test_the_module_is_lent() -> None:
    """It runs in eval mode, also through one of its methods, and comes back as it was, training, with its statistics;
    float32 stays."""
    model = Noisy().train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    x = random(N, 3).float().requires_grad_()
    found = IntegratedGradients(model).attribute(x, target=0)
    assert (found.dtype, found.requires_grad) == (torch.float32, False)
    expected = x * (model.last.weight[0] / (1 + model.norm.eps) ** 0.5)
    close(found, expected.detach(), 1e-6)
    with torch.no_grad():
        assert torch.equal(IntegratedGradients(model.twice).attribute(x, target=0), 2 * found)
    assert all(m.training for m in model.modules())
    assert all(p.requires_grad and p.grad is None for p in model.parameters())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    with torch.inference_mode():
        assert torch.equal(IntegratedGradients(model).attribute(x, target=0), found)


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"method": "simpson"}, "method='simpson' is unknown: choose one of gausslegendre, riemann_left"),
        ({"n_steps": 0}, "n_steps=0 .*at least 1"),
        ({"n_steps": 1, "method": "riemann_trapezoid"}, "n_steps=1 .*at least 2"),
        ({"target": None}, r"target=None leaves \(2,\) numbers per sample of an output of shape \(250, 2\)"),
        ({"target": 2}, r"target=2 does not fit an output of shape \(250, 2\)"),
        ({"target": (0, 1)}, r"target=\(0, 1\) does not fit"),
        ({"target": [0, 1]}, "target has 2 entries for 5 samples"),
        ({"target": torch.tensor([0, 1])}, "target has 2 entries for 5 samples"),
        ({"target": [0, 1, (0,), (0, 1), 1]}, "give None, an int, a tuple of ints"),
        ({"target": "cat"}, "target='cat': give None, an int"),
        ({"target": True}, "target=True: give None, an int"),
        ({"target": torch.tensor([True])}, "target=True: give None, an int"),
        ({"target": [True, 0, 1, 0, 1]}, "give None, an int"),
        ({"target": (0, slice(0, 1))}, "2 indices after the batch are too many"),
        ({"baselines": "zeros"}, "a baseline holds text"),
        ({"baselines": torch.zeros(2, 3)}, r"shape \(2, 3\) for an input of shape \(5, 3\)"),
        ({"baselines": torch.zeros(3)}, r"shape \(3,\) for an input of shape \(5, 3\)"),
        ({"baselines": (0.0, 0.0)}, "2 baselines for 1 inputs"),
    ],
)
def test_refused(settings: dict[str, Any], text: str) -> None:
    with pytest.raises(ConfigError, match=text):
        IntegratedGradients(models.linear()).attribute(random(N, 3), **{"target": 0, **settings})


@pytest.mark.parametrize(
    ("inputs", "text"),
    [
        ([torch.ones(2, 3)], r"inputs is of \['list'\]: give a tensor \(n, ...\), or a tuple of them"),
        (np.ones((2, 3)), "ndarray"),
        ((torch.ones(2, 3), [1.0, 2.0]), r"\[\(2, 3\), 'list'\]"),
        ((), r"inputs is of \[\]"),
        (torch.tensor(1.0), r"inputs is of \[\(\)\]"),
        ((torch.ones(2, 3), torch.ones(3, 3)), "the same number of samples"),
        (torch.ones(2, 3, dtype=torch.complex64), "inputs has complex numbers"),
    ],
    ids=["list", "array", "list in a tuple", "none", "a number", "other rows", "complex"],
)
def test_inputs_that_are_no_tensors_of_samples(inputs: Any, text: str) -> None:
    ig = IntegratedGradients(lambda *xs: xs[0].sum(1))
    with pytest.raises(ConfigError, match=text):
        ig.attribute(inputs)
    with pytest.raises(ConfigError, match="end_point" + text.removeprefix("inputs") if "inputs" in text else text):
        ig.compute_convergence_delta(torch.ones(2, 3), None, inputs)


def test_attributions_of_other_inputs_are_refused() -> None:
    ig, x = IntegratedGradients(lambda z: z.sum(1)), random(N, 3)
    for maps in (x[:2], (x, x), x[:, :2]):
        with pytest.raises(ConfigError, match="give the attributions of these inputs"):
            ig.compute_convergence_delta(maps, None, x)
    with pytest.raises(ConfigError, match="attributions is of"):
        ig.compute_convergence_delta([x], None, x)


@pytest.mark.parametrize(
    ("function", "text"),
    [
        (lambda x: {"y": x}, "forward_func returns a dict"),
        (lambda x: torch.complex(x, x).sum(1), "forward_func returns complex numbers.*z.abs"),
        (lambda x: x.detach().sum(1), "has no gradient"),
        (lambda x: (x**2).sum(), r"shape \(\) for 250 rows: let it return a result for each row"),
        (lambda x: x[1:].sum(1), r"shape \(249,\) for 250 rows"),
    ],
    ids=["dict", "complex", "detached", "one number", "fewer rows"],
)
def test_a_function_that_cannot_be_explained_is_refused(function: Callable[[Tensor], Any], text: str) -> None:
    with pytest.raises((ConfigError, ModelError), match=text):
        IntegratedGradients(function).attribute(random(N, 3))


def test_only_the_function_draws() -> None:
    """The class leaves torch's global generator alone; a function that draws does so anew at each call."""
    layer = nn.Linear(3, 1)
    before = torch.get_rng_state()
    IntegratedGradients(layer).attribute(torch.ones(2, 3), target=0, return_convergence_delta=True)
    assert torch.equal(torch.get_rng_state(), before)
    drawn: list[float] = []

    def drawing(x: Tensor) -> Tensor:
        drawn.append(float(torch.rand(())))
        return layer(x)[:, 0]

    for _ in range(2):
        IntegratedGradients(drawing).attribute(torch.ones(1, 3))
    assert len({*drawn}) == len(drawn) > 1
