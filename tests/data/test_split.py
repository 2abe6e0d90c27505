from collections.abc import Callable
from itertools import chain

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from lasem.data import Split, TensorImages, channel_statistics, make_splits, standardise
from lasem.data import split as module
from lasem.errors import ConfigError, DataError, ShapeError

from .fixture import random_images, random_split


def test_standardise_is_its_definition() -> None:
    images, mean, std = random_images(2), torch.tensor([0.1, 0.2, 0.3]), torch.tensor([1.0, 2.0, 3.0])
    expected = torch.empty(2, 3, 4, 5)
    for index in np.ndindex(2, 3, 4, 5):
        expected[index] = (images[index].item() / 255 - mean[index[1]]) / std[index[1]]
    torch.testing.assert_close(standardise(images, mean, std), expected)
    torch.testing.assert_close(standardise(images[0], mean, std), expected[0])


def test_float_images_are_not_scaled_nor_changed() -> None:
    images = torch.rand(2, 1, 3, 3)
    before = images.clone()
    torch.testing.assert_close(standardise(images, torch.tensor([0.5]), torch.tensor([2.0])), (before - 0.5) / 2)
    assert torch.equal(images, before)


def test_standardise_refuses_other_channels_and_types() -> None:
    with pytest.raises(ShapeError, match=r"\(\.\.\., 3, height, width\).*got \(2, 1, 4, 4\)"):
        standardise(torch.zeros(2, 1, 4, 4), torch.zeros(3), torch.ones(3))
    with pytest.raises(DataError, match=r"uint8.*got torch\.int64"):
        standardise(torch.zeros(2, 3, 4, 4, dtype=torch.int64), torch.zeros(3), torch.ones(3))


@pytest.mark.parametrize("images", [random_images(9), torch.randn(9, 2, 3, 3), torch.full((9, 2, 3, 3), 0.1)])
def test_statistics_are_those_of_numpy(images: Tensor) -> None:
    mean, std = channel_statistics(TensorImages(images))
    values = images.double().numpy() / (255 if images.dtype == torch.uint8 else 1)
    np.testing.assert_allclose(mean.numpy(), values.mean(axis=(0, 2, 3)), rtol=1e-6, atol=1e-8)
    expected = values.std(axis=(0, 2, 3))
    np.testing.assert_allclose(std.numpy(), np.where(expected < 1e-9, 1, expected), rtol=1e-6)


def test_a_constant_channel_has_a_deviation_of_one() -> None:
    mean, std = channel_statistics(TensorImages(torch.zeros(3, 1, 2, 2, dtype=torch.uint8)))
    assert (mean.tolist(), std.tolist()) == ([0.0], [1.0])
    with pytest.raises(DataError, match="at least one image"):
        channel_statistics(TensorImages(torch.zeros(0, 1, 2, 2)))


def test_train_statistics_serve_all_splits_or_each_its_own() -> None:
    parts = [(TensorImages(random_images(5, seed=seed)), torch.zeros(5, dtype=torch.int64)) for seed in range(3)]
    by_train = make_splits(parts, "train")
    for split in by_train:
        assert torch.equal(split.mean, channel_statistics(parts[0][0])[0])
    for split, (images, _) in zip(make_splits(parts, "split"), parts, strict=True):
        assert torch.equal(split.std, channel_statistics(images)[1])
        batch, _ = next(split.batches(5))
        torch.testing.assert_close(batch.mean(dim=(0, 2, 3)), torch.zeros(3), atol=1e-6, rtol=0)
        torch.testing.assert_close(batch.std(dim=(0, 2, 3), correction=0), torch.ones(3))
    raw, _ = next(make_splits(parts, "none")[0].batches(5))
    assert torch.equal(raw, random_images(5) / 255)
    with pytest.raises(ConfigError, match="standardise must be one of train, split, none; got 'trian'"):
        make_splits(parts, "trian")  # type: ignore[arg-type]


@settings(deadline=None, max_examples=40)
@given(
    num=st.integers(1, 30),
    batch_size=st.integers(1, 12),
    chunk=st.integers(1, 5000),
    shuffle=st.booleans(),
    training=st.booleans(),
)
def test_batches_hold_every_image_once(num: int, batch_size: int, chunk: int, shuffle: bool, training: bool) -> None:
    images = random_images(num)
    split = Split(TensorImages(images), torch.arange(num), torch.full((3,), 0.4), torch.full((3,), 0.3))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_CHUNK_BYTES", chunk)
        generator = torch.Generator().manual_seed(1) if shuffle else None
        batches = list(split.batches(batch_size, generator=generator, training=training))
    order = torch.randperm(num, generator=torch.Generator().manual_seed(1)) if shuffle else torch.arange(num)
    sizes = [len(part) for part in order.split(batch_size)]
    if training and batch_size > 1 and len(sizes) > 1 and sizes[-1] == 1:  # nobody trains on one image alone
        sizes[-2:] = [batch_size + 1]
    assert [len(labels) for _, labels in batches] == sizes
    assert split.num_batches(batch_size, training=training) == len(sizes)
    assert torch.equal(torch.cat([labels for _, labels in batches]), order)
    one_by_one = torch.stack([standardise(images[index], split.mean, split.std) for index in order])
    assert torch.equal(torch.cat([batch for batch, _ in batches]), one_by_one)


def test_the_last_partial_batch_can_be_dropped() -> None:
    split = random_split(7)
    assert [len(labels) for _, labels in split.batches(3, drop_last=True)] == [3, 3]
    with pytest.raises(ConfigError, match=r"at most the 7 images.*got 8"):
        split.batches(8, drop_last=True)
    with pytest.raises(ConfigError, match="batch_size must be at least 1; got 0"):
        split.batches(0)


def test_one_shuffle_is_one_draw() -> None:
    split, generator, twin = random_split(7), torch.Generator().manual_seed(3), torch.Generator().manual_seed(3)
    first = [labels.tolist() for _, labels in split.batches(2, generator=generator)]
    second = [labels.tolist() for _, labels in split.batches(2, generator=generator)]
    orders = [torch.randperm(7, generator=twin) for _ in range(2)]
    assert list(chain(*first)) == split.labels[orders[0]].tolist()
    assert list(chain(*second)) == split.labels[orders[1]].tolist()


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (
            lambda i: Split(i, torch.zeros(4, dtype=torch.int64), torch.zeros(3), torch.ones(3)),
            DataError,
            r"the 5 images.*\(4,\)",
        ),
        (lambda i: Split(i, torch.zeros(5), torch.zeros(3), torch.ones(3)), DataError, "torch.float32"),
        (lambda i: Split(i, torch.arange(5), torch.zeros(1), torch.ones(1)), ShapeError, r"shape \(3,\)"),
        (lambda i: Split(i, torch.arange(5), torch.zeros(3), torch.zeros(3)), DataError, "std above 0"),
        (lambda i: Split(i, torch.arange(5), torch.full((3,), torch.nan), torch.ones(3)), DataError, "finite mean"),
    ],
)
def test_a_split_that_does_not_fit_is_refused(make: Callable[..., Split], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        make(TensorImages(random_images(5)))


def test_joined_splits_and_parts_of_them_are_those_images_in_order() -> None:
    first, second = random_split(5), random_split(4)
    second = Split(second.images, second.labels, first.mean, first.std)
    joined = first.joined(second)
    assert joined is not None
    pixels, labels = (torch.cat([getattr(a, "tensor", a), getattr(b, "tensor", b)]) for a, b in (
        (first.images, second.images), (first.labels, second.labels)
    ))  # fmt: skip
    for order in (torch.arange(9), torch.tensor([8, 0, 5, 2]), torch.tensor([1, 0]), torch.tensor([7, 6])):
        assert torch.equal(joined.images.take(order), pixels[order])
    chosen = torch.arange(9) % 3 == 0
    some = joined.only(chosen)
    assert torch.equal(some.images.take(torch.arange(3)), pixels[chosen])
    assert torch.equal(some.labels, labels[chosen])
    assert first.joined(Split(second.images, second.labels, first.mean + 1, first.std)) is None
