"""``lasem compare``: several methods on one stream, side by side; and what every command of many runs does."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from lasem.cli.choices import COMPARISON, layered, nested, read_file, read_text
from lasem.cli.command import Typed
from lasem.cli.main import FAILURE, say
from lasem.cli.run import print_comparison
from lasem.errors import ConfigError, printable, quoted
from lasem.settings import Range

if TYPE_CHECKING:
    from lasem.experiments import ComparisonResult
    from lasem.experiments.grid import AbstractExecutor


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
    from lasem.experiments.config import from_yaml
    from lasem.experiments.parts import METHOD_PARTS

    above = nested(settings)
    stored = read_file(config, above)
    for part in ("method", *METHOD_PARTS):
        if part in stored:
            raise ConfigError(f"{config} sets {part}; {COMPARISON.elsewhere}")
    if not (methods or methods_file):
        raise ConfigError("Expected --methods or --methods-file; got neither. See lasem compare --help.")
    entries = from_yaml(read_text(methods_file), str(methods_file), of_list=True) if methods_file else []
    compared = compared_methods(layered(stored, above), methods, entries)
    if print_config:
        print(methods_to_yaml(compared), end="")
        return 0
    directory = out or Path("runs") / f"compare-{compared[0].config.to_plain()['stream']['name']}"
    num_workers, executor = find_workers(workers, ray, compared[0].config.threads)
    with shown_runs(directory, typed, num_workers=num_workers, quiet=quiet) as observer:
        made = run_comparison(
            compared, directory, num_workers=num_workers, executor=executor, observer=observer, command=typed
        )
    print_comparison(made.directory)
    return print_failures(made, made.directory)


def find_workers(workers: int | None, ray: str | None, threads: int) -> tuple[int, AbstractExecutor | None]:
    """Return how many runs go on at a time, and what makes them; None: processes of this machine.

    Raises:
        ConfigError: if ray is not installed, or there is no cluster at the address.
    """
    if ray is None:
        return workers or 1, None
    from lasem.experiments.ray_executor import RayExecutor

    executor = RayExecutor(ray)
    return workers or executor.max_workers(threads), executor


def print_failures(compared: ComparisonResult, runs: Path) -> int:
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
