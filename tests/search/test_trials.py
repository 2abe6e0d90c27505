"""Searches by trials: what each candidate comes to, which one is kept, and what an interruption costs."""

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any, ClassVar, final
from unittest.mock import patch

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from learner.fixture import (
    assert_same_tensors,
    copied,
    every_sharing,
    files_in,
    followed,
    start_of,
    tensors_in,
    tiny_net,
    tiny_task,
)
from training.fixture import run

from lasem.errors import ConfigError
from lasem.experiments import ExperimentConfig
from lasem.learner import Learner
from lasem.methods import Branch, Unprotected
from lasem.records import TaskRecord
from lasem.search import EM, AbstractTrials, Exhaustive, Fixed, PrefixSearch, RandomSearch
from lasem.sharing import AbstractSharing, HardSharing, TensorFactorization
from lasem.space import Configuration, Space, full, grouped
from lasem.training import TrainingConfig, loop

CONFIG = TrainingConfig(epochs=3, batch_size=5, learning_rate=0.01)
FRESH = replace(CONFIG, specific_start="fresh")
SECOND = tiny_task("t1", 3, seed=1)


def after_one_task(folder: Path, sharing: AbstractSharing, config: TrainingConfig = CONFIG) -> Callable[[Any], Learner]:
    """A learner of one task on disk; the function reads it with another search."""
    learner = Learner(tiny_net(), sharing=sharing, search=Fixed("all"), training=config, seed=3)
    learner.learn(tiny_task("t0"))
    learner.save(folder)
    return lambda search: Learner.load(folder, search=search)


@every_sharing
def test_brute_force_is_a_plain_loop_over_fixed_configurations(sharing: AbstractSharing, tmp_path: Path) -> None:
    again = after_one_task(tmp_path / "one", sharing, FRESH)
    tried: dict[str, TaskRecord] = {}
    for letters in ("SS", "ST", "TS", "TT"):
        learner = again(Fixed(letters))
        tried[letters] = learner.learn(SECOND)
        learner.save(tmp_path / letters)
    highest = max(record.valid_accuracy for record in tried.values())
    tied = [letters for letters, record in tried.items() if record.valid_accuracy == highest]
    expected = max(tied, key=lambda letters: letters.count("T"))  # max takes the first
    learner = again(Exhaustive())
    record = learner.learn(SECOND)
    learner.save(tmp_path / "all")
    assert (record.configuration, record.configurations) == (expected, ("SS", "ST", "TS", "TT"))
    assert (record.valid_accuracy, record.peak_accuracy) == (highest, tried[expected].peak_accuracy)
    assert_same_tensors(tensors_in(tmp_path / "all"), tensors_in(tmp_path / expected))


@every_sharing
def test_as_the_authors_ran_it_the_first_task_gets_the_choice_of_the_second(sharing: Any, tmp_path: Path) -> None:
    """What is transferred goes on from the first task; of the rest it keeps what it has, as where it transfers all."""
    again = after_one_task(tmp_path / "one", sharing, FRESH)
    tried: dict[str, float] = {}
    fixed: dict[str, Learner] = {}
    for letters in ("SS", "ST", "TS", "TT"):
        fixed[letters] = again(Fixed(letters))
        tried[letters] = fixed[letters].learn(SECOND).valid_accuracy
    expected = max(tried, key=lambda letters: (tried[letters], letters[::-1]))
    first_task, letter = ("none", "S") if sharing.name == "hps" else ("all", "T")
    search = Exhaustive(form="paper", first_task=first_task)
    learner = Learner(tiny_net(), sharing=sharing, search=search, training=FRESH, seed=3)
    assert learner.learn(tiny_task("t0")).configurations == (letter * 2,)
    learner.save(tmp_path / "model")
    learner.learn(SECOND)
    learner.save(tmp_path / "model")
    for of in (learner, Learner.load(tmp_path / "model", search=search)):
        for name in ("t0", "t1"):
            assert of.info(name).configuration == expected
            plain = [one.method.plain_weights(one.net, one.model, name) for one in (of, fixed[expected])]
            assert_same_tensors(*plain)
        assert sorted(of.model.versions) == [f"{i}@0" for i, letter in enumerate(expected) if letter == "T"]
    before = copied(dict(learner.model.own["t0"]))
    learner.learn(tiny_task("t2", seed=2))
    assert_same_tensors(before, learner.model.own["t0"])  # from then on each task for itself


def test_what_the_second_task_cannot_impose_is_refused() -> None:
    search = Exhaustive(form="paper", first_task="none")
    for protect, sharing in ((Branch(), HardSharing()), (Unprotected(), TensorFactorization())):
        with pytest.raises(ConfigError, match=r"form='paper' lets the second task change the first"):
            Learner(tiny_net(), search=search, protect=protect, sharing=sharing)


@given(st.lists(st.sampled_from((0.5, 0.7)), min_size=16, max_size=16))
def test_ties_are_broken_as_theirs_whose_list_begins_with_the_configuration_that_transfers_all(of: list[float]) -> None:
    space = full(4)
    theirs = ["".join(reversed(choices)) for choices in product("TS", repeat=4)]  # the first layer changes fastest
    accuracies = {str(configuration): accuracy for configuration, accuracy in zip(space, of, strict=True)}
    expected = next(letters for letters in theirs if accuracies[letters] == max(of))
    assert str(space[Exhaustive(form="paper").best(space, dict(enumerate(of)))]) == expected
    mass = torch.tensor(of, dtype=torch.float64)
    assert str(space[EM(ties="transfer").best(mass)]) == expected
    assert EM().best(mass) == of.index(max(of))
    assert EM(ties="transfer").best(torch.ones(1)) == 0


@every_sharing
@pytest.mark.parametrize("restore_best", [True, False])
def test_every_candidate_is_trained_as_by_fixed(sharing: AbstractSharing, restore_best: bool, tmp_path: Path) -> None:
    """From the same start, also where weights were taken over from the first task, and shrunk."""
    problem = start_of(after_one_task(tmp_path, sharing)(Exhaustive()), SECOND)
    problem = replace(problem, config=replace(CONFIG, restore_best=restore_best))
    assert problem.fresh_weights

    found, records = run(Exhaustive(), problem)
    alone = {c: run(Fixed(str(c)), problem.only(c)) for c in problem.space}
    expected = [
        (str(c), str(c), e.loss, e.valid_accuracy, number * CONFIG.epochs + e.epoch, 1)
        for number, (c, (_, epochs)) in enumerate(alone.items())
        for e in epochs
    ]
    seen = [(e.phase, e.configuration, e.loss, e.valid_accuracy, e.epoch, e.num_evaluated) for e in records]
    assert seen == expected
    chosen = alone[found.best.configuration][0]
    assert found.valid_accuracy == max(one.valid_accuracy for one, _ in alone.values()) == chosen.valid_accuracy
    assert_same_tensors(found.best.weights, chosen.best.weights)
    assert_same_tensors(found.kept.weights, chosen.kept.weights)
    before = problem.space.index(found.kept.configuration) * CONFIG.epochs
    assert (found.num_epochs, found.best_epoch, found.commit_epoch) == (
        4 * CONFIG.epochs,
        before + chosen.best_epoch,
        None,
    )


def test_the_best_of_those_before_is_probable_and_kept_in_checkpoints(tmp_path: Path) -> None:
    _, epochs, states = followed(after_one_task(tmp_path, HardSharing())(Exhaustive()), SECOND)
    for epoch, (tensors, plain) in zip(epochs, states, strict=True):
        tried = {i: fitted["best"]["valid_accuracy"] for i, fitted in enumerate(plain["finished"])}
        assert len(tried) == (epoch.epoch - 1) // CONFIG.epochs
        leader = Exhaustive().best(full(2), tried) if tried else 0
        assert epoch.probabilities == tuple(float(i == leader) for i in range(4))
        kept = {int(name.split(".")[1]) for name in tensors if name.startswith("finished.")}
        assert kept == ({leader} if tried else set())


def test_candidates_are_drawn_anew_for_each_task_and_learner() -> None:
    search = EM(first_task="search")
    problem = start_of(Learner(tiny_net(depth=3), search=search, training=replace(CONFIG, epochs=1)), SECOND)

    def drawn(seed: tuple[int, int]) -> tuple[str, ...]:
        return tuple(r.phase for r in run(RandomSearch(num_candidates=4), replace(problem, seed=seed), seed)[1])

    seeds = ((0, 0), (0, 1), (1, 0), (1, 1))
    draws = [drawn(seed) for seed in seeds]
    assert (draws, len(set(draws))) == ([drawn(seed) for seed in seeds], len(draws))


def test_files_may_name_settings_of_an_earlier_version_where_they_mean_nothing() -> None:
    config = ExperimentConfig.from_plain({"search": {"name": "prefix", "workers": 2}})
    assert config.search == PrefixSearch()
    config = ExperimentConfig.from_plain({"search": {"name": "em", "prune": 0.0, "full_pass_every": 7}})
    assert config.search == EM()
    with pytest.raises(ConfigError, match="no setting 'prune'"):
        ExperimentConfig.from_plain({"search": {"name": "em", "prune": 0.1}})


@final
@dataclass(frozen=True, kw_only=True)
class Climbing(AbstractTrials):
    """A user's own: from nothing, one layer more as long as that is better."""

    name: ClassVar[str] = "climbing"

    def choices(self, groups: tuple[int, ...]) -> Space:
        return grouped(groups)

    def propose(self, space: Space, tried: Mapping[int, float], generator: torch.Generator) -> tuple[int, ...]:
        leader = space[self.best(space, tried)].bits if tried else None
        if leader is None:
            return (0,)
        more = [(*leader[:i], True, *leader[i + 1 :]) for i in range(len(leader)) if not leader[i]]
        positions = [space.index(Configuration(bits)) for bits in more]
        return tuple(p for p in positions if p not in tried)


def test_a_search_may_go_by_what_was_found_and_goes_on_after_an_interruption(tmp_path: Path) -> None:
    again = after_one_task(tmp_path / "one", HardSharing())
    learner = again(Climbing())
    record, epochs, states = followed(learner, SECOND)
    learner.save(tmp_path / "whole")
    assert {e.phase for e in epochs} >= {"SS", "ST", "TS"}
    for at in range(0, len(states), 2):
        learner = again(Climbing())
        assert followed(learner, SECOND, states[at])[:2] == (record, epochs[at + 1 :])
        learner.save(tmp_path / str(at))
        assert files_in(tmp_path / str(at)) == files_in(tmp_path / "whole")


@final
@dataclass(frozen=True, kw_only=True)
class Broken(AbstractTrials):
    name: ClassVar[str] = "broken"
    num_times: int = 0

    def choices(self, groups: tuple[int, ...]) -> Space:
        return grouped(groups)

    def propose(self, space: Space, tried: Mapping[int, float], generator: torch.Generator) -> tuple[int, ...]:
        return (1,) * self.num_times


@pytest.mark.parametrize(
    ("num_times", "message"),
    [(0, "at least one"), (2, r"twice; got \(1, 1\)"), (1, r"twice; got \(1,\)")],
)
def test_a_search_that_proposes_nothing_or_one_twice_is_named(num_times: int, message: str) -> None:
    learner = Learner(tiny_net(), search=Broken(first_task="search", num_times=num_times), training=CONFIG)
    with pytest.raises(ConfigError, match=rf"Broken\.propose must .*{message}"):
        learner.learn(SECOND)


def test_schedules_count_the_epochs_of_what_was_kept_and_records_those_of_the_search() -> None:
    training = TrainingConfig(epochs=2, batch_size=5, schedule="inverse")
    learner = Learner(tiny_net(), search=Exhaustive(first_task="search"), training=training, seed=3)
    record = learner.learn(tiny_task("a"))
    assert record.num_epochs == 8
    with patch.object(loop, "learning_rate", wraps=loop.learning_rate) as asked:
        learner.learn(tiny_task("b", seed=1))
    assert {call.args[2] for call in asked.call_args_list} == {2}


# what is proposed


every_kind = pytest.mark.parametrize("kind", [Exhaustive, RandomSearch, PrefixSearch], ids=lambda k: k.name)


def proposed(search: AbstractTrials, depth: int, seed: int = 0) -> list[str]:
    """Everything that is tried, if every accuracy is the same."""
    space, tried = search.space(depth, 1), dict[int, float]()
    generator = torch.Generator().manual_seed(seed)
    while candidates := search.propose(space, tried, generator):
        tried |= dict.fromkeys(candidates, 0.5)
    return [str(space[position]) for position in tried]


@pytest.mark.parametrize(
    ("search", "expected"),
    [
        (Exhaustive(), ["S", "T"]),
        (Exhaustive(), ["SSS", "SST", "STS", "STT", "TSS", "TST", "TTS", "TTT"]),
        (Exhaustive(groups=(2, 1)), ["SSS", "SST", "TTS", "TTT"]),
        (PrefixSearch(), ["S", "T"]),
        (PrefixSearch(), ["SSSS", "TSSS", "TTSS", "TTTS", "TTTT"]),
        (PrefixSearch(groups=(2, 1, 2)), ["SSSSS", "TTSSS", "TTTSS", "TTTTT"]),
        (PrefixSearch(), ["T" * k + "S" * (40 - k) for k in range(41)]),  # a deep network needs no groups
    ],
    ids=str,
)
def test_what_is_tried_and_in_which_order(search: AbstractTrials, expected: list[str]) -> None:
    assert proposed(search, len(expected[0])) == expected == [str(c) for c in search.space(len(expected[0]), 1)]


@every_kind
def test_one_configuration_is_tried_as_it_is(kind: type[AbstractTrials]) -> None:
    space = kind().space(3, 0)
    assert kind().propose(space, {}, torch.Generator()) == (0,)
    assert kind().propose(space, {0: 0.5}, torch.Generator()) == ()


def naive_best(letters: list[str], accuracies: list[float]) -> int:
    best = 0
    for position in range(1, len(letters)):
        more = letters[position].count("T") > letters[best].count("T")
        better = accuracies[position] > accuracies[best]
        if better or (accuracies[position] == accuracies[best] and more):
            best = position
    return best


@given(st.lists(st.sampled_from([0.2, 0.5, 0.8]), min_size=8, max_size=8), st.permutations(range(8)))
def test_the_best_is_the_most_accurate_then_transfers_most(accuracies: list[float], order: list[int]) -> None:
    """Then it comes first."""
    tried = {position: accuracies[position] for position in order}
    assert Exhaustive().best(full(3), tried) == naive_best([str(c) for c in full(3)], accuracies)


def test_more_configurations_than_can_be_listed_are_refused() -> None:
    with pytest.raises(ConfigError, match="put more layers into each group"):
        Exhaustive(groups=(1,) * 17).space(17, 1)
    assert len(Exhaustive(groups=(5, 4, 4, 4)).space(17, 1)) == 16


@pytest.mark.parametrize(("num", "depth", "expected"), [(5, 4, 5), (5, 2, 4), (1, 3, 1)])
def test_as_many_different_ones_as_asked_for_or_all(num: int, depth: int, expected: int) -> None:
    tried = proposed(RandomSearch(num_candidates=num), depth)
    assert len(tried) == len(set(tried)) == expected
    assert set(tried) <= {str(c) for c in full(depth)}


def test_the_generator_alone_decides() -> None:
    search = RandomSearch(num_candidates=3)
    draws = [proposed(search, 4, seed) for seed in range(6)]
    assert draws == [proposed(search, 4, seed) for seed in range(6)]
    assert len(set(map(tuple, draws))) > 1


def test_every_configuration_is_equally_probable() -> None:
    """Of 16 configurations 4 are drawn, 800 times: 200 each, with a standard deviation of 12.2."""
    generator = torch.Generator().manual_seed(0)
    search, space = RandomSearch(num_candidates=4), full(4)
    found = Counter(position for _ in range(800) for position in search.propose(space, {}, generator))
    assert len(found) == 16
    assert all(abs(count - 200) < 4.5 * 12.2 for count in found.values())


def test_groups_are_drawn_together() -> None:
    assert set(proposed(RandomSearch(num_candidates=9, groups=(1, 2)), 3)) == {"SSS", "STT", "TSS", "TTT"}
