"""How well each search chooses: regret against every configuration, trained with other seeds on the same tasks."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import chain, product
from typing import Final, final

import numpy as np

from lasem.errors import ConfigError
from lasem.metrics import Matrix, PairedDifference, Run, Statistic, difference_over_seeds, statistic
from lasem.records import TaskRecord
from lasem.report.figures.bars import draw_dots
from lasem.report.frame import difference_cells
from lasem.report.numbers import fixed, p_value, percent
from paper.recipe import NO_RUN, Findings, Panel, Recipe, panel
from paper.regret import accuracies_of_others, among_best, regrets, repeated_share
from paper.runs import PanelRuns
from paper.streams import Scale
from paper.table import LINES, Columns, Grid, Row, column, dot, measured, seconds, table

STREAMS: Final = ("cifar100-10", "ctrl-s-minus", "ctrl-s-out", "ctrl-s-in", "ctrl-s-pl")
SEARCHES: Final = {
    "LASEM": "lasem-hps",
    "evidence": "evidence-hps",
    "brute force": "exhaustive-hps",
    "prefix search": "prefix-hps",
    "random search": "random-hps",
    "MNTDP": "mntdp-hps",
    "SubTuning": "subtuning-hps",
    "TAPS": "taps-hps",
    "DARTS": "darts-hps",
}
"""Labels by title."""
LASEM, ALL, NONE, EVEN = "LASEM", "all, fixed", "none, fixed", "drawn evenly"
FIXED: Final = "fixed-"
MOST_LAYERS: Final = 6


def panels(scale: Scale) -> tuple[Panel, ...]:
    """Every search, and every configuration for all tasks, on tasks that all seeds have in common.

    Raises:
        ConfigError: if the network has too many layers to train every configuration.
    """
    found = []
    for stream in scale.streams(*STREAMS):
        if stream.depth > MOST_LAYERS:
            raise ConfigError(
                f"Recipe choice trains every configuration: expected a network of at most {MOST_LAYERS} layers that "
                f"can be transferred; got {stream.depth}. Choose another --net."
            )
        same = replace(stream, key=f"{stream.key}-same-tasks", base={"stream_seed": 0, **stream.base})
        entries = [
            {"name": "lasem-hps", "label": FIXED + letters, "search": {"name": "fixed", "configuration": letters}}
            for letters in map("".join, product("ST", repeat=stream.depth))
        ]
        found.append(panel(same, list(SEARCHES.values()), entries))
    return tuple(found)


@final
@dataclass(frozen=True)
class Choices:
    """The choices on one stream, of all tasks but the first, which has nothing to transfer; arrays as in ``regret``."""

    of: PanelRuns

    @cached_property
    def configurations(self) -> list[str]:
        """Of all layers, in the order of the arrays: none transferred first, all last."""
        return [label.removeprefix(FIXED) for label in self.of.labels if label.startswith(FIXED)]

    @cached_property
    def seeds(self) -> list[int]:
        """Those with which every configuration is finished."""
        return [seed for seed in self.of.seeds if all(seed in self.of.runs[FIXED + c] for c in self.configurations)]

    @cached_property
    def accuracies(self) -> Matrix:
        """Peak accuracy of every configuration, for all tasks of a run the same one."""
        runs = [[self.of.runs[FIXED + c][seed] for c in self.configurations] for seed in self.seeds]
        return np.array([[run.peak_accuracies[1:] for run in of_seed] for of_seed in runs], dtype=np.float64)

    @property
    def known(self) -> bool:
        """Whether anything can be said: two seeds, and a task after the first."""
        return len(self.seeds) > 1 and self.accuracies.size > 0

    @cached_property
    def others(self) -> Matrix:
        """Accuracy of a configuration in the runs of other seeds."""
        return accuracies_of_others(self.accuracies)

    @cached_property
    def best(self) -> Matrix:
        """1 where a configuration is among the best, 0 elsewhere."""
        return among_best(self.accuracies).astype(np.float64)

    @cached_property
    def chosen(self) -> dict[str, Matrix]:
        """What is chosen, by title: of searches, of all and none for every task, and of what is no search."""
        return {
            **{title: self._weights(label, _choice) for title, label in SEARCHES.items()},
            ALL: self._at(-1),
            NONE: self._at(0),
            "one for all, by hindsight": self._at(self.others.mean(axis=2).argmax(axis=1)[:, None]),
            "best by its own test images": self._at(self.accuracies.argmax(axis=1)),
            EVEN: np.full_like(self.accuracies, 1 / len(self.configurations)),
        }

    @cached_property
    def probabilities(self) -> dict[str, Matrix]:
        """q after the last epoch that trained several configurations, of the searches that have it, by title."""
        found = {title: self._weights(label, _probabilities) for title, label in SEARCHES.items()}
        return {title: q for title, q in found.items() if not np.isnan(q).all()}

    def regrets(self, title: str) -> Matrix:
        """Of a choice, shape (S, K); NaN where it is not finished."""
        return regrets(self.accuracies, self.chosen[title])

    def above_lasem(self, title: str) -> PairedDifference | None:
        """How far a choice's regret is above LASEM's; None for LASEM, and if either is not finished."""
        differences = self.regrets(title) - self.regrets(LASEM)
        both = [of_seed for of_seed in differences if not np.isnan(of_seed).any()]
        return difference_over_seeds(both) if both and title != LASEM else None

    def _weights(self, label: str, of_task: Callable[[Run, TaskRecord], Mapping[str, float]]) -> Matrix:
        """A method's weights of configurations; NaN for tasks without any."""
        found, runs = np.full_like(self.accuracies, np.nan), self.of.runs[label]
        for s, run in ((s, runs[seed]) for s, seed in enumerate(self.seeds) if seed in runs):
            for k, task in enumerate(run.tasks[1:]):
                if given := of_task(run, task):
                    found[s, :, k] = [given.get(c, 0.0) for c in self.configurations]
        return found

    def _at(self, positions: int | Matrix) -> Matrix:
        """Weight 1 at one configuration of each seed and task; positions broadcast to (S, K)."""
        num_seeds, num, num_tasks = self.accuracies.shape
        where = np.broadcast_to(np.asarray(positions) % num, (num_seeds, num_tasks))
        return np.moveaxis(np.eye(num)[where], -1, 1)


def _choice(run: Run, task: TaskRecord) -> dict[str, float]:
    return {task.configuration: 1.0}


def _probabilities(run: Run, task: TaskRecord) -> dict[str, float]:
    weighed = [epoch.probabilities for epoch in run.epochs(task.task) if epoch.num_evaluated > 1]
    return dict(zip(task.configurations, weighed[-1], strict=True)) if weighed else {}


def draw(panels: Sequence[PanelRuns]) -> Findings:
    """A figure of all regrets, a table of what each stream has to offer, and one of its choices."""
    every = {of.key: choices for of in panels if (choices := Choices(of)).known}
    drawing = draw_dots(
        "regret",
        [
            dot(title, choices.of.title, statistic(choices.regrets(title).mean(axis=1).tolist()))
            for choices in every.values()
            for title in choices.chosen
        ],
        axis="regret in points, mean over tasks; 0 is best",
        caption=f"How far what is chosen is below the best configuration, by test accuracies with other seeds. {LINES} "
        "The last three are no searches.",
        unit=percent,
    )
    offers = table(
        "streams-table",
        "What there is to choose",
        "Stream",
        [Row(choices.of.title, choices.of, "") for choices in every.values()],
        [
            column("Repeats %", lambda row: statistic([repeated_share(every[row.of.key].accuracies)]), percent),
            column("Best − worst", lambda row: _all(np.ptp(every[row.of.key].others, axis=1)), percent),
            column("Among the best %", lambda row: _mean(every[row.of.key].best), percent),
        ],
        "Repeats: of the variance over configurations, the share that is the same with another seed (the covariance of "
        "two seeds divided by the variance, about 0 or below for chance); the rest no search can find. Best − worst: "
        "in points, of means over other seeds, ± one standard deviation over tasks and seeds. Among the best: "
        "configurations at most one standard error of a difference below the best one.",
    )
    said = [_said(choices) for choices in every.values()]
    waits = "Regret is not known yet: it needs every configuration with two seeds or more, and two tasks or more."
    return Findings(
        verdict=f"{'; '.join(said)}." if said else waits if any(any(of.runs.values()) for of in panels) else NO_RUN,
        sections=(("Regret of each choice", drawing), offers, *chain(*map(_tables, every.values()))),
    )


def _said(choices: Choices) -> str:
    """Name a stream's search of least regret, LASEM's regret and that of chance, and whether anything repeats."""
    means = {title: _all(choices.regrets(title)).mean for title in choices.chosen}
    best = min((t for t in SEARCHES if means[t] == means[t]), key=lambda title: means[title], default=EVEN)
    difference, share = choices.above_lasem(best), repeated_share(choices.accuracies)
    lasem = f"LASEM {percent(means[LASEM])} (p {p_value(difference.p_value)}), " if difference else ""
    repeats = f"{percent(share)} % of the variance over configurations repeats" if share > 0 else "nothing repeats"
    return (
        f"{choices.of.title}: {best} has the least regret of the searches, {percent(means[best])} points; {lasem}"
        f"chance {percent(means[EVEN])}; with another seed {repeats}"
    )


def _tables(choices: Choices) -> list[Grid]:
    """The choices of one stream, and what the searches' probabilities are worth."""
    chosen, q, best = choices.chosen, choices.probabilities, choices.best
    labels = {**SEARCHES, ALL: FIXED + choices.configurations[-1], NONE: FIXED + choices.configurations[0]}
    rows = {title: Row(title, choices.of, labels.get(title, ""), title) for title in chosen}
    hits = column("Choice among the best %", lambda row: _mean((chosen[row.name] * best).sum(axis=1)), percent)
    return [
        table(
            f"{choices.of.key}-table",
            f"{choices.of.title}: choices",
            "Search",
            rows.values(),
            [
                column("Regret", lambda row: _all(choices.regrets(row.name)), percent),
                Columns(("Regret − LASEM's", "p"), lambda row: difference_cells(choices.above_lasem(row.name))),
                hits,
                measured("Peak accuracy %", "peak_accuracy", percent),
                seconds("Time, s", fixed(1)),
            ],
            "Regret in points, ± one standard deviation over tasks and seeds. A configuration's accuracy is its mean "
            "over the runs of other seeds that give it to all tasks. The highest of such means is too high, so that "
            "even the truly best one has some regret: compare rows. Differences are paired over seeds and tasks; seeds "
            "share the tasks, so that p is rather too small. First tasks count for peak accuracy and time alone. "
            "MNTDP chooses an earlier task as well, which does not count here.",
        ),
        table(
            f"{choices.of.key}-probabilities",
            f"{choices.of.title}: probabilities of configurations",
            "Search",
            [rows[title] for title in q],
            [
                column("q of the choice %", lambda row: _mean((q[row.name] * chosen[row.name]).sum(axis=1)), percent),
                hits,
                column("q on the best %", lambda row: _mean((q[row.name] * best).sum(axis=1)), percent),
                column("Even q on the best %", lambda row: _mean(best), percent),
            ],
            "q: probabilities after the last epoch that trained several configurations; searches without have no row. "
            "A search claims too much if q of its choice is above the share of tasks whose choice is among the best. "
            "It knows something if q on all of the best is above what an even q has there.",
        ),
    ]


def _all(values: Matrix) -> Statistic:
    """Mean and deviation over seeds and tasks."""
    return statistic(values.flatten().tolist())


def _mean(values: Matrix) -> Statistic:
    """The mean alone, of shares that have no deviation of interest."""
    return replace(_all(values), deviation=math.nan)


RECIPE: Final = Recipe(
    name="choice",
    title="How well do searches choose?",
    about="The configuration that a search gives a task is compared with the best of all, by the test accuracies of "
    "runs with other seeds on the same tasks. That is regret, 0 at best. Where another seed does not repeat what "
    "configurations differ in, there is nothing to choose by. Not in the paper.",
    panels=panels,
    draw=draw,
)
