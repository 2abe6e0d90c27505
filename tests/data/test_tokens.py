"""Token ids of texts as tensors, against loops; and what is refused."""

import re
from collections import UserDict
from typing import Any

import numpy as np
import pytest
import torch

from lasem.data import Task, TensorReader, Vocabulary, as_tokens
from lasem.errors import ConfigError, DataError

TEXTS = [[5, 6, 7], [8], [9, 10, 11, 12]]
PADDED = [[5, 6, 7, 0, 0], [8, 0, 0, 0, 0], [9, 10, 11, 12, 0]]
MASKS = [[1, 1, 1, 0, 0], [1, 0, 0, 0, 0], [1, 1, 1, 1, 0]]
EXPECTED = [[5, 6, 7, -1, -1], [8, -1, -1, -1, -1], [9, 10, 11, 12, -1]]


@pytest.mark.parametrize(
    "texts",
    [
        TEXTS,
        [torch.tensor(text) for text in TEXTS],
        [np.array(text, dtype=np.uint16) for text in TEXTS],
        {"input_ids": TEXTS},
        {"input_ids": TEXTS, "attention_mask": None},
        {"input_ids": PADDED, "attention_mask": MASKS},
        UserDict(input_ids=torch.tensor(PADDED), attention_mask=torch.tensor(MASKS).bool()),
        {"input_ids": np.array(PADDED), "attention_mask": np.array(MASKS), "token_type_ids": np.zeros((3, 5))},
    ],
    ids=["lists", "tensors", "arrays", "ids", "no mask", "masked", "tokenizer", "masked arrays"],
)
def test_every_form_of_texts_gives_the_same(texts: Any) -> None:
    tokens = as_tokens(texts, length=5)
    assert (tokens.dtype, tokens.view(3, 5).tolist()) == (torch.float32, EXPECTED)


def test_padding_before_a_text_is_moved_behind_it() -> None:
    texts = {"input_ids": [[0, 0, 5, 6], [0, 0, 0, 7]], "attention_mask": [[0, 0, 1, 1], [0, 0, 0, 1]]}
    assert as_tokens(texts, length=3).view(2, 3).tolist() == [[5, 6, -1], [7, -1, -1]]


def test_a_text_that_is_too_long_is_told_of_or_shortened() -> None:
    expected = re.escape(
        "Expected at most 3 tokens in each text; texts have up to 4 (text 2; 1 are too long). Let the tokenizer "
        "shorten them (truncation=True, max_length=3)"
    )
    with pytest.raises(DataError, match=expected):
        as_tokens(TEXTS, length=3)
    assert as_tokens(TEXTS, length=3, truncate=True).tolist() == [[[[5, 6, 7]]], [[[8, -1, -1]]], [[[9, 10, 11]]]]
    assert as_tokens([], length=3).shape == (0, 1, 1, 3)


def test_great_ids_are_exact() -> None:
    assert as_tokens([[2**24 - 1, 2**24 - 2]], length=2).long().tolist() == [[[[2**24 - 1, 2**24 - 2]]]]
    with pytest.raises(
        DataError, match="Expected token ids from 0 to 16777215; texts have ids from 1 to 16777216 in t"
    ):
        as_tokens([[3], [1, 2**24]], length=2)


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        ("a good film", "as a list of token ids for each text; got str"),
        (["a good film"], r"got words, 'a good film'. Call the model's tokenizer first"),
        ([101, 2003], "text 0 is a single number. One text alone is a list with one list in it"),
        (7, "as a list of token ids for each text; got int"),
        ([[1, 2], [[3], [4]]], r"text 1 is of shape \(2, 1\)"),
        ([[1, 2], [[3], [4, 5]]], "text 1 is a list"),
        ([[1.0, 2.0]], "whole numbers; text 0 has float64"),
        ([[1], [True]], "whole numbers; text 1 has bool"),
        ([[1], []], "at least one token in each text; texts have none in text 1"),
        ([[4], [3, -100]], "from 0 to 16777215; texts have ids from -100 to 3 in text 1. Leave out padding"),
        ({"ids": [[1]]}, r"mapping with 'input_ids'; got one with \['ids'\]"),
        ({"input_ids": [[1, 2]], "attention_mask": [[1]]}, "1 texts of up to 1 numbers for 1 of up to 2 ids"),
        ({"input_ids": [[1, 2]], "attention_mask": []}, "got 0 texts of up to 0 numbers"),
        ({"input_ids": [[1, 2, 3]], "attention_mask": [[1, 0, 1]]}, r"of text 0 of texts is \[1, 0, 1\]"),
        ({"input_ids": [[1, 2]], "attention_mask": [[2, 1]]}, r"of text 0 of texts is \[2, 1\]"),
        ({"input_ids": [[1, 2]], "attention_mask": [[0, 0]]}, "texts have none in text 0"),
    ],
)
def test_what_is_refused(texts: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        as_tokens(texts, length=4)


@pytest.mark.parametrize("length", [0, -1, 2.0, True, None])
def test_length_is_a_count(length: Any) -> None:
    with pytest.raises(ConfigError, match="length must be a whole number of at least 1"):
        as_tokens(TEXTS, length=length)


def test_a_task_of_tokens() -> None:
    split = (TEXTS, ["no", "yes", "no"])
    task = Task.from_tokens("film", train=split, valid=split, test=({"input_ids": [[1]]}, ["yes"]), length=5)
    assert (task.classes, task.image_shape) == (("no", "yes"), (1, 1, 5))
    ((images, labels),) = task.train.batches(3)
    assert images.view(3, 5).tolist() == EXPECTED
    assert labels.tolist() == [0, 1, 0]
    with pytest.raises(DataError, match=r"texts \(task 'film', split 'valid'\) have up to 7 "):
        Task.from_tokens("film", train=split, valid=([[1] * 6, [1] * 7], [0, 1]), test=split, length=5)
    with pytest.raises(DataError, match=r"task 'film', split 'test'"):
        Task.from_tokens("film", train=split, valid=split, test=([[1]], ["maybe"]), length=5)


def test_a_stream_of_tokens() -> None:
    texts = [[10 * label + 1, i + 1] for label in range(4) for i in range(8)]
    labels = [label for label in range(4) for _ in range(8)]
    reader = TensorReader(
        images=as_tokens(texts, length=3), labels=labels, classes_per_task=2, num_tasks=2, standardise="none"
    )
    for task in reader.open(seed=0):
        for split in (task.train, task.valid, task.test):
            Vocabulary(32).check(split.images.take(torch.arange(len(split))))


def test_a_vocabulary_takes_what_as_tokens_gives() -> None:
    Vocabulary(13, 0).check(as_tokens(TEXTS, length=5))
    Vocabulary(13, 0).check(as_tokens([[0, 3]], length=2))  # the padding's id within a text
    Vocabulary(13).check(as_tokens(PADDED, length=5))


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (as_tokens(TEXTS, length=5).to(torch.uint8), "got other numbers. Make them with lasem.data.as_tokens"),
        (as_tokens(TEXTS, length=5) / 12, "got other numbers"),
        (as_tokens(TEXTS, length=5) - 1, "got other numbers"),
        (torch.full((1, 1, 1, 3), torch.nan), "got other numbers"),
        (torch.full((1, 1, 1, 3), -1.0), "texts have none in text 0"),
        (torch.tensor([[[[1.0, -1.0, 1.0]]]]), "Expected -1 only after the last token"),
        (torch.tensor([[[[-1.0, 1.0, 1.0]]]]), "Expected -1 only after the last token"),
        (as_tokens([[1], [13]], length=5), "ids below 13, the model's vocabulary; texts have id 13"),
        (as_tokens(PADDED, length=5), "without padding; text 0 ends in the model's padding id, 0. Give all"),
    ],
)
def test_a_vocabulary_refuses_all_else(images: torch.Tensor, message: str) -> None:
    with pytest.raises(DataError, match=message):
        Vocabulary(13, 0).check(images)
