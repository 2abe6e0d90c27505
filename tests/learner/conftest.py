import shutil
from pathlib import Path

import pytest

from .images import write_digits


@pytest.fixture(scope="session")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folders of images to train and to test three tasks with, to be read only."""
    place = tmp_path_factory.mktemp("images")
    for name, digits in (("low", (0, 1)), ("mid", (2, 3, 4)), ("high", (5, 6))):
        write_digits(place / name, digits)
        write_digits(place / f"{name}-test", digits, first=8, count=3)
    return place


@pytest.fixture
def place(model: Path, tmp_path: Path) -> Path:
    """A copy of a module's model, to be changed."""
    return Path(shutil.copytree(model, tmp_path / "model"))
