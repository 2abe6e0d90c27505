"""Models of timm and image encoders of transformers with random weights; nothing is downloaded.

Where one of the packages does not import, only the error is tested.
"""

import importlib.util
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from lasem import EM, HardSharing
from lasem.errors import ConfigError
from lasem.nets import AbstractNet, cut, from_transformers, stage_groups

from .modules import SMALL, assert_goes_on_after_loading, features, generator

try:
    import timm
except (ImportError, RuntimeError):
    timm = None

SHAPE = (1, 32, 32)
with_timm = pytest.mark.skipif(timm is None, reason="timm does not import here")


SMALL_ONES: dict[str, tuple[int, dict[str, Any], int]] = {
    "swin_tiny_patch4_window7_224": (28, {"embed_dim": 12, "depths": (2, 1), "num_heads": (1, 2)}, 2),
    "swinv2_tiny_window8_256": (32, {"embed_dim": 12, "depths": (2, 1), "num_heads": (1, 2)}, 2),
    "eva02_tiny_patch14_224": (28, {"embed_dim": 24, "depth": 2, "num_heads": 2}, 2),
    "beit_base_patch16_224": (32, {"embed_dim": 24, "depth": 2, "num_heads": 2}, 2),
    "vit_small_patch16_dinov3": (32, {"embed_dim": 24, "depth": 2, "num_heads": 2, "dynamic_img_size": False}, 2),
}


@with_timm
@pytest.mark.parametrize("name", SMALL_ONES)
def test_stochastic_depth_and_constants_of_attention_are_no_obstacle(name: str) -> None:
    side, settings, depth = SMALL_ONES[name]
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = timm.create_model(name, num_classes=0, img_size=side, drop_path_rate=0.3, **settings)
    x = torch.randn(2, 3, side, side)
    for blocks in ("auto", stage_groups(model)):
        net = cut(model, blocks, image_shape=(3, side, side), classifier=None)
        assert net.depth >= depth
        assert "drop_path" in net.remark
        with torch.no_grad():
            torch.testing.assert_close(features(net, x), model.eval()(x), rtol=1e-3, atol=1e-4)


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
    [(HardSharing(), None), (HardSharing(train_shared=False), 2)],
    ids=["hps", "change"],
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
    assert "Dropout within ImageEncoder is off (embeddings.layer.dropout.p" in (
        from_transformers(encoder("ViT", hidden_dropout_prob=0.1)).remark
    )
