"""Runs whose network is a model of timm, by name."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image

from lasem import HardSharing
from lasem.experiments import ExperimentConfig
from lasem.experiments.comparison import compared_methods
from lasem.nets.backbone import default_is_installed
from lasem.nets.net import Backbone
from lasem.search import Evidence

from .tiny import Fake, without_report

pytestmark = pytest.mark.skipif(not default_is_installed(), reason="needs the extra pretrained")
NAME = "timm:tf_efficientnet_lite0"


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Four classes of five images, wider than high, each of one colour and noise."""
    source = np.random.default_rng(0)
    for k, colour in enumerate([(200, 40, 40), (40, 200, 40), (40, 40, 200), (200, 200, 40)]):
        (tmp_path / f"photos/{k}").mkdir(parents=True)
        for i in range(5):
            pixels = np.clip(np.array(colour) + source.normal(0, 40, (20, 30, 3)), 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(tmp_path / f"photos/{k}/{i}.png")
    return tmp_path / "photos"


def test_a_backbone_is_chosen_with_what_suits_it(photos: Path) -> None:
    entry = {"stream": {"name": "folder", "path": str(photos)}, "net": {"name": NAME, "image_size": 40}}
    config = ExperimentConfig.from_plain(entry)
    stream: Any = config.stream
    assert (stream.image_size, stream.crop, stream.interpolation) == (40, 0.875, "bicubic")
    assert (config.search, config.sharing) == (Evidence(), HardSharing(train_shared=False))
    assert ExperimentConfig.from_plain(config.to_plain()) == config
    assert config.net == Backbone(name=NAME, image_size=40)
    stretched = ExperimentConfig.from_plain({**entry, "stream": {**entry["stream"], "image_size": 32, "crop": 1.0}})
    stream = stretched.stream
    assert (stream.image_size, stream.crop) == (32, 1.0)
    assert ExperimentConfig.from_plain({**entry, "search": "em"}).search.name == "em"


def test_learn_and_the_other_commands_take_it_by_name(photos: Path, here: Path, lasem: Any) -> None:
    words = ["--net", NAME, "--image-size", "32", "--epochs", "10", "--training.augment", "none"]
    shown = lasem("learn", "model", "--task", "a", "--train", str(photos), *words)
    assert "Backbone: tf_efficientnet_lite0 of timm, weights from the package" in shown.err
    assert "TTTTTTT" in shown.out
    assert "5,124 parameters of its own" in shown.out  # 4 classes: the head alone
    assert "tf_efficientnet_lite0" in lasem("learn", "model", "--task", "b", "--train", str(photos)).err
    answers = lasem("predict", "model", "--task", "a", str(photos / "1")).out.splitlines()
    assert [line.split(",")[1] for line in answers[1:]] == ["1"] * 5
    assert "100.0 %" in lasem("evaluate", "model", "--task", "b", str(photos)).out
    assert lasem("forget", "model", "--task", "b").out
    sizes = [file.stat().st_size for file in (here / "model/parts").glob("*")]
    assert sum(size > 1_000_000 for size in sizes) == 1  # the backbone, once


def test_auto_takes_it_for_photographs(photos: Path, here: Path, lasem: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    words = ("--task", "a", "--train", str(photos), "--epochs", "1", "--training.augment", "none")
    assert "Backbone:" not in lasem("learn", "small", *words, "--image-size", "16").err
    assert "Backbone: tf_efficientnet_lite0" in lasem("learn", "large", *words, "--image-size", "41").err
    monkeypatch.setattr("lasem.nets.net.default_is_installed", lambda: False)
    assert "pip install 'lasem[pretrained]'" in lasem("learn", "without", *words, "--image-size", "41").err


@pytest.mark.parametrize(
    ("options", "net"),
    [
        ([], NAME),
        (["--net", "auto"], NAME),
        (["--search", "em", "--sharing", "tf"], NAME),
        (["--method", "top-2"], NAME),
        (["--method", "ewc"], "auto"),
        (["--method", "mntdp"], "auto"),
        (["--net", "small"], "small"),
        (["--net.hidden", "8"], "auto"),
        (["--preset", "paper"], "auto"),
        (["--stream.image_size", "40"], "auto"),
        (["--stream.channels", "1"], "auto"),
    ],
)
def test_auto_takes_it_for_a_stream_of_photographs(
    photos: Path, options: list[str], net: str, lasem: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ["--stream", "folder", "--stream.path", str(photos)]
    size = [] if "--stream.image_size" in options else ["--stream.image_size", "41"]
    plain = yaml.safe_load(lasem("run", *words, *size, *options, "--print-config").out)
    assert plain["net"]["name"] == net
    if not options:
        assert (plain["search"]["name"], plain["sharing"]["train_shared"]) == ("evidence", False)
    again = ExperimentConfig.from_plain(plain)  # as from a file
    assert again.to_plain() == plain
    monkeypatch.setattr("lasem.nets.net.default_is_installed", lambda: False)
    assert yaml.safe_load(lasem("run", *words, *size, *options, "--print-config").out)["net"]["name"] in (net, "auto")


@pytest.mark.usefixtures("here")
def test_a_run_says_which_network_auto_takes_and_goes_on_with_it(
    photos: Path, lasem: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ["--stream", "folder", "--stream.path", str(photos), "--stream.image_size", "41", "--epochs", "1"]
    words += ["--stream.num_tasks", "1", "--stream.classes_per_task", "2"]
    without_report(monkeypatch)
    monkeypatch.setattr("lasem.experiments.comparison.ProcessPool", Fake)
    assert "Backbone: tf_efficientnet_lite0" in lasem("run", *words, "--search", "fixed", "--out", "run").err
    told = "Network: a small one, which learns from the start, for ewc takes no pretrained one."
    both = ["compare", *words, "--methods", "none,ewc", "--out", "both"]
    assert told in lasem(*both).err
    said = lasem("run", *words, "--method", "ewc", "--out", "ewc").err
    assert "for the method takes no pretrained one" in said
    assert "is better" not in said
    with monkeypatch.context() as patch:
        patch.setattr("lasem.nets.net.default_is_installed", lambda: False)
        assert "pip install 'lasem[pretrained]'" in lasem("run", *words, "--out", "small").err
        lasem("compare", *words, "--methods", "none", "--out", "compared")
    assert "finished already" in lasem("run", "--resume", "small").err
    lasem("compare", *words, "--methods", "none,all", "--out", "compared")
    for place in ("both/ewc-0", "small", "compared/none-0", "compared/all-0"):
        assert yaml.safe_load((Path(place) / "config.yaml").read_text())["net"]["name"] == "auto"
    printed = yaml.safe_load(lasem("compare", *words, "--methods", "none,lasem-tf", "--print-config").out)
    assert [method["net"]["name"] for method in printed] == [NAME, NAME]


def test_a_comparison_has_one_network_that_every_method_takes() -> None:
    base = {"stream": {"name": "cifar100", "path": "data"}}
    shape = (3, 32, 32)
    alone = compared_methods(base, ["lasem", "none"], [])
    assert {type(one.config.build_net(shape)).__name__ for one in alone} == {"SmallNet"}
    methods = compared_methods(base, ["lasem", "none", "ewc"], [])
    assert {type(one.config.build_net(shape)).__name__ for one in methods} == {"Net"}
