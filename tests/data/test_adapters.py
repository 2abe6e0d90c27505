"""Data sets of Hugging Face's library and benchmarks of Avalanche become the tasks that their numbers say."""

import io
import warnings
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from lasem import Fixed, HardSharing, Learner, TrainingConfig
from lasem.data import CutSettings, Task, from_avalanche, from_dataset, labelled_dataset
from lasem.errors import DataError
from lasem.nets import for_images

COLOURS = {"blue": (0, 0, 250), "green": (0, 250, 0), "red": (250, 0, 0)}
NAMES = list(COLOURS)


@pytest.fixture
def datasets() -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return pytest.importorskip("datasets")


def rows(count: int, shift: int = 0) -> list[tuple[int, Image.Image]]:
    """Images of one colour each, which differ in one pixel's brightness."""
    found = []
    for number in range(count):
        pixels = np.full((6, 6, 3), COLOURS[NAMES[number % 3]], np.uint8)
        pixels[0, 0] = number + shift
        found.append((number % 3, Image.fromarray(pixels)))
    return found


def dataset(library: Any, count: int, shift: int = 0, *, labels: Any = None) -> Any:
    features = library.Features({"img": library.Image(), "kind": labels or library.ClassLabel(names=NAMES)})
    given = rows(count, shift)
    return library.Dataset.from_dict({"img": [i for _, i in given], "kind": [k for k, _ in given]}, features=features)


def colours_of(task: Task) -> set[tuple[str, str]]:
    """Of all splits each class with the colour of its images."""
    seen = set()
    for split in (task.train, task.valid, task.test):
        images = split.images.take(torch.arange(len(split)))
        for image, label in zip(images, split.labels.tolist(), strict=True):
            colour = tuple(image[:, 3, 3].tolist())
            seen.add((task.classes[label], next(name for name in NAMES if COLOURS[name] == colour)))
    return seen


def test_a_dataset_of_images_becomes_a_task(datasets: Any) -> None:
    task = from_dataset("colours", dataset(datasets, 30), image="img", label="kind")
    assert (task.classes, task.image_shape) == (tuple(NAMES), (3, 6, 6))
    assert (len(task.train), len(task.valid), task.test is task.valid) == (24, 6, True)
    assert colours_of(task) == {(name, name) for name in NAMES}
    grey = from_dataset("grey", dataset(datasets, 30), image="img", label="kind", image_size=4, channels=1)
    assert grey.image_shape == (1, 4, 4)
    learner = Learner(for_images(task.image_shape), training=TrainingConfig(epochs=1), search=Fixed("SSSS"))
    assert learner.learn(task).classes == tuple(NAMES)


def test_splits_of_a_dataset_dict_are_used(datasets: Any) -> None:
    counts = {"train": 12, "validation": 6, "test": 9}
    given = datasets.DatasetDict({name: dataset(datasets, count, count) for name, count in counts.items()})
    task = from_dataset("colours", given, image="img", label="kind")
    assert [len(split) for split in (task.train, task.valid, task.test)] == list(counts.values())
    assert int(task.test.images.take(torch.tensor([0]))[0, 0, 0, 0]) == 9
    stream = labelled_dataset(given, image="img", label="kind").disjoint(CutSettings(classes_per_task=2), 0, "c")
    assert [colours_of(one) <= {(name, name) for name in NAMES} for one in stream] == [True]


def test_the_path_of_an_image_is_read_and_damage_is_named(datasets: Any, tmp_path: Path) -> None:
    for number, (_, image) in enumerate(rows(12)):
        image.save(tmp_path / f"{number}.png")
    paths = [str(tmp_path / f"{number}.png") for number in range(12)]
    table = datasets.Dataset.from_dict({"image": paths, "label": ["a", "b", "c"] * 4})
    table = table.cast_column("image", datasets.Image())
    assert len(from_dataset("t", table).train) == 9
    (tmp_path / "4.png").write_bytes(b"no image")
    with pytest.raises(DataError, match="train, row 4, column 'image'"):
        from_dataset("t", table)


def test_texts_and_rows_without_a_label(datasets: Any) -> None:
    texts = ["good"] * 5 + ["bad"] * 5 + ["", "odd"]
    table = datasets.Dataset.from_dict({"note": texts, "stars": ["5"] * 5 + ["1"] * 5 + ["5", None]})
    task = from_dataset("mood", table, text="note", label="stars")
    assert task.classes == ("1", "5")
    assert task.left_out == ("1 empty", "1 without a label")
    assert set(zip(task.train.images.texts or (), task.names_of(task.train.labels), strict=True)) == {
        *(("good", "5"), ("bad", "1")),
    }


def test_what_cannot_be_a_task_is_refused(datasets: Any) -> None:
    table = dataset(datasets, 12)
    bytes_of = io.BytesIO()
    rows(1)[0][1].save(bytes_of, "png")
    for given, how, said in (
        (table, {"image": "image"}, "Expected a column 'image'; there are: img, kind. Did you mean 'img'"),
        (table, {"image": "kind", "label": "kind"}, "the feature Image; 'kind' is"),
        ({"unlabelled": table}, {"image": "img", "label": "kind"}, "got 'unlabelled'"),
        (table.to_iterable_dataset(), {"image": "img", "label": "kind"}, "Take some of its rows"),
        (table.filter(lambda row: row["kind"] == 0), {"image": "img", "label": "kind"}, "at least 2 classes"),
    ):
        with pytest.raises(DataError, match=said):
            from_dataset("t", given, **how)


def tensors(count: int, classes: tuple[int, ...], seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Images whose first pixel is their class, divided by 10."""
    labels = torch.tensor([classes[number % len(classes)] for number in range(count)])
    images = torch.rand(count, 1, 5, 5, generator=torch.Generator().manual_seed(seed))
    images[:, 0, 0, 0] = labels / 10
    return images, labels


def check(task: Task, classes: tuple[int, ...], counts: tuple[int, int, int]) -> None:
    assert task.classes == tuple(map(str, classes))
    assert tuple(map(len, (task.train, task.valid, task.test))) == counts
    for split in (task.train, task.valid, task.test):
        first = split.images.take(torch.arange(len(split)))[:, 0, 0, 0]
        expected = torch.tensor([int(name) / 10 for name in task.names_of(split.labels)])
        torch.testing.assert_close(first, expected)


def own(*sizes: tuple[int, tuple[int, ...]]) -> list[Any]:
    """Experiences of tuples (x, y, task label)."""
    return [
        SimpleNamespace(dataset=[(x, int(y), 0) for x, y in zip(*tensors(count, classes, seed), strict=True)])
        for seed, (count, classes) in enumerate(sizes)
    ]


def test_experiences_become_tasks() -> None:
    benchmark = SimpleNamespace(
        train_stream=own((20, (0, 1)), (30, (7, 2, 9))), test_stream=own((4, (1, 0)), (6, (2, 7, 9)))
    )
    stream = from_avalanche(benchmark, name="split")
    assert [task.name for task in stream] == ["split-0", "split-1"]
    check(stream[0], (0, 1), (16, 4, 4))
    check(stream[1], (2, 7, 9), (24, 6, 6))
    again = from_avalanche(benchmark, name="split")
    torch.testing.assert_close(stream[0].valid.labels, again[0].valid.labels)
    learner = Learner(for_images((1, 5, 5)), sharing=HardSharing(), training=TrainingConfig(epochs=1))
    assert [learner.learn(task).task for task in stream] == ["split-0", "split-1"]


def test_one_test_experience_serves_all_and_a_valid_stream_is_used() -> None:
    benchmark = SimpleNamespace(
        train_stream=own((8, (0, 1)), (8, (2, 3))),
        valid_stream=own((2, (0, 1)), (4, (2, 3))),
        test_stream=own((12, (0, 1, 2, 3))),
    )
    stream = from_avalanche(benchmark)
    check(stream[0], (0, 1), (8, 2, 6))
    check(stream[1], (2, 3), (8, 4, 6))
    for wrong in (
        SimpleNamespace(train_stream=[]),
        SimpleNamespace(train_stream=own(*[(8, (0, 1))] * 3), test_stream=own(*[(8, (0, 1))] * 2)),
    ):
        with pytest.raises(DataError, match=r"Expected (train_stream and test_stream|one test experience, or one)"):
            from_avalanche(wrong)


def test_images_of_pillow_are_read() -> None:
    items = [(image, label, 0) for label, image in rows(12)]
    experience = SimpleNamespace(dataset=items)
    (task,) = from_avalanche(SimpleNamespace(train_stream=[experience], test_stream=[experience]))
    assert task.train.images.take(torch.tensor([0])).dtype == torch.uint8
    assert task.image_shape == (3, 6, 6)


def test_a_benchmark_of_avalanche_itself() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the library's own modules
        benchmarks = pytest.importorskip("avalanche.benchmarks", exc_type=ImportError)
        given = benchmarks.tensors_benchmark(
            train_tensors=[tensors(20, (0, 1), 0), tensors(20, (4, 5), 1)],
            test_tensors=[tensors(6, (0, 1), 2), tensors(8, (4, 5), 3)],
            task_labels=[0, 1],
        )
        stream = from_avalanche(given)
        check(stream[0], (0, 1), (16, 4, 6))
        check(stream[1], (4, 5), (16, 4, 8))
