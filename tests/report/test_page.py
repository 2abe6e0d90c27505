import csv
import io
import json
import re
import subprocess
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
from chromium import check_page

from lasem.errors import StorageError
from lasem.metrics import load_run, statistic
from lasem.records import TaskRecord, read_records, to_json
from lasem.report import console_table, write_report
from lasem.report.experiment import load_experiment
from lasem.report.frame import Cell
from lasem.report.page import progress_sentence, tasks_frame, verdict

from .fake_run import changed, make_records, task_names, write_run, write_seed
from .pages import Outline, check_whole, contents, printed


def page(run_dir: Path) -> str:
    return (run_dir / "report.html").read_text(encoding="utf-8")


def test_the_page_of_one_seed_has_its_sections_settings_environment_and_command(one_seed: Path) -> None:
    headings = (
        "cifar-em|What it brought|Tasks|Accuracy on every task after each task|Layers that each task transfers|"
        "How the search decided|The tree of configurations|Accuracy over time|Parameters added by each task|"
        "Settings|Environment|Make it again"
    )
    assert "|".join(check_whole(one_seed / "report.html").headings) == headings
    text = page(one_seed)
    assert "learning_rate: 0.0005" in text
    assert "2.13.0+cpu" in text
    assert "lasem run --config &#39;my config.yaml&#39; --output runs/cifar-em" in text


def test_several_seeds_are_summed_up_first_and_all_are_on_the_page(three_seeds: Path) -> None:
    headings = check_whole(three_seeds / "report.html").headings
    assert len(list((three_seeds / "figures").glob("*.svg"))) == 19
    assert headings[:3] == ["cifar-em", "What it brought", "Over seeds"]
    assert [h for h in headings if re.fullmatch(r"Seed \d", h)] == ["Seed 0", "Seed 1", "Seed 2"]
    assert headings.count("How the search decided") == 3
    assert 'class="seed hidden"' not in page(three_seeds)  # only the script hides


HOSTILE = (
    "<script>alert(1)</script>",
    '"><img src=x onerror=y>',
    "{{ 7 * 7 }}",
    "$\\frac{",
    "&lt;",
    "</script>",
    "]]>",
)
HOSTILE += (
    "\u202e\ud83d",
    "caf\udce9",
    "\x1b]0;x\x07\x9b2J",
    "=cmd|' /C calc'!A0",
    "@SUM(1)",
    "a\nb,=1",
    "`x` ![](http://x)",
)


def test_hostile_names_are_text_wherever_they_go(tmp_path: Path) -> None:
    run_dir = write_run(tmp_path / "<i>run\u2066", names=HOSTILE, num_epochs=3, num_layers=2)
    (run_dir / "config.yaml").write_text("</pre><script>alert(2)</script>\x1b[2J\u202e\nnext: line")
    environment = {"command": ["lasem", "run", "$(reboot); \x1b[2J\n", "caf\udce9"], "<b>": "\x07<b>"}
    (run_dir / "environment.json").write_text(json.dumps(environment))
    write_report(run_dir)
    outline = Outline(page(run_dir))
    assert outline.tags.count("script") == 1  # tables sort
    assert not {"i", "b", "img"} & set(outline.tags)
    for said in ("{{ 7 * 7 }}", "&amp;lt;", "\\x1b[2J\\u202e\nnext: line", "\\x1b]0;x\\x07\\x9b2J", "caf\\udce9"):
        assert said in page(run_dir)
    assert "lasem run $&#39;$(reboot); \\x1b[2J\\x0a&#39; $&#39;caf\\xe9&#39;" in page(run_dir)
    for path, content in contents(run_dir).items():
        text = content.decode()
        assert path.suffix in (".jsonl", ".json", ".yaml") or not re.search(
            "[^\n\xa0 -~\xa1-\u2fff]|[\u200e\u202a-\u202e]", text
        )
        if path.suffix == ".svg":
            ET.fromstring(text)
        if path.suffix == ".csv":
            assert not [
                cell for row in csv.reader(io.StringIO(text)) for cell in row if re.match("[=+@]|-[^0-9]", cell)
            ]
    assert not re.search("[\x07\x1b\x9b\u202e]", printed(console_table(run_dir)))


def test_the_earlier_task_that_helped_is_named(tmp_path: Path) -> None:
    run_dir = write_run(tmp_path, names=("a", "b"), num_epochs=1)
    records = changed(read_records(run_dir / "seeds/0/records.jsonl"), TaskRecord, "b", source="\x1b[2J<i>a")
    (run_dir / "seeds/0/records.jsonl").write_text("".join(to_json(record) + "\n" for record in records))
    write_report(run_dir)
    assert ">of \\x1b[2J&lt;i&gt;a</small>" in page(run_dir)
    assert "(of \\x1b[2J<i>a)" in printed(console_table(run_dir)).replace("\n", "")


@pytest.mark.parametrize("command", ["curl x | sh", 3, {"a": "b"}])
def test_a_command_that_lasem_did_not_write_is_not_offered(tmp_path: Path, command: object) -> None:
    run_dir = write_run(tmp_path, names=("a",), num_epochs=1)
    (run_dir / "environment.json").write_text(json.dumps({"command": command}))
    write_report(run_dir)
    assert "The command was not recorded" in page(run_dir)


def test_an_unfinished_run_says_so(killed: Path) -> None:
    check_whole(write_report(killed))
    assert "Unfinished: 2 of 3 tasks learned, &#39;cifar-2&#39; left after 6 epochs." in page(killed)
    assert "being learned" in page(killed)
    text = printed(console_table(killed))
    assert "epoch 6" in text
    assert "Unfinished: 2 of 3 tasks learned, 'cifar-2' left after 6 epochs." in text


@pytest.mark.parametrize("num_records", [0, 1, 3, 4])
def test_a_run_that_has_only_begun(num_records: int, tmp_path: Path) -> None:
    records, _ = make_records(0, task_names(1), num_epochs=3)  # three epochs, the task, its evaluation
    write_seed(tmp_path, 0, records[:num_records], [])
    check_whole(write_report(tmp_path))
    for said in ("Unfinished", "nothing to judge", "The run left no config.yaml."):
        assert said in page(tmp_path)


def test_other_learners_than_ours_may_record_tasks_and_evaluations_only(tmp_path: Path) -> None:
    write_seed(tmp_path, 0, [r for r in make_records(0, task_names(2), num_epochs=2)[0] if r.kind != "epoch"], [])
    check_whole(write_report(tmp_path))


def test_drawn_twice_it_has_the_same_bytes(one_seed: Path) -> None:
    before = contents(one_seed)
    write_report(one_seed)
    assert contents(one_seed) == before


def test_a_folder_that_is_no_run(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match=r"holding seeds/0/records\.jsonl"):
        write_report(tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("narrow", [True, False])
def test_in_a_browser_the_first_seed_is_seen_and_tables_sort(
    three_seeds: Path, browser: list[str], narrow: bool
) -> None:
    num_figures, num_tables = check_page(browser, three_seeds / "report.html", narrow=narrow)
    text = page(three_seeds)
    assert num_figures == text[: text.index('id="seed-1"')].count("<figure")
    assert num_tables == 2  # tasks over seeds, and the first seed's


def test_a_browser_never_scrolls_the_page_sideways(three_seeds: Path, browser: list[str], tmp_path: Path) -> None:
    probe = tmp_path / "probe.html"
    probe.write_text(
        f"""<iframe id="page" style="width: 360px; height: 900px" src="{(three_seeds / "report.html").as_uri()}">
        </iframe><script>onload = () => {{
          const root = document.getElementById("page").contentDocument.documentElement;
          document.body.append(`hidden ${{root.scrollWidth - root.clientWidth}}, seeds ` +
            root.querySelectorAll("article.seed:not(.hidden)").length);
        }}</script>"""
    )
    command = [*browser, "--allow-file-access-from-files", probe.as_uri()]
    found = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60).stdout
    assert "hidden 0, seeds 1" in found


def test_a_baseline_has_no_configurations(tmp_path: Path) -> None:
    run_dir = write_run(tmp_path, num_seeds=2, num_epochs=3)
    assert "Layers" in printed(console_table(run_dir))
    (run_dir / "config.yaml").write_text("method: {name: ewc, strength: 3}\n")
    headings = check_whole(write_report(run_dir)).headings
    assert not {"How the search decided", "Layers that each task transfers"} & set(headings)
    assert "Accuracy over time" in headings
    assert not re.search("Configuration|Layers transferred", page(run_dir))
    assert "ewc · 2 seeds" in page(run_dir)
    assert not list((run_dir / "figures").glob("*probabilities*"))
    shown = printed(console_table(run_dir))
    assert "Layers" not in shown
    assert "cifar-3" in shown


def cells(run_dir: Path, seeds: tuple[int, ...] = (0,)) -> dict[str, dict[str, Cell]]:
    """The table of tasks: by task and heading."""
    experiment = load_experiment(run_dir)
    frame = tasks_frame(experiment, [run for run in experiment.runs if run.seed in seeds])
    headings = [column.heading for column in frame.columns]
    return {row[1].text: dict(zip(headings, row, strict=True)) for row in (*frame.rows, frame.footer)}


def test_the_table_holds_what_was_recorded(one_seed: Path) -> None:
    run, table = load_run(one_seed / "seeds" / "0"), cells(one_seed)
    for record in run.tasks:
        row, final = table[record.task], run.evaluations["cifar-3"][record.task]
        assert row["Peak %"].number == 100 * record.peak_accuracy
        assert row["Final %"].number == 100 * final
        assert row["Final / peak"].number == pytest.approx(final / record.peak_accuracy)
        assert row["Layers"].configurations == (record.configuration,)
        assert row["Parameters added"].number == record.parameters_added
        assert row["Best / epochs"].text == f"{record.best_epoch} / {record.num_epochs}"
        assert (row["Training time"].number or 0) > 0
    assert table["Mean or total"]["Parameters added"].below == f"{run.tasks[-1].parameters_total:,} in all"


def test_the_table_over_seeds_has_means(three_seeds: Path) -> None:
    runs, table = load_experiment(three_seeds).runs, cells(three_seeds, (0, 1, 2))
    row = table["cifar-1"]
    assert row["Peak %"].number == pytest.approx(100 * sum(run.tasks[1].peak_accuracy for run in runs) / 3)
    assert row["Layers"].configurations == tuple(run.tasks[1].configuration for run in runs)
    assert row["Layers"].text == f"{len(set(row['Layers'].configurations))} different"
    assert "Best / epochs" not in row
    assert table["cifar-0"]["Layers"].text == "TTTT"  # all seeds chose it
    peak = load_experiment(three_seeds).means["peak_accuracy"]
    assert table["Mean or total"]["Peak %"].number == pytest.approx(100 * peak.mean)


def test_the_task_that_is_being_learned_has_a_row(killed: Path) -> None:
    table = cells(killed)
    assert table["cifar-2"]["Task"].below == "being learned, epoch 6"
    assert table["cifar-2"]["Peak %"].number is None
    assert list(table) == ["cifar-0", "cifar-1", "cifar-2", "Mean or total"]


def test_a_task_of_some_seeds_only_has_a_whole_row(tmp_path: Path) -> None:
    for seed in (0, 1):
        write_seed(tmp_path, seed, *make_records(seed, task_names(2 + seed), num_epochs=3))
    (tmp_path / "environment.json").write_text('{"num_tasks": 4}')  # none is finished
    table = cells(tmp_path, (0, 1))
    assert table["cifar-2"]["Peak %"].below == ""
    assert table["cifar-1"]["Peak %"].below.startswith("± ")
    check_whole(write_report(tmp_path))


def test_tables_in_a_terminal(one_seed: Path, three_seeds: Path, tmp_path: Path) -> None:
    text = printed(console_table(one_seed))
    assert "cifar-3" in text
    assert "Final / peak" in text
    assert not re.search("±|Unfinished", text)
    text = printed(console_table(three_seeds))
    assert "mean ± deviation of 3 seeds" in text
    assert text.count("±") > 12
    names = ("[red]bird[/red]", "[/]")
    assert names[0] in printed(console_table(write_run(tmp_path, names=names, num_epochs=2)))


def test_the_key_numbers_are_in_the_sentence(one_seed: Path) -> None:
    experiment = load_experiment(one_seed)
    sentence, means = verdict(experiment), experiment.means
    assert sentence.startswith("One model learned 4 tasks")
    for quantity in ("peak_accuracy", "final_accuracy"):
        assert f"{100 * means[quantity].mean:.1f} %" in sentence
    assert f"forgetting ratio {means['forgetting_ratio'].mean:.3f}" in sentence
    assert "separate models" in sentence
    assert progress_sentence(experiment) == ""
    for smallest, said in ((0.8, "what some tasks lost others gained"), (1.0, "nothing was forgotten")):
        means |= {"forgetting_ratio": statistic([1.0]), "smallest_forgetting_ratio": statistic([smallest])}
        assert f"so {said} (forgetting ratio 1.000)" in verdict(experiment)


@pytest.mark.parametrize(
    ("num_records", "said", "progress"),
    [
        (None, "1 task:", ""),
        (1, "nothing to judge", "Unfinished: 0 of 1 task learned, 'cifar-0' left after 1 epoch."),
    ],
)
def test_one_task_without_timings(num_records: int | None, said: str, progress: str, tmp_path: Path) -> None:
    write_seed(tmp_path, 0, make_records(0, task_names(1), num_epochs=2)[0][:num_records], [])
    experiment = load_experiment(tmp_path)
    assert said in verdict(experiment)
    assert not re.search(r"training\.|separate", verdict(experiment))
    assert progress_sentence(experiment) == progress


def test_which_seeds_are_unfinished(tmp_path: Path) -> None:
    run_dir = write_run(tmp_path, num_seeds=2, num_epochs=2)
    path = run_dir / "seeds" / "1" / "records.jsonl"
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:5]))
    sentence = progress_sentence(load_experiment(run_dir))
    assert sentence.startswith("Unfinished: seed 1: 1 of 4 tasks learned, 'cifar-1' left after 1 epoch.")
    assert sentence.endswith("Means are over the finished seeds.")
