"""Pruned EM against the calculation at the top of ``lasem/search/em.py``, configuration by configuration."""

from __future__ import annotations

import math
from itertools import combinations
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from lasem.errors import ConfigError
from lasem.search import EM, SearchState
from lasem.search.em import smallest_set

NEVER: dict[str, Any] = {"commit_probability": 1.01, "commit_share": 1.0, "prior_start": (0.5, 0.5)}


def fed(search: EM, state: SearchState, rows: Tensor) -> tuple[Tensor, SearchState]:
    """One mini-batch of one image: rows of (C,) log-likelihoods, of which the search sees what it asks for."""
    state = search.begin_batch(state, torch.Generator())
    kept = search.candidates(state, len(rows))
    seen = rows if search.full_pass(state) else rows[list(kept)]
    return search.step(state, seen[:, None])


def naive_run(rows: list[list[float]], form: str, epsilon: float, every: int) -> list[tuple[list[int], list[float]]]:
    """For each mini-batch the configurations kept and the mass after it; plain numbers, one block after another."""
    num = len(rows[0])
    mass = [1.0 if form == "count" else 0.0] * num
    kept, history = list(range(num)), []
    for start in range(0, len(rows), every):
        block = rows[start : start + every]
        if start:
            order = sorted(range(num), key=lambda c: (-mass[c], c))
            size = next(n for n in range(1, num + 1) if sum(mass[c] for c in order[:n]) >= (1 - epsilon) * sum(mass))
            kept = sorted(order[:size])
        before, gained = list(mass), [0.0] * num
        for position, row in enumerate(block):
            total = sum(mass)
            prior = [m / total if total else 1 / num for m in mass]
            everything = position == every - 1
            seen = range(num) if everything else kept
            joint = {c: prior[c] * math.exp(row[c]) for c in seen}
            share = {c: joint[c] / sum(joint.values()) for c in seen}
            if form == "count":
                winner = max(seen, key=lambda c: (joint[c], -c))
                share = {c: float(c == winner) for c in seen}
            if everything:
                outside = sum(share[c] for c in range(num) if c not in kept)
                for c in range(num):
                    own = share[c] + (1 - outside) * gained[c] if c in kept else every * share[c]
                    mass[c] = before[c] + own
            else:
                for c in kept:
                    gained[c] += share[c]
                    mass[c] += share[c]
            history.append((list(kept), list(mass)))
    return history


@pytest.mark.parametrize("form", ["count", "average"])
@pytest.mark.parametrize(("epsilon", "every"), [(0.15, 3), (0.3, 4), (0.6, 1), (0.9, 5)])
def test_every_mini_batch_is_the_calculation_by_hand(form: Any, epsilon: float, every: int) -> None:
    generator = torch.Generator().manual_seed(3)
    rows = 2 * torch.randn(40, 6, dtype=torch.float64, generator=generator)
    rows += torch.tensor([0.0, 2, 1, -3, 0, 2.5], dtype=torch.float64)
    rows[20:] += torch.tensor([4.0, 0, 0, 3, 0, 0], dtype=torch.float64)  # what was left out begins to explain more
    search = EM(prior_form=form, prune=epsilon, full_pass_every=every, **NEVER)
    state, sizes = search.init(6), set()
    for row, (kept, mass) in zip(rows, naive_run(rows.tolist(), form, epsilon, every), strict=True):
        weights, state = fed(search, state, row)
        assert state.pruned is not None
        assert list(state.pruned.kept) == kept
        torch.testing.assert_close(state.mass, torch.tensor(mass, dtype=torch.float64), rtol=1e-9, atol=1e-12)
        assert math.isclose(weights.sum().item(), 1, rel_tol=1e-12)
        sizes.add(len(kept))
    assert len(sizes) > 1  # something was left out, and the set changed


@pytest.mark.parametrize("form", ["count", "average"])
def test_the_weights_are_the_exact_ones_renormalised_over_what_is_kept(form: Any) -> None:
    search = EM(prior_form=form, prune=0.3, full_pass_every=3, **NEVER)
    exact = EM(prior_form=form, **NEVER)
    state, narrowed = search.init(5), 0
    for row in torch.randn(30, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(1)).cumsum(0) / 3:
        state = search.begin_batch(state, torch.Generator())
        kept = list(search.candidates(state, 5))
        posterior, _ = exact.step(SearchState(state.mass), row[:, None])
        full = search.full_pass(state)
        weights, state = search.step(state, (row if full else row[kept])[:, None])
        torch.testing.assert_close(weights[kept] if full else weights, posterior[kept] / posterior[kept].sum())
        narrowed += len(kept) < 5
    assert narrowed > 5


@pytest.mark.parametrize("form", ["count", "average"])
@pytest.mark.parametrize("likelihood", ["product", "mean", "geometric"])
def test_as_long_as_nothing_is_left_out_all_bits_are_the_exact_ones(form: Any, likelihood: Any) -> None:
    """epsilon so small that every configuration's prior is above it."""
    pruned, exact = (EM(prior_form=form, likelihood=likelihood, prune=p, full_pass_every=2) for p in (1e-9, 0.0))
    states = [pruned.init(8), exact.init(8)]
    for evidence in -torch.rand(12, 8, 3, generator=torch.Generator().manual_seed(2)):
        states[0] = pruned.begin_batch(states[0], torch.Generator())
        assert pruned.candidates(states[0], 8) == tuple(range(8))
        assert not pruned.full_pass(states[0])
        results = [search.step(state, evidence) for search, state in zip((pruned, exact), states, strict=True)]
        states = [state for _, state in results]
        assert torch.equal(results[0][0], results[1][0])
        assert torch.equal(states[0].mass, states[1].mass)


def test_without_pruning_there_is_no_state_for_it() -> None:
    state = EM().init(4)
    assert (state.pruned, state.is_partial) == (None, False)
    assert set(state.tensors()) == {"mass"}
    assert state.plain() == {"committed": None}
    assert EM().begin_batch(state, torch.Generator()) is state


def test_what_is_skipped_gains_on_average_what_it_would_have_gained() -> None:
    """One of four mini-batches is won by a skipped configuration; each is the full pass of one of four blocks."""
    search = EM(prune=0.2, full_pass_every=4, **NEVER)
    easy, strange = torch.tensor([0.0, -9.0, -9.0]), torch.tensor([-60.0, 0.0, -60.0])
    total = torch.zeros(3, dtype=torch.float64)
    for last in range(4):
        state = search.init(3)
        for _ in range(20):
            _, state = fed(search, state, easy)
        before = state.mass
        state = search.begin_batch(state, torch.Generator())
        assert search.candidates(state, 3) == (0,)
        order = [easy, easy, easy, strange]
        for k in range(4):
            _, state = fed(search, state, order[(last + 1 + k) % 4])
        total += state.mass - before
    assert total.tolist() == [12, 4, 0]  # four blocks, of which exactly three quarters are the first one's


def test_a_configuration_comes_back_when_it_begins_to_explain() -> None:
    for form in ("count", "average"):
        search = EM(prior_form=form, prune=0.05, full_pass_every=5, **NEVER)  # type: ignore[arg-type]
        state = search.init(4)
        for _ in range(100):
            _, state = fed(search, state, torch.tensor([0.0, -4, -5, -6]))
        assert search.candidates(search.begin_batch(state, torch.Generator()), 4) == (0,)
        for _ in range(11):
            _, state = fed(search, state, torch.tensor([-30.0, -4, 0, -6]))
        assert 2 in search.candidates(search.begin_batch(state, torch.Generator()), 4)
        for _ in range(300):
            _, state = fed(search, state, torch.tensor([-30.0, -4, 0, -6]))
        assert search.best(state) == 2


@given(st.lists(st.integers(0, 9), min_size=1, max_size=6).filter(any), st.sampled_from([0.5, 0.9, 0.98]))
def test_no_smaller_set_would_do(mass: list[int], share: float) -> None:
    kept = smallest_set(mass, share)
    assert sum(mass[c] for c in kept) >= share * sum(mass)
    for smaller in combinations(range(len(mass)), len(kept) - 1):
        assert sum(mass[c] for c in smaller) < share * sum(mass)


def test_commitment_ends_pruning() -> None:
    search = EM(prune=0.1, full_pass_every=2, commit_probability=0.7, commit_share=1)
    state = search.init(4)
    while search.advance(state, 1, 2).committed is None:
        _, state = fed(search, state, torch.tensor([0.0, 0.0, 5.0, 0.0]))
    state = search.advance(state, 1, 2)
    assert search.candidates(state, 4) == (2,)
    assert not state.is_partial
    assert not search.full_pass(state)
    assert search.begin_batch(state, torch.Generator()) is state


def test_settings_are_checked() -> None:
    with pytest.raises(ConfigError, match=r"EM\.prune must be at least 0 and below 1; got 1"):
        EM(prune=1)
    with pytest.raises(ConfigError, match=r"EM\.full_pass_every must be at least 1; got 0"):
        EM(full_pass_every=0)
