"""Pages: one template, one style, colours that follow light and dark."""

from __future__ import annotations

import re
from importlib.resources import files
from typing import Any

from lasem.report.figures.canvas import COLOURS
from lasem.report.numbers import count, display_name, duration, percent, plus_minus, ratio


def render(template: str, *, package: str = "lasem.report", **values: Any) -> str:
    """Fill a template; everything in ``values`` is text unless the template says that it is safe.

    Args:
        template: the name of the file.
        package: where the template is; those that it extends or imports may also be lasem's.
        values: of the template's variables.
    """
    from jinja2 import Environment, FunctionLoader, StrictUndefined

    room = files("lasem.report")
    folders = (files(package), room)
    # autoescape: names of tasks and classes, settings and paths come from other people's files
    environment = Environment(
        loader=FunctionLoader(
            lambda name: next((folder / name).read_text("utf-8") for folder in folders if (folder / name).is_file())
        ),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"percent": percent, "ratio": ratio, "count": count}
    environment.filters |= {"duration": duration, "name": display_name, "plus_minus": plus_minus}
    style = (room / "page.css").read_text(encoding="utf-8")
    return environment.get_template(template).render(style=style, colours=COLOURS, **values)


def keep_together(text: str) -> str:
    """No line breaks between a number and its unit or its deviation."""
    return re.sub(r"(?<=[\d±]) (?=[\d±%kMGhs]|min)", "\N{NO-BREAK SPACE}", text)
