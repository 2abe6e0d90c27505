"""What a mini-batch must not do, for a GPU would be waited for: read a number, or mix tensors of two devices.

There is no GPU here. Torch's device ``meta`` knows of every tensor where it is and nothing of its numbers: whatever
asks for one fails, and what meets a tensor of the CPU is found by looking at every operation.
"""

from typing import Any, final

import pytest
import torch
from learner.fixture import SHARINGS, start_of, tiny_net, tiny_task
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from lasem.learner import Learner
from lasem.methods import METHODS, AbstractMethod
from lasem.methods.method import Setup
from lasem.methods.model import Model
from lasem.search import DARTS, EM, AbstractSelection, DeepEM, Fixed
from lasem.sharing import AbstractSharing, HardSharing, LowRank, TensorFactorization
from lasem.training import AbstractPhase, Batch, Loop, Step, TrainingConfig, build_optimiser
from lasem.tree import flatten, map_tensors

META = torch.device("meta")


@pytest.fixture(autouse=True)
def meta_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lasem.learner.learner.find_device", torch.device)  # which refuses devices without numbers


@final
class Watch(TorchDispatchMode):
    """Notes where numbers are read, and the operations that take tensors of two devices.

    What is copied from the device is there one half everywhere.
    """

    def __init__(self) -> None:
        super().__init__()
        self.read: list[str] = []
        self.mixed: list[str] = []
        self.fetched, self.sent = 0, 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if "_to_copy" in str(func):
            to = (kwargs or {}).get("device") or args[0].device
            self.fetched += args[0].device.type != "cpu" and to.type == "cpu"
            self.sent += args[0].device.type == "cpu" and to.type != "cpu"
            if args[0].device == META and to.type == "cpu":
                return torch.full(args[0].shape, 0.5, dtype=kwargs.get("dtype") or args[0].dtype)
            return func(*args, **(kwargs or {}))
        out = func(*args, **(kwargs or {}))
        tensors = [t for t in tree_leaves((args, kwargs, out)) if isinstance(t, Tensor)]
        # a kernel is given a single number of the CPU as it is
        if len({t.device.type for t in tensors if t.dim() > 0}) > 1:
            self.mixed.append(str(func))
        if "_local_scalar_dense" in str(func) or "nonzero" in str(func):
            self.read.append(tensors[0].device.type)
        return out


def train_on_meta(phase: AbstractPhase[Any], num_batches: int = 2) -> tuple[list[int], list[int]]:
    """Some mini-batches, which fail at the first single number that is asked for.

    For each mini-batch how many tensors were copied from the device, and to it.
    """
    generator = torch.Generator()
    weights = map_tensors(lambda t: t.detach().to(META, copy=True), phase.initial())
    scales = {path: phase.scale(path) for path in flatten(weights)}
    trained = [(t.requires_grad_(), scales[path]) for path, t in flatten(weights).items() if scales[path] > 0]
    optimiser = build_optimiser(trained, TrainingConfig(optimiser="rmsprop-tf"))  # torch's fused ones know no meta
    phase.begin_epoch(weights, 0, 1e-3)
    fetched, sent = [], []
    with Watch() as watch:
        for number in range(num_batches):
            before = watch.fetched, watch.sent
            x = torch.empty(5, *phase.task.image_shape, device=META)
            batch = Batch(x, torch.empty(5, dtype=torch.int64, device=META), phase.task.name)
            step = Step(0, number, num_batches, 1e-3)
            loss = phase.loss(weights, batch, generator)
            optimiser.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            phase.change_gradients(weights, step)
            optimiser.step()
            with torch.no_grad():
                phase.after_step(weights, step)
            fetched.append(watch.fetched - before[0])
            sent.append(watch.sent - before[1])
    assert watch.mixed == []
    assert "meta" not in watch.read  # a step's number, which Adam reads, is on the CPU
    assert loss.device.type == "meta"
    return fetched, sent


@pytest.mark.parametrize(
    ("search", "sharing"),
    [
        *((EM(first_task="search"), sharing) for sharing in (*SHARINGS, LowRank())),
        (EM(first_task="search", likelihood="mean", prior_form="average"), HardSharing()),
        (Fixed("top-1"), HardSharing()),
        (DARTS(first_task="search", alpha_split="train"), TensorFactorization()),
        (DARTS(first_task="search", alpha_split="train", order="second"), HardSharing()),
    ],
    ids=["em", "em-tf", "em-dfcnn", "em-low-rank", "average", "fixed", "darts", "darts-second"],
)
def test_no_mini_batch_of_a_search_waits(search: AbstractSelection, sharing: AbstractSharing) -> None:
    learner = Learner(tiny_net(), sharing=sharing, search=search, device="meta")
    assert train_on_meta(next(learner.method.search.plan(start_of(learner, tiny_task())))) == ([0, 0], [0, 0])


def test_deep_em_waits_at_each_draw_alone() -> None:
    search = DeepEM(first_task="search", num_samples=2, draw_every=3)
    phase = next(search.plan(start_of(Learner(tiny_net(depth=3), search=search, device="meta"), tiny_task())))
    fetched, sent = train_on_meta(phase, 7)
    assert fetched == [1, 0, 0, 2, 0, 0, 2]  # the prior, and from the second draw on the latest weights
    assert [num > 0 for num in sent] == [True, False, False, True, False, False, True]


@pytest.mark.parametrize("order", ["first", "second"])
def test_darts_sends_validation_images_and_waits_for_nothing(order: Any) -> None:
    """Six of them in mini-batches of four: all are sent when a round over them begins."""
    search = DARTS(first_task="search", alpha_split="valid", order=order)
    learner = Learner(tiny_net(), search=search, training=TrainingConfig(batch_size=4), device="meta")
    fetched, sent = train_on_meta(next(search.plan(start_of(learner, tiny_task()))), 3)
    assert fetched == [0, 0, 0]
    assert [num > 0 for num in sent] == [True, False, True]


@pytest.mark.parametrize("kind", [kind for name, kind in METHODS.items() if name != "joint"], ids=lambda k: k.name)
def test_no_mini_batch_of_a_first_task_waits(kind: type[AbstractMethod]) -> None:
    method = kind()
    setup = Setup(tiny_net(), TrainingConfig(**method.training), META, 0, 0)
    assert train_on_meta(next(method.plan(Model(), tiny_task(), setup))) == ([0, 0], [0, 0])


def tasks_after_one(kind: type[AbstractMethod]) -> AbstractPhase[Any]:
    """The first phase of a second task, on the CPU."""
    method, task = kind(), tiny_task("second", seed=1, num_train=60)
    training = TrainingConfig(**{**method.training, "epochs": 1, "batch_size": 5})
    learner = Learner(tiny_net(), method, training=training)
    learner.learn(tiny_task("first"))
    return next(method.plan(learner.model, task, Setup(learner.net, training, torch.device("cpu"), 0, 1)))


@pytest.mark.parametrize("kind", METHODS.values(), ids=lambda k: k.name)
def test_an_epoch_of_a_later_task_reads_few_numbers_however_long_it_is(kind: type[AbstractMethod]) -> None:
    phase = tasks_after_one(kind)
    with Watch() as watch:
        loop = Loop(phase, seeds=(1, 2), device=torch.device("cpu"))
        at_start, num_batches = len(watch.read), 0
        for _ in loop.phase.batches(torch.device("cpu"), torch.Generator()):
            num_batches += 1
        assert num_batches >= 12
        reading = len(watch.read) - at_start
        loop._train(1e-3)
    # the mean loss, and whether everything is finite; the orders of the images of each epoch are drawn on the CPU
    assert len(watch.read) - at_start - 2 * reading == 2, watch.read
