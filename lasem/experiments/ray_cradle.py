"""Workers on a Ray cluster (optional extra ``ray``).

Every machine of the cluster needs lasem, and the folders of runs and data under the same paths as here. Ray decides
where a run goes: it asks for as many CPUs as it has threads, and for a GPU if its device is ``cuda``.
"""

from __future__ import annotations

import os
import socket
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from typing import IO, Any, cast, final

from lasem.errors import ConfigError
from lasem.experiments.config import ExperimentConfig
from lasem.experiments.cradle import AbstractCradle, AbstractWorker, Job
from lasem.experiments.local import Spawned
from lasem.settings import to_plain

_LOST = -255
"""The exit code of a worker whose end nobody saw."""


@final
class RayCradle(AbstractCradle):
    """Starts workers as tasks of Ray."""

    elsewhere = True

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
        _check_there(address)
        try:
            ray.init(address=address, log_to_driver=False, logging_level="error")
        except (ConnectionError, RuntimeError, ValueError, TimeoutError) as error:
            raise _none_at(address, str(error).splitlines()[0]) from error
        self._ray: Any = ray

    def room(self, threads: int) -> int:
        """How many workers of so many threads (0: one) the cluster has room for, at least one."""
        return max(1, int(self._ray.cluster_resources().get("CPU", 1)) // max(1, threads))

    def start(self, job: Job, stderr: IO[bytes]) -> AbstractWorker:
        """See AbstractCradle."""
        threads = max(1, job.config.threads)
        resources = {"num_cpus": threads, "num_gpus": int(job.config.device.startswith("cuda"))}
        task = self._ray.remote(_work).options(**resources, max_retries=0, num_returns="streaming")
        there = replace(job, directory=job.directory.absolute(), config=with_absolute_path(job.config))
        return _RayWorker(self._ray, task.remote(there.to_line(), threads), stderr)

    def close(self) -> None:
        """See AbstractCradle."""
        self._ray.shutdown()


def with_absolute_path(config: ExperimentConfig) -> ExperimentConfig:
    """A worker is in another folder, where a path that was typed here means another place."""
    stream = to_plain(config.stream)
    if stream.get("path") is None:
        return config
    return replace(config, stream=replace(cast(Any, config.stream), path=os.path.abspath(stream["path"])))


def _check_there(address: str) -> None:
    """Raise ConfigError unless something listens at ``HOST:PORT``, where Ray would try for minutes and then exit."""
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal() or "/" in host:
        return
    try:
        socket.create_connection((host, int(port)), timeout=10).close()
    except (OSError, OverflowError) as error:
        raise _none_at(address, error) from error


@final
class _RayWorker(AbstractWorker):
    """A task that gives what its worker tells, line by line."""

    def __init__(self, ray: Any, told: Any, stderr: IO[bytes]) -> None:
        self._ray, self._told, self._stderr = ray, told, stderr
        self._code = _LOST

    def lines(self) -> Iterator[str]:
        """See AbstractWorker."""
        try:
            for part in self._told:
                line = self._ray.get(part)
                if isinstance(line, str):
                    yield line
                else:
                    self._code, written = line
                    self._stderr.write(written)
        except self._ray.exceptions.RayError as error:  # of the task's process or machine, or it was told to end
            self._stderr.write(f"{error}\n".encode())

    def wait(self) -> int:
        """See AbstractWorker: it has ended when it tells no more."""
        return self._code

    def kill(self) -> None:
        """See AbstractWorker."""
        self._ray.cancel(self._told, force=True)

    def killed_by(self, code: int) -> str:
        """See AbstractWorker."""
        return "was lost with the process or the machine that it was on" if code == _LOST else super().killed_by(code)


def _work(line: str, threads: int) -> Iterator[str | tuple[int, bytes]]:
    """Run a worker on the machine that Ray has chosen: what it tells, then its exit code and what it wrote on stderr.

    When Ray ends this process, the worker's stdin is closed, and it ends too.
    """
    environment = {"OMP_NUM_THREADS": str(threads), **os.environ}
    with tempfile.TemporaryFile() as stderr:
        worker = Spawned(environment, stderr)
        worker.begin(line)
        try:
            for told in worker.lines():  # noqa: UP028 (Ray sends into what it iterates; a file takes nothing)
                yield told
            code = worker.wait()
        finally:
            worker.kill()
            worker.close()
        stderr.seek(0)
        yield code, stderr.read()


def _none_at(address: str, error: object) -> ConfigError:
    return ConfigError(
        f"There is no Ray cluster at {address} ({error}). Start one with ray start --head, or say --ray local."
    )
