"""Searches that weigh configurations, and the phase in which all that are still weighed are trained at once.

Two of them have their answer given: ``Fixed`` one configuration for every task, ``FixedProbability`` probabilities.

.. [Lee2021] S. Lee, S. Behpour, E. Eaton. Sharing Less is More: Lifelong Learning in Deep Networks with Selective Layer
   Transfer. ICML 2021.
"""

import math
from abc import abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Annotated, Any, ClassVar, Generic, TypeVar, final

import torch
import torch.nn.functional as F
from torch import Tensor

from lasem.nets import AbstractNet, full_precision
from lasem.search.abstract import AbstractSelection, GroupedSelection, Selected, selected
from lasem.search.mixture import Mixture, configuration_accuracy, drop_negligible, evaluate, log_likelihood
from lasem.settings import Range
from lasem.space import Configuration, Pattern, Space, grouped, listed
from lasem.training import (
    AbstractPhase,
    Batch,
    EpochSummary,
    PhaseResult,
    Plan,
    TaskStart,
    TaskWeights,
    evaluation_batch,
)
from lasem.training.calibration import best_temperature
from lasem.training.kept import in_one_configuration, prepared, with_all_images
from lasem.training.phase import batches_of
from lasem.tree import Path, map_tensors

State = TypeVar("State")

_MOST_TRACED = 512
"""Probabilities that the record of a search's first epoch has besides its last ones; a half of it in the second,
a third in the third, and so on."""


class AbstractSearch(AbstractSelection, Generic[State]):
    """Weighs the C configurations of a task while it is learned. Holds settings only; what it finds out is its state.

    A state is a tensor, or a frozen dataclass of tensors and plain values; nothing in it is changed in place. It is
    saved after each epoch, and moved to the device on which the task is learned. ``init``, ``step`` and ``best`` make a
    search; by default it weighs all configurations until the task ends.
    """

    @abstractmethod
    def init(self, num_configurations: int) -> State:
        """Return the state before a task's first mini-batch, on the CPU."""

    @abstractmethod
    def step(self, state: State, log_likelihood: Tensor) -> tuple[Tensor, State]:
        """Weigh the configurations on one mini-batch.

        Args:
            state: what is known so far.
            log_likelihood: log p(y_n | x_n, c) of the candidates, shape (len(candidates), batch).

        Returns:
            The weights of the M-step, one for each row, summing to 1; the next state.
        """

    @abstractmethod
    def best(self, state: State) -> int:
        """Return the leading configuration's position in the space."""

    def with_prior(self, prior_start: tuple[float, float] | None) -> "AbstractSearch[State]":
        """Return this search for a sharing mechanism that suggests a prior (``AbstractSharing.prior_start``)."""
        return self

    def commits(self, state: State, epoch: int, num_epochs: int) -> bool:
        """Return whether the leading configuration alone is trained from this epoch on, counted from 0."""
        return False

    def prior(self, state: State) -> Tensor | None:
        """Return the probability of every configuration before the next mini-batch, shape (C,), summing to 1.

        Records show it; with None they show 1 for the leading configuration.
        """
        return None

    def transfer_probability(self, state: State) -> Tensor | None:
        """Return the probability that each group of layers transfers, shape (G,), where the prior factorises."""
        return None

    def begin_batch(self, state: State, generator: torch.Generator) -> State:
        """Return the state for the next mini-batch, for which the task's generator (on the CPU) may draw candidates."""
        return state

    def candidates(self, state: State, num_configurations: int) -> tuple[int, ...]:
        """Return the positions of the configurations that the next mini-batch trains, rising."""
        return tuple(range(num_configurations))

    def plan(self, start: TaskStart) -> Plan[Selected]:
        if start.space.size > 1:
            result = yield MixturePhase(self, start)
            return selected(start, result)
        return (yield from fine_tuned(partial(TriedPhase, self), start))


@final
@dataclass(frozen=True)
class MixtureState(Generic[State]):
    """Where a search stands within a task."""

    search: State
    committed: int | None
    """The one configuration that is trained; None while the search goes on."""
    commit_epoch: int | None
    """The first epoch in which it was trained alone; None if there was nothing to choose."""
    draws: Tensor
    """State of the search's source of random numbers."""


class MixturePhase(AbstractPhase[TaskWeights], Generic[State]):
    """Training of all configurations that a search weighs, then of the one to which it commits."""

    def __init__(
        self, search: AbstractSearch[State], start: TaskStart, *, title: str = "", forgets: tuple[int, ...] | None = ()
    ) -> None:
        """Start before the first epoch; ``title`` and ``forgets`` as in ``AbstractPhase``."""
        start = prepared(start)
        self.task, self.config, self.title, self.forgets = start.task, start.config, title, forgets
        self.solved, self.warmup = start.solved, start.warmup
        self.start, self.search = start, search.with_prior(start.sharing.prior_start)
        self.search_state: State = map_tensors(lambda t: t.to(start.device), self.search.init(start.space.size))
        self.committed: int | None = None if start.space.size > 1 else 0
        self.commit_epoch: int | None = None
        self._draws = start.generator(2)
        self._num_configurations, self._is_protected = start.space.size, start.protection.quadratic is not None
        self._epoch = self._num_evaluated = self._num_batches = 0  # in the epoch under way
        self._evaluated: tuple[int, ...] = ()
        self._priors: list[Tensor] = []  # of the epoch under way, after each mini-batch
        self._mixture: Mixture
        self._alone: TaskStart | None = None

    @property
    def _trained(self) -> TaskStart:
        """What is trained now: after a search only what comes after layers whose outputs are kept."""
        if self.committed is None or self.commit_epoch is None:
            return self.start
        if self._alone is None:
            left = self.config.epochs - self.commit_epoch + 1
            self._alone = in_one_configuration(self.start, self.start.space[self.committed], left)
            self._evaluated = ()
        return self._alone

    @property
    def leading(self) -> int:
        """Position of the leading configuration in the space."""
        return self.search.best(self.search_state) if self.committed is None else self.committed

    @property
    def evaluated(self) -> tuple[Configuration, ...]:
        """The configurations of the latest mini-batch."""
        return self._mixture.configurations

    @property
    def state(self) -> MixtureState[State]:
        """The search's state, and what it has decided."""
        return MixtureState(self.search_state, self.committed, self.commit_epoch, self._draws.get_state())

    @state.setter
    def state(self, state: MixtureState[State]) -> None:
        self.search_state, self.committed, self.commit_epoch = state.search, state.committed, state.commit_epoch
        self._draws.set_state(state.draws)

    def initial(self) -> TaskWeights:
        return self.start.weights

    def scale(self, path: Path) -> float:
        return self.start.scale(path)

    def begin_epoch(self, weights: TaskWeights, epoch: int, learning_rate: float) -> None:
        """End the search if it commits; what was taken over is then blended with fresh weights."""
        self._epoch, self._num_evaluated, self._num_batches, self._priors = epoch, 0, 0, []
        searching = self.committed is None
        if searching and self.search.commits(self.search_state, epoch, self.config.epochs):
            self.committed, self.commit_epoch = self.leading, epoch + 1
        if self.committed is not None and (searching or (epoch == 0 and self.start.space.size == 1)):
            self._blend_with_fresh(weights, self.start.space[self.committed], with_head=searching)

    def batches(self, device: torch.device, order: torch.Generator) -> Iterator[Batch]:
        trained = self._trained
        views = trained.views or (trained.task.train,)
        return batches_of(views[self._epoch % len(views)], trained.config, self.task.name, device, order)

    def loss(self, weights: TaskWeights, batch: Batch, dropout: torch.Generator) -> Tensor:
        """E-step, and the M-step's loss: sum_c q_c (CE_c + penalties of the layers that c transfers), q constant."""
        searching = self.committed is None
        mixture, weights = self._next_mixture(), _last(weights, self._trained)
        features = mixture.features(weights, batch.x, training=True)
        if searching:
            with torch.no_grad():  # dropout is off in the E-step
                evidence = log_likelihood(mixture.logits(weights, features), batch.labels)
            with full_precision(batch.x.device):
                posterior, self.search_state = self.search.step(self.search_state, evidence)
                prior = self.search.prior(self.search_state) if self._num_traced > 1 else None
            self._priors += [] if prior is None else [prior]
        else:
            posterior = torch.ones(1, device=batch.x.device)
        losses = -batch.mean(log_likelihood(mixture.logits(weights, features, dropout), batch.labels))
        with full_precision(batch.x.device):
            posterior = drop_negligible(posterior.to(losses))
            loss = posterior @ losses
            held = self.start.penalty(weights) if self._is_protected else None
            for penalty in (mixture.penalty(weights, posterior), held):
                loss = loss if penalty is None else loss + penalty
        return loss

    def accuracy(self, weights: TaskWeights) -> float:
        start = self._trained
        if start.valid_accuracy is not None:
            return start.valid_accuracy
        configuration = start.space[self.leading if start.space.size > 1 else 0]
        weights, valid = _last(weights, start), start.task.valid
        return configuration_accuracy(start.net, start.sharing, configuration, weights, valid)

    def summary(self) -> EpochSummary:
        """The leading configuration and the probability of each, or of each layer's transfer."""
        space, leading = self.start.space, self.leading
        evaluated = round(self._num_evaluated / max(1, self._num_batches))
        by_group = self.search.transfer_probability(self.search_state)
        if by_group is None or space.is_listed:
            prior = None if self.committed is not None else self.search.prior(self.search_state)
            if prior is None:
                prior = torch.nn.functional.one_hot(torch.tensor(leading), space.size).double()
            chosen = self.start.prefix + str(space[leading])
            return EpochSummary(chosen, tuple(prior.tolist()), evaluated, commit_epoch=self.commit_epoch)
        configuration, probability = space[leading], 1.0
        by_layer: list[float] = []
        for p, size in zip(by_group.tolist(), space.sizes, strict=True):
            transfers = configuration[len(by_layer)]
            p = p if self.committed is None else float(transfers)
            probability *= p if transfers else 1 - p
            by_layer += [p] * size
        return EpochSummary(str(configuration), (probability,), evaluated, tuple(by_layer), self.commit_epoch)

    @property
    def _num_traced(self) -> int:
        """Points within the epoch under way at which the record has the probabilities."""
        return _MOST_TRACED // self.start.space.size // (self._epoch + 1) if self.start.space.is_listed else 0

    def trace(self) -> tuple[int, tuple[float, ...] | None] | None:
        if self.committed is not None or self.start.space.size == 1:
            return None
        num, most = len(self._priors), self._num_traced
        at = sorted({-(-(k + 1) * num // most) - 1 for k in range(most)}) if num else []
        rows = torch.stack([self._priors[k] for k in at]).tolist() if at else []
        return self._num_batches, tuple(round(p, 4) for row in rows for p in row) or None

    def _next_mixture(self) -> Mixture:
        """Return the network under the next mini-batch's configurations, which are built anew if they change."""
        if self.committed is None:
            self.search_state = self.search.begin_batch(self.search_state, self._draws)
            candidates = self.search.candidates(self.search_state, self._num_configurations)
        else:
            candidates = (0,)
        trained = self._trained
        if candidates != self._evaluated:
            configurations = tuple(trained.space[c] for c in candidates)
            self._mixture = Mixture(trained.net, trained.sharing, configurations)
            self._evaluated = candidates
        self._num_evaluated, self._num_batches = self._num_evaluated + len(candidates), self._num_batches + 1
        return self._mixture

    @torch.no_grad()
    def _blend_with_fresh(self, weights: TaskWeights, configuration: Configuration, *, with_head: bool) -> None:
        """Move what was taken over part of the way to fresh weights (``TrainingConfig.specific_shrink``).

        The head then starts again: it was fitted to features that are no more, for which many of its units would be
        silent and stay so.
        """
        start, keep = self.start, self.config.kept_when_searched(self.num_batches)
        if with_head and keep < 1:
            for name, value in start.weights.head.items():
                weights.head[name].copy_(value)
        for (layer, transferred), fresh in start.fresh_weights.items():
            if configuration[layer] != transferred:
                continue
            own, block = weights.layers[layer], start.net.blocks[layer]
            if transferred:
                blended = start.sharing.blend_with_fresh(block, own.shared, own.factors, fresh, keep)
                for name, value in blended.items():
                    own.factors[name].copy_(value)
            else:
                for name, value in fresh.items():
                    own.specific[name].mul_(keep).add_(value.to(own.specific[name]), alpha=block.fresh_share(keep))


def _last(weights: TaskWeights, start: TaskStart) -> TaskWeights:
    """Return the weights of a network's last layers, as many as a start has."""
    return TaskWeights(weights.layers[-start.net.depth :], weights.head)


Make = Callable[[TaskStart], AbstractPhase[Any]]
"""Gives the phase that trains a prepared start; its outcome are the logits of the validation images."""


def fine_tuned(make: Make, start: TaskStart) -> Plan[Selected]:
    """Yield the phases in which a network learns a task, in one configuration or in what its phase chooses.

    Of a pretrained network half of the epochs go to trying steps. The one after which the answers to the validation
    images are likeliest trains from the start again, in the other half (``trained``). ``make`` gives the phase.
    """
    ready, config = prepared(start), start.config
    if not (ready.net.pretrained and (config.steps if ready.solved is None else config.refit)):
        phase = make(ready)
        phase.forgets = None
        result = yield phase
        return selected(start, result)
    tried: list[tuple[float, float, float, float]] = []  # likelihood, accuracy, temperature, step size
    steps = config.steps if ready.solved is None else (1.0,)
    for step in steps:
        rate = step * config.learning_rate
        phase = make(shortened(ready, rate, 1 / (2 * len(steps))))
        phase.title = "head" if ready.solved is not None else f"step {rate:.0e}"
        phase.seeds_of = 0  # the same order of images for every step
        phase.forgets = None
        result = yield phase
        scores, accuracy, temperature = judged(outcome_of(result), ready.task.valid.labels)
        tried.append((float(scores.mean()), accuracy, temperature, rate))
    _, accuracy, temperature, rate = max(tried, key=lambda one: one[0])  # of equal ones the first
    return (yield from trained(make, start, ready, rate, accuracy, temperature))


def trained(
    make: Make,
    start: TaskStart,
    ready: TaskStart,
    rate: float,
    valid_accuracy: float,
    temperature: float,
    share: float = 1 / 2,
) -> Plan[Selected]:
    """Yield the phase that trains with the step size that was chosen, with ``TrainingConfig.refit`` on all images.

    Args:
        make: gives the phase.
        start: what ``selected`` needs.
        ready: the same, prepared.
        rate: the step size.
        valid_accuracy: of a training that had not seen the validation images.
        temperature: likewise.
        share: of the task's epochs that are left for it.
    """
    ready = shortened(ready, rate, share)
    whole = with_all_images(ready, valid_accuracy) if ready.config.refit else None
    phase = make(whole or ready)
    phase.title, phase.forgets, phase.seeds_of = "all images" if whole else "", None, 0
    result = yield phase
    return selected(start, result, temperature=None if whole is None else temperature)


def shortened(ready: TaskStart, rate: float, share: float) -> TaskStart:
    """Return a start that trains with a step size, for a share of its epochs."""
    config = ready.config
    return replace(ready, config=replace(config, learning_rate=rate, epochs=math.ceil(share * config.epochs)))


class TriedPhase(MixturePhase[Any]):
    """Training whose outcome are the validation images' logits, by the leading configuration."""

    def outcome(self, weights: TaskWeights) -> Tensor:
        return valid_logits(self.start, self.start.space[self.leading], weights)


def valid_logits(start: TaskStart, configuration: Configuration, weights: TaskWeights) -> Tensor:
    """Return the logits of a task's validation images by one configuration, shape (N, num_classes)."""
    mixture = Mixture(start.net, start.sharing, (configuration,))
    batches = start.task.valid.batches(evaluation_batch(start.task.image_shape), device=start.device)
    return torch.cat([evaluate(mixture, weights, x)[0] for x, _ in batches])


def outcome_of(result: PhaseResult[Any]) -> Tensor:
    """Return the outcome of a phase that has one."""
    assert result.outcome is not None
    return result.outcome


def judged(logits: Tensor, labels: Tensor) -> tuple[Tensor, float, float]:
    """Return log-likelihoods (N,) at the temperature that suits some images, the accuracy, and that temperature.

    Args:
        logits: of images that were not trained on, shape (N, num_classes).
        labels: shape (N,).
    """
    labels, temperature = labels.cpu(), best_temperature(logits, labels)
    right = float((logits.argmax(dim=1) == labels).double().mean())
    return -F.cross_entropy(logits / temperature, labels, reduction="none"), right, temperature


@final
@dataclass(frozen=True)
class Fixed(AbstractSearch[None]):
    """No search: ``Fixed("all")`` is hard parameter sharing, ``Fixed("none")`` single-task learning."""

    name: ClassVar[str] = "fixed"

    configuration: str = "all"
    """all, none, alternating, top-K, bottom-K, or one letter a layer such as STTS."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "configuration", str(Pattern(str(self.configuration))))

    def space(self, depth: int, task_index: int) -> Space:
        return listed([Pattern(self.configuration).of(depth)])

    def reason(self, net: AbstractNet, task_index: int) -> str:
        given = f"search 'fixed' gives every task '{self.configuration}'"
        return f"{given}; in a new model --search evidence decides layer by layer"

    def init(self, num_configurations: int) -> None:
        return None

    def step(self, state: None, log_likelihood: Tensor) -> tuple[Tensor, None]:
        return torch.ones(1, device=log_likelihood.device), None

    def best(self, state: None) -> int:
        return 0


@final
@dataclass(frozen=True, kw_only=True)
class FixedProbability(GroupedSelection, AbstractSearch[Tensor]):
    """One configuration has a high probability all along, the others share the rest evenly, as in [Lee2021]_'s code.

    The weights are trained as the mixture, and the task gets the configuration that was given.
    """

    name: ClassVar[str] = "fixed-probability"
    most_groups: ClassVar[int | None] = 10

    configuration: str = "all"
    """The configuration that is probable: all, none, alternating, top-K, bottom-K, or letters such as STTS."""
    probability: Annotated[float, Range(above=0, most=1)] = 0.9
    """Its probability; in (0, 1]."""
    commit_share: Annotated[float, Range(above=0, most=1)] = 1.0
    """The others are left out when this share of the task's epochs is spent; 1: never."""

    def __post_init__(self) -> None:
        super().__post_init__()
        Pattern(self.configuration)

    def choices(self, groups: tuple[int, ...]) -> Space:
        """Return all configurations of the groups, the probable one first."""
        chosen = Pattern(self.configuration).of(sum(groups))
        return listed([chosen, *(other for other in grouped(groups) if other != chosen)])

    def reason(self, net: AbstractNet, task_index: int) -> str:
        searched = self.space(net.depth, task_index).size > 1
        given = f"search '{self.name}' trains all configurations and gives every task '{self.configuration}'"
        return given if searched else super().reason(net, task_index)

    def init(self, num_configurations: int) -> Tensor:
        rest = (1 - self.probability) / max(1, num_configurations - 1)
        prior = torch.full((num_configurations,), rest, dtype=torch.float64)
        prior[0] = self.probability if num_configurations > 1 else 1.0
        return prior

    def prior(self, state: Tensor) -> Tensor:
        return state

    def step(self, state: Tensor, log_likelihood: Tensor) -> tuple[Tensor, Tensor]:
        return state, state

    def commits(self, state: Tensor, epoch: int, num_epochs: int) -> bool:
        return epoch / num_epochs >= self.commit_share

    def best(self, state: Tensor) -> int:
        return 0
