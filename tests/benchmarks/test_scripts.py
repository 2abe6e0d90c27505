"""That the benchmarks run; what they measure is looked at by people, on idle machines."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch
from metrics.records import task_record

from benchmarks.measure import PeakMemory
from lasem.records import TimingRecord, to_json

FOLDER = Path(__file__).parents[2] / "benchmarks"


def load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"benchmark_{name}", FOLDER / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def test_compiled_step_runs_small(capsys: pytest.CaptureFixture[str]) -> None:
    threads = torch.get_num_threads()
    (result,) = load("compiled_step").main(["--net", "digits", "--batch", "3", "--turns", "2", "--backend", "eager"])
    assert torch.get_num_threads() == threads
    assert min(result.speed, result.first_seconds, result.second_seconds, result.plain_seconds) > 0
    assert len(capsys.readouterr().out.splitlines()) == 2


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
    module = load("training_time")
    assert module.main([str(tmp_path)]) == {"none": 1.0, "lasem-hps": (4 + 2 + 1) / 2}
    assert capsys.readouterr().out.splitlines()[1].split() == ["lasem-hps", "3.50", "7", "s"]
    with pytest.raises(SystemExit):
        module.main([str(tmp_path), "--unit", "joint"])
    assert "expected runs of joint" in capsys.readouterr().err
