"""Plans: the phases that learning one task takes, one after another, and how an interrupted one goes on.

A checkpoint is two files in a folder of their own: the tensors that training has changed, and ``checkpoint.json``,
which names them and is written last. It is not waited for the disk: after a power cut a checkpoint that did not reach
the disk whole is passed over, as is one of an unknown format; the task under way then starts over, to the same results.
"""

import json
import math
import time
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, TypeVar, final

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor

from lasem.errors import LasemError, StorageError
from lasem.files import MAX_INDEX_BYTES, checksum, parse_json, read_bytes, write_file
from lasem.records import EpochRecord, TimingRecord
from lasem.training.loop import Loop
from lasem.training.phase import AbstractPhase, EpochSummary, PhaseResult, Snapshot
from lasem.tree import map_tensors, pack, unpack, without_same

Result = TypeVar("Result")

_INDEX = "checkpoint.json"
_FORMATS = (2, 3)
"""That can be read; the last one is written. In 2 no tensor was left out."""

CHECKPOINT_SECONDS = 30.0
"""How much training of finished epochs a killed process may lose, unless it is set."""

Plan = Generator[AbstractPhase[Any], PhaseResult[Any], Result]
"""Yields phases, is sent what each has come to, and returns the result. It must be a function of what it is sent: an
interrupted plan is begun again and sent the finished phases' results, instead of training them again."""


class TrainingState(NamedTuple):
    """Everything that the epochs still to come depend on, as ``lasem.tree.pack`` takes it apart."""

    tensors: Mapping[str, Tensor]
    plain: Mapping[str, Any]


@final
@dataclass(frozen=True)
class Checkpoint:
    """The state of the task that is being learned, after its last finished epoch."""

    num_learned: int
    """Tasks learned before this one."""
    num_epochs: int
    """Epochs of this one that are finished."""
    state: TrainingState

    def save(self, folder: Path) -> None:
        """Replace the checkpoint in a folder; StorageError if that fails, and the one before is still there."""
        tensors = save_tensors({name: t.detach().cpu().contiguous() for name, t in self.state.tensors.items()})
        name = f"state-{self.num_learned}-{self.num_epochs}.safetensors"
        index: dict[str, Any] = {
            "format": _FORMATS[-1],
            "num_learned": self.num_learned,
            "num_epochs": self.num_epochs,
            "tensors": {"file": name, "checksum": checksum(tensors), "bytes": len(tensors)},
            "state": dict(self.state.plain),
        }
        write_file(folder / name, tensors, durable=False)
        write_file(folder / _INDEX, json.dumps(index) + "\n", durable=False)
        for old in folder.glob("state-*.safetensors"):
            if old.name != name:
                old.unlink(missing_ok=True)

    @classmethod
    def load(cls, folder: Path) -> "Checkpoint | None":
        """Return the checkpoint in a folder; None if there is none that is whole and of this format."""
        try:
            index = parse_json(folder / _INDEX, read_bytes(folder / _INDEX, inside=folder, max_bytes=MAX_INDEX_BYTES))
            if index["format"] not in _FORMATS:
                return None
            file, expected, size = (index["tensors"].get(key) for key in ("file", "checksum", "bytes"))
            limit = math.inf if size is None else float(size)  # files of an earlier version do not say it
            data = read_bytes(folder / Path(file).name, str(expected), inside=folder, max_bytes=limit)
            state = TrainingState(load_tensors(data), dict(index["state"]))
            return cls(int(index["num_learned"]), int(index["num_epochs"]), state)
        except (StorageError, LookupError, ValueError, OverflowError, TypeError, AttributeError, SafetensorError):
            return None


@final
class Checkpoints:
    """The checkpoints of one task: written at most every so many seconds, and where an exception stops learning."""

    def __init__(self, write: Callable[[int, TrainingState], None], seconds: float) -> None:
        """Start before the first epoch; ``write`` is called with finished epochs of the task and their state."""
        self._write, self._seconds = write, seconds
        self._written = time.monotonic()
        self._waiting: tuple[int, TrainingState] | None = None

    def epoch_ends(self, num_epochs: int, state: Callable[[], TrainingState]) -> None:
        """Write the state, or keep it in memory if the last one was written a moment ago."""
        self._waiting = num_epochs, state()
        if time.monotonic() - self._written >= self._seconds:
            self._write(*self._waiting)
            self._waiting, self._written = None, time.monotonic()

    @contextmanager
    def written_if_stopped(self) -> Iterator[None]:
        """Write the last finished epoch's state if Ctrl-C or an error ends what is inside."""
        try:
            yield
        except BaseException:
            if self._waiting is not None:
                with suppress(LasemError):
                    self._write(*self._waiting)
            raise


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
        on_epoch: called after every epoch; see ``OnEpoch``.
        resume_from: what the function that ``on_epoch`` got has returned.

    Raises:
        StorageError: if ``resume_from`` belongs to something else.
        TrainingError: if training cannot go on.
    """
    finished: list[PhaseResult[Any]] = []
    starts: list[Any] = []
    with _storage_errors():
        stored = [] if resume_from is None else resume_from.plain["finished"]
        interrupted = None if resume_from is None else resume_from.plain["loop"]
    try:
        phase = next(plan)
        while True:
            index, num_epochs = len(finished), sum(earlier.num_epochs for earlier in finished)
            for old in range(index) if phase.forgets is None else phase.forgets:
                best, last = (replace(s, weights=None) for s in (finished[old].best, finished[old].last))
                finished[old], starts[old] = replace(finished[old], best=best, last=last), None
            if resume_from is not None and index < len(stored):
                result = _finished(resume_from.tensors, stored[index], phase, device)
            else:
                loop = Loop(
                    phase,
                    seeds=phase_seeds(seeds, index if phase.seeds_of is None else phase.seeds_of),
                    epochs_before=epochs_before + (num_epochs if phase.goes_on else 0),
                    first_epoch=num_epochs,
                    device=device,
                )
                if resume_from is not None and index == len(stored):
                    loop.load_state(resume_from.tensors, interrupted)
                while not loop.finished:
                    record, timing = loop.run_epoch()
                    if on_epoch is not None:
                        on_epoch(record, timing, partial(_state, loop, finished, starts))
                result = loop.result()
            result = replace(result, epochs_before=num_epochs)
            finished.append(result)
            starts.append(phase.initial())
            phase = plan.send(result)
    except StopIteration as stop:
        outcome: Result = stop.value
        return outcome


def phase_seeds(seeds: tuple[int, ...], index: int) -> tuple[int, int]:
    """Seeds of the order of images and of dropout, for the phase at a position of its task."""
    order, dropout = np.random.SeedSequence([*seeds, index] if index else [*seeds]).generate_state(2)
    return int(order), int(dropout)


def _state(loop: Loop[Any], finished: list[PhaseResult[Any]], starts: list[Any]) -> TrainingState:
    """Return the loop's state and the finished phases' results, without weights that are as their phases started."""
    changed = [
        replace(result, best=without_same(result.best, result.last), last=without_same(result.last, _snapshot(start)))
        for result, start in zip(finished, starts, strict=True)
    ]
    return TrainingState(*pack({"loop": loop.state(), "finished": changed}))


def _snapshot(weights: Any) -> Snapshot[Any]:
    return Snapshot(0, 0.0, weights, EpochSummary(""))


def _finished(
    tensors: Mapping[str, Tensor], plain: Any, phase: AbstractPhase[Any], device: torch.device
) -> PhaseResult[Any]:
    """Return the result of a phase that was finished before the interruption."""
    start = _snapshot(map_tensors(lambda t: t.to(device), phase.initial()))
    with _storage_errors():
        last = unpack(tensors, plain["last"], start)
        best = unpack(tensors, plain["best"], last)
        rest = {"outcome": None, "epochs_before": 0, **plain, "best": None, "last": None}
        result: PhaseResult[Any] = replace(unpack(tensors, rest, PhaseResult(start, start, 0)), best=best, last=last)
    return result


@contextmanager
def _storage_errors() -> Iterator[None]:
    try:
        yield
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise StorageError(f"Expected the state of an interrupted training; got something else ({error}).") from error
