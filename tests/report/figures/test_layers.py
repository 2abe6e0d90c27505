import xml.etree.ElementTree as ET
from dataclasses import replace
from pathlib import Path

from lasem.metrics import Run
from lasem.records import EpochRecord, TaskRecord, from_json, to_json
from lasem.report import write_report
from lasem.report.figures import draw_layer_probabilities, draw_probabilities

from ..fake_run import make_records, task_names, write_seed


def deep_records(num_layers: int = 17, num_epochs: int = 12) -> list:
    """As a search over layers leaves them: the first task is not searched."""
    found = []
    for record in make_records(0, task_names(3), num_layers=2, num_epochs=num_epochs)[0]:
        if isinstance(record, EpochRecord) and record.task != "cifar-0":
            by_layer = tuple((layer + record.epoch) / (num_layers + num_epochs) for layer in range(num_layers))
            record = replace(record, probabilities=(0.5,), transfer_probabilities=by_layer)
        if isinstance(record, TaskRecord):
            record = replace(record, configuration="T" * num_layers, configurations=("T" * num_layers,))
        found.append(record)
    return found


def test_the_map_equals_the_records() -> None:
    run = Run(0, tuple(deep_records()))
    drawing = draw_layer_probabilities(run)
    assert drawing is not None
    ET.fromstring(drawing.svg)
    rows = {row[:3]: row[3] for row in drawing.rows}
    assert {task for task, _, _ in rows} == {"cifar-1", "cifar-2"}
    for task in ("cifar-1", "cifar-2"):
        for epoch in run.epochs(task):
            assert epoch.transfer_probabilities is not None
            for layer, probability in enumerate(epoch.transfer_probabilities, start=1):
                assert rows[task, epoch.epoch, layer] == probability
    assert draw_probabilities(run) is None
    assert "cifar-1" in drawing.description


def test_there_is_none_for_searches_over_configurations() -> None:
    run = Run(0, tuple(make_records(0, task_names(3), num_epochs=3)[0]))
    assert draw_layer_probabilities(run) is None
    assert draw_layer_probabilities(Run(0, ())) is None


def test_an_epoch_of_a_task_that_is_under_way_is_drawn() -> None:
    records = [r for r in deep_records(3, 1) if not isinstance(r, TaskRecord) or r.task == "cifar-0"]
    drawing = draw_layer_probabilities(Run(0, tuple(records[:4])))
    assert drawing is not None
    assert len(drawing.rows) == 3


def test_it_stands_on_the_page_in_place_of_the_configurations(tmp_path: Path) -> None:
    write_seed(tmp_path, 0, deep_records(), [])
    page = write_report(tmp_path).read_text(encoding="utf-8")
    assert "Probability that each layer transfers" in page
    assert "The tree of configurations" not in page
    assert (tmp_path / "figures" / "seed-0-layer-probabilities.csv").exists()


def test_records_without_the_field_stay_as_they_were() -> None:
    record = next(r for r in make_records(0, task_names(2))[0] if isinstance(r, EpochRecord))
    assert "transfer_probabilities" not in to_json(record)
    assert from_json(to_json(record)) == record
    deep = replace(record, transfer_probabilities=(0.25, 0.5))
    assert from_json(to_json(deep)) == deep
