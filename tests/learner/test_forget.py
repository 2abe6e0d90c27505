"""Forgetting a task frees what only it used and changes nothing else, in memory and on disk."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from torch import Tensor

from lasem import EM, Branch, Fixed, Learner, TrainingConfig
from lasem.errors import StorageError
from lasem.sharing import AbstractSharing

from .fixture import GREY, SHARINGS, assert_same_tensors, files_in, saved, searching, tiny_net, tiny_task

QUICK = TrainingConfig(epochs=2, batch_size=5, learning_rate=0.01)
IMAGES = torch.rand(5, *GREY, generator=torch.Generator().manual_seed(0))
every_sharing = pytest.mark.parametrize("sharing", SHARINGS, ids=lambda s: s.name)


def learned(sharing: AbstractSharing, *configurations: str) -> Learner:
    """Tasks a, b, ... with these configurations."""
    learner = Learner(tiny_net(), sharing=sharing, training=QUICK, seed=3)
    for name, configuration in zip("abcdef", configurations, strict=False):
        searching(learner, Fixed(configuration))
        learner.learn(tiny_task(name, seed=ord(name)))
    return learner


def damage(folder: Path, name: str) -> tuple[Path, bytes]:
    """Damage a task's file, or that of a version of a layer; the file, and what it held."""
    index = json.loads((folder / "config.json").read_text())
    parts = {task["name"]: task["weights"] for task in index["tasks"]} | index["versions"]
    path = folder / "parts" / f"{parts[name]['checksum']}.safetensors"
    whole = path.read_bytes()
    path.write_bytes(b"damaged")
    return path, whole


@every_sharing
def test_what_only_the_task_used_goes(sharing: AbstractSharing, tmp_path: Path) -> None:
    learner = learned(sharing, "TS", "TT", "SS")
    before = saved(learner, tmp_path)
    learner.forget("b")
    after = saved(learner, tmp_path)
    kept = {name for name in before if not name.startswith(("tasks/b:", "shared:layer.1."))}
    assert set(after) == kept  # layer 1 was shared by b alone
    assert all(torch.equal(after[name], before[name]) for name in kept)
    assert len(list((tmp_path / "parts").iterdir())) == 3
    for model in (learner, Learner.load(tmp_path)):
        assert model.num_parameters() == sum(t.numel() for t in after.values())


def test_the_next_task_draws_what_no_task_has_drawn(tmp_path: Path) -> None:
    def start_of(name: str, learner: Learner) -> dict[str, Tensor]:
        learner.training = TrainingConfig(epochs=1, learning_rate=1e-30, optimiser="sgd", specific_start="fresh")
        searching(learner, Fixed("none"))
        learner.learn(tiny_task(name))
        found = saved(learner, tmp_path / f"{name}{len(list(tmp_path.iterdir()))}")
        return {k.split(":")[1]: v for k, v in found.items() if k.startswith(f"tasks/{name}:") and "weight" in k}

    learner = learned(SHARINGS[0], "SS", "SS")
    learner.forget("b")
    learner.save(tmp_path / "model")
    in_memory = start_of("x", learner)
    assert_same_tensors(in_memory, start_of("x", Learner.load(tmp_path / "model")))  # the count is kept on disk
    second = start_of("x", learned(SHARINGS[0], "SS"))  # what b started from
    third = start_of("x", learned(SHARINGS[0], "SS", "SS"))
    assert all(not torch.equal(in_memory[key], second[key]) for key in in_memory)
    assert_same_tensors(in_memory, third)


def test_all_may_be_forgotten_and_the_next_is_a_first_task() -> None:
    learner = Learner(tiny_net(), training=QUICK)
    learner.learn(tiny_task("a"))
    learner.learn(tiny_task("b", seed=1))
    learner.forget("a")
    learner.forget("b")
    assert learner.num_parameters() == 0
    record = learner.learn(tiny_task("a"))
    assert (record.configurations, record.index) == (("TT",), 2)  # nothing to transfer: not searched
    assert isinstance(learner.method.search, EM)


def test_a_name_may_be_learned_again_and_only_the_same_model_is_saved_over(tmp_path: Path) -> None:
    learner = learned(SHARINGS[0], "TS", "TT")
    before = saved(learner, tmp_path)
    files = files_in(tmp_path)
    with pytest.raises(StorageError, match="holds another model"):
        learned(SHARINGS[0], "TS").save(tmp_path)  # it never had b
    assert files_in(tmp_path) == files
    learner.forget("a")
    learner.learn(tiny_task("a", seed=5))
    after = saved(learner, tmp_path)
    assert Learner.load(tmp_path).task_names == ("b", "a")
    assert not torch.equal(before["tasks/a:head.weight.0"], after["tasks/a:head.weight.0"])
    assert len(list((tmp_path / "parts").iterdir())) == 4  # two layers that are shared, two tasks


def test_a_lazy_model_reads_only_the_task_that_is_asked_for(tmp_path: Path) -> None:
    learner = learned(SHARINGS[0], "TS", "TT", "SS")
    learner.save(tmp_path)
    answers = learner.logits("b", IMAGES)
    damage(tmp_path, "a")
    lazy = Learner.load(tmp_path, lazy=True)
    assert torch.equal(lazy.logits("b", IMAGES), answers)
    assert (lazy.configuration("a"), lazy.num_parameters()) == ("TS", learner.num_parameters())
    with pytest.raises(StorageError, match="checksum differs"):
        lazy.logits("a", IMAGES)
    with pytest.raises(StorageError, match="checksum differs"):
        Learner.load(tmp_path)


def test_earlier_versions_of_a_layer_are_read_for_the_tasks_that_use_them(tmp_path: Path) -> None:
    learner = Learner(tiny_net(), training=QUICK, search=Fixed("TS"), protect=Branch())
    answers = {}
    for name in "abc":
        learner.learn(tiny_task(name, seed=ord(name)))
        learner.save(tmp_path)
        answers[name] = learner.logits(name, IMAGES)
    kept = {path: path.stat().st_mtime_ns for path in (tmp_path / "parts").iterdir()}
    assert sorted(learner.model.versions) == ["0@0", "0@1", "0@2"]
    learner.save(tmp_path)
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "parts").iterdir()} == kept  # written once
    of_a, whole = damage(tmp_path, "0@0")
    lazy = Learner.load(tmp_path, lazy=True)
    for name in "bc":
        assert torch.equal(lazy.logits(name, IMAGES), answers[name])
    assert lazy.num_parameters() == learner.num_parameters()
    with pytest.raises(StorageError, match="checksum differs"):
        lazy.logits("a", IMAGES)
    with pytest.raises(StorageError, match="checksum differs"):
        Learner.load(tmp_path)
    of_a.write_bytes(whole)
    for model in (Learner.load(tmp_path, lazy=True), Learner.load(tmp_path)):
        assert all(torch.equal(model.logits(name, IMAGES), answers[name]) for name in "abc")
        model.forget("c")  # the version before is the latest now
        model.save(tmp_path / "copy")
        assert sorted(model.model.versions) == ["0@0", "0@1"]
        again = Learner.load(tmp_path / "copy", lazy=True)
        assert all(torch.equal(again.logits(name, IMAGES), answers[name]) for name in "ab")
        shutil.rmtree(tmp_path / "copy")
    learner.forget("a")
    learner.forget("b")
    learner.save(tmp_path)
    assert sorted(learner.model.versions) == ["0@2"]
    assert len(list((tmp_path / "parts").iterdir())) == 2
    assert torch.equal(Learner.load(tmp_path).logits("c", IMAGES), answers["c"])
