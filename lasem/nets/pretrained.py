"""Encoders of Hugging Face transformers as networks (optional extra of that name).

Docs/networks.md lists the models that were tried. Code that comes with a model is never run, and weights are read from
safetensors only.
"""

import copy
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from lasem.data import Tokenizer, Vocabulary
from lasem.data.decode import Interpolation
from lasem.errors import ConfigError, LasemError, StorageError, nearest
from lasem.nets.backbone import first_line, from_hub, optional
from lasem.nets.block import Preprocessing
from lasem.nets.cut_net import CutNet, cut
from lasem.nets.encoders import ImageEncoder, Parts, Pooling, TextEncoder, dropout_rates
from lasem.nets.tracing import MOST_STAGES, Groups, in_groups, merged
from lasem.settings import from_plain

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
_MOST_LENGTH = 512
"""Tokens of the longest text where nothing else is said."""
_SLACK = 2**24


def from_transformers(
    model: Any,
    *,
    groups: Groups | None = None,
    layers_per_block: int = 1,
    pooling: Pooling | None = None,
    pretrained: bool | None = None,
    weights: str | Path | None = None,
    rank: int | None = None,
    hidden: Sequence[int] = (),
    dropout: float = 0.0,
    length: int | None = None,
    **options: Any,
) -> CutNet:
    """Cut the encoder of a transformers model for images or texts: its embeddings are one block, its layers the others.

    A saved learner holds all of a model that was named: its configuration, its tensors once for all tasks, and its
    tokenizer. Its own dropout is switched off. A model that was passed as an object is passed again:
    ``Learner.load(directory, net=...)``, and its texts come from ``Task.from_tokens``.

    The answer for a text depends neither on the padding after it nor on the other texts of a batch; every text is one
    segment (token type 0).

    Args:
        model: a folder with ``config.json``, ``model.safetensors`` and, for texts, ``tokenizer.json``; or a name on the
            Hugging Face hub. Or an object, for instance ``BertForSequenceClassification(config)``; it is copied, and
            its own dropout must be off: ``from_pretrained(name, hidden_dropout_prob=0, ...)``.
        groups: ``"blocks"``: each layer of attention is a block; ``"stages"``: they are put together so that there are
            at most eight with the embeddings; or the number of layers in each block. None: stages of a model that is
            named, and of an object ``layers_per_block``.
        layers_per_block: layers of an object that are transferred together; the last block may have fewer.
        pooling: the head's input: the ``first`` token, or the ``mean`` of all that are no padding; None: what the
            folder says (``1_Pooling``); else the first where a model for images has a class token, and the mean.
        pretrained: whether the model's weights are the first shared knowledge, see ``cut``; of a name True downloads
            them, and None takes the copy that the library keeps on this machine.
        weights: a safetensors file with the weights, where the folder has only ``config.json``.
        rank, hidden, dropout: see ``cut``.
        length: tokens of the longest text, for a model of texts; longer ones are cut. None: what the model is made for,
            at most 512; an object needs it.
        options: settings of the model's configuration, such as ``num_hidden_layers=3``; not of an object.

    Raises:
        ConfigError: if transformers is not installed, a file is not there, or the model is no such encoder.
    """
    with _transformers() as library:
        known_class = library.PreTrainedModel
    known = pretrained is not False
    settings: dict[str, Any] = {"rank": rank, "hidden": hidden, "dropout": dropout, "pretrained": known}
    if isinstance(model, str | Path):
        found = _named(str(model), pretrained, weights, options)
        groups, pooling = groups or "stages", pooling or found.pooling
        net = _cut(found.base, groups, pooling, length or found.length, settings, found.tokenizer)
        source = {
            **net.source,
            "kind": "transformers",
            "config": json.loads(found.base.config.to_json_string()),
            "groups": groups if isinstance(groups, str) else list(groups),
            "pooling": pooling,
            "rank": rank,
        }
        limit = ""
        if net.vocabulary is not None and found.tokenizer is not None:
            plain = {key: value for key, value in vars(net.vocabulary).items() if key != "tokenizer"}
            source["texts"] = {**source["texts"], "vocabulary": plain, "tokenizers": found.tokenizer.version}
            limit = f", texts of at most {net.image_shape[2]} tokens"
        if known:
            source["origin"] = f"{Path(model).name} of transformers{limit}{found.dropout}"
        return net.built_from(source, net.vocabulary, found.preprocessing)
    if not isinstance(model, known_class):
        raise ConfigError(f"Expected a model of transformers; got {type(model).__name__}. Use cut for other modules.")
    if layers_per_block < 1:
        raise ConfigError(f"layers_per_block must be at least 1; got {layers_per_block}.")
    base: Any = copy.deepcopy(model.base_model)
    return _cut(base, groups or layers_per_block, pooling, length, settings)


def stored_transformers(description: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> CutNet:
    """Build the network of ``from_transformers`` that a saved model describes; arguments as of ``stored_timm``."""
    known, head = description["pretrained"] is not None, description["head"]
    with _transformers() as library:
        config = library.AutoConfig.for_model(**description["config"])
        with torch.device("meta"):  # a stranger's file may describe what no memory holds
            size = sum(p.numel() for p in library.AutoModel.from_config(config).parameters())
        if known and size > 2 * sum(t.numel() for t in tensors.values()) + _SLACK:
            raise StorageError(f"Expected the tensors of {size:,} weights; the model holds far fewer. It is damaged.")
        with torch.random.fork_rng(devices=[]):
            base = library.AutoModel.from_config(config)
    texts = description.get("texts")
    tokenizer = Tokenizer.from_tensors(tensors, str(texts["tokenizers"])) if texts else None
    settings = {"rank": description["rank"], "hidden": head["hidden"], "dropout": head["dropout"], "pretrained": known}
    length = int(description["image_shape"][2]) if texts else None
    net = _cut(base, description["groups"], description["pooling"], length, settings, tokenizer, tensors)
    kept = ("kind", "config", "groups", "pooling", "rank", "texts", "origin")
    source = {**net.source, **{key: description[key] for key in kept if key in description}}
    preprocessing = description.get("preprocessing")
    expected = None if preprocessing is None else from_plain(Preprocessing, preprocessing, "preprocessing")
    return net.built_from(source, net.vocabulary, expected)


def as_in_transformers(description: Mapping[str, Any]) -> tuple[nn.Module, Callable[[str], str], Pooling]:
    """Return the model that a network is cut from, without memory; the name there of a tensor's name; and the pooling.

    Arguments and errors as of ``stored_transformers``.
    """
    with _transformers() as library, torch.device("meta"):
        base: nn.Module = library.AutoModel.from_config(library.AutoConfig.for_model(**description["config"]))
    layer_paths, before, after = _PATHS[str(base.main_input_name)]
    modules = dict(base.named_modules(remove_duplicate=False))
    layers = next(path for path in layer_paths if isinstance(modules.get(path), nn.ModuleList))
    first, last = (next((path for path in paths if path in modules), "") for paths in (before, after))
    names = {
        r"layers\.(\d+)\.layer\.": rf"{layers}.\1.",
        r"(?:embeddings\.)?before\.": f"{first}.",
        r"embeddings\.(?:embeddings|layer)\.": "embeddings.",
        r"norm\.": f"{last}.",
    }

    def name_of(name: str) -> str:
        return next(re.sub(f"^{old}", new, name) for old, new in names.items() if re.match(old, name))

    return base, name_of, description["pooling"] or _usual_pooling(base)


def _usual_pooling(base: Any) -> Pooling:
    inside = [path.rpartition(".")[2] for path, _ in base.embeddings.named_parameters()]
    return "first" if "cls_token" in inside or "class_embedding" in inside else "mean"


def _cut(
    base: Any,
    groups: Groups | int,
    pooling: Pooling | None,
    length: int | None,
    settings: Mapping[str, Any],
    tokenizer: Tokenizer | None = None,
    tensors: Mapping[str, Tensor] | None = None,
) -> CutNet:
    """Cut a model, which is not copied, and whose tensors are replaced if there are others."""
    name, base = type(base).__name__, base.float().cpu()
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
    of_texts = base.main_input_name == "input_ids"
    if of_texts != (length is not None):
        raise ConfigError(
            f"{name} is a model for texts: give length=..., the tokens of the longest text, as in Task.from_tokens."
            if length is None
            else f"length is for models of texts; {name} takes images. Leave it out."
        )
    if isinstance(groups, int):
        num = len(parts.layers)
        groups = [min(groups, num - first) for first in range(0, num, groups)]
    if length is None:
        side = base.config.image_size
        height, width = (side, side) if isinstance(side, int) else side
        image_shape = (int(base.config.num_channels), int(height), int(width))
        images = ImageEncoder(base, parts, pooling or _usual_pooling(base), image_shape)
        _load(images, tensors)
        return cut(images, _blocks(images, groups), image_shape=image_shape, classifier=None, **settings)
    texts = TextEncoder(base, parts, pooling or _usual_pooling(base), length)
    _load(texts, tensors)
    shape, blocks = (1, 1, length), _blocks(texts, groups)
    net = cut(texts, blocks, image_shape=shape, classifier=None, example=texts.example, **settings)
    source: dict[str, Any] = {"kind": "cut", "texts": {"pooling": texts.pooling, "padding_id": texts.padding_id}}
    # a padding id with another meaning, too, says nothing of a text's end
    others = [getattr(base.config, f"{kind}_token_id", None) for kind in ("bos", "eos", "sep", "cls")]
    padding_id = None if texts.padding_id in others else texts.padding_id
    vocabulary = Vocabulary(int(base.config.vocab_size), padding_id, any_length=texts.any_length)
    return net.built_from(source, vocabulary if tokenizer is None else replace(vocabulary, tokenizer=lambda: tokenizer))


class _Named(NamedTuple):
    """What is found under a name, or in a folder."""

    base: Any
    tokenizer: Tokenizer | None
    length: int | None
    pooling: Pooling | None
    preprocessing: Preprocessing | None
    dropout: str
    """What was done about it, in words."""


def _named(name: str, pretrained: bool | None, weights: str | Path | None, options: Mapping[str, Any]) -> _Named:
    folder = Path(name).expanduser()
    if not folder.is_dir() and (name.count("/") > 1 or name.startswith((".", "~", "/")) or folder.exists()):
        raise ConfigError(f"Expected a folder with config.json and model.safetensors at {name}; there is none.")
    place = str(folder) if folder.is_dir() else name
    downloads = pretrained is True and not folder.is_dir()
    where: dict[str, Any] = {"local_files_only": not downloads, "trust_remote_code": False}
    hub, said = from_hub() if downloads else nullcontext(), name if weights is None else f"{name}, weights in {weights}"
    with _transformers(shows=downloads) as library, hub, _explained(said, folder.is_dir(), downloads):
        config = library.AutoConfig.from_pretrained(place, **where)
        rates = dropout_rates(config)
        for key, value in {**dict.fromkeys(rates, 0.0), **options}.items():
            if not hasattr(config, key):
                raise ConfigError(f"{name} has no option {key}.{nearest(key, vars(config))}")
            setattr(config, key, value)
        if pretrained is False or weights is not None:
            with torch.random.fork_rng(devices=[]):
                base = library.AutoModel.from_config(config)
        if pretrained is not False:
            given: dict[str, Any] = {"config": config, "output_loading_info": True}
            if weights is None:
                base, info = library.AutoModel.from_pretrained(place, use_safetensors=True, **given, **where)
            else:
                base, info = type(base).from_pretrained(None, state_dict=load_file(weights), **given)
            missing = [key for key in info["missing_keys"] if not key.startswith("pooler.")]
            if missing:
                raise ValueError(f"{weights or 'model.safetensors'} has no {missing[0]} ({len(missing)} are missing)")
        off = " and ".join(f"{key} = {rate:g}" for key, rate in rates.items())
        dropout = f"; its dropout ({off}) is switched off" if rates else ""
        if base.main_input_name != "input_ids":
            with suppress(OSError):  # there may be none
                known = library.ImageProcessingMixin.get_image_processor_dict(place, **where)[0]
                return _Named(base, None, None, None, _preprocessing(known, config), dropout)
            return _Named(base, None, None, None, None, dropout)
        found = library.AutoTokenizer.from_pretrained(place, **where)
        if not found.is_fast or found.vocab_size <= len(found.all_special_tokens):  # without a file it makes one up
            raise OSError("there is no tokenizer.json")
        tokenizer = Tokenizer(found.backend_tokenizer.to_str(), version("tokenizers"))
    positions = int(getattr(config, "max_position_embeddings", None) or _MOST_LENGTH)
    offset = getattr(getattr(base.embeddings, "position_embeddings", None), "padding_idx", None)
    lengths = [positions if offset is None else positions - offset - 1, found.model_max_length, _MOST_LENGTH]
    pooling: Pooling | None = None
    with suppress(OSError, ValueError, AttributeError):  # what sentence-transformers keeps next to the model
        lengths.append(json.loads((folder / "sentence_bert_config.json").read_text())["max_seq_length"])
        pooled = json.loads((folder / "1_Pooling" / "config.json").read_text())
        pooling = "first" if pooled.get("pooling_mode_cls_token") else None
    return _Named(base, tokenizer, int(min(length for length in lengths if length)), pooling, None, dropout)


def _preprocessing(known: Mapping[str, Any], config: Any) -> Preprocessing | None:
    """How an image processor of transformers treats images, if it standardises them."""
    if not known.get("image_mean") or not known.get("image_std"):
        return None
    shorter = known.get("size", {}).get("shortest_edge") if isinstance(known.get("size"), dict) else None
    crop = config.image_size / shorter if shorter and known.get("do_center_crop") else None
    kinds: dict[Any, Interpolation] = {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic"}
    return Preprocessing(
        side=config.image_size,
        mean=tuple(known["image_mean"]),
        std=tuple(known["image_std"]),
        crop=None if crop is None else min(crop, 1.0),
        interpolation=kinds.get(known.get("resample"), "bilinear"),
    )


@contextmanager
def _transformers(*, shows: bool = False) -> Iterator[Any]:
    """Give the library transformers, which writes nothing of its own; ``shows`` lets it show a download."""
    with optional("transformers", "A model of transformers", "Install it: pip install 'lasem[transformers]'."):
        import transformers
        from transformers.utils import logging as of_library
    logging: Any = of_library
    verbosity, progress = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    if not shows:
        logging.disable_progress_bar()
    try:
        yield transformers
    finally:
        logging.set_verbosity(verbosity)
        if progress:
            logging.enable_progress_bar()


@contextmanager
def _explained(name: str, is_folder: bool, downloads: bool) -> Iterator[None]:
    """Say in one line which file is missing or wrong, and what to do."""
    try:
        yield
    except (OSError, ValueError, RuntimeError, SafetensorError, KeyError) as error:
        if isinstance(error, LasemError):
            raise
        reason = first_line(error)
        files = "config.json, model.safetensors and, for texts, tokenizer.json"
        if is_folder:
            raise ConfigError(
                f"Expected a model of transformers in {name} ({files}); {reason}. Weights of another file: "
                f"--net.weights FILE (weights=...)."
            ) from error
        how = "cannot be downloaded" if downloads else "is not on this machine"
        or_load = "" if downloads else "Download it with --net.pretrained true (pretrained=True), or p"
        raise ConfigError(
            f"The model {name} {how} ({reason}). {or_load or 'P'}ut its files {files} into a folder, and give that: "
            f"hf:FOLDER."
        ) from error


def _load(encoder: nn.Module, tensors: Mapping[str, Tensor] | None) -> None:
    """Replace the tensors of an encoder by those of the same names."""
    if tensors:
        try:
            encoder.load_state_dict(dict(tensors), strict=False)
        except RuntimeError as error:
            raise StorageError(f"Expected the tensors of the network; got others ({error}).") from error


def _blocks(encoder: ImageEncoder | TextEncoder, groups: Groups) -> list[list[str]]:
    """Name the submodules of each block: the embeddings, then some layers each, the normalisation with the last."""
    layers = [[f"layers.{i}"] for i in range(len(encoder.layers))]
    if groups == "stages":
        layers = merged(layers, MOST_STAGES - 1)
    elif groups != "blocks":
        layers = in_groups(layers, groups, f"The model has {len(layers)} layers")
    before, last = (
        [part] if any(True for _ in getattr(encoder, part).parameters()) else [] for part in ("before", "norm")
    )
    return [["embeddings", *before], *layers[:-1], [*layers[-1], *last]]


def _first_of(model: nn.Module, paths: Sequence[str], default: nn.Module) -> nn.Module:
    """Return the first of some submodules that a model has; of lists of layers only one that is an nn.ModuleList."""
    modules = dict(model.named_modules(remove_duplicate=False))
    kind = type(default) if isinstance(default, nn.ModuleList) else nn.Module
    return next((modules[path] for path in paths if isinstance(modules.get(path), kind)), default)
