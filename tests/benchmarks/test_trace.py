"""How many files of lasem a reader passes who follows one call."""

from collections.abc import Mapping

import pytest

from benchmarks.trace_files import measure

LIMITS = {"GrowingModel.predict of one image": 15, "Learner.load": 12, "one EM mini-batch": 10}


@pytest.fixture(scope="module")
def traced() -> Mapping[str, set[str]]:
    return measure()


@pytest.mark.parametrize("what", LIMITS)
def test_a_call_passes_few_files(traced: Mapping[str, set[str]], what: str) -> None:
    assert len(traced[what]) <= LIMITS[what], sorted(traced[what])


def test_each_call_passes_the_networks_layers(traced: Mapping[str, set[str]]) -> None:
    assert set(traced) == set(LIMITS)
    assert all(any(file.startswith("nets") for file in files) for files in traced.values())
