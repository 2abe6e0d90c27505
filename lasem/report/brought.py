"""What a method brought: each task next to learning it alone and to logistic regression, where these runs were made."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from lasem.metrics import PairedDifference, Run, Statistic, paired_difference, statistic
from lasem.report.experiment import INDEX, finished_runs, plain_settings, read_index, text_of
from lasem.report.numbers import display_name, in_words, percent

if TYPE_CHECKING:
    from lasem.report.figures import Drawing

ALONE, LOGISTIC = "learned alone", "logistic regression"
_LEARNED, _END = "when it was learned", "at the end"
_MOST_NAMED = 6
"""Tasks that a sentence names."""

References = Mapping[str, Sequence[Run]]
"""The runs of ``ALONE`` and ``LOGISTIC``, as far as they were made."""


@dataclass(frozen=True, kw_only=True)
class Brought:
    """The accuracies of each task at the end, over the seeds of one method."""

    method: str
    """As a sentence calls it."""
    tasks: Mapping[str, Mapping[str, Statistic]]
    """By task, then by what reaches it."""
    over_alone: PairedDifference | None
    """Final accuracies minus those of learning alone; None without such runs."""

    @property
    def sentence(self) -> str:
        """One line: the gain over learning alone, and the tasks that end below logistic regression."""
        parts = []
        if self.over_alone is None:
            parts.append(
                "What its tasks reach when each is learned alone was not measured here; "
                "lasem compare --methods lasem,none,logistic measures it."
            )
        else:
            parts.append(f"{self.method} against learning each task alone: {in_words(self.over_alone)}.")
        logistic = {task: of for task, of in self.tasks.items() if LOGISTIC in of and _END in of}
        below = [task for task, of in logistic.items() if of[_END].mean < of[LOGISTIC].mean]
        named = [f"{display_name(t, 40)} ({self._pair(t)})" for t in below[:_MOST_NAMED]]
        more = f" and {len(below) - _MOST_NAMED} more" if len(below) > _MOST_NAMED else ""
        if below:
            parts.append(f"Below logistic regression: {', '.join(named)}{more}.")
        elif logistic:
            parts.append("No task ends below logistic regression.")
        return " ".join(parts)

    def _pair(self, task: str) -> str:
        return f"{percent(self.tasks[task][_END].mean)} against {percent(self.tasks[task][LOGISTIC].mean)} %"

    def draw(self, name: str) -> "Drawing | None":
        """Draw the tasks, a row each; None without any. Reference runs take the place of the peak."""
        from lasem.report.figures import caption
        from lasem.report.figures.bars import Dot, draw_dots

        compared = any({ALONE, LOGISTIC} & of.keys() for of in self.tasks.values())
        shown = (_END, ALONE, LOGISTIC) if compared else (_LEARNED, _END)
        dots = [
            Dot(row=display_name(task, 28), series=series, mean=of[series].mean, deviation=of[series].deviation)
            for task, of in self.tasks.items()
            for series in shown
            if series in of
        ]
        several = any(math.isfinite(dot.deviation) for dot in dots)
        text = caption(
            "brought",
            method=self.method,
            spread=" Lines reach one standard deviation over seeds to each side." * several,
        )
        return draw_dots(name, dots, axis="test accuracy in %", caption=text, unit=percent)


def brought(method: str, runs: Sequence[Run], references: References) -> Brought:
    """Put the runs of one method next to the references of the same seeds."""
    seeds = {run.seed for run in runs}
    series: dict[str, dict[str, list[float]]] = {}
    for run in runs:
        for record in run.evaluated_tasks:
            series.setdefault(record.task, {}).setdefault(_LEARNED, []).append(record.peak_accuracy)
    for what, of in {_END: runs, **references}.items():
        for run in of:
            for task, final in ([{}, *run.evaluations.values()][-1] if run.seed in seeds else {}).items():
                if task in series:
                    series[task].setdefault(what, []).append(final)
    difference = paired_difference(runs, references.get(ALONE, ()), "final_accuracies")
    return Brought(
        method=method,
        tasks={task: {what: statistic(of) for what, of in by.items()} for task, by in series.items()},
        over_alone=difference if difference.num_pairs else None,
    )


def reference_of(config: str | None) -> str:
    """Return which reference a run with such settings is, ``ALONE`` or ``LOGISTIC``; empty if it is none."""
    settings = plain_settings(config)
    method, search = settings.get("method"), settings.get("search")
    if isinstance(method, dict) and method.get("name") == "logistic":
        return LOGISTIC
    fixed = isinstance(search, dict) and (search.get("name"), search.get("configuration")) == ("fixed", "none")
    return ALONE if fixed else ""


def references_near(run_dir: Path) -> dict[str, list[Run]]:
    """Return the finished references in the comparison that a run's folder belongs to; empty if it belongs to none.

    StorageError if a file of the comparison is damaged.
    """
    directory = Path(run_dir).resolve().parent
    if not (directory / INDEX).is_file():
        return {}
    labels, seeds = read_index(directory / INDEX)
    found: dict[str, list[Run]] = {}
    for label in labels:
        config = text_of(directory / f"{label}-{seeds[0]}" / "config.yaml")
        if what := reference_of(config):
            runs = finished_runs(directory, [label], seeds)[label]
            found.setdefault(what, [run for run, _ in runs.values()])
    return found
