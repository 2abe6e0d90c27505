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
from contextlib import suppress
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from learner.fixture import SHARINGS, changed_index, files_in, searching, tiny_net, tiny_task
from learner.images import Watching, small_net, write_digits
from PIL import Image
from report.fake_run import write_run, write_runs
from report.pages import printed

from lasem.data.decode import decode, image_size
from lasem.data.sources import Source, task_from
from lasem.errors import LasemError, StorageError
from lasem.experiments import ExperimentConfig
from lasem.files import checksum
from lasem.learner import GrowingModel, Learner
from lasem.learner.model_folder import sealed
from lasem.methods import EWC, Branch
from lasem.methods.transfer import Transfer
from lasem.report import comparison_table, console_table, write_comparison, write_report
from lasem.search import Fixed
from lasem.training import TrainingConfig

from . import mutations

LARGE = "LASEM_FUZZ" in os.environ
ONLY = os.environ.get("LASEM_FUZZ_ONLY")
MOST_KILOBYTES = 3_000_000


def answered(attempt: Callable[[], Any], number: int = 0) -> bool:
    """Whether it was answered; anything but an answer and a LasemError fails, and says which file it was."""
    try:
        attempt()
        return True
    except LasemError:
        return False
    except BaseException as error:
        raise AssertionError(f"LASEM_FUZZ_ONLY={number}: {type(error).__name__}: {error}") from error


def fuzz(small: int, large: int, attempt: Callable[[int, random.Random], Any]) -> None:
    """Try one file after another: some are answered, and no memory is taken that is not there to take."""
    numbers = range(int(ONLY), int(ONLY) + 1) if ONLY else range(large if LARGE else small)
    num_answered = sum(answered(lambda n=n: attempt(n, random.Random(n)), n) for n in numbers)
    assert num_answered > 0 or ONLY
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss < MOST_KILOBYTES


METHODS = {**{sharing.name: Transfer(sharing=sharing, protect=Branch()) for sharing in SHARINGS}, "ewc": EWC()}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of each mechanism and one of another method, beside a file that is none of their business."""
    place = tmp_path_factory.mktemp("fuzz")
    for kind, method in METHODS.items():
        learner = Learner(tiny_net(), method, training=TrainingConfig(epochs=1, batch_size=5))
        for name, configuration in (("a", "TS"), ("b", "TT")):
            if isinstance(method, Transfer):
                searching(learner, Fixed(configuration))
            learner.learn(tiny_task(name))
        learner.save(place / kind)
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
    with changed_index(model) as index:
        parts = [index[key] for key in ("shared", "memory") if key in index]
        for entry in (*parts, *index["versions"].values(), *(task["weights"] for task in index["tasks"])):
            if entry["checksum"] == path.stem:
                entry |= {"checksum": checksum(data), "bytes": len(data)}
    (path.parent / f"{checksum(data)}.safetensors").write_bytes(data)


def test_models(folders: Path, tmp_path: Path) -> None:
    before = files_in(folders)

    def try_one(number: int, draw: random.Random) -> None:
        model = tmp_path / "model"
        shutil.rmtree(model, ignore_errors=True)
        shutil.copytree(folders / draw.choice(list(METHODS)), model)
        files = sorted(files_in(model))
        name = draw.choice([*files, "config.json", "config.json"])
        whole = (model / name).read_bytes()
        if name.endswith(".json") and draw.random() < 0.7:
            changed = mutations.json_of(json.loads(whole), draw)
            changed.pop("checksum", None)
            data = sealed(changed).encode()
        else:
            data = mutations.bytes_of(whole, draw)
        if is_sealed := draw.random() < 0.7:
            resealed(model, name, data)
        else:
            (model / name).write_bytes(data)

        def ask() -> None:
            grown = GrowingModel(model)
            json.dumps(grown.show().to_plain())
            for task in grown.show().tasks:
                (answer,) = grown.predict(task.name, [folders / "image.png"])
                assert len(answer.classes) == 1

        found = answered(ask, number)
        read = answered(lambda: Learner.load(model), number)
        answered(lambda: GrowingModel(model).forget("a"), number)
        assert [path.name for path in tmp_path.iterdir()] == ["model"]
        # nothing guards config.json but itself: a changed seed is a seed; every other file is guarded by a checksum
        assert not read or is_sealed or name == "config.json" or data == whole
        if not found:
            raise StorageError("not answered")

    fuzz(150, 10_000, try_one)
    assert files_in(folders) == before


def test_what_is_unfinished(tmp_path: Path) -> None:
    """The state of a task under way, which learning goes on from."""
    images, begun = write_digits(tmp_path / "images", (0, 1), count=4), tmp_path / "begun"
    training = TrainingConfig(epochs=2, batch_size=4)

    def stop(*_: Any) -> None:
        raise KeyboardInterrupt

    grown = GrowingModel(begun, net=small_net, training=training)
    grown.learn("a", images)
    with pytest.raises(KeyboardInterrupt):
        grown.learn("b", images, observer=Watching(epoch_ends=stop))
    before, outside = files_in(begun), sorted(tmp_path.iterdir())

    def try_one(_: int, draw: random.Random) -> None:
        model = tmp_path / "model"
        shutil.rmtree(model, ignore_errors=True)
        shutil.copytree(begun, model)
        path = draw.choice(sorted((model / ".learning").iterdir()))
        data = mutations.file_of(path, draw)
        path.write_bytes(data)
        if path.suffix != ".json" and draw.random() < 0.7:
            index = json.loads((begun / ".learning/checkpoint.json").read_text())
            index["tensors"] |= {"checksum": checksum(data), "bytes": len(data)}
            (model / ".learning/checkpoint.json").write_text(json.dumps(index))
        try:
            GrowingModel(model).show()
            GrowingModel(model).learn(resume=True)
        finally:
            assert Learner.load(model).task_names[0] == "a"
            assert sorted(tmp_path.iterdir()) == sorted([*outside, model])

    fuzz(25, 1000, try_one)
    assert files_in(begun) == before


PROGRAMS = (
    b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n(ran) print\n%%EOF\n",
    b"%!PS\n%%BoundingBox: 0 0 9 9\n(ran) print\n",
    b"%PDF-1.4\n%%EOF\n",
    b"<svg xmlns='http://www.w3.org/2000/svg' width='9' height='9'/>",
)


def test_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every format and mode that Pillow can write, and programs, which reach no interpreter."""
    ran, interpreter = tmp_path / "ran", tmp_path / "gs"
    interpreter.write_text(f"#!/bin/sh\necho ran > '{ran}'\n")
    interpreter.chmod(0o700)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    Image.init()
    monkeypatch.setattr("PIL.EpsImagePlugin.gs_binary", None)
    pixels = Image.fromarray(np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8))
    images = [*PROGRAMS]
    for kind, mode in product(sorted(Image.SAVE), ("RGB", "RGBA", "L", "LA", "P", "1", "CMYK", "I", "I;16", "F")):
        with suppress(Exception), io.BytesIO() as file:  # no format has all modes
            grey = pixels.convert("I").convert("I;16") if mode == "I;16" else pixels
            grey.convert(mode).save(file, format=kind)
            images.append(file.getvalue())

    def try_one(number: int, draw: random.Random) -> None:
        whole = images[number % len(images)]
        data = mutations.bytes_of(whole, draw) if draw.random() < 0.9 else whole
        try:
            image_size(data, "image")
            assert decode(data, "image", channels=3, size=8).shape == (3, 8, 8)
        finally:
            assert not ran.exists(), data[:20]

    fuzz(200, 10_000, try_one)


def test_parquet(tmp_path: Path) -> None:
    generator, encoded = np.random.default_rng(0), []
    for _ in range(8):
        file = io.BytesIO()
        Image.fromarray(generator.integers(0, 256, (6, 6, 3), dtype=np.uint8)).save(file, format="png")
        encoded.append(file.getvalue())
    images = [pa.array([{"bytes": cell, "path": None} for cell in encoded]), pa.array(encoded)]
    labels = [pa.array(["a", "b"] * 4), pa.array([0, 1] * 4), pa.array(["a", "b"] * 4).dictionary_encode()]
    tables = [pa.table({"image": cells, "label": numbers}) for cells, numbers in product(images, labels)]
    place = tmp_path / "train.parquet"

    def try_one(number: int, draw: random.Random) -> None:
        layout = {"row_group_size": draw.choice((3, 100)), "data_page_version": draw.choice(("1.0", "2.0"))}
        compression = draw.choice(("none", "snappy", "zstd", "gzip"))
        pq.write_table(tables[number % len(tables)], place, compression=compression, **layout)
        place.write_bytes(mutations.bytes_of(place.read_bytes(), draw))
        task_from("t", Source(path=str(place)), image_size=6, channels=3, seed=0)

    fuzz(60, 1000, try_one)


def test_runs(tmp_path: Path) -> None:
    """The files of a run and of a comparison, of which tables and pages are drawn."""
    whole, place = tmp_path / "whole", tmp_path / "place"
    write_run(whole / "run", names=("a", "b"), num_seeds=2, num_layers=2, num_epochs=2)
    write_runs(whole / "comparison", num_tasks=2)
    kept = [path for path in sorted(whole.rglob("*")) if path.suffix in (".json", ".jsonl", ".yaml")]

    def try_one(number: int, draw: random.Random) -> None:
        shutil.rmtree(place, ignore_errors=True)
        shutil.copytree(whole, place)
        path = draw.choice(kept)
        (place / path.relative_to(whole)).write_bytes(mutations.file_of(path, draw))
        is_run = path.is_relative_to(whole / "run")
        printed(console_table(place / "run") if is_run else comparison_table(place / "comparison"))
        if number % 8 == 0:
            (write_report(place / "run") if is_run else write_comparison(place / "comparison")).read_text("utf-8")

    fuzz(40, 1000, try_one)
    assert sorted(tmp_path.iterdir()) == [place, whole]


def test_configurations() -> None:
    plain, text = ExperimentConfig().to_plain(), ExperimentConfig().to_yaml()

    def try_one(_: int, draw: random.Random) -> None:
        as_json = draw.random() < 0.5
        changed = json.dumps(mutations.json_of(plain, draw)) if as_json else mutations.bytes_of(text.encode(), draw)
        ExperimentConfig.from_yaml(changed if isinstance(changed, str) else changed.decode("latin-1"))

    fuzz(100, 1000, try_one)


def test_a_configuration_that_doubles_itself_is_refused() -> None:
    """Thirty lines that stand for a thousand million words."""
    lines = ["a0: &a0 [x, x]", *(f"a{k}: &a{k} [*a{k - 1}, *a{k - 1}]" for k in range(1, 30)), "seeds: *a29"]
    for text in ("\n".join(lines), "\n".join([*lines[:-1], "training: *a29"]), "\n".join(lines).replace("a29", "net")):
        assert not answered(lambda text=text: ExperimentConfig.from_yaml(text))
