"""A model in a folder: learned into, asked, forgotten from; stopped and gone on with."""

import json
import shutil
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from filelock import FileLock
from PIL import Image
from safetensors.torch import load
from sklearn.datasets import load_digits

from lasem import EM, Fixed, GrowingModel, Learner, Task, TensorFactorization, TrainingConfig, cifar
from lasem.data.sources import Source, task_from
from lasem.errors import ConfigError, DataError, LasemError, StorageError, TaskError
from lasem.learner import plain_network
from lasem.learner.model_folder import sealed
from lasem.learner.unfinished import Unfinished
from lasem.methods import PROTECTIONS, WSN, Freeze

from .fixture import changed_index, tiny_task
from .images import Watching, model_files, small_model, small_net, stop, write_digits


@pytest.fixture(scope="module")
def model(images: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two tasks."""
    place = tmp_path_factory.mktemp("model") / "model"
    grown = small_model(place)
    grown.learn("low", images / "low", test=images / "low-test")
    grown.learn("mid", images / "mid")
    return place


def test_it_is_the_learner_of_the_same_tasks(model: Path, images: Path) -> None:
    learner = Learner.load(model)
    assert learner.task_names == ("low", "mid")
    files = sorted(str(path) for path in (images / "mid").rglob("*.png"))
    pixels = torch.stack([torch.from_numpy(np.array(Image.open(path))) for path in files]).unsqueeze(1)
    probabilities = learner.predict("mid", pixels, probabilities=True)
    answers = list(GrowingModel(model).predict("mid", [images / "mid"], top=3))
    assert [answer.image for answer in answers] == files
    for answer, row in zip(answers, probabilities, strict=True):
        assert answer.classes == tuple(learner.classes("mid")[k] for k in row.argsort(descending=True))
        assert answer.probabilities == tuple(row.sort(descending=True).values.tolist())
    measured = GrowingModel(model).evaluate("mid", images / "mid")
    right = sum(answer.classes[0] == Path(answer.image).parent.name for answer in answers)
    assert (measured.num_images, measured.num_right, measured.accuracy) == (24, right, right / 24)
    assert {name: count for name, (count, _) in measured.by_class.items()} == dict.fromkeys(learner.classes("mid"), 8)
    assert sum(right for _, right in measured.by_class.values()) == right


def task_of(folder: Path) -> Task:
    """As a growing model reads it."""
    return task_from("task", Source(path=str(folder)), image_size=8, channels=1, seed=5)


def test_hidden_folders_are_passed_over(model: Path, images: Path, tmp_path: Path, monkeypatch: Any) -> None:
    shutil.copytree(images / "mid", tmp_path / "photos")
    shutil.copytree(images / "mid", tmp_path / "photos/.thumbnails")
    monkeypatch.setenv("HOME", str(tmp_path))
    grown = GrowingModel(model)
    answers = list(grown.predict("mid", ["~/photos"]))
    assert len(answers) == len(list((images / "mid").rglob("*.png")))
    one = answers[0].image
    (alone,) = grown.predict("mid", [f"~/{Path(one).relative_to(tmp_path)}"])
    assert (alone.image, alone.classes) == (one, answers[0].classes)
    assert alone.probabilities == pytest.approx(answers[0].probabilities)  # sums of one image or many may be rounded


def test_show_says_what_there_is(model: Path) -> None:
    learner, overview = Learner.load(model), GrowingModel(model).show()
    low, mid = overview.tasks
    assert (low.name, low.num_train, low.num_valid, low.num_test) == ("low", 14, 2, 6)
    assert (mid.classes, mid.num_test, mid.test_accuracy) == (learner.classes("mid"), 0, None)
    assert low.test_accuracy is not None
    assert low.configuration == learner.configuration("low")
    assert [task.num_parameters for task in overview.tasks] == [learner.num_parameters(n) for n in ("low", "mid")]
    numbers = (overview.num_parameters, overview.num_shared_parameters, overview.num_bytes)
    assert numbers == (learner.num_parameters(), learner.model.num_shared(), sum(map(len, model_files(model).values())))
    assert (overview.image_shape, overview.depth, overview.unfinished) == ((1, 8, 8), 2, None)


@pytest.mark.parametrize("protection", PROTECTIONS)
def test_show_says_what_is_kept_and_what_that_costs(protection: str, images: Path, tmp_path: Path) -> None:
    grown = small_model(tmp_path, protect=PROTECTIONS[protection](), search=Fixed("all"))
    for name in ("low", "mid", "high"):
        told = grown.learn(name, images / name, test=images / f"{name}-test")
        assert told.test_accuracy_now == told.test_accuracy is not None
    overview, learner = grown.show(), Learner.load(tmp_path)
    for task in overview.tasks:
        measured = grown.evaluate(task.name, images / f"{task.name}-test").accuracy
        assert task.test_accuracy_now == (measured if overview.keeps else None)
    assert overview.keeps == (protection in ("freeze", "branch"))
    latest = sum(learner.net.blocks[layer].num_parameters for layer in range(2))
    kept = {"branch": 2 * latest}.get(protection, 0)  # each of the two later tasks changes every layer
    assert (overview.num_kept_parameters, overview.num_shared_parameters) == (kept, kept + latest)


def test_a_test_split_does_not_change_what_is_learned(images: Path, tmp_path: Path) -> None:
    small_model(tmp_path / "with").learn("low", images / "low", test=images / "low-test")
    small_model(tmp_path / "without").learn("low", images / "low")
    answers = [Learner.load(tmp_path / name).logits("low", torch.ones(1, 1, 8, 8)) for name in ("with", "without")]
    assert torch.equal(*answers)


@pytest.mark.parametrize(
    ("first", "epoch", "in_memory"), [(True, 1, False), (True, 3, True), (False, 1, True), (False, 3, False)]
)
def test_an_interrupted_task_goes_on_to_the_same_bits(
    first: bool, epoch: int, in_memory: bool, model: Path, images: Path, tmp_path: Path
) -> None:
    given = tiny_task("a", shape=(1, 8, 8), num_train=12) if in_memory else images / "high"
    places = [tmp_path / name for name in ("whole", "stopped")]
    for place in () if first else places:
        shutil.copytree(model, place)
    small_model(places[0]).learn("high", given)
    grown, notes = small_model(places[1]), list[str]()
    stop(grown, "high", given, epoch=epoch)
    assert model_files(places[1]) == ({} if first else model_files(model))
    assert Unfinished(places[1]).task == "high"
    if first:
        with pytest.raises(StorageError, match=r"there is no model yet. Go on with it: lasem learn .*stopped --resume"):
            grown.show()
    else:
        assert grown.show().unfinished == "high"
    grown.learn("high", given, observer=Watching(notes))
    assert notes[1] == f"Task 'high' was interrupted after epoch {epoch}; going on."
    assert notes[2].endswith(": search 'em' chose it among 4 configurations.")
    assert model_files(places[1]) == model_files(places[0])
    assert not (places[1] / ".learning").exists()


def test_an_unfinished_task_goes_on_with_the_same_only(model: Path, place: Path, images: Path) -> None:
    grown, high = small_model(place), images / "high"
    stop(grown, "high", high)
    for name, given, more, message in (
        ("high", high, {"valid": images / "high-test"}, r"validation images \(2 images before, 6 images.* --restart"),
        ("high", images / "low", {}, r"classes \(digit-5,digit-6 before, digit-0,digit-1 now\)"),
        ("high", tiny_task("a", shape=(1, 8, 8)), {}, r"training images"),
        ("other", images / "low", {}, r"Task 'high' in .* is not finished.*lasem forget .* --task high"),
        ("other", images / "low", {"restart": True}, r"Task 'high' in .* is not finished"),
    ):
        with pytest.raises(StorageError, match=message):
            grown.learn(name, given, **more)
    with pytest.raises(StorageError, match=r"Task 'high' in .* is not finished"):
        grown.forget("low")
    with pytest.raises(DataError):
        grown.learn("high", images / "nowhere", restart=True)
    assert model_files(place) == model_files(model)
    reached = Unfinished(place).reached()
    assert reached.num_epochs == 2  # nothing has been thrown away
    grown.learn("high", high, valid=images / "high-test", restart=True)
    assert grown.show().tasks[-1].num_valid == 6
    stop(grown, "more", high)
    grown.forget("more")
    assert grown.show().unfinished is None
    grown.learn("more", images / "low")


def test_a_first_task_goes_on_with_the_same_settings_only(images: Path, tmp_path: Path) -> None:
    stop(small_model(tmp_path / "new"), "low", images / "low", epoch=1)
    other = small_model(tmp_path / "new", seed=6, training=TrainingConfig(epochs=4), sharing=TensorFactorization())
    with pytest.raises(StorageError, match=r"seed \(5 before, 6 now\).*sharing \(hps before, tf now\).*epochs \(3 bef"):
        other.learn("low", images / "low")
    with pytest.raises(TaskError, match=r"unfinished: low"):
        other.forget("other")
    other.learn("low", images / "low", restart=True)
    assert other.show().settings["seed"] == 6


def test_what_a_finished_task_left_behind_is_in_nobodys_way(model: Path, images: Path, tmp_path: Path) -> None:
    for number, act in enumerate((lambda m: m.learn("high", images / "high"), lambda m: m.forget("mid"))):
        place = Path(shutil.copytree(model, tmp_path / str(number)))
        Unfinished(place).begin({"task": "low"})
        grown = small_model(place)
        assert grown.show().unfinished is None
        act(grown)
        assert "low" in Learner.load(place).task_names
        assert Unfinished(place).task is None
    Unfinished(place).begin({"task": "low"})
    small_model(place).forget("low")
    assert Learner.load(place).task_names == ()


def test_a_folder_of_other_things_is_not_touched(images: Path, tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub/.notes.1.tmp").write_text("mine")
    (tmp_path / "thesis.txt").write_text("mine")
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(StorageError, match="thesis"):
        small_model(tmp_path).learn("low", images / "low")
    assert sorted(tmp_path.rglob("*")) == before


def test_a_kill_between_the_last_two_steps_is_an_end(model: Path, place: Path, images: Path) -> None:
    Unfinished(place).begin({"task": "mid"})
    notes: list[str] = []
    assert small_model(place).learn("mid", images / "mid", observer=Watching(notes)).name == "mid"
    assert "learned to its end" in notes[0]
    assert model_files(place) == model_files(model)
    assert not (place / ".learning").exists()


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ({"seed": 6}, "seed = 5; got 6"),
        ({"sharing": TensorFactorization()}, "sharing = hps; got tf"),
        ({"protect": Freeze()}, "protect = branch; got freeze"),
        ({"search": EM()}, "search.first_task = search; got all"),
        ({"search": EM(first_task="search")}, "search.commit_share = 0.5; got none"),
        ({"net": cifar}, "net.hidden = 6; got 64"),
        ({"image_size": 9}, "image_size = 8; got 9"),
        ({"channels": 3}, "channels = 1; got 3"),
    ],
    ids=lambda value: "" if isinstance(value, dict) else value,
)
def test_settings_are_those_of_the_first_task(other: dict[str, Any], message: str, model: Path, images: Path) -> None:
    before = model_files(model)
    with pytest.raises(ConfigError, match=message):
        small_model(model, **other).learn("high", images / "high")
    assert model_files(model) == before
    held = GrowingModel(model).settings()
    assert (held["training"]["epochs"], held["protect"]) == (3, {"name": "branch"})  # which nobody asked for


def test_each_task_is_trained_as_was_said_for_it(model: Path, place: Path, images: Path) -> None:
    """What was said for the first task is usual; it is what a later one is trained with if nothing is said."""
    other = TrainingConfig(epochs=5, batch_size=4, learning_rate=0.02, weight_decay=0.01)
    different = {"epochs": 5, "batch_size": 4, "learning_rate": 0.02, "weight_decay": 0.01}
    learned = small_model(place, training=other).learn("the third", images / "high")
    assert learned.training == different
    assert GrowingModel(place).learn("fourth", images / "high").training == {}
    overview, learner = GrowingModel(place).show(), Learner.load(place)
    assert [task.training for task in overview.tasks] == [{}, {}, different, {}]
    assert overview.settings["training"]["epochs"] == learner.training.epochs == 3
    assert [learner.info(name).training.epochs for name in learner.task_names] == [3, 3, 5, 3]
    by_hand = Learner.load(model)
    for name, training in (("the third", other), ("fourth", None)):
        by_hand.learn(replace(task_of(images / "high"), name=name), training=training)
        x = torch.rand(4, 1, 8, 8)
        assert torch.equal(by_hand.logits(name, x), learner.logits(name, x))
    with pytest.raises(ConfigError, match="epochs must be at least 1"):
        small_model(place, training=TrainingConfig(epochs=0))


@pytest.mark.parametrize(
    ("made", "training", "message"),
    [
        ({"method": WSN(), "search": None}, TrainingConfig(weight_decay=0.1), "weight_decay"),
        ({}, TrainingConfig(batch_size=500, drop_last=True), "batch_size must be at most"),
    ],
)
def test_training_that_cannot_begin_leaves_nothing_begun(
    made: dict[str, Any], training: TrainingConfig, message: str, images: Path, tmp_path: Path
) -> None:
    small_model(tmp_path / "model", training=TrainingConfig(epochs=1), **made).learn("low", images / "low")
    before = model_files(tmp_path / "model")
    with pytest.raises(ConfigError, match=message):
        small_model(tmp_path / "model", training=training, **made).learn("mid", images / "mid")
    assert model_files(tmp_path / "model") == before
    assert Unfinished(tmp_path / "model").task is None


def test_a_model_that_was_saved_without_protection_goes_on_without(images: Path, tmp_path: Path) -> None:
    Learner(small_net((1, 8, 8))).save(tmp_path)
    GrowingModel(tmp_path).learn("low", images / "low")
    assert GrowingModel(tmp_path).show().settings["protect"] == {"name": "none"}


def test_names_are_new_and_known(model: Path, images: Path, tmp_path: Path) -> None:
    grown = small_model(model)
    with pytest.raises(TaskError, match="Task 'low' has been learned already"):
        grown.learn("low", images / "high")
    for bad in ("../x", "", "a/b", "..", "x" * 101, "ä", " a", "a ", "a\n", "a\tb"):
        with pytest.raises(DataError, match="Expected a task name"):
            grown.learn(bad, images / "high")
    for ask in (
        lambda: grown.predict("hihg", [images / "low"]),
        lambda: grown.evaluate("hihg", images / "low"),
        lambda: grown.forget("hihg"),
        lambda: grown.export("hihg", "torch", tmp_path),
    ):
        with pytest.raises(TaskError, match="'hihg' has not been learned"):
            ask()


def test_where_no_model_is(images: Path, tmp_path: Path) -> None:
    nowhere, empty = GrowingModel(tmp_path / "nowhere"), GrowingModel(tmp_path)
    for model in (nowhere, empty):
        for ask in (model.show, lambda m=model: m.forget("a"), lambda m=model: m.predict("a", [images / "low"])):
            with pytest.raises(StorageError, match=r"Expected a .*model"):
                ask()
    for wrong in (
        lambda: small_model(tmp_path / "nowhere").learn("a", tmp_path / "typo"),
        lambda: small_model(tmp_path / "nowhere").learn("a", images / "low" / "digit-0"),
        lambda: small_model(tmp_path / "nowhere", device="gpu").learn("a", images / "low"),
        lambda: small_model(tmp_path / "nowhere", search=EM(groups=(9,))).learn("a", images / "low"),
    ):
        with pytest.raises(LasemError):
            wrong()
    assert not list(tmp_path.iterdir())  # no folder is left behind


def test_the_second_to_change_gives_up_or_waits(place: Path, images: Path) -> None:
    lock = FileLock(place / ".lock", thread_local=False)
    with lock:
        for wait, words in ((0, "Another process is changing the model in .*--wait"), (0.1, "for 0.1 seconds")):
            with pytest.raises(StorageError, match=words):
                small_model(place).learn("high", images / "high", wait=wait)
            with pytest.raises(StorageError, match=words):
                small_model(place).forget("low", wait=wait)
        assert len(GrowingModel(place).show().tasks) == 2  # readers ask for nothing
    lock.acquire()
    threading.Timer(0.1, lock.release).start()
    small_model(place).forget("low", wait=60)
    assert [task.name for task in GrowingModel(place).show().tasks] == ["mid"]


def test_a_task_called_like_a_file_that_was_left_is_no_such_file(images: Path, tmp_path: Path) -> None:
    place = tmp_path / "model"
    small_model(place).learn(".a.tmp", images / "low")
    (place / "parts" / ".left.1.tmp").write_bytes(b"half")
    small_model(place).forget(".a.tmp")
    assert not list(place.glob("parts/*"))


def test_readers_are_never_disturbed(place: Path, images: Path) -> None:
    ended, errors, num_read = threading.Event(), list[BaseException](), 0

    def read() -> None:
        nonlocal num_read
        while not ended.is_set():
            try:
                Learner.load(place)
                assert len(GrowingModel(place).show().tasks) in (2, 3)
                assert len(list(GrowingModel(place).predict("mid", [images / "mid"]))) == 24
                num_read += 1
            except BaseException as error:
                errors.append(error)
                return

    reader = threading.Thread(target=read)
    reader.start()
    try:
        for _ in range(4):
            small_model(place).learn("high", images / "high")
            small_model(place).forget("high")
    finally:
        ended.set()
        reader.join()
    assert not errors
    assert num_read > 0


def test_images_of_any_size_and_colour_are_made_to_fit(model: Path, tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (20, 33, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "photo.JPG")
    (tmp_path / "notes.txt").write_text("no image")
    (tmp_path / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n broken")
    skipped, notes = list[str](), list[str]()
    answers = GrowingModel(model).predict(
        "low", [tmp_path], skip=lambda path, _: skipped.append(path), note=notes.append
    )
    assert [answer.image for answer in answers] == [str(tmp_path / "photo.JPG")]
    assert notes == [f"Left out of {tmp_path}: 1 of type .txt."]
    assert skipped == [str(tmp_path / "broken.png")]
    with pytest.raises(DataError, match=r"broken\.png"):
        list(GrowingModel(model).predict("low", [tmp_path]))
    with pytest.raises(ConfigError, match="top must be at least 1"):
        GrowingModel(model).predict("low", [], top=0)


def test_the_first_images_make_the_shape_unless_it_is_given(images: Path, tmp_path: Path) -> None:
    colour, generator = tmp_path / "colour", np.random.default_rng(0)
    for number in range(6):
        (colour / "ab"[number % 2]).mkdir(parents=True, exist_ok=True)
        pixels = generator.integers(0, 256, (10, 10, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(colour / "ab"[number % 2] / f"{number}.png")
    small_model(tmp_path / "found").learn("a", colour)
    assert GrowingModel(tmp_path / "found").show().image_shape == (3, 10, 10)
    small_model(tmp_path / "given", image_size=6, channels=1).learn("a", colour)
    assert GrowingModel(tmp_path / "given").show().image_shape == (1, 6, 6)
    small_model(tmp_path / "found").learn("grey", images / "low")  # other sizes and colours are made to fit


def test_what_was_left_out_is_said_and_stored_with_the_task(images: Path, tmp_path: Path) -> None:
    place = Path(shutil.copytree(images / "low", tmp_path / "low"))
    (place / "digit-0/gone.png").symlink_to(tmp_path / "nowhere")
    (place / "digit-1/cut.png").write_bytes(b"\x89PNG")
    grown, notes = small_model(tmp_path / "m"), list[str]()
    with pytest.raises(DataError, match=r"digit-1/cut\.png cannot"):
        grown.learn("low", place)
    learned = grown.learn("low", Source(path=str(place), skip_damaged=True), observer=Watching(notes))
    assert learned.left_out == ("1 damaged", "1 dangling link")
    said = "Task 'low': 14 images to train with, 2 to validate, 2 classes; left out: 1 damaged, 1 dangling link"
    assert said in notes
    assert GrowingModel(tmp_path / "m").show().tasks[0].left_out == learned.left_out
    measured = GrowingModel(tmp_path / "m").evaluate("low", Source(path=str(place), skip_damaged=True))
    assert (measured.num_images, measured.left_out) == (16, learned.left_out)
    Image.new("RGB", (8, 8), (200, 1, 1)).save(place / "digit-0/red.png")
    (place / "digit-1/cut.png").unlink()
    lost = "the colour of images, as the model is grey"
    assert grown.learn("red", place).left_out == ("1 dangling link", lost)
    assert grown.learn("grey", images / "mid").left_out == ()
    with changed_index(tmp_path / "m") as index:  # as of a model that was saved before this was counted
        for task in index["tasks"]:
            del task["left_out"]
    assert GrowingModel(tmp_path / "m").show().tasks[0].left_out == ()


def test_the_network_is_built_again_only_for_another_model(place: Path, images: Path) -> None:
    reader = GrowingModel(place)
    net = reader.opened().net
    small_model(place).learn("new", images / "high")
    assert "new" in reader.tasks
    assert reader.opened().net is net
    shutil.rmtree(place)
    small_model(place, net=cifar).learn("low", images / "low")
    assert reader.opened().net.description() == cifar((1, 8, 8)).description()


def test_a_question_reads_few_files_of_any_number(images: Path, tmp_path: Path, monkeypatch: Any) -> None:
    """The shared knowledge and the one task; learning reads no more of the tasks before it."""
    read = Mock(side_effect=load)
    monkeypatch.setattr("lasem.learner.model_folder.load_tensors", read)
    for number in range(8):
        model = small_model(tmp_path / "model", training=TrainingConfig(epochs=1, batch_size=8))
        model.learn(f"task-{number}", images / "low")
        assert read.call_count <= 1 + 2  # the task's own, and for each layer one version
        read.reset_mock()
        list(model.predict("task-0", [images / "low"]))
        assert read.call_count <= 1 + 2
        read.reset_mock()


def floats(digits: tuple[int, ...], low: float, high: float, **more: Any) -> Task:
    """Scikit-learn's digits as floats."""
    data = load_digits()
    used = torch.from_numpy(np.isin(data.target, digits)).nonzero()[:, 0]
    images = torch.from_numpy(data.images)[used, None] / 16 * (high - low) + low
    names = [f"digit-{data.target[index]}" for index in used]
    parts = [(images[at:end], names[at:end]) for at, end in ((0, 150), (150, 200), (200, 300))]
    return Task.from_tensors("d", train=parts[0], valid=parts[1], test=parts[2], **more)


@pytest.mark.parametrize(("high", "more"), [(1, {}), (16, {}), (255, {}), (40, {"scale": 40}), (4095, {})])
def test_the_scale_of_floats_goes_everywhere_with_the_task(high: float, more: Any, tmp_path: Path) -> None:
    task = floats((0, 1, 2), 0, high, **more)
    grown = small_model(tmp_path / "m")
    grown.learn("d", task)
    again = GrowingModel(tmp_path / "m")
    pixels = (task.test.images.take(torch.arange(100)) / high * 255).round().to(torch.uint8)
    for index, (image, name) in enumerate(zip(pixels, task.names_of(task.test.labels), strict=True)):
        (tmp_path / "png" / name).mkdir(parents=True, exist_ok=True)
        Image.fromarray(image[0].numpy()).save(tmp_path / "png" / name / f"{index}.png")
    cells = [file.read_bytes() for file in sorted((tmp_path / "png").rglob("*.png"))]
    names = [file.parent.name for file in sorted((tmp_path / "png").rglob("*.png"))]
    pq.write_table(pa.table({"image": cells, "label": names}), tmp_path / "x.parquet")
    learner = Learner.load(tmp_path / "m")
    expected = learner.logits("d", task.test.images.take(torch.arange(100)))
    torch.testing.assert_close(learner.logits("d", pixels), expected, rtol=0.05, atol=0.05)
    right = learner.accuracy("d", task.test)
    assert right > 0.5
    for place in ("png", "x.parquet"):
        assert again.evaluate("d", tmp_path / place).accuracy == pytest.approx(right, abs=0.02)
    _, page = again.export("d", "safetensors", tmp_path / "out")
    about = json.loads(page.read_text())["input"]
    said = "0 to 255, divided by 255" + (f" and multiplied by {high:g}" if high != 1 else "")
    assert about["scale"] == high
    assert about["pixels"].startswith(f"{said};")
    assert high == 1 or about["preprocessing"][-1].startswith(f"divide by 255, multiply by {high:g};")
    answer = plain_network(learner, "d")(pixels / 255 * high)
    torch.testing.assert_close(answer, learner.logits("d", pixels), rtol=1e-4, atol=1e-4)
    with pytest.raises(DataError, match=f"images from 0 to {high:g}, as those that task 'd' learned from; got floats"):
        learner.predict("d", pixels / 255 * high * 10)


@pytest.mark.parametrize(("low", "high"), [(-1.3, 2.4), (0, 37)])
def test_a_task_of_floats_without_a_scale_answers_for_tensors_only(low: float, high: float, tmp_path: Path) -> None:
    task = floats((0, 1), low, high)
    grown = small_model(tmp_path / "m")
    grown.learn("d", task)
    assert len(Learner.load(tmp_path / "m").predict("d", task.test.images.take(torch.arange(3)))) == 3
    for question in (
        lambda: grown.evaluate("d", write_digits(tmp_path / "png", (0, 1))),
        lambda: list(grown.predict("d", [tmp_path / "png"])),
    ):
        with pytest.raises(DataError, match=r"floats that are no pixels .*not for image files.*scale=16"):
            question()
    about = json.loads(grown.export("d", "safetensors", tmp_path / "out")[1].read_text())["input"]
    assert (about["scale"], about["preprocessing"]) == (None, [])


def test_a_model_that_stored_no_scale_grows_on(tmp_path: Path) -> None:
    for name, high in (("unit", 1), ("greys", 16)):
        grown = small_model(tmp_path / name)
        grown.learn("d", floats((0, 1), 0, high))
        index = grown._folder.index() or {}
        del index["tasks"][0]["scale"]
        (tmp_path / name / "config.json").write_text(sealed(index))
        write_digits(tmp_path / "png", (0, 1))
        grown.learn("e", tmp_path / "png")
        assert Learner.load(tmp_path / name).info("d").scale == (1 if high == 1 else None)
