import pytest
from learner.fixture import tiny_net

from lasem.sharing import Deconvolution
from lasem.space import full
from lasem.training import SharedProtection
from lasem.tree import Path

from .fixture import start_with


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        (("head", "weight.0"), 1.0),
        (("layers", 0, "specific", "weight"), 1.0),
        (("layers", 0, "specific", "knowledge"), 1.0),
        (("layers", 1, "shared", "inner.specific.knowledge"), 0.1),  # a module may call a part of its own like that
        (("layers", 0, "shared", "knowledge"), 0.0),  # only read
        (("layers", 0, "factors", "combine"), 1.0),
        (("layers", 1, "statistics", "T", "norm.running_mean"), 0.0),
    ],
)
def test_step_sizes_go_by_the_part_that_a_weight_belongs_to(path: Path, expected: float) -> None:
    protection = SharedProtection(read_only=frozenset({0}))
    start = start_with(tiny_net(), Deconvolution(step_scale=0.1), full(2), protection=protection)
    assert start.scale(path) == expected
