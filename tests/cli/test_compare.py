"""``lasem compare`` as a person types it; what it decides is tested in tests/experiments/test_comparison.py."""

import time
from pathlib import Path

import pytest
from experiments.tiny import Fake
from filelock import FileLock
from forks import Forked

from lasem.cli import main
from lasem.cli.progress import ComparisonShown
from lasem.experiments.grid import Ended, Learned, Noted, Started

from .tiny import STREAM, Lines

OPTIONS = [*STREAM, "--training.epochs=2"]


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")


@pytest.mark.usefixtures("small")
def test_a_comparison_from_end_to_end(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "compared"
    words = ["compare", "--methods", "none,ewc", *OPTIONS, "--out", str(out), "--workers", "2"]
    assert main(words) == 0
    shown = capsys.readouterr()
    assert shown.out.splitlines()[-1] == f"Comparison: {out / 'comparison.html'}"
    assert "single-task" in shown.out
    assert "none" not in shown.out + shown.err
    assert "ewc" in shown.out
    assert f"Writing to {out}: 2 runs to go" in shown.err
    assert "2/2 " in shown.err
    assert "done in" in shown.err

    assert main(words) == 0
    again = capsys.readouterr()
    assert "0 runs to go, 2 finished already" in again.err
    assert again.out == shown.out

    (out / "comparison.html").unlink()
    assert main(["report", str(out)]) == 0
    assert "Comparison: " in capsys.readouterr().out
    assert (out / "comparison.html").exists()
    assert main(["report", str(out / "ewc-0")]) == 0

    assert main([*words, "--training.epochs=3"]) == 2
    assert "holds a run with other settings: training.epochs = 2 there, 3 here" in capsys.readouterr().err


def test_a_failed_run_is_named_at_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("lasem.experiments.comparison.ProcessPool", lambda: Fake(fail=["none-0", "ewc-0"]))
    assert main(["compare", "--methods", "none,ewc", *OPTIONS, "--out", str(tmp_path / "x")]) == 1
    shown = capsys.readouterr().err
    assert "lasem: 2 of 2 runs failed:" in shown
    assert "  ewc-0: it went wrong" in shown


def test_ctrl_c_ends_the_runs_and_says_how_to_go_on(tmp_path: Path) -> None:
    out = tmp_path / "compared"
    words = ["compare", "--methods", "ewc,none", "--stream=planted", "--training.epochs=100000", "--out", str(out)]
    process = Forked("-m", "lasem", *words, folder=tmp_path)
    records = out / "ewc-0/seeds/0/records.jsonl"
    while process.poll() is None and not records.exists():
        time.sleep(0.05)
    process.interrupt()
    done = process.ended(60)
    assert done.returncode == 130, done.stderr
    assert done.stderr.splitlines()[-1].endswith(f"go on with the same command: lasem {' '.join(words)}")
    assert "Traceback" not in done.stderr
    with FileLock(out / "ewc-0/.lock", timeout=5):  # nothing goes on behind it
        pass
    assert not (out / "none-0").exists()


def test_files_of_methods_and_settings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pool = Fake(makes=False)
    monkeypatch.setattr("lasem.experiments.comparison.ProcessPool", lambda: pool)
    (tmp_path / "methods.yaml").write_text(
        "- lasem-tf\n- {name: ewc, label: strong, method: {strength: 9}, training: {epochs: 7}}\n"
    )
    (tmp_path / "base.yaml").write_text("training: {epochs: 5}\nstream: {num_tasks: 2}\nseeds: [3]\n")
    words = ["--methods-file", str(tmp_path / "methods.yaml"), "--config", str(tmp_path / "base.yaml")]
    assert main(["compare", *words, "--methods", "none", "--out", str(tmp_path / "out"), "--quiet"]) == 0
    jobs = pool.jobs
    assert pool.names == ["lasem-tf-3", "strong-3", "none-3"]
    assert [job.config.training.epochs for job in jobs] == [5, 7, 5]
    assert jobs[0].config.sharing.name == "tf"
    assert jobs[1].config.to_plain()["method"]["strength"] == 9
    capsys.readouterr()

    assert main(["compare", *words, "--print-config"]) == 0
    (tmp_path / "printed.yaml").write_text(capsys.readouterr().out)
    assert main(["compare", "--methods-file", str(tmp_path / "printed.yaml"), "--print-config"]) == 0
    assert capsys.readouterr().out == (tmp_path / "printed.yaml").read_text()
    assert "label: strong" in (tmp_path / "printed.yaml").read_text()

    (tmp_path / "base.yaml").write_text("search: em\n")
    assert main(["compare", *words]) == 2
    assert "sets search; in a comparison each method has its own" in capsys.readouterr().err
    (tmp_path / "methods.yaml").write_text("lasem: {}\n")
    assert main(["compare", "--methods-file", str(tmp_path / "methods.yaml")]) == 2
    assert "Expected a list" in capsys.readouterr().err


def test_help_shows_the_settings_that_all_methods_have(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compare", "--help-all"]) == 0
    shown = capsys.readouterr().out
    assert "--training.epochs" in shown
    assert "--stream.num_tasks" in shown
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
