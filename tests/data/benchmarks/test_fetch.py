"""Fetching, from a server of this process that can break off; needs pooch."""

import hashlib
import io
import tarfile
import threading
import zipfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from lasem.data.benchmarks.source import Download, fetch
from lasem.errors import DataError

pytest.importorskip("pooch")


class Server(ThreadingHTTPServer):
    files: dict[str, bytes]
    break_after: int | None = None
    """Bytes after which the next answer breaks off."""
    asked: list[str | None]


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        wanted = self.headers.get("Range")
        self.server.asked.append(wanted)
        data = self.server.files.get(self.path.lstrip("/"))
        if data is None:
            self.send_error(404)
            return
        start = int(wanted.removeprefix("bytes=").removesuffix("-")) if wanted else 0
        if wanted and start >= len(data):
            self.send_error(416)
            return
        self.send_response(206 if wanted else 200)
        self.send_header("Content-Length", str(len(data) - start))
        self.end_headers()
        cut, self.server.break_after = self.server.break_after, None
        self.wfile.write(data[start : len(data) if cut is None else start + cut])

    def log_message(self, *of_message: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[Server]:
    made = Server(("127.0.0.1", 0), Handler)
    made.files, made.asked = {}, []
    thread = threading.Thread(target=made.serve_forever)
    thread.start()
    yield made
    made.shutdown()
    thread.join()
    made.server_close()


def download(server: Server, name: str, data: bytes) -> Download:
    server.files[name] = data
    url = f"http://127.0.0.1:{server.server_port}/{name}"
    return Download(url=url, checksum=f"md5:{hashlib.md5(data).hexdigest()}")


def test_a_file_is_fetched_once(server: Server, tmp_path: Path) -> None:
    data = bytes(range(256)) * 1000
    wanted = download(server, "a.bin", data)
    for _ in range(2):
        fetch(wanted, tmp_path / "new", otherwise="")
    assert (tmp_path / "new/a.bin").read_bytes() == data
    assert server.asked == [None]
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["a.bin"]


def test_it_goes_on_where_it_broke_off(server: Server, tmp_path: Path) -> None:
    data = bytes(range(256)) * 4000
    wanted = download(server, "a.bin", data)
    server.break_after = 600_000
    with pytest.raises(DataError, match="Put it there by hand"):
        fetch(wanted, tmp_path, otherwise="Put it there by hand.")
    assert not (tmp_path / "a.bin").exists()
    kept = (tmp_path / ".a.bin.part").stat().st_size
    assert 0 < kept <= 600_000
    fetch(wanted, tmp_path, otherwise="")
    assert server.asked == [None, f"bytes={kept}-"]
    assert (tmp_path / "a.bin").read_bytes() == data
    assert not (tmp_path / ".a.bin.part").exists()


def test_another_file_is_not_kept(server: Server, tmp_path: Path) -> None:
    wanted = download(server, "a.bin", b"right")
    server.files["a.bin"] = b"wrong"
    with pytest.raises(DataError, match="hash"):
        fetch(wanted, tmp_path, otherwise="")
    assert not any(tmp_path.iterdir())
    server.files["a.bin"] = b"right"
    fetch(wanted, tmp_path, otherwise="")
    with pytest.raises(DataError, match="404"):
        fetch(Download(url=wanted.url + "x", checksum=wanted.checksum), tmp_path, otherwise="")


def test_archives_are_unpacked_and_cannot_leave_the_folder(server: Server, tmp_path: Path) -> None:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as archive:
        entry = tarfile.TarInfo("inner/file.txt")
        entry.size = 2
        archive.addfile(entry, io.BytesIO(b"hi"))
    fetch(download(server, "a.tar.gz", packed.getvalue()), tmp_path, otherwise="")
    assert (tmp_path / "inner/file.txt").read_text() == "hi"

    zipped = io.BytesIO()
    with zipfile.ZipFile(zipped, "w") as archive_zip:
        archive_zip.writestr("other/file.txt", "ho")
    fetch(download(server, "b.zip", zipped.getvalue()), tmp_path, otherwise="")
    assert (tmp_path / "other/file.txt").read_text() == "ho"

    evil = io.BytesIO()
    with tarfile.open(fileobj=evil, mode="w:gz") as archive:
        archive.addfile(tarfile.TarInfo("../outside.txt"))
    with pytest.raises(DataError):
        fetch(download(server, "c.tar.gz", evil.getvalue()), tmp_path / "here", otherwise="")
    assert not (tmp_path / "outside.txt").exists()
