"""``lasem run``: learn a stream of tasks."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

from lasem.cli.choices import RUN, layered, nested, read_file
from lasem.cli.command import Typed
from lasem.cli.main import FailedRunError
from lasem.cli.report import print_result
from lasem.errors import ConfigError, StorageError


def run(
    typed: Typed,
    *,
    out: Path | None = None,
    resume: Path | None = None,
    config: Path | None = None,
    print_config: bool = False,
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
    from lasem.experiments.config import differences
    from lasem.experiments.runner import read_config

    above = nested(settings)
    if resume is None:
        chosen = ExperimentConfig.from_plain(layered(read_file(config, above), above))
    else:
        if out or config:
            other = "--out" if out else "--config"
            raise ConfigError(f"--resume goes on in a run's own folder with its own settings; got {other} as well.")
        stored = ExperimentConfig.from_yaml(read_config(resume), str(resume / "config.yaml")).to_plain()
        chosen = ExperimentConfig.from_plain(layered(stored, above))
        for name, old, new in differences(stored, chosen.to_plain()):
            raise ConfigError(
                f"A run goes on with the settings that it was started with; {resume} has {name} = {old}, got {new}. "
                f"Leave --{name.removesuffix('.name')} out, or start a new run."
            )
    if print_config:
        print(chosen.to_yaml(), end="")
        return 0
    observer = make_observer(quiet=quiet)
    with observer.explained():
        path = run_experiment(chosen, resume or out, observer=observer, resume=resume is not None, command=typed)
    if resume and not observer.trained:
        print("The run was finished already; its report has been drawn again.", file=sys.stderr)
    try:
        print_result(path)
    except StorageError as error:
        raise FailedRunError(f"The run is finished, in {path}.") from error
    return 0
