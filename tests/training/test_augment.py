import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from lasem.data import Split, TensorImages
from lasem.errors import ConfigError
from lasem.training import PRESETS, Augmentation, TrainingConfig, augmented, batches_of, preset_for
from lasem.training.augment import _WAYS, Augment, Mix, change_of, mixed

COLOUR = (3, 8, 6)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def images(num: int, *shape: int) -> Tensor:
    return torch.randn(num, *(shape or COLOUR), generator=seeded(7))


def candidates(image: Tensor, most: tuple[int, int], flip: bool) -> list[Tensor]:
    """All crops of an image that was padded by its reflection, the slow way, and their mirror images."""
    (up, left), (height, width) = most, image.shape[1:]
    padded = np.pad(image.numpy(), ((0, 0), (up, up), (left, left)), mode="reflect")
    crops = [
        torch.tensor(padded[:, i : i + height, j : j + width].copy())
        for i in range(2 * up + 1)
        for j in range(2 * left + 1)
    ]
    return crops + [crop.flip(2) for crop in crops] * flip


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("shift", [0.0, 0.2])
def test_shifts_and_mirror_images_are_crops_of_the_reflected_image_each_as_likely(shift: float, flip: bool) -> None:
    x = images(1).expand(4000, -1, -1, -1)
    changed = augmented(x, seeded(), Augmentation(shift=shift, flip=flip))
    expected = torch.stack(candidates(x[0], (2 * (shift > 0), 2 * (shift > 0)), flip))
    found = (changed[:, None] == expected).flatten(2).all(dim=2)
    assert (found.sum(dim=1) == 1).all()
    counts = found.sum(dim=0).double()
    mean = 4000 / len(expected)
    assert ((counts - mean).abs() < 5 * mean**0.5 + 1e-9).all()


def test_colour_is_its_definition() -> None:
    x, how = images(5), Augmentation(colour=0.5)
    u = 0.5 * (2 * torch.rand(5, 3, generator=seeded()) - 1)
    for image, changed, (brightness, contrast, saturation) in zip(x, augmented(x, seeded(), how), u, strict=True):
        grey = image.mean(dim=0, keepdim=True)
        saturated = grey + (1 + saturation) * (image - grey)
        expected = saturated.mean() + (1 + contrast) * (saturated - saturated.mean()) + brightness
        torch.testing.assert_close(changed, expected)


def test_a_share_of_images_loses_one_rectangle() -> None:
    x = images(1000, 2, 16, 12)
    changed = augmented(x, seeded(), Augmentation(erase=0.3))
    erased = (changed != x).any(dim=1)
    assert erased.flatten(1).any(dim=1).double().mean() == pytest.approx(0.3, abs=0.05)
    assert (changed[erased[:, None].expand_as(x)] == 0).all()
    for mask in erased[erased.flatten(1).any(dim=1)]:
        assert torch.equal(mask, mask.any(dim=1)[:, None] & mask.any(dim=0))
        assert 0.01 < mask.double().mean() < 0.37


@pytest.mark.parametrize("mix", ["mixup", "cutmix"])
def test_mixed_images_with_their_own_labels_have_the_mean_loss_of_the_papers(mix: Mix) -> None:
    num, side, generator = 20_000, 16, seeded()
    value, labels = torch.randn(num, generator=generator), torch.randint(0, 3, (num,), generator=generator)
    slopes, offsets = torch.tensor([2.0, -1.0, 0.5]), torch.tensor([0.3, 0.0, -0.2])

    def losses(mean: Tensor, labels: Tensor) -> Tensor:
        return F.cross_entropy(mean[:, None] * slopes + offsets, labels, reduction="none")

    order, share = torch.randperm(num, generator=generator), torch.rand(num, generator=generator)
    mean = share * value + (1 - share) * value[order]  # of a mixed image's pixels, by either way
    expected = share * losses(mean, labels) + (1 - share) * losses(mean, labels[order])
    x = mixed(value[:, None, None, None].expand(-1, 1, side, side).contiguous(), generator, mix)
    found = losses(x.mean(dim=(1, 2, 3)), labels)
    assert float((found - expected).mean()) == pytest.approx(0, abs=4 * float((found - expected).std()) / num**0.5)
    assert abs(float((losses(value, labels) - expected).mean())) > 0.05  # which is another one


def test_mixing_is_a_line_between_two_images_or_a_rectangle_of_the_other() -> None:
    x = images(500)
    others = x[torch.randperm(500, generator=seeded())]
    between = ((mixed(x, seeded(), "mixup") - others) / (x - others)).flatten(1)
    cut = mixed(x, seeded(), "cutmix")
    own = (cut == x).all(dim=1)
    assert torch.equal(cut, torch.where(own[:, None], x, others))
    assert all(torch.equal(~mask, (~mask).any(dim=1)[:, None] & (~mask).any(dim=0)) for mask in own)
    for share in (between.median(dim=1).values, own.flatten(1).float().mean(dim=1)):
        assert share.isfinite().all()
        assert float(share.mean()) == pytest.approx(2 / 3, abs=0.05)


def test_texts_are_not_mixed() -> None:
    split = Split(TensorImages(torch.rand(4, 1, 1, 9), "none"), torch.arange(4), torch.zeros(1), torch.ones(1))
    with pytest.raises(ConfigError, match=r"mix 'mixup' is for images; got texts or signals\. Set it to none"):
        change_of("none", "mixup", split, seeded())


@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 1, 9), (2, 3, 2), COLOUR], ids=str)
@pytest.mark.parametrize("preset", [*PRESETS, Augmentation(erase=1.0)], ids=str)
def test_any_shape_is_changed_alike_by_the_same_seed_and_only_read(
    preset: str | Augmentation, shape: tuple[int, int, int]
) -> None:
    x = images(40, *shape)
    before = x.clone()
    first, again, other = (augmented(x, seeded(seed), preset) for seed in (0, 0, 1))
    assert torch.equal(x, before)
    assert torch.equal(first, again)
    assert first.shape == x.shape
    assert first.isfinite().all()
    assert shape != COLOUR or torch.equal(first, other) == (preset == "none")


@pytest.mark.parametrize("way", [way for way in _WAYS if way is not None])
def test_every_way_of_trivial_augmentation_changes_images_and_each_by_itself(way: object) -> None:
    x, strength = images(3), torch.tensor([0.9, -0.5, 0.3])[:, None, None, None]
    changed = way(x, strength)  # type: ignore[operator]
    for i in range(3):
        torch.testing.assert_close(changed[i : i + 1], way(x[i : i + 1], strength[i : i + 1]))  # type: ignore[operator]
    assert (changed != x).flatten(1).any(dim=1).all()


@pytest.mark.parametrize(
    ("augment", "shape", "scale", "preset"),
    [
        ("auto", (3, 32, 32), 1.0, "photo"),
        ("auto", (1, 28, 28), 255.0, "shift"),
        ("auto", (1, 8, 8), 16.0, "none"),
        ("auto", (3, 64, 64), None, "none"),
        ("photo", (1, 8, 8), None, "photo"),
        ("none", (3, 64, 64), 1.0, "none"),
        ("photo", (1, 1, 128), 1.0, "none"),
    ],
)
def test_what_is_changed_by_default(
    augment: Augment, shape: tuple[int, int, int], scale: float | None, preset: str
) -> None:
    images = torch.rand(5, *shape)
    assert preset_for(augment, TensorImages(images, "none" if scale is None else scale)) == preset
    grey = images[:, :1].expand(-1, shape[0], -1, -1)
    expected = "shift" if (augment, preset) == ("auto", "photo") else preset
    assert preset_for(augment, TensorImages(grey, "none" if scale is None else scale)) == expected


def test_training_batches_are_changed_anew_in_each_epoch_and_others_never() -> None:
    x = torch.randint(0, 256, (9, *COLOUR), generator=seeded(), dtype=torch.uint8)
    split = Split(TensorImages(x), torch.arange(9), torch.full((3,), 0.5), torch.full((3,), 0.3))
    kept = torch.cat([part for part, _ in split.batches(4)])

    def epoch(order: torch.Generator, augment: Augment) -> Tensor:
        config = TrainingConfig(batch_size=4, augment=augment)
        batches = list(batches_of(split, config, "t", torch.device("cpu"), order))
        labels = torch.cat([batch.labels for batch in batches])
        return torch.cat([batch.x for batch in batches])[labels.argsort()]

    order = seeded(1)
    first, second, again = epoch(order, "photo"), epoch(order, "photo"), epoch(seeded(1), "photo")
    assert torch.equal(epoch(order, "none"), kept)
    assert torch.equal(first, again)
    assert len({first[0].numpy().tobytes(), second[0].numpy().tobytes(), kept[0].numpy().tobytes()}) == 3
