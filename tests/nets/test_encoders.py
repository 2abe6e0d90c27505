"""Small text encoders with random weights; nothing is downloaded. Without transformers, one of torch alone."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from learner.images import Watching
from torch import Tensor, nn

from lasem import EM, Fixed, GrowingModel, TrainingConfig
from lasem.data import Task, Tokenizer, Vocabulary, as_tokens
from lasem.errors import ConfigError, DataError, ShapeError, StorageError, TrainingError
from lasem.learner import Learner, plain_network
from lasem.learner.export import export
from lasem.learner.learner import check_sizes
from lasem.nets import AbstractNet, cut, digits, from_transformers
from lasem.sharing import AbstractSharing, HardSharing, LowRank

from .modules import SMALL
from .modules import features as features_of_start

LENGTH = 12
TINY = SMALL | {"vocab_size": 40, "num_hidden_layers": 2, "max_position_embeddings": 20}
TINY |= {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
DISTIL = {"vocab_size": 40, "dim": 8, "n_layers": 2, "n_heads": 2, "hidden_dim": 16, "max_position_embeddings": 20}
OTHERWISE_NAMED: dict[str, dict[str, Any]] = {
    "DistilBert": DISTIL | {"dropout": 0.0, "attention_dropout": 0.0},
    "GPT2": {"n_embd": 8, "n_layer": 1, "n_head": 2},
}
ROTARY = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "cls_token_id": 1, "sep_token_id": 2}
MODELS: dict[str, dict[str, Any]] = {
    "Bert": {},
    "Roberta": {},
    "Electra": {"embedding_size": 4},  # a matrix between embeddings and layers
    "MegatronBert": {},  # normalised at the end
    "RemBert": {"input_embedding_size": 4},
    "NomicBert": {},  # turns tokens by their positions
    "ModernBert": ROTARY | {"num_hidden_layers": 4, "local_attention": 4},  # most layers see two neighbours
    "DistilBert": {},
}
EAGER = ("eager Bert", "eager ModernBert")
TEXTS = [[5, 6, 7, 8, 9], [10], list(range(11, 11 + LENGTH)), [30, 31, 30]]
BATCHES = ([0], [0, 2], [3, 2, 1, 0])


def encoder(name: str, attention: str = "sdpa", **change: Any) -> Any:
    transformers = pytest.importorskip("transformers", exc_type=ImportError)
    settings = OTHERWISE_NAMED.get(name, TINY) | MODELS.get(name, {}) | change
    if not hasattr(transformers, f"{name}Config"):
        pytest.skip(f"transformers {transformers.__version__} has no {name}")
    config = getattr(transformers, f"{name}Config")(**settings)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model: Any = getattr(transformers, f"{name}Model")(config)
    model.set_attn_implementation(attention)
    return model.eval()


@torch.no_grad()
def features(net: AbstractNet, texts: list[list[int]], length: int = LENGTH) -> Tensor:
    return features_of_start(net, as_tokens(texts, length=length))


@pytest.mark.parametrize(
    ("name", "pooling"),
    [*((name, "mean") for name in [*MODELS, *EAGER]), ("Bert", "first"), ("Electra", "first")],
)
def test_the_blocks_are_the_model(name: str, pooling: Any) -> None:
    model = encoder(name.split()[-1], "eager" if " " in name else "sdpa")
    net = from_transformers(model, length=LENGTH, pooling=pooling)
    assert (net.depth, net.head.in_features, net.image_shape) == (model.config.num_hidden_layers + 1, 8, (1, 1, LENGTH))
    padding = model.config.pad_token_id
    ids = torch.tensor([text + [padding] * (LENGTH - len(text)) for text in TEXTS])
    mask = torch.tensor([[1] * len(text) + [0] * (LENGTH - len(text)) for text in TEXTS])
    with torch.no_grad():
        padded = model(input_ids=ids, attention_mask=mask).last_hidden_state
        alone = [model(input_ids=torch.tensor([text])).last_hidden_state[0] for text in TEXTS]
    found = features(net, TEXTS)
    for i, text in enumerate(TEXTS):
        for tokens in (padded[i, : len(text)], alone[i]):
            expected = tokens[0] if pooling == "first" else tokens.mean(dim=0)
            torch.testing.assert_close(found[i], expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", ["Bert", "Roberta", "ModernBert"])
def test_neither_padding_nor_other_texts_change_an_answer(name: str) -> None:
    model = encoder(name)
    nets = {length: from_transformers(model, length=length) for length in (5, LENGTH, 18)}
    expected = features(nets[5], TEXTS[:1], 5)
    for length in (LENGTH, 18):
        for batch in BATCHES:
            found = features(nets[length], [TEXTS[i] for i in batch], length)
            torch.testing.assert_close(found[[batch.index(0)]], expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("pooling", ["first", "mean"])
@pytest.mark.parametrize("name", ["Roberta", "ModernBert"])
def test_no_gradient_passes_through_padding(name: str, pooling: Any) -> None:
    net = from_transformers(encoder(name), length=LENGTH, pooling=pooling)
    first, *others = net.blocks
    weights = {key: value.requires_grad_() for key, value in first.initial(torch.Generator(), "he").items()}
    tokens = first.apply(weights, as_tokens(TEXTS, length=LENGTH))
    tokens.retain_grad()
    value: Any = tokens
    for block in others:
        value = block.apply(block.initial(torch.Generator(), "he"), value)
    value.square().sum().backward()
    for text, gradient in zip(TEXTS, tokens.grad, strict=True):
        assert gradient[: len(text), :-1].abs().sum(dim=1).gt(0).all() or pooling == "first"
        assert gradient[0, :-1].abs().sum() > 0
        assert not gradient[len(text) :].any()
    words = next(value for key, value in weights.items() if "word" in key or "tok_emb" in key)
    used = {word for text in TEXTS for word in text}
    assert set(words.grad.abs().sum(dim=1).nonzero()[:, 0].tolist()) <= used


def test_arithmetic_in_few_bits_gets_whole_ids() -> None:
    net = from_transformers(encoder("ModernBert"), length=LENGTH)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rounded = features(net, TEXTS)
    torch.testing.assert_close(rounded.float(), features(net, TEXTS), rtol=0.1, atol=0.1)
    block = net.blocks[0]
    with pytest.raises(TrainingError, match=r"Expected token ids as float32, which holds them exactly; got torch.bf"):
        block.apply(block.initial(torch.Generator(), "he"), as_tokens(TEXTS, length=LENGTH).bfloat16())


def words_task(name: str, words: tuple[int, int], seed: int, num: int = 24) -> Task:
    """Which of two words is in a text of three to ten others."""
    generator = torch.Generator().manual_seed(seed)
    texts = []
    for i in range(num):
        text = torch.randint(20, 40, (int(torch.randint(3, 11, (1,), generator=generator)),), generator=generator)
        text[int(torch.randint(len(text), (1,), generator=generator))] = words[i % 2]
        texts.append(text.tolist())
    split = (texts, [i % 2 for i in range(num)])
    return Task.from_tokens(name, train=split, valid=split, test=split, length=LENGTH)


@pytest.mark.parametrize("sharing", [HardSharing(), LowRank(rank=2)], ids=lambda sharing: sharing.name)
def test_texts_are_learned_and_saved(sharing: AbstractSharing, tmp_path: Path) -> None:
    model = encoder("Bert", num_hidden_layers=1)
    training = TrainingConfig(epochs=8, batch_size=8, learning_rate=0.02)
    learner = Learner(from_transformers(model, length=LENGTH), sharing=sharing, search=EM(), training=training)
    for i, name in enumerate("abc"):
        assert learner.learn(words_task(name, (3 + 2 * i, 4 + 2 * i), seed=i)).peak_accuracy >= 0.9
    learner.save(tmp_path / "model")
    again = Learner.load(tmp_path / "model", net=from_transformers(model, length=LENGTH))
    tokens = as_tokens(TEXTS, length=LENGTH)
    for name in "abc":
        assert torch.equal(learner.logits(name, tokens), again.logits(name, tokens))
        torch.testing.assert_close(
            plain_network(learner, name)(tokens), learner.logits(name, tokens), rtol=1e-5, atol=1e-5
        )
        alone = torch.cat([learner.logits(name, as_tokens([text], length=LENGTH)) for text in TEXTS])
        torch.testing.assert_close(alone, learner.logits(name, tokens), rtol=1e-5, atol=1e-5)
    with pytest.raises(StorageError, match=r"another network \(texts.pooling: mean, got first"):
        Learner.load(tmp_path / "model", net=from_transformers(model, length=LENGTH, pooling="first"))


def test_a_plain_program_reads_texts(tmp_path: Path) -> None:
    learner = Learner(from_transformers(encoder("Roberta"), length=LENGTH), training=TrainingConfig(epochs=1))
    learner.learn(words_task("a", (3, 4), seed=0))
    tokens = as_tokens(TEXTS, length=LENGTH)
    file, page = export(learner, "a", "torch", tmp_path)
    program = torch.export.load(file).module()
    torch.testing.assert_close(program(tokens), learner.logits("a", tokens), rtol=1e-5, atol=1e-5)
    assert json.loads(page.read_text())["input"]["texts"] == "token ids, 0 to 39, and -1 after a text's last token"


def test_texts_that_the_model_does_not_know_are_refused() -> None:
    learner = Learner(from_transformers(encoder("Bert"), length=LENGTH), training=TrainingConfig(epochs=1))
    good = (TEXTS, [0, 1, 0, 1])
    for bad, message in (
        ([[1, 40]] * 4, r"below 40, the model's vocabulary; texts \(task 'a', split 'valid'\) have id 40"),
        ([[1, 2, 0]] * 4, r"'valid'\) without padding; text 0 ends in the model's padding id, 0"),
    ):
        with pytest.raises(DataError, match=message):
            learner.learn(Task.from_tokens("a", train=good, valid=(bad, [0, 1, 0, 1]), test=good, length=LENGTH))
    split = (as_tokens(TEXTS, length=LENGTH), [0, 1, 0, 1])
    with pytest.raises(DataError, match=r"got other numbers\. .* set standardise='none'"):
        learner.learn(Task.from_tensors("a", train=split, valid=split, test=split))
    assert learner.task_names == ()
    task = Task.from_tokens("a", train=good, valid=good, test=good, length=LENGTH)
    learner.learn(task)
    with pytest.raises(DataError, match="the model's vocabulary; texts have id 99"):
        learner.predict("a", as_tokens([[99]], length=LENGTH))
    for wrong in (torch.ones(1, LENGTH), torch.ones(1, 1, 1, LENGTH, dtype=torch.int64)):
        with pytest.raises(ShapeError, match=r"Make texts with lasem.data.as_tokens\(texts, length=12\)"):
            learner.predict("a", wrong)
    other = Task.from_tokens("b", train=good, valid=good, test=([[1, 99]], [0]), length=LENGTH)
    with pytest.raises(DataError, match="the model's vocabulary; texts have id 99"):
        learner.accuracy("a", other.test)


def test_a_padding_id_that_means_something_else_may_end_a_text() -> None:
    assert from_transformers(encoder("Bert"), length=4).vocabulary == Vocabulary(40, 0, any_length=True)
    net = from_transformers(encoder("Bert", eos_token_id=0), length=4)
    assert net.vocabulary == Vocabulary(40, None, any_length=True)
    torch.testing.assert_close(
        features(net, [[3, 0]], 4), features(from_transformers(encoder("Bert"), length=2), [[3, 0]], 2)
    )


def test_frozen_words_belong_to_the_network() -> None:
    model = encoder("Bert")
    model.embeddings.word_embeddings.requires_grad_(False)
    net = from_transformers(model, length=LENGTH)
    assert not any("word" in name for name in net.blocks[0].shapes)
    torch.testing.assert_close(features(net, TEXTS), features(from_transformers(encoder("Bert"), length=LENGTH), TEXTS))


@pytest.mark.parametrize(
    ("name", "change", "length", "message"),
    [
        ("Bert", {}, None, r"BertModel is a model for texts: give length=\.\.\."),
        ("Bert", {}, 21, r"cannot take texts of 21 tokens: .* max_position_embeddings = 20"),
        ("Roberta", {}, 19, "cannot take texts of 19 tokens"),  # its positions begin after the padding's
        (
            "Bert",
            {"hidden_dropout_prob": 0.1},
            LENGTH,
            r"\(hidden_dropout_prob = 0.1\); .* from_pretrained\(\.\.\., hidden_dropout_prob=0\)",
        ),
        ("ConvBert", {}, LENGTH, "embeddings and layers one after another, or its answ"),  # convolutions read padding
        ("MPNet", {}, LENGTH, "embeddings and layers one after another, or its answ"),  # layers share positions
        ("GPT2", {}, LENGTH, "GPT2Model has no embeddings with a list of layers"),
    ],
)
def test_a_model_that_cannot_be_taken_is_named(name: str, change: Any, length: int | None, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        from_transformers(encoder(name, **change), length=length)


class Words(nn.Module):
    """The mean of a text's words, and a layer behind it: a text encoder without transformers."""

    def __init__(self, num_words: int = 40) -> None:
        super().__init__()
        self.table = nn.Embedding(num_words, 8)
        self.layer = nn.Linear(8, 8)

    def forward(self, x: Tensor) -> Tensor:
        ids = x.flatten(1)
        there = ids >= 0
        words = self.table(ids.clamp(min=0).long()) * there.to(x.dtype)[..., None]
        return torch.relu(self.layer(words.sum(dim=1)))


def test_a_module_of_ones_own_reads_texts() -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        module = Words()
    example = as_tokens(TEXTS[:2], length=LENGTH)
    net = cut(module, ["table", "layer"], image_shape=(1, 1, LENGTH), classifier=None, example=example)
    torch.testing.assert_close(features(net, TEXTS), module(as_tokens(TEXTS, length=LENGTH)).detach())
    learner = Learner(net, training=TrainingConfig(epochs=15, batch_size=8, learning_rate=0.05))
    for i, name in enumerate("ab"):
        assert learner.learn(words_task(name, (3 + 2 * i, 4 + 2 * i), seed=i)).peak_accuracy >= 0.9


def test_a_table_of_words_makes_no_network_too_large() -> None:
    num_words, length = 2**18, 2**12
    example = as_tokens([[1, 2]] * 2, length=length)
    net = cut(Words(num_words), ["table", "layer"], image_shape=(1, 1, length), classifier=None, example=example)
    check_sizes(net.built_from({"kind": "cut"}, Vocabulary(num_words)))
    with pytest.raises(StorageError, match="this one makes up to 1,073,741,824"):
        check_sizes(net)


def words() -> Tokenizer:
    """A tokenizer of words by spaces."""
    tokenizers = pytest.importorskip("tokenizers")
    made = tokenizers.Tokenizer(tokenizers.models.WordLevel({f"w{k}": k for k in range(1, 30)}, unk_token="w1"))
    made.pre_tokenizer = tokenizers.pre_tokenizers.WhitespaceSplit()
    return Tokenizer(made.to_str())


@pytest.mark.parametrize("name", ["Bert", "ModernBert"])
def test_a_network_with_a_tokenizer_learns_texts(name: str, tmp_path: Path) -> None:
    net = from_transformers(encoder(name), length=LENGTH)
    assert net.vocabulary is not None
    assert net.vocabulary.any_length == (name == "Bert")  # the other one has tables of positions
    net = net.built_from({"kind": "cut"}, replace(net.vocabulary, tokenizer=words))
    texts, labels = ["w5 w6 w7", "w10 w11", "w5 w7", "w10 w9 w8"], ["+", "-", "+", "-"]
    task = Task.from_texts("t", train=(texts, labels), valid=(texts, labels), test=(texts[:2], labels[:2]))
    settings: Any = {"training": TrainingConfig(epochs=2), "search": Fixed("all")}
    learner, same = Learner(net, **settings), Learner(net, **settings)
    learner.learn(task)
    same.learn(learner.in_tokens(task))
    assert torch.equal(learner.predict("t", texts, probabilities=True), same.predict("t", texts, probabilities=True))
    assert learner.accuracy("t", task.train) == learner.accuracy("t", learner.in_tokens(task).train)
    padded = as_tokens([[5, 6, 7], [10, 11]], length=LENGTH)
    alone = learner.predict("t", texts[:2], probabilities=True)
    torch.testing.assert_close(learner.predict("t", padded, probabilities=True), alone)

    growing = GrowingModel(tmp_path / "model", net=net, **settings)
    lines: list[str] = []
    growing.learn("t", task, observer=Watching(lines))
    assert lines[0].startswith("Task 't': 4 texts to train with")
    assert (growing.reads, growing.show().reads) == ("texts", "texts")
    assert [answer.image for answer in growing.predict("t", texts)] == texts
    long = [*texts, "w5 " * 20]
    assert [answer.image for answer in growing.predict("t", long, note=lines.append)] == long
    assert lines[-1] == "Left out: the ends of 1 of 5 texts, which is longer than 12 tokens."
    with pytest.raises(DataError, match=r"The model reads texts\. Say which column has them: --text-column"):
        growing.evaluate("t", tmp_path)
    images = Task.from_tensors("i", train=(torch.zeros(2, 8, 8), [0, 1]), valid=(torch.zeros(2, 8, 8), [0, 1]),
                               test=(torch.zeros(2, 8, 8), [0, 1]))  # fmt: skip
    with pytest.raises(ShapeError, match=r"images of shape \(1, 8, 8\)"):
        growing.learn("i", images)


def test_networks_for_images_take_no_texts() -> None:
    texts = (["a", "b"], [0, 1])
    learner = Learner(digits())
    with pytest.raises(DataError, match=r"Task 't' has texts, and the network takes images.*hf:FOLDER"):
        learner.learn(Task.from_texts("t", train=texts, valid=texts, test=texts))
