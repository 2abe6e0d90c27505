import io
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest
from chromium import check_page
from rich.console import Console

from lasem.errors import StorageError
from lasem.metrics import load_run
from lasem.report import console_table, write_report
from lasem.report.experiment import load_experiment
from lasem.report.frame import Cell
from lasem.report.page import tasks_frame

from .fake_run import make_records, task_names, write_run, write_seed

VOID = {"meta", "link", "br", "img"}


class Outline(HTMLParser):
    """Headings, ids and references of a page; fails where a tag is closed that is not open."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.headings: list[str] = []
        self.ids: list[str] = []
        self.references: list[str] = []
        self.tags: list[str] = []
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        if tag not in VOID:
            self.open.append(tag)
        if re.fullmatch("h[1-6]", tag):
            self.headings.append("")
        for key, value in attrs:
            if key == "id":
                self.ids.append(value or "")
            if key in ("src", "href", "xlink:href"):
                self.references.append(value or "")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and re.fullmatch("h[1-6]", self.open[-1]):
            self.headings[-1] += data


def page(run_dir: Path) -> str:
    return (run_dir / "report.html").read_text(encoding="utf-8")


def test_every_section_stands_in_its_order(one_seed: Path) -> None:
    assert Outline(page(one_seed)).headings == [
        "cifar-em",
        "Tasks",
        "Accuracy on every task after each task",
        "Layers that each task transfers",
        "How the search decided",
        "The tree of configurations",
        "Accuracy over time",
        "Parameters added by each task",
        "Settings",
        "Environment",
        "Make it again",
    ]


def test_settings_environment_and_command_are_shown(one_seed: Path) -> None:
    text = page(one_seed)
    assert "learning_rate: 0.0005" in text
    assert "2.13.0+cpu" in text
    assert "lasem run --config &#39;my config.yaml&#39; --output runs/cifar-em" in text


def test_the_page_loads_nothing_and_its_links_lead_somewhere(three_seeds: Path) -> None:
    text = page(three_seeds)
    outline = Outline(text)
    assert "http://" not in text
    assert "https://" not in text
    assert "@import" not in text
    assert len(outline.ids) == len(set(outline.ids))
    for reference in outline.references:
        if reference.startswith("#"):
            assert reference[1:] in outline.ids
        elif reference != "data:,":
            assert (three_seeds / reference).is_file()
    for used in re.findall(r"url\(#([^)]*)\)", text):
        assert used in outline.ids
    assert len(list((three_seeds / "figures").glob("*.svg"))) == 18


def test_several_seeds_are_summed_up_first_and_all_are_on_the_page(three_seeds: Path) -> None:
    text = page(three_seeds)
    headings = Outline(text).headings
    assert headings[:3] == ["cifar-em", "Over seeds", "Tasks over seeds"]
    assert [h for h in headings if re.fullmatch(r"Seed \d", h)] == ["Seed 0", "Seed 1", "Seed 2"]
    assert headings.count("How the search decided") == 3
    assert 'class="seed hidden"' not in text  # only the script hides


def test_hostile_names_are_text(tmp_path: Path) -> None:
    names = ("<script>alert(1)</script>", '"><img src=x onerror=y>', "{{ 7 * 7 }}", "$\\frac{", "\u202e\ud83d", "&lt;")
    run_dir = write_run(tmp_path / "<i>run", names=names, num_epochs=3)
    (run_dir / "config.yaml").write_text("</pre><script>alert(2)</script>", encoding="utf-8")
    text = write_report(run_dir).read_text(encoding="utf-8")
    outline = Outline(text)
    assert outline.tags.count("script") == 1  # tables sort
    assert "i" not in outline.tags
    assert "img" not in outline.tags
    assert "{{ 7 * 7 }}" in text
    assert "&amp;lt;" in text


def test_an_unfinished_run_says_so(killed: Path) -> None:
    text = write_report(killed).read_text(encoding="utf-8")
    assert "Unfinished: 2 of 3 tasks learned, &#39;cifar-2&#39; left after 6 epochs." in text
    assert "being learned" in text
    Outline(text)


@pytest.mark.parametrize("num_records", [0, 1, 3, 4])
def test_a_run_that_has_only_begun(num_records: int, tmp_path: Path) -> None:
    records, _ = make_records(0, task_names(1), num_epochs=3)  # three epochs, the task, its evaluation
    write_seed(tmp_path, 0, records[:num_records], [])
    text = write_report(tmp_path).read_text(encoding="utf-8")
    assert "Unfinished" in text
    assert "nothing to judge" in text
    assert "The run left no config.yaml." in text
    assert "nan" not in text.replace("nance", "")
    Outline(text)


def test_without_epochs_or_configurations(tmp_path: Path) -> None:
    """Other learners than ours may record tasks and evaluations only."""
    records, _ = make_records(0, task_names(2), num_epochs=2)
    write_seed(tmp_path, 0, [r for r in records if r.kind != "epoch"], [])
    Outline(write_report(tmp_path).read_text(encoding="utf-8"))


def test_drawn_twice_it_has_the_same_bytes(one_seed: Path) -> None:
    def everything() -> dict[Path, bytes]:
        return {p: p.read_bytes() for p in one_seed.rglob("*") if p.is_file()}

    before = everything()
    write_report(one_seed)
    assert everything() == before


def test_a_folder_that_is_no_run(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match=r"holding seeds/0/records\.jsonl"):
        write_report(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_importing_report_imports_no_matplotlib() -> None:
    code = "import sys, lasem.report; sys.exit('matplotlib' in sys.modules or 'jinja2' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("narrow", [True, False])
def test_in_a_browser_the_first_seed_is_seen_and_tables_sort(
    three_seeds: Path, browser: list[str], narrow: bool
) -> None:
    num_figures, num_tables = check_page(browser, three_seeds / "report.html", narrow=narrow)
    text = page(three_seeds)
    assert num_figures == text[: text.index('id="seed-1"')].count("<figure")
    assert num_tables == 2  # tasks over seeds, and the first seed's


@pytest.mark.skipif(shutil.which("chromium") is None, reason="needs chromium")
def test_a_browser_never_scrolls_the_page_sideways(three_seeds: Path, tmp_path: Path) -> None:
    probe = tmp_path / "probe.html"
    probe.write_text(
        f"""<iframe id="page" style="width: 360px; height: 900px" src="{(three_seeds / "report.html").as_uri()}">
        </iframe><script>onload = () => {{
          const root = document.getElementById("page").contentDocument.documentElement;
          document.body.append(`hidden ${{root.scrollWidth - root.clientWidth}}, seeds ` +
            root.querySelectorAll("article.seed:not(.hidden)").length);
        }}</script>""",
        encoding="utf-8",
    )
    command = ["chromium", "--headless", "--no-sandbox", "--disable-gpu", "--allow-file-access-from-files"]
    command += ["--disable-background-networking", "--disable-component-update", "--disable-sync", "--no-first-run"]
    command += [f"--user-data-dir={tmp_path / 'profile'}", "--virtual-time-budget=4000", "--dump-dom", probe.as_uri()]
    found = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60).stdout
    assert "hidden 0, seeds 1" in found


def test_a_baseline_has_no_configurations(tmp_path: Path) -> None:
    run_dir = write_run(tmp_path, num_seeds=2, num_epochs=3)
    (run_dir / "config.yaml").write_text("method: {name: ewc, strength: 3}\n")
    text = write_report(run_dir).read_text(encoding="utf-8")
    headings = Outline(text).headings
    assert "How the search decided" not in headings
    assert "Layers that each task transfers" not in headings
    assert "Accuracy over time" in headings
    assert "Configuration" not in text
    assert "Layers transferred" not in text
    assert "ewc · 2 seeds" in text
    assert not list((run_dir / "figures").glob("*probabilities*"))


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


def test_unfinished_seeds_are_left_out_of_the_means(tmp_path: Path) -> None:
    write_seed(tmp_path, 0, *make_records(0, task_names(3), num_epochs=3))
    write_seed(tmp_path, 1, *make_records(1, task_names(1), num_epochs=3))
    experiment = load_experiment(tmp_path)
    assert [run.seed for run in experiment.comparable_runs] == [0]
    assert experiment.means["peak_accuracy"].num_seeds == 1


def test_a_task_of_some_seeds_only_has_a_whole_row(tmp_path: Path) -> None:
    for seed in (0, 1):
        write_seed(tmp_path, seed, *make_records(seed, task_names(2 + seed), num_epochs=3))
    (tmp_path / "environment.json").write_text('{"num_tasks": 4}')  # none is finished
    table = cells(tmp_path, (0, 1))
    assert table["cifar-2"]["Peak %"].below == ""
    assert table["cifar-1"]["Peak %"].below.startswith("± ")
    Outline(write_report(tmp_path).read_text(encoding="utf-8"))


def printed(run_dir: Path) -> str:
    console = Console(file=io.StringIO(), width=140)
    console.print(console_table(run_dir))
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_one_seed_in_a_terminal(one_seed: Path) -> None:
    text = printed(one_seed)
    assert "cifar-3" in text
    assert "Final / peak" in text
    assert "±" not in text
    assert "Unfinished" not in text


def test_several_seeds_in_a_terminal(three_seeds: Path) -> None:
    text = printed(three_seeds)
    assert "mean ± deviation of 3 seeds" in text
    assert text.count("±") > 12


def test_an_unfinished_run_says_so_in_a_terminal(killed: Path) -> None:
    text = printed(killed)
    assert "epoch 6" in text
    assert "Unfinished: 2 of 3 tasks learned, 'cifar-2' left after 6 epochs." in text


def test_names_are_not_markup(tmp_path: Path) -> None:
    assert "[red]bird[/red]" in printed(write_run(tmp_path, names=("[red]bird[/red]", "[/]"), num_epochs=2))


def test_a_baseline_has_no_layers_to_show(tmp_path: Path) -> None:
    run_dir = write_run(tmp_path, num_epochs=2)
    assert "Layers" in printed(run_dir)
    (run_dir / "config.yaml").write_text("method: {name: ewc}\n")
    assert "Layers" not in printed(run_dir)
    assert "cifar-3" in printed(run_dir)
