from typing import Any

import pytest

from lasem.errors import ConfigError
from lasem.experiments import ExperimentConfig
from lasem.experiments.config import differences
from lasem.experiments.parts import method_names, parts_of, resolve
from lasem.methods import EWC, METHODS
from lasem.search import DARTS, EM, SEARCHES, Fixed
from lasem.sharing import SHARINGS, TensorFactorization
from lasem.training import TrainingConfig

TF, TF8 = TensorFactorization(), TensorFactorization(max_rank=8)


def test_every_search_and_baseline_has_a_name() -> None:
    assert set(method_names()) >= (set(SEARCHES) | set(METHODS)) - {"em", "fixed"}
    for name in method_names():
        parts_of(name.replace("-K", "-2"))
    assert not set(METHODS) & {"lasem", "all", "none", "alternating", *SEARCHES}


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("lasem", {}),
        ("lasem-tf", {"sharing": {"name": "tf"}}),
        ("all", {"search": {"name": "fixed", "configuration": "all"}}),
        ("none", {"search": {"name": "fixed", "configuration": "none"}}),
        (
            "top-2-dfcnn",
            {"sharing": {"name": "dfcnn"}, "search": {"name": "fixed", "configuration": "top-2"}},
        ),
        ("darts-hps", {"sharing": {"name": "hps"}, "search": {"name": "darts"}}),
        ("ewc", {"method": {"name": "ewc"}}),
    ],
)
def test_what_a_name_stands_for(name: str, parts: dict[str, Any]) -> None:
    assert parts_of(name) == parts


@pytest.mark.parametrize("suffix", ["", *(f"-{name}" for name in SHARINGS)])
@pytest.mark.parametrize("name", [n.replace("-K", "-1") for n in method_names() if n not in METHODS])
def test_a_shorthand_is_stored_as_sharing_and_search(name: str, suffix: str) -> None:
    config = ExperimentConfig.from_plain({"method": name + suffix})
    plain = config.to_plain()
    assert "method" not in plain
    assert plain["sharing"]["name"] == (suffix.removeprefix("-") or "hps")
    assert ExperimentConfig.from_yaml(config.to_yaml()) == config


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("", {}),
        ("method: lasem", {}),
        ("method: ewc", {"method": EWC()}),
        ("search: fixed\nseeds: 4", {"search": Fixed(), "seeds": (4,)}),
        ("sharing: tf\nsearch: em", {"sharing": TF}),
        ("training: {learning_rate: 1e-3}", {"training": TrainingConfig(learning_rate=1e-3)}),  # no dot
        ("method: lasem\nsharing: tf\nsearch: {commit_share: 0.5}", {"sharing": TF, "search": EM(commit_share=0.5)}),
        ("method: all\nsharing: {name: tf, max_rank: 8}", {"sharing": TF8, "search": Fixed("all")}),
        (
            "method: darts-tf\nsharing: {max_rank: 8}\nsearch: {first_task: none}",
            {"sharing": TF8, "search": DARTS(first_task="none")},
        ),
    ],
)
def test_a_name_alone_has_the_defaults_and_leaves_what_it_does_not_speak_of(text: str, parts: Any) -> None:
    assert ExperimentConfig.from_yaml(text) == ExperimentConfig(**parts)


def test_a_baseline_survives_yaml_without_what_it_does_not_use() -> None:
    config = ExperimentConfig.from_yaml("method: {name: ewc, strength: 7}\ntraining: {epochs: 3}")
    assert config.method == EWC(strength=7.0)
    plain = config.to_plain()
    assert not {"sharing", "search"} & set(plain)
    assert not EWC.unused & set(plain["training"])
    assert ExperimentConfig.from_yaml(config.to_yaml()) == config


@pytest.mark.parametrize("preset", ["default", "paper"])
@pytest.mark.parametrize("name", METHODS)
def test_every_baseline_survives_yaml_with_every_preset(name: str, preset: str) -> None:
    config = ExperimentConfig.from_plain({"method": name, "preset": preset})
    assert ExperimentConfig.from_yaml(config.to_yaml()) == config
    for setting, value in METHODS[name].training.items():
        assert getattr(config.training, setting) == value  # above the preset


def test_a_methods_own_training_stands_below_what_is_explicit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(EWC, "training", {"optimiser": "sgd", "learning_rate": 0.05})
    config = ExperimentConfig.from_yaml("method: ewc\npreset: paper\ntraining: {learning_rate: 0.1}")
    assert (config.training.optimiser, config.training.learning_rate) == ("sgd", 0.1)
    assert config.training.batch_size == 10
    assert config.training.drop_last  # the preset's


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("method: ewx", "Did you mean 'ewc'"),
        ("method: lasem-tv", "Did you mean 'lasem"),
        ("method: ewc-tf", "There is no method 'ewc-tf'"),
        ("method: em", "The search that LASEM makes is the method 'lasem'"),
        ("method: top-x", "There is no method 'top-x'"),
        ("method: 3", "method must hold a name"),
        ("method: {name: 3}", "method.name must be text"),
        ("method: {name: ewc, strenth: 3}", "Did you mean 'strength'"),
        ("method: {name: ewc, strength: -1}", "method.strength must be at least 0"),
        ("method: {name: all, configuration: none}", "'all' has no settings of its own.*got configuration"),
        ("method: ewc\nsharing: tf", "'ewc' does not use sharing; got sharing 'tf'"),
        ("method: ewc\nsearch: {commit_share: 0.5}", "'ewc' does not use search; got search commit_share = 0.5"),
        ("method: all\nsearch: em", "'all' means search fixed; got search em"),
        ("method: all\nsearch: {configuration: none}", "'all' means search.configuration all; got .* none"),
        ("method: lasem-tf\nsharing: hps", "'lasem-tf' means sharing tf; got sharing hps"),
        ("method: ewc\ntraining: {specific_start: fresh}", "'ewc' does not use training.specific_start; got fresh"),
    ],
)
def test_what_does_not_fit_is_refused_by_name(text: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        ExperimentConfig.from_yaml(text)


def test_the_same_is_refused_in_python() -> None:
    with pytest.raises(ConfigError, match="'ewc' does not use sharing"):
        ExperimentConfig(method=EWC(), sharing=TensorFactorization())
    with pytest.raises(ConfigError, match=r"'ewc' does not use training\.specific_shrink; got 0\.1"):
        ExperimentConfig(method=EWC(), training=TrainingConfig(specific_shrink=0.1))


def test_resolving_twice_changes_nothing() -> None:
    for text in ("darts-tf", "ewc", "lasem"):
        once = resolve({"method": text, "training": {"epochs": 3}})
        assert resolve(once) == once


def test_differences_name_the_settings() -> None:
    one = ExperimentConfig.from_yaml("method: {name: ewc, strength: 7}\nseeds: 1").to_plain()
    assert differences(one, one) == []
    other = ExperimentConfig.from_yaml("method: {name: ewc, strength: 8}\ntraining: {epochs: 3}\nseeds: 1").to_plain()
    assert differences(one, other) == [("method.strength", 7.0, 8.0), ("training.epochs", 60, 3)]
    assert ("sharing.name", None, "hps") in differences(one, ExperimentConfig(seeds=(1,)).to_plain())
