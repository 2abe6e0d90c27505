"""``lasem compare`` as a person types it; what it decides is tested in tests/experiments/test_comparison.py."""

from pathlib import Path
from typing import Any

import pytest
from experiments.tiny import Fake, without_report
from filelock import FileLock
from forks import Forked

from lasem.cli.progress import ComparisonShown
from lasem.experiments.grid import Ended, Learned, Noted, Started

from .tiny import STREAM, Lines

OPTIONS = [*STREAM, "--training.epochs=2"]


def test_a_comparison_from_end_to_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lasem: Any) -> None:
    """In one process; by the command in several in test_isolation.py."""
    monkeypatch.setattr("lasem.experiments.comparison.ProcessPool", Fake)
    without_report(monkeypatch)
    out = tmp_path / "compared"
    words = ["compare", "--methods", "none,ewc", *OPTIONS, "--out", str(out), "--workers", "2"]
    shown = lasem(*words)
    assert shown.out.splitlines()[-1] == f"Comparison: {out / 'comparison.html'}"
    assert "single-task" in shown.out
    assert "none" not in shown.out + shown.err
    assert "ewc" in shown.out
    assert f"Writing to {out}: 2 runs to go" in shown.err
    assert "2/2 " in shown.err
    assert "done in" in shown.err

    again = lasem(*words)
    assert "0 runs to go, 2 finished already" in again.err
    assert again.out == shown.out

    (out / "comparison.html").unlink()
    assert "Comparison: " in lasem("report", str(out)).out
    assert (out / "comparison.html").exists()
    lasem("report", str(out / "ewc-0"))

    shown = lasem(*words, "--training.epochs=3", code=2).err
    assert "holds a run with other settings: training.epochs = 2 there, 3 here" in shown


def test_a_failed_run_is_named_at_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lasem: Any) -> None:
    monkeypatch.setattr("lasem.experiments.comparison.ProcessPool", lambda: Fake(fail=["none-0", "ewc-0"]))
    shown = lasem("compare", "--methods", "none,ewc", *OPTIONS, "--out", str(tmp_path / "x"), code=1).err
    assert "lasem: 2 of 2 runs failed:" in shown
    assert "  ewc-0: it went wrong" in shown


def test_ctrl_c_ends_the_runs_and_says_how_to_go_on(tmp_path: Path) -> None:
    out = tmp_path / "compared"
    words = ["compare", "--methods", "ewc,si", "--stream=planted", "--training.epochs=100000", "--out", str(out)]
    process = Forked("-m", "lasem", *words, folder=tmp_path)
    process.wait_for(out / "ewc-0/seeds/0/records.jsonl")
    process.interrupt()
    done = process.ended(60)
    assert done.returncode == 130, done.stderr
    assert done.stderr.splitlines()[-1].endswith(f"go on with the same command: lasem {' '.join(words)}")
    assert "Traceback" not in done.stderr
    with FileLock(out / "ewc-0/.lock", timeout=5):  # nothing goes on behind it
        pass
    assert not (out / "si-0").exists()


def test_files_of_methods_and_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lasem: Any) -> None:
    pool = Fake(makes=False)
    monkeypatch.setattr("lasem.experiments.comparison.ProcessPool", lambda: pool)
    (tmp_path / "methods.yaml").write_text(
        "- lasem-tf\n- {name: ewc, label: strong, method: {strength: 9}, training: {epochs: 7}}\n"
    )
    (tmp_path / "base.yaml").write_text("training: {epochs: 5}\nstream: {num_tasks: 2}\nseeds: [3]\n")
    words = ["--methods-file", str(tmp_path / "methods.yaml"), "--config", str(tmp_path / "base.yaml")]
    lasem("compare", *words, "--methods", "none", "--out", str(tmp_path / "out"), "--quiet")
    jobs = pool.jobs
    assert pool.names == ["none-3", "lasem-tf-3", "strong-3"]  # what reports refer to comes first
    assert [job.config.training.epochs for job in jobs] == [5, 5, 7]
    assert (jobs[1].config.sharing.name, jobs[2].config.to_plain()["method"]["strength"]) == ("tf", 9)

    (tmp_path / "printed.yaml").write_text(lasem("compare", *words, "--print-config").out)
    assert (
        lasem("compare", "--methods-file", str(tmp_path / "printed.yaml"), "--print-config").out
        == (tmp_path / "printed.yaml").read_text()
    )
    assert "label: strong" in (tmp_path / "printed.yaml").read_text()

    (tmp_path / "base.yaml").write_text("search: em\n")
    assert "sets search; in a comparison each method has its own" in lasem("compare", *words, code=2).err
    (tmp_path / "methods.yaml").write_text("lasem: {}\n")
    assert "Expected a list" in lasem("compare", "--methods-file", str(tmp_path / "methods.yaml"), code=2).err


def test_help_shows_the_settings_that_all_methods_have(lasem: Any) -> None:
    shown = lasem("compare", "--help-all").out
    assert "--training.epochs" in shown
    assert "--stream.num_tasks" in shown
    assert "--stream-seed N" in shown
    assert "--sharing" not in shown
    assert "--search" not in shown


def test_the_rest_is_estimated_from_runs_of_the_same_method(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr("lasem.cli.progress.time.monotonic", lambda: now[0])
    lines = Lines()
    shown = ComparisonShown(lines, Path("x"), ["lasem"], num_workers=1)
    shown.comparison_starts(Path("x"), ["a-0", "b-0", "a-1", "b-1"], ["c-0"])
    shown.notify(Started("a-0"))
    shown.notify(Learned("a-0", 1, 2))
    assert lines.moments[-1] == ("0 of 4 runs: a-0 50 %", 0.125)
    now[0] = 100.0
    shown.notify(Ended("a-0", 100.0, None))
    assert lines.lines == [
        "Writing to x: 4 runs to go, 1 finished already",
        "1/4 a-0: done in 1:40 min (1:40 min elapsed, about 5:00 min left)",
    ]
    shown.notify(Started("b-0"))
    now[0] = 110.0
    shown.notify(Ended("b-0", 10.0, None))
    assert lines.lines[-1].endswith("(1:50 min elapsed, about 1:50 min left)")
    shown.notify(Noted("a-1", "torch has changed"))
    assert lines.lines[-1] == "a-1: torch has changed"
    shown.notify(Started("a-1"))
    shown.notify(Ended("a-1", 1.0, "broken"))
    assert "3/4 a-1: failed: broken" in lines.lines[-1]
