import json
from pathlib import Path

import pytest

from lasem.errors import StorageError
from lasem.report.experiment import load_experiment

from .fake_run import make_records, task_names, write_run, write_seed


def test_settings_and_environment(one_seed: Path) -> None:
    experiment = load_experiment(one_seed)
    assert experiment.name == "cifar-em"
    assert experiment.config is not None
    assert experiment.config.startswith("stream:")
    assert experiment.environment["device.type"] == "cpu"
    assert experiment.progress(experiment.runs[0]).finished


def test_both_may_be_missing(tmp_path: Path) -> None:
    write_seed(tmp_path, 0, *make_records(0, task_names(1), num_epochs=2))
    experiment = load_experiment(tmp_path)
    assert (experiment.config, experiment.environment) == (None, {})


def test_a_seed_with_fewer_tasks_is_unfinished(tmp_path: Path) -> None:
    write_seed(tmp_path, 0, *make_records(0, task_names(3), num_epochs=2))
    write_seed(tmp_path, 1, *make_records(1, task_names(2), num_epochs=2))
    experiment = load_experiment(tmp_path)
    assert [experiment.progress(run).finished for run in experiment.runs] == [True, False]
    assert [run.seed for run in experiment.comparable_runs] == [0]


def test_the_environment_may_say_how_many_tasks_there_are(tmp_path: Path) -> None:
    write_run(tmp_path, num_epochs=2)
    (tmp_path / "environment.json").write_text(json.dumps({"num_tasks": 6}))
    experiment = load_experiment(tmp_path)
    progress = experiment.progress(experiment.runs[0])
    assert (progress.num_learned, progress.num_expected, progress.finished) == (4, 6, False)


def test_damaged_files_are_named(tmp_path: Path) -> None:
    write_run(tmp_path, num_epochs=2)
    (tmp_path / "environment.json").write_text("{")
    with pytest.raises(StorageError, match=r"Expected JSON in .*environment\.json"):
        load_experiment(tmp_path)
    (tmp_path / "config.yaml").write_bytes(b"\xff\xfe\xff")
    with pytest.raises(StorageError, match=r"Expected text in .*config\.yaml"):
        load_experiment(tmp_path)
