"""Kills ``lasem learn`` or ``lasem run`` at random moments until it has ended, again and again; a process of its own.

Arguments: ``learn`` or ``run``, a folder of images, an empty folder, the number of kills, a seed. Processes are forks
of this one, which has loaded everything: a kill costs no start. Prints what was found as JSON.
"""

import json
import os
import random
import shutil
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
import torch._dynamo  # what the first step of an optimiser would load, in every child again
from learner.images import model_files

import lasem.cli.progress
import lasem.cli.run  # noqa: F401
from lasem.cli import main
from lasem.learner import Learner

EVERY = ["--checkpoint-seconds", "0", "--quiet"]
QUICK = ["--training.epochs", "4", "--threads", "1", *EVERY]
STREAM = ["--stream=planted", "--stream.num_tasks=2", "--stream.train_per_class=3", "--stream.valid_per_class=2"]
SMALL = [*STREAM, "--stream.test_per_class=3", "--search.first_task=search", "--search.commit_share=0.7"]


def started(words: list[str]) -> int:
    """A child that runs a command; its process id."""
    child = os.fork()
    if child == 0:
        code = 70
        try:
            out = os.open(os.devnull, os.O_WRONLY)
            os.dup2(out, 1)
            code = main(words)
        finally:
            os._exit(code)
    return child


def ended(child: int, seconds: float) -> int | None:
    """The child's exit code, if it ends in time."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        found, status = os.waitpid(child, os.WNOHANG)
        if found:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.001)
    return None


def content(place: Path) -> dict[str, bytes]:
    """What a folder's results are: no lock, no times, no report, no environment."""
    passed_over = ("timings.jsonl", "report.html", "environment.json")
    return {name: data for name, data in model_files(place).items() if not name.endswith(passed_over)}


def without_kills(words: list[str]) -> float:
    began = time.monotonic()
    code = ended(started(words), 600)
    assert code == 0, (words, code)
    return time.monotonic() - began


def with_kills(
    words: Callable[[], list[str]], seconds: float, most: int, look: Callable[[], bool], draw: random.Random
) -> int:
    """Start, kill, look, start again, ... until it has ended, by itself or for whoever looks; the number of kills."""
    kills = 0
    while True:
        child = started(words())
        code = ended(child, draw.uniform(0, 1.1 * seconds) if kills < most else 600)
        if code == 0:
            return kills
        assert code is None, code
        os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        if os.waitstatus_to_exitcode(status) == 0:
            return kills  # it was quicker
        kills += 1
        if look():
            return kills


def kill_learn(images: Path, folder: Path, num_kills: int, draw: random.Random) -> dict[str, int]:
    first = ["--task", "low", "--train", str(images / "low"), "--search.first_task", "search"]
    second = ["--task", "mid", "--train", str(images / "mid"), "--test", str(images / "mid-test")]
    third = ["--task", "low", "--train", str(images / "mid"), "--update"]
    steps = [[*words, *QUICK] for words in (first, second, third)]
    seconds = [without_kills(["learn", str(folder / "0"), *words]) for words in steps]
    whole = content(folder / "0")
    states = ({}, {"low": 2}, {"low": 2, "mid": 3}, {"mid": 3, "low": 3})  # the classes of each task
    kills, rounds = 0, 0
    while kills < num_kills:
        rounds += 1
        place = folder / str(rounds)
        for step, words in enumerate(steps):

            def look(step: int = step, place: Path = place) -> bool:
                learner = Learner.load(place) if (place / "config.json").exists() else None  # every tensor is checked
                found = {name: len(learner.classes(name)) for name in learner.task_names} if learner else {}
                assert found in states[step : step + 2], found
                return found == states[step + 1] and not (place / ".learning/learning.json").exists()

            def command(words: list[str] = words, place: Path = place) -> list[str]:
                begun = (place / ".learning/learning.json").exists() and draw.random() < 0.5
                return ["learn", str(place), *(["--resume", *EVERY] if begun else words)]

            kills += with_kills(command, seconds[step], num_kills - kills, look, draw)
        assert content(place) == whole, place
        shutil.rmtree(place)
    return {"kills": kills, "rounds": rounds}


def kill_run(folder: Path, num_kills: int, draw: random.Random) -> dict[str, int]:
    import lasem.experiments.runner as runner

    runner.write_report = lambda directory: directory  # drawing takes longer than the run
    main_words = ["run", *SMALL, *QUICK]
    import lasem.cli.run as command

    command.print_result = lambda path: None  # type: ignore[attr-defined]
    seconds = without_kills([*main_words, "--out", str(folder / "0")])
    whole = content(folder / "0")
    kills, rounds = 0, 0
    while kills < num_kills:
        rounds += 1
        place = folder / str(rounds)

        def look(place: Path = place) -> bool:
            model = place / "seeds/0/model"
            if (model / "config.json").exists():
                assert len(Learner.load(model).task_names) in (1, 2)
            return False

        def words(place: Path = place) -> list[str]:
            begun = (place / "config.yaml").exists()  # before that it is no run yet, and is started once more
            return ["run", "--resume", str(place), *EVERY] if begun else [*main_words, "--out", str(place)]

        kills += with_kills(words, seconds, num_kills - kills, look, draw)
        assert content(place) == whole, place
        shutil.rmtree(place)
    return {"kills": kills, "rounds": rounds}


if __name__ == "__main__":
    kind, images, folder, num_kills, seed = sys.argv[1:]
    torch.set_num_threads(1)
    draw = random.Random(int(seed))
    kill = kill_run if kind == "run" else lambda *rest: kill_learn(Path(images), *rest)
    print(json.dumps(kill(Path(folder), int(num_kills), draw)))
