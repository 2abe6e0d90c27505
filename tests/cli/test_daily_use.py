"""An engineer's year with one model in a folder, by the real command; and what may go wrong in it."""

import csv
import io
import json
import os
import resource
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from filelock import FileLock
from forks import Forked
from learner.images import model_files, write_digits

from lasem.cli import main
from lasem.errors import DataError
from lasem.learner import GrowingModel, Learner
from lasem.methods import METHODS
from lasem.training import Loop
from lasem.tree import flatten

LONG = os.environ.get("LASEM_KILLS")
KILLS = {"learn": int(LONG or 2), "run": int(LONG or 1)}
"""``make kills`` has 200 of each."""
NEW = ["--training.epochs", "6", "--training.learning_rate", "0.003", "--threads", "1"]
RUN_WITHOUT_LASEM = """
import json, sys
sys.modules["lasem"] = None
import numpy as np, onnxruntime, torch
from PIL import Image
page = json.load(open("low.onnx.json"))
_, channels, height, width = page["input"]["shape"]
def read(path):
    image = Image.open(path).convert("L").resize((width, height), Image.Resampling.BILINEAR)
    return np.asarray(image, dtype=np.float32)[None] / 255
images = np.stack([read(path) for path in sys.argv[1:]])
session = onnxruntime.InferenceSession("low.onnx")
known = session.get_modelmeta().custom_metadata_map
assert known["task"] == "low"
assert all(json.loads(known[key]) == page[key] for key in ("classes", "input"))
(onnx,) = session.run(["logits"], {"images": images})
with torch.no_grad():
    program = torch.export.load("program/low.pt2").module()(torch.from_numpy(images)).numpy()
print(json.dumps([page["classes"], onnx.tolist(), program.tolist()]))
"""


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("images")
    for name, digits in (("low", (0, 1)), ("mid", (2, 3, 4)), ("high", (5, 6))):
        write_digits(place / name, digits, count=14)
        write_digits(place / f"{name}-test", digits, first=14, count=5)
    return place


def test_settings_of_the_search_alone_leave_the_default_search(images: Path, here: Path, lasem: Any) -> None:
    images_of = ["--task", "low", "--train", str(images / "low"), "--training.epochs", "1"]
    lasem("learn", "model", *images_of, "--search.first_task", "search", "--search.errors", "0")
    made = json.loads(lasem("show", "model", "--json").out)["settings"]
    search = made["search"]
    assert (search["name"], search["first_task"], search["errors"]) == ("evidence", "search", 0)
    assert made["protect"]["name"] == "freeze"
    assert "NEW_MODEL" not in lasem("frontier", "model", "--task", "low").out  # which would lack earlier tasks
    shown = lasem("learn", "--help-all").out
    assert "search evidence: which" in shown
    assert "--search.errors" in shown


def test_a_year(images: Path, here: Path, monkeypatch: pytest.MonkeyPatch, lasem: Any) -> None:
    """Commands are called here, which is quicker; in processes of their own they are killed below."""

    def said(*words: str) -> str:
        return lasem(*words).out

    low = ["--train", str(images / "low"), "--test", str(images / "low-test")]
    out = said("learn", "model", "--task", "low", *low, *NEW)
    assert out.startswith("low: TTTT (layers 1 to 4 transferred), valid ")
    assert "2 classes" in out
    assert "mid: " in said("learn", "model", "--task", "mid", "--train", str(images / "mid"), "--quiet")
    assert "high: " in said("learn", "model", "--task", "high", "--train", str(images / "high"), "--quiet")

    files = sorted(str(path) for path in (images / "low-test").rglob("*.png"))
    with monkeypatch.context() as patch:
        patch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO("\n".join(files).encode())))
        rows = list(csv.DictReader(said("predict", "model", "--task", "low", "-").splitlines()))
    assert [row["image"] for row in rows] == files
    right = sum(row["class"] == Path(row["image"]).parent.name for row in rows)
    assert right >= 7
    lines = said("predict", "model", "--task", "low", *files, "--format", "jsonl", "--top", "2").splitlines()
    for row, line in zip(rows, map(json.loads, lines), strict=True):
        best, second = line["predictions"]
        assert (row["class"], float(row["probability"])) == (best["class"], best["probability"])
        assert best["probability"] + second["probability"] == pytest.approx(1, abs=1e-5)

    table = list(csv.DictReader(said("predict", "model", "--task", "all", *files[:2], "--top", "3").splitlines()))
    assert [(row["image"], row["task"]) for row in table] == [(f, t) for f in files[:2] for t in ("low", "mid", "high")]
    assert [row["class_3"] != "" for row in table] == [False, True, False] * 2  # the others have two classes
    (here / "questions.csv").write_text(f"image,task\n{files[1]}, mid\n\n{files[0]},low\n")
    lines = said("predict", "model", "--tasks", "questions.csv", "--format", "jsonl").splitlines()
    for line, row in zip(map(json.loads, lines), (table[4], table[0]), strict=True):
        assert (line["image"], line["task"]) == (row["image"], row["task"])
        assert line["predictions"][0]["class"] == row["class"]
        assert line["predictions"][0]["probability"] == pytest.approx(float(row["probability"]), abs=2e-6)
    for content, message in (
        (f"{files[0]},low\n{files[0]},lwo\n", "Expected a learned task in line 2 of questions.csv; got 'lwo'. Did you"),
        (f"{files[0]}\n", "Expected image,task in line 1 of questions.csv; got 1 fields"),
        ("image,task\n", "Expected image,task in each line of questions.csv; there are none"),
    ):
        (here / "questions.csv").write_text(content)
        assert message in lasem("predict", "model", "--tasks", "questions.csv", code=2).err

    shown = json.loads(said("show", "model", "--json"))
    assert [task["name"] for task in shown["tasks"]] == ["low", "mid", "high"]
    assert shown["num_bytes"] == sum(map(len, model_files(here / "model").values()))
    assert "TTTT" in said("show", "model")
    measured = json.loads(said("evaluate", "model", "--task", "low", str(images / "low-test"), "--json"))
    assert (measured["num_right"], measured["num_images"]) == (right, 10)
    assert 0 < measured["calibration_error"] < 1
    shown = said("evaluate", "model", "--task", "low", str(images / "low-test"))
    assert f"expected calibration error: {100 * measured['calibration_error']:.1f} %" in shown

    assert (
        said("export", "model", "--task", "low", "--format", "onnx", "--out", "low.onnx") == "low.onnx\nlow.onnx.json\n"
    )
    (here / "program").mkdir()
    said("export", "model", "--task", "low", "--format", "torch", "--out", "program")
    (here / "run.py").write_text(RUN_WITHOUT_LASEM)
    ran = Forked("run.py", *files, folder=here).ended()
    assert ran.returncode == 0, ran.stderr
    classes, onnx, program = json.loads(ran.stdout)
    learner = Learner.load("model")
    from lasem.data import FileImages

    logits = learner.logits("low", FileImages(files, channels=1).take(torch.arange(len(files))))
    assert classes == list(learner.classes("low"))
    torch.testing.assert_close(torch.tensor(onnx), logits, rtol=0, atol=1e-4)
    torch.testing.assert_close(torch.tensor(program), logits, rtol=0, atol=1e-4)

    assert said("forget", "model", "--task", "mid") == "mid: forgotten\n"
    assert torch.equal(
        Learner.load("model").logits("low", torch.ones(1, 1, 8, 8)), learner.logits("low", torch.ones(1, 1, 8, 8))
    )
    said(
        "learn", "model", "--task", "my mid", "--train", str(images / "mid"), "--epochs", "2", "--lr", "0.01", "--quiet"
    )
    assert "Task 'my mid' was trained with epochs = 2, learning_rate = 0.01.\n" in said("show", "model")
    updated = said("learn", "model", "--task", "low", "--update", "--train", str(images / "mid"), "--quiet")
    assert "3 classes" in updated
    assert Learner.load("model").task_names == ("high", "my mid", "low")


@pytest.mark.parametrize("method", METHODS)
def test_a_model_of_any_method_is_grown_and_asked(method: str, tmp_path: Path, lasem: Any) -> None:
    images, model = str(write_digits(tmp_path / "images", (0, 1), count=6)), str(tmp_path / "model")
    learn = ("learn", model, "--train", images, "--task")
    lasem(*learn, "a", "--method", method, "--epochs", "1", "--net", "digits", "--net.hidden", "8")
    lasem(*learn, "b")
    assert f"method {method}" in lasem("show", model).out
    assert len(lasem("predict", model, "--task", "a", images).out.splitlines()) == 13
    assert "of 12 images" in lasem("evaluate", model, "--task", "b", images).out
    lasem("forget", model, "--task", "b")
    assert "1 task," in lasem("show", model).out
    assert f"made with method = {method}" in lasem(*learn, "c", "--method", "lasem", code=2).err


@pytest.mark.parametrize("kind", ["learn", "run"])
def test_killed_at_any_moment_it_goes_on_to_the_same_bits(kind: str, images: Path, tmp_path: Path) -> None:
    script = str(Path(__file__).with_name("kills.py"))
    done = Forked(script, kind, str(images), str(tmp_path), str(KILLS[kind]), "7", folder=tmp_path).ended()
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["kills"] >= KILLS[kind]


@pytest.fixture(scope="module")
def model(images: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("kept") / "model"
    assert main(["learn", str(place), "--task", "low", "--train", str(images / "low"), *NEW, "--quiet"]) == 0
    return place


def test_a_full_disk_leaves_the_model_as_it_was(model: Path, images: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The system refuses to write more than so many bytes to any file, as a quota does."""
    before = model_files(model)
    words = ("learn", str(model), "--task", "mid", "--train", str(images / "mid"), "--quiet")
    usual = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, usual[1]))
    try:
        code = main([*words])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, usual)
    shown = capsys.readouterr()
    assert (code, shown.out) == (1 if "goes on" in shown.err else 2, "")
    assert "Cannot write" in shown.err
    assert "File too large" in shown.err
    assert model_files(model) == before
    assert Learner.load(model).task_names == ("low",)
    assert main([*words]) == 0
    assert Learner.load(model).task_names == ("low", "mid")
    assert main(["forget", str(model), "--task", "mid"]) == 0


def test_a_read_only_model_answers(model: Path, images: Path, tmp_path: Path, monkeypatch: Any, lasem: Any) -> None:
    def refused(real: Callable[..., Any]) -> Callable[..., Any]:
        def call(path: Any, *rest: Any, **named: Any) -> Any:
            if str(getattr(path, "lock_file", path)).startswith(str(model)):
                raise PermissionError(13, "Permission denied", str(path))
            return real(path, *rest, **named)

        return call

    before, tests = model_files(model), str(images / "low-test")
    with monkeypatch.context() as patch:  # root may write everywhere: let the system's calls refuse
        for call in ("mkdir", "replace", "unlink", "rename"):
            patch.setattr(os, call, refused(getattr(os, call)))
        patch.setattr(FileLock, "acquire", refused(FileLock.acquire))
        for words in (
            ["predict", "--task", "low", tests],
            ["evaluate", "--task", "low", tests],
            ["show"],
            ["export", "--task", "low", "--format", "safetensors", "--out", str(tmp_path / "low")],
        ):
            lasem(words[0], str(model), *words[1:])
        for words in (["learn", "--task", "mid", "--train", str(images / "mid")], ["forget", "--task", "low"]):
            assert "Permission denied. Nothing was changed." in lasem(words[0], str(model), *words[1:], code=2).err
    assert model_files(model) == before


def test_an_early_end_leaves_the_model(model: Path, images: Path, tmp_path: Path, monkeypatch: Any, lasem: Any) -> None:
    place, whole = tmp_path / "model", tmp_path / "whole"
    for copy in (place, whole):
        shutil.copytree(model, copy)
    before = model_files(place)
    real = Loop.run_epoch

    def run_epoch(loop: Loop) -> Any:
        if loop.num_epochs == 2:
            raise KeyboardInterrupt
        return real(loop)

    def run_epoch_badly(loop: Loop) -> Any:
        if loop.num_epochs == 3:
            next(iter(flatten(loop.weights).values())).data.fill_(float("nan"))
        return real(loop)

    def run_epoch_and_move(loop: Loop) -> Any:
        if loop.num_epochs == 2:
            place.rename(tmp_path / "moved")
        return real(loop)

    words = ["--task", "mid", "--train", str(images / "mid"), "--quiet"]
    with monkeypatch.context() as patch:
        patch.setattr(Loop, "run_epoch", run_epoch_and_move)
        said = lasem("learn", str(place), *words, code=1).err
    assert (said.count("\n"), "was moved or removed" in said, "as before" in said) == (1, True, False), said
    (tmp_path / "moved").rename(place)
    for broken, code, said in (
        (run_epoch, 130, f"Go on with the same command: lasem learn {place} --task mid"),
        (run_epoch_badly, 1, f"The model in {place} is as before."),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(Loop, "run_epoch", broken)
            assert said in lasem("learn", str(place), *words, code=code).err
        assert model_files(place) == before
    other = ("--test", str(images / "mid"), "--train", str(images / "low"))
    shown = lasem("learn", str(place), "--resume", *other, code=2)
    assert "classes (" in shown.err
    lasem("learn", str(place), "--resume", "--quiet")
    lasem("learn", str(whole), *words)
    assert model_files(place) == model_files(whole)


def test_mistakes_are_told_in_one_line(model: Path, images: Path, lasem: Any) -> None:
    place, train = str(model), str(images / "mid")
    learn = ["learn", place, "--task", "mid", "--train", train]
    export = ["export", place, "--task", "low", "--format", "safetensors", "--out"]
    for words, told in (
        (["learn", "--task", "mid", "--train", train], "Expected MODEL, the model's folder; got none"),
        (["learn", place, "--task", "mid"], "Expected --train; got none"),
        (["learn", place, "--task", "mid", "--train", f"{train}x"], "Did you mean 'mid'?"),
        ([*learn, "--sharing", "tf"], "was made with sharing = hps; got tf"),
        (["learn", f"{place}x", "--resume"], "Expected a model in"),
        (["learn", place, "--resume"], "Expected an unfinished task in"),
        ([*learn, "--preset", "paper"], "was made with "),
        ([*learn, "--channels", "2"], "--channels must be one of 1, 3; got '2'"),
        ([*learn, "--image-size", "0"], "--image-size must be at least 1 and at most 8192; got 0"),
        ([*learn, "--wait", "-1"], "--wait must be at least 0"),
        ([*learn, "--seeds", "1"], "There is no option --seeds. Did you mean '--seed'?"),
        (["predict", place, "--task", "low"], "Expected IMAGES..., files, folders, or -"),
        (["predict", place, "x.png"], "Expected --task or --tasks; got none"),
        (["predict", place, "x.png", "--task", "low", "--tasks", "x.csv"], "Expected --task or --tasks; got both"),
        (["predict", place, "x.png", "--tasks", "x.csv"], "names the images, or has the texts; leave others out"),
        (["predict", place, "--tasks", "x.csv"], "x.csv"),
        (["predict", place, "--task", "low", "x.png", "--top", "0"], "--top must be at least 1"),
        (["predict", place, "--task", "low", "x.png", "--format", "xml"], "--format must be one of csv, jsonl"),
        (["predict", place, "--task", "lwo", "x.png"], "Did you mean 'low'?"),
        (["evaluate", place, "--task", "low"], "Expected PATH, labelled images"),
        (["evaluate", place, "--task", "low", train], "got 'digit-2'"),
        (["show"], "Expected MODEL, the model's folder; got none"),
        (["show", f"{place}x"], "Expected a saved model"),
        (["frontier", place, "--task", "low"], "Expected a task whose layers were chosen by evidence"),
        (["frontier", place, "--task", "lwo"], "Did you mean 'low'?"),
        (["forget", place], "Expected --task; got none"),
        (["forget", place, "--task", "mid"], "'mid' has not been learned"),
        (["export", place, "--task", "low"], "Expected --format; got none"),
        (["export", place, "--task", "low", "--format", "onxx"], "Did you mean 'onnx'?"),
        ([*export, f"{place}/config.json"], "outside of the model's own folder"),
        ([*export, place], "outside of the model's own folder"),
        ([*export, __file__], "test_daily_use.py is there already and is no export of a task"),
        (["learn", place, "--task", "mid", "--train", __file__], "test_daily_use.py is neither"),
        (["predict", place, "--task", "mid", "x.png"], "'mid' has not been learned (learned: low). Learn it first."),
    ):
        shown = lasem(*words, code=2)
        assert (told in shown.err, shown.out, shown.err.count("\n")) == (True, "", 1), shown.err


@pytest.mark.parametrize("command", ["learn", "predict", "evaluate", "show", "frontier", "forget", "export"])
def test_help_fits_a_terminal(command: str, lasem: Any) -> None:
    out = lasem(command, "--help").out
    assert f"usage: lasem {command} MODEL" in out
    assert "examples:" in out


def test_a_folder_that_cannot_be_read_is_named_and_the_others_answer(
    model: Path, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lasem: Any
) -> None:
    for place in ("a", "b/secret", "c"):
        shutil.copytree(images / "low-test", tmp_path / place)
    answered = lasem("predict", str(model), "--task", "low", str(tmp_path / "a"), str(tmp_path / "c")).out
    real, secret = os.scandir, str(tmp_path / "b/secret")

    def scandir(place: Any) -> Any:  # root may read everywhere: let the system's call refuse
        if str(place) == secret:
            raise PermissionError(13, "Permission denied", secret)
        return real(place)

    monkeypatch.setattr(os, "scandir", scandir)
    for place in (str(tmp_path), secret):
        shown = lasem("predict", str(model), "--task", "low", place, code=1)
        assert shown.out == (answered if place != secret else "")
        assert shown.err == (
            f"lasem: Expected images at {secret}; [Errno 13] Permission denied: '{secret}'.\n"
            "lasem: 1 could not be read.\n"
        )
    with pytest.raises(DataError, match=f"Expected images at {secret}; .*Permission denied"):
        list(GrowingModel(model).predict("low", [tmp_path]))


def test_images_that_cannot_be_read_are_passed_over(model: Path, images: Path, tmp_path: Path, lasem: Any) -> None:
    (tmp_path / "broken.png").write_bytes(b"no image")
    good = next((images / "low-test").rglob("*.png"))
    words = ["predict", str(model), "--task", "low", str(tmp_path / "broken.png"), str(good), "nowhere.png"]
    shown = lasem(*words, code=1)
    assert [line.split(",")[0] for line in shown.out.splitlines()] == ["image", str(good)]
    assert "broken.png" in shown.err
    assert "nowhere.png" in shown.err
    assert shown.err.endswith("lasem: 2 could not be read.\n")
