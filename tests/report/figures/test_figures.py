"""The contract of every figure: data equal to the records, XML that parses, names that stay names."""

import re
import xml.etree.ElementTree as ET
from dataclasses import replace
from pathlib import Path
from typing import Any

import matplotlib as mpl
import pytest

from lasem.metrics import Run, load_run
from lasem.records import EpochRecord, EvaluationRecord, Record, TaskRecord
from lasem.report import figures, write_report
from lasem.report.figures import COLOURS, Drawing, thin
from lasem.report.figures.bars import draw_parameters
from lasem.report.figures.heatmap import draw_accuracy_matrix, draw_layer_probabilities, draw_transfer_map
from lasem.report.figures.lines import draw_accuracy_over_time, draw_probabilities
from lasem.report.figures.tree import draw_tree

from ..fake_run import changed, make_records, task_names, write_seed

FIGURES = [
    draw_accuracy_matrix,
    draw_transfer_map,
    draw_probabilities,
    draw_accuracy_over_time,
    draw_parameters,
    draw_tree,
]


@pytest.fixture(scope="module")
def run(one_seed: Path) -> Run:
    return load_run(one_seed / "seeds" / "0")


def drawn(drawing: Drawing | None) -> Drawing:
    assert drawing is not None
    return drawing


@pytest.fixture(scope="module")
def drawings(run: Run) -> dict[Any, Drawing]:
    return {draw: drawn(draw(run)) for draw in FIGURES}


@pytest.mark.parametrize("draw", FIGURES)
def test_every_figure_is_xml_with_words(draw: type, drawings: dict[Any, Drawing]) -> None:
    drawing = drawings[draw]
    ET.fromstring(drawing.svg)
    inline = ET.fromstring(drawing.inline())
    assert inline.get("role") == "img"
    assert inline.get("aria-label") == drawing.description
    assert "http" not in drawing.inline()
    ids = [element.get("id") for element in inline.iter() if element.get("id")]
    assert len(ids) == len(set(ids))
    assert drawing.caption.endswith(".")
    assert all(len(row) == len(drawing.columns) for row in drawing.rows)


@pytest.mark.parametrize("draw", [*FIGURES, draw_layer_probabilities])
def test_nothing_is_drawn_before_the_first_epoch(draw: type) -> None:
    assert draw(Run(0, ())) is None


def test_nothing_is_drawn_where_nothing_was_searched_so(run: Run) -> None:
    assert draw_layer_probabilities(run) is None  # a search over configurations
    assert draw_probabilities(Run(0, tuple(make_records(0, task_names(1), num_epochs=3)[0]))) is None  # one of them


@pytest.mark.parametrize("draw", FIGURES)
def test_names_are_text_whatever_is_in_them(draw: type) -> None:
    names = ("first", "$x_{", "<b>&amp;</b>", "a\nb\x01\u202e\ud800", "鳥類と動物", "#ffffff", "<script>x</script>")
    drawing = drawn(draw(Run(0, tuple(make_records(0, names, num_layers=2, num_epochs=12)[0]))))
    text = "".join(ET.fromstring(drawing.inline()).itertext())
    for name in ("$x_{", "<b>&amp;</b>", "a\\nb\\x01", "鳥類と動物", "#ffffff", "<script>x"):
        assert f" · {name}" in text


def test_the_users_matplotlib_settings_stay_and_do_not_matter(run: Run, drawings: dict[Any, Drawing]) -> None:
    before = drawings[draw_parameters].svg
    with mpl.rc_context({"font.size": 30, "lines.linewidth": 9, "svg.fonttype": "path"}):
        assert drawn(draw_parameters(run)).svg == before
        assert mpl.rcParams["font.size"] == 30


def test_figures_hold_the_records(run: Run, drawings: dict[Any, Drawing]) -> None:
    matrix = drawings[draw_accuracy_matrix].rows
    rows = [r for r in run.records if isinstance(r, EvaluationRecord)]
    assert matrix == tuple(
        (row.after_task, task, accuracy) for row in rows for task, accuracy in row.accuracies.items()
    )
    choices = drawings[draw_transfer_map].rows
    probabilities = {(row[0], *row[2:4]): row[4] for row in drawings[draw_probabilities].rows}
    for task in run.tasks:
        assert "".join(str(choice) for name, _, choice in choices if name == task.task) == task.configuration
        for epoch in run.epochs(task.task):
            for name, probability in zip(task.configurations, epoch.probabilities, strict=True):
                assert probabilities[task.task, epoch.epoch, name] == probability
    # epochs from the start of the run
    over_time = {row[:3]: row[3] for row in drawings[draw_accuracy_over_time].rows}
    assert over_time["validation", "cifar-1", 41] == run.epochs("cifar-1")[0].valid_accuracy
    assert over_time["test", "cifar-0", 160] == run.evaluations["cifar-3"]["cifar-0"]
    assert ("test", "cifar-1", 40) not in over_time
    parts = {row[1]: row[2] for row in drawings[draw_parameters].rows if row[0] == "cifar-3"}
    added = [parts[f"added by {task.task}"] for task in run.tasks]
    assert parts["shared"] + sum(added) == parts["total"] == run.tasks[-1].parameters_total


def test_layers_of_a_task_that_others_use_are_drawn_once(run: Run) -> None:
    last = run.tasks[-1]
    records = tuple(replace(r, parameters_shared=r.parameters_shared + 7) if r == last else r for r in run.records)
    rows = drawn(draw_parameters(Run(0, records))).rows
    assert sum(row[2] for row in rows if row[0] == last.task and row[1] not in ("total", "separate models")) == (
        last.parameters_total
    )


def test_many_tasks_are_drawn() -> None:
    run = Run(0, tuple(make_records(0, task_names(22), num_layers=1, num_epochs=8)[0]))
    for draw in FIGURES:
        drawn(draw(run))


def test_of_many_configurations_the_leading_ones_are_drawn() -> None:
    run = Run(0, tuple(make_records(0, task_names(2), num_layers=8, num_epochs=8)[0]))
    shown = {row[3] for row in drawn(draw_probabilities(run)).rows if row[0] == "cifar-1"}
    assert len(shown) == 32
    assert run.tasks[1].configuration in shown


def test_a_phase_after_the_search_trains_what_was_chosen(run: Run) -> None:
    """Its epochs know of one configuration only, which is not the first in the list."""
    task = run.tasks[1]
    later = [r for r in run.records if isinstance(r, EpochRecord) and r.task == task.task and r.epoch > 20]
    alone = {"probabilities": (1.0,), "configuration": task.configuration, "phase": "retraining"}
    records = [replace(r, **alone) if r in later else r for r in run.records]  # type: ignore[arg-type]
    rows = {row[2:4]: row[4] for row in drawn(draw_probabilities(Run(0, tuple(records)))).rows if row[0] == task.task}
    assert rows[40, task.configuration] == 1
    assert all(p == 0 for (epoch, name), p in rows.items() if epoch == 40 and name != task.configuration)


def test_a_search_is_drawn_mini_batch_by_mini_batch_where_records_have_it(run: Run) -> None:
    task, *later = run.epochs("cifar-1")
    half = tuple(1 / len(task.probabilities) for _ in task.probabilities)
    first = replace(task, num_batches=17, trace=half + task.probabilities)
    second = replace(later[0], num_batches=17)
    records = [first if r == task else second if r == later[0] else r for r in run.records]
    rows = [row[1:] for row in drawn(draw_probabilities(Run(0, tuple(records)))).rows if row[0] == "cifar-1"]
    assert {row[:2] for row in rows} == {("mini-batch", 9), ("mini-batch", 17), ("mini-batch", 34)}
    chosen = {row[1]: row[3] for row in rows if row[2] == task.configuration}
    at = run.tasks[1].configurations.index(task.configuration)
    assert chosen == {9: half[at], 17: task.probabilities[at], 34: second.probabilities[at]}


def test_of_a_search_by_evidence_its_frontier_is_drawn(run: Run) -> None:
    chosen = run.tasks[1]
    found = replace(chosen, frontier={"TTTT": 0.6, "TTTS": 0.7}, frontier_owned={"TTTT": 0, "TTTS": 1200})
    records = tuple(found if r == chosen else r for r in run.records)
    drawing = drawn(draw_probabilities(Run(0, records)))
    assert f">{chosen.configuration}<" in drawing.svg  # what the task got, which the frontier may not have
    assert "Dashed: the one that the task got" in drawing.caption
    rows = [row for row in drawing.rows if row[0] == "cifar-1"]
    shown = [("numbers owned", 0, "TTTT", 0.6), ("numbers owned", 1200, "TTTS", 0.7)]
    assert [row[1:] for row in rows] == shown


def test_thinning_keeps_the_ends_and_what_is_marked() -> None:
    kept = thin(2000, keep=[777], most=100)
    assert len(kept) <= 102
    assert {0, 777, 1999} <= set(kept)
    assert thin(3) == [0, 1, 2]
    assert thin(0) == []


def test_every_colour_of_the_style_follows_a_dark_page(drawings: dict[Any, Drawing]) -> None:
    light = [light for light, _ in COLOURS.values()]
    assert len(set(light)) == len(light)
    style = Path(figures.__file__).with_name("lasem.mplstyle").read_text(encoding="utf-8")
    assert {f"#{found}" for found in re.findall(r": ([0-9a-f]{6})$", style, flags=re.MULTILINE)} <= set(light)
    for draw in (draw_transfer_map, draw_probabilities, draw_accuracy_over_time, draw_parameters, draw_tree):
        assert not re.findall(r"(?:fill|stroke): #", drawings[draw].inline())


def deep_records(num_layers: int = 17, num_epochs: int = 12) -> list[Record]:
    """Records of a search over layers: the first task is not searched."""
    records = make_records(0, task_names(3), num_layers=2, num_epochs=num_epochs)[0]
    whole = "T" * num_layers
    records = changed(records, TaskRecord, configuration=whole, configurations=(whole,))
    for task in ("cifar-1", "cifar-2"):
        of_layers = {
            "probabilities": (0.5,),
            "transfer_probabilities": lambda r: tuple(
                (layer + r.epoch) / (num_layers + num_epochs) for layer in range(num_layers)
            ),
        }
        records = changed(records, EpochRecord, task, **of_layers)
    return records


def test_the_probabilities_of_layers_equal_the_records(tmp_path: Path) -> None:
    run = Run(0, tuple(deep_records()))
    drawing = drawn(draw_layer_probabilities(run))
    ET.fromstring(drawing.svg)
    expected = {
        (task, epoch.epoch, layer): probability
        for task in ("cifar-1", "cifar-2")
        for epoch in run.epochs(task)
        for layer, probability in enumerate(epoch.transfer_probabilities or (), start=1)
    }
    assert {row[:3]: row[3] for row in drawing.rows} == expected
    assert draw_probabilities(run) is None
    assert "cifar-1" in drawing.description
    write_seed(tmp_path, 0, list(run.records), [])
    page = write_report(tmp_path).read_text(encoding="utf-8")
    assert "Probability that each layer transfers" in page
    assert "The tree of configurations" not in page
    assert (tmp_path / "figures" / "seed-0-layer-probabilities.csv").exists()


def test_an_epoch_of_a_task_that_is_being_learned_is_drawn() -> None:
    records = [r for r in deep_records(3, 1) if not isinstance(r, TaskRecord) or r.task == "cifar-0"]
    assert len(drawn(draw_layer_probabilities(Run(0, tuple(records[:4])))).rows) == 3
