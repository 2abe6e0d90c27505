from __future__ import annotations

from itertools import product

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from lasem.methods.apd import consolidate, k_means


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def scatter(points: Tensor, group: Tensor) -> float:
    """Sum of squared distances to the groups' means, by its definition."""
    total = 0.0
    for g in sorted(set(group.tolist())):
        members = [point.double() for point, of in zip(points, group.tolist(), strict=True) if of == g]
        mean = sum(members) / len(members)
        total += sum(float(((point - mean) ** 2).sum()) for point in members)
    return total


def best_grouping(points: Tensor, num_groups: int) -> float:
    return min(scatter(points, torch.tensor(group)) for group in product(range(num_groups), repeat=len(points)))


@pytest.mark.parametrize("num_groups", [1, 2, 3])
def test_k_means_finds_the_best_of_all_groupings(num_groups: int) -> None:
    points = torch.randn(6, 3, generator=seeded(4))
    group = k_means(points, num_groups, seeded())
    assert (group.shape, group.dtype) == ((6,), torch.int64)
    assert set(group.tolist()) <= set(range(num_groups))
    assert scatter(points, group) == pytest.approx(best_grouping(points, num_groups))


def test_k_means_finds_groups_that_are_far_apart_whatever_the_seed() -> None:
    centres = 10 * torch.randn(4, 50, generator=seeded(1))
    truth = torch.tensor([2, 0, 1, 1, 3, 2, 0, 0, 3, 1])
    points = centres[truth] + 0.1 * torch.randn(10, 50, generator=seeded(2))
    for seed in range(8):
        group = k_means(points, 4, seeded(seed))
        assert torch.equal(group[:, None] == group, truth[:, None] == truth)
        assert torch.equal(group, k_means(points, 4, seeded(seed)))  # the same seed, the same numbers


@pytest.mark.parametrize(("points", "num_groups", "expected"), [(torch.zeros(4, 3), 3, 1), (torch.eye(3), 3, 3)])
def test_k_means_with_few_different_points(points: Tensor, num_groups: int, expected: int) -> None:
    assert len(set(k_means(points, num_groups, seeded()).tolist())) == expected


@given(st.integers(1, 7), st.integers(1, 7), st.integers(0, 10**6))
def test_no_point_is_nearer_to_another_groups_mean(n: int, num_groups: int, seed: int) -> None:
    points = torch.randn(n, 2, generator=seeded(seed))
    group = k_means(points, min(num_groups, n), seeded(seed))
    means = {g: points.double()[group == g].mean(dim=0) for g in set(group.tolist())}
    for point, g in zip(points.double(), group.tolist(), strict=True):
        own = float((point - means[g]).square().sum())
        assert all(own <= float((point - mean).square().sum()) + 1e-9 for mean in means.values())


def test_consolidate_is_its_definition() -> None:
    tau = 0.02 * torch.randn(5, 3, 2, 2, generator=seeded(3))
    group = torch.tensor([1, 0, 1, 3, 1])
    found = consolidate(tau, group, 0.02)
    assert found.tau.shape == tau.shape
    assert found.member.tolist() == [[True], [False], [True], [False], [True]]  # groups of one share nothing
    assert torch.equal(found.tau[[1, 3]], tau[[1, 3]])
    num_moved = 0
    for place in product(range(3), range(2), range(2)):
        values = [float(tau[(i, *place)]) for i in (0, 2, 4)]
        agreed = max(values) - min(values) <= 0.02
        num_moved += agreed
        middle = (max(values) + min(values)) / 2 if agreed else 0.0
        assert float(found.local[(0, *place)]) == pytest.approx(middle, abs=1e-9)
        for i, value in zip((0, 2, 4), values, strict=True):
            assert float(found.tau[(i, *place)]) == (0.0 if agreed else value)
    assert 0 < num_moved < 12


@given(st.integers(0, 10**6), st.floats(0, 0.05))
def test_consolidation_moves_nothing_further_than_half_the_threshold(seed: int, threshold: float) -> None:
    tau = 0.02 * torch.randn(6, 4, 3, generator=seeded(seed))
    group = torch.randint(0, 3, (6,), generator=seeded(seed))
    found = consolidate(tau, group, threshold)
    local = torch.einsum("ng,gij->nij", found.member.float(), found.local)
    after = local + found.tau
    assert float((after - tau).abs().max()) <= threshold / 2 + 1e-8
    assert torch.equal(after[found.tau != 0], tau[found.tau != 0])
    assert not bool(((local != 0) & (found.tau != 0)).any())  # each number is in one place only


def test_tasks_that_are_equal_share_everything_to_the_bit() -> None:
    one = torch.randn(3, 2, generator=seeded())
    found = consolidate(torch.stack([one, one, one]), torch.zeros(3, dtype=torch.int64), 0.0)
    assert torch.equal(found.local, one[None])
    assert not found.tau.any()


def test_groups_with_nothing_in_common_take_no_room() -> None:
    tau = torch.tensor([[1.0, 0.0], [-1.0, 0.0], [3.0, 0.0]])
    found = consolidate(tau, torch.tensor([0, 0, 1]), 0.1)
    assert torch.equal(found.tau, tau)
    assert (found.local.shape, found.member.shape) == ((0, 2), (3, 0))
