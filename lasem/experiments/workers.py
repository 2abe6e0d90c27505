"""Runs in processes of their own, several at a time."""

from __future__ import annotations

import json
import os
import queue
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any, final

from lasem.experiments import folder
from lasem.experiments.config import ExperimentConfig
from lasem.experiments.nursery import Nursery


@final
@dataclass(frozen=True)
class Job:
    """One run to be made or resumed."""

    name: str
    config: ExperimentConfig
    directory: Path
    resume: bool
    command: tuple[str, ...] = ()


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

_MOST_DEATHS = 3
"""So often in a row a run's process may die without an epoch more."""


def work(jobs: Sequence[Job], num_workers: int) -> Iterator[Event]:
    """Do jobs in their order, so many at a time, and tell how it goes.

    A job whose process is killed goes on in a new one where it stopped, until it has died three times in a row without
    an epoch more; an error of its own ends it.
    Each process gets its share of the CPU's cores as threads, unless ``OMP_NUM_THREADS`` is set. Processes that still
    run when the iterator is closed, or an exception comes, are ended: a run can be killed at any moment and goes on.
    """
    waiting, running = list(jobs), dict[str, _Process]()
    events: queue.Queue[tuple[str, dict[str, Any] | None]] = queue.Queue()
    environment = dict(os.environ)
    environment.setdefault("OMP_NUM_THREADS", str(max(1, _num_cores() // num_workers)))
    cradle = _Cradle(environment)
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
            elif "note" in message:
                yield Noted(name, str(message["note"]))
            else:
                yield Learned(name, message["num_learned"], message["num_tasks"])
    finally:
        for process in running.values():
            process.kill()
        cradle.close()


class _Cradle:
    """Starts workers: forked where that is safe, each with imports of its own elsewhere."""

    def __init__(self, environment: dict[str, str]) -> None:
        self._environment = environment
        self._nursery: Nursery | None = None

    def start(self, stderr: IO[bytes]) -> _Forked | _Spawned:
        """A worker that waits for its job on stdin."""
        if sys.platform != "linux":  # a fork may break the system's libraries, or there is none
            return _Spawned(self._environment, stderr)
        for _ in range(2):
            if self._nursery is None or not self._nursery.alive:
                self.close()
                self._nursery = Nursery(self._environment)
            forked = _Forked.start(self._nursery, stderr)
            if forked is not None:
                return forked
        return _Spawned(self._environment, stderr)

    def close(self) -> None:
        """Start none any more; those that were started must have ended."""
        if self._nursery is not None:
            self._nursery.close()
            self._nursery = None


class _Forked:
    """A worker out of a nursery."""

    def __init__(self, nursery: Nursery, pid: int, stdin: IO[str], stdout: IO[str]) -> None:
        self.stdin, self.stdout = stdin, stdout
        self._nursery, self._pid = nursery, pid

    @classmethod
    def start(cls, nursery: Nursery, stderr: IO[bytes]) -> _Forked | None:
        """Start one; None if the nursery has died."""
        (their_stdin, stdin), (stdout, their_stdout) = os.pipe(), os.pipe()
        pid = nursery.start(their_stdin, their_stdout, stderr.fileno())
        os.close(their_stdin)
        os.close(their_stdout)
        if pid is None:
            os.close(stdin)
            os.close(stdout)
            return None
        return cls(nursery, pid, os.fdopen(stdin, "w"), os.fdopen(stdout))

    def wait(self) -> int:
        """Its exit code."""
        return self._nursery.wait(self._pid)

    def kill(self) -> None:
        """Kill it."""
        self._nursery.kill(self._pid)


class _Spawned:
    """A worker in a process of its own from the start."""

    def __init__(self, environment: dict[str, str], stderr: IO[bytes]) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "lasem.experiments.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
            env=environment,
            start_new_session=True,  # Ctrl-C is for the one that asked for all these runs; it ends them
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self.stdin, self.stdout = self._process.stdin, self._process.stdout

    def wait(self) -> int:
        """Its exit code."""
        return self._process.wait()

    def kill(self) -> None:
        """Kill it."""
        self._process.kill()


def _num_cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _num_recorded(directory: Path) -> int:
    """Bytes of all records of a run: more of them is progress."""
    return sum(path.stat().st_size for path in directory.glob("seeds/*/records.jsonl"))


class _Process:
    """One job's process, and a thread that reads what it tells."""

    def __init__(
        self,
        job: Job,
        events: queue.Queue[tuple[str, dict[str, Any] | None]],
        cradle: _Cradle,
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
        self._process = cradle.start(self._stderr)
        entry = {
            "config": job.config.to_yaml(),
            "directory": str(job.directory),
            "resume": job.resume,
            "command": list(job.command),
        }
        with suppress(BrokenPipeError):  # it has ended already; its exit code says so
            self._process.stdin.write(json.dumps(entry) + "\n")
            self._process.stdin.flush()  # and left open: when it closes, the process ends
        self._reader = threading.Thread(target=self._read, args=(self._process.stdout, events), daemon=True)
        self._reader.start()

    def _read(self, stdout: IO[str], events: queue.Queue[tuple[str, dict[str, Any] | None]]) -> None:
        for line in stdout:
            try:
                events.put((self._job.name, json.loads(line)))
            except ValueError:
                continue  # half a line of a process that was killed
        events.put((self._job.name, None))

    def ended(self) -> Ended:
        """How it went, once its stdout is closed."""
        code = self._process.wait()
        details = self._close()
        if code == 0:
            return Ended(self._job.name, time.monotonic() - self._started, None)
        self.died = code < 0 and self.error is None
        last = details.strip().splitlines()[-1] if details.strip() else ""
        how = f"was killed by signal {-code}" if code < 0 else f"ended with exit code {code}"
        error = self.error or f"its process {how}{f': {last}' if last else ''}"
        return Ended(self._job.name, time.monotonic() - self._started, error, details)

    def may_go_on(self) -> bool:
        """Whether a new process may try; one that dies at the same place every time is not started for ever."""
        if _num_recorded(self._job.directory) > self._before:
            self._deaths = 0
        self._deaths += 1
        return self._deaths < _MOST_DEATHS

    def successor(self, events: queue.Queue[tuple[str, dict[str, Any] | None]], cradle: _Cradle) -> _Process:
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
        for stream in (self._process.stdin, self._process.stdout):
            with suppress(BrokenPipeError):
                stream.close()
        return details
