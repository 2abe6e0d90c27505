"""Files of the current folder that have names of modules: no command and no process of its runs imports them."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from learner.images import write_digits

SETTINGS = {"num_tasks": 2, "train_per_class": 3, "valid_per_class": 2, "test_per_class": 3}
STREAM = ["--stream=planted", *(f"--stream.{name}={value}" for name, value in SETTINGS.items()), "--threads=1"]
PLANTED = ("random", "torch", "numpy", "lasem", "paper", "tempfile", "yaml", "jinja2", "matplotlib", "ray", "selectors")
PROGRAM = """
import sys
from lasem.cli import main
for words in sys.argv[1:]:
    assert main(words.split()) == 0, words
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in PLANTED:
        (tmp_path / f"{name}.py").write_text(f"open('ran-{name}', 'w').close()\n")
    shutil.copy(Path(__file__).parents[2] / "examples/05_your_own_search.py", tmp_path / "mine.py")
    (tmp_path / "methods.yaml").write_text("[none, {name: lasem, label: own, search: mine.MovingPrior}]")
    write_digits(tmp_path / "low", (0, 1), 6)
    return tmp_path


COMPARE = "compare --methods-file=methods.yaml --out=c --workers=2 --epochs=1 --quiet"
OTHERS = [
    f"run --search=mine.MovingPrior --out=r --epochs=1 --quiet {' '.join(STREAM)}",
    f"reproduce selection --print-config {' '.join(STREAM[:-1])}",  # its runs are as those of compare
    "report c",
    "learn m --task=low --train=low --epochs=1 --quiet",
    "predict m --task=low low",
]


@pytest.mark.parametrize("ray", [False, True], ids=["processes", "ray"])
def test_planted_modules_are_not_imported_and_those_named_are(folder: Path, ray: bool) -> None:
    if ray:
        pytest.importorskip("ray", exc_type=ImportError)
    compare = " ".join([COMPARE, *STREAM, *(["--ray=local"] if ray else [])])
    words = [sys.executable, "-P", "-c", PROGRAM, compare, *([] if ray else OTHERS)]  # -P: as the command lasem starts
    done = subprocess.run(words, cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert not list(folder.glob("ran-*"))
