import math
from itertools import combinations
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lasem.errors import ConfigError
from lasem.search import EM, batch_log_likelihood
from lasem.space import Space, factorised, full, grouped

LIKELIHOODS = ("mean", "geometric", "product")
EVEN = (0.5, 0.5)


def naive_likelihood(probabilities: list[float], kind: str) -> float:
    if kind == "mean":
        return sum(probabilities) / len(probabilities)
    return math.prod(probabilities) ** (1 / len(probabilities) if kind == "geometric" else 1)


def naive_start(first: float, last: float, num_groups: int) -> list[float]:
    """Probability of every configuration of groups whose probabilities of transfer lie on a straight line."""
    line = [first + (last - first) * group / max(1, num_groups - 1) for group in range(num_groups)]
    line = line if num_groups > 1 else [(first + last) / 2]
    space = full(num_groups)
    return [math.prod(p if bit else 1 - p for p, bit in zip(line, bits, strict=True)) for bits in space]


def naive_steps(batches: Any, likelihood: str, prior_form: str, start: list[float]) -> tuple[list[list[float]], ...]:
    """Posterior of every step, and the prior after it."""
    num = len(batches[0])
    counts, sums, prior = [num * p for p in start], [0.0] * num, start
    posteriors, priors = [], []
    for step, batch in enumerate(batches, start=1):
        joint = [prior[c] * naive_likelihood(batch[c], likelihood) for c in range(num)]
        posterior = [value / sum(joint) for value in joint]
        counts[posterior.index(max(posterior))] += 1
        sums = [total + value for total, value in zip(sums, posterior, strict=True)]
        prior = [n / sum(counts) for n in counts] if prior_form == "count" else [total / step for total in sums]
        posteriors.append(posterior)
        priors.append(prior)
    return posteriors, priors


def test_one_mini_batch_in_numbers() -> None:
    """Two images, two configurations: p = .3, .3 against .2, .4."""
    log_likelihood = torch.tensor([[0.3, 0.3], [0.2, 0.4]], dtype=torch.float64).log()
    expected = {"mean": 0.3 / (0.3 + 0.3), "product": 0.09 / (0.09 + 0.08), "geometric": 0.3 / (0.3 + 0.08**0.5)}
    for kind, value in expected.items():
        search = EM(likelihood=kind, prior_start=EVEN)
        weights, state = search.step(search.init(2), log_likelihood)
        assert weights.tolist() == pytest.approx([value, 1 - value], rel=1e-12)
        if kind != "mean":
            assert search.prior(state).tolist() == [2 / 3, 1 / 3]
            second, _ = search.step(state, log_likelihood)
            assert second[0].item() == pytest.approx(2 * value / (2 * value + 1 - value), rel=1e-12)


@pytest.mark.parametrize(("kind", "ratio"), [("mean", 1.2), ("geometric", 1.2), ("product", 6.19)])
def test_at_batch_10_the_mean_is_flat_and_the_product_is_not(kind: Any, ratio: float) -> None:
    """The ratios that the reference gives for p = .30 against .25."""
    better, worse = batch_log_likelihood(torch.tensor([[0.30] * 10, [0.25] * 10], dtype=torch.float64).log(), kind)
    assert (better - worse).exp().item() == pytest.approx(ratio, rel=1e-3)


def batches_of(num: int) -> st.SearchStrategy[list[list[list[float]]]]:
    """One to six mini-batches of three images: each configuration's probabilities of their labels."""
    images = st.lists(st.floats(0.01, 1), min_size=3, max_size=3)
    return st.lists(st.lists(images, min_size=num, max_size=num), min_size=1, max_size=6)


@pytest.mark.parametrize("prior_form", ["count", "average"])
@pytest.mark.parametrize("likelihood", LIKELIHOODS)
@given(st.data(), st.just(EVEN) | st.tuples(st.floats(0.01, 0.99), st.floats(0.01, 0.99)))
def test_every_step_is_its_definition(likelihood: Any, prior_form: Any, data: st.DataObject, prior_start: Any) -> None:
    num = data.draw(st.integers(2, 5) if prior_start == EVEN else st.sampled_from([2, 4, 8]))
    batches = data.draw(batches_of(num))
    search = EM(likelihood=likelihood, prior_form=prior_form, prior_start=prior_start)
    start = [1 / num] * num if prior_start == EVEN else naive_start(*prior_start, num.bit_length() - 1)
    state = search.init(num)
    torch.testing.assert_close(search.prior(state), torch.tensor(start, dtype=torch.float64))
    for batch, posterior, prior in zip(batches, *naive_steps(batches, likelihood, prior_form, start), strict=True):
        ranked = sorted(posterior)
        weights, state = search.step(state, torch.tensor(batch, dtype=torch.float64).log())
        torch.testing.assert_close(weights, torch.tensor(posterior, dtype=torch.float64), rtol=1e-9, atol=1e-12)
        if prior_form == "count" and ranked[-1] - ranked[-2] < 1e-9:
            return  # rounding decides which of two nearly equal ones counts
        torch.testing.assert_close(search.prior(state), torch.tensor(prior, dtype=torch.float64), rtol=1e-9, atol=0)


@given(st.sets(st.integers(0, 3), min_size=1), st.integers(0, 15))
def test_equal_evidence_counts_for_what_transfers_least(same: set[int], best: int) -> None:
    """None of the layers that make no difference."""
    space, search = full(4), EM(prior_start=EVEN)
    told_apart = [tuple(bit for layer, bit in enumerate(c) if layer not in same) for c in space]
    evidence = torch.tensor([[0.0 if apart == told_apart[best] else -1.0] for apart in told_apart]).double()
    state = search.init(len(space))
    for _ in range(3):
        _, state = search.step(state, evidence)
    winner = space[search.best(state)]
    assert state[search.best(state)] == 1 + 3
    assert list(winner) == [layer not in same and space[best][layer] for layer in range(4)]
    search = EM(prior_form="average", prior_start=EVEN)
    _, state = search.step(search.init(16), evidence)
    assert space[search.best(state)] == winner


@pytest.mark.parametrize("space", [full(4), grouped((2, 1, 2)), factorised((2, 1, 2))], ids=lambda s: str(s.sizes))
def test_the_first_configuration_transfers_least(space: Space) -> None:
    assert [c.num_transferred for c in space].index(min(c.num_transferred for c in space)) == 0
    for first, second in combinations(space, 2):
        further = {layer for layer, bit in enumerate(second) if bit} - {layer for layer, bit in enumerate(first) if bit}
        assert further, (first, second)  # what comes later transfers a layer that what comes before does not


@pytest.mark.parametrize(
    ("form", "prior"), [("count", [1 / 5, 2 / 5, 1 / 5, 1 / 5]), ("average", [0.1, 0.4, 0.1, 0.4])]
)
def test_a_tie_counts_for_the_first_in_numbers(form: Any, prior: list[float]) -> None:
    """One image, four configurations: p = .1, .4, .1, .4."""
    search = EM(prior_form=form, prior_start=EVEN)
    weights, state = search.step(search.init(4), torch.tensor([[0.1], [0.4], [0.1], [0.4]], dtype=torch.float64).log())
    assert weights.tolist() == pytest.approx([0.1, 0.4, 0.1, 0.4])
    assert search.prior(state).tolist() == pytest.approx(prior)
    assert search.best(state) == 1


@pytest.mark.parametrize("likelihood", LIKELIHOODS)
def test_improbable_batches_do_not_underflow(likelihood: Any) -> None:
    search = EM(likelihood=likelihood, prior_form="average", prior_start=EVEN)
    state = search.init(3)
    for _ in range(5):
        weights, state = search.step(state, torch.tensor([[-900.0] * 40, [-901.0] * 40, [-1e6] * 40]))
        assert bool(weights.isfinite().all())
        assert math.isclose(weights.sum().item(), 1, rel_tol=1e-12)
    assert search.best(state) == 0


def led_by(search: EM, winner: int, steps: int) -> Any:
    state = search.init(4)
    evidence = torch.full((4, 1), -3.0)
    evidence[winner] = -1
    for _ in range(steps):
        _, state = search.step(state, evidence)
    return state


@pytest.mark.parametrize(("num_epochs", "searched"), [(1, 1), (10, 1), (20, 1), (21, 2), (30, 2), (60, 2), (2000, 2)])
def test_the_default_search_takes_a_twentieth_of_the_epochs_and_two_at_most(num_epochs: int, searched: int) -> None:
    search = EM(commit_probability=1.01)
    state = led_by(search, 1, 2)
    committed = [search.commits(state, epoch, num_epochs) for epoch in range(num_epochs + 1)]
    assert committed == [epoch >= searched for epoch in range(num_epochs + 1)]


def test_commitment_when_the_prior_is_large_enough_or_the_share_of_epochs_is_spent() -> None:
    search = EM(commit_probability=0.7, commit_share=1, prior_start=EVEN)
    short, long = led_by(search, 2, 5), led_by(search, 2, 6)  # 6 / 9 and 7 / 10
    assert [search.commits(short, 99, 100), search.commits(long, 1, 100), search.commits(long, 0, 100)] == [0, 1, 0]
    assert search.best(long) == 2
    never, quarter = EM(commit_probability=1.01, commit_share=1), EM(commit_probability=1.01, commit_share=0.25)
    clear = led_by(never, 1, 300)
    assert [quarter.commits(clear, 2499, 10_000), quarter.commits(clear, 1, 4)] == [False, True]
    assert not never.commits(clear, 999, 1000)


def test_a_prior_that_falls_from_the_input_to_the_output_decides_where_evidence_does_not() -> None:
    search = EM(prior_start=(0.9, 0.1))
    state = search.init(16)
    by_hand = torch.tensor(naive_start(0.9, 0.1, 4), dtype=torch.float64)
    torch.testing.assert_close(search.prior(state), by_hand)
    assert float(state.sum()) == pytest.approx(16)  # as many as one of each
    evidence = torch.zeros(16, 5)
    posterior, after = search.step(state, evidence)
    torch.testing.assert_close(posterior, search.prior(state))
    assert str(full(4)[search.best(after)]) == "TTSS"
    evidence[0b0011] = 4.0
    for _ in range(20):
        _, after = search.step(after, evidence)
    assert str(full(4)[search.best(after)]) == "SSTT"
    with pytest.raises(ConfigError, match=r"all 2\^G configurations of G groups of layers; got 6. Set it to 0.5,0.5"):
        search.init(6)
