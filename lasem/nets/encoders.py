"""Encoders of Hugging Face transformers as modules from one tensor to one tensor, so that they can be cut.

In a text, the place of padding travels with the tokens, as one more feature that no layer changes: 1 for a token, 0 for
padding. A layer hides padding from every token; the values at padding itself are never used.
"""

import inspect
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple, final

import torch
from torch import Tensor, nn

from lasem.errors import ConfigError, TrainingError
from lasem.nets.cut_net import agree

Pooling = Literal["first", "mean"]

_MASKS = ("attention_mask", "attn_mask")
_HIDDEN = torch.finfo(torch.bfloat16).min
"""Added to the score of a token that is not seen, so that its share is 0; finite also where scores have fewer bits,
because padding may see nothing, and its values must be numbers."""


class Parts(NamedTuple):
    """The modules of a model between its embeddings and its pooling."""

    layers: Sequence[nn.Module]
    before: nn.Module
    """From the output of ``embeddings`` to the input of the first layer."""
    norm: nn.Module
    """After the last layer."""


class _Encoder(nn.Module):
    """Embeddings, layers, normalisation, one vector for each image or text."""

    def __init__(
        self, embeddings: nn.Module, before: nn.Module, layers: list[nn.Module], norm: nn.Module, pooling: Pooling
    ) -> None:
        super().__init__()
        self.embeddings, self.before, self.layers, self.norm = embeddings, before, nn.ModuleList(layers), norm
        self.pooling = pooling

    def tokens(self, x: Tensor) -> Tensor:
        """Return the tokens after the last layer, not normalised."""
        x = self.before(self.embeddings(x))
        for layer in self.layers:
            x = layer(x)
        return x


@final
class _ImageLayer(nn.Module):
    """A layer of a model, some of which give a tuple with more than the tokens."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer
        further = list(inspect.signature(layer.forward).parameters.values())[1:]
        usual = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
        self.without = {p.name: None for p in further if p.kind in usual and p.default is p.empty}  # masks of tokens

    def forward(self, x: Tensor) -> Tensor:
        out = self.layer(x, **self.without)
        tokens: Tensor = out[0] if isinstance(out, tuple) else out
        return tokens


@final
class ImageEncoder(_Encoder):
    """From images to vectors (batch, width)."""

    def __init__(self, model: Any, parts: Parts, pooling: Pooling, image_shape: tuple[int, int, int]) -> None:
        """Take the parts of a model, uncopied; ConfigError if it does more than these parts one after another."""
        layers: list[nn.Module] = [_ImageLayer(layer) for layer in parts.layers]
        super().__init__(_ImageLayer(model.embeddings), parts.before, layers, parts.norm, pooling)
        x = torch.randn(1, *image_shape, generator=torch.Generator().manual_seed(0))
        with torch.no_grad():
            expected = model.eval()(pixel_values=x).last_hidden_state
            tokens = self.eval().tokens(x)
            if not agree(tokens, expected) and not agree(self.norm(tokens), expected):
                raise ConfigError(_does_more(model))

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(self.tokens(x))
        return x[:, 0] if self.pooling == "first" else x.mean(dim=1)


@final
class _TextEmbeddings(nn.Module):
    """From token ids (batch, 1, 1, length), -1 for padding, to tokens (batch, length, width + 1)."""

    def __init__(self, embeddings: nn.Module, before: nn.Module, padding_id: int) -> None:
        super().__init__()
        self.embeddings, self.before, self.padding_id = embeddings, before, padding_id

    def forward(self, x: Tensor) -> Tensor:
        if x.dtype in (torch.float16, torch.bfloat16):
            raise TrainingError(f"Expected token ids as float32, which holds them exactly; got {x.dtype}.")
        ids = x.flatten(1)
        there = ids >= 0
        tokens = self.before(self.embeddings(torch.where(there, ids, self.padding_id).long()))
        return torch.cat([tokens, there.to(tokens.dtype)[..., None]], dim=-1)


@final
class _TextLayer(nn.Module):
    """From tokens to tokens, (batch, length, width + 1)."""

    def __init__(self, layer: nn.Module, inputs: dict[str, Any]) -> None:
        """Take a layer, and the inputs besides tokens that are the same for every text, such as position tables."""
        super().__init__()
        self.layer = layer
        self.mask = next((name for name in _MASKS if name in inspect.signature(layer.forward).parameters), _MASKS[0])
        self.window: Tensor | None
        hidden = inputs.pop(self.mask, None)  # of a text without padding: 0 or True where a token is seen
        seen = hidden if hidden is None or hidden.dtype == torch.bool else hidden == 0
        limited = seen is not None and seen.ndim == 4 and not bool(seen.all())
        self.register_buffer("window", seen if limited else None, persistent=False)
        self.fixed = {name: value for name, value in inputs.items() if not _tensors(value)}
        self.tables: dict[str, list[str] | str] = {}
        for name, value in inputs.items():
            places = [f"{name}_{i}" for i in range(len(_tensors(value)))]
            for place, tensor in zip(places, _tensors(value), strict=True):
                self.register_buffer(place, tensor.detach().clone(), persistent=False)
            if places:
                self.tables[name] = places[0] if isinstance(value, Tensor) else places

    def forward(self, x: Tensor) -> Tensor:
        there = x[..., -1:].detach()
        seen = there.mT[:, None] > 0  # (batch, 1, 1, length): by every token
        if self.window is not None:
            seen = seen & self.window
        hidden = torch.zeros_like(seen, dtype=x.dtype).masked_fill(~seen, _HIDDEN)
        tables = {
            name: getattr(self, places) if isinstance(places, str) else tuple(getattr(self, place) for place in places)
            for name, places in self.tables.items()
        }
        out = self.layer(x[..., :-1], **{self.mask: hidden}, **self.fixed, **tables)
        tokens: Tensor = out[0] if isinstance(out, tuple) else out
        return torch.cat([tokens, there.to(tokens.dtype)], dim=-1)


@final
class TextEncoder(_Encoder):
    """From token ids (batch, 1, 1, length), -1 after each text's end, to vectors (batch, width) without padding."""

    def __init__(self, model: Any, parts: Parts, pooling: Pooling, length: int) -> None:
        """Take the parts of a model, uncopied; ConfigError if it cannot take texts of such a length, with padding."""
        rates = dropout_rates(model.config)
        if any(isinstance(module, nn.Dropout) and module.p > 0 for module in model.modules()):
            raise ConfigError(
                f"{type(model).__name__} draws random numbers in training "
                f"({', '.join(f'{name} = {rate}' for name, rate in rates.items())}); blocks must be functions of "
                f"weights and inputs. Make it without: from_pretrained(..., "
                f"{', '.join(f'{name}=0' for name in rates)}). The head has from_transformers' dropout=..."
            )
        padding = model.config.pad_token_id
        padding_id = padding if isinstance(padding, int) and padding >= 0 else None
        num_words = int(model.config.vocab_size)
        ids = torch.arange(2 * length).remainder(max(1, num_words - 1)).view(2, 1, 1, length)
        if padding_id is not None:
            ids = ids + (ids >= padding_id)  # any id but that
        texts = ids.clamp(max=num_words - 1).float()
        texts[1, ..., (length + 1) // 2 :] = -1  # the second text has padding after it if there is room
        inputs, expected = _observed(model, parts.layers, texts)
        layers: list[nn.Module] = [_TextLayer(layer, of) for layer, of in zip(parts.layers, inputs, strict=True)]
        embeddings = _TextEmbeddings(model.embeddings, parts.before, padding_id or 0)
        super().__init__(embeddings, nn.Identity(), layers, parts.norm, pooling)
        self.padding_id, self.example = padding_id, texts
        self.any_length = self._takes_any_length(texts[1:])
        try:
            with torch.no_grad():
                found = self.norm(self.eval().tokens(texts)[..., :-1])[texts.flatten(1) >= 0]
        except Exception as error:  # a layer needs further inputs
            raise ConfigError(_does_more(model, padding=True)) from error
        if not agree(found, expected):
            raise ConfigError(_does_more(model, padding=True))

    @torch.no_grad()
    def _takes_any_length(self, text: Tensor) -> bool:
        """Return whether a text has the same tokens without the padding after it: no layer has tables of a length."""
        there = text[..., text.flatten() >= 0]
        try:
            return agree(self.eval().tokens(there), self.tokens(text)[:, : there.shape[-1]])
        except Exception:  # whatever such a layer raises
            return False

    def forward(self, x: Tensor) -> Tensor:
        x = self.tokens(x)
        tokens: Tensor = self.norm(x[..., :-1])
        there = x[..., -1:].detach()
        return tokens[:, 0] if self.pooling == "first" else (tokens * there).sum(dim=1) / there.sum(dim=1)


def dropout_rates(config: Any) -> dict[str, float]:
    """Return the settings of a model's configuration that make it drop values in training, by name."""
    rates = {key: rate for key, rate in vars(config).items() if "drop" in key and isinstance(rate, float)}
    return {name: rate for name, rate in rates.items() if rate > 0 and "classif" not in name}


def _observed(model: Any, layers: Sequence[nn.Module], texts: Tensor) -> tuple[list[dict[str, Any]], Tensor]:
    """Return each layer's inputs besides tokens, and the model's tokens of each text alone, without padding."""
    inputs: list[dict[str, Any]] = []

    def see(layer: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        tokens, *names = inspect.signature(layer.forward).parameters
        found = {**dict(zip(names, args[1:], strict=False)), **kwargs}
        inputs.append({key: value for key, value in found.items() if key != tokens and value is not None})

    first, second = (row[row >= 0].long()[None] for row in texts.flatten(1))
    handles = [layer.register_forward_pre_hook(see, with_kwargs=True) for layer in layers]
    answers: list[Tensor] = []
    try:
        with torch.enable_grad():  # inputs that come from weights that are learned require gradients
            answers.append(model.eval()(input_ids=first, attention_mask=torch.ones_like(first)).last_hidden_state[0])
        for handle in handles:
            handle.remove()
        answers.append(model(input_ids=second, attention_mask=torch.ones_like(second)).last_hidden_state[0])
    except Exception as error:  # anything that the model's own code raises
        most = getattr(model.config, "max_position_embeddings", None)
        raise ConfigError(
            f"{type(model).__name__} cannot take texts of {texts.shape[-1]} tokens: {error}. Give a smaller length"
            f"{f'; its configuration has max_position_embeddings = {most}' if most else ''}."
        ) from error
    learned = any(value.requires_grad for of in inputs for some in of.values() for value in _tensors(some))
    if len(inputs) != len(layers) or learned:  # layers run twice, or use weights that they share
        raise ConfigError(_does_more(model, padding=True))
    return inputs, torch.cat(answers).detach()


def _tensors(value: Any) -> list[Tensor]:
    parts = value if isinstance(value, tuple | list) else (value,)
    return list(parts) if all(isinstance(part, Tensor) for part in parts) else []


def _does_more(model: Any, *, padding: bool = False) -> str:
    return (
        f"{type(model).__name__} does more than its embeddings and layers one after another"
        f"{', or its answer depends on padding' if padding else ''}. Wrap it in a module of your own and cut that."
    )
