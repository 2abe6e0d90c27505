"""Searches that evaluate a part of the configurations, in the phase that trains them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from learner.fixture import SHARINGS, assert_same_tensors, start_of, tiny_net, tiny_task
from torch import Tensor

from lasem.learner import Learner
from lasem.nets import Net
from lasem.records import EpochRecord
from lasem.search import EM, AbstractSearch, DeepEM, Drawn, Mixture, MixturePhase, Pruned, SearchState
from lasem.sharing import AbstractSharing, HardSharing
from lasem.space import Space, factorised, full
from lasem.training import Batch, TaskWeights, TrainingConfig, TrainingState

from .fixture import WeighingLoop, loop_of, random_weights
from .test_mixture import NUM_CLASSES, SHAPE, alone, penalty_alone

NEVER = {"first_task": "search", "commit_probability": 1.01, "commit_share": 1.0}


def batch() -> Batch:
    generator = torch.Generator().manual_seed(8)
    x = torch.randn(4, *SHAPE, dtype=torch.float64, generator=generator)
    return Batch(x, torch.tensor([0, 2, 1, 2]), "task")


def naive_loss(
    net: Net, sharing: AbstractSharing, weights: TaskWeights, space: Space, kept: list[int], prior: Tensor
) -> Tensor:
    """sum_c q_c (CE_c + penalty_c) over the configurations kept, q_c ~ prior_c prod_n p(y_n | x_n, c)."""
    x, labels, _ = batch()
    joint, losses = [], []
    for position in kept:
        rows = alone(net, sharing, weights, space[position], x).log_softmax(dim=1)
        row = torch.stack([rows[n, label] for n, label in enumerate(labels.tolist())])
        joint.append(prior[position].item() * row.sum().exp().item())
        losses.append(penalty_alone(sharing, weights, space[position]) - row.mean())
    return torch.stack([q / sum(joint) * value for q, value in zip(joint, losses, strict=True)]).sum()


def gradients(phase: MixturePhase, weights: TaskWeights) -> tuple[Tensor, dict[str, Tensor | None]]:
    loss = phase.loss(weights.named(), batch(), torch.Generator().manual_seed(2))
    loss.backward()
    found = {name: value.grad for name, value in weights.named().items()}
    for value in weights:
        value.grad = None
    return loss.detach(), found


@pytest.mark.parametrize("sharing", SHARINGS, ids=lambda s: s.name)
@pytest.mark.parametrize("since", [0, 3])
def test_a_pruned_step_is_the_naive_sum_over_what_is_kept(sharing: AbstractSharing, since: int) -> None:
    """``since`` 3: a full pass, whose gradient is the same."""
    net, space, kept = tiny_net(SHAPE, 3, dropout=0), full(3), [1, 3, 6]
    search = EM(prune=0.1, full_pass_every=4, **NEVER)
    phase = loop_of(net, sharing, search, space, dtype=torch.float64).phase
    mass = 1 + torch.rand(8, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    phase.search_state = SearchState(mass, pruned=Pruned(tuple(kept), torch.zeros(8).double(), since))
    weights = random_weights(net, sharing, tuple(space), NUM_CLASSES, torch.float64).copy(requires_grad=True)
    expected = naive_loss(net, sharing, weights, space, kept, mass / mass.sum())
    expected.backward()
    naive = {name: value.grad for name, value in weights.named().items()}
    for value in weights:
        value.grad = None
    evaluated: list[int] = []
    tree_nodes = Mixture.of(net, sharing, tuple(space[c] for c in kept)).tree.num_nodes
    for block in set(type(b) for b in net.blocks):
        original = block.apply

        def counted(self: Any, made: Any, x: Tensor, original: Any = original) -> Tensor:
            evaluated.append(len(x) // 4)
            return original(self, made, x)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(block, "apply", counted)
            loss, found = gradients(phase, weights)
    assert sum(evaluated) == tree_nodes + (14 if since == 3 else 0)
    torch.testing.assert_close(loss, expected.detach(), rtol=0, atol=1e-10)
    for name, value in naive.items():
        if value is None:
            assert found[name] is None, name
        else:
            torch.testing.assert_close(found[name], value, rtol=0, atol=1e-10, msg=name)
    pruned = phase.search_state.pruned
    assert pruned is not None
    assert pruned.num_batches == since + 1


@pytest.mark.parametrize("sharing", SHARINGS, ids=lambda s: s.name)
def test_with_all_configurations_drawn_the_gradient_is_the_exact_factorised_one(sharing: AbstractSharing) -> None:
    net, space = tiny_net(SHAPE, 4, dropout=0), factorised((1,) * 4)
    search = DeepEM(num_samples=16, **NEVER)
    phase = loop_of(net, sharing, search, full(4), dtype=torch.float64).phase
    phase._space = space
    mass = 1 + torch.rand(4, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    phase.search_state = SearchState(mass, drawn=Drawn())
    prior = search.prior(phase.search_state)
    weights = random_weights(net, sharing, tuple(full(4)), NUM_CLASSES, torch.float64).copy(requires_grad=True)
    expected = naive_loss(net, sharing, weights, full(4), list(range(16)), prior)
    expected.backward()
    naive = {name: value.grad for name, value in weights.named().items()}
    for value in weights:
        value.grad = None
    loss, found = gradients(phase, weights)
    torch.testing.assert_close(loss, expected.detach(), rtol=0, atol=1e-10)
    for name, value in naive.items():
        torch.testing.assert_close(found[name], value, rtol=0, atol=1e-10, msg=name)


def test_epsilon_that_leaves_nothing_out_trains_to_the_same_bits() -> None:
    results = []
    for prune in (0.0, 1e-9):
        trainer = loop_of(tiny_net(), HardSharing(), EM(prune=prune, full_pass_every=1, **NEVER), full(2))
        records = [trainer.run_epoch()[0] for _ in range(4)]
        results.append((trainer.loop.weights, records))
    assert_same_tensors(results[0][0], results[1][0])
    assert results[0][1] == results[1][1]


def trained(trainer: WeighingLoop, epochs: int) -> list[EpochRecord]:
    return [trainer.run_epoch()[0] for _ in range(epochs)]


SEARCHES: list[AbstractSearch] = [
    EM(prune=0.4, full_pass_every=3, **NEVER),
    EM(prune=0.4, full_pass_every=3, first_task="search", commit_share=0.6, commit_probability=2),
    DeepEM(num_samples=3, **NEVER),
    DeepEM(num_samples=2, draw_every=3, prior_form="count", first_task="search", commit_share=0.6),
    DeepEM(num_samples=2, groups=(2, 1), first_task="search", commit_share=0.6),
]


@pytest.mark.parametrize("search", SEARCHES, ids=str)
def test_an_interrupted_search_goes_on_to_the_same_bits(search: Any) -> None:
    """The state goes through JSON, as a checkpoint's does."""
    task, net = tiny_task(num_train=20), tiny_net(depth=3)
    config = TrainingConfig(epochs=5, batch_size=4, learning_rate=0.02, schedule="constant")
    learners = [Learner(net, search=search, training=config, seed=3) for _ in range(2)]
    states: list[TrainingState] = []
    records: list[list[EpochRecord]] = [[], []]

    def keep(record: EpochRecord, _: Any, state: Any) -> None:
        records[0].append(record)
        tensors, plain = state()
        states.append(TrainingState(tensors, json.loads(json.dumps(plain))))

    whole = learners[0].learn(task, on_epoch=keep)
    for epoch in (0, 1, 3):
        records[1].clear()
        again = Learner(net, search=search, training=config, seed=3)
        found = again.learn(task, on_epoch=lambda r, t, s: records[1].append(r), resume_from=states[epoch])
        assert found == whole
        assert records[1] == records[0][epoch + 1 :]
        x = task.test.images.take(torch.arange(4))
        assert torch.equal(again.logits(task.name, x), learners[0].logits(task.name, x))


def test_records_of_a_pruned_search_say_how_many_were_evaluated() -> None:
    search = EM(prune=0.5, full_pass_every=2, first_task="search", commit_share=0.75, commit_probability=2)
    config = TrainingConfig(epochs=8, batch_size=2, learning_rate=0.02, schedule="constant")
    trainer = loop_of(tiny_net(depth=3), HardSharing(), search, full(3), config)
    records = trained(trainer, 8)
    evaluated = [record.num_evaluated for record in records]
    assert evaluated[0] > evaluated[5] >= 1
    assert evaluated[6:] == [1, 1]
    assert trainer.phase.commit_epoch == 7
    assert all(len(record.probabilities) == 8 for record in records)


@pytest.mark.parametrize("groups", [(), (2, 1)])
def test_records_of_a_deep_search_hold_each_layers_probability(groups: tuple[int, ...], tmp_path: Path) -> None:
    search = DeepEM(groups=groups, num_samples=3, commit_share=0.5)
    config = TrainingConfig(epochs=4, batch_size=4)
    learner = Learner(tiny_net(depth=3), search=search, training=config)
    records: list[EpochRecord] = []
    for k in range(2):
        found = learner.learn(tiny_task(f"t{k}", seed=k), on_epoch=lambda r, t, s: records.append(r))
        assert found.configurations == (found.configuration,)
    first, second = records[:4], records[4:]
    assert all(r.transfer_probabilities is None and r.probabilities == (1.0,) for r in first)
    for record in second:
        assert record.transfer_probabilities is not None
        assert len(record.transfer_probabilities) == 3
        if groups:
            assert record.transfer_probabilities[0] == record.transfer_probabilities[1]
        bits = [p > 0.5 for p in record.transfer_probabilities]
        assert record.configuration == "".join("T" if bit else "S" for bit in bits)
        assert len(record.probabilities) == 1
        assert 0 < record.probabilities[0] <= 1
    assert [r.num_evaluated == 1 for r in second[2:]] == [True, True]
    assert found.commit_epoch == 3
    learner.save(tmp_path / "model")
    assert Learner.load(tmp_path / "model").search == search


def test_cost_and_memory_of_a_deep_step_grow_with_the_samples_and_not_with_2_to_the_d() -> None:
    search = DeepEM(num_samples=3, **NEVER)
    net = Net(image_shape=(1, 6, 6), channels=(2,) * 40, kernels=(3,) * 40, pools=(1,) * 40, hidden=(4,))
    learner = Learner(net, search=search, training=TrainingConfig(epochs=1, batch_size=5))
    phase = MixturePhase(search, start_of(learner, tiny_task()))
    loop = WeighingLoop(phase)
    loop.run_epoch()
    assert 40 <= phase._mixture.tree.num_nodes <= 3 * 40
    assert replace(phase.search_state).drawn is not None
