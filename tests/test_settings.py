import json
import math
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lasem.errors import ConfigError
from lasem.methods import Freeze
from lasem.nets import Net, cifar, office_home
from lasem.search import EM, Fixed
from lasem.settings import Range, check_choice, flat, from_plain, metavar, read_value, to_plain
from lasem.sharing import Deconvolution, HardSharing, TensorFactorization
from lasem.training import TrainingConfig

EVERY = [
    HardSharing(),
    TensorFactorization(),
    TensorFactorization(penalty_weight=0, max_rank=3, start="glorot"),
    Deconvolution(),
    Deconvolution(sizes="stl-10", filter_size=5, start="glorot"),
    EM(),
    EM(likelihood="mean", prior_form="average", groups=(5, 4, 4, 4), first_task="search", commit_probability=1.5),
    EM(first_task="none", groups=()),
    Fixed(),
    *map(Fixed, ("all", "none", "alternating", "top-2", "bottom-1", "STTS", "T")),
    TrainingConfig(),
    TrainingConfig(
        epochs=3, drop_last=True, optimiser="rmsprop-tf", schedule="inverse", restore_best=False, patience=4
    ),
    cifar(),
    office_home((1, 7, 9)),
    Net(image_shape=(1, 2, 3), channels=(), kernels=(), pools=(), linear=(4,), hidden=(), initial="paper", dropout=0),
    Net(image_shape=(1, 5, 5), channels=(2, 2), kernels=(1, 4), pools=(1, 2), strides=(2, 1), linear=(3, 3)),
]


@pytest.mark.parametrize("settings", EVERY, ids=str)
def test_settings_come_back_from_json(settings: Any) -> None:
    plain = json.loads(json.dumps(to_plain(settings)))
    assert from_plain(type(settings), plain, "there") == settings


@given(
    st.builds(
        TrainingConfig,
        epochs=st.integers(1, 10**6),
        learning_rate=st.floats(1e-12, 1e6),
        weight_decay=st.floats(0, 1, exclude_max=True),
        optimiser=st.sampled_from(("adam", "adamw", "sgd", "rmsprop", "rmsprop-tf")),
        patience=st.integers(0, 99),
    )
)
def test_every_number_comes_back_with_every_bit(settings: TrainingConfig) -> None:
    assert from_plain(TrainingConfig, json.loads(json.dumps(to_plain(settings))), "there") == settings


def test_nested_values_get_one_name_each() -> None:
    assert flat({"a": 1, "b": {"c": [2], "d": {"e": None}, "f": {}}}) == {"a": 1, "b.c": [2], "b.d.e": None}
    assert flat({"c": 1}, "b") == {"b.c": 1}
    assert flat(3, "seed") == {"seed": 3}


def test_tuples_become_lists_and_missing_fields_keep_defaults() -> None:
    assert to_plain(EM(groups=(2, 1)))["groups"] == [2, 1]
    assert from_plain(EM, {}, "there") == EM()
    assert from_plain(EM, {"likelihood": "mean"}, "there") == EM(likelihood="mean")


@pytest.mark.parametrize(
    ("cls", "entry", "message"),
    [
        (
            TrainingConfig,
            {"epoch": 3},
            r"^--t has no setting 'epoch' \(there are: epochs, .*\)\. Did you mean 'epochs'\?",
        ),
        (Freeze, {"rank": 3}, r"^--t has no setting 'rank' \(there are: none\)\.$"),
        (EM, {"name": "em"}, r"^--t has no setting 'name'"),
        (TrainingConfig, {"epochs": "many"}, r"^--t\..*epochs"),
        (TrainingConfig, {"epochs": 2.5}, r"^--t\..*epochs"),
        (TrainingConfig, {"epochs": None}, r"^--t\..*epochs"),
        (TrainingConfig, {"epochs": [1]}, r"^--t\..*epochs"),
        (TrainingConfig, {"drop_last": "perhaps"}, r"^--t\..*drop_last"),
        (TrainingConfig, {"optimiser": "adamm"}, r"^--t\..*optimiser"),
        (EM, {"groups": ["a"]}, r"^--t\..*groups"),
        (EM, {"groups": {"a": 1}}, r"^--t\..*groups"),
        (Net, {"image_shape": [3, 8]}, r"^--t needs a value for .channels."),
        (Net, {}, r"^--t needs a value for .image_shape."),
        (Fixed, {"configuration": {"class_path": "os.system"}}, r"^--t\..*configuration"),
        (TrainingConfig, {"epochs": 0}, r"^--t\.epochs must be at least 1; got 0"),
        (Fixed, {"configuration": "SXT"}, "Expected a configuration: all, none"),
    ],
)
def test_names_and_types_are_checked(cls: type[Any], entry: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        from_plain(cls, entry, "--t")


@pytest.mark.parametrize(
    ("value", "annotation", "expected"),
    [
        ("3", int, 3),
        (3, int, 3),
        ("1e-3", float, 1e-3),
        (2, float, 2.0),
        ("True", bool, True),
        ("no", bool, False),
        ("none", int | None, None),
        (None, int | None, None),
        ("7", int | None, 7),
        ("none", Literal["none", "split"], "none"),
        ("3", Literal[1, 3], 3),
        ("0, 1,2", tuple[int, ...], (0, 1, 2)),
        ("", tuple[int, ...], ()),
        (5, tuple[int, ...], (5,)),
        ([5, 6], tuple[int, ...] | None, (5, 6)),
        ("none", str, "none"),
    ],
)
def test_values_that_are_read(value: Any, annotation: Any, expected: Any) -> None:
    read = read_value(value, annotation, "x")
    assert read == expected
    assert type(read) is type(expected)


@pytest.mark.parametrize(
    ("value", "annotation"),
    [
        ("3.5", int),
        (3.5, int),
        (True, int),
        (None, int),
        ("x", float),
        (True, float),
        (10**400, float),
        (1, bool),
        ("maybe", bool),
        (3, str),
        ("z", Literal["a"]),
        ("1,,2", tuple[int, ...]),
        ({}, tuple[int, ...]),
    ],
)
def test_values_that_are_refused(value: Any, annotation: Any) -> None:
    with pytest.raises(ConfigError, match=r"where"):
        read_value(value, annotation, "where")


def test_kinds() -> None:
    assert [metavar(a) for a in (int, float | None, bool, str, Literal[1, 3], tuple[int, ...] | None)] == [
        "N",
        "NUMBER",
        "{true,false}",
        "NAME",
        "{1,3}",
        "N,N,...",
    ]


def test_a_choice_outside_names_all_and_the_nearest() -> None:
    check_choice("colour", "red", ("red", "blue"))
    with pytest.raises(ConfigError, match=r"^colour must be one of red, blue; got 'bleu'\. Did you mean 'blue'\?$"):
        check_choice("colour", "bleu", iter(("red", "blue")))


@pytest.mark.parametrize(
    ("value", "bounds", "message"),
    [
        (0, {"least": 1}, r"^size must be at least 1; got 0\.$"),
        (0, {"above": 0}, r"^size must be above 0; got 0\.$"),
        (1.5, {"least": 0, "most": 1}, r"^size must be at least 0 and at most 1; got 1\.5\.$"),
        (1, {"least": 0, "below": 1}, r"^size must be at least 0 and below 1; got 1\.$"),
        (math.nan, {}, r"^size must be finite; got nan\.$"),
        (-math.inf, {"most": 3}, r"^size must be at most 3; got -inf\.$"),
    ],
)
def test_a_value_out_of_range_is_named_with_its_bounds(value: float, bounds: dict[str, float], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Range(**bounds).check("size", value)


@given(st.floats(), st.floats(-5, 5), st.floats(-5, 5))
def test_the_range_is_the_one_of_the_comparisons(value: float, low: float, high: float) -> None:
    cases = [
        ({"least": low, "most": high}, low <= value <= high),
        ({"above": low, "below": high}, low < value < high),
    ]
    for bounds, inside in cases:
        if inside:
            Range(**bounds).check("x", value)
        else:
            with pytest.raises(ConfigError, match="x must be"):
                Range(**bounds).check("x", value)
