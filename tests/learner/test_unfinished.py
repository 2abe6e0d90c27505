"""What is kept of a task under way: gone on with, thrown away, and guarded as the rest of a model's folder."""

import json
import os
import re
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from forks import Forked

from lasem import Fixed, GrowingModel, Learner, TrainingConfig
from lasem.errors import ConfigError, LasemError, MovedError, StorageError, TaskError
from lasem.learner.unfinished import Unfinished
from lasem.methods import EWC
from lasem.records import EpochRecord, TimingRecord

from .fixture import memory_grows_by_less_than, tiny_task
from .images import Watching, model_files, small_model, stop

OTHER = TrainingConfig(epochs=4, batch_size=4, learning_rate=0.02)


@pytest.fixture(scope="module")
def model(images: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("model") / "model"
    small_model(place).learn("low", images / "low")
    return place


@pytest.fixture(scope="module")
def stopped(model: Path, images: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = Path(shutil.copytree(model, tmp_path_factory.mktemp("stopped") / "model"))
    stop(small_model(place, training=OTHER), "mid", images / "mid", valid=images / "mid-test")
    return place


@pytest.fixture
def begun(stopped: Path, tmp_path: Path) -> Path:
    """A copy of a model that has begun to learn a second task."""
    return Path(shutil.copytree(stopped, tmp_path / "begun"))


@pytest.mark.parametrize("made", [{}, {"method": EWC(), "search": None}], ids=["lasem", "ewc"])
@pytest.mark.parametrize("first", [True, False])
def test_it_goes_on_with_what_was_begun_to_the_same_bits(
    first: bool, made: dict[str, Any], images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("whole", "stopped"):
        if not first:
            small_model(tmp_path / name, **made).learn("low", images / "low")
    monkeypatch.chdir(images)
    given = ("mid", Path("mid")), {"valid": Path("mid-test")}
    small_model(tmp_path / "whole", training=OTHER, **made).learn(*given[0], **given[1])
    stop(small_model(tmp_path / "stopped", training=OTHER, **made), *given[0], **given[1])
    monkeypatch.chdir(tmp_path)
    begun = GrowingModel(tmp_path / "stopped").settings(begun=True)
    assert begun is not None
    assert begun["training"]["epochs"] == 4
    notes: list[str] = []
    assert GrowingModel(tmp_path / "stopped").learn(resume=True, observer=Watching(notes)).name == "mid"
    assert "was interrupted after epoch 2; going on" in "\n".join(notes)
    assert model_files(tmp_path / "stopped") == model_files(tmp_path / "whole")
    assert GrowingModel(tmp_path / "stopped").show().unfinished is None


def test_the_test_images_may_be_others_and_nothing_else(begun: Path, images: Path, tmp_path: Path) -> None:
    resume = GrowingModel(begun).learn
    for given, more, message in (
        (("mid", images / "low"), {"valid": images / "low-test"}, r"classes \(digit-2"),
        ((None, images / "mid-test"), {}, "training images .*Give the same images and go on with --resume"),
        (("mid",), {"valid": images / "mid"}, "validation images"),
        (("low", images / "low"), {}, r"Task 'mid' in .* is not finished.* --resume"),
    ):
        with pytest.raises(StorageError, match=message):
            resume(*given, resume=True, **more)
    with pytest.raises(StorageError, match=r"training.epochs \(4 before, 9 now\).*Leave those options out"):
        small_model(begun, training=TrainingConfig(epochs=9)).learn(resume=True)
    with pytest.raises(StorageError, match=r"training.epochs \(4 before, 3 now\).* --resume"):
        resume("mid", images / "mid", valid=images / "mid-test")  # the model's usual training
    for wrong in ({"resume": True, "restart": True}, {"resume": True, "update": True}, {}):
        with pytest.raises(ConfigError, match="resume"):
            resume(**wrong)  # type: ignore[arg-type]
    learned = resume("mid", test=images / "mid-test", resume=True)
    assert (learned.num_test, learned.training["epochs"]) == (9, 4)
    with pytest.raises(StorageError, match=r"Expected an unfinished task in .*; there is none"):
        resume(resume=True)
    with pytest.raises(StorageError, match="Expected a model in"):
        small_model(tmp_path / "nowhere").learn(resume=True)
    assert not (tmp_path / "nowhere").exists()


def test_images_in_memory_are_given_again(place: Path) -> None:
    task = tiny_task("a", shape=(1, 8, 8))
    stop(small_model(place), "a", task)
    with pytest.raises(StorageError, match="was begun with images in memory"):
        GrowingModel(place).learn(resume=True)
    assert small_model(place).learn("a", task, resume=True).name == "a"


def test_a_class_of_ones_own_is_given_again(images: Path, tmp_path: Path) -> None:
    from .fixture import MovingPrior

    stop(small_model(tmp_path / "m", search=MovingPrior()), "low", images / "low")
    with pytest.raises(StorageError, match="moving-prior"):
        GrowingModel(tmp_path / "m").learn(resume=True)
    GrowingModel(tmp_path / "m", search=MovingPrior()).learn(resume=True)


def test_a_new_version_takes_the_place_of_the_old_one_when_it_is_done(place: Path, images: Path) -> None:
    before = model_files(place)
    with pytest.raises(TaskError, match=r"has been learned already.*--update"):
        small_model(place).learn("low", images / "mid")
    with pytest.raises(TaskError, match=r"'other' has not been learned \(learned: low\)"):
        small_model(place).learn("other", images / "mid", update=True)
    whole = Path(shutil.copytree(place, place.with_name("whole")))
    small_model(whole).learn("low", images / "mid", update=True)
    stop(small_model(place), "low", images / "mid", update=True)
    assert model_files(place) == before
    assert GrowingModel(place).show().unfinished == "low"
    assert len(list(GrowingModel(place).predict("low", [images / "low"]))) == 16
    with pytest.raises(TaskError, match="has been learned already"):
        small_model(place).learn("low", images / "mid")
    GrowingModel(place).learn(resume=True)
    assert model_files(place) == model_files(whole) != before
    assert [len(task.classes) for task in GrowingModel(place).show().tasks] == [3]
    stop(small_model(place), "low", images / "low", update=True)
    assert small_model(place).forget("low") is False  # the update alone
    assert model_files(place) == model_files(whole)
    assert small_model(place).forget("low") is True


def test_an_update_stopped_between_its_last_two_steps_is_done(place: Path, images: Path, monkeypatch: Any) -> None:
    with monkeypatch.context() as patch:
        patch.setattr("lasem.learner.unfinished.Unfinished.remove", lambda self: None)
        small_model(place).learn("low", images / "mid", update=True)
    assert (place / ".learning/learning.json").exists()
    assert GrowingModel(place).show().unfinished is None
    notes: list[str] = []
    GrowingModel(place).learn(resume=True, observer=Watching(notes))
    assert "learned to its end" in notes[0]
    assert not (place / ".learning").exists()


@pytest.mark.parametrize("seconds", [0, 1000])
def test_a_checkpoint_is_written_now_and_then_and_when_learning_is_stopped(
    seconds: float, place: Path, images: Path
) -> None:
    seen: list[bool] = []

    def watch(record: EpochRecord, _: TimingRecord) -> None:
        seen.append((place / ".learning/checkpoint.json").exists())
        if record.epoch == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        small_model(place, checkpoint_seconds=seconds).learn("mid", images / "mid", observer=Watching(epoch_ends=watch))
    assert seen == [seconds == 0] * 2
    notes: list[str] = []
    GrowingModel(place).learn(resume=True, observer=Watching(notes))
    assert "was interrupted after epoch 2; going on" in "\n".join(notes)


@pytest.mark.parametrize("gone", [False, True])
def test_a_folder_that_is_moved_meanwhile_is_not_written_again(gone: bool, place: Path, images: Path) -> None:
    moved, before = place.with_name("moved"), model_files(place)
    seen: list[str] = []

    def move() -> None:
        shutil.rmtree(place) if gone else place.rename(moved)

    def watch(record: EpochRecord, _: TimingRecord) -> None:
        if record.epoch == 1:
            move()

    with pytest.raises(MovedError, match=r"was moved or removed in the meantime.*--resume"):
        small_model(place).learn("mid", images / "mid", observer=Watching(seen, epoch_ends=watch))
    assert not place.exists()
    if not gone:
        assert model_files(moved) == before
        GrowingModel(moved).learn(resume=True, observer=Watching(seen))
        assert "after epoch 1" in "\n".join(seen)


def write_state(begun: Path, **changes: Any) -> Path:
    """Change what a checkpoint says; the file of its tensors."""
    index = json.loads((begun / ".learning/checkpoint.json").read_text())
    index["tensors"] |= changes
    (begun / ".learning/checkpoint.json").write_text(json.dumps(index))
    return begun / ".learning" / index["tensors"]["file"]


def pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def link(path: Path) -> None:
    path.unlink()
    path.symlink_to("/dev/zero")


DAMAGE: dict[str, Callable[[Path], object]] = {
    "pipe": pipe,
    "zero": link,
    "nested": lambda path: path.write_text("[" * 10**6),
    "nested objects": lambda path: path.write_text('{"a":' * 10**6),
    "infinite": lambda path: path.write_text(path.read_text().replace(": 2", ": 1e999").replace(": 0", ": 1e999")),
    "terabyte": lambda path: os.truncate(path, 10**12),
    "empty": lambda path: path.write_text(""),
    "other": lambda path: path.write_text('{"task": "mid", "begun": [3], "model": 7}'),
}


@pytest.mark.parametrize("damage", DAMAGE)
@pytest.mark.parametrize("name", ["learning.json", "checkpoint.json"])
def test_a_damaged_file_is_an_error_or_a_new_start(name: str, damage: str, begun: Path, images: Path) -> None:
    DAMAGE[damage](begun / ".learning" / name)
    given = ("mid", images / "mid"), {"valid": images / "mid-test"}
    with memory_grows_by_less_than(300):
        GrowingModel(begun).show()
        for more in ({"resume": True}, {}, {"restart": True}):
            with suppress(LasemError):
                small_model(begun, training=OTHER).learn(*given[0], **given[1], **more)
                break
    assert Learner.load(begun).task_names == ("low", "mid")


@pytest.mark.parametrize("stated", [{}, {"bytes": 10**12}, {"bytes": float("nan")}], ids=str)
@pytest.mark.parametrize("damage", ["pipe", "zero", "terabyte"])
def test_a_state_that_is_no_state_is_passed_over(damage: str, stated: dict[str, float], begun: Path) -> None:
    DAMAGE[damage](write_state(begun, **stated))
    notes: list[str] = []
    with memory_grows_by_less_than(300):
        GrowingModel(begun).learn(resume=True, observer=Watching(notes))
    assert "before the end of its first epoch; going on" in "\n".join(notes)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("loop", "progress", "num_epochs"), "x"),
        (("loop", "progress", "num_epochs"), 1e999),
        (("loop", "progress"), None),
        (("loop", "best"), None),
        (("loop", "optimiser"), []),
        (("loop", "phase", "committed"), 10**9),
        (("loop", "order"), {"tensor": "loop.dropout.x"}),
        (("finished",), 3),
        (("finished",), [None, {}]),
        (("loop",), [[]]),
    ],
    ids=lambda value: str(value)[:40],
)
def test_a_state_of_another_kind_is_an_error(path: tuple[str, ...], value: Any, begun: Path) -> None:
    file = begun / ".learning/checkpoint.json"
    index = json.loads(file.read_text())
    part = index["state"]
    for key in path[:-1]:
        part = part[key]
    assert path[-1] in part
    part[path[-1]] = value
    file.write_text(json.dumps(index))
    before = model_files(begun)
    with pytest.raises(StorageError, match=r"^[^\n]*$"):
        GrowingModel(begun).learn(resume=True)
    assert model_files(begun) == before


def test_nothing_is_written_or_removed_through_links(begun: Path, images: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / ".a.b.tmp").write_text("mine")
    shutil.rmtree(begun / ".learning")
    (begun / ".learning").symlink_to(outside)
    with pytest.raises(StorageError, match=r"Cannot remove .*\.learning"):
        small_model(begun).learn("mid", images / "mid")
    assert [path.name for path in outside.iterdir()] == [".a.b.tmp"]
    assert GrowingModel(begun).show().unfinished is None


def as_nobody(code: str, model: Path) -> str:
    """What Python prints for an expression of ``model`` as a user who owns nothing; root may do everything."""
    if os.geteuid() != 0:
        pytest.skip("only root can become another user")
    script = f"""
import os
from lasem import GrowingModel
from lasem.errors import LasemError
model = GrowingModel({str(model)!r})
model.show()
os.setgid(65534)
os.setuid(65534)
try:
    print({code})
except LasemError as error:
    print("refused:", error)
"""
    done = Forked("-c", script, folder=model).ended()
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("mode", [0o700, 0o755])
def test_what_another_user_has_begun_is_not_called_forgotten(mode: int, begun: Path) -> None:
    (begun / ".learning").chmod(mode)
    for folder in (begun, begun / "parts"):
        folder.chmod(0o777)
    for folder in begun.parents:
        if folder.owner() == "root" and folder != Path("/tmp"):
            folder.chmod(folder.stat().st_mode | 0o055)
    (begun / ".lock").unlink(missing_ok=True)
    said = as_nobody("model.forget('mid')", begun)
    assert said.startswith("refused: ")
    assert "Permission denied" in said
    assert (begun / ".learning/learning.json").exists()
    assert GrowingModel(begun).show().unfinished == "mid"


ASK = {
    "show": "model.show()",
    "predict": "list(model.predict('low', ['x.png']))",
    "evaluate": "model.evaluate('low', 'x')",
    "export": "model.export('low', 'torch', 'x')",
    "forget": "model.forget('low')",
    "learn": "model.learn('new', 'x')",
    "resume": "model.learn(resume=True)",
}


@pytest.mark.parametrize("ask", ASK.values(), ids=ASK)
@pytest.mark.parametrize("where", ["long", "longest", "zero", "unreadable"])
def test_a_folder_that_cannot_be_looked_into_is_an_error(where: str, ask: str, begun: Path, tmp_path: Path) -> None:
    if where == "unreadable":
        begun.chmod(0o700)
        assert re.match("refused: .*Permission denied", as_nobody(ask, begun))
        return
    name = {"long": "x" * 300, "longest": "x" * 5000, "zero": "a\0b"}[where]
    with pytest.raises(LasemError, match=r"^[^\n]*$"):
        eval(ask, {"model": GrowingModel(tmp_path / name)})


def test_fixed_search_is_remembered_for_a_first_task(images: Path, tmp_path: Path) -> None:
    stop(small_model(tmp_path / "m", search=Fixed("none")), "low", images / "low")
    assert GrowingModel(tmp_path / "m").learn(resume=True).configuration == "SS"


def test_what_a_kill_after_the_last_step_has_left_is_removed_when_learning_goes_on(
    place: Path, images: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The old version of an updated task, which nothing names any more."""
    whole = Path(shutil.copytree(place, place.with_name("whole")))
    small_model(whole).learn("low", images / "mid", update=True)
    old = {path.name: path.read_bytes() for path in (place / "parts").iterdir()}
    with monkeypatch.context() as patch:
        patch.setattr(Unfinished, "remove", lambda self: None)
        small_model(place).learn("low", images / "mid", update=True)
    for name, data in old.items():
        (place / "parts" / name).write_bytes(data)
    GrowingModel(place).learn(resume=True)
    assert model_files(place) == model_files(whole)
