"""Help texts of settings: the docstring below each field of a dataclass."""

from __future__ import annotations

import ast
import inspect
import re
import textwrap
from typing import Any


def field_help(cls: type[Any]) -> dict[str, str]:
    """The docstring of each field of a dataclass and of those it inherits from, on one line."""
    found: dict[str, str] = {}
    for parent in reversed(cls.__mro__):
        if "__annotations__" in vars(parent):
            found |= _own(parent)
    return found


def in_words(value: Any) -> str:
    """A default as a person would type it."""
    if value is None:
        return "none"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list | tuple):
        return ",".join(map(str, value)) or "empty"
    return str(value)


def _own(cls: type[Any]) -> dict[str, str]:
    try:
        (tree,) = ast.parse(textwrap.dedent(inspect.getsource(cls))).body
    except (OSError, TypeError):  # no source here: help without texts
        return {}
    assert isinstance(tree, ast.ClassDef)
    found = {}
    for field, text in zip(tree.body, tree.body[1:], strict=False):
        match field, text:
            case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str(docstring))):
                found[name] = _as_typed(docstring)
    return found


def _as_typed(text: str) -> str:
    """A docstring without its markup, on one line."""
    plain = re.sub(r"\[(\w+)\]_", r"\1", text.replace("``", ""))  # a reference
    return re.sub(r"\bNone\b", "none", " ".join(plain.split()))
