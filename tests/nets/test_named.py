"""Models of transformers that are named by a folder: small ones with random weights; nothing is downloaded."""

import importlib
import json
from pathlib import Path
from typing import Any

import pytest
import torch

from lasem import Fixed, HardSharing, TrainingConfig
from lasem.data import Task, as_tokens
from lasem.errors import ConfigError, StorageError
from lasem.experiments import ExperimentConfig
from lasem.learner import Learner
from lasem.learner.export import export
from lasem.nets import from_transformers

from .modules import SMALL
from .modules import features as features_of_start
from .test_encoders import encoder

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *["good", "bad", "fine", "dull", "a", "the", "film", "book"]]
TEXTS = (["a good film", "a dull book", "the fine book", "the bad film"], ["+", "-", "+", "-"])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A BERT of two layers for WORDS, as the library saves it."""
    transformers = pytest.importorskip("transformers", exc_type=ImportError)
    model = encoder("Bert", hidden_dropout_prob=0.1, position_embedding_type="absolute")
    model.save_pretrained(tmp_path / "bert")
    (tmp_path / "vocab.txt").write_text("\n".join(WORDS))
    transformers.BertTokenizer(str(tmp_path / "vocab.txt")).save_pretrained(tmp_path / "bert")
    return tmp_path / "bert"


@torch.no_grad()
def test_a_folder_is_the_model_and_its_tokenizer(folder: Path, tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers", exc_type=ImportError)
    net = from_transformers(folder)
    assert [block.name for block in net.blocks] == ["embeddings", "layers.0", "layers.1"]
    assert net.origin == (
        "bert of transformers, texts of at most 20 tokens; its dropout (hidden_dropout_prob = 0.1) is switched off"
    )
    assert net.vocabulary is not None
    ids, num_cut = net.vocabulary.read(TEXTS[0], 20)
    theirs = transformers.AutoTokenizer.from_pretrained(folder)(TEXTS[0])["input_ids"]
    assert num_cut == 0
    assert torch.equal(ids, as_tokens(theirs, length=5))
    model = transformers.AutoModel.from_pretrained(folder).eval()
    expected = model(input_ids=torch.tensor(theirs)).last_hidden_state.mean(dim=1)
    torch.testing.assert_close(features_of_start(net, ids), expected)

    learner = Learner(net, sharing=HardSharing(train_shared=False), search=Fixed("all"),
                      training=TrainingConfig(epochs=1))  # fmt: skip
    with torch.enable_grad():
        learner.learn(Task.from_texts("t", train=TEXTS, valid=TEXTS, test=TEXTS))
    learner.save(tmp_path / "model")
    answers = learner.predict("t", TEXTS[0], probabilities=True)
    for file in folder.iterdir():
        file.unlink()
    again = Learner.load(tmp_path / "model")
    assert torch.equal(again.predict("t", TEXTS[0], probabilities=True), answers)
    again.save(tmp_path / "elsewhere")
    assert torch.equal(Learner.load(tmp_path / "elsewhere").predict("t", TEXTS[0], probabilities=True), answers)
    assert again.num_parameters("t") == 8 * 2 + 2


def test_an_export_has_its_tokenizer_and_answers_without_lasem(folder: Path, tmp_path: Path) -> None:
    """As a program of torch, texts are exported in test_encoders.py."""
    for library in ("tokenizers", "onnxscript", "onnxruntime"):
        pytest.importorskip(library)
    learner = Learner(from_transformers(folder), search=Fixed("all"), training=TrainingConfig(epochs=1))
    learner.learn(Task.from_texts("t", train=TEXTS, valid=TEXTS, test=TEXTS))
    texts = [*TEXTS[0], "a fine and good book " * 9]
    answers = learner.predict("t", texts, probabilities=True)
    file, page, beside = export(learner, "t", "onnx", f"{tmp_path}/out/")
    tokenizers = importlib.import_module("tokenizers")
    taken = json.loads(page.read_text())["input"]
    length, said = taken["shape"][-1], taken["tokenizer"]
    assert (said["file"], said["library"], said["version"]) == (beside.name, "tokenizers", tokenizers.__version__)
    assert said["use"] == f"Tokenizer.from_file(file), no_padding(), enable_truncation({length})"
    tokenizer = tokenizers.Tokenizer.from_file(str(beside))
    tokenizer.no_padding()
    tokenizer.enable_truncation(length)
    ids = [encoding.ids for encoding in tokenizer.encode_batch(texts)]
    x = torch.tensor([[[some + [-1] * (length - len(some))]] for some in ids], dtype=torch.float32)
    session = importlib.import_module("onnxruntime").InferenceSession(file)
    assert json.loads(session.get_modelmeta().custom_metadata_map["input"])["tokenizer"] == said
    logits = torch.tensor(session.run(["logits"], {"images": x.numpy()})[0])
    torch.testing.assert_close(torch.softmax(logits, dim=1), answers, rtol=1e-4, atol=1e-5)
    for path in (file, page):
        path.unlink()
    with pytest.raises(StorageError, match=r"tokenizer\.json is there already and is no export"):
        export(learner, "t", "onnx", f"{tmp_path}/out/")


def test_weights_of_another_file_and_settings(folder: Path) -> None:
    net = from_transformers(folder)
    weights = (folder / "model.safetensors").rename(folder.parent / "weights.safetensors")
    other = from_transformers(folder, weights=weights)
    for name, value in net.tensors.items():
        assert torch.equal(other.tensors[name], value)
    assert from_transformers(folder, weights=weights, num_hidden_layers=1, length=7, groups=[1]).depth == 2
    assert from_transformers(folder, pretrained=False).tensors == {}
    with pytest.raises(ConfigError, match=r"The model has 2 layers; expected groups of as many in all, got 3"):
        from_transformers(folder, weights=weights, groups=[3])
    with pytest.raises(ConfigError, match=r"has no option hidden_sise\. Did you mean 'hidden_size'"):
        from_transformers(folder, weights=weights, hidden_sise=3)
    with pytest.raises(ConfigError, match=r"cannot take texts of 21 tokens"):
        from_transformers(folder, weights=weights, length=21)
    with pytest.raises(ConfigError, match=r"no file named model\.safetensors.*--net\.weights FILE"):
        from_transformers(folder)
    with pytest.raises(ConfigError, match=r"weights\.safetensors has no encoder\.layer\.2\..* are missing\)"):
        from_transformers(folder, weights=weights, num_hidden_layers=3)
    weights.write_text("no weights")
    with pytest.raises(ConfigError, match=r"Expected a model of transformers in .*; Error while deserializing"):
        from_transformers(folder, weights=weights)


@pytest.mark.parametrize(
    ("missing", "message"),
    [
        ("tokenizer.json", r"there is no tokenizer\.json"),
        ("config.json", r"Expected a model of transformers in .*bert"),
    ],
)
def test_what_is_missing_in_a_folder_is_said(missing: str, message: str, folder: Path) -> None:
    (folder / missing).unlink()
    with pytest.raises(ConfigError, match=message):
        from_transformers(folder)


def test_code_that_comes_with_a_model_is_never_run(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    config |= {"model_type": "own", "auto_map": {"AutoConfig": "own.Config", "AutoModel": "own.Model"}}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "own.py").write_text("raise SystemExit")
    with pytest.raises(ConfigError, match="custom code"):
        from_transformers(folder)


def test_names_that_are_not_on_this_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("transformers", exc_type=ImportError)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(
        ConfigError, match=r"The model some/one is not on this machine .*--net\.pretrained true.*hf:FOLDER"
    ):
        from_transformers("some/one")
    with pytest.raises(ConfigError, match=r"Expected a folder with config\.json .*; there is none"):
        from_transformers("./one")


def test_a_stored_model_that_claims_too_much_is_refused(folder: Path) -> None:
    from lasem.nets.net import rebuild

    net = from_transformers(folder)
    described = net.description()
    described["config"] |= {"hidden_size": 2**20, "intermediate_size": 2**20, "vocab_size": 2**20}
    with pytest.raises(StorageError, match=r"the model holds far fewer"):
        rebuild(described, None, lambda: net.tensors).blocks  # noqa: B018


def test_the_images_of_a_folder_are_prepared_as_it_says(tmp_path: Path) -> None:
    encoder_of_images = pytest.importorskip("transformers", exc_type=ImportError)
    config = encoder_of_images.ViTConfig(**SMALL | {"image_size": 8, "patch_size": 4, "num_hidden_layers": 1})
    encoder_of_images.ViTModel(config).save_pretrained(tmp_path / "vit")
    about = {"image_mean": [0.5, 0.4, 0.3], "image_std": [0.2, 0.2, 0.1], "resample": 3, "do_center_crop": True,
             "size": {"shortest_edge": 10}, "image_processor_type": "ViTImageProcessor"}  # fmt: skip
    (tmp_path / "vit/preprocessor_config.json").write_text(json.dumps(about))
    net = from_transformers(tmp_path / "vit")
    assert net.preprocessing is not None
    assert (net.preprocessing.side, net.preprocessing.mean) == (8, (0.5, 0.4, 0.3))
    assert (net.preprocessing.crop, net.preprocessing.interpolation) == (0.8, "bicubic")


def test_a_stream_of_texts_is_run(folder: Path, here: Path, lasem: Any) -> None:
    rows = [f"{adjective} {noun} {k},{adjective}" for adjective in ("good", "bad", "dull", "fine") for noun in
            ("film", "book") for k in range(4)]  # fmt: skip
    (here / "reviews.csv").write_text("\n".join(["text,label", *rows]))
    stream = ["--stream", "texts", "--stream.path", "reviews.csv", "--stream.classes_per_task", "2"]
    out = lasem("run", *stream, "--net", f"hf:{folder}", "--training.epochs", "1", "--threads", "1", "--out", "run")
    assert "reviews-1" in out.err
    config = ExperimentConfig.from_yaml((here / "run/config.yaml").read_text())
    assert config.to_plain()["net"]["name"] == f"hf:{folder}"
