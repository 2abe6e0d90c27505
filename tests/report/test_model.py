import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from chromium import check_page
from learner.fixture import changed_index, tiny_net, tiny_task
from learner.images import files_in, write_digits

from lasem import EM, GrowingModel, TrainingConfig
from lasem.errors import StorageError
from lasem.methods import EWC
from lasem.records import EpochRecord, TaskRecord, of_kind
from lasem.report.model import write_model

from .pages import check_whole

NAMES = ("<script>alert(1)</script>", "Donaudampfschifffahrt" * 4, "\x1b[2J\u202e")


def learned(place: Path, *names: str, **parts: Any) -> GrowingModel:
    training = TrainingConfig(epochs=3, batch_size=5, learning_rate=0.01)
    parts = parts or {"search": EM(first_task="search", commit_share=0.5)}
    model = GrowingModel(place, net=tiny_net(), training=training, seed=1, **parts)
    for number, name in enumerate(names):
        model.learn(name, tiny_task(name, 2 + number, seed=number))
    return model


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> GrowingModel:
    return learned(tmp_path_factory.mktemp("models") / "model", "first", "second", "third", "fourth")


def written(model: GrowingModel, folder: Path, *names: str) -> Path:
    """The page; with other names of tasks, as in the folder of one who wants to deceive."""
    overview, records = model.show(), model.records()
    tasks = [
        replace(task, name=name, classes=(*task.classes, name))
        for task, name in zip(overview.tasks, names, strict=False)
    ]
    kept = dict(zip(names or records, records.values(), strict=True))
    return write_model(folder / "page.html", replace(overview, tasks=tuple(tasks or overview.tasks)), kept)


def test_a_page_has_what_the_model_knows_and_costs(model: GrowingModel, tmp_path: Path) -> None:
    page = written(model, tmp_path, "first", *NAMES)
    outline, text, overview = check_whole(page), page.read_text(encoding="utf-8"), model.show()
    headings = (
        "model|Layers that each task transfers|Tasks|What each task knows|Accuracy over time|How the search decided|"
        "Network|Settings|Use it"
    )
    assert "|".join(outline.headings) == headings
    assert outline.tags.count("script") == 1
    for said in (
        overview.tasks[0].layers,
        "first-class-0, first-class-1",
        "No later task changes an earlier answer.",
        "commit_share: 0.5",
        f"lasem predict {overview.directory} --task $&#39;\\x1b[2J",
        *(f"{task.num_parameters:,}" for task in overview.tasks),
    ):
        assert said in text
    assert not re.search("[\x1b\u202e]", text)
    before = page.read_bytes()
    assert written(model, tmp_path, "first", *NAMES).read_bytes() == before


def test_records_are_kept_until_the_task_is_forgotten(tmp_path: Path) -> None:
    model = learned(tmp_path / "model", "first", "second")
    records = GrowingModel(tmp_path / "model").records()
    for name in ("first", "second"):
        epochs, (task,) = list(of_kind(records[name], EpochRecord)), list(of_kind(records[name], TaskRecord))
        assert [(record.task, record.epoch) for record in epochs] == [(name, n) for n in (1, 2, 3)]
        assert (task.task, task.num_epochs, len(task.configurations)) == (name, 3, 4)
        assert [len(record.probabilities) for record in epochs] == [4 if r.num_evaluated > 1 else 1 for r in epochs]
    files = len(files_in(tmp_path / "model"))
    model.forget("first")
    assert list(model.records()) == ["second"]
    assert len(files_in(tmp_path / "model")) <= files - 2  # its weights and its records


def test_a_model_without_records_has_no_curves(tmp_path: Path) -> None:
    learned(tmp_path / "model", "first", "second")
    with changed_index(tmp_path / "model") as index:  # as an earlier lasem wrote it
        for task in index["tasks"]:
            del task["records"]
    model = GrowingModel(tmp_path / "model")
    assert model.records() == {"first": (), "second": ()}
    page = written(model, tmp_path)
    assert "Accuracy over time" not in check_whole(page).headings
    assert "an earlier lasem learned the tasks" in page.read_text(encoding="utf-8")
    again = learned(tmp_path / "model")
    again.learn("third", tiny_task("third"))
    page = written(again, tmp_path)
    assert {"Accuracy over time", "How the search decided"} <= set(check_whole(page).headings)
    assert "no epochs recorded" in page.read_text(encoding="utf-8")


def test_damaged_records_are_named(tmp_path: Path) -> None:
    learned(tmp_path / "model", "first")
    with changed_index(tmp_path / "model") as index:
        index["tasks"][0]["records"] = index["tasks"][0]["weights"]
    with pytest.raises(StorageError, match="records of task 'first'"):
        GrowingModel(tmp_path / "model").records()


def test_a_method_of_its_own_has_no_layers_to_choose(tmp_path: Path) -> None:
    page = written(learned(tmp_path / "model", "first", "second", method=EWC()), tmp_path)
    headings, text = check_whole(page).headings, page.read_text(encoding="utf-8")
    assert "Accuracy over time" in headings
    assert not {"Layers that each task transfers", "How the search decided"} & set(headings)
    assert "lasem model · ewc" in text
    assert "Later tasks may change earlier answers." in text


def test_a_model_that_has_only_begun(model: GrowingModel, tmp_path: Path) -> None:
    overview = replace(model.show(), tasks=(), unfinished="first")
    text = write_model(tmp_path / "page.html", overview, {}).read_text(encoding="utf-8")
    check_whole(tmp_path / "page.html")
    assert "Task &#39;first&#39; is not finished." in text
    assert "has not learned a task yet" in text


@pytest.mark.parametrize("narrow", [True, False])
def test_in_a_browser(narrow: bool, model: GrowingModel, browser: list[str], tmp_path: Path) -> None:
    assert check_page(browser, written(model, tmp_path, "first", *NAMES), narrow=narrow) == (3, 1)


def test_the_command_finds_out_what_a_folder_is(here: Path, lasem: Any) -> None:
    write_digits(here / "photos", (0, 1), count=4)
    lasem("learn", "model", "--task", "d", "--train", "photos", "--epochs", "1", "--threads", "1", "--quiet")
    before = files_in(here / "model")
    assert lasem("report", "model").out == "Report: model.html\n"
    check_whole(here / "model.html")
    assert lasem("report", "model/", "--out", "pages/m.html").out == "Report: pages/m.html\n"
    assert files_in(here / "model") == before
    assert "outside of the model's own folder" in lasem("report", "model", "--out", "model/m.html", code=2).err
    (here / "model.html").write_text("mine")
    assert "no page of lasem" in lasem("report", "model", code=2).err
    assert "--out is for the page of a model" in lasem("report", "photos", "--out", "m.html", code=2).err
