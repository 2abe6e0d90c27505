import re
import xml.etree.ElementTree as ET
from itertools import pairwise

import pytest

from lasem.metrics import Run
from lasem.records import EpochRecord, Record, TaskRecord
from lasem.report.figures import Drawing, colour
from lasem.report.figures.tree import draw_tree

from ..fake_run import changed, make_records, task_names

NUM_EPOCHS = 12
SVG = "{http://www.w3.org/2000/svg}"


def fake(num_tasks: int = 3, num_layers: int = 4) -> list[Record]:
    return make_records(0, task_names(num_tasks), num_layers=num_layers, num_epochs=NUM_EPOCHS)[0]


def in_groups(records: list[Record], sizes: tuple[int, ...]) -> list[Record]:
    """The same search, of groups of layers."""

    def wide(configuration: str) -> str:
        return "".join(choice * size for choice, size in zip(configuration, sizes, strict=True))

    return changed(
        records,
        TaskRecord,
        configuration=lambda r: wide(r.configuration),
        configurations=lambda r: tuple(map(wide, r.configurations)),
    )


def with_probabilities(records: list[Record], task: str, probabilities: tuple[float, ...]) -> list[Record]:
    return changed(records, EpochRecord, task, probabilities=probabilities)


def drawn(records: list[Record]) -> Drawing:
    drawing = draw_tree(Run(0, tuple(records)))
    assert drawing is not None
    return drawing


def weighed_last(run: Run, task: TaskRecord) -> tuple[float, ...]:
    assert task.commit_epoch is not None
    return run.epochs(task.task)[task.commit_epoch - 2].probabilities


def strokes(drawing: Drawing) -> list[tuple[str, float, float]]:
    """Colour, thickness and opacity of every branch."""
    found = []
    for path in ET.fromstring(drawing.svg).iter(f"{SVG}path"):
        style = dict(entry.split(": ") for entry in path.get("style", "").split("; "))
        if style.get("fill") == "none" and "C" in path.get("d", ""):
            width, opacity = float(style.get("stroke-width", 1)), float(style.get("opacity", 1))
            found.append((style["stroke"], width, opacity))
    return found


def texts(drawing: Drawing, family: str = "") -> list[ET.Element]:
    return [text for text in ET.fromstring(drawing.svg).iter(f"{SVG}text") if family in text.get("style", "")]


@pytest.mark.parametrize("num_layers", [1, 4, 6, 7])
def test_a_branch_holds_the_sum_of_what_is_behind_it(num_layers: int) -> None:
    run = Run(0, tuple(fake(num_layers=num_layers)))
    expected = {}
    for task in run.tasks[1:]:
        probabilities = weighed_last(run, task)
        for prefix in {name[:end] for name in task.configurations for end in range(1, num_layers + 1)}:
            p = 0.0
            for name, probability in zip(task.configurations, probabilities, strict=True):
                if name.startswith(prefix):
                    p += probability
            if num_layers <= 6 or p >= 0.01 or task.configuration.startswith(prefix):
                expected[task.task, prefix] = p
    drawing = drawn(list(run.records))
    assert {row[:2]: row[2] for row in drawing.rows} == pytest.approx(expected)
    assert len(drawing.rows) == len(expected)
    assert ("Branches below 1 % are left out." in drawing.caption) == (num_layers == 7)


def test_what_is_more_probable_is_thicker_and_stronger() -> None:
    drawing = drawn(fake())
    probabilities = sorted(float(str(p)) for *_, p in drawing.rows)
    widths = sorted(width for _, width, _ in strokes(drawing))
    # one straight line from the least to the most probable, as every part of the figure is read by its thickness
    slope = (widths[-1] - widths[0]) / (probabilities[-1] - probabilities[0])
    assert slope > 10
    assert widths == pytest.approx([widths[0] + slope * (p - probabilities[0]) for p in probabilities], abs=1e-4)
    grey = sorted((width, opacity) for stroke, width, opacity in strokes(drawing) if stroke == colour("muted"))
    assert [opacity for _, opacity in grey] == sorted(opacity for _, opacity in grey)
    assert grey[0][1] < grey[-1][1]


def test_the_marked_path_is_the_configuration_of_the_task() -> None:
    run = Run(0, tuple(fake(num_tasks=2)))
    task, drawing = run.tasks[1], drawn(list(run.records))
    branches = {row[1]: float(str(row[2])) for row in drawing.rows}
    path = [branches[task.configuration[:end]] for end in range(1, 5)]
    widths = sorted(width for _, width, _ in strokes(drawing))
    position = {p: at for at, p in enumerate(sorted(branches.values()))}
    marked = [width for stroke, width, _ in strokes(drawing) if stroke == colour("blue")]
    assert sorted(marked) == sorted(widths[position[p]] for p in path)
    label = f"{task.configuration} {100 * path[-1]:.0f} %"
    named = [text.text for text in texts(drawing, "monospace") if colour("blue") in text.get("style", "")]
    assert named == [label]
    assert f"cifar-1: {task.configuration}, {100 * path[-1]:.0f} % at epoch" in drawing.description
    marks = sorted((float(text.get("x", 0)), text.text) for text in texts(drawing, " 8.5px"))
    assert "".join(str(choice) for _, choice in marks) == task.configuration


def test_layers_that_go_together_are_one_fork() -> None:
    sizes = (5, 4, 4, 4)
    drawing = drawn(in_groups(fake(), sizes))
    single = drawn(fake())
    assert [p for *_, p in drawing.rows] == [p for *_, p in single.rows]
    assert {len(str(prefix)) for _, prefix, _ in drawing.rows} == {5, 9, 13, 17}
    words = [text.text for text in texts(drawing)]
    assert {"layer", "1–5", "6–9", "10–13", "14–17"} <= set(words)
    assert "one fork and one letter" in drawing.caption
    assert "one fork" not in single.caption


@pytest.mark.parametrize(("num_layers", "least", "most"), [(4, 16, 16), (6, 2, 8), (8, 2, 16)])
def test_no_name_runs_into_another(num_layers: int, least: int, most: int) -> None:
    drawing = drawn(fake(num_tasks=2, num_layers=num_layers))
    down = sorted(float(text.get("y", 0)) for text in texts(drawing, "monospace"))
    assert least <= len(down) <= most
    assert min(below - above for above, below in pairwise(down)) > 10
    across = [float(x) for path in re.findall(r' d="([^"]*)"', drawing.svg) for x in re.findall(r"[ML] (\S+)", path)]
    assert max(across) <= drawing.width


def test_a_path_that_hardly_was_probable_is_drawn_all_the_same() -> None:
    run = Run(0, tuple(fake(num_tasks=2, num_layers=7)))
    chosen = run.tasks[1].configurations.index(run.tasks[1].configuration)
    probabilities = tuple(0.001 if c == chosen else 0.999 / 127 for c in range(128))
    drawing = drawn(with_probabilities(list(run.records), "cifar-1", probabilities))
    assert ("cifar-1", run.tasks[1].configuration, 0.001) in drawing.rows
    assert f"{run.tasks[1].configuration} <1 %" in [text.text for text in texts(drawing)]


def test_of_many_tasks_the_last_are_drawn() -> None:
    drawing = drawn(fake(num_tasks=14, num_layers=1))
    assert list(dict.fromkeys(task for task, *_ in drawing.rows)) == [f"cifar-{number}" for number in range(2, 14)]
    assert "Drawn are the last 12 of 13 tasks." in drawing.caption
    assert "Drawn are" not in drawn(fake(num_tasks=13, num_layers=1)).caption


def of_layers(records: list[Record]) -> list[Record]:
    """As a search leaves them that lists no configurations."""
    records = changed(records, EpochRecord, probabilities=(0.5,), transfer_probabilities=(0.5,) * 4)
    return changed(records, TaskRecord, configurations=lambda r: (r.configuration,))


@pytest.mark.parametrize(
    "records",
    [
        [],
        fake(num_tasks=1),
        [r for r in fake() if not isinstance(r, EpochRecord)],
        of_layers(fake()),
        with_probabilities(fake(num_tasks=2), "cifar-1", (0.0, 1.0) + (0.0,) * 14),  # each candidate is tried alone
        with_probabilities(fake(num_tasks=2), "cifar-1", (float("nan"),) * 16),
        [r for r in fake(num_tasks=2) if not isinstance(r, TaskRecord) or r.task == "cifar-0"],
    ],
    ids=["nothing", "one configuration", "no epochs", "layers", "trials", "not a number", "being learned"],
)
def test_without_weighed_configurations_there_is_no_tree(records: list[Record]) -> None:
    assert draw_tree(Run(0, tuple(records))) is None
