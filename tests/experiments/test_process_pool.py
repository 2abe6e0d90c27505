"""Runs in processes of their own; their end by Ctrl-C is in tests/cli/test_compare.py."""

import os
import random
import signal
import sys
from dataclasses import replace
from multiprocessing import active_children, forkserver
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock
from forks import Forked

from lasem.experiments import ComparisonObserver, compare, compared_methods, grid
from lasem.experiments.grid import Ended, Event, Job, Learned, Noted, ProcessPool, Started, ThisProcess
from lasem.methods import EWC
from lasem.search import EM
from paper.planted_stream import PlantedReader

from .tiny import PLANTED, kill, light_main, records_of, table_of, tiny, without_report


@pytest.fixture(autouse=True)
def _light_server(monkeypatch: pytest.MonkeyPatch) -> None:
    """What draws reports is left out."""
    monkeypatch.setattr("lasem.experiments.grid._PRELOAD", ["lasem.experiments.grid", "torch._dynamo"])


@pytest.fixture
def job(tmp_path: Path) -> Job:
    config = tiny(epochs=2, stream=PlantedReader(num_tasks=2, **PLANTED), search=EM(), method=EWC())
    return Job("ewc-0", config, tmp_path / "ewc-0")


def test_a_run_that_fails_says_why_and_others_go_on(job: Job, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken/thesis.txt").touch()
    events: list[Event] = []
    jobs = [Job("bad-0", job.config, tmp_path / "taken"), job]
    ProcessPool().run(jobs, 2, events.append)
    ended = {event.name: event for event in events if isinstance(event, Ended)}
    assert "holds thesis.txt" in str(ended["bad-0"].error)
    assert "StorageError" in ended["bad-0"].details
    assert ended["ewc-0"].error is None
    assert {event.name for event in events if isinstance(event, Started)} == {"bad-0", "ewc-0"}
    learned = [event for event in events if isinstance(event, Learned)]
    assert [(event.num_learned, event.num_tasks) for event in learned] == [(0, 2), (1, 2), (2, 2)]
    assert (job.directory / "report.html").exists()

    monkeypatch.setattr("sys.platform", "darwin")  # without a server, and with nothing left to train
    monkeypatch.setattr("lasem.experiments.grid._main", light_main)
    ended = {}
    ProcessPool().run(jobs, 2, lambda event: ended.update({event.name: event}))
    assert ["holds thesis.txt" in str(ended["bad-0"].error), ended["ewc-0"].error] == [True, None]


class Killer(ComparisonObserver):
    """Kills runs at random, each at most once, when any of them has learned something; and once their server."""

    def __init__(self, directory: Path) -> None:
        self.notes: list[str] = []
        self.server: int | None = None
        self._num_learned = 0
        self._directory, self._random, self._spared = directory, random.Random(5), set[str]()

    def notify(self, event: Event) -> None:
        if isinstance(event, Noted):
            self.notes.append(event.message)
        elif isinstance(event, Started):
            self._spared.add(event.name)
        elif isinstance(event, Ended):
            self._spared.discard(event.name)
        elif isinstance(event, Learned):
            self._num_learned += 1
            if self._num_learned == 6:
                self.server = forkserver._forkserver._forkserver_pid  # type: ignore[attr-defined]
                assert self.server
                os.kill(self.server, signal.SIGKILL)
            elif self._spared and self._random.random() < 0.7:
                name = self._random.choice(sorted(self._spared))
                if kill(self._directory / name):
                    self._spared.remove(name)


def test_a_grid_of_twelve_runs_survives_kills_at_random(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    base = {"stream": {"name": "planted", "num_tasks": 1, **PLANTED}, "training": {"epochs": 2}, "threads": 1}
    names = ["lasem", "none", "top-2", "ewc", "alternating", "lasem-tf"]  # with fewer runs chance kills too few
    methods = compared_methods({**base, "seeds": [0, 1]}, names)
    without_report(monkeypatch)
    runs = [(method, seed, f"{method.label}-{seed}") for method in methods for seed in (0, 1)]
    jobs = [Job(name, replace(m.config, seeds=(seed,)), tmp_path / "whole" / name) for m, seed, name in runs]
    events: list[Event] = []
    ThisProcess().run(jobs, 1, events.append)
    assert events[:3] == [Started("lasem-0"), Learned("lasem-0", 0, 1), Learned("lasem-0", 1, 1)]
    assert [event.error for event in events if isinstance(event, Ended)] == [None] * 12
    for job in jobs:
        (job.directory / "report.html").touch()

    monkeypatch.setattr("lasem.experiments.grid._main", light_main)
    killer = Killer(tmp_path / "killed")
    made = compare(methods, tmp_path / "killed", num_workers=2, observer=killer)
    assert not made.failures
    assert made.num_made == 12
    assert killer.server
    assert len(killer.notes) >= 4
    assert all("it goes on in a new one" in note for note in killer.notes)
    assert sum("killed by signal 9" in note for note in killer.notes) >= len(killer.notes) - 2
    compare(methods, tmp_path / "whole")  # nothing is left to do but the table
    assert table_of(tmp_path / "whole") == table_of(tmp_path / "killed")
    for _, seed, name in runs:
        assert records_of(tmp_path / "whole" / name, seed) == records_of(tmp_path / "killed" / name, seed)


def dying_main(*arguments: Any) -> None:
    grid.run_job = die
    main(*arguments)


def die(*_: Any) -> None:
    print("many words\nlast words", file=sys.stderr, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)


def leaving_main(*_: Any) -> None:
    os._exit(3)


main = grid._main


def test_a_run_that_dies_again_and_again_is_given_up(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    events: list[Event] = []
    monkeypatch.setattr("lasem.experiments.grid._main", dying_main)
    ProcessPool().run([job], 1, events.append)
    assert [type(event) for event in events] == [Started, Noted, Noted, Ended]
    assert events[-1].error == "its process was killed by signal 9: last words"
    assert events[-1].details == "many words\nlast words\n"
    monkeypatch.setattr("lasem.experiments.grid._main", leaving_main)
    ProcessPool().run([job], 1, events.append)
    assert (len(events), events[-1].error) == (6, "its process ended with exit code 3")


@pytest.mark.parametrize("kind", [Started, Learned, Ended])
def test_no_process_is_left_when_a_listener_raises(job: Job, monkeypatch: pytest.MonkeyPatch, kind: Any) -> None:
    def notify(event: Event) -> None:
        if isinstance(event, kind):
            raise KeyboardInterrupt

    monkeypatch.setattr("lasem.experiments.grid._main", light_main)
    before = active_children()
    with pytest.raises(KeyboardInterrupt):
        ProcessPool().run([job, replace(job, name="other", directory=job.directory.parent / "other")], 2, notify)
    assert active_children() == before


SCRIPT = """
from lasem.experiments import compare, compared_methods
print("once", flush=True)
compare(compared_methods({"stream": "planted", "training": {"epochs": 10**6}}, ["none", "ewc"]), "out", num_workers=2)
"""


def test_a_script_needs_no_guard_and_its_processes_end_with_it_when_it_is_killed(tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(SCRIPT)
    script = Forked("script.py", folder=tmp_path)
    for method in ("none", "ewc"):
        script.wait_for(tmp_path / f"out/{method}-0/seeds/0/records.jsonl")
    done = script.ended(0)
    for method in ("none", "ewc"):
        with FileLock(tmp_path / f"out/{method}-0/.lock", timeout=5):
            pass
    assert (done.stdout, done.returncode) == ("once\n", -signal.SIGKILL)
