"""Joint training: all tasks so far at once, from all their images. No method of lifelong learning, but its upper bound.

.. [Caruana1997] R. Caruana. Multitask Learning. Machine Learning 28, 1997.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar, NamedTuple, final

import torch
from torch import Tensor

from lasem.data import AbstractImages, Split, Task, TensorImages
from lasem.data.placing import PlacedImages
from lasem.errors import ConfigError
from lasem.methods.method import AbstractMethod, Learned, Model, Setup
from lasem.methods.phase import NetworkPhase, shared_and_own
from lasem.methods.plain import initial_head, initial_layers, run
from lasem.nets import Net
from lasem.training import Batch, Named, PhaseResult, Plan, Snapshot, TrainingConfig, accuracy, part_of


@final
@dataclass(frozen=True, kw_only=True)
class Joint(AbstractMethod):
    """All layers shared, heads apart, everything trained on the images of all tasks so far ([Caruana1997]_).

    Every mini-batch is of one task, and an epoch is one pass over the images of all tasks in one shuffled order of
    mini-batches, so each task counts by its number of images. The best epoch is chosen by the mean of the tasks'
    validation accuracies, which is also what the record of a task tells. Training one more task costs as many passes as
    before over one more task's images.

    The model's memory holds the training and the validation images of all tasks as tensors: as many bytes as pixels,
    four times that if the images are floats. Folders of images are decoded into it, so they must fit into memory
    together; a saved model holds them as well.
    """

    name: ClassVar[str] = "joint"
    rewrites: ClassVar[bool] = True

    restart: bool = True
    """Whether all weights begin afresh when a task arrives, as if all tasks so far had come together; if not, those of
    earlier tasks go on from where they are."""

    def check(self, net: Net, training: TrainingConfig) -> None:
        """Refuse step sizes that fall from task to task, if every task restarts the network."""
        if self.restart and training.schedule == "inverse" and training.learning_rate_decay > 0:
            raise ConfigError(
                "Joint.restart trains a fresh network for every task, but TrainingConfig.schedule 'inverse' counts on "
                "over all tasks, so later networks would start with ever smaller steps. Set schedule to 'cosine' or "
                "'constant', learning_rate_decay to 0, or restart to False."
            )

    def plan(self, model: Model, task: Task, setup: Setup) -> Plan[Learned]:
        """One phase, on the tasks of the memory and the new one."""
        materials = [
            *(_Material(name, *remembered(model.memory, k)) for k, name in enumerate(model.own)),
            _Material(task.name, task.train, task.valid),
        ]
        fitted: PhaseResult = yield _Phase(task, materials, setup, self._initial(model, task, setup))
        memory = {**model.memory, **to_remember(task, len(model.own), setup.device)}

        def made(snapshot: Snapshot) -> Model:
            own = {material.name: part_of(snapshot.weights, f"task.{k}") for k, material in enumerate(materials)}
            return Model(shared_and_own(snapshot.weights)[0], own, memory)

        return Learned.of(setup, fitted, made)

    def logits(self, net: Net, model: Model, name: str, x: Tensor) -> Tensor:
        """The shared layers and the task's head."""
        return run(net, {**model.shared, **model.own[name]}, x)

    def _initial(self, model: Model, task: Task, setup: Setup) -> dict[str, Tensor]:
        """Start of the layers and of every task's head, the k-th one's under ``task.K.``."""
        fresh = self.restart or not model.own
        weights = initial_layers(setup) if fresh else dict(model.shared)
        for k, own in enumerate(model.own.values()):
            weights |= {
                f"task.{k}.{name}": value for name, value in (_fresh_head(setup, own, k) if fresh else own).items()
            }
        return weights | {
            f"task.{len(model.own)}.{name}": v for name, v in initial_head(setup, task.num_classes).items()
        }


class _Material(NamedTuple):
    """What there is of one task."""

    name: str
    train: Split
    valid: Split


class _Phase(NetworkPhase):
    def __init__(self, task: Task, materials: Sequence[_Material], setup: Setup, initial: dict[str, Tensor]) -> None:
        super().__init__(task, setup, initial)
        self._materials = materials
        self._position = {material.name: k for k, material in enumerate(materials)}

    def batches(self, device: torch.device, order: torch.Generator) -> Iterator[Batch]:
        size, drop_last = self.config.batch_size, self.config.drop_last
        open_splits = [
            material.train.batches(size, device=device, generator=order, drop_last=drop_last)
            for material in self._materials
        ]
        turns = torch.tensor([k for k, num in enumerate(self._nums_batches()) for _ in range(num)])
        for k in turns[torch.randperm(len(turns), generator=order)].tolist():
            x, labels = next(open_splits[k])
            yield Batch(x, labels, self._materials[k].name)

    @property
    def num_batches(self) -> int:
        return sum(self._nums_batches())

    def loss(self, weights: Named, batch: Batch, dropout: torch.Generator) -> Tensor:
        return super().loss(self._of(weights, self._position[batch.task]), batch, dropout)

    def accuracy(self, weights: Named) -> float:
        each = []
        for k, material in enumerate(self._materials):
            each.append(accuracy(self.answer(self._of(weights, k)), material.valid, self._setup.device))
        return sum(each) / len(each)

    @property
    def num_valid(self) -> int:
        return sum(len(material.valid) for material in self._materials)

    def _of(self, weights: Named, k: int) -> dict[str, Tensor]:
        """The plain network of one task."""
        return {**shared_and_own(weights)[0], **part_of(weights, f"task.{k}")}

    def _nums_batches(self) -> list[int]:
        size, totals = self.config.batch_size, [len(material.train) for material in self._materials]
        return [total // size if self.config.drop_last else -(-total // size) for total in totals]


def _fresh_head(setup: Setup, own: Named, k: int) -> dict[str, Tensor]:
    """New weights for the head of the k-th task, on the CPU."""
    num_classes = len(own[f"head.bias.{len(setup.net.hidden)}"])
    head = setup.net.head.initial(num_classes, setup.generator("head", k), setup.net.initial)
    return {f"head.{name}": value for name, value in head.items()}


def to_remember(task: Task, k: int, device: torch.device) -> dict[str, Tensor]:
    """The k-th task's training and validation images as they are, labels, means and deviations."""
    kept: dict[str, Tensor] = {}
    for part, split in (("train", task.train), ("valid", task.valid)):
        tensors = {
            "images": split.images.take(torch.arange(len(split))),
            "labels": split.labels,
            "mean": split.mean,
            "std": split.std,
        }
        kept |= {f"{k}.{part}.{name}": value.to(device, copy=True) for name, value in tensors.items()}
    return kept


def remembered(memory: Named, k: int) -> tuple[Split, Split]:
    """The splits that ``to_remember`` took apart, where the memory is: their batches are the same to the bit."""
    train, valid = (
        Split(_images(of["images"]), of["labels"], of["mean"], of["std"])
        for of in (part_of(memory, f"{k}.{part}") for part in ("train", "valid"))
    )
    return train, valid


def _images(pixels: Tensor) -> AbstractImages:
    return TensorImages(pixels) if pixels.device.type == "cpu" else PlacedImages(pixels)
