"""A run that is stopped anywhere goes on to the records of one that was never stopped."""

import json
import os
import shutil
import sys
from collections.abc import Callable
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
from learner.fixture import files_in

import lasem.files
from lasem import Learner
from lasem.errors import StorageError
from lasem.experiments import Observer
from lasem.experiments import run as run_experiment
from lasem.experiments.runner import keep_environment
from lasem.records import EpochRecord, TimingRecord
from lasem.report import write_report
from lasem.report.experiment import load_experiment

from .tiny import Killed, records_of, stop, tiny, without_report

run = partial(run_experiment, checkpoint_seconds=0)
CONFIG = tiny(2, 2)


def wrap_writes(monkeypatch: pytest.MonkeyPatch, wrapped: Callable[[Callable[..., Any]], Callable[..., Any]]) -> None:
    """Put something around every write of every room."""
    rooms = [module for name, module in sorted(sys.modules.items()) if name.startswith("lasem.")]
    for real in (lasem.files.write_file, lasem.files.append):
        for room in rooms:
            if getattr(room, real.__name__, None) is real:
                monkeypatch.setattr(room, real.__name__, wrapped(real))


class Killer:
    """Lets a number of writes happen, and kills before the next one."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.arm(-1)
        wrap_writes(monkeypatch, self._wrapped)

    def arm(self, at: int) -> None:
        self.count, self.at, self.dead = 0, at, False

    def _wrapped(self, real: Callable[..., Any]) -> Callable[..., Any]:
        def write(*arguments: Any, **settings: Any) -> Any:
            self.dead = self.dead or self.count == self.at
            self.count += 1
            if self.dead:
                raise Killed
            return real(*arguments, **settings)

        return write


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that is never stopped."""
    with pytest.MonkeyPatch.context() as patch:
        without_report(patch)
        return run(CONFIG, tmp_path_factory.mktemp("whole") / "run")


@pytest.fixture
def killer(monkeypatch: pytest.MonkeyPatch) -> Killer:
    without_report(monkeypatch)
    return Killer(monkeypatch)


@pytest.fixture
def stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    without_report(monkeypatch)
    stop(CONFIG, tmp_path / "run")
    return tmp_path / "run"


def assert_same(directory: Path, whole: Path) -> None:
    assert records_of(directory) == records_of(whole)
    assert files_in(directory / "seeds/0/model") == files_in(whole / "seeds/0/model")
    assert Learner.load(directory / "seeds/0/model").task_names == ("digits-0", "digits-1")


def test_killed_at_any_write(tmp_path: Path, whole: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a kill before, within or after a write leaves is what is on the disk then: one run shows it all."""
    place, left, writes = tmp_path / "run", list[dict[str, bytes]](), count()

    def add(files: dict[str, bytes]) -> None:
        if files not in left:  # before a write the files are often as after the one before
            left.append(files)

    def wrapped(real: Callable[..., Any]) -> Callable[..., Any]:
        def write(path: Path, content: Any, **settings: Any) -> None:
            before, name = files_in(place), str(path.relative_to(place))
            half = name if real is lasem.files.append else str(Path(name).with_name(f".{path.name}.1.tmp"))
            add(before)
            data = content.encode() if isinstance(content, str) else content
            add(before | {half: before.get(half, b"") + data[: len(data) // 2]})
            real(path, content, **settings)
            add(files_in(place))
            next(writes)

        return write

    with monkeypatch.context() as patch:
        without_report(patch)
        wrap_writes(patch, wrapped)
        run(CONFIG, place)
    assert next(writes) > 25  # 4 writes an epoch, 7 and more a task
    without_report(monkeypatch)
    for number, files in enumerate(left):
        directory = tmp_path / str(number)
        for name, data in files.items():
            (directory / name).parent.mkdir(parents=True, exist_ok=True)
            (directory / name).write_bytes(data)
        begun = (directory / "config.yaml").exists()  # before that it is no run yet, and is started once more
        run(CONFIG, directory, resume=begun)
        assert_same(directory, whole)
        assert not list(directory.rglob("*.tmp"))
        assert len((directory / "seeds/0/timings.jsonl").read_text().splitlines()) == 2 * (2 + 1)


@pytest.mark.parametrize("damage", ["checkpoint", "tensors", "index", "records"])
def test_a_damaged_checkpoint_costs_the_task_but_not_the_result(stopped: Path, whole: Path, damage: str) -> None:
    folder = stopped / "seeds/0"
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
    assert records_of(run(CONFIG, stopped, resume=True)) == records_of(whole)


def test_damaged_records_are_refused(stopped: Path) -> None:
    os.truncate(stopped / "seeds/0/records.jsonl", 10)
    with pytest.raises(StorageError, match="damaged"):
        run(CONFIG, stopped, resume=True)


@pytest.mark.parametrize("place", ["figures", "seeds", "seeds/0", "seeds/0/records.jsonl", "environment.json"])
def test_a_link_out_of_a_run_is_refused_and_what_it_leads_to_stays(place: str, stopped: Path, tmp_path: Path) -> None:
    path, outside = stopped / place, tmp_path / "outside"
    path.rename(outside) if path.exists() else outside.mkdir()
    shutil.rmtree(stopped / "seeds/0/model", ignore_errors=True)  # so that it begins anew, without records
    path.symlink_to(outside)
    before = files_in(tmp_path)
    for attempt in (write_report, load_experiment, lambda run_dir: run(CONFIG, run_dir, resume=True)):
        with pytest.raises(StorageError, match="a symbolic link leads out of it"):
            attempt(stopped)
    assert files_in(tmp_path) == before


@pytest.mark.parametrize("content", [None, "[1]", "[" * 10**5])
def test_an_odd_environment_is_written_anew(content: str | None, tmp_path: Path) -> None:
    place, about = tmp_path / "environment.json", {"torch": "2.6"}
    os.mkfifo(place) if content is None else place.write_text(content)
    assert keep_environment(tmp_path, about) == []
    assert json.loads(place.read_text()) == about


def test_a_resumed_run_trains_no_epoch_twice_and_one_at_its_end_changes_nothing(stopped: Path, whole: Path) -> None:
    observer = Mock(spec=Observer)
    run(CONFIG, stopped, resume=True, observer=observer)
    assert [(call.args[0].task, call.args[0].epoch) for call in observer.epoch_ends.call_args_list] == [("digits-1", 2)]
    assert_same(stopped, whole)
    before = files_in(stopped)
    run(CONFIG, stopped, resume=True, observer=observer)
    assert (observer.epoch_ends.call_count, files_in(stopped)) == (1, before)


@pytest.mark.parametrize("dead", [True, False], ids=["killed", "interrupted"])
def test_epochs_without_a_checkpoint_are_trained_again(dead: bool, tmp_path: Path, killer: Killer, whole: Path) -> None:
    """A kill loses the epochs since the last checkpoint, Ctrl-C none."""
    observer = Mock(spec=Observer)

    def stop(record: EpochRecord, _: TimingRecord) -> None:
        if (record.task, record.epoch) == ("digits-1", 2):
            killer.dead = dead
            raise Killed

    observer.epoch_ends.side_effect = stop
    with pytest.raises(Killed):
        run_experiment(CONFIG, tmp_path / "run", observer=observer)
    killer.arm(-1)
    again = Mock(spec=Observer)
    run(CONFIG, tmp_path / "run", resume=True, observer=again)
    assert [call.args for call in again.task_starts.call_args_list] == [("digits-1", 0 if dead else 2)]
    assert again.epoch_ends.call_count == (2 if dead else 0)
    assert_same(tmp_path / "run", whole)


def test_other_seeds_go_on_too(tmp_path: Path, killer: Killer) -> None:
    config = tiny(2, 2, seeds=(0, 1))
    whole = run(config, tmp_path / "whole")
    killer.arm(45)
    with pytest.raises(Killed):
        run(config, tmp_path / "run")
    killer.arm(-1)
    assert (tmp_path / "run/seeds/1").exists()
    run(config, tmp_path / "run", resume=True)
    for seed in (0, 1):
        assert records_of(tmp_path / "run", seed) == records_of(whole, seed)
