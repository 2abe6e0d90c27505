"""Deep EM's samples against the whole sum of the factorised prior, written naively."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import product
from typing import Any

import pytest
import torch
from learner.fixture import start_of, tiny_net, tiny_task
from torch import Tensor
from training.fixture import NEVER, loop_over

from lasem import Learner, Net, TrainingConfig
from lasem.errors import ConfigError, TrainingError
from lasem.records import EpochRecord
from lasem.search import DeepEM, DeepEMState, MixturePhase
from lasem.space import factorised, full

PROBABILITY = (0.3, 0.6, 0.85, 0.5)


def state_of(probability: tuple[float, ...]) -> DeepEMState:
    mass = 10 * torch.tensor([[1 - p, p] for p in probability], dtype=torch.float64)
    return DeepEMState(mass)


def naive_prior(probability: Sequence[float]) -> list[float]:
    every = product((False, True), repeat=len(probability))
    return [math.prod(p if bit else 1 - p for p, bit in zip(probability, bits, strict=True)) for bits in every]


def naive_posterior(probability: tuple[float, ...], evidence: Tensor) -> Tensor:
    joint = [p * math.exp(e) for p, e in zip(naive_prior(probability), evidence.tolist(), strict=True)]
    return torch.tensor([value / sum(joint) for value in joint], dtype=torch.float64)


def some_evidence(num: int) -> Tensor:
    return 1.5 * torch.randn(num, dtype=torch.float64, generator=torch.Generator().manual_seed(6))


def prior_of(state: DeepEMState) -> Tensor:
    return torch.tensor(naive_prior(DeepEM().transfer_probability(state).tolist()), dtype=torch.float64)


def drawn(state: DeepEMState, times: Mapping[int, int]) -> DeepEMState:
    """The state in which each of these configurations was drawn so many times."""
    positions = tuple(sorted(times))
    bits = torch.tensor([full(len(state.mass))[i].bits for i in positions], dtype=torch.float64)
    counts = torch.tensor([times[i] for i in positions], dtype=torch.float64)
    factor = counts.log() - prior_of(state)[list(positions)].log()
    return DeepEMState(state.mass, positions, bits, factor, torch.zeros(len(positions)).double())


@pytest.mark.parametrize("num_samples", [2, 3])
def test_the_expected_weights_are_the_posterior_if_what_is_kept_follows_it(num_samples: int) -> None:
    """Every tuple that can be drawn, with its probability: q(c_1) pi(c_2) ... pi(c_m)."""
    probability = PROBABILITY if num_samples == 2 else PROBABILITY[:3]
    search, state = DeepEM(num_samples=num_samples), state_of(probability)
    prior = naive_prior(probability)
    evidence = some_evidence(len(prior))
    posterior = naive_posterior(probability, evidence)
    expected, from_the_prior = (torch.zeros(len(prior), dtype=torch.float64) for _ in range(2))
    for those in product(range(len(prior)), repeat=num_samples):
        now = drawn(state, Counter(those))
        rows = torch.tensor(now.positions)
        weights, _ = search.step(now, evidence[rows][:, None])
        others = math.prod(prior[c] for c in those[1:])
        expected[rows] += posterior[those[0]] * others * weights
        from_the_prior[rows] += prior[those[0]] * others * weights
    torch.testing.assert_close(expected, posterior, rtol=0, atol=1e-12)
    assert float((from_the_prior - posterior).abs().max()) > 0.01  # samples of the prior alone would be off


def test_over_many_draws_the_gradient_is_the_exact_one() -> None:
    """On one mini-batch and fixed weights: the mean over the chain, within four standard errors by batch means."""
    search, state = DeepEM(num_samples=4, **NEVER), state_of(PROBABILITY)
    evidence = some_evidence(16)
    gradients = torch.randn(16, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(2))  # of each CE_c
    exact = naive_posterior(PROBABILITY, evidence) @ gradients
    generator = torch.Generator().manual_seed(0)
    means = []
    for _ in range(32):
        total = torch.zeros(3, dtype=torch.float64)
        for _ in range(25):
            now = search.begin_batch(state, generator)
            rows = list(now.positions)
            weights, after = search.step(now, evidence[rows][:, None])
            total += weights @ gradients[rows] / 25
            state = replace(after, mass=state.mass)  # the prior stays
        means.append(total)
    blocks = torch.stack(means[2:])  # the chain begins at the prior
    error = blocks.std(dim=0) / math.sqrt(len(blocks))
    assert bool(((blocks.mean(dim=0) - exact).abs() < 4 * error).all())
    assert float(error.max()) < 0.08  # and that says something


@pytest.mark.parametrize("form", ["average", "count"])
@pytest.mark.parametrize("likelihood", ["product", "mean", "geometric"])
def test_with_all_configurations_given_the_step_is_exact(form: Any, likelihood: Any) -> None:
    search = DeepEM(num_samples=16, prior_form=form, likelihood=likelihood, **NEVER)
    state = search.init(16)
    counts = [[8.0, 4.0] if form == "average" else [6.0, 6.0] for _ in range(4)]
    for images in -2 * torch.rand(12, 16, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(8)):
        state = search.begin_batch(state, torch.Generator())
        assert search.candidates(state, 16) == tuple(range(16))
        now = tuple(transfer / (specific + transfer) for specific, transfer in counts)
        means = {"geometric": images.mean(dim=1), "mean": images.exp().mean(dim=1).log()}
        posterior = naive_posterior(now, means.get(likelihood, images.sum(dim=1)))
        weights, state = search.step(state, images)
        torch.testing.assert_close(weights, posterior)
        chosen = full(4)[int(posterior.argmax())]
        for layer in range(4):
            share = sum(posterior[c].item() for c, configuration in enumerate(full(4)) if configuration[layer])
            share = float(chosen[layer]) if form == "count" else share
            counts[layer][0] += 1 - share
            counts[layer][1] += share
        torch.testing.assert_close(state.mass, torch.tensor(counts, dtype=torch.float64))


@pytest.mark.parametrize(
    ("probability", "evidence"),
    [
        (0.9, (0.0, 1.0)),  # the prior decides; with the samples' factor or by the evidence alone it would be the other
        (0.5, (0.5, 0.0)),  # equally probable before; the weights' largest is the other, which was drawn three times
    ],
)
def test_the_most_probable_is_counted_however_often_it_was_drawn(probability: float, evidence: Any) -> None:
    search, state = DeepEM(prior_form="count", **NEVER), state_of((probability,) * 3)
    now = drawn(state, {0: 3, 7: 1})
    weights, after = search.step(now, torch.tensor(evidence[::-1], dtype=torch.float64)[:, None])
    once, thrice = math.exp(evidence[0]), 3 * math.exp(evidence[1])
    assert weights.tolist() == pytest.approx([thrice / (once + thrice), once / (once + thrice)])
    assert weights.argmax() == 0
    torch.testing.assert_close(after.mass, state.mass + torch.tensor([0.0, 1.0], dtype=torch.float64), rtol=0, atol=0)


def test_samples_that_stay_are_weighed_by_the_prior_that_has_moved() -> None:
    search = DeepEM(num_samples=3, draw_every=4, **NEVER)
    state = search.begin_batch(search.init(2**5), torch.Generator().manual_seed(1))
    rows = list(state.positions)
    start = prior_of(state)[rows]
    evidence = torch.linspace(0, 1, len(rows), dtype=torch.float64)
    for number in range(4):
        now = prior_of(state)[rows]
        expected = torch.softmax((now / start).log() + evidence, dim=0)
        weights, state = search.step(state, evidence[:, None])
        torch.testing.assert_close(weights, expected)
        again = search.begin_batch(state, torch.Generator().manual_seed(2))
        assert (again is state) == (number < 3)


def test_what_is_kept_for_the_next_draw_is_drawn_by_the_weights() -> None:
    search = DeepEM(num_samples=2, **NEVER)
    state = drawn(state_of(PROBABILITY), {2: 1, 5: 1})
    state = replace(state, weights=torch.tensor([0.25, 0.75], dtype=torch.float64), num_batches=1)
    generator, fresh = torch.Generator().manual_seed(0), Counter[int]()
    prior = naive_prior(PROBABILITY)
    for _ in range(800):
        after = search.begin_batch(state, generator)
        fresh.update(after.positions)
    # a configuration is there if it was kept, or else drawn
    for position, kept in ((2, 0.25), (5, 0.75), (9, 0.0)):
        probability = kept + (1 - kept) * prior[position]
        error = math.sqrt(probability * (1 - probability) / 800)
        assert abs(fresh[position] / 800 - probability) < 4 * error


def test_of_equal_evidence_nothing_is_transferred() -> None:
    for form, expected in (("average", [1 / 3] * 3), ("count", [6 / 17] * 3)):
        search = DeepEM(num_samples=8, prior_form=form, **NEVER)  # type: ignore[arg-type]
        state = search.init(8)
        for _ in range(5):
            state = search.begin_batch(state, torch.Generator())
            _, state = search.step(state, torch.zeros(8, 4))
        assert search.transfer_probability(state).tolist() == pytest.approx(expected)
        assert search.best(state) == 0
    search = DeepEM(prior_form="count", **NEVER)
    state = search.begin_batch(search.init(2**6), torch.Generator().manual_seed(0))
    _, after = search.step(state, torch.zeros(len(state.positions), 4))
    assert ((after.mass - state.mass)[:, 1] == state.bits[0]).all()  # the first one drawn


def searched(search: DeepEM, likes_transfer: float, seed: int) -> Tensor:
    """Probabilities after 150 mini-batches that say something about the first of twelve layers only."""
    generator = torch.Generator().manual_seed(seed)
    state = search.init(2**12)
    for _ in range(150):
        state = search.begin_batch(state, generator)
        _, state = search.step(state, likes_transfer * state.bits[:, :1])
    return search.transfer_probability(state)


def test_chance_alone_transfers_no_layer_and_evidence_does() -> None:
    def share(**first: Any) -> float:
        """Of layers without evidence that would be transferred."""
        found = torch.stack([searched(DeepEM(**NEVER, **first), 0.0, seed) for seed in range(10)])
        return float((found > 0.5).double().mean())

    assert share() < 0.05
    assert share(prior_start=(0.5, 0.5), prior_weight=2) > 0.4
    for seed in range(5):
        found = searched(DeepEM(**NEVER), 1.0, seed)
        assert found[0] > 0.7
        assert found[1:].max() < 0.6


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_likelihoods_that_are_not_finite_end_the_training(value: float) -> None:
    search = DeepEM(num_samples=2, **NEVER)
    state = search.begin_batch(search.init(2**5), torch.Generator())
    _, state = search.step(state, torch.full((len(search.candidates(state, 32)), 4), value))
    with pytest.raises(TrainingError, match="Try a smaller learning_rate"):
        search.begin_batch(state, torch.Generator())


def test_any_depth() -> None:
    search = DeepEM(num_samples=4, **NEVER)
    space = search.space(200, 1)
    assert space == factorised((1,) * 200)
    state = search.init(space.size)
    generator = torch.Generator().manual_seed(0)
    for _ in range(3):
        state = search.begin_batch(state, generator)
        rows = [space[i] for i in search.candidates(state, space.size)]
        assert 1 <= len(rows) <= 4
        _, state = search.step(state, torch.tensor([[float(c.num_transferred)] for c in rows]))
    best = space[search.best(state)]
    probability = search.transfer_probability(state)
    assert best.bits == tuple((probability > 0.5).tolist())
    certain = DeepEMState(torch.tensor([[1.0, 1e9]] * 5, dtype=torch.float64))
    assert search.candidates(search.begin_batch(certain, generator), 32) == (31,)  # equal samples are evaluated once


def test_commitment_when_every_layer_is_clear() -> None:
    search = DeepEM(commit_probability=0.8, commit_share=1)
    clear = DeepEMState(torch.tensor([[1.0, 9.0], [8.0, 2.0]], dtype=torch.float64))
    unclear = DeepEMState(torch.tensor([[1.0, 9.0], [7.0, 3.0]], dtype=torch.float64))
    assert [search.commits(unclear, 9, 10), search.commits(clear, 0, 10), search.commits(clear, 1, 10)] == [0, 0, 1]
    assert search.best(clear) == 2
    with pytest.raises(ConfigError, match=r"2\^G configurations of G groups"):
        search.init(6)


@pytest.mark.parametrize("groups", [(), (2, 1)])
def test_records_of_a_deep_search_hold_each_layers_probability(groups: tuple[int, ...]) -> None:
    search = DeepEM(groups=groups, num_samples=3, commit_share=0.5)
    learner = Learner(tiny_net(depth=3), search=search, training=TrainingConfig(epochs=4, batch_size=4))
    records: list[EpochRecord] = []
    for k in range(2):
        found = learner.learn(tiny_task(f"t{k}", seed=k), on_epoch=lambda record, *_: records.append(record))
        assert found.configurations == (found.configuration,)
    first, second = records[:4], records[4:]
    assert all(r.transfer_probabilities is None and r.probabilities == (1.0,) for r in first)
    for record in second:
        by_layer = record.transfer_probabilities
        assert not groups or by_layer[0] == by_layer[1]
        deciding = by_layer[1:] if groups else by_layer
        assert record.configuration == "".join("T" if p > 0.5 else "S" for p in by_layer)
        assert record.probabilities == pytest.approx((math.prod(max(p, 1 - p) for p in deciding),))
    assert all(r.num_evaluated == 1 for r in second[2:])
    assert found.commit_epoch == 3


def test_cost_and_memory_of_a_deep_step_grow_with_the_samples_and_not_with_2_to_the_d() -> None:
    search = DeepEM(num_samples=3, **NEVER)
    net = Net(image_shape=(1, 6, 6), channels=(2,) * 40, kernels=(3,) * 40, pools=(1,) * 40, hidden=(4,))
    learner = Learner(net, search=search, training=TrainingConfig(epochs=1, batch_size=5))
    phase = MixturePhase(search, start_of(learner, tiny_task()))
    loop_over(phase).run_epoch()
    assert 40 <= phase._mixture.tree.num_nodes <= 3 * 40
    assert phase.search_state.positions
