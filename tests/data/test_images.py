from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from lasem.data import FileImages, SelectedImages, TensorImages
from lasem.data.decode import DamagedError
from lasem.data.images import as_images, as_labels, in_chunks
from lasem.errors import DataError

from .fixture import png, random_images


def write(folder: Path, sizes: list[tuple[int, int]]) -> list[Path]:
    paths = [folder / f"{index}.png" for index in range(len(sizes))]
    for index, (path, (height, width)) in enumerate(zip(paths, sizes, strict=True)):
        path.write_bytes(png(random_images(1, (3, height, width), index)[0]))
    return paths


def test_images_are_those_that_they_were_made_of(tmp_path: Path) -> None:
    pixels, order = random_images(5), torch.tensor([2, 0])
    images = TensorImages(pixels)
    assert images.tensor.data_ptr() == pixels.data_ptr()  # not copied
    files = FileImages(write(tmp_path, [(4, 5)] * 3))
    some = SelectedImages(images, torch.tensor([3, 1, 4]))
    written = torch.cat([random_images(1, seed=index) for index in range(3)])
    for each, expected in ((images, pixels), (some, pixels[[3, 1, 4]]), (files, written)):
        assert (len(each), each.shape) == (len(expected), (3, 4, 5))
        assert torch.equal(each.take(order), expected[order])
    assert files.take(torch.tensor([], dtype=torch.int64)).shape == (0, 3, 4, 5)


def test_a_file_of_another_size_is_named_unless_files_are_resized(tmp_path: Path) -> None:
    paths = write(tmp_path, [(4, 5), (4, 5), (5, 4)])
    with pytest.raises(DataError, match=r"0\.png, 4x5 \(height x width\); .*2\.png is 5x4\. Set image_size"):
        FileImages(paths)
    assert FileImages(paths, channels=1, size=8).take(torch.arange(3)).shape == (3, 1, 8, 8)


def test_a_file_that_changes_its_size_later_is_named(tmp_path: Path) -> None:
    paths = write(tmp_path, [(4, 5)] * 2)
    images = FileImages(paths)
    paths[1].write_bytes(png(random_images(1, (3, 9, 9))[0]))
    with pytest.raises(DataError, match=r"1\.png is 9x9"):
        images.take(torch.tensor([0, 1]))


@pytest.mark.parametrize("num_threads", [1, 3])
def test_threads_read_images_in_order_and_name_all_that_are_damaged(num_threads: int, tmp_path: Path) -> None:
    paths = write(tmp_path, [(4, 5)] * 9)
    images, order, before = FileImages(paths), torch.tensor([8, 0, 5, 5, 2]), torch.get_num_threads()
    alone = torch.cat([images.take(order[k : k + 1]) for k in range(len(order))])
    torch.set_num_threads(num_threads)
    try:
        assert torch.equal(images.take(order), alone)
        for number in (5, 2):
            Path(paths[number]).write_bytes(b"no image")
        with pytest.raises(DamagedError) as caught:
            images.take(torch.arange(9))
    finally:
        torch.set_num_threads(before)
    assert list(caught.value.reasons) == [2, 5]


def test_no_files_are_an_error() -> None:
    with pytest.raises(DataError, match="at least one image file"):
        FileImages([])


def test_chunks_hold_all_images_in_order() -> None:
    pixels = random_images(7)
    chunks = list(in_chunks(TensorImages(pixels), most_bytes=4 * 60 * 3))
    assert [len(chunk) for chunk in chunks] == [3, 3, 1]
    assert torch.equal(torch.cat(chunks), pixels)


def test_arrays_become_images() -> None:
    grey = np.zeros((3, 4, 5), dtype=np.float64)
    assert as_images(grey).shape == (1, 4, 5)
    assert as_images(grey).tensor.dtype == torch.float32
    assert as_images(random_images(2)).tensor.dtype == torch.uint8


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (torch.zeros(4, 8, 8, 3), r"looks like channels last.*permute\(0, 3, 1, 2\)"),
        (torch.zeros(4), r"shape \(N, channels, height, width\); got \(4,\)"),
        (torch.zeros(4, 3, 0, 8), "shape"),
        (torch.zeros(4, 3, 8, 8, dtype=torch.int64), "uint8.*or float32; got torch.int64"),
        (
            torch.tensor([0.0, 1.0, float("nan"), float("inf")]).reshape(4, 1, 1, 1),
            r"image 2 of 4.*NaN.*\(2 images do\)",
        ),
        (np.full((1, 1, 2, 2), 1e300), "infinity"),
        (["cat.png"], "tensor or an array of numbers; got list"),
    ],
)
def test_what_is_no_images_is_refused(images: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        as_images(images)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (torch.zeros(3), "to be integers.*got torch.float32"),
        (torch.tensor([True]), "got torch.bool"),
        (torch.zeros(3, 2, dtype=torch.int64), r"got \(3, 2\)"),
    ],
)
def test_what_is_no_labels_is_refused(labels: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        as_labels(labels)
