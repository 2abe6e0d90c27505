"""A run that is stopped anywhere goes on to the records of one that was never stopped."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import lasem.files
from lasem.errors import StorageError
from lasem.experiments import ExperimentConfig, Observer, run
from lasem.learner import Learner
from lasem.methods import EWC
from lasem.records import EpochRecord, TimingRecord
from lasem.search import EM

from .tiny import records_of, tiny, without_report

CONFIG = tiny(2, 2)
BASELINE = tiny(2, 2, search=EM(), method=EWC())


class Killed(BaseException):
    """No handler of the program may see it: a killed process handles nothing."""


class Killer:
    """Lets a number of writes happen, and kills before, in the middle of, or after the next one."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.count, self.at, self.how = 0, -1, "before"
        rooms = [module for name, module in sorted(sys.modules.items()) if name.startswith("lasem.")]
        for real in (lasem.files.write_file, lasem.files.append):
            for room in rooms:
                if getattr(room, real.__name__, None) is real:
                    monkeypatch.setattr(room, real.__name__, self._wrapped(real))

    def arm(self, at: int, how: str) -> None:
        self.count, self.at, self.how = 0, at, how

    def _wrapped(self, real: Callable[..., Any]) -> Callable[..., Any]:
        def write(path: Path, content: Any, **settings: Any) -> Any:
            number, self.count = self.count, self.count + 1
            if number != self.at:
                return real(path, content, **settings)
            if self.how == "within":
                if real is lasem.files.append:
                    real(path, content[: len(content) // 2])
                else:
                    path.parent.mkdir(parents=True, exist_ok=True)
                    path.with_name(f".{path.name}.1.tmp").write_bytes(b"half")
            if self.how == "after":
                real(path, content, **settings)
            raise Killed

        return write


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    with pytest.MonkeyPatch.context() as patch:
        without_report(patch)
        return records_of(run(CONFIG, tmp_path_factory.mktemp("whole") / "run"))


def _resume(config: ExperimentConfig, directory: Path) -> Path:
    return run(config, directory, resume=True)


@pytest.mark.parametrize("how", ["before", "within"])
def test_killed_at_any_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, expected: bytes, how: str) -> None:
    without_report(monkeypatch)
    killer = Killer(monkeypatch)
    at = 0
    while True:
        directory = tmp_path / str(at)
        killer.arm(at, how)
        try:
            run(CONFIG, directory)
            break  # the run has fewer writes than this
        except Killed:
            pass
        killer.arm(-1, how)
        begun = (directory / "config.yaml").exists()  # before that it is no run yet, and is started once more
        run(CONFIG, directory, resume=begun)
        assert records_of(directory) == expected, at
        assert not list(directory.rglob("*.tmp"))
        timings = (directory / "seeds/0/timings.jsonl").read_text().splitlines()
        assert len(timings) == 2 * (2 + 1)
        at += 1
    assert at > 25  # 4 writes an epoch, 7 and more a task


def test_a_baseline_killed_again_and_again_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    without_report(monkeypatch)
    whole = run(BASELINE, tmp_path / "whole")
    killer = Killer(monkeypatch)
    kills, resume = 0, False
    while True:
        killer.arm(7, ("before", "within", "after")[kills % 3])
        try:
            run(BASELINE, tmp_path / "run", resume=resume)
            break
        except Killed:
            kills, resume = kills + 1, True
    assert kills > 2
    assert records_of(tmp_path / "run") == records_of(whole)
    models = [
        {p.relative_to(m): p.read_bytes() for p in m.glob("seeds/0/model/**/*") if p.is_file()}
        for m in (whole, tmp_path / "run")
    ]
    assert models[0] == models[1]
    assert Learner.load(whole / "seeds/0/model").task_names == ("digits-0", "digits-1")


def test_killed_again_while_it_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, expected: bytes) -> None:
    without_report(monkeypatch)
    killer = Killer(monkeypatch)
    directory = tmp_path / "run"
    kills, resume = 0, False
    while True:
        killer.arm(5, ("before", "within", "after")[kills % 3])
        try:
            run(CONFIG, directory, resume=resume)
            break
        except Killed:
            kills, resume = kills + 1, True
    assert kills > 4
    assert records_of(directory) == expected


@pytest.mark.parametrize("damage", ["checkpoint", "tensors", "index", "records"])
def test_a_damaged_checkpoint_costs_the_task_but_not_the_result(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, expected: bytes, damage: str
) -> None:
    without_report(monkeypatch)
    _stopped_in_epoch(tmp_path / "run", task="digits-1", epoch=1)
    folder = tmp_path / "run/seeds/0"
    (tensors,) = (folder / "checkpoint").glob("*.safetensors")
    index = folder / "checkpoint/checkpoint.json"
    if damage == "checkpoint":
        index.unlink()
    elif damage == "tensors":
        tensors.write_bytes(tensors.read_bytes()[:-1] + b"!")
    elif damage == "index":
        index.write_text("{")
    else:  # the disk lost the last epoch's record, but not the checkpoint
        lines = (folder / "records.jsonl").read_bytes().splitlines(keepends=True)
        (folder / "records.jsonl").write_bytes(b"".join(lines[:-1]))
    assert records_of(_resume(CONFIG, tmp_path / "run")) == expected


def test_damaged_records_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    without_report(monkeypatch)
    _stopped_in_epoch(tmp_path / "run", task="digits-1", epoch=1)
    os.truncate(tmp_path / "run/seeds/0/records.jsonl", 10)
    with pytest.raises(StorageError, match="damaged"):
        _resume(CONFIG, tmp_path / "run")


def test_a_resumed_run_trains_no_epoch_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    without_report(monkeypatch)
    _stopped_in_epoch(tmp_path / "run", task="digits-1", epoch=1)
    epochs: list[tuple[str, int]] = []

    class Counter(Observer):
        def epoch_ends(self, record: EpochRecord, timing: TimingRecord) -> None:
            epochs.append((record.task, record.epoch))

    run(CONFIG, tmp_path / "run", resume=True, observer=Counter())
    assert epochs == [("digits-1", 2)]


def test_a_finished_run_can_be_resumed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, expected: bytes) -> None:
    without_report(monkeypatch)
    directory = run(CONFIG, tmp_path / "run")
    before = {p: p.read_bytes() for p in directory.rglob("*") if p.is_file()}
    _resume(CONFIG, directory)
    assert {p: p.read_bytes() for p in directory.rglob("*") if p.is_file()} == before
    assert records_of(directory) == expected


def test_other_seeds_go_on_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    without_report(monkeypatch)
    config = tiny(2, 2, seeds=(0, 1))
    whole = run(config, tmp_path / "whole")
    killer = Killer(monkeypatch)
    killer.arm(45, "before")
    with pytest.raises(Killed):
        run(config, tmp_path / "run")
    killer.arm(-1, "before")
    assert (tmp_path / "run/seeds/1").exists()
    _resume(config, tmp_path / "run")
    for seed in (0, 1):
        assert records_of(tmp_path / "run", seed) == records_of(whole, seed)


def test_the_model_is_that_of_a_run_never_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    without_report(monkeypatch)
    _stopped_in_epoch(tmp_path / "run", task="digits-1", epoch=1)
    models = [run(CONFIG, tmp_path / "whole"), _resume(CONFIG, tmp_path / "run")]
    files = [{p.relative_to(m): p.read_bytes() for p in m.glob("seeds/0/model/**/*") if p.is_file()} for m in models]
    assert files[0] == files[1]
    assert Learner.load(models[1] / "seeds/0/model").task_names == ("digits-0", "digits-1")


def _stopped_in_epoch(directory: Path, task: str, epoch: int) -> None:
    class Stop(Observer):
        def epoch_ends(self, record: EpochRecord, timing: TimingRecord) -> None:
            if (record.task, record.epoch) == (task, epoch):
                raise Killed

    with pytest.raises(Killed):
        run(CONFIG, directory, observer=Stop())
