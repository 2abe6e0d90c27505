from __future__ import annotations

import pytest
import torch
from learner.fixture import tiny_net, tiny_task

from lasem.errors import ConfigError
from lasem.learner import Learner
from lasem.search import Fixed, FixedProbability
from lasem.sharing import HardSharing
from lasem.space import top
from lasem.training import TrainingConfig


def test_one_configuration_for_every_task() -> None:
    for index in range(3):
        assert [str(c) for c in Fixed(top(1)).space(3, index)] == ["SST"]
        assert [str(c) for c in Fixed().space(3, index)] == ["TTT"]
    assert Fixed(top(1)) == Fixed("top-1")


def test_a_name_that_is_none_is_refused() -> None:
    with pytest.raises(ConfigError, match="Did you mean 'all'"):
        Fixed("al")
    with pytest.raises(ConfigError, match="2 letters, one for each layer of the network; got 'STT' with 3"):
        Fixed("STT").space(2, 0)


def test_the_probable_configuration_stands_first_among_all() -> None:
    search = FixedProbability(configuration="top-1")
    space = search.space(3, task_index=1)
    assert len(space) == 8
    assert str(space[0]) == "SST"
    assert [str(c) for c in search.space(3, task_index=0)] == ["TTT"]  # nothing to transfer yet
    assert str(FixedProbability(configuration="bottom-2", groups=(2, 2)).space(4, 1)[0]) == "TTSS"


def test_probabilities_stay_as_they_were_given() -> None:
    search = FixedProbability(probability=0.7)
    state = search.init(4)
    weights, after = search.step(state, torch.tensor([[-9.0] * 5, [-0.1] * 5, [-9.0] * 5, [-9.0] * 5]))
    torch.testing.assert_close(weights, torch.tensor([0.7, 0.1, 0.1, 0.1], dtype=torch.float64))
    assert torch.equal(after, state)
    assert (search.best(state), search.commits(state, 9, 10), search.commits(state, 10, 10)) == (0, False, True)


def test_a_task_gets_what_was_given() -> None:
    search = FixedProbability(configuration="bottom-1", commit_share=0.5)
    learner = Learner(tiny_net(), search=search, sharing=HardSharing(), training=TrainingConfig(epochs=4), seed=0)
    records = [learner.learn(tiny_task(name, seed=seed)) for seed, name in enumerate(("one", "two", "three"))]
    assert [record.configuration for record in records] == ["TT", "TS", "TS"]
    assert [record.commit_epoch for record in records[1:]] == [3, 3]
