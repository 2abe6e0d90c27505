"""A run that takes a second, as options and as the same settings in Python."""

from __future__ import annotations

from pathlib import Path

import pytest

from lasem.experiments import ExperimentConfig

OPTIONS = [
    "--stream.num_tasks=2",
    "--stream.train_per_class=4",
    "--stream.valid_per_class=2",
    "--stream.test_per_class=4",
    "--stream.classes_per_task=3",
    "--training.epochs=3",
    "--threads=1",
    "--search.first_task=search",
    "--search.commit_share=0.7",
]


def tiny(num_tasks: int = 2, epochs: int = 3) -> ExperimentConfig:
    images = {"train_per_class": 4, "valid_per_class": 2, "test_per_class": 4, "classes_per_task": 3}
    return ExperimentConfig.from_plain(
        {
            "stream": {"name": "digits", "num_tasks": num_tasks, **images},
            "search": {"name": "em", "first_task": "search", "commit_share": 0.7},
            "training": {"epochs": epochs},
            "threads": 1,
        }
    )


def without_report(monkeypatch: pytest.MonkeyPatch) -> None:
    """Drawing takes longer than the run; it has tests of its own."""
    monkeypatch.setattr("lasem.experiments.runner.write_report", lambda directory: directory)


def records_of(directory: Path) -> bytes:
    return (directory / "seeds/0/records.jsonl").read_bytes()
