import csv
import json
import os
from pathlib import Path

import pytest

from lasem.errors import StorageError
from lasem.records import EvaluationRecord
from lasem.report.experiment import load_experiment, plain_settings, write_accuracy_matrix

from .fake_run import make_records, task_names, write_run, write_seed


def test_settings_and_environment(one_seed: Path) -> None:
    experiment = load_experiment(one_seed)
    assert experiment.name == "cifar-em"
    assert experiment.config is not None
    assert experiment.config.startswith("stream:")
    assert experiment.environment["device.type"] == "cpu"
    assert experiment.has_all_tasks(experiment.runs[0])


def test_both_may_be_missing(tmp_path: Path) -> None:
    write_seed(tmp_path, 0, *make_records(0, task_names(1), num_epochs=2))
    experiment = load_experiment(tmp_path)
    assert (experiment.config, experiment.environment) == (None, {})


def test_a_seed_with_fewer_tasks_is_unfinished(tmp_path: Path) -> None:
    write_seed(tmp_path, 0, *make_records(0, task_names(3), num_epochs=2))
    write_seed(tmp_path, 1, *make_records(1, task_names(2), num_epochs=2))
    experiment = load_experiment(tmp_path)
    assert [experiment.has_all_tasks(run) for run in experiment.runs] == [True, False]
    assert [run.seed for run in experiment.comparable_runs] == [0]
    assert experiment.means["peak_accuracy"].num_seeds == 1


def test_the_environment_may_say_how_many_tasks_there_are(tmp_path: Path) -> None:
    write_run(tmp_path, num_epochs=2)
    (tmp_path / "environment.json").write_text(json.dumps({"num_tasks": 6}))
    experiment = load_experiment(tmp_path)
    assert experiment.num_expected == 6
    assert not experiment.has_all_tasks(experiment.runs[0])


def test_damaged_files_are_named(tmp_path: Path) -> None:
    write_run(tmp_path, num_epochs=2)
    for damaged in ("{", "[]", "[" * 100_000):
        (tmp_path / "environment.json").write_text(damaged)
        with pytest.raises(StorageError, match=r"Expected a JSON object in .*environment\.json"):
            load_experiment(tmp_path)
    (tmp_path / "config.yaml").write_bytes(b"\xff\xfe\xff")
    with pytest.raises(StorageError, match=r"Expected text in .*config\.yaml"):
        load_experiment(tmp_path)


@pytest.mark.parametrize("date", ["!!timestamp x", "2020-02-02", "2020-99-99", "!!timestamp 2020-02-02 10:20:30"])
def test_a_date_in_the_settings_is_the_text_that_it_is(tmp_path: Path, date: str) -> None:
    write_run(tmp_path, num_epochs=1)
    (tmp_path / "config.yaml").write_text(f"training:\n  epochs: {date}\n  seed: 3\n")
    text = date.removeprefix("!!timestamp ")
    assert plain_settings(load_experiment(tmp_path).config) == {"training": {"epochs": text, "seed": 3}}


def test_the_matrix_equals_the_records(tmp_path: Path) -> None:
    names = task_names(3)
    records, _ = make_records(0, names, num_epochs=3)
    path = write_accuracy_matrix(records, tmp_path / "accuracy_matrix.csv")
    with path.open(newline="") as file:
        header, *rows = csv.reader(file)
    assert header == ["after_training_task", "test_on_task_1", "test_on_task_2", "test_on_task_3"]
    evaluations = [r for r in records if isinstance(r, EvaluationRecord)]
    for i, (row, record) in enumerate(zip(rows, evaluations, strict=True)):
        assert row[0] == str(i + 1)
        assert [float(cell) for cell in row[1 : i + 2]] == [record.accuracies[name] for name in names[: i + 1]]
        assert row[i + 2 :] == [""] * (2 - i)


def test_before_the_first_task_there_is_only_a_heading(tmp_path: Path) -> None:
    assert write_accuracy_matrix([], tmp_path / "m.csv").read_text() == "after_training_task\n"


@pytest.mark.parametrize("name", ["config.yaml", "environment.json", "seeds/0/records.jsonl", "seeds/0/timings.jsonl"])
def test_a_pipe_is_not_waited_for(tmp_path: Path, name: str) -> None:
    write_run(tmp_path, num_epochs=1)
    (tmp_path / name).unlink()
    os.mkfifo(tmp_path / name)
    if "seeds" in name:
        with pytest.raises(StorageError, match="it is no file"):
            load_experiment(tmp_path)
    else:
        experiment = load_experiment(tmp_path)
        assert not (experiment.config and experiment.environment)
