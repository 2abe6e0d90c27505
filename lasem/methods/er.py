"""Experience replay (ER): a few images of every earlier task are kept, and some of them join each mini-batch.

.. [Chaudhry2019] A. Chaudhry, M. Rohrbach, M. Elhoseiny, T. Ajanthan, P. K. Dokania, P. H. S. Torr, M. Ranzato. On Tiny
   Episodic Memories in Continual Learning. arXiv 1902.10486, 2019.

Each mini-batch is joined with as many images from memory, drawn evenly and without repetition, for one step
([Chaudhry2019]_ Algorithm 1); with all of them, if there are fewer.

The paper sees every image once. Its ring buffer holds the latest images of each class; here, with several passes in
random order, the ones to keep are drawn when the task is learned, and a task does not replay its own. Augmentation
changes the memory as it changes the task's images, anew for every epoch.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar, final

import torch
from torch import Tensor

from lasem.data import Split, Task
from lasem.methods.joint import as_split, as_tensors, memory_without
from lasem.methods.method import AbstractShared, Learned, Setup
from lasem.methods.model import Model, prefixed
from lasem.methods.plain import HeadsPhase, initial_head, initial_layers, model_of_heads, with_heads
from lasem.nets import Net
from lasem.settings import Range
from lasem.training import Batch, Named, PhaseResult, Plan, evaluation_batch, part_of
from lasem.training.augment import change_of


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
        fitted: PhaseResult = yield _Phase(task, setup, start, len(names), stored, num_classes)
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
class _Phase(HeadsPhase):
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
