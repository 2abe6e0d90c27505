import hashlib
import os
from pathlib import Path

import pytest

from lasem.errors import StorageError
from lasem.files import append, checksum, read_text, write_file


@pytest.mark.parametrize("durable", [True, False])
def test_a_file_is_written_replaced_and_alone(tmp_path: Path, durable: bool) -> None:
    path = tmp_path / "new" / "folders" / "file.txt"
    write_file(path, "Grüße\n", durable=durable)
    assert path.read_bytes() == "Grüße\n".encode()
    write_file(path, b"\x00\xff", durable=durable)
    assert (path.read_bytes(), list(path.parent.iterdir())) == (b"\x00\xff", [path])


def test_what_was_there_stays_if_the_last_step_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file"
    write_file(path, "old")

    def refuse(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", refuse)
    with pytest.raises(StorageError, match=r"Cannot write .*file: No space left on device\. .*untouched"):
        write_file(path, "new")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_durable_file_where_no_folder_can_be_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on Windows."""
    real = os.open

    def only_files(path: os.PathLike[str] | str, flags: int, mode: int = 0o777, **options: int) -> int:
        if Path(path).is_dir():
            raise PermissionError(13, "Permission denied")
        return real(path, flags, mode, **options)

    monkeypatch.setattr(os, "open", only_files)
    monkeypatch.delattr(os, "O_DIRECTORY")
    write_file(tmp_path / "new" / "file", "text", durable=True)
    assert (tmp_path / "new" / "file").read_text() == "text"


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StorageError, match="Cannot write"):
        write_file(tmp_path / "file" / "below", "x")
    (tmp_path / "folder").mkdir()
    with pytest.raises(StorageError, match="Cannot write"):
        write_file(tmp_path / "folder", "x")


def test_nothing_is_written_through_a_planted_link(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The name of a file on its way is not known before; and where it were, a link in its place is not followed."""
    mine = tmp_path / "mine"
    mine.write_text("years of work")
    for planted in (f".file.{os.getpid()}.tmp", ".file.0123.tmp", "log"):
        (tmp_path / planted).symlink_to(mine)
    write_file(tmp_path / "file", "new")
    monkeypatch.setattr("secrets.token_hex", lambda _: "0123")
    with pytest.raises(StorageError, match="Cannot write"):
        write_file(tmp_path / "file", "newer")
    with pytest.raises(StorageError, match="Cannot write"):
        append(tmp_path / "log", "line\n")
    assert (mine.read_text(), (tmp_path / "file").read_text()) == ("years of work", "new")


@pytest.mark.parametrize("kind", ["pipe", "device", "folder", "terabyte", "none"])
def test_what_is_no_file_or_too_large_is_not_read(kind: str, tmp_path: Path) -> None:
    place = tmp_path / "place"
    makes = {"pipe": os.mkfifo, "device": lambda at: at.symlink_to("/dev/zero"), "folder": os.mkdir}
    makes |= {"terabyte": lambda at: (at.touch(), os.truncate(at, 10**12)), "none": lambda at: None}
    makes[kind](place)
    with pytest.raises(OSError, match="place"):
        read_text(place)


def test_checksum_is_sha256() -> None:
    assert checksum(b"lasem") == hashlib.sha256(b"lasem").hexdigest()
