"""Text encoders of Hugging Face transformers as modules from one tensor to one tensor, so that they can be cut.

Which tokens are padding travels with the tokens, as one more feature that no layer changes: 1 for a token, 0 for
padding. A layer hides padding from every token; what stands at padding itself is never used.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any, Literal, final

import torch
from torch import Tensor, nn

from lasem.errors import ConfigError, TrainingError

_MASKS = ("attention_mask", "attn_mask")
_HIDDEN = torch.finfo(torch.bfloat16).min
"""Added to the score of a token that is not seen, so that its share is 0; finite also where scores have fewer bits, for
padding may see nothing, and what stands there must be a number."""


@final
class _Embeddings(nn.Module):
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
class _Layer(nn.Module):
    """From tokens to tokens, (batch, length, width + 1)."""

    def __init__(self, layer: nn.Module, given: dict[str, Any]) -> None:
        """Take a layer, and what its model gives it beside tokens whatever the text is, such as tables of positions."""
        super().__init__()
        self.layer = layer
        self.mask = next((name for name in _MASKS if name in inspect.signature(layer.forward).parameters), _MASKS[0])
        self.window: Tensor | None
        self.register_buffer("window", _seen(given.pop(self.mask, None)), persistent=False)
        self.fixed = {name: value for name, value in given.items() if not _tensors(value)}
        self.tables: dict[str, list[str] | str] = {}
        for name, value in given.items():
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
class TextEncoder(nn.Module):
    """Embeddings, layers, normalisation, one vector for each text, in which padding has no part."""

    def __init__(
        self,
        model: Any,
        layers: Sequence[nn.Module],
        before: nn.Module,
        norm: nn.Module,
        *,
        length: int,
        pooling: Literal["first", "mean"],
    ) -> None:
        """Take the parts of a model; they are not copied.

        Args:
            model: of transformers, with ``embeddings``.
            layers: the model's.
            before: from what ``embeddings`` gives to what the first layer gets.
            norm: behind the last layer.
            length: of the texts, with padding.
            pooling: the first token, or the mean of all that are no padding.

        Raises:
            ConfigError: if the model cannot take such texts, does more than these parts one after another, or has
                dropout.
        """
        super().__init__()
        _check_dropout(model)
        padding = model.config.pad_token_id
        self.vocabulary_size = int(model.config.vocab_size)
        self.padding_id: int | None = padding if isinstance(padding, int) and padding >= 0 else None
        self.pooling = pooling
        texts = self.example(length)
        given, expected = _observed(model, layers, texts)
        self.embeddings = _Embeddings(model.embeddings, before, self.padding_id or 0)
        self.layers = nn.ModuleList(_Layer(layer, of) for layer, of in zip(layers, given, strict=True))
        self.norm = norm
        self._check_same(type(model).__name__, texts, expected)

    def example(self, length: int) -> Tensor:
        """Two texts, the second one with padding behind it if there is room."""
        ids = torch.arange(2 * length).remainder(max(1, self.vocabulary_size - 1)).view(2, 1, 1, length)
        if self.padding_id is not None:
            ids = ids + (ids >= self.padding_id)  # any id but that
        ids = ids.clamp(max=self.vocabulary_size - 1).float()
        ids[1, ..., (length + 1) // 2 :] = -1
        return ids

    def tokens(self, x: Tensor) -> Tensor:
        """What the last layer gives, not normalised, with the feature that tells padding."""
        x = self.embeddings(x)
        for layer in self.layers:
            x = layer(x)
        return x

    def forward(self, x: Tensor) -> Tensor:
        """(batch, width) for token ids (batch, 1, 1, length), -1 behind each text's end."""
        x = self.tokens(x)
        tokens: Tensor = self.norm(x[..., :-1])
        there = x[..., -1:].detach()
        return tokens[:, 0] if self.pooling == "first" else (tokens * there).sum(dim=1) / there.sum(dim=1)

    @torch.no_grad()
    def _check_same(self, name: str, texts: Tensor, expected: Tensor) -> None:
        """Raise ConfigError if the model does anything else than its embeddings and layers one after another."""
        try:
            found = self.norm(self.eval().tokens(texts)[..., :-1])[texts.flatten(1) >= 0]
        except Exception as error:  # a layer needs what it does not get
            raise ConfigError(_does_more(name)) from error
        if found.shape != expected.shape or not torch.allclose(found, expected, rtol=1e-3, atol=1e-4):
            raise ConfigError(_does_more(name))


def _check_dropout(model: Any) -> None:
    """Raise ConfigError if the model drops anything in training; the message names the settings."""
    if any(isinstance(module, nn.Dropout) and module.p > 0 for module in model.modules()):
        rates = {key: rate for key, rate in vars(model.config).items() if "drop" in key and isinstance(rate, float)}
        names = [name for name, rate in rates.items() if rate > 0 and "classif" not in name]
        told = ", ".join(f"{name} = {rates[name]}" for name in names)
        raise ConfigError(
            f"{type(model).__name__} draws random numbers in training ({told}); blocks must be functions of weights "
            f"and inputs. Make it without: from_pretrained(..., {', '.join(f'{name}=0' for name in names)}). The head "
            f"has from_transformers' dropout=..."
        )


def _observed(model: Any, layers: Sequence[nn.Module], texts: Tensor) -> tuple[list[dict[str, Any]], Tensor]:
    """What a model gives each layer beside tokens, and all tokens that it makes of each text alone, without padding."""
    name, length = type(model).__name__, texts.shape[-1]
    given: list[dict[str, Any]] = []

    def see(layer: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        tokens, *names = inspect.signature(layer.forward).parameters
        found = {**dict(zip(names, args[1:], strict=False)), **kwargs}
        given.append({key: value for key, value in found.items() if key != tokens and value is not None})

    first, second = (row[row >= 0].long()[None] for row in texts.flatten(1))
    handles = [layer.register_forward_pre_hook(see, with_kwargs=True) for layer in layers]
    answers: list[Tensor] = []
    try:
        with torch.enable_grad():  # what comes from weights that are learned requires gradients
            answers.append(model.eval()(input_ids=first, attention_mask=torch.ones_like(first)).last_hidden_state[0])
        for handle in handles:
            handle.remove()
        answers.append(model(input_ids=second, attention_mask=torch.ones_like(second)).last_hidden_state[0])
    except Exception as error:  # whatever the model's own code raises
        most = getattr(model.config, "max_position_embeddings", None)
        raise ConfigError(
            f"{name} cannot take texts of {length} tokens: {error}. Give a smaller length"
            f"{f'; its configuration has max_position_embeddings = {most}' if most else ''}."
        ) from error
    learned = any(value.requires_grad for of in given for some in of.values() for value in _tensors(some))
    if len(given) != len(layers) or learned:  # layers run twice, or use weights that they share
        raise ConfigError(_does_more(name))
    return given, torch.cat(answers).detach()


def _tensors(value: Any) -> list[Tensor]:
    """The tensors in what a layer is given."""
    parts = value if isinstance(value, tuple | list) else (value,)
    return list(parts) if all(isinstance(part, Tensor) for part in parts) else []


def _seen(hidden: Tensor | None) -> Tensor | None:
    """Which tokens see which, (1, 1, length, length), by a mask for a text without padding; None: all see all."""
    if hidden is None or hidden.ndim != 4:
        return None
    seen = hidden if hidden.dtype == torch.bool else hidden == 0
    return None if bool(seen.all()) else seen


def _does_more(name: str) -> str:
    return (
        f"{name} does more than its embeddings and layers one after another, or its answer depends on padding. Wrap it "
        f"in a module of your own and cut that."
    )
