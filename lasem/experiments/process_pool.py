"""Runs in processes of this machine, several at a time; a run whose process is killed goes on in a new one."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from types import ModuleType
from typing import Any, final

import torch

from lasem.experiments.grid import AbstractExecutor, Ended, Event, Job, Noted, Notify, Started, run_job

_PRELOAD = [
    "lasem.experiments.process_pool",
    "torch._dynamo",  # the first optimiser imports it, and with it sympy
    "lasem.report.figures",
    "matplotlib.backends.backend_svg",
    "matplotlib.figure",
    "matplotlib.style",
    "jinja2",
]
"""Everything that a run imports sooner or later, which takes longer than a small run."""

_MAX_DEATHS = 3
"""A run's process may die so often in a row without another epoch."""

_SERVER_LOST = 255
"""The exit code of a process whose end multiprocessing could not see."""


@final
class ProcessPool(AbstractExecutor):
    """Runs each job in a process of its own: on Linux a fork of a server that has imported everything once.

    Each process gets its share of the CPU's cores as threads, unless ``OMP_NUM_THREADS`` is set, and of several GPUs
    the one that the fewest others have, if its run asks for ``cuda``. A job whose process is killed goes on in a new
    one, until it has died three times in a row without another epoch. Processes end with this one.
    """

    def run(self, jobs: Sequence[Job], num_workers: int, notify: Notify) -> None:
        num_threads = None if "OMP_NUM_THREADS" in os.environ else max(1, _num_cores() // num_workers)
        running: dict[Connection, _Child] = {}
        with tempfile.TemporaryDirectory() as outputs:
            waiting = [_Child(job, Path(outputs, str(number))) for number, job in enumerate(jobs)]
            try:
                while waiting or running:
                    while waiting and len(running) < num_workers:
                        child = waiting.pop(0)
                        if child.num_deaths == 0:
                            notify(Started(child.job.name))
                        child.start(num_threads, [other.gpu for other in running.values()])
                        running[child.events] = child
                    for child in [running[ready] for ready in wait(list(running)) if isinstance(ready, Connection)]:
                        event = child.receive()
                        if child.events.closed:
                            del running[child.events]
                            if not isinstance(event, Ended):
                                waiting.insert(0, child)
                        notify(event)
            finally:
                for child in running.values():
                    child.process.kill()
                    child.close()


class _Child:
    """The process of one job, and after a kill the next one."""

    process: BaseProcess
    events: Connection
    gpu: int | None = None
    began = 0.0
    num_deaths = 0
    """In a row without another epoch."""

    def __init__(self, job: Job, output: Path) -> None:
        self.job, self._output = job, output

    def start(self, num_threads: int | None, gpus: Sequence[int | None]) -> None:
        """Start a process with so many threads (None: as torch takes); ``gpus`` are those of the other children."""
        self.began = self.began or time.monotonic()
        self._num_recorded = self._count_recorded()
        self.gpu = _free_gpu(gpus) if self.job.config.device == "cuda" else None
        context: Any = multiprocessing.get_context("forkserver" if sys.platform == "linux" else "spawn")
        if sys.platform == "linux":  # elsewhere a fork may break the system's libraries, or there is none
            context.set_forkserver_preload(_PRELOAD)
        self.events, theirs = context.Pipe(duplex=False)
        with theirs, _isolated():
            self.process = context.Process(target=_main, args=(self.job, theirs, self._output, num_threads, self.gpu))
            try:
                self.process.start()
            except (EOFError, OSError):  # the server has just been killed; the next call starts another one
                time.sleep(0.1)
                self.process.start()

    def receive(self) -> Event:
        """Wait for the next event. ``events`` is closed when the process has ended, also if the job may go on."""
        try:
            event: Event = self.events.recv()
        except (EOFError, OSError):  # OSError: it was killed in the middle of an event
            return self._death()
        if isinstance(event, Ended):
            self.close()
            return replace(event, seconds=time.monotonic() - self.began)
        return event

    def close(self) -> int:
        """Wait for the process's end, and return its exit code."""
        self.process.join()
        code = self.process.exitcode
        assert code is not None
        self.process.close()
        self.events.close()
        return code

    def _death(self) -> Noted | Ended:
        """Describe an end without a result: a kill, or an exit in the middle of the run."""
        code = self.close()
        details = self._output.read_text(errors="replace") if self._output.exists() else ""
        last = "".join(f": {line}" for line in details.strip().splitlines()[-1:])
        error = f"its process was killed by signal {-code}" if code < 0 else f"its process ended with exit code {code}"
        self.num_deaths = 1 if self._count_recorded() > self._num_recorded else self.num_deaths + 1
        if (code < 0 or code == _SERVER_LOST) and self.num_deaths < _MAX_DEATHS:
            return Noted(self.job.name, f"{error}{last}; it goes on in a new one")
        return Ended(self.job.name, time.monotonic() - self.began, error + last, details)

    def _count_recorded(self) -> int:
        """Return the bytes of the run's records: more of them is progress."""
        return sum(path.stat().st_size for path in self.job.directory.glob("seeds/*/records.jsonl"))


def _main(job: Job, events: Connection, output: Path, num_threads: int | None, gpu: int | None) -> None:
    """Make a job's run in a child."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, which ends its children
    threading.Thread(target=_end_with_parent, daemon=True).start()
    descriptor = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    if gpu is not None:  # the others are not there for it
        visible = os.environ.get("CUDA_VISIBLE_DEVICES", "")
        os.environ["CUDA_VISIBLE_DEVICES"] = visible.split(",")[gpu] if visible else str(gpu)
    if num_threads is not None:
        torch.set_num_threads(num_threads)
    run_job(job, events.send)


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(143)


@contextmanager
def _isolated() -> Iterator[None]:
    """Let new processes import nothing of the current folder, where a ``random.py`` may lie, and no main module.

    A script without ``if __name__ == "__main__":`` would run again. What it has put into ``sys.path`` they get later.
    """
    main, safe = sys.modules["__main__"], os.environ.get("PYTHONSAFEPATH")
    sys.modules["__main__"], os.environ["PYTHONSAFEPATH"] = ModuleType("__main__"), "1"
    try:
        yield
    finally:
        sys.modules["__main__"] = main
        os.environ.pop("PYTHONSAFEPATH")
        os.environ |= {} if safe is None else {"PYTHONSAFEPATH": safe}


def _free_gpu(used: Sequence[int | None]) -> int | None:
    """Return the number of the GPU that the fewest children have; None if there is no choice."""
    count = torch.cuda.device_count()
    return min(range(count), key=used.count) if count > 1 else None


def _num_cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
