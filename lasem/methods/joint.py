"""Joint training: all tasks so far at once, from all their images. No method of lifelong learning, but its upper bound.

.. [Caruana1997] R. Caruana. Multitask Learning. Machine Learning 28, 1997.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar, final

import torch
from torch import Tensor

from lasem.data import Split, Task, TensorImages
from lasem.errors import ConfigError
from lasem.methods.method import AbstractShared, Learned, Setup
from lasem.methods.model import Model, prefixed
from lasem.methods.plain import NetworkPhase, initial_head, initial_layers, model_of_heads, network_of, with_heads
from lasem.nets import AbstractNet, Net
from lasem.training import Batch, Named, PhaseResult, Plan, TrainingConfig, accuracy, batches_of, part_of


@final
@dataclass(frozen=True, kw_only=True)
class Joint(AbstractShared):
    """All layers shared, heads apart, everything trained on the images of all tasks so far ([Caruana1997]_).

    Every mini-batch is of one task, and an epoch is one pass over the images of all tasks in one shuffled order of
    mini-batches, so each task counts by its number of images. The best epoch is chosen by the mean of the tasks'
    validation accuracies, which is also what the record of a task says. Training one more task costs as many passes as
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

    def check(self, net: AbstractNet, training: TrainingConfig) -> None:
        super().check(net, training)
        if self.restart and training.schedule == "inverse" and training.learning_rate_decay > 0:
            raise ConfigError(
                "Joint.restart trains a fresh network for every task, but TrainingConfig.schedule 'inverse' counts on "
                "over all tasks, so later networks would start with ever smaller steps. Set schedule to 'cosine' or "
                "'constant', learning_rate_decay to 0, or restart to False."
            )

    def plan(self, model: Model, task: Task, setup: Setup) -> Plan[Learned]:
        splits = {name: remembered(model.memory, k) for k, name in enumerate(model.own)}
        splits[task.name] = (task.train, task.valid)
        fitted: PhaseResult = yield _Phase(task, setup, self._initial(model, task, setup), splits)
        memory = {**model.memory, **to_remember(task, len(model.own), setup.device)}

        return Learned.of(setup, fitted, lambda snapshot: model_of_heads(snapshot.weights, splits, memory))

    def forget(self, net: Net, model: Model, name: str) -> Model:
        return super().forget(net, model, name).having(memory=memory_without(model, name))

    def _initial(self, model: Model, task: Task, setup: Setup) -> dict[str, Tensor]:
        """Start of the layers and of every task's head."""
        heads = [*model.own.values(), initial_head(setup, task.num_classes)]
        if not self.restart:
            return with_heads(model.shared or initial_layers(setup), heads)
        for k, own in enumerate(model.own.values()):
            num_classes = len(own[f"head.bias.{len(setup.net.hidden)}"])
            heads[k] = initial_head(setup, num_classes, setup.generator("head", k))
        return with_heads(initial_layers(setup), heads)


@dataclass(eq=False)
class _Phase(NetworkPhase):
    splits: dict[str, tuple[Split, Split]]
    """Of every task, the training and the validation images."""

    def batches(self, device: torch.device, order: torch.Generator) -> Iterator[Batch]:
        trains = [batches_of(train, self.config, name, device, order) for name, (train, _) in self.splits.items()]
        turns = torch.tensor([k for k, num in enumerate(self._nums_batches()) for _ in range(num)])
        for k in turns[torch.randperm(len(turns), generator=order)].tolist():
            yield next(trains[k])

    @property
    def num_batches(self) -> int:
        return sum(self._nums_batches())

    def loss(self, weights: Named, batch: Batch, dropout: torch.Generator) -> Tensor:
        return super().loss(network_of(weights, list(self.splits).index(batch.task)), batch, dropout)

    def accuracy(self, weights: Named) -> float:
        each = []
        for k, (_, valid) in enumerate(self.splits.values()):
            each.append(accuracy(self.answer(network_of(weights, k)), valid, self.setup.device))
        return sum(each) / len(each)

    @property
    def num_valid(self) -> int:
        return sum(len(valid) for _, valid in self.splits.values())

    def _nums_batches(self) -> list[int]:
        size, drop_last = self.config.batch_size, self.config.drop_last
        return [train.num_batches(size, drop_last=drop_last, training=True) for train, _ in self.splits.values()]


def to_remember(task: Task, k: int, device: torch.device) -> dict[str, Tensor]:
    """Return the k-th task's training and validation images with their labels, for ``Model.memory``."""
    parts = (("train", task.train), ("valid", task.valid))
    return {name: t for part, split in parts for name, t in prefixed(f"{k}.{part}", as_tensors(split, device)).items()}


def remembered(memory: Named, k: int) -> tuple[Split, Split]:
    """Return the splits that ``to_remember`` took apart, where the memory is: their batches are the same to the bit."""
    return as_split(part_of(memory, f"{k}.train")), as_split(part_of(memory, f"{k}.valid"))


def memory_without(model: Model, name: str) -> dict[str, Tensor]:
    """Return a memory, whose names begin with the tasks' positions, without one task; positions are counted anew."""
    kept = [k for k, other in enumerate(model.own) if other != name]
    memory: dict[str, Tensor] = {}
    for position, k in enumerate(kept):
        memory |= prefixed(f"{position}", part_of(model.memory, f"{k}"))
    return memory


def as_tensors(split: Split, device: torch.device) -> dict[str, Tensor]:
    """Return a split's images as they are, its labels, mean and deviation, as copies on a device."""
    images = split.images.take(torch.arange(len(split)))
    of = {"images": images, "labels": split.labels, "mean": split.mean, "std": split.std}
    if split.images.scale is None:  # by which augmentation goes
        of["no_scale"] = torch.zeros(1)
    # without the strides of views, which no file keeps and sums go by
    return {name: t.to(device, copy=True, memory_format=torch.contiguous_format) for name, t in of.items()}


def as_split(tensors: Named) -> Split:
    """Return the split that ``as_tensors`` took apart."""
    images = TensorImages.placed(tensors["images"], None if "no_scale" in tensors else 1.0)
    return Split(images, tensors["labels"], tensors["mean"], tensors["std"])
