"""Searches by trials: what each candidate comes to, which one is kept, and what an interruption costs."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, final
from unittest.mock import patch

import pytest
import torch
from learner.fixture import SHARINGS, assert_same_tensors, files_in, start_of, tensors_in, tiny_net, tiny_task
from safetensors.torch import load, save
from training.fixture import run

from lasem.errors import ConfigError
from lasem.experiments import ExperimentConfig
from lasem.learner import Learner
from lasem.records import EpochRecord, TaskRecord, TimingRecord
from lasem.search import EM, AbstractTrials, Exhaustive, Fixed, PrefixSearch, RandomSearch
from lasem.sharing import AbstractSharing, HardSharing
from lasem.space import Configuration, Space, full, grouped
from lasem.training import TrainingConfig, TrainingState, loop

CONFIG = TrainingConfig(epochs=3, batch_size=5, learning_rate=0.01)
FRESH = replace(CONFIG, specific_start="fresh")
SECOND = tiny_task("t1", 3, seed=1)


def after_one_task(folder: Path, sharing: AbstractSharing, config: TrainingConfig = CONFIG) -> Callable[[Any], Learner]:
    """A learner of one task on disk; the function reads it with another search."""
    learner = Learner(tiny_net(), sharing=sharing, search=Fixed("all"), training=config, seed=3)
    learner.learn(tiny_task("t0"))
    learner.save(folder)
    return lambda search: Learner.load(folder, search=search)


def learned(
    learner: Learner, resume_from: TrainingState | None = None
) -> tuple[TaskRecord, list[EpochRecord], list[TrainingState]]:
    """The second task's record, epochs, and the states after each of them, through the disk's form."""
    epochs, states = [], []

    def keep(epoch: EpochRecord, timing: TimingRecord, state: Callable[[], TrainingState]) -> None:
        assert (timing.task, timing.epoch) == (epoch.task, epoch.epoch)
        assert timing.seconds_training > 0
        tensors, plain = state()
        epochs.append(epoch)
        states.append(TrainingState(load(save(dict(tensors))), json.loads(json.dumps(plain))))

    return learner.learn(SECOND, on_epoch=keep, resume_from=resume_from), epochs, states


@pytest.mark.parametrize("sharing", SHARINGS, ids=lambda s: s.name)
def test_brute_force_is_a_plain_loop_over_learners_with_one_configuration(
    sharing: AbstractSharing, tmp_path: Path
) -> None:
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
    assert record.configuration == expected
    assert record.configurations == ("SS", "ST", "TS", "TT")
    assert (record.valid_accuracy, record.peak_accuracy) == (highest, tried[expected].peak_accuracy)
    assert_same_tensors(tensors_in(tmp_path / "all"), tensors_in(tmp_path / expected))


@pytest.mark.parametrize("sharing", SHARINGS, ids=lambda s: s.name)
@pytest.mark.parametrize("restore_best", [True, False])
def test_every_candidate_is_trained_as_fixed_would_from_the_same_start(
    sharing: AbstractSharing, restore_best: bool, tmp_path: Path
) -> None:
    """Also where weights were taken over from the first task, and shrunk."""
    problem = start_of(after_one_task(tmp_path, sharing)(Exhaustive()), SECOND)
    problem = replace(problem, config=replace(CONFIG, restore_best=restore_best))
    assert problem.fresh_weights

    found, records = run(Exhaustive(), problem)
    alone = {c: run(Fixed(str(c)), problem.only(c)) for c in problem.space}
    expected = [
        (str(c), e.loss, e.valid_accuracy, number * CONFIG.epochs + e.epoch)
        for number, (c, (_, epochs)) in enumerate(alone.items())
        for e in epochs
    ]
    assert [(e.phase, e.loss, e.valid_accuracy, e.epoch) for e in records] == expected
    assert [e.configuration for e in records] == [e.phase for e in records]
    assert {e.num_evaluated for e in records} == {1}
    chosen = alone[found.best.configuration][0]
    assert found.valid_accuracy == max(one.valid_accuracy for one, _ in alone.values()) == chosen.valid_accuracy
    assert_same_tensors(found.best.weights, chosen.best.weights)
    assert_same_tensors(found.kept.weights, chosen.kept.weights)
    position = problem.space.index(found.kept.configuration)
    assert (found.num_epochs, found.best_epoch) == (4 * CONFIG.epochs, position * CONFIG.epochs + chosen.best_epoch)
    assert found.commit_epoch is None


def test_the_best_of_those_before_is_probable_and_kept_in_checkpoints(tmp_path: Path) -> None:
    _, epochs, states = learned(after_one_task(tmp_path, HardSharing())(Exhaustive()))
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
    assert draws == [drawn(seed) for seed in seeds]
    assert len(set(draws)) == len(draws)


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
    record, epochs, states = learned(learner)
    learner.save(tmp_path / "whole")
    assert {e.phase for e in epochs} >= {"SS", "ST", "TS"}
    for at in range(0, len(states), 2):
        learner = again(Climbing())
        done, rest, _ = learned(learner, states[at])
        assert (done, rest) == (record, epochs[at + 1 :])
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
