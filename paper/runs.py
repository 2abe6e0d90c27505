"""The finished runs of one stream, read from the files of a comparison."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, final

from lasem.metrics import Run, Statistic, Summary, aggregate, statistic, summarise
from lasem.report.experiment import finished_runs, plain_settings


@final
@dataclass(frozen=True, kw_only=True)
class PanelRuns:
    """One stream's finished runs, by method and seed."""

    key: str
    title: str
    """What people call the stream."""
    stands_for: str
    """The stream whose published numbers are shown; another one where a person's own data take its place."""
    folder: str
    """Where the runs are, from the page's folder."""
    labels: tuple[str, ...]
    seeds: tuple[int, ...]
    runs: dict[str, dict[int, Run]]
    settings: dict[str, dict[str, Any]]
    """What ``config.yaml`` says, by method; only of methods with a finished run."""

    @cached_property
    def summaries(self) -> dict[str, dict[int, Summary]]:
        """Each run's quantities."""
        return {label: {seed: summarise(run) for seed, run in of.items()} for label, of in self.runs.items()}

    def value(self, label: str, quantity: str) -> Statistic:
        """A quantity's mean and deviation over the finished seeds; NaN if there is none."""
        summaries = list(self.summaries.get(label, {}).values())
        return aggregate(summaries)[quantity] if summaries else statistic([])

    def runs_of(self, label: str) -> list[Run]:
        """A method's finished runs in the order of seeds."""
        return list(self.runs.get(label, {}).values())

    @property
    def missing(self) -> list[str]:
        """The runs that are not finished."""
        return [f"{label}-{seed}" for label in self.labels for seed in self.seeds if seed not in self.runs[label]]


def load_panel(
    directory: Path, folder: str, *, key: str, title: str, stands_for: str, methods: Sequence[str], seeds: Sequence[int]
) -> PanelRuns:
    """Read the finished runs of some methods of a comparison's folder.

    Raises:
        StorageError: if a file is damaged.
    """
    found = finished_runs(directory / folder, methods, seeds)
    configs = {label: next(iter(of.values()))[1] for label, of in found.items() if of}
    return PanelRuns(
        key=key,
        title=title,
        stands_for=stands_for,
        folder=folder,
        labels=tuple(methods),
        seeds=tuple(seeds),
        runs={label: {seed: run for seed, (run, _) in of.items()} for label, of in found.items()},
        settings={label: plain_settings(config) for label, config in configs.items()},
    )
