from dataclasses import replace
from pathlib import Path

import pytest

from lasem.data.benchmarks import BENCHMARKS, Cifar100Reader, MnistReader
from lasem.errors import ConfigError, DataError
from lasem.experiments import ExperimentConfig
from lasem.experiments.config import READERS


@pytest.mark.parametrize("reader", BENCHMARKS, ids=lambda reader: reader.name)
def test_a_missing_data_set_says_what_to_put_where(reader: type, tmp_path: Path) -> None:
    with pytest.raises(DataError) as found:
        reader(path=str(tmp_path / "nothing")).open(0)
    said = str(found.value)
    assert f"in {tmp_path / 'nothing'}; there is no such folder" in said
    assert f"into {tmp_path / 'nothing'}" in said
    assert "https://" in said or "http://" in said
    assert said.endswith("To try things out without it, set stand_in.")


def test_the_default_folder_is_the_streams_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(DataError, match=str(tmp_path / ".cache/lasem/mnist")):
        MnistReader().open(0)


def test_a_file_that_is_missing_is_named(tmp_path: Path) -> None:
    (tmp_path / "train.bin").touch()
    (tmp_path / "fine_label_names.txt").touch()
    with pytest.raises(DataError, match=r"there is no test\.bin\."):
        Cifar100Reader(path=str(tmp_path)).open(0)


@pytest.mark.parametrize("reader", BENCHMARKS, ids=lambda reader: reader.name)
def test_readers_can_be_named_and_survive_a_file(reader: type) -> None:
    assert READERS[reader.name] is reader
    config = ExperimentConfig(stream=reader(stand_in=True))
    assert ExperimentConfig.from_yaml(config.to_yaml()) == config
    with pytest.raises(ConfigError, match="stand_in makes up its images"):
        replace(config.stream, path="somewhere")
