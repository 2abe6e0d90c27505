"""``lasem run``, ``lasem compare`` and ``lasem report``, and what every command of runs begins and ends with."""

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from lasem.cli.choices import COMPARISON, RUN, layered, nested, read_file, read_text
from lasem.cli.command import Typed
from lasem.cli.main import FAILURE, FailedRunError, find_module, say
from lasem.errors import ConfigError, StorageError, printable, quoted
from lasem.settings import Range, from_yaml

if TYPE_CHECKING:
    from rich.table import Table

    from lasem.experiments import ComparisonResult
    from lasem.experiments.grid import AbstractExecutor


def run(
    typed: Typed,
    *,
    out: Path | None = None,
    resume: Path | None = None,
    config: Path | None = None,
    print_config: bool = False,
    checkpoint_seconds: Annotated[float, Range(least=0)] = 30,
    watch: tuple[str, ...] = (),
    quiet: bool = False,
    **settings: Annotated[str, RUN],
) -> int:
    """Learn a stream of tasks one after another.

    Everything is kept in a folder: settings, records, the model, and at the end a report.

    Args:
        out: new folder for the run (default: next one in runs/).
        resume: go on with the stopped or killed run in this folder.
        config: settings as YAML; options override them.
        print_config: write all settings as YAML, and run nothing.

    Examples:
        lasem run --method ewc             --help-all shows its settings, too
        lasem run --stream parquet --stream.path DATA --sharing tf --seeds 0,1,2
        lasem run --print-config > my.yaml; lasem run --config my.yaml
    """
    from lasem.cli.progress import make_observer
    from lasem.experiments import ExperimentConfig
    from lasem.experiments import run as run_experiment
    from lasem.experiments.config import stored_settings, suited
    from lasem.experiments.runner import check_same, read_config
    from lasem.learner.watching import watched

    above, remark = nested(settings), ""
    if resume is None:
        entry: Mapping[str, Any] = layered(read_file(config, above), above)
        entry, remark = suited(entry, lambda entry: {"the method": ExperimentConfig.from_plain(entry)})
        chosen = ExperimentConfig.from_plain(entry)
    else:
        if out or config:
            other = "--out" if out else "--config"
            raise ConfigError(f"--resume goes on in a run's own folder with its own settings; got {other} as well.")
        stored = ExperimentConfig.from_plain(
            stored_settings(read_config(resume), str(resume / "config.yaml"))
        ).to_plain()
        chosen = ExperimentConfig.from_plain(layered(stored, above))
        check_same(chosen, resume, "A run goes on with its own settings: leave those options out, or start a new run.")
    if print_config:
        print(chosen.to_yaml(), end="")
        return 0
    if remark and not quiet:
        say(remark, error=True)
    observer = make_observer(quiet=quiet)
    observer.again = ("--watch", ",".join(watch)) if watch else ()
    with observer.explained():
        path = run_experiment(
            chosen,
            resume or out,
            observer=watched(watch, observer),
            resume=resume is not None,
            command=typed,
            checkpoint_seconds=checkpoint_seconds,
        )
    if resume and not observer.trained:
        say("The run was finished already; its report has been drawn again.", error=True)
    try:
        print_result(path)
    except StorageError as error:
        raise FailedRunError(f"The run is finished, in {path}.") from error
    return 0


def report(folder: Path, *, out: Path | None = None) -> int:
    """Draw the page of a run, a comparison, a reproduction or a growing model, from its folder alone.

    Of a run, which may still be going on, FOLDER/report.html and FOLDER/figures; of a comparison its page, of a
    reproduction every recipe's. A model's page goes next to its folder.

    Args:
        folder: such as runs/digits-hps-em-001, or a model's.
        out: a model's page (default: FOLDER.html).

    Examples:
        lasem report runs/digits-hps-em-001
        lasem report model --out pages/model.html
    """
    from lasem.metrics import load_runs
    from lasem.report import load_comparison, write_comparison, write_report
    from lasem.report.comparison import INDEX

    if (folder / "config.json").exists():
        return _report_model(folder, out)
    if out is not None:
        raise ConfigError(f"--out is for the page of a model; {folder} is none. Leave --out out.")
    if (folder / "reproduce.json").exists():
        find_module("reproduce").draw_again(folder)
        return 0
    compared = (folder / INDEX).exists()
    # a folder without a run is wrong input; a report that cannot be written is a failure
    (load_comparison if compared else load_runs)(folder)
    with failing():
        (write_comparison if compared else write_report)(folder)
    (print_comparison if compared else print_result)(folder)
    return 0


def _report_model(folder: Path, out: Path | None) -> int:
    from lasem.learner import GrowingModel
    from lasem.report import check_place
    from lasem.report.model import write_model

    place = folder if folder.name not in ("", "..") else folder.resolve()
    page = out or place.with_name(f"{place.name}.html")
    check_place(page, folder)
    model = GrowingModel(folder)
    overview, records = model.show(), model.records()
    with failing():
        write_model(page, overview, records)
    say(f"Report: {page}")
    return 0


@contextmanager
def failing() -> Iterator[None]:
    """What was asked for was right: that a file cannot be written is a failure."""
    try:
        yield
    except StorageError as error:
        raise FailedRunError from error


def print_result(directory: Path) -> None:
    """Print the final table of a run and the path of the report."""
    from lasem.report import console_table

    print_table(console_table(directory))
    say(f"Report: {directory / 'report.html'}")


def print_comparison(directory: Path) -> None:
    """Print the table of a comparison, in a line what its best method brought, and the path of its page."""
    from lasem.report import comparison_table, load_comparison
    from lasem.report.comparison import sentence

    print_table(comparison_table(directory))
    comparison = load_comparison(directory)
    say(comparison.brought.sentence if comparison.brought else sentence(comparison))
    say(f"Comparison: {directory / 'comparison.html'}")


def print_table(table: "Table") -> None:
    """Print a table on stdout, no cell of it cut; in a narrow terminal with less space, or as a list of its rows."""
    from rich import box
    from rich.console import Console
    from rich.measure import Measurement
    from rich.text import Text

    console = Console(file=sys.stdout, width=None if sys.stdout.isatty() else 10_000)
    wide = console.options.update(width=10_000)
    if Measurement.get(console, wide, table).maximum <= console.width:
        console.print(table)
        return
    spare = console.width + 1
    cells, most = list[list[Any]](), list[int]()
    for column in table.columns:
        shown = [column.header, *column.cells, *([column.footer] if table.show_footer else [])]
        cells.append([Text.from_markup(cell) if isinstance(cell, str) else cell for cell in shown])
        sizes = [Measurement.get(console, wide, cell) for cell in cells[-1]]
        most.append(max(size.maximum for size in sizes))
        word = max(size.minimum for size in sizes)
        column.width = word if column.justify == "right" else min(word, 16)  # a name may be broken anywhere
        column.overflow = "fold"
        spare -= column.width + 1
    if spare >= 0:
        table.box, table.padding, table.show_edge = box.SIMPLE_HEAD, (0, 0), False
        for column, width in sorted(zip(table.columns, most, strict=True), key=lambda of: of[1] - (of[0].width or 0)):
            more = max(0, min(spare, width - (column.width or 0)))
            column.width, spare = (column.width or 0) + more, spare - more
        console.print(table)
        return
    headings, *rows = zip(*cells, strict=True)
    lists = [[Text(": ").join(pair) for pair in zip(headings, row, strict=True) if pair[1]] for row in rows]
    console.print(*filter(None, (table.title, *map(Text("\n").join, lists), table.caption)), sep="\n\n")


def compare(
    typed: Typed,
    *,
    methods: tuple[str, ...] = (),
    methods_file: Path | None = None,
    out: Path | None = None,
    workers: Annotated[int, Range(least=1)] | None = None,
    ray: str | None = None,
    config: Path | None = None,
    print_config: bool = False,
    watch: tuple[str, ...] = (),
    quiet: bool = False,
    **settings: Annotated[str, COMPARISON],
) -> int:
    """Learn a stream with several methods, each with every seed.

    A run that is there is not made again, one that was stopped or killed goes on. Every run has its own folder and
    report; the comparison is one table and one figure.

    Args:
        methods: names as of lasem run --method, such as lasem,lasem-tf,none,ewc.
        methods_file: methods with settings of their own, as YAML.
        out: the comparison's folder (default: runs/compare-STREAM).
        ray: make the runs on the Ray cluster with its head at this address; auto: the one that this machine belongs
            to; local: this machine as one.
        config: settings of all methods as YAML; options override them.
        print_config: write the methods with all settings, a methods file; run nothing.

    Examples:
        lasem compare --methods lasem,all,none,ewc --seeds 0,1,2 --workers 2
        lasem compare --methods-file methods.yaml      for instance with the lines:
          - lasem
          - {name: ewc, label: ewc-strong, method: {strength: 20000}}
          - {name: lasem-tf, search: {commit_share: 0.2}, training: {learning_rate: 0.001}}
    """
    from lasem.cli.progress import shown_runs
    from lasem.experiments import compare as run_comparison
    from lasem.experiments import compared_methods
    from lasem.experiments.comparison import methods_to_yaml
    from lasem.experiments.config import stored_settings, suited
    from lasem.experiments.parts import METHOD_PARTS
    from lasem.nets.net import AUTO

    above = nested(settings)
    stored = read_file(config, above)
    for part in ("method", *METHOD_PARTS):
        if part in stored:
            raise ConfigError(f"{config} sets {part}; {COMPARISON.elsewhere}")
    if not (methods or methods_file):
        raise ConfigError("Expected --methods or --methods-file; got neither. See lasem compare --help.")
    entries = from_yaml(read_text(methods_file), str(methods_file), of_list=True) if methods_file else []
    base, remark = layered(stored, above), ""
    compared = compared_methods(base, methods, entries)
    directory = out or Path("runs") / f"compare-{compared[0].config.to_plain()['stream']['name']}"
    begun = next(directory.glob("*/config.yaml"), None)  # goes on with its network
    small = begun is not None and stored_settings(read_text(begun), str(begun))["net"].get("name", AUTO) == AUTO
    if not small and not any("net" in entry for entry in entries if isinstance(entry, dict)):
        suits, remark = suited(
            base, lambda base: {one.label: one.config for one in compared_methods(base, methods, entries)}
        )
        compared = compared_methods(suits, methods, entries)
    if print_config:
        print(methods_to_yaml(compared), end="")
        return 0
    if remark and not quiet:
        say(remark, error=True)
    num_workers, executor = find_workers(workers, ray, compared[0].config.threads)
    with shown_runs(directory, typed, num_workers=num_workers, quiet=quiet) as observer:
        made = run_comparison(
            compared,
            directory,
            num_workers=num_workers,
            executor=executor,
            observer=observer,
            command=typed,
            watch=watch,
        )
    print_comparison(made.directory)
    return print_failures(made, made.directory)


def find_workers(workers: int | None, ray: str | None, threads: int) -> "tuple[int, AbstractExecutor | None]":
    """Return how many runs go on at a time, and what makes them; None: processes of this machine.

    ConfigError if ray is not installed, or there is no cluster at the address.
    """
    if ray is None:
        return workers or 1, None
    from lasem.experiments.grid import RayExecutor

    executor = RayExecutor(ray)
    return workers or executor.max_workers(threads), executor


def print_failures(compared: "ComparisonResult", runs: Path) -> int:
    """Print which of the runs in a folder failed and what to do; return the exit code."""
    if not compared.failures:
        return 0
    say(f"lasem: {len(compared.failures)} of {compared.num_made} runs failed:", error=True)
    for name, ended in compared.failures.items():
        say(f"  {name}: {printable(str(ended.error))}", error=True)
    one = quoted(str(runs / next(iter(compared.failures))))
    say(
        f"The same command tries them again and leaves what is finished as it is; to see more of one: "
        f"lasem run --resume {one} --debug",
        error=True,
    )
    return FAILURE
