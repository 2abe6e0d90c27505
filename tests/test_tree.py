import json
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from torch import Tensor

from lasem.nets import part_of
from lasem.tree import flatten, map_tensors, named, pack, unpack, with_tensors, without_same


@dataclass(frozen=True)
class Leaf:
    value: Tensor
    count: int = 0
    seen: tuple[int, ...] = ()


@dataclass(frozen=True)
class Tree:
    parts: tuple[Leaf, ...]
    weights: dict[str, Tensor] = field(default_factory=dict)
    committed: int | None = None


def tree(value: float = 1.0, **changes: Any) -> Tree:
    leaves = (Leaf(torch.full((2,), value), 3, (4, 5)), Leaf(torch.tensor([7], dtype=torch.int64)))
    return Tree(leaves, {"bias.1": torch.full((), value)}, **changes)


def test_tensors_have_paths_and_names() -> None:
    found = tree()
    assert list(flatten(found)) == [("parts", 0, "value"), ("parts", 1, "value"), ("weights", "bias.1")]
    assert list(named(found)) == ["parts.0.value", "parts.1.value", "weights.bias.1"]
    assert named(found)["parts.0.value"] is found.parts[0].value
    assert flatten(3) == flatten(None) == {}
    assert part_of({"a.b.c": torch.ones(1), "ab.c": torch.ones(1)}, "a").keys() == {"b.c"}


def test_tensors_are_replaced_and_all_else_stays() -> None:
    found, other = tree(committed=2), torch.zeros(5)
    changed = with_tensors(found, {("parts", 0, "value"): other})
    assert changed.parts[0].value is other
    assert changed.parts[0].seen == (4, 5)
    assert (changed.parts[1], changed.weights, changed.committed) == (found.parts[1], found.weights, 2)
    doubled = map_tensors(lambda t: 2 * t, found)
    assert all(torch.equal(doubled_value, 2 * flatten(found)[path]) for path, doubled_value in flatten(doubled).items())
    assert map_tensors(lambda t: 2 * t, torch.ones(1)) == 2


@pytest.mark.parametrize("committed", [None, 2])
def test_what_was_packed_is_unpacked_from_json(committed: int | None) -> None:
    found = tree(committed=committed)
    tensors, plain = pack({"state": found, "epochs": 2, "none": None})
    assert set(tensors) == {f"state.{name}" for name in named(found)}
    again = unpack(tensors, json.loads(json.dumps(plain)), {"state": tree(0.0)})
    assert (again["epochs"], again["none"], again["state"].committed) == (2, None, committed)
    assert again["state"].parts[0].seen == (4, 5)
    for path, value in flatten(found).items():
        copy = flatten(again["state"])[path]
        assert torch.equal(copy, value)
        assert copy.data_ptr() != value.data_ptr()
    assert torch.equal(unpack(*pack(torch.ones(2), "state"), torch.zeros(2)), torch.ones(2))


@pytest.mark.parametrize(
    ("start", "same"),
    [
        (torch.tensor(float("nan")), True),
        (torch.tensor(0.0), False),
        (torch.tensor(-0.0, dtype=torch.float64), False),
        (torch.zeros(1), False),
        (torch.zeros(0, 3), True),
        (torch.tensor([True, False]), True),
        (torch.ones(2, 3).T, True),
    ],
)
def test_what_is_the_same_to_the_bit_is_left_out_and_comes_back(start: Tensor, same: bool) -> None:
    found = (
        {"a": start.clone().requires_grad_(start.is_floating_point()), "more": torch.ones(1)}
        if same
        else {
            "a": torch.tensor(-0.0),
            "more": torch.ones(1),
        }
    )
    left = without_same(found, {"a": start})
    tensors, plain = pack(left)
    assert set(tensors) == ({"more"} if same else {"a", "more"})
    again = unpack(tensors, json.loads(json.dumps(plain)), {"a": start, "more": torch.zeros(1)})
    assert not again["a"].requires_grad
    assert again["a"] is not start
    assert again["a"].numpy().tobytes() == found["a"].detach().numpy().tobytes()


def test_a_tree_of_another_form_is_refused() -> None:
    tensors, plain = pack(tree(), "state")
    with pytest.raises(ValueError, match="it has committed, parts, weights where count, seen, value are expected"):
        unpack(tensors, plain, Leaf(torch.ones(1)))
    with pytest.raises(TypeError, match="where a tensor is expected"):
        unpack({}, 3, torch.ones(1))
    with pytest.raises(KeyError, match=r"parts\.1\.value"):
        unpack({name: t for name, t in tensors.items() if name != "state.parts.1.value"}, plain, tree())
