"""A module that several ranks hold together: their leader asks, and all of them go through it in the same step.

The leader alone has the data, the path and the store. It hands out points, and all ranks of its replica pass them
through the module, forward and back. So all ranks see the same samples, and whatever is built of forward passes and
gradients works as with a module that one rank holds. Only the plain way through autograd leads here.
"""

from __future__ import annotations

import copy
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from igc_dist.model.borrowing import hand_over
from igc_dist.model.footprint import out_of_memory
from igc_dist.records import ConfigError, PeerError
from igc_dist.tensors import Tensors

PARALLEL = "model_parallel"
"""Lightning's name of the strategy for models that several ranks hold together."""

STYLES = ("colwise", "rowwise")
"""How a layer is split among ranks, in torch's words: by its outputs, or by its inputs."""


@dataclass(frozen=True)
class Parts:
    """How the ranks of a replica hold the model together, in the words of Lightning's `ModelParallelStrategy`.

    `data`: ranks that hold a part of each weight (FSDP2), and take a part of the rows of a batch. `tensor`: ranks that
    hold a part of some layers, and take all rows. `how`: None (the blocks of the module, by FSDP2), a mapping of names
    of layers to colwise or rowwise (tensor parallel), or a function ``(module, mesh) -> module`` of the user's.
    Raises `ConfigError` for a number below 1, and for a way that does not fit the numbers.
    """

    data: int = 1
    tensor: int = 1
    how: Any = None

    def __post_init__(self) -> None:
        for name, number in (("data", self.data), ("tensor", self.tensor)):
            if number < 1:
                raise ConfigError(f"fabric.{name}_parallel_size={number}: give 1 or more ranks")
        if self.ranks == 1 and self.how is not None:
            raise ConfigError(
                "model.parallelize is given, and no rank shares the model: set fabric.data_parallel_size or "
                "fabric.tensor_parallel_size, or leave it out"
            )
        plan = isinstance(self.how, Mapping)
        if plan and (wrong := {*self.how.values()} - {*STYLES}):
            raise ConfigError(f"model.parallelize has {min(map(str, wrong))!r}: choose colwise or rowwise for a layer")
        if self.tensor > 1 and self.how is None:
            raise ConfigError(
                f"fabric.tensor_parallel_size={self.tensor} needs model.parallelize: a mapping of layers to colwise "
                "and rowwise, such as {blocks.*.up: colwise, blocks.*.down: rowwise}, or a function"
            )
        if plan and self.tensor == 1:
            raise ConfigError(
                "model.parallelize splits layers, and fabric.tensor_parallel_size is 1: set the number of ranks among "
                "which they are split, or leave it out"
            )

    @property
    def ranks(self) -> int:
        """The ranks of a replica."""
        return self.data * self.tensor


@runtime_checkable
class Links(Protocol):
    """The ranks of a replica, as one of them reaches the others. All call the same in the same order."""

    parts: int
    """The parts into which the rows of a batch are cut."""

    def say(self, word: Mapping[str, Any]) -> None:
        """Tell the others what is done next: on the leader."""

    def hear(self) -> dict[str, Any]:
        """What the leader says next: on the others."""

    def spread(self, tensors: Tensors | Sequence[tuple[list[int], torch.dtype]]) -> Tensors:
        """This rank's rows of the leader's tensors; the others give their shapes and types."""

    def collect(self, mine: Tensor) -> Tensor:
        """The rows of all parts, on the leader."""

    def guarded(self) -> AbstractContextManager[None]:
        """For work that needs the other ranks: says which of them failed."""


Graph = tuple[Tensor, Tensors]
"""The outputs for a rank's own rows, and the rows, which require gradients."""


@dataclass(eq=False)
class Lockstep:
    """A replica's way through its module. It is called on the leader, and `follow` runs on the others."""

    links: Links
    _number: int = 0
    _freed: list[int] = field(default_factory=list)
    """Graphs that the leader has dropped since it last spoke."""
    _astray: bool = False

    def __call__(self, model: Any, inputs: Tensors) -> Tensor:
        """The outputs (n, J) of the model, with a graph to the inputs if they require gradients.

        Raises `ConfigError` where something stands in place of the forward: only the leader would know it.
        """
        if model._call is not model._eager:
            raise ConfigError(
                "a model that several ranks hold together is called as it is, and here its forward is "
                "replaced: take one rank for each model (fabric.strategy=auto)"
            )
        y: Tensor = _Asked.apply(self, model, *inputs)
        return y

    def forward(self, model: Any, inputs: Tensors, graph: bool) -> tuple[Tensor, _Held | None]:
        """The outputs without a graph, and what `backward` needs. On the leader."""
        n, self._number = len(inputs[0]), self._number + 1
        inputs = tuple(self._filled(x.detach()) for x in inputs)
        with self._in_step():
            self._say("forward", inputs, graph=graph, precision=model.precision)
            y, points = passed(model, self.links.spread(inputs), graph)
            whole = self.links.collect(y.detach())[:n]
        if not (graph and y.requires_grad):
            self._freed.append(self._number)
            return whole, None
        held = _Held(self._number, (y, points), n)
        weakref.finalize(held, self._freed.append, self._number)
        return whole, held

    def backward(self, held: _Held, seed: Tensor) -> tuple[Tensor | None, ...]:
        """The gradients of ``(outputs * seed).sum()`` to the inputs; None where there is none. On the leader."""
        with self._in_step():
            seeds = (self._filled(seed.detach(), 0.0),)
            self._say("backward", seeds, of=held.number)
            (mine,) = self.links.spread(seeds)
            found = gradients(*held.graph, mine)
            return tuple(None if g is None else self.links.collect(g)[: held.n] for g in found)

    def end(self) -> None:
        """Let the others go. On the leader."""
        with self._in_step():
            self._say("end", ())

    def follow(self, model: Any) -> None:
        """Go through the model with the leader until it lets this rank go. On the others."""
        graphs: dict[int, Graph] = {}
        while (word := self.links.hear())["do"] != "end":
            with self._in_step():
                for number in word["freed"]:
                    graphs.pop(number, None)
                mine = self.links.spread([(shape, getattr(torch, dtype)) for shape, dtype in word["tensors"]])
                if word["do"] == "forward":
                    view = copy.copy(model)
                    view.precision = word["precision"]
                    y, points = passed(view, mine, word["graph"])
                    if word["graph"]:
                        graphs[word["number"]] = y, points
                    self.links.collect(y.detach())
                else:
                    for g in gradients(*graphs[word["of"]], mine[0]):
                        if g is not None:
                            self.links.collect(g)

    def _say(self, do: str, tensors: Tensors, **more: Any) -> None:
        freed, self._freed[:] = [*self._freed], []
        kinds = [([*x.shape], str(x.dtype).removeprefix("torch.")) for x in tensors]
        self.links.say({"do": do, "number": self._number, "tensors": kinds, "freed": freed, **more})

    def _filled(self, x: Tensor, value: float | None = None) -> Tensor:
        """Rows for all parts alike: filled with copies of the last row, or with `value`."""
        missing = -len(x) % self.links.parts
        if not missing:
            return x
        last = x[-1:].expand(missing, *x.shape[1:])
        return torch.cat((x, last if value is None else torch.full_like(last, value)))

    @contextmanager
    def _in_step(self) -> Iterator[None]:
        """After an error in here the ranks are at different places, and nothing more can be done together."""
        if self._astray:
            raise PeerError("the ranks of this replica are out of step since an error: run again to resume")
        self._astray = True
        with self.links.guarded():
            try:
                yield
            except (RuntimeError, MemoryError) as error:
                if out_of_memory(error):
                    raise ConfigError(
                        f"out of memory on a rank of a replica ({str(error).splitlines()[0]}), whose ranks cannot go "
                        "on in smaller micro-batches: set plan.micro_batch, or take more ranks for a replica"
                    ) from error
                raise
        self._astray = False


@dataclass(eq=False)
class _Held:
    """A graph on the leader: its number on the other ranks, its own part, and the rows of the whole batch."""

    number: int
    graph: Graph
    n: int


def divide(model: Any, split: Callable[[nn.Module], nn.Module], links: Links) -> None:
    """Hand the module of a model over to the ranks of a replica, for good: frozen, in eval mode, and then `split`."""
    hand_over(model.module, model.precision == "64-true")
    module = split(model.module)
    model.module = model._call = model._eager = module
    model._habits.in_one_order = False  # the other ranks are not asked for it
    model.steps = Lockstep(links)


def passed(model: Any, rows: Tensors, graph: bool) -> Graph:
    """A rank's own forward pass."""
    if not graph:
        with torch.no_grad():
            return model.alone(rows), rows
    with torch.enable_grad():
        points = tuple(x.detach().requires_grad_(x.is_floating_point()) for x in rows)
        return model.alone(points), points


def gradients(y: Tensor, points: Tensors, seed: Tensor) -> tuple[Tensor | None, ...]:
    """A rank's own backward pass. The graph is kept, as other outputs may follow."""
    return torch.autograd.grad(y, points, seed, retain_graph=True, allow_unused=True)


class _Asked(torch.autograd.Function):
    """A forward pass of all ranks as one node of the leader's graph."""

    @staticmethod
    def forward(ctx: Any, steps: Lockstep, model: Any, *inputs: Tensor) -> Tensor:
        y, ctx.held = steps.forward(model, inputs, any(ctx.needs_input_grad))
        ctx.steps = steps
        if ctx.held is None:
            ctx.mark_non_differentiable(y)
        return y

    @staticmethod
    def backward(ctx: Any, seed: Tensor) -> Any:
        return None, None, *ctx.steps.backward(ctx.held, seed)
