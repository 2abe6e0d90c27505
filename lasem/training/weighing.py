"""LASEM's phase: all configurations that the search still weighs are trained at once, each by its posterior."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, final

import torch
from torch import Tensor

from lasem.data import Split, Task
from lasem.nets import Net
from lasem.search import AbstractSearch, SearchState
from lasem.sharing import AbstractSharing
from lasem.space import Configuration, Space
from lasem.training.config import TrainingConfig
from lasem.training.evaluation import share_right
from lasem.training.guard import Guard
from lasem.training.mixture import Mixture, evaluate, log_likelihood
from lasem.training.phase import AbstractPhase, Batch, Named, Seen
from lasem.training.weights import TaskWeights

Replaced = Mapping[tuple[int, bool], Mapping[str, Tensor]]
"""Fresh plain weights for each (layer, whether transferred) where the task's own part was taken over from another task,
as task-specific weights (False) or as a mechanism's part (True)."""


@final
class Weighing(AbstractPhase):
    """EM over the configurations of a space, or the training of the one that a fixed search names.

    ``outcome`` holds ``configuration``, the leading one's position in the space, and ``commit_epoch``.
    """

    def __init__(
        self,
        net: Net,
        sharing: AbstractSharing,
        search: AbstractSearch,
        config: TrainingConfig,
        space: Space,
        task: Task,
        weights: TaskWeights,
        *,
        replaced: Replaced,
        guard: Guard | None = None,
        device: torch.device,
    ) -> None:
        """Start before the first epoch.

        Args:
            net: the network.
            sharing: how shared knowledge becomes weights.
            search: weighs the configurations.
            config: how to train.
            space: the configurations to choose from.
            task: images and labels.
            weights: initial values.
            replaced: see ``Replaced``.
            guard: what holds shared knowledge that earlier tasks use; nothing if not given.
            device: where to compute.
        """
        self.task, self.config = task, config
        self._net, self._sharing, self._search, self._space = net, sharing, search, space
        self._weights, self._replaced = weights, replaced
        self._guard = guard if guard is not None else Guard()
        start = search.init(len(space))
        self.search_state: SearchState = replace(start, mass=start.mass.to(device))
        self.commit_epoch: int | None = None
        self._mixture = self._mixture_of(search.candidates(self.search_state, len(space)))

    @property
    def leading(self) -> int:
        """Position of the leading configuration in the space."""
        return self._search.best(self.search_state)

    def initial(self) -> dict[str, Tensor]:
        """What every configuration needs; see ``TaskWeights.named``."""
        return self._weights.named()

    def scale(self, name: str) -> float:
        """Shared knowledge and factors move as the mechanism says, unless they are held."""
        return self._guard.scale(self._sharing, name)

    def begin_epoch(self, weights: Named, epoch: int, learning_rate: float) -> None:
        """Ask the search which configurations go on; shrink what was taken over once it has committed."""
        self.search_state = self._search.advance(self.search_state, epoch / self.config.epochs)
        candidates = self._search.candidates(self.search_state, len(self._space))
        searched = len(self._space) > 1
        if len(candidates) == 1 and (self.commit_epoch is None if searched else epoch == 0):
            self.commit_epoch = epoch + 1 if searched else None
            self._renew(weights, self._space[candidates[0]], with_head=searched)
        self._mixture = self._mixture_of(candidates)

    def loss(self, weights: Named, batch: Batch, dropout: torch.Generator) -> Tensor:
        """E-step, and the M-step's loss: sum_c q_c (CE_c + penalties of the layers that c transfers), q constant."""
        mixture, parts = self._mixture, self._parts(weights)
        features = mixture.features(parts, batch.x)
        if len(mixture.configurations) == 1:
            posterior = torch.ones(1, device=batch.x.device)
        else:
            with torch.no_grad():  # dropout is off in the E-step
                evidence = log_likelihood(mixture.logits(parts, features), batch.labels)
            posterior, self.search_state = self._search.step(self.search_state, evidence)
        logits = mixture.logits(parts, features, dropout)
        losses = -log_likelihood(logits, batch.labels).mean(dim=1)
        loss = posterior.to(losses) @ losses
        for penalty in (mixture.penalty(parts, posterior), self._guard.penalty(weights)):
            loss = loss if penalty is None else loss + penalty
        return loss

    def accuracy(self, weights: Named) -> float:
        """Of the leading configuration."""
        return accuracy(self._net, self._sharing, self._space[self.leading], self._parts(weights), self.task.valid)

    def seen(self) -> Seen:
        """The leading configuration and the probability of each."""
        return Seen(
            str(self._space[self.leading]),
            tuple(self._search.prior(self.search_state).tolist()),
            len(self._mixture.configurations),
        )

    def outcome(self) -> dict[str, Any]:
        """The leading configuration, and when the search committed."""
        return {"configuration": self.leading, "commit_epoch": self.commit_epoch}

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """The search's state."""
        plain = {"commit_epoch": self.commit_epoch, "committed": self.search_state.committed}
        return {"mass": self.search_state.mass}, plain

    def load_state(self, tensors: Named, plain: Mapping[str, Any]) -> None:
        """Take the search's state back."""
        mass = tensors["mass"].to(self.search_state.mass).clone()
        self.search_state = replace(self.search_state, mass=mass, committed=plain["committed"])
        self.commit_epoch = plain["commit_epoch"]

    def _parts(self, weights: Named) -> TaskWeights:
        return TaskWeights.from_named(weights, self._net.depth)

    def _mixture_of(self, candidates: tuple[int, ...]) -> Mixture:
        return Mixture.of(self._net, self._sharing, tuple(self._space[c] for c in candidates))

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
        for (layer, transferred), fresh in self._replaced.items():
            if configuration[layer] != transferred:
                continue
            own = self._parts(weights).layers[layer]
            if transferred:
                renewed = self._sharing.renewed(self._net.blocks[layer], own.shared, own.factors, fresh, keep)
                for name, value in renewed.items():
                    own.factors[name].copy_(value)
            else:
                for name, value in fresh.items():
                    own.specific[name].mul_(keep).add_(value.to(own.specific[name]), alpha=math.sqrt(1 - keep**2))


def accuracy(
    net: Net, sharing: AbstractSharing, configuration: Configuration, weights: TaskWeights, split: Split
) -> float:
    """Share of a split's images that one configuration labels rightly, in [0, 1]."""
    mixture = Mixture.of(net, sharing, (configuration,))
    device = next(iter(weights.head.values())).device
    return share_right(lambda x: evaluate(mixture, weights, x)[0], split, device)
