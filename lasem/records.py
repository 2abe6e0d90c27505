"""Records of a run: frozen, one JSON object a line.

A run writes two files. ``records.jsonl`` holds results only, so that the same seed gives the same bytes; wall-clock
times, which never repeat, go to ``timings.jsonl``. Metrics are computed from these two files alone. This module
imports no torch.
"""

import json
import re
import types
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, ClassVar, TypeVar, get_args, get_origin, get_type_hints

from lasem.errors import StorageError
from lasem.files import regular_bytes


@dataclass(frozen=True, kw_only=True)
class EpochRecord:
    """One epoch of one task. ``epoch`` counts from 1 within the task."""

    kind: ClassVar[str] = "epoch"
    task: str
    epoch: int
    loss: float
    """Mean training loss of the epoch: cross-entropy weighted over configurations, plus penalties."""
    valid_accuracy: float
    """Validation accuracy of the leading configuration after the epoch, in [0, 1]."""
    configuration: str
    """The leading configuration, for instance ``"STTS"``: T transfers the layer, S learns its own."""
    probabilities: tuple[float, ...]
    """Prior probability of every configuration of the task, in the order of ``TaskRecord.configurations``."""
    num_evaluated: int
    """Configurations evaluated in each step of this epoch, on average; 1 once the search has committed."""
    phase: str = ""
    """The method's phase of training, where it has several for one task."""
    transfer_probabilities: tuple[float, ...] | None = None
    """Prior probability that each layer transfers, input side first, of searches that weigh layers and not whole
    configurations; ``probabilities`` then holds the leading configuration's alone."""
    num_batches: int | None = None
    """Mini-batches of the epoch, where the search went on all through it."""
    trace: tuple[float, ...] | None = None
    """``probabilities`` within the epoch, of so many rows as they are long: evenly spaced, after a mini-batch each, the
    last one after the last."""


@dataclass(frozen=True, kw_only=True)
class TaskRecord:
    """One learned task, after its best epoch was chosen."""

    kind: ClassVar[str] = "task"
    task: str
    index: int
    """Position in the order of learning, from 0."""
    classes: tuple[str, ...]
    configuration: str
    configurations: tuple[str, ...]
    """Every configuration that the search could choose from; of searches that list none, the chosen one alone."""
    best_epoch: int
    """Epoch that the validation images chose (``TrainingConfig.tolerance``), from 1. Its weights are kept if the
    settings restore the best."""
    num_epochs: int
    """Epochs trained before the budget or the patience ran out."""
    commit_epoch: int | None
    """First epoch that trained one configuration only because the search had committed; None if it never did."""
    valid_accuracy: float
    peak_accuracy: float
    """Test accuracy at the best epoch, within the task's own training: the paper's peak per-task accuracy."""
    parameters_added: int
    """Parameters that the model holds for this task alone, the head included."""
    parameters_shared: int
    """Parameters of the shared knowledge after this task."""
    parameters_total: int
    """Everything the model holds after this task."""
    source: str | None = None
    """The earlier task whose layers the task transfers as they are, where a search has chosen one."""
    explained: dict[str, float] | None = None
    """Of the earlier tasks whose layers such a search has looked at, the best five, best first: the share of the
    labels' variance that a linear classifier on the last layer's outputs explains, of images outside of its
    training."""
    frontier: dict[str, float] | None = None
    """Accuracies of images outside of the training while the search by evidence trained all configurations at once: of
    those that are more accurate than all that own no more, the cheapest first."""
    frontier_owned: dict[str, int] | None = None
    """The numbers that the task would own with each of them, without the head."""
    frontier_computed: dict[str, int] | None = None
    """The multiply-adds for an image with each of them, from the first layer with anything of the task's own on."""
    true_source: str | None = None
    """The earlier task that the stream says is the right one to transfer from, of streams that know."""
    true_layers: str | None = None
    """Which of its layers: ``all``, ``last`` or ``none``."""


@dataclass(frozen=True, kw_only=True)
class EvaluationRecord:
    """One row of the accuracy matrix: test accuracy on every task learned so far."""

    kind: ClassVar[str] = "evaluation"
    after_task: str
    accuracies: dict[str, float]


@dataclass(frozen=True, kw_only=True)
class TimingRecord:
    """Wall-clock seconds of one epoch, or of the evaluation after a task (``epoch`` is None)."""

    kind: ClassVar[str] = "timing"
    task: str
    epoch: int | None
    seconds_training: float
    """Optimisation steps alone."""
    seconds_evaluating: float
    """Validation and test accuracies, without training."""


Record = EpochRecord | TaskRecord | EvaluationRecord | TimingRecord
_KINDS: dict[str, type[Any]] = {r.kind: r for r in (EpochRecord, TaskRecord, EvaluationRecord, TimingRecord)}
_SURROGATE = re.compile("[\ud800-\udfff]")
_R = TypeVar("_R", EpochRecord, TaskRecord, EvaluationRecord, TimingRecord)


def to_json(record: Record) -> str:
    """Write one line of JSON without a line break; floats keep every bit."""
    entry = {"kind": record.kind, **asdict(record)}
    for name in (field.name for field in fields(record) if field.default is None):
        if entry[name] is None:
            del entry[name]  # most searches and streams have none, and files written before must stay the same
    line = json.dumps(entry, ensure_ascii=False, allow_nan=True)
    # a folder's name that is not UTF-8 becomes a class name with lone surrogates, which no file can hold unescaped
    return _SURROGATE.sub(lambda found: f"\\u{ord(found[0]):04x}", line)


def from_json(line: str) -> Record:
    """Read what ``to_json`` wrote; StorageError if it is not JSON, or no record of a known kind with its fields."""
    try:
        entry = json.loads(line)
        cls = _KINDS[entry.pop("kind")]
        known = {f.name for f in fields(cls)}
        record: Record = cls(**{k: tuple(v) if isinstance(v, list) else v for k, v in entry.items() if k in known})
        for name, kind in get_type_hints(cls).items():
            if name in known and not _fits(value := getattr(record, name), kind):
                raise TypeError(f"{name} is {str(value)[:60]!r}")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise StorageError(f"Expected a record in one line of JSON; got {line[:120]!r} ({error}).") from error
    return record


def _fits(value: Any, kind: Any) -> bool:
    """Whether a value is of the annotated type; a whole number is a count that a float can hold."""
    if get_origin(kind) is types.UnionType:
        return any(_fits(value, each) for each in get_args(kind))
    if get_origin(kind) is tuple:
        return isinstance(value, tuple) and all(_fits(each, get_args(kind)[0]) for each in value)
    if get_origin(kind) is dict:
        return isinstance(value, dict) and all(_fits(each, get_args(kind)[1]) for each in value.values())
    if kind in (int, float) and isinstance(value, int):
        return not isinstance(value, bool) and 0 <= value < 2**53
    return isinstance(value, kind)


def read_records(path: Path) -> list[Record]:
    """Read a file's records in order, but for a last line that is unfinished; StorageError if there is damage."""
    try:
        *lines, _ = regular_bytes(path).split(b"\n")  # an unfinished line may end in the middle of a letter
        return [from_json(line.decode()) for line in lines if line]
    except OSError as error:
        raise StorageError(f"Expected records at {path}; {error.strerror}. Is this the folder of a run?") from error
    except UnicodeDecodeError as error:
        raise StorageError(f"Expected text at {path}; got bytes that are not UTF-8.") from error


def of_kind(records: Iterable[Record], cls: type[_R]) -> Iterator[_R]:
    """Yield the records of one kind, in order."""
    return (r for r in records if isinstance(r, cls))
