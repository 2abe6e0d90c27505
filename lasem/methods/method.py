"""The contract of a method: what it keeps between tasks, and the phases in which it learns one."""

import zlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, ClassVar, final

import torch
from torch import Tensor

from lasem.data import Task
from lasem.errors import ConfigError, StorageError
from lasem.methods.model import Model
from lasem.methods.plain import Paths, Rows, run, run_many
from lasem.nets import AbstractNet, Net
from lasem.nets.block import generator_of, part_of
from lasem.search.abstract import Outcome
from lasem.settings import Settings
from lasem.training import Named, PhaseResult, Plan, Snapshot, TrainingConfig

Shapes = Mapping[str, tuple[int, ...]]
"""Shape of every tensor by flat name."""


@final
@dataclass(frozen=True)
class Setup:
    """What learning one task starts from, apart from the model and the task."""

    net: Any
    """The network; a ``Net`` for methods that look into its layers (``AbstractMethod.check``)."""
    training: TrainingConfig
    device: torch.device
    seed: int
    index: int
    """Tasks learned before, also those that were forgotten."""

    def generator(self, *where: str | int) -> torch.Generator:
        """Return a source of random numbers on the CPU, another one for each purpose within each task."""
        numbers = [zlib.crc32(part.encode()) if isinstance(part, str) else part for part in where]
        return generator_of((self.seed, self.index, *numbers))

    def divided(self, share: float, rate: float = 1.0) -> "tuple[Setup, Setup]":
        """Return the setups of two phases.

        Args:
            share: of the epochs, those of the first phase, rounded; each phase has at least one.
            rate: step size of the second phase, relative to the first's.
        """
        epochs = max(1, round(share * self.training.epochs))
        first = replace(self.training, epochs=epochs)
        step = rate * self.training.learning_rate
        second = replace(self.training, epochs=max(1, self.training.epochs - epochs), learning_rate=step)
        return replace(self, training=first), replace(self, training=second)


@final
@dataclass(frozen=True, kw_only=True)
class Learned(Outcome):
    """The outcome of learning one task."""

    model: Model
    """What is kept, the best epoch's or the last one's, as the settings say; with the new task in ``own``."""
    best: Model
    """As it was at the best epoch: the task's peak accuracy is measured with this one."""
    configurations: tuple[str, ...] = ()
    """The configurations that could be chosen, of methods that choose among some that can be listed."""

    @classmethod
    def of(cls, setup: Setup, fitted: PhaseResult, made: Callable[[Snapshot], Model]) -> "Learned":
        """Return the outcome of a plan's last phase.

        Args:
            setup: says which epoch is kept.
            fitted: the phase's result.
            made: makes the model of a snapshot of the phase; called for each one that is asked for.
        """
        best, kept = made(fitted.best), fitted.kept(setup.training.restore_best)
        num_epochs = fitted.epochs_before + fitted.num_epochs
        return cls(
            model=best if kept is fitted.best else made(kept),
            best=best,
            best_epoch=fitted.epochs_before + fitted.best.epoch,
            valid_accuracy=fitted.best.valid_accuracy,
            num_epochs=num_epochs,
            num_epochs_kept=num_epochs,
        )


class AbstractMethod(ABC):
    """A way to learn tasks one after another. Holds settings only.

    Methods are frozen dataclasses of their settings; ``Learner(net, method=EWC())`` learns with one.
    """

    name: ClassVar[str]
    """How the command line and saved files call the method."""
    training: ClassVar[Mapping[str, Any]] = {}
    """Settings of ``TrainingConfig`` that the method needs where the defaults do not suit it."""
    unused: ClassVar[frozenset[str]] = frozenset({"specific_start", "specific_shrink"})
    """Settings of ``TrainingConfig`` that mean nothing to the method."""
    rewrites: ClassVar[bool] = False
    """Whether what a task owns may change when a later one is learned."""
    keeps: ClassVar[bool] = False
    """Whether earlier tasks always answer the same, to the bit."""
    harm_of_decay: ClassVar[str] = ""
    """What the optimiser's weight decay would do to weights that the method must not move; empty if it may be set."""

    def check(self, net: AbstractNet, training: TrainingConfig) -> None:
        """Raise ConfigError if the method cannot learn with such a network or such training."""
        if not isinstance(net, Net):
            raise ConfigError(
                f"Method '{self.name}' looks into the layers of a plain convolutional network (Net); got "
                f"{type(net).__name__}. Choose such a network (--net cifar, or lasem.cifar), or another method: "
                f"sharing and search take any network."
            )
        if self.harm_of_decay and training.weight_decay > 0:
            raise ConfigError(
                f"{type(self).__name__} needs TrainingConfig.weight_decay=0; got {training.weight_decay}, which would "
                f"{self.harm_of_decay}."
            )

    def remark(self, net: AbstractNet) -> str:
        """Return what a person should know of learning with such a network; empty for nothing."""
        return ""

    def reason(self, model: Model, setup: Setup) -> str:
        """Return why the next task will transfer what it does; empty if the method leaves no choice."""
        return ""

    @abstractmethod
    def plan(self, model: Model, task: Task, setup: Setup) -> Plan[Learned]:
        """Return the phases of learning one more task.

        Args:
            model: of the tasks before; its tensors are on ``setup.device`` and are only read.
            task: images, labels and names.
            setup: network, training, device, sources of random numbers.
        """

    def logits(self, net: Any, model: Model, name: str, x: Tensor) -> Tensor:
        """Answer standardised images for a learned task, without dropout and without gradients.

        Here: by the plain network with ``plain_weights``; a method that has none overrides it.

        Args:
            net: the network.
            model: tensors are on the device of ``x``.
            name: the task.
            x: shape (B, channels, height, width).

        Returns:
            Shape (B, number of the task's classes).
        """
        weights = self.plain_weights(net, model, name)
        if weights is None:
            raise NotImplementedError(f"{type(self).__name__} needs plain_weights or logits.")
        return run(net, weights, x)

    def logits_many(self, net: Any, model: Model, rows: Rows, x: Tensor) -> dict[str, Tensor]:
        """Answer standardised images for many tasks, as ``logits`` does for one.

        Layers that tasks share run once for all of them; where that cannot be seen (``paths``), one task after another.

        Args:
            net: the network.
            model: tensors are on the device of ``x``.
            rows: of the tasks; together all of ``x``.
            x: shape (B, channels, height, width).
        """
        if paths := self.paths(net, model, rows):
            return run_many(net, paths, partial(self.layer_weights, net, model), rows, x)
        return {name: self.logits(net, model, name, x[list(at)]) for name, at in rows.items()}

    def paths(self, net: Any, model: Model, names: Iterable[str]) -> Paths:
        """Return which layers tasks share, without reading any; empty if ``layer_weights`` gives none."""
        return {}

    def layer_weights(self, net: Any, model: Model, name: str, layer: int) -> Named:
        """Return the plain weights and statistics of one of a task's layers, at ``net.depth`` those of its head."""
        raise NotImplementedError(f"{type(self).__name__} has paths, so it needs layer_weights.")

    def transferred(self, net: Any) -> str:
        """Return which layers serve several tasks, one letter a layer (T: several, S: one), for records and reports."""
        return "T" * int(net.depth)

    def source(self, net: Any, model: Model, name: str) -> str | None:
        """Return the earlier task whose layers a task uses as they are; None if there is none."""
        return None

    def answers_with(self, model: Model, name: str) -> Model:
        """Return the part of a model that one task's answer depends on: what an export holds."""
        return Model(model.shared, {name: model.own[name]}, versions=model.versions, routes=model.routes)

    def plain_weights(self, net: Any, model: Model, name: str) -> Named | None:
        """Return weights of the network itself that give a task's answer; None if there are none.

        By flat name, ``layer.I.NAME`` and ``head.NAME``, with the layers' statistics.
        """
        return None

    def forget(self, net: Any, model: Model, name: str) -> Model:
        """Return the model without a task; the others answer as before. TaskError if later tasks need it."""
        own = {other: tensors for other, tensors in model.own.items() if other != name}
        return model.having(own=own) if own else Model()

    def shapes(self, net: Any, model: Model, name: str, num_classes: int) -> Shapes | None:
        """Return the shapes of what a task owns; None if the method cannot know them before they are read."""
        return None

    def version_shapes(self, net: Any, key: str) -> Shapes:
        """Return the shapes of one of ``Model.versions``; StorageError if the method has no such version."""
        raise StorageError(f"Method '{self.name}' has no versions of layers; got {key!r}. The model is damaged.")

    def check_stored(self, net: Any, model: Model, num_classes: Mapping[str, int], device: torch.device) -> None:
        """Raise StorageError if tensors from a file do not fit the network: each task answers an image of zeros."""
        for key in model.versions:
            self.version_shapes(net, key)
        for name, expected in num_classes.items():
            try:
                with torch.no_grad():
                    shape = self.logits(net, model, name, torch.zeros(1, *net.image_shape, device=device)).shape
            except (RuntimeError, LookupError, TypeError, ValueError) as error:
                raise StorageError(f"The tensors of task '{name}' do not fit the network: {error}.") from error
            if tuple(shape) != (1, expected):
                raise StorageError(f"Task '{name}' has {expected} classes; its network answers with {shape[-1]}.")


class AbstractShared(Settings, AbstractMethod):
    """A method whose tasks share all layers and own their heads, which answer together as the plain network."""

    def plain_weights(self, net: Any, model: Model, name: str) -> dict[str, Tensor]:
        return {**model.shared, **model.own[name]}

    def paths(self, net: Any, model: Model, names: Iterable[str]) -> Paths:
        return dict.fromkeys(names, ("shared",) * net.depth)

    def layer_weights(self, net: Any, model: Model, name: str, layer: int) -> Named:
        return part_of(model.shared, f"layer.{layer}") if layer < net.depth else part_of(model.own[name], "head")
