"""The progress of runs on stderr: a line that moves in a terminal, a line now and then elsewhere."""

import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import final

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn
from rich.table import Column

from lasem.cli.main import FailedRunError, say
from lasem.errors import MovedError, printable, quoted
from lasem.experiments import ComparisonObserver, ExperimentConfig
from lasem.experiments.grid import Ended, Event, Learned, Noted, Started
from lasem.learner import Observer
from lasem.records import EpochRecord, TaskRecord, TimingRecord
from lasem.report.numbers import method_name

SECONDS_BETWEEN_LINES = 5.0
"""Of a log; the end of a task has a line of its own."""


@final
class Remaining:
    """An estimate of the time left, from the seconds of each epoch: searched epochs take longer than later ones."""

    def __init__(self) -> None:
        self._seconds: dict[int, float] = {}
        self._last: float | None = None
        self._warm = False

    def add(self, epoch: int, seconds: float) -> None:
        """Add the time of an epoch; a later task's replaces an earlier one's, since the first is often not searched."""
        if self._warm:
            self._seconds[epoch] = self._last = seconds
        self._warm = True  # a process's first epoch takes far longer than any other

    def estimate(self, epoch: int, num_epochs: int, tasks_left: int) -> float | None:
        """Return the seconds until the end, after ``epoch`` of ``num_epochs``; None before two epochs have been seen.

        ``tasks_left`` are the tasks after this one, over all seeds.
        """
        if self._last is None:
            return None
        seconds = [self._seconds.get(number, self._last) for number in range(1, num_epochs + 1)]
        return sum(seconds[epoch:]) + tasks_left * sum(seconds)


def duration(seconds: float) -> str:
    """Return for instance ``8 s``, ``2:05 min`` or ``3:20 h``."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60}:{whole % 60:02d} min"
    return f"{whole // 3600}:{whole % 3600 // 60:02d} h"


class Shown(Observer):
    """Puts the progress of a run into words. Shows nothing itself; subclasses do."""

    trained = False
    """Whether any task has begun."""
    stopped = "Stopped before training; nothing was written."
    """What a person reads after Ctrl-C."""
    again: Sequence[str] = ()
    """Words besides --resume that go on with a run."""
    failed = ""
    """What a person reads after an error; empty until everything that can be checked before training was checked."""

    @contextmanager
    def explained(self) -> Iterator[None]:
        """Show what goes on inside; after Ctrl-C or an error, say what is left and how to go on."""
        try:
            with closing(self):
                yield
        except KeyboardInterrupt:
            raise KeyboardInterrupt(self.stopped) from None
        except Exception as error:
            if not self.failed:
                raise
            raise FailedRunError("" if isinstance(error, MovedError) else self.failed) from error

    def close(self) -> None:
        """Leave the terminal as it was."""

    def line(self, text: str) -> None:
        """Show a line that stays."""

    def moment(self, text: str, share: float | None) -> None:
        """Show where the run is; ``share`` is the part of it that is done, in [0, 1], None if that is not known."""

    def run_starts(self, config: ExperimentConfig, directory: Path) -> None:
        self._config = config
        again = quoted("lasem", "run", "--resume", str(directory), *self.again)
        self.stopped = f"Stopped. Nothing finished is lost; go on with: {again}"
        self.failed = f"What was learned before is in {directory}."
        self._seeds_done = 0
        self._epochs_of_phases: int | None = None
        self._remaining = Remaining()
        self._clock = time.monotonic()
        self.line(f"Writing to {directory}")

    def seed_starts(self, seed: int, num_tasks: int | None, num_learned: int) -> None:
        self._seed, self._num_tasks, self._num_learned = seed, num_tasks, num_learned
        if num_learned and num_learned != num_tasks:
            self.line(f"{self._seed_words()}{num_learned} of {num_tasks or '?'} tasks were learned before; going on")

    def task_starts(self, task: str, num_epochs: int) -> None:
        self.trained = True
        self._in_phases = False
        self._clock = time.monotonic()
        if num_epochs:
            self.line(f"{task}: {num_epochs} epochs were trained before; going on")

    def epoch_ends(self, record: EpochRecord, timing: TimingRecord) -> None:
        now = time.monotonic()
        self._remaining.add(record.epoch, now - self._clock)
        self._clock = now
        self._in_phases = self._in_phases or bool(record.phase)
        epochs = self._epochs(record)
        seconds = share = None
        if self._num_tasks:
            seeds = len(self._config.seeds)
            left = self._num_tasks - self._num_learned - 1 + (seeds - self._seeds_done - 1) * self._num_tasks
            seconds = self._remaining.estimate(record.epoch, epochs, left) if epochs else None
            done = self._seeds_done * self._num_tasks + self._num_learned + (record.epoch / epochs if epochs else 0.0)
            share = done / (seeds * self._num_tasks)
        place = f"{self._seed_words()}task {self._num_learned + 1}/{self._num_tasks or '?'}"
        text = _epoch_words(place, record, timing, epochs, seconds)
        if self._config.method is None:
            text += f", {record.configuration} (p {max(record.probabilities):.2f})"
        self.moment(text, share)

    def _epochs(self, record: EpochRecord) -> int | None:
        """Epochs that the task under way will take; None where its phases have not been seen to their end before."""
        expected = self._epochs_of_phases if self._in_phases else self._config.training.epochs
        return expected if expected and record.epoch <= expected else None

    def task_ends(self, record: TaskRecord, final_accuracies: dict[str, float], seconds: float) -> None:
        self._num_learned += 1
        if self._in_phases:
            self._epochs_of_phases = record.num_epochs
        chosen = f"{record.configuration}, " if self._config.method is None else ""
        self.line(
            f"{self._seed_words()}{record.task}: {chosen}peak {100 * record.peak_accuracy:.1f} %, {duration(seconds)}"
        )

    def seed_ends(self, seed: int) -> None:
        self._seeds_done += 1
        if self._seeds_done == len(self._config.seeds):
            self.moment("drawing the report", 1.0)

    def note(self, message: str) -> None:
        self.line(message)

    def _seed_words(self) -> str:
        return f"seed {self._seed}, " if len(self._config.seeds) > 1 else ""


class Log(Shown):
    """Plain lines, for files and pipes."""

    def __init__(self) -> None:
        self._last = time.monotonic()

    def line(self, text: str) -> None:
        say(text, error=True)
        self._last = time.monotonic()

    def moment(self, text: str, share: float | None) -> None:
        if time.monotonic() - self._last >= SECONDS_BETWEEN_LINES:
            self.line(text)


class Bar(Shown):
    """A bar and a text that move, in a terminal."""

    def __init__(self, console: Console) -> None:
        self._progress = Progress(
            BarColumn(bar_width=8),
            TextColumn("{task.description}", markup=False, table_column=Column(no_wrap=True, overflow="ellipsis")),
            console=console,
            transient=True,
            refresh_per_second=4,  # it shares the processor with training
        )
        self._task = self._progress.add_task("", total=None, visible=False)

    def close(self) -> None:
        self._progress.stop()

    def line(self, text: str) -> None:
        self._progress.console.print(printable(text), markup=False, highlight=False)

    def moment(self, text: str, share: float | None) -> None:
        self._progress.start()  # once is enough
        total, done = None if share is None else 1.0, share or 0.0
        self._progress.update(self._task, description=printable(text), total=total, completed=done, visible=True)


@final
class EpochLines(Observer):
    """The epochs of one task that a growing model learns."""

    def __init__(self, shown: Shown, model: str, epochs: int, again: str) -> None:
        """Show them on ``shown``; the task takes at most ``epochs``, and the command ``again`` goes on with it."""
        self._shown, self._model, self._epochs, self._again = shown, model, epochs, again
        self._remaining = Remaining()
        shown.stopped = f"Stopped; the model is as before. Go on with the same command: {again}"

    def epoch_ends(self, record: EpochRecord, timing: TimingRecord) -> None:
        self._shown.failed = (
            f"The model in {self._model} is as before. When the reason is gone, the same command goes on: {self._again}"
        )
        self._remaining.add(record.epoch, timing.seconds_training + timing.seconds_evaluating)
        known = record.epoch <= self._epochs and not record.phase  # a search in phases trains more than once
        # an epoch of a search may take many times as long as those after it, and most searches end early
        searching = record.num_evaluated > 1 and record.epoch < self._epochs / 2
        seconds = self._remaining.estimate(record.epoch, self._epochs, 0) if known and not searching else None
        text = _epoch_words(record.task, record, timing, self._epochs if known else None, seconds)
        self._shown.moment(f"{text}, {record.configuration}", record.epoch / self._epochs if known else None)

    def note(self, message: str) -> None:
        self._shown.line(message)


def _epoch_words(
    place: str, record: EpochRecord, timing: TimingRecord, epochs: int | None, seconds: float | None
) -> str:
    """Where training is and how accurate; what may be long comes last, where a narrow terminal cuts it."""
    phase = f", {record.phase}" if record.phase else ""
    time_left = "" if seconds is None else f", {duration(seconds)} left"
    epoch = f"{record.epoch}/{epochs}" if epochs else str(record.epoch)
    return (
        f"{place}{phase}, epoch {epoch}{time_left}: loss {record.loss:.3g}, valid {100 * record.valid_accuracy:.1f} %, "
        f"{timing.seconds_training + timing.seconds_evaluating:.2g} s an epoch"
    )


def make_observer(*, quiet: bool) -> Shown:
    """Return what suits the place that stderr goes to."""
    if quiet:
        return Shown()
    console = Console(stderr=True)
    return Bar(console) if console.is_terminal else Log()


class ComparisonShown(ComparisonObserver):
    """A line for each run that ends, and in a terminal one that moves."""

    def __init__(self, shown: Shown, folder: Path, command: Sequence[str], *, num_workers: int) -> None:
        self._shown, self._folder, self._command, self._num_workers = shown, folder, command, num_workers

    def comparison_starts(self, directory: Path, waiting: Sequence[str], finished: Sequence[str]) -> None:
        again = quoted(*self._command)
        self._shown.stopped = f"Stopped. Nothing finished is lost; go on with the same command: {again}"
        self._shown.failed = f"What was learned before is in {self._folder}."
        self._clock = time.monotonic()
        self._waiting, self._num_runs, self._num_ended = list(waiting), len(waiting), 0
        self._running: dict[str, tuple[float, float]] = {}  # when it began, and the share of it that is done
        self._seconds: dict[str, float] = {}
        there = f", {len(finished)} finished already" if finished else ""
        self._shown.line(f"Writing to {directory}: {len(waiting)} run{'s' if len(waiting) != 1 else ''} to go{there}")

    def notify(self, event: Event) -> None:
        if isinstance(event, Started):
            self._waiting.remove(event.name)
            self._running[event.name] = (time.monotonic(), 0.0)
        elif isinstance(event, Learned):
            share = event.num_learned / event.num_tasks if event.num_tasks else 0.0
            self._running[event.name] = (self._running[event.name][0], share)
        elif isinstance(event, Noted):
            self._shown.line(f"{method_name(event.name)}: {event.message}")
        elif isinstance(event, Ended):
            self._end(event)
        if not isinstance(self._shown, Log):  # which has a line for each run only
            names = ", ".join(f"{method_name(name)} {100 * share:.0f} %" for name, (_, share) in self._running.items())
            share = (self._num_ended + sum(of[1] for of in self._running.values())) / max(1, self._num_runs)
            self._shown.moment(f"{self._num_ended} of {self._num_runs} runs{self._left()}: {names}", share)

    def _end(self, event: Ended) -> None:
        del self._running[event.name]
        self._num_ended += 1
        if event.error is None:
            self._seconds[event.name] = event.seconds
        how = f"done in {duration(event.seconds)}" if event.error is None else f"failed: {event.error}"
        self._shown.line(
            f"{self._num_ended}/{self._num_runs} {method_name(event.name)}: {how} "
            f"({duration(time.monotonic() - self._clock)} elapsed{self._left()})"
        )

    def _left(self) -> str:
        """What the rest will take, from the runs that have ended: the same method's if there is one."""
        rest = [*self._waiting, *self._running]
        if not rest or not self._seconds:
            return ""
        seconds = []
        for name in rest:
            method = name.rpartition("-")[0]
            same = [taken for other, taken in self._seconds.items() if other.rpartition("-")[0] == method]
            known = same or list(self._seconds.values())
            gone = time.monotonic() - self._running[name][0] if name in self._running else 0.0
            seconds.append(max(0.0, sum(known) / len(known) - gone))
        return f", about {duration(max(sum(seconds) / self._num_workers, max(seconds)))} left"


@contextmanager
def shown_runs(directory: Path, command: Sequence[str], *, num_workers: int, quiet: bool) -> Iterator[ComparisonShown]:
    """Show the progress of the runs inside; after Ctrl-C or an error, say what is left and how to go on."""
    shown = make_observer(quiet=quiet)
    with shown.explained():
        yield ComparisonShown(shown, directory, command, num_workers=num_workers)
