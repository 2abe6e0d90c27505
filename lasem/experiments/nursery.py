"""A process that has imported everything once, and forks one for each run: importing takes longer than small runs.

It is started by ``Nursery``, which is the other end of the socket whose number it is given. A byte with three file
descriptors, a run's stdin, stdout and stderr, asks for a process; its number, and later how it ended, are answered in
lines of JSON. It trains nothing itself, so that nothing is lost in a fork.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import queue
import select
import signal
import socket
import subprocess
import sys
import threading
import traceback
from collections.abc import Mapping
from contextlib import suppress
from typing import NoReturn, final

PROGRAM = "import sys; from lasem.experiments.nursery import main; sys.exit(main())"

_POLL_SECONDS = 0.05


@final
class Nursery:
    """Starts workers (``lasem.experiments.worker``); when it is closed, or its owner dies, none is started any more."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        """Begin importing; the first worker waits for the end of that.

        Args:
            environment: of all workers.
        """
        self._socket, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-c", PROGRAM, str(theirs.fileno())],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                env=dict(environment),
                pass_fds=[theirs.fileno()],
                start_new_session=True,  # Ctrl-C is for its owner
            )
        self._started: queue.Queue[int | None] = queue.Queue()
        self._ended: dict[int, queue.Queue[int]] = {}
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def start(self, stdin: int, stdout: int, stderr: int) -> int | None:
        """Start a worker with these file descriptors; its process id, None if the nursery has died."""
        with suppress(OSError):
            socket.send_fds(self._socket, [b"x"], [stdin, stdout, stderr])
            return self._started.get()
        return None

    def wait(self, pid: int) -> int:
        """Wait for a worker's end; its exit code, negative for the signal that killed it."""
        code = self._ended[pid].get()
        self._ended[pid].put(code)  # for whoever asks again
        return code

    def kill(self, pid: int) -> None:
        """Kill a worker that has not ended yet, and wait for its end."""
        if self._ended[pid].empty():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.wait(pid)

    def close(self) -> None:
        """End it; its workers must have ended before."""
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._process.wait()
        self._reader.join()
        self._socket.close()

    def _read(self) -> None:
        with self._socket.makefile("r", encoding="ascii") as lines, suppress(OSError):
            for line in lines:
                pid, code = json.loads(line)
                if code is None:
                    self._ended[pid] = queue.Queue()
                    self._started.put(pid)
                else:
                    self._ended[pid].put(code)
        self._started.put(None)  # nobody waits for ever
        for pid, ended in self._ended.items():
            if ended.empty():  # how it goes on cannot be known any more
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
                ended.put(-signal.SIGKILL)


def main() -> int:
    """Fork a worker for every request; 0 once the owner has gone."""
    control = socket.socket(fileno=int(sys.argv[1]))
    _import()
    gc.freeze()  # workers share these pages: nothing in them is written to be counted
    children: set[int] = set()
    while True:
        asked, _, _ = select.select([control], [], [], _POLL_SECONDS if children else None)
        if asked:
            message, descriptors, _, _ = socket.recv_fds(control, 1, 3)
            if not message:
                return 0
            pid = os.fork()
            if pid == 0:
                control.close()
                _work(descriptors)
            for descriptor in descriptors:
                os.close(descriptor)
            children.add(pid)
            _tell(control, pid, None)
        for pid in tuple(children):
            ended, status = os.waitpid(pid, os.WNOHANG)
            if ended:
                children.discard(pid)
                _tell(control, pid, os.waitstatus_to_exitcode(status))


def _tell(control: socket.socket, pid: int, code: int | None) -> None:
    with suppress(BrokenPipeError):  # the next look at the socket says that the owner has gone
        control.sendall(f"{json.dumps([pid, code])}\n".encode())


def _import() -> None:
    """Everything that a run imports sooner or later."""
    for module in (
        "lasem.experiments.worker",
        "torch._dynamo",  # with the first optimiser; brings sympy
        "lasem.report.figures",
        "matplotlib.backends.backend_svg",
        "matplotlib.figure",
        "matplotlib.style",
        "jinja2",
    ):
        importlib.import_module(module)


def _work(descriptors: list[int]) -> NoReturn:
    """Become a worker."""
    from lasem.experiments import worker

    code = worker.FAILED
    try:
        os.setsid()
        for place, descriptor in enumerate(descriptors):
            os.dup2(descriptor, place)
            os.close(descriptor)
        sys.stdin, sys.stdout, sys.stderr = (
            os.fdopen(place, mode, closefd=False) for place, mode in enumerate(("r", "w", "w"))
        )
        code = worker.main()
    except BaseException:
        traceback.print_exc()
    finally:
        with suppress(Exception):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)  # nothing of the nursery's own is to be ended here
