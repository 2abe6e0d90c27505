"""Recipes: their grids, and their pages drawn from made-up records."""

import csv
import itertools
import json
import math
import re
from pathlib import Path
from typing import Any

import pytest
from chromium import check_page
from report.fake_run import ENVIRONMENT, make_records, write_seed
from report.pages import check_whole, contents

from lasem.errors import ConfigError, ShapeError, StorageError
from lasem.experiments import ExperimentConfig
from lasem.metrics import Run, load_run, statistic, summarise
from lasem.search import Exhaustive
from paper import published
from paper.architectures import statics
from paper.groups import GROUPS
from paper.planted import share_of_layers_found
from paper.reproduce import RECIPES, draw, drawn_recipes, keep_index, merge_methods
from paper.streams import SCALES, SEEDS, Scale

SMOKE = Scale(name="smoke", given={})


def write_fakes(directory: Path, name: str, leave_out: str = "") -> None:
    """Made-up runs of every method and seed of a recipe, and its index."""
    panels = RECIPES[name].panels(SMOKE)
    keep_index(directory, SMOKE, {name: panels}, ENVIRONMENT)
    methods = [(panel.stream.key, method) for panel in panels for method in panel.methods]
    for number, (key, method) in enumerate(methods):
        for seed in method.config.seeds:
            folder = directory / "runs" / key / f"{method.label}-{seed}"
            if folder.exists() or folder.name == leave_out:
                continue
            names = tuple(f"task-{index}" for index in range(3))
            records = make_records(seed + 7 * number, names, num_epochs=8 if name == "choice" else 4)
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
    panels = [panel for r in RECIPES.values() for panel in r.panels(Scale(name=scale, given={}, data="somewhere"))]
    for methods in merge_methods(panels).values():  # what two recipes share is the same
        for method in methods:
            assert (method.config.seeds, method.config.threads) == (SEEDS[scale], 1)
            assert method.config.preset == ("paper" if scale == "paper" else "default")
        assert ExperimentConfig.from_yaml(methods[0].config.to_yaml()) == methods[0].config


def test_grids_are_the_papers() -> None:
    of = {name: recipe.panels(Scale(name="paper", given={}, data="DATA")) for name, recipe in RECIPES.items()}
    plain = {panel.stream.key: panel.methods[0].config.to_plain() for panel in of["architectures"]}
    training = {key: p["training"] for key, p in plain.items()}
    assert {key: (t["epochs"], t["batch_size"], t["learning_rate_decay"]) for key, t in training.items()} == {
        "cifar100-10": (2000, 10, 1 / 4000),
        "office-home": (1000, 16, 1e-4),
        "stl10": (500, 10, 0.0),
    }
    assert training["office-home"]["learning_rate"] == 2e-5
    assert plain["cifar100-10"]["stream"]["path"] == "DATA/cifar100"
    assert len(of["architectures"][0].methods) == 1 + 3 * 8
    assert statics(4) == ("all", "top-1", "top-2", "top-3", "bottom-1", "bottom-2", "bottom-3", "alternating")
    assert [len(panel.methods) for panel in of["groups"]] == [5, 4]
    assert of["groups"][1].methods[0].config.to_plain()["stream"]["num_tasks"] == 40
    assert all(sum(sizes) == 17 for sizes in GROUPS.values())
    assert [len(sizes) for sizes in GROUPS.values()] == [4, 5, 6, 7]
    searches = {method.label: method.config.search for method in of["brute-force"][0].methods}
    assert searches["exhaustive-hps"] == Exhaustive(form="paper", first_task="none")
    assert searches["exhaustive-tf"] == Exhaustive(form="paper", first_task="all")
    assert searches["lasem-hps"].first_task == "search"
    stl10 = {method.label: method.config.to_plain() for method in of["architectures"][2].methods}
    assert {label: entry["net"]["hidden"] for label, entry in stl10.items() if label.startswith("all-")} == {
        "all-hps": None,
        "all-tf": [128],
        "all-dfcnn": None,
    }
    assert stl10["all-dfcnn"]["sharing"]["sizes"] == "stl-10"


def test_published_numbers_are_those_of_the_reference() -> None:
    reference = Path(__file__).parents[3] / "shared/reference/results.md"
    if not reference.exists():
        pytest.skip("needs the project's reference")
    lines = [line for line in reference.read_text().splitlines() if line.startswith("|") and "±" in line]
    rows = _table(Path(published.__file__).with_suffix(".csv"))
    typed = [cell for row in rows for cell in list(row.values())[3:] if cell]
    assert typed == [number for line in lines for number in re.findall(r"\d+\.\d+", line)]


def test_a_stream_of_ones_own_takes_the_recipes_place() -> None:
    small = {"train_per_class": 3, "valid_per_class": 2, "test_per_class": 3, "num_tasks": 2}
    given = {"stream": {"name": "planted", **small}, "training": {"epochs": 2}, "seeds": [4]}
    (panel,) = RECIPES["architectures"].panels(Scale(name="small", given={**given, "net": "cifar"}))
    assert (panel.stream.key, panel.stream.stands_for) == ("planted", "cifar100-10")
    assert [method.label for method in panel.methods[:3]] == ["none", "all-hps", "top-1-hps"]
    plain = panel.methods[1].config.to_plain()
    assert (plain["stream"]["name"], plain["training"]["epochs"], plain["seeds"]) == ("planted", 2, [4])
    (deep,) = RECIPES["groups"].panels(Scale(name="small", given=given))
    assert (deep.stream.key, deep.methods[0].config.net.name) == ("planted-resnet", "resnet")


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"stream": "digits"}, "only stream planted has; got stream digits"),
        ({"stream": {"name": "planted", "train_per_class": 50}}, "goes through 5, 20, 80, 320 training images a class"),
        ({"stream": {"name": "planted", "truth": ["TTS", "SST"]}}, "as the network has, 4; got TTS,SST"),
        ({"net": "resnet"}, "as many layers as the network has, 17; got TTSS,"),
    ],
)
def test_the_planted_stream_has_to_fit(given: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        RECIPES["planted"].panels(Scale(name="small", given=given))


@pytest.mark.parametrize("name", RECIPES)
def test_every_page_is_whole(drawn: Path, name: str) -> None:
    text = (drawn / f"{name}.html").read_text()
    outline = check_whole(drawn / f"{name}.html")
    assert outline.headings[0] == f"{RECIPES[name].title} (smoke test, images made up from digits)"
    assert outline.headings[-4:] == ["Runs", "Settings", "Environment", "Make it again"]
    assert {"table", "svg"} <= set(outline.tags)
    assert "lasem run --config &#39;my config.yaml&#39;" in text
    assert "Unfinished" not in text
    assert "the numbers say nothing of the paper" in text


def test_drawn_twice_pages_have_the_same_bytes(drawn: Path) -> None:
    before = contents(drawn)
    for name in ("brute-force", "planted"):
        draw(drawn, name)
    assert contents(drawn) == before
    assert drawn_recipes(drawn) == list(RECIPES)


def _runs(drawn: Path, panel: str, label: str) -> list[Run]:
    return [load_run(drawn / "runs" / panel / f"{label}-{seed}" / "seeds" / str(seed)) for seed in (0, 1)]


def _table(path: Path) -> list[dict[str, str]]:
    with path.open() as file:
        return list(csv.DictReader(file))


def test_numbers_are_those_of_the_runs(drawn: Path) -> None:
    rows = _table(drawn / "brute-force/cifar100-10-table.csv")
    assert [row["Mechanism, search"] for row in rows][:3] == ["HPS, LASEM", "HPS, brute force", "HPS, transfer-all"]
    runs = {label: _runs(drawn, "cifar100-10", f"{label}-hps") for label in ("lasem", "exhaustive", "all")}
    for row, (label, of) in zip(rows, runs.items(), strict=False):
        peak = statistic([summarise(run).peak_accuracy for run in of])
        assert float(row["Peak accuracy %"]) == 100 * peak.mean
        assert float(row["Peak accuracy % ±"]) == 100 * peak.deviation
        there = published.BRUTE_FORCE["cifar100-10", f"{label}-hps", "peak_accuracy"]
        assert float(row["published %"]) == pytest.approx(100 * there.mean)
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
    assert (rows[0]["p"], rows[1]["p, of"]) == ("", "6 pairs")
    assert "Mechanism, search ±" not in rows[0]


def test_a_table_has_every_number_of_a_column_in_its_unit(drawn: Path) -> None:
    seconds = statistic([summarise(run).seconds_training for run in _runs(drawn, "office-home", "den")]).mean
    row = _table(drawn / "selective/office-home-table.csv")[0]
    assert float(row["Time, 1000 s"]) == pytest.approx(seconds / 1000)
    assert float(row["published time"]) == 55.9
    assert f'data-number="{seconds / 1000}"' in (drawn / "selective.html").read_text()
    for row in _table(drawn / "peak/peak-table.csv"):
        assert 20 < float(row["Worst static %"]) <= float(row["Best static %"]) < 100
        assert f'data-number="{row["Worst static %"]}"' in (drawn / "peak.html").read_text()


def test_a_table_in_markdown_is_the_pages(drawn: Path) -> None:
    lines = (drawn / "brute-force/cifar100-10-table.md").read_text().splitlines()
    assert lines[0].startswith("| Mechanism, search | Peak accuracy % | published % |")
    assert (lines[1], len(lines)) == ("|---" + 6 * "|---:" + "|", 2 + 9)
    row = r"\| HPS, brute force \| 51\.\d ± \d\.\d \| 40\.4 ± 0\.3 \| .* \d seeds\) \| .* \(6 pairs\) \|"
    assert re.fullmatch(row, lines[3])


def test_regret_is_of_configurations_with_other_seeds(drawn: Path) -> None:
    stream = "ctrl-s-minus-same-tasks"
    letters = ["".join(c) for c in itertools.product("ST", repeat=4)]
    peaks = {c: [run.peak_accuracies.tolist() for run in _runs(drawn, stream, f"fixed-{c}")] for c in letters}
    regrets, claims = [], []
    for seed, run in enumerate(_runs(drawn, stream, "lasem-hps")):
        for task in run.tasks[1:]:
            there = {c: peaks[c][1 - seed][task.index] for c in letters}
            regrets.append(max(there.values()) - there[task.configuration])
            weighed = [epoch for epoch in run.epochs(task.task) if epoch.num_evaluated > 1]
            if weighed:
                claims.append(weighed[-1].probabilities[task.configurations.index(task.configuration)])
    row = _table(drawn / f"choice/{stream}-table.csv")[0]
    found = statistic(regrets)
    assert row["Search"] == "LASEM"
    assert float(row["Regret"]) == pytest.approx(100 * found.mean)
    assert float(row["Regret ±"]) == pytest.approx(100 * found.deviation)
    row = _table(drawn / f"choice/{stream}-probabilities.csv")[0]
    assert claims
    assert float(row["q of the choice %"]) == pytest.approx(100 * statistic(claims).mean)


def test_every_seed_learns_the_same_tasks_where_choices_are_judged() -> None:
    for panel in RECIPES["choice"].panels(Scale(name="small", given={"stream_seed": 5}, data="DATA")):
        configs = {method.config.search: method.config for method in panel.methods}
        assert len(configs) == len(panel.methods) == 16 + 9
        assert {config.stream_seed for config in configs.values()} == {5}
        assert panel.methods[0].config.to_plain()["stream"]["path"] == "DATA/cifar100"
    with pytest.raises(ConfigError, match="at most 6 layers"):
        RECIPES["choice"].panels(Scale(name="smoke", given={"stream": "digits", "net": "resnet"}))


def test_planted_layers_are_counted_against_the_settings(drawn: Path) -> None:
    truth = ("TTSS", "SSTT")  # of the second and the third task
    shares = []
    for run in _runs(drawn, "planted-16", "darts-hps"):
        chosen = "".join(task.configuration for task in run.tasks[1:])
        shares.append(sum(c == t for c, t in zip(chosen, "".join(truth), strict=True)) / 8)
    rows = _table(drawn / "planted/layers-found-table.csv")
    row = next(row for row in rows if next(iter(row.values())) == "DARTS, 16 images")
    assert float(row["All layers %"]) == pytest.approx(100 * sum(shares) / 2)
    points = _table(drawn / "planted/layers-found.csv")
    assert any(float(point["mean"]) == pytest.approx(sum(shares) / 2) for point in points if point["x"] == "16")


@pytest.mark.parametrize(("kinds", "share"), [("TS", 5 / 8), ("T", 2 / 3), ("S", 3 / 5)])
def test_shares_of_layers_found_by_hand(kinds: str, share: float) -> None:
    chosen, truth = ["TTSS", "STTS"], ["TSSS", "TTSS"]
    assert share_of_layers_found(chosen, truth, kinds) == share
    assert share_of_layers_found(truth, truth, kinds) == 1
    assert math.isnan(share_of_layers_found([], [], kinds))
    for short in (["TS"], ["TSS", "T"]):
        with pytest.raises(ShapeError, match="as deep as the network"):
            share_of_layers_found(short, ["TSS"], kinds)


def test_what_is_unfinished_is_named(tmp_path: Path) -> None:
    write_fakes(tmp_path, "selection", leave_out="lasem-tf-1")
    page, _ = draw(tmp_path, "selection")
    assert "Unfinished: cifar100-10/lasem-tf-1. Means are over the finished seeds." in page.read_text()


def test_before_any_run_pages_can_be_drawn(tmp_path: Path) -> None:
    for name, recipe in RECIPES.items():
        keep_index(tmp_path, SMOKE, {name: recipe.panels(SMOKE)}, ENVIRONMENT)
        page, findings = draw(tmp_path, name)
        check_whole(page)
        assert findings.verdict.startswith("No run")
    with pytest.raises(StorageError, match="recipe 'peek'"):
        draw(tmp_path, "peek")
    (tmp_path / "reproduce.json").write_text("[]")
    with pytest.raises(StorageError, match="Expected recipes by name"):
        draw(tmp_path, "peek")


@pytest.mark.parametrize("name", RECIPES)
def test_in_a_browser_figures_are_seen_and_tables_sort(drawn: Path, browser: list[str], name: str) -> None:
    page = drawn / f"{name}.html"
    num_figures, num_tables = check_page(browser, page, narrow=list(RECIPES).index(name) % 2 == 0)
    text = page.read_text()
    assert num_figures == text.count("<figure") > 0
    assert num_tables == len(re.findall("<table[^>]*sortable", text)) > 0
