"""A model that is lent: other threads wait, and the numeric context of the caller changes nothing and comes back."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, contextmanager
from multiprocessing.util import register_after_fork
from threading import Event
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from torch.utils.data import DataLoader

import igc_dist
from igc_dist.__main__ import main
from igc_dist.data import ensure
from igc_dist.model import Model, numerics
from igc_dist.records import ConfigError, ModelError
from tests.ranks import Rows

X = torch.randn(12, 4, generator=torch.Generator().manual_seed(0))
Y = torch.randn(12, 3, generator=torch.Generator().manual_seed(1))


def net() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 3))


def maps(model: nn.Module, x: Tensor = X, y: Tensor = Y, **settings: Any) -> np.ndarray:
    settings = {"quadrature": "midpoint", "n_steps": 3, "n_folds": 2, **settings}
    return np.asarray(igc_dist.attribute(model, (x, y), **settings)["x/igc"])


@contextmanager
def put(get: Callable[[], Any], change: Callable[[Any], None], value: Any) -> Iterator[None]:
    """Set something for the block, and check that it is still set at its end."""
    before = get()
    change(value)
    try:
        yield
        assert get() == value
    finally:
        change(before)


CONTEXTS: dict[str, Callable[[], AbstractContextManager[Any]]] = {
    "autocast": lambda: torch.autocast("cpu", dtype=torch.bfloat16),
    "default dtype": lambda: put(torch.get_default_dtype, torch.set_default_dtype, torch.float64),
    "default device": lambda: torch.device("meta"),
    "inference mode": torch.inference_mode,
    "anomaly": lambda: put(torch.is_anomaly_enabled, torch.autograd.set_detect_anomaly, True),
    "matmul": lambda: put(torch.get_float32_matmul_precision, torch.set_float32_matmul_precision, "medium"),
    "deterministic": lambda: put(torch.are_deterministic_algorithms_enabled, torch.use_deterministic_algorithms, False),
    "flush denormal": lambda: put(lambda: sys.float_info.min / 2 == 0, torch.set_flush_denormal, True),
    "errstate": lambda: np.errstate(all="raise"),
}


class Sensitive(nn.Module):
    """Its output depends on much of the context."""

    def __init__(self) -> None:
        super().__init__()
        self.inside = net()

    def forward(self, x: Tensor) -> Tensor:
        flags = (
            torch.is_anomaly_enabled(),
            torch.are_deterministic_algorithms_enabled(),
            torch.get_float32_matmul_precision() != "highest",
            sys.float_info.min / 2 == 0,
            torch.get_default_dtype() is not torch.float32,
            np.geterr()["divide"] != "warn",
        )
        return self.inside(x) * (1 + sum(2.0**k for k, flag in enumerate(flags) if flag)) * torch.ones(()).to(x)


@pytest.mark.parametrize("name", CONTEXTS)
def test_a_setting_of_the_caller(name: str) -> None:
    """The same bits as without, and the setting is handed back."""
    model = Model(Sensitive())
    with model.borrowed("cpu"):
        expected = model.predict((X,))
    with CONTEXTS[name](), model.borrowed("cpu"):
        assert torch.equal(model.predict((X,)), expected)


def test_the_context_of_the_caller() -> None:
    """All settings at once change no bit of a run."""
    model = Sensitive()
    expected = maps(model)
    with ExitStack() as stack:
        for make in CONTEXTS.values():
            stack.enter_context(make())
        found = maps(model)
    assert found.tobytes() == expected.tobytes()


def test_the_default_device_of_the_caller() -> None:
    """A forward on that device makes its tensors there; a run itself, and a forward elsewhere, on the CPU."""
    seen: list[str] = []
    model = Model(net(), output=lambda y: seen.append(torch.ones(1).device.type) or y)
    model.module.register_forward_pre_hook(lambda *_: seen.append(torch.ones(1).device.type))
    with torch.device("meta"), numerics.owned(torch.float32):
        model.predict((X,))
        model.module.to("meta")
        model.predict((X.to("meta"),))
        seen.append(torch.ones(1).device.type)
    assert seen == ["cpu", "cpu", "meta", "meta", "cpu"]


def test_the_context_is_recorded() -> None:
    """Settings that change numbers stand in the provenance."""
    with torch.autocast("cpu", dtype=torch.bfloat16):
        tree = igc_dist.attribute(net(), (X, Y), quadrature="midpoint", n_steps=2, n_folds=2)
    found = tree.attrs["provenance"]["numerics"]
    assert (found["matmul"], found["default_dtype"], found["deterministic"]) == ("highest", "float32", False)


def test_threads_with_one_model_and_with_shared_parameters() -> None:
    """The same maps as one after the other; the models train on."""
    one, double = net().train(), net().double()
    other = nn.Sequential(one[0], nn.Tanh(), nn.Linear(8, 3))
    expected = [maps(model) for model in (one, other, double)]
    with ThreadPoolExecutor(3) as pool:
        found = [pool.submit(maps, model) for _ in range(2) for model in (one, other, double)]
        for future, right in zip(found, expected * 2, strict=True):
            np.testing.assert_array_equal(future.result(60), right)
    assert one.training
    assert all(p.requires_grad for p in (*one.parameters(), *other.parameters()))
    assert torch.get_default_dtype() is torch.float32


def test_threads_that_set_a_number_of_threads() -> None:
    """Each run has its own number, and what was before is what is left, whatever their order."""
    before, first, second = torch.get_num_threads(), Event(), Event()

    def one() -> int:
        with numerics.threads(2):
            first.set()
            assert second.wait(10)
            return torch.get_num_threads()

    def other() -> int:
        assert first.wait(10)
        with numerics.threads(3):
            found = torch.get_num_threads()
            with numerics.threads(4):
                assert torch.get_num_threads() == 4
            assert torch.get_num_threads() == found
            second.set()
            ended.result(10)
            return torch.get_num_threads()

    with ThreadPoolExecutor(2) as pool:
        ended = pool.submit(one)
        assert pool.submit(other).result(10) == 3
        assert ended.result() == 2
        assert [pool.submit(torch.get_num_threads).result() for _ in range(2)] == [before] * 2
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(torch.get_num_threads).result() == torch.get_num_threads() == before


def test_settings_that_threads_share() -> None:
    """They hold until the last one leaves, and are then what they were."""
    found: list[str] = []
    setting = numerics.Shared(lambda: put(lambda: len(found), lambda value: found.append(f"{value}"), 1))
    one, other = setting.held(), setting.held()
    for step in (one.__enter__, other.__enter__, lambda: one.__exit__(None, None, None)):
        step()
        assert found == ["1"]
    other.__exit__(None, None, None)
    assert found == ["1", "0"]


class Halves(Rows):
    """Its items are of the default type."""

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        return torch.full((4,), 1 / 3) * index, torch.tensor([index / 7])


def test_workers_have_the_default_type_of_the_run() -> None:
    """The same bits as without workers, also from one that begins with torch's own type, as a spawned one does."""
    begin = Event()  # any object: the function below is forgotten with it
    register_after_fork(begin, lambda _: torch.set_default_dtype(torch.float32))
    with numerics.owned(torch.float64):
        alone, worker = (list(ensure(Halves(5), number).batches(range(5), 5)) for number in (0, 1))
    assert torch.equal(alone[0].inputs[0], worker[0].inputs[0])
    assert alone[0].target.dtype is worker[0].target.dtype is torch.float64


class Forces(nn.Module):
    """``d/dx sum_k f_k(x)``, by a gradient inside the forward."""

    def __init__(self, asks: bool) -> None:
        super().__init__()
        self.energy, self.asks = net(), asks

    def forward(self, x: Tensor) -> Tensor:
        with torch.set_grad_enabled(self.asks or torch.is_grad_enabled()):
            x.requires_grad_()
            return torch.autograd.grad(self.energy(x).sum(), x, create_graph=True)[0]


class Written(Forces):
    """The same, written out."""

    def forward(self, x: Tensor) -> Tensor:
        first, _, last = self.energy
        return ((1 - first(x).tanh() ** 2) * last.weight.sum(0)) @ first.weight


@pytest.mark.parametrize("asks", [True, False], ids=["enable_grad", "plain"])
def test_forwards_that_take_gradients(asks: bool) -> None:
    """The same maps as of the function written out."""
    y = torch.cat([Y, X[:, :1]], 1)
    np.testing.assert_allclose(maps(Forces(asks), y=y), maps(Written(True), y=y), rtol=1e-4, atol=1e-6)


def test_data_that_carry_a_graph() -> None:
    """They are detached: the same bits."""
    model = net()
    y, x = model(X), X.clone().requires_grad_() * 1
    np.testing.assert_array_equal(maps(model, x, y), maps(model, X, y.detach()))
    with torch.inference_mode():
        made = Y * 1
    batch = ensure(DataLoader([(x[:1], made[:1])], collate_fn=lambda items: items[0])).fetch([0])  # type: ignore[arg-type]
    assert not batch.inputs[0].requires_grad
    assert not batch.target.is_inference()


class Squeezed(nn.Module):
    def __init__(self, n: int) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.last, self.squeezes = nn.Linear(4, n), True

    def forward(self, x: Tensor) -> Tensor:
        y = self.last(x).tanh()
        return y.squeeze() if self.squeezes else y


@pytest.mark.parametrize("n", [1, 3])
def test_outputs_that_are_squeezed(n: int) -> None:
    """A single row that loses its batch dimension is computed beside a copy."""
    model = Squeezed(n)
    found = maps(model, y=Y[:, :n], micro_batch=1)
    model.squeezes = False
    np.testing.assert_allclose(found, maps(model, y=Y[:, :n], micro_batch=1), rtol=1e-5, atol=1e-7)


class Writes(nn.Module):
    def __init__(self, inside: nn.Module, write: Callable[[Tensor], Any], copies: bool) -> None:
        super().__init__()
        self.inside, self.write, self.copies = inside, write, copies

    def forward(self, x: Tensor) -> Tensor:
        x = x.clone() if self.copies else x
        self.write(x)
        return self.inside(x)


@pytest.mark.parametrize("write", [lambda x: x.sub_(0.5), lambda x: x.relu_()], ids=["sub", "relu"])
def test_forwards_that_write_into_their_input(write: Callable[[Tensor], Any]) -> None:
    """The same bits as of a forward that works on a copy; the data stay as they are."""
    inside, before = net(), X.clone()
    np.testing.assert_array_equal(maps(Writes(inside, write, False)), maps(Writes(inside, write, True)))
    assert torch.equal(X, before)


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
def test_kinds_of_modules_that_work() -> None:
    """Exported programs for any batch, frozen TorchScript, and weights of half precision, which become float32."""
    model = net().eval()
    expected = maps(model)
    exported = torch.export.export(model, (X,), dynamic_shapes=({0: torch.export.Dim("n", min=1)},)).module()
    for other in (exported, nn.Sequential(exported), torch.jit.freeze(torch.jit.script(model))):
        np.testing.assert_allclose(maps(other), expected, rtol=1e-5, atol=1e-6)
    half = net().bfloat16()
    np.testing.assert_array_equal(maps(half), maps(net().bfloat16().float()))
    assert half[0].weight.dtype is torch.bfloat16


class Checkpointed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inside = net()

    def forward(self, x: Tensor) -> Tensor:
        return checkpoint(self.inside, x, use_reentrant=True)  # type: ignore[no-any-return]


class Named(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inside = net()

    def forward(self, *, x: Tensor) -> Tensor:
        return self.inside(x)  # type: ignore[no-any-return]


class Across(nn.Module):
    """It takes the samples of a batch for the tokens of one sequence."""

    def __init__(self) -> None:
        super().__init__()
        self.attention, self.last = nn.MultiheadAttention(4, 1), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.attention(x, x, x)[0])  # type: ignore[no-any-return]


def made_in_inference() -> nn.Module:
    with torch.inference_mode():
        return nn.Linear(4, 3)


REFUSED: dict[str, tuple[Callable[[], Any], dict[str, Any], type[Exception], str]] = {
    "exported for one size": (lambda: torch.export.export(net(), (X[:4],)).module(), {}, ModelError, "dynamic_shapes"),
    "program": (lambda: torch.export.export(net(), (X,)), {}, ModelError, r"module\(\)"),
    "lazy": (lambda: nn.LazyLinear(3), {}, ModelError, "call the model once"),
    "reentrant checkpoints": (Checkpointed, {}, ModelError, "use_reentrant=False"),
    "inputs by name": (Named, {}, ModelError, "its inputs by position"),
    "batches are sequences": (Across, {}, ModelError, "batch_first=True"),
    "made in inference mode": (made_in_inference, {}, ModelError, "deepcopy"),
    "a device that is not there": (net, {"accelerator": "mps"}, ConfigError, "accelerator=mps.*take cpu or auto"),
    "an unknown device": (net, {"accelerator": "cudaa"}, ConfigError, "accelerator=cudaa.*take cpu or auto"),
}


class Rounded(torch.autograd.Function):
    """Its result claims a gradient and has none, as that of a quantized layer."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.round(decimals=2)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> None:  # type: ignore[override]
        return None


class Quantized(Forces):
    def forward(self, x: Tensor) -> Tensor:
        return Rounded.apply(self.energy(x))  # type: ignore[no-any-return]


def test_layers_without_a_gradient() -> None:
    """Methods that take gradients refuse them, the others do not."""
    model = Quantized(True)
    with pytest.raises(ModelError, match=r"not reach them.*before its quantization"):
        maps(model)
    with pytest.raises(ModelError, match="no gradient of an output reaches the inputs"):
        list(Model(model).gradients((X,), [0]))
    assert np.asarray(igc_dist.attribute(model, (X, Y), method="bsc", n_folds=2)["x/bsc"]).any()


class Both(nn.Module):
    """The second input acts without a gradient."""

    def __init__(self, acts: bool) -> None:
        super().__init__()
        self.one, self.acts = net(), acts

    def forward(self, x: Tensor, x1: Tensor) -> Tensor:
        return self.one(x) + self.acts * x1.detach().sum(1, keepdim=True)


def test_inputs_without_a_gradient(caplog: pytest.LogCaptureFixture) -> None:
    """One that acts is named, one that does not is fine."""
    for acts in (True, False):
        caplog.clear()
        igc_dist.attribute(Both(acts), ((X, 3 * X), Y), quadrature="midpoint", n_steps=1, n_folds=2)
        assert ("no gradient reaches the input x1" in caplog.text) is acts


@pytest.mark.filterwarnings("ignore:None of the inputs have requires_grad")
@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_lent(name: str) -> None:
    """Refused with the way out."""
    make, settings, kind, text = REFUSED[name]
    with pytest.raises(kind, match=text):
        maps(make(), **settings)


@pytest.mark.parametrize("command", ["run", "plan", "verify no.zarr", "info no.zarr"])
def test_commands_without_asserts(
    command: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Refused at the start: zarr could not read what it writes."""
    monkeypatch.setattr(sys, "flags", SimpleNamespace(optimize=1, verbose=0))
    with pytest.raises(SystemExit, match=r"^2$"):
        main(command.split())
    assert "python -O" in capsys.readouterr().err


@pytest.mark.parametrize("use", [lambda: maps(net()), lambda: igc_dist.open("no.zarr")], ids=["attribute", "open"])
def test_python_without_asserts(use: Callable[[], Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "flags", SimpleNamespace(optimize=1, verbose=0))
    with pytest.raises(ConfigError, match="python -O"):
        use()
