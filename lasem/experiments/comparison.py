"""Methods side by side on one stream: a run for each method and seed, each in a folder of its own."""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, final

from lasem.errors import ConfigError, nearest
from lasem.experiments import runner
from lasem.experiments.config import ExperimentConfig, among_paper
from lasem.experiments.grid import AbstractExecutor, Ended, Event, Job, ProcessPool, ThisProcess, local_device
from lasem.experiments.parts import LASEM, with_name
from lasem.files import check_links, write_file
from lasem.learner.learner import find_device
from lasem.learner.watching import Observer, watched
from lasem.report.brought import reference_of
from lasem.report.comparison import INDEX, read_index, write_comparison
from lasem.report.experiment import load_experiment
from lasem.settings import Range, to_yaml

_LABEL = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,79}")
_METHOD_KEYS = ("name", "label", "method", "sharing", "search", "protect", "net", "training")


@final
@dataclass(frozen=True)
class ComparedMethod:
    """One method of a comparison."""

    label: str
    """Its name in tables and in its runs' folders: letters, digits, '.', '_' and '-'."""
    config: ExperimentConfig
    """With all seeds of the comparison."""

    def __post_init__(self) -> None:
        if not _LABEL.fullmatch(self.label):
            raise ConfigError(
                f"A method's label must be of letters, digits, '.', '_' and '-', for it names folders; got "
                f"'{self.label}'."
            )


class ComparisonObserver:
    """Is notified of how a comparison goes and does nothing; override what is of interest."""

    def comparison_starts(self, directory: Path, waiting: Sequence[str], finished: Sequence[str]) -> None:
        """Everything was checked: these runs (``METHOD-SEED``) are to be made or resumed, and these were before."""

    def notify(self, event: Event) -> None:
        """Something has happened to a run."""


@final
@dataclass(frozen=True)
class ComparisonResult:
    """The outcome of a comparison; its numbers are in the folder."""

    directory: Path
    failures: dict[str, Ended]
    """The runs that failed, by name."""
    num_made: int
    """Runs that were made or resumed now."""


def compared_methods(
    base: Mapping[str, Any], names: Sequence[str], entries: Sequence[Any] = ()
) -> tuple[ComparedMethod, ...]:
    """Return the methods of a comparison, with their settings.

    Args:
        base: what all methods have, as plain values: stream, net, training, preset, seeds, stream_seed, device and
            threads.
        names: methods by name alone.
        entries: methods with settings of their own: names, or mappings with ``name`` and perhaps ``label``, ``method``,
            ``sharing``, ``search``, ``protect``, ``net`` and ``training``, as in a file of settings.

    Raises:
        ConfigError: if a method is not known, cannot use a setting, or two have the same label.
    """
    ExperimentConfig.from_plain(base)  # a mistake in what all have is not that of the first method
    methods: list[ComparedMethod] = []
    for entry in (*entries, *names):
        settings = {"name": entry} if isinstance(entry, str) else _checked(entry)
        name = str(settings.pop("name"))
        label = str(settings.pop("label", name))
        own = {part: {**with_name(part, base.get(part)), **with_name(part, settings[part])} for part in settings}
        method = {"name": name, **own.pop("method", {})}
        if method["name"] != name:
            raise ConfigError(
                f"{label}: the method is called '{name}' and '{method['name']}'. Leave one of the two out."
            )
        try:
            config = ExperimentConfig.from_plain({**base, **own, "method": method})
        except ConfigError as error:
            raise ConfigError(f"{label}: {error}") from error
        methods.append(ComparedMethod(label, config))
    if not methods:
        raise ConfigError("Expected at least one method to compare; got none.")
    _check_labels(methods)
    if any(one.config.method is not None for one in methods):  # one network for all, which baselines take, too
        methods = [replace(one, config=replace(one.config, net=among_paper(one.config.net))) for one in methods]
    return tuple(methods)


def _checked(entry: Any) -> dict[str, Any]:
    if not isinstance(entry, Mapping) or "name" not in entry:
        raise ConfigError(f"Expected a method's name, or its settings with a 'name'; got {entry!r}.")
    for key in entry:
        if key not in _METHOD_KEYS:
            raise ConfigError(
                f"A method of a comparison has no '{key}' (there are: {', '.join(_METHOD_KEYS)})."
                f"{nearest(str(key), _METHOD_KEYS)}"
            )
    return dict(entry)


def _check_labels(methods: Sequence[ComparedMethod]) -> None:
    labels = [method.label.lower() for method in methods]
    for number, method in enumerate(methods):
        if method.label.lower() in labels[:number]:
            raise ConfigError(f"The method '{method.label}' is there twice. Give one of the two another label.")


def methods_to_yaml(methods: Sequence[ComparedMethod]) -> str:
    """Write the methods with all of their settings; ``compared_methods`` reads them again, as ``entries``."""
    entries: list[dict[str, Any]] = []
    for method in methods:
        plain = method.config.to_plain()
        name = plain["method"].pop("name") if "method" in plain else LASEM
        own = {part: plain[part] for part in method.config.parts if part != "stream" and plain[part]}
        entries.append({"name": name, "label": method.label, **own})
    return to_yaml(entries)


def compare(
    methods: Sequence[ComparedMethod] | Mapping[str, Sequence[ComparedMethod]],
    directory: str | Path,
    *,
    num_workers: int = 1,
    executor: AbstractExecutor | None = None,
    observer: ComparisonObserver | None = None,
    command: Sequence[str] = (),
    watch: Sequence[str] = (),
    add: bool = False,
    begin: Callable[[], None] | None = None,
) -> ComparisonResult:
    """Make the runs that are missing, resume those that were stopped, and draw the comparison.

    Every run is an ordinary one, in ``directory/LABEL-SEED``. A run that fails does not stop the others. Runs of own
    classes, networks and readers, which no file can name, are made first, in this process.

    Args:
        methods: with the same stream and seeds; of several comparisons, by the folder of each in ``directory``.
        directory: the comparison's folder; finished runs with the same settings are not made again.
        num_workers: runs at a time, each in a process of its own; not of those that are made in this one.
        executor: what makes these runs; processes of this machine if there is none.
        observer: is notified of how it goes.
        command: what a person typed, for the files.
        watch: what each run is written for, too; names of ``lasem.learner.watching.WRITERS``.
        add: keep the methods and seeds that a comparison's folder has already.
        begin: called when everything is checked and nothing is run yet.

    Raises:
        StorageError: if the folder cannot be used, or a run in it has other settings; and the errors of ``run``.
    """
    Range(least=1).check("workers", num_workers)
    check_links(Path(directory))
    watched(watch, Observer())  # whether they are installed
    observer, executor, root = observer or ComparisonObserver(), executor or ProcessPool(), Path(directory)
    by_place = methods if isinstance(methods, Mapping) else {"": methods}
    comparisons = {root / place: of for place, of in by_place.items()}
    environments = [_check(of, executor, command) for of in comparisons.values()]
    with ExitStack() as locks:
        jobs: list[Job] = []
        finished: list[str] = []
        for (path, of), environment in zip(comparisons.items(), environments, strict=True):
            locks.enter_context(runner.locked(path, runner.check_comparison))
            prefix = "" if path == root else f"{path.name}/"
            for seed in of[0].config.seeds:  # seed by seed, so that an early look compares equals
                for method in sorted(of, key=_comes_later):
                    name, config = f"{method.label}-{seed}", replace(method.config, seeds=(seed,))
                    job = Job(prefix + name, config, path / name, tuple(command), tuple(watch))
                    if _is_finished(job):
                        finished.append(job.name)
                    else:
                        jobs.append(job)
            index = _index(of, path, add) | {"environment": environment}
            write_file(path / INDEX, json.dumps(index, indent=1) + "\n")
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
        executor.run([job for job in jobs if not job.config.own_parts], num_workers, notify)
        for path in comparisons:
            write_comparison(path)
    return ComparisonResult(root, failures, len(jobs))


def _check(methods: Sequence[ComparedMethod], executor: AbstractExecutor, command: Sequence[str]) -> dict[str, Any]:
    """Meet every error that a run would meet at its start, and return the environment."""
    _check_labels(methods)
    first, configs = methods[0].config, []
    for method in methods:
        config = method.config
        # plain values, for tensors that a reader may hold do not compare
        one_stream = config.stream is first.stream or config.to_plain()["stream"] == first.to_plain()["stream"]
        if (config.seeds, config.stream_seed) != (first.seeds, first.stream_seed) or not one_stream:
            raise ConfigError(f"Methods are compared on one stream with the same seeds; {method.label} has others.")
        if not config.own_parts:
            try:
                ExperimentConfig.from_yaml(config.to_yaml())  # what resumes the run reads it
            except ConfigError as error:
                raise ConfigError(f"{method.label}: {error}") from error
            config = replace(config, device=local_device(config.device, executor))
        configs.append(config)
    return runner.describe_environment(find_device(configs[0].device), command, runner.check(configs).num_tasks)


def _comes_later(method: ComparedMethod) -> bool:
    """Whether a method's report refers to other runs: those of single-task learning and logistic regression."""
    return bool(method.config.own_parts) or not reference_of(method.config.to_yaml())


def _is_finished(job: Job) -> bool:
    """Return whether a run has come to its end; StorageError if its folder holds something else."""
    place, (seed,) = job.directory, job.config.seeds
    if not (place / runner.CONFIG).exists():
        runner.check_free(place)
        return False
    runner.check_same(job.config, place, "Choose another folder or label, or delete that run.")
    if not all((place / name).exists() for name in ("report.html", f"seeds/{seed}/records.jsonl")):
        return False
    experiment = load_experiment(place)
    return all(experiment.is_finished(run) for run in experiment.runs)


def _index(methods: Sequence[ComparedMethod], path: Path, add: bool) -> dict[str, Any]:
    """Return which runs belong together, for ``comparison.json``."""
    labels, seeds = [method.label for method in methods], list(methods[0].config.seeds)
    if add and (path / INDEX).exists():
        before = read_index(path / INDEX)
        labels = list(dict.fromkeys([*before[0], *labels]))
        seeds = sorted({*before[1], *seeds})
    return {"methods": labels, "seeds": seeds}
