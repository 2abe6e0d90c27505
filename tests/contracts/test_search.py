"""What every search must do. A new one joins by standing in the list."""

from typing import Any

import pytest
import torch
from learner.fixture import MovingPrior

from lasem.search import EM, AbstractSearch, DeepEM, Fixed, FixedProbability
from lasem.tree import named

SEARCHES: list[AbstractSearch[Any]] = [
    EM(),
    EM(likelihood="mean", prior_form="average", first_task="search", commit_share=1),
    EM(likelihood="geometric", first_task="none", commit_probability=0.4),
    EM(prior_start=(0.8, 0.3)),
    DeepEM(),
    DeepEM(num_samples=5, prior_form="count", draw_every=2, first_task="search", commit_share=1),
    DeepEM(num_samples=8, commit_share=1),
    Fixed("all"),
    Fixed("none"),
    FixedProbability(),
    MovingPrior(rate=0.05),
]
every_search = pytest.mark.parametrize("search", SEARCHES, ids=str)
every_index = pytest.mark.parametrize("task_index", [0, 1, 5])


def some_evidence(num_batches: int, num: int, seed: int = 0) -> torch.Tensor:
    return -3 * torch.rand(num_batches, num, 5, generator=torch.Generator().manual_seed(seed))


def stepped(search: AbstractSearch[Any], state: Any, evidence: Any, generator: Any) -> tuple[torch.Tensor, Any]:
    """One mini-batch as a phase takes it, of the log-likelihoods (C, batch) of all configurations."""
    state = search.begin_batch(state, generator)
    return search.step(state, evidence[list(search.candidates(state, len(evidence)))])


@every_search
@every_index
def test_its_space_has_the_networks_depth(search: AbstractSearch[Any], task_index: int) -> None:
    for depth in (1, 3):
        space = search.space(depth, task_index)
        assert (space.depth, space) == (depth, search.space(depth, task_index))


@every_search
@every_index
def test_it_weighs_candidates_by_probabilities(search: AbstractSearch[Any], task_index: int) -> None:
    num = len(search.space(3, task_index))
    state, generator = search.init(num), torch.Generator().manual_seed(0)
    for evidence in some_evidence(12, num):
        prior = search.prior(state)
        if prior is not None:
            assert prior.shape == (num,)
            assert bool((prior >= 0).all())
            assert abs(prior.sum().item() - 1) < 1e-9
        state = search.begin_batch(state, generator)
        candidates = search.candidates(state, num)
        assert candidates == tuple(sorted(set(candidates)))
        assert set(candidates) <= set(range(num)) != set()
        before = {name: value.clone() for name, value in named(state).items()}
        weights, after = search.step(state, evidence[list(candidates)])
        assert weights.shape == (len(candidates),)
        assert bool((weights >= 0).all())
        assert abs(weights.sum().item() - 1) < 1e-9
        assert all(torch.equal(value, before[name]) for name, value in named(state).items())  # it is a value
        state = after
        assert search.best(state) in range(num)


@every_search
def test_the_probability_that_a_layer_transfers_is_the_priors(search: AbstractSearch[Any]) -> None:
    space = search.space(3, 1)
    state, generator = search.init(len(space)), torch.Generator().manual_seed(4)
    for batch in some_evidence(7, len(space)):
        _, state = stepped(search, state, batch, generator)
    by_layer, prior = search.transfer_probability(state), search.prior(state)
    if by_layer is not None and prior is not None:
        bits = torch.tensor([c.bits for c in space], dtype=torch.float64)
        torch.testing.assert_close(by_layer, prior @ bits)


@pytest.mark.parametrize("search", [s for s in SEARCHES if not isinstance(s, FixedProbability)], ids=str)
def test_it_finds_a_configuration_that_explains_everything(search: AbstractSearch[Any]) -> None:
    num = len(search.space(3, 1))
    state, right = search.init(num), num - 1
    evidence = torch.full((num, 4), -5.0)
    evidence[right] = -0.01
    generator = torch.Generator().manual_seed(0)
    for _ in range(100 if isinstance(search, DeepEM) else 30):  # which has to draw it first
        _, state = stepped(search, state, evidence, generator)
    assert search.best(state) == right
