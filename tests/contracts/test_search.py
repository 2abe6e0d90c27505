"""What every search must do. A new one joins by standing in the list."""

from __future__ import annotations

import json

import pytest
import torch
from learner.fixture import MovingPrior

from lasem.search import EM, AbstractSearch, DeepEM, Fixed, SearchState

SEARCHES: list[AbstractSearch] = [
    EM(),
    EM(likelihood="mean", prior_form="average", first_task="search", commit_share=1),
    EM(likelihood="geometric", first_task="none", commit_probability=0.4),
    EM(prune=0.3, full_pass_every=3, commit_share=1, commit_probability=2),
    EM(prune=0.1, full_pass_every=1, prior_form="average"),
    EM(prior_start=(0.8, 0.3)),
    DeepEM(),
    DeepEM(num_samples=5, prior_form="count", draw_every=2, first_task="search", commit_share=1),
    DeepEM(num_samples=8, commit_share=1),
    Fixed("all"),
    Fixed("none"),
    MovingPrior(rate=0.05),
]
every_search = pytest.mark.parametrize("search", SEARCHES, ids=str)


def step(
    search: AbstractSearch, state: SearchState, evidence: torch.Tensor, generator: torch.Generator
) -> tuple[torch.Tensor, SearchState]:
    """One mini-batch as a phase takes it, with the log-likelihoods (C, batch) that the search asks for."""
    if state.is_partial:
        state = search.begin_batch(state, generator)
    rows = list(search.candidates(state, len(evidence)))
    return search.step(state, evidence if search.full_pass(state) else evidence[rows])


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
    assert state.mass.dtype == torch.float64
    for number in range(12):
        state = search.advance(state, number, 12)
        partial = state.is_partial
        if partial:
            state = search.begin_batch(state, generator)
        prior, candidates = search.prior(state), search.candidates(state, num)
        assert prior.shape == (num,)
        assert bool((prior >= 0).all())
        assert abs(prior.sum().item() - 1) < 1e-9
        assert candidates == tuple(sorted(set(candidates)))
        assert set(candidates) <= set(range(num))
        if not partial and len(candidates) < num:
            assert candidates == (search.best(state),)
            continue
        assert len(candidates) > 0
        num_rows = num if search.full_pass(state) else len(candidates)
        before = state.mass.clone()
        weights, after = search.step(state, -torch.rand(num_rows, 5, generator=generator))
        assert weights.shape == (num_rows,)
        assert bool((weights >= 0).all())
        assert abs(weights.sum().item() - 1) < 1e-9
        assert torch.equal(state.mass, before)
        assert weights.tolist() == [
            w if num_rows < num or c in candidates else 0 for c, w in enumerate(weights.tolist())
        ]
        state = after


@every_search
def test_a_state_that_is_stored_goes_on_to_the_same_bits(search: AbstractSearch) -> None:
    num = len(search.space(3, 1))
    evidence = -3 * torch.rand(9, num, 5, generator=torch.Generator().manual_seed(4))
    state, generator = search.init(num), torch.Generator().manual_seed(0)
    for batch in evidence[:5]:
        _, state = step(search, state, batch, generator)
    before = generator.get_state()
    again = search.init(num).loaded(state.tensors(), json.loads(json.dumps(state.plain())))
    histories = []
    for start in (state, again):
        generator.set_state(before)
        now, history = start, []
        for batch in evidence[5:]:
            weights, now = step(search, now, batch, generator)
            history += [weights, now.mass, torch.tensor(search.best(now))]
        histories.append(history)
    for one, other in zip(*histories, strict=True):
        assert torch.equal(one, other)


@every_search
def test_the_probability_that_a_layer_transfers_is_the_priors(search: AbstractSearch) -> None:
    space = search.space(3, 1)
    state = search.init(len(space))
    generator = torch.Generator().manual_seed(4)
    for batch in -torch.rand(7, len(space), 5, generator=generator):
        _, state = step(search, state, batch, generator)
    by_layer = search.transfer_probability(state)
    if by_layer is not None:
        bits = torch.tensor([c.bits for c in space], dtype=torch.float64)
        torch.testing.assert_close(by_layer, search.prior(state) @ bits)


@every_search
def test_it_finds_a_configuration_that_explains_everything(search: AbstractSearch) -> None:
    num = len(search.space(3, 1))
    state, right = search.init(num), num - 1
    evidence = torch.full((num, 4), -5.0)
    evidence[right] = -0.01
    generator = torch.Generator().manual_seed(0)
    for _ in range(100 if isinstance(search, DeepEM) else 30):  # which has to draw it first
        _, state = step(search, state, evidence, generator)
    assert search.best(state) == right


@every_search
def test_commitment_is_final(search: AbstractSearch) -> None:
    num = len(search.space(3, 1))
    state = search.init(num)
    _, state = step(search, state, torch.linspace(-1, -2, num)[:, None], torch.Generator())
    committed = None
    for number in range(10):
        state = search.advance(state, number, 10)
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
