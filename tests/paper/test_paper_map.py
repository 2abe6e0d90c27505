"""Everything that docs/paper_map.md names is there, and every recipe is named."""

import importlib
import inspect
import re
from pathlib import Path

import pytest

from paper.reproduce import RECIPES

TEXT = (Path(__file__).parents[2] / "docs/paper_map.md").read_text()
NAMES = sorted(set(re.findall(r"`((?:lasem|paper)\.[A-Za-z0-9_.]+)`", TEXT)))


@pytest.mark.parametrize("name", NAMES)
def test_what_the_map_names_is_there(name: str) -> None:
    parts = name.split(".")
    for split in range(len(parts), 0, -1):
        try:
            found = importlib.import_module(".".join(parts[:split]))
        except ModuleNotFoundError:
            continue
        for part in parts[split:]:
            found = getattr(found, part)
        assert inspect.getdoc(found) or isinstance(found, dict)
        return
    pytest.fail(f"no module of {name}")


def test_every_recipe_is_on_the_map() -> None:
    rows = re.findall(r"\| `([a-z-]+)` \| `(paper\.[a-z_]+)` \|", TEXT)
    assert [name for name, _ in rows] == list(RECIPES)
    for name, module in rows:
        assert importlib.import_module(module).RECIPE is RECIPES[name]
    assert len(NAMES) > 40
