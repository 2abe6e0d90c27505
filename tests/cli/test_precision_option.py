"""``--precision``, which belongs to the machine as ``--device`` does, and yet to the settings of training."""

from __future__ import annotations

from pathlib import Path

import pytest

from lasem.cli.main import main
from lasem.experiments.yaml_text import from_yaml


@pytest.mark.parametrize("option", ["--precision", "--training.precision"])
@pytest.mark.parametrize("words", [[], ["--method", "ewc"]], ids=["lasem", "baseline"])
def test_both_names_set_it(option: str, words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", *words, option, "bf16", "--print-config"]) == 0
    assert from_yaml(capsys.readouterr().out, "printed")["training"]["precision"] == "bf16"


def test_it_is_above_the_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "my.yaml").write_text("training:\n  precision: bf16\n")
    for options, expected in (([], "bf16"), (["--precision", "float32"], "float32")):
        assert main(["run", "--config", str(tmp_path / "my.yaml"), *options, "--print-config"]) == 0
        assert from_yaml(capsys.readouterr().out, "printed")["training"]["precision"] == expected


def test_the_nearest_name_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "--precison", "bf16", "--print-config"]) == 2
    assert "Did you mean '--precision'?" in capsys.readouterr().err
    assert main(["run", "--precision", "fp16", "--print-config"]) == 2
    assert "training.precision must be one of float32, bf16; got 'fp16'" in capsys.readouterr().err
