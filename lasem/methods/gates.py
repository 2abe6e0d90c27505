"""Gates on units: for every image, or for a task, each unit's output is multiplied by a factor.

.. [Abati2020] D. Abati, J. Tomczak, T. Blankevoort, S. Calderara, R. Cucchiara, B. Ehteshami Bejnordi. Conditional
   Channel Gated Networks for Task-Aware Continual Learning. CVPR 2020.
.. [Serra2018] J. Serra, D. Suris, M. Miron, A. Karatzoglou. Overcoming Catastrophic Forgetting with Hard Attention to
   the Task. ICML 2018.

In channel-gated networks a small network chooses the channels of each layer, for every image. With hard attention to
the task (HAT) every unit (a convolution's channel, a linear layer's output) has one number e per task; its output is
multiplied by the gate a = sigmoid(s e). The scale s grows within each epoch, from gates of 1/2 that let gradients
through to gates of 0 or 1 as they are when the task answers.

One thing in HAT is not the paper's: its step size falls by 3 after 5 epochs without a lower validation loss; ours
follows ``TrainingConfig.schedule``, as every method's.
"""

import math
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Annotated, Any, ClassVar, final

import torch
import torch.nn.functional as F
from torch import Tensor

from lasem.data import Split, Task
from lasem.errors import ConfigError
from lasem.methods.method import AbstractMethod, Learned, Setup
from lasem.methods.model import Model, prefixed
from lasem.methods.plain import Gate, NetworkPhase, gradient_of, initial_head, initial_layers, run, shared_and_own
from lasem.nets import AbstractNet, ConvBlock, Head, Net, Weights, as_float32, full_precision
from lasem.nets.block import initial_weight
from lasem.settings import Range, Settings
from lasem.training import (
    Batch,
    Named,
    PhaseResult,
    Plan,
    Snapshot,
    Step,
    TrainingConfig,
    autocast,
    evaluation_batch,
    part_of,
)
from lasem.tree import Path

_MOMENTUM = 0.1
_EPSILON = 1e-5
"""Of batch normalisation; torch's own choices."""

EMBEDDING_BOUND = 6.0
"""Embeddings are kept within this of 0: beyond it, gates hardly move any more ([Serra2018]_)."""
COSH_BOUND = 50.0
"""What cosh is taken of is kept within this of 0, so that it is a number ([Serra2018]_)."""


class _AbstractGated(Settings, AbstractMethod):
    """A method whose tasks answer through gates."""

    @abstractmethod
    def gate(self, net: Net, weights: Named) -> Gate:
        """Return the gates with which a task answers."""

    def logits(self, net: Net, model: Model, name: str, x: Tensor) -> Tensor:
        weights = {**model.shared, **model.own[name]}
        return run(net, weights, x, gate=self.gate(net, weights))


@final
@dataclass(frozen=True, kw_only=True)
class ChannelGated(_AbstractGated):
    """Every task has a gate at each layer that opens and closes channels, and a head ([Abati2020]_, task-incremental).

    A layer answers with g(x) * h(x), h its own output and g in {0, 1} by channel. The loss is ``CE + sparsity / L sum_l
    mean_x |g_l(x)|_1 / c_l`` over L layers of c_l channels. After a task, channels that its gates opened on the
    validation images are frozen: later tasks use them and do not change them. All others start afresh with the next
    task. When no channel is left, later tasks learn gates and heads only.

    A frozen channel keeps its whole kernel and its bias. What it reads from channels that were closed is 0 whatever
    they compute, so an old task answers the same bits to every image that opens frozen channels only. A gate may open
    for a test image though it stayed closed for the validation images; that channel is not the one that the task was
    trained with, and this is all that the method can forget. It happens the more, the fewer the validation images are.
    """

    name: ClassVar[str] = "gated"

    sparsity: Annotated[float, Range(least=0)] = 8.0
    """Weight of the share of open gates in the loss; not negative. Too little, and the first task freezes every
    channel; too much, and all gates close. The right weight grows as tasks get fewer steps: 0.5 and less is usual for
    thousands of images a class."""
    dense_share: Annotated[float, Range(least=0, most=1)] = 0.3
    """Share of a task's epochs before the sparsity term sets in, so that gates do not close before features are
    learned; in [0, 1]."""
    threshold: Annotated[float, Range(least=0, most=1)] = 0.0
    """A channel is frozen if its gate is open on more than this share of the validation images; in [0, 1]. 0 as in the
    paper: whatever was open once is kept. More forgets, and leaves more channels to later tasks."""
    opening: Annotated[float, Range()] = 3.0
    """Bias with which gates start; positive: rather open. At 0 they are the toss of a coin in training, which a few
    hundred images do not overcome. The paper does not say how gates start."""
    gate_step: Annotated[float, Range(above=0)] = 10.0
    """Step size of gates, relative to other weights'; positive. 1 as published; a few hundred steps of 5e-4, all that
    tasks with some hundred images have, close no gate whatever the sparsity."""
    hidden: Annotated[int, Range(least=1, most=2**20)] = 16
    """Units of a gate's hidden layer; at least 1."""
    temperature: Annotated[float, Range(above=0)] = 2 / 3
    """Of the sigmoid whose gradient stands in for that of a gate's step from closed to open; positive."""

    def plan(self, model: Model, task: Task, setup: Setup) -> Plan[Learned]:
        frozen = part_of(model.memory, "frozen")
        layers = {name: value.to(setup.device) for name, value in initial_layers(setup).items()}
        fixed = frozen_numbers(layers, frozen)
        layers |= {name: torch.where(mask, model.shared[name], layers[name]) for name, mask in fixed.items()}
        start = {**layers, **self.initial_gates(setup), **initial_head(setup, task.num_classes)}
        fitted: PhaseResult = yield _Phase(task, setup, start, self, fixed=fixed)

        def model_of(snapshot: Snapshot) -> Model:
            shared, own = shared_and_own(snapshot.weights)
            memory = {}
            with autocast(setup.training.precision, setup.device):
                rates = firing_rates(setup.net, snapshot.weights, task.valid, setup.device)
            for i, rate in enumerate(rates):
                used = rate > self.threshold
                memory[f"frozen.{i}"] = frozen[f"{i}"] | used if frozen else used
            return Model(shared, {**model.own, task.name: own}, memory)

        return Learned.of(setup, fitted, model_of)

    def gate(self, net: Net, weights: Named) -> Gate:
        return decided(weights)

    def initial_gates(self, setup: Setup) -> dict[str, Tensor]:
        """Return fresh gates on the CPU: ``gate.I.`` weight.0, scale, shift, mean, variance, weight.1, bias.1.

        A linear map without bias to the hidden units, batch normalisation (``mean`` and ``variance`` are running
        ones), ReLU, and a linear map to the channels.
        """
        rule = setup.net.initial
        gates: dict[str, Tensor] = {}
        for i, (inputs, outputs) in enumerate(channels(setup.net)):
            generator = setup.generator("gate", i)
            gate = {
                "weight.0": initial_weight((self.hidden, inputs), generator, rule),
                "scale": torch.ones(self.hidden),
                "shift": torch.zeros(self.hidden),
                "mean": torch.zeros(self.hidden),
                "variance": torch.ones(self.hidden),
                "weight.1": initial_weight((outputs, self.hidden), generator, rule),
                "bias.1": torch.full((outputs,), float(self.opening)),
            }
            gates |= prefixed(f"gate.{i}", gate)
        return gates


@final
@dataclass(frozen=True, kw_only=True)
class LasemChannelGated(_AbstractGated):
    """What the authors of LASEM compared with under the name of channel-gated networks.

    It differs from [Abati2020]_ in all that keeps tasks apart: g is a softmax over the channels, so that they share 1;
    the sparsity term is a constant (the mean of such g is 1 / c_l); and nothing is frozen. What is left is a network
    that all tasks train, with weights of a task's own on its channels. Kept to compare with the paper's numbers.
    """

    name: ClassVar[str] = "gated_lasem_compat"

    sparsity: Annotated[float, Range(least=0)] = 100.0
    """Weight of the mean size of the gates' factors in the loss, which no gradient changes; not negative."""
    hidden: Annotated[int, Range(least=1, most=2**20)] = 256
    """Units of a gate's hidden layer, which reads the layer's whole input; at least 1."""
    temperature: Annotated[float, Range(above=0)] = 0.1
    """Of the softmax over a layer's channels that is its gate; positive."""

    def plan(self, model: Model, task: Task, setup: Setup) -> Plan[Learned]:
        layers = model.shared or initial_layers(setup)
        start = {**layers, **self.initial_gates(setup), **initial_head(setup, task.num_classes)}
        fitted: PhaseResult = yield _LasemPhase(task, setup, start, self)

        def model_of(snapshot: Snapshot) -> Model:
            shared, own = shared_and_own(snapshot.weights)
            return model.having(shared=shared, own={**model.own, task.name: own})

        return Learned.of(setup, fitted, model_of)

    def gate(self, net: Net, weights: Named) -> Gate:
        """Return g = softmax(MLP(flattened input) / temperature)."""
        stacks = self._stacks(net)

        def gate(i: int, x: Tensor) -> Tensor:
            logits = as_float32(stacks[i].apply(part_of(weights, f"gate.{i}"), x))
            return torch.softmax(logits / self.temperature, dim=1)

        return gate

    def initial_gates(self, setup: Setup) -> dict[str, Tensor]:
        """Return fresh gates of every layer, on the CPU: ``gate.I.weight.J``, ``gate.I.bias.J``."""
        gates: dict[str, Tensor] = {}
        for i, (stack, (_, outputs)) in enumerate(zip(self._stacks(setup.net), channels(setup.net), strict=True)):
            fresh = stack.initial(outputs, setup.generator("gate", i), setup.net.initial)
            gates |= prefixed(f"gate.{i}", fresh)
        return gates

    def _stacks(self, net: Net) -> list[Head]:
        """Each layer's MLP: the same stack of linear layers and ReLU that a head is."""
        shapes: list[tuple[int, ...]] = [net.image_shape]
        for block in net.blocks[:-1]:
            _, *sides = shapes[-1]
            if isinstance(block, ConvBlock):
                shapes.append((block.out_channels, *map(block.output_size, sides)))
            else:
                shapes.append(block.shapes["bias"])
        return [Head(math.prod(shape), (self.hidden,), dropout=0.0) for shape in shapes]


def channels(net: Net) -> list[tuple[int, int]]:
    """Return each layer's channels of its input and of its output; units are a linear layer's channels."""
    return list(pairwise((net.image_shape[0], *net.channels, *net.linear)))


def run_gated(
    net: Net, weights: Named, x: Tensor, gate: Gate, dropout: torch.Generator | None = None
) -> tuple[Tensor, list[Tensor]]:
    """Return the logits (B, num_classes) of a network with gates, and each layer's factors (B, out)."""
    factors: list[Tensor] = []

    def kept(i: int, x: Tensor) -> Tensor:
        factors.append(gate(i, x))
        return factors[i]

    return run(net, weights, x, dropout=dropout, gate=kept), factors


def hidden_units(gate: Weights, x: Tensor) -> Tensor:
    """Return a gate's hidden units (B, hidden) before normalisation, from the mean of each channel."""
    x = as_float32(x)  # running statistics are taken of them
    with full_precision(x.device):
        return F.linear(x.mean(dim=(2, 3)) if x.dim() == 4 else x, gate["weight.0"])


def gate_logits(gate: Weights, hidden: Tensor, mean: Tensor, variance: Tensor) -> Tensor:
    """Return the logits (B, out) of a gate being open, from its ``hidden_units``."""
    normal = (hidden - mean) * torch.rsqrt(variance + _EPSILON)
    with full_precision(hidden.device):
        return F.linear(F.relu(normal * gate["scale"] + gate["shift"]), gate["weight.1"], gate["bias.1"])


def straight_through(logits: Tensor, temperature: float) -> Tensor:
    """Return 1 where a logit is above 0, else 0, with the gradient of sigmoid(logits / temperature)."""
    soft = torch.sigmoid(logits / temperature)
    return (logits > 0).to(logits) + (soft - soft.detach())


def decided(weights: Named) -> Gate:
    """Return gates without noise, 0 or 1, that go by the running mean and variance."""

    def gate(i: int, x: Tensor) -> Tensor:
        own = part_of(weights, f"gate.{i}")
        logits = gate_logits(own, hidden_units(own, x), own["mean"], own["variance"])
        return (logits > 0).to(logits)

    return gate


@torch.no_grad()
def firing_rates(net: Net, weights: Named, split: Split, device: torch.device) -> list[Tensor]:
    """Return for each layer the share of a split's images that open each channel, shape (out,)."""
    totals = [torch.zeros(outputs, device=device) for _, outputs in channels(net)]
    gate = decided(weights)
    for x, _ in split.batches(evaluation_batch(split.images.shape), device=device):
        for total, factor in zip(totals, run_gated(net, weights, x, gate)[1], strict=True):
            total += factor.sum(dim=0)
    return [total / len(split) for total in totals]


def frozen_numbers(layers: Named, frozen: Named) -> dict[str, Tensor]:
    """Return masks of the kernels and biases of frozen channels, by flat name.

    Args:
        layers: weights of every layer, by flat name.
        frozen: for each layer's position, which channels are, bool of shape (out,); nothing before the first task.
    """
    of = {name: frozen[name.split(".")[1]] for name in layers} if frozen else {}
    return {name: rows.view(-1, *(1,) * (layers[name].dim() - 1)) for name, rows in of.items()}


@dataclass(eq=False)
class _GatedPhase(NetworkPhase):
    method: _AbstractGated

    def answer(self, weights: Named, dropout: torch.Generator | None = None) -> Callable[[Tensor], Tensor]:
        return partial(run, self.setup.net, weights, dropout=dropout, gate=self.method.gate(self.setup.net, weights))


@dataclass(eq=False)
class _Phase(_GatedPhase):
    """Frozen channels stay."""

    method: ChannelGated

    def __post_init__(self) -> None:
        super().__post_init__()
        self._sparse = False
        self._moments: dict[int, tuple[Tensor, Tensor]] = {}

    def scale(self, path: Path) -> float:
        return self.method.gate_step if str(path[0]).startswith("gate.") else 1.0

    def begin_epoch(self, weights: Named, epoch: int, learning_rate: float) -> None:
        self._sparse = epoch >= self.method.dense_share * self.config.epochs

    def loss(self, weights: Named, batch: Batch, dropout: torch.Generator) -> Tensor:
        def gate(i: int, x: Tensor) -> Tensor:
            own = part_of(weights, f"gate.{i}")
            hidden = hidden_units(own, x)
            mean, variance = hidden.mean(dim=0), hidden.var(dim=0, correction=0)
            self._moments[i] = (mean.detach(), variance.detach() * (len(x) / max(len(x) - 1, 1)))
            logits = gate_logits(own, hidden, mean, variance)
            # the difference of two Gumbel variables, for open and for closed, is logistic
            noise = torch.logit(torch.rand(logits.shape, generator=dropout, device=logits.device))
            return straight_through(logits + noise, self.method.temperature)

        logits, factors = run_gated(self.setup.net, weights, batch.x, gate, dropout)
        loss = batch.cross_entropy(logits)
        return loss + self.method.sparsity * mean_open(factors) if self._sparse else loss

    def after_step(self, weights: Named, step: Step) -> None:
        for i, (mean, variance) in self._moments.items():
            weights[f"gate.{i}.mean"].lerp_(mean, _MOMENTUM)
            weights[f"gate.{i}.variance"].lerp_(variance, _MOMENTUM)
        if self.config.weight_decay > 0:  # it moves weights that have no gradient
            for name, mask in self.fixed.items():
                weights[name].copy_(torch.where(mask, self.start[name], weights[name]))


def mean_open(factors: Sequence[Tensor]) -> Tensor:
    """Return 1 / L sum_l mean_x |g_l(x)|_1 / c_l of L layers' factors (B, c_l)."""
    return torch.stack([factor.abs().mean() for factor in factors]).mean()


@dataclass(eq=False)
class _LasemPhase(_GatedPhase):
    method: LasemChannelGated

    def loss(self, weights: Named, batch: Batch, dropout: torch.Generator) -> Tensor:
        gate = self.method.gate(self.setup.net, weights)
        logits, factors = run_gated(self.setup.net, weights, batch.x, gate, dropout)
        return batch.cross_entropy(logits) + self.method.sparsity * mean_open(factors)


@final
@dataclass(frozen=True, kw_only=True)
class HAT(_AbstractGated):
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
        fitted: PhaseResult = yield _HATPhase(task, setup, start, self, used)

        def model_of(snapshot: Snapshot) -> Model:
            shared, own = shared_and_own(snapshot.weights)
            uses = zip(used, gates(own, setup.net, self.max_scale), strict=True)
            memory = {f"used.{i}": torch.maximum(before, gate) for i, (before, gate) in enumerate(uses)}
            return Model(shared, {**model.own, task.name: own}, memory)

        return Learned.of(setup, fitted, model_of)

    def gate(self, net: Net, weights: Named) -> Gate:
        opened = gates(weights, net, self.max_scale)
        return lambda i, _: opened[i]


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
class _HATPhase(_GatedPhase):
    method: HAT
    used: list[Tensor]

    def __post_init__(self) -> None:
        super().__post_init__()
        self._free = free(self.setup.net, self.used)
        self._batch = 0
        """Position of the next mini-batch in its epoch, which ``loss`` does not get."""

    def begin_epoch(self, weights: Named, epoch: int, learning_rate: float) -> None:
        self._batch = 0

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
