"""Comparisons whose runs happen in this process; in processes of their own they are in test_process_pool.py."""

import json
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
from filelock import FileLock
from learner.fixture import files_in

from lasem.errors import ConfigError, DataError, StorageError
from lasem.experiments import (
    ComparisonObserver,
    ComparisonResult,
    ExperimentConfig,
    compare,
    compared_methods,
    run,
)
from lasem.experiments.comparison import methods_to_yaml
from lasem.experiments.config import differences, from_yaml, stored_differences, to_yaml
from lasem.methods import METHODS as BASELINES

from .tiny import READER, Fake, records_of, stop, without_report

BASE: dict[str, Any] = {
    "stream": {"name": "digits", "num_tasks": 2, **READER},
    "training": {"epochs": 2},
    "seeds": [0, 1],
    "threads": 1,
}
METHODS = ("none", "ewc")


def compared(path: Path, executor: Fake, **changes: Any) -> ComparisonResult:
    with pytest.MonkeyPatch.context() as patch:
        without_report(patch)
        return compare(compared_methods(BASE | changes, METHODS), path, executor=executor, command=("lasem", "compare"))


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("whole") / "compared"
    compared(path, Fake())
    return path


def test_every_run_is_an_ordinary_one(whole: Path) -> None:
    assert {p.name for p in whole.iterdir()} >= {
        *(f"{method}-{seed}" for method in METHODS for seed in (0, 1)),
        "comparison.csv",
        "comparison.html",
        "comparison.json",
        "comparison.md",
        "figure.svg",
    }
    index = json.loads((whole / "comparison.json").read_text())
    assert (index["methods"], index["seeds"]) == (["none", "ewc"], [0, 1])
    assert index["environment"]["command"] == ["lasem", "compare"]
    for seed in (0, 1):
        assert len(records_of(whole / f"ewc-{seed}", seed)) > 0
    config = compared_methods(BASE | {"seeds": [1]}, ["ewc"])[0].config
    assert run(config, whole / "ewc-1", resume=True) == whole / "ewc-1"  # as `lasem run --resume` would


def test_seeds_come_one_after_another_and_nothing_is_run_twice(whole: Path, tmp_path: Path) -> None:
    first, again, listener = Fake(makes=False), Fake(), Mock(spec=ComparisonObserver)
    compared(tmp_path / "new", first)
    assert first.names == ["none-0", "ewc-0", "none-1", "ewc-1"]

    before = {p: p.stat().st_mtime_ns for p in whole.rglob("*/**/*") if p.is_file() and p.parent != whole}
    result = compare(compared_methods(BASE, METHODS), whole, executor=again, observer=listener)
    assert (again.names, result.num_made) == ([], 0)
    listener.comparison_starts.assert_called_once_with(whole, [], first.names)
    assert {p: p.stat().st_mtime_ns for p in before} == before


def test_deleted_runs_are_made_and_stopped_ones_go_on(whole: Path, tmp_path: Path, monkeypatch: Any) -> None:
    without_report(monkeypatch)
    stop(compared_methods(BASE | {"seeds": [0]}, ["ewc"])[0].config, tmp_path / "ewc-0")
    here = Fake()
    assert not compared(tmp_path, here, seeds=[0]).failures
    assert here.names == ["none-0", "ewc-0"]
    for name in here.names:
        assert records_of(tmp_path / name) == records_of(whole / name)


def test_a_method_can_be_added(whole: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lasem.experiments.comparison.write_comparison", lambda path: path)
    index = (whole / "comparison.json").read_bytes()
    more = Fake(makes=False)
    compare(compared_methods(BASE, [*METHODS, "all"]), whole, executor=more)
    (whole / "comparison.json").write_bytes(index)
    assert more.names == ["all-0", "all-1"]


def test_settings_that_come_to_the_same_are_the_same(here: Path) -> None:

    def config(**stream: Any) -> dict[str, Any]:
        return ExperimentConfig.from_plain({"stream": {"name": "mnist", **stream}}).to_plain()

    there = config(path="DATA")
    assert differences(there, config(path=str(here / "DATA/"))) == []
    assert differences(there, config(path="DATA", download=True)) == []
    assert differences(there, config(path="data")) == [("stream.path", "DATA", "data")]
    assert differences(there, config(path="DATA", num_tasks=10)) == [("stream.num_tasks", 5, 10)]
    before = {"stream": {"classes_per_task": 10}}  # of an earlier lasem, which had this default
    assert differences(before, {"stream": {"classes_per_task": None}}) == []
    assert len(differences(before, {"stream": {"classes_per_task": 5}})) == 1


def test_a_run_of_an_earlier_version_has_the_network_and_images_of_then() -> None:
    then = ExperimentConfig.from_plain({"net": {"among": "paper"}, "training": {"augment": "none"}})
    written = then.to_plain()
    del written["net"]["among"], written["training"]["augment"]
    text = to_yaml(written)
    assert stored_differences(text, "config.yaml", then) == []
    found = [name for name, _, _ in stored_differences(text, "config.yaml", ExperimentConfig())]
    assert found == ["net.among", "training.augment"]


def test_a_run_with_other_settings_is_refused_before_anything_runs(whole: Path) -> None:
    here = Fake()
    before = files_in(whole)
    with pytest.raises(StorageError, match=r"none-0 holds .* other settings: training\.epochs = 2 there, 3 here"):
        compared(whole, here, training={"epochs": 3})
    assert here.names == []
    assert files_in(whole) == before


def test_folders_that_cannot_be_used(tmp_path: Path) -> None:
    here = Fake()
    for place in ("run", "mine/ewc-1", "held"):
        (tmp_path / place).mkdir(parents=True)
    for file in ("run/config.yaml", "file", "mine/ewc-1/thesis.txt"):
        (tmp_path / file).touch()
    refused = {"run": "holds a run, not a comparison", "file": "is a file", "mine": r"holds thesis\.txt"}
    for place, said in {**refused, "held": "Another process"}.items():
        with FileLock(tmp_path / "held/.lock"), pytest.raises(StorageError, match=said):
            compared(tmp_path / place, here)
    assert here.names == []


def test_a_failure_does_not_stop_the_others(tmp_path: Path) -> None:
    here = Fake(fail=["none-0"])
    result = compared(tmp_path, here, seeds=[0])
    assert here.names == ["none-0", "ewc-0"]
    assert {name: ended.error for name, ended in result.failures.items()} == {"none-0": "it went wrong"}
    assert "Unfinished: single-task (seed 0)" in (tmp_path / "comparison.html").read_text()


@pytest.mark.parametrize(
    ("entries", "said"),
    [
        (["ewx"], "ewx: There is no method 'ewx'"),
        (["ewc", "ewc"], "'ewc' is there twice"),
        ([{"name": "ewc", "label": "../up"}], r"got '\.\./up'"),
        ([{"label": "x"}], "with a 'name'"),
        ([["ewc"]], "Expected a method's name"),
        ([{"name": "ewc", "trainig": {}}], "Did you mean 'training'"),
        ([{"name": "ewc", "stream": "digits"}], "has no 'stream'"),
        ([{"name": "ewc", "method": {"strenth": 1}}], "ewc: .*Did you mean 'strength'"),
        ([{"name": "ewc", "method": "none"}], "called 'ewc' and 'none'"),
        ([{"name": "ewc", "search": "em"}], "ewc: Method 'ewc' does not use search"),
        ([{"name": "ewc", "training": {"specific_start": "fresh"}}], "does not use training.specific_start"),
        ([], "at least one method"),
    ],
)
def test_methods_that_cannot_be_compared(entries: list[Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        compared_methods(BASE, (), entries)


def test_what_all_methods_have_is_not_the_fault_of_the_first() -> None:
    wrong = {"training": {"epochs": -1}}
    with pytest.raises(ConfigError, match=r"^training\.epochs must be at least 1"):
        compared_methods(BASE | wrong, ["none", "ewc"])
    with pytest.raises(ConfigError, match=r"^two: training\.epochs must be at least 1"):
        compared_methods(BASE, ["none"], [{"name": "ewc", "label": "two", **wrong}])


def test_what_training_would_refuse_is_refused_before(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="top-9"):
        compare(compared_methods(BASE, ["ewc", "top-9"]), tmp_path / "a")
    with pytest.raises(DataError):
        compare(compared_methods(BASE | {"stream": {"name": "folder", "path": "nowhere"}}, ["ewc"]), tmp_path / "a")
    with pytest.raises(ConfigError, match="workers"):
        compare(compared_methods(BASE, ["ewc"]), tmp_path / "a", num_workers=0)
    both = (*compared_methods(BASE, ["ewc"]), *compared_methods(BASE | {"seeds": [5]}, ["none"]))
    with pytest.raises(ConfigError, match="same seeds; none has others"):
        compare(both, tmp_path / "a")
    assert not (tmp_path / "a").exists()


def test_methods_survive_yaml() -> None:
    entries = [{"name": "ewc", "label": "odd-1", "method": {"strength": 1 / 3}}]
    found = compared_methods(BASE, ["lasem-tf", "top-2", *BASELINES], entries)
    again = compared_methods(BASE, (), from_yaml(methods_to_yaml(found), "text", of_list=True))
    assert again == found


def test_settings_of_a_method_stand_above_those_of_all() -> None:
    entries = [{"name": "ewc", "label": "slow", "method": {"strength": 3}, "training": {"learning_rate": 0.01}}]
    slow, plain = compared_methods(BASE, ["ewc"], entries)
    assert (slow.label, plain.label) == ("slow", "ewc")
    assert slow.config.to_plain()["method"]["strength"] == 3
    assert (slow.config.training.learning_rate, slow.config.training.epochs) == (0.01, 2)
    assert plain.config.training.learning_rate != 0.01
