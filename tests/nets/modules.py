"""Small torch modules to cut, and what every network of them must do."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from learner.fixture import assert_same_tensors, tensors_in, tiny_task
from torch import Tensor, nn

from lasem.errors import StorageError
from lasem.learner import Learner, plain_network
from lasem.nets import AbstractNet, Weights
from lasem.training import TrainingConfig

SHAPE = (1, 6, 6)
SMALL: dict[str, Any] = {"hidden_size": 8, "num_attention_heads": 2, "intermediate_size": 16}
"""Settings of a model of transformers."""


class Residual(nn.Module):
    """Two normalised convolutions and what passes by them."""

    def __init__(self, inputs: int, outputs: int, stride: int = 1) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False), nn.BatchNorm2d(outputs)
        self.conv2, self.bn2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False), nn.BatchNorm2d(outputs)
        self.relu = nn.ReLU(inplace=True)
        self.shortcut: nn.Module | None = None
        if stride > 1 or inputs != outputs:
            self.shortcut = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        out = self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x)))))
        out += x if self.shortcut is None else self.shortcut(x)
        return self.relu(out)  # type: ignore[no-any-return]


class SmallResNet(nn.Module):
    """As torchvision writes them."""

    def __init__(self, channels: int = 1, width: int = 3) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(channels, width, 3, padding=1, bias=False), nn.BatchNorm2d(width)
        self.relu, self.maxpool = nn.ReLU(inplace=True), nn.MaxPool2d(2)
        self.layer1 = nn.Sequential(Residual(width, width))
        self.layer2 = nn.Sequential(Residual(width, width + 1, 2), Residual(width + 1, width + 1))
        self.avgpool, self.fc = nn.AdaptiveAvgPool2d(1), nn.Linear(width + 1, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.layer1(self.maxpool(self.relu(self.bn1(self.conv1(x)))))
        return self.fc(torch.flatten(self.avgpool(self.layer2(x)), 1))  # type: ignore[no-any-return]


class SmallViT(nn.Module):
    """Patches, a class token, learned positions, pre-normalised layers of attention."""

    def __init__(self, channels: int = 1, width: int = 8, side: int = 6) -> None:
        super().__init__()
        self.patch = nn.Conv2d(channels, width, 3, 3)
        self.token = nn.Parameter(torch.randn(1, 1, width) * 0.02)
        self.register_buffer("positions", torch.randn(1, (side // 3) ** 2 + 1, width))
        self.layers = nn.ModuleList(
            nn.TransformerEncoderLayer(width, 2, 2 * width, 0.0, batch_first=True, norm_first=True) for _ in range(2)
        )
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patch(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(x.shape[0], -1, -1), x], dim=1) + self.positions
        for layer in self.layers:
            x = layer(x)
        return self.head(self.norm(x)[:, 0])  # type: ignore[no-any-return]


class Tied(nn.Module):
    """Two convolutions with one kernel, and two normalisations with one scale and one count."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.norm = nn.Conv2d(1, 1, 3, padding=1), nn.BatchNorm2d(1)
        self.two, self.again = nn.Conv2d(1, 1, 3, padding=1), nn.BatchNorm2d(1)
        self.two.weight, self.again.weight = self.one.weight, self.norm.weight
        self.again.num_batches_tracked = self.norm.num_batches_tracked
        self.last, self.fc = nn.Conv2d(1, 2, 3), nn.Linear(32, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.norm(self.one(x)))
        return self.fc(self.last(self.again(self.two(x))).flatten(1))  # type: ignore[no-any-return]


class Twice(nn.Module):
    """One layer in two places."""

    def __init__(self) -> None:
        super().__init__()
        self.one = nn.Conv2d(1, 1, 3, padding=1)
        self.two = self.one

    def forward(self, x: Tensor) -> Tensor:
        return self.two(torch.relu(self.one(x)))  # type: ignore[no-any-return]


def normalised() -> nn.Sequential:
    """Three convolutions, all of them normalised, and a classifier behind dropout."""
    return nn.Sequential(
        *(nn.Conv2d(1, 3, 3, padding=1), nn.BatchNorm2d(3), nn.ReLU(inplace=True), nn.MaxPool2d(2)),
        *(nn.Conv2d(3, 4, 3, padding=1), nn.GroupNorm(2, 4), nn.ReLU(inplace=True)),
        *(nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(inplace=True)),
        *(nn.Flatten(), nn.Dropout(0.5), nn.Linear(36, 5)),
    )


def seeded(build: type[nn.Module] | object, seed: int = 0) -> nn.Module:
    """A module with the same weights every time, with statistics that are not those of a fresh one."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        module: nn.Module = build()  # type: ignore[operator]
        for buffer in module.buffers():
            if buffer.is_floating_point():
                buffer.add_(torch.rand_like(buffer) * 0.3)
    return module


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def features_of(module: nn.Module, x: Tensor, weights: Mapping[str, Tensor] | None = None) -> Tensor:
    """What the last linear layer gets, without dropout, with the module's own weights or some that are given."""
    seen: list[Tensor] = []
    last = [layer for layer in module.modules() if isinstance(layer, nn.Linear)][-1]
    for layer in module.modules():
        if isinstance(layer, nn.Dropout):
            layer.p = 0.0
    handle = last.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    torch.func.functional_call(module, dict(weights or {}), (x,))
    handle.remove()
    return seen[0]


def features(net: AbstractNet, x: Any, weights: Sequence[Weights] | None = None, measured: Any = None) -> Tensor:
    """What a network's head gets from a batch, with weights of each block that are given, or those that it starts from.

    ``measured``, a dict, takes the statistics of a mini-batch of training; without it, the network is evaluated.
    """
    for i, block in enumerate(net.blocks):
        own = block.initial(generator(), net.initial) if weights is None else weights[i]
        given = {**own, **as_precise(block.initial_statistics(), own)}
        if measured is None:
            x = block.apply(given, x)
        else:
            x, after = block.measure(given, x)
            measured |= after
    return x  # type: ignore[no-any-return]


def as_precise(tensors: dict[str, Tensor], others: Weights) -> dict[str, Tensor]:
    dtype = next(iter(others.values())).dtype
    return {name: value.to(dtype) if value.is_floating_point() else value for name, value in tensors.items()}


def leaves(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: value.detach().double().requires_grad_() for name, value in tensors.items()}


def assert_same_with_gradients(found: Tensor, expected: Tensor, of_found: Any, of_expected: Any) -> None:
    """Two results, and the gradients of both along one direction."""
    found = found.reshape(expected.shape)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-10)
    direction = torch.randn(expected.shape, dtype=expected.dtype, generator=generator(2))
    gradients, wanted = (
        torch.autograd.grad((result * direction).sum(), list(tensors))
        for result, tensors in ((found, of_found), (expected, of_expected))
    )
    for one, other in zip(gradients, wanted, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-9)


def assert_goes_on_after_loading(build: Any, folder: Path, *, give: bool = True, **settings: Any) -> Learner:
    """Three tasks one after another, and the third one after saving and loading, to the same bits; the learner of all.

    ``give``: whether a model can be loaded only with its network, because it holds no code. Settings are the learner's.
    """
    training, shape = TrainingConfig(epochs=2, batch_size=5), build().image_shape
    tasks = {name: tiny_task(name, shape=shape, seed=ord(name)) for name in "abc"}
    whole = Learner(build(), training=training, **settings)
    for name in "ab":
        whole.learn(tasks[name])
    whole.save(folder / "half")
    loaded = Learner.load(folder / "half", net=build() if give else None)
    for learner, name in ((whole, "whole"), (loaded, "loaded")):
        learner.learn(tasks["c"])
        learner.save(folder / name)
    tensors = tensors_in(folder / "whole")
    assert_same_tensors(tensors, tensors_in(folder / "loaded"))
    images = tasks["c"].test.images.take(torch.arange(6))
    assert torch.equal(whole.logits("a", images), loaded.logits("a", images))
    plain = plain_network(whole, "c")
    torch.testing.assert_close(plain(images.float() / 255), whole.logits("c", images), rtol=1e-4, atol=1e-5)
    assert not any(path.suffix in (".py", ".pt", ".pkl") for path in (folder / "whole").rglob("*"))
    if give:
        with pytest.raises(StorageError, match="whose code is not saved"):
            Learner.load(folder / "half")
    return whole
