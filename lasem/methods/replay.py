"""Images of earlier tasks, on which a model is trained again: all of them, joint training, or a few, experience replay.

Joint training on all tasks so far at once is no method of lifelong learning, but its upper bound.

.. [Caruana1997] R. Caruana. Multitask Learning. Machine Learning 28, 1997.
.. [Chaudhry2019] A. Chaudhry, M. Rohrbach, M. Elhoseiny, T. Ajanthan, P. K. Dokania, P. H. S. Torr, M. Ranzato. On Tiny
   Episodic Memories in Continual Learning. arXiv 1902.10486, 2019.

In experience replay (ER) a few images of every earlier task are kept. Each mini-batch is joined with as many images
from memory, drawn evenly and without repetition, for one step ([Chaudhry2019]_ Algorithm 1); with all of them, if there
are fewer.

The paper sees every image once. Its ring buffer holds the latest images of each class; here, with several passes in
random order, the ones to keep are drawn when the task is learned, and a task does not replay its own. Augmentation
changes the memory as it changes the task's images, anew for every epoch.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar, final

import torch
from torch import Tensor

from lasem.data import Split, Task, TensorImages
from lasem.errors import ConfigError
from lasem.methods.method import AbstractShared, Learned, Setup
from lasem.methods.model import Model, prefixed
from lasem.methods.plain import (
    HeadsPhase,
    NetworkPhase,
    initial_head,
    initial_layers,
    model_of_heads,
    network_of,
    with_heads,
)
from lasem.nets import AbstractNet, Net
from lasem.settings import Range
from lasem.training import (
    Batch,
    Named,
    PhaseResult,
    Plan,
    TrainingConfig,
    accuracy,
    batches_of,
    evaluation_batch,
    part_of,
)
from lasem.training.augment import change_of


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
        fitted: PhaseResult = yield _JointPhase(task, setup, self._initial(model, task, setup), splits)
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
class _JointPhase(NetworkPhase):
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


@final
@dataclass(frozen=True, kw_only=True)
class ER(AbstractShared):
    """All layers shared, heads apart; cross-entropy of new and stored images by their tasks' heads ([Chaudhry2019]_).

    The model's memory holds the stored images as tensors, and a saved model holds them as well.
    """

    name: ClassVar[str] = "er"
    rewrites: ClassVar[bool] = True

    per_class: Annotated[int, Range(least=1)] = 10
    """Training images of each class that are kept; at least 1. A class that has fewer is kept whole. The paper tries
    several numbers, from 1 up."""

    def plan(self, model: Model, task: Task, setup: Setup) -> Plan[Learned]:
        names = [*model.own, task.name]
        stored = [as_split(part_of(model.memory, f"{k}")) for k in range(len(model.own))]
        heads = [*model.own.values(), initial_head(setup, task.num_classes)]
        start = with_heads(model.shared or initial_layers(setup), heads)
        num_classes = [len(head[f"head.bias.{len(setup.net.hidden)}"]) for head in heads]
        fitted: PhaseResult = yield _ERPhase(task, setup, start, len(names), stored, num_classes)
        kept = as_tensors(chosen(task.train, self.per_class, setup.generator("memory")), setup.device)
        memory = {**model.memory, **prefixed(f"{len(model.own)}", kept)}
        return Learned.of(setup, fitted, lambda snapshot: model_of_heads(snapshot.weights, names, memory))

    def forget(self, net: Net, model: Model, name: str) -> Model:
        return super().forget(net, model, name).having(memory=memory_without(model, name))


def chosen(split: Split, per_class: int, generator: torch.Generator) -> Split:
    """Return as many images of every class, drawn by a generator on the CPU, in the order of the split."""
    order = torch.randperm(len(split), generator=generator)
    labels, mask = split.labels.cpu()[order], torch.zeros(len(split), dtype=torch.bool)
    for label in range(int(labels.max()) + 1):
        mask[order[labels == label][:per_class]] = True
    return split.only(mask)


@dataclass(eq=False)
class _ERPhase(HeadsPhase):
    """Trains on joined mini-batches, whose labels count on over the classes of all tasks in their order."""

    stored: Sequence[Split]
    """The images of each earlier task."""
    num_classes: Sequence[int]
    """Of each task."""

    def __post_init__(self) -> None:
        super().__post_init__()
        tasks = torch.arange(self.num_tasks).repeat_interleave(torch.tensor(self.num_classes))
        self._task_of = tasks.to(self.setup.device)
        """For each class of all tasks the position of its task."""

    def batches(self, device: torch.device, order: torch.Generator) -> Iterator[Batch]:
        current, first = super().batches(device, order), sum(self.num_classes[:-1])
        images, labels = self._memory(device, order)
        for x, own, task, weights in current:
            drawn = torch.randperm(len(labels), generator=order)[: len(x)].to(device)
            if weights is not None:  # every class has as many images in the memory
                weights = torch.cat([weights, weights.new_ones(len(drawn))])
            yield Batch(torch.cat([x, images[drawn]]), torch.cat([own + first, labels[drawn]]), task, weights)

    def loss(self, weights: Named, batch: Batch, dropout: torch.Generator) -> Tensor:
        logits = torch.cat(self.answers(weights, batch.x, self.num_tasks, dropout), dim=1)
        others = self._task_of != self._task_of[batch.labels][:, None]  # classes of other tasks than the image's
        return batch.cross_entropy(logits.masked_fill(others, -torch.inf))

    def _memory(self, device: torch.device, order: torch.Generator) -> tuple[Tensor, Tensor]:
        """All stored images (N, channels, height, width), changed for an epoch, and their labels (N,)."""
        images, labels = [torch.empty(0, *self.task.image_shape, device=device)], [torch.empty(0, dtype=torch.int64)]
        for k, split in enumerate(self.stored):
            change = change_of(self.config.augment, self.config.mix, split, order)
            parts = split.batches(evaluation_batch(split.images.shape), device=device, change=change)
            images += [x for x, _ in parts]
            labels.append(split.labels.cpu() + sum(self.num_classes[:k]))
        return torch.cat(images), torch.cat(labels).to(device)
