from collections.abc import Callable
from dataclasses import replace
from itertools import product
from typing import Any

import pytest
import torch
from learner.fixture import assert_same_tensors, tiny_net, tiny_task
from torch import Tensor

from lasem.methods import DEN, Model
from lasem.methods import den as units
from lasem.methods.method import Learned
from lasem.methods.plain import run, shared_and_own
from lasem.nets import Net
from lasem.training import AbstractPhase, Batch, Loop, Step, TrainingConfig
from methods.fixture import CPU, drive, learner_of, noise, plain_start, result_of, seeded, setup_of
from methods.fixture import DEEP as STRIDED

QUICK = TrainingConfig(epochs=5, batch_size=5, learning_rate=0.01)
DEEP = replace(STRIDED, linear=(6, 5), dropout=0.0)
CONVOLUTIONS = replace(DEEP, strides=(), linear=(), hidden=(5,))
LINEAR = Net(image_shape=(2, 3, 2), channels=(), kernels=(), pools=(), linear=(6, 4), hidden=(), dropout=0.0)
every_net = pytest.mark.parametrize("net", [DEEP, CONVOLUTIONS, LINEAR], ids=["conv-linear", "conv", "linear"])
NEVER = 1e9
Change = Callable[[str, dict[str, Tensor]], dict[str, Tensor]]
"""From a phase's title and start to the weights that it is as if it had been trained to."""


def random_weights(net: Net, num_classes: int = 3) -> dict[str, Tensor]:
    """A network none of whose numbers, biases included, is 0."""
    return noise(plain_start(net, num_classes), 1)


def sparse_weights(net: Net, sparsity: float, seed: int = 0) -> dict[str, Tensor]:
    generator = seeded(seed)
    return {n: t * (torch.rand(t.shape, generator=generator) > sparsity) for n, t in random_weights(net).items()}


def layers_of(weights: Any) -> dict[str, Tensor]:
    return shared_and_own(weights)[0]


def broadcast(rows: Tensor, like: Tensor) -> Tensor:
    return rows.reshape(-1, *[1] * (like.ndim - 1))


def images(net: Net, num: int = 4) -> Tensor:
    return torch.randn(num, *net.image_shape, generator=seeded(8))


def learn_as(
    method: DEN, model: Model, net: Net, num_classes: int, change: Change, loss: float = 1.0, training: Any = QUICK
) -> tuple[Learned, list[AbstractPhase]]:
    """The next task, called a, b, c ..."""
    index = len(model.own)
    task = tiny_task("abc"[index], num_classes, net.image_shape)
    plan = method.plan(model, task, setup_of(net, index, training))
    return drive(plan, lambda phase: result_of(phase, change(phase.title, phase.initial()), loss))


def two_tasks(net: Net, method: DEN, change: Change, *, loss: float = 1.0) -> tuple[Model, Model, list[AbstractPhase]]:
    """The model after the first task, after the second one, and the second one's phases."""
    first, _ = learn_as(method, Model(), net, 3, lambda _, w: noise(w, 5))
    second, phases = learn_as(method, first.model, net, 4, change, loss=loss)
    return first.model, second.model, phases


# selection


def test_selection_on_a_network_drawn_by_hand() -> None:
    """An image of 1x2, two convolutions of 3 filters, a linear layer of 3, a hidden layer of 2, 2 classes."""
    net = Net(image_shape=(1, 1, 2), channels=(3, 3), kernels=(1, 1), pools=(1, 1), linear=(3,), hidden=(2,))
    weights = {name: torch.zeros_like(t) for name, t in random_weights(net, 2).items()}
    weights["head.weight.1"][1, 0] = -0.5  # class 1 only: it is not enough to look at class 0
    weights["head.weight.0"][0, 1] = 1e-6
    weights["head.weight.0"][1, 0] = 3.0  # hidden unit 1 feeds no class
    weights["layer.2.weight"][1, 5] = 1.0  # pixel 1 of filter 2
    weights["layer.2.weight"][0, 0] = 1.0  # unit 0 is not needed, so neither is filter 0
    weights["layer.1.weight"][2, 0] = 1.0
    weights["layer.1.weight"][0, 1] = 1.0
    for i in range(3):
        weights[f"layer.{i}.bias"] += 1  # biases make no edges
    chosen = [mask.int().tolist() for mask in units.select(net, weights)]
    assert chosen == [[1, 0, 0], [0, 0, 1], [0, 1, 0], [1, 0], [1, 1]]
    masks = units.within(net, weights, units.select(net, weights))
    assert {name: mask.nonzero().tolist() for name, mask in masks.items() if "weight" in name} == {
        "layer.0.weight": [[0, 0, 0, 0]],
        "layer.1.weight": [[2, 0, 0, 0]],
        "layer.2.weight": [[1, 4], [1, 5]],  # both pixels of the filter, also the one whose weight is 0
        "head.weight.0": [[0, 1]],
        "head.weight.1": [[0, 0], [1, 0]],
    }
    biases = ("layer.0.bias", "layer.1.bias", "layer.2.bias", "head.bias.0", "head.bias.1")
    found = {name: mask.int().tolist() for name, mask in masks.items() if "bias" in name}
    assert found == dict(zip(biases, chosen, strict=True))


@every_net
@pytest.mark.parametrize("sparsity", [0.7, 0.9, 0.97])
def test_selected_is_what_a_path_of_edges_joins_to_an_output(net: Net, sparsity: float) -> None:
    weights = sparse_weights(net, sparsity, int(100 * sparsity))
    edges = [e.abs().sum(dim=2) for e in units.edges_of(net, weights).values()]
    reach = torch.eye(len(edges[-1]))
    expected = [torch.ones(len(edges[-1]), dtype=torch.bool)]
    for layer in reversed(edges[1:]):
        reach = reach @ layer  # sums of products of magnitudes over all paths
        expected.insert(0, reach.sum(dim=0) > 0)
    torch.testing.assert_close(list(units.select(net, weights)), expected)


@every_net
def test_units_that_are_not_selected_do_not_matter(net: Net) -> None:
    weights = sparse_weights(net, 0.8)
    chosen = units.select(net, weights)
    assert not all(bool(mask.all()) for mask in chosen)
    other = noise(weights, 4)
    for i, part in product(range(net.depth), ("weight", "bias")):
        name = f"layer.{i}.{part}"
        other[name] = torch.where(broadcast(chosen[i], weights[name]), weights[name], other[name])
    other |= {name: t for name, t in weights.items() if name.startswith("head.")}
    torch.testing.assert_close(run(net, other, images(net)), run(net, weights, images(net)))


# proximal steps


@pytest.mark.parametrize("shape", [(5, 3, 2, 2), (5, 7)])
def test_group_step_removes_a_useless_unit_and_leaves_older_ones(shape: tuple[int, ...]) -> None:
    generator = seeded()
    weight, bias = torch.randn(shape, generator=generator), torch.randn(5, generator=generator)
    weight[3] *= 1e-3
    weight[4] = 0
    before, bias_before, threshold = weight.double(), bias.clone(), 0.05
    units.group_soft_threshold_(weight, bias, 2, threshold)
    for unit in range(5):
        norm = sum(float(w) ** 2 for w in before[unit].flatten()) ** 0.5
        width = before[unit].numel() ** 0.5
        factor = 1.0 if unit < 2 else 0.0 if norm == 0 else max(0.0, 1 - threshold * width / norm)
        torch.testing.assert_close(weight[unit].double(), before[unit] * factor, rtol=1e-5, atol=1e-7)
        assert (bias[unit] == bias_before[unit]) == (factor > 0)
    assert [bool(part.any()) for part in (weight[3:], bias[3:], weight[:3] == 0)] == [False] * 3


# adding and removing units


@every_net
def test_expansion_starts_from_the_same_function_and_removal_undoes_it(net: Net) -> None:
    weights = random_weights(net)
    before = units.num_units(net, weights)
    grown = units.expand(net, weights, 2)
    assert units.num_units(net, grown) == [n + 2 for n in before]
    torch.testing.assert_close(run(net, grown, images(net)), run(net, weights, images(net)))
    kept = [torch.arange(n + 2) < n for n in before]
    assert_same_tensors(units.keep(net, grown, kept), weights)


@every_net
def test_a_new_unit_without_incoming_weights_is_removed_and_was_worth_nothing(net: Net) -> None:
    weights = random_weights(net)
    before = units.num_units(net, weights)
    grown = noise(units.expand(net, weights, 3), 6)
    for i, num in enumerate(before):
        for part in ("weight", "bias"):
            grown[f"layer.{i}.{part}"][num + i % 3] = 0  # another one in each block
        grown[f"layer.{i}.weight"][0] = 0  # an old unit stays, whatever its weights
    useful = units.useful(net, grown, before)
    for i, num in enumerate(before):
        assert useful[i].tolist() == [True] * num + [k != i % 3 for k in range(3)]
    smaller = units.keep(net, grown, useful)
    assert units.num_units(net, smaller) == [n + 2 for n in before]
    torch.testing.assert_close(run(net, smaller, images(net)), run(net, grown, images(net)))


@every_net
def test_added_masks_the_edges_that_begin_or_end_at_a_new_unit(net: Net) -> None:
    weights = random_weights(net)
    before = units.num_units(net, weights)
    grown = units.expand(net, weights, 2)
    masks = units.added(net, grown, before)
    names = list(units.edges_of(net, grown))[: net.depth + 1]
    assert set(masks) == {*names, *(units.bias_name(name) for name in names[:-1])}
    edges = units.edges_of(net, grown)
    for i, name in enumerate(names):
        above, below, numbers = edges[name].shape
        mask = masks[name].reshape(above, below, numbers)
        for j, k, n in product(range(above), range(below), range(numbers)):
            new_above = i < net.depth and j >= before[i]
            new_below = i > 0 and k >= before[i - 1]
            assert bool(mask[j, k, n]) == (new_above or new_below)
    assert all(masks[f"layer.{i}.bias"].tolist() == [False] * n + [True] * 2 for i, n in enumerate(before))


# timestamps


@every_net
def test_a_task_sees_the_units_with_stamps_up_to_its_own(net: Net) -> None:
    weights = random_weights(net)
    num_before = units.num_units(net, weights)
    twice = noise(units.expand(net, weights, 2), 6)
    thrice = noise(units.expand(net, twice, 1), 7)
    shared, head = shared_and_own(thrice)
    for i, num in enumerate(num_before):
        shared[f"stamp.{i}"] = torch.tensor([0] * num + [1] * 2 + [2])
    for index, extra in ((0, 0), (1, 2), (2, 3)):
        seen = units.visible(net, shared, index)
        assert units.num_units(net, seen) == [n + extra for n in num_before]
        silent = dict(shared)  # the same by a mask: nothing comes out of the units that it does not see
        for i, num in enumerate(num_before):
            mask = torch.arange(num + 3) < num + extra
            for name in (f"layer.{i}.weight", f"layer.{i}.bias"):
                silent[name] = shared[name] * broadcast(mask, shared[name])
        last = units.edges_of(net, thrice)["head.weight.0"][:, : num_before[-1] + extra]
        own = {**head, "head.weight.0": last.flatten(1)}
        torch.testing.assert_close(run(net, {**seen, **own}, images(net)), run(net, {**silent, **head}, images(net)))


@every_net
def test_answers_stay_the_same_to_the_bit_whatever_is_appended(net: Net) -> None:
    weights = random_weights(net)
    grown = units.expand(net, weights, 13)
    (shared, head), later = shared_and_own(weights), layers_of(grown)
    for i, num in enumerate(units.num_units(net, weights)):
        touched = units.added(net, grown, units.num_units(net, weights))[f"layer.{i}.weight"]
        later[f"layer.{i}.weight"] = torch.where(touched, torch.randn(touched.shape), later[f"layer.{i}.weight"])
        shared[f"stamp.{i}"], later[f"stamp.{i}"] = torch.zeros(num), torch.arange(num + 13).ge(num).long()
    old, new = (Model(s, {"a": head}, {"position.a": torch.tensor(0)}) for s in (shared, later))
    for num_images in (1, 7):
        x = images(net, num_images)
        assert torch.equal(DEN().logits(net, old, "a", x), DEN().logits(net, new, "a", x))


# split and duplication


@every_net
def test_drift_is_the_distance_of_the_incoming_weights(net: Net) -> None:
    weights = random_weights(net)
    before = layers_of(weights)
    moved = noise(units.expand(net, weights, 2), 9)
    found = units.drift(net, moved, before)
    for i, edges in enumerate(list(units.edges_of(net, before).values())):
        now = units.edges_of(net, moved)[f"layer.{i}.weight"]
        assert len(found[i]) == len(edges)
        for j in range(len(edges)):
            square = (float(moved[f"layer.{i}.bias"][j]) - float(before[f"layer.{i}.bias"][j])) ** 2
            for k, n in product(range(edges.shape[1]), range(edges.shape[2])):
                square += (float(now[j, k, n]) - float(edges[j, k, n])) ** 2
            assert float(found[i][j]) == pytest.approx(square**0.5, rel=1e-5)


def split_example(net: Net) -> tuple[dict[str, Tensor], dict[str, Tensor], list[Tensor], dict[str, Tensor]]:
    """Weights with two new units a block, those before, units 0 and 2 of each block drifted, and the split."""
    weights = random_weights(net)
    before = layers_of(weights)
    moved = noise(units.expand(net, weights, 2), 9)
    drifted = [torch.arange(n) % 2 * 1 == 0 for n in units.num_units(net, before)]
    drifted = [mask & (torch.arange(len(mask)) < 3) for mask in drifted]
    return moved, before, drifted, units.split(net, moved, before, drifted)


@every_net
def test_split_restores_to_the_bit_and_appends_copies(net: Net) -> None:
    moved, before, drifted, result = split_example(net)
    saved = {n: t.clone() for n, t in moved.items()}
    old, now, new = units.edges_of(net, before), units.edges_of(net, moved), units.edges_of(net, result)
    num_below = net.image_shape[0]
    below: list[int] = []
    for i, mask in enumerate(drifted):
        name, num, above = f"layer.{i}.weight", len(mask), mask.nonzero()[:, 0].tolist()
        assert above == [0, 2]
        assert new[name].shape[:2] == (num + 2 + 2, num_below + len(below))
        for j in range(num):
            restored = j in above
            expected = torch.zeros_like(now[name][j])
            expected[: old[name].shape[1]] = old[name][j]
            assert torch.equal(new[name][j, :num_below], expected if restored else now[name][j])
            assert bool((new[name][j, num_below:] == 0).all())  # older units do not read copies
            assert torch.equal(result[f"layer.{i}.bias"][j], (before if restored else moved)[f"layer.{i}.bias"][j])
        own = [(num, num), (num + 1, num + 1), (num + 2, above[0]), (num + 3, above[1])]
        for position, source in own:  # new units and copies read copies in place of what was restored
            row = now[name][source].clone()
            row[below] = 0
            assert torch.equal(new[name][position, :num_below], row)
            assert torch.equal(new[name][position, num_below:], now[name][source, below])
            assert result[f"layer.{i}.bias"][position] == moved[f"layer.{i}.bias"][source]
        num_below, below = num + 2, above
    head = now["head.weight.0"].clone()
    head[:, below] = 0
    assert torch.equal(new["head.weight.0"][:, :num_below], head)
    assert torch.equal(new["head.weight.0"][:, num_below:], now["head.weight.0"][:, below])
    assert_same_tensors(moved, saved)


@every_net
def test_a_network_whose_old_units_are_all_split_computes_the_same(net: Net) -> None:
    moved, before, drifted, _ = split_example(net)
    everything = [torch.ones_like(mask) for mask in drifted]
    result = units.split(net, moved, before, everything)
    torch.testing.assert_close(run(net, result, images(net)), run(net, moved, images(net)))
    nothing = units.split(net, moved, before, [torch.zeros_like(mask) for mask in drifted])
    assert_same_tensors(nothing, moved)


# the method


@every_net
def test_old_answers_are_the_same_to_the_bit_after_a_pure_expansion(net: Net) -> None:
    def change(title: str, weights: dict[str, Tensor]) -> dict[str, Tensor]:
        return weights if title == "retraining" else noise(weights, 11, 3.0)  # all numbers, also those of old edges

    method = DEN(num_new_units=3)
    first, second, phases = two_tasks(net, method, change)
    assert [phase.title for phase in phases] == ["head", "retraining", "expansion", "last"]
    assert all(phase.goes_on for phase in phases)  # they share a task's epochs
    old = units.num_units(net, layers_of(first.shared))
    assert units.num_units(net, layers_of(second.shared)) == [n + 3 for n in old]
    assert [second.shared[f"stamp.{i}"].tolist() for i in range(net.depth)] == [[0] * n + [1] * 3 for n in old]
    x = images(net, 7)
    assert torch.equal(method.logits(net, first, "a", x), method.logits(net, second, "a", x))
    assert method.logits(net, second, "b", x).shape == (7, 4)
    assert_same_tensors(dict(first.own["a"]), dict(second.own["a"]))
    # the second task does read its own units, through older ones as well as through its head
    active = {name: value + 9 if "bias" in name else value.abs() for name, value in second.shared.items()}
    answer = method.logits(net, second.having(shared=active), "b", x)
    for i in range(net.depth):
        kernel = active[f"layer.{i}.weight"].clone()
        kernel[-1] += 1
        other = {**active, f"layer.{i}.weight": kernel}
        assert not torch.equal(method.logits(net, second.having(shared=other), "b", x), answer)


@every_net
@pytest.mark.parametrize("loss", [0.0, 1.0])
def test_after_a_split_old_answers_change_only_through_units_under_the_threshold(net: Net, loss: float) -> None:
    def change(title: str, weights: dict[str, Tensor]) -> dict[str, Tensor]:
        if title != "retraining":
            return noise(weights, 11, 3.0)
        moved = {n: t.clone() for n, t in weights.items()}
        for i in range(net.depth):
            moved[f"layer.{i}.weight"][0] += 1.0
            moved[f"layer.{i}.bias"][1] += 0.01
            moved[f"layer.{i}.weight"][2] += 1e-4
        return moved

    method = DEN(num_new_units=2, split_threshold=0.05)
    first, second, phases = two_tasks(net, method, change, loss=loss)
    num_new = 2 if loss else 0
    assert [phase.title for phase in phases] == ["head", "retraining", *(["expansion"] if loss else []), "last"]
    expected = dict(first.shared)
    for i, num in enumerate(units.num_units(net, layers_of(first.shared))):
        assert second.shared[f"stamp.{i}"].tolist() == [0] * num + [1] * (num_new + 1)
        weight = first.shared[f"layer.{i}.weight"].clone()
        weight[2] += 1e-4
        bias = first.shared[f"layer.{i}.bias"].clone()
        bias[1] += 0.01
        expected |= {f"layer.{i}.weight": weight, f"layer.{i}.bias": bias}
        seen = units.visible(net, second.shared, 0)
        assert torch.equal(seen[f"layer.{i}.weight"][0], first.shared[f"layer.{i}.weight"][0])
    x = images(net, 7)
    now = method.logits(net, second, "a", x)
    assert torch.equal(now, method.logits(net, first.having(shared=expected), "a", x))
    assert not torch.equal(now, method.logits(net, first, "a", x))
    assert_same_tensors(dict(first.own["a"]), dict(second.own["a"]))


@every_net
def test_the_head_has_the_units_of_its_time(net: Net) -> None:
    numbers, method = units.edges_of(net, random_weights(net))["head.weight.0"].shape[2], DEN(num_new_units=3)
    method = replace(method, split_threshold=NEVER)
    first, second, _ = two_tasks(net, method, lambda _, w: noise(w, 11))
    third, _ = learn_as(method, second, net, 3, lambda _, w: noise(w, 12))
    last = units.num_units(net, layers_of(first.shared))[-1]
    for name, num in (("a", last), ("b", last + 3), ("c", last + 6)):
        assert third.model.own[name]["head.weight.0"].shape[1] == num * numbers
        assert DEN().logits(net, third.model, name, images(net)).isfinite().all()


def trained(phase: AbstractPhase, seed: int = 0) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Weights before and after some epochs on the CPU, in the form of the whole network."""
    loop = Loop(phase, seeds=(seed, seed), device=CPU)
    before = phase.whole(phase.initial())  # type: ignore[attr-defined]
    while not loop.finished:
        loop.run_epoch()
    return before, phase.whole(loop.result().last.weights)  # type: ignore[attr-defined]


@every_net
@pytest.mark.parametrize("optimiser", ["adam", "adamw", "rmsprop-tf"])
def test_a_phase_moves_what_it_trains_and_nothing_else(net: Net, optimiser: Any) -> None:
    training = TrainingConfig(epochs=5, batch_size=5, learning_rate=0.01, optimiser=optimiser, weight_decay=0.1)
    method = DEN(num_new_units=2)
    first, _ = learn_as(method, Model(), net, 3, lambda _, w: noise(w, 5))
    sparse = layers_of(sparse_weights(net, 0.7, 4))
    model = first.model.having(shared={**first.model.shared, **sparse})

    def some_zero(title: str, weights: dict[str, Tensor]) -> dict[str, Tensor]:
        moved = noise(weights, 13)
        if title == "head":
            moved["head.weight.0"][:, : moved["head.weight.0"].shape[1] // 2] = 0
        return moved

    _, phases = learn_as(method, model, net, 3, some_zero, training=training)
    num_before = units.num_units(net, sparse)
    for phase in phases:
        before, after = trained(phase)
        moved = {name: before[name] != after[name] for name in before}
        own = phase.title in ("head", "last")
        allowed = {name: torch.full_like(m, own and name.startswith("head.")) for name, m in moved.items()}
        if phase.title == "retraining":
            allowed = units.within(net, before, units.select(net, before))
            assert not all(bool(mask.all()) for mask in allowed.values())
        elif phase.title != "head":
            allowed = units.added(net, before, num_before) | {k: m for k, m in allowed.items() if own and "head" in k}
        for name, mask in moved.items():
            assert not bool((mask & ~allowed.get(name, torch.zeros_like(mask))).any()), (phase.title, name)
        assert any(bool(mask.any()) for mask in moved.values())


def test_penalties_are_the_gradients_of_the_objectives() -> None:
    net, method = DEEP, DEN(l2=0.3, drift_penalty=0.7)
    first, _, phases = two_tasks(net, method, lambda _, w: noise(w, 5))
    phase, anchor = phases[1], layers_of(first.shared)
    weights = {n: t.clone().requires_grad_() for n, t in noise(phase.initial(), 3).items()}
    batch = Batch(images(net, 5), torch.tensor([0, 1, 2, 0, 1]), "b")
    plain = phase.loss(weights, batch, torch.Generator())
    logits = run(net, phase.whole(weights), batch.x)  # type: ignore[attr-defined]
    # what the threshold is compared with is without the penalties
    torch.testing.assert_close(plain, torch.nn.functional.cross_entropy(logits, batch.labels))
    whole = plain
    for name, value in weights.items():
        if "weight" in name:
            whole = whole + 0.3 / 2 * value.square().sum()
        if name in anchor:
            whole = whole + 0.7 / 2 * (value - anchor[name]).square().sum()
    expected = torch.autograd.grad(whole, list(weights.values()), retain_graph=True)
    plain.backward()
    phase.change_gradients(weights, Step(0, 0, 1, 0.1))
    for value, gradient in zip(weights.values(), expected, strict=True):
        torch.testing.assert_close(value.grad, gradient)


def test_proximal_steps_go_with_the_step_size_and_spare_biases_and_old_units() -> None:
    method = DEN(l1=0.5, group_lasso=0.25, num_new_units=2)
    first, _, phases = two_tasks(DEEP, method, lambda _, w: noise(w, 5))
    for phase, groups in zip(phases, (False, False, True, False), strict=True):
        weights = noise(phase.initial(), 3)
        expected = {name: value.clone() for name, value in weights.items()}
        for name, value in expected.items():
            if "weight" in name and phase.title != "retraining":
                value.copy_(value.sign() * (value.abs() - 0.1 * 0.5).clamp(min=0))
        for i, num in enumerate(units.num_units(DEEP, layers_of(first.shared)) if groups else ()):
            weight, bias = expected[f"layer.{i}.weight"], expected[f"layer.{i}.bias"]
            units.group_soft_threshold_(weight, bias, num, 0.1 * 0.25)
        phase.after_step(weights, Step(0, 0, 1, 0.1))
        assert_same_tensors(weights, expected)


@pytest.mark.parametrize(
    ("epochs", "expanded", "expected"),
    [
        (30, [6, 12, 6, 6], [6, 12, 12]),
        (2, [1] * 4, [1] * 3),
        (1, [1] * 4, [1] * 3),
        (7, [2, 3, 2, 2], [2, 3, 3]),
    ],
)
def test_phases_share_the_epochs(epochs: int, expanded: list[int], expected: list[int]) -> None:
    first, _ = learn_as(DEN(), Model(), DEEP, 3, lambda _, w: w)
    training, method = TrainingConfig(epochs=epochs), DEN(loss_threshold=0.01)
    for loss, shares in ((0.02, expanded), (0.01, expected)):  # the threshold itself is not above it
        learned, phases = learn_as(method, first.model, DEEP, 3, lambda _, w: w, loss=loss, training=training)
        assert [phase.config.epochs for phase in phases] == shares
        assert learned.num_epochs == learned.best_epoch == sum(shares) >= epochs


@pytest.mark.parametrize(("strength", "num_new"), [(0.0, 2), (100.0, 0)])
def test_expansion_keeps_what_the_group_norm_leaves(strength: float, num_new: int) -> None:
    net = tiny_net(linear=(4,))
    method = DEN(group_lasso=strength, l1=0.01, num_new_units=2, loss_threshold=0, split_threshold=NEVER)
    learner = learner_of(method, net, 2, training=QUICK)
    assert [len(learner.model.shared[f"stamp.{i}"]) for i in range(3)] == [3 + num_new, 4 + num_new, 4 + num_new]


@every_net
def test_stamps_are_in_the_order_of_tasks(net: Net) -> None:
    training = TrainingConfig(epochs=5, batch_size=5, learning_rate=0.01, weight_decay=0.01)
    method = DEN(split_threshold=0, num_new_units=2, loss_threshold=0)
    model = learner_of(method, net, 3, training=training).model
    for i in range(net.depth):
        stamps = model.shared[f"stamp.{i}"]
        assert (stamps.dtype, stamps.tolist()) == (torch.int64, sorted(stamps.tolist()))
        assert (set(stamps.tolist()), len(stamps)) == ({0, 1, 2}, len(model.shared[f"layer.{i}.bias"]))


def test_the_first_task_becomes_sparse() -> None:
    def zeros(l1: float) -> float:
        learner = learner_of(DEN(l1=l1), tiny_net(), training=QUICK, seed=0)
        record = learner.learn(tiny_task())
        assert (record.num_epochs, record.configuration) == (5, "TT")
        weights = [learner.model.shared["layer.1.weight"], learner.model.own["task"]["head.weight.0"]]
        return sum(int((w == 0).sum()) for w in weights) / sum(w.numel() for w in weights)

    assert zeros(0.0) == 0
    assert zeros(0.5) > 0.02
