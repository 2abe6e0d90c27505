"""Image encoders of Hugging Face transformers as networks (optional extra ``transformers``).

Tried with transformers 5.23 and torch 2.13 on a CPU, with small configurations and random weights: ViT, DeiT, DINOv2,
BEiT, the image halves of CLIP and SigLIP. Text models are not taken: tasks hold images only.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Sequence
from typing import Any, Literal, final

import torch
from torch import Tensor, nn

from lasem.errors import ConfigError
from lasem.nets.cut_net import CutNet, cut

_LAYERS = ("layers", "encoder.layers", "encoder.layer")
_BEFORE = ("pre_layrnorm", "pre_layernorm")
_AFTER = ("layernorm", "post_layernorm", "norm")
_CLASS_TOKENS = ("cls_token", "class_embedding")


@final
class _Layer(nn.Module):
    """A layer of a model, some of which give a tuple with more than the tokens."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer
        further = list(inspect.signature(layer.forward).parameters.values())[1:]
        usual = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
        self.without = {p.name: None for p in further if p.kind in usual and p.default is p.empty}  # masks of tokens

    def forward(self, x: Tensor) -> Tensor:
        """From tokens to tokens, (batch, tokens, width); the first layer takes images."""
        out = self.layer(x, **self.without)
        tokens: Tensor = out[0] if isinstance(out, tuple) else out
        return tokens


@final
class _Encoder(nn.Module):
    """Embeddings, layers, normalisation, one vector for each image."""

    def __init__(self, model: nn.Module, pooling: Literal["first", "mean"]) -> None:
        super().__init__()
        layers = next(found for path in _LAYERS if isinstance(found := _part(model, path), nn.ModuleList))
        self.embeddings = _Layer(model.get_submodule("embeddings"))
        self.before = next((found for path in _BEFORE if (found := _part(model, path)) is not None), nn.Identity())
        self.layers = nn.ModuleList(_Layer(layer) for layer in layers)
        self.norm = next((found for path in _AFTER if (found := _part(model, path)) is not None), nn.Identity())
        self.pooling = pooling

    def tokens(self, x: Tensor) -> Tensor:
        """What the last layer gives, not normalised."""
        x = self.before(self.embeddings(x))
        for layer in self.layers:
            x = layer(x)
        return x

    def forward(self, x: Tensor) -> Tensor:
        """(batch, width) for images."""
        x = self.norm(self.tokens(x))
        return x[:, 0] if self.pooling == "first" else x.mean(dim=1)


def from_transformers(
    model: Any,
    *,
    layers_per_block: int = 1,
    pooling: Literal["first", "mean"] | None = None,
    pretrained: bool = True,
    hidden: Sequence[int] = (),
    dropout: float = 0.0,
) -> CutNet:
    """The encoder of a transformers model for images: its embeddings are one block, its layers the others.

    A learner that was saved with it is loaded with ``Learner.load(directory, net=...)``.

    Args:
        model: for instance ``ViTModel.from_pretrained(...)`` or ``ViTForImageClassification(config)``; it is copied.
        layers_per_block: layers of attention that are transferred together; the last block may have fewer.
        pooling: what the head sees: the ``first`` token, or the ``mean`` of all; None: the first where the model has a
            class token, else the mean.
        pretrained: see ``cut``.
        hidden: see ``cut``.
        dropout: see ``cut``.

    Raises:
        ConfigError: if transformers is not installed, or the model is no such encoder.
    """
    try:
        from transformers import PreTrainedModel
    except (ImportError, RuntimeError) as error:
        raise ConfigError(
            f"from_transformers needs the package transformers, which does not import here ({error}). Install it: pip "
            f"install 'lasem[transformers]'."
        ) from error
    if not isinstance(model, PreTrainedModel):
        raise ConfigError(f"Expected a model of transformers; got {type(model).__name__}. Use cut for other modules.")
    if layers_per_block < 1:
        raise ConfigError(f"layers_per_block must be at least 1; got {layers_per_block}.")
    base = model.base_model
    name, config = type(model).__name__, base.config
    if base.main_input_name != "pixel_values":
        raise ConfigError(f"Expected a model for images; {name} takes {base.main_input_name}. Tasks hold images only.")
    parts = [path for path in _LAYERS if isinstance(_part(base, path), nn.ModuleList)]
    if _part(base, "embeddings") is None or not parts:
        raise ConfigError(
            f"{name} has no embeddings with a list of layers behind them (it has: "
            f"{', '.join(path for path, _ in base.named_children())}). Wrap it in a module of your own and cut that."
        )
    if pooling is None:
        inside = [path.rpartition(".")[2] for path, _ in base.get_submodule("embeddings").named_parameters()]
        pooling = "first" if any(token in inside for token in _CLASS_TOKENS) else "mean"
    encoder = _Encoder(copy.deepcopy(base).float().cpu(), pooling)
    side = config.image_size
    height, width = (side, side) if isinstance(side, int) else side
    image_shape = (int(config.num_channels), int(height), int(width))
    _check_same(name, base, encoder, image_shape)
    layers = [f"layers.{i}" for i in range(len(encoder.layers))]
    groups = [layers[i : i + layers_per_block] for i in range(0, len(layers), layers_per_block)]
    first = ["embeddings", *(["before"] if any(True for _ in encoder.before.parameters()) else [])]
    last = ["norm"] if any(True for _ in encoder.norm.parameters()) else []
    blocks = [first, *groups[:-1], [*groups[-1], *last]]
    return cut(
        encoder,
        blocks,
        image_shape=image_shape,
        pretrained=pretrained,
        classifier=None,
        hidden=hidden,
        dropout=dropout,
    )


def _part(model: nn.Module, path: str) -> nn.Module | None:
    try:
        return model.get_submodule(path)
    except AttributeError:
        return None


@torch.no_grad()
def _check_same(name: str, base: Any, encoder: _Encoder, image_shape: tuple[int, int, int]) -> None:
    """Raise ConfigError if the model does anything else than its embeddings and layers one after another."""
    x = torch.randn(1, *image_shape, generator=torch.Generator().manual_seed(0))
    model = copy.deepcopy(base).float().cpu().eval()
    expected = model(pixel_values=x).last_hidden_state
    tokens = encoder.eval().tokens(x)
    for found in (tokens, encoder.norm(tokens)):
        if found.shape == expected.shape and torch.allclose(found, expected, rtol=1e-3, atol=1e-4):
            return
    raise ConfigError(
        f"{name} does more than its embeddings and layers one after another. Wrap it in a module of your own and cut "
        f"that."
    )
