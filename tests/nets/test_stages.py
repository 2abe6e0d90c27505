"""Stages and blocks of real models, with random weights, and that the blocks are the model."""

from typing import Any

import pytest
import torch
from torch import nn

from lasem.errors import ConfigError
from lasem.nets import cut, from_transformers, stage_groups

from .modules import SMALL, SmallResNet, features, seeded

RESNET = [["conv1", "bn1", "layer1"], ["layer2"]]
STAGES: dict[str, tuple[int, list[list[str]], int]] = {
    "tf_efficientnet_lite0": (
        32,
        [["conv_stem", "bn1", "blocks.0"], *([f"blocks.{i}"] for i in range(1, 6)), ["blocks.6", "conv_head", "bn2"]],
        16,
    ),
    "regnety_002": (32, [["stem", "s1"], ["s2"], ["s3"], ["s4"]], 13),
    "vit_tiny_patch16_224": (
        32,
        [
            ["patch_embed", "blocks.0", "blocks.1"],
            *([f"blocks.{i}", f"blocks.{i + 1}"] for i in (2, 4, 6, 8)),
            ["blocks.10", "blocks.11", "norm"],
        ],
        12,
    ),
}


def without_classifier() -> nn.Module:
    model = seeded(SmallResNet)
    model.fc = nn.Identity()
    return model


@pytest.mark.parametrize("name", STAGES)
def test_stages_are_the_models_own_at_most_eight(name: str) -> None:
    timm = pytest.importorskip("timm", exc_type=ImportError)
    side, expected, num_blocks = STAGES[name]
    sized = {"img_size": side} if name.startswith("vit") else {}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = timm.create_model(name, num_classes=0, **sized).eval()
    assert stage_groups(model) == expected
    assert len(stage_groups(model, "blocks")) == num_blocks
    net = cut(model, expected, image_shape=(3, side, side), classifier=None)
    x = torch.randn(2, 3, side, side)
    with torch.no_grad():
        torch.testing.assert_close(features(net, x), model(x), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    ("groups", "expected"),
    [
        ("stages", RESNET),
        ("blocks", [["conv1", "bn1", "layer1.0"], ["layer2.0"], ["layer2.1"]]),
        ((1, 2), [["conv1", "bn1", "layer1.0"], ["layer2.0", "layer2.1"]]),
    ],
)
def test_blocks_may_be_put_together(groups: Any, expected: list[list[str]]) -> None:
    model = without_classifier()
    assert stage_groups(model, groups) == expected
    assert cut(model, expected, image_shape=(1, 6, 6), classifier=None).depth == len(expected)
    assert model.training  # nothing else has changed


def test_numbers_of_blocks_that_do_not_fit_are_refused() -> None:
    for groups in ((1, 1), (3, 0), ()):
        with pytest.raises(ConfigError, match=r"SmallResNet has 3 blocks; expected groups of as many in all, got "):
            stage_groups(without_classifier(), groups)
    with pytest.raises(ConfigError, match="groups must be 'stages', 'blocks' or numbers of blocks; got 'stage'"):
        stage_groups(without_classifier(), "stage")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="Identity has no submodules with weights"):
        stage_groups(nn.Identity())


def test_layers_between_which_two_values_pass_are_one_stage() -> None:
    class Long(SmallResNet):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            first = self.maxpool(self.conv1(x))
            return self.layer2(self.layer1(first)).mean() + first  # type: ignore[no-any-return]

    assert stage_groups(seeded(Long)) == [["conv1", "layer1", "layer2"]]


@pytest.mark.parametrize(("words", "apart"), [(20, False), (400, True)])
def test_a_large_table_of_words_is_a_stage_of_its_own(words: int, apart: bool) -> None:
    transformers = pytest.importorskip("transformers", exc_type=ImportError)
    dropout = {"hidden_dropout_prob": 0, "attention_probs_dropout_prob": 0, "max_position_embeddings": 4}
    config = transformers.BertConfig(**SMALL, **dropout, vocab_size=words, num_hidden_layers=9)
    encoder = None

    def grouped(module: nn.Module, *args: Any, **settings: Any) -> Any:
        nonlocal encoder
        encoder = module
        return cut(module, *args, **settings)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("lasem.nets.pretrained.cut", grouped)
        from_transformers(transformers.BertModel(config), length=4)
    assert encoder is not None
    found = stage_groups(encoder)
    assert len(found) == (6 if apart else 5)
    assert (found[0] == ["embeddings"]) == apart
    assert [name for group in found for name in group] == ["embeddings", *(f"layers.{i}" for i in range(9))]
