"""Models of timm without pretrained weights; nothing is downloaded. Where timm does not import, only the error."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from learner.fixture import tiny_task

from lasem.errors import ConfigError
from lasem.learner import Learner
from lasem.nets import AbstractNet, from_timm
from lasem.search import Fixed
from lasem.sharing import HardSharing
from lasem.training import TrainingConfig

try:
    import timm
except (ImportError, RuntimeError):
    timm = None

SHAPE = (1, 32, 32)
with_timm = pytest.mark.skipif(timm is None, reason="timm does not import here")


@pytest.mark.skipif(timm is not None, reason="timm imports here")
def test_without_timm_it_is_said_what_to_install() -> None:
    with pytest.raises(ConfigError, match=r"does not import here .*pip install 'lasem\[timm\]'"):
        from_timm("resnet18")


@with_timm
@pytest.mark.parametrize(
    ("name", "depth"),
    [("vit_tiny_patch16_224", 13), ("test_resnet", 5), ("test_convnext", 5), ("test_efficientnet", 7), ("resnet18", 9)],
)
def test_the_blocks_are_the_model(name: str, depth: int) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = from_timm(name, image_shape=SHAPE)
    assert net.depth >= depth
    value: Any = torch.randn(2, *SHAPE)
    for block in net.blocks:
        weights = block.initial(torch.Generator().manual_seed(0), "he")
        value = block.apply({**weights, **block.initial_statistics()}, value)
    assert value.shape == (2, net.head.in_features)
    assert bool(value.isfinite().all())


@with_timm
def test_it_is_built_again_by_name(tmp_path: Path) -> None:
    def net() -> AbstractNet:
        return from_timm("test_resnet", image_shape=SHAPE, hidden=(4,))

    learner = Learner(net(), search=Fixed("top-2"), training=TrainingConfig(epochs=1, batch_size=5))
    for i, name in enumerate("ab"):
        learner.learn(tiny_task(name, shape=SHAPE, seed=i))
    learner.save(tmp_path / "model")
    again = Learner.load(tmp_path / "model")
    images = tiny_task(shape=SHAPE).test.images.take(torch.arange(3))
    assert torch.equal(learner.logits("b", images), again.logits("b", images))
    for one in (learner, again):
        one.learn(tiny_task("c", shape=SHAPE, seed=2))
    assert torch.equal(learner.logits("c", images), again.logits("c", images))


@with_timm
def test_a_change_of_it_is_built_again_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fetched(timm: Any, name: str, pretrained: bool, image_shape: Any) -> Any:
        """In place of a download: the same weights every time."""
        assert pretrained
        with torch.random.fork_rng():
            torch.manual_seed(0)
            return timm.create_model(name, num_classes=0, in_chans=1)

    monkeypatch.setattr(sys.modules["lasem.nets.pretrained"], "_created", fetched)
    net = from_timm("test_resnet", pretrained=True, image_shape=SHAPE, rank=2)
    training = TrainingConfig(epochs=1, batch_size=5)
    learner = Learner(net, sharing=HardSharing(train_shared=False), search=Fixed("top-2"), training=training)
    learner.learn(tiny_task("a", shape=SHAPE))
    learner.save(tmp_path / "model")
    images = tiny_task(shape=SHAPE).test.images.take(torch.arange(3))
    assert torch.equal(Learner.load(tmp_path / "model").logits("a", images), learner.logits("a", images))


@with_timm
def test_an_unknown_name_is_told() -> None:
    with pytest.raises(ConfigError, match=r"timm has no model 'resnet81'. Did you mean"):
        from_timm("resnet81")
