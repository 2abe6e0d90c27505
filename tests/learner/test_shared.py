from __future__ import annotations

import pytest
import torch

from lasem.learner.shared import SharedKnowledge
from lasem.space import Configuration


def layer(value: float) -> dict[str, torch.Tensor]:
    return {"weight": torch.full((2,), value), "bias": torch.full((1,), value)}


def learned(*steps: tuple[str, float, tuple[bool, bool]]) -> tuple[SharedKnowledge, list[tuple[int, ...]]]:
    shared, used = SharedKnowledge.none(2), []
    for configuration, value, in_use in steps:
        chosen = Configuration.parse(configuration)
        shared, versions = shared.with_task(chosen, [layer(value), layer(value)], in_use)
        used.append(versions)
    return shared, used


def test_without_branches_a_task_changes_what_it_transfers_in_place() -> None:
    shared, used = learned(("TT", 1, (False, False)), ("TS", 2, (False, False)), ("ST", 3, (False, False)))
    assert used == [(0, 0), (0, 0), (0, 0)]
    assert torch.equal(shared.latest(0)["weight"], torch.full((2,), 2.0))
    assert torch.equal(shared.latest(1)["weight"], torch.full((2,), 3.0))
    assert shared.num_parameters == 6


def test_with_branches_what_is_in_use_stays_and_the_next_task_goes_on_from_the_latest() -> None:
    shared, used = learned(("TT", 1, (False, False)), ("TS", 2, (True, True)), ("TT", 3, (True, True)))
    assert used == [(0, 0), (1, 0), (2, 1)]
    assert [float(shared.of(0, v)["bias"]) for v in (0, 1, 2)] == [1, 2, 3]
    assert [float(shared.of(1, v)["bias"]) for v in (0, 1)] == [1, 3]
    assert float(shared.latest(0)["bias"]) == 3
    assert shared.of(1, 7) == {}
    assert shared.num_parameters == 15


def test_versions_that_no_task_uses_are_dropped() -> None:
    shared, used = learned(("TT", 1, (False, False)), ("TS", 2, (True, True)), ("TT", 3, (True, True)))
    left = shared.used_by([(Configuration.parse("TS"), used[1]), (Configuration.parse("TT"), used[2])])
    assert [sorted(versions) for versions in left.layers] == [[1, 2], [1]]
    again, versions = left.with_task(Configuration.parse("TT"), [layer(4), layer(4)], (True, False))
    assert versions == (3, 1)
    assert float(again.of(1, 1)["bias"]) == 4
    assert SharedKnowledge.none(2).latest(1) == {}
    assert left.used_by([]).num_parameters == 0


def test_names_are_those_of_earlier_models_and_are_read_back() -> None:
    shared, _ = learned(("TT", 1, (False, False)), ("TS", 2, (True, True)))
    flat = shared.named()
    assert sorted(flat) == [
        "layer.0.bias",
        "layer.0.weight",
        "layer.0@1.bias",
        "layer.0@1.weight",
        "layer.1.bias",
        "layer.1.weight",
    ]
    again = SharedKnowledge.from_named(flat, 2)
    assert again.named().keys() == flat.keys()
    assert all(torch.equal(value, flat[name]) for name, value in again.named().items())


@pytest.mark.parametrize("name", ["layer.2.weight", "layer.0", "head.weight", "layer.0@x.weight", "layer.-1.weight"])
def test_names_of_something_else_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match="names no tensor"):
        SharedKnowledge.from_named({name: torch.ones(1)}, 2)
