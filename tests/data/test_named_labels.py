"""Labels as class names."""

import pytest
import torch

from lasem.data import Task
from lasem.errors import DataError

IMAGES = torch.zeros(3, 1, 4, 4, dtype=torch.uint8)


def make(test_labels: list[str], classes: list[str] | None = None) -> Task:
    split = (IMAGES, ["dog", "cat", "dog"])
    return Task.from_tensors("pets", train=split, valid=split, test=(IMAGES, test_labels), classes=classes)


def test_names_become_positions_in_alphabetical_or_given_order() -> None:
    assert make(["cat", "cat", "dog"]).test.labels.tolist() == [0, 0, 1]
    task = make(["cat", "cat", "dog"], classes=["dog", "cat"])
    assert task.classes == ("dog", "cat")
    assert task.train.labels.tolist() == [0, 1, 0]


def test_a_name_that_training_has_not_is_refused_with_the_nearest() -> None:
    with pytest.raises(DataError, match=r"Expected only the classes cat, dog .*split 'test'.*got 'dgo'.*'dog'"):
        make(["cat", "cat", "dgo"])
