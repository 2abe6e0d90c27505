import os
import subprocess

import pytest

from lasem import errors
from lasem.errors import LasemError, csv_text, nearest, printable, quoted


def test_every_error_is_a_lasem_error() -> None:
    kinds = [value for value in vars(errors).values() if isinstance(value, type) and issubclass(value, Exception)]
    assert len(kinds) == 9
    assert all(issubclass(kind, LasemError) for kind in kinds)


def test_nearest_names_the_closest_or_nothing() -> None:
    assert nearest("cifr-1", ["cifar-1", "stl-1"]) == " Did you mean 'cifar-1'?"
    assert nearest("xyz", ["cifar-1", "stl-1"]) == ""
    assert nearest("anything", []) == ""


@pytest.mark.parametrize("name", ["agem", "lr", "pretrained", "xyz", ""])
def test_nothing_is_suggested_that_is_not_near(name: str) -> None:
    assert nearest(name, ["lasem", "--help", "--train", "--preset", "--precision", "--learning-rate"]) == ""


HOSTILE = [
    "\x1b[31mred\x1b[0m",
    "\x1b]0;title\x07",
    "a\u202eb",
    "\u2066x",
    "\x9b1m",
    "a\rb\nc\t",
    "\udcff",
    "\x7f",
    "\u200b",
]


@pytest.mark.parametrize("text", HOSTILE)
def test_what_moves_a_cursor_is_made_visible(text: str) -> None:
    assert printable(text).isprintable()
    assert printable("Äffchen 猫 [red]") == "Äffchen 猫 [red]"


@pytest.mark.parametrize("word", [*HOSTILE, "$(touch x)", "a b", "it's", "`x`", "\\n", "-x", "é'\x1b\\", "\x1bf"])
def test_a_shell_reads_quoted_words_as_they_are(word: str) -> None:
    shown = quoted("printf", "%s", word)
    assert shown.isprintable()
    assert subprocess.run(["bash", "-c", shown], capture_output=True, check=True).stdout == os.fsencode(word)


@pytest.mark.parametrize(
    ("text", "cell"),
    [
        *((f"{sign}1+1", f"'{sign}1+1") for sign in "=+-@＝"),
        *((text, text) for text in ("cat", "-1", "+2.5", "-1e-3", "a=b", "", "–")),
        ("\t=1", "\\t=1"),
        ("\x1b[1m", "\\x1b[1m"),
    ],
)
def test_a_spreadsheet_computes_no_text(text: str, cell: str) -> None:
    assert csv_text(text) == cell
