"""``lasem serve`` as it is started, asked and stopped."""

import json
import shutil
import socket
import sys
from pathlib import Path
from typing import Any

import pytest
from forks import Forked
from learner.images import small_model, write_digits

httpx = pytest.importorskip("httpx")


def test_it_answers_until_ctrl_c(here: Path, lasem: Any) -> None:
    pytest.importorskip("uvicorn")
    images = write_digits(here / "images", (0, 1))
    small_model(here / "model").learn("low", images)
    file = sorted(images.rglob("*.png"))[0]
    wanted = json.loads(lasem("predict", "model", "--task", "low", str(file), "--format", "jsonl").out)

    running = Forked("-m", "lasem", "serve", "model", "--port", "0", "--threads", "1", folder=here)
    try:
        out = Path(running._place.name) / "out"
        running.wait_for(out, "Ctrl-C")
        address, _, said = out.read_text().partition(" ")
        assert said == "answers for low. Ctrl-C ends it.\n"
        assert address.startswith("http://127.0.0.1:")
        found = httpx.post(f"{address}/predict/low", content=file.read_bytes()).json()
        assert found == {"task": "low", "predictions": wanted["predictions"]}
        assert httpx.post(f"{address}/predict/wol", content=file.read_bytes()).status_code == 404
        with httpx.Client() as client:  # Nagle's algorithm would hold back the second half of each answer for 40 ms
            times = [client.post(f"{address}/predict/low", content=file.read_bytes()).elapsed for _ in range(40)]
        assert min(times[20:]).total_seconds() < 0.035
    finally:  # pytest would wait for it
        running.interrupt()
        ended = running.ended(20)
    assert (ended.returncode, ended.stderr) == (0, "")


def test_what_it_cannot_begin_with(here: Path, lasem: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("uvicorn")
    assert "model" in lasem("serve", "model", code=2).err
    small_model(here / "model").learn("low", write_digits(here / "images", (0, 1)))
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        said = lasem("serve", "model", "--port", str(port), code=2).err
    assert f"Cannot listen at 127.0.0.1, port {port}: Address already in use. Choose others." in said
    shutil.rmtree("model")
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    said = lasem("serve", "model", code=2).err
    assert said == "lasem: lasem serve needs packages that are not installed: pip install 'lasem[serve]'.\n"
