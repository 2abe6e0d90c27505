"""Dynamically expandable networks (DEN): retrain what a task needs, add units if that is not enough, split what drifts.

.. [Yoon2018] J. Yoon, E. Yang, J. Lee, S. J. Hwang. Lifelong Learning with Dynamically Expandable Networks. ICLR 2018.

``shared`` holds the weights of all units, and ``stamp.I``: for each unit of block I the position of the task that made
it. A task's head, with the head's hidden layers, is its own and never changes. The phases of a task after the first,
with its share of the epochs in each:

1. *head* (selective retraining, first half): min L + l1 ||W_head||_1 over the head alone. Then the units that the
   task's outputs depend on are selected, see ``den_units.select``.
2. *retraining* (second half, and the objective of the split): min L + l2 / 2 ||W_S||^2 + drift_penalty / 2
   ||W_S - W_S^(t-1)||^2 over the edges between selected units.
3. *expansion*, if the mean training loss of the retraining's last epoch is above the threshold: units are added to all
   blocks at once, and min L + l1 ||W_N||_1 + group_lasso sum_g ||W_g||_2 over the edges that begin or end at them, a
   group being the incoming weights of one new unit. Edges from new to older units are among them; older tasks do not
   see them. Units that the group norm has brought to 0 are removed.
4. *last*: units that have drifted too far in the retraining are split, whether there was an expansion or not, see
   ``den_units.split``. What is the task's alone is then trained once more with an L1 norm: its head, its units and
   copies, and the edges from these to older units. Older units that have drifted less stay as they are, so that older
   tasks meet the drift that was measured.

Deviations. The paper trains all weights with the drift penalty after the expansion; here it stands where the drift
arises: the loss does not depend on units that are not selected. The thresholds of the proximal steps are multiplied by
the step size, as in the proximal gradient method, so that a setting is the strength of a penalty and not a number of
steps. The group norm of d weights has the usual factor sqrt(d). L1 and L2 norms leave out biases.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Annotated, Any, ClassVar, final

import torch
import torch.nn.functional as F
from torch import Tensor

from lasem.data import Task
from lasem.methods import den_units as units
from lasem.methods.method import AbstractMethod, Learned, Setup
from lasem.methods.model import Model
from lasem.methods.plain import NetworkPhase, gradient_of, initial_head, initial_layers, shared_and_own
from lasem.nets import Net
from lasem.settings import Range, Settings
from lasem.training import Named, PhaseResult, Plan, Snapshot, Step

Masks = Mapping[str, Tensor | None]
"""Names of the tensors that are trained, each with the mask of its numbers that are; None for all."""


@final
@dataclass(frozen=True, kw_only=True)
class DEN(Settings, AbstractMethod):
    """Selective retraining, expansion, split and duplication, timestamped inference ([Yoon2018]_ Algorithms 1 to 4).

    What the optimiser does apart, a penalty's strength is relative to the loss. With Adam, whose steps have the size of
    the learning rate whatever the gradient's, ``l1`` and ``group_lasso`` are better read relative to 1: what gets a
    gradient of changing sign moves by about 0.2 of a step on average, what gets one of constant sign by 1.
    """

    name: ClassVar[str] = "den"

    l1: Annotated[float, Range(least=0)] = 0.1
    """Strength of the L1 norm of the first task, of the head alone, and of a task's own weights; not negative."""
    l2: Annotated[float, Range(least=0)] = 1e-4
    """Strength of l2 / 2 ||W||^2 in the first task, and in later ones while selected weights are retrained; not
    negative."""
    group_lasso: Annotated[float, Range(least=0)] = 0.25
    """Strength of the norm of each new unit's incoming weights while the network is expanded; not negative."""
    drift_penalty: Annotated[float, Range(least=0)] = 0.5
    """Strength of drift_penalty / 2 ||W - W'||^2 while selected weights are retrained, W' being those before the task;
    not negative."""
    num_new_units: Annotated[int, Range(least=1)] = 16
    """Units that an expansion adds to each block before useless ones are removed; at least 1."""
    new_deviation: Annotated[float, Range(above=0)] = 0.005
    """Standard deviation at which the weights of new units start; positive. It is small so that the network starts from
    what it did, and so that the group norm can bring units to 0 within the epochs of the expansion."""
    loss_threshold: Annotated[float, Range(least=0)] = 0.01
    """The network is expanded if the retraining's mean loss in its last epoch (cross-entropy, nats) is above this; not
    negative."""
    split_threshold: Annotated[float, Range(least=0)] = 0.1
    """A unit is split if its incoming weights have moved further than this, in L2 norm; not negative."""
    head_share: Annotated[float, Range(above=0)] = 0.2
    """Share of the training's epochs in which a later task's head is trained alone, rounded up; above 0."""
    expand_share: Annotated[float, Range(above=0)] = 0.2
    """Share of the epochs for the expansion, above 0; the last phase has it too if there is none. The retraining of
    selected weights has what the other shares leave."""
    last_share: Annotated[float, Range(above=0)] = 0.2
    """Share of the epochs for the last phase, in which what is the task's alone is trained once more; above 0."""

    def __post_init__(self) -> None:
        super().__post_init__()
        total = self.head_share + self.expand_share + self.last_share
        Range(below=1).check("DEN.head_share + expand_share + last_share", total)

    def plan(self, model: Model, task: Task, setup: Setup) -> Plan[Learned]:
        return self._later(model, task, setup) if model.own else self._first(task, setup)

    def plain_weights(self, net: Net, model: Model, name: str) -> dict[str, Tensor]:
        position = int(model.memory[f"position.{name}"])
        return {**units.visible(net, model.shared, position), **model.own[name]}

    def forget(self, net: Net, model: Model, name: str) -> Model:
        left = super().forget(net, model, name)
        return left.having(memory={key: value for key, value in left.memory.items() if key != f"position.{name}"})

    def _first(self, task: Task, setup: Setup) -> Plan[Learned]:
        """Everything is trained, with L1 and L2 norms, to a sparse network."""
        start = {**initial_layers(setup), **initial_head(setup, task.num_classes)}
        phase = _Phase(task, setup, start, dict.fromkeys(start), l1=self.l1, l2=self.l2)
        return _learned(Model(), phase, [(yield phase)])

    def _later(self, model: Model, task: Task, setup: Setup) -> Plan[Learned]:
        """[Yoon2018]_ Algorithms 2 to 4."""
        net = setup.net
        before, _ = shared_and_own(model.shared)
        num_before = units.num_units(net, before)
        finished: list[PhaseResult] = []

        def train(
            start: dict[str, Tensor], masks: Masks, title: str, share: float, **penalties: Any
        ) -> Plan[dict[str, Tensor]]:
            phase = _Phase(task, setup, start, masks, title, share, anchor=before, num_before=num_before, **penalties)
            finished.append((yield phase))
            return phase.whole(finished[-1].kept(setup.training.restore_best).weights)

        numbers = net.head.in_features // net.blocks[-1].shapes["bias"][0]
        wider = replace(net.head, in_features=numbers * num_before[-1])
        head = initial_head(setup, task.num_classes, setup.generator("head"), wider)
        weights = yield from train({**before, **head}, dict.fromkeys(head), "head", self.head_share, l1=self.l1)

        selected = units.within(net, weights, units.select(net, weights))
        share = 1 - self.head_share - self.expand_share - self.last_share
        weights = yield from train(weights, selected, "retraining", share, l2=self.l2, drift_penalty=self.drift_penalty)

        share = self.last_share + self.expand_share
        if finished[-1].last_loss > self.loss_threshold:
            share = self.last_share
            weights = units.expand(net, weights, self.num_new_units)
            new = units.added(net, weights, num_before)
            for name in [name for name in new if ".weight" in name]:
                values = torch.randn(weights[name].shape, generator=setup.generator("expansion", name))
                values = (values * self.new_deviation).to(setup.device)
                weights[name] = torch.where(new[name], values, weights[name])
            weights = yield from train(
                weights, new, "expansion", self.expand_share, l1=self.l1, group_lasso=self.group_lasso
            )
            weights = units.keep(net, weights, units.useful(net, weights, num_before))

        drifted = [rho > self.split_threshold for rho in units.drift(net, weights, before)]
        weights = units.split(net, weights, before, drifted)
        own = {**units.added(net, weights, num_before), **dict.fromkeys(head)}
        phase = _Phase(task, setup, weights, own, "last", share, l1=self.l1)
        return _learned(model, phase, [*finished, (yield phase)])


def _learned(model: Model, phase: _Phase, finished: Sequence[PhaseResult]) -> Learned:
    """Stamp the units that are new and take the head apart, after the last phase."""
    setup = phase.setup

    def model_of(snapshot: Snapshot) -> Model:
        shared, own = shared_and_own(phase.whole(snapshot.weights))
        for i, num in enumerate(units.num_units(setup.net, shared)):
            stamps = model.shared.get(f"stamp.{i}", torch.empty(0, dtype=torch.int64, device=setup.device))
            shared[f"stamp.{i}"] = torch.cat([stamps, stamps.new_full((num - len(stamps),), setup.index)])
        memory = {**model.memory, f"position.{phase.task.name}": torch.tensor(setup.index, device=setup.device)}
        return Model(shared, {**model.own, phase.task.name: own}, memory)

    *earlier, last = finished
    return Learned.of(setup, last, model_of, epochs_before=sum(fitted.num_epochs for fitted in earlier))


@final
@dataclass(eq=False)
class _Phase(NetworkPhase):
    """Trains some edges of a network with the penalties that are not 0; the others keep their bits.

    ``start`` is of the whole network.
    """

    masks: Masks
    title: str = ""
    share: float = 1.0
    """Of the epochs of the setup's training, rounded up."""
    l1: float = 0.0
    """Strength of the L1 norm of the weights."""
    l2: float = 0.0
    """Strength of half the squared L2 norm of the weights."""
    drift_penalty: float = 0.0
    """Strength of half the squared distance from the anchor."""
    anchor: Named = field(default_factory=dict)
    """Of weights and biases, by name, in the form of ``start``."""
    group_lasso: float = 0.0
    """Strength of the group norm."""
    num_before: Sequence[int] = ()
    """Units of each block that are no groups."""

    goes_on = True

    def __post_init__(self) -> None:
        super().__post_init__()
        self.start = {name: value.to(self.setup.device) for name, value in self.start.items()}
        self.masks = {name: mask for name, mask in self.masks.items() if mask is None or bool(mask.any())}
        epochs = max(1, math.ceil(self.share * self.config.epochs - 1e-9))  # 1 - .2 - .2 - .2 is not .4
        self.config = replace(self.config, epochs=epochs)

    def initial(self) -> dict[str, Tensor]:
        return {name: self.start[name] for name in self.masks}

    def whole(self, weights: Named) -> dict[str, Tensor]:
        """Return the network with what is trained in its place; the gradient reaches nothing else."""
        whole = dict(self.start)
        for name, mask in self.masks.items():
            whole[name] = weights[name] if mask is None else torch.where(mask, weights[name], self.start[name])
        return whole

    def answer(self, weights: Named, dropout: torch.Generator | None = None) -> Callable[[Tensor], Tensor]:
        return super().answer(self.whole(weights), dropout)

    @torch.no_grad()
    def change_gradients(self, weights: Named, step: Step) -> None:
        # the smooth penalties; the loss, which the threshold is compared with, is without them
        for name, value in weights.items():
            if self.l2 > 0 and ".weight" in name:
                gradient_of(value).add_(value, alpha=self.l2)
            if self.drift_penalty > 0 and name in self.anchor:
                gradient_of(value).add_(value - self.anchor[name], alpha=self.drift_penalty)

    def after_step(self, weights: Named, step: Step) -> None:
        # the proximal steps; on numbers that are not trained they do nothing that ``whole`` would show
        if self.l1 > 0:
            for name, value in weights.items():
                if ".weight" in name:
                    value.copy_(F.softshrink(value, step.learning_rate * self.l1))
        if self.group_lasso > 0:
            for i, first in enumerate(self.num_before):
                weight, bias = weights[f"layer.{i}.weight"], weights[f"layer.{i}.bias"]
                units.group_soft_threshold_(weight, bias, first, step.learning_rate * self.group_lasso)
