"""Runs in processes of their own, several at a time."""

from __future__ import annotations

import json
import queue
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any, final

from lasem.experiments import folder
from lasem.experiments.cradle import AbstractCradle, Job
from lasem.experiments.local import LocalCradle


@final
@dataclass(frozen=True)
class Started:
    """A job's process has begun."""

    name: str


@final
@dataclass(frozen=True)
class Learned:
    """A job has learned so many tasks."""

    name: str
    num_learned: int
    num_tasks: int | None


@final
@dataclass(frozen=True)
class Ended:
    """A job has come to its end."""

    name: str
    seconds: float
    error: str | None
    """Why it failed; None if it did not."""
    details: str = ""
    """What its process wrote to stderr."""


@final
@dataclass(frozen=True)
class Noted:
    """Something that a person should know."""

    name: str
    message: str


Event = Started | Learned | Ended | Noted


def event_of(name: str, *, num_learned: int = 0, num_tasks: int | None = None, note: str | None = None) -> Event:
    """What a run's Teller tells, as an event."""
    return Learned(name, num_learned, num_tasks) if note is None else Noted(name, note)


_MOST_DEATHS = 3
"""So often in a row a run's process may die without an epoch more."""


def work(jobs: Sequence[Job], num_workers: int, cradle: AbstractCradle | None = None) -> Iterator[Event]:
    """Do jobs in their order, so many at a time, and tell how it goes.

    A job whose process is killed goes on in a new one where it stopped, until it has died three times in a row without
    an epoch more; an error of its own ends it. Processes that still run when the iterator is closed, or an exception
    comes, are ended: a run can be killed at any moment and goes on.

    Args:
        jobs: what is to be done.
        num_workers: jobs at a time.
        cradle: where processes are started, and closed at the end; on this machine if there is none.
    """
    waiting, running = list(jobs), dict[str, _Process]()
    events: queue.Queue[tuple[str, dict[str, Any] | None]] = queue.Queue()
    cradle = cradle or LocalCradle(num_workers)
    try:
        while waiting or running:
            while waiting and len(running) < num_workers:
                job = waiting.pop(0)
                running[job.name] = _Process(job, events, cradle)
                yield Started(job.name)
            name, message = events.get()
            process = running[name]
            if message is None:
                ended = process.ended()
                del running[name]  # before anything is told: whoever is told may stop listening
                if process.died and process.may_go_on():
                    running[name] = process.successor(events, cradle)
                    yield Noted(name, f"{ended.error}; it goes on in a new one")
                else:
                    yield ended
            elif "error" in message:
                process.error = str(message["error"])
            else:
                yield event_of(name, **message)
    finally:
        for process in running.values():
            process.kill()
        cradle.close()


def _num_recorded(directory: Path) -> int:
    """Bytes of all records of a run: more of them is progress."""
    return sum(path.stat().st_size for path in directory.glob("seeds/*/records.jsonl"))


class _Process:
    """One job's process, and a thread that reads what it tells."""

    def __init__(
        self,
        job: Job,
        events: queue.Queue[tuple[str, dict[str, Any] | None]],
        cradle: AbstractCradle,
        *,
        started: float | None = None,
        deaths: int = 0,
    ) -> None:
        self.error: str | None = None
        self.died = False
        """Whether something else than an error of its own has ended it."""
        self._job, self._started, self._deaths = job, time.monotonic() if started is None else started, deaths
        self._before = _num_recorded(job.directory)
        self._stderr: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 (closed when the process has ended)
        self._process = cradle.start(job, self._stderr)
        self._reader = threading.Thread(target=self._read, args=(events,), daemon=True)
        self._reader.start()

    def _read(self, events: queue.Queue[tuple[str, dict[str, Any] | None]]) -> None:
        for line in self._process.lines():
            try:
                events.put((self._job.name, json.loads(line)))
            except ValueError:
                continue  # half a line of a process that was killed
        events.put((self._job.name, None))

    def ended(self) -> Ended:
        """How it went, once it tells no more."""
        code = self._process.wait()
        details = self._close()
        if code == 0:
            return Ended(self._job.name, time.monotonic() - self._started, None)
        self.died = code < 0 and self.error is None
        last = details.strip().splitlines()[-1] if details.strip() else ""
        how = self._process.killed_by(code) if code < 0 else f"ended with exit code {code}"
        error = self.error or f"its process {how}{f': {last}' if last else ''}"
        return Ended(self._job.name, time.monotonic() - self._started, error, details)

    def may_go_on(self) -> bool:
        """Whether a new process may try; one that dies at the same place every time is not started for ever."""
        if _num_recorded(self._job.directory) > self._before:
            self._deaths = 0
        self._deaths += 1
        return self._deaths < _MOST_DEATHS

    def successor(self, events: queue.Queue[tuple[str, dict[str, Any] | None]], cradle: AbstractCradle) -> _Process:
        """A new process that goes on where this one died."""
        job = replace(self._job, resume=(self._job.directory / folder.CONFIG).exists())
        return _Process(job, events, cradle, started=self._started, deaths=self._deaths)

    def kill(self) -> None:
        """End it."""
        self._process.kill()
        self._process.wait()
        self._close()

    def _close(self) -> str:
        self._reader.join()
        self._stderr.seek(0)
        details = self._stderr.read().decode(errors="replace")
        self._stderr.close()
        self._process.close()
        return details
