"""The final table in a terminal."""

from __future__ import annotations

from pathlib import Path

from rich.table import Table
from rich.text import Text

from lasem.report.numbers import count, display_name, duration, percent, plus_minus, ratio
from lasem.report.tables import ResultTable, result_table
from lasem.report.verdict import progress_sentence


def console_table(run_dir: Path) -> Table:
    """The final table of a run for ``rich.print``: a row for each task, the means last, and what is unfinished below.

    With several seeds every cell is a mean and its sample deviation over them.

    Raises:
        StorageError: if ``run_dir`` is no run's folder, or a file in it is damaged.
    """
    result = result_table(run_dir)
    several = len(result.averaged_seeds) > 1
    title = f"{display_name(result.name)}" + (
        f", mean ± deviation of {len(result.averaged_seeds)} seeds" if several else ""
    )
    # names are Text, not markup: a class called "[red]" stays what it is
    table = Table(title=Text(title), caption=Text(progress_sentence(result)), show_footer=bool(result.tasks))
    means = result.over_seeds
    for heading, footer in (
        ("Task", "Mean"),
        *([] if result.method else [("Layers", "")]),
        ("Peak %", plus_minus(means["peak_accuracy"], percent)),
        ("Final %", plus_minus(means["final_accuracy"], percent)),
        ("Final / peak", plus_minus(means["forgetting_ratio"], ratio)),
        ("Parameters added", f"total {plus_minus(means['parameters_total'], count)}"),
        ("Training time", f"total {plus_minus(means['seconds_training'], duration)}"),
    ):
        numeric = heading not in ("Task", "Layers")
        table.add_column(heading, footer=footer, justify="right" if numeric else "left")
    for task in result.tasks:
        table.add_row(
            Text(display_name(task.task, 40)),
            *([] if result.method else [Text(shared_configuration(task.configurations))]),
            plus_minus(task.peak_accuracy, percent),
            plus_minus(task.final_accuracy, percent),
            plus_minus(task.forgetting_ratio, ratio),
            plus_minus(task.parameters_added, count),
            plus_minus(task.seconds_training, duration),
        )
    _add_unfinished(table, result)
    return table


def shared_configuration(configurations: tuple[str, ...]) -> str:
    """The configuration that all seeds chose, or how many different ones they did."""
    different = set(configurations)
    return next(iter(different)) if len(different) == 1 else f"{len(different)} different"


def _add_unfinished(table: Table, result: ResultTable) -> None:
    if len(result.seeds) > 1:
        return  # the caption names them
    for row in result.seeds[0].rows:
        if not row.learned:
            layers = [] if result.method else [Text(row.configuration)]
            cells = [f"epoch {row.num_epochs}", "", "", "", duration(row.seconds_training)]
            table.add_row(Text(display_name(row.task, 40)), *layers, *cells, style="dim italic")
