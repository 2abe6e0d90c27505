"""Hard attention to the task (HAT): each task learns which units it uses, and later tasks leave those as they are.

.. [Serra2018] J. Serra, D. Suris, M. Miron, A. Karatzoglou. Overcoming Catastrophic Forgetting with Hard Attention to
   the Task. ICML 2018.

Every unit (a convolution's channel, a linear layer's output) has one number e per task; its output is multiplied by the
gate a = sigmoid(s e). The scale s grows within each epoch, from gates of 1/2 that let gradients through to gates of 0
or 1 as they are when the task answers.

One thing is not the paper's: its step size falls by 3 after 5 epochs without a lower validation loss; ours follows
``TrainingConfig.schedule``, as every method's.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any, ClassVar, final

import torch
from torch import Tensor

from lasem.data import Task
from lasem.errors import ConfigError
from lasem.methods.method import AbstractMethod, Learned, Setup
from lasem.methods.model import Model
from lasem.methods.plain import NetworkPhase, gradient_of, initial_head, initial_layers, run, shared_and_own
from lasem.nets import AbstractNet, Net
from lasem.settings import Range, Settings
from lasem.training import Batch, Named, PhaseResult, Plan, Snapshot, Step, TrainingConfig, part_of

EMBEDDING_BOUND = 6.0
"""Embeddings are kept within this of 0: beyond it, gates hardly move any more ([Serra2018]_)."""
COSH_BOUND = 50.0
"""What cosh is taken of is kept within this of 0, so that it is a number ([Serra2018]_)."""


@final
@dataclass(frozen=True, kw_only=True)
class HAT(Settings, AbstractMethod):
    """All layers shared, heads apart; gates choose the units of each task and protect them ([Serra2018]_)."""

    name: ClassVar[str] = "hat"
    harm_of_decay: ClassVar[str] = "shrink the weights that earlier tasks use"
    training: ClassVar[Mapping[str, Any]] = {"optimiser": "sgd", "learning_rate": 0.05, "momentum": 0.0}

    penalty: Annotated[float, Range(least=0)] = 0.75
    """Weight of the share of unprotected units that the task uses, the paper's c; not negative. The higher, the more
    units remain for later tasks."""
    max_scale: Annotated[float, Range(least=1)] = 400.0
    """How steep gates are at the end of each epoch and wherever the task answers, the paper's s_max: the higher, the
    nearer to 0 or 1 they are; at least 1."""
    clip: Annotated[float, Range(above=0)] = 10000.0
    """Largest norm of a step's gradient, as the authors' code sets it; positive."""

    def check(self, net: AbstractNet, training: TrainingConfig) -> None:
        super().check(net, training)
        if training.optimiser != "sgd":
            raise ConfigError(
                f"HAT needs TrainingConfig.optimiser='sgd'; got '{training.optimiser}', which divides each gradient by "
                "its usual size: weights whose gradients HAT makes small would move all the same."
            )

    def plan(self, model: Model, task: Task, setup: Setup) -> Plan[Learned]:
        start, used = dict(model.shared or initial_layers(setup)), []
        for i, num in enumerate((*setup.net.channels, *setup.net.linear)):
            used.append(model.memory.get(f"used.{i}", torch.zeros(num, device=setup.device)))
            # standard normal: about half of the units begin as used
            start[f"embedding.{i}"] = torch.randn(num, generator=setup.generator("embedding", i))
        start |= initial_head(setup, task.num_classes)
        fitted: PhaseResult = yield _Phase(task, setup, start, self, used)

        def model_of(snapshot: Snapshot) -> Model:
            shared, own = shared_and_own(snapshot.weights)
            uses = zip(used, gates(own, setup.net, self.max_scale), strict=True)
            memory = {f"used.{i}": torch.maximum(before, gate) for i, (before, gate) in enumerate(uses)}
            return Model(shared, {**model.own, task.name: own}, memory)

        return Learned.of(setup, fitted, model_of)

    def logits(self, net: Net, model: Model, name: str, x: Tensor) -> Tensor:
        own = model.own[name]
        opened = gates(own, net, self.max_scale)
        return run(net, {**model.shared, **own}, x, gate=lambda i, _: opened[i])


def gates(embeddings: Named, net: Net, scale: float) -> list[Tensor]:
    """Return the gates a = sigmoid(s e) of every layer, e being its ``embedding.I`` ([Serra2018]_, Architecture).

    They multiply what a block puts out after pooling: a factor above 0 and max-pooling may change places.
    """
    return [torch.sigmoid(scale * embeddings[f"embedding.{i}"]) for i in range(net.depth)]


def annealed(batch: int, num_batches: int, max_scale: float) -> float:
    """Return the scale s of an epoch's mini-batch, counted from 0 ([Serra2018]_, Hard Attention Training).

    It grows linearly from 1 / s_max to s_max; if there is one mini-batch only, it is s_max.
    """
    progress = batch / (num_batches - 1) if num_batches > 1 else 1.0
    return 1 / max_scale + (max_scale - 1 / max_scale) * progress


def compensation(embedding: Tensor, scale: float, max_scale: float) -> Tensor:
    """Return the factor on an embedding's gradient that makes it independent of the scale, shaped like ``embedding``.

    s_max [cosh(s e) + 1] / (s [cosh(e) + 1]) ([Serra2018]_, Embedding Gradient Compensation).
    """
    steep = torch.cosh((scale * embedding).clamp(-COSH_BOUND, COSH_BOUND)) + 1
    return max_scale / scale * steep / (torch.cosh(embedding) + 1)


def free(net: Net, used: Sequence[Tensor]) -> dict[str, Tensor]:
    """Return the factor on each shared weight's gradient, 1 - min(A_out, A_in) ([Serra2018]_, Network Training).

    A weight is protected as far as both its ends are. Every task uses the images, so the first layer's inputs count
    as used, as does what goes into a bias. ``used`` is A: for each layer the largest gate of each unit over the
    earlier tasks.

    Returns:
        By flat name, each of a shape that broadcasts to the weight's.
    """
    factors: dict[str, Tensor] = {}
    for i, block in enumerate(net.blocks):
        for name, shape in block.shapes.items():
            protected = used[i].view(-1, *(1,) * (len(shape) - 1))
            if i > 0 and len(shape) > 1:
                # where convolutions end, each channel is as many inputs in a row as it has pixels
                inputs = used[i - 1].repeat_interleave(shape[1] // len(used[i - 1]))
                protected = torch.minimum(protected, inputs.view(1, -1, *(1,) * (len(shape) - 2)))
            factors[f"layer.{i}.{name}"] = 1 - protected
    return factors


def use_of_free_units(layer_gates: Sequence[Tensor], used: Sequence[Tensor]) -> Tensor:
    """Return the share of the unprotected units that gates let through, sum a (1 - A) / sum (1 - A).

    It is 0 when there is no unprotected unit ([Serra2018]_, Promoting Low Capacity Usage).
    """
    open_ = torch.cat(list(layer_gates))
    unprotected = 1 - torch.cat(list(used))
    return (open_ * unprotected).sum() / unprotected.sum().clamp_min(torch.finfo(unprotected.dtype).tiny)


@dataclass(eq=False)
class _Phase(NetworkPhase):
    method: HAT
    used: list[Tensor]

    def __post_init__(self) -> None:
        super().__post_init__()
        self._free = free(self.setup.net, self.used)
        self._batch = 0
        """Position of the next mini-batch in its epoch, which ``loss`` does not get."""

    def begin_epoch(self, weights: Named, epoch: int, learning_rate: float) -> None:
        self._batch = 0

    def answer(self, weights: Named, dropout: torch.Generator | None = None) -> Callable[[Tensor], Tensor]:
        last = gates(weights, self.setup.net, self.method.max_scale)
        return partial(run, self.setup.net, weights, dropout=dropout, gate=lambda i, _: last[i])

    def loss(self, weights: Named, batch: Batch, dropout: torch.Generator) -> Tensor:
        now = gates(weights, self.setup.net, self._scale(self._batch))
        logits = run(self.setup.net, weights, batch.x, dropout=dropout, gate=lambda i, _: now[i])
        return batch.cross_entropy(logits) + self.method.penalty * use_of_free_units(now, self.used)

    @torch.no_grad()
    def change_gradients(self, weights: Named, step: Step) -> None:
        self._batch = step.batch + 1
        scale = self._scale(step.batch)
        for name, weight in weights.items():
            if name in self._free:
                gradient_of(weight).mul_(self._free[name])
            elif name.startswith("embedding."):
                gradient_of(weight).mul_(compensation(weight, scale, self.method.max_scale))
        torch.nn.utils.clip_grad_norm_(list(weights.values()), self.method.clip)

    def after_step(self, weights: Named, step: Step) -> None:
        for embedding in part_of(weights, "embedding").values():
            embedding.clamp_(-EMBEDDING_BOUND, EMBEDDING_BOUND)

    def _scale(self, batch: int) -> float:
        return annealed(batch, self.num_batches, self.method.max_scale)
