"""Auto-RGN: the norms against the definition, and that a step is as long as they say."""

import math
from typing import Any

import pytest
import torch
from learner.fixture import copied, tiny_net, tiny_task
from training.fixture import loop_over, start_with
from training.test_kept import net_of

from lasem import HardSharing, Learner, TrainingConfig
from lasem.search import AutoRGN, Fixed
from lasem.search.tuning import RGNPhase, relative_gradient_norms
from lasem.space import listed
from lasem.training.config import OPTIMISERS, build_optimiser
from lasem.tree import flatten

CONFIG = TrainingConfig(epochs=4, batch_size=5, learning_rate=0.01, augment="none")


def test_norms_are_their_definition() -> None:
    source = torch.Generator().manual_seed(0)
    shapes = [(3, 2), (4,), (2, 1, 2)]
    weights = [torch.randn(shape, dtype=torch.float64, generator=source) for shape in shapes] + [torch.zeros(2)]
    gradients = [[torch.randn(w.shape, dtype=torch.float64, generator=source) for w in weights] for _ in range(5)]
    means = []
    for position, weight in enumerate(weights[:3]):
        size = math.sqrt(sum(x**2 for x in weight.flatten().tolist()))
        slopes = [math.sqrt(sum(x**2 for x in of[position].flatten().tolist())) for of in gradients]
        means.append(sum(slope / size for slope in slopes) / 5)
    expected = [mean / max(means) for mean in means] + [1.0]
    assert relative_gradient_norms([w.double() for w in weights], gradients) == pytest.approx(expected, rel=1e-12)
    assert relative_gradient_norms([torch.ones(2)] * 2, [[torch.zeros(2)] * 2]) == [0.0, 0.0]


@pytest.mark.parametrize("optimiser", OPTIMISERS)
def test_each_tensor_s_step_is_that_of_its_own_step_size(optimiser: Any) -> None:
    config = TrainingConfig(epochs=1, batch_size=5, learning_rate=0.01, augment="none", optimiser=optimiser)
    start = start_with(tiny_net(dropout=0.0), HardSharing(), listed(["SS"]), config)
    loop = loop_over(RGNPhase(AutoRGN(), start))
    loop.run_epoch()
    phase = RGNPhase(AutoRGN(), start)
    weights = copied(phase.initial(), requires_grad=True)
    phase.begin_epoch(weights, 0, 0.01)
    assert sorted(phase.scales) == sorted(flatten(weights))
    assert max(phase.scales.values()) == 1
    assert min(phase.scales.values()) < 0.5
    apart = build_optimiser([(tensor, phase.scales[path]) for path, tensor in flatten(weights).items()], config)
    for group in apart.param_groups:
        group["lr"] = 0.01 * group["scale"]
    for batch in phase.batches(start.device, torch.Generator().manual_seed(1)):
        apart.zero_grad()
        phase.loss(weights, batch, torch.Generator()).backward()  # type: ignore[no-untyped-call]
        apart.step()
    for path, value in flatten(weights).items():
        torch.testing.assert_close(flatten(loop.weights)[path], value, rtol=1e-4, atol=1e-6)


def test_a_pretrained_network_tries_steps_of_its_own() -> None:
    learner, phases = Learner(net_of(), sharing=HardSharing(train_shared=False), search=AutoRGN(), training=CONFIG), []
    record = learner.learn(tiny_task("a"), on_epoch=lambda epoch, *_: phases.append(epoch.phase))
    assert phases == ["step 1e-03", "step 1e-02", "step 1e-01", *["all images"] * 2]
    assert record.configuration == "SSS"
    start, own = learner.net.blocks[0].initial(torch.Generator(), "he"), learner.model.own["a"]
    stayed = [name for name, value in start.items() if torch.equal(own[f"layer.0.{name}"], value)]
    assert stayed == ["1.weight", "1.bias"]  # of the normalisation; the convolution's bias moves


def test_a_first_task_that_is_not_fine_tuned_is_trained_as_usual() -> None:
    records = [Learner(tiny_net(), search=s, training=CONFIG).learn(tiny_task()) for s in (AutoRGN(), Fixed("none"))]
    assert records[0] == records[1]
