import json
import math
import re
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lasem.data import CutSettings
from lasem.errors import ConfigError
from lasem.experiments import READERS
from lasem.methods import DEN, METHODS, PROTECTIONS, Freeze
from lasem.nets import Net, ResNet, office_home
from lasem.search import EM, SEARCHES, DeepEM, Fixed, FixedProbability, Price
from lasem.settings import Range, check_choice, flat, from_plain, metavar, read_value, settings_of, to_plain
from lasem.sharing import SHARINGS, Deconvolution, TensorFactorization
from lasem.training import TrainingConfig

UNUSUAL = [
    TensorFactorization(penalty_weight=0, max_rank=3, start="glorot"),
    Deconvolution(sizes="stl-10", filter_size=5, start="glorot"),
    EM(likelihood="mean", prior_form="average", groups=(5, 4, 4, 4), first_task="search", commit_probability=1.5),
    EM(first_task="none", groups=()),
    *map(Fixed, ("all", "none", "alternating", "top-2", "bottom-1", "STTS", "T")),
    TrainingConfig(
        epochs=3, drop_last=True, optimiser="rmsprop-tf", schedule="inverse", restore_best=False, patience=4
    ),
    office_home((1, 7, 9)),
    Net(image_shape=(1, 2, 3), channels=(), kernels=(), pools=(), linear=(4,), hidden=(), initial="paper", dropout=0),
    Net(image_shape=(1, 5, 5), channels=(2, 2), kernels=(1, 4), pools=(1, 2), strides=(2, 1), linear=(3, 3)),
]


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
        ("parameters=.5,compute=2", Price, Price(0.5, 2.0)),
        ("compute=2", Price, Price(0.0, 2.0)),
        (0.5, Price, Price(0.5, 0.0)),
        (list(Price(0.1, 0.2)), Price, Price(0.1, 0.2)),
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
        ("paramters=1", Price),
        ("compute=-1", Price),
        ("compute=1,compute=2", Price),
        ("1,2,3", Price),
    ],
)
def test_values_that_are_refused(value: Any, annotation: Any) -> None:
    with pytest.raises(ConfigError, match=r"where"):
        read_value(value, annotation, "where")


def test_kinds() -> None:
    kinds = (int, float | None, bool, str, Literal[1, 3], tuple[int, ...] | None)
    assert [metavar(kind) for kind in kinds] == ["N", "NUMBER", "{true,false}", "NAME", "{1,3}", "N,N,..."]
    assert metavar(Price) == "parameters=NUMBER,compute=NUMBER"


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


PER_CLASS = "standardise=train|split|none num_tasks>=1 train_per_class>=1 valid_per_class>=1 test_per_class>=1"
CUT = f"{PER_CLASS} classes_per_task>=2"
FILES = f"{CUT} image_size>=1<=8192 crop>0<=1 interpolation=bilinear|bicubic|lanczos|nearest channels=1|3"
TWO_WAY = "standardise=train|split|none num_tasks=5|10 num_train>=2 num_valid>=2 num_test>=2"
OFFICE_HOME = "image_size>=1<=8192 images_per_class>=10 scaling=unit|train|split"
SIZED = "image_shape>=1 hidden>=1 dropout>=0<1 initial=he|paper channels>=1 pool_border=end|both"
COUNTED = "likelihood=mean|geometric|product prior_form=count|average commit_probability>0 commit_share>0<=1"
SETTINGS: dict[str, str] = {
    "CutSettings": CUT,
    "DigitsReader": "standardise=train|split|none num_tasks>=1 classes_per_task>=2<=10 train_per_class>=1<=104"
    " valid_per_class>=1<=26 test_per_class>=1<=44",
    "FolderReader": f"{FILES} memory_limit_mb>=0",
    "ParquetReader": FILES,
    "TextReader": "num_tasks>=1 classes_per_task>=2 train_per_class>=1 valid_per_class>=1 test_per_class>=1",
    "Cifar100Reader": f"{CUT} classes=paper|drawn",
    "OmniglotReader": f"{PER_CLASS} image_size>=1",
    "CtrlReader": "standardise=train|split|none kind=s-minus|s-plus|s-in|s-out|s-pl|s-long source=digits|cifar100|files"
    " image_size>=1<=8192 channels=1|3 classes_per_task>=2 distractors>=0 num_tasks>=2 train_large>=1 valid_large>=1"
    " train_small>=1 valid_small>=1 test_per_class>=1 transformation=drawn|channels|inverted|noise",
    "Cifar10Reader": TWO_WAY,
    "MnistReader": TWO_WAY,
    "OfficeHomeReader": f"{OFFICE_HOME} num_tasks>=1<=10",
    "OfficeHomeIncrementalReader": f"{OFFICE_HOME} num_tasks>=1<=6",
    "Stl10Reader": "num_tasks>=1 classes_per_task>=2<=10 tasks_seed>=0 train_share>0<=1 valid_share>0<1"
    " test_per_class>=1 scaling=centred|train|split",
    "Net": f"{SIZED} kernels>=1 pools>=1 strides>=1 linear>=1",
    "ResNet": f"{SIZED} blocks_per_stage>=1 stem_kernel>=1 form=padded|paper",
    "TrainingConfig": "epochs>=1 batch_size>=1 class_weights=none|balanced views>=1 steps>0"
    " augment=auto|none|shift|photo|trivial mix=none|mixup|cutmix"
    " optimiser=adam|adamw|sgd|rmsprop|rmsprop-tf learning_rate>0"
    " schedule=constant|cosine|inverse learning_rate_decay>=0 momentum>=0<1 weight_decay>=0 patience>=0 tolerance>=0"
    " specific_start=fresh|shared|latest specific_shrink>=0<=1 precision=float32|tf32|bf16 images_share>=0<=1",
    "TensorFactorization": "penalty_weight>=0 max_rank>=1 start=identity|glorot step_scale>0"
    " factors_start=fresh|latest",
    "Deconvolution": "sizes=cifar|stl-10 filter_size>=1 start=identity|scaled|glorot step_scale>0"
    " factors_start=fresh|latest",
    "LowRank": "rank>=1 scale>0 factors_start=fresh|latest",
    "EM": f"groups>=1 {COUNTED} ties=own|transfer",
    "Evidence": "groups>=1 folds>=2 epochs_share>0<=1 step>0 most_owned>=0<=1 errors>=0 temper>0<=1 enough>0<=1",
    "MNTDP": "groups>=1 neighbours>=1 learning_rates>0 weight_decays>=0",
    "SubTuning": "groups>=1 folds>=2 epsilon>=0<1 most_layers>=0 step>0",
    "TAPS": "groups>=1 penalty>=0 unpenalised>=0 score_step>0",
    "AutoRGN": "num_batches>=1 steps>0",
    "DeepEM": f"groups>=1 {COUNTED} num_samples>=2 prior_weight>0 draw_every>=1",
    "DARTS": "groups>=1 order=first|second alpha_split=valid|train alpha_optimiser=adam|rmsprop-tf"
    " alpha_learning_rate>0 alpha_weight_decay>=0 xi>0",
    "Exhaustive": "groups>=1 form=plain|paper",
    "PrefixSearch": "groups>=1",
    "RandomSearch": "groups>=1 num_candidates>=1",
    "FixedProbability": "groups>=1 probability>0<=1 commit_share>0<=1",
    "Penalty": "strength>=0 fisher=exact|sampled|empirical",
    "APD": "l1>=0 l2>=0 weight_decay>=0 period>=0 groups>=1 threshold>=0 start=zero|shared",
    "DEN": "l1>=0 l2>=0 group_lasso>=0 drift_penalty>=0 num_new_units>=1 new_deviation>0 loss_threshold>=0"
    " split_threshold>=0 head_share>0 expand_share>0 last_share>0",
    "ER": "per_class>=1",
    "EWC": "strength>=0 fisher=exact|sampled|empirical form=separate|online decay>=0<=1 num_samples>=0",
    "HAT": "penalty>=0 max_scale>=1 clip>0",
    "LwF": "strength>=0 temperature>0 warmup_share>0<1",
    "OneNetwork": "outputs=own|shared",
    "PackNet": "pruned>=0<1 retrain_share>0<1 retrain_rate>0",
    "ProgNN": "adapters=joined|each reduction>=1 alpha_start>0 head_adapters=all|first|none",
    "SI": "strength>=0 damping>0",
    "WSN": "capacity>0<=1 score_rate>0",
    "ChannelGated": "sparsity>=0 dense_share>=0<=1 threshold>=0<=1 opening gate_step>0 hidden>=1 temperature>0",
    "LasemChannelGated": "sparsity>=0 hidden>=1 temperature>0",
}
"""What every setting may hold that has a range or choices."""
CLASSES = [CutSettings, Net, ResNet, TrainingConfig]
for named in (READERS, SHARINGS, SEARCHES, PROTECTIONS, METHODS):
    CLASSES += named.values()
NEEDED: dict[str, dict[str, Any]] = {
    "Net": {"image_shape": (1, 4, 4), "channels": (2, 2), "kernels": (3, 3), "pools": (1, 1)},
    "ResNet": {"image_shape": (1, 4, 4)},
    "FolderReader": {"path": "data"},
    "ParquetReader": {"path": "data"},
    "TextReader": {"path": "data"},
}
SIGNS = {">=": ("at least", -1), ">": ("above", 0), "<=": ("at most", 1), "<": ("below", 0)}
"""How a bound is said, and how far from it a value is the nearest whole one that is out of range."""


@pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.__name__)
def test_every_range_and_choice_is_kept_and_named(cls: type[Any]) -> None:
    described = re.findall(r"([a-z_0-9]+)(?:=([a-z0-9|-]+)|((?:[<>]=?\d+)*))(?: |$)", SETTINGS.get(cls.__name__, ""))
    annotated = {name: str(a) for name, a in settings_of(cls).items() if "Range" in str(a) or "Literal" in str(a)}
    assert sorted(name for name, *_ in described) == sorted(annotated)
    needed = NEEDED.get(cls.__name__, {})
    for name, choices, bounds in described:
        limits = [(*SIGNS[sign], int(number)) for sign, number in re.findall(r"([<>]=?)(\d+)", bounds)]
        said = " and ".join(f"{word} {number}" for word, _, number in limits) or "finite"
        kind = "an integer" if "[int," in annotated[name] else "a number"
        wrong: list[Any] = [(number + step, said) for _, step, number in limits]
        wrong += [(math.nan, said if kind == "a number" else kind)]
        wrong += [] if "Optional" in annotated[name] else [(None, kind)]
        if choices:
            first = choices.split("|")[0]
            wrong = [(f"{first}x", rf"one of {choices.replace('|', ', ')}; got '{first}x'\. Did you mean '{first}'")]
        for value, message in wrong:
            given = (*needed.get(name, (1, 1))[1:], value) if "tuple" in annotated[name] else value
            with pytest.raises(ConfigError, match=rf"^{cls.__name__}\.{name} must be {message}"):
                cls(**needed | {name: given})


@pytest.mark.parametrize(
    ("cls", "change", "message"),
    [
        (Net, {"image_shape": (4, 4)}, r"Net\.image_shape is \(channels, height, width\); got \(4, 4\)"),
        (Net, {"kernels": (3,)}, "each of its 2 convolutions; got 1 kernels, 2 pools, 2 strides"),
        (Net, {"strides": (2,)}, "got 2 kernels, 2 pools, 1 strides"),
        (Net, {"channels": (), "kernels": (), "pools": ()}, "at least one layer that can be transferred; got none"),
        (ResNet, {"image_shape": (4, 4)}, r"ResNet\.image_shape is \(channels, height, width\)"),
        (ResNet, {"channels": ()}, "one number for each stage"),
        (ResNet, {"channels": (4, 2)}, r"none smaller than the one before; got \[4, 2\]"),
        (Deconvolution, {"filter_size": 4}, "filter_size must be odd; got 4"),
        *(
            (kind, {"prior_start": start}, message)
            for kind in (EM, DeepEM)
            for start, message in (
                ((0.9,), r"prior_start is two probabilities of transfer, .*; got 0\.9\."),
                ((1.0, 0.5), r"prior_start must be above 0 and below 1; got 1"),
            )
        ),
        (FixedProbability, {"configuration": "most"}, "Expected a configuration"),
        (DEN, {"head_share": 0.6}, r"head_share \+ expand_share \+ last_share must be below 1"),
    ],
)
def test_settings_that_do_not_go_together_are_refused(cls: type[Any], change: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        cls(**NEEDED.get(cls.__name__, {}) | change)


@pytest.mark.parametrize("settings", [*(cls(**NEEDED.get(cls.__name__, {})) for cls in CLASSES), *UNUSUAL], ids=str)
def test_settings_come_back_from_json(settings: Any) -> None:
    plain = json.loads(json.dumps(to_plain(settings)))
    assert from_plain(type(settings), plain, "there") == settings
