"""An exported task answers as the model does, with no trace of lasem in it."""

import io
import json
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image, ImageOps
from safetensors.torch import load_file, save_file
from torch import Tensor

from lasem import Fixed, Learner, TrainingConfig
from lasem.data import Task
from lasem.data.decode import Resize, decode
from lasem.errors import ConfigError, StorageError
from lasem.learner.export import export
from lasem.nets import AbstractNet, Net, ResNet, SmallNet, cut, from_timm
from lasem.sharing import AbstractSharing

from .fixture import GREY, SHARINGS, files_in, tiny_net, tiny_task

QUICK = TrainingConfig(epochs=1, batch_size=5, learning_rate=0.01)
IMAGES = torch.rand(7, *GREY, generator=torch.Generator().manual_seed(0))


def learned(net: AbstractNet, sharing: AbstractSharing, configuration: str) -> Learner:
    """Two tasks: the first task's shared layers were changed by the second one."""
    learner = Learner(net, sharing=sharing, search=Fixed(configuration), training=QUICK)
    learner.learn(tiny_task("a", 3))
    learner.learn(tiny_task("b", 3, seed=1))
    return learner


def answered_by_operations(page: dict[str, Any], weights: dict[str, Tensor], x: Tensor) -> Tensor:
    """What somebody would write who has read ``operations`` on the page, and knows torch."""
    kept = x
    for step in page["computes"]:
        if "weight" in step:
            weight, bias = weights[step["weight"]], weights.get(step["bias"])
        match step["operation"]:
            case "standardise":
                x = (x - weights[step["mean"]][:, None, None]) / weights[step["std"]][:, None, None]
            case "conv2d":
                x = F.conv2d(F.pad(x, step["padding"]), weight, bias, stride=step["stride"])
            case "normalise":
                mean, variance, bias = (weights[step[name]][:, None, None] for name in ("mean", "variance", "bias"))
                x = (x - mean) / (variance + 1e-5).sqrt() + bias
            case "average":
                x = x.mean(dim=(2, 3), keepdim=True)
            case "relu":
                x = x.clamp(min=0)
            case "max_pool2d":
                x = F.pad(x, step["padding"], value=-torch.inf)
                x = F.max_pool2d(x, step["window"], ceil_mode=step["ceil_mode"])
            case "keep":
                kept = x
            case "add":
                x = x + torch.cat([kept, torch.zeros(len(x), step["channels_of_zeros"], *x.shape[2:])], dim=1)
            case "flatten":
                x = x.flatten(1)
            case "linear":
                x = x @ weight.T + bias
            case "divide":
                x = x / weights[step["by"]]
            case other:
                raise AssertionError(other)
        assert step["operation"] in page["operations"]
    return x


STRIDED = Net(
    image_shape=GREY, channels=(2, 3), kernels=(2, 5), pools=(1, 2), strides=(2, 1), linear=(4,), hidden=(3, 5)
)
RESIDUAL = ResNet(image_shape=GREY, channels=(2, 3), blocks_per_stage=1, stem_kernel=3, hidden=(4,))
POOLED = Net(image_shape=GREY, channels=(2,), kernels=(3,), pools=(4,), strides=(2,), pool_border="both")


@pytest.mark.parametrize(
    ("net", "sharing", "configuration"),
    [
        (STRIDED, SHARINGS[0], "none"),
        (RESIDUAL, SHARINGS[0], "none"),
        (replace(RESIDUAL, form="paper"), SHARINGS[0], "none"),
        (POOLED, SHARINGS[0], "none"),
        (SmallNet(image_shape=GREY, channels=(3, 4)), SHARINGS[0], "TS"),
        *((tiny_net(linear=(6,)), sharing, "TST") for sharing in SHARINGS),
    ],
    ids=["plain", "residual", "paper", "pooled", "small", *(sharing.name for sharing in SHARINGS)],
)
def test_plain_weights_and_the_page_say_all(net: Any, sharing: Any, configuration: str, tmp_path: Path) -> None:
    learner = learned(net, sharing, configuration)
    for name in ("a", "b"):
        file, beside = export(learner, name, "safetensors", tmp_path)
        page, weights = json.loads(beside.read_text()), load_file(file)
        found = answered_by_operations(page, weights, IMAGES)
        torch.testing.assert_close(found, learner.logits(name, IMAGES), rtol=0, atol=1e-4)
        assert (page["classes"], page["input"]["shape"]) == (list(learner.classes(name)), ["N", *GREY])
        blocks = enumerate(net.blocks)
        shapes = {f"layer.{i}.{key}": shape for i, b in blocks for key, shape in (b.shapes | b.statistics).items()}
        assert {key: tuple(t.shape) for key, t in weights.items() if key.startswith("layer.")} == shapes


def test_code_is_not_written_as_plain_weights(tmp_path: Path) -> None:
    net = cut(torch.nn.Sequential(torch.nn.Conv2d(1, 2, 3), torch.nn.GELU()), image_shape=GREY)
    learner = learned(net, SHARINGS[0], "none")
    with pytest.raises(ConfigError, match=r"got CutBlock.*Use the format onnx or torch"):
        export(learner, "a", "safetensors", tmp_path)
    with pytest.raises(ConfigError, match=r"format must be one of onnx, torch, safetensors.*mean 'onnx'"):
        export(learner, "a", "onxx", tmp_path)
    assert not list(tmp_path.iterdir())
    file, _ = export(learner, "a", "torch", tmp_path)
    torch.testing.assert_close(torch.export.load(file).module()(IMAGES), learner.logits("a", IMAGES), rtol=0, atol=1e-4)


def test_names_are_portable_and_never_take_each_others_place(tmp_path: Path) -> None:
    """Windows has names of devices, with any ending; there and on macOS `Pets` and `pets` are one file."""
    names = ("CON", "NUL.txt", "com1", "a dot.", "Pets", "pets", "lpt9 .x")
    learner = Learner(tiny_net(), search=Fixed("none"), training=QUICK)
    for name in names:
        learner.learn(tiny_task(name))
    learner.save(tmp_path / "model")
    files = [path.name for path in (tmp_path / "model").rglob("*")]
    assert not [name for name in files if name not in ("config.json", "parts") and len(name) != 64 + 12]
    assert Learner.load(tmp_path / "model").task_names == names
    places = {name: f"{tmp_path}/{number}/" for number, name in enumerate(names)}
    written = [path.name for name, out in places.items() for path in export(learner, name, "safetensors", out)]
    assert len(set(written)) == 2 * len(names)
    for name in written:
        assert name.partition(".")[0].strip().lower() not in ("con", "nul", "com1", "lpt9")
        assert name[-1] not in ". "
    (tmp_path / "out").mkdir()
    for path in export(learner, "Pets", "safetensors", tmp_path / "out"):
        path.rename(path.with_name(path.name.lower()))  # a file system that does not know the case
    with pytest.raises(StorageError, match=r"belongs to the export of task 'Pets'"):
        export(learner, "pets", "safetensors", tmp_path / "out")


def test_the_page_says_how_files_become_pixels(tmp_path: Path) -> None:
    """By Pillow alone, one step of the page after another."""
    generator = np.random.default_rng(0)
    wild = generator.integers(0, 256, (31, 23, 4), dtype=np.uint8)
    wild[8:20, 5:15] = wild[0, 0]
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(wild).save(tmp_path / "alpha.png")
    Image.fromarray(wild[..., :3].copy()).save(tmp_path / "turned.png", exif=exif)
    Image.fromarray(generator.integers(0, 2**16, (9, 12), dtype=np.uint16)).save(tmp_path / "deep.png")
    Image.fromarray(wild[..., :3].copy()).convert("P").save(tmp_path / "palette.gif")
    for channels in (1, 3):
        for path in tmp_path.iterdir():
            image: Image.Image = Image.open(io.BytesIO(path.read_bytes()))
            if image.mode.startswith("I"):
                image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
            if path.stem == "alpha":
                image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
            if image.mode == "P":
                image = image.convert("RGB")
            image = ImageOps.exif_transpose(image.convert("L" if channels == 1 else "RGB"))
            whole = torch.from_numpy(np.array(image).reshape(image.height, image.width, channels)).permute(2, 0, 1)
            pixels = np.array(image.resize((7, 7), Image.Resampling.BILINEAR)).reshape(7, 7, channels)
            found = decode(path, path.name, channels=1 if channels == 1 else 3, size=7)
            assert np.array_equal(found.permute(1, 2, 0).numpy(), pixels), path
            kept = 0.8 * min(image.size)
            box = [(side + sign * kept) / 2 for sign in (-1, 1) for side in image.size]
            cropped = np.array(image.resize((7, 7), Image.Resampling.BICUBIC, box)).reshape(7, 7, channels)
            how = Resize(side=7, crop=0.8, interpolation="bicubic")
            as_said = decode(path, path.name, channels=1 if channels == 1 else 3, size=how)
            assert np.array_equal(as_said.permute(1, 2, 0).numpy(), cropped), path
            by_torch = F.interpolate(whole[None].float(), (7, 7), mode="bilinear", antialias=True)[0].round()
            assert (by_torch - found).abs().max() <= 1


def test_an_export_has_a_place_of_its_own(tmp_path: Path) -> None:
    learner = learned(tiny_net(), SHARINGS[0], "TS")
    write_plain = partial(export, learner, format="safetensors")
    for out in (f"{tmp_path}/new.1/", tmp_path / "plain", str(tmp_path / "new.1")):
        for name in ("a", "b"):
            assert write_plain(name, out=out)[0] == Path(out) / f"{name}.safetensors"
    file, _ = write_plain("a", out=tmp_path / "deep" / "net.bin")
    before = files_in(tmp_path)
    with pytest.raises(StorageError, match=r"net\.bin is there already and belongs to the export of task 'a'.*--out"):
        write_plain("b", out=file)
    with pytest.raises(StorageError, match=r"outside of the model's own folder"):
        write_plain("a", out=tmp_path / "deep", model=tmp_path / "plain" / ".." / "deep")
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(StorageError, match=r"config\.json is there already and is no export"):
        write_plain("a", out=tmp_path / "config.json")
    (tmp_path / "config.json").unlink()
    assert write_plain("a", out=file)[0] == file  # again
    assert files_in(tmp_path) == before


def test_the_page_holds_every_name_that_a_file_system_gives(tmp_path: Path) -> None:
    names = ["caf\udce9", "日本", "half \ud800"]
    split = (torch.rand(6, *GREY), torch.arange(6) % 3)
    task = Task.from_tensors("a", train=split, valid=split, test=split, classes=names)
    learner = Learner(tiny_net(), search=Fixed("none"), training=QUICK)
    learner.learn(task)
    learner.save(tmp_path / "m")
    _, page = export(Learner.load(tmp_path / "m"), "a", "safetensors", tmp_path / "out")
    assert json.loads(page.read_text())["classes"] == names


@pytest.mark.parametrize(
    ("name", "settings"), [("test_resnet", {"statistics": "measured"}), ("test_resnet", {"rank": 2}), ("test_vit", {})]
)
def test_plain_weights_of_a_model_of_timm_are_its_state_dict(name: str, settings: Any, tmp_path: Path) -> None:
    timm = pytest.importorskip("timm", exc_type=ImportError)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        save_file(timm.create_model(name).state_dict(), tmp_path / "weights.safetensors")
    net = from_timm(name, weights=tmp_path / "weights.safetensors", image_shape=(1, 32, 32), **settings)
    learner = Learner(net, search=Fixed("bottom-2"), training=QUICK)
    images = torch.rand(6, 1, 32, 32, generator=torch.Generator().manual_seed(0))
    split = (images, [0, 1, 2] * 2)
    learner.learn(Task.from_tensors("a", train=split, valid=split, test=split))
    file, page = export(learner, "a", "safetensors", tmp_path / "out")
    said = json.loads(page.read_text())["timm"]
    model = timm.create_model(**said["create_model"])
    model.load_state_dict(load_file(file), strict=True)
    mean, std = (torch.tensor(said[key])[:, None, None] for key in ("mean", "std"))
    with torch.no_grad():
        found = model.eval()((images - mean) / std)
    torch.testing.assert_close(found, learner.logits("a", images), rtol=1e-4, atol=1e-5)
