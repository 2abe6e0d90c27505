"""Settings of the documents' site, and the pages of every public name, which are written before each build."""

import ast
import inspect
import re
from importlib import import_module
from pathlib import Path
from typing import Any

import lasem

PACKAGE = Path(lasem.__file__).parent
API = Path(__file__).parent / "api"

project = "lasem"
copyright = "The lasem developers"
version = release = lasem.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.autosummary", "sphinx.ext.napoleon"]
myst_heading_anchors = 4
html_theme = "furo"
html_title = f"lasem {version}"
autosummary_generate = False
autodoc_inherit_docstrings = False  # an override repeats nothing: its base has the description
autodoc_member_order = "bysource"
autodoc_default_options = {"members": True, "show-inheritance": True}
autodoc_typehints_format = "short"
maximum_signature_line_length = 100
# links in a checkout to what is no page: their text is kept
suppress_warnings = ["ref.citation"]  # functions without an underscore are not all that cite
nitpick_ignore_regex = [("myst", r"(\.\./)?(examples|tests/\w+|LICENSE|CITATION\.cff|[A-Z]+\.md)")]


def rooms() -> list[str]:
    """Return the modules and packages whose names are public: lasem, its rooms, and packages in a room."""
    inits = {path.parent for path in PACKAGE.rglob("__init__.py")}
    paths = inits | {path.with_suffix("") for path in PACKAGE.glob("[a-z]*.py")}
    return sorted(".".join(path.relative_to(PACKAGE.parent).parts) for path in paths)


def exported(room: str) -> list[tuple[str, str]]:
    """Return what a room exports, in its order: each name, after the module that it is from.

    A room exports what it imports ``as`` itself or lists in ``__all__``, and its own definitions without an underscore.
    """
    module = import_module(room)
    listed, found = getattr(module, "__all__", ()), []
    for node in ast.walk(ast.parse(inspect.getsource(module))):
        if isinstance(node, ast.ImportFrom):
            found += [(node.module, a.name) for a in node.names if a.name in (a.asname, *listed)]
    for node in ast.parse(inspect.getsource(module)).body:
        for part in getattr(node, "targets", [getattr(node, "target", node)] * (not isinstance(node, ast.AugAssign))):
            name = getattr(part, "id", None) or getattr(part, "name", "_")
            found += [(room, name)] * (not name.startswith("_"))
    return found


def home(room: str, source: str, name: str) -> str:
    """Return the room that describes a name: the one that it is from, if that exports it, too."""
    own = next((r for r in reversed(rooms()) if r != "lasem" and f"{source}.".startswith(f"{r}.")), room)
    return own if name in vars(import_module(own)) else room


def page(room: str) -> str:
    """Return a room's page in reStructuredText: modules in the order of its exports, then names of other rooms."""
    lines = [room, "=" * len(room), f".. automodule:: {room}", "   :no-members:", ""]
    elsewhere, last = [], room
    for source, name in exported(room):
        if home(room, source, name) != room:
            elsewhere.append(f"   ~{home(room, source, name)}.{name}")
            continue
        if source != last:
            lines += [source, "-" * len(source)]
            lines += [f".. automodule:: {source}", "   :no-members:", "   :no-index:", ""] * (source not in rooms())
            last = source
        value = getattr(import_module(room), name)
        kind = "class" if inspect.isclass(value) else "function" if inspect.isfunction(value) else "data"
        lines += [f".. auto{kind}:: {room}.{name}", *["   :no-value:"] * (kind == "data"), ""]
    if elsewhere:  # summarised: the room that they are from describes them
        lines += [".. py:currentmodule:: None", "", ".. autosummary::", "", *elsewhere, ""]
    return "\n".join(lines)


CITATION = re.compile(r"^\.\. \[(\w+)\] .*(?:\n +.*)*\n?", re.MULTILINE)


def sources() -> str:
    """Return the page of what docstrings cite, each work once, however many modules cite it."""
    found = {
        cited[1]: cited[0].rstrip()
        for path in sorted(PACKAGE.rglob("*.py"))
        for cited in CITATION.finditer(ast.get_docstring(ast.parse(path.read_text("utf-8"))) or "")
    }
    return "\n".join(["Sources", "=======", *(found[key] for key in sorted(found)), ""])


def pages() -> dict[str, str]:
    """Return every page by its file's name."""
    names = [*rooms(), "sources"]
    index = ["Names", "=====", ".. toctree::", "   :maxdepth: 1", "", *(f"   {name}" for name in names), ""]
    return {"index": "\n".join(index), "sources": sources(), **{room: page(room) for room in rooms()}}


def write_pages(app: Any) -> None:
    """Write the pages that changed, and remove those of rooms that are no more."""
    API.mkdir(exist_ok=True)
    wanted = {API / f"{name}.rst": text for name, text in pages().items()}
    for path in {*API.iterdir()} - {*wanted}:
        path.unlink()
    for path, text in wanted.items():
        if not path.exists() or path.read_text("utf-8") != text:
            path.write_text(text, "utf-8")


def mend(app: Any, what: str, name: str, value: Any, options: Any, lines: list[str]) -> None:
    """Bring a docstring into the form that sphinx understands."""
    from sphinx.pycode import ModuleAnalyzer  # here, for the pages can be listed without sphinx

    lines[:] = CITATION.sub("", "\n".join(lines)).split("\n")  # works are on a page of their own
    if what == "data":  # an object has no docstring; its definition has
        room, _, last = name.rpartition(".")
        described = [ModuleAnalyzer.for_module(source) for source, n in exported(room) if n == last]
        lines[:] = described[0].find_attr_docs().get(("", last), []) if described else []
    if what in ("attribute", "data", "property"):
        lines[:0] = ["..", ""]  # napoleon takes the words before a colon in the first line for a type


def shorten(app: Any, what: str, name: str, value: Any, options: Any, signature: str | None, answer: Any) -> Any:
    """Leave ranges out of a signature: the settings below it have them."""
    annotated = r"[~\w.]*Annotated\[((?:[^][,]|\[[^]]*\])+), [~\w.]*Range\([^)]*\)\]"
    return signature and re.sub(annotated, r"\1", signature), answer


def setup(app: Any) -> None:
    """Connect these to the build."""
    app.connect("builder-inited", write_pages)
    app.connect("autodoc-process-docstring", mend, priority=400)  # napoleon has 500
    app.connect("autodoc-process-signature", shorten)
