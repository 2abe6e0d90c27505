"""Texts as token ids in a tensor that networks for texts read, and the vocabularies of those networks."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Final, final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lasem.data.images import AbstractImages
from lasem.errors import ConfigError, DataError

PADDING: Final = -1
"""Fills the places after a text's end. It is no token's id, so that a tokenizer's padding id need not be known."""

MOST_ID: Final = 2**24 - 1
"""float32 holds whole numbers up to here exactly."""

_TEXTS_AT_ONCE = 1000
_FILE = "tokenizer.json"


def as_tokens(texts: Any, *, length: int, truncate: bool = False, what: str = "texts") -> Tensor:
    """Turn token ids of texts into a tensor like images: float32, shape (N, 1, 1, length), -1 after each end.

    Args:
        texts: what a tokenizer returns: a mapping with ``input_ids`` and, where these are padded already,
            ``attention_mask`` (1 for tokens, 0 for padding before or after them). Or the ids alone, a list for each
            text or a tensor or array (N, L), every one a token.
        length: tokens that the longest text may have; a network for texts has its own.
        truncate: drop what is after the first ``length`` tokens of a text instead of refusing it. A tokenizer does it
            better (``truncation=True, max_length=...``): it keeps the token that closes a text.
        what: what messages call the texts.

    Raises:
        DataError: if these are no token ids, a text is empty, or longer than ``length`` and ``truncate`` is not set.
        ConfigError: if ``length`` is below 1.
    """
    if isinstance(length, bool) or not isinstance(length, int) or length < 1:
        raise ConfigError(f"length must be a whole number of at least 1, the tokens of the longest text; got {length}.")
    if isinstance(texts, Mapping):
        if "input_ids" not in texts:
            raise DataError(f"Expected {what} as a mapping with 'input_ids'; got one with {sorted(map(str, texts))}.")
        rows = _rows(texts["input_ids"], what)
        if texts.get("attention_mask") is not None:
            rows = _without_padding(rows, texts["attention_mask"], what)
    else:
        rows = _rows(texts, what)
    lengths = np.array([len(row) for row in rows], dtype=np.int64)
    if len(lengths) and lengths.min() == 0:
        raise DataError(
            f"Expected at least one token in each text; {what} have none in text {int(lengths.argmin())}. Leave it out."
        )
    if len(lengths) and lengths.max() > length and not truncate:
        raise DataError(
            f"Expected at most {length} tokens in each text; {what} have up to {lengths.max()} (text "
            f"{int(lengths.argmax())}; {int((lengths > length).sum())} are too long). Let the tokenizer shorten them "
            f"(truncation=True, max_length={length}), give a greater length, or set truncate=True."
        )
    found = np.full((len(rows), length), PADDING, dtype=np.float32)
    if len(rows):
        ids = np.concatenate([row[:length] for row in rows])
        if ids.min() < 0 or ids.max() > MOST_ID:
            wrong = next(i for i, row in enumerate(rows) if row.min() < 0 or row.max() > MOST_ID)
            raise DataError(
                f"Expected token ids from 0 to {MOST_ID}; {what} have ids from {rows[wrong].min()} to "
                f"{rows[wrong].max()} in text {wrong}. Leave out padding, or give it as 0 in an attention_mask."
            )
        found[np.arange(length) < np.minimum(lengths, length)[:, None]] = ids
    return torch.from_numpy(found)[:, None, None, :]


@final
class Texts(AbstractImages):
    """Texts as they are, which take the place of images until a network's tokenizer reads them (``Task.in_tokens``)."""

    def __init__(self, texts: Sequence[str], what: str = "texts") -> None:
        """Take the texts; DataError if one is empty or no text. ``what`` is what messages call them."""
        if isinstance(texts, str) or not isinstance(texts, Iterable):
            raise DataError(f"Expected {what} as a list of strings; got {type(texts).__name__}.")
        self._texts = tuple(texts)
        for i, text in enumerate(self._texts):
            if not isinstance(text, str):
                raise DataError(f"Expected {what} as a list of strings; text {i} is a {type(text).__name__}.")
            if not text.strip():
                raise DataError(f"Expected at least one word in each text; {what} have none in text {i}. Leave it out.")

    @property
    def texts(self) -> tuple[str, ...]:
        return self._texts

    @property
    def shape(self) -> tuple[int, int, int]:
        return (1, 1, 1)

    def __len__(self) -> int:
        return len(self._texts)

    @property
    def scale(self) -> float | None:
        return None

    def take(self, indices: Tensor) -> Tensor:
        raise DataError("Texts have no numbers before a network's tokenizer has read them.")


@final
@dataclass(frozen=True)
class Tokenizer:
    """A tokenizer of the library ``tokenizers``, kept as the JSON that it writes."""

    json: str = field(repr=False)
    """Its vocabulary, rules and special tokens."""
    version: str = ""
    """Of the library that wrote it."""

    def to_tensors(self) -> dict[str, Tensor]:
        """Return it as a file of tensors can hold it."""
        return {_FILE: torch.frombuffer(bytearray(self.json.encode()), dtype=torch.uint8)}

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor], version: str) -> "Tokenizer | None":
        """Return the one among some tensors; None if there is none."""
        return cls(bytes(tensors[_FILE].numpy()).decode(), version) if _FILE in tensors else None

    @cached_property
    def _made(self) -> Any:
        try:
            import tokenizers
        except (ImportError, RuntimeError) as error:
            raise ConfigError("Texts need the package tokenizers: pip install 'lasem[transformers]'.") from error
        try:
            made = tokenizers.Tokenizer.from_str(self.json)
        except Exception as error:  # the library raises no class of its own
            written = f", written by version {self.version}" if self.version else ""
            raise ConfigError(
                f"Expected a tokenizer that tokenizers {tokenizers.__version__} can read{written}; {error}."
            ) from error
        made.no_padding()
        return made

    def ids(self, texts: Sequence[str], length: int) -> tuple[list[NDArray[np.int32]], int]:
        """Return the token ids of each text, and how many texts were cut at ``length`` tokens."""
        made = self._made
        if length <= made.num_special_tokens_to_add(False):
            raise ConfigError(f"length must leave room for a word besides the tokens around a text; got {length}.")
        made.enable_truncation(length)
        found: list[NDArray[np.int32]] = []
        num_cut = 0
        for start in range(0, len(texts), _TEXTS_AT_ONCE):  # what it returns is far larger than the ids
            some = [_valid(text) for text in texts[start : start + _TEXTS_AT_ONCE]]
            for encoding in made.encode_batch(some):
                found.append(np.array(encoding.ids, dtype=np.int32))
                num_cut += bool(encoding.overflowing)
        return found, num_cut


def _valid(text: str) -> str:
    """Return a text without halves of characters, which JSON and damaged files may hold and UTF-8 does not."""
    return text if text.isascii() else text.encode("utf-8", "surrogatepass").decode("utf-8", "replace")


@final
@dataclass(frozen=True)
class Vocabulary:
    """The token ids that a network for texts knows."""

    size: int
    """Ids are below it."""
    padding_id: int | None = None
    """The id that a tokenizer pads with, if it means nothing else; None: not known."""
    tokenizer: Callable[[], Tokenizer | None] | None = field(default=None, compare=False)
    """Returns what makes token ids of texts; None: they come from elsewhere."""
    any_length: bool = False
    """Whether the network also takes tensors that end earlier, with the longest text."""

    def read(self, texts: Sequence[str], length: int, what: str = "texts") -> tuple[Tensor, int]:
        """Return texts as ``as_tokens`` makes them, and how many were cut; DataError without a tokenizer."""
        tokenizer = self.tokenizer() if self.tokenizer else None
        if tokenizer is None:
            raise DataError(
                f"Expected {what} as token ids, for the network has no tokenizer. Make it with "
                f"lasem.nets.from_transformers(FOLDER), whose tokenizer is kept; or give what the tokenizer returns: "
                f"Task.from_tokens, lasem.data.as_tokens."
            )
        ids, num_cut = tokenizer.ids(Texts(texts, what).texts, length)
        most = max(map(len, ids), default=1) if self.any_length else length
        return as_tokens(ids, length=most, what=what), num_cut

    def fits(self, shape: Sequence[int], wanted: Sequence[int]) -> bool:
        """Return whether texts of a shape (1, 1, length) fit a network for another one."""
        return tuple(shape) == tuple(wanted) or (
            self.any_length and shape[2] <= wanted[2] and tuple(shape[:2]) == (1, 1)
        )

    def check(self, images: Tensor, what: str = "texts") -> None:
        """Raise DataError unless images (N, 1, 1, length) are texts as ``as_tokens`` makes them, of known ids."""
        ids = images.flatten(1)
        there = ids >= 0
        if not (ids.is_floating_point() and bool((((ids == ids.round()) & there) | (ids == PADDING)).all())):
            raise DataError(
                f"Expected {what} as token ids; got other numbers. Make them with lasem.data.as_tokens, tasks with "
                f"Task.from_tokens; where images are given, set standardise='none'."
            )
        lengths = there.sum(dim=1)
        if not bool((there == (torch.arange(ids.shape[1], device=ids.device) < lengths[:, None])).all()):
            raise DataError(f"Expected -1 only after the last token of {what}. Make them with lasem.data.as_tokens.")
        if not bool((lengths > 0).all()):
            raise DataError(
                f"Expected at least one token in each text; {what} have none in text {_first(lengths < 1)}."
            )
        if bool((ids >= self.size).any()):
            raise DataError(
                f"Expected token ids below {self.size}, the model's vocabulary; {what} have id {int(ids.max())}. Use "
                f"the model's own tokenizer, or resize its embeddings."
            )
        if self.padding_id is not None:
            padded = ids.gather(1, (lengths - 1)[:, None])[:, 0] == self.padding_id
            if bool(padded.any()):
                raise DataError(
                    f"Expected {what} without padding; text {_first(padded)} ends in the model's padding id, "
                    f"{self.padding_id}. Give all that the tokenizer gives, its attention_mask too, or unpadded ids."
                )


def said_of_cut(num_cut: int, num_texts: int, length: int) -> tuple[str, ...]:
    """Return what is left out, as in ``Task.left_out``, if texts were cut at ``length`` tokens."""
    one = "which is" if num_cut == 1 else "which are"
    said = f"the ends of {num_cut:,} of {num_texts:,} texts, {one} longer than {length} tokens"
    return (said,) if num_cut else ()


def _first(wrong: Tensor) -> int:
    return int(wrong.int().argmax())


def _rows(texts: Any, what: str, kinds: str = "iu") -> list[NDArray[np.int64]]:
    """The numbers of each text, which must be of some of numpy's kinds."""
    if isinstance(texts, str) or not isinstance(texts, Iterable):
        raise DataError(f"Expected {what} as a list of token ids for each text; got {type(texts).__name__}.")
    rows = []
    for i, text in enumerate(texts):
        if isinstance(text, str):
            raise DataError(
                f"Expected {what} as token ids; got words, {text[:20]!r}. Call the model's tokenizer first: "
                f"tokenizer(sentences)."
            )
        try:
            row = np.asarray(text.detach().cpu() if isinstance(text, Tensor) else text)
        except (TypeError, ValueError) as error:
            raise DataError(f"Expected {what} as token ids; text {i} is a {type(text).__name__}.") from error
        if row.ndim != 1:
            shape = f"of shape {row.shape}" if row.ndim else "a single number"
            raise DataError(
                f"Expected {what} as a list of token ids for each text; text {i} is {shape}. One text alone is a list "
                f"with one list in it."
            )
        if row.size and row.dtype.kind not in kinds:
            raise DataError(f"Expected {what} as token ids, whole numbers; text {i} has {row.dtype}.")
        rows.append(row.astype(np.int64))
    return rows


def _without_padding(rows: list[NDArray[np.int64]], masks: Any, what: str) -> list[NDArray[np.int64]]:
    masks = _rows(masks, f"the attention_mask of {what}", kinds="iub")
    if [len(row) for row in rows] != [len(mask) for mask in masks]:
        raise DataError(
            f"Expected an attention_mask of one number for each token id of {what}; got {len(masks)} texts of up to "
            f"{max(map(len, masks), default=0)} numbers for {len(rows)} of up to {max(map(len, rows), default=0)} ids."
        )
    kept = []
    for i, (row, mask) in enumerate(zip(rows, masks, strict=True)):
        there = mask == 1
        changes = int(np.count_nonzero(np.diff(np.pad(there, 1).astype(np.int8))))
        if not np.isin(mask, (0, 1)).all() or changes > 2:
            raise DataError(
                f"Expected an attention_mask of ones for tokens, and zeros for padding before or after them; that of "
                f"text {i} of {what} is {mask[:12].tolist()}{'...' if len(mask) > 12 else ''}."
            )
        kept.append(row[there])
    return kept
