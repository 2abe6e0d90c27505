from __future__ import annotations

from collections.abc import Iterator
from functools import cache

import pytest

import lasem.data.digits


@pytest.fixture(autouse=True, scope="session")
def _digits_are_read_once() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:  # reading them takes longer than a tiny run
        patch.setattr("lasem.data.digits._load", cache(lasem.data.digits._load))
        yield
