"""Changes of low rank: against the module with the changed kernels written into it, and learned with."""

from pathlib import Path
from typing import Any

import pytest
import torch
from learner.fixture import tiny_task
from sharing.fixture import random

from lasem.errors import ConfigError, StorageError
from lasem.learner import Learner
from lasem.methods import Freeze
from lasem.nets import AbstractNet, cut
from lasem.search import EM, DeepEM, Fixed
from lasem.sharing import AbstractSharing, HardSharing, TensorFactorization
from lasem.training import TrainingConfig

from .modules import (
    SHAPE,
    SmallViT,
    assert_goes_on_after_loading,
    assert_same_with_gradients,
    features,
    features_of,
    generator,
    leaves,
    normalised,
    seeded,
)

FROZEN = HardSharing(train_shared=False)


def net_of(build: Any = normalised, rank: int | None = 2, **given: Any) -> AbstractNet:
    return cut(seeded(build), image_shape=SHAPE, rank=rank, **given)


def learner_of(net: AbstractNet, **given: Any) -> Learner:
    return Learner(net, training=TrainingConfig(epochs=3, batch_size=5), **given)


@pytest.mark.parametrize("build", [normalised, SmallViT])
@pytest.mark.parametrize("training", [False, True], ids=["evaluating", "training"])
def test_a_change_is_the_module_with_changed_kernels_forward_and_backward(build: Any, training: bool) -> None:
    module, net = seeded(build).double().train(training), net_of(build)
    given = [leaves(random(block.shapes, torch.float64, i)) for i, block in enumerate(net.blocks)]
    kernels = {}
    for weights in given:
        for name in (name.removesuffix(".up") for name in weights if name.endswith(".up")):
            change = weights[f"{name}.up"] @ weights[f"{name}.down"]
            assert torch.linalg.matrix_rank(change) <= 2
            kernels[name] = module.get_parameter(name) + change.reshape(module.get_parameter(name).shape)
    x = torch.randn(4, *SHAPE, generator=generator(9)).double()
    found = features(net, x, given, {} if training else None)
    every = [tensor for weights in given for tensor in weights.values()]
    assert_same_with_gradients(found, features_of(module, x, kernels), every, every)


def test_it_starts_as_the_module_and_is_small() -> None:
    changed, plain = net_of(SmallViT), net_of(SmallViT, rank=None)
    x = torch.rand(3, *SHAPE)
    for block, whole in zip(changed.blocks, plain.blocks, strict=True):
        assert block.num_parameters < whole.num_parameters
        assert len(block.kernels) == len(block.shapes)
    assert torch.equal(features(changed, x), features(plain, x))
    assert net_of(rank=99).blocks[0].shapes == {"0.weight.down": (3, 9), "0.weight.up": (3, 3)}


@pytest.mark.parametrize("sharing", [HardSharing(), FROZEN, TensorFactorization()], ids=["hps", "frozen", "tf"])
def test_it_is_saved_and_goes_on_to_the_same_bits(sharing: AbstractSharing, tmp_path: Path) -> None:
    assert_goes_on_after_loading(net_of, tmp_path, sharing=sharing, search=EM())
    with pytest.raises(StorageError, match="saved with another network"):
        Learner.load(tmp_path / "whole", net=net_of(rank=1))
    with pytest.raises(StorageError, match="constants"):  # a change of something else
        Learner.load(tmp_path / "whole", net=cut(seeded(normalised, seed=1), image_shape=SHAPE, rank=2))


def test_a_frozen_layer_is_the_modules_for_ever_and_costs_a_task_nothing() -> None:
    learner = learner_of(net_of(), sharing=FROZEN, search=Fixed("bottom-1"))
    learner.learn(tiny_task("a"))
    images = tiny_task("a").test.images.take(torch.arange(4))
    before = learner.logits("a", images)
    learner.learn(tiny_task("b", seed=1))
    assert torch.equal(learner.logits("a", images), before)
    assert all(not value.any() for name, value in learner.model.versions["0@0"].items() if name.endswith(".up"))
    assert learner.model.num_shared() == learner.net.blocks[0].num_parameters


def test_a_task_that_transfers_nothing_owns_a_change_of_every_block() -> None:
    learner = learner_of(net_of(SmallViT), sharing=FROZEN, search=Fixed("none"))
    for i, name in enumerate("ab"):
        learner.learn(tiny_task(name, seed=i))
    own = learner.model.own["b"]
    head = sum(value.numel() for name, value in own.items() if name.startswith("head."))
    changes = sum(block.num_parameters for block in learner.net.blocks)
    assert learner.num_parameters("b") == changes + head
    assert any(value.any() for name, value in own.items() if name.startswith("layer.0."))


def test_the_other_search_and_protection_learn_with_it() -> None:
    learner = learner_of(net_of(), search=DeepEM(num_samples=2), protect=Freeze())
    for name in "abc":
        learner.learn(tiny_task(name, seed=ord(name)))
    assert learner.task_names == ("a", "b", "c")


def test_what_cannot_be_changed_is_refused() -> None:
    with pytest.raises(ConfigError, match="pretrained must be True"):
        net_of(pretrained=False)
    with pytest.raises(ConfigError, match="rank must be at least 1; got 0"):
        net_of(rank=0)
    with pytest.raises(ConfigError, match="Block '1' has no matrix or convolution"):
        net_of(blocks=["0", "1", ("4", "5"), ("7", "8")])
    with pytest.raises(ConfigError, match=r"HardSharing\.train_shared=False keeps .* at random"):
        learner_of(net_of(rank=None, pretrained=False), sharing=FROZEN)
