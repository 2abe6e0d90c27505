"""Programs in processes of their own, forked from one that has imported torch: a start costs no seconds of imports.

What a program imports of lasem it imports itself.
"""

import os
import runpy
import signal
import subprocess
import sys
import time
import warnings
from multiprocessing import forkserver, get_context
from pathlib import Path
from tempfile import TemporaryDirectory
from unittest import mock

_CONTEXT = get_context("forkserver")
_SERVER = forkserver.ForkServer()  # its own, for lasem's process pool has another
_SERVER.set_forkserver_preload(
    ["torch._dynamo", "sklearn.datasets", "matplotlib.figure", "matplotlib.backends.backend_svg"]
)


class Forked:
    """A running Python with the words behind ``python -W error``: ``-c CODE``, ``-m MODULE ...`` or ``SCRIPT ...``."""

    def __init__(self, *words: str, folder: Path) -> None:
        self._words = words
        self._place = TemporaryDirectory()
        self._process = _CONTEXT.Process(target=_run, args=(words, str(folder), self._place.name))
        with mock.patch.object(forkserver, "connect_to_new_process", _SERVER.connect_to_new_process):
            self._process.start()

    def poll(self) -> int | None:
        return self._process.exitcode

    def wait_for(self, file: Path, text: str = "") -> None:
        """Until it has written a file with some text, or has ended; a minute at most."""
        until = time.monotonic() + 60
        while self.poll() is None and time.monotonic() < until and not (file.exists() and text in file.read_text()):
            time.sleep(0.005)

    def interrupt(self) -> None:
        """Ctrl-C."""
        assert self._process.pid
        os.kill(self._process.pid, signal.SIGINT)

    def ended(self, seconds: float | None = None) -> subprocess.CompletedProcess[str]:
        """How it ended; it is killed if it takes longer."""
        with self._place as place:
            self._process.join(seconds)
            self._process.kill()
            self._process.join()
            code = self._process.exitcode
            assert code is not None
            shown = [Path(place, name).read_text() for name in ("out", "error")]
        return subprocess.CompletedProcess(self._words, code, *shown)


def _run(words: tuple[str, ...], folder: str, place: str) -> None:
    for name, descriptor in (("out", 1), ("error", 2)):
        with open(f"{place}/{name}", "wb") as file:
            os.dup2(file.fileno(), descriptor)
    forkserver._forkserver.ensure_running = lambda: None  # type: ignore[attr-defined]  # its processes are forks, too
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background ignores it
    warnings.simplefilter("error")
    os.chdir(folder)
    match words:
        case ("-m", module, *_):
            sys.argv = list(words[1:])
            runpy.run_module(module, run_name="__main__", alter_sys=True)
        case ("-c", code):
            sys.argv = ["-c"]
            Path(place, "code.py").write_text(code)
            runpy.run_path(f"{place}/code.py", run_name="__main__")
        case (script, *_):
            sys.argv = list(words)
            runpy.run_path(script, run_name="__main__")
