"""Where the processes of runs come from: what every place that can start them has in common."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, ClassVar, final

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

    def to_line(self, **more: Any) -> str:
        """What a worker reads on stdin, one line of JSON."""
        entry = {
            "config": self.config.to_yaml(),
            "directory": str(self.directory),
            "resume": self.resume,
            "command": list(self.command),
        }
        return json.dumps(entry | more) + "\n"


class AbstractWorker(ABC):
    """One process, ``lasem.experiments.worker``, that makes one run."""

    @abstractmethod
    def lines(self) -> Iterator[str]:
        """What it tells, until it ends; asked for once."""

    @abstractmethod
    def wait(self) -> int:
        """Its exit code, negative if it was killed."""

    @abstractmethod
    def kill(self) -> None:
        """Kill it; that it is gone is told by ``wait``."""

    def close(self) -> None:  # noqa: B027 (most hold nothing)
        """Give back what was held for it, once it has ended."""

    def killed_by(self, code: int) -> str:
        """What has killed it, in words, by its exit code."""
        return f"was killed by signal {-code}"


class AbstractCradle(ABC):
    """Starts workers."""

    elsewhere: ClassVar[bool] = False
    """Whether they may be on other machines, so that their devices need not be here."""

    @abstractmethod
    def start(self, job: Job, stderr: IO[bytes]) -> AbstractWorker:
        """Start one.

        Args:
            job: what it does.
            stderr: where what it writes there goes, at its end at the latest; a real file.
        """

    @abstractmethod
    def close(self) -> None:
        """Start none any more; those that were started must have ended."""


def device_here(name: str, cradle: AbstractCradle | None) -> str:
    """The device of runs that a cradle's workers make, or the CPU in its place if theirs need not be here."""
    return "cpu" if cradle is not None and cradle.elsewhere else name
