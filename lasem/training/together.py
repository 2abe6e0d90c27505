"""Phases that are trained at the same time, each in a process of its own.

A child gets the phases in one pickle, trains those that it is told to, and gives back records and weights as bytes:
torch would send tensors between processes as shared memory, of which a container has little.
"""

from __future__ import annotations

import os
import pickle
import threading
from collections.abc import Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, replace
from multiprocessing import get_context
from multiprocessing.connection import Connection
from typing import NamedTuple, final

import torch

from lasem.errors import TrainingError
from lasem.records import EpochRecord, TimingRecord
from lasem.training.heap import kept_heap
from lasem.training.loop import Loop
from lasem.training.phase import AbstractPhase, Fitted


class Trained(NamedTuple):
    """What a phase has come to, and every epoch on the way, counted from 1 within the phase."""

    fitted: Fitted
    epochs: list[tuple[EpochRecord, TimingRecord]]


@final
class Team:
    """Processes that train phases; each phase comes to the same bits as in this process with as many threads."""

    def __init__(
        self,
        phases: Sequence[AbstractPhase],
        num_workers: int,
        *,
        seeds: Sequence[tuple[int, int]],
        epochs_before: int,
        device: torch.device,
    ) -> None:
        """Start to train.

        Args:
            phases: what is trained.
            num_workers: how many at the same time.
            seeds: of each phase, as ``Loop`` takes them.
            epochs_before: epochs that earlier tasks were trained for.
            device: where to compute.
        """
        context = get_context("spawn")  # a forked child of a process with threads, or with a GPU, may hang
        listener, self._line = context.Pipe(duplex=False)
        num_threads = max(1, torch.get_num_threads() // num_workers)  # the same however many phases are left
        work = _Work(tuple(phases), tuple(seeds), epochs_before, device, num_threads)
        self._executor = ProcessPoolExecutor(
            min(num_workers, len(phases)),
            mp_context=context,
            initializer=_begin,
            initargs=(pickle.dumps(work), listener),
        )
        self._futures: dict[AbstractPhase, Future[bytes]] = {
            phase: self._executor.submit(_train, index) for index, phase in enumerate(phases)
        }

    def result(self, phase: AbstractPhase) -> Trained:
        """Wait until a phase is trained; it can be asked for once.

        Raises:
            TrainingError: if the phase raised it, or its process was killed.
        """
        try:
            trained: Trained = pickle.loads(self._futures.pop(phase).result())
        except BrokenProcessPool as error:
            raise TrainingError(
                f"A process that trained a part of task '{phase.task.name}' ended before it was done; what was learned "
                f'before is untouched. If this is a script, put what it does under `if __name__ == "__main__":`; else '
                f"the memory may have been too small: train fewer at the same time."
            ) from error
        return trained

    def end(self) -> None:
        """End the processes, whatever they are doing; they also end if this process is killed."""
        self._line.close()
        self._executor.shutdown(cancel_futures=True)


@final
@dataclass(frozen=True)
class _Work:
    """What every process is given when it starts."""

    phases: tuple[AbstractPhase, ...]
    seeds: tuple[tuple[int, int], ...]
    epochs_before: int
    device: torch.device
    num_threads: int


_work: _Work | None = None
"""Of this process, if it is a child."""


def _begin(pickled: bytes, line: Connection) -> None:
    """Make this child ready. Once for each process and not for each phase: the phases hold the task's images."""
    global _work
    threading.Thread(target=_end_with_the_line, args=(line,), daemon=True).start()
    work: _Work = pickle.loads(pickled)
    torch.set_num_threads(work.num_threads)
    _work = work


def _end_with_the_line(line: Connection) -> None:
    """End this process when the parent hangs up or is no more: nobody would ask for what it does."""
    try:
        line.recv()
    except (EOFError, OSError):
        os._exit(1)


def _train(index: int) -> bytes:
    """Train one phase in this child."""
    assert _work is not None
    phase = _work.phases[index]
    loop = Loop(phase, seeds=_work.seeds[index], epochs_before=_work.epochs_before, device=_work.device)
    epochs = []
    with kept_heap(_work.device):
        while not loop.finished:
            epochs.append(loop.run_epoch())
    return pickle.dumps(Trained(loop.fitted(), epochs))


def at_its_turn(
    record: EpochRecord, timing: TimingRecord, phase: AbstractPhase, first_epoch: int
) -> tuple[EpochRecord, TimingRecord]:
    """An epoch as it would have been recorded if the phase had waited for those before it.

    Args:
        record: as the process gave it.
        timing: likewise.
        phase: as its plan has yielded it.
        first_epoch: epochs of earlier phases of the same task.
    """
    epoch = first_epoch + record.epoch
    return replace(record, epoch=epoch, probabilities=phase.seen().probabilities), replace(timing, epoch=epoch)
