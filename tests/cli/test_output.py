"""What commands print: names that would move a cursor, terminals that are narrow, outputs that cannot be written."""

import os
import pty
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from learner.images import write_digits
from rich.table import Table

from lasem.cli.progress import Bar, Log
from lasem.cli.run import print_table
from lasem.report.frame import Cell, Column, Frame

NAME = "[red]\x1b[31m\u202e"
SHOWN = r"[red]\x1b[31m\u202e"


@pytest.mark.parametrize(
    ("redirection", "said"),
    [
        (">&-", ""),
        ("2>&-", ""),
        (">/dev/full", "lasem: Cannot use standard input or output: No space left on device.\n"),
        ("| true", ""),
        ("2>&1 | true", ""),
    ],
)
@pytest.mark.parametrize("words", ["--help", "nothing"])
def test_an_output_that_takes_nothing_gives_no_traceback(words: str, redirection: str, said: str) -> None:
    shell = f"{sys.executable} -m lasem {words} {redirection}"
    done = subprocess.run(["bash", "-c", shell], capture_output=True, text=True)
    mistake = "" if words == "--help" or "2>" in redirection else "There is no command"
    assert mistake in done.stderr
    assert done.stderr.count("\n") <= 1
    if words == "--help":
        assert done.stderr in ("", said)


def test_processes_inherit_what_was_closed() -> None:
    """Else the processes of a run would have pipes in the place of outputs."""
    code = "import os; from lasem.cli import main; main(['--version']); assert all(map(os.get_inheritable, range(3)))"
    closed = ["bash", "-c", f'{sys.executable} -c "{code}" <&- >&- 2>&-']
    assert subprocess.run(closed, check=False).returncode == 0


def test_a_current_folder_that_was_removed_is_named(here: Path, lasem: Any) -> None:
    here.rmdir()
    for words in ("show model", "export /model --task x --format onnx"):
        assert "The current folder was removed." in lasem(*words.split(), code=2).err


@pytest.mark.parametrize("width", ["1", "0", "x"])
def test_help_in_any_terminal(width: str, monkeypatch: pytest.MonkeyPatch, lasem: Any) -> None:
    monkeypatch.setenv("COLUMNS", width)
    assert "usage: lasem learn MODEL" in lasem("learn", "--help").out


def frame() -> Frame:
    headings = ("Peak %", "Final / peak", "Layers transferred %", "Parameters", "Parameters a task", "Training time")
    texts = ("62.3", "0.973", "55.0", "4,197,234", "197,234", "12 min 23 s")
    cells = [Cell(text=text, below="± 0.4" if text == "62.3" else "") for text in texts]
    columns = (Column(heading="Method", numeric=False), *(Column(heading=heading) for heading in headings))
    return Frame(columns=columns, rows=((Cell(text=NAME), *cells), (Cell(text="lasem" * 8), *cells)))


@pytest.mark.parametrize("width", [130, 80, 70, 60, 30])
def test_no_terminal_is_too_narrow_for_a_number(
    width: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    monkeypatch.setenv("COLUMNS", str(width))
    print_table(frame().console("title", "what it says below"))
    shown = re.sub(r"\x1b\[\d*m", "", whole := capsys.readouterr().out)
    assert max(map(len, shown.splitlines())) <= width
    assert "…" not in shown
    for word in ("Parameters", "transferred", "4,197,234", "0.973", "62.3"):
        assert word in shown
    assert "\x1b[31m" not in whole


def test_a_pipe_takes_a_table_as_wide_as_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    table = Table()
    table.add_column("heading " * 30)
    print_table(table)
    assert ("heading " * 30).strip() in capsys.readouterr().out


@pytest.mark.parametrize("kind", ["log", "bar"])
def test_progress_shows_names_as_text(kind: str, capsys: pytest.CaptureFixture[str]) -> None:
    from rich.console import Console

    shown = Log() if kind == "log" else Bar(Console(stderr=True, width=80))
    shown.line(f"task {NAME}")
    shown.close()
    assert capsys.readouterr().err.strip() == f"task {SHOWN}"


def test_names_of_strangers_are_text_for_terminal_shell_and_spreadsheet(here: Path, lasem: Any) -> None:
    write_digits(here / "photos", (0, 1), 6)
    (here / "photos/digit-0").rename(here / f"photos/=1+{NAME}")
    (here / "photos/digit-1").rename(here / "photos/-1")
    lasem("learn", "m", "--task=t", "--train=photos", "--epochs=1", "--threads=1", "--quiet")
    images = [*(here / "photos").rglob("*.png")]
    images[0].rename(here / "=x.png")
    table = lasem("predict", "m", "--task=t", "photos", "=x.png").out
    assert {line.split(",")[1] for line in table.splitlines()[1:]} <= {f"'=1+{SHOWN}", "-1"}
    assert "'=x.png," in table
    for shown in (table, lasem("evaluate", "m", "photos", "--task=t").out, lasem("show", "m").out):
        assert "\x1b" not in shown
        assert "\u202e" not in shown
    error = lasem("predict", "m", "--task", NAME, "photos", code=2).err
    assert f"Task '{SHOWN}' has not been learned" in error
    lasem("run", "--out", "a $(b)", "--print-config")
    (here / "a $(b)").mkdir()
    (here / "a $(b)/config.yaml").touch()
    assert "--resume 'a $(b)'" in lasem("run", "--out", "a $(b)", code=2).err


def test_a_pseudo_terminal_of_80_columns_shows_whole_numbers(here: Path, monkeypatch: Any, lasem: Any) -> None:
    write_digits(here / "photos", (0, 1), 6)
    lasem(
        "learn", "m", "--task", "a-rather-long-name-of-a-task", "--train=photos", "--epochs=1", "--threads=1", "--quiet"
    )
    for width in ("80", "60"):
        monkeypatch.setenv("COLUMNS", width)
        main, terminal = pty.openpty()
        with os.fdopen(terminal, "w") as opened, monkeypatch.context() as patch:
            patch.setattr("sys.stdout", opened)
            lasem("show", "m")
            opened.flush()
            shown = os.read(main, 100_000).decode()
        os.close(main)
        assert "…" not in shown
        assert "parameters" in shown
