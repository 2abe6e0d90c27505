"""Streams that control the search by evidence: what it should find is known, for their images are drawn so.

An image is a grid of four by four cells, each with one of four textures (the parts) and noise. Cells go in pairs, and
the class says which part follows which. So a network has to know textures in its first layers, and pairs in its last:

    TTSS        all tasks have the textures in common, and each has pairs of its own
    SSTT        all tasks have the pairs in common, and the colours of each are mixed by a rotation of its own
    alternating these two in turn
    shuffled    as TTSS, with labels in a random order

The first task has 150 images a class, the seven after it 25 + 5. Each is scored as ``lasem learn`` scores it by
default, with the first task as its source. ``configurations`` trains a task of each kind in every configuration, to see
what is right by its test images::

    python -m benchmarks.controls streams --seeds 0,1,2
    python -m benchmarks.controls configurations --seeds 0,1,2

``frontier`` does the same with the pretrained network and one of Omniglot's alphabets, for what the search offers and
for some of the other configurations it could choose; FOLDER holds ``small/omniglot_small.parquet``::

    python -m benchmarks.controls frontier --folder FOLDER --alphabet Greek --side 64 --epochs 30
"""

from __future__ import annotations

import argparse
import copy
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import ClassVar, Final, final

import torch
from torch import Tensor

from benchmarks.pretrained import from_parquet
from lasem import Fixed, Freeze, HardSharing, Learner, Task, TrainingConfig
from lasem.data.task import child_generator
from lasem.methods import Transfer
from lasem.nets import Net
from lasem.nets.net import Backbone
from lasem.search import AbstractSelection, Evidence, Selected
from lasem.search.em import log_prior
from lasem.search.evidence import bayes_factors, folds_of, learned_prior, undominated, without
from lasem.search.sources import reusing
from lasem.search.weighing import TriedPhase, fine_tuned, judged
from lasem.space import Configuration
from lasem.training import Plan, TaskStart
from lasem.training.plan import follow

KINDS: Final = ("TTSS", "SSTT", "alternating", "shuffled")
NUM_PARTS, NUM_CLASSES, CELL, ROWS, PAIRS = 4, 4, 4, 4, 2
NOISE, WRONG, ANGLE = 0.5, 0.1, 1.0
"""Deviation of the pixels' noise, share of pairs that are drawn at random, and the rotation's angle."""
NUM_TASKS = 8
NUM_TRAINED = 8
"""Configurations that ``frontier`` trains besides those that are offered."""
NET = Net(image_shape=(3, 16, 16), channels=(16, 16, 32, 32), kernels=(3,) * 4, pools=(1, 2, 1, 8))
_TEXTURES, _PAIRS, _COLOURS, _IMAGES, _LABELS = range(5)  # what a child generator is for


def make_task(kind: str, seed: int, index: int, *, num_train: int, num_valid: int, num_test: int) -> Task:
    """Make a task of a stream; of a seed all streams have the first one in common."""
    kind = KINDS[(index + 1) % 2] if kind == "alternating" else kind
    changed = 0 if kind == "SSTT" else index
    textures = torch.randn(NUM_PARTS, 3, CELL, CELL, generator=child_generator(seed, _TEXTURES))
    if kind == "SSTT" and index:
        skew = torch.randn(3, 3, generator=child_generator(seed, _COLOURS, index))
        skew = (skew - skew.T) / (skew - skew.T).norm() * math.sqrt(2)
        textures = torch.einsum("dc,pcij->pdij", torch.linalg.matrix_exp(ANGLE * skew), textures)
    generator = child_generator(seed, _PAIRS, changed)
    found: list[list[int]] = []
    while len(found) < NUM_CLASSES:
        order = torch.randperm(NUM_PARTS, generator=generator).tolist()
        found += [order] if order not in found else []
    following, parts = torch.tensor(found), list[tuple[Tensor, Tensor]]()
    generator = child_generator(seed, _IMAGES, KINDS.index(kind) if index else 0, index)
    for count in (num_train, num_valid, num_test):
        labels = torch.arange(NUM_CLASSES).repeat_interleave(count)
        parts.append((_images(textures, following[labels], generator), labels))
    if kind == "shuffled" and index:
        for k, (x, labels) in enumerate(parts[:2]):
            order_of = torch.randperm(len(labels), generator=child_generator(seed, _LABELS, index, k))
            parts[k] = x, labels[order_of]
    train, valid, test = parts
    return Task.from_tensors(f"task-{index}", train=train, valid=valid, test=test)


def _images(textures: Tensor, following: Tensor, generator: torch.Generator) -> Tensor:
    """Draw an image for each row of ``following``, which says what part follows each part, shape (N, NUM_PARTS)."""
    shape = (len(following), ROWS * PAIRS)
    left = torch.randint(NUM_PARTS, shape, generator=generator)
    right = torch.where(
        torch.rand(shape, generator=generator) < WRONG,
        torch.randint(NUM_PARTS, shape, generator=generator),
        following.gather(1, left),
    )
    cells = textures[torch.stack([left, right], dim=2).reshape(-1, ROWS, 2 * PAIRS)]
    x = cells.permute(0, 3, 1, 4, 2, 5).reshape(-1, 3, ROWS * CELL, 2 * PAIRS * CELL)
    return x + NOISE * torch.randn(x.shape, generator=generator)


@final
@dataclass(frozen=True, kw_only=True)
class _Reusing(AbstractSelection):
    """Trains one configuration from the first task's layers."""

    name: ClassVar[str] = "reusing"
    configuration: str = "all"

    def plan(self, start: TaskStart) -> Plan[Selected]:
        only = reusing(start, "task-0").only(Configuration.parse(self.configuration))
        return (yield from fine_tuned(partial(TriedPhase, Fixed(self.configuration)), only))


def started(learner: Learner, task: Task, training: TrainingConfig) -> TaskStart:
    """Return what the search of a task starts from, with the first task as its source."""
    assert isinstance(learner.method, Transfer)
    return replace(reusing(learner.method.start(learner.model, task, learner.setup), "task-0"), config=training)


def scored(start: TaskStart, search: Evidence, task: Task) -> tuple[Tensor, list[float]]:
    """Return each configuration's log-likelihoods of images outside of the training, shape (C, N), and its accuracy."""
    images = task.train.joined(task.valid)
    assert images is not None
    folds = folds_of(images.labels, search.folds, start.seed)
    starts = [without(start, images, folds == number) for number in range(search.folds)]
    logits = follow(search.mixture_logits(starts, folds), seeds=start.seed, epochs_before=0, device=start.device)
    judgements = [judged(of_one, images.labels) for of_one in logits]
    return torch.stack([one[0] for one in judgements]), [one[1] for one in judgements]


def first_task(seed: int) -> Learner:
    """Return a learner that knows the first task."""
    learner = Learner(NET, search=Evidence(), protect=Freeze(), training=TrainingConfig(epochs=30), seed=seed)
    learner.learn(make_task("TTSS", seed, 0, num_train=150, num_valid=30, num_test=50))
    return learner


def streams(learner: Learner, search: Evidence, training: TrainingConfig, seed: int, kinds: Sequence[str]) -> None:
    """Print how often each stream's layers are found, in the prior after its last task and in each task's choice."""
    known: dict[tuple[str, int], tuple[TaskStart, Tensor, Tensor]] = {}
    for kind in kinds:
        factors, right, moved = list[list[float]](), list[bool](), 0.0
        for index in range(1, NUM_TASKS):
            of = KINDS[(index + 1) % 2] if kind == "alternating" else kind
            if (of, index) not in known:
                task = make_task(of, seed, index, num_train=25, num_valid=5, num_test=50)
                start = started(learner, task, training)
                scores, _ = scored(start, search, task)
                bits = torch.tensor([c.bits for c in start.space])
                known[of, index] = start, scores, bayes_factors(bits, search.temper * scores.double().sum(dim=1))
            start, scores, b = known[of, index]
            prior = learned_prior(factors, NET.depth)
            owned = torch.tensor(
                [sum(t.numel() for k in start.only(c).weights.layers for t in k.specific.values()) for c in start.space]
            )
            offsets = log_prior(torch.tensor([c.bits for c in start.space]), prior) / search.temper
            chosen = str(start.space[search.choose(scores, owned, offsets, reused=True)])
            right += [a == b for a, b in zip(chosen, of, strict=False)] if of in KINDS[:2] else []
            moved = max(moved, float((torch.sigmoid(prior.logit() + b) - prior).abs().max()))
            factors.append(b.tolist())
        prior = learned_prior(factors, NET.depth)
        line = {
            "stream": kind,
            "seed": seed,
            "prior": [round(p, 2) for p in prior.tolist()],
            "q - p, most": round(moved, 2),
        }
        line |= {"choices, % of layers": round(100 * sum(right) / len(right))} if right else {}
        if kind in KINDS[:2]:
            line["prior, % of layers"] = 25 * sum(
                (p > 0.5) == (letter == "T") for p, letter in zip(prior.tolist(), kind, strict=True)
            )
        print(json.dumps(line), flush=True)


def configurations(learner: Learner, search: Evidence, training: TrainingConfig, seed: int) -> None:
    """Print test accuracies of a task of each kind in every configuration, and how well the search predicts them."""
    assert isinstance(learner.method, Transfer)
    for kind in KINDS[:2]:
        task = make_task(kind, seed, 1, num_train=25, num_valid=5, num_test=250)
        start = started(learner, task, training)
        scores, _ = scored(start, search, task)
        accuracies = []
        for configuration in start.space:
            other = copy.deepcopy(learner)
            other.method, other.seed = (
                replace(learner.method, search=_Reusing(configuration=str(configuration))),
                seed + 100,
            )
            accuracies.append(other.learn(task, training=replace(training, patience=0, tolerance=1e9)).peak_accuracy)
        measured, bits = torch.tensor(accuracies), torch.tensor([c.bits for c in start.space]).bool()
        gains = [float(measured[t].mean() - measured[~t].mean()) for t in bits.T]
        rank = rank_correlation(scores.sum(dim=1), measured)
        best = str(start.space[int(measured.argmax())])
        line = {
            "task": kind,
            "seed": seed,
            "gain of T, points": [round(100 * gain, 1) for gain in gains],
            "Spearman": round(rank, 2),
        }
        line |= {"best": best, "best, %": round(100 * float(measured.max()), 1)}
        line |= {
            kind: round(100 * accuracies[[str(c) for c in start.space].index(kind)], 1)
            for kind in (*KINDS[:2], "SSSS", "TTTT")
        }
        print(json.dumps(line), flush=True)


def frontier(task: Task, search: Evidence, training: TrainingConfig, seed: int) -> None:
    """Print what the search predicts of configurations, and their test accuracies when another seed trains them."""
    sharing, net = HardSharing(train_shared=False), Backbone()(task.image_shape)
    learner = Learner(net, sharing=sharing, search=search, training=training, seed=seed)
    assert isinstance(learner.method, Transfer)
    start, owned = search.affordable(learner.method.start(learner.model, task, learner.setup))
    likelihoods, accuracies = scored(start, search, task)
    offers = undominated(accuracies, owned.tolist())
    some = torch.randperm(len(owned), generator=torch.Generator().manual_seed(seed))[:NUM_TRAINED].tolist()
    predicted, measured = list[list[float]](), list[float]()
    for position in dict.fromkeys([*offers, len(owned) - 1, *some]):
        other = Learner(
            net, sharing=sharing, search=Fixed(str(start.space[position])), training=training, seed=seed + 100
        )
        measured.append(other.learn(task).peak_accuracy)
        predicted.append([float(likelihoods[position].mean()), accuracies[position]])
        line = {"task": task.name, "configuration": str(start.space[position]), "offered": position in offers}
        line |= {"owned": int(owned[position]), "log-likelihood": round(predicted[-1][0], 3)}
        line |= {"accuracy, %": round(100 * accuracies[position], 1), "measured, %": round(100 * measured[-1], 1)}
        print(json.dumps(line), flush=True)
    ranks = [rank_correlation(torch.tensor(of), torch.tensor(measured)) for of in zip(*predicted, strict=True)]
    of_offers = rank_correlation(torch.tensor(predicted[: len(offers)])[:, 1], torch.tensor(measured[: len(offers)]))
    line = {"task": task.name, "Spearman of log-likelihood": round(ranks[0], 2), "of accuracy": round(ranks[1], 2)}
    print(json.dumps(line | {"of accuracy, offers alone": round(of_offers, 2)}), flush=True)


def rank_correlation(x: Tensor, y: Tensor) -> float:
    """Return Spearman's rank correlation of two lists of numbers, shape (N,); equal numbers have their mean rank."""
    ranks = [(of[:, None] > of).sum(dim=1) + (of[:, None] == of).sum(dim=1) / 2 for of in (x, y)]
    return float(torch.corrcoef(torch.stack(ranks))[0, 1])


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, a line of JSON a result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("streams", "configurations", "frontier"))
    parser.add_argument("--seeds", default="0", help="such as 0,1,2")
    parser.add_argument("--kinds", default=",".join(KINDS), help="of streams")
    parser.add_argument("--lr", type=float, default=1e-3, help="of all tasks after the first")
    parser.add_argument("--epochs", type=int, default=60, help="of all tasks after the first")
    parser.add_argument("--epochs-share", type=float, default=Evidence.epochs_share, help="of the search")
    parser.add_argument("--folder", type=Path, help="of the data, for frontier")
    parser.add_argument("--alphabet", default="Greek")
    parser.add_argument("--side", type=int, default=96, help="of the alphabet's images, in pixels")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    search = Evidence(epochs_share=options.epochs_share)
    training = TrainingConfig(learning_rate=options.lr, epochs=options.epochs)
    for seed in map(int, options.seeds.split(",")):
        if options.what == "configurations":
            configurations(first_task(seed), search, training, seed)
        elif options.what == "frontier":
            file = options.folder / "small" / "omniglot_small.parquet"
            frontier(from_parquet(file, options.alphabet, 10, seed, options.side), search, training, seed)
        else:
            streams(first_task(seed), search, training, seed, options.kinds.split(","))


if __name__ == "__main__":
    main()
