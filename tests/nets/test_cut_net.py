"""Where modules are cut, that the blocks are the module, and what is said when it cannot be cut."""

import copy
import pickle
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lasem.errors import ConfigError, StorageError
from lasem.nets import CutNet, cut, rebuild

from .modules import (
    SHAPE,
    Residual,
    SmallResNet,
    SmallViT,
    Tied,
    Twice,
    assert_same_with_gradients,
    features,
    features_of,
    generator,
    leaves,
    normalised,
    seeded,
)

STEM = ("conv1", "bn1")
CUTS: dict[str, tuple[Callable[[], nn.Module], Any, list[str]]] = {
    "resnet-auto": (SmallResNet, "auto", ["conv1", "layer1.0.conv1", "layer2.0.conv1", "layer2.1.conv1"]),
    "resnet-named": (SmallResNet, [STEM, "layer1", "layer2"], ["conv1", "layer1", "layer2"]),
    "resnet-groups": (SmallResNet, [(*STEM, "layer1"), "layer2.0", "layer2.1"], ["conv1", "layer2.0", "layer2.1"]),
    "sequential-auto": (normalised, "auto", ["0", "4", "7"]),
    "sequential-named": (normalised, [("0", "1"), ("4", "5"), ("7", "8")], ["0", "4", "7"]),
    "vit-auto": (SmallViT, "auto", ["patch", "layers.0", "layers.1"]),
    "tied": (Tied, [("one", "norm", "two", "again"), "last"], ["one", "last"]),
    "twice": (lambda: nn.Sequential(Twice(), nn.Flatten(), nn.Linear(36, 2)), ["0"], ["0"]),
    "vit-named": (SmallViT, ["patch", "layers.0", ("layers.1", "norm")], ["patch", "layers.0", "layers.1"]),
}
CUTS |= {
    "constants": (lambda: OwnConstants(), "auto", ["conv"]),
    "keeping": (
        lambda: nn.Sequential(nn.Conv2d(1, 2, 3), Keeping(), nn.Flatten(), nn.Linear(32, 2)),
        "auto",
        ["0", "1"],
    ),
    "choosing": (
        lambda: nn.Sequential(nn.Conv2d(1, 2, 3), Choosing(), nn.Flatten(), nn.Linear(32, 2)),
        "auto",
        ["0", "1"],
    ),
}
every_cut = pytest.mark.parametrize(("build", "blocks", "names"), CUTS.values(), ids=CUTS)


@every_cut
@pytest.mark.parametrize("training", [False, True], ids=["evaluating", "training"])
def test_the_blocks_are_the_module_forward_and_backward(build: Any, blocks: Any, names: Any, training: bool) -> None:
    module = seeded(build)
    before = copy.deepcopy(module.state_dict())
    net = cut(module, blocks, image_shape=SHAPE)
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())
    assert [block.name for block in net.blocks if hasattr(block, "name")] == names
    weights = [leaves(block.initial(generator(), "he")) for block in net.blocks]
    x = torch.randn(4, *SHAPE, dtype=torch.float64, generator=generator(1))
    measured: dict[str, Tensor] = {}
    value = features(net, x, weights, measured if training else None)
    module = module.double().train(training)
    expected = features_of(module, x)
    assert net.head.in_features == expected[0].numel()
    state, parameters = module.state_dict(), dict(module.named_parameters())
    for name, tensor in measured.items():
        torch.testing.assert_close(tensor, state[name], rtol=0, atol=1e-10, msg=name)
    own = {name: tensor for part in weights for name, tensor in part.items()}
    assert_same_with_gradients(value, expected, list(own.values()), [parameters[name] for name in own])


def test_what_belongs_to_whom() -> None:
    stem, first, _ = cut(seeded(SmallResNet), [STEM, "layer1", "layer2"], image_shape=SHAPE).blocks
    assert (list(stem.shapes), stem.kernels) == (["conv1.weight", "bn1.weight", "bn1.bias"], ("conv1.weight",))
    assert list(stem.statistics) == ["bn1.running_mean", "bn1.running_var", "bn1.num_batches_tracked"]
    assert first.kernels == ("layer1.0.conv1.weight", "layer1.0.conv2.weight")
    patch, layer, _ = cut(seeded(SmallViT), image_shape=SHAPE).blocks
    assert (patch.kernels, patch.statistics) == (("patch.weight",), {})
    assert set(patch.shapes) == {"patch.weight", "patch.bias", "token"}  # positions are a buffer: they never change
    assert layer.kernels == (
        "layers.0.self_attn.in_proj_weight",
        *(f"layers.0.{name}.weight" for name in ("self_attn.out_proj", "linear1", "linear2")),
    )


def test_a_block_keeps_no_weights_that_it_was_given() -> None:
    """And so it can be copied, whatever they were made of."""
    (block,) = cut(seeded(lambda: nn.Sequential(Twice(), nn.Flatten())), ["0"], image_shape=SHAPE).blocks
    block.apply(
        {name: 2 * value for name, value in leaves(block.initial(generator(), "he")).items()},
        torch.ones(2, *SHAPE).double(),
    )
    copy.deepcopy(block)


def test_frozen_parameters_belong_to_the_network() -> None:
    module = seeded(SmallResNet)
    module.bn1.weight.requires_grad_(False)  # type: ignore[union-attr]
    assert "bn1.weight" not in cut(module, image_shape=SHAPE).blocks[0].shapes


def test_a_network_that_is_not_pretrained_measures_from_the_start() -> None:
    module = seeded(SmallResNet)
    for name, value in module.named_buffers():
        if name.endswith(("running_mean", "running_var")):
            value.fill_(5.0)
    for pretrained, mean, variance in ((True, 5.0, 5.0), (False, 0.0, 1.0)):
        for block in cut(module, image_shape=SHAPE, pretrained=pretrained).blocks:
            for name, value in block.initial_statistics().items():
                expected = mean if name.endswith("mean") else variance if name.endswith("var") else 0
                assert bool((value == expected).all()), name


def test_a_network_can_be_pickled() -> None:
    net = cut(seeded(SmallViT), image_shape=SHAPE)
    again: CutNet = pickle.loads(pickle.dumps(net))
    x = torch.randn(2, *SHAPE)
    assert torch.equal(features(net, x), features(again, x))
    assert net.description() == again.description()


def test_a_description_holds_no_code_and_asks_for_the_same_network() -> None:
    net = cut(seeded(SmallResNet), image_shape=SHAPE)
    assert rebuild(net.description(), cut(seeded(SmallResNet), image_shape=SHAPE)) is not net
    with pytest.raises(
        StorageError, match=r"cut from a module \(blocks: conv1, .*\), whose code is not saved\. Pass net="
    ):
        rebuild(net.description())
    for other in (
        cut(seeded(SmallResNet, seed=1), image_shape=SHAPE),  # other pretrained weights
        cut(seeded(SmallResNet), image_shape=(1, 12, 12)),
        cut(seeded(SmallResNet), [STEM, "layer1", "layer2"], image_shape=SHAPE),
        cut(seeded(lambda: SmallResNet(width=4)), image_shape=SHAPE),
        cut(seeded(SmallResNet), image_shape=SHAPE, hidden=(3,)),
    ):
        with pytest.raises(StorageError, match=r"saved with another network \(.*\)\. Pass net="):
            rebuild(net.description(), other)
    random = cut(seeded(SmallResNet), image_shape=SHAPE, pretrained=False)
    assert rebuild(random.description(), cut(seeded(SmallResNet, seed=1), image_shape=SHAPE, pretrained=False))


class Moved(nn.Module):
    """Holds a tensor that is no buffer, and takes it along where it goes."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.scale = nn.Conv2d(2, 2, 3, padding=1), torch.ones(1)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "Moved":
        self.scale = fn(self.scale)
        return super()._apply(fn, recurse)  # type: ignore[no-any-return, no-untyped-call]

    def forward(self, x: Tensor) -> Tensor:
        return self.scale * self.conv(x)  # type: ignore[no-any-return]


class Branching(nn.Module):
    """What happens depends on the numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.fc = nn.Conv2d(1, 2, 3), nn.Linear(32, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        return self.fc(torch.flatten(x if x.sum() > 0 else -x, 1))  # type: ignore[no-any-return]


class FunctionalDropout(Branching):
    def forward(self, x: Tensor) -> Tensor:
        return self.fc(F.dropout(self.conv(x), 0.3, self.training).flatten(1))  # type: ignore[no-any-return]


class OwnConstants(Branching):
    """Makes tensors where it runs, which every trace numbers on, and takes a tuple apart."""

    def forward(self, x: Tensor) -> Tensor:
        one, two = (self.conv(x) * torch.full((1, 1, 1, 1), 2.0)).split(1, dim=1)
        return self.fc(torch.cat([one, two + torch.ones(1)], dim=1).flatten(1))  # type: ignore[no-any-return]


class Keeping(nn.Module):
    """Keeps what it computed from weights until it is trained, as some layers of attention do with positions."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.scale, self.kept = nn.Conv2d(2, 2, 3, padding=1), nn.Parameter(torch.ones(2, 1, 1)), list[Any]()

    def train(self, mode: bool = True) -> "Keeping":
        self.kept = []
        return super().train(mode)

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            return self.conv(x) * self.scale.exp()  # type: ignore[no-any-return]
        if not self.kept:
            self.kept.append(self.scale.exp())
        return self.conv(x) * self.kept[0]  # type: ignore[no-any-return]


class Choosing(nn.Module):
    """Cannot be followed."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 2, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x if x.shape[-1] > 2 and len(x) else -x)  # type: ignore[no-any-return]


class TwoAnswers(Tied):
    def forward(self, x: Tensor) -> Any:
        return {"logits": super().forward(x)}


def sequential(*layers: nn.Module) -> Callable[[], nn.Module]:
    return lambda: nn.Sequential(nn.Conv2d(1, 2, 3, padding=1), *layers, nn.Flatten(), nn.Linear(72, 2))


CANNOT: list[tuple[Callable[[], nn.Module], Any, str]] = [
    (SmallResNet, "atuo", "blocks must be 'auto' or a sequence of submodules' names; got 'atuo'"),
    (SmallResNet, [], "at least one submodule in each block"),
    (SmallResNet, [STEM, "layer1", "layer3"], r"no submodule 'layer3' \(there are: .*\)\. Did you mean 'layer1'\?"),
    (SmallResNet, ["conv1", "layer1", "layer2"], "'bn1' has weights and stands in no block. Add it to the group"),
    (SmallResNet, ["layer1", STEM, "layer2"], "'layer1.* runs after 'conv1'.* the order in which they run"),
    (SmallResNet, [STEM, "layer1", "layer1.0", "layer2"], "'layer1.0' lies within 'layer1'"),
    (SmallResNet, [STEM, "layer1", "layer2", "relu"], "'layer2.* runs after 'relu'"),
    (
        SmallResNet,
        [STEM, *[(f"layer1.0.conv{i}", f"layer1.0.bn{i}") for i in (1, 2)], "layer2"],
        r"Between block 'layer1.0.bn1' and block 'layer1.0.conv2' more than one value passes.*Group them into one",
    ),
    (sequential(nn.RReLU(), nn.Conv2d(2, 2, 3, padding=1)), "auto", "Block '0' draws random numbers in training"),
    (FunctionalDropout, "auto", r"FunctionalDropout cannot be cut: what it does in training differs .*\('dropout'\)"),
    (sequential(nn.BatchNorm2d(2, track_running_stats=False)), "auto", "depends on the other images of the batch"),
    (Branching, "auto", "depends on the values of tensors.*Name the submodules that do so as whole blocks"),
    (
        lambda: nn.Sequential(nn.Conv2d(1, 2, 3, padding=1), nn.Sequential(nn.ReLU(inplace=True), nn.Conv2d(2, 2, 3))),
        ["0", "1"],
        r"'1' changes its input in place.*Set inplace=False",
    ),
    (
        lambda: nn.Sequential(nn.Conv2d(1, 2, 3), Moved()),
        ["0", "1"],
        r"Block '1' cannot be run with weights that are given.*Register them",
    ),
    (Tied, "auto", r"used in two blocks, 'one' and 'two'\. Group them"),
    (TwoAnswers, "auto", "gives a dict; expected one tensor"),
    (lambda: nn.Sequential(nn.Flatten(), nn.Linear(36, 2)), "auto", "has no weights that require gradients"),
    (lambda: nn.Conv2d(3, 2, 3), "auto", r"cannot take images of shape \(1, 6, 6\).*Give the image_shape"),
]


@pytest.mark.parametrize(("build", "blocks", "message"), CANNOT)
def test_what_cannot_be_cut_is_named(build: Callable[[], nn.Module], blocks: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        cut(seeded(build), blocks, image_shape=SHAPE)


def test_a_block_follows_its_weights_whatever_its_layers_keep() -> None:
    (_, block) = cut(seeded(sequential(Keeping())), image_shape=SHAPE).blocks
    weights, x = block.initial(generator(), "he"), torch.randn(2, 2, 6, 6)
    for factor in (1.0, 2.0):
        given = weights | {"1.scale": factor * weights["1.scale"]}
        expected = torch.nn.functional.conv2d(x, given["1.conv.weight"], given["1.conv.bias"], padding=1)
        torch.testing.assert_close(block.apply(given, x), (expected * given["1.scale"].exp()).flatten(1))


def test_only_normalisation_may_be_trained() -> None:
    module = seeded(SmallResNet)
    net = cut(module, [STEM, "layer1", "layer2"], image_shape=SHAPE, trainable="norm")
    names = [name for block in net.blocks for name in block.shapes]
    assert names == [name for name, _ in module.named_parameters() if ".bn" in f".{name}" or "shortcut.1" in name]
    x = torch.randn(2, *SHAPE)
    torch.testing.assert_close(features(net, x), features_of(module.eval(), x))
    plain = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Conv2d(2, 2, 1), nn.GroupNorm(1, 2), nn.Conv2d(2, 2, 1), nn.Flatten())
    assert [list(block.shapes) for block in cut(plain, image_shape=SHAPE, trainable="norm").blocks] == [
        ["2.weight", "2.bias"]
    ]
    with pytest.raises(ConfigError, match=r"Block '0' has no weights .*no normalisation with any\). Group it"):
        cut(plain, ["0", ("1", "2"), "3"], image_shape=SHAPE, trainable="norm")
    with pytest.raises(ConfigError, match="pretrained must be True, and rank None"):
        cut(plain, image_shape=SHAPE, trainable="norm", rank=2)


def test_dropout_is_switched_off_and_said() -> None:
    module = seeded(sequential(nn.Dropout(0.2), nn.Conv2d(2, 2, 3, padding=1), nn.Dropout2d(0.0), nn.Dropout(0.1)))
    net = cut(module, image_shape=SHAPE)
    assert net.remark == "Dropout within Sequential is off (1.p, 4.p)."
    assert net.built_from({}).remark == net.for_images(SHAPE, None).remark == net.remark
    assert cut(seeded(SmallResNet), image_shape=SHAPE).remark == ""
    assert module[1].p == 0.2  # type: ignore[index]


def test_layers_that_only_a_classifier_needs_are_replaced_or_kept() -> None:
    def head(**given: Any) -> tuple[int, Sequence[int], int]:
        net = cut(seeded(SmallResNet), image_shape=SHAPE, **given)
        return net.head.in_features, net.head.hidden, net.depth

    assert head() == head(classifier="fc") == (4, (), 4)
    assert head(hidden=(7,)) == (4, (7,), 4)
    assert head(blocks=[STEM, "layer1", "layer2", "fc"]) == (10, (), 4)
    with pytest.raises(ConfigError, match="name of a linear layer as classifier; got 'cf'"):
        head(classifier="cf")
    whole = cut(Residual(1, 2), image_shape=SHAPE)
    assert (whole.depth, whole.head.in_features) == (1, 72)


def test_weights_of_a_module_whose_channels_are_last_lie_as_files_hold_them() -> None:
    """Else a model that was loaded would go on to other bits."""
    block = cut(seeded(SmallResNet).to(memory_format=torch.channels_last), image_shape=SHAPE).blocks[1]  # type: ignore[call-overload]
    assert all(value.is_contiguous() for value in block.initial(generator(), "he").values())
