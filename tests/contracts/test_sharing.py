"""What every sharing mechanism must do. A new one joins by standing in the list."""

from dataclasses import dataclass
from typing import Any, ClassVar, final

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sharing.fixture import shapes_of, start
from torch import Tensor

from lasem.nets import AbstractBlock, ConvBlock, InitialWeights, LinearBlock, Weights
from lasem.sharing import AbstractSharing, Deconvolution, HardSharing, LowRank, TensorFactorization


@final
@dataclass(frozen=True)
class ScaledSharing(AbstractSharing):
    """A user's own mechanism, in a file of their own: tasks share a layer up to one factor."""

    name: ClassVar[str] = "scaled"

    def shared_shapes(self, block: AbstractBlock) -> dict[str, tuple[int, ...]]:
        return block.shapes

    def task_shapes(self, block: AbstractBlock) -> dict[str, tuple[int, ...]]:
        return {"scale": (1,)}

    def initial_shared(self, block: AbstractBlock, plain: Weights, generator: torch.Generator) -> dict[str, Tensor]:
        return dict(plain)

    def initial_task(
        self, block: AbstractBlock, shared: Weights, plain: Weights, generator: torch.Generator
    ) -> dict[str, Tensor]:
        return {"scale": torch.ones(1)}

    def weights(self, block: AbstractBlock, shared: Weights, task: Weights) -> dict[str, Tensor]:
        return {name: value * task["scale"] for name, value in shared.items()}


SHARINGS: list[AbstractSharing] = [
    HardSharing(),
    TensorFactorization(),
    TensorFactorization(penalty_weight=0, max_rank=2, start="glorot"),
    Deconvolution(),
    Deconvolution(sizes="stl-10", filter_size=5, start="glorot"),
    LowRank(),
    LowRank(rank=1, scale=2.0, factors_start="latest"),
    ScaledSharing(),
]
every_sharing = pytest.mark.parametrize("sharing", SHARINGS, ids=str)

blocks = st.one_of(
    st.builds(ConvBlock, st.integers(1, 5), st.integers(1, 5), st.integers(1, 6), st.integers(1, 3), st.integers(1, 2)),
    st.builds(LinearBlock, st.integers(1, 9), st.integers(1, 9)),
)
rules: st.SearchStrategy[InitialWeights] = st.sampled_from(("he", "paper"))


@every_sharing
@given(blocks, rules, st.integers(0, 5))
def test_shapes_and_counts_are_true_and_a_fresh_layer_is_alive(sharing: Any, block: Any, rule: Any, seed: int) -> None:
    plain, shared, own, made = start(sharing, block, rule, seed)
    assert shapes_of(shared) == sharing.shared_shapes(block)
    assert shapes_of(own) == sharing.task_shapes(block)
    assert shapes_of(made) == shapes_of(plain) == block.shapes
    assert sharing.num_shared(block) == sum(t.numel() for t in shared.values())
    assert sharing.num_owned(block, transferred=True) == sum(t.numel() for t in own.values())
    assert sharing.num_owned(block, transferred=False) == block.num_parameters == sum(t.numel() for t in plain.values())
    assert bool(made["weight"].isfinite().all())
    assert 0 < float(made["weight"].abs().max()) < 20


@every_sharing
@given(blocks, rules)
def test_it_depends_on_its_arguments_alone(sharing: AbstractSharing, block: AbstractBlock, rule: Any) -> None:
    global_state = torch.random.get_rng_state()
    _, shared, own, made = start(sharing, block, rule)
    before = {name: value.clone() for name, value in {**shared, **own}.items()}
    anew = start(sharing, block, rule)
    for weights in (anew.made, sharing.weights(block, shared, own)):
        assert all(torch.equal(made[name], weights[name]) for name in block.shapes)
    for part in ({**anew.shared, **anew.own}, {**shared, **own}):
        assert all(torch.equal(value, part[name]) for name, value in before.items())
    assert torch.equal(global_state, torch.random.get_rng_state())


@every_sharing
@pytest.mark.parametrize("block", [ConvBlock(2, 3, 3), ConvBlock(2, 3, 2, 2), LinearBlock(5, 4)])
def test_weights_and_penalty_are_differentiable(sharing: AbstractSharing, block: AbstractBlock) -> None:
    _, shared, own, _ = start(sharing, block, "paper")
    arguments = [t.double().requires_grad_() for t in (*shared.values(), *own.values())]

    def made(*values: Tensor) -> tuple[Tensor, ...]:
        of_shared = dict(zip(shared, values, strict=False))
        of_task = dict(zip(own, values[len(shared) :], strict=True))
        return tuple(sharing.weights(block, of_shared, of_task)[name] for name in block.shapes)

    assert torch.autograd.gradcheck(made, arguments)
    for weight in made(*arguments):
        assert weight.dtype == torch.float64
    penalty = sharing.penalty(block, dict(zip(own, arguments[len(shared) :], strict=True)))
    if penalty is not None:
        assert penalty.shape == ()
        gradients = torch.autograd.grad(penalty, arguments, allow_unused=True)
        assert all(g is None for g in gradients[: len(shared)])  # shared knowledge is not penalised for one task
        assert all(bool(g.isfinite().all()) for g in gradients if g is not None)
