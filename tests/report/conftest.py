from pathlib import Path

import pytest

from lasem.report import write_report

from .fake_run import task_names, write_run


@pytest.fixture(scope="session")
def one_seed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run_dir = write_run(tmp_path_factory.mktemp("one") / "cifar-em")
    write_report(run_dir)
    return run_dir


@pytest.fixture(scope="session")
def three_seeds(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run_dir = write_run(tmp_path_factory.mktemp("three") / "cifar-em", num_seeds=3, names=task_names(3), num_epochs=8)
    write_report(run_dir)
    return run_dir


@pytest.fixture
def killed(tmp_path: Path) -> Path:
    """Four tasks were wanted; the third was cut off in its sixth epoch, and so was the last line."""
    run_dir = write_run(tmp_path / "killed", num_epochs=12)
    path = run_dir / "seeds" / "0" / "records.jsonl"
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    path.write_text("".join(lines[: 2 * 14 + 6]) + lines[40][:50], encoding="utf-8")
    return run_dir
