"""Dynamically expandable networks (DEN): retrain what a task needs, add units if that is not enough, split what drifts.

.. [Yoon2018] J. Yoon, E. Yang, J. Lee, S. J. Hwang. Lifelong Learning with Dynamically Expandable Networks. ICLR 2018.
.. [Yuan2006] M. Yuan, Y. Lin. Model Selection and Estimation in Regression with Grouped Variables. JRSS B 68(1), 2006.

``shared`` holds the weights of all units, and ``stamp.I``: for each unit of block I the position of the task that made
it. A task's head, with the head's hidden layers, is its own and never changes. The phases of a task after the first,
with its share of the epochs in each:

1. *head* (selective retraining, first half): min L + l1 ||W_head||_1 over the head alone. Then the units that the
   task's outputs depend on are selected, see ``select``.
2. *retraining* (second half, and the objective of the split): min L + l2 / 2 ||W_S||^2 + drift_penalty / 2
   ||W_S - W_S^(t-1)||^2 over the edges between selected units.
3. *expansion*, if the mean training loss of the retraining's last epoch is above the threshold: units are added to all
   blocks at once, and min L + l1 ||W_N||_1 + group_lasso sum_g ||W_g||_2 over the edges that begin or end at them, a
   group being the incoming weights of one new unit. Edges from new to older units are among them; older tasks do not
   see them. Units that the group norm has brought to 0 are removed.
4. *last*: units that have drifted too far in the retraining are split, whether there was an expansion or not, see
   ``split``. What is the task's alone is then trained once more with an L1 norm: its head, its units and copies, and
   the edges from these to older units. Older units that have drifted less stay as they are, so that older tasks meet
   the drift that was measured.

Deviations. The paper trains all weights with the drift penalty after the expansion; here it stands where the drift
arises: the loss does not depend on units that are not selected. The thresholds of the proximal steps are multiplied by
the step size, as in the proximal gradient method, so that a setting is the strength of a penalty and not a number of
steps. The group norm of d weights has the usual factor sqrt(d). L1 and L2 norms leave out biases.

A unit is an output channel of a convolution or an output of a fully-connected layer; the edge between two units holds
one or several numbers: kernel x kernel of them between convolutions, height x width where a channel is flattened. All
functions here look at weights as edges of shape (units above, units below, numbers), so that convolutions, linear
layers, the boundary between them and the head are the same thing. The image's channels are the lowest units.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Annotated, Any, ClassVar, final

import torch
import torch.nn.functional as F
from torch import Tensor

from lasem.data import Task
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
        return {**visible(net, model.shared, position), **model.own[name]}

    def forget(self, net: Net, model: Model, name: str) -> Model:
        left = super().forget(net, model, name)
        return left.having(memory={key: value for key, value in left.memory.items() if key != f"position.{name}"})

    def _first(self, task: Task, setup: Setup) -> Plan[Learned]:
        """Everything is trained, with L1 and L2 norms, to a sparse network."""
        start = {**initial_layers(setup), **initial_head(setup, task.num_classes)}
        phase = _Phase(task, setup, start, dict.fromkeys(start), l1=self.l1, l2=self.l2)
        return _learned(Model(), phase, (yield phase))

    def _later(self, model: Model, task: Task, setup: Setup) -> Plan[Learned]:
        """[Yoon2018]_ Algorithms 2 to 4."""
        net = setup.net
        before, _ = shared_and_own(model.shared)
        num_before = num_units(net, before)
        losses: list[float] = []

        def train(
            start: dict[str, Tensor], masks: Masks, title: str, share: float, **penalties: Any
        ) -> Plan[dict[str, Tensor]]:
            phase = _Phase(task, setup, start, masks, title, share, anchor=before, num_before=num_before, **penalties)
            fitted: PhaseResult = yield phase
            losses.append(fitted.last_loss)
            return phase.whole(fitted.kept(setup.training.restore_best).weights)

        numbers = net.head.in_features // net.blocks[-1].shapes["bias"][0]
        wider = replace(net.head, in_features=numbers * num_before[-1])
        head = initial_head(setup, task.num_classes, setup.generator("head"), wider)
        weights = yield from train({**before, **head}, dict.fromkeys(head), "head", self.head_share, l1=self.l1)

        selected = within(net, weights, select(net, weights))
        share = 1 - self.head_share - self.expand_share - self.last_share
        weights = yield from train(weights, selected, "retraining", share, l2=self.l2, drift_penalty=self.drift_penalty)

        share = self.last_share + self.expand_share
        if losses[-1] > self.loss_threshold:
            share = self.last_share
            weights = expand(net, weights, self.num_new_units)
            new = added(net, weights, num_before)
            for name in [name for name in new if ".weight" in name]:
                values = torch.randn(weights[name].shape, generator=setup.generator("expansion", name))
                values = (values * self.new_deviation).to(setup.device)
                weights[name] = torch.where(new[name], values, weights[name])
            weights = yield from train(
                weights, new, "expansion", self.expand_share, l1=self.l1, group_lasso=self.group_lasso
            )
            weights = keep(net, weights, useful(net, weights, num_before))

        drifted = [rho > self.split_threshold for rho in drift(net, weights, before)]
        weights = split(net, weights, before, drifted)
        own = {**added(net, weights, num_before), **dict.fromkeys(head)}
        phase = _Phase(task, setup, weights, own, "last", share, l1=self.l1)
        return _learned(model, phase, (yield phase))


def _learned(model: Model, phase: "_Phase", fitted: PhaseResult) -> Learned:
    """Stamp the units that are new and take the head apart, after the last phase."""
    setup = phase.setup

    def model_of(snapshot: Snapshot) -> Model:
        shared, own = shared_and_own(phase.whole(snapshot.weights))
        for i, num in enumerate(num_units(setup.net, shared)):
            stamps = model.shared.get(f"stamp.{i}", torch.empty(0, dtype=torch.int64, device=setup.device))
            shared[f"stamp.{i}"] = torch.cat([stamps, stamps.new_full((num - len(stamps),), setup.index)])
        memory = {**model.memory, f"position.{phase.task.name}": torch.tensor(setup.index, device=setup.device)}
        return Model(shared, {**model.own, phase.task.name: own}, memory)

    return Learned.of(setup, fitted, model_of)


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
                group_soft_threshold_(weight, bias, first, step.learning_rate * self.group_lasso)


def bias_name(weight: str) -> str:
    """Return the name of the bias that belongs to a weight."""
    return weight.replace("weight", "bias")


def positions(units: Tensor) -> Tensor:
    """Count units from 0: int64, for every entry of a one-dimensional tensor."""
    return torch.arange(len(units), device=units.device)


def num_units(net: Net, weights: Named) -> list[int]:
    """Return the number of units of every block, input side first."""
    return [len(weights[f"layer.{i}.bias"]) for i in range(net.depth)]


def edges_of(net: Net, weights: Named) -> dict[str, Tensor]:
    """Return weights by name, image side first, as edges (units above, units below, numbers).

    They are those of the blocks and, if there is a head, of its layers.
    """
    names = [f"layer.{i}.weight" for i in range(net.depth)] + [f"head.weight.{j}" for j in range(len(net.hidden) + 1)]
    found, below = {}, net.image_shape[0]
    for name in names:
        if name in weights:
            above = len(weights[name])
            found[name] = weights[name].reshape(above, below, -1)
            below = above
    return found


def weight_of(edges: Tensor, like: Tensor) -> Tensor:
    """Give edges the form of a weight, (out, in, kernel, kernel) or (out, in), whatever the number of units now."""
    return edges.reshape(len(edges), -1, *like.shape[2:]).contiguous()


def select(net: Net, weights: Named) -> list[Tensor]:
    """Find the units that the task's outputs depend on, by breadth-first search down from all of its outputs.

    A unit is selected if an edge to a selected unit of the layer above is not exactly zero; the outputs are all
    selected, and the head's hidden layers are walked through like any other.

    Returns:
        For the outputs of each layer of ``edges_of``, whether they are selected; bool, one-dimensional.
    """
    above = list(edges_of(net, weights).values())
    chosen = [torch.ones(len(above[-1]), dtype=torch.bool, device=above[-1].device)]
    for edges in reversed(above[1:]):
        chosen.insert(0, (edges[chosen[0]] != 0).any(dim=2).any(dim=0))
    return chosen


def within(net: Net, weights: Named, chosen: Sequence[Tensor]) -> dict[str, Tensor]:
    """Return masks of the edges between chosen units and of their biases; the image's channels are all chosen."""
    masks: dict[str, Tensor] = {}
    below = torch.ones(net.image_shape[0], dtype=torch.bool, device=chosen[0].device)
    for (name, edges), above in zip(edges_of(net, weights).items(), chosen, strict=True):
        inside = (above[:, None] & below)[:, :, None].expand_as(edges)
        masks |= {name: weight_of(inside, weights[name]), bias_name(name): above}
        below = above
    return masks


# In what follows, the list of a value for each block ends with None, for the first layer of the head: units of the last
# block are among its inputs, and its own units and the layers after it stay as they are.


def added(net: Net, weights: Named, num_before: Sequence[int]) -> dict[str, Tensor]:
    """Return masks of the edges that begin or end at a unit after the first ``num_before`` of its block, and of biases.

    Of the head they hold the edges from such units, which have no bias.
    """
    masks = {}
    below = torch.zeros(net.image_shape[0], dtype=torch.bool, device=weights["layer.0.bias"].device)
    for (name, edges), before in zip(edges_of(net, weights).items(), [*num_before, None], strict=False):
        above = positions(edges) >= (len(edges) if before is None else before)
        touched = (above[:, None] | below)[:, :, None].expand_as(edges)
        masks[name] = weight_of(touched, weights[name])
        if before is not None:
            masks[bias_name(name)] = above
        below = above
    return masks


def rewired(net: Net, weights: Named, sources: Sequence[Tensor]) -> dict[str, Tensor]:
    """Return the network whose units are copies of some units of each block, with their edges; -1 is a unit of zeros.

    ``sources`` are the units that are copied, int64, for each block.
    """
    result = dict(weights)
    below = torch.arange(net.image_shape[0], device=sources[0].device)
    for (name, edges), above in zip(edges_of(net, weights).items(), [*sources, None], strict=False):
        edges = F.pad(edges, (0, 0, 0, 1))[:, below]
        if above is not None:
            edges, below = F.pad(edges, (0, 0, 0, 0, 0, 1))[above], above
            result[bias_name(name)] = F.pad(weights[bias_name(name)], (0, 1))[above]
        result[name] = weight_of(edges, weights[name])
    return result


def expand(net: Net, weights: Named, num_new: int) -> dict[str, Tensor]:
    """Append units to every block; their edges, to the head as well, and their biases are 0."""
    biases = [weights[f"layer.{i}.bias"] for i in range(net.depth)]
    return rewired(net, weights, [F.pad(positions(bias), (0, num_new), value=-1) for bias in biases])


def useful(net: Net, weights: Named, num_before: Sequence[int]) -> list[Tensor]:
    """Find each block's first ``num_before`` units and those after them that do not put out 0 whatever comes in."""
    found = []
    for (name, edges), before in zip(edges_of(net, weights).items(), num_before, strict=False):
        alive = (edges != 0).flatten(1).any(dim=1) | (weights[bias_name(name)] != 0)
        found.append(alive | (positions(edges) < before))
    return found


def keep(net: Net, weights: Named, kept: Sequence[Tensor]) -> dict[str, Tensor]:
    """Return the network without the units of the blocks that are not kept."""
    return rewired(net, weights, [mask.nonzero()[:, 0] for mask in kept])


def visible(net: Net, shared: Named, index: int) -> dict[str, Tensor]:
    """Return the blocks' weights as the task at a position sees them: units that it or an earlier task made.

    Units are only ever appended, so these are the first ones of each layer; copied to tensors of their own, they give
    the same bits whatever has been appended since. ``stamp.I`` in ``shared`` is the position of each unit's task.
    """
    return keep(net, shared, [shared[f"stamp.{i}"] <= index for i in range(net.depth)])


def drift(net: Net, weights: Named, before: Named) -> list[Tensor]:
    """Return rho_i = ||w_i^t - w_i^(t-1)||_2 of every unit that was there before, by block ([Yoon2018]_).

    Its incoming weights count as far as they were there before, and its bias as the weight of a constant input.
    """
    now, drifts = edges_of(net, weights), []
    for name, edges in edges_of(net, before).items():
        moved = (now[name][: edges.shape[0], : edges.shape[1]] - edges).flatten(1)
        bias = bias_name(name)
        moved_bias = weights[bias][: len(edges)] - before[bias]
        drifts.append(torch.cat([moved, moved_bias[:, None]], dim=1).norm(dim=1))
    return drifts


def split(net: Net, weights: Named, before: Named, drifted: Sequence[Tensor]) -> dict[str, Tensor]:
    """Restore the units that have drifted too far, and append a copy of each that has the drifted weights.

    Where the edges to a drifted unit's upper neighbours go:

    * what is the new task's alone (units that were not there before, copies, the head) reads the copy in its place,
      and the restored unit with weight 0;
    * older units, which serve older tasks, go on reading the restored unit; their edge from the copy starts at 0, and
      older tasks do not see it.

    ``before`` are the blocks' weights before the task. ``drifted`` says for each block which of the units that were
    there then have drifted too far.
    """
    copied = [mask.nonzero()[:, 0] for mask in drifted]
    units = [positions(weights[f"layer.{i}.bias"]) for i in range(net.depth)]
    result = rewired(net, weights, [torch.cat(pair) for pair in zip(units, copied, strict=True)])
    below, num_below = copied[0][:0], net.image_shape[0]  # the drifted units of the layer below, and all but copies
    for i, (name, edges) in enumerate(list(edges_of(net, result).items())[: net.depth + 1]):
        edges, num_old = edges.clone(), len(drifted[i]) if i < net.depth else 0
        edges[num_old:, below] = 0
        edges[:num_old, num_below:] = 0
        if i < net.depth:
            above, old = copied[i], edges_of(net, before)[name]
            edges[above] = 0  # with the edges from units that are newer than this one
            edges[above, : old.shape[1]] = old[above]
            result[bias_name(name)][above] = before[bias_name(name)][above]
            below, num_below = above, len(units[i])
        result[name] = weight_of(edges, weights[name])
    return result


def group_soft_threshold_(weight: Tensor, bias: Tensor, first: int, threshold: float) -> None:
    """Proximal step of threshold x sum_g sqrt(d) ||w_g||_2, in place: w_g max(0, 1 - threshold sqrt(d) / ||w_g||).

    A group is all incoming weights of one unit, d in number ([Yuan2006]_ for the square root, which makes one threshold
    fit layers of any size). A unit whose group is 0 loses its bias as well: it puts out exactly 0.
    The units from ``first`` on are groups.
    """
    groups = weight[first:].flatten(1)
    norms = groups.norm(dim=1)
    # a group of zeros: 0 x max(0, 1 - x / tiny) = 0
    factors = (1 - threshold * math.sqrt(groups.shape[1]) / norms.clamp(min=1e-30)).clamp(min=0)
    weight[first:] *= factors.reshape(-1, *[1] * (weight.ndim - 1))
    bias[first:] *= (factors > 0).to(bias.dtype)
