import io
from pathlib import Path

from rich.console import Console

from lasem.report import console_table
from lasem.report.console import shared_configuration

from .fake_run import write_run


def printed(run_dir: Path) -> str:
    console = Console(file=io.StringIO(), width=140)
    console.print(console_table(run_dir))
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_one_seed(one_seed: Path) -> None:
    text = printed(one_seed)
    assert "cifar-3" in text
    assert "Final / peak" in text
    assert "±" not in text
    assert "Unfinished" not in text


def test_several_seeds(three_seeds: Path) -> None:
    text = printed(three_seeds)
    assert "mean ± deviation of 3 seeds" in text
    assert text.count("±") > 12


def test_an_unfinished_run_says_so(killed: Path) -> None:
    text = printed(killed)
    assert "epoch 6" in text
    assert "Unfinished: 2 of 3 tasks learned, 'cifar-2' left after 6 epochs." in text


def test_names_are_not_markup(tmp_path: Path) -> None:
    assert "[red]bird[/red]" in printed(write_run(tmp_path, names=("[red]bird[/red]", "[/]"), num_epochs=2))


def test_seeds_may_choose_differently() -> None:
    assert shared_configuration(("ST", "ST")) == "ST"
    assert shared_configuration(("ST", "TT", "ST")) == "2 different"


def test_a_baseline_has_no_layers_to_show(tmp_path: Path) -> None:
    run_dir = write_run(tmp_path, num_epochs=2)
    assert "Layers" in printed(run_dir)
    (run_dir / "config.yaml").write_text("method: {name: ewc}\n")
    assert "Layers" not in printed(run_dir)
    assert "cifar-3" in printed(run_dir)
