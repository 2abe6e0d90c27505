"""Every command of a growing model, for methods that are not LASEM's."""

from pathlib import Path

import pytest
from learner.images import write_digits

from lasem.cli import main
from lasem.methods import METHODS


@pytest.mark.parametrize("method", METHODS)
def test_a_model_of_any_method_is_grown_asked_and_exported(
    method: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images, model = write_digits(tmp_path / "images", (0, 1), count=6), str(tmp_path / "model")

    def lasem(*words: str) -> str:
        assert main([*words]) == 0
        return capsys.readouterr().out

    net = ("--net", "digits", "--net.hidden", "8")
    lasem("learn", model, "--task", "a", "--train", str(images), "--method", method, "--epochs", "1", *net)
    lasem("learn", model, "--task", "b", "--train", str(images))
    assert f"method {method}" in lasem("show", model)
    assert len(lasem("predict", model, "--task", "a", str(images)).splitlines()) == 13
    assert "of 12 images" in lasem("evaluate", model, "--task", "b", str(images))
    lasem("export", model, "--task", "b", "--format", "torch", "--out", f"{tmp_path}/exported/")
    assert (tmp_path / "exported/b.pt2").exists()
    lasem("forget", model, "--task", "b")
    assert "1 task," in lasem("show", model)
    assert main(["learn", model, "--task", "c", "--train", str(images), "--method", "lasem"]) == 2
    assert f"made with method = {method}" in capsys.readouterr().err
