"""``lasem bench`` on its small setting: that it runs, what it writes, and that a wrong result fails it."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks.measure import arithmetic_floor, leaf_activation_bytes, node_activation_bytes
from benchmarks.suite import BENCHMARKS, FULL, SMOKE
from lasem.nets import cifar
from lasem.search import DeepEM
from lasem.space import full, listed

LAYERS, HEAD = [32 * 32 * 27 * 32, 32 * 32 * 288 * 32, 16 * 16 * 288 * 64, 16 * 16 * 576 * 64], 4096 * 64 + 64 * 10
"""Multiplications in the CIFAR network for one image."""


def test_the_small_setting_runs_every_benchmark(tmp_path: Path, lasem: Any) -> None:
    threads = torch.get_num_threads()
    path = tmp_path / "out.json"
    shown = lasem("bench", "--smoke", "--json", str(path)).out
    assert torch.get_num_threads() == threads
    found = json.loads(path.read_text())
    assert found["smoke"] is True
    assert list(dict.fromkeys(row["benchmark"] for row in found["rows"])) == list(BENCHMARKS)
    assert all(row["value"] >= 0 for row in found["rows"])
    assert all(row["value"] > 0 for row in found["rows"] if row["benchmark"] != "correct")
    for row in found["rows"]:
        assert row["setting"] in shown
        assert row["what"] in shown
    searched = [row["what"] for row in found["rows"] if row["benchmark"] == "task" and row["floor"]]
    assert all(re.fullmatch(r"a task with .*EM \([ST]{3}\) / with Fixed\(all\)", what) for what in searched)
    plain, tree = [row for row in found["rows"] if row["benchmark"] == "batch"][:2]
    assert tree["floor"] == pytest.approx(plain["value"] / arithmetic_floor(SMOKE.net, 10))


def test_some_benchmarks_alone(lasem: Any) -> None:
    shown = lasem("bench", "--smoke", "--only", "tree,batch").out
    assert "committed step" in shown
    assert "images a second" in shown
    assert "brute force" not in shown
    assert "deep EM" not in shown


def test_a_wrong_result_fails_it(monkeypatch: pytest.MonkeyPatch, lasem: Any) -> None:
    right = DeepEM.step

    def wrong(self: DeepEM, state, log_likelihood):  # type: ignore[no-untyped-def]
        weights, after = right(self, state, log_likelihood)
        return weights.roll(1), after

    monkeypatch.setattr(DeepEM, "step", wrong)
    assert "wrong result: Expected the same from deep EM" in lasem("bench", "--smoke", "--only", "correct", code=1).err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--only", "tre"], "--only must be one of correct, tree, task"),
        (["--only="], "--only needs at least one benchmark"),
        (["--threads", "-1"], "--threads must be at least 0 and at most 1024; got -1"),
        (["--device", "cuda:77"], "Expected a device that is there"),
        (["--json", "no/such/folder.json"], "Expected a file to write in a folder that is there"),
        (["--smokey"], "There is no option --smokey. Did you mean '--smoke'?"),
    ],
)
def test_mistakes_are_told_before_measuring(words: list[str], message: str, lasem: Any) -> None:
    out, err = lasem("bench", *words, code=2)
    assert message in err
    assert out == ""


def test_help_names_every_benchmark(lasem: Any) -> None:
    shown = lasem("bench", "--help").out
    assert all(f"\n  {name} " in shown for name in BENCHMARKS)


def test_the_sizes_are_those_that_are_asked_for() -> None:
    assert FULL.net == cifar()
    assert FULL.depths[-1] == SMOKE.depths[-1] == 50
    assert FULL.num_tasks == (2, 20, 200, 1000)


def test_the_floor_of_some_configurations_counts_each_prefix_once() -> None:
    net, layers, head = cifar(), LAYERS, HEAD
    expected = (layers[0] + 2 * layers[1] + 2 * layers[2] + 3 * layers[3] + 3 * head) / (sum(layers) + head)
    some = listed(["SSTT", "SSTS", "STSS"])
    assert arithmetic_floor(net, 10, some) == pytest.approx(expected)
    assert arithmetic_floor(net, 10, listed(["SSTT"])) == 1
    assert arithmetic_floor(net, 10, full(4)) == arithmetic_floor(net, 10)
    given = [32 * 1024, 32 * (1024 + 256), 64 * 256, 64 * (256 + 64)]
    stored = given[0] + 2 * given[1] + 2 * given[2] + 3 * given[3]
    assert node_activation_bytes(net, 5, some) == 4 * 5 * stored


def test_the_floor_of_the_papers_network_is_the_one_that_the_design_names() -> None:
    net, layers, head = cifar(), LAYERS, HEAD
    tree = sum(2 ** (level + 1) * cost for level, cost in enumerate(layers)) + 16 * head
    assert arithmetic_floor(net, 10) == pytest.approx(tree / (sum(layers) + head))
    assert arithmetic_floor(net, 10) == pytest.approx(9.4, abs=0.1)
    per_image = 32 * 32 * 32 * 2 + 16 * 16 * 32 + 16 * 16 * 64 * 2 + 8 * 8 * 64
    assert leaf_activation_bytes(net, 10) == 16 * 10 * 4 * per_image
