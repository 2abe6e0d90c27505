"""The search by evidence: which images score what, and what is chosen."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from learner.fixture import start_of, tiny_net, tiny_task
from torch import Tensor
from training.test_kept import net_of

from lasem import HardSharing, Learner, TensorFactorization, TrainingConfig
from lasem.search import EM, Evidence
from lasem.search.evidence import _MixedPhase, _num_owned, folds_of, multiply_adds, undominated, without
from lasem.training.plan import follow


@pytest.mark.parametrize(("errors", "expected"), [(0.0, 2), (2.0, 1), (6.0, 0)])
def test_what_owns_least_among_the_near_ones_is_chosen(errors: float, expected: int) -> None:
    scores = torch.tensor([[-2.0, -1.5, -2.0, -1.5], [-1.0, -1.1, -1.0, -1.2], [-1.0, -1.0, -1.0, -1.0]])
    owned = torch.tensor([1, 5, 9])
    difference = scores[2] - scores
    near = difference.sum(dim=1) <= errors * 2 * difference.std(dim=1)
    assert min(int(o) for o, within in zip(owned, near, strict=True) if within) == owned[expected]
    assert Evidence(errors=errors).choose(scores, owned) == expected
    # an earlier task's layers are used as they are only where that is clearly better
    assert Evidence(errors=errors / 4).choose(scores, -owned, reused=True) == expected


def test_of_configurations_that_own_as_much_the_likeliest_is_chosen() -> None:
    scores = torch.tensor([[-2.0, -1.0], [-1.0, -1.0], [-1.5, -1.0]])
    assert Evidence(errors=9.0).choose(scores, torch.tensor([4, 4, 4])) == 1


def test_every_class_is_in_every_fold() -> None:
    labels = torch.tensor([0] * 7 + [1] * 8 + [2] * 6)
    folds = folds_of(labels, 3, (5, 1))
    for label in range(3):
        counts = folds[labels == label].bincount(minlength=3)
        assert int(counts.max() - counts.min()) <= 1
    assert not torch.equal(folds, folds_of(labels, 3, (6, 1)))


def learner_of(net: Any, **settings: Any) -> Learner:
    config = TrainingConfig(epochs=4, batch_size=5, learning_rate=5e-3, augment="none", steps=(1.0,))
    frozen = HardSharing(train_shared=not net.pretrained)
    return Learner(net, sharing=frozen, search=Evidence(epochs_share=0.5, **settings), training=config, seed=3)


@pytest.mark.parametrize("pretrained", [False, True])
def test_scores_are_those_of_each_configuration_by_itself(pretrained: bool) -> None:
    learner, task = learner_of(net_of() if pretrained else tiny_net(depth=3)), tiny_task("a")
    if not pretrained:
        learner.learn(task)
        task = tiny_task("b", seed=1)
    search, start = Evidence(epochs_share=0.5), start_of(learner, task)
    images = task.train.joined(task.valid)
    assert images is not None
    held_out = folds_of(images.labels, search.folds, start.seed) == 0
    phase = _MixedPhase(search, without(start, images, held_out), "")
    assert len(phase.task.train) + len(phase.task.valid) == len(images)

    def plan() -> Any:
        return (yield phase)

    result = follow(plan(), seeds=(1, 2), epochs_before=0, device=torch.device("cpu"))
    weights = result.last.weights
    (x, _), *_ = images.only(held_out).batches(100)
    for row, configuration in zip(result.outcome, start.space, strict=True):
        y: Tensor = x
        for i, (block, own) in enumerate(zip(learner.net.blocks, weights.layers, strict=True)):
            shared = HardSharing().weights(block, own.shared, own.factors)
            y = block.apply(shared if configuration[i] else own.specific, y)
        logits = learner.net.head.apply(weights.head, y)
        torch.testing.assert_close(row, logits, rtol=1e-4, atol=1e-5)


def test_a_pretrained_network_s_first_task_is_searched() -> None:
    learner, phases = learner_of(net_of()), list[str]()
    record = learner.learn(tiny_task("a"), on_epoch=lambda epoch, *_: phases.append(epoch.phase))
    assert list(dict.fromkeys(phases))[:4] == ["TTT, 1 of 2", "TTT, 2 of 2", "evidence 1 of 2", "evidence 2 of 2"]
    assert len(record.configurations) == 8
    assert len(phases) == record.num_epochs


def test_folds_may_hold_fewer_images_than_a_mini_batch_of_the_task() -> None:
    task, learner = tiny_task("a"), learner_of(net_of())
    training = replace(learner.training, batch_size=len(task.train), drop_last=True)
    assert learner.learn(task, training=training).configuration


def test_nothing_is_searched_where_transferring_all_is_enough() -> None:
    learner, phases = learner_of(net_of(), enough=0.1), list[str]()
    record = learner.learn(tiny_task("a"), on_epoch=lambda epoch, *_: phases.append(epoch.phase))
    assert phases == ["TTT, 1 of 2", "TTT, 2 of 2", "all images"]
    assert (record.configuration, record.num_epochs) == ("TTT", 3)


def test_nothing_is_owned_where_nothing_can_be_gained() -> None:
    """The labels are chance: what is learned for a fold does not help outside of it."""
    task = tiny_task("a", num_train=60)
    generator = torch.Generator().manual_seed(0)
    shuffled = task.train.labels[torch.randperm(len(task.train), generator=generator)]
    task.train.labels.copy_(shuffled)
    learner = learner_of(net_of())
    assert learner.learn(task).configuration == "TTT"


def test_the_frontier_is_what_nothing_cheaper_beats_and_a_price_moves_the_choice() -> None:
    values, costs = [0.5, 0.7, 0.6, 0.9, 0.9], [0, 5, 3, 9, 8]
    expected = [c for c in range(5) if all(values[c] > values[o] or costs[c] < costs[o] or o == c for o in range(5))]
    assert undominated(values, costs) == sorted(expected, key=lambda c: costs[c]) == [0, 2, 1, 4]
    learner = learner_of(net_of())
    record = learner.learn(tiny_task("a"))
    assert record.frontier is not None
    assert record.frontier_owned is not None
    assert list(record.frontier_owned.values()) == sorted(set(record.frontier_owned.values()))
    assert list(record.frontier.values()) == sorted(set(record.frontier.values()))
    priced = learner_of(net_of(), price=1e9)
    assert priced.learn(tiny_task("a")).configuration == "TTT"


@pytest.mark.parametrize("sharing", [HardSharing(), TensorFactorization()])
def test_multiply_adds_are_those_from_the_first_layer_with_anything_of_the_task_s_own(sharing: Any) -> None:
    learner, task = Learner(tiny_net(depth=3), sharing=sharing, search=EM(), seed=3), tiny_task("b", seed=1)
    learner.learn(tiny_task("a"), training=TrainingConfig(epochs=1))
    start, of_layers = start_of(learner, task), []
    x = torch.zeros(1, *task.image_shape)
    for block in learner.net.blocks:
        weights = block.initial(torch.Generator(), "he")
        rows, columns = block.preactivate(weights, x).shape[2:]
        of_layers.append(rows * columns * weights["weight"].numel())
        x = block.apply(weights, x)
    for configuration, found in zip(start.space, multiply_adds(start).tolist(), strict=True):
        first = 0 if sharing.task_shapes(learner.net.blocks[0]) else (str(configuration) + "S").index("S")
        assert found == sum(of_layers[first:])


@pytest.mark.parametrize(
    ("price", "expected"),
    [("0", "SSS"), ("2000", "STT"), ("compute=1e5", "TTS"), ("parameters=1e6,compute=1e5", "TTT")],
)
def test_the_price_is_what_each_image_has_to_bring(price: Any, expected: str) -> None:
    search, start = Evidence(price=price, errors=0.0), start_of(learner_of(net_of()), tiny_task("a"))
    owned, computed = torch.tensor([_num_owned(start.only(c).weights) for c in start.space]), multiply_adds(start)
    scores = torch.tensor(
        [[{"SSS": -0.1, "STT": -0.6, "TTS": -0.6, "TTT": -6.0}.get(str(c), -0.9)] * 10 for c in start.space]
    )
    values = []
    for row, numbers, adds in zip(scores.tolist(), owned.tolist(), computed.tolist(), strict=True):
        cost = search.price.parameters * numbers / 10**6 + search.price.compute * adds / 10**9
        values.append(sum(score - cost for score in row))
    found = search.choose(scores, owned, search._offsets(start, owned, computed, 10))
    assert found == max(range(len(values)), key=lambda c: values[c])
    assert str(start.space[found]) == expected
