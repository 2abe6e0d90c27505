"""Trainings without each fold of a task's labelled images, which then answer the fold."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from lasem.data import Split
from lasem.nets.block import generator_of
from lasem.search.weighing import Fixed, TriedPhase, outcome_of, shortened
from lasem.training import Plan, TaskStart

_PENALTY = 0.1
"""Inverse penalty of a fold's first head: no image chooses it, for those that could are the ones that are scored."""


def folds_of(labels: Tensor, num_folds: int, seed: tuple[int, ...]) -> Tensor:
    """Return each image's fold, shape (N,): of every class as many as possible in each."""
    order = torch.randperm(len(labels), generator=generator_of(seed, 4))
    order = order[labels.cpu()[order].argsort(stable=True)]
    folds = torch.empty(len(labels), dtype=torch.int64)
    folds[order] = torch.arange(len(labels)) % num_folds
    return folds


def without(start: TaskStart, images: Split, held_out: Tensor) -> TaskStart:
    """Return the start of a training without some images, which validate."""
    task = replace(start.task, train=images.only(~held_out), valid=images.only(held_out))
    config = replace(start.config, patience=0, drop_last=False)  # there may be fewer images than in a mini-batch
    return replace(start, task=task, config=config, strength=_PENALTY)


def cross_fitted(
    ready: Sequence[TaskStart],
    folds: Tensor,
    rate: float,
    title: str,
    share: float = 1 / 6,
) -> Plan[Tensor]:
    """Yield short trainings of one configuration, each without a fold.

    Args:
        ready: for each fold a prepared start ``without`` it, with one configuration.
        folds: each image's fold, shape (N,).
        rate: step size.
        title: of the phases, before their number.
        share: of the task's epochs that each training takes.

    Returns:
        The logits of each image from the training that has not seen it, shape (N, num_classes).
    """
    logits = torch.zeros(len(folds), ready[0].task.num_classes)
    for number, part in enumerate(ready):
        words = f"{title}, {number + 1} of {len(ready)}"
        result = yield TriedPhase(Fixed(), shortened(part, rate, share), title=words, forgets=None)
        logits[folds == number] = outcome_of(result)
    return logits
