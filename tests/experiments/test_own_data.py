"""Runs on tensors that a person's own program holds: no file can name them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from lasem.data import TensorReader
from lasem.errors import ConfigError, StorageError
from lasem.experiments import ComparedMethod, compare, run
from lasem.metrics import load_run
from lasem.search import Fixed

from .tiny import records_of, tiny, without_report

NONE, ALL = Fixed("none"), Fixed("all")

GENERATOR = torch.Generator().manual_seed(0)
IMAGES = torch.randint(0, 256, (60, 8, 8), dtype=torch.uint8, generator=GENERATOR)
LABELS = torch.arange(60) % 4


def reader(images: object = IMAGES) -> TensorReader:
    return TensorReader(images=images, labels=LABELS, num_tasks=2, classes_per_task=2)


def test_a_run_on_tensors_is_kept_and_resumed(tmp_path: Path) -> None:
    folder = run(tiny(stream=reader()), tmp_path / "run")
    assert "images: uint8 (60, 8, 8), sha256 " in (folder / "config.yaml").read_text()
    assert (folder / "report.html").stat().st_size > 10_000
    assert [task.task for task in load_run(folder / "seeds/0").tasks] == ["tensors-0", "tensors-1"]
    before = records_of(folder)
    run(tiny(stream=reader(IMAGES.numpy())), folder, resume=True)  # the same numbers as an array
    assert records_of(folder) == before
    other = np.ascontiguousarray(IMAGES.numpy())
    other[0, 0, 0] += 1
    with pytest.raises(StorageError, match="other settings"):
        run(tiny(stream=reader(other)), folder, resume=True)


def test_methods_are_compared_on_tensors_in_this_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    without_report(monkeypatch)
    # each method's reader is an object of its own, on the same numbers
    methods = [ComparedMethod(search.configuration, tiny(stream=reader(), search=search)) for search in (NONE, ALL)]
    made = compare(methods, tmp_path)
    assert (made.failures, made.num_made) == ({}, 2)
    assert [path.name for path in sorted(tmp_path.glob("*-0"))] == ["all-0", "none-0"]
    assert "| single-task |" in (tmp_path / "comparison.md").read_text()
    other = ComparedMethod("other", tiny(stream=reader(IMAGES[:50]), search=ALL))
    with pytest.raises(ConfigError, match="one stream with the same seeds; other has others"):
        compare([*methods, other], tmp_path)
