"""Workers on this machine: forked where that is safe, each with imports of its own elsewhere."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import IO, final

from lasem.experiments.cradle import AbstractCradle, AbstractWorker, Job
from lasem.experiments.nursery import Nursery


@final
class LocalCradle(AbstractCradle):
    """Starts workers out of a nursery on Linux, which is quicker, and as new processes elsewhere.

    Each gets its share of the CPU's cores as threads, unless ``OMP_NUM_THREADS`` is set, and of several GPUs the one
    that the fewest others have, if its run asks for ``cuda``.
    """

    def __init__(self, num_workers: int) -> None:
        """Start none yet.

        Args:
            num_workers: how many there will be at a time.
        """
        self._environment = dict(os.environ)
        self._environment.setdefault("OMP_NUM_THREADS", str(max(1, _num_cores() // num_workers)))
        self._nursery: Nursery | None = None
        self._gpus: dict[int, int] = {}
        """Workers on each."""

    def start(self, job: Job, stderr: IO[bytes]) -> _LocalWorker:
        """See AbstractCradle."""
        gpu = self._take_gpu() if job.config.device == "cuda" else None
        worker = self._process(stderr)
        worker.begin(job.to_line() if gpu is None else job.to_line(gpu=gpu))
        if gpu is not None:
            worker.when_closed = lambda: self._give_back(gpu)
        return worker

    def close(self) -> None:
        """See AbstractCradle."""
        if self._nursery is not None:
            self._nursery.close()
            self._nursery = None

    def _process(self, stderr: IO[bytes]) -> _LocalWorker:
        if sys.platform != "linux":  # a fork may break the system's libraries, or there is none
            return Spawned(self._environment, stderr)
        for _ in range(2):
            self._nursery = self._nursery or Nursery(self._environment)
            forked = _Forked.start(self._nursery, stderr)
            if forked is not None:
                return forked
            self.close()
        return Spawned(self._environment, stderr)

    def _take_gpu(self) -> int | None:
        """The number of the GPU with the fewest workers; None if there is no choice."""
        import torch

        count = torch.cuda.device_count()
        if count < 2:
            return None
        gpu = min(range(count), key=lambda number: self._gpus.get(number, 0))
        self._gpus[gpu] = self._gpus.get(gpu, 0) + 1
        return gpu

    def _give_back(self, gpu: int) -> None:
        self._gpus[gpu] -= 1


class _LocalWorker(AbstractWorker):
    """A process that reads its job from stdin, and ends when that is closed."""

    def __init__(self, stdin: IO[str], stdout: IO[str]) -> None:
        self._stdin, self._stdout = stdin, stdout
        self.when_closed: Callable[[], None] = lambda: None

    def begin(self, line: str) -> None:
        """Tell it what to do."""
        with suppress(BrokenPipeError):  # it has ended already; its exit code says so
            self._stdin.write(line)
            self._stdin.flush()  # and left open: when it closes, the process ends

    def lines(self) -> Iterator[str]:
        """See AbstractWorker."""
        return iter(self._stdout)

    def close(self) -> None:
        """See AbstractWorker."""
        for stream in (self._stdin, self._stdout):
            with suppress(BrokenPipeError):
                stream.close()
        self.when_closed()


@final
class _Forked(_LocalWorker):
    """A worker out of a nursery."""

    def __init__(self, nursery: Nursery, pid: int, stdin: IO[str], stdout: IO[str]) -> None:
        super().__init__(stdin, stdout)
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
        """See AbstractWorker."""
        return self._nursery.wait(self._pid)

    def kill(self) -> None:
        """See AbstractWorker."""
        self._nursery.kill(self._pid)


@final
class Spawned(_LocalWorker):
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
        super().__init__(self._process.stdin, self._process.stdout)

    def wait(self) -> int:
        """See AbstractWorker."""
        return self._process.wait()

    def kill(self) -> None:
        """See AbstractWorker."""
        self._process.kill()


def _num_cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
