"""What every learner must do. A new one joins by a factory in the list."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, final

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from learner.fixture import GREY, SHARINGS, MovingPrior, files_in, tensors_in, tiny_net, tiny_task
from safetensors.torch import load, save

from lasem.errors import LasemError, ShapeError, StorageError, TaskError
from lasem.learner import Learner, plain_network
from lasem.learner.export import export
from lasem.learner.model_folder import sealed
from lasem.methods import APD, EWC, METHODS, AbstractMethod, OneNetwork, ProgNN
from lasem.methods.model import count
from lasem.records import EpochRecord, TimingRecord
from lasem.search import DARTS, EM, SEARCHES, AbstractSelection, DeepEM, Exhaustive, Fixed, PrefixSearch, RandomSearch
from lasem.sharing import AbstractSharing
from lasem.training import TrainingConfig, TrainingState

QUICK = TrainingConfig(epochs=2, batch_size=5, learning_rate=0.01)


@final
@dataclass(frozen=True)
class Factory:
    """How a kind of learner is made for images of a shape, and read again."""

    label: str
    make: Callable[[tuple[int, int, int]], Learner]
    load: Callable[[Path], Learner]
    rewrites: bool = False
    """Whether what earlier tasks own may change when a later one is learned."""


def learner_factory(sharing: AbstractSharing, search: AbstractSelection) -> Factory:
    own = {} if type(search) in SEARCHES.values() else {"search": search}  # a user's own search is passed again

    def make(shape: tuple[int, int, int]) -> Learner:
        return Learner(tiny_net(shape), sharing=sharing, search=search, training=QUICK, seed=7)

    return Factory(f"{sharing.name}-{search.name}", make, lambda folder: Learner.load(folder, **own))


def baseline_factory(method: AbstractMethod, label: str = "") -> Factory:
    def make(shape: tuple[int, int, int]) -> Learner:
        training = replace(QUICK, **{k: v for k, v in method.training.items() if k != "epochs"})
        return Learner(tiny_net(shape), method, training=training, seed=7)

    return Factory(label or method.name, make, Learner.load, method.rewrites)


FACTORIES = [
    *(learner_factory(sharing, EM(commit_share=0.5)) for sharing in SHARINGS),
    *(learner_factory(sharing, DeepEM(num_samples=2)) for sharing in SHARINGS),
    learner_factory(SHARINGS[0], Fixed("all")),
    learner_factory(SHARINGS[0], Fixed("none")),
    learner_factory(SHARINGS[1], Fixed("top-1")),
    learner_factory(SHARINGS[2], MovingPrior()),
    learner_factory(SHARINGS[0], Exhaustive()),
    learner_factory(SHARINGS[1], PrefixSearch(first_task="search")),
    learner_factory(SHARINGS[2], RandomSearch(num_candidates=2)),
    *(learner_factory(sharing, DARTS(alpha_learning_rate=0.1)) for sharing in SHARINGS),
    learner_factory(SHARINGS[1], DARTS(order="second", first_task="search", retrain=True)),
    *(baseline_factory(kind()) for kind in METHODS.values()),
    baseline_factory(OneNetwork(outputs="shared"), "one-network-shared"),
    baseline_factory(APD(period=2, groups=1), "apd-consolidated"),
]
every_learner = pytest.mark.parametrize("factory", FACTORIES, ids=lambda f: f.label)
CLASSES = (2, 4, 3)


def learn_three(learner: Learner, shape: tuple[int, int, int] = GREY) -> None:
    for k, num_classes in enumerate(CLASSES):
        task = tiny_task(f"t{k}", num_classes, shape, seed=k)
        record = learner.learn(task)
        assert (record.task, record.index) == (f"t{k}", k)
        assert record.classes == learner.classes(f"t{k}")
        assert record.configuration in record.configurations
        assert record.parameters_total == learner.num_parameters()
        assert record.parameters_added == learner.num_parameters(f"t{k}")
        assert record.peak_accuracy == learner.accuracy(task.name, task.test)  # the best epoch is kept
        assert 1 <= record.best_epoch <= record.num_epochs
        assert record.num_epochs >= QUICK.epochs


@every_learner
@pytest.mark.parametrize("shape", [GREY, (3, 7, 6)])
def test_three_tasks_are_learned_answered_saved_and_read(
    factory: Factory, shape: tuple[int, int, int], tmp_path: Path
) -> None:
    learner = factory.make(shape)
    assert learner.task_names == ()
    learn_three(learner, shape)
    assert learner.task_names == ("t0", "t1", "t2")
    images = torch.randint(0, 256, (5, *shape), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    learner.save(tmp_path / "model")
    again = factory.load(tmp_path / "model")
    assert again.task_names == learner.task_names
    for name, num_classes in zip(learner.task_names, CLASSES, strict=True):
        names, probabilities = learner.predict(name, images), learner.predict(name, images, probabilities=True)
        assert probabilities.shape == (5, num_classes)
        assert probabilities.dtype == torch.float32
        torch.testing.assert_close(probabilities.sum(dim=1), torch.ones(5))
        assert names == [learner.classes(name)[k] for k in probabilities.argmax(dim=1).tolist()]
        assert torch.equal(again.predict(name, images, probabilities=True), probabilities)
        assert again.predict(name, images.numpy()) == names
        assert again.predict(name, images[:0]) == []
        assert again.predict(name, images[:0], probabilities=True).shape == (0, num_classes)
        assert (again.classes(name), again.num_parameters(name)) == (
            learner.classes(name),
            learner.num_parameters(name),
        )
        test = tiny_task(name, num_classes, shape, seed=int(name[1])).test
        assert again.accuracy(name, test) == learner.accuracy(name, test)
        answers = learner.predict(name, test.images.take(torch.arange(len(test))))
        right = [answer == learner.classes(name)[k] for answer, k in zip(answers, test.labels.tolist(), strict=True)]
        assert sum(right) / len(right) == pytest.approx(learner.accuracy(name, test))
        assert torch.equal(again.logits(name, images), learner.logits(name, images))
    assert again.num_parameters() == learner.num_parameters()


@every_learner
def test_parameters_are_counted_as_they_are_stored(factory: Factory, tmp_path: Path) -> None:
    learner = factory.make(GREY)
    learn_three(learner)
    learner.save(tmp_path)
    tensors = {name: t for name, t in tensors_in(tmp_path).items() if not name.startswith("memory:")}
    assert learner.num_parameters() == count(tensors)
    for name in learner.task_names:
        owned = count({key: t for key, t in tensors.items() if key.startswith(f"tasks/{name}:")})
        assert learner.num_parameters(name) == owned


@every_learner
def test_a_model_that_was_read_learns_on_as_if_it_had_never_been_away(factory: Factory, tmp_path: Path) -> None:
    learner = factory.make(GREY)
    learner.learn(tiny_task("t0"))
    learner.save(tmp_path / "one")
    again = factory.load(tmp_path / "one")
    task = tiny_task("t1", 3, seed=1)
    assert again.learn(task) == learner.learn(task)
    learner.save(tmp_path / "stayed")
    again.save(tmp_path / "away")
    assert files_in(tmp_path / "stayed") == files_in(tmp_path / "away")


@every_learner
def test_saving_again_only_adds(factory: Factory, tmp_path: Path) -> None:
    learner = factory.make(GREY)
    learner.save(tmp_path)
    for k in range(3):
        before = {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*") if p.is_file()}
        learner.learn(tiny_task(f"t{k}", seed=k))
        learner.save(tmp_path)
        learner.save(tmp_path)
        kept = {p: time for p, time in before.items() if p.parent.parent.name == "tasks" and not factory.rewrites}
        assert all(p.stat().st_mtime_ns == time for p, time in kept.items())
        assert len(list(tmp_path.glob("shared-*"))) <= 1
        assert factory.load(tmp_path).task_names == learner.task_names


@every_learner
def test_names_and_shapes_that_do_not_fit(factory: Factory) -> None:
    learner, images = factory.make(GREY), torch.zeros(1, *GREY)
    with pytest.raises(TaskError, match=r"'cifar-7' has not been learned \(learned: none\)"):
        learner.predict("cifar-7", images)
    learner.learn(tiny_task("cifar-1"))
    learner.learn(tiny_task("other"))
    for ask in (
        lambda: learner.predict("cifar-7", images),
        lambda: learner.classes("cifar-7"),
        lambda: learner.num_parameters("cifar-7"),
        lambda: learner.accuracy("cifar-7", tiny_task().test),
    ):
        with pytest.raises(TaskError, match=r"learned: cifar-1, other\)\. Did you mean 'cifar-1'\?"):
            ask()
    with pytest.raises(TaskError, match="Task 'other' has been learned already"):
        learner.learn(tiny_task("other", seed=5))
    with pytest.raises(ShapeError, match=r"images of shape \(3, 6, 6\); this network takes \(1, 6, 6\)"):
        learner.learn(tiny_task("third", shape=(3, 6, 6)))
    for wrong in (torch.zeros(1, 3, 6, 6), torch.zeros(1, 6, 6), torch.zeros(2, 1, 6, 7)):
        with pytest.raises(ShapeError, match=r"Expected images of shape \(N, 1, 6, 6\); got \("):
            learner.predict("other", wrong)
    with pytest.raises(ShapeError, match=r"uint8 pixels or floats; got torch\.int64"):
        learner.predict("other", torch.zeros(1, *GREY, dtype=torch.int64))
    assert learner.task_names == ("cifar-1", "other")


@every_learner
def test_images_as_arrays_bytes_and_floats(factory: Factory) -> None:
    learner = factory.make(GREY)
    learner.learn(tiny_task("a"))
    pixels = np.random.default_rng(0).integers(0, 256, (4, *GREY), dtype=np.uint8)
    expected = learner.predict("a", pixels, probabilities=True)
    before = pixels.copy()
    for same in (torch.from_numpy(pixels), pixels.astype(np.float32) / 255, pixels.astype(np.float64) / 255):
        torch.testing.assert_close(learner.predict("a", same, probabilities=True), expected, rtol=1e-4, atol=1e-5)
    assert torch.equal(learner.predict("a", pixels[::-1][::-1], probabilities=True), expected)
    assert np.array_equal(pixels, before)


@every_learner
def test_a_folder_that_holds_something_else_is_left_alone(factory: Factory, tmp_path: Path) -> None:
    learner, other = factory.make(GREY), factory.make((3, 6, 6))
    learner.learn(tiny_task("a"))
    learner.save(tmp_path / "model")
    (tmp_path / "papers").mkdir()
    (tmp_path / "papers" / "thesis.txt").write_text("years of work")
    (tmp_path / "project").mkdir()
    (tmp_path / "project" / "config.json").write_text('{"tasks": []}')
    (tmp_path / "newer").mkdir()
    newer = json.loads((tmp_path / "model" / "config.json").read_text()) | {"format_version": 10**6}
    (tmp_path / "newer" / "config.json").write_text(json.dumps(newer))
    (tmp_path / "file").write_text("a file")
    other.save(tmp_path / "empty")  # no task yet, but of another network
    shorter = factory.make(GREY)
    before = files_in(tmp_path)
    for folder, message in (
        ("papers", r"holds other files \(thesis\.txt\)"),
        ("project", "is not a lasem model's"),
        ("newer", "Install a newer lasem"),
        ("empty", "holds another model"),
        ("file", "Cannot write"),
    ):
        with pytest.raises(StorageError, match=message):
            learner.save(tmp_path / folder)
    for another in (shorter, other):
        with pytest.raises(StorageError, match="holds another model"):
            another.save(tmp_path / "model")
    shorter.learn(tiny_task("a", seed=3))
    with pytest.raises(StorageError, match="holds another model"):
        shorter.save(tmp_path / "model")
    assert files_in(tmp_path) == before


@pytest.mark.parametrize("factory", [FACTORIES[0], FACTORIES[-1]], ids=lambda f: f.label)
def test_a_first_save_that_was_killed_before_its_index_is_made_again(factory: Factory, tmp_path: Path) -> None:
    learner = factory.make(GREY)
    learner.learn(tiny_task("a"))
    learner.save(tmp_path)
    whole = files_in(tmp_path)
    (tmp_path / "config.json").unlink()
    learner.save(tmp_path)
    assert files_in(tmp_path) == whole


@pytest.mark.parametrize("factory", [FACTORIES[0], FACTORIES[-1]], ids=lambda f: f.label)
@pytest.mark.parametrize("name", ["...", ".a.tmp", "-"])
def test_a_name_that_can_be_learned_can_be_read(factory: Factory, name: str, tmp_path: Path) -> None:
    learner = factory.make(GREY)
    learner.learn(tiny_task(name))
    learner.save(tmp_path)
    assert factory.load(tmp_path).task_names == (name,)


@pytest.fixture(scope="module", params=FACTORIES[:1], ids=lambda f: f.label)
def stored(request: Any, tmp_path_factory: pytest.TempPathFactory) -> tuple[Factory, Path]:
    factory: Factory = request.param
    folder = tmp_path_factory.mktemp("stored") / "model"
    learner = factory.make(GREY)
    for k in range(2):
        learner.learn(tiny_task(f"t{k}", seed=k))
    learner.save(folder)
    return factory, folder


def test_every_missing_file_is_an_error_of_storage(stored: tuple[Factory, Path], tmp_path: Path) -> None:
    factory, folder = stored
    for number, name in enumerate(files_in(folder)):
        shutil.copytree(folder, tmp_path / str(number))
        (tmp_path / str(number) / name).unlink()
        with pytest.raises(StorageError, match=Path(name).name):
            factory.load(tmp_path / str(number))
    for nowhere in (tmp_path / "nowhere", tmp_path):
        with pytest.raises(StorageError, match="Expected a saved model"):
            factory.load(nowhere)


@settings(max_examples=60)
@given(st.data())
def test_damage_is_an_error_of_storage_and_nothing_else(
    stored: tuple[Factory, Path], tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    factory, folder = stored
    whole = files_in(folder)
    name = data.draw(st.sampled_from(sorted(whole)))
    content = bytearray(whole[name])
    at = data.draw(st.integers(0, len(content) - 1))
    new = data.draw(
        st.one_of(st.binary(max_size=3), st.sampled_from([b"-", b"9", b"null", b"1e999", b'"', b"]", b"{"]))
    )
    content[at : at + data.draw(st.integers(0, 3))] = new
    damaged = tmp_path_factory.getbasetemp() / "damaged"
    if not damaged.exists():
        shutil.copytree(folder, damaged)
    (damaged / name).write_bytes(content)
    try:
        factory.load(damaged)
        readable = True
    except StorageError:
        readable = False
    finally:
        (damaged / name).write_bytes(whole[name])
    # nothing guards config.json but itself: a changed seed is a seed; every other file is guarded by a checksum
    assert not readable or name == "config.json" or bytes(content) == whole[name]


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("format_version",), 10**6),
        (("format_version",), "1"),
        (("format_version",), None),
        (("seed",), -1),
        (("seed",), float("inf")),
        (("seed",), "x"),
        (("net",), []),
        (("net", "channels"), [3]),
        (("net", "image_shape"), [1, 6, 8]),
        (("net", "dropout"), 3),
        (("net", "colour"), 3),
        (("sharing", "name"), "unheard-of"),
        (("sharing", "name"), None),
        (("sharing", "name"), ["hps"]),
        (("training", "epochs"), 0),
        (("training", "epochs"), None),
        (("training",), None),
        (("versions", "0@0", "checksum"), "../elsewhere"),
        (("versions", "0@0"), None),
        (("tasks",), None),
        (("tasks",), [{"name": "../../etc", "checksum": "0"}]),
        (("tasks",), [{"name": "t0"}]),
        (("tasks",), ["t0"]),
        (("tasks",), [3]),
    ],
    ids=str,
)
def test_settings_that_no_model_has_are_an_error_of_storage(
    stored: tuple[Factory, Path], tmp_path: Path, path: tuple[str, ...], value: Any
) -> None:
    factory, folder = stored
    shutil.copytree(folder, tmp_path / "model")
    config = json.loads((folder / "config.json").read_text())
    part = config
    for key in path[:-1]:
        part = part[key]
    part[path[-1]] = value
    del config["checksum"]  # it is computed again, as one who wants to deceive would
    (tmp_path / "model" / "config.json").write_text(sealed(config))
    with pytest.raises(StorageError):
        factory.load(tmp_path / "model")


def test_a_search_of_the_users_own_is_needed_to_learn_and_not_to_answer(tmp_path: Path) -> None:
    learner = Learner(tiny_net(), search=MovingPrior(), training=QUICK)
    learner.learn(tiny_task("a"))
    learner.save(tmp_path)
    again, images = Learner.load(tmp_path), torch.rand(2, *GREY)
    assert torch.equal(again.logits("a", images), learner.logits("a", images))
    with pytest.raises(StorageError, match=r"saved with the search 'moving-prior', .* pass search=\.\.\. to load"):
        again.learn(tiny_task("b"))
    again.save(tmp_path / "copy")  # which keeps what it says of the search
    for place in (tmp_path, tmp_path / "copy"):
        assert Learner.load(place, search=MovingPrior()).learn(tiny_task("b")).index == 1


@pytest.mark.parametrize(("setting", "value"), [("name", "unheard-of"), ("groups", [5, 5]), ("first_task", "top-9")])
def test_a_search_that_no_model_has_is_an_error_when_a_task_is_learned(
    setting: str, value: Any, tmp_path: Path
) -> None:
    FACTORIES[0].make(GREY).save(tmp_path)
    index = {k: v for k, v in json.loads((tmp_path / "config.json").read_text()).items() if k != "checksum"}
    index["search"][setting] = value
    (tmp_path / "config.json").write_text(sealed(index))
    with pytest.raises(LasemError, match=r"unheard-of|add up to|top-9"):
        Learner.load(tmp_path).learn(tiny_task("a"))


@every_learner
def test_what_is_forgotten_changes_no_other_answer(factory: Factory, tmp_path: Path) -> None:
    learner = factory.make(GREY)
    learn_three(learner)
    learner.save(tmp_path)
    images = torch.rand(3, *GREY, generator=torch.Generator().manual_seed(0))
    answers = {name: learner.logits(name, images) for name in learner.task_names}
    for gone, left in (("t0", ("t1", "t2")), ("t2", ("t0", "t1")), ("t1", ("t0",))):
        try:
            learner.forget(gone)
        except TaskError as error:
            assert gone == "t0"
            assert "those after it answer with its weights" in str(error)  # noqa: PT017
            continue
        kept = [name for name in left if name in learner.task_names]
        learner.save(tmp_path)
        for model in (learner, factory.load(tmp_path)):
            assert model.task_names == tuple(kept)
            assert all(torch.equal(model.logits(name, images), answers[name]) for name in kept)
    record = learner.learn(tiny_task("t9", 3, seed=9))
    assert record.index == 3
    learner.save(tmp_path)
    assert torch.equal(factory.load(tmp_path).logits("t9", images), learner.logits("t9", images))


@every_learner
def test_one_task_is_exported_as_a_network_that_needs_no_lasem(factory: Factory, tmp_path: Path) -> None:
    learner = factory.make(GREY)
    learn_three(learner)
    images = torch.rand(3, *GREY, generator=torch.Generator().manual_seed(0))
    for name in learner.task_names:
        network = plain_network(learner, name)
        torch.testing.assert_close(network(images), learner.logits(name, images), rtol=1e-4, atol=1e-5)
        file, _ = export(network, learner.net, name, learner.classes(name), "torch", f"{tmp_path}/")
        torch.testing.assert_close(
            torch.export.load(file).module()(images), learner.logits(name, images), rtol=1e-4, atol=1e-5
        )


@every_learner
def test_an_interrupted_task_goes_on_to_the_same_bits(factory: Factory, tmp_path: Path) -> None:
    """From every epoch of a second task, through the disk."""
    learner = factory.make(GREY)
    learner.learn(tiny_task("t0"))
    learner.save(tmp_path / "before")
    states: list[TrainingState] = []
    epochs: list[EpochRecord] = []

    def keep(epoch: EpochRecord, _: TimingRecord, state: Callable[[], TrainingState]) -> None:
        epochs.append(epoch)
        tensors, plain = state()
        states.append(TrainingState(load(save(dict(tensors))), json.loads(json.dumps(plain))))

    record = learner.learn(tiny_task("t1", 3, seed=1), on_epoch=keep)
    assert [epoch.epoch for epoch in epochs] == list(range(1, len(epochs) + 1))
    assert record.num_epochs == len(epochs)
    learner.save(tmp_path / "whole")
    for at, state in enumerate(states):
        again = factory.load(tmp_path / "before")
        rest: list[EpochRecord] = []
        done = again.learn(
            tiny_task("t1", 3, seed=1), on_epoch=lambda e, *_, rest=rest: rest.append(e), resume_from=state
        )
        assert done == record
        assert rest == epochs[at + 1 :]
        again.save(tmp_path / str(at))
        assert files_in(tmp_path / str(at)) == files_in(tmp_path / "whole")


def first_epoch(learner: Learner) -> float:
    losses: list[float] = []
    learner.learn(tiny_task("t0", 3), on_epoch=lambda epoch, *_: losses.append(epoch.loss))
    return losses[0]


def test_methods_start_from_the_same_weights() -> None:
    """A first task has nothing to transfer: where a method is plain training then, it is the same training."""
    alone = first_epoch(Learner(tiny_net(), search=Fixed("none"), training=QUICK, seed=7))
    others: list[Learner] = [
        *(Learner(tiny_net(), search=search, training=QUICK, seed=7) for search in (Fixed("all"), EM(), Exhaustive())),
        *(Learner(tiny_net(), method, training=QUICK, seed=7) for method in (EWC(), ProgNN(), OneNetwork())),
    ]
    for other in others:
        assert first_epoch(other) == pytest.approx(alone, rel=1e-5)
