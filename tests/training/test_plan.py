import json
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from learner.fixture import assert_same_tensors, tiny_task
from safetensors.torch import load, save
from torch import Tensor

from lasem.errors import StorageError
from lasem.records import EpochRecord, TimingRecord
from lasem.training import (
    AbstractPhase,
    Batch,
    Checkpoints,
    EpochSummary,
    Named,
    PhaseResult,
    Plan,
    Step,
    TrainingConfig,
    TrainingState,
    follow,
    plan,
)
from lasem.tree import Path

CONFIG = TrainingConfig(epochs=2, batch_size=4, learning_rate=0.05)
START = torch.zeros(36, 2)
READ = torch.tensor(1.0)


class Line(AbstractPhase[dict[str, Tensor]]):
    """Logistic regression from a start; counts its steps, which is a condition of its own."""

    def __init__(self, start: Tensor, title: str, config: Any = CONFIG, forgets: tuple[int, ...] | None = ()) -> None:
        self.task, self.config, self.title, self.forgets = tiny_task(), config, title, forgets
        self._start, self.state = start, {"steps": 0}
        self.asked: list[Step] = []

    def initial(self) -> dict[str, Tensor]:
        return {"w": self._start, "read": READ}

    def scale(self, path: Path) -> float:
        return float(path != ("read",))

    def loss(self, weights: Named, batch: Batch, dropout: torch.Generator) -> Tensor:
        noise = torch.rand((), generator=dropout)
        return (
            torch.nn.functional.cross_entropy(batch.x.flatten(1) @ weights["w"], batch.labels)
            + 0 * noise * weights["read"]
        )

    def after_step(self, weights: Named, step: Step) -> None:
        self.state = {"steps": self.state["steps"] + 1}
        self.asked.append(step)
        weights["w"].mul_(1 - 0.001 * self.state["steps"])

    def accuracy(self, weights: Named) -> float:
        x, labels = next(self.task.valid.batches(len(self.task.valid)))
        return float(((x.flatten(1) @ weights["w"]).argmax(dim=1) == labels).float().mean())

    def summary(self) -> EpochSummary:
        return EpochSummary("T", (float(self.state["steps"]),))


def three_phases(seen: list[PhaseResult[Any]] | None = None) -> Plan[dict[str, Tensor]]:
    """Two from the same start; the third goes on from the second and no longer needs the first."""
    first = yield Line(START, "first")
    second = yield Line(START, "second")
    third = yield Line(second.best.weights["w"] * 2, "third", replace(CONFIG, epochs=3), forgets=(0,))
    if seen is not None:
        seen += [first, second, third]
    return third.last.weights


def test_what_training_does_not_change_is_not_kept() -> None:
    def stored(state: TrainingState) -> set[str]:
        return {name for name in state.tensors if name.endswith((".w", ".read"))}

    for state in followed()[2]:
        best = state.plain["loop"]["best"]["epoch"] != state.plain["loop"]["progress"]["num_epochs"]
        finished = {
            f"finished.{number}.{which}.weights.w"
            for number, result in enumerate(state.plain["finished"])
            for which in ("best", "last")
            if result["last"]["weights"] is not None and (which == "last" or result["best"]["epoch"] == 1)
        }
        assert stored(state) == {"loop.weights.w"} | ({"loop.best.weights.w"} if best else set()) | finished


@pytest.mark.parametrize(("seconds", "expected"), [(0, [1, 2, 3, 4, 5]), (2, [2, 4, 5]), (99, [5])])
def test_checkpoints_are_written_now_and_then_and_when_learning_is_stopped(
    seconds: float, expected: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    now, written, state = [0.0], list[int](), TrainingState({}, {})
    monkeypatch.setattr(plan, "time", SimpleNamespace(monotonic=lambda: now[0]))
    checkpoints = Checkpoints(lambda epoch, _: written.append(epoch), seconds)
    with suppress(KeyboardInterrupt), checkpoints.written_if_stopped():
        for epoch in range(1, 6):
            now[0] += 1
            checkpoints.epoch_ends(epoch, lambda: state)
        raise KeyboardInterrupt
    assert written == expected


def test_a_checkpoint_that_cannot_be_written_hides_no_error() -> None:
    def write(*_: Any) -> None:
        raise StorageError("full")

    checkpoints = Checkpoints(write, 99)
    checkpoints.epoch_ends(1, lambda: TrainingState({}, {}))
    with pytest.raises(KeyboardInterrupt), checkpoints.written_if_stopped():
        raise KeyboardInterrupt


def in_turn(*phases: Line) -> Plan[list[PhaseResult[Any]]]:
    results = []
    for phase in phases:
        results.append((yield phase))
    return results


def follow_quietly(plan: Plan[Any], epochs_before: int = 0) -> Any:
    return follow(plan, seeds=(3, 0), epochs_before=epochs_before, device=torch.device("cpu"))


def followed(**options: Any) -> tuple[dict[str, Tensor], list[EpochRecord], list[TrainingState]]:
    records: list[EpochRecord] = []
    states: list[TrainingState] = []

    def keep(record: EpochRecord, _: TimingRecord, state: Callable[[], TrainingState]) -> None:
        records.append(record)
        tensors, plain = state()
        states.append(TrainingState(load(save(dict(tensors))), json.loads(json.dumps(plain))))

    result = follow(three_phases(), seeds=(3, 0), epochs_before=0, device=torch.device("cpu"), on_epoch=keep, **options)
    return result, records, states


def test_a_plan_goes_on_after_any_epoch_to_the_same_bits() -> None:
    whole, records, states = followed()
    assert [record.epoch for record in records] == [1, 2, 3, 4, 5, 6, 7]  # counted over all phases
    assert [record.phase for record in records] == ["first"] * 2 + ["second"] * 2 + ["third"] * 3
    for at, state in enumerate(states):
        # what a phase forgets is not kept
        kept = {name.split(".")[1] for name in state.tensors if name.startswith("finished.")}
        assert kept == (set(), {"0"}, {"1"})[min(at // 2, 2)]
        result, rest, later = followed(resume_from=state)
        assert_same_tensors(result, whole)
        assert rest == records[at + 1 :]
        for again, before in zip(later, states[at + 1 :], strict=True):
            assert again.plain == before.plain
            assert_same_tensors(dict(again.tensors), dict(before.tensors))


def test_a_phase_may_forget_all_before_it() -> None:
    names: list[str] = []
    follow(
        in_turn(Line(START, "a"), Line(START, "b"), Line(START, "c", forgets=None)),
        seeds=(3, 0),
        epochs_before=0,
        device=torch.device("cpu"),
        on_epoch=lambda record, _, state: names.extend(state().tensors if record.phase == "c" else ()),
    )
    assert names
    assert not any(name.startswith("finished.") for name in names)


@pytest.mark.parametrize("goes_on", [False, True])
def test_a_schedule_over_all_tasks_goes_on_with_a_phase_that_says_so(goes_on: bool) -> None:
    config = replace(CONFIG, schedule="inverse", learning_rate_decay=0.5)
    phases = [Line(START, title, config) for title in "ab"]
    for phase in phases:
        phase.goes_on = goes_on
    follow_quietly(in_turn(*phases), epochs_before=3)
    rates = [list(dict.fromkeys(step.learning_rate for step in phase.asked)) for phase in phases]
    expected = [[0.05 / (1 + 0.5 * epoch) for epoch in epochs] for epochs in ((3, 4), (5, 6) if goes_on else (3, 4))]
    assert rates == [pytest.approx(of_phase) for of_phase in expected]


def test_phases_draw_from_their_own_sources() -> None:
    """The same phase twice in one plan: other orders of images, so other weights."""
    one, two = (result.last.weights["w"] for result in follow_quietly(in_turn(Line(START, "a"), Line(START, "b"))))
    assert not torch.equal(one, two)


def test_a_step_says_where_training_stands() -> None:
    phase = Line(START, "only", replace(CONFIG, schedule="constant"))
    follow_quietly(in_turn(phase))
    assert phase.asked == [Step(epoch, batch, 3, 0.05) for epoch in range(2) for batch in range(3)]


def test_a_snapshot_holds_what_the_phase_said_then() -> None:
    seen: list[PhaseResult[Any]] = []
    follow_quietly(three_phases(seen))
    assert [fitted.epochs_before for fitted in seen] == [0, 2, 4]
    for fitted in seen:
        assert fitted.last.summary.probabilities == (3 * fitted.num_epochs,)
        assert fitted.best.summary.probabilities == (3 * fitted.best.epoch,)
        assert fitted.kept(True) is fitted.best
        assert fitted.kept(False) is fitted.last


def test_a_state_of_something_else_is_refused() -> None:
    tensors, plain = followed()[2][4]
    for broken in ({}, {**plain, "finished": [{}, {}]}, *({k: plain[k] for k in plain if k != name} for name in plain)):
        with pytest.raises(StorageError, match="state of an interrupted training"):
            followed(resume_from=TrainingState(tensors, broken))
