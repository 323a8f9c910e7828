"""Laws of adapters: each equals its formula by loops, with the right gradient, and is an output like any other."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import igc_dist
from igc_dist import config
from igc_dist.config import from_config
from igc_dist.job import describe
from igc_dist.model import Cosine, Detection, Distance, Probability, Segmentation, Tokens
from igc_dist.model import outputs as adapters
from igc_dist.records import ConfigError, ModelError
from tests import models
from tests.config.test_conf import composed
from tests.oracles import attributions as oracle

MASK = np.array([[1, 0, 0, 1], [1, 1, 0, 0], [0, 0, 0, 1]], dtype=bool)
BOXES, LABELS = [[0.0, 0.0, 2.0, 2.0], [1.0, 1.0, 4.0, 3.0], [8.0, 8.0, 9.0, 9.0]], [1, 0, 2]
REFERENCE = np.array([[1.0, -2.0, 0.5], [0.3, 0.1, 2.0]])


def random(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape)


def found_boxes() -> np.ndarray:
    """Two samples of four proposals: around the objects, one without area, one inside out; objectness, probabilities of
    3 classes."""
    corners = np.array([[0.2, -0.3, 1.9, 1.8], [0.8, 1.1, 3.7, 3.3], [1, 1, 1, 2], [3, 3, 1, 1]], dtype=float)
    scores = np.random.default_rng(1).random((2, 4, 4))
    return np.concatenate([np.stack([corners, corners + 0.25]), scores], axis=2)


def softmax(s: np.ndarray) -> list[list[float]]:
    return [[math.exp(v) / sum(math.exp(w) for w in row) for v in row] for row in s.tolist()]


def segmented(s: np.ndarray, inside: Callable[[int, int, tuple[int, ...]], bool], reduce: str) -> list[list[float]]:
    """Sums over the positions that are inside for a sample and a class."""
    table = []
    for n in range(s.shape[0]):
        table.append([])
        for c in range(s.shape[1]):
            values = [s[(n, c, *at)] for at in np.ndindex(s.shape[2:]) if inside(n, c, at)]
            table[-1].append(sum(values) / (1 if reduce == "sum" else max(len(values), 1)))
    return table


def detected(proposals: np.ndarray) -> list[list[float]]:
    def overlap(a: Any, b: Any) -> float:
        width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
        shared = width * height if width > 0 and height > 0 else 0.0
        area = lambda box: max(box[2] - box[0], 0) * max(box[3] - box[1], 0)  # noqa: E731
        return shared / (area(a) + area(b) - shared)

    return [
        [
            max(overlap(box, m[:4]) * m[4] * m[5 + label] / math.hypot(*m[5:]) for m in of_n)
            for box, label in zip(BOXES, LABELS, strict=True)
        ]
        for of_n in proposals.tolist()
    ]


def largest(s: np.ndarray) -> Callable[[int, int, tuple[int, ...]], bool]:
    return lambda n, c, at: max(range(s.shape[1]), key=lambda k: s[(n, k, *at)]) == c


IMAGES, LOGITS, Z = random(2, 3, 3, 4), random(2, 5, 6), random(4, 3)
CASES: dict[str, tuple[Any, np.ndarray, Any]] = {
    "probability": (Probability(), random(4, 3), softmax(random(4, 3))),
    "mean of all": (Segmentation(), IMAGES, segmented(IMAGES, lambda n, c, at: True, "mean")),
    "sum of all": (Segmentation(reduce="sum"), IMAGES, segmented(IMAGES, lambda n, c, at: True, "sum")),
    "mean of a mask": (Segmentation(MASK), IMAGES, segmented(IMAGES, lambda n, c, at: bool(MASK[at]), "mean")),
    "sum of a mask": (
        Segmentation(MASK.tolist(), "sum"), IMAGES, segmented(IMAGES, lambda n, c, at: bool(MASK[at]), "sum"),
    ),
    "mean where largest": (Segmentation("argmax"), IMAGES, segmented(IMAGES, largest(IMAGES), "mean")),
    "sum where largest": (Segmentation("argmax", "sum"), IMAGES, segmented(IMAGES, largest(IMAGES), "sum")),
    "nowhere largest": (
        Segmentation("argmax"), IMAGES[:, :, :1, :1], segmented(IMAGES[:, :, :1, :1], largest(IMAGES), "mean"),
    ),
    "positions in a row": (
        Segmentation([1, 0, 1, 1]), IMAGES[:, :, 0],
        segmented(IMAGES[:, :, 0], lambda n, c, at: at != (1,), "mean"),
    ),
    "detection": (Detection(BOXES, LABELS), found_boxes(), detected(found_boxes())),
    "last token": (Tokens(vocabulary=[4, 0]), LOGITS, [[row[4][4], row[4][0]] for row in LOGITS.tolist()]),
    "second token": (Tokens(1), LOGITS, [row[1] for row in LOGITS.tolist()]),
    "cosine": (Cosine(REFERENCE), Z, [[np.dot(z, r) / math.hypot(*z) / math.hypot(*r) for r in REFERENCE] for z in Z]),
    "distance": (Distance(REFERENCE), Z, [[math.dist(z, r) for r in REFERENCE] for z in Z]),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_equals_its_formula(case: str) -> None:
    adapter, raw, expected = CASES[case]
    np.testing.assert_allclose(adapter(torch.from_numpy(raw)), np.array(expected), rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("case", CASES)
def test_has_the_gradient_of_a_finite_difference(case: str) -> None:
    """Of a random direction, to the error of the difference; the region of "argmax" rests, as it does under small
    steps."""
    adapter, raw, _ = CASES[case]
    x, way, h = torch.from_numpy(raw).requires_grad_(), torch.from_numpy(random(*raw.shape, seed=9)), 1e-6
    rise = ((adapter(x + h * way) - adapter(x - h * way)).sum(0) / (2 * h)).detach()
    for y, slope in zip(adapter(x).sum(0), rise, strict=True):
        (gradient,) = torch.autograd.grad(y, x, retain_graph=True)
        assert gradient.isfinite().all()
        assert float((gradient * way).sum()) == pytest.approx(float(slope), rel=1e-6, abs=1e-8)


def test_at_zero() -> None:
    """An embedding of 0, and one that is its reference: a number, and a finite gradient."""
    for adapter, z in ((Cosine(REFERENCE), np.zeros((1, 3))), (Distance(REFERENCE), REFERENCE[:1])):
        x = torch.from_numpy(z.copy()).requires_grad_()
        y = adapter(x)
        assert y[0, 0] == 0
        assert torch.autograd.grad(y.sum(), x)[0].isfinite().all()


def test_half_precision_is_lifted() -> None:
    """Probabilities below the range of float16 are kept."""
    y = Probability()(torch.tensor([[0.0, 30.0]], dtype=torch.float16))
    assert y.dtype == torch.float32
    assert y[0, 0] == pytest.approx(math.exp(-30), rel=1e-5)


def test_parts_of_a_result() -> None:
    """By name, by index, or deeper; `flatten` is a name like others."""
    x = torch.randn(2, 3)
    for raw, of in (
        ({"logits": x}, "logits"),
        ({"logits": x}, None),
        ({"flatten": x}, "flatten"),
        ((0, x), 1),
        ({"a": [0, {"b": x}]}, ["a", 1, "b"]),
        ([x], None),
    ):
        assert torch.equal(Probability(of=of)(raw), x.softmax(1))
    with pytest.raises(ModelError, match=r"'logit' is not in a dict of 'logits'.*of Probability: say with `of`"):
        Probability(of="logit")({"logits": x})
    with pytest.raises(ModelError, match=r"returns a dict.*of Probability: say with `of` which part"):
        Probability()({"scores": x})


@pytest.mark.parametrize(
    ("adapter", "shape", "text"),
    [
        (Probability(), (2, 3, 4), r"Probability needs a result of shape \(n, J\), got \(2, 3, 4\)"),
        (Segmentation(), (2, 3), r"Segmentation needs a result of shape \(n, C, \*S\), got \(2, 3\)"),
        (Segmentation(MASK), (2, 3, 4, 3), r"shape \(n, C, \*\(3, 4\)\), that of the mask, got \(2, 3, 4, 3\)"),
        (Detection(BOXES, LABELS), (2, 4, 7), r"shape \(n, M, 5 \+ C\) with C of at least 3, got \(2, 4, 7\)"),
        (Detection(BOXES, LABELS), (2, 8), r"\(n, M, 5 \+ C\).* got \(2, 8\)"),
        (Tokens(5, [1]), (2, 5, 6), r"\(n, T >= 6, V >= 2\), got \(2, 5, 6\)"),
        (Tokens(-6, [1]), (2, 5, 6), r"\(n, T >= 6, V >= 2\), got \(2, 5, 6\)"),
        (Tokens(0, [6]), (2, 5, 6), r"\(n, T >= 1, V >= 7\), got \(2, 5, 6\)"),
        (Tokens(), (2, 6), r"\(n, T >= 1, V >= 1\), got \(2, 6\)"),
        (Cosine(REFERENCE), (2, 4), r"\(n, E\), with a reference of \(2, 3\), \(J, E\), got \(2, 4\)"),
        (Distance(REFERENCE[0]), (2, 3), r"with a reference of \(3,\), \(J, E\), got \(2, 3\)"),
    ],
)
def test_wrong_shapes(adapter: Any, shape: tuple[int, ...], text: str) -> None:
    with pytest.raises(ConfigError, match=text):
        adapter(torch.zeros(shape))


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: Segmentation("max"), "mask='max', choose argmax"),
        (lambda: Segmentation(reduce="max"), "reduce='max', choose mean or sum"),
        (lambda: Detection(BOXES, [0]), r"boxes of shape \(3, 4\) for 1 labels"),
        (lambda: Detection([[0, 0, 1]], [0]), r"boxes of shape \(1, 3\) for 1 labels"),
        (lambda: Detection([[1, 0, 1, 2]], [0]), "x1 < x2 and y1 < y2"),
        (lambda: Detection([[0, 0, 1, 2]], [-1]), "labels count from 0"),
        (lambda: Tokens(0, []), r"vocabulary=\[\]"),
        (lambda: Tokens(0, [-1]), r"vocabulary=\[-1\]"),
    ],
)
def test_wrong_settings(make: Callable[[], Any], text: str) -> None:
    with pytest.raises(ConfigError, match=text):
        make()


# -- as the output of a run --------------------------------------------------------------------------------------------


class Pixels(nn.Module):
    """A score for each of two classes at each of 6 x 6 pixels, in a dict."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.one, self.two = nn.Conv2d(1, 3, 3, padding=1).double(), nn.Conv2d(3, 2, 1).double()

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        return {"out": self.two(torch.tanh(self.one(x)))}


class Boxes(nn.Module):
    """Three features become two proposals of two classes."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.last = nn.Linear(3, 2 * 7).double()

    def forward(self, x: Tensor) -> Tensor:
        raw = self.last(x).reshape(-1, 2, 7)
        corner = 0.3 * torch.tanh(raw[..., :2])
        return torch.cat((corner, corner + 1 + torch.sigmoid(raw[..., 2:4]), torch.sigmoid(raw[..., 4:])), 2)


RUNS: dict[str, tuple[Callable[[], nn.Module], Any, tuple[int, ...]]] = {
    "probability": (models.MODELS["gelu"], Probability(), (3,)),
    "segmentation": (Pixels, Segmentation(torch.eye(6), of="out"), (1, 6, 6)),
    "detection": (Boxes, Detection([[0, 0, 1.5, 1.5]], [1]), (3,)),
    "cosine": (models.MODELS["relu"], Cosine(REFERENCE[:, :2]), (3,)),
}


@pytest.mark.parametrize("case", RUNS)
def test_is_an_output_like_any_other(case: str) -> None:
    """IG of each output equals the literal IG of the module followed by the adapter; where it is smooth, it sums to the
    rise of y."""
    make, adapter, shape = RUNS[case]
    model = make()

    class Whole(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return adapter(model(x))

    whole = Whole()
    x = torch.from_numpy(random(4, *shape))
    y = whole(x).detach()
    tree = igc_dist.attribute(
        model, (x, y), method="ig", output=adapter, quadrature="gauss_legendre", n_steps=16, baseline=0.1
    )
    nodes, weights = np.polynomial.legendre.leggauss(16)
    outputs = list(range(y.shape[1]))
    starts = [[(np.full(shape, 0.1),)]] * 4
    (expected,) = oracle.integrated_gradients(
        whole, (x.numpy(),), starts, outputs, ((nodes + 1) / 2).tolist(), (weights / 2).tolist()
    )
    found = tree["samples/x/attribution"].values
    np.testing.assert_allclose(found, expected, rtol=1e-10, atol=1e-13)
    np.testing.assert_allclose(tree["samples/prediction"], y, rtol=1e-12)
    if case in ("probability", "segmentation"):
        rise = (y - whole(torch.full_like(x, 0.1))).detach()
        np.testing.assert_allclose(found.reshape(*y.shape, -1).sum(2), rise, rtol=0, atol=1e-6)


def test_the_spec_tells_them_apart() -> None:
    """By kind, settings and the bits of arrays; a run with another mask is another run."""
    regions = [Segmentation(), Segmentation(MASK), Segmentation(~MASK), Segmentation("argmax")]
    reference = torch.from_numpy(REFERENCE)
    cases = [*regions, Probability(), Probability(of="out"), Tokens(1), Cosine(reference), Distance(reference)]
    assert len({str(describe(case)) for case in cases}) == len(cases)
    assert describe(Segmentation(MASK)) == describe(Segmentation(MASK.copy()))


def test_a_final_layer_before_a_softmax_is_refused() -> None:
    model = nn.Sequential(nn.Linear(3, 2), nn.Tanh(), nn.Linear(2, 5)).double()
    with pytest.raises(ModelError, match="final_layer"):
        igc_dist.attribute(
            model, (torch.randn(6, 3).double(), torch.randn(6, 5)), output=Probability(), final_layer="2"
        )


def test_from_the_command() -> None:
    """`model.output` may be a mapping; its parts are checked like any other `_target_`."""
    for override in (
        "model.output={_target_: igc_dist.model.outputs.Tokens, position: 1, vocabulary: [3, 1], of: out}",
    ):
        output = from_config(composed(override), None).model.output
        assert (type(output), output.position, list(output.vocabulary), output.of) == (Tokens, 1, [3, 1], "out")
    assert (
        type(from_config(composed("+model.output._target_=igc_dist.model.outputs.Probability"), None).model.output)
        is Probability
    )
    assert from_config(composed("model.output=[logits,0]"), None).model.output == ["logits", 0]
    with pytest.raises(ConfigError, match=r"igc_dist\.targets\.Targets' is not allowed"):
        from_config(composed("model.output={_target_: igc_dist.targets.Targets}"), None)
    with pytest.raises(ConfigError, match="cannot be built: it needs a _target_"):
        from_config(composed("model.output={position: 1}"), None)


@pytest.mark.parametrize(
    "gadget",
    [
        "torch.load",
        "torch.hub.load",
        "selected",
        "ModelError",
        "Tensor",
        "dataclass",
        "Any",
        "ABC.register",
        "Adapter.__class__",
    ],
)
def test_nothing_else_gets_in(gadget: str) -> None:
    """What the module imports is not allowed by its prefix; what it defines is."""
    with pytest.raises(ConfigError, match="is not allowed"):
        config.build({"_target_": f"igc_dist.model.outputs.{gadget}"})
    kinds = {kind for kind in vars(adapters).values() if isinstance(kind, type) and issubclass(kind, adapters.Adapter)}
    assert kinds == {adapters.Adapter, Cosine, Detection, Distance, Probability, Segmentation, Tokens}
