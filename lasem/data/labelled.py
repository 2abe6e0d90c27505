"""A data set before it is cut into tasks: labels and splits at once, pixels when they are asked for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from lasem.data.cut import CutSettings, TaskCut, cut
from lasem.data.images import AbstractImages, FileImages, SelectedImages, in_chunks
from lasem.data.split import Standardise, make_splits
from lasem.data.stream import TaskStream
from lasem.data.task import Task


@final
@dataclass(frozen=True, eq=False)
class Labelled:
    """What a reader has found: N images, of which only those that tasks use need to be decoded."""

    labels: Tensor
    """int64 (N,), positions in ``class_names``."""
    parts: Tensor
    """int64 (N,), the split that the data set has each image in: TRAIN, VALID or TEST."""
    class_names: Sequence[str]
    take: Callable[[Tensor], AbstractImages]
    """Gives the images at some positions, ascending."""

    def disjoint(self, settings: CutSettings, seed: int, name: str) -> TaskStream:
        """The stream of tasks with disjoint classes; see ``lasem.data.cut``."""
        cuts = cut(settings, self.labels, self.parts, self.class_names, seed)
        return self.stream(cuts, name=name, standardise=settings.standardise)

    def stream(self, cuts: Sequence[TaskCut], *, name: str, standardise: Standardise) -> TaskStream:
        """The stream of tasks called ``name-0``, ``name-1``, ...; the images that any of them uses are taken at once.

        Where they stay in files, all of a task's are looked at before it is given out: a damaged one is found before
        the task is trained, not at its end.
        """
        used = torch.unique(torch.cat([of_part for task in cuts for of_part in task.positions]))
        images = self.take(used)

        def task_at(index: int) -> Task:
            task = cuts[index]
            train, valid, test = (SelectedImages(images, torch.searchsorted(used, part)) for part in task.positions)
            if isinstance(images, FileImages):
                for part in (train, valid, test):
                    for _ in in_chunks(part):
                        pass
            splits = make_splits((train, task.labels[0]), (valid, task.labels[1]), (test, task.labels[2]), standardise)
            return Task(f"{name}-{index}", task.classes, *splits)

        return TaskStream.made_by(task_at, name=name, num_tasks=len(cuts))
