"""Whatever a file holds, the outcome is an answer or a LasemError, and nothing outside its folder changes.

In CI a small part; ``make fuzz`` tries as many as docs/reliability.md says. Each number is a file: what fails is tried
alone with ``LASEM_FUZZ_ONLY=number``.
"""

from __future__ import annotations

import io
import json
import os
import random
import resource
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from learner.fixture import SHARINGS, searching, tiny_net, tiny_task
from PIL import Image

from lasem.data.decode import decode, image_size
from lasem.data.sources import Source, task_from
from lasem.errors import LasemError
from lasem.experiments import ExperimentConfig
from lasem.files import checksum
from lasem.learner import GrowingModel, Learner
from lasem.learner.model_folder import sealed
from lasem.methods import Branch
from lasem.search import Fixed
from lasem.training import TrainingConfig

from . import mutations

LARGE = "LASEM_FUZZ" in os.environ
ONLY = os.environ.get("LASEM_FUZZ_ONLY")
MOST_KILOBYTES = 3_000_000


def numbers(small: int, large: int) -> range:
    return range(int(ONLY), int(ONLY) + 1) if ONLY else range(large if LARGE else small)


def tried(number: int, attempt: Callable[[], Any]) -> bool:
    """Whether it was answered; anything but an answer and a LasemError fails, and says which file it was."""
    try:
        attempt()
        return True
    except LasemError:
        return False
    except BaseException as error:
        raise AssertionError(f"LASEM_FUZZ_ONLY={number}: {type(error).__name__}: {error}") from error


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of each mechanism beside a file that is none of their business."""
    place = tmp_path_factory.mktemp("fuzz")
    for sharing in SHARINGS:
        learner = Learner(
            tiny_net(), sharing=sharing, training=TrainingConfig(epochs=1, batch_size=5), protect=Branch()
        )
        for name, configuration in (("a", "TS"), ("b", "TT")):
            searching(learner, Fixed(configuration))
            learner.learn(tiny_task(name))
        learner.save(place / sharing.name)
    (place / "x").write_text("not of the models")
    Image.fromarray(np.arange(36, dtype=np.uint8).reshape(6, 6)).save(place / "image.png")
    return place


def resealed(model: Path, name: str, data: bytes) -> None:
    """Write one file of a model with every checksum right, as one who wants to deceive would."""
    path = model / name
    path.unlink()
    if name == "config.json":
        path.write_bytes(data)
        return
    index = json.loads((model / "config.json").read_text())
    index.pop("checksum", None)
    for entry in (*index["versions"].values(), *(task["weights"] for task in index["tasks"])):
        if entry["checksum"] == path.stem:
            entry |= {"checksum": checksum(data), "bytes": len(data)}
    (path.parent / f"{checksum(data)}.safetensors").write_bytes(data)
    (model / "config.json").write_text(sealed(index))


def test_models(folders: Path, tmp_path: Path) -> None:
    answered = 0
    for number in numbers(150, 10_000):
        draw = random.Random(number)
        model = tmp_path / "model"
        shutil.copytree(folders / draw.choice(SHARINGS).name, model)
        files = sorted(str(p.relative_to(model)) for p in model.rglob("*") if p.is_file())
        name = draw.choice([*files, "config.json", "config.json"])
        data = (model / name).read_bytes()
        if name.endswith(".json") and draw.random() < 0.7:
            changed = mutations.json_of(json.loads(data), draw)
            changed.pop("checksum", None)
            data = sealed(changed).encode() if name == "config.json" else json.dumps(changed).encode()
        else:
            data = mutations.bytes_of(data, draw)
        if draw.random() < 0.7:
            resealed(model, name, data)
        else:
            (model / name).write_bytes(data)

        def ask(model: Path = model) -> None:
            grown = GrowingModel(model)
            json.dumps(grown.show().to_plain())
            for task in grown.show().tasks:
                (answer,) = grown.predict(task.name, [folders / "image.png"])
                assert len(answer.classes) == 1

        answered += tried(number, ask)
        tried(number, lambda model=model: Learner.load(model))
        tried(number, lambda model=model: GrowingModel(model).forget("a"))
        assert sorted(path.name for path in tmp_path.iterdir()) == ["model"]
        shutil.rmtree(model)
    assert (folders / "x").read_text() == "not of the models"
    assert answered > 0 or ONLY
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss < MOST_KILOBYTES


def test_images() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (9, 7, 3), dtype=np.uint8)
    formats = ("png", "jpeg", "gif", "bmp", "tiff", "webp", "ppm")
    answered = 0
    for number in numbers(100, 1000):
        draw = random.Random(number)
        file = io.BytesIO()
        Image.fromarray(pixels).save(file, format=formats[number % len(formats)])
        data = mutations.bytes_of(file.getvalue(), draw)

        def read(data: bytes = data) -> None:
            image_size(data, "image")
            assert decode(data, "image", channels=3, size=8).shape == (3, 8, 8)

        answered += tried(number, read)
    assert answered > 0 or ONLY
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss < MOST_KILOBYTES


def test_parquet(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    cells = []
    for _ in range(8):
        file = io.BytesIO()
        Image.fromarray(generator.integers(0, 256, (6, 6, 3), dtype=np.uint8)).save(file, format="png")
        cells.append({"bytes": file.getvalue(), "path": None})
    table = pa.table({"image": cells, "label": ["a", "b"] * 4})
    answered = 0
    for number in numbers(60, 1000):
        draw = random.Random(number)
        place = tmp_path / "train.parquet"
        pq.write_table(table, place, compression=("none", "snappy", "zstd")[number % 3])
        place.write_bytes(mutations.bytes_of(place.read_bytes(), draw))
        answered += tried(
            number, lambda place=place: task_from("t", Source(path=str(place)), image_size=6, channels=3, seed=0)
        )
    assert answered > 0 or ONLY
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss < MOST_KILOBYTES


def test_configurations() -> None:
    plain = ExperimentConfig().to_plain()
    text = ExperimentConfig().to_yaml()
    answered = 0
    for number in numbers(100, 1000):
        draw = random.Random(number)
        if draw.random() < 0.5:
            changed = json.dumps(mutations.json_of(plain, draw))
        else:
            changed = mutations.bytes_of(text.encode(), draw).decode("latin-1")
        answered += tried(number, lambda changed=changed: ExperimentConfig.from_yaml(changed))
    assert answered > 0 or ONLY


def test_a_configuration_that_doubles_itself_is_refused() -> None:
    """Thirty lines that stand for a thousand million words."""
    lines = ["a0: &a0 [x, x]", *(f"a{k}: &a{k} [*a{k - 1}, *a{k - 1}]" for k in range(1, 30)), "seeds: *a29"]
    for text in ("\n".join(lines), "\n".join([*lines[:-1], "training: *a29"]), "\n".join(lines).replace("a29", "net")):
        assert not tried(0, lambda text=text: ExperimentConfig.from_yaml(text))


def test_tensors_stay_as_they_were(folders: Path) -> None:
    """Nothing above has changed the models that the mutations are made of."""
    for sharing in SHARINGS:
        assert Learner.load(folders / sharing.name).logits("a", torch.zeros(1, 1, 6, 6)).isfinite().all()
