"""Learning with networks that were cut and with changes of low rank: against plain torch, and over an interruption."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from learner.fixture import SHARINGS, assert_same_tensors, copied, followed, searching, start_of, tensors_in, tiny_task
from sharing.fixture import random
from torch import Tensor, nn

from lasem.data import Task
from lasem.errors import ConfigError, StorageError, TrainingError
from lasem.learner import Learner, plain_network
from lasem.learner.export import export
from lasem.methods import EWC, Branch, Freeze
from lasem.methods.transfer import num_kept
from lasem.nets import AbstractNet, ResNet, cut
from lasem.search import DARTS, EM, AbstractSelection, DeepEM, Fixed, Mixture, MixturePhase, evaluate
from lasem.sharing import AbstractSharing, Deconvolution, HardSharing, LowRank, TensorFactorization
from lasem.space import Configuration, full, listed
from lasem.training import Batch, LayerWeights, Loop, TaskWeights, TrainingConfig, initial_statistics
from lasem.tree import map_tensors, named

from .modules import (
    SHAPE,
    SmallViT,
    Tied,
    assert_goes_on_after_loading,
    assert_same_with_gradients,
    features,
    features_of,
    generator,
    leaves,
    normalised,
    seeded,
)

FROZEN = HardSharing(train_shared=False)
EVERY_SHARING = [*SHARINGS, LowRank(rank=2)]


def net_of(build: Any = normalised, **given: Any) -> AbstractNet:
    return cut(seeded(build), image_shape=SHAPE, **given)


def learner_of(search: AbstractSelection | None = None, net: AbstractNet | None = None, **given: Any) -> Learner:
    training = TrainingConfig(epochs=3, batch_size=5, fit_head=False, **given.pop("training", {}))
    return Learner(net or net_of(), search=search, training=training, **given)


def test_training_is_plain_torch_training_statistics_and_all() -> None:
    """``Fixed`` with hard sharing is the module itself, trained with torch."""
    net, task = net_of(), tiny_task(num_classes=3)
    learner = learner_of(
        Fixed("all"), net, training={"optimiser": "sgd", "learning_rate": 0.05, "schedule": "constant"}
    )
    plan, loop = start_of(learner, task), loop_of(learner, task)
    module = seeded(normalised).train()
    module[-1] = nn.Linear(36, 3)  # type: ignore[index]
    module[-2].p = 0.0  # type: ignore[index]
    with torch.no_grad():
        module[-1].weight.copy_(plan.weights.head["weight.0"])  # type: ignore[index]
        module[-1].bias.copy_(plan.weights.head["bias.0"])  # type: ignore[index]
    optimiser = torch.optim.SGD(module.parameters(), lr=0.05, momentum=0.9)
    order = torch.Generator().manual_seed(1)
    for _ in range(3):
        loop.run_epoch()
        for batch in loop.phase.batches(torch.device("cpu"), order):
            optimiser.zero_grad()
            F.cross_entropy(module(batch.x), batch.labels).backward()
            optimiser.step()
    state = module.state_dict()
    names: set[str] = set()
    for i, own in enumerate(loop.weights.layers):
        trained = {**own.shared, **own.statistics_of("T" * (i + 1))}
        names |= trained.keys()
        for name, value in trained.items():
            torch.testing.assert_close(value, state[name], rtol=1e-4, atol=1e-5, msg=name)
    assert names == {name for name in state if not name.startswith("12.")}
    assert state["1.num_batches_tracked"] > 3  # and so they moved
    module.eval()
    x, _ = next(task.test.batches(6, device=torch.device("cpu")))
    mixture = Mixture(net, learner.method.sharing, (Configuration.parse("TTT"),))
    torch.testing.assert_close(evaluate(mixture, loop.weights, x)[0], module(x), rtol=1e-4, atol=1e-4)


def phase_of(learner: Learner, task: Task) -> Any:
    return MixturePhase(learner.method.search, start_of(learner, task))  # type: ignore[arg-type]


def loop_of(learner: Learner, task: Task | None = None) -> Any:
    return Loop(phase_of(learner, task or tiny_task()), seeds=(1, 2), device=torch.device("cpu"))


RESNET = ResNet(image_shape=SHAPE, channels=(3, 4), blocks_per_stage=1, stem_kernel=5)


@pytest.mark.parametrize("sharing", EVERY_SHARING, ids=lambda sharing: sharing.name)
@pytest.mark.parametrize("where", ["all", "some", "resnet"])
def test_every_path_measures_what_it_would_measure_alone(sharing: AbstractSharing, where: str) -> None:
    """In a residual network configurations also change inside of residual blocks."""
    net = RESNET if where == "resnet" else net_of(pretrained=sharing.name != "dfcnn")
    space = listed(["TST", "SST", "STT"]) if where == "some" else full(net.depth)
    source = generator(7)
    layers = []
    for i, block in enumerate(net.blocks):
        plain = block.initial(source, "he")
        shared = sharing.initial_shared(block, plain, source)
        own = {name: value + 0.1 for name, value in sharing.initial_task(block, shared, plain, source).items()}
        specific = {name: value + 0.2 * torch.randn(value.shape, generator=source) for name, value in plain.items()}
        layers.append(LayerWeights(shared, own, specific, initial_statistics(block, i, space)))
    weights = TaskWeights(tuple(layers), net.head.initial(3, source, "he"))
    weights = map_tensors(lambda t: t.double() if t.is_floating_point() else t, weights)
    together, mixture = copied(weights), Mixture(net, sharing, tuple(space))
    batches = [torch.randn(4, *SHAPE, dtype=torch.float64, generator=source) for _ in range(3)]
    stacks = [
        mixture.tree.in_order(mixture.features(together, x, training=True).unflatten(0, (len(space), -1)))
        for x in batches
    ]
    answers = evaluate(mixture, together, batches[0])
    for c, configuration in enumerate(space):
        alone, single = copied(weights), Mixture(net, sharing, (configuration,))
        for x, stack in zip(batches, stacks, strict=True):
            torch.testing.assert_close(single.features(alone, x, training=True), stack[c], rtol=0, atol=1e-11)
        for i in range(net.depth):
            prefix = str(configuration)[: i + 1]
            measured = alone.layers[i].statistics_of(prefix)
            for name, value in together.layers[i].statistics_of(prefix).items():
                torch.testing.assert_close(value, measured[name], rtol=0, atol=1e-11, msg=name)
        torch.testing.assert_close(evaluate(single, alone, batches[0])[0], answers[c], rtol=0, atol=1e-11)
    before = copied(together)
    evaluate(mixture, together, batches[1])
    assert_same_tensors(together, before)
    assert where == "resnet" or not torch.equal(answers[0], evaluate(mixture, weights, batches[0])[0])


def test_statistics_are_measured_and_never_optimised() -> None:
    loop = loop_of(learner_of(EM(first_task="search")))
    weights = named(loop.weights)
    statistics = [name for name in weights if ".statistics." in name]
    assert len(statistics) == 3 * 2 + 3 * 8  # of the first and the third block, for each prefix; GroupNorm has none
    assert not any(weights[name].requires_grad for name in statistics)
    before = {name: weights[name].clone() for name in statistics}
    loop.phase.accuracy(loop.weights)
    assert all(torch.equal(weights[name], before[name]) for name in statistics)
    loop.run_epoch()
    assert not any(torch.equal(weights[name], before[name]) for name in statistics)


def test_the_best_epochs_statistics_are_kept() -> None:
    loop, accuracies = loop_of(learner_of(Fixed("all"), training={"tolerance": 0.0})), iter((0.9, 0.1, 0.2))
    loop.phase.accuracy = lambda weights: next(accuracies)
    loop.run_epoch()
    first = copied(loop.weights)
    loop.run_epoch()
    loop.run_epoch()
    fitted = loop.result()
    assert fitted.best.epoch == 1
    assert_same_tensors(fitted.best.weights, first)
    mean = fitted.last.weights.layers[0].statistics["T"]["1.running_mean"]
    assert not torch.equal(mean, first.layers[0].statistics["T"]["1.running_mean"])


@pytest.mark.parametrize(
    ("build", "sharing"),
    [
        (normalised, TensorFactorization()),
        (normalised, Deconvolution()),
        (SmallViT, HardSharing()),
        (SmallViT, LowRank(rank=2)),
    ],
    ids=lambda value: getattr(value, "name", getattr(value, "__name__", "")),
)
def test_it_is_saved_and_goes_on_to_the_same_bits(build: Any, sharing: AbstractSharing, tmp_path: Path) -> None:
    pretrained = not isinstance(sharing, Deconvolution)
    whole = assert_goes_on_after_loading(lambda: net_of(build, pretrained=pretrained), tmp_path, sharing=sharing)
    assert whole.num_parameters("a") == sum(t.numel() for k, t in tensors_in(tmp_path / "whole").items() if "/a:" in k)


@pytest.mark.parametrize("pretrained", [True, False])
def test_tied_weights_are_learned_and_saved_as_one(pretrained: bool, tmp_path: Path) -> None:
    def net() -> AbstractNet:
        return net_of(Tied, blocks=[("one", "norm", "two", "again"), "last"], pretrained=pretrained)

    learner = learner_of(net=net(), sharing=LowRank(rank=2))
    for name in "ab":
        learner.learn(tiny_task(name, seed=ord(name)))
    assert not any("two.weight" in key for key in plain_network(learner, "b").named_weights())
    learner.save(tmp_path / "model")
    images = torch.rand(5, *SHAPE)
    expected = learner.logits("b", images)
    assert torch.equal(Learner.load(tmp_path / "model", net=net()).logits("b", images), expected)
    torch.testing.assert_close(plain_network(learner, "b")(images), expected)


def test_an_interrupted_task_goes_on_to_the_same_bits() -> None:
    learners, task = [learner_of() for _ in range(2)], tiny_task("b", seed=1)
    for learner in learners:
        learner.learn(tiny_task("a"))
    _, _, states = followed(learners[0], task)
    followed(learners[1], task, states[0])
    for name in "ab":
        assert torch.equal(*(each.logits(name, task.test.images.take(torch.arange(6))) for each in learners))


def test_the_first_task_starts_from_the_pretrained_weights_and_transfers_all() -> None:
    net, module = net_of(), seeded(normalised)
    start = start_of(learner_of(net=net), tiny_task())
    assert [str(c) for c in start.space] == ["TTT"]
    state = module.state_dict()
    for layer in start.weights.layers:
        assert all(torch.equal(value, state[name]) for name, value in layer.shared.items())
    own = start_of(learner_of(Fixed("none"), net), tiny_task())
    assert all(torch.equal(v, state[name]) for layer in own.weights.layers for name, v in layer.specific.items())


def test_what_was_taken_over_goes_back_towards_pretrained_weights_not_past_them() -> None:
    """s w + (1 - s) w_0: with random weights' s w + sqrt(1 - s^2) w_0, w = w_0 would come out 1.2 times too large."""
    net = net_of()
    learner = learner_of(Fixed("all"), net)
    learner.learn(tiny_task("a"))
    searching(learner, Fixed("none"))
    loop = loop_of(learner, tiny_task("b"))
    taken = copied(loop.weights)
    loop.phase.begin_epoch(loop.weights, 0, 1e-3)
    state = seeded(normalised).state_dict()
    for before, after in zip(taken.layers, loop.weights.layers, strict=True):
        for name, value in before.specific.items():
            torch.testing.assert_close(after.specific[name], 0.25 * value + 0.75 * state[name])


@pytest.mark.parametrize("search", [EM(first_task="search"), Fixed("all")])
def test_a_rest_of_one_image_is_normalised_with_the_mini_batch_before_it(search: AbstractSelection) -> None:
    shrunk = nn.Sequential(nn.Conv2d(1, 2, 6), nn.BatchNorm2d(2), nn.ReLU(), nn.Flatten(), nn.Linear(2, 2))
    net = cut(seeded(lambda: shrunk), image_shape=SHAPE)
    learner_of(search, net).learn(tiny_task(num_train=11))
    with pytest.raises(TrainingError, match=r"cannot be trained on 1 image .*batch_size to 2 or more"):
        learner_of(search, net).learn(tiny_task(num_train=1))


def test_what_does_not_go_together_is_refused() -> None:
    with pytest.raises(ConfigError, match="DARTS mixes both branches"):
        learner_of(DARTS(first_task="search"), net_of()).learn(tiny_task())
    learner_of(DARTS(first_task="search"), net_of(SmallViT, pretrained=False)).learn(tiny_task())
    with pytest.raises(ConfigError, match="Method 'ewc' looks into the layers of a plain convolutional network"):
        Learner(net_of(), EWC())
    with pytest.raises(ConfigError, match=r"DF-CNN .* cannot begin at a pretrained kernel of shape \(24, 8\)"):
        learner_of(sharing=Deconvolution(), net=net_of(SmallViT)).learn(tiny_task())


def test_what_no_task_changes_has_one_version() -> None:
    learner = learner_of(Fixed("all"), sharing=LowRank(rank=1, train_shared=False), protect=Branch())
    for seed, name in enumerate("ab"):
        learner.learn(tiny_task(name, seed=seed))
    assert (learner.model.num_shared(), num_kept(learner.model)) == (0, 0)
    moving = learner_of(Fixed("all"), sharing=LowRank(rank=1), protect=Branch())
    for name in "ab":
        moving.learn(tiny_task(name))
    assert moving.model.num_shared() == 2 * sum(block.num_parameters for block in moving.net.blocks)


class Spare(nn.Module):
    """Holds a parameter that it does not use."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.spare = nn.Conv2d(1, 2, 3), nn.Parameter(torch.ones(2))

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.conv(x))


@pytest.mark.parametrize(
    "search", [EM(), DARTS(first_task="search"), DARTS(first_task="search", order="second")], ids=str
)
def test_a_parameter_without_a_use_is_in_nobodys_way(search: AbstractSelection) -> None:
    module = seeded(lambda: nn.Sequential(Spare(), nn.Flatten(), nn.Linear(32, 2)))
    learner = learner_of(search, cut(module, blocks=["0"], image_shape=SHAPE, pretrained=False))
    assert learner.learn(tiny_task()).num_epochs > 0


def test_a_step_uses_what_it_is_given_alone() -> None:
    """Two phases with one network do not meet in it."""
    net, task = net_of(), tiny_task()
    phases = [phase_of(learner_of(net=net, seed=seed), task) for seed in (0, 1)]
    batch = next(iter(phases[0].batches(torch.device("cpu"), torch.Generator())))
    weights = [copied(phase.initial()) for phase in phases]
    first = [phase.loss(own, Batch(*batch), torch.Generator()) for phase, own in zip(phases, weights, strict=True)]
    again = phases[0].loss(copied(phases[0].initial()), Batch(*batch), torch.Generator())
    assert torch.equal(first[0], again)
    assert HardSharing().num_shared(net.blocks[0]) == 3 * 9 + 3 + 3 + 3


# changes of low rank


@pytest.mark.parametrize("build", [normalised, SmallViT])
@pytest.mark.parametrize("training", [False, True], ids=["evaluating", "training"])
def test_a_change_is_the_module_with_changed_kernels_forward_and_backward(build: Any, training: bool) -> None:
    module, net = seeded(build).double().train(training), net_of(build, rank=2)
    given = [leaves(random(block.shapes, torch.float64, i)) for i, block in enumerate(net.blocks)]
    kernels = {}
    for weights in given:
        for name in (name.removesuffix(".up") for name in weights if name.endswith(".up")):
            change = weights[f"{name}.up"] @ weights[f"{name}.down"]
            assert torch.linalg.matrix_rank(change) <= 2
            kernels[name] = module.get_parameter(name) + change.reshape(module.get_parameter(name).shape)
    x = torch.randn(4, *SHAPE, generator=generator(9)).double()
    found = features(net, x, given, {} if training else None)
    every = [tensor for weights in given for tensor in weights.values()]
    assert_same_with_gradients(found, features_of(module, x, kernels), every, every)
    assert all(block.is_apart for block in net.blocks)


def test_a_module_that_takes_a_layer_s_weight_without_calling_it_gets_changed_kernels() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(6, 6)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return F.linear(x, self.layer.weight, self.layer.bias)

    with torch.random.fork_rng():
        torch.manual_seed(0)
        module = nn.Sequential(nn.Flatten(), nn.Linear(math.prod(SHAPE), 6), Tied()).double()
    net = cut(module, ["1", "2"], image_shape=SHAPE, classifier=None, rank=2)
    given = [random(block.shapes, torch.float64, i) for i, block in enumerate(net.blocks)]
    x = torch.randn(4, *SHAPE, generator=generator(9)).double()
    kernels = {
        name: module.get_parameter(name) + weights[f"{name}.up"] @ weights[f"{name}.down"]
        for weights, name in zip(given, ("1.weight", "2.layer.weight"), strict=True)
    }
    torch.testing.assert_close(features(net, x, given), torch.func.functional_call(module, kernels, (x,)))
    assert [block.is_apart for block in net.blocks] == [True, False]


def test_a_changed_network_enlarges_images_like_the_module() -> None:
    plain, enlarging = (net_of(SmallViT, rank=2) for _ in range(2))
    enlarging = enlarging.for_images((SHAPE[0], 3, 3), SHAPE[1])
    given = [random(block.shapes, torch.float32, i) for i, block in enumerate(plain.blocks)]
    x = torch.rand(2, SHAPE[0], 3, 3, generator=generator(9))
    large = F.interpolate(x, SHAPE[1:], mode="bicubic", align_corners=False)
    torch.testing.assert_close(features(enlarging, x, given), features(plain, large, given))


def test_a_change_is_exported(tmp_path: Path) -> None:
    """As programs of torch, networks that were cut are exported in tests/learner/test_export.py."""
    onnxruntime = pytest.importorskip("onnxruntime")
    learner = learner_of(Fixed("none"), net_of(rank=2), sharing=FROZEN)
    learner.learn(tiny_task("a"))
    learner.save(tmp_path / "model")
    file, _ = export(Learner.load(tmp_path / "model", net=net_of(rank=2)), "a", "onnx", tmp_path)
    images = tiny_task().test.images.take(torch.arange(4))
    (answer,) = onnxruntime.InferenceSession(file).run(None, {"images": (images / 255).numpy()})
    torch.testing.assert_close(torch.from_numpy(answer), learner.logits("a", images), rtol=1e-3, atol=1e-4)


def test_it_starts_as_the_module_and_is_small() -> None:
    changed, plain = net_of(SmallViT, rank=2), net_of(SmallViT)
    x = torch.rand(3, *SHAPE)
    for block, whole in zip(changed.blocks, plain.blocks, strict=True):
        assert block.num_parameters < whole.num_parameters
        assert len(block.kernels) == len(block.shapes)
    assert torch.equal(features(changed, x), features(plain, x))
    assert net_of(rank=99).blocks[0].shapes == {"0.weight.down": (3, 9), "0.weight.up": (3, 3)}


@pytest.mark.parametrize("sharing", [HardSharing(), FROZEN], ids=["hps", "frozen"])
def test_a_change_is_saved_and_goes_on_to_the_same_bits(sharing: AbstractSharing, tmp_path: Path) -> None:
    assert_goes_on_after_loading(lambda: net_of(rank=2), tmp_path, sharing=sharing, search=EM())
    with pytest.raises(StorageError, match="saved with another network"):
        Learner.load(tmp_path / "whole", net=net_of(rank=1))
    with pytest.raises(StorageError, match="constants"):  # a change of something else
        Learner.load(tmp_path / "whole", net=cut(seeded(normalised, seed=1), image_shape=SHAPE, rank=2))


def test_a_frozen_layer_is_the_modules_for_ever_and_costs_a_task_nothing() -> None:
    learner = learner_of(Fixed("bottom-1"), net_of(rank=2), sharing=FROZEN)
    learner.learn(tiny_task("a"))
    images = tiny_task("a").test.images.take(torch.arange(4))
    before = learner.logits("a", images)
    learner.learn(tiny_task("b", seed=1))
    assert torch.equal(learner.logits("a", images), before)
    assert not learner.model.versions
    assert not any(name.startswith("layer.0.") for name in learner.model.own["a"])


def test_a_task_that_transfers_nothing_owns_a_change_of_every_block() -> None:
    learner = learner_of(Fixed("none"), net_of(SmallViT, rank=2), sharing=FROZEN)
    for i, name in enumerate("ab"):
        learner.learn(tiny_task(name, seed=i))
    own = learner.model.own["b"]
    head = sum(value.numel() for name, value in own.items() if name.startswith("head."))
    changes = sum(block.num_parameters for block in learner.net.blocks)
    assert learner.num_parameters("b") == changes + head
    assert any(value.any() for name, value in own.items() if name.startswith("layer.0."))


def test_the_other_search_and_protection_learn_with_it() -> None:
    learner = learner_of(DeepEM(num_samples=2), net_of(rank=2), protect=Freeze())
    for name in "abc":
        learner.learn(tiny_task(name, seed=ord(name)))
    assert learner.task_names == ("a", "b", "c")


def test_what_cannot_be_changed_is_refused() -> None:
    with pytest.raises(ConfigError, match="pretrained must be True"):
        net_of(rank=2, pretrained=False)
    with pytest.raises(ConfigError, match="rank must be at least 1; got 0"):
        net_of(rank=0)
    with pytest.raises(ConfigError, match="Block '1' has no matrix or convolution"):
        net_of(rank=2, blocks=["0", "1", ("4", "5"), ("7", "8")])
    with pytest.raises(ConfigError, match=r"HardSharing\.train_shared=False keeps .* at random"):
        learner_of(net=net_of(pretrained=False), sharing=FROZEN)
