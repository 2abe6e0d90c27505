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
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, final

from lasem.experiments.config import ExperimentConfig


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


def work(jobs: Sequence[Job], num_workers: int) -> Iterator[Event]:
    """Do jobs in their order, so many at a time, and tell how it goes.

    Each process gets its share of the CPU's cores as threads, unless ``OMP_NUM_THREADS`` is set. Processes that still
    run when the iterator is closed, or an exception comes, are ended: a run can be killed at any moment and goes on.
    """
    waiting, running = list(jobs), dict[str, _Process]()
    events: queue.Queue[tuple[str, dict[str, Any] | None]] = queue.Queue()
    environment = dict(os.environ)
    environment.setdefault("OMP_NUM_THREADS", str(max(1, _num_cores() // num_workers)))
    try:
        while waiting or running:
            while waiting and len(running) < num_workers:
                job = waiting.pop(0)
                running[job.name] = _Process(job, events, environment)
                yield Started(job.name)
            name, message = events.get()
            process = running[name]
            if message is None:
                yield process.ended()
                del running[name]
            elif "error" in message:
                process.error = str(message["error"])
            elif "note" in message:
                yield Noted(name, str(message["note"]))
            else:
                yield Learned(name, message["num_learned"], message["num_tasks"])
    finally:
        for process in running.values():
            process.kill()


def _num_cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class _Process:
    """One job's process, and a thread that reads what it tells."""

    def __init__(
        self, job: Job, events: queue.Queue[tuple[str, dict[str, Any] | None]], environment: dict[str, str]
    ) -> None:
        self.error: str | None = None
        self._job, self._started = job, time.monotonic()
        self._stderr: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 (closed when the process has ended)
        self._process = subprocess.Popen(
            [sys.executable, "-m", "lasem.experiments.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._stderr,
            text=True,
            env=environment,
            start_new_session=True,  # Ctrl-C is for the one that asked for all these runs; it ends them
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
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
        last = details.strip().splitlines()[-1] if details.strip() else ""
        how = f"was killed by signal {-code}" if code < 0 else f"ended with exit code {code}"
        error = self.error or f"its process {how}{f': {last}' if last else ''}"
        return Ended(self._job.name, time.monotonic() - self._started, error, details)

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
            if stream is not None:
                with suppress(BrokenPipeError):
                    stream.close()
        return details
