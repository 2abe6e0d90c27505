"""Runs on a Ray cluster (optional extra ``ray``).

Every machine of the cluster needs lasem, and the folders of runs and data under the same paths as here. Ray decides
where a run goes: it asks for as many CPUs as it has threads, and for a GPU if its device is ``cuda``.
"""

from __future__ import annotations

import os
import pickle
import socket
import sys
import time
from collections.abc import Sequence
from contextlib import chdir
from dataclasses import replace
from typing import Any, cast, final

from lasem.errors import ConfigError
from lasem.experiments.grid import AbstractExecutor, Ended, Job, Noted, Notify, Started, run_job
from lasem.settings import to_plain


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
                ray.init(address=address, log_to_driver=False, logging_level="error")
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
