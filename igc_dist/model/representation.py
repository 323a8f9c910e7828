"""The result of a layer inside a module, read while the module's forward runs."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from jaxtyping import Float
from torch import Tensor, nn

from igc_dist.records import ConfigError, ModelError
from igc_dist.tensors import Tensors

INPUT = "input"


class Reading:
    """`call`, a forward of `module`, that also reads the result of a `layer`. After a call, `of` returns the result.

    `layer`: the dotted name of a submodule, for its output ("features"); such a name with ".input" behind it, for its
    first input ("head.input"); or the name of a method of the module or of a submodule, for its return value
    ("encode", "body.encode"); the forward must call it. Hooks exist only while a call runs. Raises `ConfigError` with
    similar names for an unknown one.
    """

    def __init__(self, module: nn.Module, layer: str, call: Callable[..., Any]) -> None:
        self.module, self.layer, self.call, self.seen = module, layer, call, list[Any]()
        owner, _, self.last = layer.rpartition(".")
        self.whole, self.owner = self._submodule(layer) if layer else None, self._submodule(owner)
        self.given = self.whole is None and self.last == INPUT and owner != "" and self.owner is not None
        method = self.owner is not None and callable(getattr(self.owner, self.last, None))
        if self.whole is None and not self.given and not method:
            raise ConfigError(
                f"{type(module).__name__} has no layer or method {layer!r}{self._near()}: give the dotted name of a "
                "submodule (its output "
                "is taken), of one and .input (what it is given), or of a method that the forward calls"
            )

    def __call__(self, *inputs: Any, **kwargs: Any) -> Any:
        self.seen = []
        with self._open():
            return self.call(*inputs, **kwargs)

    def of(self, n: int) -> Float[Tensor, "n Z"]:
        """The representation of n rows, of float32 at least.

        Raises `ModelError` if the call gave none, several, or no tensor of n rows.
        """
        if len(self.seen) != 1:
            raise ModelError(
                f"the forward calls the layer {self.layer!r} {len(self.seen)} times, expected once: name another (one "
                "inside a compiled or "
                "scripted part cannot be seen)"
            )
        z = self.seen[0]
        if not isinstance(z, Tensor) or not z.is_floating_point() or z.shape[:1] != (n,):
            got = f"{z.dtype} of shape {tuple(z.shape)}" if isinstance(z, Tensor) else type(z).__name__
            raise ModelError(
                f"the layer {self.layer!r} gives {got} for {n} inputs, expected one float tensor (n, ...): name another"
            )
        z = z.reshape(n, z[0].numel())
        return z if z.dtype.itemsize == 8 else z.float()

    def _submodule(self, name: str) -> nn.Module | None:
        try:
            return self.module.get_submodule(name)
        except AttributeError:
            return None

    def _near(self) -> str:
        kind = type(self.module)
        methods = [name for name in dir(kind) if name not in dir(nn.Module) and callable(getattr(kind, name))]
        names = [name for name, _ in self.module.named_modules(remove_duplicate=False) if name]
        found = difflib.get_close_matches(
            self.layer, [*names, *(f"{name}.{INPUT}" for name in names), *methods], n=3, cutoff=0.5
        )
        return f" (did you mean {' or '.join(map(repr, found))}?)" if found else ""

    @contextmanager
    def _open(self) -> Iterator[None]:
        if self.whole is None and not self.given:
            assert self.owner is not None
            with self._intercepted(self.owner, self.last):
                yield
            return
        if self.whole is not None:
            hook = self.whole.register_forward_hook(lambda module, args, given: self._see(given))
        else:
            assert self.owner is not None
            hook = self.owner.register_forward_pre_hook(
                lambda module, args, kwargs: self._see([*args, *kwargs.values(), None][0]), with_kwargs=True
            )
        try:
            yield
        finally:
            hook.remove()

    @contextmanager
    def _intercepted(self, owner: nn.Module, name: str) -> Iterator[None]:
        method, before = getattr(owner, name), owner.__dict__.get(name)

        def called(*args: Any, **kwargs: Any) -> Any:
            given = method(*args, **kwargs)
            self._see(given)
            return given

        owner.__dict__[name] = called
        try:
            yield
        finally:
            del owner.__dict__[name]
            if before is not None:
                owner.__dict__[name] = before

    def _see(self, given: Any) -> None:
        # a copy, because later steps may work in place
        self.seen.append(given.clone() if isinstance(given, Tensor) else given)


@dataclass(frozen=True)
class Towards:
    """The results of one forward at points that move in the space of a representation phi.

    `distance`: ``||phi(x) - phi_ref||**2``; `descent`: its gradient, (n, *P) per input; `value`: f of the requested
    outputs; `gradients`: the gradients of f, as of `Model.gradients`, computed when they are requested.
    """

    distance: Float[Tensor, " n"]
    descent: Tensors
    value: Float[Tensor, "n J"]
    gradients: Iterator[tuple[int, Tensors]]
