"""Many tasks at once: they answer as one after another, and what they share is computed and read once."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from lasem import Branch, Fixed, Freeze, GrowingModel, Learner, LowRank
from lasem.data import Task
from lasem.errors import DataError, LasemError, TaskError
from lasem.learner import Prediction
from lasem.learner.model_folder import ModelFolder
from lasem.methods.model import Recent, StoredPart
from lasem.nets import AbstractNet, ConvBlock, ResNet
from lasem.sharing import AbstractSharing
from lasem.tree import map_tensors

from .fixture import GREY, SHARINGS, searching, tiny_net, tiny_task
from .images import small_model, write_digits
from .test_forget import QUICK

RESNET = ResNet(image_shape=(3, 8, 8), form="paper", channels=(4, 6), stem_kernel=3, hidden=(6,))
IMAGES = torch.randint(0, 256, (9, *GREY), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def learned(net: AbstractNet, sharing: AbstractSharing, *configurations: str) -> Learner:
    """Tasks a, b, ... with these configurations, of which later ones branch off new versions of layers."""
    learner = Learner(net, sharing=sharing, training=QUICK, protect=Branch(), seed=3)
    for k, configuration in enumerate(configurations):
        searching(learner, Fixed(configuration))
        learner.learn(tiny_task("abcdef"[k], 2 + k % 3, shape=net.image_shape, seed=k))
    return learner


@pytest.mark.parametrize("sharing", [*SHARINGS, LowRank(rank=2)], ids=lambda s: s.name)
@pytest.mark.parametrize("net", [tiny_net(depth=3), RESNET], ids=["plain", "resnet"])
def test_to_the_last_bits_of_float64(net: AbstractNet, sharing: AbstractSharing) -> None:
    choices = ("T" * net.depth, "T" + "S" * (net.depth - 1), "S" + "T" * (net.depth - 1), "S" * net.depth)
    learner = learned(net, sharing, *choices)
    model = map_tensors(lambda t: t.double() if t.is_floating_point() else t, learner.model)
    x = torch.randn(5, *net.image_shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    rows = {"a": [4, 1], "b": range(5), "c": [0, 0, 3], "d": [2]}
    with torch.no_grad():
        found = learner.method.logits_many(net, model, rows, x)
        for name, at in rows.items():
            alone = learner.method.logits(net, model, name, x[list(at)])
            torch.testing.assert_close(found[name], alone, rtol=1e-12, atol=1e-12)


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """The output channels of each convolution that runs, and its images."""
    found, run = list[tuple[int, int]](), ConvBlock.preactivate

    def counted(block: ConvBlock, weights: Any, x: Tensor) -> Tensor:
        found.append((block.out_channels, len(x)))
        return run(block, weights, x)

    monkeypatch.setattr(ConvBlock, "preactivate", counted)
    return found


def test_a_shared_layer_runs_once_on_the_images_of_all_its_tasks(runs: list[tuple[int, int]]) -> None:
    learner = Learner(tiny_net(), training=QUICK, protect=Freeze(), seed=3)
    for name, configuration in zip("abcd", ("TS", "TS", "TS", "SS"), strict=True):
        searching(learner, Fixed(configuration))
        learner.learn(tiny_task(name, seed=5))  # the same images, which all standardise alike
    runs.clear()
    learner.logits_many(IMAGES, {"a": [0, 1], "b": [1, 2], "c": [8]})
    assert runs == [(3, 4), (4, 2), (4, 2), (4, 1)]
    runs.clear()
    learner.logits_many(IMAGES, dict.fromkeys("abcd", range(9)))
    assert runs == [(3, 9), (4, 9), (4, 9), (4, 9), (3, 9), (4, 9)]


def test_tasks_that_standardise_otherwise_share_layers_but_not_their_inputs(runs: list[tuple[int, int]]) -> None:
    learner = Learner(tiny_net(), training=QUICK, protect=Freeze(), search=Fixed("all"), seed=3)
    for name in "ab":
        learner.learn(tiny_task(name, seed=ord(name)))
    runs.clear()
    learner.logits_many(IMAGES, {"a": [0, 1], "b": [1, 2, 3]})
    assert runs == [(3, 5), (4, 5)]


def test_more_images_than_run_together_come_back_in_their_places(monkeypatch: pytest.MonkeyPatch) -> None:
    learner = Learner(tiny_net(), training=QUICK, protect=Freeze(), search=Fixed("TS"), seed=3)
    for k, name in enumerate("abc"):
        learner.learn(tiny_task(name, 2 + k, seed=k // 2))  # the first two standardise alike
    wanted = {"a": [8, 1, 5, 0, 0], "b": range(9), "c": [7, 7, 2, 6, 4, 3]}
    expected = {name: learner.logits(name, IMAGES)[list(at)] for name, at in wanted.items()}
    monkeypatch.setattr("lasem.training.config.EVALUATION_BATCH", 4)
    for name, logits in learner.logits_many(IMAGES, wanted).items():
        torch.testing.assert_close(logits, expected[name], rtol=1e-5, atol=1e-5)


def test_each_version_of_a_layer_has_images_of_its_own(runs: list[tuple[int, int]]) -> None:
    learner = Learner(tiny_net(), training=QUICK, protect=Branch(), search=Fixed("all"), seed=3)
    for name in "ab":
        learner.learn(tiny_task(name, seed=5))
    runs.clear()
    learner.logits_many(IMAGES, {"a": [0, 1], "b": [1, 2, 3]})
    assert runs == [(3, 2), (4, 2), (3, 3), (4, 3)]


def test_images_are_checked_as_those_of_their_own_task() -> None:
    learner = Learner(tiny_net(), training=QUICK, search=Fixed("all"))
    for name, scale in (("byte", 255.0), ("unit", 1.0)):
        x, y = torch.rand(10, *GREY) * scale, torch.arange(10) % 2
        learner.learn(Task.from_tensors(name, train=(x, y), valid=(x, y), test=(x, y), scale=scale))
    images = torch.stack([torch.full(GREY, 200.0), torch.full(GREY, 0.5)])
    both = learner.predict_many(images, ["byte", "unit"], probabilities=True)
    torch.testing.assert_close(both[1], learner.predict("unit", images[1:], probabilities=True)[0])
    for wrong, message in (
        (lambda: learner.predict_many(images, ["unit", "byte"]), "as those that task 'unit' learned from"),
        (lambda: learner.predict_many(images, ["unit"]), "got 2 images, 1 names"),
        (lambda: learner.predict_many(images, ["unit", "bite"]), "Did you mean 'byte'"),
    ):
        with pytest.raises(LasemError, match=message):
            wrong()
    assert learner.logits_many(images[:0], {"byte": []})["byte"].shape == (0, 2)


@pytest.fixture(scope="module")
def model(images: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three tasks that share the first layer."""
    place = tmp_path_factory.mktemp("many") / "model"
    grown = small_model(place, search=Fixed("TS"), protect=Freeze())
    for name in ("low", "mid", "high"):
        grown.learn(name, images / name)
    return place


def files(images: Path, name: str) -> list[str]:
    return sorted(str(path) for path in (images / f"{name}-test").rglob("*.png"))


def assert_as_alone(model: Path, answers: list[Prediction], top: int = 1) -> None:
    alone = GrowingModel(model)
    for answer in answers:
        (one,) = alone.predict(answer.task, [answer.image], top=top)
        assert (one.image, one.classes) == (answer.image, answer.classes)
        assert one.probabilities == pytest.approx(answer.probabilities, abs=1e-5)


def test_questions_to_many_tasks_are_answered_in_their_order(model: Path, images: Path) -> None:
    low, high = files(images, "low"), files(images, "high")
    questions = [
        *zip(low, ["low", "mid", "high"] * 2, strict=True),
        (high[0], "mid"),
        (low[0], "high"),
        (low[0], "low"),
    ]
    answers = list(GrowingModel(model).predict_many(questions, top=2))
    assert [(answer.image, answer.task) for answer in answers] == questions
    assert_as_alone(model, answers, top=2)
    (folder, *_) = GrowingModel(model).predict_many([(images / "mid-test", "low")])
    assert folder.image == files(images, "mid")[0]


def test_every_task_answers_for_an_image(model: Path, images: Path, tmp_path: Path) -> None:
    asked, skipped = [files(images, "low")[0], tmp_path / "none.png", files(images, "high")[0]], list[str]()
    answers = list(GrowingModel(model).predict_all(asked, skip=lambda path, _: skipped.append(path)))
    assert [answer.task for answer in answers] == ["low", "mid", "high"] * 2
    assert [answer.image for answer in answers[::3]] == [asked[0], asked[2]]
    assert skipped == [str(tmp_path / "none.png")]
    assert_as_alone(model, answers)
    with pytest.raises(DataError, match="there is none"):
        list(GrowingModel(model).predict_all(asked))
    with pytest.raises(TaskError, match="Did you mean 'low'"):
        GrowingModel(model).predict_many([(asked[0], "lwo")])


def test_a_change_on_disk_is_noticed(model: Path, images: Path, tmp_path: Path) -> None:
    place, image = Path(shutil.copytree(model, tmp_path / "model")), files(images, "low")[0]
    grown = GrowingModel(place)
    assert [answer.task for answer in grown.predict_all([image])] == ["low", "mid", "high"]
    GrowingModel(place).forget("mid")
    assert [answer.task for answer in grown.predict_all([image])] == ["low", "high"]
    for name in ("low", "high"):
        GrowingModel(place).forget(name)
    with pytest.raises(TaskError, match="Expected a learned task"):
        grown.predict_all([image])


def test_what_was_read_is_kept_within_a_bound(model: Path, images: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read, tensors = list[str](), ModelFolder.tensors

    def counted(folder: ModelFolder, part: StoredPart, *given: Any, **more: Any) -> Any:
        read.append(part.checksum)
        return tensors(folder, part, *given, **more)

    monkeypatch.setattr(ModelFolder, "tensors", counted)
    image, expected = files(images, "low")[0], list[Any]()
    for kept_bytes in (2**30, 0):
        grown = GrowingModel(model, kept_bytes=kept_bytes)
        expected.append(list(grown.predict_all([image])))
        num_first = len(set(read))
        assert num_first == 4  # three tasks, and the version that they share
        assert (len(read) == 4) == (kept_bytes > 0)
        read.clear()
        assert list(grown.predict_all([image])) == expected[0]
        assert bool(read) == (kept_bytes == 0)
        read.clear()
    assert expected[0] == expected[1]


def test_the_least_recently_used_is_given_up_first() -> None:
    read = list[str]()

    def reading(key: str, part: StoredPart) -> dict[str, Tensor]:
        read.append(key)
        return {}

    ask = Recent(max_bytes=30).reading("task", reading)
    for key in "abcadabecb":
        ask(key, StoredPart(key, 100 if key == "e" else 10, 0))
    assert read == list("abcdbecb")


def test_decoded_images_and_files_are_asked_alike(images: Path, tmp_path: Path) -> None:
    growing = small_model(tmp_path / "model")
    for name in ("low", "mid", "high"):
        growing.learn(name, images / name)
    file = sorted(write_digits(tmp_path / "larger", (3,), count=1, size=20).rglob("*.png"))[0]
    pixels = growing.decoder()(file.read_bytes(), "it")
    found = list(growing.predict_many([(pixels, ["low", "mid"]), (file, "high"), (pixels, "high")]))
    assert [(answer.image, answer.task) for answer in found] == [
        ("", "low"),
        ("", "mid"),
        (str(file), "high"),
        ("", "high"),
    ]
    assert found[2].probabilities == found[3].probabilities
