"""The order of the rooms: a room imports only those before it."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import lasem

ROOMS = ["errors", "settings", "files", "records", "tree", "data", "nets", "space", "sharing", "training", "search"]
ROOMS += ["methods", "learner", "metrics", "report", "experiments", "cli"]
"""In import order."""

PACKAGE = Path(lasem.__file__).parent


def modules_imported(source: str) -> Iterator[tuple[int, str]]:
    """Every module that a file imports anywhere in it, functions included, with the line."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom):
            modules = [f"lasem.{a.name}" for a in node.names] if node.module == "lasem" else [node.module or ""]
        elif isinstance(node, ast.Import):
            modules = [alias.name for alias in node.names]
        else:
            continue
        yield from ((node.lineno, name) for name in modules)


def rooms_imported(source: str) -> Iterator[tuple[int, str]]:
    """Every room among them."""
    found = modules_imported(source)
    yield from ((line, name.split(".")[1]) for line, name in found if name.startswith("lasem."))


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_imports_only_rooms_before_it(room: str) -> None:
    allowed = ROOMS[: ROOMS.index(room) + 1]
    files = [PACKAGE / f"{room}.py"] if (PACKAGE / f"{room}.py").exists() else sorted((PACKAGE / room).rglob("*.py"))
    assert files
    wrong = [
        f"{path.relative_to(PACKAGE)}:{line} imports {other}"
        for path in files
        for line, other in rooms_imported(path.read_text(encoding="utf-8"))
        if other not in allowed
    ]
    assert not wrong


def test_the_paper_and_the_benchmarks_are_left_out_of_the_package() -> None:
    wrong = [
        f"{path.relative_to(PACKAGE)}:{line} imports {name}"
        for path in sorted(PACKAGE.rglob("*.py"))
        for line, name in modules_imported(path.read_text(encoding="utf-8"))
        if name.split(".")[0] in ("paper", "benchmarks", "tests")
    ]
    assert not wrong  # the one door is find_command of lasem/cli/main.py, which imports by name


def test_importing_the_rooms_brings_in_no_library_of_readers_or_reports() -> None:
    code = "import sys, lasem.data, lasem.report; print(*{name.split('.')[0] for name in sys.modules})"
    loaded = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.split()
    assert not {"pyarrow", "PIL", "sklearn", "matplotlib", "jinja2"} & set(loaded)


def test_every_room_has_its_place() -> None:
    found = {path.stem for path in PACKAGE.iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()}
    assert found - {"__init__", "__main__"} == set(ROOMS)


def test_imports_are_found_in_functions_too() -> None:
    source = "def f():\n    from lasem.cli import main\n    import lasem.data.task\n    from lasem import nets\n"
    assert [room for _, room in rooms_imported(source)] == ["cli", "data", "nets"]
