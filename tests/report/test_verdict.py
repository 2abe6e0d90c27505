from pathlib import Path

from lasem.metrics import statistic
from lasem.records import to_json
from lasem.report.experiment import load_experiment
from lasem.report.verdict import progress_sentence, verdict

from .fake_run import make_records, task_names, write_run, write_seed


def test_the_key_numbers_are_in_the_sentence(one_seed: Path) -> None:
    experiment = load_experiment(one_seed)
    sentence = verdict(experiment)
    means = experiment.means
    assert sentence.startswith("One model learned 4 tasks")
    assert f"{100 * means['peak_accuracy'].mean:.1f} %" in sentence
    assert f"{100 * means['final_accuracy'].mean:.1f} %" in sentence
    assert f"forgetting ratio {means['forgetting_ratio'].mean:.3f}" in sentence
    assert "separate models" in sentence
    assert progress_sentence(experiment) == ""


def test_without_timings_it_says_nothing_of_time(tmp_path: Path) -> None:
    records, _ = make_records(0, task_names(1), num_epochs=2)
    write_seed(tmp_path, 0, records, [])
    sentence = verdict(load_experiment(tmp_path))
    assert "1 task:" in sentence
    assert "training." not in sentence
    assert "separate" not in sentence


def test_losses_that_gains_make_up_for_are_named(one_seed: Path) -> None:
    experiment = load_experiment(one_seed)
    for smallest, said in ((0.8, "what some tasks lost others gained"), (1.0, "nothing was forgotten")):
        experiment.means["forgetting_ratio"] = statistic([1.0])
        experiment.means["smallest_forgetting_ratio"] = statistic([smallest])
        assert f"so {said} (forgetting ratio 1.000)" in verdict(experiment)


def test_nothing_learned_yet(tmp_path: Path) -> None:
    records, _ = make_records(0, task_names(1), num_epochs=2)
    write_seed(tmp_path, 0, records[:1], [])
    experiment = load_experiment(tmp_path)
    assert "nothing to judge" in verdict(experiment)
    assert progress_sentence(experiment) == "Unfinished: 0 of 1 task learned, 'cifar-0' left after 1 epoch."


def test_which_seeds_are_unfinished(tmp_path: Path) -> None:
    run_dir = write_run(tmp_path, num_seeds=2, num_epochs=2)
    records, _ = make_records(1, task_names(4), num_epochs=2)
    text = "".join(to_json(r) + "\n" for r in records[:5])
    (run_dir / "seeds" / "1" / "records.jsonl").write_text(text, encoding="utf-8")
    sentence = progress_sentence(load_experiment(run_dir))
    assert sentence.startswith("Unfinished: seed 1: 1 of 4 tasks learned, 'cifar-1' left after 1 epoch.")
    assert sentence.endswith("Means are over the finished seeds.")
