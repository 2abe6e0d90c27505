"""What a model's folder holds, without its weights."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, final


@final
@dataclass(frozen=True, kw_only=True)
class TaskOverview:
    """One learned task."""

    name: str
    classes: tuple[str, ...]
    configuration: str
    """What it transfers (T) and what it learned for itself (S), for instance ``STTS``."""
    num_epochs: int
    num_train: int
    num_valid: int
    num_test: int
    valid_accuracy: float
    """When it was learned, in [0, 1]."""
    test_accuracy: float | None
    """When it was learned; None if there were no images to test."""
    test_accuracy_now: float | None
    """The same if the model keeps what earlier tasks answer; else None, for it has not been measured."""
    num_parameters: int
    """Numbers that the task alone owns."""
    num_bytes: int
    """Of its file."""


@final
@dataclass(frozen=True, kw_only=True)
class ModelOverview:
    """A model and its tasks."""

    directory: str
    image_shape: tuple[int, int, int]
    """Channels, height and width."""
    depth: int
    """Layers that may be transferred."""
    settings: dict[str, Any]
    """What the model was made with: network, method (or sharing, search and protection), training and seed."""
    tasks: tuple[TaskOverview, ...]
    """In the order in which they were learned."""
    keeps: bool
    """Whether its protection keeps what each task answers, to the bit."""
    num_shared_parameters: int
    """Numbers that tasks share."""
    num_kept_parameters: int
    """Of these, those in versions of layers that only earlier tasks use: the price of protection by ``branch``."""
    num_parameters: int
    """All numbers of the model."""
    num_bytes: int
    """Of its files."""
    unfinished: str | None
    """Task whose learning was interrupted and will go on."""

    def to_plain(self) -> dict[str, Any]:
        """As JSON can hold it."""
        return asdict(self)
