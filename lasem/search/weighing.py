"""Searches that weigh configurations, and the phase in which all that are still weighed are trained at once."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lasem.nets import full_precision
from lasem.search.abstract import AbstractSelection, Selected, selected
from lasem.search.mixture import Mixture, configuration_accuracy, drop_negligible, log_likelihood
from lasem.search.state import SearchState
from lasem.space import Configuration, PrefixTree, positions
from lasem.training import AbstractPhase, Batch, EpochSummary, Named, Plan, TaskStart, TaskWeights


class AbstractSearch(AbstractSelection):
    """Weighs the C configurations of a task while it is learned; what it finds out is state."""

    def with_prior(self, prior_start: tuple[float, float] | None) -> AbstractSearch:
        """This search for a sharing mechanism that has something to say of the prior (``AbstractSharing.prior_start``).

        Here: unchanged.
        """
        return self

    @abstractmethod
    def init(self, num_configurations: int) -> SearchState:
        """The state before a task's first mini-batch."""

    @abstractmethod
    def prior(self, state: SearchState) -> Tensor:
        """Probability of every configuration before the next mini-batch, shape (C,), summing to 1."""

    @abstractmethod
    def step(self, state: SearchState, log_likelihood: Tensor) -> tuple[Tensor, SearchState]:
        """Weigh the configurations on one mini-batch.

        Args:
            state: what is known so far.
            log_likelihood: log p(y_n | x_n, c) of the candidates, shape (len(candidates), batch); of all
                configurations, shape (C, batch), where ``full_pass`` says so.

        Returns:
            The weights of the M-step, one for each row, summing to 1 and 0 for what is no candidate; the next state.
        """

    @abstractmethod
    def advance(self, state: SearchState, epoch: int, num_epochs: int) -> SearchState:
        """Called before each epoch: may commit.

        Args:
            state: what is known so far.
            epoch: epochs that the task has been trained for, from 0.
            num_epochs: epochs that it may be trained for.
        """

    @abstractmethod
    def best(self, state: SearchState) -> int:
        """The leading configuration's position in the space."""

    def transfer_probability(self, state: SearchState) -> Tensor | None:
        """Probability that each group of layers transfers, shape (G,), of a search whose prior factorises over them."""
        return None

    def begin_batch(self, state: SearchState, generator: torch.Generator) -> SearchState:
        """Called before each mini-batch while ``SearchState.is_partial``: may choose the candidates anew.

        Args:
            state: what is known so far.
            generator: the task's source of random numbers, on the CPU; goes on from one call to the next.
        """
        return state

    def full_pass(self, state: SearchState) -> bool:
        """Whether the E-step of the next mini-batch needs all configurations, and not the candidates alone."""
        return False

    def candidates(self, state: SearchState, num_configurations: int) -> tuple[int, ...]:
        """Positions of the configurations that the next mini-batch trains, rising."""
        if state.committed is not None:
            return (state.committed,)
        part = state.pruned.kept if state.pruned is not None else state.drawn and state.drawn.positions
        return tuple(range(num_configurations)) if part is None else part

    def plan(self, start: TaskStart) -> Plan[Selected]:
        result = yield MixturePhase(self, start)
        return selected(start, result)


class MixturePhase(AbstractPhase):
    """EM over the configurations of a space, or the training of the one that a fixed search names.

    ``outcome`` holds ``configuration``, the leading one's position in the space, and ``commit_epoch``.
    """

    def __init__(self, search: AbstractSearch, start: TaskStart) -> None:
        """Start before the first epoch.

        Args:
            search: weighs the configurations.
            start: the task, the configurations to choose from, and where their weights start.
        """
        self.task, self.config = start.task, start.config
        self._net, self._sharing, self._space = start.net, start.sharing, start.space
        self._search = search.with_prior(start.sharing.prior_start)
        self._weights, self._fresh_weights, self._protection = (
            start.weights,
            start.fresh_weights,
            start.protection,
        )
        self._layers = self._net.blocks, self._net.head
        self.search_state: SearchState = self._search.init(start.space.size).to(start.device)
        self.commit_epoch: int | None = None
        # its own source: no other random number of the task is drawn from the seed with this spawn key
        own = np.random.SeedSequence(start.seed, spawn_key=(2,)).generate_state(1)
        self._draws = torch.Generator().manual_seed(int(own[0]))
        self._num_evaluated, self._num_batches = 0, 0  # in the epoch under way
        self._evaluated: tuple[int, ...] = ()
        self._mixture: Mixture
        if not self.search_state.is_partial:
            self._evaluates(self._candidates())

    @property
    def leading(self) -> int:
        """Position of the leading configuration in the space."""
        return self._search.best(self.search_state)

    @property
    def evaluated(self) -> tuple[Configuration, ...]:
        """The configurations of the latest mini-batch."""
        return self._mixture.configurations

    def initial(self) -> dict[str, Tensor]:
        """What every configuration needs; see ``TaskWeights.named``."""
        return self._weights.named()

    def scale(self, name: str) -> float:
        """Shared knowledge and factors move as the mechanism says, unless they are held."""
        return self._protection.scale(self._sharing, name)

    def begin_epoch(self, weights: Named, epoch: int, learning_rate: float) -> None:
        """Ask the search which configurations go on; shrink what was taken over once it has committed."""
        self.search_state = self._search.advance(self.search_state, epoch, self.config.epochs)
        self._num_evaluated, self._num_batches = 0, 0
        if self.search_state.is_partial:
            return  # each mini-batch asks for itself
        candidates = self._candidates()
        searched = self._space.size > 1
        if len(candidates) == 1 and (self.commit_epoch is None if searched else epoch == 0):
            self.commit_epoch = epoch + 1 if searched else None
            self._renew(weights, self._space[candidates[0]], with_head=searched)
        self._evaluates(candidates)

    def loss(self, weights: Named, batch: Batch, dropout: torch.Generator) -> Tensor:
        """E-step, and the M-step's loss: sum_c q_c (CE_c + penalties of the layers that c transfers), q constant."""
        partial = self.search_state.is_partial
        if partial:
            self.search_state = self._search.begin_batch(self.search_state, self._draws)
            self._evaluates(self._candidates())
        mixture, parts = self._mixture, self._parts(weights)
        self._num_evaluated, self._num_batches = self._num_evaluated + len(self._evaluated), self._num_batches + 1
        full = self._apart(parts) if partial and self._search.full_pass(self.search_state) else None
        features = mixture.features(parts, batch.x, training=True)
        if full is not None:
            posterior = self._full_pass(full, batch)
        elif len(self._evaluated) > 1 or partial:
            with torch.no_grad():  # dropout is off in the E-step
                evidence = log_likelihood(mixture.logits(parts, features), batch.labels)
            posterior = self._e_step(evidence)
        else:
            posterior = torch.ones(1, device=batch.x.device)
        logits = mixture.logits(parts, features, dropout)
        losses = -log_likelihood(logits, batch.labels).mean(dim=1)
        with full_precision(batch.x.device):
            posterior = drop_negligible(posterior.to(losses))
            loss = posterior @ losses
            for penalty in (mixture.penalty(parts, posterior), self._protection.penalty(weights)):
                loss = loss if penalty is None else loss + penalty
        return loss

    def accuracy(self, weights: Named) -> float:
        """Of the leading configuration."""
        return configuration_accuracy(
            self._net, self._sharing, self._space[self.leading], self._parts(weights), self.task.valid
        )

    def summary(self) -> EpochSummary:
        """The leading configuration and the probability of each, or of each layer's transfer."""
        evaluated = round(self._num_evaluated / max(1, self._num_batches))
        leading, by_group = self.leading, self._search.transfer_probability(self.search_state)
        if by_group is None or self._space.is_listed:
            prior = self._search.prior(self.search_state)
            return EpochSummary(str(self._space[leading]), tuple(prior.tolist()), evaluated)
        configuration, probability = self._space[leading], 1.0
        by_layer: list[float] = []
        for p, size in zip(by_group.tolist(), self._space.sizes, strict=True):
            probability *= p if configuration[len(by_layer)] else 1 - p
            by_layer += [p] * size
        return EpochSummary(str(configuration), (probability,), evaluated, tuple(by_layer))

    def outcome(self) -> dict[str, Any]:
        """The leading configuration, and when the search committed."""
        return {"configuration": self.leading, "commit_epoch": self.commit_epoch}

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """The search's state."""
        tensors, plain = self.search_state.tensors(), self.search_state.plain()
        if self.search_state.drawn is not None:
            tensors["draws"] = self._draws.get_state()
        return tensors, {"commit_epoch": self.commit_epoch, **plain}

    def load_state(self, tensors: Named, plain: Mapping[str, Any]) -> None:
        """Take the search's state back."""
        self.search_state = self.search_state.loaded(tensors, plain)
        self.commit_epoch = plain["commit_epoch"]
        if self.search_state.drawn is not None:
            self._draws.set_state(tensors["draws"].cpu())

    def _parts(self, weights: Named) -> TaskWeights:
        return TaskWeights.from_named(weights, self._net.depth)

    def _candidates(self) -> tuple[int, ...]:
        return self._search.candidates(self.search_state, self._space.size)

    def _evaluates(self, candidates: tuple[int, ...]) -> None:
        """Put the tree over the candidates, unless it is."""
        if candidates != self._evaluated:
            self._mixture = self._mixture_of(self._space[c] for c in candidates)
            self._evaluated = candidates

    def _mixture_of(self, configurations: Iterable[Configuration]) -> Mixture:
        chosen = tuple(configurations)
        blocks, head = self._layers  # made once: a partial search puts up a tree for every mini-batch
        return Mixture(blocks, head, self._sharing, chosen, PrefixTree.of(chosen))

    @cached_property
    def _everything(self) -> Mixture:
        return self._mixture_of(self._space)

    def _apart(self, parts: TaskWeights) -> TaskWeights:
        """The same weights, and copies of the statistics of the candidates' paths, which measure a mini-batch once."""
        layers = []
        for own, level in zip(parts.layers, self._mixture.tree.levels, strict=True):
            paths = {prefix for prefixes in level.prefixes for prefix in prefixes}
            copied = {k: v.clone() for k, v in own.statistics.items() if k.partition(".")[0] in paths}
            layers.append(replace(own, statistics={**own.statistics, **copied}))
        return TaskWeights(tuple(layers), parts.head)

    @torch.no_grad()
    def _full_pass(self, parts: TaskWeights, batch: Batch) -> Tensor:
        """The E-step over all configurations; the candidates' weights. ``parts`` is what ``_apart`` gave."""
        everything = self._everything
        # running statistics as those of the candidates, or their likelihoods could not be compared
        features = everything.features(parts, batch.x, training=True)
        evidence = log_likelihood(everything.logits(parts, features), batch.labels)
        weights = self._e_step(evidence)
        return weights[positions(self._evaluated, weights.device)]

    def _e_step(self, evidence: Tensor) -> Tensor:
        """The weights that the search gives to what was evaluated."""
        with full_precision(evidence.device):
            weights, self.search_state = self._search.step(self.search_state, evidence)
        return weights

    @torch.no_grad()
    def _renew(self, weights: Named, configuration: Configuration, *, with_head: bool) -> None:
        """Move what was taken over part of the way to fresh weights (``TrainingConfig.specific_shrink``).

        The head then starts again: it was fitted to features that are no more, for which many of its units would be
        silent and stay so.
        """
        keep = self.config.specific_shrink
        if with_head and keep < 1:
            for name, value in self._weights.head.items():
                weights[f"head.{name}"].copy_(value)
        for (layer, transferred), fresh in self._fresh_weights.items():
            if configuration[layer] != transferred:
                continue
            own, block = self._parts(weights).layers[layer], self._net.blocks[layer]
            if transferred:
                renewed = self._sharing.blend_with_fresh(block, own.shared, own.factors, fresh, keep)
                for name, value in renewed.items():
                    own.factors[name].copy_(value)
            else:
                for name, value in fresh.items():
                    own.specific[name].mul_(keep).add_(value.to(own.specific[name]), alpha=block.fresh_share(keep))
