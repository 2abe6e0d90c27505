"""A drawn figure: its SVG, the data in it, and the words that go with it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from html import escape

from lasem.report.figures.canvas import COLOURS


@dataclass(frozen=True, kw_only=True)
class Drawing:
    """One figure, not yet written anywhere."""

    name: str
    """Stem of its file names, for instance ``seed-0-accuracy-matrix``."""
    caption: str
    """How to read it."""
    description: str
    """What it shows, for those who cannot see it."""
    svg: str
    """The whole SVG file, for a white page."""
    width: int
    """Natural width in pixels."""
    columns: tuple[str, ...]
    rows: tuple[tuple[object, ...], ...]
    """The data drawn: accuracies as fractions, names as recorded."""

    @property
    def least_width(self) -> int:
        """Below this many pixels it becomes illegible and scrolls instead; one wider than the page is never shrunk."""
        return self.width if self.width > 920 else min(self.width, 640)

    def inline(self) -> str:
        """The SVG as it goes into a page: colours that follow light and dark, unique ids, no fixed size."""
        svg = self.svg[self.svg.index("<svg") :]
        svg = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>", "", svg, flags=re.DOTALL)
        opening, body = svg.split(">", 1)
        view_box = re.search(r'viewBox="[^"]*"', opening)
        # tags only: what stands between them are names from the user's data, and stays as it is
        body = re.sub(r"<[^>]*>", self._adapt, body)
        return f'<svg {view_box[0] if view_box else ""} role="img" aria-label="{escape(self.description)}">{body}'

    def _adapt(self, tag: re.Match[str]) -> str:
        # ids must differ between figures: a reference into a hidden one draws nothing
        text = re.sub(r'\bid="', f'id="{self.name}-', tag[0])
        text = text.replace("url(#", f"url(#{self.name}-").replace('xlink:href="#', f'href="#{self.name}-')
        text = text.replace("font-family: ui-monospace", "font-family: var(--mono)")
        text = text.replace("font-family: system-ui", "font-family: var(--sans)")
        text = re.sub(r"(\.\d\d)\d+", r"\1", text)  # a hundredth of a pixel is enough, and half the bytes
        return re.sub(r"#[0-9a-f]{6}\b", lambda found: _VARIABLES.get(found[0], found[0]), text)


_VARIABLES = {light: f"var(--{name})" for name, (light, _) in COLOURS.items()}
