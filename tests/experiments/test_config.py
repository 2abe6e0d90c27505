from dataclasses import MISSING, fields, replace
from operator import attrgetter
from typing import Any

import pytest

from lasem import DigitsReader, FolderReader, ParquetReader, TextReader, TrainingConfig
from lasem.errors import ConfigError
from lasem.experiments import PRESETS, READERS, ExperimentConfig, NetChoice
from lasem.experiments.parts import PARTS
from lasem.nets import NETS
from lasem.search import EM, SEARCHES, Exhaustive, Fixed
from lasem.sharing import SHARINGS, Deconvolution, TensorFactorization


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize(
    ("part", "name"), [(part, name) for part, names in PARTS.items() for name in names], ids=lambda x: x
)
def test_every_choice_survives_yaml(part: str, name: str, preset: str) -> None:
    entry: dict[str, Any] = {"name": name, "path": "data"} if name in ("parquet", "folder", "texts") else {"name": name}
    config = ExperimentConfig.from_plain({"preset": preset, part: entry})
    assert ExperimentConfig.from_yaml(config.to_yaml()) == config


def test_unusual_values_survive_yaml() -> None:
    config = ExperimentConfig(
        stream=ParquetReader(path="no: 'such' #place\n~", num_tasks=None, image_column="none", channels=1),
        net=NetChoice(name="cifar-6", hidden=(7, 5), dropout=0.0, initial="paper"),
        sharing=TensorFactorization(),
        search=EM(groups=(2, 4), commit_probability=1 / 3),
        training=TrainingConfig(learning_rate=1e-30, drop_last=True),
        seeds=(3, 1, 2),
        stream_seed=7,
        device="cuda:1",
        threads=2,
    )
    assert ExperimentConfig.from_yaml(config.to_yaml()) == config


def test_the_closed_dictionaries_are_complete() -> None:
    assert set(PARTS["net"]) == {"auto", *NETS}
    assert (PARTS["sharing"], PARTS["search"], PARTS["stream"]) == (SHARINGS, SEARCHES, READERS)


@pytest.mark.parametrize(
    "text",
    [
        "!!python/object/apply:os.system ['true']",
        "stream: !!python/name:os.system",
        "search: !!python/object/new:lasem.search.Fixed {}",
        "sharing: os.system",
        "sharing: lasem.search.EM",
        "sharing: lasem.sharing.AbstractSharing",
        "net: lasem.nets.Net",
        "search: {name: os.system}",
        "stream: {name: digits, class_path: os.system}",
        "stream: {name: digits, __class__: x}",
        "training: {epochs: !!binary aGVsbG8=}",
        "seeds: [1, 1]",
        "seeds: []",
        "seeds: [-1]",
        "seeds: [true]",
        "seeds: {a: 1}",
        "stream_seed: -1",
        "threads: -1",
        "training: 3",
        "stream: [digits]",
        "- 1",
        "1: 2",
        "a: [",
        "just text",
        "training: {epochs: 3, epochs: 4}",
        "? [a]\n: b",
        "? {a: b}\n: b",
        "net: {name: digits, hidden: [0]}",
        "net: {dropout: 1.0}",
        "device: 3",
        "[" * 2000,
        "stream: " + "{a: " * 3000 + "1" + "}" * 3000,
        "seeds: 2020-99-99",
        "a: 2020-99-99",
        "a: &a [x, x]\nb: &b [*a, *a]\nseeds: [*b, *b]",
        "training: {epochs: " + "9" * 5000 + "}",
        "training: {epochs: 9223372036854775808}",
        "training: {learning_rate: .nan}",
        "training: {momentum: .inf}",
        "seeds: [18446744073709551616]",
        "threads: 100000",
        'device: "a\\0b"',
        "a: !!bool x",
        "a: !!int x",
        "a: !!timestamp x",
        "a: \x01",
    ],
)
def test_hostile_or_wrong_yaml_is_refused(text: str) -> None:
    with pytest.raises(ConfigError):
        ExperimentConfig.from_yaml(text)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("traning: {epochs: 3}", "Did you mean 'training'"),
        ("training: {epoch: 3}", "Did you mean 'epochs'"),
        ("training: {optimiser: adm}", "Did you mean 'adam'"),
        ("sharing: dfcn", "Did you mean 'dfcnn'"),
        ("preset: papr", "Did you mean 'paper'"),
        ("training: {epochs: many}", "training.epochs must be a whole number; got 'many'"),
        ("training: {epochs: 0}", "training.epochs must be at least 1"),
        ("training: {drop_last: maybe}", "training.drop_last must be true or false"),
        ("seeds: 2020-02-02", "seeds must be a whole number; got '2020-02-02'"),
        ("training: {learning_rate: .inf}", "learning_rate must be a finite number"),
        ("a: &a 1\nb: *a", r"line 2; an alias \(\*\) is not read"),
        ("method: a-gem", "of methods that learn from images of earlier tasks again, it has 'er'"),
        ("stream: parquet", "needs a value for 'path'"),
    ],
)
def test_a_mistake_is_named(text: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        ExperimentConfig.from_yaml(text)


PAPER: dict[str, Any] = {"among": "paper", "initial": "paper", "pool_border": "both"}


@pytest.mark.parametrize(
    ("entry", "part", "expected"),
    [
        ({"method": "exhaustive-tf"}, "search", Exhaustive(form="paper", first_task="all")),
        ({"search": "exhaustive"}, "search", Exhaustive(form="paper", first_task="none")),
        ({"search": "exhaustive", "preset": "default"}, "search", Exhaustive()),
        (
            {"net": "stl-10", "sharing": "tf"},
            "net",
            NetChoice(name="stl-10", hidden=(128,), **PAPER),
        ),
        ({"stream": "stl10", "sharing": "tf"}, "net", NetChoice(hidden=(128,), **PAPER)),
        ({"stream": "stl10", "method": "ewc"}, "net", NetChoice(**PAPER)),
        ({"net": {"name": "stl-10", "hidden": [7]}, "sharing": "tf"}, "net.hidden", (7,)),
        ({"net": "stl-10", "sharing": "dfcnn"}, "sharing.sizes", "stl-10"),
        ({"stream": "stl10"}, "stream.rounded", False),
    ],
)
def test_the_paper_preset_goes_by_what_is_chosen_together(entry: dict[str, Any], part: str, expected: Any) -> None:
    config = ExperimentConfig.from_plain({"preset": "paper", **entry})
    assert attrgetter(part)(config) == expected
    assert ExperimentConfig.from_yaml(config.to_yaml()) == config


def test_the_paper_preset_is_what_the_authors_ran() -> None:
    config = ExperimentConfig.from_plain({"preset": "paper", "sharing": "dfcnn", "training": {"epochs": 5}})
    assert config.stream == DigitsReader(standardise="split")
    assert config.sharing == Deconvolution(start="glorot", step_scale=1.0, factors_start="fresh")
    assert config.search == EM(
        likelihood="mean",
        prior_form="average",
        prior_start=(0.5, 0.5),
        first_task="search",
        ties="transfer",
        commit_probability=2,
        commit_share=1,
    )
    assert config.training == TrainingConfig(
        epochs=5,
        batch_size=10,
        drop_last=True,
        augment="none",
        optimiser="rmsprop-tf",
        learning_rate=1e-4,
        schedule="inverse",
        learning_rate_decay=1 / 4000,
        patience=0,
        restore_best=False,
        tolerance=0.0,
        specific_start="fresh",
        specific_shrink=1.0,
    )
    assert config.net((3, 32, 32)) == replace(NETS["cifar"]((3, 32, 32)), initial="paper", pool_border="both")


def test_a_preset_says_nothing_that_a_class_does_not_know() -> None:
    config = ExperimentConfig.from_plain({"preset": "paper", "search": "fixed", "sharing": "hps"})
    assert config.search == Fixed()
    for part, settings in PRESETS["paper"].items():
        classes = [TrainingConfig] if part == "training" else list(PARTS[part].values())
        known = {f.name for cls in classes for f in fields(cls)}
        assert set(settings) <= known, part


def test_a_preset_leaves_what_is_explicit() -> None:
    plain = ExperimentConfig(search=EM(likelihood="geometric")).to_plain()
    assert ExperimentConfig.from_plain({**plain, "preset": "paper"}).search == EM(likelihood="geometric")


def test_net_choice_overrides_the_named_network() -> None:
    assert NetChoice()((1, 8, 8)) == NETS["digits"]((1, 8, 8))
    net = NetChoice(name="cifar", hidden=(), dropout=0.0)((3, 32, 32))
    assert net == replace(NETS["cifar"]((3, 32, 32)), hidden=(), dropout=0.0)


def test_only_a_path_must_be_given() -> None:
    required = {
        (cls, f.name)
        for names in PARTS.values()
        for cls in names.values()
        for f in fields(cls)
        if f.default is MISSING and f.default_factory is MISSING
    }
    assert required == {(ParquetReader, "path"), (FolderReader, "path"), (TextReader, "path")}
