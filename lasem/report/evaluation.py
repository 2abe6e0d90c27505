"""The page of an evaluation, one file: pictures of the surest mistakes, which classes are confused, calibration."""

from __future__ import annotations

import io
from base64 import b64encode
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from lasem.errors import quoted
from lasem.report.frame import (
    Cell,
    Frame,
    check_place,
    columns_of,
    keep_together,
    name_cell,
    number_cell,
    render,
    write_text,
)
from lasem.report.numbers import DASH, count, display_name, percent

if TYPE_CHECKING:
    from torch import Tensor

    from lasem.learner import Evaluation

PICTURES = 36
"""Mistakes that a page shows."""

_PAIRS = 100
"""Pairs of classes that a page lists."""
_SIDE = 192
"""Pixels of a picture's longer side; larger ones are reduced."""


def write_evaluation(
    page: Path, result: Evaluation, *, task: str, model: str, images: str, command: Sequence[str]
) -> Path:
    """Write what an evaluation found as a page that opens without a network.

    It shows as many mistakes as have pictures, at most ``PICTURES``; ``images`` is where the images are from.

    Raises:
        StorageError: if the place is in the model's folder or another file's, or cannot be written.
    """
    from lasem.report.figures.bars import draw_calibration
    from lasem.report.figures.heatmap import draw_confusion

    check_place(page, model)
    shown = result.mistakes[:PICTURES]
    text = render(
        "evaluation.html.jinja",
        name=display_name(task),
        progress="",
        verdict=keep_together(_verdict(result)),
        model=display_name(model),
        images=display_name(images),
        result=result,
        mean_accuracy=sum(right / num for num, right in result.by_class.values()) / len(result.by_class),
        mistakes=[(mistake, None if mistake.picture is None else _address(mistake.picture)) for mistake in shown],
        classes=_classes(result),
        pairs=_pairs(result),
        confusion=draw_confusion(result.classes, result.confusion),
        calibration=draw_calibration(result.calibration),
        environment={"command": quoted(*command)},
    )
    return write_text(page, text)


def _verdict(result: Evaluation) -> str:
    right, num = result.num_right, result.num_images
    if not result.mistakes:
        return f"All {num:,} images are answered correctly." if num > 1 else "The one image is answered correctly."
    sentence = f"Of {num:,} images {right:,} are answered correctly, {percent(result.accuracy)} %"
    name, answer, times = result.confused[0]
    if times > 1:
        most = f"; most often '{display_name(name, 40)}' is taken for '{display_name(answer, 40)}' ({times:,} times)"
        sentence += most
    return f"{sentence}."


def _classes(result: Evaluation) -> Frame:
    taken: dict[str, tuple[str, int]] = {}
    for name, answer, times in result.confused:
        taken.setdefault(name, (answer, times))
    rows = []
    for number, name in enumerate(result.classes, start=1):
        if name in result.by_class:
            num, right = result.by_class[name]
            answer, times = taken.get(name, ("", 0))
            most = f"{display_name(answer, 40)} ({times:,})" if times else DASH
            numbers = (number_cell(num, count), number_cell(right, count), number_cell(right / num, percent))
            first = Cell(text=str(number), number=number)
            rows.append((first, name_cell(name, 60), *numbers, Cell(text=most)))
    headings = ("#", "Class", "Images", "Right", "Right %", "Most often taken for")
    return Frame(columns=columns_of(*headings, texts=(headings[1], headings[-1])), rows=tuple(rows))


def _pairs(result: Evaluation) -> Frame:
    texts = ("Class", "Answered as")
    rows = []
    for name, answer, times in result.confused[:_PAIRS]:
        share = number_cell(times / result.by_class[name][0], percent)
        rows.append((name_cell(name, 60), name_cell(answer, 48), number_cell(times, count), share))
    return Frame(columns=columns_of(*texts, "Images", "% of the class", texts=texts), rows=tuple(rows))


def _address(picture: Tensor) -> str:
    """Return a picture as an address that holds it: small ones to the pixel, of large ones a thumbnail."""
    from PIL import Image

    pixels = picture.permute(1, 2, 0).contiguous().numpy()
    image = Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels)
    kind = "PNG" if max(image.size) <= 64 else "JPEG"
    image.thumbnail((_SIDE, _SIDE))
    data = io.BytesIO()
    image.save(data, kind)
    return f"data:image/{kind.lower()};base64,{b64encode(data.getvalue()).decode()}"
