"""What every search must do. A new one joins by standing in the list."""

from __future__ import annotations

import pytest
import torch
from learner.fixture import MovingPrior

from lasem.search import EM, AbstractSearch, Fixed

SEARCHES: list[AbstractSearch] = [
    EM(),
    EM(likelihood="mean", prior_form="average", first_task="search", commit_share=1),
    EM(likelihood="geometric", first_task="none", commit_probability=0.4),
    Fixed("all"),
    Fixed("none"),
    MovingPrior(rate=0.05),
]
every_search = pytest.mark.parametrize("search", SEARCHES, ids=str)
every_index = pytest.mark.parametrize("task_index", [0, 1, 5])


@every_search
@every_index
def test_its_space_has_the_networks_depth(search: AbstractSearch, task_index: int) -> None:
    for depth in (1, 3):
        space = search.space(depth, task_index)
        assert space.depth == depth
        assert space == search.space(depth, task_index)


@every_search
@every_index
def test_it_weighs_configurations_by_probabilities(search: AbstractSearch, task_index: int) -> None:
    num = len(search.space(3, task_index))
    state = search.init(num)
    generator = torch.Generator().manual_seed(0)
    assert state.mass.shape == (num,)
    assert state.mass.dtype == torch.float64
    for step in range(12):
        state = search.advance(state, step / 12)
        prior, candidates = search.prior(state), search.candidates(state, num)
        assert prior.shape == (num,)
        assert bool((prior >= 0).all())
        assert abs(prior.sum().item() - 1) < 1e-9
        assert candidates == tuple(sorted(set(candidates)))
        assert set(candidates) <= set(range(num))
        assert search.best(state) in candidates
        if len(candidates) < num:
            assert candidates == (search.best(state),)
            continue
        before = state.mass.clone()
        weights, after = search.step(state, -torch.rand(num, 5, generator=generator))
        assert weights.shape == (num,)
        assert bool((weights >= 0).all())
        assert abs(weights.sum().item() - 1) < 1e-9
        assert torch.equal(state.mass, before)
        state = after


@every_search
def test_it_finds_a_configuration_that_explains_everything(search: AbstractSearch) -> None:
    num = len(search.space(3, 1))
    state, right = search.init(num), num - 1
    evidence = torch.full((num, 4), -5.0)
    evidence[right] = -0.01
    for _ in range(30):
        _, state = search.step(state, evidence)
    assert search.best(state) == right


@every_search
def test_commitment_is_final(search: AbstractSearch) -> None:
    num = len(search.space(3, 1))
    state = search.init(num)
    _, state = search.step(state, torch.linspace(-1, -2, num)[:, None])
    committed = None
    for step in range(10):
        state = search.advance(state, step / 10)
        assert committed is None or state.committed == committed
        committed = state.committed
    if committed is not None:
        assert search.candidates(state, num) == (committed,) == (search.best(state),)


@every_search
def test_the_same_evidence_gives_the_same_bits(search: AbstractSearch) -> None:
    num = len(search.space(2, 1))
    evidence = -torch.rand(num, 5, generator=torch.Generator().manual_seed(3))
    first, second = (search.step(search.init(num), evidence) for _ in range(2))
    assert torch.equal(first[0], second[0])
    assert torch.equal(first[1].mass, second[1].mass)
