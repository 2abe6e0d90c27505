"""That the benchmarks run; what they measure is looked at by people, on idle machines."""

import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from learner.fixture import tiny_net, tiny_task
from metrics.records import task_record

from benchmarks import compiled_step, controls, ctrl, many_tasks, mixture, paper_numbers, result_figures, training_time
from benchmarks.measure import PeakMemory
from lasem import Fixed, Freeze, Learner, TrainingConfig
from lasem.data import TaskStream
from lasem.errors import ConfigError
from lasem.metrics import load_runs
from lasem.nets.backbone import default_is_installed
from lasem.records import TimingRecord, to_json
from lasem.report.numbers import signed


def test_compiled_step_runs_small(capsys: pytest.CaptureFixture[str]) -> None:
    threads = torch.get_num_threads()
    (result,) = compiled_step.main(["--net", "digits", "--batch", "3", "--turns", "2", "--backend", "eager"])
    assert torch.get_num_threads() == threads
    assert min(result.speed, result.first_seconds, result.second_seconds, result.plain_seconds) > 0
    assert len(capsys.readouterr().out.splitlines()) == 2


@pytest.mark.skipif(not default_is_installed(), reason="needs the extra pretrained")
def test_many_tasks_of_a_pretrained_network_answer_as_one_by_one(tmp_path: Path) -> None:
    learner = many_tasks.learned(side=64)
    model = many_tasks.copies(learner, {many_tasks.HEAD: 2, many_tasks.STAGE: 2}, tmp_path)
    assert many_tasks.all_at_once(model, 1) > 0  # both compare answers to 1e-5
    assert many_tasks.mixed(model, 1) > 0
    assert len({answer.probabilities for answer in model.predict_all([tmp_path / "image.png"])}) == 4


def test_peak_memory_counts_what_is_alive_at_once() -> None:
    with PeakMemory() as memory:
        a = torch.zeros(1000)
        a.add_(1)
        a[:10].mul_(2)
        b = a + 1
        del a
        c = b * 2
        del b, c
    assert memory.peak == 8000


def test_training_time_takes_the_fastest_seed_of_each_epoch(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    seconds = {
        "none": {0: [2.0, 1.0], 1: [1.0, 5.0]},
        "lasem-hps": {0: [4.0, 9.0, 1.0], 3: [8.0, 2.0]},
    }
    for method, by_seed in seconds.items():
        for seed, epochs in by_seed.items():
            folder = tmp_path / f"{method}-{seed}" / "seeds" / str(seed)
            folder.mkdir(parents=True)
            task = f"drawn-{seed}"
            timings = [
                TimingRecord(task=task, epoch=epoch, seconds_training=s, seconds_evaluating=9.0)
                for epoch, s in enumerate(epochs, start=1)
            ]
            (folder / "records.jsonl").write_text(to_json(task_record(task, 0)) + "\n")
            (folder / "timings.jsonl").write_text("".join(to_json(t) + "\n" for t in timings))
    assert training_time.main([str(tmp_path)]) == {"none": 1.0, "lasem-hps": (4 + 2 + 1) / 2}
    assert capsys.readouterr().out.splitlines()[1].split() == ["lasem-hps", "3.50", "7", "s"]
    with pytest.raises(SystemExit):
        training_time.main([str(tmp_path), "--unit", "joint"])
    assert "expected runs of joint" in capsys.readouterr().err


def test_figures_of_results_are_what_their_numbers_give(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    committed = result_figures.RESULTS
    shutil.copy(committed / "unlike.jsonl", tmp_path)
    monkeypatch.setattr(result_figures, "RESULTS", tmp_path)
    result_figures.main()
    for name in ("one_model.svg", "price.svg"):
        texts = [
            re.findall(r"<text[^>]*>(.*?)</text>", (folder / name).read_text()) for folder in (committed, tmp_path)
        ]
        assert texts[0] == texts[1]
        assert len(texts[0]) > 10


def test_the_best_static_row_of_a_seed_is_chosen_by_the_other_seeds() -> None:
    rows = {"evidence": [0.5, 0.6, 0.7], "head": [0.9, 0.1, 0.2], "norm": [0.3, 0.4, 0.35]}
    rows |= {row: [0.0] * 3 for row in result_figures.NAMES if row not in rows}
    results = [
        {"row": row, "task": "a", "seed": seed, "accuracy": accuracy}
        for row, of_row in rows.items()
        for seed, accuracy in enumerate(of_row)
    ]
    chosen = ["norm", "head", "head"]  # sums of the other two seeds: 0.75 > 0.3, 1.1 > 0.65, 1.0 > 0.7
    above = [rows["evidence"][seed] - rows[row][seed] for seed, row in enumerate(chosen)]
    found = result_figures.gains(results, ("head", "norm"))
    assert found == {"a": pytest.approx(100 * sum(above) / 3)}
    assert result_figures.gains(results[:1], ("head", "norm")) == {}


def test_numbers_of_the_paper_s_table_are_kept_once_and_drawn(
    tmp_path: Path, lasem: Any, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    kept, runs = tmp_path / "kept.jsonl", tmp_path / "runs"
    stream = ["--stream.num_tasks", "2", "--stream.classes_per_task", "2", "--epochs", "1", "--seeds", "0,1"]
    lasem("compare", "--methods", "none,lasem-hps,all-hps", "--out", str(runs), *stream)
    with pytest.raises(ConfigError, match=r"Expected runs of cifar100; .* has those of digits"):
        paper_numbers.main([str(runs), "--kept", str(kept)])
    monkeypatch.setitem(paper_numbers.STREAMS, "cifar100", paper_numbers.STREAMS["digits"])
    for _ in range(2):
        paper_numbers.main([str(runs), "--kept", str(kept)])
    found = paper_numbers.read(kept)
    assert len(kept.read_text().splitlines()) == 6
    run = load_runs(runs / "all-hps-1")[0]
    assert found["all-hps"][1]["peak"] == pytest.approx(run.peak_accuracies, abs=1e-4)
    assert found["all-hps"][1]["final"] == pytest.approx(run.final_accuracies, abs=1e-4)
    shown = capsys.readouterr().out.splitlines()
    assert shown[-1].endswith(": -")  # neither of the two was measured
    assert "| 24.7 |" in shown[-3]
    above = np.mean([np.mean(found["lasem-hps"][s]["peak"]) - np.mean(found["all-hps"][s]["peak"]) for s in (0, 1)])
    assert f"| {signed(float(above)).replace('−', '-')} (p " in shown[-3]
    assert paper_numbers.shown([1.0, 1.0]) == "1.0"
    assert paper_numbers.shown([0.784, 0.792], 3) == "0.788 ± 0.006"


def test_the_document_has_the_table_of_the_numbers_that_are_kept() -> None:
    documents = {"cifar100": "../reproduction.md", "tiny": "tiny_imagenet.md", "digits": "tiny_imagenet.md"}
    assert documents.keys() == paper_numbers.STREAMS.keys()
    for stream, document in documents.items():
        kept = paper_numbers.read(paper_numbers.FOLDER / f"{stream}.jsonl")
        drawn = paper_numbers.table(kept, published=stream == "cifar100")
        assert drawn in (paper_numbers.FOLDER / document).read_text()


def test_single_task_learning_on_all_images_trains_on_the_validation_images(tmp_path: Path) -> None:
    task = tiny_task("a")
    joined = task.train.joined(task.valid)
    assert joined is not None
    line = paper_numbers.learned_from_all_images(
        TaskStream.made_by(lambda _: task, name="t", num_tasks=1), tiny_net(), 0
    )
    plain = Learner(tiny_net(), search=Fixed("none"), training=TrainingConfig(patience=0, tolerance=1e9))
    assert line["peak"] == [round(plain.learn(replace(task, train=joined)).peak_accuracy, 4)]
    assert line["parameters"] == plain.num_parameters()
    for _ in range(2):
        paper_numbers.add(line, tmp_path / "kept.jsonl")
    assert paper_numbers.read(tmp_path / "kept.jsonl") == {paper_numbers.ALL_IMAGES: {0: line}}


def test_the_tuned_baseline_trains_all_layers_of_an_earlier_task(tmp_path: Path) -> None:
    still = TrainingConfig(epochs=1, batch_size=5, augment="none", learning_rate=1e-20)
    learner = Learner(tiny_net(), search=ctrl.Tuned(), protect=Freeze(), training=still)
    learner.learn(tiny_task("a"))
    found = ctrl.learn(learner, tiny_task("b", seed=1))
    assert found["configuration"] == "SSSS"[: learner.net.depth]
    first, second = (learner.method.plain_weights(learner.net, learner.model, name) for name in "ab")
    changed = {key for key, value in first.items() if not torch.allclose(value, second[key])}
    assert {key.partition(".")[0] for key in changed} == {"head"}
    ctrl.write(tmp_path / "out.jsonl", found)
    assert (tmp_path / "out.jsonl").read_text().startswith('{"task": "b", "accuracy": ')


def test_control_streams_begin_alike_and_labels_are_shuffled() -> None:
    sizes = {"num_train": 6, "num_valid": 2, "num_test": 2}
    of = {kind: [controls.make_task(kind, 3, index, **sizes) for index in range(3)] for kind in controls.KINDS}
    x = {kind: [task.train.images.take(torch.arange(24)) for task in tasks] for kind, tasks in of.items()}
    for kind in controls.KINDS:
        assert torch.equal(x[kind][0], x["TTSS"][0])
        assert of[kind][1].train.labels.bincount().tolist() == [6] * 4
    assert torch.equal(x["alternating"][1], x["TTSS"][1])
    assert torch.equal(x["alternating"][2], x["SSTT"][2])
    assert not torch.equal(of["shuffled"][1].train.labels, of["TTSS"][1].train.labels)


def test_rank_correlation_is_spearman_s() -> None:
    from scipy.stats import spearmanr

    x, y = torch.tensor([3.0, 1.0, 2.0, 2.0, 5.0]), torch.tensor([1.0, 1.0, 4.0, 2.0, 3.0])
    assert controls.rank_correlation(x, y) == pytest.approx(float(spearmanr(x, y).statistic))


def test_a_mixture_is_measured_next_to_ensembles_of_as_many() -> None:
    learner = Learner(tiny_net(), search=Fixed("all"), training=TrainingConfig(epochs=1, batch_size=10))
    learner.learn(tiny_task("a"))
    after, found = mixture.measured(learner, tiny_task("b", seed=1))
    assert after.task_names == ("a", "b")
    assert learner.task_names == ("a",)
    test = tiny_task("b", seed=1).test
    answers = after.predict("b", test.images.take(torch.arange(6)))
    right = sum(answer == f"b-class-{label}" for answer, label in zip(answers, test.labels.tolist(), strict=True))
    assert found["chosen"] == pytest.approx(right / 6)
    assert len(found) == 8
