"""A plan: the phases that learning one task takes, one after another, and how an interrupted one goes on."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from dataclasses import replace
from functools import partial
from types import TracebackType
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch
from torch import Tensor

from lasem.errors import StorageError
from lasem.records import EpochRecord, TimingRecord
from lasem.training.heap import kept_heap
from lasem.training.loop import Loop, plain_snapshot
from lasem.training.phase import AbstractPhase, Fitted, Named, Snapshot, Together
from lasem.training.together import Team, at_its_turn
from lasem.training.weights import part_of

Result = TypeVar("Result")

Plan = Generator[AbstractPhase, Fitted, Result]
"""Yields phases, is sent what each has come to, and returns the result. It must be a function of what it is sent: an
interrupted plan is begun again and sent the finished phases' results, instead of training them again."""


class TrainingState(NamedTuple):
    """Everything that the epochs still to come depend on: tensors by name, and plain values for JSON."""

    tensors: Mapping[str, Tensor]
    plain: Mapping[str, Any]


OnEpoch = Callable[[EpochRecord, TimingRecord, Callable[[], TrainingState]], None]
"""Called after each epoch with its records and a function that gives the state to resume from."""


def follow(
    plan: Plan[Result],
    *,
    seeds: tuple[int, ...],
    epochs_before: int,
    device: torch.device,
    on_epoch: OnEpoch | None = None,
    resume_from: TrainingState | None = None,
) -> Result:
    """Train a plan's phases until it returns.

    Phases that are trained together (``AbstractPhase.together``) are told of one after another, each once it is
    finished; an interruption costs those that were not told of.

    Args:
        plan: the phases.
        seeds: of the task; every phase draws the order of its images and its dropout from these and its position, or
            that of another phase (``AbstractPhase.seeds_of``).
        epochs_before: epochs that earlier tasks were trained for.
        device: where to compute.
        on_epoch: is told of every epoch, and given a function that makes the state to resume from.
        resume_from: what that function gave.

    Raises:
        StorageError: if ``resume_from`` belongs to something else.
        TrainingError: if training cannot go on.
    """
    stored = _Stored.of(resume_from, device)
    with kept_heap(device), _Walk(seeds, epochs_before, device, on_epoch) as walk:
        try:
            phase = next(plan)
            while True:
                index = len(walk.finished)
                for old in phase.forgets:
                    walk.finished[old] = _forgotten(walk.finished[old])
                if index < len(stored.finished):
                    fitted = stored.finished[index]
                elif index == len(stored.finished):
                    fitted = walk.train(phase, stored.loop, stored.num_told)
                else:
                    fitted = walk.train(phase)
                walk.finished.append(fitted)
                phase = plan.send(fitted)
        except StopIteration as stop:
            result: Result = stop.value
            return result


def phase_seeds(seeds: tuple[int, ...], index: int) -> tuple[int, int]:
    """Seeds of the order of images and of dropout, for the phase at a position of its task."""
    order, dropout = np.random.SeedSequence([*seeds, index] if index else [*seeds]).generate_state(2)
    return int(order), int(dropout)


class _Walk:
    """Trains the phases of one plan, here or in a team of processes, and tells of their epochs."""

    def __init__(
        self, seeds: tuple[int, ...], epochs_before: int, device: torch.device, on_epoch: OnEpoch | None
    ) -> None:
        self._seeds, self._epochs_before, self._device, self._on_epoch = seeds, epochs_before, device, on_epoch
        self.finished: list[Fitted] = []
        self._together: Together | None = None
        self._team: Team | None = None

    def __enter__(self) -> _Walk:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._team is not None:
            self._team.end()

    def train(
        self, phase: AbstractPhase, state: tuple[Named, Mapping[str, Any]] | None = None, num_told: int = 0
    ) -> Fitted:
        """Train the next phase.

        Args:
            phase: which one.
            state: of its interrupted loop.
            num_told: of its epochs have been told already, although they are trained again.
        """
        if phase.together is None or state is not None:
            return self._train_here(phase, state, num_told)
        if phase.together is not self._together:
            self._gather(phase, phase.together)
        assert self._team is not None
        fitted, epochs = self._team.result(phase)
        first_epoch = self._num_epochs
        for number, (record, timing) in enumerate(epochs, start=1):
            if number > num_told and self._on_epoch is not None:
                ended = [fitted] if number == len(epochs) else []
                state_of = partial(_state, None, [*self.finished, *ended], 0 if ended else number)
                self._on_epoch(*at_its_turn(record, timing, phase, first_epoch), state_of)
        return fitted

    def _train_here(self, phase: AbstractPhase, state: tuple[Named, Mapping[str, Any]] | None, num_told: int) -> Fitted:
        loop = Loop(
            phase,
            seeds=self._seeds_of(phase, len(self.finished)),
            epochs_before=self._epochs_before + (self._num_epochs if phase.goes_on else 0),
            first_epoch=self._num_epochs,
            device=self._device,
        )
        if state is not None:
            loop.load_state(*state)
        while not loop.finished:
            record, timing = loop.run_epoch()
            if loop.num_epochs > num_told and self._on_epoch is not None:
                self._on_epoch(record, timing, partial(_state, loop, self.finished))
        return loop.fitted()

    def _gather(self, phase: AbstractPhase, together: Together) -> None:
        """Begin to train a phase and those that follow it in their group."""
        if self._team is not None:
            self._team.end()
        index = len(self.finished)
        phases = together.phases[together.phases.index(phase) :]
        self._together = together
        self._team = Team(
            phases,
            together.num_workers,
            seeds=[self._seeds_of(later, index + i) for i, later in enumerate(phases)],
            epochs_before=self._epochs_before,
            device=self._device,
        )

    @property
    def _num_epochs(self) -> int:
        return sum(fitted.num_epochs for fitted in self.finished)

    def _seeds_of(self, phase: AbstractPhase, index: int) -> tuple[int, int]:
        return phase_seeds(self._seeds, index if phase.seeds_of is None else phase.seeds_of)


def _forgotten(fitted: Fitted) -> Fitted:
    return replace(fitted, best=replace(fitted.best, weights={}), last=replace(fitted.last, weights={}))


def _state(loop: Loop | None, finished: list[Fitted], num_told: int = 0) -> TrainingState:
    """The finished phases' results and the loop's state, as tensors by name and plain values.

    Args:
        loop: of the phase under way; None if it is to be trained again from its start.
        finished: the phases before it.
        num_told: of its epochs that need not be told again then.
    """
    tensors, plain = ({}, None) if loop is None else loop.state()
    tensors = {f"loop.{name}": value for name, value in tensors.items()}
    entries = []
    for index, fitted in enumerate(finished):
        for moment in ("best", "last"):
            weights = getattr(fitted, moment).weights
            tensors |= {f"finished.{index}.{moment}.{name}": value for name, value in weights.items()}
        entries.append(
            {
                "best": plain_snapshot(fitted.best),
                "last": plain_snapshot(fitted.last),
                "num_epochs": fitted.num_epochs,
                "last_loss": fitted.last_loss,
            }
        )
    return TrainingState(tensors, {"loop": plain, "finished": entries, "num_told": num_told})


class _Stored:
    """What ``_state`` gave, taken apart."""

    def __init__(self, finished: list[Fitted], loop: tuple[Named, Mapping[str, Any]] | None, num_told: int = 0) -> None:
        self.finished, self.loop, self.num_told = finished, loop, num_told

    @classmethod
    def of(cls, resume_from: TrainingState | None, device: torch.device) -> _Stored:
        if resume_from is None:
            return cls([], None)
        tensors, plain = resume_from
        try:
            finished = []
            for index, entry in enumerate(plain["finished"]):
                moments = {
                    moment: Snapshot(
                        **entry[moment],
                        weights={
                            name: value.to(device, copy=True)
                            for name, value in sorted(part_of(tensors, f"finished.{index}.{moment}").items())
                        },
                    )
                    for moment in ("best", "last")
                }
                finished.append(Fitted(**moments, num_epochs=entry["num_epochs"], last_loss=entry["last_loss"]))
            loop = None if plain["loop"] is None else (part_of(tensors, "loop"), dict(plain["loop"]))
            return cls(finished, loop, int(plain["num_told"]))
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise StorageError(
                f"Expected the state of an interrupted training; got something else ({error})."
            ) from error
