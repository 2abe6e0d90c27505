"""The small network for photographs, against torch's own layers."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lasem.errors import ConfigError, TrainingError
from lasem.experiments import NetChoice
from lasem.methods import EWC
from lasem.nets import NormalisedBlock, SmallNet, of_paper, rebuild, small
from lasem.search import EM
from lasem.sharing import AbstractSharing, HardSharing, LowRank

from .modules import assert_goes_on_after_loading

SIDES = (9, 6)
TINY = SmallNet(image_shape=(3, *SIDES), channels=(4, 5, 6))


def as_module(weights: list[dict[str, Tensor]]) -> nn.Sequential:
    """The same network of torch's layers."""
    layers: list[nn.Module] = []
    for i, own in enumerate(weights):
        out, inputs = own["weight"].shape[:2]
        conv, norm = nn.Conv2d(inputs, out, 3, padding=1, bias=False).double(), nn.BatchNorm2d(out).double()
        conv.weight.data.copy_(own["weight"])
        norm.bias.data.copy_(own["bias"])
        last = i == len(weights) - 1
        layers += [conv, norm, nn.ReLU(), nn.AdaptiveAvgPool2d(1) if last else nn.MaxPool2d(2, ceil_mode=True)]
    return nn.Sequential(*layers)


def test_it_is_the_network_of_torchs_layers_in_training_and_after_it() -> None:
    generator = torch.Generator().manual_seed(0)
    weights = [
        {key: torch.randn(shape, generator=generator, dtype=torch.float64) for key, shape in block.shapes.items()}
        for block in TINY.blocks
    ]
    module, statistics = as_module(weights), [block.initial_statistics() for block in TINY.blocks]
    statistics = [{key: value.double() for key, value in of.items()} for of in statistics]
    for _ in range(3):
        x = expected = torch.randn(5, 3, *SIDES, generator=generator, dtype=torch.float64)
        expected = module(expected)
        for i, block in enumerate(TINY.blocks):
            x, statistics[i] = block.measure({**weights[i], **statistics[i]}, x)
        torch.testing.assert_close(x, expected)
    x = torch.randn(2, 3, *SIDES, generator=generator, dtype=torch.float64)
    expected = module.eval()(x)
    for i, block in enumerate(TINY.blocks):
        x = block.apply({**weights[i], **statistics[i]}, x)
    torch.testing.assert_close(x, expected)
    assert x.flatten(1).shape[1] == TINY.head.in_features


@pytest.mark.parametrize("sharing", [HardSharing(), LowRank(rank=2)], ids=lambda sharing: sharing.name)
def test_it_is_learned_saved_and_learned_on(sharing: AbstractSharing, tmp_path: Any) -> None:
    net = SmallNet(image_shape=(1, 6, 6), channels=(3, 4))
    assert_goes_on_after_loading(lambda: net, tmp_path, give=False, sharing=sharing, search=EM())


def test_a_description_builds_it_again_and_a_choice_names_it() -> None:
    assert rebuild(TINY.description()) == TINY
    assert NetChoice()((3, 32, 32)) == NetChoice(name="small")((3, 32, 32)) == small((3, 32, 32))
    assert NetChoice(among="paper")((3, 32, 32)) == of_paper((3, 32, 32))
    assert NetChoice(hidden=(5,), dropout=0.1)((3, 32, 32)) == SmallNet(
        image_shape=(3, 32, 32), hidden=(5,), dropout=0.1
    )


def test_what_cannot_be_computed_is_refused() -> None:
    with pytest.raises(ConfigError, match="at least one number"):
        SmallNet(image_shape=(3, 8, 8), channels=())
    block = small((3, 1, 1)).blocks[0]
    assert isinstance(block, NormalisedBlock)
    weights = block.initial(torch.Generator(), "he") | block.initial_statistics()
    with pytest.raises(TrainingError, match="batch_size to 2 or more"):
        block.measure(weights, torch.zeros(1, 3, 1, 1))
    with pytest.raises(ConfigError, match="--net cifar"):
        EWC().check(TINY, None)  # type: ignore[arg-type]
