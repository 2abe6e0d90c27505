"""For every test: one thread, because tests run side by side, and no waiting for a busy machine or its disk.

Where torchvision and torch are of different builds, torchvision does not import, nor do timm and transformers:
two operators of its own are missing, which no test needs. They are declared here.
"""

import contextlib
import gc
import importlib.util
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

from lasem.cli import main

os.environ["OMP_NUM_THREADS"] = "1"  # of torch, here and in every process that a test starts
settings.register_profile("lasem", deadline=None, max_examples=30)
settings.load_profile("lasem")


def pytest_sessionstart(session: pytest.Session) -> None:
    if session.config.getoption("numprocesses", None):
        return  # the workers start when this process is ready, and it needs no torch
    import torch

    if importlib.util.find_spec("torchvision") is not None:
        try:
            importlib.import_module("torchvision")
        except (ImportError, RuntimeError):
            with contextlib.suppress(RuntimeError):  # it fails for another reason, if they are there
                torch.library.define("torchvision::nms", "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
                torch.library.define("torchvision::qnms", "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")


def pytest_collection_finish() -> None:
    gc.collect()
    gc.freeze()  # what was imported stays: to look through it again and again takes a tenth of the time


@pytest.fixture(autouse=True, scope="session")
def _no_power_cut() -> Iterator[None]:
    """A test that is killed loses nothing that it has written; what a power cut takes is in test_power_cut.py."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("os.fsync", lambda handle: None)
        yield


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder, which is the current one."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def lasem(capsys: pytest.CaptureFixture[str]) -> Callable[..., Any]:
    """The command with words, called here: what it printed when it has ended with ``code``."""

    def call(*words: str, code: int = 0) -> Any:
        capsys.readouterr()
        ended = main([*words])
        shown = capsys.readouterr()
        assert ended == code, shown.err
        return shown

    return call


@pytest.fixture(scope="session")
def browser(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    program = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if program is None:
        pytest.skip("needs a Chromium")
    profile = tmp_path_factory.mktemp("profile")
    options = "--headless --no-sandbox --disable-gpu --enable-logging=stderr --virtual-time-budget=2000 --dump-dom"
    return [program, f"--user-data-dir={profile}", *options.split()]
