"""Recipes: their grids, and their pages drawn from made-up records."""

from __future__ import annotations

import csv
import io
import json
import re
from pathlib import Path
from typing import Any

import pytest
from chromium import check_page
from report.fake_run import ENVIRONMENT, make_records, write_seed
from report.test_page import Outline

from lasem.errors import ConfigError, StorageError
from lasem.experiments import ExperimentConfig
from lasem.metrics import Run, statistic, summarise
from paper import RECIPES, SCALES, SEEDS, Bench
from paper import published as numbers
from paper.groups import GROUPS
from paper.recipe import statics
from paper.reproduce import _merged, draw, drawn_recipes, keep_index

SMOKE = Bench(scale="smoke", given={})


def write_fakes(directory: Path, name: str, bench: Bench = SMOKE, leave_out: str = "") -> None:
    """Made-up runs of every method and seed of a recipe, and its index."""
    panels = RECIPES[name].panels(bench)
    keep_index(directory, bench, {name: panels}, ENVIRONMENT)
    methods = [(panel.key, method) for panel in panels for method in panel.methods]
    for number, (key, method) in enumerate(methods):
        for seed in method.config.seeds:
            folder = directory / "runs" / key / f"{method.label}-{seed}"
            if folder.exists() or folder.name == leave_out:
                continue
            names = tuple(f"task-{index}" for index in range(3))
            records = make_records(seed + 7 * number, names, num_epochs=4)
            write_seed(folder, seed, *records)
            (folder / "config.yaml").write_text(method.config.to_yaml())
            (folder / "environment.json").write_text(json.dumps({"num_tasks": 3}))


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("reproduced")
    for name in RECIPES:
        write_fakes(directory, name)
        draw(directory, name)
    return directory


@pytest.mark.parametrize("scale", SCALES)
def test_every_recipe_has_a_grid_at_every_scale(scale: Any) -> None:
    bench = Bench(scale=scale, given={}, data="somewhere")
    panels = {name: recipe.panels(bench) for name, recipe in RECIPES.items()}
    merged = _merged([panel for of in panels.values() for panel in of])  # what two recipes share is the same
    for methods in merged.values():
        for method in methods:
            assert method.config.seeds == SEEDS[scale]
            assert method.config.threads == 1
            assert method.config.preset == ("paper" if scale == "paper" else "default")
            assert ExperimentConfig.from_yaml(method.config.to_yaml()) == method.config


def test_grids_are_the_papers() -> None:
    paper = Bench(scale="paper", given={}, data="DATA")
    of = {name: recipe.panels(paper) for name, recipe in RECIPES.items()}
    assert [panel.key for panel in of["architectures"]] == ["cifar100-10", "office-home", "stl10"]
    assert len(of["architectures"][0].methods) == 1 + 3 * 8
    assert statics(4) == ("all", "top-1", "top-2", "top-3", "bottom-1", "bottom-2", "bottom-3", "alternating")
    assert [len(panel.methods) for panel in of["groups"]] == [5, 4]
    assert of["groups"][1].methods[0].config.to_plain()["stream"]["num_tasks"] == 40
    assert all(sum(sizes) == 17 for sizes in GROUPS.values())
    assert [len(sizes) for sizes in GROUPS.values()] == [4, 5, 6, 7]
    plain = {panel.key: panel.methods[0].config.to_plain() for panel in of["architectures"]}
    assert plain["cifar100-10"]["stream"]["path"] == "DATA/cifar100"
    assert {key: (p["training"]["epochs"], p["training"]["batch_size"]) for key, p in plain.items()} == {
        "cifar100-10": (2000, 10),
        "office-home": (1000, 16),
        "stl10": (500, 10),
    }
    assert plain["cifar100-10"]["training"]["learning_rate_decay"] == 1 / 4000
    assert (plain["office-home"]["training"]["learning_rate"], plain["stl10"]["training"]["learning_rate_decay"]) == (
        2e-5,
        0.0,
    )
    exhaustive = {method.label: method.config.to_plain()["search"] for method in of["brute-force"][0].methods}
    assert exhaustive["exhaustive-hps"]["first_task"] == "none"
    assert exhaustive["exhaustive-tf"]["first_task"] == "all"
    assert exhaustive["lasem-hps"]["first_task"] == "search"


def test_published_numbers_are_those_of_the_reference() -> None:
    reference = Path(__file__).parents[3] / "shared/reference/results.md"
    if not reference.exists():
        pytest.skip("needs the project's reference")
    rows = [
        [cell.strip() for cell in line.strip("|\n").split("|")]
        for line in reference.read_text().splitlines()
        if line.startswith("|") and "±" in line
    ]
    suffix = {"HPS": "hps", "TF": "tf", "DF-CNN": "dfcnn"}
    found: set[float] = set()
    for row in rows[:6]:
        key = numbers.CIFAR_10 if row[0].startswith("CIFAR") else numbers.OFFICE_HOME
        end = suffix[row[1]]
        for label, at in (("lasem", 2), ("exhaustive", 3), ("all", 5)):
            assert numbers.BRUTE_FORCE_ACCURACY[key, f"{label}-{end}"] == _pair(row[at])
        assert numbers.BRUTE_FORCE_TIME[key, f"exhaustive-{end}"][0] == float(row[4])
        assert numbers.BRUTE_FORCE_TIME[key, f"all-{end}"][0] == float(row[6])
    names = ("den", "apd", "prognn", "darts-hps", "darts-dfcnn", "lasem-hps", "lasem-tf", "lasem-dfcnn")
    for name, row in zip(names, rows[6:14], strict=True):
        key = (numbers.OFFICE_HOME, name)
        assert numbers.SELECTIVE_ACCURACY[key] == _pair(row[1])
        assert numbers.SELECTIVE_FORGETTING[key] == _pair(row[2])
        assert numbers.SELECTIVE_KILOSECONDS[key][0] == float(row[3])
    labels = ("all-hps", *GROUPS)
    keys = [(numbers.CIFAR_10, label) for label in labels] + [(numbers.CIFAR_40, label) for label in labels[:4]]
    for key, row in zip(keys, rows[14:], strict=True):
        assert numbers.GROUPS_ACCURACY[key] == _pair(row[2])
        assert numbers.GROUPS_FORGETTING[key] == _pair(row[3])
        assert numbers.GROUPS_KILOSECONDS[key][0] == float(row[4])
        found.add(numbers.GROUPS_KILOSECONDS[key][0])
    assert len(found) == 9


def _pair(cell: str) -> tuple[float, float]:
    mean, deviation = cell.split("±")
    return float(mean), float(deviation)


def test_a_stream_of_ones_own_takes_the_recipes_place() -> None:
    given = {"stream": {"name": "digits", "num_tasks": 3}, "training": {"epochs": 2}, "seeds": [4]}
    (panel,) = RECIPES["architectures"].panels(Bench(scale="small", given=given, depth=2))
    assert (panel.key, panel.stands_for) == ("digits", "cifar100-10")
    assert [method.label for method in panel.methods[:4]] == ["none", "all-hps", "top-1-hps", "bottom-1-hps"]
    plain = panel.methods[1].config.to_plain()
    assert (plain["stream"]["name"], plain["training"]["epochs"], plain["seeds"]) == ("digits", 2, [4])
    (deep,) = RECIPES["groups"].panels(Bench(scale="small", given=given, depth=2))
    assert (deep.key, deep.methods[0].config.net.name) == ("digits-resnet", "resnet")
    with pytest.raises(ConfigError, match="only stream planted has; got stream digits"):
        RECIPES["planted"].panels(Bench(scale="small", given=given))
    amount = {"stream": {"name": "planted", "train_per_class": 50}}
    with pytest.raises(ConfigError, match=r"goes through 5, 20, 80, 320 training images a class"):
        RECIPES["planted"].panels(Bench(scale="small", given=amount))
    truth = {"stream": {"name": "planted", "truth": ["TTS", "SST"]}}
    with pytest.raises(ConfigError, match=r"as many layers as the network has, 4; got TTS,SST"):
        RECIPES["planted"].panels(Bench(scale="small", given=truth))
    with pytest.raises(ConfigError, match=r"as many layers as the network has, 17; got TTSS,"):
        RECIPES["planted"].panels(Bench(scale="small", given={"net": "resnet"}))
    with pytest.raises(ConfigError, match="Did you mean 'small'"):
        Bench(scale="smal", given={})  # type: ignore[arg-type]


@pytest.mark.parametrize("name", RECIPES)
def test_every_page_is_whole(drawn: Path, name: str) -> None:
    text = (drawn / f"{name}.html").read_text()
    outline = Outline(text)
    assert outline.headings[0] == RECIPES[name].title
    assert outline.headings[-4:] == ["Runs", "Settings", "Environment", "Make it again"]
    assert "http://" not in text.replace("http://www.w3.org", "")
    assert "https://" not in text
    assert "nan" not in re.sub(r"<[^>]*>", " ", text).lower().split()
    assert len(outline.ids) == len(set(outline.ids))
    for reference in outline.references:
        if reference.startswith("#"):
            assert reference[1:] in outline.ids
        elif not reference.startswith("data:") and not reference.endswith("report.html"):
            assert (drawn / reference).is_file()
    assert "table" in outline.tags
    assert "svg" in outline.tags
    assert "lasem run --config &#39;my config.yaml&#39;" in text
    assert "Unfinished" not in text
    assert "the numbers say nothing of the paper" in text


def test_drawn_twice_pages_have_the_same_bytes(drawn: Path) -> None:
    files = [path for path in drawn.rglob("*") if path.is_file() and "runs" not in path.relative_to(drawn).parts]
    before = {path: path.read_bytes() for path in files}
    for name in ("brute-force", "planted"):
        draw(drawn, name)
    assert {path: path.read_bytes() for path in files} == before
    assert drawn_recipes(drawn) == list(RECIPES)


def _runs(drawn: Path, panel: str, label: str) -> list[Run]:
    from lasem.metrics import load_run

    return [load_run(drawn / "runs" / panel / f"{label}-{seed}" / "seeds" / str(seed)) for seed in (0, 1)]


def test_numbers_are_those_of_the_runs(drawn: Path) -> None:
    rows = list(csv.DictReader(io.StringIO((drawn / "brute-force/cifar100-10-table.csv").read_text())))
    assert [row["Mechanism, search"] for row in rows][:3] == ["HPS, LASEM", "HPS, brute force", "HPS, transfer all"]
    runs = {label: _runs(drawn, "cifar100-10", f"{label}-hps") for label in ("lasem", "exhaustive", "all")}
    for row, (label, of) in zip(rows, runs.items(), strict=False):
        peak = statistic([summarise(run).peak_accuracy for run in of])
        assert float(row["Peak accuracy %"]) == 100 * peak.mean
        assert float(row["Peak accuracy % ±"]) == 100 * peak.deviation
        published = numbers.BRUTE_FORCE_ACCURACY["cifar100-10", f"{label}-hps"]
        assert (float(row["published %"]), float(row["published % ±"])) == pytest.approx(published)
        times = [
            summarise(run).seconds_training / summarise(reference).seconds_training
            for run, reference in zip(of, runs["lasem"], strict=True)
        ]
        assert float(row["Time / LASEM's"]) == pytest.approx(statistic(times).mean)
    differences = [
        one.peak_accuracies[task] - other.peak_accuracies[task]
        for one, other in zip(runs["lasem"], runs["exhaustive"], strict=True)
        for task in range(3)
    ]
    assert float(rows[1]["LASEM − brute force"]) == pytest.approx(100 * sum(differences) / 6)
    assert rows[1]["LASEM − brute force, of"].endswith(" of 2 seeds")
    assert rows[1]["p, of"] == "6 pairs"
    assert "Mechanism, search ±" not in rows[0]


def test_a_table_has_every_number_of_a_column_in_its_unit(drawn: Path) -> None:
    seconds = statistic([summarise(run).seconds_training for run in _runs(drawn, "office-home", "den")]).mean
    rows = list(csv.DictReader(io.StringIO((drawn / "selective/office-home-table.csv").read_text())))
    assert float(rows[0]["Time, 1000 s"]) == pytest.approx(seconds / 1000)
    assert float(rows[0]["published time"]) == numbers.SELECTIVE_KILOSECONDS["office-home", "den"][0]
    page = (drawn / "selective.html").read_text()
    assert f'data-number="{seconds / 1000}"' in page
    for row in csv.DictReader(io.StringIO((drawn / "peak/peak-table.csv").read_text())):
        assert 20 < float(row["Worst static %"]) <= float(row["Best static %"]) < 100
        assert f'data-number="{row["Worst static %"]}"' in (drawn / "peak.html").read_text()


def test_a_table_in_markdown_is_the_pages(drawn: Path) -> None:
    lines = (drawn / "brute-force/cifar100-10-table.md").read_text().splitlines()
    assert lines[0].startswith("| Mechanism, search | Peak accuracy % | published % |")
    assert lines[1] == "|---" + 6 * "|---:" + "|"
    assert len(lines) == 2 + 9
    row = r"\| HPS, brute force \| 51\.\d ± \d\.\d \| 40\.4 ± 0\.3 \| .* \d seeds\) \| .* \(6 pairs\) \|"
    assert re.fullmatch(row, lines[3])


def test_planted_layers_are_counted_against_the_settings(drawn: Path) -> None:
    truth = ("TTSS", "SSTT")  # of the second and the third task
    shares = []
    for run in _runs(drawn, "planted-16", "darts-hps"):
        chosen = "".join(task.configuration for task in run.tasks[1:])
        shares.append(sum(c == t for c, t in zip(chosen, "".join(truth), strict=True)) / 8)
    rows = list(csv.DictReader(io.StringIO((drawn / "planted/layers-found-table.csv").read_text())))
    row = next(row for row in rows if next(iter(row.values())) == "DARTS, 16 images")
    assert float(row["All layers %"]) == pytest.approx(100 * sum(shares) / 2)
    points = list(csv.DictReader(io.StringIO((drawn / "planted/layers-found.csv").read_text())))
    assert any(float(point["mean"]) == pytest.approx(sum(shares) / 2) for point in points if point["x"] == "16")


def test_what_is_unfinished_is_named(tmp_path: Path) -> None:
    write_fakes(tmp_path, "selection", leave_out="lasem-tf-1")
    page, _ = draw(tmp_path, "selection")
    assert "Unfinished: cifar100-10/lasem-tf-1. Means are over the finished seeds." in page.read_text()


def test_before_any_run_pages_can_be_drawn(tmp_path: Path) -> None:
    for name, recipe in RECIPES.items():
        keep_index(tmp_path, SMOKE, {name: recipe.panels(SMOKE)}, ENVIRONMENT)
        page, findings = draw(tmp_path, name)
        Outline(page.read_text())
        assert findings.verdict.startswith("No run")
    with pytest.raises(StorageError, match="recipe 'peek'"):
        draw(tmp_path, "peek")
    (tmp_path / "reproduce.json").write_text("[]")
    with pytest.raises(StorageError, match="Expected recipes by name"):
        draw(tmp_path, "peak")


@pytest.mark.parametrize("name", RECIPES)
def test_in_a_browser_figures_are_seen_and_tables_sort(drawn: Path, browser: list[str], name: str) -> None:
    page = drawn / f"{name}.html"
    num_figures, num_tables = check_page(browser, page, narrow=list(RECIPES).index(name) % 2 == 0)
    text = page.read_text()
    assert num_figures == text.count("<figure") > 0
    assert num_tables == len(re.findall("<table[^>]*sortable", text)) > 0
