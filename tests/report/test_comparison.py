import csv
import io
import json
import re
import shutil
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
import yaml
from chromium import check_page

from lasem.errors import StorageError
from lasem.experiments import compare
from lasem.metrics import load_run, sign_flip_p_value, statistic, summarise
from lasem.report import comparison_table, load_comparison, write_comparison, write_report
from lasem.report.comparison import INDEX, sentence, unfinished_sentence
from lasem.report.figures.bars import draw_comparison

from .fake_run import METHODS, write_runs
from .pages import Outline, check_whole, contents, printed


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = write_runs(tmp_path_factory.mktemp("compared") / "my comparison")
    assert write_comparison(directory) == directory / "comparison.html"
    return directory


def test_numbers_are_those_of_the_runs(drawn: Path) -> None:
    comparison = load_comparison(drawn)
    assert [row.label for row in comparison.rows] == list(METHODS)
    for row in comparison.rows:
        runs = [load_run(drawn / f"{row.label}-{seed}" / "seeds" / str(seed)) for seed in (0, 1)]
        for name in ("peak_accuracy", "final_accuracy", "forgetting_ratio", "parameters_total", "seconds_training"):
            assert row.values[name] == statistic([getattr(summarise(run), name) for run in runs])
        grown = [(run.tasks[2].parameters_total - run.tasks[0].parameters_total) / 2 for run in runs]
        assert row.values["parameters_per_task"] == statistic(grown)
    assert unfinished_sentence(comparison) == ""
    assert comparison.num_tasks == 3


def test_settings_are_parted_into_common_ones_and_those_of_a_method(drawn: Path) -> None:
    comparison = load_comparison(drawn)
    assert yaml.safe_load(comparison.common) == {"stream": {"name": "digits"}, "training": {"epochs": 3}, "threads": 1}
    lasem, ewc = comparison.rows
    assert lasem.settings == {"sharing.name": "hps", "search.name": "em", "search.groups": [], "training.patience": 1}
    assert ewc.settings == {"method.name": "ewc", "method.strength": 9.0, "training.patience": 2}


def test_the_csv_keeps_every_bit(drawn: Path) -> None:
    rows = list(csv.DictReader(io.StringIO((drawn / "comparison.csv").read_text())))
    assert [row["method"] for row in rows] == list(METHODS)
    for row, read in zip(load_comparison(drawn).rows, rows, strict=True):
        assert read["num_seeds"] == "2"
        for name in ("peak_accuracy", "final_accuracy", "fraction_layers_shared", "parameters_per_task"):
            assert float(read[f"{name}_mean"]) == row.values[name].mean
            assert float(read[f"{name}_deviation"]) == row.values[name].deviation


def test_the_distance_to_the_best_is_paired(drawn: Path) -> None:
    runs = {label: [load_run(drawn / f"{label}-{seed}" / "seeds" / str(seed)) for seed in (0, 1)] for label in METHODS}
    ends = {label: [final for run in of for final in run.final_accuracies] for label, of in runs.items()}
    best, other = sorted(METHODS, key=lambda label: -sum(ends[label]))
    differences = [mine - theirs for mine, theirs in zip(ends[other], ends[best], strict=True)]
    comparison = load_comparison(drawn)
    rows = {row.label: row for row in comparison.rows}
    assert rows[best].to_best is None
    assert rows[other].to_best is not None
    assert rows[other].to_best.mean == pytest.approx(sum(differences) / 6)
    assert rows[other].to_best.num_pairs == 6
    assert rows[other].to_best.p_value == sign_flip_p_value(differences)
    assert re.search(rf"{other} follows with .* %, −[\d.]+ points \(p [\d.]+\)\.", sentence(comparison))
    read = {row["method"]: row for row in csv.DictReader(io.StringIO((drawn / "comparison.csv").read_text()))}
    assert float(read[other]["final_accuracy_minus_best"]) == rows[other].to_best.mean
    assert read[best]["p_value"] == ""
    assert re.search(r">−[\d.]+<small class=\"spread\">p [\d.]+<", (drawn / "comparison.html").read_text())


def test_the_table_in_markdown_and_in_a_terminal(drawn: Path) -> None:
    lines = (drawn / "comparison.md").read_text().splitlines()
    assert lines[0].startswith("| Method | Peak % | Final % |")
    assert len({line.count("|") for line in lines[:4]}) == 1
    assert lines[3].startswith("| ewc-9 | ")
    assert lines[-1] == "my comparison, mean ± deviation of 2 seeds."
    shown = printed(comparison_table(drawn))
    assert "ewc-9" in shown
    assert "Parameters a task" in shown
    assert "Unfinished" not in shown


def test_the_page_holds_everything_and_loads_nothing(drawn: Path) -> None:
    outline, text = check_whole(drawn / "comparison.html"), (drawn / "comparison.html").read_text()
    headings = "my comparison|Accuracy and cost|Methods|Settings|Environment|Make it again"
    assert "|".join(outline.headings) == headings
    assert "lasem-1/report.html" in outline.references
    assert "2.13.0+cpu" in text
    assert "lasem run --config &#39;my config.yaml&#39;" in text


@pytest.mark.parametrize("narrow", [True, False])
def test_in_a_browser_the_figure_is_seen_and_the_table_sorts(drawn: Path, browser: list[str], narrow: bool) -> None:
    seen = check_page(browser, drawn / "comparison.html", narrow=narrow, least_height=80)  # two methods, two rows
    assert seen == (1, 1)


def test_what_a_method_brought_is_said_task_by_task(tmp_path: Path) -> None:
    write_runs(tmp_path)
    alone, logistic = "search: {name: fixed, configuration: none}", "method: logistic"
    for label, config in {"none": alone, "logistic": logistic, "logistic-again": logistic}.items():
        for seed in (0, 1):
            shutil.copytree(tmp_path / f"lasem-{seed}", tmp_path / f"{label}-{seed}")
            (tmp_path / f"{label}-{seed}" / "config.yaml").write_text(config.replace("logistic", "{name: logistic}"))
    index = json.loads((tmp_path / INDEX).read_text())
    (tmp_path / INDEX).write_text(json.dumps({**index, "methods": ["lasem", "none", "logistic", "logistic-again"]}))
    records = tmp_path / "logistic-0/seeds/0/records.jsonl"
    last = json.loads(records.read_text().splitlines()[-1])
    last["accuracies"]["cifar-1"] += 0.2  # the mean over the two seeds is 10 points above
    records.write_text("\n".join([*records.read_text().splitlines()[:-1], json.dumps(last)]) + "\n")
    said = load_comparison(tmp_path).brought
    assert said is not None
    assert said.sentence.startswith("lasem against learning each task alone: 0.0 points (p 1.00). Below logistic")
    assert re.search(r"regression: cifar-1 \([\d.]+ against [\d.]+ %\)\.$", said.sentence)
    write_comparison(tmp_path)
    assert said.sentence in (tmp_path / "comparison.html").read_text().replace("\N{NO-BREAK SPACE}", " ")
    write_report(tmp_path / "lasem-1")
    page = (tmp_path / "lasem-1/report.html").read_text().replace("\N{NO-BREAK SPACE}", " ")
    assert "The model against learning each task alone: 0.0 points (p 1.00). No task ends below logistic" in page
    assert "learned alone" in (tmp_path / "lasem-1/figures/tasks.csv").read_text()


def test_drawn_twice_it_has_the_same_bytes(drawn: Path) -> None:
    before = contents(drawn)
    write_comparison(drawn)
    assert contents(drawn) == before


def test_the_figure_holds_the_numbers_and_puts_the_best_above(drawn: Path) -> None:
    rows = [(row.label, row.values) for row in load_comparison(drawn).rows]
    drawing = draw_comparison(rows)
    assert drawing is not None
    assert ET.fromstring(drawing.inline()).get("aria-label") == drawing.description
    finals = [row[drawing.columns.index("final_accuracy_mean")] for row in drawing.rows]
    assert finals == sorted(finals, reverse=True)  # type: ignore[type-var]
    assert {row[0]: row[1] for row in drawing.rows} == {label: of["peak_accuracy"].mean for label, of in rows}
    assert draw_comparison([]) is None
    assert draw_comparison(rows * 20) is not None


def test_what_is_unfinished_is_named_and_left_out(tmp_path: Path) -> None:
    directory = write_runs(tmp_path)
    (directory / "lasem-1/seeds/1/checkpoint").mkdir()
    records = directory / "ewc-9-0/seeds/0/records.jsonl"
    records.write_text("".join(records.read_text().splitlines(keepends=True)[:7]))
    (directory / "ewc-9-1/seeds/1/records.jsonl").unlink()
    write_comparison(directory)
    comparison = load_comparison(directory)
    assert [tuple(row.seeds) for row in comparison.rows] == [(0,), ()]
    said = "Unfinished: lasem (seed 1); ewc-9 (seeds 0, 1). Means are over the finished seeds."
    assert unfinished_sentence(comparison) == said
    text = (directory / "comparison.html").read_text()
    assert said in text
    assert "1 of 2 seeds" in text
    assert "nan" not in (directory / "comparison.csv").read_text()
    assert "One method has learned 3 tasks: lasem" in sentence(comparison)


def test_before_the_first_run_is_finished(tmp_path: Path) -> None:
    (tmp_path / INDEX).write_text(json.dumps({"methods": ["a"], "seeds": [0]}))
    page = write_comparison(tmp_path)
    check_whole(page)
    assert "nothing to compare" in page.read_text()
    assert not (tmp_path / "figure.svg").exists()


def test_one_seed_and_one_task_have_no_deviation_and_no_growth(tmp_path: Path) -> None:
    directory = write_runs(tmp_path, seeds=(4,), num_tasks=1)
    check_whole(write_comparison(directory))
    assert "±" not in (directory / "comparison.md").read_text()


@pytest.mark.parametrize(
    "content",
    [
        None,
        "{",
        "[]",
        "[" * 100_000,
        '{"methods": ["a"]}',
        '{"methods": 3, "seeds": [0]}',
        '{"methods": [], "seeds": []}',
    ],
)
def test_a_missing_or_damaged_index_is_refused(tmp_path: Path, content: str | None) -> None:
    if content is not None:
        (tmp_path / INDEX).write_text(content)
    with pytest.raises(StorageError, match=f"Expected a comparison.*{INDEX}"):
        load_comparison(tmp_path)


def test_runs_outside_the_folder_are_not_read(tmp_path: Path) -> None:
    inside = write_runs(tmp_path / "inside")
    (inside / "lasem-0").rename(tmp_path / "lasem-0")
    (inside / "lasem-0").symlink_to(tmp_path / "lasem-0")
    for attempt in (write_comparison, lambda directory: compare([], directory)):
        with pytest.raises(StorageError, match="a symbolic link leads out"):
            attempt(inside)
    (inside / "lasem-0").unlink()
    (inside / INDEX).write_text('{"methods": ["../a"], "seeds": [0]}')
    with pytest.raises(StorageError, match="Expected a comparison's methods"):
        load_comparison(inside)


def test_labels_and_settings_of_strangers_are_text(tmp_path: Path) -> None:
    directory = write_runs(tmp_path)
    label = "javascript:alert`1`#<b>|\x1b"
    for seed in (0, 1):
        (directory / f"lasem-{seed}").rename(directory / f"{label}-{seed}")
    lines = ["a0: &a0 [x, x]", *(f"a{k}: &a{k} [*a{k - 1}, *a{k - 1}]" for k in range(1, 40)), "date: 2020-99-99"]
    (directory / "ewc-9-0" / "config.yaml").write_text("\n".join(lines))
    (directory / "ewc-9-1" / "config.yaml").write_text("date: !!timestamp x")
    (directory / INDEX).write_text(json.dumps({"methods": [label, "ewc-9", "x" * 5000], "seeds": [0, 1]}))
    outline = Outline(write_comparison(directory).read_text())
    assert "b" not in outline.tags
    assert "javascript%3Aalert%601%60%23%3Cb%3E%7C%1B-0/report.html" in outline.references
    assert r"| javascript:alert\`1\`#\<b\>\|\\x1b |" in (directory / "comparison.md").read_text()
    assert "\x1b" not in printed(comparison_table(directory))


def test_nothing_forgotten_is_said(drawn: Path) -> None:
    comparison = load_comparison(drawn)
    for row in comparison.rows:
        row.values["forgetting_ratio"] = row.values["smallest_forgetting_ratio"] = statistic([1.0, 1.0])
    assert "lasem and ewc-9 forget nothing" in sentence(comparison)
    comparison.rows[0].values["smallest_forgetting_ratio"] = statistic([0.9, 1.0])  # other tasks gained as much
    assert "ewc-9 forgets nothing" in sentence(comparison)
