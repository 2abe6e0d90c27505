"""The prior that a stream teaches: found where tasks agree, flat where they do not."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from learner.fixture import changed_index, tiny_net, tiny_task

from lasem import Freeze, GrowingModel, Learner, TrainingConfig
from lasem.cli.main import main
from lasem.errors import StorageError
from lasem.report.model import write_model
from lasem.search import Evidence
from lasem.search.em import log_prior
from lasem.search.evidence import bayes_factors, learned_prior
from lasem.space import full


def noisy(pattern: str, generator: torch.Generator) -> list[float]:
    """Evidence for a pattern that one task alone is often wrong about."""
    return [(1.0 if letter == "T" else -1.0) + 2 * float(torch.randn((), generator=generator)) for letter in pattern]


@pytest.mark.parametrize("pattern", ["TTSS", "SSTT"])
def test_streams_of_one_kind_are_found_within_eight_tasks(pattern: str) -> None:
    right = 0
    for seed in range(25):
        generator = torch.Generator().manual_seed(seed)
        factors = [noisy(pattern, generator) for _ in range(8)]
        prior = learned_prior(factors, 4)
        right += sum(int((p > 0.5) == (letter == "T")) for p, letter in zip(prior.tolist(), pattern, strict=True))
    assert right / 100 > 0.8


def test_alternating_streams_stay_flat() -> None:
    generator = torch.Generator().manual_seed(0)
    factors = [noisy("TTSS" if task % 2 else "SSTT", generator) for task in range(40)]
    assert learned_prior(factors, 4).sub(0.5).abs().max() < 0.2


def test_it_solves_its_equations_and_begins_even() -> None:
    factors = [[3.0, -1.0], [0.5, -2.0], [-0.2, 0.0]]
    prior = learned_prior(factors, 2)
    for layer, p in enumerate(prior.tolist()):
        posteriors = [1 / (1 + (1 - p) / p * math.exp(-of_task[layer])) for of_task in factors]
        assert p == pytest.approx((4 * 0.5 + sum(posteriors)) / (4 + 3), abs=1e-9)
    assert learned_prior([], 3).tolist() == [0.5] * 3


def test_bayes_factors_are_ratios_of_means() -> None:
    transfers = torch.tensor([c.bits for c in full(3)], dtype=torch.int64)
    evidence = torch.randn(8, generator=torch.Generator().manual_seed(1))
    for layer, found in enumerate(bayes_factors(transfers, evidence).tolist()):
        sides: tuple[list[float], list[float]] = ([], [])
        for configuration, value in zip(full(3), evidence.tolist(), strict=True):
            sides[configuration[layer]].append(math.exp(value))
        assert found == pytest.approx(math.log(sum(sides[1]) / 4) - math.log(sum(sides[0]) / 4), abs=1e-6)
    assert bayes_factors(transfers[:4], evidence[:4])[0] == 0  # no configuration transfers the first layer


def test_a_prior_decides_where_the_evidence_does_not() -> None:
    transfers = torch.tensor([[0, 0], [0, 1], [1, 0], [1, 1]])
    assert log_prior(transfers, torch.tensor([0.8, 0.3])).exp().tolist() == pytest.approx([0.14, 0.06, 0.56, 0.24])
    scores, owned = torch.tensor([[-1.0, -1.2], [-1.0, -1.1], [-1.1, -1.0], [-1.2, -1.0]]), torch.arange(4)
    search = Evidence(errors=0.0)
    assert search.choose(scores, owned) in (1, 2)
    for p in ([0.9, 0.1], [0.1, 0.9]):
        chosen = search.choose(scores, owned, log_prior(transfers, torch.tensor(p)) / search.temper)
        assert transfers[chosen].tolist() == [round(share) for share in p]


def test_a_model_keeps_what_each_task_says_until_it_is_forgotten(tmp_path: Path, capsys: Any) -> None:
    training = TrainingConfig(epochs=4, batch_size=5)
    net, folder = tiny_net(depth=3), tmp_path / "model"
    model = GrowingModel(folder, net=net, search=Evidence(), protect=Freeze(), training=training, seed=3)
    for seed, name in enumerate("abc"):
        model.learn(name, tiny_task(name, seed=seed))
    kept = {name: route.evidence for name, route in Learner.load(folder).model.routes.items()}
    assert [len(evidence) for evidence in kept.values()] == [0, 3, 3]
    assert model.show().prior == tuple(learned_prior([kept["b"], kept["c"]], 3).tolist())
    record = model.task_record("c")
    assert record is not None
    assert record.frontier is not None
    assert main(["frontier", str(tmp_path / "model"), "--task", "c"]) == 0
    shown = capsys.readouterr().out
    assert all(layers in shown for layers in record.frontier)
    assert main(["frontier", str(tmp_path / "model"), "--task", "c", "--json"]) == 0
    assert [offer["layers"] for offer in json.loads(capsys.readouterr().out)] == list(record.frontier)
    page = write_model(tmp_path / "page.html", model.show(), model.records()).read_text(encoding="utf-8")
    assert all(f"{layers} {100 * share:.1f} % (" in page for layers, share in record.frontier.items())
    model.forget("b")
    assert model.show().prior == tuple(learned_prior([kept["c"]], 3).tolist())
    for evidence, said in (([1.0], "as evidence"), ([1.0, 2.0, math.inf], "finite number")):
        with changed_index(tmp_path / "model") as index:
            index["tasks"][-1]["evidence"] = evidence
        with pytest.raises(StorageError, match=said):
            Learner.load(tmp_path / "model")
