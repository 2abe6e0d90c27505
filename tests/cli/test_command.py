"""The real command, in processes of its own where the process matters."""

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from experiments.tiny import records_of, tiny, without_report
from forks import Forked

from lasem import Learner, TrainingConfig
from lasem.cli import main
from lasem.cli.choices import RUN
from lasem.experiments import run

from .tiny import OPTIONS, STREAM

ENVIRONMENT = {**os.environ, "COLUMNS": "80"}


def test_version(lasem: Any) -> None:
    assert lasem("--version").out.startswith("lasem 0.")


def test_a_run_from_end_to_end(tmp_path: Path, lasem: Any) -> None:
    out = tmp_path / "run"
    shown = lasem("run", *OPTIONS, "--out", str(out))
    assert shown.out.splitlines()[-1] == f"Report: {out / 'report.html'}"
    assert "digits-1" in shown.out
    assert f"Writing to {out}" in shown.err
    assert "digits-0: " in shown.err
    assert "peak" in shown.err
    assert records_of(out) == records_of(run(tiny(), tmp_path / "python"))

    (out / "report.html").unlink()
    lasem("report", str(out))
    assert (out / "report.html").exists()

    shown = lasem("run", "--resume", str(out), "--quiet")
    assert "finished already" in shown.err
    assert "Report: " in shown.out


def test_a_printed_config_runs(tmp_path: Path, lasem: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    without_report(monkeypatch)
    options = [*OPTIONS, "--sharing", "tf", "--preset", "paper", "--search", "em", "--training.epochs", "2"]
    (tmp_path / "my.yaml").write_text(lasem("run", *options, "--print-config").out)
    lasem("run", *options, "--out", str(tmp_path / "a"), "--quiet")
    lasem("run", "--config", str(tmp_path / "my.yaml"), "--out", str(tmp_path / "b"), "--quiet")
    assert records_of(tmp_path / "a") == records_of(tmp_path / "b")
    assert (tmp_path / "a/config.yaml").read_text() == (tmp_path / "my.yaml").read_text()


def _printed(lasem: Any, *words: str) -> list[str]:
    return [line.strip() for line in lasem("run", *words, "--print-config").out.splitlines()]


def test_options_override_file_and_preset_in_any_order(tmp_path: Path, lasem: Any) -> None:
    for words in (["--training.epochs", "7", "--preset", "paper"], ["--preset=paper", "--training.epochs=7"]):
        lines = _printed(lasem, *words)
        assert "epochs: 7" in lines
        assert "optimiser: rmsprop-tf" in lines
    file = tmp_path / "my.yaml"
    file.write_text("sharing: {name: dfcnn, sizes: stl-10}\ntraining: {epochs: 5, precision: bf16}\nseeds: [1, 2]\n")
    lines = _printed(lasem, "--config", str(file), "--sharing.filter_size", "5", "--seeds", "3")
    assert {"sizes: stl-10", "filter_size: 5", "epochs: 5", "precision: bf16", "seeds: [3]"} <= set(lines)
    assert "precision: float32" in _printed(lasem, "--config", str(file), "--precision", "float32")
    assert "sizes: stl-10" not in _printed(lasem, "--config", str(file), "--sharing", "hps")


def test_a_method_overrides_what_a_file_says_of_others(tmp_path: Path, lasem: Any) -> None:
    file = tmp_path / "my.yaml"
    file.write_text("sharing: {name: tf, max_rank: 7}\nsearch: {name: em, commit_share: 0.3}\n")
    assert {"max_rank: 7", "configuration: none"} <= set(_printed(lasem, "--config", str(file), "--method", "none"))
    assert {"max_rank: 7", "commit_share: 0.3"} <= set(_printed(lasem, "--config", str(file), "--method", "lasem"))
    lines = _printed(lasem, "--config", str(file), "--method", "ewc", "--method.strength", "3")
    assert {"name: ewc", "strength: 3.0"} <= set(lines)
    assert "sharing:" not in lines
    file.write_text("method: {name: ewc, strength: 3}\n")
    assert "strength: 3.0" in _printed(lasem, "--config", str(file))
    assert "name: em" in _printed(lasem, "--config", str(file), "--method", "lasem")
    assert "'ewc' does not use search" in lasem("run", "--config", str(file), "--search", "em", code=2).err


def test_a_baseline_from_end_to_end(tmp_path: Path, lasem: Any) -> None:
    out = tmp_path / "run"
    options = [*STREAM, "--training.epochs=3", "--method", "ewc", "--method.strength", "3"]
    shown = lasem("run", *options, "--out", str(out))
    assert "digits-1" in shown.out
    assert "Layers" not in shown.out
    assert "TTTT" not in shown.err
    assert "peak" in shown.err
    page = (out / "report.html").read_text()
    assert "How the search decided" not in page
    assert "Layers that each task transfers" not in page
    assert "Accuracy over time" in page
    assert Learner.load(out / "seeds/0/model").task_names == ("digits-0", "digits-1")
    assert "leave those options out" in lasem("run", "--resume", str(out), "--method", "lasem", code=2).err
    assert "finished already" in lasem("run", "--resume", str(out), "--quiet").err


def test_help_shows_the_settings_of_what_is_chosen(lasem: Any) -> None:
    shown = lasem("run", "--help-all").out
    assert "--search.commit_share" in shown
    assert "Images in a mini-batch" in shown
    shown = lasem("run", "--stream", "parquet", "--search", "fixed", "--preset", "paper", "--help-all").out
    assert "--stream.image_column" in shown
    assert "--search.commit_share" not in shown
    assert "default: 2000" in shown
    shown = lasem("run", "--method", "ewc", "--help-all").out
    assert "--method.strength" in shown
    assert "method ewc: how" in " ".join(shown.split())
    assert "--search" not in shown.replace("lasem run --search", "")
    assert "--training.specific_start" not in shown


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("rum", "Did you mean 'run'"),
        ("--verson", "Did you mean '--version'"),
        ("run --epoch 5", "Did you mean '--epochs'"),
        ("run --training.epoch 5", "Did you mean 'epochs'"),
        ("run --stream parket", "Did you mean 'parquet'"),
        ("run --stream parquet", "needs a value for 'path'"),
        ("run --stream parquet --stream.path nowhere", "nowhere"),
        ("run --seeds 0 1 2", "0,1,2"),
        ("run --seeds 0,a", "got 'a'"),
        ("run --training.optimiser admm", "Did you mean 'adam'"),
        ("run --training.learning_rate -1", "training.learning_rate must be above 0; got -1"),
        ("run --search fixed --search.likelihood mean", "It is a setting of search em, deep-em"),
        ("run --method ewx", "Did you mean 'ewc'"),
        ("run --method ewc --search em", "'ewc' does not use search; got search 'em'"),
        ("run --method ewc --sharing=tf", "'ewc' does not use sharing; got sharing 'tf'"),
        ("run --method ewc --sharing.max_rank 3", "'ewc' does not use sharing; got sharing max_rank = 3"),
        ("run --method ewc --training.specific_start fresh", "'ewc' does not use training.specific_start"),
        ("run --method ewc --method.strenth 3", "Did you mean 'strength'"),
        ("run --method ewc --method.strength -3", "method.strength must be at least 0"),
        ("run --method all --search em", "'all' means search fixed; got search em"),
        ("run --method all --search.configuration none", "'all' means search.configuration all"),
        ("run --method all-tf --sharing hps", "'all-tf' means sharing tf"),
        ("run --method.strength 3", "It is a setting of method ewc"),
        ("run --search.likelyhood mean", "Did you mean 'likelihood'"),
        ("run --sharing.x 1", "sharing 'hps' has no setting 'x'"),
        ("run --net.pretrained true", "It is a setting of net timm:NAME, hf:NAME."),
        ("run --net resnet50", "resnet-padded, timm:NAME, hf:NAME; got 'resnet50'"),
        ("learn --pretrained true", "--net timm:NAME, with --net.weights FILE or --net.pretrained true"),
        ("learn --backbone resnet50", "--net timm:NAME, with"),
        ("run --search.groups 1,2", "add up to"),
        ("run --device nowhere", "Expected a device that is there"),
        ("run --config nowhere.yaml", "nowhere.yaml"),
        ("run --config training.yaml", "Expected a YAML file of settings at training.yaml"),
        ("run --config /dev/zero", "Expected a YAML file of settings at /dev/zero; it is no file."),
        ("run --sharing dfcnn --sharing.filter_size 1025", "sharing.filter_size must be at least 1 and at most 1024"),
        ("run --method gated --method.hidden 3000000000", "method.hidden must be at least 1 and at most 1048576"),
        ("run --preset papr", "Did you mean 'paper'"),
        ("run --out", "--out needs a value"),
        ("predict m --task a --text b --text c", "--text is given twice, as b and c; leave one out"),
        ("run parquet", "got 'parquet'"),
        ("run --resume nowhere", "there is no folder nowhere"),
        ("run --resume a --out b", "--out"),
        ("report", "got none"),
        ("report nowhere", "nowhere"),
        ("report --quite", "There is no option --quite"),
        ("compare", "--methods or --methods-file"),
        ("compare --methods lasem,ewx", "Did you mean 'ewc'"),
        ("compare --methods lasem,lasem", "is there twice"),
        ("compare --methods lasem --sharing tf", "--sharing is an option of lasem run"),
        ("compare --methods lasem --search.commit_share=0.5", "--search.commit_share is an option of lasem run"),
        ("compare --methods ewc --method.strength 3", "--methods-file"),
        ("compare --methods ewc --training.specific_start fresh", "'ewc' does not use training.specific_start"),
        ("compare --methods ewc --training.epoch 3", "Did you mean 'epochs'"),
        ("compare --methods ewc --workers 0", "workers must be at least 1"),
        ("compare --methods ewc --workers x", "--workers must be a whole number"),
        ("compare --methods ewc --seeds 0 1", "0,1,2"),
        ("compare --methods ewc,top-9", "top-9"),
        ("compare --methods-file nowhere.yaml", "nowhere.yaml"),
        ("compare --methods ewc --stream parquet --stream.path nowhere", "nowhere"),
        ("report --resume", "--resume"),
        ("comapre", "Did you mean 'compare'"),
        ("run --precison bf16", "Did you mean '--precision'?"),
        ("run --precision fp16", "training.precision must be one of float32, tf32, bf16; got 'fp16'"),
    ],
)
def test_a_mistake_is_answered(words: str, said: str, here: Path, lasem: Any) -> None:
    shown = lasem(*words.split(), code=2)
    assert said in shown.err
    assert shown.err.startswith("lasem: ")
    assert (shown.err.count("\n"), shown.out) == (1, "")
    assert list(here.iterdir()) == []


def test_a_preset_does_not_fight_a_file(tmp_path: Path, lasem: Any) -> None:
    (tmp_path / "my.yaml").write_text(tiny().to_yaml())
    shown = lasem("run", "--config", str(tmp_path / "my.yaml"), "--preset", "paper", code=2).err
    assert "names the preset 'default'" in shown


def test_resume_takes_no_other_settings(tmp_path: Path, lasem: Any) -> None:
    (tmp_path / "config.yaml").write_text(tiny().to_yaml())
    changes = {
        "--training.epochs 4": "training.epochs = 3 there, 4 here",
        "--sharing tf": "sharing.name = hps",
        "--seeds 1": "",
    }
    for words, said in changes.items():
        assert said in (shown := lasem("run", "--resume", str(tmp_path), *words.split(), code=2).err)
        assert "leave those options out" in shown


def test_an_unexpected_error_is_a_failure_without_traceback(monkeypatch: pytest.MonkeyPatch, lasem: Any) -> None:
    def broken(run: Path) -> int:
        raise ZeroDivisionError("division by zero")

    monkeypatch.setattr("lasem.cli.run.report", broken)
    shown = lasem("report", "x", code=1).err
    assert "unexpected ZeroDivisionError" in shown
    assert "Traceback" not in shown
    assert "Traceback" in lasem("report", "x", "--debug", code=1).err


@pytest.mark.parametrize("sizes", [(2**50,), (2**40, 2**40), ()])
def test_memory_that_is_not_there_is_named(sizes: tuple[int, ...], monkeypatch: Any, lasem: Any) -> None:
    def large(folder: Path) -> int:
        torch.empty(sizes)
        raise MemoryError

    monkeypatch.setattr("lasem.cli.run.report", large)
    said = lasem("report", "x", code=1).err
    assert (said.count("\n"), said.startswith("lasem: Expected enough memory; ")) == (1, True), said


def test_writing_that_fails_is_a_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lasem: Any) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("lasem.files.os.replace", full)
    words = ["run", *OPTIONS, "--quiet", "--out"]
    assert "No space left" in lasem(*words, str(tmp_path / "run"), code=2).err  # nothing has begun: choose another
    monkeypatch.undo()
    monkeypatch.setattr("lasem.training.plan.write_file", lambda *_, **__: full())
    lasem("run", "--checkpoint-seconds=0", *words[1:], str(tmp_path / "other"), code=1)


def test_a_loss_that_diverges_is_a_failure(tmp_path: Path, lasem: Any) -> None:
    # a step of the first task, and nothing finite in the second, whose step size no longer shrinks to 0
    out = tmp_path / "run"
    words = [*OPTIONS, "--training.optimiser", "sgd", "--training.learning_rate", "1e6", "--out", str(out), "--quiet"]
    shown = lasem("run", *words, code=1).err
    assert "learning_rate" in shown
    assert "Traceback" not in shown
    assert not (out / "seeds/0/model").exists()


def test_two_processes_want_one_folder(tmp_path: Path) -> None:
    words = ["run", "--stream=planted", "--threads=1", "--training.epochs=2000", "--out", str(tmp_path / "run")]
    first = Forked("-m", "lasem", *words, folder=tmp_path)
    try:
        first.wait_for(tmp_path / "run/seeds/0/records.jsonl")
        assert main([*words, "--quiet"]) == 2
        assert main(["run", "--resume", str(tmp_path / "run"), "--quiet"]) == 2
    finally:
        first.interrupt()
        done = first.ended(60)
    assert done.returncode == 130
    assert done.stderr.splitlines()[-1].endswith(f"lasem run --resume {tmp_path / 'run'}")
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(("command", "package"), [("reproduce", "paper"), ("bench", "benchmarks")])
def test_what_a_command_needs_is_said(command: str, package: str, monkeypatch: pytest.MonkeyPatch, lasem: Any) -> None:
    monkeypatch.setitem(sys.modules, f"{package}.cli", None)
    shown = lasem(command, "--help", code=2).err
    assert f"lasem {command} needs the package '{package}'" in shown
    assert "Clone the repository" in shown
    assert len(shown.splitlines()) == 1


@pytest.mark.parametrize("words", [[], ["run"], ["learn"]], ids=str)
def test_help_fits_a_screen_and_loads_no_torch(words: list[str]) -> None:
    code = f"import sys; from lasem.cli import main; main({[*words, '--help']}); assert 'torch' not in sys.modules"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=ENVIRONMENT)
    assert max(map(len, done.stdout.splitlines())) <= 80
    assert not words or len(done.stdout.splitlines()) <= 35
    options = ("--epochs", "--batch-size", "--lr", "--seed", "--sharing", "--search", "--device", "--help-all")
    assert all(f"  {shown}" in done.stdout for shown in (options if words else ["report"]))


def test_the_defaults_that_short_help_repeats() -> None:
    texts = dict(RUN.rows)
    for option, field in (("--epochs N", "epochs"), ("--batch-size N", "batch_size"), ("--lr NUMBER", "learning_rate")):
        (shown,) = re.findall(r"\(default: (.*)\)", texts[option])
        assert float(shown) == getattr(TrainingConfig(), field)


@pytest.mark.parametrize(
    ("short", "setting"),
    [
        ("--epochs=7", "epochs: 7"),
        ("--batch-size=7", "batch_size: 7"),
        ("--lr=0.5", "learning_rate: 0.5"),
        ("--learning-rate=0.5", "learning_rate: 0.5"),
        ("--weight-decay=0.5", "weight_decay: 0.5"),
        ("--precision=bf16", "precision: bf16"),
        ("--training.precision=bf16", "precision: bf16"),
        ("--method=ewc --precision=bf16", "precision: bf16"),
        ("--method=ewc --training.precision=bf16", "precision: bf16"),
    ],
)
def test_settings_of_training_have_plain_names(short: str, setting: str, lasem: Any) -> None:
    assert setting in _printed(lasem, *short.split())
