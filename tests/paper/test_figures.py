import xml.etree.ElementTree as ET

from lasem.report.figures.bars import Dot, draw_dots
from lasem.report.numbers import percent
from paper.figures import Point, draw_lines


def test_dots_and_lines_hold_their_numbers_and_leave_out_what_is_missing() -> None:
    nan = float("nan")
    dots = [Dot(row="<i>", series="a", mean=0.5, published=0.6), Dot(row="no", series="b", mean=nan)]
    drawing = draw_dots("dots", dots, axis="accuracy in %", caption="Read it.", unit=percent)
    assert drawing is not None
    assert drawing.rows == (("<i>", "a", 0.5, None, 0.6, None, None),)
    assert drawing.description == "accuracy in %: <i>, a: 50.0."
    assert "published" in "".join(ET.fromstring(drawing.inline()).itertext())
    assert draw_dots("dots", dots[1:], axis="", caption="", unit=percent) is None
    points = [Point(series="a", x="1", mean=0.5, deviation=0.1), Point(series="b", x="2", mean=nan)]
    drawing = draw_lines("lines", points, x_axis="images", y_axis="found, %", caption="Read it.", reference=0.5)
    assert drawing is not None
    assert (drawing.rows, drawing.description) == ((("a", "1", 0.5, 0.1),), "found, % by images. a, 1: 50.0.")
    assert draw_lines("lines", points[1:], x_axis="", y_axis="", caption="") is None
