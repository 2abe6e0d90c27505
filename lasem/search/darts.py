"""DARTS over what a layer transfers: the choice is relaxed to a mixture whose weights are learned by gradient.

.. [Liu2019] H. Liu, K. Simonyan, Y. Yang. DARTS: Differentiable Architecture Search. ICLR 2019.
.. [Lee2021] S. Lee, S. Behpour, E. Eaton. Sharing Less is More: Lifelong Learning in Deep Networks with Selective Layer
   Transfer. ICML 2021. DARTS is one of the searches that it compares LASEM with.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Annotated, Any, ClassVar, Literal, final

import torch
from torch import Tensor
from torch.optim import Optimizer

from lasem.errors import ConfigError
from lasem.nets import Value, full_precision
from lasem.search.abstract import GroupedSelection, Selected, selected
from lasem.search.mixture import configuration_accuracy
from lasem.search.weighing import Fixed, MixturePhase
from lasem.settings import Range
from lasem.space import Configuration
from lasem.training import AbstractPhase, Batch, EpochSummary, Plan, RMSpropTF, TaskStart, TaskWeights, class_weights
from lasem.training.config import RENEWED
from lasem.tree import Path, flatten, map_tensors, with_tensors

Dropout = torch.Generator | None

_DIFFERENCE = 0.01
"""Length of the step that the finite difference takes in weight space, over all weights together ([Liu2019]_, 2.3)."""


@final
@dataclass(frozen=True, kw_only=True)
class DARTS(GroupedSelection):
    """Each layer's output is softmax(alpha)[0] times the task-specific one plus softmax(alpha)[1] times the shared one.

    alpha (two numbers a layer, 0 at the start) and the weights take turns at every mini-batch ([Liu2019]_, Algorithm
    1). The larger entry of alpha chooses; equal ones choose task-specific. As [Lee2021]_ ran it: ``alpha_split="train",
    alpha_optimiser="rmsprop-tf", alpha_learning_rate=None, alpha_weight_decay=0, first_task="search"``.
    """

    name: ClassVar[str] = "darts"

    order: Literal["first", "second"] = "first"
    """What alpha, the two numbers of each layer that mix its branches, follows. ``first``: the gradient at the present
    weights. ``second``: the one at the weights one training step ahead, and through that step ([Liu2019]_, equations 7
    and 8); four more passes a mini-batch."""
    alpha_split: Literal["valid", "train"] = "valid"
    """Images that alpha is fitted to. ``valid``: validation images, which choose the best epoch as well. ``train``: the
    mini-batch that the weights are about to be trained on, which favours whichever branch fits faster."""
    alpha_optimiser: Literal["adam", "rmsprop-tf"] = "adam"
    """``adam`` with betas of .5 and .999 as in [Liu2019]_, or RMSProp as TensorFlow defines it."""
    alpha_learning_rate: Annotated[float, Range(above=0)] | None = 1e-2
    """Step size of alpha, the same in all epochs; None: the one of the weights, with its schedule. [Liu2019]_ has 3e-4,
    for some 20 000 steps; a task here often has 500, in which Adam moves a number by at most 500 of these."""
    alpha_weight_decay: Annotated[float, Range(least=0)] = 1e-3
    """L2 penalty on alpha; not negative."""
    xi: Annotated[float, Range(above=0)] | None = None
    """With ``order`` second: size of the training step that alpha looks ahead; None: the step size of the weights."""
    retrain: bool = False
    """Train the chosen configuration once more from the task's start, with all its epochs: the searched weights are
    fitted to the mixture, of which only one branch a layer is kept."""

    def plan(self, start: TaskStart) -> Plan[Selected]:
        if len(start.space) == 1:
            result = yield MixturePhase(Fixed(str(start.space[0])), start)
            return selected(start, result)
        searched = yield DARTSPhase(self, start)
        if not self.retrain:
            return selected(start, searched)
        chosen = searched.kept(start.config.restore_best).summary.configuration
        again = start.only(Configuration.parse(chosen))
        result = yield MixturePhase(Fixed(chosen), again, title="retraining", forgets=None)
        return replace(selected(again, result), commit_epoch=searched.num_epochs + 1)


@final
class DARTSPhase(AbstractPhase[TaskWeights]):
    """Alpha and the weights take turns: alpha steps when a mini-batch comes, then the weights are trained on it."""

    def __init__(self, search: DARTS, start: TaskStart) -> None:
        """Start before the first epoch, with alpha at 0.

        ConfigError if both branches of a layer are the same, so that nothing could ever tell them apart, or if the
        network has running statistics.
        """
        if any(block.statistics for block in start.net.blocks):
            raise ConfigError(
                "DARTS mixes both branches of every layer, so running statistics of normalisation layers would be the "
                "mixture's, not those of what it chooses. Use another search, or a network without such statistics."
            )
        self.task, self.config, self.title = start.task, start.config, "search" if search.retrain else ""
        self._search, self._start, self._initial = search, start, _blended(start)
        _check_different(self._initial)
        sizes = search.sizes(start.net.depth)
        self._group_of = tuple(group for group, size in enumerate(sizes) for _ in range(size))
        dtype = next(iter(self._initial.head.values())).dtype
        self.alpha = torch.zeros(len(sizes), 2, dtype=dtype, device=start.device, requires_grad=True)
        self._optimiser = _optimiser_of(search, self.alpha)
        self._rate = self.config.learning_rate
        self._held_out = _Rounds(start)

    @property
    def configuration(self) -> Configuration:
        """What alpha chooses: the shared branch where its entry is larger; equal ones mean the task-specific branch."""
        transferred = (self.alpha[:, 1] > self.alpha[:, 0]).tolist()
        return Configuration(tuple(transferred[group] for group in self._group_of))

    @property
    def state(self) -> dict[str, Any]:
        """Alpha, its optimiser, and the position in the rounds over the validation images."""
        moments = self._optimiser.state_dict()["state"].get(0, {})
        tensors = {name: torch.as_tensor(value) for name, value in moments.items()}
        rounds = {"round": self._held_out.began, "taken": self._held_out.taken}
        return {"alpha": self.alpha.detach(), "moments": tensors, **rounds}

    @state.setter
    def state(self, state: dict[str, Any]) -> None:
        if state["alpha"].shape != self.alpha.shape:
            raise ValueError("its alpha has another shape")
        with torch.no_grad():
            self.alpha.copy_(state["alpha"])
        entries = {0: state["moments"]} if state["moments"] else {}
        self._optimiser.load_state_dict({**self._optimiser.state_dict(), "state": entries})
        self._held_out.go_to(state["round"], state["taken"])

    def initial(self) -> TaskWeights:
        return self._initial

    def scale(self, path: Path) -> float:
        return self._start.scale(path)

    def begin_epoch(self, weights: TaskWeights, epoch: int, learning_rate: float) -> None:
        self._rate = learning_rate  # which alpha may need

    def loss(self, weights: TaskWeights, batch: Batch, dropout: torch.Generator) -> Tensor:
        """Step alpha, then give what the weights go down on, alpha constant ([Liu2019]_, Algorithm 1)."""
        self.alpha.grad = self.alpha_gradient(weights, batch, dropout)
        if self._search.alpha_learning_rate is None:
            for group in self._optimiser.param_groups:
                group["lr"] = self._rate
        self._optimiser.step()
        return self.training_loss(weights, self.alpha.detach(), batch, dropout)

    def alpha_gradient(self, weights: TaskWeights, batch: Batch, dropout: torch.Generator) -> Tensor:
        """What alpha goes down on, shape of ``alpha``.

        First order: grad_alpha L(w, alpha). Second order, with L_train for the training loss, L for the cross-entropy
        that alpha goes down on, v = grad_w' L(w', alpha) and e = .01 / ||v|| ([Liu2019]_, equations 7 and 8)::

            w' = w - xi grad_w L_train(w, alpha)
            grad_alpha L(w', alpha) - xi [grad_alpha L_train(w + e v, alpha) - grad_alpha L_train(w - e v, alpha)] / 2e

        Where the mechanism scales a parameter's steps, w' and v have that parameter's gradients times its scale, for
        then w' is the step that will be taken.

        Args:
            weights: w.
            batch: the mini-batch that the weights are about to be trained on.
            dropout: source of dropout masks; held-out images get none.
        """
        if self._search.alpha_split == "valid":
            (x, labels), shares = next(self._held_out), class_weights(self.task.train, self.config)
            held = Batch(x, labels, self.task.name, None if shares is None else shares.to(labels.device)[labels])
            held_dropout = None
        else:
            held, held_dropout = batch, dropout

        def goal(at: TaskWeights) -> Tensor:
            return self.cross_entropy(at, self.alpha, held, held_dropout)

        if self._search.order == "first":
            return torch.autograd.grad(goal(weights), self.alpha)[0]
        with full_precision(batch.x.device):  # bfloat16 does not separate the weights from those a short step away
            return self._second_order(weights, batch, dropout, goal)

    def _second_order(
        self, weights: TaskWeights, batch: Batch, dropout: torch.Generator, goal: Callable[[TaskWeights], Tensor]
    ) -> Tensor:
        """See ``alpha_gradient``; ``goal`` is the cross-entropy that alpha goes down on."""
        xi = self._rate if self._search.xi is None else self._search.xi
        mask = dropout.get_state()

        def loss(at: TaskWeights) -> Tensor:
            dropout.set_state(mask)  # the same features dropped every time: it is one function of w and alpha
            return self.training_loss(at, self.alpha, batch, dropout)

        # sums go by the order of the names; what is only read is a constant
        flat = flatten(weights)
        paths = sorted((path for path in flat if self.scale(path) > 0), key=lambda path: ".".join(map(str, path)))
        scales = [self.scale(path) for path in paths]
        plain = [flat[path].detach() for path in paths]
        # a module may hold parameters that it does not use: their gradients are 0
        downhill = torch.autograd.grad(loss(weights), [flat[path] for path in paths], materialize_grads=True)
        ahead = [(w - xi * scale * g).requires_grad_(True) for w, scale, g in zip(plain, scales, downhill, strict=True)]
        direct, *slopes = torch.autograd.grad(
            goal(with_tensors(weights, dict(zip(paths, ahead, strict=True)))),
            [self.alpha, *ahead],
            materialize_grads=True,
        )
        direction = [scale * slope for scale, slope in zip(scales, slopes, strict=True)]
        length = torch.stack([v.square().sum() for v in direction]).sum().sqrt()
        epsilon = _DIFFERENCE / length.clamp_min(1e-30)  # where all slopes vanish the difference is 0, not NaN

        def slope(sign: int) -> Tensor:
            moved = {path: w + sign * epsilon * v for path, w, v in zip(paths, plain, direction, strict=True)}
            return torch.autograd.grad(loss(with_tensors(weights, moved)), self.alpha)[0]

        forward, backward = slope(1), slope(-1)
        return direct - xi * (forward - backward) / (2 * epsilon)

    def training_loss(self, weights: TaskWeights, alpha: Tensor, batch: Batch, dropout: Dropout) -> Tensor:
        """Cross-entropy of the mixed network, and each layer's penalty by its share of the shared branch."""
        loss = self.cross_entropy(weights, alpha, batch, dropout)
        start, mixing = self._start, torch.softmax(alpha, dim=1)
        for group, block, own in zip(self._group_of, start.net.blocks, weights.layers, strict=True):
            with full_precision(batch.x.device):
                penalty = start.sharing.penalty(block, own.factors) if own.factors else None
            if penalty is not None:
                loss = loss + mixing[group, 1] * penalty
        held = start.penalty(weights)
        return loss if held is None else loss + held

    def cross_entropy(self, weights: TaskWeights, alpha: Tensor, batch: Batch, dropout: Dropout) -> Tensor:
        """Mean cross-entropy of the mixed network on a mini-batch."""
        return batch.cross_entropy(self.logits(weights, alpha, batch.x, dropout))

    def logits(self, weights: TaskWeights, alpha: Tensor, x: Tensor, dropout: Dropout = None) -> Tensor:
        """(batch, num_classes) of the mixed network: branches meet between activation and pooling."""
        net, sharing, mixing = self._start.net, self._start.sharing, torch.softmax(alpha, dim=1).unbind(0)
        x = x.contiguous(memory_format=torch.channels_last)  # faster on a CPU, and no slower elsewhere
        for group, block, own in zip(self._group_of, net.blocks, weights.layers, strict=True):
            specific = block.activate(own.specific, x)
            with full_precision(alpha.device):
                made = sharing.weights(block, own.shared, own.factors)
            shared = block.activate(made, x)
            x = block.reduce(_mixed(mixing[group], specific, shared))
        return net.head.apply(weights.head, x, dropout)

    def accuracy(self, weights: TaskWeights) -> float:
        """Of the configuration that alpha chooses, not of the mixture."""
        start = self._start
        return configuration_accuracy(start.net, start.sharing, self.configuration, weights, self.task.valid)

    def summary(self) -> EpochSummary:
        """What alpha chooses; of every configuration the product of its layers' (groups') softmax entries."""
        firsts = [self._group_of.index(group) for group in range(len(self.alpha))]
        chosen = torch.tensor([c.bits for c in self._start.space], dtype=torch.int64)[:, firsts]
        mixing = torch.log_softmax(self.alpha.detach().cpu().double(), dim=1)
        probabilities = mixing[torch.arange(len(firsts)), chosen].sum(dim=1).exp()
        # two branches of each layer
        return EpochSummary(str(self.configuration), tuple(probabilities.tolist()), num_evaluated=2)


@final
class _Rounds:
    """Goes over the validation images again and again, each time in another order."""

    def __init__(self, start: TaskStart) -> None:
        self._start = start
        self._generator = start.generator(1)  # the training images keep their order
        self.go_to(self._generator.get_state())

    def __next__(self) -> tuple[Tensor, Tensor]:
        batch = next(self._batches, None)
        if batch is None:
            self.go_to(self._generator.get_state())
            batch = next(self._batches)
        self.taken += 1
        return batch

    def go_to(self, began: Tensor, taken: int = 0) -> None:
        """Take up the round that begins with this state of the generator, after its first ``taken`` batches."""
        start, self.began, self.taken = self._start, began.cpu(), 0
        self._generator.set_state(self.began)
        batches = start.task.valid.batches(start.config.batch_size, device=start.device, generator=self._generator)
        self._batches = batches
        for _ in range(taken):
            next(self)


def _optimiser_of(search: DARTS, alpha: Tensor) -> Optimizer:
    rate = search.alpha_learning_rate or 1.0  # None: set before every step
    if search.alpha_optimiser == "adam":
        return torch.optim.Adam([alpha], lr=rate, betas=(0.5, 0.999), weight_decay=search.alpha_weight_decay)
    return RMSpropTF([alpha], lr=rate, weight_decay=search.alpha_weight_decay)


@torch.no_grad()
def _blended(start: TaskStart) -> TaskWeights:
    """Return the weights' start, what was taken over blended with fresh weights (``TrainingConfig.specific_shrink``).

    Other searches wait for that until they commit, which DARTS never does. It could not wait either: task-specific
    weights taken over from the shared ones would have the same gradients, and would always stay the same.
    """
    keep = RENEWED if start.config.specific_shrink is None else start.config.specific_shrink
    weights = map_tensors(lambda t: t.detach().clone(), start.weights)
    for (layer, transferred), fresh in start.fresh_weights.items():
        own, block = weights.layers[layer], start.net.blocks[layer]
        if transferred:
            own.factors.update(start.sharing.blend_with_fresh(block, own.shared, own.factors, fresh, keep))
        else:
            moved = {n: keep * w + block.fresh_share(keep) * fresh[n].to(w) for n, w in own.specific.items()}
            own.specific.update(moved)
    return weights


def _mixed(mixing: Tensor, specific: Value, shared: Value) -> Value:
    """Both branches' values by their shares; what passes by both is the same in both, and stays so."""
    if isinstance(specific, tuple):
        return tuple(_mixed(mixing, *pair) for pair in zip(specific, shared, strict=True))
    return mixing[0] * specific + mixing[1] * shared


def _check_different(weights: TaskWeights) -> None:
    for i, layer in enumerate(weights.layers):
        pairs = [(w, layer.shared.get(name)) for name, w in layer.specific.items()]
        if not layer.factors and all(shared is not None and torch.equal(w, shared) for w, shared in pairs):
            raise ConfigError(
                f"DARTS cannot tell the branches of layer {i + 1} apart, for task-specific weights start as the shared "
                f"ones and would stay so; set TrainingConfig.specific_shrink below 1 or specific_start to 'fresh'."
            )
