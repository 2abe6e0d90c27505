"""Runs on a Ray cluster of this machine alone; skipped where ray is not installed."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lasem.errors import ConfigError, DeviceError
from lasem.experiments import ComparisonObserver, ExperimentConfig, compare, compared_methods
from lasem.experiments.config import differences
from lasem.experiments.grid import Event, Job, Learned, Noted, RayExecutor, with_absolute_paths

from .tiny import PLANTED, Fake, kill, records_of, table_of

pytestmark = pytest.mark.filterwarnings("ignore")  # ray leaves processes and files open

BASE: dict[str, Any] = {
    "stream": {"name": "planted", "num_tasks": 2, **PLANTED},
    "training": {"epochs": 2},
    "threads": 1,
    "seeds": [0, 1],
}


def test_without_ray_it_is_said_what_to_install(monkeypatch: pytest.MonkeyPatch, lasem: Any) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    assert "pip install 'lasem[ray]'" in lasem("compare", "--methods", "none", "--ray", "local", code=2).err


def test_a_process_elsewhere_is_given_whole_paths(here: Path) -> None:
    config = ExperimentConfig.from_plain({"stream": {"name": "mnist", "path": "DATA"}})
    there = with_absolute_paths(Job("a", config, Path("runs/a")))
    assert (there.directory, there.config.to_plain()["stream"]["path"]) == (here / "runs/a", str(here / "DATA"))
    assert differences(there.config.to_plain(), config.to_plain()) == []  # what it writes down is the same run
    pathless = Job("b", ExperimentConfig.from_plain(BASE), here)
    assert with_absolute_paths(pathless) == pathless


def test_devices_are_needed_where_the_runs_are_made(tmp_path: Path) -> None:
    methods = compared_methods({**BASE, "device": "cuda:7"}, ["none"])
    with pytest.raises(DeviceError, match="got 'cuda:7'"):
        compare(methods, tmp_path / "here")
    cluster = Fake(makes=False, remote=True)
    compare(methods, tmp_path / "there", executor=cluster)
    assert [job.config.device for job in cluster.jobs] == ["cuda:7", "cuda:7"]


@pytest.fixture
def cluster() -> Iterator[RayExecutor]:
    ray = pytest.importorskip("ray", exc_type=ImportError)
    yield RayExecutor("local")
    ray.shutdown()


class Killer(ComparisonObserver):
    """Kills the process of one run, once, when it has learned a task."""

    def __init__(self, directory: Path) -> None:
        self.notes: list[str] = []
        self._directory, self._killed = directory, False

    def notify(self, event: Event) -> None:
        if isinstance(event, Noted):
            self.notes.append(event.message)
        if isinstance(event, Learned) and event.num_learned == 1 and not self._killed:
            self._killed = kill(self._directory / event.name)


def test_a_grid_on_ray_has_the_records_of_one_here_despite_a_kill(cluster: RayExecutor, tmp_path: Path) -> None:
    methods = compared_methods(BASE, ["lasem", "ewc"])
    killer = Killer(tmp_path / "ray")
    made = compare(methods, tmp_path / "ray", num_workers=2, executor=cluster, observer=killer)
    assert not made.failures
    assert made.num_made == 4
    assert killer.notes == ["its process was lost; it goes on in a new one"]
    compare(methods, tmp_path / "here", num_workers=2)
    for method in methods:
        for seed in (0, 1):
            run = f"{method.label}-{seed}"
            assert records_of(tmp_path / "here" / run, seed) == records_of(tmp_path / "ray" / run, seed)
    assert table_of(tmp_path / "here") == table_of(tmp_path / "ray")


def test_a_cluster_that_is_not_there() -> None:
    pytest.importorskip("ray", exc_type=ImportError)
    with pytest.raises(ConfigError, match=r"no Ray cluster at 127\.0\.0\.1:1 "):
        RayExecutor("127.0.0.1:1")


def test_an_error_of_a_runs_own_is_passed_on(cluster: RayExecutor, tmp_path: Path) -> None:
    methods = compared_methods({**BASE, "seeds": [0], "training": {"epochs": 2, "learning_rate": 1e18}}, ["none"])
    made = compare(methods, tmp_path, num_workers=1, executor=cluster)
    assert "none-0" in made.failures
    assert "not finite" in str(made.failures["none-0"].error)
