"""Runs in processes of their own, which take seconds to begin; their end by Ctrl-C is in tests/cli/test_compare.py."""

from __future__ import annotations

from pathlib import Path

import pytest

from lasem.baselines import EWC
from lasem.experiments.workers import Ended, Job, Learned, Started, work
from lasem.search import EM

from .tiny import tiny


@pytest.fixture
def job(tmp_path: Path) -> Job:
    return Job("ewc-0", tiny(2, 2, search=EM(), method=EWC()), tmp_path / "ewc-0", resume=False)


def test_a_run_that_fails_says_why_and_others_go_on(job: Job, tmp_path: Path) -> None:
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
