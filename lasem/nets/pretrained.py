"""Encoders of Hugging Face transformers as networks (optional extra of that name).

They were tried at version 5.23 with torch 2.13 on a CPU, with small configurations and random weights; docs/networks.md
lists the models.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

from torch import nn

from lasem.data import Vocabulary
from lasem.errors import ConfigError
from lasem.nets.backbone import optional
from lasem.nets.cut_net import CutNet, cut
from lasem.nets.encoders import ImageEncoder, Parts, Pooling, TextEncoder

_LAYERS = ("layers", "encoder.layers", "encoder.layer")
_PATHS = {
    "pixel_values": (_LAYERS, ("pre_layrnorm", "pre_layernorm"), ("layernorm", "post_layernorm", "norm")),
    "input_ids": (
        (*_LAYERS, "transformer.layer"),
        ("embeddings_project", "encoder.embedding_hidden_mapping_in"),
        ("LayerNorm", "final_norm", "encoder.ln", "encoder.LayerNorm"),
    ),
}
"""Names of ``Parts`` in models of images and of texts, of which a model has one or none."""


def from_transformers(
    model: Any,
    *,
    layers_per_block: int = 1,
    pooling: Pooling | None = None,
    pretrained: bool = True,
    rank: int | None = None,
    hidden: Sequence[int] = (),
    dropout: float = 0.0,
    length: int | None = None,
) -> CutNet:
    """Cut the encoder of a transformers model for images or texts: its embeddings are one block, its layers the others.

    A learner that was saved with it is loaded with ``Learner.load(directory, net=...)``. Texts come from
    ``Task.from_tokens`` and ``lasem.data.as_tokens``. The answer for a text depends neither on the padding after it nor
    on the other texts of a batch; every text is one segment (token type 0).

    Args:
        model: for instance ``ViTModel.from_pretrained(...)`` or ``BertForSequenceClassification(config)``; it is
            copied. Its own dropout must be off: ``from_pretrained(name, hidden_dropout_prob=0, ...)``.
        layers_per_block: layers of attention that are transferred together; the last block may have fewer.
        pooling: the head's input: the ``first`` token, or the ``mean`` of all that are no padding; None: the first
            where a model for images has a class token, else the mean.
        pretrained, rank, hidden, dropout: see ``cut``.
        length: tokens of the longest text, for a model of texts; as in ``Task.from_tokens``.

    Raises:
        ConfigError: if transformers is not installed, or the model is no such encoder.
    """
    with optional("transformers", "from_transformers", "Install it: pip install 'lasem[transformers]'."):
        from transformers import PreTrainedModel
    if not isinstance(model, PreTrainedModel):
        raise ConfigError(f"Expected a model of transformers; got {type(model).__name__}. Use cut for other modules.")
    if layers_per_block < 1:
        raise ConfigError(f"layers_per_block must be at least 1; got {layers_per_block}.")
    name = type(model).__name__
    base: Any = copy.deepcopy(model.base_model).float().cpu()
    if base.main_input_name not in _PATHS:
        raise ConfigError(f"Expected a model for images or for texts; {name} takes {base.main_input_name}.")
    layer_paths, before, after = _PATHS[base.main_input_name]
    parts = Parts(
        list(_first_of(base, layer_paths, nn.ModuleList()).children()),
        _first_of(base, before, nn.Identity()),
        _first_of(base, after, nn.Identity()),
    )
    if not hasattr(base, "embeddings") or not parts.layers:
        raise ConfigError(
            f"{name} has no embeddings with a list of layers after them (it has: "
            f"{', '.join(path for path, _ in base.named_children())}). Wrap it in a module of your own and cut that."
        )
    if (base.main_input_name == "input_ids") != (length is not None):
        raise ConfigError(
            f"{name} is a model for texts: give length=..., the tokens of the longest text, as in Task.from_tokens."
            if length is None
            else f"length is for models of texts; {name} takes images. Leave it out."
        )
    settings: dict[str, Any] = {"pretrained": pretrained, "rank": rank, "hidden": hidden, "dropout": dropout}
    if length is not None:
        texts = TextEncoder(base, parts, pooling or "mean", length)
        shape, blocks = (1, 1, length), _blocks(texts, layers_per_block)
        net = cut(texts, blocks, image_shape=shape, classifier=None, example=texts.example, **settings)
        source = {"kind": "cut", "texts": {"pooling": texts.pooling, "padding_id": texts.padding_id}}
        # a padding id with another meaning, too, says nothing of a text's end
        others = [getattr(base.config, f"{kind}_token_id", None) for kind in ("bos", "eos", "sep", "cls")]
        padding_id = None if texts.padding_id in others else texts.padding_id
        return net.built_from(source, Vocabulary(int(base.config.vocab_size), padding_id, any_length=texts.any_length))
    if pooling is None:
        inside = [path.rpartition(".")[2] for path, _ in base.embeddings.named_parameters()]
        pooling = "first" if "cls_token" in inside or "class_embedding" in inside else "mean"
    side = base.config.image_size
    height, width = (side, side) if isinstance(side, int) else side
    image_shape = (int(base.config.num_channels), int(height), int(width))
    images = ImageEncoder(base, parts, pooling, image_shape)
    return cut(images, _blocks(images, layers_per_block), image_shape=image_shape, classifier=None, **settings)


def _blocks(encoder: ImageEncoder | TextEncoder, layers_per_block: int) -> list[list[str]]:
    """Name the submodules of each block: the embeddings, then some layers each, the normalisation with the last."""
    layers = [f"layers.{i}" for i in range(len(encoder.layers))]
    groups = [layers[i : i + layers_per_block] for i in range(0, len(layers), layers_per_block)]
    before, last = (
        [part] if any(True for _ in getattr(encoder, part).parameters()) else [] for part in ("before", "norm")
    )
    return [["embeddings", *before], *groups[:-1], [*groups[-1], *last]]


def _first_of(model: nn.Module, paths: Sequence[str], default: nn.Module) -> nn.Module:
    """Return the first of some submodules that a model has; of lists of layers only one that is an nn.ModuleList."""
    modules = dict(model.named_modules(remove_duplicate=False))
    kind = type(default) if isinstance(default, nn.ModuleList) else nn.Module
    return next((modules[path] for path in paths if isinstance(modules.get(path), kind)), default)
