"""``lasem reproduce``, its runs made in this process; workers are in tests/experiments/test_process_pool.py."""

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from experiments.tiny import Fake, without_report

from lasem.errors import ConfigError
from lasem.experiments import ExperimentConfig, grid
from lasem.experiments.grid import Job, Notify
from lasem.settings import from_yaml
from paper.recipe import Recipe
from paper.reproduce import RECIPES
from paper.streams import Scale

_TINY = """--stream planted --stream.num_tasks 2 --stream.train_per_class 3 --stream.valid_per_class 2
--stream.test_per_class 3 --stream.clearest 1 --training.epochs 2 --seeds 0 --quiet"""
TINY = _TINY.split()


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The runs that were made, by name."""
    names: list[str] = []

    class Backwards(Fake):
        """Another order with more workers."""

        def run(self, jobs: Sequence[Job], num_workers: int, notify: Notify) -> None:
            super().run(jobs[:: 1 if num_workers == 1 else -1], num_workers, notify)
            names.extend(self.names)

    monkeypatch.setattr("lasem.experiments.comparison.ProcessPool", Backwards)
    without_report(monkeypatch)
    return names


def test_recipes_share_runs_and_make_none_twice(made: list[str], here: Path, lasem: Any) -> None:
    shown = lasem("reproduce", "selection", *TINY, "--out", "out")
    assert made == [f"planted/lasem-{sharing}-0" for sharing in ("hps", "tf", "dfcnn")]
    assert "Layer 4" in shown.out
    assert "Page: out/selection.html" in shown.out
    text = (here / "out/selection.html").read_text()
    assert "lasem reproduce selection --stream planted" in text
    assert "planted (in the place of CIFAR-100, 10 tasks)" in text

    lasem("reproduce", "selection", *TINY, "--out", "out")
    assert len(made) == 3
    index = json.loads((here / "out/runs/planted/comparison.json").read_text())
    lasem("reproduce", "selection", *TINY, "--out", "again", "--workers", "2")
    assert made[3:] == made[2::-1]
    for name in ("lasem-hps-0", "lasem-dfcnn-0"):
        records = [here / out / f"runs/planted/{name}/seeds/0/records.jsonl" for out in ("out", "again")]
        assert records[0].read_bytes() == records[1].read_bytes()
    tables = [here / out / "selection/planted-layers-table.csv" for out in ("out", "again")]
    assert tables[0].read_bytes() == tables[1].read_bytes()

    before = text
    (here / "out/selection.html").unlink()
    assert "Page: out/selection.html" in lasem("report", "out").out
    assert "Transferred: " in (here / "out/selection.html").read_text()
    assert len((here / "out/selection.html").read_text()) == pytest.approx(len(before), abs=200)
    assert index["methods"] == ["lasem-hps", "lasem-tf", "lasem-dfcnn"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "Expected RECIPE, a recipe, or all"),
        (["brute"], "There is no recipe 'brute'.*Did you mean 'brute-force'"),
        (["peak", "--scale", "tiny"], "scale must be one of smoke, small, paper"),
        (["peak", "--preset", "paper"], "--scale paper has the authors' settings"),
        (["peak", "--stream.path", "x"], "--stream.path is a setting of --stream, which"),
        (
            ["peak", "--scale", "small", "--data", "nowhere"],
            "CIFAR-100 .* in nowhere/cifar100; there is no such",
        ),
        (["planted", "--stream", "digits"], "only stream planted has"),
        (["all", "--stream", "planted", "--stream.truth", "TT,SS"], "as many layers as the network has, 4; got TT,SS"),
        (["peak", "--data", "x"], "Scale smoke learns digits and reads no data: leave --data out"),
        (["peak", "--stream", "digits", "--download"], "--download is for the recipes' own streams"),
        (["peak", "--workers", "0"], "workers must be at least 1"),
        (["peak", "--bogus"], "There is no option --bogus"),
    ],
)
def test_mistakes(words: list[str], said: str, here: Path, lasem: Any) -> None:
    shown = lasem("reproduce", *words, code=2).err
    assert re.search(said, shown), shown
    assert "Traceback" not in shown
    assert not (here / "runs").exists()


def test_all_recipes_are_those_that_a_stream_can_serve(here: Path, monkeypatch: pytest.MonkeyPatch, lasem: Any) -> None:
    chosen: list[str] = []

    def reproduce(recipes: Sequence[Recipe], scale: Scale, *_: object, **__: object) -> None:
        chosen.extend(recipe.name for recipe in recipes if recipe.panels(scale))
        raise ConfigError("enough")

    monkeypatch.setattr("paper.cli.make_pages", reproduce)
    shown = lasem("reproduce", "all", "--stream", "digits", "--quiet", code=2).err
    assert chosen == [name for name in RECIPES if name != "planted"]
    assert "Recipe planted is left out: no other stream can take its place." in shown


def test_what_a_recipe_would_run_can_be_seen_before(here: Path, lasem: Any) -> None:
    shown = lasem("reproduce", "selection", *TINY, "--net.dropout", "0.5", "--print-config").out
    assert ", 3 methods, seeds 0\n# stream: standardise train, num_tasks 2, " in shown
    entries = from_yaml(shown, "shown", of_list=True)
    assert [entry["label"] for entry in entries] == ["lasem-hps", "lasem-tf", "lasem-dfcnn"]
    assert {entry["net"]["dropout"] for entry in entries} == {0.5}
    assert not list(here.iterdir())


@pytest.mark.usefixtures("made")
def test_a_stopped_grid_has_pages_of_what_is_there(here: Path, monkeypatch: pytest.MonkeyPatch, lasem: Any) -> None:
    whole = grid.run

    def stopped(config: ExperimentConfig, directory: Path, **options: Any) -> Path:
        if directory.name == "lasem-tf-0":
            raise KeyboardInterrupt
        return whole(config, directory, **options)

    monkeypatch.setattr("lasem.experiments.grid.run", stopped)
    lasem("reproduce", "selection", *TINY, "--out", "out", code=130)
    assert not (here / "out/selection.html").exists()
    lasem("report", "out")
    assert "Unfinished: planted/lasem-tf-0, planted/lasem-dfcnn-0." in (here / "out/selection.html").read_text()


def test_help_names_every_recipe(lasem: Any) -> None:
    shown = lasem("reproduce", "--help").out
    for name in RECIPES:
        assert f"  {name} " in shown
    assert "--data" in shown
