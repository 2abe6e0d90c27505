import math

import pytest

from lasem.errors import ShapeError
from lasem.metrics import share_of_layers_found, share_of_own_layers_found, share_of_shared_layers_found


def test_shares_by_hand() -> None:
    chosen, truth = ["TTSS", "STTS"], ["TSSS", "TTSS"]
    assert share_of_layers_found(chosen, truth) == 5 / 8
    assert share_of_shared_layers_found(chosen, truth) == 2 / 3
    assert share_of_own_layers_found(chosen, truth) == 3 / 5
    assert share_of_layers_found(truth, truth) == 1
    assert math.isnan(share_of_layers_found([], []))
    assert math.isnan(share_of_shared_layers_found(["S"], ["S"]))


@pytest.mark.parametrize(("chosen", "truth"), [(["TS"], ["TSS"]), (["TS"], []), ([""], ["T"])])
def test_other_depths_are_refused(chosen: list[str], truth: list[str]) -> None:
    with pytest.raises(ShapeError, match="as deep as the network"):
        share_of_layers_found(chosen, truth)
