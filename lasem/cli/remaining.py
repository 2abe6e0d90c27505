"""How long a run will still take, learned from the epochs so far."""

from __future__ import annotations

from typing import final


@final
class Remaining:
    """An estimate from how long the epoch of each number took, for epochs that search take longer than later ones."""

    def __init__(self) -> None:
        """Start without knowing anything."""
        self._seconds: dict[int, float] = {}
        self._last: float | None = None
        self._warm = False

    def add(self, epoch: int, seconds: float) -> None:
        """Learn from one epoch; a later task's says more than an earlier one's, and the first is often not searched."""
        if self._warm:
            self._seconds[epoch] = self._last = seconds
        self._warm = True  # a process's first epoch takes far longer than any other

    def estimate(self, epoch: int, num_epochs: int, tasks_left: int) -> float | None:
        """Seconds until the end; None before two epochs have been seen.

        Args:
            epoch: the last epoch of the task under way that is finished.
            num_epochs: epochs of a task, should none stop early.
            tasks_left: tasks after this one, over all seeds.
        """
        if self._last is None:
            return None
        task = self._sum(range(1, num_epochs + 1))
        return self._sum(range(epoch + 1, num_epochs + 1)) + tasks_left * task

    def _sum(self, epochs: range) -> float:
        assert self._last is not None
        return sum(self._seconds.get(epoch, self._last) for epoch in epochs)


def duration(seconds: float) -> str:
    """For instance ``8 s``, ``2:05 min`` or ``3:20 h``."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60}:{whole % 60:02d} min"
    return f"{whole // 3600}:{whole % 3600 // 60:02d} h"
