"""Experiments with classes, networks, readers and tensors of a person's own."""

import re
import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar
from unittest.mock import Mock

import numpy as np
import pytest
import torch
from learner.fixture import MovingPrior
from torch import Tensor, nn

from lasem import EM, Fixed, HardSharing, Learner, TrainingConfig
from lasem.data import AbstractReader, DigitsReader, TaskStream, TensorReader
from lasem.errors import ConfigError, DeviceError, ShapeError, StorageError
from lasem.experiments import ComparedMethod, ComparisonObserver, ExperimentConfig, NetChoice, Observer, compare, run
from lasem.experiments import compared_methods as named
from lasem.experiments.grid import Ended, Event, Learned, Started
from lasem.methods import EWC, AbstractMethod, OneNetwork
from lasem.metrics import load_run
from lasem.nets import AbstractNet, ImageShape, Net, cut, for_images
from lasem.records import EpochRecord, TimingRecord

from .tiny import READER, Fake, records_of, tiny, without_report

STREAM = {"name": "digits", "num_tasks": 2, **READER}
SHAPE = (1, 8, 8)
GENERATOR = torch.Generator().manual_seed(0)
IMAGES = torch.randint(0, 256, (60, 8, 8), dtype=torch.uint8, generator=GENERATOR)
LABELS = torch.arange(60) % 4


@dataclass(frozen=True)
class OwnEM(MovingPrior):  # type: ignore[misc]
    """A copy of EM that was changed, and its name was not."""

    name: ClassVar[str] = "em"
    rate: float = 0.2

    def commits(self, state: Tensor, epoch: int, num_epochs: int) -> bool:
        return True

    def best(self, state: Tensor) -> int:
        return 1


@dataclass(frozen=True)
class Failing(OwnEM):  # type: ignore[misc]
    name: ClassVar[str] = "failing"

    def commits(self, state: Tensor, epoch: int, num_epochs: int) -> bool:
        raise RuntimeError("it cannot advance")


@dataclass(frozen=True, kw_only=True)
class Holding(AbstractReader):
    """Digits, and a field of any type."""

    name: ClassVar[str] = "../up/down x"
    held: Any = None

    def open(self, seed: int) -> TaskStream:
        return DigitsReader(num_tasks=1, **READER).open(seed)


class OwnNetwork(OneNetwork):  # type: ignore[misc]
    """One that changes how it answers, not its settings."""


class NoDataclass(OneNetwork):  # type: ignore[misc]
    def __init__(self, size: int) -> None:
        object.__setattr__(self, "size", size)


@dataclass(frozen=True)
class Nameless(AbstractMethod):
    plan = logits = None  # type: ignore[assignment]


def module(width: int = 3) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(1, width, 3), nn.ReLU(), nn.Conv2d(width, 2, 3), nn.Flatten(), nn.Linear(32, 3))


def small(image_shape: ImageShape) -> AbstractNet:
    return cut(module(), image_shape=image_shape, pretrained=False)


def other(image_shape: ImageShape) -> AbstractNet:
    return cut(module(4), image_shape=image_shape, pretrained=False)


def reader(images: object = IMAGES) -> TensorReader:
    return TensorReader(images=images, labels=LABELS, num_tasks=2, classes_per_task=2)


@pytest.fixture(autouse=True)
def _light(monkeypatch: pytest.MonkeyPatch) -> None:
    without_report(monkeypatch)


class Stop(Observer, ComparisonObserver):
    """Stops a run in its second task."""

    def epoch_ends(self, record: EpochRecord, timing: TimingRecord) -> None:
        if (record.task, record.epoch) == ("digits-1", 1):
            raise KeyboardInterrupt

    def notify(self, event: Event) -> None:
        if isinstance(event, Learned) and event.num_learned == 1:
            raise KeyboardInterrupt


def test_an_own_search_is_compared_as_itself_whatever_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lasem.experiments.comparison.write_comparison", lambda path: path)
    processes = Fake(makes=False)
    (theirs,) = named({"stream": STREAM, "training": {"epochs": 2}, "threads": 1}, ["lasem"])
    # a network that no file brings back: these runs are made here
    mine = [ComparedMethod(s.__name__, replace(theirs.config, search=s(), net=small(SHAPE))) for s in (Failing, OwnEM)]

    listener = Mock(spec=ComparisonObserver)
    with pytest.raises(KeyboardInterrupt):
        compare(mine[1:], tmp_path, executor=processes, observer=Stop())
    made = compare([theirs, *mine], tmp_path, executor=processes, observer=listener)
    events = [notified.args[0] for notified in listener.notify.call_args_list]
    assert processes.names == ["lasem-0"]
    assert (events[0], events[2]) == (Started("Failing-0"), made.failures["Failing-0"])
    assert made.failures["Failing-0"].error == "unexpected RuntimeError: it cannot advance"
    assert "raise RuntimeError" in made.failures["Failing-0"].details
    assert events[3:6] == [Started("OwnEM-0"), Learned("OwnEM-0", 1, 2), Learned("OwnEM-0", 2, 2)]
    assert isinstance(events[6], Ended)
    assert (events[6].error, len(events)) == (None, 7)
    whole = run(mine[1].config, tmp_path / "whole")
    assert records_of(tmp_path / "OwnEM-0") == records_of(whole)
    learner = Learner.load(whole / "seeds/0/model", search=OwnEM(), net=small(SHAPE))
    assert [learner.configuration(name) for name in learner.task_names] == ["ST", "ST"]


def test_a_run_of_an_own_class_goes_on_with_that_class_alone(tmp_path: Path, lasem: Any) -> None:
    config, place = tiny(search=OwnEM()), tmp_path / "run"
    with pytest.raises(KeyboardInterrupt):
        run(config, place, observer=Stop())
    assert "name: experiments.test_own.OwnEM" in (place / "config.yaml").read_text()
    with pytest.raises(StorageError, match=r"search\.name = experiments\.test_own\.OwnEM there, em here"):
        run(replace(config, search=EM()), place, resume=True)
    with pytest.raises(StorageError, match=r"search\.rate = 0\.2 there, 0\.3 here"):
        run(replace(config, search=OwnEM(rate=0.3)), place, resume=True)
    with pytest.raises(StorageError, match=r"other settings: search\.name = .*OwnEM there, em here"):
        compare([ComparedMethod("run", replace(config, search=EM()))], _as_comparison(place))
    assert "finished already" not in lasem("run", "--resume", str(place)).err
    run(config, place, resume=True)
    with pytest.raises(StorageError, match=r"search\.name = em there, experiments\.test_own\.OwnEM here"):
        run(config, run(tiny(1, 1, search=EM()), tmp_path / "em"), resume=True)
    with pytest.raises(ConfigError, match=r"Expected a module mine for method 'mine\.Replay', in the current folder"):
        ExperimentConfig.from_yaml("method: {name: mine.Replay}")


def test_runs_that_no_file_describes_are_made_here_despite_a_cluster(tmp_path: Path) -> None:
    cluster = Fake(remote=True)
    mine = ComparedMethod("mine", tiny(1, 1, search=OwnEM(), net=small(SHAPE)))
    made = compare([mine], tmp_path, executor=cluster)
    assert (made.failures, made.num_made, cluster.jobs) == ({}, 1, [])
    with pytest.raises(DeviceError, match="nowhere"):  # what is made elsewhere needs no device here
        compare([replace(mine, config=replace(mine.config, device="nowhere"))], tmp_path, executor=cluster)


def _as_comparison(place: Path) -> Path:
    """A folder in which a run is that of the method 'run' with seed 0."""
    folder = place.parent / "comparison"
    shutil.copytree(place, folder / "run-0")
    return folder


@pytest.mark.parametrize("net", [small, small(SHAPE)], ids=["function", "network"])
def test_a_run_with_an_own_network_resumes_with_it(net: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = tiny(2, 2, net=net)
    whole = run(config, tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        run(config, tmp_path / "run", observer=Stop())
    another = other if net is small else other(SHAPE)
    # of one given as it is the settings tell; of a function of the same name only what it makes
    if net is small:
        monkeypatch.setattr(other, "__qualname__", "small")
    with pytest.raises(StorageError, match=r"other settings: net\.description" if net is not small else "another net"):
        run(replace(config, net=another), tmp_path / "run", resume=True)
    run(config, tmp_path / "run", resume=True)
    assert records_of(tmp_path / "run") == records_of(whole)
    assert Learner.load(whole / "seeds/0/model", net=small(SHAPE)).net.depth == 2
    told = "experiments.test_own.small" if net is small else "lasem.nets.cut_net.CutNet\n  description:\n    kind: cut"
    assert f"net:\n  name: {told}" in (whole / "config.yaml").read_text()


def test_a_plain_network_of_ones_own_serves_baselines_too(tmp_path: Path) -> None:
    config = tiny(1, 1, search=EM(), net=replace(for_images(SHAPE), hidden=(4,)), method=EWC())
    model = run(config, tmp_path / "run") / "seeds/0/model"
    assert isinstance(config.net, Net)
    assert Learner.load(model).net == config.net


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"net": module()}, r"got a Sequential\. Cut it into layers: lasem\.nets\.cut"),
        ({"net": NetChoice}, "got the class NetChoice. Make an object of it: NetChoice"),
        ({"net": "cifar"}, r"ExperimentConfig\.from_plain\(\{'net': 'cifar'\}\)"),
        ({"net": 3}, "a function of the image shape .* got a int"),
        ({"stream": TaskStream.of([])}, r"got a TaskStream\. Give the reader .* TensorReader for tensors"),
        ({"stream": torch.zeros(3)}, r"got a Tensor\. For tensors there is TensorReader"),
        ({"search": OwnEM}, r"search must be an object of AbstractSelection; got the class OwnEM"),
        ({"method": NoDataclass(3), "search": EM()}, "NoDataclass is no dataclass. Make it a frozen dataclass"),
        ({"method": Nameless(), "search": EM()}, "Nameless needs a name"),
        ({"stream": Holding(held=object())}, r"Holding\.held is of type object, which no file"),
        ({"stream": Holding(held={"a": (1, {2})})}, r"Holding\.held\['a'\] is of type set"),
    ],
)
def test_what_cannot_be_a_part_is_refused_at_once(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        tiny(**settings)


def test_a_network_that_does_not_fit_is_met_before_a_folder_is_made(tmp_path: Path) -> None:
    with pytest.raises(ShapeError, match=r"images of shape \(1, 8, 8\); this network takes \(3, 9, 9\)"):
        run(tiny(net=for_images((3, 9, 9))), tmp_path / "run")
    with pytest.raises(ConfigError, match=r"must give an AbstractNet; got a Sequential\. Cut it"):
        run(tiny(net=lambda shape: module()), tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("held", "written"),
    [
        (Path("a/b"), "held: a/b"),
        ({"a": torch.zeros(2), 3: [Path("c")]}, r"held:\n    a: float32 \(2,\), sha256 [0-9a-f]+\n    3: \[c\]"),
        (OwnEM(), r"held:\n    class: experiments\.test_own\.OwnEM\n    rate: 0\.2"),
        (torch.zeros(1).numpy()[0], r"held: 0\.0"),
    ],
    ids=str,
)
def test_what_a_file_can_hold_in_words_is_written_and_resumed(held: object, written: str, here: Path) -> None:
    config = tiny(stream=Holding(held=held), training=TrainingConfig(epochs=1), search=Fixed("none"))
    place = run(config)
    assert place == Path("runs/up-down-x-hps-fixed-001")
    assert re.search(written, (place / "config.yaml").read_text())
    run(config, place, resume=True)
    with pytest.raises(StorageError, match=r"stream\.held"):
        run(replace(config, stream=Holding(held="another")), place, resume=True)


def test_a_learner_refuses_what_it_could_not_save() -> None:
    class Plain(HardSharing):  # type: ignore[misc]
        def __init__(self) -> None:
            pass

    with pytest.raises(ConfigError, match=r"Plain is no dataclass\. Make it a frozen dataclass"):
        Learner(for_images(SHAPE), sharing=Plain())
    with pytest.raises(ConfigError, match="NoDataclass is no dataclass"):
        Learner(for_images(SHAPE), NoDataclass(3))


def test_a_saved_model_is_not_read_with_another_class_of_the_same_name(tmp_path: Path) -> None:
    Learner(for_images(SHAPE), search=OwnEM()).save(tmp_path / "model")
    with pytest.raises(StorageError, match=r"search 'experiments\.test_own\.OwnEM', which is not lasem's own: pass"):
        Learner.load(tmp_path / "model").find_search()  # which learning needs, and answers do not
    assert Learner.load(tmp_path / "model", search=OwnEM()).method.search == OwnEM()
    Learner(for_images(SHAPE), OwnNetwork()).save(tmp_path / "baseline")
    with pytest.raises(StorageError, match=r"method 'experiments\.test_own\.OwnNetwork', which is not lasem's own"):
        Learner.load(tmp_path / "baseline")


def test_labels_of_methods(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="letters, digits"):
        ComparedMethod("../up", tiny())
    with pytest.raises(ConfigError, match="'mine' is there twice"):
        compare([ComparedMethod("Mine", tiny()), ComparedMethod("mine", tiny())], tmp_path / "comparison")


def test_a_run_on_tensors_is_kept_and_resumed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()  # with its report
    folder = run(tiny(stream=reader()), tmp_path / "run")
    assert "images: uint8 (60, 8, 8), sha256 " in (folder / "config.yaml").read_text()
    assert (folder / "report.html").stat().st_size > 10_000
    assert [task.task for task in load_run(folder / "seeds/0").tasks] == ["tensors-0", "tensors-1"]
    before = records_of(folder)
    run(tiny(stream=reader(IMAGES.numpy())), folder, resume=True)  # the same numbers as an array
    assert records_of(folder) == before
    other = np.ascontiguousarray(IMAGES.numpy())
    other[0, 0, 0] += 1
    with pytest.raises(StorageError, match="other settings"):
        run(tiny(stream=reader(other)), folder, resume=True)


def test_methods_are_compared_on_tensors_in_this_process(tmp_path: Path) -> None:
    # each method's reader is an object of its own, on the same numbers
    methods = [
        ComparedMethod(search.configuration, tiny(stream=reader(), search=search))
        for search in (Fixed("none"), Fixed("all"))
    ]
    made = compare(methods, tmp_path)
    assert (made.failures, made.num_made) == ({}, 2)
    assert [path.name for path in sorted(tmp_path.glob("*-0"))] == ["all-0", "none-0"]
    assert "| single-task |" in (tmp_path / "comparison.md").read_text()
    other = ComparedMethod("other", tiny(stream=reader(IMAGES[:50]), search=Fixed("all")))
    with pytest.raises(ConfigError, match="one stream with the same seeds; other has others"):
        compare([*methods, other], tmp_path)
