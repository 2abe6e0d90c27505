from pathlib import Path

import pytest

from lasem.data.benchmarks import BENCHMARKS, Cifar10Reader, Cifar100Reader, MnistReader, Stl10Reader
from lasem.errors import DataError


@pytest.mark.parametrize("reader", BENCHMARKS, ids=lambda reader: reader.name)
def test_a_missing_data_set_says_what_to_put_where(reader: type, tmp_path: Path) -> None:
    with pytest.raises(DataError) as found:
        reader(path=str(tmp_path / "nothing")).open(0)
    said = str(found.value)
    assert f"in {tmp_path / 'nothing'}; there is no such folder" in said
    assert f"into {tmp_path / 'nothing'}" in said
    assert "https://" in said or "http://" in said
    assert reader.name.startswith("office") or said.endswith("Set download to fetch it.")


def test_the_default_folder_is_the_streams_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(DataError, match=str(tmp_path / ".cache/lasem/mnist")):
        MnistReader().open(0)


@pytest.mark.parametrize(
    ("reader", "file"),
    [
        (Cifar100Reader, "cifar-100-binary/train.bin"),
        (Cifar100Reader, "cifar-100-python/meta"),
        (Cifar10Reader, "data_batch_1.bin"),
        (MnistReader, "train-images-idx3-ubyte.gz"),
    ],
)
def test_files_that_are_not_parquet_are_named_and_how_to_get_parquet(reader: type, file: str, tmp_path: Path) -> None:
    (tmp_path / file).parent.mkdir(exist_ok=True)
    (tmp_path / file).touch()
    with pytest.raises(DataError) as found:
        reader(path=str(tmp_path)).open(0)
    said = str(found.value)
    assert "\n" not in said
    assert f"in parquet in {tmp_path}; there is no *.parquet" in said
    assert f"but {Path(file).parts[0]}. Get it from https://huggingface.co/datasets/" in said


def test_a_file_that_is_missing_is_named(tmp_path: Path) -> None:
    for name in ("train_X.bin", "train_y.bin", "test_y.bin"):
        (tmp_path / name).touch()
    with pytest.raises(DataError, match=r"there is no test_X\.bin, class_names\.txt, but test_y"):
        Stl10Reader(path=str(tmp_path)).open(0)
