import math
from dataclasses import replace
from itertools import pairwise, product
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from learner.fixture import tiny_net, tiny_task
from torch import Tensor

from lasem.methods import APD, Model
from lasem.methods.apd import adaptive, consolidate, dense, k_means, kernel, prune, sparse
from lasem.methods.model import count
from lasem.methods.plain import run
from lasem.training import AbstractPhase, Step, TrainingConfig
from methods.fixture import batch_of, learner_of, plain_start, seeded, setup_of

NET = tiny_net(linear=(4,), dropout=0.0)  # two convolutions and a fully-connected layer
DEPTH = 3
NEVER = APD(period=0)


def learned(method: APD, num_tasks: int) -> Model:
    return learner_of(method, NET, num_tasks).model


def next_phase(method: APD, model: Model) -> AbstractPhase:
    return next(method.plan(model, tiny_task("next", 3, seed=8), setup_of(NET, len(model.own))))


def random_start(phase: AbstractPhase, seed: int = 0) -> dict[str, Tensor]:
    """Other weights than the phase's start, in float64, some numbers of tau at zero."""
    generator = seeded(seed)
    weights = {}
    for name, value in phase.initial().items():
        noise = 0.1 * torch.randn(value.shape, generator=generator, dtype=torch.float64)
        if name.endswith((".tau", ".past")):
            noise *= torch.rand(value.shape, generator=generator) > 0.3
        weights[name] = (value * (value != 0 if name.endswith((".tau", ".past")) else 1) + noise).requires_grad_()
    return weights


def naive_kernel(sigma: Tensor, mask: Tensor, tau: Tensor) -> Tensor:
    theta = torch.zeros_like(sigma)
    for place in product(*map(range, sigma.shape)):
        theta[place] = sigma[place] * (1 / (1 + math.exp(-float(mask[place[0]])))) + tau[place]
    return theta


def penalty_of(phase: AbstractPhase, weights: dict[str, Tensor]) -> float:
    """The loss less the cross-entropy of the network with kernels from naive loops."""
    batch = batch_of(phase, double=True)
    plain = {name: value for name, value in weights.items() if name.startswith("head.")}
    for i in range(DEPTH):
        parts = [weights[f"layer.{i}.{part}"].detach() for part in ("sigma", "mask", "tau")]
        plain[f"layer.{i}.weight"] = naive_kernel(*parts)
        plain[f"layer.{i}.bias"] = weights[f"layer.{i}.bias"]
    with torch.no_grad():
        loss = phase.loss(weights, batch, seeded())
        return float(loss - F.cross_entropy(run(NET, plain, batch.x), batch.labels))


def squares(*tensors: Tensor) -> float:
    return sum(float(number) ** 2 for tensor in tensors for number in tensor.detach().flatten())


def sizes(*tensors: Tensor) -> float:
    return sum(abs(float(number)) for tensor in tensors for number in tensor.detach().flatten())


def each(weights: dict[str, Tensor], part: str) -> list[Tensor]:
    return [weights[f"layer.{i}.{part}"] for i in range(DEPTH)]


@pytest.mark.parametrize("tensor", [torch.zeros(2, 3), torch.tensor([[0.0, -2.5], [1e-9, 0.0]]), torch.ones(1, 2, 2)])
def test_sparse_tensors_come_back_and_are_counted_as_numbers_and_bits(tensor: Tensor) -> None:
    stored = sparse("a.tau", tensor)
    assert torch.equal(dense("a.tau", stored), tensor)
    assert count(stored) == int((tensor != 0).sum()) + math.ceil(tensor.numel() / 32)


def test_numbers_up_to_l1_are_pruned() -> None:
    tau = torch.tensor([0.5, -0.5, 0.51, -0.51, 0.0, 0.1])
    assert prune(tau, 0.5).tolist() == pytest.approx([0, 0, 0.51, -0.51, 0, 0])


@pytest.mark.parametrize("num_tasks", [0, 2])
def test_the_first_tasks_objective_and_the_simple_form_which_holds_sigma(num_tasks: int) -> None:
    method = APD(l1=0.3, l2=1.7, weight_decay=0.7, retroactive=num_tasks == 0)
    model = learned(method, num_tasks)
    phase = next_phase(method, model)
    weights = random_start(phase)
    sigma, tau, mask = (each(weights, part) for part in ("sigma", "tau", "mask"))
    expected = 0.3 * sizes(*tau) + 0.7 / 2 * squares(*tau, *mask)
    if num_tasks:
        expected += 1.7 * squares(*(now - model.shared[f"layer.{i}.sigma"] for i, now in enumerate(sigma)))
    else:
        expected += 0.7 / 2 * squares(*sigma)
    assert penalty_of(phase, weights) == pytest.approx(expected)
    assert {name.rsplit(".", 1)[1] for name in weights if "layer." in name} == {"sigma", "tau", "mask", "bias"}


def test_a_later_tasks_objective_holds_every_earlier_task_where_it_was_before() -> None:
    method = APD(l1=0.3, l2=1.7, weight_decay=0.7, period=2, groups=1, threshold=0.3)  # groups share, too
    model = learned(replace(method, l1=1e-3), 3)
    assert any(".local." in name for name in model.shared)
    phase = next_phase(method, model)
    weights = random_start(phase)
    tau, mask, past = (each(weights, part) for part in ("tau", "mask", "past"))
    expected = 0.3 * sizes(*tau, *past) + 0.7 / 2 * squares(*tau, *mask)
    for k, name in enumerate(model.own):
        before = NEVER.plain_weights(NET, model, name)  # theta*: what the task answered with when training started
        for i in range(DEPTH):
            local = adaptive(model, name, i) - dense(f"layer.{i}.tau", model.own[name])
            now = naive_kernel(
                weights[f"layer.{i}.sigma"].detach(), model.own[name][f"layer.{i}.mask"], past[i].detach()[k] + local
            )
            expected += 1.7 * squares(before[f"layer.{i}.weight"] - now)
    assert penalty_of(phase, weights) == pytest.approx(expected, rel=1e-5)


def test_at_the_start_of_a_later_task_every_earlier_one_is_exactly_where_it_was() -> None:
    """So the size of the last sum says nothing, and not even rounding is in it."""
    model = learned(APD(period=2, groups=1), 3)
    small, large = (next_phase(APD(l2=l2), model) for l2 in (1.0, 1e12))
    weights = {name: value.clone() for name, value in small.initial().items()}
    batch = batch_of(small)
    assert float(small.loss(weights, batch, seeded())) == float(large.loss(weights, batch, seeded()))


@pytest.mark.parametrize("start", ["zero", "shared"])
def test_kernels_start_as_a_plain_networks(start: Any) -> None:
    method = APD(start=start)
    weights, plain = next_phase(method, Model()).initial(), plain_start(NET)
    model = learned(method, 1)
    later = next_phase(method, model).initial()
    for i in range(DEPTH):
        first = kernel(*(weights[f"layer.{i}.{part}"] for part in ("sigma", "mask", "tau")))
        torch.testing.assert_close(first, plain[f"layer.{i}.weight"])
        sigma = model.shared[f"layer.{i}.sigma"]
        assert torch.equal(later[f"layer.{i}.sigma"], sigma)
        assert torch.equal(later[f"layer.{i}.tau"], sigma if start == "shared" else torch.zeros_like(sigma))


def one_step(phase: AbstractPhase, weights: dict[str, Tensor], optimiser: torch.optim.Optimizer, rate: float) -> None:
    step = Step(0, 0, 1, rate)
    optimiser.zero_grad()
    phase.loss(weights, batch_of(phase, double=True), seeded()).backward()
    phase.change_gradients(weights, step)
    optimiser.step()
    with torch.no_grad():
        phase.after_step(weights, step)


def test_a_step_of_plain_descent_is_the_proximal_step_and_stops_at_zero() -> None:
    method = APD(l1=0.05, l2=0.5, weight_decay=0.0)
    model = learned(replace(method, l1=1e-3), 2)
    phase, smooth = next_phase(method, model), next_phase(replace(method, l1=0.0), model)
    weights, rate = random_start(phase), 0.3
    smooth.loss(weights, batch_of(phase, double=True), seeded()).backward()
    seen, expected = set(), {}
    for name in (f"layer.{i}.{part}" for i in range(DEPTH) for part in ("tau", "past")):
        gradient = weights[name].grad
        expected[name] = torch.zeros_like(gradient)
        for place in product(*map(range, gradient.shape)):
            before = float(weights[name].detach()[place])
            moved = before - rate * float(gradient[place])
            after = math.copysign(max(abs(moved) - rate * 0.05, 0.0), moved)  # soft threshold
            crossed = before * after < 0  # where a step that stops at zero is not the proximal one
            expected[name][place] = 0.0 if crossed else after
            seen.add((before == 0, after == 0, crossed))
    assert len(seen) == 5  # stays away, stays at zero, leaves zero, ends at zero, would have crossed
    one_step(phase, weights, torch.optim.SGD(weights.values(), lr=rate), rate)
    for name, value in expected.items():
        torch.testing.assert_close(weights[name].detach(), value)
        assert torch.equal(weights[name] == 0, value == 0), name


def test_zeros_are_exact_under_adam() -> None:
    """With a penalty steeper than any gradient, every number goes to zero and stays there."""
    phase = next_phase(APD(l1=50.0, l2=0.0), learned(APD(), 1))
    weights = random_start(phase)
    optimiser = torch.optim.Adam(weights.values(), lr=0.02)
    for _ in range(40):
        one_step(phase, weights, optimiser, 0.02)
    for i, part in product(range(DEPTH), ("tau", "past")):
        assert not weights[f"layer.{i}.{part}"].any()
    assert all(weights[f"layer.{i}.sigma"].all() for i in range(DEPTH))


def test_numbers_at_zero_may_leave_it() -> None:
    model = learned(replace(NEVER, l1=0.0), 1)
    for i in range(DEPTH):
        assert adaptive(model, "t0", i).any()


def test_a_weight_that_is_not_finite_is_left_to_be_noticed() -> None:
    phase = next_phase(NEVER, Model())
    weights = {name: value.clone().requires_grad_() for name, value in phase.initial().items()}
    phase.loss(weights, batch_of(phase), seeded()).backward()
    weights["layer.0.tau"].grad.fill_(float("nan"))  # type: ignore[union-attr]
    phase.change_gradients(weights, Step(0, 0, 1, 0.1))
    with torch.no_grad():
        weights["layer.0.tau"].fill_(float("nan"))
        phase.after_step(weights, Step(0, 0, 1, 0.1))
    assert weights["layer.0.tau"].isnan().all()


def test_a_large_penalty_keeps_earlier_tasks_though_sigma_moves() -> None:
    learner = learner_of(APD(l1=0.0, l2=1e4, period=0), NET, 2)
    learner.training = TrainingConfig(epochs=60, batch_size=5, learning_rate=1e-3, patience=0, restore_best=False)
    model = learner.model
    learner.learn(tiny_task("next", 3, seed=8))
    for i in range(DEPTH):
        moved = (learner.model.shared[f"layer.{i}.sigma"] - model.shared[f"layer.{i}.sigma"]).abs()
        assert float(moved.mean()) > 1e-4  # ten times what is allowed to the kernels
    for name in model.own:
        before = NEVER.plain_weights(NET, model, name)
        for key, value in NEVER.plain_weights(NET, learner.model, name).items():
            torch.testing.assert_close(value, before[key], rtol=0, atol=1e-5)
        assert not torch.equal(adaptive(learner.model, name, 0), adaptive(model, name, 0))


def test_without_retroactive_steps_earlier_tasks_move_with_sigma() -> None:
    learner = learner_of(APD(l2=0.0, period=0, retroactive=False), NET, 1)
    before, model = NEVER.plain_weights(NET, learner.model, "t0"), learner.model
    learner.learn(tiny_task("next", 3, seed=8))
    assert all(torch.equal(value, learner.model.own["t0"][key]) for key, value in model.own["t0"].items())
    now = NEVER.plain_weights(NET, learner.model, "t0")
    gate = torch.sigmoid(model.own["t0"]["layer.0.mask"])[:, None, None, None]
    moved = (learner.model.shared["layer.0.sigma"] - model.shared["layer.0.sigma"]) * gate
    assert moved.any()
    torch.testing.assert_close(now["layer.0.weight"] - before["layer.0.weight"], moved, rtol=0, atol=1e-6)


@pytest.mark.parametrize("method", [APD(period=2, groups=1), APD(period=2, groups=1, retroactive=False), NEVER])
def test_heads_biases_and_masks_of_earlier_tasks_are_never_changed(method: APD) -> None:
    models = [learned(method, num_tasks) for num_tasks in range(1, 5)]
    for before, after in pairwise(models):
        for name, own in before.own.items():
            for key, value in own.items():
                if key.startswith("head.") or key.endswith((".mask", ".bias")):
                    assert torch.equal(after.own[name][key], value)


def test_what_is_kept_is_pruned() -> None:
    model = learned(APD(l1=5e-3, period=0), 2)
    for own, i in product(model.own.values(), range(DEPTH)):
        tau = dense(f"layer.{i}.tau", own)
        assert bool(((tau == 0) | (tau.abs() > 5e-3)).all())
        assert not tau.all(), "a test in which nothing is pruned shows nothing"


def without_consolidation(method: APD, num_tasks: int) -> tuple[Model, Model]:
    """The model just before the consolidation that the last task brings, and after it."""
    before = learner_of(method, NET, num_tasks - 1)
    before.method = replace(method, period=0)
    before.learn(tiny_task(f"t{num_tasks - 1}", 2 + (num_tasks - 1) % 2, seed=num_tasks - 1))
    return before.model, learned(method, num_tasks)


@pytest.mark.parametrize("num_tasks", [3, 6])
def test_consolidation_leaves_kernels_where_they_are_within_the_threshold(num_tasks: int) -> None:
    method = APD(period=3, groups=1, threshold=0.02)
    before, after = without_consolidation(method, num_tasks)
    for i, name in product(range(DEPTH), after.own):
        old, new = (NEVER.plain_weights(NET, model, name)[f"layer.{i}.weight"] for model in (before, after))
        slack = method.threshold / 2 + (method.l1 if num_tasks > 3 else 0)  # see below
        assert float((new - old).abs().max()) <= slack + 1e-7
        tau = dense(f"layer.{i}.tau", after.own[name])
        untouched = tau != 0
        assert untouched.any()
        assert torch.equal(new[untouched], old[untouched])
        if f"layer.{i}.member" not in after.own[name] and num_tasks == 3:
            assert torch.equal(new, old)
        # what comes back from a group may be smaller than l1, and is pruned like all of tau
        assert bool(((tau == 0) | (tau.abs() > method.l1)).all())
    assert any(".local." in name for name in after.shared)
    sizes = [count(model.shared) + sum(map(count, model.own.values())) for model in (before, after)]
    assert sizes[1] < sizes[0]


def test_groups_grow_with_the_tasks(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[int, int]] = []

    def spy(points: Tensor, num_groups: int, generator: torch.Generator) -> Tensor:
        asked.append((len(points), num_groups))
        return torch.arange(len(points)) % num_groups

    monkeypatch.setattr("lasem.methods.apd.k_means", spy)
    learner_of(APD(period=2, groups=3), tiny_net(depth=1), 4)
    assert asked == [(2, 2), (4, 4)]  # no more than there are tasks
    asked.clear()
    model = learner_of(APD(period=3, groups=1), tiny_net(depth=1), 6).model
    assert asked == [(3, 1), (6, 2)]  # int(k (t + 1) / s), each layer
    members = [own["layer.0.member"].tolist() for own in model.own.values()]
    assert members == [[True, False], [False, True]] * 3


def test_whole_adaptive_tensors_are_grouped_again(monkeypatch: pytest.MonkeyPatch) -> None:
    method = APD(period=2, groups=1, threshold=10.0)  # everything goes to the group at the first consolidation
    first = learned(method, 2)
    assert not dense("layer.0.tau", first.own["t0"]).any()
    assert adaptive(first, "t0", 0).any()
    seen: list[Tensor] = []

    def spy(points: Tensor, num_groups: int, generator: torch.Generator) -> Tensor:
        seen.append(points)
        return torch.arange(len(points))

    monkeypatch.setattr("lasem.methods.apd.k_means", spy)
    before, after = without_consolidation(replace(method, period=4), 4)
    assert len(seen) == DEPTH
    for i, name in product(range(DEPTH), after.own):
        torch.testing.assert_close(seen[i][list(after.own).index(name)], adaptive(before, name, i).flatten())
        assert f"layer.{i}.member" not in after.own[name]  # groups of one keep their tau
        assert torch.equal(adaptive(after, name, i), adaptive(before, name, i))


# groups and what they share


def scatter(points: Tensor, group: Tensor) -> float:
    """Sum of squared distances to the groups' means, by its definition."""
    total = 0.0
    for g in sorted(set(group.tolist())):
        members = [point.double() for point, of in zip(points, group.tolist(), strict=True) if of == g]
        mean = sum(members) / len(members)
        total += sum(float(((point - mean) ** 2).sum()) for point in members)
    return total


def best_grouping(points: Tensor, num_groups: int) -> float:
    return min(scatter(points, torch.tensor(group)) for group in product(range(num_groups), repeat=len(points)))


@pytest.mark.parametrize("num_groups", [1, 2, 3])
def test_k_means_finds_the_best_of_all_groupings(num_groups: int) -> None:
    points = torch.randn(6, 3, generator=seeded(4))
    group = k_means(points, num_groups, seeded())
    assert (group.shape, group.dtype) == ((6,), torch.int64)
    assert set(group.tolist()) <= set(range(num_groups))
    assert scatter(points, group) == pytest.approx(best_grouping(points, num_groups))


def test_k_means_finds_groups_that_are_far_apart_whatever_the_seed() -> None:
    centres = 10 * torch.randn(4, 50, generator=seeded(1))
    truth = torch.tensor([2, 0, 1, 1, 3, 2, 0, 0, 3, 1])
    points = centres[truth] + 0.1 * torch.randn(10, 50, generator=seeded(2))
    for seed in range(8):
        group = k_means(points, 4, seeded(seed))
        assert torch.equal(group[:, None] == group, truth[:, None] == truth)
        assert torch.equal(group, k_means(points, 4, seeded(seed)))  # the same seed, the same numbers


@pytest.mark.parametrize(("points", "num_groups", "expected"), [(torch.zeros(4, 3), 3, 1), (torch.eye(3), 3, 3)])
def test_k_means_with_few_different_points(points: Tensor, num_groups: int, expected: int) -> None:
    assert len(set(k_means(points, num_groups, seeded()).tolist())) == expected


@given(st.integers(1, 7), st.integers(1, 7), st.integers(0, 10**6))
def test_no_point_is_nearer_to_another_groups_mean(n: int, num_groups: int, seed: int) -> None:
    points = torch.randn(n, 2, generator=seeded(seed))
    group = k_means(points, min(num_groups, n), seeded(seed))
    means = {g: points.double()[group == g].mean(dim=0) for g in set(group.tolist())}
    for point, g in zip(points.double(), group.tolist(), strict=True):
        own = float((point - means[g]).square().sum())
        assert all(own <= float((point - mean).square().sum()) + 1e-9 for mean in means.values())


def test_consolidate_is_its_definition() -> None:
    tau = 0.02 * torch.randn(5, 3, 2, 2, generator=seeded(3))
    group = torch.tensor([1, 0, 1, 3, 1])
    rest, shared, member = consolidate(tau, group, 0.02)
    assert rest.shape == tau.shape
    assert member.tolist() == [[True], [False], [True], [False], [True]]  # groups of one share nothing
    assert torch.equal(rest[[1, 3]], tau[[1, 3]])
    num_moved = 0
    for place in product(range(3), range(2), range(2)):
        values = [float(tau[(i, *place)]) for i in (0, 2, 4)]
        agreed = max(values) - min(values) <= 0.02
        num_moved += agreed
        middle = (max(values) + min(values)) / 2 if agreed else 0.0
        assert float(shared[(0, *place)]) == pytest.approx(middle, abs=1e-9)
        for i, value in zip((0, 2, 4), values, strict=True):
            assert float(rest[(i, *place)]) == (0.0 if agreed else value)
    assert 0 < num_moved < 12


@given(st.integers(0, 10**6), st.floats(0, 0.05))
def test_consolidation_moves_nothing_further_than_half_the_threshold(seed: int, threshold: float) -> None:
    tau = 0.02 * torch.randn(6, 4, 3, generator=seeded(seed))
    group = torch.randint(0, 3, (6,), generator=seeded(seed))
    rest, shared, member = consolidate(tau, group, threshold)
    local = torch.einsum("ng,gij->nij", member.float(), shared)
    after = local + rest
    assert float((after - tau).abs().max()) <= threshold / 2 + 1e-8
    assert torch.equal(after[rest != 0], tau[rest != 0])
    assert not bool(((local != 0) & (rest != 0)).any())  # each number is in one place only


def test_equal_tasks_share_everything_and_groups_with_nothing_in_common_take_no_room() -> None:
    one = torch.randn(3, 2, generator=seeded())
    rest, shared, _ = consolidate(torch.stack([one, one, one]), torch.zeros(3, dtype=torch.int64), 0.0)
    assert torch.equal(shared, one[None])
    assert not rest.any()
    tau = torch.tensor([[1.0, 0.0], [-1.0, 0.0], [3.0, 0.0]])
    rest, shared, member = consolidate(tau, torch.tensor([0, 0, 1]), 0.1)
    assert torch.equal(rest, tau)
    assert (shared.shape, member.shape) == ((0, 2), (3, 0))
