"""Learns on a file system that is full, and on with more room; a process of its own, in namespaces of its own.

Arguments: a folder of images, an empty folder to mount a file system on, and an empty folder beside it for the same
model learned with room. Prints what was found as JSON.
"""

import contextlib
import io
import json
import subprocess
import sys
from pathlib import Path

from learner.images import model_files

from lasem.cli import main

ROOM = "64m"


def command(*words: str) -> tuple[int, str]:
    """Its exit code, and what it said of errors."""
    with contextlib.redirect_stderr(io.StringIO()) as said, contextlib.redirect_stdout(io.StringIO()):
        code = main(list(words))
    return code, said.getvalue()


def learn(model: Path, images: Path, task: str) -> tuple[int, str]:
    """``lasem learn`` of one of the folders of images."""
    train = str(images / task)
    words = ("--train", train, "--training.epochs", "2", "--threads", "1", "--checkpoint-seconds", "0", "--quiet")
    return command("learn", str(model), "--task", task, *words)


def used(disk: Path) -> int:
    return int(subprocess.run(["df", "-B1", "--output=used", disk], capture_output=True, check=True).stdout.split()[1])


def resize(disk: Path, size: int | str) -> None:
    subprocess.run(["mount", "-o", f"remount,size={size}", "none", disk], check=True)


images, disk, plenty = map(Path, sys.argv[1:])
subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={ROOM}", "none", disk], check=True)
model = disk / "model"
assert learn(model, images, "low")[0] == 0
before, start = model_files(model), used(disk)
found = []
for more in (0, 4096, 40_960, 102_400, 204_800):
    resize(disk, start + more)
    code, said = learn(model, images, "mid")
    asked = command("predict", str(model), "--task", "low", str(images / "low-test"))[0]
    found.append({"room": more, "code": code, "said": said, "asked": asked, "same": model_files(model) == before})
resize(disk, ROOM)
again = learn(model, images, "mid")
assert learn(plenty / "model", images, "low")[0] == learn(plenty / "model", images, "mid")[0] == 0
print(json.dumps({"full": found, "again": again, "equal": model_files(model) == model_files(plenty / "model")}))
