"""Bars: how the model grows with each task."""

from __future__ import annotations

from typing import Any

import numpy as np

from lasem.metrics import Run
from lasem.report.figures import PAGE_WIDTH, Drawing, colour, figure_style, new_figure, ramp
from lasem.report.numbers import display_name, short_count


@figure_style()
def draw_parameters(run: Run) -> Drawing | None:
    """Draw how one seed's model grew: what is shared and what each task adds; None before the first task."""
    tasks = run.tasks
    if not tasks:
        return None
    num = len(tasks)
    numbers = [task.index + 1 for task in tasks]
    shared, totals = (np.array([getattr(task, f"parameters_{of}") for task in tasks]) for of in ("shared", "total"))
    added = np.cumsum([0, *(task.parameters_added for task in tasks)])
    separate = [number * tasks[0].parameters_total for number in range(1, num + 1)]
    figure = new_figure(PAGE_WIDTH, 350)
    axes = figure.subplots()
    edges: dict[str, Any] = {"edgecolor": colour("paper"), "linewidth": 0.6 if num <= 20 else 0.3, "width": 0.72}
    layers: list[Any] = [axes.bar(numbers, shared, color=colour("rest"), label="shared", **edges)]
    for n, task in enumerate(tasks):
        label = f"{n + 1} · {display_name(task.task, 17)}"
        height, base = task.parameters_added, shared[n:] + added[n]
        layers.append(axes.bar(numbers[n:], height, bottom=base, color=ramp(n, num), label=label, **edges))
    key = [layer for n, layer in enumerate(layers) if num <= 10 or n in (0, 1, num // 2 + 1, num)]
    if num > 1:
        key += axes.plot(numbers, separate, "--", color=colour("muted"), linewidth=1.2, label="separate models")
    shown = [short_count(total) if num <= 12 or n == num - 1 else "" for n, total in enumerate(totals)]
    box = {"facecolor": colour("paper"), "linewidth": 0, "pad": 1}
    for number, total, text in zip(numbers, totals, shown, strict=True):
        axes.annotate(text, (number, total), (0, 4), textcoords="offset points", ha="center", size=9.5, bbox=box)
    axes.set_ylim(0, 1.1 * max(1, *separate, *totals))
    axes.set_xlim(0.4, max(num, 4) + 0.6)
    axes.set_xticks(numbers if num <= 20 else [n for n in numbers if n % 5 == 0 or n == 1])
    axes.yaxis.set_major_formatter(lambda value, _: short_count(value))
    axes.locator_params(axis="y", nbins=5)
    axes.grid(axis="y")
    axes.set_xlabel("after task")
    axes.set_ylabel("parameters")
    figure.legend(handles=key[::-1], loc="outside right upper")
    return Drawing.of(
        figure,
        f"seed-{run.seed}-parameters",
        ("after_task", "part", "parameters"),
        tuple(
            row
            for position, after in enumerate(tasks)
            for row in (
                (after.task, "shared", after.parameters_shared),
                *((after.task, f"added by {task.task}", task.parameters_added) for task in tasks[: position + 1]),
                (after.task, "total", after.parameters_total),
                (after.task, "separate models", separate[position]),
            )
        ),
        caption=(
            "Each bar is everything the model holds after a task: the shared knowledge (grey) and, above it, what "
            "each task so far keeps for itself, its head included. The dashed line is a separate model for each "
            "task, each as large as this one after its first."
        ),
        description=(
            f"Stacked bars of parameters after each of {num} tasks; at the end {tasks[-1].parameters_total:,} in all, "
            f"{tasks[-1].parameters_shared:,} of them shared."
        ),
    )
