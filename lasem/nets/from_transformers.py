"""Encoders of Hugging Face transformers, for images and for texts, as networks (optional extra ``transformers``).

Tried with transformers 5.23 and torch 2.13 on a CPU, with small configurations and random weights. Images: ViT, DeiT,
DINOv2, BEiT, the image halves of CLIP and SigLIP. Texts: BERT, DistilBERT, RoBERTa, XLM-RoBERTa, CamemBERT, ELECTRA,
ERNIE, MegatronBERT, Data2Vec, RemBERT, RoFormer, BigBird, MobileBERT, Splinter, ModernBERT, NomicBERT, Jina, GTE.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Sequence
from typing import Any, Literal, final

import torch
from torch import Tensor, nn

from lasem.data import Vocabulary
from lasem.errors import ConfigError
from lasem.nets.cut_net import CutNet, cut
from lasem.nets.text_encoder import TextEncoder

_LAYERS = ("layers", "encoder.layers", "encoder.layer")
_TEXT_LAYERS = (*_LAYERS, "transformer.layer")
_BEFORE = ("pre_layrnorm", "pre_layernorm")
_AFTER = ("layernorm", "post_layernorm", "norm")
_TEXT_BEFORE = ("embeddings_project", "encoder.embedding_hidden_mapping_in")
_TEXT_AFTER = ("LayerNorm", "final_norm", "encoder.ln", "encoder.LayerNorm")
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
        self.embeddings = _Layer(model.get_submodule("embeddings"))
        self.before = _first_of(model, _BEFORE)
        self.layers = nn.ModuleList(_Layer(layer) for layer in _layers_of(model, _LAYERS))
        self.norm = _first_of(model, _AFTER)
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
    rank: int | None = None,
    hidden: Sequence[int] = (),
    dropout: float = 0.0,
    length: int | None = None,
) -> CutNet:
    """The encoder of a transformers model for images or texts: its embeddings are one block, its layers the others.

    A learner that was saved with it is loaded with ``Learner.load(directory, net=...)``. Texts come from
    ``Task.from_tokens`` and ``lasem.data.as_tokens``. What is answered for a text depends neither on the padding behind
    it nor on the other texts of a batch; every text is one segment (token type 0).

    Args:
        model: for instance ``ViTModel.from_pretrained(...)`` or ``BertForSequenceClassification(config)``; it is
            copied. Its own dropout must be off: ``from_pretrained(name, hidden_dropout_prob=0, ...)``.
        layers_per_block: layers of attention that are transferred together; the last block may have fewer.
        pooling: what the head sees: the ``first`` token, or the ``mean`` of all that are no padding; None: the first
            where a model for images has a class token, else the mean.
        pretrained: see ``cut``.
        rank: see ``cut``.
        hidden: see ``cut``.
        dropout: see ``cut``.
        length: tokens of the longest text, for a model of texts; as in ``Task.from_tokens``.

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
    base, name = model.base_model, type(model).__name__
    kinds = {"pixel_values": _LAYERS, "input_ids": _TEXT_LAYERS}
    if base.main_input_name not in kinds:
        raise ConfigError(f"Expected a model for images or for texts; {name} takes {base.main_input_name}.")
    of_texts = base.main_input_name == "input_ids"
    if _part(base, "embeddings") is None or not _layers_of(base, kinds[base.main_input_name]):
        raise ConfigError(
            f"{name} has no embeddings with a list of layers behind them (it has: "
            f"{', '.join(path for path, _ in base.named_children())}). Wrap it in a module of your own and cut that."
        )
    if of_texts != (length is not None):
        raise ConfigError(
            f"{name} is a model for texts: give length=..., the tokens of the longest text, as in Task.from_tokens."
            if of_texts
            else f"length is for models of texts; {name} takes images. Leave it out."
        )
    settings: dict[str, Any] = {
        "pretrained": pretrained,
        "rank": rank,
        "classifier": None,
        "hidden": hidden,
        "dropout": dropout,
    }
    if length is not None:
        texts = _of_texts(base, pooling or "mean", length)
        source = {"kind": "cut", "texts": {"pooling": texts.pooling, "padding_id": texts.padding_id}}
        shape, blocks = (1, 1, length), _blocks(texts, layers_per_block, ["embeddings"])
        net = cut(texts, blocks, image_shape=shape, example=texts.example(length), **settings)
        return net.built_from(source, _vocabulary(base, texts))
    if pooling is None:
        inside = [path.rpartition(".")[2] for path, _ in base.get_submodule("embeddings").named_parameters()]
        pooling = "first" if any(token in inside for token in _CLASS_TOKENS) else "mean"
    encoder = _Encoder(copy.deepcopy(base).float().cpu(), pooling)
    side = base.config.image_size
    height, width = (side, side) if isinstance(side, int) else side
    image_shape = (int(base.config.num_channels), int(height), int(width))
    _check_same(name, base, encoder, image_shape)
    first = ["embeddings", *(["before"] if any(True for _ in encoder.before.parameters()) else [])]
    return cut(encoder, _blocks(encoder, layers_per_block, first), image_shape=image_shape, **settings)


def _blocks(encoder: _Encoder | TextEncoder, layers_per_block: int, first: list[str]) -> list[list[str]]:
    """Names of submodules: the first block's, then some layers' for each, the normalisation with the last of them."""
    layers = [f"layers.{i}" for i in range(len(encoder.layers))]
    groups = [layers[i : i + layers_per_block] for i in range(0, len(layers), layers_per_block)]
    last = ["norm"] if any(True for _ in encoder.norm.parameters()) else []
    return [first, *groups[:-1], [*groups[-1], *last]]


def _of_texts(base: Any, pooling: Literal["first", "mean"], length: int) -> TextEncoder:
    model = copy.deepcopy(base).float().cpu()
    return TextEncoder(
        model,
        _layers_of(model, _TEXT_LAYERS),
        _first_of(model, _TEXT_BEFORE),
        _first_of(model, _TEXT_AFTER),
        length=length,
        pooling=pooling,
    )


def _vocabulary(base: Any, texts: TextEncoder) -> Vocabulary:
    """What ids a model knows. One that it pads with, but gives another meaning too, says nothing of a text's end."""
    others = [getattr(base.config, f"{kind}_token_id", None) for kind in ("bos", "eos", "sep", "cls")]
    return Vocabulary(texts.vocabulary_size, None if texts.padding_id in others else texts.padding_id)


def _layers_of(model: nn.Module, paths: Sequence[str]) -> list[nn.Module]:
    """A model's layers; none if it has no such list."""
    lists = (found for path in paths if isinstance(found := _part(model, path), nn.ModuleList))
    return list(next(lists, ()))


def _first_of(model: nn.Module, paths: Sequence[str]) -> nn.Module:
    """The first of some submodules that a model has; Identity if it has none."""
    return next((found for path in paths if (found := _part(model, path)) is not None), nn.Identity())


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
