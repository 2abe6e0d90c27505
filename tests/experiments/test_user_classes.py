"""Classes of a user's own in one file, by name: the examples, killed and resumed, and what is refused in one line."""

import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from cli.tiny import STREAM
from forks import Forked
from learner.images import write_digits

from lasem.cli import main

from .tiny import records_of, without_report

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The current folder, with a module for each example and one that breaks; reports are not drawn."""
    shutil.copy(EXAMPLES / "05_your_own_search.py", tmp_path / "mine.py")
    shutil.copy(EXAMPLES / "06_your_own_method.py", tmp_path / "ours.py")
    (tmp_path / "bad.py").write_text("1 / 0\n")
    (tmp_path / "evil.py").write_text("open('imported', 'w').close()\nclass Search: pass\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    without_report(monkeypatch)
    monkeypatch.setattr("lasem.cli.run.print_result", lambda path: None)
    yield tmp_path
    forget_modules()


def forget_modules() -> None:
    """Let the next command import the user's modules anew, as another process would."""
    for name in ("mine", "ours", "evil"):
        sys.modules.pop(name, None)


@pytest.mark.parametrize(
    ("choice", "stored"),
    [
        (
            ["--search", "mine.MovingPrior", "--search.rate", "0.05", "--search.patience=500"],
            {"search": {"name": "mine.MovingPrior", "rate": 0.05, "patience": 500}},
        ),
        (["--method", "ours.FirstFeatures"], {"method": {"name": "ours.FirstFeatures"}}),
    ],
    ids=["search", "method"],
)
def test_a_killed_run_goes_on_to_the_same_records(choice: list[str], stored: dict[str, object], folder: Path) -> None:
    words = ["run", *STREAM, *choice, "--epochs=40", "--quiet", "--out"]
    killed = Forked("-m", "lasem", *words, "killed", folder=folder)
    killed.wait_for(folder / "killed/seeds/0/records.jsonl", '"task": "digits-1"')
    assert killed.ended(0).returncode != 0
    settings = yaml.safe_load((folder / "killed/config.yaml").read_text())
    assert {part: settings[part] for part in stored} == stored
    for rest in (["run", "--resume", "killed", "--quiet"], [*words, "whole"]):
        forget_modules()
        assert main(rest) == 0
    assert records_of(folder / "killed") == records_of(folder / "whole")


def test_processes_of_a_comparison_import_it(folder: Path) -> None:
    (folder / "methods.yaml").write_text(
        "- {name: lasem, label: moving, search: {name: mine.MovingPrior}}\n- ours.FirstFeatures\n"
    )
    words = ["compare", "--methods-file", "methods.yaml", *STREAM, "--epochs=2", "--workers=2", "--out=compared"]
    done = Forked("-m", "lasem", *words, folder=folder).ended(120)
    assert done.returncode == 0, done.stderr
    assert main(["run", *STREAM, "--search=mine.MovingPrior", "--epochs=2", "--out=one"]) == 0
    assert records_of(folder / "compared/moving-0") == records_of(folder / "one")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("--search mime.MovingPrior", "Expected a module mime for search 'mime.MovingPrior', in the current folder"),
        ("--search mine.MovingPrio", "mine.py). Did you mean 'MovingPrior'?"),
        ("--sharing mine.MovingPrior", "sharing must be a subclass of AbstractSharing; got mine.MovingPrior"),
        ("--search mine.MovingPrior --search.rte 1", "has no setting 'rte' (there are: rate, patience). Did you mean"),
        ("--search mine.MovingPrior --search.rate 2", "search.rate must be above 0 and at most 1; got 2.0"),
        ("--search lasem.search.AbstractSearch", "is not complete. It has no best, init, step."),
        ("--search bad.Search", "importing it gave ZeroDivisionError: division by zero."),
        ("--net mine.MovingPrior", "got the class MovingPrior"),
    ],
)
@pytest.mark.usefixtures("folder")
def test_a_mistake_is_one_line(words: str, said: str, lasem: Any) -> None:
    shown = lasem("run", *words.split(), "--print-config", code=2).err
    assert said in shown
    assert shown.count("\n") == 1


def test_a_models_folder_never_names_code_to_import(folder: Path) -> None:
    write_digits(folder / "low", (0, 1), 6)
    learn = ["learn", "model", "--train=low", "--epochs=1", "--quiet"]
    assert main([*learn, "--task=a", "--search=mine.MovingPrior"]) == 0
    index = folder / "model/config.json"
    index.write_text(index.read_text().replace("mine.MovingPrior", "evil.Search"))
    assert main([*learn, "--task=b"]) == 2
    assert main(["show", "model"]) == 0
    assert not (folder / "imported").exists()
