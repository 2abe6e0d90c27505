"""A run that takes a second: digits, few images, few epochs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from lasem.data import DigitsReader
from lasem.experiments import ExperimentConfig
from lasem.search import EM
from lasem.training import TrainingConfig

READER: dict[str, Any] = {"train_per_class": 4, "valid_per_class": 2, "test_per_class": 4, "classes_per_task": 3}


def tiny(num_tasks: int = 2, epochs: int = 3, **settings: Any) -> ExperimentConfig:
    return ExperimentConfig(
        **{
            "stream": DigitsReader(num_tasks=num_tasks, **READER),
            "search": EM(first_task="search", commit_share=0.7),
            "training": TrainingConfig(epochs=epochs),
            "threads": 1,
            **settings,
        }
    )


def without_report(monkeypatch: pytest.MonkeyPatch) -> None:
    """Drawing takes longer than the run; it has tests of its own."""
    monkeypatch.setattr("lasem.experiments.runner.write_report", lambda directory: directory)


def records_of(directory: Path, seed: int = 0) -> bytes:
    return (directory / "seeds" / str(seed) / "records.jsonl").read_bytes()
