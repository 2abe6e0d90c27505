"""Numbers and names as text for tables and figures. A missing value is a dash."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import final

from lasem.errors import printable
from lasem.metrics import PairedDifference, Statistic

DASH = "–"


@final
@dataclass(frozen=True)
class Unit:
    """A way to write numbers whose unit is in the heading."""

    write: Callable[[float], str]
    scale: float = 1.0
    """How many of it make 1: 100 per cent, a thousandth of a thousand."""

    def __call__(self, value: float) -> str:
        """Write a number; a dash for NaN."""
        return self.write(value)


def _percent(fraction: float) -> str:
    if not math.isfinite(fraction):
        return DASH
    return f"{round(100 * fraction, 1) + 0.0:.1f}".replace("-", "\N{MINUS SIGN}")  # + 0.0: never "-0.0"


percent = Unit(_percent, 100)
"""``0.6234`` -> ``62.3``."""


def fixed(digits: int, scale: float = 1.0) -> Unit:
    """With as many digits after the point: ``fixed(2, 0.001)(55912)`` -> ``55.91``."""
    return Unit(lambda value: f"{scale * value:.{digits}f}" if math.isfinite(value) else DASH, scale)


ratio = fixed(3)
"""``0.97342`` -> ``0.973``."""

thousands = Unit(lambda value: f"{value / 1000:.3g}" if math.isfinite(value) else DASH, 1 / 1000)
"""``55912`` -> ``55.9``."""


count = Unit(lambda value: f"{value:,.0f}" if math.isfinite(value) else DASH)
"""``1234567`` -> ``1,234,567``."""


def short_count(value: float) -> str:
    """``1234567`` -> ``1.23 M``, three figures."""
    if not math.isfinite(value):
        return DASH
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= 0.9995 * size:
            scaled = value / size
            return f"{scaled:.{max(0, 2 - int(math.log10(max(abs(scaled), 1))))}f} {unit}"
    return f"{value:.0f}"


def _duration(seconds: float) -> str:
    if not math.isfinite(seconds):
        return DASH
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"


duration = Unit(_duration)
"""``3723.4`` -> ``1 h 2 min``; below a minute ``23.4 s``."""


def plus_minus(value: Statistic, write: Callable[[float], str]) -> str:
    """``62.3 ± 0.4``; the deviation only where there is one."""
    if not math.isfinite(value.deviation):
        return write(value.mean)
    return f"{write(value.mean)} ± {write(value.deviation)}"


def signed(fraction: float) -> str:
    """A difference in points: ``0.008`` -> ``+0.8``."""
    written = percent(fraction)
    return written if written[:1] in ("\N{MINUS SIGN}", DASH) or written == "0.0" else f"+{written}"


def p_value(value: float) -> str:
    """With as many digits as mean something: ``0.0312`` -> ``0.031``."""
    return "< 0.001" if value < 0.001 else f"{value:.3f}" if value < 0.1 else f"{value:.2f}"


def in_words(difference: PairedDifference) -> str:
    """``+0.8 points (p 0.03)``."""
    return f"{signed(difference.mean)} points (p {p_value(difference.p_value)})"


def display_name(name: str, limit: int | None = None) -> str:
    """A name from a user's data, safe to draw: printable, cut to ``limit`` characters."""
    shown = printable(name)
    return shown if limit is None or len(shown) <= limit else shown[: limit - 1].rstrip() + "…"


def method_name(label: str) -> str:
    """What a person reads for a method: ``none`` is shown as single-task, ``all-tf`` as transfer-all-tf."""
    stem, hyphen, suffix = label.partition("-")
    return {"none": "single-task", "all": "transfer-all"}.get(stem, stem) + hyphen + suffix
