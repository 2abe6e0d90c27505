from itertools import product

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from lasem.space import Configuration, PrefixTree, Space, full, grouped, listed


@st.composite
def subsets(draw: st.DrawFn) -> Space:
    depth = draw(st.integers(1, 6))
    every = ["".join(letters) for letters in product("ST", repeat=depth)]
    return listed(draw(st.lists(st.sampled_from(every), min_size=1, max_size=12, unique=True)))


def path_through(layer: int, transferred: bool, x: Tensor) -> Tensor:
    """Distinct for every path: the digits of a number in base 3."""
    return 3 * x + 1 + transferred


def alone(configuration: Configuration, x: Tensor) -> Tensor:
    for layer, transferred in enumerate(configuration):
        x = path_through(layer, transferred, x)
    return x


@given(subsets(), st.integers(1, 4))
def test_every_leaf_is_its_configuration_evaluated_alone(space: Space, batch: int) -> None:
    tree = PrefixTree.of(space.configurations)
    x = torch.arange(batch * 2, dtype=torch.float64).reshape(batch, 2)
    leaves = tree.evaluate(x, path_through).unflatten(0, (tree.num_leaves, batch))
    expected = torch.stack([alone(configuration, x) for configuration in space])
    assert torch.equal(tree.in_order(leaves), expected)
    assert sorted(tree.leaves) == list(range(len(space)))


@given(subsets())
def test_every_distinct_prefix_is_evaluated_once(space: Space) -> None:
    evaluated = 0

    def counted(layer: int, transferred: bool, x: Tensor) -> Tensor:
        nonlocal evaluated
        evaluated += len(x)
        assert tree.needs(layer, transferred=transferred)
        return x

    tree = PrefixTree.of(space.configurations)
    tree.evaluate(torch.zeros(1, 1), counted)
    prefixes = {c.bits[:length] for c in space for length in range(1, space.depth + 1)}
    assert evaluated == tree.num_nodes == len(prefixes)
    for layer, kind in product(range(space.depth), (False, True)):
        assert tree.needs(layer, transferred=kind) == any(c[layer] == kind for c in space)


@pytest.mark.parametrize("depth", range(1, 11))
def test_the_full_space_takes_fewer_evaluations_than_one_by_one(depth: int) -> None:
    assert PrefixTree.of(full(depth).configurations).num_nodes == 2 ** (depth + 1) - 2


def test_layers_of_a_group_do_not_branch() -> None:
    tree = PrefixTree.of(grouped((2, 1)).configurations)
    assert [level.num_nodes for level in tree.levels] == [2, 2, 4]


def test_gradients_reach_the_input_once_for_each_leaf() -> None:
    x = torch.ones(2, 1, dtype=torch.float64, requires_grad=True)
    PrefixTree.of(full(3).configurations).evaluate(x, path_through).sum().backward()
    assert torch.equal(x.grad, torch.full((2, 1), 8 * 3.0**3, dtype=torch.float64))
