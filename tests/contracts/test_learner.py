"""What every learner must do. A new one joins by a factory in the list."""

import copy
import json
import weakref
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, final

import numpy as np
import pytest
import torch
from learner.fixture import (
    GREY,
    SHARINGS,
    MovingPrior,
    assert_same_tensors,
    changed_index,
    files_in,
    followed,
    saved,
    tensors_in,
    tiny_net,
    tiny_task,
)
from torch import Tensor
from training.fixture import NEVER
from training.test_kept import net_of

from lasem.data import Split, Task, TensorImages
from lasem.data import task as task_module
from lasem.errors import LasemError, ShapeError, StorageError, TaskError
from lasem.learner import Learner, plain_network
from lasem.learner.export import export
from lasem.learner.model_folder import parts_of
from lasem.methods import (
    APD,
    ER,
    EWC,
    METHODS,
    SI,
    AbstractMethod,
    Branch,
    Freeze,
    Logistic,
    LwF,
    OneNetwork,
    Penalty,
    ProgNN,
)
from lasem.methods.model import count
from lasem.methods.transfer import Transfer
from lasem.search import (
    DARTS,
    EM,
    MNTDP,
    SEARCHES,
    TAPS,
    AutoRGN,
    DeepEM,
    Evidence,
    Exhaustive,
    Fixed,
    FixedProbability,
    PrefixSearch,
    RandomSearch,
    SubTuning,
)
from lasem.sharing import HardSharing
from lasem.training import TrainingConfig
from lasem.training.config import OPTIMISERS

QUICK = TrainingConfig(epochs=2, batch_size=5, learning_rate=0.01)


@final
@dataclass(frozen=True)
class Factory:
    """How a kind of learner is made for images of a shape, and read again."""

    method: AbstractMethod
    label: str = ""
    training: dict[str, Any] = field(default_factory=dict)
    depth: int = 2

    def make(self, shape: tuple[int, int, int] = GREY, *, seed: int = 7, **training: Any) -> Learner:
        quick = {"learning_rate": 0.01, **self.method.training, "epochs": 2, "batch_size": 5}
        config = TrainingConfig(**(quick | self.training | training))
        return Learner(tiny_net(shape, self.depth), self.method, training=config, seed=seed)

    def load(self, folder: Path, *, lazy: bool = False) -> Learner:
        if isinstance(self.method, Transfer) and type(self.method.search) not in SEARCHES.values():
            return Learner.load(folder, lazy=lazy, search=self.method.search)  # a user's own is passed again
        return Learner.load(folder, lazy=lazy)

    def __str__(self) -> str:
        of_transfer = isinstance(self.method, Transfer) and f"{self.method.sharing.name}-{self.method.search.name}"
        return self.label or of_transfer or self.method.name


HPS, TF, DFCNN = SHARINGS
TRANSFERS = [  # searches know a mechanism by its weights alone: two of them meet all mechanisms, the others one
    *(Transfer(sharing=sharing, search=EM(commit_share=0.5)) for sharing in SHARINGS),
    *(Transfer(sharing=sharing, search=Evidence(epochs_share=0.5)) for sharing in SHARINGS),
    Transfer(sharing=TF, search=DeepEM(num_samples=2)),
    Transfer(search=Fixed("all")),
    Transfer(search=Fixed("none")),
    Transfer(sharing=TF, search=Fixed("top-1")),
    Transfer(sharing=DFCNN, search=MovingPrior()),
    Transfer(search=Exhaustive()),
    Transfer(sharing=TF, search=PrefixSearch(first_task="search")),
    Transfer(sharing=DFCNN, search=RandomSearch(num_candidates=2)),
    Transfer(sharing=DFCNN, search=DARTS(alpha_learning_rate=0.1)),
    Transfer(search=SubTuning(folds=2, most_layers=1)),
    Transfer(search=AutoRGN()),
    Transfer(sharing=DFCNN, search=TAPS(unpenalised=0)),
    Transfer(sharing=TF, search=DARTS(order="second", first_task="search", retrain=True)),
]
PROTECTED = [
    Factory(Transfer(sharing=sharing, search=Fixed("all"), protect=protect), f"{sharing.name}-{protect.name}")
    for sharing, protect in [(HPS, Freeze()), (TF, Branch()), (HPS, Penalty()), (TF, Penalty()), (DFCNN, Penalty())]
]
REUSING = [
    Factory(Transfer(search=search, protect=Freeze()), f"reusing-{search.name}")
    for search in (Evidence(epochs_share=0.5), MNTDP(learning_rates=(1e-2,), weight_decays=(0.0, 1e-3)))
]
BASELINES = [
    *(Factory(kind()) for kind in METHODS.values()),
    Factory(OneNetwork(outputs="shared"), "one-network-shared"),
    Factory(APD(period=2, groups=1), "apd-consolidated"),
]
AS_IN_THE_PAPER = Factory(
    Transfer(
        sharing=TF, search=EM(likelihood="mean", prior_form="average", first_task="search", commit_probability=2.0)
    ),
    "tf-em-paper",
    {"drop_last": True, "optimiser": "rmsprop-tf", "schedule": "inverse", "learning_rate_decay": 0.1, "tolerance": 0.0},
)
FACTORIES = [*map(Factory, TRANSFERS), AS_IN_THE_PAPER, *PROTECTED, *REUSING, *BASELINES]
EVERY_METHOD = [FACTORIES[0], PROTECTED[0], *BASELINES]
COMMITS_HALF_WAY = Transfer(search=EM(commit_probability=2.0, commit_share=0.5, prior_form="average"))
SEARCHED: list[tuple[Any, str]] = [
    (EM(**NEVER), "constant"),
    (EM(first_task="search", commit_share=0.6, commit_probability=2.0), "constant"),
    (DeepEM(num_samples=3, **NEVER), "constant"),
    (DeepEM(num_samples=2, draw_every=2, prior_form="count", first_task="search", commit_share=0.6), "constant"),
    (DeepEM(num_samples=2, groups=(2, 1), first_task="search", commit_share=0.6), "cosine"),
    (EM(likelihood="mean", prior_form="average", prior_start=(0.8, 0.3), **NEVER), "constant"),
    (FixedProbability(first_task="search"), "constant"),
    (MovingPrior(), "constant"),
    (Evidence(folds=3), "cosine"),
    (SubTuning(folds=2, epsilon=0.0), "cosine"),
    (AutoRGN(num_batches=2), "cosine"),
    (TAPS(score_step=0.03, first_task="search"), "cosine"),
    (DARTS(first_task="search"), "inverse"),
    (DARTS(first_task="search", order="second"), "cosine"),
    (
        DARTS(first_task="search", alpha_split="train", alpha_learning_rate=None, alpha_optimiser="rmsprop-tf"),
        "inverse",
    ),
]
DEEP = {"epochs": 5, "batch_size": 4, "learning_rate": 0.02, "learning_rate_decay": 0.3}
RESUMED = [
    *(
        Factory(COMMITS_HALF_WAY, f"hps-em-{name}", {"epochs": 4, "batch_size": 4, "patience": 3, "optimiser": name})
        for name in OPTIMISERS
    ),
    *(
        Factory(method, f"{method.name}-bf16", {"precision": "bf16", "epochs": 3, "augment": "trivial"})
        for method in (Transfer(sharing=DFCNN), METHODS["gated"](), METHODS["hat"]())
    ),
    *(
        Factory(Transfer(search=s), f"{s.name}-{schedule}", DEEP | {"schedule": schedule}, 3)
        for s, schedule in SEARCHED
    ),
]
CLASSES = (2, 4, 3)
COLOUR = (3, 7, 6)
IMAGES = torch.rand(3, *GREY, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module", params=FACTORIES, ids=str)
def factory(request: pytest.FixtureRequest) -> Factory:
    return request.param


@pytest.fixture(scope="module")
def grown(factory: Factory) -> Learner:
    learner = factory.make()
    assert learner.task_names == ()
    learn_three(learner)
    return learner


@pytest.fixture(scope="module")
def model(grown: Learner, factory: Factory, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three tasks, saved; to be read only."""
    place = tmp_path_factory.mktemp(str(factory)) / "model"
    grown.save(place)
    return place


@pytest.fixture
def learner(grown: Learner) -> Learner:
    """One that has learned the three tasks, to be changed."""
    return copy.deepcopy(grown)


def some(*factories: Factory) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("factory", factories, ids=str, scope="module")


def learn_three(learner: Learner) -> None:
    for k, num_classes in enumerate(CLASSES):
        task = tiny_task(f"t{k}", num_classes, seed=k)
        record, name = learner.learn(task), task.name
        told = (record.task, record.index, record.classes, record.parameters_total, record.parameters_added)
        assert told == (name, k, learner.classes(name), learner.num_parameters(), learner.num_parameters(name))
        assert record.configuration in record.configurations
        assert record.peak_accuracy == learner.accuracy(name, task.test)  # the best epoch is kept
        least = 1 if isinstance(learner.method, Logistic) else QUICK.epochs  # it begins at its best
        assert 1 <= record.best_epoch <= record.num_epochs >= least


def test_tasks_are_answered_saved_and_read(factory: Factory, learner: Learner, model: Path) -> None:
    images = torch.randint(0, 256, (5, *GREY), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    again = factory.load(model)
    assert again.task_names == learner.task_names == ("t0", "t1", "t2")
    assert parts_of(again.method) | {"search": None} == parts_of(learner.method) | {"search": None}
    tensors = {name: t for name, t in tensors_in(model).items() if not name.startswith("memory:")}
    assert learner.num_parameters() == again.num_parameters() == count(tensors)
    for name, num_classes in zip(learner.task_names, CLASSES, strict=True):
        names, probabilities = learner.predict(name, images), learner.predict(name, images, probabilities=True)
        assert (probabilities.shape, probabilities.dtype) == ((5, num_classes), torch.float32)
        torch.testing.assert_close(probabilities.sum(dim=1), torch.ones(5))
        assert names == [learner.classes(name)[k] for k in probabilities.argmax(dim=1).tolist()]
        assert torch.equal(again.predict(name, images, probabilities=True), probabilities)
        assert (again.predict(name, images.numpy()), again.predict(name, images[:0])) == (names, [])
        assert again.predict(name, images[:0], probabilities=True).shape == (0, num_classes)
        test = tiny_task(name, num_classes, seed=int(name[1])).test
        answers = learner.predict(name, test.images.take(torch.arange(len(test))))
        right = [answer == learner.classes(name)[k] for answer, k in zip(answers, test.labels.tolist(), strict=True)]
        assert again.accuracy(name, test) == learner.accuracy(name, test) == pytest.approx(sum(right) / len(right))
        logits = learner.logits(name, images)
        assert torch.equal(again.logits(name, images), logits)
        torch.testing.assert_close(plain_network(again, name)(images.float() / 255), logits, rtol=1e-4, atol=1e-5)
        owned = count({key: t for key, t in tensors.items() if key.startswith(f"tasks/{name}:")})
        assert learner.num_parameters(name) == again.num_parameters(name) == owned
        assert again.classes(name) == learner.classes(name)


def test_many_tasks_at_once_are_answered_as_one_after_another(learner: Learner) -> None:
    images = torch.randint(0, 256, (7, *GREY), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    wanted = {"t2": [6, 0, 3], "t0": range(7), "t1": [3, 3, 1]}
    for name, logits in learner.logits_many(images, wanted).items():
        torch.testing.assert_close(logits, learner.logits(name, images)[list(wanted[name])], rtol=1e-5, atol=1e-5)
    names = ["t1", "t0", "t2", "t2", "t1", "t0", "t1"]
    for k, (name, answer) in enumerate(
        zip(names, learner.predict_many(images, names, probabilities=True), strict=True)
    ):
        alone = learner.predict(name, images[k : k + 1], probabilities=True)[0]
        torch.testing.assert_close(answer, alone, rtol=1e-5, atol=1e-5)
        assert learner.predict_many(images, names)[k] == learner.classes(name)[int(alone.argmax())]


def test_a_model_that_was_read_learns_on_to_the_same_bits_and_saving_only_adds(
    factory: Factory, learner: Learner, model: Path, tmp_path: Path
) -> None:
    """Read as a whole, it does in the test of interruptions."""
    learner.save(tmp_path / "stayed")
    tasks = json.loads((model / "config.json").read_text())["tasks"] if not factory.method.rewrites else []
    files = [tmp_path / "stayed/parts" / f"{task['weights']['checksum']}.safetensors" for task in tasks]
    before, task = [file.stat().st_mtime_ns for file in files], tiny_task("t3", seed=3)
    record = learner.learn(task)
    learner.save(tmp_path / "stayed")
    learner.save(tmp_path / "stayed")
    assert [file.stat().st_mtime_ns for file in files] == before
    again = factory.load(model, lazy=True)
    assert again.learn(task) == record
    again.save(tmp_path / "away")
    assert files_in(tmp_path / "away") == files_in(tmp_path / "stayed")


def test_the_same_seed_gives_the_same_bits(factory: Factory, model: Path, tmp_path: Path) -> None:
    torch.manual_seed(0)  # nobody's business
    same, other_seed = factory.make(), factory.make(seed=8)
    same.save(tmp_path / "same")  # without a task yet
    learn_three(same)
    same.save(tmp_path / "same")
    assert files_in(tmp_path / "same") == files_in(model)
    other_seed.learn(tiny_task("t0"))
    one, other = tensors_in(model), saved(other_seed, tmp_path / "other")
    drawn = {n for n in one if "weight" in n and n in other and one[n].is_floating_point() and n.startswith("tasks/")}
    if not isinstance(factory.method, Logistic):  # which has one solution
        assert not any(one[name].shape == other[name].shape and torch.equal(one[name], other[name]) for name in drawn)


@some(*EVERY_METHOD)
def test_names_and_shapes_that_do_not_fit(factory: Factory) -> None:
    learner, images = factory.make(), torch.zeros(1, *GREY)
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


@some(FACTORIES[0])
def test_images_as_arrays_bytes_and_floats(factory: Factory, model: Path) -> None:
    learner = factory.load(model)
    pixels = np.random.default_rng(0).integers(0, 256, (4, *GREY), dtype=np.uint8)
    expected = learner.predict("t0", pixels, probabilities=True)
    before = pixels.copy()
    for same in (torch.from_numpy(pixels), pixels.astype(np.float32) / 255, pixels.astype(np.float64) / 255):
        torch.testing.assert_close(learner.predict("t0", same, probabilities=True), expected, rtol=1e-4, atol=1e-5)
    assert torch.equal(learner.predict("t0", pixels[::-1][::-1], probabilities=True), expected)
    assert np.array_equal(pixels, before)


@some(*EVERY_METHOD)
def test_a_folder_that_holds_something_else_is_left_alone(factory: Factory, tmp_path: Path) -> None:
    learner, other = factory.make(), factory.make((3, 6, 6))
    learner.learn(tiny_task("a"))
    learner.save(tmp_path / "model")
    newer = json.loads((tmp_path / "model" / "config.json").read_text()) | {"format_version": 10**6}
    for place, text in (
        ("papers/thesis.txt", "years of work"),
        ("project/config.json", '{"tasks": []}'),
        ("newer/config.json", json.dumps(newer)),
        ("file", "a file"),
    ):
        (tmp_path / place).parent.mkdir(exist_ok=True)
        (tmp_path / place).write_text(text)
    other.save(tmp_path / "empty")  # no task yet, but of another network
    shorter = factory.make()
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


@some(FACTORIES[0], FACTORIES[-1])
@pytest.mark.parametrize("name", ["...", ".a.tmp", "-"])
def test_a_first_save_that_was_killed_before_its_index_is_repeated(factory: Factory, name: str, tmp_path: Path) -> None:
    """By whatever name a task may have."""
    learner = factory.make()
    learner.learn(tiny_task(name))
    learner.save(tmp_path)
    whole = files_in(tmp_path)
    (tmp_path / "config.json").unlink()
    learner.save(tmp_path)
    assert files_in(tmp_path) == whole
    assert factory.load(tmp_path).task_names == (name,)


def test_a_search_of_the_users_own_is_needed_to_learn_and_not_to_answer(tmp_path: Path) -> None:
    learner = Learner(tiny_net(), search=MovingPrior(), training=QUICK)
    learner.learn(tiny_task("a"))
    learner.save(tmp_path)
    again = Learner.load(tmp_path)
    assert torch.equal(again.logits("a", IMAGES), learner.logits("a", IMAGES))
    with pytest.raises(StorageError, match=r"saved with the search 'moving-prior', .* pass search=\.\.\. to load"):
        again.learn(tiny_task("b"))
    again.save(tmp_path / "copy")  # which keeps what it says of the search
    for place in (tmp_path, tmp_path / "copy"):
        assert Learner.load(place, search=MovingPrior()).learn(tiny_task("b")).index == 1


@pytest.mark.parametrize(
    ("own", "other"), [({"method": EWC()}, {"protect": Branch()}), ({}, {"method": EWC()})], ids=["ewc", "lasem"]
)
def test_a_model_is_not_read_with_parts_of_another_method(own: Any, other: dict[str, Any], tmp_path: Path) -> None:
    Learner(tiny_net(), training=QUICK, **own).save(tmp_path)
    with pytest.raises(StorageError, match=rf"saved with method '\w+'; got {next(iter(other))} as well"):
        Learner.load(tmp_path, **other)


@pytest.mark.parametrize(("setting", "value"), [("name", "unheard-of"), ("groups", [5, 5]), ("first_task", "top-9")])
def test_a_search_that_no_model_has_is_an_error_of_learning(setting: str, value: Any, tmp_path: Path) -> None:
    FACTORIES[0].make().save(tmp_path)
    with changed_index(tmp_path) as index:
        index["search"][setting] = value
    with pytest.raises(LasemError, match=r"unheard-of|add up to|top-9"):
        Learner.load(tmp_path).learn(tiny_task("a"))


def test_what_is_forgotten_changes_no_other_answer(factory: Factory, learner: Learner, tmp_path: Path) -> None:
    learner.save(tmp_path)
    answers = {name: learner.logits(name, IMAGES) for name in learner.task_names}
    for gone, left in (("t0", ("t1", "t2")), ("t2", ("t0", "t1")), ("t1", ("t0",))):
        try:
            learner.forget(gone)
        except TaskError as error:
            assert gone == "t0"
            assert "those after it answer with its weights" in str(error)  # noqa: PT017
            continue
        kept = [name for name in left if name in learner.task_names]
        learner.save(tmp_path)
        for each in (learner, factory.load(tmp_path)):
            assert each.task_names == tuple(kept)
            assert all(torch.equal(each.logits(name, IMAGES), answers[name]) for name in kept)
            for ask in (lambda each=each, gone=gone: each.predict(gone, IMAGES), lambda g=gone, e=each: e.forget(g)):
                with pytest.raises(TaskError, match=f"'{gone}' has not been learned"):
                    ask()
    record = learner.learn(tiny_task("t9", 3, seed=9))
    assert record.index == 3
    learner.save(tmp_path)
    assert torch.equal(factory.load(tmp_path).logits("t9", IMAGES), learner.logits("t9", IMAGES))


@some(FACTORIES[0], *(f for f in BASELINES if type(f.method).plain_weights is AbstractMethod.plain_weights))
def test_one_task_is_exported_as_a_network_that_needs_no_lasem(factory: Factory, model: Path, tmp_path: Path) -> None:
    """Where a task has plain weights, it is one program for all methods."""
    learner, name = factory.load(model), "t2"
    file, page = export(learner, name, "torch", f"{tmp_path}/")
    assert (file.name, page.name) == ("t2.pt2", "t2.pt2.json")
    program = torch.export.load(file).module()
    for images in (IMAGES, IMAGES[:1], torch.cat([IMAGES] * 9)):
        torch.testing.assert_close(program(images), learner.logits(name, images), rtol=1e-4, atol=1e-5)


def is_resumed(factory: Factory) -> bool:
    """Whether RESUMED has its search, with hard sharing."""
    kinds = {type(search) for search, _ in SEARCHED}
    return not factory.label and isinstance(factory.method, Transfer) and type(factory.method.search) in kinds


@some(*map(Factory, TRANSFERS[:3]), *(factory for factory in FACTORIES if not is_resumed(factory)), *RESUMED)
def test_an_interrupted_task_goes_on_to_the_same_bits(factory: Factory, tmp_path: Path) -> None:
    """From up to four epochs of a second task, through the disk."""
    mix = "mixup" if factory in RESUMED else "cutmix"
    learner, task = factory.make(mix=mix, class_weights="balanced"), tiny_task("t1", 3, seed=1)
    learner.learn(tiny_task("t0"))
    learner.save(tmp_path / "before")
    record, epochs, states = followed(learner, task)
    assert [epoch.epoch for epoch in epochs] == list(range(1, record.num_epochs + 1))
    learner.save(tmp_path / "whole")
    some_states = [*enumerate(states)][:: -(-len(states) // 4)]
    for at, state in [*some_states[:2], *some_states[1:]]:  # twice from one: going on does not change a state
        again = factory.load(tmp_path / "before")
        rest: list[Any] = []
        assert again.learn(task, on_epoch=lambda epoch, *_: rest.append(epoch), resume_from=state) == record  # noqa: B023
        assert rest == epochs[at + 1 :]
        again.save(tmp_path / f"{at}")
        assert files_in(tmp_path / f"{at}") == files_in(tmp_path / "whole")


@pytest.mark.parametrize(
    "search",
    [Evidence(), SubTuning(folds=2, epsilon=0.0, most_layers=1), TAPS(score_step=0.03, unpenalised=1), AutoRGN()],
    ids=lambda search: search.name,
)
def test_so_does_a_pretrained_network_s_first_task(search: Any, tmp_path: Path) -> None:
    training, task = TrainingConfig(epochs=4, batch_size=5, learning_rate=0.01), tiny_task("a", 3, num_train=20)
    whole, *others = (
        Learner(net_of(), sharing=HardSharing(train_shared=False), search=search, training=training) for _ in range(4)
    )
    record, epochs, states = followed(whole, task)
    whole.save(tmp_path / "whole")
    for again, at in zip(others, range(0, len(states), -(-len(states) // 3)), strict=False):
        assert followed(again, task, states[at])[:2] == (record, epochs[at + 1 :])
        again.save(tmp_path / f"{at}")
        assert files_in(tmp_path / f"{at}") == files_in(tmp_path / "whole")


def test_methods_start_from_the_same_weights() -> None:
    """A first task has nothing to transfer: where a method is plain training then, it is the same training."""
    searches = (Fixed("none"), Fixed("all"), EM(), Exhaustive())
    methods = [*(Transfer(search=search) for search in searches), EWC(), ER(), LwF(), SI(), ProgNN(), OneNetwork()]
    learners = [Learner(tiny_net(), method, training=QUICK, seed=7) for method in methods]
    alone, *others = (followed(learner, tiny_task("t0", 3))[1][0].loss for learner in learners)
    assert others == pytest.approx([alone] * len(others), rel=1e-5)


@some(
    Factory(Transfer(sharing=DFCNN, search=DARTS(first_task="search"))),
    Factory(Transfer(sharing=DFCNN, search=Exhaustive(first_task="search"))),
    *FACTORIES[:2],
    *BASELINES,
)
def test_colour_images_on_the_device_change_no_bit(
    factory: Factory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The CPU is taken for a device with memory of its own; the images are not square."""
    placed: list[weakref.ref[Tensor]] = []
    plain = Split.on

    def on(split: Split, device: torch.device) -> Split:
        copied = plain(split, device)
        assert isinstance(copied.images, TensorImages)
        placed.append(weakref.ref(copied.images.tensor))
        return copied

    records, tasks = [], [tiny_task(f"t{k}", 2, COLOUR, seed=k) for k in range(2)]
    for number in range(2):
        learner = factory.make(COLOUR)
        with monkeypatch.context() as patch:
            if number:
                patch.setattr(task_module, "free_bytes", lambda device: 10**9)
                patch.setattr(Split, "on", on)
            records.append([learner.learn(task) for task in tasks])
        learner.save(tmp_path / str(number))
        assert len(placed) == 4 * number  # training and validation of two tasks, each once
    assert all(tensor() is None for tensor in placed)  # and given back
    assert records[0] == records[1]
    assert_same_tensors(*(tensors_in(tmp_path / name) for name in "01"))
    images = torch.rand(5, *COLOUR)
    assert torch.equal(factory.load(tmp_path / "1").logits("t0", images), learner.logits("t0", images))
    assert records[0][1].peak_accuracy == learner.accuracy("t1", tasks[1].test)


@some(Factory(Transfer(sharing=DFCNN, search=EM(first_task="search"))), *BASELINES)
def test_every_learner_learns_in_bf16(factory: Factory, tmp_path: Path) -> None:
    learners = [factory.make(precision=precision) for precision in ("float32", "bf16", "bf16")]
    for learner in learners:
        for k in range(2):
            record = learner.learn(task := tiny_task(f"t{k}", seed=k))
            assert record.peak_accuracy == learner.accuracy(task.name, task.test)
    answers = [[m.predict(name, IMAGES, probabilities=True) for name in ("t0", "t1")] for m in learners]
    for exact, close, same in zip(*answers, strict=True):
        assert close.dtype == torch.float32
        assert torch.equal(close, same)
        assert (close - exact).abs().max() < 0.1  # after four epochs of a dozen roundings
    assert any(not torch.equal(exact, close) for exact, close, _ in zip(*answers, strict=True))
    learners[1].save(tmp_path)
    assert torch.bfloat16 not in {value.dtype for value in tensors_in(tmp_path).values()}
    again = factory.load(tmp_path)
    assert again.training.precision == "bf16"
    assert torch.equal(again.logits("t1", IMAGES), learners[1].logits("t1", IMAGES))


@some(*map(Factory, TRANSFERS), *BASELINES)
def test_class_weights_reach_every_loss(factory: Factory) -> None:
    pixels = torch.rand(20, *GREY, generator=torch.Generator().manual_seed(0))
    losses = []
    for rare in (10, 3):
        labels = torch.arange(20) < rare
        split = (pixels, labels.long())
        task = Task.from_tensors("t", classes=["a", "b"], train=split, valid=split, test=split)
        for weights in ("none", "balanced"):
            records: list[Any] = []
            learner = factory.make(epochs=1, batch_size=20, class_weights=weights)
            learner.learn(task, on_epoch=lambda record, *_: records.append(record))  # noqa: B023
            losses.append(records[0].loss)
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)  # as many images of both classes
    assert losses[2] != pytest.approx(losses[3], rel=1e-5)
