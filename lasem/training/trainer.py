"""The training of one task, epoch by epoch, for every search and sharing mechanism."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, final

import torch
from torch import Tensor

from lasem.data import Split, Task
from lasem.errors import StorageError, TrainingError
from lasem.nets import Net
from lasem.records import EpochRecord, TimingRecord
from lasem.search import AbstractSearch, SearchState
from lasem.sharing import AbstractSharing
from lasem.space import Configuration, Space
from lasem.training.config import TrainingConfig
from lasem.training.mixture import Mixture, evaluate, log_likelihood
from lasem.training.optimiser import build_optimiser, learning_rate, set_learning_rate
from lasem.training.weights import TaskWeights, part_of

EVALUATION_BATCH = 500
"""Images at a time where no gradients are needed."""


@final
@dataclass(frozen=True)
class Best:
    """The best epoch so far: its weights and the configuration that led then."""

    epoch: int
    valid_accuracy: float
    configuration: int
    weights: TaskWeights


@final
class Trainer:
    """Trains one task. ``run_epoch`` until ``finished``; then ``best`` and ``weights`` hold what came out.

    Everything that a later epoch depends on is in ``state``, so that a trainer which is given it back goes on to the
    same bits.
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
        replaced: Mapping[int, Mapping[str, Tensor]],
        seeds: tuple[int, int],
        epochs_before: int,
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
            weights: initial values; they are copied.
            replaced: fresh weights of the layers whose task-specific weights were taken over from another task.
            seeds: of the order of the images, and of dropout.
            epochs_before: epochs that earlier tasks were trained for.
            device: where to compute.
        """
        self._net, self._sharing, self._search, self._config = net, sharing, search, config
        self._space, self._task, self._device = space, task, device
        self._replaced, self._epochs_before = replaced, epochs_before
        self.weights = weights.copy(device=device, requires_grad=True)
        self._optimiser = build_optimiser(self.weights, config, sharing.step_scale)
        self._order = torch.Generator().manual_seed(seeds[0])
        self._dropout = torch.Generator(device).manual_seed(seeds[1])
        start = search.init(len(space))
        self.search_state: SearchState = replace(start, mass=start.mass.to(device))
        self.best: Best | None = None
        self.num_epochs = 0
        self.commit_epoch: int | None = None
        self._highest = -1.0
        self._epochs_without_gain = 0

    @property
    def finished(self) -> bool:
        """Whether the epochs or the patience are spent."""
        out_of_patience = 0 < self._config.patience <= self._epochs_without_gain
        return self.num_epochs >= self._config.epochs or out_of_patience

    @property
    def leading(self) -> int:
        """Position of the leading configuration in the space."""
        return self._search.best(self.search_state)

    def run_epoch(self) -> tuple[EpochRecord, TimingRecord]:
        """Train on every image once, then look at the validation images.

        Raises:
            TrainingError: if the loss or a weight is no longer finite.
        """
        started = time.perf_counter()
        self.search_state = self._search.advance(self.search_state, self.num_epochs / self._config.epochs)
        candidates = self._search.candidates(self.search_state, len(self._space))
        if len(candidates) == 1 and self.commit_epoch is None and len(self._space) > 1:
            self.commit_epoch = self.num_epochs + 1
            self._shrink(self._space[candidates[0]])
        set_learning_rate(self._optimiser, learning_rate(self._config, self.num_epochs, self._epochs_before))
        loss = self._train(Mixture.of(self._net, self._sharing, tuple(self._space[c] for c in candidates)))
        trained = time.perf_counter()
        self.num_epochs += 1
        leading = self.leading
        accuracy = self.accuracy(self._task.valid, leading)
        self._keep_best(accuracy, leading)
        record = EpochRecord(
            task=self._task.name,
            epoch=self.num_epochs,
            loss=loss,
            valid_accuracy=accuracy,
            configuration=str(self._space[leading]),
            probabilities=tuple(self._search.prior(self.search_state).tolist()),
            num_evaluated=len(candidates),
        )
        timing = TimingRecord(
            task=self._task.name,
            epoch=self.num_epochs,
            seconds_training=trained - started,
            seconds_evaluating=time.perf_counter() - trained,
        )
        return record, timing

    def accuracy(self, split: Split, configuration: int) -> float:
        """Accuracy in [0, 1] of one configuration of the space on a split."""
        return accuracy(self._net, self._sharing, self._space[configuration], self.weights, split)

    @torch.no_grad()
    def _shrink(self, configuration: Configuration) -> None:
        """Move task-specific weights that were taken over part of the way to fresh ones (``specific_shrink``)."""
        keep = self._config.specific_shrink
        for layer, fresh in self._replaced.items():
            if not configuration[layer]:
                for name, weight in self.weights.layers[layer].specific.items():
                    weight.mul_(keep).add_(fresh[name].to(weight), alpha=math.sqrt(1 - keep**2))

    def _train(self, mixture: Mixture) -> float:
        """One pass of optimiser steps; the mean loss."""
        total = torch.zeros((), device=self._device)
        num_batches = 0
        batches = self._task.train.batches(
            self._config.batch_size, device=self._device, generator=self._order, drop_last=self._config.drop_last
        )
        for x, labels in batches:
            loss = self._loss(mixture, x, labels)
            self._optimiser.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            self._optimiser.step()
            total += loss.detach()  # stays on the device: it is read once an epoch
            num_batches += 1
        mean = float(total) / num_batches
        if not (math.isfinite(mean) and all(bool(weight.isfinite().all()) for weight in self.weights)):
            raise TrainingError(
                f"The weights or the loss of task '{self._task.name}' were not finite in epoch {self.num_epochs + 1} "
                f"(loss {mean}); training has stopped and what was learned before is untouched. Try a smaller "
                f"learning_rate (now {self._config.learning_rate})."
            )
        return mean

    def _loss(self, mixture: Mixture, x: Tensor, labels: Tensor) -> Tensor:
        """E-step, and the M-step's loss: sum_c q_c (CE_c + penalties of the layers that c transfers), q constant."""
        features = mixture.features(self.weights, x)
        if len(mixture.configurations) == 1:
            posterior = torch.ones(1, device=self._device)
        else:
            with torch.no_grad():  # dropout is off in the E-step
                evidence = log_likelihood(mixture.logits(self.weights, features), labels)
            posterior, self.search_state = self._search.step(self.search_state, evidence)
        logits = mixture.logits(self.weights, features, self._dropout)
        losses = -log_likelihood(logits, labels).mean(dim=1)
        loss = posterior.to(losses) @ losses
        penalty = mixture.penalty(self.weights, posterior)
        return loss if penalty is None else loss + penalty

    def _keep_best(self, accuracy: float, leading: int) -> None:
        """Take this epoch as the best one so far if it is (see ``TrainingConfig.tolerance``)."""
        gained = accuracy > self._highest
        self._epochs_without_gain = 0 if gained else self._epochs_without_gain + 1
        self._highest = max(accuracy, self._highest)
        error = math.sqrt(self._highest * (1 - self._highest) / len(self._task.valid))
        slack = self._config.tolerance * error
        if gained or (self._config.tolerance > 0 and accuracy >= self._highest - slack):
            self.best = Best(self.num_epochs, accuracy, leading, self.weights.copy())

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Everything that later epochs depend on, copied: tensors by name, and plain values for JSON."""
        tensors = {f"weights.{name}": value for name, value in self.weights.copy().named().items()}
        names = self._optimised_names()
        for index, entries in self._optimiser.state_dict()["state"].items():
            of = f"optimiser.{names[index]}"  # by name: a loaded learner may hold its weights in another order
            tensors |= {f"{of}.{key}": torch.as_tensor(value).clone() for key, value in entries.items()}
        tensors |= {
            "search.mass": self.search_state.mass,
            "generator.order": self._order.get_state(),
            "generator.dropout": self._dropout.get_state(),
        }
        plain: dict[str, Any] = {
            "task": self._task.name,
            "num_epochs": self.num_epochs,
            "commit_epoch": self.commit_epoch,
            "committed": self.search_state.committed,
            "epochs_without_gain": self._epochs_without_gain,
            "highest": self._highest,
            "best": None,
        }
        if self.best is not None:
            tensors |= {f"best.{name}": value for name, value in self.best.weights.named().items()}
            plain["best"] = {
                "epoch": self.best.epoch,
                "valid_accuracy": self.best.valid_accuracy,
                "configuration": self.best.configuration,
            }
        return tensors, plain

    def load_state(self, tensors: Mapping[str, Tensor], plain: Mapping[str, Any]) -> None:
        """Go on from what ``state`` gave.

        Raises:
            StorageError: if it belongs to another task or network, or a part is missing.
        """
        try:
            self._load_state(tensors, plain)
        except (KeyError, ValueError, TypeError, RuntimeError, IndexError) as error:
            raise StorageError(
                f"Expected the training state of task '{self._task.name}' with this network and these settings; "
                f"got another ({error})."
            ) from error

    def _load_state(self, tensors: Mapping[str, Tensor], plain: Mapping[str, Any]) -> None:
        if plain["task"] != self._task.name:
            raise ValueError(f"it is of task '{plain['task']}'")
        current = self.weights.named()
        stored = part_of(tensors, "weights")
        if {k: v.shape for k, v in stored.items()} != {k: v.shape for k, v in current.items()}:
            raise ValueError("its weights have other names or shapes")
        with torch.no_grad():
            for name, value in stored.items():
                current[name].copy_(value)
        entries: dict[int, dict[str, Tensor]] = {}
        names = self._optimised_names()
        for place, value in part_of(tensors, "optimiser").items():
            name, key = place.rsplit(".", 1)
            if value.ndim > 0 and value.shape != current[name].shape:
                raise ValueError(f"its optimiser has another shape for '{place}'")
            entries.setdefault(names.index(name), {})[key] = value.clone()  # the optimiser changes it in place
        self._optimiser.load_state_dict({**self._optimiser.state_dict(), "state": entries})
        self.search_state = replace(
            self.search_state,
            mass=tensors["search.mass"].to(self.search_state.mass).clone(),
            committed=plain["committed"],
        )
        self._order.set_state(tensors["generator.order"])
        self._dropout.set_state(tensors["generator.dropout"])
        self.num_epochs, self.commit_epoch = plain["num_epochs"], plain["commit_epoch"]
        self._epochs_without_gain, self._highest = plain["epochs_without_gain"], plain["highest"]
        if plain["best"] is not None:
            stored = part_of(tensors, "best")
            weights = TaskWeights.from_named({name: stored[name] for name in current}, len(self.weights.layers))
            self.best = Best(**plain["best"], weights=weights.copy(device=self._device))

    def _optimised_names(self) -> list[str]:
        """The weights' names in the order that the optimiser counts them, which goes by its groups."""
        name_of = {id(weight): name for name, weight in self.weights.named().items()}
        return [name_of[id(weight)] for group in self._optimiser.param_groups for weight in group["params"]]


def accuracy(
    net: Net, sharing: AbstractSharing, configuration: Configuration, weights: TaskWeights, split: Split
) -> float:
    """Share of a split's images that one configuration labels rightly, in [0, 1]."""
    mixture = Mixture.of(net, sharing, (configuration,))
    device = next(iter(weights.head.values())).device
    correct = torch.zeros((), dtype=torch.int64, device=device)
    for x, labels in split.batches(EVALUATION_BATCH, device=device):
        correct += (evaluate(mixture, weights, x)[0].argmax(dim=1) == labels).sum()
    return int(correct) / len(split)
