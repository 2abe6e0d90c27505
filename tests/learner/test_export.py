"""An exported task answers as the model does, with no trace of lasem in it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor

from lasem.errors import ConfigError
from lasem.learner import Learner
from lasem.learner.export import export
from lasem.nets import Net
from lasem.search import Fixed
from lasem.sharing import AbstractSharing
from lasem.training import TrainingConfig

from .fixture import GREY, SHARINGS, tiny_net, tiny_task

QUICK = TrainingConfig(epochs=1, batch_size=5, learning_rate=0.01)
IMAGES = torch.rand(7, *GREY, generator=torch.Generator().manual_seed(0))


def learned(sharing: AbstractSharing, net: Net | None = None) -> Learner:
    """Two tasks: the first task's shared layers were changed by the second one."""
    learner = Learner(net or tiny_net(linear=(6,)), sharing=sharing, search=Fixed("TST"), training=QUICK)
    learner.learn(tiny_task("a", 3))
    learner.learn(tiny_task("b", 3, seed=1))
    return learner


@pytest.mark.parametrize("sharing", SHARINGS, ids=lambda s: s.name)
def test_the_plain_network_answers_as_the_task(sharing: AbstractSharing) -> None:
    learner = learned(sharing)
    for name in ("a", "b"):
        plain = learner.plain(name)
        torch.testing.assert_close(plain(IMAGES), learner.logits(name, IMAGES), rtol=0, atol=1e-4)
        shapes = {key: tuple(value.shape) for key, value in plain.named_weights().items()}
        for i, block in enumerate(learner.net.blocks):
            assert {k: s for k, s in shapes.items() if k.startswith(f"layer.{i}.")} == {
                f"layer.{i}.{k}": s for k, s in block.shapes.items()
            }


def test_a_torch_program_answers_for_any_number_of_images(tmp_path: Path) -> None:
    learner = learned(SHARINGS[1])
    file, beside = export(learner.plain("a"), learner.net, "a", learner.classes("a"), "torch", tmp_path)
    assert (file.name, beside.name) == ("a.pt2", "a.pt2.json")
    program = torch.export.load(file).module()
    for images in (IMAGES, IMAGES[:1], torch.cat([IMAGES] * 9)):
        torch.testing.assert_close(program(images), learner.logits("a", images), rtol=0, atol=1e-4)
    page = json.loads(beside.read_text())
    assert page["classes"] == list(learner.classes("a"))
    assert page["input"]["shape"] == ["N", *GREY]


def answered_by_page(page: dict[str, Any], weights: dict[str, Tensor], x: Tensor) -> Tensor:
    """What somebody would write who has the page and the weights, and knows torch."""
    x = (x - weights["mean"][:, None, None]) / weights["std"][:, None, None]
    *layers, head = page["layers"]
    for i, layer in enumerate(layers):
        weight, bias = weights[f"layer.{i}.weight"], weights[f"layer.{i}.bias"]
        if layer["kind"] == "ConvBlock":
            size = x.shape[-1]
            total = max((-(-size // layer["stride"]) - 1) * layer["stride"] + layer["kernel"] - size, 0)
            x = F.pad(x, (total // 2, total - total // 2) * 2)
            x = F.relu(F.conv2d(x, weight, bias, stride=layer["stride"]))
            x = F.max_pool2d(x, layer["pool"], ceil_mode=True)
        else:
            x = F.relu(F.linear(x.flatten(1), weight, bias))
    x = x.flatten(1)
    for i in range(len(head["hidden"]) + 1):
        x = F.linear(x, weights[f"head.weight.{i}"], weights[f"head.bias.{i}"])
        x = F.relu(x) if i < len(head["hidden"]) else x
    return x


def test_plain_weights_and_the_page_are_enough(tmp_path: Path) -> None:
    learner = learned(SHARINGS[2])
    file, beside = export(
        learner.plain("b"), learner.net, "b", learner.classes("b"), "safetensors", tmp_path / "net.safetensors"
    )
    found = answered_by_page(json.loads(beside.read_text()), load_file(file), IMAGES)
    torch.testing.assert_close(found, learner.logits("b", IMAGES), rtol=0, atol=1e-4)


def test_formats_and_places_that_will_not_do(tmp_path: Path) -> None:
    learner = learned(SHARINGS[0])
    plain: Any = (learner.plain("a"), learner.net, "a", learner.classes("a"))
    with pytest.raises(ConfigError, match=r"format must be one of onnx, torch, safetensors.*mean 'onnx'"):
        export(*plain, "onxx", tmp_path)  # type: ignore[arg-type]
    assert not list(tmp_path.iterdir())
