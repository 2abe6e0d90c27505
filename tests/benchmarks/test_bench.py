"""``lasem bench`` on its small setting: that it runs, what it writes, and that a wrong result fails it."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import torch
from torch import Tensor

from benchmarks.arithmetic import arithmetic_floor, node_activation_bytes
from benchmarks.correct import trained_gap
from benchmarks.row import WrongResultError
from benchmarks.suite import BENCHMARKS, FULL, SMOKE
from lasem.cli import main
from lasem.nets import cifar
from lasem.search import DeepEM, MixturePhase
from lasem.space import full, listed
from lasem.training import Batch, TaskWeights


def test_the_small_setting_runs_every_benchmark(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    threads = torch.get_num_threads()
    path = tmp_path / "out.json"
    assert main(["bench", "--smoke", "--json", str(path)]) == 0
    assert torch.get_num_threads() == threads
    found = json.loads(path.read_text())
    assert found["smoke"] is True
    assert list(dict.fromkeys(row["benchmark"] for row in found["rows"])) == list(BENCHMARKS)
    assert all(row["value"] >= 0 for row in found["rows"])
    assert all(row["value"] > 0 for row in found["rows"] if row["benchmark"] != "correct")
    shown = capsys.readouterr().out
    for row in found["rows"]:
        assert row["setting"] in shown
        assert row["what"] in shown
    searched = [row["what"] for row in found["rows"] if row["benchmark"] == "task" and row["floor"]]
    assert all(re.fullmatch(r"a task with .*EM \([ST]{3}\) / with Fixed\(all\)", what) for what in searched)
    plain, tree = [row for row in found["rows"] if row["benchmark"] == "batch"][:2]
    assert tree["floor"] == pytest.approx(plain["value"] / arithmetic_floor(SMOKE.net, 10))


def test_some_benchmarks_alone(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "--smoke", "--only", "pruned,batch"]) == 0
    shown = capsys.readouterr().out
    assert "leading prior 0.9" in shown
    assert "images a second" in shown
    assert "brute force" not in shown
    assert "deep EM" not in shown


def test_a_wrong_result_fails_it(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    right = DeepEM.step

    def wrong(self: DeepEM, state, log_likelihood):  # type: ignore[no-untyped-def]
        weights, after = right(self, state, log_likelihood)
        return weights.roll(1), after

    monkeypatch.setattr(DeepEM, "step", wrong)
    assert main(["bench", "--smoke", "--only", "correct"]) == 1
    assert "wrong result: Expected the same from deep EM" in capsys.readouterr().err


def test_pruned_steps_are_timed_with_their_full_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    passes: list[tuple[int, ...]] = []
    right = MixturePhase._full_pass

    def counted(self: MixturePhase, parts: TaskWeights, batch: Batch) -> Tensor:
        passes.append(self._evaluated)
        return right(self, parts, batch)

    monkeypatch.setattr(MixturePhase, "_full_pass", counted)
    rows = BENCHMARKS["pruned"](SMOKE)
    kept = [int(re.findall(r"(\d+) of 8 kept", row.setting)[0]) for row in rows]
    assert kept == [8, 7, 1]
    # one interval in each of two turns, of all but the first, and in each the same ones are kept
    assert sorted(map(len, passes)) == [1, 1, 7, 7]
    assert len(set(passes)) == 2
    assert rows[2].floor == pytest.approx(1 + arithmetic_floor(SMOKE.net, 10) / 30)


def test_off_the_cpu_gradients_may_differ_by_the_order_of_sums_and_no_more() -> None:
    def weight(gradient: list[float]) -> Tensor:
        found = torch.ones(len(gradient), requires_grad=True)
        found.grad = torch.tensor(gradient)
        return found

    def trained(error: float) -> dict[str, Tensor]:
        return {"weight": weight([1.0, -2.0 + error, 0.0]), "silent": weight([0.0]), "read": torch.zeros(2)}

    assert trained_gap(trained(0), trained(1e-5), "hps", to_the_bit=False) == pytest.approx(5e-6, rel=0.1)
    with pytest.raises(WrongResultError, match=r"hps: a pruned step .* \('weight'\); they differ by 0.005"):
        trained_gap(trained(0), trained(0.01), "hps", to_the_bit=False)
    other = {**trained(0), "read": torch.full((2,), 1e-9)}
    with pytest.raises(WrongResultError, match=r"same bits from hps: .*they differ in 'read'"):
        trained_gap(trained(0), other, "hps")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--only", "prunned"], "--only must be one of correct, tree, pruned"),
        (["--only="], "--only needs at least one benchmark"),
        (["--threads", "-1"], "threads must be at least 0; got -1"),
        (["--device", "cuda:77"], "Expected a device that is there"),
        (["--json", "no/such/folder.json"], "Expected a file to write in a folder that is there"),
        (["--smokey"], "There is no option --smokey. Did you mean '--smoke'?"),
    ],
)
def test_mistakes_are_told_before_anything_is_measured(
    words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["bench", *words]) == 2
    out, err = capsys.readouterr()
    assert message in err
    assert out == ""


def test_help_names_every_benchmark(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "--help"]) == 0
    shown = capsys.readouterr().out
    assert all(f"\n  {name} " in shown for name in BENCHMARKS)


def test_the_sizes_are_those_that_are_asked_for() -> None:
    assert FULL.net == cifar()
    assert FULL.depths[-1] == SMOKE.depths[-1] == 50
    assert FULL.num_tasks == (2, 20, 200, 1000)


def test_the_floor_of_some_configurations_counts_each_prefix_once() -> None:
    net = cifar()
    layers = [32 * 32 * 27 * 32, 32 * 32 * 288 * 32, 16 * 16 * 288 * 64, 16 * 16 * 576 * 64]
    head = 4096 * 64 + 64 * 10
    expected = (layers[0] + 2 * layers[1] + 2 * layers[2] + 3 * layers[3] + 3 * head) / (sum(layers) + head)
    some = listed(["SSTT", "SSTS", "STSS"])
    assert arithmetic_floor(net, 10, some) == pytest.approx(expected)
    assert arithmetic_floor(net, 10, listed(["SSTT"])) == 1
    assert arithmetic_floor(net, 10, full(4)) == arithmetic_floor(net, 10)
    given = [32 * 1024, 32 * (1024 + 256), 64 * 256, 64 * (256 + 64)]
    stored = given[0] + 2 * given[1] + 2 * given[2] + 3 * given[3]
    assert node_activation_bytes(net, 5, some) == 4 * 5 * stored
