import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from chromium import check_page
from learner.images import write_digits

from lasem.errors import StorageError
from lasem.learner import Evaluation, Mistake
from lasem.report.model import PICTURES, write_evaluation
from lasem.training.calibration import calibration_bins

from .pages import Outline, check_whole

HOSTILE = ("<script>alert(1)</script>", "Donaudampfschifffahrt" * 6, "\x1b[2J\u202e", '"><img src=x onerror=y>')


def made(classes: tuple[str, ...], num: int, *, wrong: int, side: int = 4, texts: bool = False) -> Evaluation:
    """Images of the classes in turn; each ``wrong``-th is answered as the class after, 0: none is."""
    labels = [k % len(classes) for k in range(num)]
    answers = [(y + bool(wrong and k % wrong == 0)) % len(classes) for k, y in enumerate(labels)]
    sure = torch.linspace(1, 0.5, num)
    confusion = [[0] * len(classes) for _ in classes]
    for y, a in zip(labels, answers, strict=True):
        confusion[y][a] += 1
    mistakes = [
        Mistake(
            image=f"{classes[y]}, text or file {k}",
            label=classes[y],
            answer=classes[a],
            probability=float(sure[k]),
            picture=None if texts else torch.full((3, side, side), 77, dtype=torch.uint8),
        )
        for k, (y, a) in enumerate(zip(labels, answers, strict=True))
        if y != a
    ]
    return Evaluation(
        classes=classes,
        confusion=tuple(map(tuple, confusion)),
        mistakes=tuple(mistakes),
        calibration=calibration_bins(sure, torch.tensor(labels) == torch.tensor(answers)),
        left_out=("1 damaged",),
    )


def written(folder: Path, result: Evaluation, task: str = "task") -> Path:
    command = ["lasem", "evaluate", "model", "$(reboot)"]
    page = folder / "page.html"
    return write_evaluation(page, result, task=task, model=str(folder / "model"), images="photos", command=command)


@pytest.mark.parametrize(
    ("result", "said"),
    [
        (made(("cat", "dog"), 20, wrong=5), "Of 20 images 16 are answered correctly, 80.0"),
        (made(("cat", "dog"), 20, wrong=0), "All 20 images are answered correctly."),
        (made(("cat", "dog"), 2, wrong=1), "Of 2 images 0 are answered correctly"),
        (made(("cat", "dog"), 1, wrong=0), "The one image is answered correctly."),
        (made(tuple(f"class {k}" for k in range(100)), 400, wrong=3), f"These are {PICTURES} of 134"),
        (made(tuple(f"class {k}" for k in range(15)), 60, wrong=4, side=224), "data:image/jpeg"),
        (made(("good", "bad"), 9, wrong=2, texts=True), "good, text or file 0"),
        (made(HOSTILE, 40, wrong=3), "&lt;script&gt;alert(1)&lt;/script&gt;"),
    ],
)
def test_a_page_is_whole(result: Evaluation, said: str, tmp_path: Path) -> None:
    page = written(tmp_path, result)
    outline, text = check_whole(page), page.read_text(encoding="utf-8")
    assert said in text
    assert outline.tags.count("script") == 1  # tables sort
    assert outline.tags.count("img") == sum(m.picture is not None for m in result.mistakes[:PICTURES])
    assert ("Pairs of classes" in outline.headings) == bool(result.mistakes)
    assert ("every image is answered correctly" in text) != bool(result.mistakes)
    assert "1 damaged" in text
    assert "lasem evaluate model &#39;$(reboot)&#39;" in text
    assert not re.search("[\x1b\u202e]", text)
    assert [path.name for path in tmp_path.iterdir()] == ["page.html"]


def test_only_classes_with_images_have_rows(tmp_path: Path) -> None:
    result = replace(made(("cat", "dog", "cow"), 3, wrong=3), confusion=((2, 0, 1), (0, 0, 0), (0, 0, 0)))
    assert result.by_class == {"cat": (3, 2)}
    text = written(tmp_path, result).read_text(encoding="utf-8")
    assert "of 1 of 3 classes" in text
    assert "Heat map of 3 images of 1 classes" in text
    assert Outline(text).tags.count("tr") == 2 + 2  # pairs and classes, each with its heading


def test_a_page_replaces_no_other_file_and_stays_out_of_the_model(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "page.html").write_text("<p>mine")
    with pytest.raises(StorageError, match="no page of lasem"):
        written(tmp_path, made(("cat", "dog"), 2, wrong=0))
    assert (tmp_path / "page.html").read_text() == "<p>mine"
    (tmp_path / "page.html").unlink()
    pages = [written(tmp_path, made(("cat", "dog"), 20, wrong=5)).read_bytes() for _ in range(2)]
    assert pages[0] == pages[1]  # our own page is replaced
    with pytest.raises(StorageError, match="outside of the model's own folder"):
        write_evaluation(
            tmp_path / "model/page.html",
            made(("a", "b"), 2, wrong=0),
            task="t",
            model=str(tmp_path / "model"),
            images="",
            command=[],
        )


@pytest.mark.parametrize("narrow", [True, False])
def test_in_a_browser(narrow: bool, browser: list[str], tmp_path: Path) -> None:
    page = written(tmp_path, made((*HOSTILE, *(f"class {k}" for k in range(8))), 200, wrong=3))
    assert check_page(browser, page, narrow=narrow) == (2, 2)


def test_the_command_shows_the_same_numbers_everywhere(here: Path, lasem: Any) -> None:
    write_digits(here / "photos", (0, 1, 2), count=10)
    write_digits(here / "test", (0, 1, 2), first=10, count=6)
    lasem("learn", "model", "--task", "d", "--train", "photos", "--epochs", "2", "--threads", "1", "--quiet")
    shown = lasem("evaluate", "model", "--task", "d", "test", "--html", "d.html").out
    found = json.loads(lasem("evaluate", "model", "--task", "d", "test", "--json").out)
    check_whole(here / "d.html")
    counts, wrong = found["confusion"]["num_images"], found["mistakes"]
    assert found["confusion"]["classes"] == ["digit-0", "digit-1", "digit-2"]
    assert [sum(row) for row in counts] == [6, 6, 6]
    assert sum(counts[k][k] for k in range(3)) == found["num_right"] == 18 - len(wrong) < 18
    assert sum(one["num_images"] for one in found["calibration"]) == 18
    assert [m["probability"] for m in wrong] == sorted((m["probability"] for m in wrong), reverse=True)
    answers = {}
    for mistake in wrong:
        (line,) = lasem("predict", "model", "--task", "d", mistake["image"], "--format", "jsonl").out.splitlines()
        (best,) = json.loads(line)["predictions"]
        assert best == {"class": mistake["answer"], "probability": pytest.approx(mistake["probability"], abs=1e-5)}
        assert Path(mistake["image"]).parent.name == mistake["class"] != mistake["answer"]
        answers[mistake["image"]] = mistake["answer"]
    assert "confusion matrix: a row for each class, a column for each answer" in shown
    assert f"the surest mistakes ({min(10, len(wrong))} of {len(wrong)})" in shown
    assert f"{wrong[0]['image']}: '{wrong[0]['class']}' answered as '{wrong[0]['answer']}'" in shown
    assert shown.endswith("Page: d.html\n")
    assert (
        "outside of the model's own folder"
        in lasem("evaluate", "model", "--task", "d", "test", "--html", "model/d.html", code=2).err
    )


@pytest.mark.parametrize(
    ("classes", "said"),
    [
        (("a", "b", "c"), "\n   1 a 3 1 .\n   2 b . 3 1\n   3 c 1 . 3\n"),
        (tuple(f"kind {k}" for k in range(40)), "classes confused most often (4 of 4 pairs)\n  'kind 0' answered as"),
    ],
)
def test_a_terminal_has_the_matrix_or_the_pairs(classes: tuple[str, ...], said: str, capsys: Any) -> None:
    from lasem.cli.model import _print_mistakes

    _print_mistakes(made(classes, 12, wrong=4 if len(classes) == 3 else 3))
    out = capsys.readouterr().out
    assert said in out
    _print_mistakes(made(classes, 12, wrong=0))
    assert capsys.readouterr().out == ""
