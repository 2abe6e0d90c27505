"""A grid of runs: its jobs, what happens to them, and their executors: this process, several of them, or a cluster.

For Ray (optional extra ``ray``) every machine of the cluster needs lasem, and the folders of runs and data under the
same paths as here. Ray decides where a run goes: it asks for as many CPUs as it has threads, and for a GPU if its
device is ``cuda``.
"""

import logging
import multiprocessing
import os
import pickle
import signal
import socket
import sys
import tempfile
import threading
import time
import traceback
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import chdir, contextmanager
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar, cast, final

import torch

from lasem.errors import ConfigError, LasemError
from lasem.experiments.config import ExperimentConfig
from lasem.experiments.runner import CONFIG, run
from lasem.learner.watching import Observer, watched
from lasem.records import TaskRecord
from lasem.settings import to_plain

_PRELOAD = [
    "lasem.experiments.grid",
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
@dataclass(frozen=True)
class Job:
    """One run to make, or to resume where its folder holds a part of it."""

    name: str
    config: ExperimentConfig
    directory: Path
    command: tuple[str, ...] = ()
    watch: tuple[str, ...] = ()


@dataclass(frozen=True)
class Event:
    """Something that has happened to a job."""

    name: str


class Started(Event):
    """It has begun."""


@dataclass(frozen=True)
class Learned(Event):
    """It has learned so many tasks."""

    num_learned: int
    num_tasks: int | None


@dataclass(frozen=True)
class Noted(Event):
    """A person should know something about it."""

    message: str


@dataclass(frozen=True)
class Ended(Event):
    """It has come to its end."""

    seconds: float
    error: str | None
    """Why it failed; None if it did not."""
    details: str = ""
    """The traceback, or what a killed process wrote to stderr."""


Notify = Callable[[Event], None]


class AbstractExecutor(ABC):
    """A place where runs are made. To make them elsewhere, subclass it and pass an object to ``compare``."""

    remote: ClassVar[bool] = False
    """Whether runs may be made on other machines, so that their devices need not be on this one."""

    @abstractmethod
    def run(self, jobs: Sequence[Job], num_workers: int, notify: Notify) -> None:
        """Make every job's run by ``run_job``; a job that fails does not stop the others.

        A run can be killed at any moment and goes on when it is started again. When ``notify`` or anything else raises,
        no job may go on.

        Args:
            jobs: in the order in which they begin.
            num_workers: jobs at a time.
            notify: is called in this thread with what happens to each job, from ``Started`` to ``Ended``.
        """


@final
class ThisProcess(AbstractExecutor):
    """Runs in the calling process, one after another."""

    def run(self, jobs: Sequence[Job], num_workers: int, notify: Notify) -> None:
        for job in jobs:
            notify(Started(job.name))
            run_job(job, notify)


def run_job(job: Job, notify: Notify) -> None:
    """Make or resume one run in this process. Its errors are in ``Ended``, the last event."""
    started = time.monotonic()
    error, details = None, ""
    try:
        run(
            job.config,
            job.directory,
            observer=watched(job.watch, _JobObserver(job.name, notify)),
            resume=(job.directory / CONFIG).exists(),
            command=job.command,
        )
    except Exception as failure:
        kind = "" if isinstance(failure, LasemError) else f"unexpected {type(failure).__name__}: "
        error, details = f"{kind}{failure}", traceback.format_exc()
    notify(Ended(job.name, time.monotonic() - started, error, details))


def local_device(name: str, executor: AbstractExecutor | None) -> str:
    """Return the device to check on this machine for an executor's runs: the CPU if theirs need not be here."""
    return "cpu" if executor is not None and executor.remote else name


@final
class _JobObserver(Observer):
    """The number of learned tasks and the notes, as events."""

    def __init__(self, name: str, notify: Notify) -> None:
        self._name, self._notify = name, notify

    def seed_starts(self, seed: int, num_tasks: int | None, num_learned: int) -> None:
        self._num_tasks, self._num_learned = num_tasks, num_learned
        self._notify(Learned(self._name, num_learned, num_tasks))

    def task_ends(self, record: TaskRecord, final_accuracies: dict[str, float], seconds: float) -> None:
        self._num_learned += 1
        self._notify(Learned(self._name, self._num_learned, self._num_tasks))

    def note(self, message: str) -> None:
        self._notify(Noted(self._name, message))


@final
class ProcessPool(AbstractExecutor):
    """Runs each job in a process of its own: on Linux a fork of a server that has imported everything once.

    Each process gets its share of the CPU's cores as threads, unless ``OMP_NUM_THREADS`` is set, and of several GPUs
    the one that the fewest others have, if its run asks for ``cuda``. A job whose process is killed goes on in a new
    one, until it has died three times in a row without another epoch. Processes end with this one.
    """

    def run(self, jobs: Sequence[Job], num_workers: int, notify: Notify) -> None:
        num_cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        num_threads = None if "OMP_NUM_THREADS" in os.environ else max(1, num_cores // num_workers)
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


@final
class RayExecutor(AbstractExecutor):
    """Runs each job as a task of Ray, which starts it again, at most three times, if its process or machine is lost."""

    remote = True

    def __init__(self, address: str) -> None:
        """Connect.

        Args:
            address: of a cluster's head, such as ``10.0.0.1:6379``; ``auto``: the cluster that this machine belongs
                to; ``local``: a new one of this machine alone.

        Raises:
            ConfigError: if ray is not installed, or there is no cluster at the address.
        """
        try:
            import ray
        except (ImportError, RuntimeError) as error:
            raise ConfigError(
                f"--ray needs the package ray, which does not import here ({error}). Install it: pip install "
                f"'lasem[ray]'."
            ) from error
        try:
            host, _, port = address.rpartition(":")
            if host and port.isdecimal() and "/" not in host:  # where nothing listens Ray tries for minutes, and exits
                socket.create_connection((host, int(port)), timeout=10).close()
            with chdir(os.path.abspath(os.sep)):  # ray lets workers import from the current folder before all others
                ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
        except (OSError, OverflowError, RuntimeError, ValueError) as error:
            raise ConfigError(
                f"There is no Ray cluster at {address} ({str(error).splitlines()[0]}). Start one with ray start "
                f"--head, or say --ray local."
            ) from error
        self._ray: Any = ray

    def max_workers(self, threads: int) -> int:
        """Return how many runs of so many threads (0: one) the cluster has room for, at least one."""
        return max(1, int(self._ray.cluster_resources().get("CPU", 1)) // max(1, threads))

    def run(self, jobs: Sequence[Job], num_workers: int, notify: Notify) -> None:
        from ray.util.queue import Queue

        events = Queue()
        waiting, running = list(jobs), dict[Any, tuple[Job, float]]()
        begun: set[str] = set()
        try:
            while waiting or running:
                while waiting and len(running) < num_workers:
                    job = waiting.pop(0)
                    notify(Started(job.name))
                    num_cpus, num_gpus = max(1, job.config.threads), int(job.config.device[:4] == "cuda")
                    task = self._ray.remote(_run).options(num_cpus=num_cpus, num_gpus=num_gpus, max_retries=3)
                    pickled = pickle.dumps(with_absolute_paths(job))
                    running[task.remote(pickled, sys.path, events)] = job, time.monotonic()
                done, _ = self._ray.wait(list(running), timeout=0.5)
                for event in events.get_nowait_batch(events.qsize()):
                    if not isinstance(event, Started):
                        notify(event)
                    elif event.name in begun:
                        notify(Noted(event.name, "its process was lost; it goes on in a new one"))
                    else:
                        begun.add(event.name)
                for task in done:
                    job, started = running.pop(task)
                    try:
                        ended: Ended = self._ray.get(task)
                    except self._ray.exceptions.RayError as lost:
                        ended = Ended(job.name, 0.0, f"its process was lost: {str(lost).splitlines()[0]}", str(lost))
                    notify(replace(ended, seconds=time.monotonic() - started))
        finally:
            for task in running:
                self._ray.cancel(task, force=True)
            events.shutdown(force=True)


def with_absolute_paths(job: Job) -> Job:
    """Make a job's paths absolute: a process of the cluster is in another folder."""
    config, path = job.config, to_plain(job.config.stream).get("path")
    if path is not None:
        config = replace(config, stream=replace(cast(Any, config.stream), path=os.path.abspath(path)))
    return replace(job, directory=job.directory.absolute(), config=config)


def _run(pickled: bytes, paths: Sequence[str], events: Any) -> Ended:
    """Make a job's run on the machine that Ray has chosen; its end comes after all its other events."""
    sys.path.extend(path for path in paths if path and path not in sys.path)  # a user's class may be there
    job, ended = pickle.loads(pickled), list[Ended]()
    events.put(Started(job.name))
    run_job(job, lambda event: ended.append(event) if isinstance(event, Ended) else events.put(event))
    return ended[0]
