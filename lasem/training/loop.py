"""The training of one phase, epoch by epoch, for every method."""

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Generic, final

import torch
from torch import Tensor

from lasem.errors import StorageError, TrainingError
from lasem.records import EpochRecord, TimingRecord
from lasem.training.config import autocast, build_optimiser, learning_rate, set_learning_rate
from lasem.training.phase import AbstractPhase, EpochSummary, PhaseResult, Snapshot, Step, Weights
from lasem.tree import flatten, map_tensors, named, unpack, without_same


@final
class Loop(Generic[Weights]):
    """Trains one phase: ``run_epoch`` until ``finished``, then ``result``.

    Everything that a later epoch depends on is in ``state``, so that a loop which takes it back goes on to the same
    bits.
    """

    def __init__(
        self,
        phase: AbstractPhase[Weights],
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
        self.weights = map_tensors(lambda t: t.detach().to(device, copy=True), phase.initial())
        scales = {path: phase.scale(path) for path in flatten(self.weights)}
        moving = [(t.requires_grad_(), scales[path]) for path, t in flatten(self.weights).items() if scales[path] > 0]
        self._optimiser = build_optimiser(moving, phase.config)
        self._autocast = autocast(phase.config.precision, device)
        self._order = torch.Generator().manual_seed(seeds[0])
        self._dropout = torch.Generator(device).manual_seed(seeds[1])
        self.best: Snapshot[Weights] | None = None
        self._progress = _Progress(EpochSummary(""))

    @property
    def num_epochs(self) -> int:
        """Epochs trained so far."""
        return self._progress.num_epochs

    @property
    def finished(self) -> bool:
        """Whether the epochs or the patience are spent."""
        out_of_patience = 0 < self._config.patience <= self._progress.epochs_without_gain
        most = self._config.epochs if self.phase.solved is None else 1
        return self.num_epochs >= most or out_of_patience

    def run_epoch(self) -> tuple[EpochRecord, TimingRecord]:
        """Train on every image once, then look at the validation images; TrainingError if a number is not finite."""
        started, before = time.perf_counter(), self._progress
        rate = learning_rate(self._config, before.num_epochs, self._epochs_before)
        self.phase.begin_epoch(self.weights, before.num_epochs, rate)
        set_learning_rate(self._optimiser, rate)
        loss = self._train(rate) if self.phase.solved is None else self.phase.solved
        trained = time.perf_counter()
        with self._autocast:
            accuracy = self.phase.accuracy(self.weights)
        gained, highest = accuracy > before.highest, max(accuracy, before.highest)
        summary = self.phase.summary()
        self._progress = _Progress(
            summary, before.num_epochs + 1, loss, accuracy, highest, 0 if gained else before.epochs_without_gain + 1
        )
        slack = self._config.tolerance * math.sqrt(highest * (1 - highest) / self.phase.num_valid)
        if gained or (self._config.tolerance > 0 and accuracy >= highest - slack):
            self.best = self._snapshot()
        epoch = self._first_epoch + self.num_epochs
        num_batches, trace = self.phase.trace() or (None, None)
        record = EpochRecord(
            task=self.phase.task.name,
            epoch=epoch,
            loss=loss,
            valid_accuracy=accuracy,
            configuration=summary.configuration,
            probabilities=summary.probabilities,
            num_evaluated=summary.num_evaluated,
            transfer_probabilities=summary.transfer_probabilities,
            phase=self.phase.title,
            num_batches=num_batches,
            trace=trace,
        )
        timing = TimingRecord(
            task=self.phase.task.name,
            epoch=epoch,
            seconds_training=trained - started,
            seconds_evaluating=time.perf_counter() - trained,
        )
        return record, timing

    def result(self) -> PhaseResult[Weights]:
        """Return what has come out so far; at least one epoch has been trained."""
        assert self.best is not None
        with torch.no_grad(), self._autocast:
            outcome = self.phase.outcome(self.weights)
        outcome = None if outcome is None else outcome.cpu()
        return PhaseResult(self.best, self._snapshot(), self.num_epochs, self._progress.loss, outcome)

    def _train(self, rate: float) -> float:
        """Take one pass of optimiser steps and return the mean loss."""
        total, num_batches, number = torch.zeros((), device=self.device), self.phase.num_batches, 0
        for batch in self.phase.batches(self.device, self._order):
            step = Step(self.num_epochs, number, num_batches, rate)
            if self.num_epochs < self.phase.warmup:
                share = (self.num_epochs * num_batches + number + 1) / (self.phase.warmup * num_batches)
                set_learning_rate(self._optimiser, share * rate)
            with self._autocast:
                loss = self.phase.loss(self.weights, batch, self._dropout)
            self._optimiser.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            self.phase.change_gradients(self.weights, step)
            self._optimiser.step()
            with torch.no_grad():
                self.phase.after_step(self.weights, step)
            total += loss.detach()  # stays on the device
            number += 1
        finite = torch.stack([weight.isfinite().all() for weight in flatten(self.weights).values()]).all()
        mean = float(total) / number  # the device is waited for here, once an epoch
        if not (math.isfinite(mean) and bool(finite)):
            raise TrainingError(
                f"The weights or the loss of task '{self.phase.task.name}' were not finite in epoch "
                f"{self._first_epoch + self.num_epochs + 1} (loss {mean}); training has stopped and what was learned "
                f"before is untouched. Try a smaller learning_rate (now {self._config.learning_rate})."
            )
        return mean

    def _snapshot(self) -> Snapshot[Weights]:
        weights = map_tensors(lambda t: t.detach().clone(), self.weights)
        return Snapshot(self.num_epochs, self._progress.accuracy, weights, self._progress.summary)

    def state(self) -> dict[str, Any]:
        """Return everything that later epochs depend on, copied: a tree for ``lasem.tree.pack``.

        Weights that are as the phase started with them are left out, and of the best epoch's those that are as now.
        """
        names = self._optimised_names()
        moments = {
            names[index]: {key: torch.as_tensor(value).clone() for key, value in entries.items()}
            for index, entries in self._optimiser.state_dict()["state"].items()
        }
        return {
            "task": self.phase.task.name,
            "weights": map_tensors(lambda t: t.detach().clone(), without_same(self.weights, self.phase.initial())),
            "optimiser": moments,  # by name: a loaded learner may hold its weights in another order
            "phase": map_tensors(lambda t: t.detach().clone(), self.phase.state),
            "order": self._order.get_state(),
            "dropout": self._dropout.get_state(),
            "progress": self._progress,
            "best": without_same(self.best, Snapshot(0, 0.0, self.weights, self._progress.summary)),
        }

    def load_state(self, tensors: Mapping[str, Tensor], plain: Any) -> None:
        """Go on from what ``lasem.tree.pack`` made of ``state``; StorageError if that belongs to something else."""
        summary = self._progress.summary
        try:
            state = unpack(tensors, {**plain, "best": None}, {**self.state(), "weights": self.weights})
            state["best"] = unpack(tensors, plain["best"], Snapshot(0, 0.0, state["weights"], summary))
            self._load_state(state)
        except (KeyError, ValueError, TypeError, RuntimeError, AttributeError) as error:
            raise StorageError(
                f"Expected the training state of task '{self.phase.task.name}' with this network and these settings; "
                f"got another ({error})."
            ) from error

    def _load_state(self, state: dict[str, Any]) -> None:
        if state["task"] != self.phase.task.name:
            raise ValueError(f"it is of task '{state['task']}'")
        stored, own = flatten(state["weights"]), flatten(self.weights)
        if {path: t.shape for path, t in stored.items()} != {path: t.shape for path, t in own.items()}:
            raise ValueError("its weights have other names or shapes")
        num_epochs = state["progress"].num_epochs
        known = type(num_epochs) is int and 0 <= num_epochs <= self._config.epochs
        if not known or (state["best"] is None) != (num_epochs == 0):
            raise ValueError(f"it is of epoch {num_epochs} of {self._config.epochs}")
        weights, names = named(self.weights), self._optimised_names()
        for name, entries in state["optimiser"].items():
            for key, value in entries.items():
                if value.ndim > 0 and value.shape != weights[name].shape:
                    raise ValueError(f"its optimiser has another shape for '{name}.{key}'")
        moments = {names.index(name): entries for name, entries in state["optimiser"].items()}
        self._optimiser.load_state_dict({**self._optimiser.state_dict(), "state": moments})
        with torch.no_grad():
            for path, value in stored.items():
                own[path].copy_(value)
        self.phase.state = state["phase"]
        self._order.set_state(state["order"])
        self._dropout.set_state(state["dropout"])
        self._progress, self.best = state["progress"], state["best"]

    def _optimised_names(self) -> list[str]:
        """Return the weights' names in the order in which the optimiser counts them, which goes by its groups."""
        name_of = {id(weight): name for name, weight in named(self.weights).items()}
        return [name_of[id(weight)] for group in self._optimiser.param_groups for weight in group["params"]]


@final
@dataclass(frozen=True)
class _Progress:
    """What a loop has come to after some epochs."""

    summary: EpochSummary
    """Of the last epoch."""
    num_epochs: int = 0
    loss: float = float("nan")
    """Mean training loss of the last epoch."""
    accuracy: float = 0.0
    """On the validation images after the last epoch."""
    highest: float = -1.0
    """Accuracy after any epoch."""
    epochs_without_gain: int = 0
