from pathlib import Path

import pytest

from lasem.errors import StorageError
from lasem.report.text_files import to_csv, write_text


def test_floats_keep_every_bit() -> None:
    assert to_csv(["a", "b"], [[0.1 + 0.2, None], ["x,y", 1]]) == 'a,b\n0.30000000000000004,\n"x,y",1\n'


def test_a_file_is_replaced_and_nothing_is_left_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "new" / "page.html"
    write_text(path, "old")
    assert write_text(path, "new\nwith \ud800 half a pair") == path
    assert path.read_bytes() == b"new\nwith ? half a pair"
    assert list(path.parent.iterdir()) == [path]


def test_a_folder_that_cannot_be_written_to(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="Cannot write"):
        write_text(tmp_path / "file" / "page.html", "")
