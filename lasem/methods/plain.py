"""The plain network with given weights, and the phase that trains it: what most methods build on.

Flat names: ``layer.I.weight``, ``layer.I.bias`` for the blocks, ``head.weight.J``, ``head.bias.J`` for the head; where
the heads of all tasks are trained together, ``task.K.head.weight.J``, ... for the head of the K-th task.
"""

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from lasem.data import Task
from lasem.methods.model import Model, prefixed
from lasem.nets import AbstractNet, Head, start_generator
from lasem.nets.block import Value
from lasem.space.prefix_tree import selected
from lasem.training import AbstractPhase, Batch, EpochSummary, Named, Step, accuracy, part_of

if TYPE_CHECKING:
    from lasem.methods.method import Setup

Gate = Callable[[int, Tensor], Tensor]
"""From a layer's position and its input (B, ...) to a factor for each of its output channels, (out,) or (B, out)."""

Paths = Mapping[str, Sequence[Hashable]]
"""For each task what its layers are called, input side first: layers called the same have the same weights."""

Rows = Mapping[str, Sequence[int]]
"""For each task the positions of its images among those of several tasks."""

_HEADS_AT_ONCE = 64


def run(
    net: AbstractNet,
    weights: Named,
    x: Tensor,
    *,
    dropout: torch.Generator | None = None,
    gate: Gate | None = None,
) -> Tensor:
    """Return the network's logits (B, num_classes).

    Args:
        net: the network.
        weights: of every layer and of the head, by flat name.
        x: shape (B, channels, height, width).
        dropout: source of the dropout mask; None switches dropout off.
        gate: gives factors that multiply the layers' outputs, after ReLU and pooling.
    """
    return net.head.apply(part_of(weights, "head"), features(net, weights, x, gate), dropout)


def features(net: AbstractNet, weights: Named, x: Tensor, gate: Gate | None = None) -> Tensor:
    """Return what the head of ``run`` gets, shape (B, ...); arguments as there."""
    x = x.contiguous(memory_format=torch.channels_last)  # 1.1 to 1.4 times faster on a CPU, and no slower elsewhere
    for i, block in enumerate(net.blocks):
        out = block.apply(part_of(weights, f"layer.{i}"), x)
        if gate is not None:
            factors = gate(i, x)
            out = out * factors.view(factors.shape + (1,) * (out.dim() - 2))
        x = out
    return x


def run_many(
    net: AbstractNet, paths: Paths, weights: Callable[[str, int], Named], rows: Rows, x: Tensor
) -> dict[str, Tensor]:
    """Return the logits of many tasks at once, of shape (number of a task's images, number of its classes).

    Tasks are the leaves of a tree whose branches are layers: those with the same first layers share a branch. Each
    branch runs once, depth first, on the images of its tasks.

    Args:
        net: the network.
        paths: of the tasks, and perhaps of others.
        weights: gives a task's weights of a layer by the layer's position, and at ``net.depth`` those of its head.
        rows: of the tasks; together all of ``x``.
        x: shape (B, channels, height, width).
    """
    return _branch(net, paths, weights, rows, x.contiguous(memory_format=torch.channels_last), 0)  # as in ``features``


def _branch(
    net: AbstractNet, paths: Paths, weights: Callable[[str, int], Named], rows: Rows, x: Value, layer: int
) -> dict[str, Tensor]:
    """Run the branch that some tasks share, and all that leaves it, from a layer on."""
    while layer < net.depth:
        branches: dict[Hashable, dict[str, Sequence[int]]] = {}
        for name, at in rows.items():
            branches.setdefault(paths[name][layer], {})[name] = at
        if len(branches) > 1:
            each = (_branch(net, paths, weights, *_only(part, x), layer) for part in branches.values())
            return {name: logits for found in each for name, logits in found.items()}
        x = net.blocks[layer].apply(weights(next(iter(rows)), layer), x)
        layer += 1
    logits: dict[str, Tensor] = {}
    for start in range(0, len(rows), _HEADS_AT_ONCE):
        some = list(rows)[start : start + _HEADS_AT_ONCE]
        found = net.head.apply_each([weights(name, layer) for name in some], x, [rows[name] for name in some])
        logits |= zip(some, found, strict=True)
    return logits


def _only(rows: Rows, x: Value) -> tuple[Rows, Value]:
    """Return some tasks' rows of what alone they need of ``x``, and that."""
    used = sorted({row for at in rows.values() for row in at})
    place = {row: k for k, row in enumerate(used)}
    taken = selected(x, tuple(used), len(x[0] if isinstance(x, tuple) else x), 1)
    return {name: [place[row] for row in at] for name, at in rows.items()}, taken


def initial_layers(setup: "Setup") -> dict[str, Tensor]:
    """Return fresh weights of every block, on the CPU: those that every method starts from (``start_generator``)."""
    weights: dict[str, Tensor] = {}
    for i, block in enumerate(setup.net.blocks):
        generator = start_generator(setup.seed, setup.index, i)
        weights |= prefixed(f"layer.{i}", block.initial(generator, setup.net.initial))
    return weights


def initial_head(
    setup: "Setup", num_classes: int, generator: torch.Generator | None = None, head: Head | None = None
) -> dict[str, Tensor]:
    """Return fresh weights of a head, on the CPU.

    Without another ``generator`` and ``head``, they are those of the network's head that every method starts from.
    """
    generator = generator or start_generator(setup.seed, setup.index, setup.net.depth)
    return prefixed("head", (head or setup.net.head).initial(num_classes, generator, setup.net.initial))


def shared_and_own(weights: Named) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Return the layers' weights, and all others: the head's and what else a task owns."""
    shared = {name: value for name, value in weights.items() if name.startswith("layer.")}
    return shared, {name: value for name, value in weights.items() if name not in shared}


def gradient_of(weight: Tensor) -> Tensor:
    """Return the gradient of a tensor that is trained."""
    assert weight.grad is not None
    return weight.grad


@dataclass(eq=False)
class NetworkPhase(AbstractPhase):
    """Trains all weights that it starts from by cross-entropy; methods override what they do otherwise."""

    task: Task
    setup: "Setup"
    start: dict[str, Tensor]
    """Of every tensor that is trained, by name."""
    fixed: Named = field(default_factory=dict, kw_only=True)
    """Masks, by name, of the numbers in them that no step moves."""

    def __post_init__(self) -> None:
        self.config = self.setup.training

    def initial(self) -> dict[str, Tensor]:
        return self.start

    def answer(self, weights: Named, dropout: torch.Generator | None = None) -> Callable[[Tensor], Tensor]:
        """Return the network with some weights, from images (B, ...) to logits (B, num_classes): here the plain one.

        Args:
            weights: what is trained.
            dropout: source of the dropout mask in training; None when the network answers.
        """
        return partial(run, self.setup.net, weights, dropout=dropout)

    def loss(self, weights: Named, batch: Batch, dropout: torch.Generator) -> Tensor:
        return batch.cross_entropy(self.answer(weights, dropout)(batch.x))

    def change_gradients(self, weights: Named, step: Step) -> None:
        for name, mask in self.fixed.items():
            gradient_of(weights[name]).masked_fill_(mask, 0.0)

    @torch.no_grad()
    def accuracy(self, weights: Named) -> float:
        return accuracy(self.answer(weights), self.task.valid, self.setup.device)

    def summary(self) -> EpochSummary:
        return EpochSummary("T" * self.setup.net.depth)


def with_heads(layers: Named, heads: Iterable[Named]) -> dict[str, Tensor]:
    """Return the layers' weights and those of each task's head under one name each."""
    weights = dict(layers)
    for k, head in enumerate(heads):
        weights |= prefixed(f"task.{k}", head)
    return weights


def network_of(weights: Named, k: int) -> dict[str, Tensor]:
    """Return the plain network that answers for the k-th task."""
    return {**shared_and_own(weights)[0], **part_of(weights, f"task.{k}")}


def model_of_heads(weights: Named, names: Iterable[str], memory: Named) -> Model:
    """Return the model in which each task owns its head.

    Args:
        weights: as ``with_heads`` returns them.
        names: of the tasks, in the order of their heads.
        memory: see ``Model``.
    """
    own = {name: part_of(weights, f"task.{k}") for k, name in enumerate(names)}
    return Model(shared_and_own(weights)[0], own, memory)


@dataclass(eq=False)
class HeadsPhase(NetworkPhase):
    """Trains the layers and every head, of which the last one is the new task's."""

    num_tasks: int
    """With the new one."""

    def answer(self, weights: Named, dropout: torch.Generator | None = None) -> Callable[[Tensor], Tensor]:
        return super().answer(network_of(weights, self.num_tasks - 1), dropout)

    def answers(
        self, weights: Named, x: Tensor, num_heads: int, dropout: torch.Generator | None = None
    ) -> list[Tensor]:
        """Return the logits (B, number of the task's classes) of the first heads, whose layers run once.

        Args:
            weights: as ``with_heads`` returns them.
            x: shape (B, channels, height, width).
            num_heads: how many heads answer.
            dropout: source of one dropout mask for each head; None switches dropout off.
        """
        net, inputs = self.setup.net, features(self.setup.net, weights, x)
        return [net.head.apply(part_of(weights, f"task.{k}.head"), inputs, dropout) for k in range(num_heads)]
