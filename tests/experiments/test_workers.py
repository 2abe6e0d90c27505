"""Runs in processes of their own; their end by Ctrl-C is in tests/cli/test_compare.py."""

from __future__ import annotations

import os
import random
import signal
import socket
import sys
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lasem.data import PlantedReader
from lasem.experiments import ComparisonObserver, compare, contestants
from lasem.experiments.cradle import Job
from lasem.experiments.here import work_here
from lasem.experiments.local import LocalCradle, _Forked
from lasem.experiments.nursery import PROGRAM, Nursery
from lasem.experiments.workers import Ended, Event, Learned, Noted, Started, _Process, work
from lasem.methods import EWC
from lasem.search import EM
from lasem.training import TrainingConfig

from .tiny import records_of, tiny, without_report

SIZE: dict[str, Any] = {"train_per_class": 3, "valid_per_class": 2, "test_per_class": 3, "clearest": 1.0}

LIGHT = """
import lasem.experiments.nursery, lasem.experiments.runner
lasem.experiments.nursery._import = lambda: __import__("torch._dynamo")  # nothing is drawn
lasem.experiments.runner.write_report = lambda directory: (directory / "report.html").touch()
"""
"""Runs ahead of a nursery's own program."""


@pytest.fixture
def job(tmp_path: Path) -> Job:
    stream = PlantedReader(num_tasks=2, **SIZE)  # in a new process scikit-learn's digits take longer than all the rest
    config = tiny(stream=stream, search=EM(), method=EWC(), training=TrainingConfig(epochs=2))
    return Job("ewc-0", config, tmp_path / "ewc-0", resume=False)


def test_a_run_that_fails_says_why_and_others_go_on(job: Job, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lasem.experiments.local.sys.platform", "darwin")  # without a nursery
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken/thesis.txt").touch()
    bad = Job("bad-0", job.config, tmp_path / "taken", resume=False)
    events = list(work([bad, job], num_workers=2))
    ended = {event.name: event for event in events if isinstance(event, Ended)}
    assert ended["bad-0"].error is not None
    assert "holds thesis.txt" in ended["bad-0"].error
    assert ended["ewc-0"].error is None
    assert {event.name for event in events if isinstance(event, Started)} == {"bad-0", "ewc-0"}
    learned = [event for event in events if isinstance(event, Learned)]
    assert [(event.num_learned, event.num_tasks) for event in learned] == [(0, 2), (1, 2), (2, 2)]
    assert (job.directory / "report.html").exists()


@pytest.mark.skipif(sys.platform != "linux", reason="nurseries are for Linux")
def test_a_nursery_that_is_dying_is_replaced(job: Job, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lasem.experiments.nursery.PROGRAM", LIGHT + PROGRAM)
    cradle = LocalCradle(1)
    dying = cradle._nursery = Nursery(dict(os.environ))
    dying._socket.shutdown(socket.SHUT_RDWR)  # the system will not say for a while that the process has ended
    with (tmp_path / "stderr").open("wb") as stderr:
        worker = cradle.start(job, stderr)
    assert cradle._nursery is not dying
    assert isinstance(worker, _Forked)
    assert worker.wait() == 0
    worker.close()
    cradle.close()


class Killer(ComparisonObserver):
    """Kills runs at random, each at most once, when any of them tells something; and once what starts them."""

    def __init__(self, seed: int, pids: dict[str, int], nurseries: list[Nursery]) -> None:
        self.notes: list[str] = []
        self._num_told = 0
        self._kills: set[str] = set()
        self._pids, self._nurseries, self._random = pids, nurseries, random.Random(seed)

    def told(self, event: Event) -> None:
        if isinstance(event, Noted):
            self.notes.append(event.message)
        if isinstance(event, Ended):
            del self._pids[event.name]
        if not isinstance(event, Learned):
            return
        self._num_told += 1
        victims = sorted(self._pids.keys() - self._kills)
        if self._num_told == 10:
            self._nurseries[0]._process.kill()
        elif victims and self._random.random() < 0.5:
            name = self._random.choice(victims)
            self._kills.add(name)
            with suppress(ProcessLookupError):  # it was just about to end by itself
                os.kill(self._pids[name], signal.SIGKILL)


def test_a_grid_of_twenty_runs_survives_kills_at_random(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    base = {"stream": {"name": "planted", "num_tasks": 1, **SIZE}, "training": {"epochs": 2}, "threads": 1}
    names = ["lasem", "all", "none", "top-2", "ewc", "alternating", "bottom-1", "top-3", "bottom-3", "lasem-tf"]
    methods = contestants({**base, "seeds": [0, 1]}, names)
    without_report(monkeypatch)
    jobs = [
        Job(
            f"{method.label}-{seed}",
            replace(method.config, seeds=(seed,)),
            tmp_path / f"whole/{method.label}-{seed}",
            False,
        )
        for method in methods
        for seed in (0, 1)
    ]
    told: list[Event] = []
    work_here(jobs, told.append)  # in this process, as runs of own classes are made
    assert told[:3] == [Started("lasem-0"), Learned("lasem-0", 0, 1), Learned("lasem-0", 1, 1)]
    assert [event.error for event in told if isinstance(event, Ended)] == [None] * 20
    for job in jobs:
        (job.directory / "report.html").touch()

    monkeypatch.setattr("lasem.experiments.nursery.PROGRAM", LIGHT + PROGRAM)
    pids: dict[str, int] = {}
    begin = _Process.__init__

    def begun(self: _Process, job: Job, *arguments: Any, **more: Any) -> None:
        begin(self, job, *arguments, **more)
        pids[job.name] = self._process._pid  # type: ignore[union-attr]

    nurseries: list[Nursery] = []
    open_nursery = Nursery.__init__

    def opened(self: Nursery, environment: dict[str, str]) -> None:
        open_nursery(self, environment)
        nurseries.append(self)

    monkeypatch.setattr(_Process, "__init__", begun)
    monkeypatch.setattr(Nursery, "__init__", opened)
    killer = Killer(5, pids, nurseries)
    made = compare(methods, tmp_path / "killed", num_workers=2, observer=killer)
    assert not made.failures
    assert made.num_made == 20
    assert len(killer.notes) >= 5
    assert len(nurseries) == 2
    assert all("killed by signal 9; it goes on in a new one" in note for note in killer.notes)
    compare(methods, tmp_path / "whole")  # nothing is left to do but the table
    tables = [(tmp_path / name / "comparison.md").read_text().splitlines() for name in ("whole", "killed")]
    without_times = [[line.rpartition(" | ")[0] for line in table] for table in tables]  # the last column
    assert without_times[0] == without_times[1]
    for method in methods:
        for seed in (0, 1):
            one, other = (tmp_path / name / f"{method.label}-{seed}" for name in ("whole", "killed"))
            assert records_of(one, seed) == records_of(other, seed)


@pytest.fixture
def _dying(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every worker's process is killed before it has done anything."""
    program = tmp_path / "dies"
    program.write_text("#!/bin/sh\nkill -9 $$\n")
    program.chmod(0o755)
    monkeypatch.setattr("lasem.experiments.local.sys.platform", "darwin")  # without a nursery
    monkeypatch.setattr("lasem.experiments.local.sys.executable", str(program))


@pytest.mark.usefixtures("_dying")
def test_a_run_that_dies_again_and_again_without_progress_is_given_up(job: Job) -> None:
    events = list(work([job], num_workers=1))
    assert [type(event) for event in events] == [Started, Noted, Noted, Ended]
    assert isinstance(events[-1], Ended)
    assert events[-1].error == "its process was killed by signal 9"


@pytest.mark.usefixtures("_dying")
@pytest.mark.parametrize("kind", [Noted, Ended])
def test_whoever_is_told_of_an_end_may_stop_listening(job: Job, kind: type[Event]) -> None:
    events = work([job], num_workers=1)
    assert any(isinstance(event, kind) for event in events)
    events.close()  # type: ignore[attr-defined]
