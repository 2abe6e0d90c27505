"""Small tasks, networks and learners for the tests of training, learners and contracts."""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, final

import pytest
import torch
from safetensors.torch import load, load_file, save
from torch import Tensor

from lasem import Learner, Task
from lasem.learner.model_folder import sealed
from lasem.nets import ImageShape, Net
from lasem.records import EpochRecord, TaskRecord
from lasem.search import AbstractSearch, AbstractSelection
from lasem.sharing import AbstractSharing, Deconvolution, HardSharing, TensorFactorization
from lasem.space import Space, full
from lasem.training import TrainingState
from lasem.tree import map_tensors, named

SHARINGS: list[AbstractSharing] = [HardSharing(), TensorFactorization(), Deconvolution()]
GREY = (1, 6, 6)
every_sharing = pytest.mark.parametrize("sharing", SHARINGS, ids=lambda s: s.name)


def tiny_task(
    name: str = "task", num_classes: int = 2, shape: tuple[int, int, int] = GREY, seed: int = 0, num_train: int = 10
) -> Task:
    """Noise around one pattern for each class, in bytes."""
    generator = torch.Generator().manual_seed(seed)
    patterns = torch.rand(num_classes, *shape, generator=generator)

    def split(num: int) -> tuple[Tensor, Tensor]:
        labels = torch.arange(num) % num_classes
        images = 0.5 * patterns[labels] + 0.5 * torch.rand(num, *shape, generator=generator)
        return (images * 255).to(torch.uint8), labels

    classes = [f"{name}-class-{k}" for k in range(num_classes)]
    return Task.from_tensors(name, train=split(num_train), valid=split(6), test=split(6), classes=classes)


def tiny_net(shape: ImageShape = GREY, depth: int = 2, linear: Sequence[int] = (), dropout: float = 0.5) -> Net:
    """Convolutions, the second one pooled, and linear layers behind them."""
    return Net(
        image_shape=shape,
        channels=(3, 4, 2, 3, 2, 3)[:depth],
        kernels=(3, 2, 3, 1, 3, 3)[:depth],
        pools=(1, 2, 1, 1, 1, 1)[:depth],
        linear=tuple(linear),
        hidden=(5,),
        dropout=dropout,
    )


def searching(learner: Learner, search: AbstractSelection) -> None:
    """Let a learner search its later tasks otherwise."""
    learner.method = replace(learner.method, search=search)  # type: ignore[type-var]


def start_of(learner: Learner, task: Task) -> Any:
    """What a search of the next task starts from."""
    return learner.method.start(learner.model, task, learner.setup)  # type: ignore[attr-defined]


def followed(
    learner: Learner, task: Task, resume_from: Any = None
) -> tuple[TaskRecord, list[Any], list[TrainingState]]:
    """Learn a task; its record, its epochs, and the states after each of them, through the disk's form."""
    epochs, states = [], []

    def keep(epoch: EpochRecord, timing: Any, state: Any) -> None:
        assert (timing.task, timing.epoch, timing.seconds_training > 0) == (epoch.task, epoch.epoch, True)
        tensors, plain = state()
        epochs.append(epoch)
        states.append(TrainingState(load(save(dict(tensors))), json.loads(json.dumps(plain))))

    return learner.learn(task, on_epoch=keep, resume_from=resume_from), epochs, states


def tensors_in(folder: Path) -> dict[str, Tensor]:
    """Every tensor of a saved model: ``shared:layer.0.weight``, ``tasks/NAME:head.bias.0``."""
    index = json.loads((folder / "config.json").read_text())
    parts = {f"tasks/{task['name']}:": task["weights"] for task in index["tasks"]}
    parts |= {f"{group}:": index[group] for group in ("shared", "memory") if group in index}
    parts |= {f"shared:layer.{key.removesuffix('@0')}.": part for key, part in index["versions"].items()}
    return {
        f"{place}{name}": tensor
        for place, part in parts.items()
        for name, tensor in load_file(folder / "parts" / f"{part['checksum']}.safetensors").items()
    }


def saved(learner: Learner, folder: Path) -> dict[str, Tensor]:
    learner.save(folder)
    return tensors_in(folder)


@contextmanager
def changed_index(folder: Path) -> Iterator[dict[str, Any]]:
    """Let a model's index be changed, and give it the checksum that it then has, as one who wants to deceive would."""
    path = folder / "config.json"
    index = json.loads(path.read_text())
    del index["checksum"]
    yield index
    path.write_text(sealed(index))


def copied(tree: Any, *, requires_grad: bool = False) -> Any:
    """Detached copies of every tensor."""
    return map_tensors(lambda t: t.detach().clone().requires_grad_(requires_grad and t.is_floating_point()), tree)


def assert_same_tensors(first: Any, second: Any) -> None:
    """Of two trees, such as dicts of tensors or TaskWeights."""
    one, other = named(first), named(second)
    assert sorted(one) == sorted(other)
    for name, value in one.items():
        assert torch.equal(value, other[name]), name


def files_in(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


@contextmanager
def memory_grows_by_less_than(mebibytes: int) -> Iterator[None]:
    """The process's memory, at its peak within. ``ru_maxrss`` would not see what an earlier test had taken before."""

    def peak() -> int:
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:"))  # in KiB

    try:
        Path("/proc/self/clear_refs").write_text("5")  # the peak is what is taken now
        before = peak()
    except (OSError, StopIteration):
        before = None
    yield
    if before is None:
        pytest.skip("only Linux forgets a process's peak of memory if it is told to")
    assert peak() - before < 1024 * mebibytes


@final
@dataclass(frozen=True)
class MovingPrior(AbstractSearch[Tensor]):
    """A user's own search, in a file of their own."""

    name: ClassVar[str] = "moving-prior"
    rate: float = 0.1

    def space(self, depth: int, task_index: int) -> Space:
        return full(depth)

    def init(self, num_configurations: int) -> Tensor:
        return torch.full((num_configurations,), 1 / num_configurations, dtype=torch.float64)

    def step(self, state: Tensor, log_likelihood: Tensor) -> tuple[Tensor, Tensor]:
        posterior = torch.softmax(state.log() + log_likelihood.sum(dim=1), dim=0)
        return posterior, torch.lerp(state, posterior, self.rate)

    def best(self, state: Tensor) -> int:
        return int(state.argmax())


@final
@dataclass(frozen=True)
class Scripted(AbstractSearch[int]):
    """The leading configuration changes with every mini-batch, whatever the evidence."""

    name: ClassVar[str] = "scripted"

    def space(self, depth: int, task_index: int) -> Space:
        return full(depth)

    def init(self, num_configurations: int) -> int:
        return 0

    def step(self, state: int, log_likelihood: Tensor) -> tuple[Tensor, int]:
        num = len(log_likelihood)
        return torch.full((num,), 1 / num, dtype=torch.float64), (state + 1) % num

    def best(self, state: int) -> int:
        return state
