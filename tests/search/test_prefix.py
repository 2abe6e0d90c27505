from __future__ import annotations

from lasem.search import PrefixSearch

from .test_exhaustive import proposed


def test_the_first_layers_transfer_and_their_number_is_tried_out() -> None:
    assert proposed(PrefixSearch(), 1) == ["S", "T"]
    assert proposed(PrefixSearch(), 4) == ["SSSS", "TSSS", "TTSS", "TTTS", "TTTT"]


def test_a_deep_network_needs_no_groups() -> None:
    assert len(proposed(PrefixSearch(), 40)) == 41


def test_groups_are_not_cut() -> None:
    assert proposed(PrefixSearch(groups=(2, 1, 2)), 5) == ["SSSSS", "TTSSS", "TTTSS", "TTTTT"]
