"""Classes of a user's own in one file, by name: the examples, killed and resumed, and what is refused in one line."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest
import yaml
from cli.tiny import STREAM
from forks import Forked

from .tiny import records_of

EXAMPLES = Path(__file__).parents[2] / "examples"


def lasem(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return Forked("-m", "lasem", *words, folder=folder).ended(120)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with both examples in one module."""
    shutil.copy(EXAMPLES / "05_your_own_search.py", tmp_path / "mine.py")
    shutil.copy(EXAMPLES / "06_your_own_method.py", tmp_path / "ours.py")
    return tmp_path


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
def test_a_run_that_is_killed_goes_on_to_the_same_records(
    choice: list[str], stored: dict[str, object], folder: Path
) -> None:
    words = ["run", *STREAM, *choice, "--epochs=60", "--quiet", "--out"]
    whole = lasem(folder, *words, "whole")
    assert whole.returncode == 0, whole.stderr
    killed = Forked("-m", "lasem", *words, "killed", folder=folder)
    records = folder / "killed/seeds/0/records.jsonl"
    until = time.monotonic() + 60
    while not (records.exists() and '"task": "digits-1"' in records.read_text()) and time.monotonic() < until:
        time.sleep(0.005)
    assert killed._process.pid
    os.kill(killed._process.pid, signal.SIGKILL)
    killed.ended(60)
    assert not (folder / "killed/report.html").exists()
    settings = yaml.safe_load((folder / "killed/config.yaml").read_text())
    assert {part: settings[part] for part in stored} == stored
    resumed = lasem(folder, "run", "--resume", "killed", "--quiet")
    assert resumed.returncode == 0, resumed.stderr
    assert records_of(folder / "killed") == records_of(folder / "whole")


def test_processes_of_a_comparison_import_it(folder: Path) -> None:
    (folder / "methods.yaml").write_text(
        "- {name: lasem, label: moving, search: {name: mine.MovingPrior}}\n- ours.FirstFeatures\n"
    )
    words = ["compare", "--methods-file", "methods.yaml", *STREAM, "--epochs=2", "--workers=2", "--out=compared"]
    done = lasem(folder, *words)
    assert done.returncode == 0, done.stderr
    assert lasem(folder, "run", *STREAM, "--search=mine.MovingPrior", "--epochs=2", "--out=one").returncode == 0
    assert records_of(folder / "compared/moving-0") == records_of(folder / "one")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("--search mime.MovingPrior", "Expected a module mime for search 'mime.MovingPrior', in the current folder"),
        ("--search mine.MovingPrio", "There is no MovingPrio in module mine. Did you mean 'MovingPrior'?"),
        ("--sharing mine.MovingPrior", "sharing must be a subclass of AbstractSharing; got mine.MovingPrior"),
        ("--search mine.MovingPrior --search.rte 1", "has no setting 'rte' (there are: rate, patience). Did you mean"),
        ("--search mine.MovingPrior --search.rate 2", "search.rate must be above 0 and at most 1; got 2.0"),
        ("--search lasem.search.AbstractSearch", "is not complete. It has no best, init, step."),
        ("--search bad.Search", "importing it gave ZeroDivisionError: division by zero."),
        ("--net mine.MovingPrior", "got the class MovingPrior"),
    ],
)
def test_a_mistake_is_one_line(words: str, said: str, folder: Path) -> None:
    (folder / "bad.py").write_text("1 / 0\n")
    done = lasem(folder, "run", *words.split(), "--print-config")
    assert done.returncode == 2
    assert said in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_models_folder_never_names_code_to_import(folder: Path) -> None:
    from learner.images import write_digits

    write_digits(folder / "low", (0, 1), 6)
    (folder / "evil.py").write_text("open('imported', 'w').close()\nclass Search: pass\n")
    learn = ["learn", "model", "--train=low", "--epochs=1", "--quiet"]
    done = lasem(folder, *learn, "--task=a", "--search=mine.MovingPrior")
    assert done.returncode == 0, done.stderr
    index = folder / "model/config.json"
    index.write_text(index.read_text().replace("mine.MovingPrior", "evil.Search"))
    assert lasem(folder, *learn, "--task=b").returncode == 2
    assert lasem(folder, "show", "model").returncode == 0
    assert not (folder / "imported").exists()
