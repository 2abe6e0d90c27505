import json
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar
from unittest.mock import ANY, Mock, call

import numpy as np
import pytest
import torch
from filelock import FileLock

from lasem.data import DigitsReader, FolderReader, Task, TaskStream
from lasem.errors import ConfigError, DataError, DeviceError, StorageError, TrainingError
from lasem.experiments import ExperimentConfig, Observer, run
from lasem.learner import Learner
from lasem.methods import EWC, AbstractMethod
from lasem.metrics import load_runs
from lasem.nets import Net
from lasem.nets.net import NetChoice
from lasem.records import EvaluationRecord, TaskRecord, TimingRecord, of_kind, read_records
from lasem.search import EM, Fixed
from lasem.training import TrainingConfig

from .tiny import records_of, stop, tiny, without_report


@dataclass(frozen=True)
class Refusing(AbstractMethod):
    """Learns nothing."""

    name: ClassVar[str] = "refusing"
    plan = logits = None  # type: ignore[assignment]

    def check(self, net: Net, training: TrainingConfig) -> None:
        raise ConfigError(f"Method 'refusing' cannot learn with {net.depth} layers.")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two seeds with its report."""
    return run(tiny(seeds=(0, 1)), tmp_path_factory.mktemp("whole") / "run", command=("lasem", "run"))


@pytest.fixture(autouse=True)
def _light(whole: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    without_report(monkeypatch)


def test_a_run_leaves_everything(whole: Path) -> None:
    names = {path.name for path in whole.iterdir()}
    assert names == {".lock", "config.yaml", "environment.json", "figures", "report.html", "seeds"}
    for seed in (0, 1):
        names = {path.name for path in (whole / "seeds" / str(seed)).iterdir()}
        assert names == {"records.jsonl", "timings.jsonl", "accuracy_matrix.csv", "model"}
    assert ExperimentConfig.from_yaml((whole / "config.yaml").read_text()) == tiny(seeds=(0, 1))
    about = json.loads((whole / "environment.json").read_text())
    assert (about["command"], about["torch"]) == (["lasem", "run"], torch.__version__)
    assert str(Path.home()) not in (whole / "environment.json").read_text()
    assert records_of(whole, 0) != records_of(whole, 1)
    assert [seed.accuracy_matrix.shape for seed in load_runs(whole)] == [(2, 2)] * 2
    timings = list(of_kind(read_records(whole / "seeds/0/timings.jsonl"), TimingRecord))
    assert [t.epoch for t in timings] == [1, 2, 3, None] * 2
    assert all((t.seconds_training == 0) == (t.epoch is None) and t.seconds_evaluating > 0 for t in timings)
    assert Learner.load(whole / "seeds/0/model").task_names == ("digits-0", "digits-1")


def test_the_accuracy_matrix_is_what_the_same_learner_answers_on_test_images(tmp_path: Path) -> None:
    training = TrainingConfig(epochs=5, batch_size=4, learning_rate=0.01)  # enough to learn, and to forget
    config = tiny(3, search=Fixed("all"), training=training)
    directory = run(config, tmp_path / "run")
    tasks = list(config.stream.open(0))
    net = config.net(tasks[0].image_shape)
    learner = Learner(net, sharing=config.sharing, search=config.search, training=training)
    rows, valid = [], []
    for number, task in enumerate(tasks):
        learner.learn(task)
        rows.append({t.name: learner.accuracy(t.name, t.test) for t in tasks[: number + 1]})
        valid.append({t.name: learner.accuracy(t.name, t.valid) for t in tasks[: number + 1]})
    assert all(rows[-1][task.name] != rows[i][task.name] for i, task in enumerate(tasks[:-1]))  # both have changed
    assert all(row != seen for row, seen in zip(rows[1:], valid[1:], strict=True))
    stored = of_kind(read_records(directory / "seeds/0/records.jsonl"), EvaluationRecord)
    assert [record.accuracies for record in stored] == rows
    matrix = load_runs(directory)[0].accuracy_matrix
    for i, row in enumerate(rows):
        assert matrix[i, : i + 1].tolist() == list(row.values())


def test_one_seed_draws_the_tasks_of_all(tmp_path: Path, whole: Path) -> None:
    config, path = tiny(seeds=(0, 1), stream_seed=0), tmp_path / "run"
    stop(config, path)
    run(ExperimentConfig.from_yaml((path / "config.yaml").read_text()), path, resume=True)
    assert records_of(path, 0) == records_of(whole, 0)
    assert records_of(path, 1) not in (records_of(path, 0), records_of(whole, 1))
    first, second = load_runs(path)
    assert [task.classes for task in first.tasks] == [task.classes for task in second.tasks]
    with pytest.raises(StorageError, match="stream_seed = 0 there, None here"):
        run(tiny(seeds=(0, 1)), path, resume=True)


def test_folders_are_numbered(here: Path) -> None:
    config = tiny(1, 1)
    assert [str(run(config)) for _ in range(2)] == ["runs/digits-hps-em-001", "runs/digits-hps-em-002"]
    assert str(run(tiny(1, 1, search=EM(), method=EWC()))) == "runs/digits-ewc-001"


def test_a_folder_of_something_else_is_refused_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").touch()
    with pytest.raises(StorageError, match=r"holds mine\.txt"):
        run(tiny(), tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["mine.txt"]
    with pytest.raises(StorageError, match="is a file"):
        run(tiny(), tmp_path / "mine.txt")


def test_a_folder_with_a_run_is_refused(whole: Path) -> None:
    with pytest.raises(StorageError, match="--resume"):
        run(tiny(), whole)
    with pytest.raises(StorageError, match="other settings"):
        run(tiny(), whole, resume=True)


@pytest.mark.parametrize("resume", [False, True])
def test_a_folder_that_another_run_holds_is_refused(tmp_path: Path, resume: bool) -> None:
    (tmp_path / "config.yaml").write_text(tiny().to_yaml())
    with FileLock(tmp_path / ".lock"), pytest.raises(StorageError, match="Another process"):
        run(tiny(), tmp_path, resume=resume)


def test_nothing_is_written_for_wrong_input(tmp_path: Path) -> None:
    wrong = [
        (tiny(device="nowhere"), DeviceError),
        (tiny(search=EM(groups=(1, 1))), ConfigError),
        (tiny(search=Fixed("top-9")), ConfigError),
        (tiny(search=EM(), method=Refusing()), ConfigError),
        (tiny(stream=FolderReader(path="nowhere")), DataError),
    ]
    for config, error in wrong:
        with pytest.raises(error):
            run(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()


class Notes(Observer):
    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, message: str) -> None:
        self.notes.append(message)


def test_a_pretrained_network_is_advised_for_photographs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for shape, times in (((3, 41, 9), 1), ((3, 40, 40), 0), ((1, 1, 64), 0)):
        part = np.zeros((8, *shape), dtype=np.uint8), ["b", "c"] * 4
        task = Task.from_tensors("a", train=part, valid=part, test=part)
        monkeypatch.setattr(DigitsReader, "open", lambda *_, task=task: TaskStream("photos", lambda: iter([task])))
        run(tiny(net=NetChoice(), seeds=(0,)), tmp_path / str(shape), observer=(observer := Notes()))
        assert ["--net timm:" in note for note in observer.notes] == [True] * times


def test_it_is_said_that_layers_decide_in_groups(tmp_path: Path) -> None:
    net = Net(image_shape=(1, 8, 8), channels=(2,) * 17, kernels=(1,) * 17, pools=(1,) * 17, hidden=())
    run(tiny(net=net, search=EM()), tmp_path / "run", observer=(observer := Notes()))
    assert ["groups of 5, 4, 4, 4" in note for note in observer.notes] == [True]


def test_a_loss_that_diverges_keeps_what_was_learned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Last(Observer):
        def task_ends(self, record: TaskRecord, final_accuracies: dict[str, float], seconds: float) -> None:
            monkeypatch.setattr("lasem.training.loop.learning_rate", lambda *_: 1e12)

    config = tiny(training=TrainingConfig(epochs=3, optimiser="sgd"))
    with pytest.raises(TrainingError, match="learning_rate"):
        run(config, tmp_path / "run", observer=Last())
    assert Learner.load(tmp_path / "run/seeds/0/model").task_names == ("digits-0",)


def test_a_stream_of_unknown_length_is_run_to_its_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = DigitsReader.open

    def unknown(self: DigitsReader, seed: int) -> TaskStream:
        return TaskStream("digits", lambda: iter(opened(self, seed)))

    monkeypatch.setattr(DigitsReader, "open", unknown)
    directory = run(tiny(3, 1), tmp_path / "run")
    assert len(load_runs(directory)[0].tasks) == 3


def test_an_observer_is_notified_in_order_and_threads_are_put_back(tmp_path: Path) -> None:
    observer, threads = Mock(spec=Observer), list[int]()
    observer.run_starts.side_effect = lambda *_: threads.append(torch.get_num_threads())
    before, config = torch.get_num_threads(), tiny(2, 2)
    torch.set_num_threads(2)  # not in training: two threads on a core that others use take ten times as long
    try:
        run(config, tmp_path / "run", observer=observer)
        threads.append(torch.get_num_threads())
    finally:
        torch.set_num_threads(before)
    expected = [call.run_starts(config, tmp_path / "run"), call.seed_starts(0, 2, 0)]
    for number in range(2):
        expected += [call.task_starts(f"digits-{number}", ANY), *[call.epoch_ends(ANY, ANY)] * 2]
        expected += [call.task_ends(ANY, ANY, ANY)]
    assert observer.mock_calls == [*expected, call.seed_ends(0)]
    assert [ends.args[0].epoch for ends in observer.epoch_ends.call_args_list] == [1, 2] * 2
    ended = [(ends.args[0].task, len(ends.args[1]), ends.args[2] > 0) for ends in observer.task_ends.call_args_list]
    assert ended == [("digits-0", 1, True), ("digits-1", 2, True)]
    assert threads == [1, 2]
