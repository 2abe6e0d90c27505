"""Penalties on what earlier tasks need: on weights (EWC and SI), on answers (learning without forgetting, LwF).

.. [Kirkpatrick2017] J. Kirkpatrick et al. Overcoming catastrophic forgetting in neural networks. PNAS 114(13), 2017.
.. [Li2016] Z. Li, D. Hoiem. Learning without Forgetting. ECCV 2016.
.. [Schwarz2018] J. Schwarz et al. Progress and Compress: A scalable framework for continual learning. ICML 2018.
.. [Zenke2017] F. Zenke, B. Poole, S. Ganguli. Continual Learning Through Synaptic Intelligence. ICML 2017.

Synaptic intelligence (SI) holds weights that lowered earlier losses. While a task is learned, omega adds up how much
each weight's steps lowered the loss: minus the gradient times the step that the optimiser took. The gradient is that of
the task's own loss, without the penalty.

As in the authors' code, importances are kept from going below 0, where the penalty would push weights away. The paper
trains for a fixed number of epochs; here omega ends at the epoch whose weights are kept.

LwF: on a new task's images, earlier tasks' heads go on answering as they did.
No image of an earlier task is kept. A task is trained in two phases ([Li2016]_ Figure 3): first its head alone, then
the layers and all heads, by its labels and by what the earlier heads answered before.

The paper records these answers before the training. Here they are computed anew for each mini-batch, by the network as
it was, without dropout: that is the same, and holds for images that augmentation has changed too. The paper trains both
phases until they converge; here each has its share of the epochs. Its weight decay is ``TrainingConfig.weight_decay``.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Annotated, ClassVar, Literal, final

import torch
import torch.nn.functional as F
from torch import Tensor

from lasem.data import Task
from lasem.methods.method import AbstractShared, Learned, Setup
from lasem.methods.model import Model, prefixed
from lasem.methods.plain import (
    HeadsPhase,
    NetworkPhase,
    gradient_of,
    initial_head,
    initial_layers,
    model_of_heads,
    run,
    shared_and_own,
    with_heads,
)
from lasem.nets import as_float32
from lasem.settings import Range
from lasem.training import (
    Batch,
    Named,
    PhaseResult,
    Plan,
    Quadratic,
    SharedProtection,
    Snapshot,
    Step,
    part_of,
    with_term,
)
from lasem.training.importance import MAX_IMAGES, FisherKind, fisher_information
from lasem.tree import Path


@final
@dataclass(frozen=True, kw_only=True)
class EWC(AbstractShared):
    """All layers shared, heads apart; loss CE + strength / 2 sum_i sum_p F_i,p (theta_p - theta*_i,p)^2.

    i goes over the earlier tasks, p over the layers' weights, theta*_i are the weights after task i, and F_i is the
    diagonal of the Fisher information of the task's answers there, a mean over training images without dropout
    ([Kirkpatrick2017]_, equation 3).
    """

    name: ClassVar[str] = "ewc"

    strength: Annotated[float, Range(least=0)] = 10000.0
    """Weight of the penalty; not negative. It is not portable between ways to compute the importances: this one is for
    exact ones, a mean over images."""
    fisher: FisherKind = "exact"
    """How importances, squared derivatives of log p(y | x) for every image by itself, count the labels y: by p(y | x),
    which is the definition (``exact``); one label drawn from p(y | x) (``sampled``); the true label (``empirical``)."""
    form: Literal["separate", "online"] = "separate"
    """``separate``: one quadratic term for each earlier task; their sum is kept as one quadratic, which is the same.
    ``online``: one term around the latest weights, whose importances are ``decay`` times those so far plus the latest
    task's ([Schwarz2018]_)."""
    decay: Annotated[float, Range(least=0, most=1)] = 1.0
    """What the ``online`` form keeps of the importances with every task; in [0, 1]."""
    num_samples: Annotated[int, Range(least=0)] = 0
    """Training images that importances are computed from, drawn at random; 0 takes all."""

    def plan(self, model: Model, task: Task, setup: Setup) -> Plan[Learned]:
        start = {**(model.shared or initial_layers(setup)), **initial_head(setup, task.num_classes)}
        fitted: PhaseResult = yield _Phase(task, setup, start, self.guard(model.memory))

        def model_of(snapshot: Snapshot) -> Model:
            shared, own = shared_and_own(snapshot.weights)
            memory = self.consolidate(model.memory, self.importances(shared, own, task, setup), shared)
            return Model(shared, {**model.own, task.name: own}, memory)

        return Learned.of(setup, fitted, model_of)

    def importances(self, layers: Named, head: Named, task: Task, setup: Setup) -> dict[str, Tensor]:
        """Return the diagonal of the Fisher information of the layers' weights, by name; the head's are constants."""
        draws = setup.generator("importances", "labels")

        def answer(layers: Named, x: Tensor) -> Tensor:
            for i, block in enumerate(setup.net.blocks):  # plain.run asks for a memory layout, which vmap does not know
                x = block.apply(part_of(layers, f"layer.{i}"), x)
            logits: Tensor = setup.net.head.apply(part_of(head, "head"), x)
            return logits

        logits = partial(run, setup.net, {**layers, **head})
        return fisher_information(answer, layers, self._images(task, setup), self.fisher, draws, logits)

    def consolidate(self, memory: Named, importances: Named, weights: Named) -> dict[str, Tensor]:
        """Add a task's term, its importances around its weights, to the quadratic that holds later tasks back."""
        before = Quadratic.from_named(memory) if memory else None
        if before is None or self.form == "separate":
            return with_term(before, importances, weights).named()
        total = {name: self.decay * before.importance[name] + value for name, value in importances.items()}
        return Quadratic(total, {name: weights[name] for name in importances}, before.constant).named()

    def guard(self, memory: Named) -> SharedProtection:
        """Return strength / 2 sum_i sum_p F_i,p (theta_p - theta*_i,p)^2 from what ``consolidate`` returned."""
        return SharedProtection(quadratic=Quadratic.from_named(memory) if memory else None, strength=self.strength)

    def _images(self, task: Task, setup: Setup) -> Iterator[tuple[Tensor, Tensor]]:
        left = min(self.num_samples or len(task.train), len(task.train))
        order = setup.generator("importances", "images") if left < len(task.train) else None
        for x, labels in task.train.batches(MAX_IMAGES, device=setup.device, generator=order):
            yield x[:left], labels[:left]
            left -= len(x)
            if left <= 0:
                return


@dataclass(eq=False)
class _Phase(NetworkPhase):
    guard: SharedProtection

    def loss(self, weights: Named, batch: Batch, dropout: torch.Generator) -> Tensor:
        loss, penalty = super().loss(weights, batch, dropout), self.guard.penalty(weights)
        return loss if penalty is None else loss + penalty


@final
@dataclass(frozen=True, kw_only=True)
class SI(AbstractShared):
    """All layers shared, heads apart; loss CE + strength sum_p Omega_p (theta_p - theta*_p)^2 ([Zenke2017]_ eq. 4).

    p goes over the layers' weights and theta* are the weights after the last task. Omega = sum_i omega_i / (Delta_i^2 +
    damping) over the earlier tasks i, Delta_i being how far task i moved the weight (equation 5).
    """

    name: ClassVar[str] = "si"

    strength: Annotated[float, Range(least=0)] = 0.1
    """Weight of the penalty, the paper's c; not negative. 0.1 as in the paper's experiment with CIFAR."""
    damping: Annotated[float, Range(above=0)] = 1e-3
    """Added to squared distances, the paper's xi, so that weights that hardly moved get no great importance; above 0.
    0.001 as in the authors' code for CIFAR."""

    def plan(self, model: Model, task: Task, setup: Setup) -> Plan[Learned]:
        layers = {name: value.to(setup.device) for name, value in (model.shared or initial_layers(setup)).items()}
        paths = prefixed("path", {name: torch.zeros_like(value) for name, value in layers.items()})
        before = Quadratic.from_named(model.memory) if model.memory else None
        start = {**layers, **paths, **initial_head(setup, task.num_classes)}
        fitted: PhaseResult = yield _SIPhase(
            task, setup, start, SharedProtection(quadratic=before, strength=2 * self.strength)
        )

        def model_of(snapshot: Snapshot) -> Model:
            shared, rest = shared_and_own(snapshot.weights)
            own = {name: value for name, value in rest.items() if name.startswith("head.")}
            memory = self.consolidate(before, part_of(rest, "path"), layers, shared)
            return Model(shared, {**model.own, task.name: own}, memory.named())

        return Learned.of(setup, fitted, model_of)

    def consolidate(self, before: Quadratic | None, paths: Named, start: Named, end: Named) -> Quadratic:
        """Return the sum in the penalty of the next task, around the weights at the end of this one.

        Args:
            before: the sum in this task's penalty; None for the first task.
            paths: omega of this task, by the weights' names.
            start: the weights before this task.
            end: the weights after it.
        """
        importance = {}
        for name, path in paths.items():
            added = path / ((end[name] - start[name]).square() + self.damping)
            importance[name] = (added if before is None else before.importance[name] + added).clamp(min=0)
        anchor = {name: end[name].clone() for name in paths}
        return Quadratic(importance, anchor, torch.zeros((), device=next(iter(anchor.values())).device))


@dataclass(eq=False)
class _SIPhase(_Phase):
    """Trains layers and head; ``path.NAME``, omega of the weight NAME so far, goes along with every snapshot."""

    _steps: dict[str, tuple[Tensor, Tensor]] = field(default_factory=dict)
    """Of the step under way, each weight's gradient of the task's own loss, and its value before."""

    def scale(self, path: Path) -> float:
        return 0.0 if str(path[0]).startswith("path.") else 1.0

    @torch.no_grad()
    def change_gradients(self, weights: Named, step: Step) -> None:
        held = self.guard.quadratic
        for name in part_of(weights, "path"):
            weight, gradient = weights[name], gradient_of(weights[name])
            if held is not None:
                pull = held.importance[name] * (weight - held.anchor[name])
                gradient = gradient - self.guard.strength * pull
            self._steps[name] = gradient.clone(), weight.clone()

    def after_step(self, weights: Named, step: Step) -> None:
        for name, (gradient, before) in self._steps.items():  # minus the fall of the loss along the step, eq. 3
            weights[f"path.{name}"].sub_(gradient * (weights[name] - before))


@final
@dataclass(frozen=True, kw_only=True)
class LwF(AbstractShared):
    """All layers shared, heads apart; loss CE + strength sum_k L_k over earlier heads k ([Li2016]_ equations 1 to 3).

    L_k is the cross-entropy between what head k answered before the task and what it answers now, both softened by the
    temperature.
    """

    name: ClassVar[str] = "lwf"
    rewrites: ClassVar[bool] = True

    strength: Annotated[float, Range(least=0)] = 1.0
    """Weight of the earlier heads' losses, the paper's lambda_o; not negative."""
    temperature: Annotated[float, Range(above=0)] = 2.0
    """What divides logits before the softmax in these losses, the paper's T; above 0."""
    warmup_share: Annotated[float, Range(above=0, below=1)] = 0.25
    """Share of a later task's epochs in which its head is trained alone; between 0 and 1. The paper does not say."""

    def plan(self, model: Model, task: Task, setup: Setup) -> Plan[Learned]:
        layers, head = model.shared or initial_layers(setup), initial_head(setup, task.num_classes)
        title, names = "", [*model.own, task.name]
        if model.own:
            alone, setup = setup.divided(self.warmup_share)
            warmed: PhaseResult = yield _WarmUp(task, alone, head, layers)
            head, title = warmed.kept(setup.training.restore_best).weights, "last"
        start = with_heads(layers, [*model.own.values(), head])
        fitted: PhaseResult = yield _DistilledPhase(task, setup, start, len(names), self, title)
        return Learned.of(setup, fitted, lambda snapshot: model_of_heads(snapshot.weights, names, {}))


def distillation(logits: Tensor, recorded: Tensor, temperature: float) -> Tensor:
    """Return - sum_i y'_i log z'_i for each image, shape (B,) ([Li2016]_ equations 2 and 3).

    y' are the recorded probabilities to the power of 1 / temperature, divided by their sum, and z' those of now: the
    softmax of logits / temperature.

    Args:
        logits: of now, shape (B, number of classes).
        recorded: of before, in the same shape.
        temperature: above 0.
    """
    targets = torch.softmax(as_float32(recorded) / temperature, dim=1)
    return F.cross_entropy(as_float32(logits) / temperature, targets, reduction="none")


@dataclass(eq=False)
class _WarmUp(NetworkPhase):
    """Trains the new head alone."""

    layers: Named
    title: str = "head"

    def answer(self, weights: Named, dropout: torch.Generator | None = None) -> Callable[[Tensor], Tensor]:
        return super().answer({**self.layers, **weights}, dropout)


@dataclass(eq=False)
class _DistilledPhase(HeadsPhase):
    method: LwF
    title: str = ""
    goes_on = True

    def loss(self, weights: Named, batch: Batch, dropout: torch.Generator) -> Tensor:
        *old, new = self.answers(weights, batch.x, self.num_tasks, dropout)
        with torch.no_grad():
            recorded = self.answers(self.start, batch.x, len(old)) if old else []
        loss = batch.cross_entropy(new)
        for logits, before in zip(old, recorded, strict=True):
            loss = loss + self.method.strength * batch.mean(distillation(logits, before, self.method.temperature))
        return loss
