"""Laws of the model: borrowed and handed back as it was; one forward, J backwards; outputs selected or refused with the
fix."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from igc_dist.model import Model
from igc_dist.records import ConfigError, ModelError
from tests import models
from tests.oracles import attributions as oracle

X = torch.randn(5, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


class Busy(nn.Module):
    """Parameters frozen and not, layers in mixed modes, buffers that the forward writes to and replaces, None among
    them."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm, self.drop = nn.Conv2d(2, 3, 3, padding=1), nn.BatchNorm2d(3), nn.Dropout(0.5)
        self.last = nn.Linear(3, 2)
        self.register_buffer("calls", torch.zeros(()))
        self.register_buffer("replaced", torch.zeros(2))
        self.register_buffer("nothing", None)
        self.register_buffer("alias", self.norm.running_mean)
        self.norm.running_var.fill_(2.0)

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        self.replaced = self.replaced + 1
        return self.last(self.drop(self.norm(self.conv(x))).mean((2, 3)))


def everything(module: nn.Module) -> list[Any]:
    """All that a user could miss: flags, types, bytes, strides, addresses, gradients."""
    state: list[Any] = [(name, m.training) for name, m in module.named_modules()]
    for name, p in module.named_parameters():
        state.append(
            (
                name,
                p.requires_grad,
                p.dtype,
                p.stride(),
                p.data_ptr(),
                p.device,
                p.tolist(),
                None if p.grad is None else p.grad.tolist(),
            )
        )
    for m in module.modules():
        for name, b in m._buffers.items():
            state.append((name, id(b), None if b is None else (b.dtype, b.stride(), b.data_ptr(), b.tolist())))
    return state


SETTINGS: list[dict[str, Any]] = [{}, {"precision": "64-true"}, {"channels_last": True}, {"precision": "bf16-mixed"}]


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
@pytest.mark.parametrize("fails", [False, True], ids=["done", "failed"])
def test_handed_back_as_it_was(settings: dict[str, Any], fails: bool) -> None:
    """Training flags, requires_grad, data, buffers, types, strides and .grad, after use as after an error."""
    module = Busy()
    module.train()
    module.norm.eval()
    module.last.bias.requires_grad_(False)
    module.conv.weight.grad = torch.ones_like(module.conv.weight)
    before, frozen = everything(module), None
    x = torch.randn(4, 2, 5, 5)
    try:
        with Model(module, **settings).borrowed("cpu") as model:
            frozen = [p.requires_grad for p in module.parameters()], [m.training for m in module.modules()]
            points = (x.to(model.dtype((x,))),)
            list(model.gradients(points, [0, 1]))
            model.predict(points)
            assert module.calls == 2
            if fails:
                raise KeyError("of the user")
    except KeyError:
        assert fails
    assert frozen is not None
    assert not any(frozen[0])
    assert not any(frozen[1])
    assert everything(module) == before


def test_the_run_s_type_and_layout() -> None:
    """Under 64-true the forward is in float64; channels_last reaches the convolution; mixed keeps float32 points."""
    seen: list[Tensor] = []
    x = torch.randn(4, 2, 5, 5)
    for settings in SETTINGS:
        module = Busy()
        module.conv.register_forward_hook(lambda m, args, out: seen.append(out))
        module.conv.register_forward_pre_hook(lambda m, args: seen.append(args[0]))
        with Model(module, **settings).borrowed("cpu") as model:
            points = (x.to(model.dtype((x,))),)
            ((_, (grad,)),) = list(model.gradients(points, [1]))
            into, out = seen[-2:]
            double = settings.get("precision") == "64-true"
            assert into.dtype is grad.dtype is (torch.float64 if double else torch.float32)
            assert out.dtype is (torch.bfloat16 if "mixed" in str(settings) else into.dtype)
            assert out.is_contiguous(memory_format=torch.channels_last) == settings.get("channels_last", False)
            assert model.predict(points).dtype is into.dtype


class Spectral(nn.Module):
    """A model with complex weights."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([[1 + 2j, 0.1 - 1j], [0.3 + 0.1j, 1.1j]], dtype=torch.complex64))

    def forward(self, x: Tensor) -> Tensor:
        return (x.to(self.weight.dtype) @ self.weight).abs().square()


def test_complex_weights_have_the_precision_of_the_run() -> None:
    """``d |x w|**2 / d x = 2 Re(conj(w) (x w))``, to the last bits of float64, also in an audit of 32-true."""
    module, x = Spectral(), torch.tensor([[0.3, -0.7]], dtype=torch.float64)
    w = module.weight.detach().to(torch.complex128)
    expected = 2 * (w.conj() * (x.to(w.dtype) @ w)).real[:, 0]
    with Model(module, precision="64-true").borrowed("cpu") as model:
        ((_, (grad,)),) = list(model.gradients((x,), [0]))
    torch.testing.assert_close(grad[0], expected, rtol=1e-15, atol=1e-15)
    with Model(module).borrowed("cpu") as model, model.higher() as high:
        ((_, (grad,)),) = list(high.gradients((x,), [0]))
    torch.testing.assert_close(grad[0], expected, rtol=1e-15, atol=1e-15)
    assert module.weight.dtype is torch.complex64
    assert torch.equal(module.weight, w.to(torch.complex64))


def test_types_of_path_points() -> None:
    """That of the parameters, else of the inputs, never below float32."""
    half = nn.Linear(3, 2).to(torch.bfloat16)
    assert Model(half).dtype((X,)) is torch.float32
    assert Model(models.linear()).dtype((X.float(),)) is torch.float64
    assert Model(models.L123()).dtype((X,)) is torch.float64
    assert Model(models.L123()).dtype((X.float(),)) is torch.float32
    assert Model(nn.Linear(3, 2), precision="64-true").dtype((X.float(),)) is torch.float64


@pytest.mark.parametrize("name", models.MODELS)
def test_gradients_are_those_of_single_rows(name: str) -> None:
    """Each output's gradient of each row, in the order asked for, with outputs repeated or left out."""
    module = models.MODELS[name]()
    for outputs in ([0, 1], [1], [1, 0, 1]):
        found = list(Model(module).gradients((X,), outputs))
        assert [j for j, _ in found] == list(range(len(outputs)))
        for (_, (grad,)), k in zip(found, outputs, strict=True):
            np.testing.assert_allclose(
                grad, oracle.gradients(module, (X.numpy(),), [k])[0][:, 0], rtol=1e-12, atol=1e-14
            )


class Recorded(torch.autograd.Function):
    """The identity; counts its forward and backward passes."""

    count: dict[str, int]

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        Recorded.count["forward"] += 1
        return x.clone()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        Recorded.count["backward"] += 1
        return grad


def test_one_forward_and_j_backwards() -> None:
    """One forward for all outputs, one backward per output on the same graph, none to the parameters, graph freed with
    the last."""
    Recorded.count = {"forward": 0, "backward": 0}
    module = models.mlp(nn.GELU, n_out=4)
    wrapped = models.Function(lambda x: Recorded.apply(module(x)))
    wrapped.inside = module
    kept: list[Tensor] = []
    module[1].register_forward_hook(lambda m, args, out: kept.append(out))
    with Model(wrapped).borrowed("cpu") as model:
        for j, _ in model.gradients((X,), [0, 1, 2, 3]):
            assert Recorded.count == {"forward": 1, "backward": j + 1}
    assert wrapped.calls == 1
    assert all(p.grad is None for p in module.parameters())
    with pytest.raises(RuntimeError, match="already been freed"):
        kept[0].sum().backward()


def test_constant_outputs_have_gradient_zero() -> None:
    """An output that is constant by construction, alone or beside others, an input that is not used, and an output that
    is an input."""
    for function in (lambda x: x.new_ones(len(x), 2), lambda x: torch.stack([x[:, 0], x.new_ones(len(x))], 1)):
        found = dict(Model(models.Function(function)).gradients((X,), [0, 1]))
        assert not found[1][0].any()
        assert found[0][0].shape == X.shape
    unused = dict(Model(models.Function(lambda x, z: x)).gradients((X, X), [2]))
    assert unused[0][0].sum() == 5
    assert not unused[0][1].any()


class ModelOutput(OrderedDict):  # type: ignore[type-arg]
    """As in transformers: a mapping by name, with attributes, and by position."""

    def __getattr__(self, name: str) -> Any:
        return self[name]

    def __getitem__(self, key: Any) -> Any:
        return list(self.values())[key] if isinstance(key, int) else super().__getitem__(key)


class Pair(NamedTuple):
    logits: Tensor
    loss: float


@dataclass
class Record:
    logits: Tensor
    hidden: Any = None


LOGITS = torch.arange(12.0).reshape(2, 6)
DEEP = torch.arange(24.0).reshape(2, 3, 4)
SELECTED: list[tuple[Any, Any, Tensor]] = [
    (LOGITS, None, LOGITS),
    ((LOGITS,), None, LOGITS),
    (LOGITS[:, 0], None, LOGITS[:, :1]),
    ({"logits": LOGITS, "loss": 1.0}, "logits", LOGITS),
    ({"logits": LOGITS, "loss": 1.0}, None, LOGITS),
    ((DEEP, LOGITS), 1, LOGITS),
    ((DEEP, {"a": LOGITS}), (1, "a"), LOGITS),
    (ModelOutput(loss=torch.zeros(()), logits=LOGITS), "logits", LOGITS),
    (ModelOutput(loss=torch.zeros(()), logits=LOGITS), 1, LOGITS),
    (Pair(LOGITS, 1.0), None, LOGITS),
    (Pair(LOGITS, 1.0), "logits", LOGITS),
    (Pair(LOGITS, 1.0), -2, LOGITS),
    (Record(DEEP, LOGITS), "hidden", LOGITS),
    (Record(DEEP, {"a": LOGITS}), ("hidden", "a"), LOGITS),
    (Record(LOGITS), None, LOGITS),
    (SimpleNamespace(scores=LOGITS), "scores", LOGITS),
    (DEEP, 1, DEEP[:, 1]),
    (DEEP, -1, DEEP[:, -1]),
    (DEEP, (2, 3), DEEP[:, 2, 3][:, None]),
    ({"hidden": DEEP}, ("hidden", 0), DEEP[:, 0]),
    (DEEP, "flatten", DEEP.flatten(1)),
    (DEEP, lambda out: out.mean(2), DEEP.mean(2)),
]


@pytest.mark.parametrize("number", range(len(SELECTED)))
def test_selection_of_the_output(number: int) -> None:
    """Tables as they are; an entry of dicts, tuples and ModelOutput; of more dimensions an index, all of them, or a
    function."""
    raw, output, expected = SELECTED[number]
    assert torch.equal(Model(models.Function(lambda x: raw), output=output).predict((torch.zeros(2, 1),)), expected)


REFUSED: list[tuple[Any, Any, str]] = [
    (DEEP, None, r"\(2, 3, 4\) for 2 inputs.*model.output.*flatten"),
    ({"scores": LOGITS}, None, r"a dict of 'scores': tensor \(2, 6\): set .*model.output"),
    ((LOGITS, DEEP), None, r"a tuple of 0: tensor \(2, 6\), 1: tensor"),
    ({"logits": LOGITS}, "logit", r"'logit' is not in a dict of 'logits'"),
    ((LOGITS,), 3, r"3 is not in a tuple of 0"),
    (LOGITS, "logits", r"'logits' is not in a tensor \(2, 6\)"),
    (DEEP, 7, r"7 is not in a tensor \(2, 3, 4\)"),
    ({"n": 3}, "n", "the model returns a int"),
    (LOGITS.T, None, r"\(6, 2\) for 2 inputs"),
    (None, None, "the model returns a NoneType: expected a tensor"),
    (LOGITS.numpy(), None, "the model returns a ndarray: expected a tensor"),
    (Record(LOGITS), "logit", r"'logit' is not in a Record of 'logits': tensor \(2, 6\), 'hidden': NoneType"),
    (Pair(LOGITS, 1.0), "logit", r"'logit' is not in a Pair of 'logits': tensor"),
    (LOGITS.to_sparse(), None, r"sparse \(torch.sparse_coo\).*to_dense"),
    (torch.nested.nested_tensor([LOGITS[0], LOGITS[1]], layout=torch.jagged), None, "nested.*to_padded_tensor"),
]


@pytest.mark.parametrize("number", range(len(REFUSED)))
def test_refusal_lists_what_there_is(number: int) -> None:
    """An output that is not one table names its shape or entries, and the setting that mends it."""
    raw, output, text = REFUSED[number]
    with pytest.raises(ModelError, match=text):
        Model(models.Function(lambda x: raw), output=output).predict((torch.zeros(2, 1),))


def test_forward_method_and_its_arguments() -> None:
    """Another method than forward, with constant keyword arguments."""
    module = models.linear()
    module.scaled = lambda x, by: by * module(x)
    torch.testing.assert_close(
        Model(module, forward="scaled", forward_kwargs={"by": 3}).predict((X,)), 3 * module(X).detach()
    )
    with pytest.raises(ModelError, match="Linear has no method 'scale'"):
        Model(module, forward="scale")


ERRORS: list[tuple[Callable[[], Any], type[Exception], str]] = [
    (lambda: Model(models.linear(), precision="16"), ConfigError, "'16'.*32-true.*bf16-mixed"),
    (lambda: Model(nn.Linear(3, 2, device="meta")).borrowed("cpu").__enter__(), ModelError, "meta.*model.to"),
    (
        lambda: Model(nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 2, device="meta"))).device,
        ModelError,
        "several devices.*cpu, meta",
    ),
]


@pytest.mark.parametrize("number", range(len(ERRORS)))
def test_models_that_cannot_be_used(number: int) -> None:
    """An unknown precision, parameters on another device or on several."""
    make, kind, text = ERRORS[number]
    with pytest.raises(kind, match=text):
        make()


def test_inference_mode_is_left() -> None:
    """It breaks input gradients on CUDA while CPU tests pass: a borrowed model is outside of it."""
    linear = models.linear()
    with torch.inference_mode():
        with Model(linear).borrowed("cpu"):
            assert not torch.is_inference_mode_enabled()
        assert torch.is_inference_mode_enabled()
    with torch.no_grad():
        assert next(iter(Model(models.linear()).gradients((X,), [0])))[1][0].any()


def test_channels_last_changes_nothing_but_rounding() -> None:
    """The same gradients, to float32 rounding, and in float64 to 1e-12."""
    x = torch.randn(3, 1, 6, 6, dtype=torch.float64)
    found = []
    for flag in (False, True):
        with Model(models.conv(), channels_last=flag).borrowed("cpu") as model:
            found.append([grad for _, (grad,) in model.gradients((x,), [0, 1])])
    torch.testing.assert_close(found[1], found[0], rtol=1e-12, atol=1e-14)


def test_bf16_mixed_is_close_to_float32() -> None:
    """Autocast round the forward only: predictions and gradients near float32's, and float32 themselves."""
    module = models.mlp(nn.GELU, 16, 3, 64).float()
    x = torch.randn(8, 16)
    sides = []
    for precision in ("32-true", "bf16-mixed"):
        with Model(module, precision=precision).borrowed("cpu") as model:
            grads = torch.stack([grad for _, (grad,) in model.gradients((x,), [0, 1, 2])])
            sides.append((model.predict((x,)), grads))
    for one, two in zip(*sides, strict=True):
        assert two.dtype is torch.float32
        assert 0 < (two - one).abs().max() < 0.02 * one.abs().max()


class Steep(nn.Module):
    """Logits times a large head; or, if they are steep, their softmax times a small one, with gradients below the range
    of float16."""

    def __init__(self, steep: float, head: float) -> None:
        super().__init__()
        torch.manual_seed(4)
        self.linear, self.steep, self.head = nn.Linear(8, 5), steep, head

    def forward(self, x: Tensor) -> Tensor:
        logits = self.steep * self.linear(x)
        return self.head * (logits.softmax(1) if self.steep > 1 else logits)


@pytest.mark.parametrize(("steep", "head", "tries"), [(6.0, 1e-3, 1), (1.0, 60.0, 2), (1.0, 2000.0, 3)])
def test_float16_gradients_neither_underflow_nor_overflow(steep: float, head: float, tries: int) -> None:
    """16-mixed: gradients of rare probabilities keep their digits, those of a large head stay finite; a row does not
    feel the others.

    Unscaled, those of the rarest are 0; a scale of 4096 times a head of 60 is beyond 65504, the largest float16.
    """
    module, x = Steep(steep, head), torch.randn(6, 8, generator=torch.Generator().manual_seed(0))
    found, calls, original = {}, 0, torch.autograd.grad

    def counted(*arguments: Any, **keywords: Any) -> Any:
        nonlocal calls
        calls += 1
        return original(*arguments, **keywords)

    for precision in ("32-true", "16-mixed"):
        with Model(module, precision=precision).borrowed("cpu") as model, pytest.MonkeyPatch.context() as patch:
            patch.setattr(torch.autograd, "grad", counted)
            found[precision] = torch.stack([grad for _, (grad,) in model.gradients((x,), range(5))])
            if precision == "16-mixed":
                assert calls == 5 + 5 * tries
                alone = torch.stack([grad for _, (grad,) in model.gradients((x[2:3],), range(5))])
                beside = x.clone()
                beside[0] = torch.nan
                shared = torch.stack([grad for _, (grad,) in model.gradients((beside,), range(5))])
    one, two = found.values()
    assert two.isfinite().all()
    error = (one - two).norm(dim=2) / one.norm(dim=2)
    assert error.max() < 0.01, error
    torch.testing.assert_close(alone, two[:, 2:3], rtol=2e-3, atol=2e-3 * float(two[:, 2:3].abs().max()))
    assert shared[:, 0].isnan().all() == (steep > 1)  # a linear function has its gradient everywhere
    assert torch.equal(shared[:, 1:], two[:, 1:])


@pytest.mark.slow
def test_compiled_equals_eager() -> None:
    """torch.compile keeps one graph for several backwards, and gives the gradients of the eager model."""
    module = models.mlp(nn.GELU)
    with Model(module, compiled=True).borrowed("cpu") as model:
        model.fix((len(X), len(X)))
        compiled = [grad for _, (grad,) in model.gradients((X,), [0, 1])]
        torch.testing.assert_close(model.predict((X,)), module(X), rtol=1e-10, atol=1e-12)
    eager = [grad for _, (grad,) in Model(module).gradients((X,), [0, 1])]
    torch.testing.assert_close(compiled, eager, rtol=1e-10, atol=1e-12)
