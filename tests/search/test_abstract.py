"""What searches over groups of layers have in common."""

import pytest
from learner.fixture import tiny_task

from lasem import Learner, Net, TrainingConfig
from lasem.errors import ConfigError
from lasem.search import (
    DARTS,
    EM,
    AbstractSelection,
    DeepEM,
    Exhaustive,
    Fixed,
    FixedProbability,
    GroupedSelection,
    PrefixSearch,
    RandomSearch,
)
from lasem.space import full, grouped

GROUPED: list[type[GroupedSelection]] = [EM, DeepEM, DARTS, Exhaustive, RandomSearch, PrefixSearch, FixedProbability]


@pytest.mark.parametrize("kind", GROUPED, ids=lambda k: k.name)
def test_a_first_task_and_groups(kind: type[GroupedSelection]) -> None:
    assert [str(c) for c in kind().space(3, 0)] == ["TTT"]
    assert [str(c) for c in kind(first_task="alternating", groups=(2, 1)).space(3, 0)] == ["STS"]
    assert kind(first_task="search").space(3, 0) == kind().space(3, 1) == kind().space(3, 7)
    with pytest.raises(ConfigError, match=rf"^{kind.__name__}\.groups .* network's 4 layers .* got 3, 2, which is 5"):
        kind(groups=(3, 2)).space(4, 1)
    with pytest.raises(ConfigError, match="'top-4' asks for 4 layers; the network has 3"):
        kind(first_task="top-4").space(3, 0)
    with pytest.raises(ConfigError, match=r"\.groups must be at least 1; got 0"):
        kind(groups=(2, 0))
    with pytest.raises(ConfigError, match="Expected a configuration: all, none"):
        kind(first_task="searched")


@pytest.mark.parametrize(
    ("search", "task_index", "reason"),
    [
        (
            Fixed("none"),
            0,
            "search 'fixed' gives every task 'none'; in a new model --search evidence decides layer by layer",
        ),
        (
            EM(),
            0,
            "search 'em' does not choose for a first task (in a new model it would with --search.first_task search)",
        ),
        (EM(first_task="search"), 0, "search 'em' chose it among 16 configurations"),
        (DeepEM(), 1, "search 'deep-em' chose it among 2^30 configurations"),
        (FixedProbability(configuration="top-1"), 1, "trains all configurations and gives every task 'top-1'"),
    ],
)
def test_why_a_task_transfers_what_it_does(search: AbstractSelection, task_index: int, reason: str) -> None:
    net = Net(image_shape=(1, 4, 4), channels=(2,) * 30, kernels=(1,) * 30, pools=(1,) * 30)
    assert search.reason(net, task_index).endswith(reason)


@pytest.mark.parametrize("kind", [EM, DARTS, Exhaustive], ids=lambda k: k.name)
def test_all_configurations_are_chosen_from(kind: type[GroupedSelection]) -> None:
    assert kind().space(4, 1) == full(4)
    assert kind(groups=(2, 2)).space(4, 1) == grouped((2, 2))


@pytest.mark.parametrize("kind", GROUPED, ids=lambda k: k.name)
def test_layers_that_are_too_many_decide_in_four_groups_and_a_person_is_shown(kind: type[GroupedSelection]) -> None:
    most = {EM: 10, FixedProbability: 10, DeepEM: None, PrefixSearch: None}.get(kind, 16)
    assert kind().sizes(10) == (1,) * 10
    assert kind().remark(10) == kind(groups=(20, 20)).remark(40) == ""
    for depth, sizes in ((17, (5, 4, 4, 4)), (200, (50,) * 4)):
        assert kind().sizes(depth) == (sizes if most else (1,) * depth)
        assert ("groups of " + ", ".join(map(str, sizes)) in kind().remark(depth)) == bool(most)
        assert kind().space(depth, 1).depth == depth
    assert len(kind().sizes(11)) == (4 if most == 10 else 11)


@pytest.mark.parametrize("kind", [EM, DARTS, RandomSearch], ids=lambda k: k.name)
def test_a_deep_network_is_learned_with_default_settings(kind: type[GroupedSelection]) -> None:
    net = Net(image_shape=(1, 6, 6), channels=(2,) * 17, kernels=(1,) * 17, pools=(1,) * 17, hidden=())
    learner = Learner(net, search=kind(), training=TrainingConfig(epochs=1, batch_size=20))
    chosen = [learner.learn(tiny_task(name)).configuration for name in ("one", "two")][1]
    assert all(len(set(chosen[start:end])) == 1 for start, end in ((0, 5), (5, 9), (9, 13), (13, 17)))
