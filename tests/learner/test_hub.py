"""Models that are shared: what is pushed, what a card says, and that a pulled model is whole, checked and the same."""

import base64
import hashlib
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml

import lasem as package
from lasem import GrowingModel, pull, push
from lasem.errors import ConfigError, StorageError

from .images import files_in, small_model, stop, write_digits

REPO = "anna/digits"


@pytest.fixture(scope="module")
def learned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of two tasks, with an unfinished one, and things of its owner in the folder."""
    place = tmp_path_factory.mktemp("learned")
    model = small_model(place / "model")
    model.learn("low", write_digits(place / "low", (0, 1)), test=write_digits(place / "test", (0, 1), first=30))
    model.learn("high", write_digits(place / "high", (2, 3)))
    stop(model, "third", write_digits(place / "third", (4, 5)))
    (place / "model/cat.jpg").write_bytes(b"private")
    (place / "model/parts/notes.txt").write_text("private")
    return place / "model"


def answers(model: GrowingModel, learned: Path) -> list[Any]:
    return list(model.predict_all([learned.parent / "low", learned.parent / "high"], top=2))


def test_a_model_is_pushed_to_a_folder_and_pulled_and_answers_the_same(learned: Path, here: Path) -> None:
    assert push(learned, "./shared", licence="apache-2.0") == "shared"
    names = set(files_in(here / "shared"))
    parts = {name for name in names if name.startswith("parts/")}
    assert names - parts == {"config.json", "README.md"}
    assert all(hashlib.sha256((here / "shared" / name).read_bytes()).hexdigest() in name for name in parts)
    pulled = pull((here / "shared").as_uri(), "pulled")
    assert set(files_in(here / "pulled")) == parts | {"config.json"}
    assert answers(pulled, learned) == answers(GrowingModel(learned), learned)
    assert [place.name for place in here.iterdir() if place.name.startswith(".")] == []
    pulled.learn("third", learned.parent / "third")  # it goes on


def test_the_card_says_what_was_measured(learned: Path, here: Path) -> None:
    push(learned, "./shared", licence="apache-2.0")
    _, head, text = (here / "shared/README.md").read_text().split("---\n", 2)
    said = yaml.safe_load(head)
    assert (said["library_name"], said["license"], said["pipeline_tag"]) == (
        *("lasem", "apache-2.0", "image-classification"),
    )
    low, high = GrowingModel(learned).show().tasks
    assert low.test_accuracy is not None
    rows = [[cell.strip() for cell in row.split("|")[1:-1]] for row in text.splitlines() if row.startswith("|")][2:]
    valid, test = (f"{100 * accuracy:.1f} %" for accuracy in (low.valid_accuracy, low.test_accuracy))
    counts = f"{low.num_train}, {low.num_valid}, {low.num_test}"
    assert rows[0] == ["low", "2", counts, valid, test, f"{low.temperature:.3g}", f"`{low.configuration}`"]
    assert rows[1][:2] == ["high", "2"]
    assert rows[1][4] == "-"
    assert high.num_test == 0
    assert f"with lasem {package.__version__}" in text
    assert "lasem predict model --task low photo.jpg" in text
    push(learned, "./other")
    assert "none was given" in (here / "other/README.md").read_text()
    assert "license" not in (here / "other/README.md").read_text()


def test_a_second_push_replaces_the_first_and_nothing_else(learned: Path, here: Path) -> None:
    model = small_model(here / "model")
    model.learn("low", learned.parent / "low")
    push(model, "./shared")
    model.learn("high", learned.parent / "high")
    model.forget("low")
    push(model, "./shared")
    assert list(GrowingModel("shared").tasks) == ["high"]
    held = {f"parts/{path.name}" for path in (here / "model/parts").iterdir()}
    assert {name for name in files_in(here / "shared") if name.startswith("parts/")} == held
    (here / "mine").mkdir()
    (here / "mine/thesis.txt").touch()
    for other in ("./mine", str(learned)):
        before = files_in(Path(other))
        with pytest.raises(StorageError, match="Expected a new folder, or one that a model was pushed to"):
            push(model, other)
        assert files_in(Path(other)) == before


def damaged(place: Path, how: str) -> None:
    part = max((place / "parts").glob("*.safetensors"), key=lambda file: file.stat().st_size)
    data = bytearray(part.read_bytes())
    if how == "another byte":
        data[-1] ^= 1
        part.write_bytes(data)
    elif how == "more bytes":
        part.write_bytes(data + b"more")
    elif how == "not there":
        part.unlink()
    elif how == "a link out":
        part.rename(place.parent / "elsewhere")
        part.symlink_to(place.parent / "elsewhere")
    else:
        index = json.loads((place / "config.json").read_text())
        index["tasks"][0]["name"] = "other"
        (place / "config.json").write_text(json.dumps(index))


@pytest.mark.parametrize("how", ["another byte", "more bytes", "not there", "a link out", "another index"])
def test_what_is_damaged_is_not_pulled(how: str, learned: Path, here: Path) -> None:
    push(learned, "./shared")
    damaged(here / "shared", how)
    with pytest.raises(StorageError):
        pull("./shared", "pulled")
    assert sorted(place.name for place in here.iterdir() if place.name != "elsewhere") == ["shared"]


def test_a_pull_that_is_killed_leaves_no_model_or_all_of_it(learned: Path, here: Path) -> None:
    push(learned, "./shared")
    code = "import sys; from lasem.cli import main; sys.exit(main(['pull', './shared', 'pulled']))"
    work = here / ".pulled.pull/model/parts"
    process = subprocess.Popen([sys.executable, "-c", code])
    while process.poll() is None and not work.exists():
        time.sleep(0.001)
    process.kill()
    process.wait()
    if (here / "pulled").exists():
        assert answers(GrowingModel("pulled"), learned) == answers(GrowingModel(learned), learned)
    else:
        assert list(pull("./shared", "pulled").tasks) == ["low", "high"]
    with pytest.raises(StorageError, match="is there already"):
        pull("./shared", "pulled")


class Hub(BaseHTTPRequestHandler):
    """As much of the hub's protocol as one repository with small files needs; commits are kept in memory."""

    commits: list[dict[str, bytes]]
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: Any) -> None:
        pass

    @property
    def address(self) -> str:
        return f"http://{self.headers['Host']}"

    def answer(self, data: bytes, status: int = 200, **headers: str) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(data)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def do_GET(self) -> None:
        number = len(self.commits)
        sha = f"{number:040x}"
        if self.path.startswith(f"/{REPO}/resolve/") and number:
            _, _, name = self.path.removeprefix(f"/{REPO}/resolve/").partition("/")
            revision = self.path.removeprefix(f"/{REPO}/resolve/").partition("/")[0]
            found = self.commits[(number if revision == "main" else int(revision, 16)) - 1].get(name)
            if found is not None:
                etag = f'"{hashlib.sha1(found).hexdigest()}"'
                self.answer(found, ETag=etag, X_Repo_Commit=sha if revision == "main" else revision)
                return
            self.answer(b"", 404, X_Error_Code="EntryNotFound")
        elif self.path.startswith(f"/api/models/{REPO}/tree/main"):
            held = self.commits[-1] if number else {}
            files = [{"type": "file", "path": name, "size": len(of), "oid": sha} for name, of in held.items()]
            self.answer(json.dumps(files).encode())
        else:
            self.answer(b"", 404, X_Error_Code="RepoNotFound")

    do_HEAD = do_GET  # noqa: N815

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.path == "/api/repos/create":
            assert json.loads(body).get("private", json.loads(body).get("visibility") == "private")
            self.answer(json.dumps({"url": f"{self.address}/{REPO}", "name": REPO}).encode())
        elif "/preupload/" in self.path:
            files = [
                {"path": f["path"], "uploadMode": "regular", "shouldIgnore": False} for f in json.loads(body)["files"]
            ]
            self.answer(json.dumps({"files": files}).encode())
        elif "/commit/" in self.path:
            held = dict(self.commits[-1]) if self.commits else {}
            for step in map(json.loads, body.splitlines()):
                if step["key"] == "file":
                    held[step["value"]["path"]] = base64.b64decode(step["value"]["content"])
                elif step["key"] == "deletedFile":
                    del held[step["value"]["path"]]
            self.commits.append(held)
            sha = f"{len(self.commits):040x}"
            made = {"success": True, "commitOid": sha, "commitUrl": f"{self.address}/{REPO}/commit/{sha}"}
            self.answer(json.dumps(made).encode())
        else:
            self.answer(b"{}")


@pytest.fixture
def hub(here: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Hub]]:
    """A hub on this machine, and a cache of its files."""
    constants = pytest.importorskip("huggingface_hub.constants")
    handler = type("Handler", (Hub,), {"commits": []})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        endpoint = f"http://127.0.0.1:{server.server_port}"
        monkeypatch.setattr(constants, "ENDPOINT", endpoint)
        template = endpoint + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(here / "cache"))
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setenv("HF_TOKEN", "hf_of_a_test")
        yield handler
        server.shutdown()


def test_a_model_goes_to_a_hub_and_comes_back(learned: Path, here: Path, hub: type[Hub], lasem: Any) -> None:
    assert f"/{REPO}/commit/" in lasem("push", str(learned), REPO, "--licence", "mit").out
    (held,) = hub.commits
    push(learned, "./shared", licence="mit")
    local = files_in(here / "shared")
    assert {n: d for n, d in held.items() if n != "README.md"} == {n: d for n, d in local.items() if n != "README.md"}
    assert f"lasem pull {REPO} model".encode() in held["README.md"]
    assert lasem("pull", REPO, "pulled").out == "pulled has 2 tasks: low, high\n"
    assert answers(GrowingModel("pulled"), learned) == answers(GrowingModel(learned), learned)
    pulled = GrowingModel("pulled")
    pulled.forget("high")
    push(pulled, REPO)
    assert len(hub.commits) == 2
    assert len(hub.commits[1]) < len(held)  # parts that the model has no more are removed
    assert list(pull(REPO, "again").tasks) == ["low"]
    assert list(pull(REPO, "first", revision=f"{1:040x}").tasks) == ["low", "high"]


def test_without_a_network_the_cache_is_used_and_else_one_line_says_so(
    learned: Path, here: Path, hub: type[Hub], lasem: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    push(learned, REPO)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    for words in (("push", str(learned), REPO), ("pull", REPO, "pulled")):
        said = lasem(*words, code=2).err
        assert "The hub cannot be reached (no network, or HF_HUB_OFFLINE is set)" in said
        assert said.count("\n") == 1
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    pull(REPO, "pulled")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert answers(pull(REPO, "offline"), learned) == answers(GrowingModel(learned), learned)


def test_names_that_the_hub_has_not_are_refused(learned: Path, here: Path, hub: type[Hub]) -> None:
    with pytest.raises(StorageError, match="There is no model of lasem in anna/digits on the hub"):
        pull(REPO, "pulled")
    with pytest.raises(ConfigError, match=r"Expected USER/NAME on the hub, or a folder such as \./a/b/c"):
        pull("a/b/c", "pulled")
    assert os.listdir(here) == []


def test_a_missing_library_is_named(learned: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(ConfigError, match=r"pip install 'lasem\[hub\]'"):
        push(learned, REPO)
