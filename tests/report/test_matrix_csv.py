import csv
from pathlib import Path

from lasem.records import EvaluationRecord
from lasem.report import write_accuracy_matrix

from .fake_run import make_records, task_names


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
