"""SubTuning: which layers are added, and that the accuracies are those of trainings without the fold."""

from collections.abc import Iterator
from itertools import product
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from learner.fixture import start_of, tiny_task
from training.test_kept import net_of

from lasem import HardSharing, Learner, TrainingConfig
from lasem.search import SubTuning
from lasem.search.evidence import cross_fitted, folds_of, without
from lasem.space import Configuration
from lasem.training.kept import prepared


def learner_of(search: SubTuning) -> Learner:
    config = TrainingConfig(epochs=4, batch_size=5, learning_rate=5e-3, augment="none", steps=(1.0,))
    return Learner(net_of(), sharing=HardSharing(train_shared=False), search=search, training=config, seed=3)


def chosen(search: SubTuning, sizes: tuple[int, ...], accuracies: dict[str, float]) -> tuple[str, list[str]]:
    """What the search chooses where accuracies are known, and what it asks for."""
    asked: list[str] = []

    def accuracy(configuration: Configuration) -> Iterator[Any]:
        asked.append(str(configuration))
        return accuracies[str(configuration)]
        yield

    try:
        next(search.greedy(sizes, accuracy))  # type: ignore[arg-type]
    except StopIteration as stop:
        return str(stop.value), asked
    raise AssertionError


@pytest.mark.parametrize("seed", range(20))
def test_layers_are_added_as_long_as_the_best_one_gains_enough(seed: int) -> None:
    source = np.random.default_rng(seed)
    depth, epsilon, most = 4, float(source.choice([0.0, 0.05, 0.2])), int(source.integers(0, 5))
    table = {"".join(letters): float(source.integers(0, 20)) / 20 for letters in product("ST", repeat=depth)}
    best = "T" * depth
    for _ in range(most):
        larger = [best[:i] + "S" + best[i + 1 :] for i in range(depth) if best[i] == "T"]
        top = [other for other in larger if table[other] == max(table[one] for one in larger)]
        if not top or table[top[0]] <= table[best] + epsilon:
            break
        best = top[0]
    assert chosen(SubTuning(epsilon=epsilon, most_layers=most), (1,) * depth, table)[0] == best


def test_groups_are_added_as_a_whole_and_nothing_is_asked_that_cannot_gain() -> None:
    table = {"TTT": 0.5, "SST": 0.995, "TTS": 0.7, "SSS": 1.0}
    assert chosen(SubTuning(), (2, 1), table) == ("SST", ["TTT", "SST", "TTS"])
    assert chosen(SubTuning(epsilon=0.0), (2, 1), table) == ("SSS", ["TTT", "SST", "TTS", "SSS"])


def test_each_image_is_answered_by_the_training_that_has_not_seen_it() -> None:
    learner, task = learner_of(SubTuning()), tiny_task("a")
    start, images = start_of(learner, task), task.train.joined(task.valid)
    folds = folds_of(images.labels, 3, start.seed)
    ready = [prepared(without(start, images, folds == k).only(Configuration.parse("TTS"))) for k in range(3)]
    plan, phases, result = cross_fitted(ready, folds, 0.1, "TTS"), [], None
    for k in range(3):
        phases.append(plan.send(result))  # type: ignore[arg-type]
        result = SimpleNamespace(outcome=torch.full((int((folds == k).sum()), 2), k + 1.0))
    with pytest.raises(StopIteration) as stopped:
        plan.send(result)  # type: ignore[arg-type]
    logits = stopped.value.value
    assert torch.equal(logits[:, 0], folds + 1.0)
    for k, phase in enumerate(phases):
        assert torch.equal(phase.task.valid.labels, images.labels[folds == k])
        assert torch.equal(phase.task.train.labels, images.labels[folds != k])


def test_a_pretrained_network_s_first_task_is_searched() -> None:
    learner, phases = learner_of(SubTuning(folds=2, most_layers=1, epsilon=0.0)), list[str]()
    task = tiny_task("a", num_train=20)
    task.train.labels.copy_(task.train.labels[torch.randperm(20, generator=torch.Generator().manual_seed(0))])
    record = learner.learn(task, on_epoch=lambda epoch, *_: phases.append(epoch.phase))
    titles = list(dict.fromkeys(phases))
    tried = [f"{name}, {k} of 2" for name in ("TTT", "STT", "TST", "TTS") for k in (1, 2)]
    assert titles == [*tried, "head" if record.configuration == "TTT" else "step 5e-03", "all images"]
    assert len(phases) == record.num_epochs
