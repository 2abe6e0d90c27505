"""Models of timm and image encoders of transformers with random weights; nothing is downloaded.

Where one of the packages does not import, only the error is tested.
"""

import importlib.util
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from lasem import EM, HardSharing, LowRank
from lasem.errors import ConfigError
from lasem.nets import AbstractNet, from_transformers

from .modules import SMALL, assert_goes_on_after_loading, features, generator

try:
    import timm
except (ImportError, RuntimeError):
    timm = None

SHAPE = (1, 32, 32)
with_timm = pytest.mark.skipif(timm is None, reason="timm does not import here")


TINY = SMALL | {"num_hidden_layers": 3, "image_size": 6, "patch_size": 3, "num_channels": 1}
MODELS = ("ViT", "DeiT", "Dinov2", "Beit", "CLIPVision", "SiglipVision")


def encoder(name: str, **change: Any) -> Any:
    transformers = pytest.importorskip("transformers", exc_type=ImportError)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model: Any = getattr(transformers, f"{name}Model")(getattr(transformers, f"{name}Config")(**TINY | change))
    return model.eval()


@pytest.mark.skipif(importlib.util.find_spec("transformers") is not None, reason="transformers is installed")
def test_without_transformers_it_is_said_what_to_install() -> None:
    with pytest.raises(ConfigError, match=r"pip install 'lasem\[transformers\]'"):
        from_transformers(nn.Identity())


@pytest.mark.parametrize("name", MODELS)
def test_the_blocks_are_the_encoder(name: str) -> None:
    model = encoder(name, **({"drop_path_rate": 0.0} if name == "Beit" else {}))
    net = from_transformers(model)
    assert (net.depth, net.head.in_features, net.image_shape) == (4, 8, (1, 6, 6))
    x = torch.randn(2, 1, 6, 6, generator=generator(1))
    with torch.no_grad():
        out, found = model(pixel_values=x), features(net, x)
    tokens = out.last_hidden_state
    if name == "CLIPVision":
        tokens = model.post_layernorm(tokens)  # it normalises the class token only, for its own pooling
    pooled = tokens.mean(dim=1) if name == "SiglipVision" else tokens[:, 0]
    torch.testing.assert_close(found, pooled, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("sharing", "rank"),
    [(HardSharing(), None), (LowRank(rank=2, train_shared=False), None), (HardSharing(train_shared=False), 2)],
    ids=["hps", "low-rank", "change"],
)
def test_an_encoder_goes_on_after_loading(sharing: Any, rank: int | None, tmp_path: Path) -> None:
    def net() -> AbstractNet:
        return from_transformers(encoder("ViT"), layers_per_block=2, rank=rank)

    assert net().depth == 3
    learner = assert_goes_on_after_loading(net, tmp_path, sharing=sharing, search=EM())
    assert bool(learner.model.versions) == sharing.train_shared


def test_models_that_are_no_image_encoders_are_named() -> None:
    transformers = pytest.importorskip("transformers", exc_type=ImportError)
    with pytest.raises(ConfigError, match=r"Expected a model of transformers; got Identity"):
        from_transformers(nn.Identity())
    sounds = transformers.ASTConfig(hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16)
    with pytest.raises(ConfigError, match="Expected a model for images or for texts; ASTModel takes input_values"):
        from_transformers(transformers.ASTModel(sounds))
    with pytest.raises(ConfigError, match=r"length is for models of texts; ViTModel takes images\. Leave it out"):
        from_transformers(encoder("ViT"), length=6)
    with pytest.raises(ConfigError, match="draws random numbers in training"):
        from_transformers(encoder("ViT", hidden_dropout_prob=0.1))
