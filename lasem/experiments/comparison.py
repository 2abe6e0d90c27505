"""Methods side by side on one stream: a run for each method and seed, each in a folder of its own."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, final

from lasem.errors import ConfigError, check_range, nearest
from lasem.experiments import folder
from lasem.experiments.config import ExperimentConfig
from lasem.experiments.grid import AbstractExecutor, Ended, Event, Job, ThisProcess, local_device
from lasem.experiments.methods import LASEM, with_name
from lasem.experiments.process_pool import ProcessPool
from lasem.experiments.runner import check, check_same, describe_environment
from lasem.experiments.yaml_text import to_yaml
from lasem.files import write_file
from lasem.learner.learner import find_device
from lasem.report.comparison import INDEX, is_finished, read_index
from lasem.report.experiment import load_experiment

_LABEL = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,79}")
_OF_A_METHOD = ("name", "label", "method", "sharing", "search", "protect", "net", "training")


@final
@dataclass(frozen=True)
class Contestant:
    """One method of a comparison."""

    label: str
    """What tables call it, and its runs' folders: letters, digits, '.', '_' and '-'."""
    config: ExperimentConfig
    """With all seeds of the comparison."""

    def __post_init__(self) -> None:
        if not _LABEL.fullmatch(self.label):
            raise ConfigError(
                f"A method's label must be of letters, digits, '.', '_' and '-', for it names folders; got "
                f"'{self.label}'."
            )


class ComparisonObserver:
    """Is told how a comparison goes and does nothing; override what is of interest."""

    def comparison_starts(self, directory: Path, waiting: Sequence[str], finished: Sequence[str]) -> None:
        """Everything that can be checked before training has been checked.

        Args:
            directory: the comparison's folder.
            waiting: the runs to be made or resumed, ``METHOD-SEED``.
            finished: the runs that are there.
        """

    def notify(self, event: Event) -> None:
        """Something has happened to a run."""


@final
@dataclass(frozen=True)
class Compared:
    """What a comparison has come to."""

    directory: Path
    failures: dict[str, Ended]
    """The runs that failed, by name."""
    num_made: int
    """Runs that were made or resumed now."""


def contestants(base: Mapping[str, Any], names: Sequence[str], entries: Sequence[Any] = ()) -> tuple[Contestant, ...]:
    """The methods of a comparison, with their settings.

    Args:
        base: what all methods have, as plain values: stream, net, training, preset, seeds, device, threads.
        names: methods by name alone.
        entries: methods with settings of their own: names, or mappings with ``name`` and perhaps ``label``, ``method``,
            ``sharing``, ``search``, ``protect``, ``net`` and ``training``, as in a file of settings.

    Raises:
        ConfigError: if a method is not known, cannot use a setting, or two have the same label.
    """
    found: list[Contestant] = []
    for entry in (*entries, *names):
        settings = {"name": entry} if isinstance(entry, str) else _checked(entry)
        name = str(settings.pop("name"))
        label = str(settings.pop("label", name))
        if label.lower() in (other.label.lower() for other in found):
            raise ConfigError(
                f"The method '{label}' is there twice. Give one of the two another label in a methods file."
            )
        own = {part: {**with_name(part, base.get(part)), **with_name(part, settings[part])} for part in settings}
        method = {"name": name, **own.pop("method", {})}
        if method["name"] != name:
            raise ConfigError(
                f"{label}: the method is called '{name}' and '{method['name']}'. Leave one of the two out."
            )
        try:
            config = ExperimentConfig.from_plain({**base, **own, "method": method})
        except ConfigError as error:
            if _is_of_all(base, error):
                raise
            raise ConfigError(f"{label}: {error}") from error
        found.append(Contestant(label, config))
    if not found:
        raise ConfigError("Expected at least one method to compare; got none.")
    return tuple(found)


def _is_of_all(base: Mapping[str, Any], error: ConfigError) -> bool:
    """Whether what all methods have is wrong, so that the method where it was found is not to blame."""
    try:
        ExperimentConfig.from_plain(base)
    except ConfigError as common:
        return str(common) == str(error)
    return False


def methods_to_yaml(methods: Sequence[Contestant]) -> str:
    """The methods with every setting of theirs; ``contestants`` reads it again, as ``entries``."""
    entries: list[dict[str, Any]] = []
    for method in methods:
        plain = method.config.to_plain()
        name = plain["method"].pop("name") if "method" in plain else LASEM
        own = {part: plain[part] for part in method.config.parts if part != "stream" and plain[part]}
        entries.append({"name": name, "label": method.label, **own})
    return to_yaml(entries)


def _checked(entry: Any) -> dict[str, Any]:
    if not isinstance(entry, Mapping) or "name" not in entry:
        raise ConfigError(f"Expected a method's name, or its settings with a 'name'; got {entry!r}.")
    for key in entry:
        if key not in _OF_A_METHOD:
            raise ConfigError(
                f"A method of a comparison has no '{key}' (there are: {', '.join(_OF_A_METHOD)})."
                f"{nearest(str(key), _OF_A_METHOD)}"
            )
    return dict(entry)


def compare(
    methods: Sequence[Contestant],
    directory: str | Path,
    *,
    num_workers: int = 1,
    executor: AbstractExecutor | None = None,
    observer: ComparisonObserver | None = None,
    command: Sequence[str] = (),
) -> Compared:
    """Make the runs that are missing, resume those that were stopped, and draw the comparison.

    Every run is an ordinary one, in ``directory/LABEL-SEED``. A run that fails does not stop the others. Runs of own
    classes, networks and readers, which no other process can be told of, are made first, in this process.

    Args:
        methods: with the same stream and seeds.
        directory: the comparison's folder; runs that are there with the same settings are not made again.
        num_workers: runs at a time, each in a process of its own; not of those that are made in this one.
        executor: what makes these runs; processes of this machine if there is none.
        observer: is told how it goes.
        command: what a person typed, for the files.

    Raises:
        ConfigError: if a method does not fit the network or its settings each other.
        DataError: if the data are not there or not what they must be.
        DeviceError: if the device is not there.
        StorageError: if the folder cannot be used, or a run in it has other settings.
    """
    return compare_all(
        [(methods, directory)],
        directory,
        num_workers=num_workers,
        executor=executor,
        observer=observer,
        command=command,
    )


def compare_all(
    comparisons: Sequence[tuple[Sequence[Contestant], str | Path]],
    directory: str | Path,
    *,
    num_workers: int = 1,
    executor: AbstractExecutor | None = None,
    observer: ComparisonObserver | None = None,
    command: Sequence[str] = (),
    add: bool = False,
    begin: Callable[[], None] | None = None,
) -> Compared:
    """Make several comparisons as one grid of runs; see ``compare``.

    Args:
        comparisons: the methods and the folder of each.
        directory: what the observer is told, and what is given back.
        num_workers: runs at a time, of whatever comparison.
        executor: what makes them; processes of this machine if there is none.
        observer: is told how it goes.
        command: what a person typed, for the files.
        add: keep the methods and seeds that a comparison's folder has already.
        begin: called when everything is checked and nothing is run yet.

    Raises:
        LasemError: as ``compare``, before anything is run.
    """
    check_range("workers", num_workers, least=1)
    observer = observer or ComparisonObserver()
    root = Path(directory)
    told = []
    for methods, place in comparisons:
        here = [_with_a_device_of_here(method, executor) for method in methods]
        num_tasks = _check(here)
        told.append(
            (methods, Path(place), describe_environment(find_device(here[0].config.device), command, num_tasks))
        )
    with ExitStack() as held:
        jobs: list[Job] = []
        finished: list[str] = []
        for methods, path, about in told:
            held.enter_context(folder.claim_comparison(path))
            waiting, there = _jobs(methods, path, command)
            prefix = "" if path == root else f"{path.name}/"
            jobs += [replace(job, name=prefix + job.name) for job in waiting]
            finished += [prefix + name for name in there]
            write_file(path / INDEX, json.dumps(_index(methods, path, about, add), indent=1) + "\n")
        if begin is not None:
            begin()
        observer.comparison_starts(root, [job.name for job in jobs], finished)
        failures: dict[str, Ended] = {}

        def notify(event: Event) -> None:
            if isinstance(event, Ended) and event.error is not None:
                failures[event.name] = event
            observer.notify(event)

        # own classes first: what is new fails most often
        ThisProcess().run([job for job in jobs if job.config.own_parts], 1, notify)
        (executor or ProcessPool()).run([job for job in jobs if not job.config.own_parts], num_workers, notify)
        for _, path, _ in told:
            write_comparison(path)
    return Compared(root, failures, len(jobs))


def _index(methods: Sequence[Contestant], path: Path, about: dict[str, object], add: bool) -> dict[str, object]:
    """What ``comparison.json`` says: which runs belong together."""
    labels, seeds = [method.label for method in methods], list(methods[0].config.seeds)
    if add and (path / INDEX).exists():
        before = read_index(path / INDEX)
        labels = [*before[0], *(label for label in labels if label not in before[0])]
        seeds = sorted({*before[1], *seeds})
    return {"methods": labels, "seeds": seeds, "environment": about}


def write_comparison(directory: Path) -> Path:
    """Draw a comparison from the files of its runs."""
    from lasem.report import write_comparison  # matplotlib takes its time, and only the end needs it

    return write_comparison(directory)


def _check(methods: Sequence[Contestant]) -> int | None:
    """Meet every error that a run would meet at its start."""
    first, labels = methods[0].config, [method.label.lower() for method in methods]
    for method in methods:
        if labels.count(method.label.lower()) > 1:
            raise ConfigError(f"The method '{method.label}' is there twice. Give one of the two another label.")
        config = method.config
        if config.seeds != first.seeds or not (config.stream is first.stream or _stream(config) == _stream(first)):
            raise ConfigError(f"Methods are compared on one stream with the same seeds; {method.label} has others.")
        if config.own_parts:
            continue
        try:
            ExperimentConfig.from_yaml(config.to_yaml())  # as its process will read it
        except ConfigError as error:
            raise ConfigError(f"{method.label}: {error}") from error
    return check([method.config for method in methods]).num_tasks


def _stream(config: ExperimentConfig) -> dict[str, Any]:
    """By its settings: tensors that a reader may hold do not compare."""
    plain: dict[str, Any] = config.to_plain()["stream"]
    return plain


def _with_a_device_of_here(method: Contestant, executor: AbstractExecutor | None) -> Contestant:
    """Runs that are made elsewhere need no device here."""
    device = local_device(method.config.device, executor)
    if method.config.own_parts or device == method.config.device:
        return method
    return replace(method, config=replace(method.config, device=device))


def _jobs(methods: Sequence[Contestant], path: Path, command: Sequence[str]) -> tuple[list[Job], list[str]]:
    """What is to be made, seed by seed, so that an early look compares equals; and the runs that are there."""
    jobs, finished = [], []
    for seed in methods[0].config.seeds:
        for method in methods:
            config, place = replace(method.config, seeds=(seed,)), path / f"{method.label}-{seed}"
            state = _state(place, config)
            if state == "finished":
                finished.append(place.name)
            else:
                jobs.append(Job(place.name, config, place, tuple(command)))
    return jobs, finished


def _state(place: Path, config: ExperimentConfig) -> str:
    """new, begun or finished; StorageError if the folder holds something else."""
    if not (place / folder.CONFIG).exists():
        folder.check_free(place)
        return "new"
    check_same(config, place, "Choose another folder or label, or delete that run.")
    (seed,) = config.seeds
    if not (place / "report.html").exists() or not (place / "seeds" / str(seed) / "records.jsonl").exists():
        return "begun"
    experiment = load_experiment(place)
    return "finished" if all(is_finished(experiment, run, place) for run in experiment.runs) else "begun"
