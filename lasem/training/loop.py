"""The training of one phase, epoch by epoch, for every method."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from typing import Any, final

import torch
from torch import Tensor

from lasem.errors import StorageError, TrainingError
from lasem.records import EpochRecord, TimingRecord
from lasem.training.optimiser import build_optimiser, learning_rate, set_learning_rate
from lasem.training.phase import AbstractPhase, PhaseResult, Snapshot, Step
from lasem.training.precision import autocast
from lasem.training.task_weights import part_of


@final
class Loop:
    """Trains one phase: ``run_epoch`` until ``finished``, then ``result``.

    Everything that a later epoch depends on is in ``state``, so that a loop which is given it back goes on to the same
    bits.
    """

    def __init__(
        self,
        phase: AbstractPhase,
        *,
        seeds: tuple[int, int],
        epochs_before: int = 0,
        first_epoch: int = 0,
        device: torch.device,
    ) -> None:
        """Start before the first epoch.

        Args:
            phase: what is trained, and how.
            seeds: of the order of the images, and of dropout.
            epochs_before: epochs that earlier tasks were trained for; a schedule may count them.
            first_epoch: epochs of earlier phases of the same task, which the records count.
            device: where to compute.
        """
        self.phase, self._config, self.device = phase, phase.config, device
        self._epochs_before, self._first_epoch = epochs_before, first_epoch
        initial = phase.initial()
        scales = {name: phase.scale(name) for name in initial}
        self.weights = {
            name: t.detach().to(device, copy=True).requires_grad_(scales[name] > 0) for name, t in initial.items()
        }
        self._optimiser = build_optimiser(
            {name: (t, scales[name]) for name, t in self.weights.items() if scales[name] > 0}, phase.config
        )
        self._order = torch.Generator().manual_seed(seeds[0])
        self._dropout = torch.Generator(device).manual_seed(seeds[1])
        self.best: Snapshot | None = None
        self.num_epochs = 0
        self._loss = float("nan")
        self._accuracy = 0.0
        self._highest = -1.0
        self._epochs_without_gain = 0

    @property
    def finished(self) -> bool:
        """Whether the epochs or the patience are spent."""
        out_of_patience = 0 < self._config.patience <= self._epochs_without_gain
        return self.num_epochs >= self._config.epochs or out_of_patience

    def run_epoch(self) -> tuple[EpochRecord, TimingRecord]:
        """Train on every image once, then look at the validation images.

        Raises:
            TrainingError: if the loss or a weight is no longer finite.
        """
        started = time.perf_counter()
        rate = learning_rate(self._config, self.num_epochs, self._epochs_before)
        self.phase.begin_epoch(self.weights, self.num_epochs, rate)
        set_learning_rate(self._optimiser, rate)
        self._loss = self._train(rate)
        trained = time.perf_counter()
        self.num_epochs += 1
        with autocast(self._config.precision, self.device):
            self._accuracy = self.phase.accuracy(self.weights)
        self._keep_best()
        seen = self.phase.summary()
        epoch = self._first_epoch + self.num_epochs
        record = EpochRecord(
            task=self.phase.task.name,
            epoch=epoch,
            loss=self._loss,
            valid_accuracy=self._accuracy,
            configuration=seen.configuration,
            probabilities=seen.probabilities,
            num_evaluated=seen.num_evaluated,
            transfer_probabilities=seen.transfer_probabilities,
            phase=self.phase.title,
        )
        timing = TimingRecord(
            task=self.phase.task.name,
            epoch=epoch,
            seconds_training=trained - started,
            seconds_evaluating=time.perf_counter() - trained,
        )
        return record, timing

    def result(self) -> PhaseResult:
        """What has come out so far; at least one epoch has been trained."""
        assert self.best is not None
        return PhaseResult(self.best, self._snapshot(), self.num_epochs, self._loss)

    def _train(self, rate: float) -> float:
        """One pass of optimiser steps; the mean loss."""
        total = torch.zeros((), device=self.device)
        num_batches = 0
        for batch in self.phase.batches(self.device, self._order):
            step = Step(self.num_epochs, num_batches, self.phase.num_batches, rate)
            with autocast(self._config.precision, self.device):
                loss = self.phase.loss(self.weights, batch, self._dropout)
            self._optimiser.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            self.phase.change_gradients(self.weights, step)
            self._optimiser.step()
            with torch.no_grad():
                self.phase.after_step(self.weights, step)
            total += loss.detach()  # stays on the device: it is read once an epoch
            num_batches += 1
        finite = torch.stack([weight.isfinite().all() for weight in self.weights.values()]).all()
        mean = float(total) / num_batches  # nothing before this line has waited for the device
        if not (math.isfinite(mean) and bool(finite)):
            raise TrainingError(
                f"The weights or the loss of task '{self.phase.task.name}' were not finite in epoch "
                f"{self._first_epoch + self.num_epochs + 1} (loss {mean}); training has stopped and what was learned "
                f"before is untouched. Try a smaller learning_rate (now {self._config.learning_rate})."
            )
        return mean

    def _keep_best(self) -> None:
        """Take this epoch as the best one so far if it is (see ``TrainingConfig.tolerance``)."""
        gained = self._accuracy > self._highest
        self._epochs_without_gain = 0 if gained else self._epochs_without_gain + 1
        self._highest = max(self._accuracy, self._highest)
        error = math.sqrt(self._highest * (1 - self._highest) / self.phase.num_valid)
        slack = self._config.tolerance * error
        if gained or (self._config.tolerance > 0 and self._accuracy >= self._highest - slack):
            self.best = self._snapshot()

    def _snapshot(self) -> Snapshot:
        weights = {name: value.detach().clone() for name, value in self.weights.items()}
        return Snapshot(self.num_epochs, self._accuracy, weights, self.phase.outcome())

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Everything that later epochs depend on, copied: tensors by name, and plain values for JSON."""
        tensors = {f"weights.{name}": value.detach().clone() for name, value in self.weights.items()}
        names = self._optimised_names()
        for index, entries in self._optimiser.state_dict()["state"].items():
            of = f"optimiser.{names[index]}"  # by name: a loaded learner may hold its weights in another order
            tensors |= {f"{of}.{key}": torch.as_tensor(value).clone() for key, value in entries.items()}
        own_tensors, own_plain = self.phase.state()
        tensors |= {f"phase.{name}": value.clone() for name, value in own_tensors.items()}
        tensors |= {"generator.order": self._order.get_state(), "generator.dropout": self._dropout.get_state()}
        plain: dict[str, Any] = {
            "task": self.phase.task.name,
            "num_epochs": self.num_epochs,
            "loss": self._loss,
            "accuracy": self._accuracy,
            "epochs_without_gain": self._epochs_without_gain,
            "highest": self._highest,
            "phase": own_plain,
            "best": None,
        }
        if self.best is not None:
            tensors |= {f"best.{name}": value for name, value in self.best.weights.items()}
            plain["best"] = plain_snapshot(self.best)
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
                f"Expected the training state of task '{self.phase.task.name}' with this network and these settings; "
                f"got another ({error})."
            ) from error

    def _load_state(self, tensors: Mapping[str, Tensor], plain: Mapping[str, Any]) -> None:
        if plain["task"] != self.phase.task.name:
            raise ValueError(f"it is of task '{plain['task']}'")
        stored = part_of(tensors, "weights")
        if {k: v.shape for k, v in stored.items()} != {k: v.shape for k, v in self.weights.items()}:
            raise ValueError("its weights have other names or shapes")
        with torch.no_grad():
            for name, value in stored.items():
                self.weights[name].copy_(value)
        entries: dict[int, dict[str, Tensor]] = {}
        names = self._optimised_names()
        for place, value in part_of(tensors, "optimiser").items():
            name, key = place.rsplit(".", 1)
            if value.ndim > 0 and value.shape != self.weights[name].shape:
                raise ValueError(f"its optimiser has another shape for '{place}'")
            entries.setdefault(names.index(name), {})[key] = value.clone()  # the optimiser changes it in place
        self._optimiser.load_state_dict({**self._optimiser.state_dict(), "state": entries})
        self.phase.load_state(part_of(tensors, "phase"), plain["phase"])
        self._order.set_state(tensors["generator.order"])
        self._dropout.set_state(tensors["generator.dropout"])
        self.num_epochs, self._loss, self._accuracy = plain["num_epochs"], plain["loss"], plain["accuracy"]
        self._epochs_without_gain, self._highest = plain["epochs_without_gain"], plain["highest"]
        if plain["best"] is not None:
            best = part_of(tensors, "best")
            self.best = Snapshot(**plain["best"], weights={n: best[n].to(self.device, copy=True) for n in self.weights})

    def _optimised_names(self) -> list[str]:
        """The weights' names in the order that the optimiser counts them, which goes by its groups."""
        name_of = {id(weight): name for name, weight in self.weights.items()}
        return [name_of[id(weight)] for group in self._optimiser.param_groups for weight in group["params"]]


def plain_snapshot(snapshot: Snapshot) -> dict[str, Any]:
    """A snapshot without its weights, for JSON."""
    return {"epoch": snapshot.epoch, "valid_accuracy": snapshot.valid_accuracy, "outcome": snapshot.outcome}
