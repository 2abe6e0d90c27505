"""What writers leave for TensorBoard, Weights & Biases and MLflow, read by these libraries; results do not change."""

import json
import os
import signal
import struct
import subprocess
import sys
import warnings
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from experiments.tiny import records_of, tiny, without_report

from lasem import GrowingModel
from lasem.errors import ConfigError
from lasem.experiments import run
from lasem.learner import MLflow, Observer, TensorBoard, WandB
from lasem.learner.watching import WRITERS, AbstractWriter
from lasem.records import EpochRecord, TaskRecord, of_kind, read_records

from .images import files_in, small_model, write_digits

Points = dict[str, dict[str, list[tuple[int, float]]]]
"""Of each group the points of each curve: step and number."""


class Notes(Observer):
    def __init__(self) -> None:
        self.notes = list[str]()

    def note(self, message: str) -> None:
        self.notes.append(message)


KILLED = """
import os, signal, sys, time
from experiments.tiny import tiny
from lasem.experiments import run
from lasem.learner import Observer
from lasem.learner.watching import WRITERS

class Kill(Observer):
    def epoch_ends(self, record, timing):
        if (record.task, record.epoch) == ("digits-1", 3):
            time.sleep(1)  # W&B writes five times a second
            os.kill(os.getpid(), signal.SIGKILL)

run(tiny(), "run", observer=WRITERS[sys.argv[1]](Kill()))
"""


def in_tensorboard(place: Path) -> Points:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    found: Points = {}
    for folder in (place / "tensorboard").iterdir():
        events = EventAccumulator(str(folder)).Reload()
        curves = {tag: [(e.step, e.value) for e in events.Scalars(tag)] for tag in events.Tags()["scalars"]}
        found[folder.name] = curves
    return found


def in_wandb(place: Path) -> Points:
    pytest.importorskip("wandb")
    from wandb.proto import wandb_internal_pb2

    found: Points = defaultdict(lambda: defaultdict(list))
    for path in sorted((place / "wandb").glob("offline-run-*/*.wandb")):
        for data in records_in(path.read_bytes()):
            record = wandb_internal_pb2.Record()
            record.ParseFromString(data)
            row = {"/".join(item.nested_key) or item.key: json.loads(item.value_json) for item in record.history.item}
            for name, value in row.items():
                group, _, curve = name.partition("/")
                if curve and not isinstance(value, str):
                    found[group][curve].append((row[f"{group}/step"], value))
    return found


def records_in(data: bytes) -> Iterator[bytes]:
    """The records of a log as LevelDB has them, in blocks of 32 KiB, after a header of 7 bytes."""
    place, record = 7, b""
    while place + 7 <= len(data):
        if (left := -place % 2**15 or 2**15) < 7:
            place += left
            continue
        _, size, kind = struct.unpack("<IHB", data[place : place + 7])
        record += data[place + 7 : place + 7 + size]
        place += 7 + size
        if kind in (1, 4):  # whole, or its last part
            yield record
            record = b""


def in_mlflow(place: Path) -> Points:
    mlflow = pytest.importorskip("mlflow")
    root = place.parent if place.name.startswith("seed-") else place
    client = mlflow.MlflowClient(tracking_uri=f"sqlite:///{root / 'mlflow.db'}")
    (found,) = client.search_runs([client.get_experiment_by_name("lasem").experiment_id])
    points: Points = defaultdict(dict)
    for name in found.data.metrics:
        group, _, curve = name.partition("/")
        points[group][curve] = [(m.step, m.value) for m in client.get_metric_history(found.info.run_id, name)]
    assert found.info.status == "FINISHED"
    return points


READ: dict[str, Callable[[Path], Points]] = {"tensorboard": in_tensorboard, "wandb": in_wandb, "mlflow": in_mlflow}


@pytest.fixture(params=list(WRITERS))
def writer(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> type[AbstractWriter]:
    for name in ("WANDB_MODE", "MLFLOW_TRACKING_URI"):
        monkeypatch.delenv(name, raising=False)
    kind = WRITERS[request.param]
    warnings.simplefilter("ignore")  # of the library's own modules
    pytest.importorskip(kind.module)
    without_report(monkeypatch)
    return kind


def test_a_killed_run_goes_on_in_the_same_log_with_each_epoch_once(writer: type[AbstractWriter], here: Path) -> None:
    run(tiny(), here / "plain")
    paths = {"PYTHONPATH": str(Path(__file__).parents[1])}
    killed = subprocess.run([sys.executable, "-c", KILLED, writer.name], env=os.environ | paths, check=False)
    assert killed.returncode == -signal.SIGKILL
    run(tiny(), here / "run", observer=writer(), resume=True)
    assert records_of(here / "run") == records_of(here / "plain")
    points = READ[writer.name](here / "run.watch/seed-0")
    records = read_records(here / "run/seeds/0/records.jsonl")
    for task in ("digits-0", "digits-1"):
        epochs = [r for r in of_kind(records, EpochRecord) if r.task == task]
        assert points[task]["loss"] == [(r.epoch, pytest.approx(r.loss)) for r in epochs]
        assert points[task]["valid_accuracy"] == [(r.epoch, pytest.approx(r.valid_accuracy)) for r in epochs]
        assert [value for _, value in points[task]["layers_owned"]] == [r.configuration.count("S") for r in epochs]
    tasks = list(of_kind(records, TaskRecord))
    after = points["after each task"]
    assert after["peak_accuracy"] == [(r.index + 1, pytest.approx(r.peak_accuracy)) for r in tasks]
    assert [step for step, _ in after["accuracy/digits-0"]] == [1, 2]


def test_a_growing_model_has_its_log_next_to_it(writer: type[AbstractWriter], tmp_path: Path) -> None:
    model, photos = small_model(tmp_path / "model"), write_digits(tmp_path / "photos", (0, 1))
    small_model(tmp_path / "plain").learn("digits-1", photos)
    model.learn("digits-1", photos, observer=writer())
    model.learn("b", write_digits(tmp_path / "other", (2, 3)), observer=writer())
    points = READ[writer.name](tmp_path / "model.watch")
    expected = model.records()
    for task in ("digits-1", "b"):
        losses = [r.loss for r in of_kind(expected[task], EpochRecord)]
        assert points[task]["loss"] == [(number, pytest.approx(loss)) for number, loss in enumerate(losses, start=1)]
    plain = GrowingModel(tmp_path / "plain").records()
    assert plain["digits-1"] == expected["digits-1"]


def test_a_writer_that_fails_says_so_once_and_changes_nothing(writer: type[AbstractWriter], here: Path) -> None:
    run(tiny(1), here / "plain")
    (here / "run.watch").write_text("a file where the folder would be")
    seen = Notes()
    run(tiny(1), here / "run", observer=writer(seen))
    (said,) = (note for note in seen.notes if "can write no more" in note)
    assert said.startswith(writer.__name__)
    assert said.endswith("Training goes on without it.")
    assert records_of(here / "run") == records_of(here / "plain")


@pytest.mark.parametrize("writer", WRITERS.values())
def test_what_is_not_installed_is_said_before_anything_is_trained(
    writer: type[AbstractWriter], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, writer.module, None)
    with pytest.raises(ConfigError, match=rf"Install it: pip install 'lasem\[{writer.name}\]'"):
        writer()


def test_the_commands_write_for_tensorboard(here: Path, lasem: Any) -> None:
    pytest.importorskip("tensorboard")
    words = "--stream.num_tasks 1 --stream.train_per_class 4 --training.epochs 2 --watch tensorboard"
    quick = words.split()
    lasem("run", *quick, "--out", "run")
    lasem("compare", *quick, "--methods", "none", "--out", "both")
    lasem("learn", "model", "--task", "a", "--train", str(write_digits(here / "a", (0, 1))), *quick[4:])
    for place in ("run.watch/seed-0", "both/none-0.watch/seed-0", "model.watch"):
        points = in_tensorboard(here / place)
        assert [len(curves["loss"]) for name, curves in points.items() if name != "after each task"] == [2], place
    assert not [name for name in files_in(here / "model") if "tensorboard" in name]
    refused = lasem("run", *quick[:-1], "tensorbord", "--out", "no", code=2).err
    assert "Did you mean 'tensorboard'?" in refused
    assert not (here / "no").exists()


def test_the_writers_are_named_as_the_extras_are() -> None:
    assert {TensorBoard, WandB, MLflow} == set(WRITERS.values())


def test_a_task_that_is_learned_again_begins_its_curve_anew(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    model, more = small_model(tmp_path / "model"), write_digits(tmp_path / "more", (0, 1), count=16)
    model.learn("a", write_digits(tmp_path / "photos", (0, 1)), observer=TensorBoard())
    before = in_tensorboard(tmp_path / "model.watch")["a"]["loss"]
    model.learn("a", more, update=True, observer=TensorBoard())
    losses = [record.loss for record in of_kind(model.records()["a"], EpochRecord)]
    found = in_tensorboard(tmp_path / "model.watch")["a"]["loss"]
    assert found == [(number, pytest.approx(loss)) for number, loss in enumerate(losses, start=1)]
    assert found != before
