"""A run that takes a second, as options (in Python: tests/experiments/tiny.py), and what it shows as lists."""

from experiments.tiny import READER

from lasem.cli.progress import Shown

STREAM = ["--stream.num_tasks=2", *(f"--stream.{name}={value}" for name, value in READER.items()), "--threads=1"]
OPTIONS = [*STREAM, "--training.epochs=3", "--search.first_task=search", "--search.commit_share=0.7"]


class Lines(Shown):
    def __init__(self) -> None:
        self.lines: list[str] = []
        self.moments: list[tuple[str, float | None]] = []

    def line(self, text: str) -> None:
        self.lines.append(text)

    def moment(self, text: str, share: float | None) -> None:
        self.moments.append((text, share))
