"""Augmentation: random changes of training images after which their classes are the same.

All numbers are drawn from a generator on the CPU that is passed in. Images are float32 and standardised: their mean is
about 0, so that 0 fills what is erased, and brightness is a sum.

.. [Mueller2021] S. G. Müller, F. Hutter. TrivialAugment: Tuning-free Yet State-of-the-Art Data Augmentation. ICCV 2021.
.. [Yun2019] S. Yun et al. CutMix: Regularization Strategy to Train Strong Classifiers with Localizable Features. ICCV
   2019.
.. [Zhang2018] H. Zhang, M. Cisse, Y. N. Dauphin, D. Lopez-Paz. mixup: Beyond Empirical Risk Minimization. ICLR 2018.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Literal, final

import torch
import torch.nn.functional as F
from torch import Tensor

from lasem.data import Split
from lasem.data.images import AbstractImages, moved
from lasem.errors import ConfigError
from lasem.settings import Range, Settings

Change = Callable[[Tensor], Tensor]
"""From images (B, channels, height, width) to as many others of the same shape."""

Augment = Literal["auto", "none", "shift", "photo", "trivial"]
"""``shift``: small shifts, for digits, characters and defects. ``photo``: crops with reflection, mirror images and
colour, for photographs. ``trivial``: ``photo`` without colour, then one change out of fourteen, as strong as it may be
([Mueller2021]_), for long training. ``none``: the images as they are. ``auto``: ``photo`` for colour images, ``shift``
for grey ones, ``none`` for images of at most 16 pixels a side, texts, and values that are no brightness."""

Mix = Literal["none", "mixup", "cutmix"]
"""``mixup``: each image is l times itself plus 1 - l times another one ([Zhang2018]_). ``cutmix``: a rectangle of 1 - l
of its area shows another one ([Yun2019]_)."""


@final
@dataclass(frozen=True, kw_only=True)
class Augmentation(Settings):
    """How strongly images are changed; every image by numbers of its own."""

    shift: Annotated[float, Range(least=0, below=1)] = 0.0
    """The greatest shift in each direction, as a share of the side; what comes in from outside is the mirror image."""
    flip: bool = False
    """Whether every second image is mirrored, left to right."""
    colour: Annotated[float, Range(least=0, below=1)] = 0.0
    """The greatest change of brightness, in deviations, and of contrast and saturation, as a share."""
    erase: Annotated[float, Range(least=0, most=1)] = 0.0
    """Share of images in which a rectangle of 2 to 33 % of the area becomes 0."""
    trivial: bool = False
    """Whether each image is also changed in one way of fourteen ([Mueller2021]_)."""


PRESETS: dict[str, Augmentation] = {
    "none": Augmentation(),
    "shift": Augmentation(shift=1 / 16),
    "photo": Augmentation(shift=1 / 8, flip=True, colour=0.4),
    "trivial": Augmentation(shift=1 / 8, flip=True, trivial=True),
}

IN_WORDS = {
    "shift": "small shifts",
    "photo": "crops, mirror images, brightness, contrast and saturation",
    "trivial": "crops, mirror images, and one strong change of fourteen",
}
"""What presets change."""

_LARGEST_PLAIN = 16
"""Side of images that ``auto`` leaves as they are: a shift by a pixel is much of them."""


def preset_for(augment: Augment, images: AbstractImages) -> str:
    """Return what a setting comes to for some images; grey ones stay grey if they are stored as colour."""
    channels, height, width = images.shape
    if (channels, height) == (1, 1):  # texts and signals
        return "none"
    if augment != "auto":
        return augment
    if images.scale is None or max(height, width) <= _LARGEST_PLAIN:
        return "none"
    return "photo" if channels == 3 and images.some_in_colour else "shift"


def change_of(augment: Augment, mix: Mix, split: Split, order: torch.Generator) -> Change | None:
    """Return one epoch's changes of a split's images, from a seed that ``order`` draws; None, drawing none, for none.

    The generator of the order is in the state of the loop, so that a killed run goes on to the same changes.

    Raises:
        ConfigError: if texts or signals are to be mixed.
    """
    preset = preset_for(augment, split.images)
    if preset == mix == "none":
        return None
    if mix != "none" and split.images.shape[:2] == (1, 1):
        raise ConfigError(f"TrainingConfig.mix '{mix}' is for images; got texts or signals. Set it to none.")
    generator = torch.Generator().manual_seed(int(torch.randint(2**62, (1,), generator=order)))

    def change(x: Tensor) -> Tensor:
        return mixed(augmented(x, generator, preset), generator, mix)

    return change


def augmented(x: Tensor, generator: torch.Generator, preset: str | Augmentation) -> Tensor:
    """Return changed images.

    Args:
        x: standardised images, float32, shape (B, channels, height, width), on any device; they are only read.
        generator: on the CPU.
        preset: a key of ``PRESETS``, or an augmentation.
    """
    how = PRESETS[preset] if isinstance(preset, str) else preset

    def draw(*shape: int) -> Tensor:
        return torch.rand(len(x), *shape, generator=generator)

    if how.shift > 0 or how.flip:
        x = _moved(x, how, draw(3))
    if how.trivial:
        x = _trivial(x, draw(2))
    if how.colour > 0:
        x = _coloured(x, moved(how.colour * (2 * draw(3) - 1), x.device))
    return _erased(x, how.erase, draw(5)) if how.erase > 0 else x


def mixed(x: Tensor, generator: torch.Generator, mix: Mix) -> Tensor:
    """Return images (B, channels, height, width) mixed with each other; an image keeps its label.

    The papers draw l evenly from [0, 1] and give an image both labels, its own by l. With pairs in either order that is
    the mean loss of images that have their own label alone, where the density of l is 2 l. So any loss will do.
    """
    if mix == "none":
        return x
    others, u = torch.randperm(len(x), generator=generator), torch.rand(len(x), 3, generator=generator)
    other, own = x[moved(others, x.device)], u[:, 0].sqrt()
    if mix == "mixup":
        return torch.lerp(other, x, moved(own, x.device)[:, None, None, None])
    side = (1 - own).sqrt()
    return torch.where(moved(_rectangles(x, side, side, u[:, 1:]), x.device), other, x)


def _moved(x: Tensor, how: Augmentation, u: Tensor) -> Tensor:
    """Shift and mirror, pixel by pixel, by uniform numbers (B, 3)."""
    height, width = x.shape[-2:]
    rows, columns = (
        _reflected(torch.arange(side) + _whole(how.shift * side, u[:, i : i + 1]), side)
        for i, side in enumerate((height, width))
    )
    if how.flip:
        columns = torch.where(u[:, 2:] < 0.5, width - 1 - columns, columns)
    places = (rows[:, :, None] * width + columns[:, None]).flatten(1)[:, None]
    return x.flatten(2).gather(2, moved(places, x.device).expand(-1, x.shape[1], -1)).view_as(x)


def _whole(most: float, u: Tensor) -> Tensor:
    """Return whole numbers from -most to most, rounded up and each as likely, for uniform numbers."""
    return (u * (2 * math.ceil(most) + 1)).long() - math.ceil(most)


def _reflected(places: Tensor, side: int) -> Tensor:
    """Return positions inside of a side for those outside: -1 is 1, ``side`` is ``side - 2``."""
    last = max(1, side - 1)
    return (last - (places.abs() % (2 * last) - last).abs()).clamp(max=side - 1)


def _coloured(x: Tensor, u: Tensor) -> Tensor:
    """Change brightness, contrast and saturation by numbers (B, 3) around 0."""
    brightness, contrast, saturation = u[..., None, None, None].unbind(1)
    if x.shape[1] == 3:
        grey = x.mean(dim=1, keepdim=True)
        x = torch.lerp(grey, x, 1 + saturation)
    middle = x.mean(dim=(1, 2, 3), keepdim=True)
    return torch.lerp(middle, x, 1 + contrast) + brightness


def _erased(x: Tensor, share: float, u: Tensor) -> Tensor:
    """Set a rectangle to 0 in a share of the images, by uniform numbers (B, 5)."""
    area, ratio = 0.02 + 0.31 * u[:, 1], torch.exp((2 * u[:, 2] - 1) * math.log(10 / 3) / 2)
    erased = _rectangles(x, area.sqrt() * ratio, area.sqrt() / ratio, u[:, 3:]) & (u[:, 0] < share)[:, None, None, None]
    return x.masked_fill(moved(erased, x.device), 0.0)


def _rectangles(x: Tensor, height: Tensor, width: Tensor, u: Tensor) -> Tensor:
    """Return a rectangle in each image, (B, 1, height, width): shares of its sides (B,), at uniform numbers (B, 2)."""

    def inside(side: int, part: Tensor, u: Tensor) -> Tensor:
        size = (part.clamp(max=1) * side).round()
        start = (u * (side - size + 1)).floor()
        places = torch.arange(side)
        return (places >= start[:, None]) & (places < (start + size)[:, None])

    rows, columns = inside(x.shape[-2], height, u[:, 0]), inside(x.shape[-1], width, u[:, 1])
    return (rows[:, :, None] & columns[:, None])[:, None]


def _trivial(x: Tensor, u: Tensor) -> Tensor:
    """Change each image in one way, drawn by the first of uniform numbers (B, 2), as strongly as the second says."""
    ways, strength = (u[:, 0] * len(_WAYS)).long(), moved(2 * u[:, 1] - 1, x.device)
    x = x.clone()
    for number, way in enumerate(_WAYS):
        if way is not None and len(chosen := (ways == number).nonzero()[:, 0]):
            places = moved(chosen, x.device)
            x[places] = way(x[places], strength[places][:, None, None, None])
    return x


def _affine(x: Tensor, rows: list[Tensor | float]) -> Tensor:
    """Return images at transformed places; ``rows`` has the six numbers of the matrix, each one or (B, 1, 1, 1)."""
    numbers = [torch.as_tensor(n, dtype=x.dtype, device=x.device).expand(len(x), 1, 1, 1).flatten() for n in rows]
    grid = F.affine_grid(torch.stack(numbers, dim=1).view(-1, 2, 3), list(x.shape), align_corners=False)
    return F.grid_sample(x, grid, padding_mode="zeros", align_corners=False)


def _rotated(x: Tensor, s: Tensor) -> Tensor:
    angle, stretch = s * math.radians(135), x.shape[-1] / x.shape[-2]
    return _affine(x, [angle.cos(), -angle.sin() / stretch, 0, angle.sin() * stretch, angle.cos(), 0])


def _blend(base: Callable[[Tensor], Tensor]) -> Callable[[Tensor, Tensor], Tensor]:
    """Return the way from a base image (strength -1) over the image itself (0) to twice as far from the base (1)."""
    return lambda x, s: torch.lerp(base(x), x, 1 + 0.99 * s)


def _low(x: Tensor) -> Tensor:
    return x.amin(dim=(1, 2, 3), keepdim=True)


def _range(x: Tensor) -> Tensor:
    """Of each image, at least a little above 0."""
    return (x.amax(dim=(1, 2, 3), keepdim=True) - _low(x)).clamp(min=1e-6)


def _smooth(x: Tensor) -> Tensor:
    return F.avg_pool2d(F.pad(x, (1, 1, 1, 1), mode="replicate"), 3, stride=1)


def _in_unit(way: Callable[[Tensor, Tensor], Tensor]) -> Callable[[Tensor, Tensor], Tensor]:
    """Return a way of images from 0 to 1 for images of any range."""
    return lambda x, s: way((x - _low(x)) / _range(x), s) * _range(x) + _low(x)


def _posterised(x: Tensor, s: Tensor) -> Tensor:
    levels = torch.exp2((8 - 6 * s.abs()).round())
    return (x * levels).floor().clamp(max=levels - 1) / levels


def _equalised(x: Tensor, s: Tensor) -> Tensor:
    flat = x.flatten(2)
    return (flat.argsort(dim=2).argsort(dim=2) / max(1, flat.shape[2] - 1)).to(x.dtype).view_as(x)


def _stretched(x: Tensor, s: Tensor) -> Tensor:
    low, high = x.amin(dim=(2, 3), keepdim=True), x.amax(dim=(2, 3), keepdim=True)
    return (x - low) / (high - low).clamp(min=1e-6)


_WAYS: tuple[Callable[[Tensor, Tensor], Tensor] | None, ...] = (
    None,
    lambda x, s: _affine(x, [1, 0.99 * s, 0, 0, 1, 0]),  # shear
    lambda x, s: _affine(x, [1, 0, 0, 0.99 * s, 1, 0]),
    lambda x, s: _affine(x, [1, 0, s, 0, 1, 0]),  # shift, by up to half of the side
    lambda x, s: _affine(x, [1, 0, 0, 0, 1, s]),
    _rotated,
    _blend(_low),  # brightness
    _blend(lambda x: x.mean(dim=1, keepdim=True).expand_as(x)),  # saturation
    _blend(lambda x: x.mean(dim=(1, 2, 3), keepdim=True).expand_as(x)),  # contrast
    _blend(_smooth),  # sharpness
    _in_unit(_posterised),
    _in_unit(lambda x, s: torch.where(x > s.abs(), 1 - x, x)),  # solarise
    _in_unit(_stretched),  # all contrast that there is, channel by channel
    _in_unit(_equalised),  # a flat histogram, channel by channel
)
"""Ways in which an image changes with a strength in [-1, 1]."""
