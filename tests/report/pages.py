"""What every page must be, and how pages, tables and folders are read."""

import io
import re
from html.parser import HTMLParser
from pathlib import Path

from rich.console import Console
from rich.table import Table


class Outline(HTMLParser):
    """Headings, ids and references of a page; fails where a tag is closed that is not open."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.headings: list[str] = []
        self.ids: list[str] = []
        self.references: list[str] = []
        self.tags: list[str] = []
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        if tag not in {"meta", "link", "br", "img"}:
            self.open.append(tag)
        if re.fullmatch("h[1-6]", tag):
            self.headings.append("")
        self.ids += [value or "" for key, value in attrs if key == "id"]
        self.references += [value or "" for key, value in attrs if key in ("src", "href", "xlink:href")]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and re.fullmatch("h[1-6]", self.open[-1]):
            self.headings[-1] += data


def check_whole(page: Path) -> Outline:
    """Fail unless a page is well formed, loads nothing, shows no NaN, and each of its links leads somewhere."""
    text = page.read_text(encoding="utf-8")
    outline = Outline(text)
    assert not re.search("https?://|@import", text)
    assert not re.search(r"\bnan\b", text, flags=re.IGNORECASE)
    assert len(outline.ids) == len(set(outline.ids))
    assert set(re.findall(r"url\(#([^)]*)\)", text)) <= set(outline.ids)
    for reference in outline.references:
        if reference.startswith("#"):
            assert reference[1:] in outline.ids
        elif not reference.startswith("data:"):
            assert (page.parent / reference).is_file() or reference.endswith("report.html")  # not drawn
    return outline


def contents(folder: Path) -> dict[Path, bytes]:
    """Every file of a folder."""
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def printed(table: Table) -> str:
    """A table as a terminal shows it."""
    console = Console(file=io.StringIO(), width=160)
    console.print(table)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()
