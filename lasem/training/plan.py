"""A plan: the phases that learning one task takes, one after another, and how an interrupted one goes on."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch
from torch import Tensor

from lasem.errors import StorageError
from lasem.records import EpochRecord, TimingRecord
from lasem.training.loop import Loop, plain_snapshot
from lasem.training.phase import AbstractPhase, Named, PhaseResult, Snapshot
from lasem.training.task_weights import part_of

Result = TypeVar("Result")

Plan = Generator[AbstractPhase, PhaseResult, Result]
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
    stored, state = _stored(resume_from, device)
    finished: list[PhaseResult] = []
    try:
        phase = next(plan)
        while True:
            index = len(finished)
            for old in phase.forgets:
                finished[old] = _forgotten(finished[old])
            if index < len(stored):
                fitted = stored[index]
            else:
                num_epochs = sum(earlier.num_epochs for earlier in finished)
                loop = Loop(
                    phase,
                    seeds=phase_seeds(seeds, index if phase.seeds_of is None else phase.seeds_of),
                    epochs_before=epochs_before + (num_epochs if phase.goes_on else 0),
                    first_epoch=num_epochs,
                    device=device,
                )
                if index == len(stored) and state is not None:
                    loop.load_state(*state)
                while not loop.finished:
                    record, timing = loop.run_epoch()
                    if on_epoch is not None:
                        on_epoch(record, timing, partial(_state, loop, finished))
                fitted = loop.result()
            finished.append(fitted)
            phase = plan.send(fitted)
    except StopIteration as stop:
        result: Result = stop.value
        return result


def phase_seeds(seeds: tuple[int, ...], index: int) -> tuple[int, int]:
    """Seeds of the order of images and of dropout, for the phase at a position of its task."""
    order, dropout = np.random.SeedSequence([*seeds, index] if index else [*seeds]).generate_state(2)
    return int(order), int(dropout)


def _forgotten(fitted: PhaseResult) -> PhaseResult:
    return replace(fitted, best=replace(fitted.best, weights={}), last=replace(fitted.last, weights={}))


def _state(loop: Loop, finished: list[PhaseResult]) -> TrainingState:
    """Return the finished phases' results and the loop's state, as tensors by name and plain values."""
    tensors, plain = loop.state()
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
    return TrainingState(tensors, {"loop": plain, "finished": entries})


def _stored(
    resume_from: TrainingState | None, device: torch.device
) -> tuple[list[PhaseResult], tuple[Named, Mapping[str, Any]] | None]:
    """Return the finished phases' results and the state of the interrupted loop, if there is one."""
    if resume_from is None:
        return [], None
    tensors, plain = resume_from
    if plain.get("loop", {}) is None:
        raise StorageError(
            "Expected the state of an interrupted training; got that of candidates trained at the same time, which "
            "lasem no longer does. Delete the folder checkpoint next to the model: the task is trained again."
        )
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
            finished.append(PhaseResult(**moments, num_epochs=entry["num_epochs"], last_loss=entry["last_loss"]))
        return finished, (part_of(tensors, "loop"), dict(plain["loop"]))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise StorageError(f"Expected the state of an interrupted training; got something else ({error}).") from error
