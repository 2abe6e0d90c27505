"""MNTDP-D: which prefixes it tries, and what it refuses."""

from pathlib import Path
from typing import Any

import pytest
from learner.fixture import files_in

from lasem import Branch, TensorFactorization
from lasem.errors import ConfigError
from lasem.search import MNTDP

from .test_sources import A, B, learn, learner_of


def test_mntdp_tries_each_prefix_with_each_setting_and_keeps_the_best(tmp_path: Path) -> None:
    search, phases = MNTDP(learning_rates=(1e-2, 1e-3), weight_decays=(0.0,)), dict[str, float]()
    learner = learner_of(search)
    learner.learn(A)
    record = learner.learn(B, on_epoch=lambda epoch, *_: phases.__setitem__(epoch.phase, epoch.valid_accuracy))
    rates = ("step 1e-02, decay 0e+00", "step 1e-03, decay 0e+00")
    assert list(phases) == [f"{c}, {rate}" for c in ("SSS", "TSS", "TTS", "TTT") for rate in rates]
    assert record.num_epochs == 3 * len(phases)
    again = learner_of(search)
    learn(again, A, B)
    for number, each in enumerate((learner, again)):
        each.save(tmp_path / str(number))
    assert files_in(tmp_path / "0") == files_in(tmp_path / "1")


@pytest.mark.parametrize("settings", [{"protect": Branch()}, {"sharing": TensorFactorization()}])
def test_what_cannot_reuse_is_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=r"expected protect 'freeze'.*--protect freeze --sharing hps"):
        learner_of(MNTDP(), **settings)
