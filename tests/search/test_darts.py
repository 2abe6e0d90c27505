from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from learner.fixture import assert_same_tensors, copied, every_sharing, start_of, tiny_net, tiny_task
from nets.test_block import naive_convolution, naive_pooling
from torch import Tensor
from training.fixture import CPU, loop_over, run, start_with, train

from lasem import Learner, Task
from lasem.errors import ConfigError, StorageError
from lasem.nets import ConvBlock
from lasem.search import DARTS, DARTSPhase, Fixed, MixturePhase, configuration_accuracy
from lasem.sharing import AbstractSharing, Deconvolution, HardSharing, TensorFactorization
from lasem.space import full, grouped, listed
from lasem.training import Batch, LayerWeights, Loop, TaskStart, TaskWeights, TrainingConfig
from lasem.training.config import learning_rate
from lasem.training.plan import phase_seeds
from lasem.tree import Path, flatten, map_tensors, pack, with_tensors

NUM_CLASSES = 3
QUICK = TrainingConfig(epochs=2, batch_size=4, learning_rate=0.01)


def problem_of(net: Any = None, sharing: Any = None, config: TrainingConfig = QUICK, **others: Any) -> TaskStart:
    net = net or tiny_net()
    task, space = tiny_task(num_classes=NUM_CLASSES), others.pop("space", full(net.depth))
    return start_with(net, sharing or HardSharing(), space, config, **{"task": task, "seed": (3, 1), **others})


def phase_of(search: DARTS | None = None, **changes: Any) -> DARTSPhase:
    return DARTSPhase(search or DARTS(), problem_of(**changes))


def exact_batch(seed: int = 0, size: int = 5, side: int = 6) -> Batch:
    x = torch.randn(size, 1, side, side, dtype=torch.float64, generator=generator(seed))
    return Batch(x, torch.randint(0, NUM_CLASSES, (size,), generator=generator(seed)), "task")


def leaves(phase: DARTSPhase) -> tuple[TaskWeights, dict[Path, Tensor]]:
    """The weights' start, and every tensor in it by its path."""
    weights = copied(phase.initial(), requires_grad=True)
    return weights, flatten(weights)


def generator(seed: int = 4) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def with_alpha(phase: DARTSPhase, seed: int = 9) -> DARTSPhase:
    with torch.no_grad():
        phase.alpha.copy_(torch.randn(phase.alpha.shape, dtype=torch.float64, generator=generator(seed)))
    return phase


def naive_logits(problem: TaskStart, weights: TaskWeights, alpha: Tensor, x: Tensor) -> Tensor:
    """[Liu2019]'s mixed operation on two branches, entry by entry, between activation and pooling."""
    for (on_specific, on_shared), block, own in zip(alpha.exp(), problem.net.blocks, weights.layers, strict=True):
        branches = []
        for made in (own.specific, problem.sharing.weights(block, own.shared, own.factors)):
            if isinstance(block, ConvBlock):
                out = naive_convolution(x, made["weight"], made["bias"], block.stride)
            else:
                out = x.reshape(len(x), -1) @ made["weight"].T + made["bias"]
            branches.append(out.clamp_min(0))
        total = on_specific + on_shared
        x = on_specific / total * branches[0] + on_shared / total * branches[1]
        if isinstance(block, ConvBlock):
            x = naive_pooling(x, block.pool, block.pool_border)
    return problem.net.head.apply(weights.head, x)


@every_sharing
def test_the_mixed_network_and_the_first_order_gradient_are_their_definitions(sharing: AbstractSharing) -> None:
    net = tiny_net((1, 4, 4), linear=(4,))
    problem = problem_of(net, sharing, task=tiny_task(num_classes=NUM_CLASSES, shape=(1, 4, 4)), dtype=torch.float64)
    phase = with_alpha(DARTSPhase(DARTS(), problem))
    weights, batch, held = phase.initial(), exact_batch(side=4), exact_batch(1, size=2, side=4)
    alpha = phase.alpha.detach().clone().requires_grad_(True)
    expected = naive_logits(problem, weights, alpha, held.x)
    torch.testing.assert_close(phase.logits(weights, phase.alpha, held.x), expected)
    phase._held_out = iter([held[:2]])  # type: ignore[assignment]
    (gradient,) = torch.autograd.grad(F.cross_entropy(expected, held.labels), alpha)
    torch.testing.assert_close(phase.alpha_gradient(weights, batch, generator()), gradient)
    assert gradient.abs().min() > 1e-8


@pytest.mark.parametrize("weight", [0.0, 0.7])
def test_a_layers_penalty_counts_by_its_shared_part(weight: float) -> None:
    problem = problem_of(sharing=TensorFactorization(penalty_weight=weight), dtype=torch.float64)
    phase = with_alpha(DARTSPhase(DARTS(), problem))
    weights, batch = phase.initial(), exact_batch()
    added = phase.training_loss(weights, phase.alpha, batch, None)
    added = added - phase.cross_entropy(weights, phase.alpha, batch, None)
    expected = 0.0
    for (first, second), own in zip(phase.alpha.exp().tolist(), problem.weights.layers, strict=True):
        for name, factor in own.factors.items():
            if name.startswith("factor."):
                gap = factor.T @ factor - torch.eye(factor.shape[1], dtype=factor.dtype)
                expected += weight * second / (first + second) * gap.square().sum().sqrt().item()
    torch.testing.assert_close(added.item(), expected, rtol=1e-9, atol=1e-12)


def step_ahead(
    phase: DARTSPhase, weights: TaskWeights, alpha: Tensor, batch: Batch, xi: float, *, create_graph: bool = False
) -> TaskWeights:
    """w' = w - xi grad_w L_train(w, alpha)."""
    flat, train = flatten(weights), phase.training_loss(weights, alpha, batch, generator())
    slopes = zip(flat, torch.autograd.grad(train, list(flat.values()), create_graph=create_graph), strict=True)
    return with_tensors(weights, {n: flat[n] - xi * phase.scale(n) * slope for n, slope in slopes})


def lookahead_gradient(phase: DARTSPhase, weights: TaskWeights, batch: Batch, held: Batch, xi: float) -> Tensor:
    """The whole second derivative: back through w'(alpha)."""
    alpha = phase.alpha.detach().clone().requires_grad_(True)
    ahead = step_ahead(phase, weights, alpha, batch, xi, create_graph=True)
    return torch.autograd.grad(phase.cross_entropy(ahead, alpha, held, None), alpha)[0]


@pytest.mark.parametrize("sharing", [HardSharing(), TensorFactorization(step_scale=0.6), Deconvolution()], ids=str)
def test_second_order_is_the_second_derivative(sharing: AbstractSharing, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lasem.search.darts._DIFFERENCE", 1e-6)  # so near that no kink of a ReLU lies between
    xi = 0.3
    phase = with_alpha(phase_of(DARTS(order="second", xi=xi), sharing=sharing, dtype=torch.float64))
    (weights, _), batch, held = leaves(phase), exact_batch(), exact_batch(1)
    phase._held_out = iter([held[:2], held[:2]])  # type: ignore[assignment]
    dropout = generator()
    found = phase.alpha_gradient(weights, batch, dropout)
    expected = lookahead_gradient(phase, weights, batch, held, xi)
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-8)
    # what has to be seen is large: neither part alone would pass, nor another dropout mask
    alpha = phase.alpha
    ahead = step_ahead(phase, weights, alpha, batch, xi)
    (direct,) = torch.autograd.grad(phase.cross_entropy(ahead, alpha, held, None), alpha)
    assert (direct - expected).abs().max() > 1e-3
    assert (phase.alpha_gradient(weights, batch, generator(5)) - expected).abs().max() > 1e-3
    # one mask was drawn
    again = generator()
    phase.training_loss(weights, alpha, batch, again)
    assert torch.equal(dropout.get_state(), again.get_state())


def test_the_finite_difference_goes_one_hundredth_along_all_weights_together() -> None:
    """Equation 8 as it stands; with a length for each tensor of its own (a wrong pairing) it is something else."""
    xi = 0.4
    phase = with_alpha(phase_of(DARTS(order="second", xi=xi), dtype=torch.float64))
    (weights, flat), batch, held = leaves(phase), exact_batch(), exact_batch(1)
    phase._held_out = iter([held[:2]])  # type: ignore[assignment]
    found = phase.alpha_gradient(weights, batch, generator())
    ahead = copied(step_ahead(phase, weights, phase.alpha, batch, xi), requires_grad=True)
    loss = phase.cross_entropy(ahead, phase.alpha, held, None)
    direct, *v = torch.autograd.grad(loss, [phase.alpha, *flatten(ahead).values()])

    def mixed(lengths: list[float], over: float) -> Tensor:
        sides = []
        for sign in (1, -1):
            along = zip(flat.items(), v, lengths, strict=True)
            moved = {n: w + sign * 0.01 / length * d for (n, w), d, length in along}
            train = phase.training_loss(with_tensors(weights, moved), phase.alpha, batch, generator())
            sides.append(torch.autograd.grad(train, phase.alpha)[0])
        return direct - xi * (sides[0] - sides[1]) / (2 * 0.01 / over)

    norm = sum(float(d.square().sum()) for d in v) ** 0.5
    torch.testing.assert_close(found, mixed([norm] * len(v), norm), rtol=1e-9, atol=1e-12)
    assert (found - mixed([float(d.norm()) for d in v], norm)).abs().max() > 1e-4
    assert (found - mixed([norm] * len(v), -norm)).abs().max() > 1e-4


@every_sharing
def test_no_slope_is_no_second_term(sharing: AbstractSharing) -> None:
    """Where the held-out loss cannot fall any further, nothing is divided by zero."""
    phase = phase_of(DARTS(order="second", alpha_split="train", xi=0.1), sharing=sharing)
    weights = map_tensors(lambda w: torch.zeros_like(w).requires_grad_(True), phase.initial())
    batch = exact_batch()
    gradient = phase.alpha_gradient(weights, Batch(batch.x.float(), batch.labels, "task"), generator())
    assert bool(gradient.isfinite().all())


def test_second_order_looks_one_step_of_the_schedule_ahead() -> None:
    """xi is the epoch's step size if it is not set."""
    config = replace(QUICK, epochs=4, schedule="cosine")
    first, second = (with_alpha(phase_of(DARTS(order="second", xi=xi), config=config)) for xi in (None, 0.005))
    batch = next(first.batches(CPU, generator()))
    for epoch, same in ((0, False), (2, True), (3, False)):  # half of the learning rate in the middle
        found = []
        for phase in (first, second):
            phase.begin_epoch(phase.initial(), epoch, learning_rate(config, epoch, 0))
            found.append(phase.alpha_gradient(leaves(phase)[0], batch, generator()))
        assert torch.allclose(*found, rtol=1e-6, atol=0) == same


def test_equal_entries_choose_task_specific() -> None:
    phase = phase_of(net=tiny_net(depth=3))
    assert str(phase.configuration) == "SSS"
    with torch.no_grad():
        phase.alpha.copy_(torch.tensor([[-0.3, -0.3], [0.1, 0.2], [2.0, -2.0]]))
    assert str(phase.configuration) == "STS"


@pytest.mark.parametrize("groups", [(), (2, 1)])
def test_probabilities_are_products_over_layers_or_groups(groups: tuple[int, ...]) -> None:
    space = grouped(groups) if groups else full(3)
    phase = with_alpha(phase_of(DARTS(groups=groups), net=tiny_net(depth=3), space=space))
    shares = [float(b.exp() / (a.exp() + b.exp())) for a, b in phase.alpha.detach()]
    seen = phase.summary()
    firsts = [0, 2] if groups else [0, 1, 2]
    for configuration, probability in zip(space, seen.probabilities, strict=True):
        expected = 1.0
        for share, layer in zip(shares, firsts, strict=True):
            expected *= share if configuration[layer] else 1 - share
        assert abs(probability - expected) < 1e-6
    assert abs(sum(seen.probabilities) - 1) < 1e-12
    assert seen.configuration == str(space[max(range(len(space)), key=seen.probabilities.__getitem__)])


def test_layers_of_a_group_have_one_alpha() -> None:
    net, groups = tiny_net(depth=3), (2, 1)
    together = with_alpha(phase_of(DARTS(groups=groups), net=net, space=grouped(groups), dtype=torch.float64))
    apart = phase_of(net=net, dtype=torch.float64)
    with torch.no_grad():
        apart.alpha.copy_(together.alpha[[0, 0, 1]])
    (weights, _), held = leaves(together), exact_batch()
    found = []
    for phase in (together, apart):
        phase._held_out = iter([held[:2]])  # type: ignore[assignment]
        found.append(phase.alpha_gradient(weights, held, generator()))
    torch.testing.assert_close(found[0], torch.stack([found[1][0] + found[1][1], found[1][2]]))


def test_validation_accuracy_is_the_chosen_networks() -> None:
    problem = problem_of()
    phase = with_alpha(DARTSPhase(DARTS(), problem))
    weights = map_tensors(lambda w: w + 0.5, phase.initial())
    expected = configuration_accuracy(problem.net, problem.sharing, phase.configuration, weights, problem.task.valid)
    assert phase.accuracy(weights) == expected


def test_alpha_steps_on_validation_images_without_dropout_in_rounds() -> None:
    phase = phase_of()
    loop = loop_over(phase)
    held: list[tuple[Tensor, Tensor | None]] = []
    inner = phase.cross_entropy

    def watched(weights: Any, alpha: Tensor, batch: Batch, dropout: Any) -> Tensor:
        held.append((batch.x, dropout)) if alpha.requires_grad else None
        return inner(weights, alpha, batch, dropout)

    phase.cross_entropy = watched  # type: ignore[method-assign]
    for _ in range(2):
        loop.run_epoch()
    ((valid, _),) = phase.task.valid.batches(100)
    assert [len(x) for x, _ in held] == [4, 2] * 3  # 10 training images make 3 mini-batches an epoch
    assert all(dropout is None for _, dropout in held)
    orders = []
    for begin in (0, 2, 4):
        one_round = torch.cat([x for x, _ in held[begin : begin + 2]])
        orders.append([next(i for i, v in enumerate(valid) if torch.equal(v, x)) for x in one_round])
    assert all(sorted(order) == list(range(6)) for order in orders)
    assert len({tuple(order) for order in orders}) > 1


def naive_rmsprop(value: Tensor, gradient: Tensor, mean_square: Tensor, rate: float) -> None:
    mean_square.copy_(0.9 * mean_square + 0.1 * gradient**2)
    value.sub_(rate * gradient / (mean_square + 1e-10).sqrt())


@every_sharing
def test_as_the_paper_ran_it(sharing: AbstractSharing) -> None:
    """Each mini-batch: a step of alpha on its cross-entropy with dropout, then the weights' on the same images."""
    config = replace(QUICK, optimiser="rmsprop-tf", schedule="inverse", learning_rate_decay=0.5, learning_rate=0.02)
    search = DARTS(alpha_split="train", alpha_optimiser="rmsprop-tf", alpha_learning_rate=None, alpha_weight_decay=0.0)
    problem = problem_of(sharing=sharing, config=config)
    phase = DARTSPhase(search, problem)
    loop = loop_over(phase)
    loop.run_epoch()

    reference = DARTSPhase(search, problem)
    weights, flat = leaves(reference)
    alpha, alpha_squares = torch.zeros(2, 2, requires_grad=True), torch.ones(2, 2)
    squares = {path: torch.ones_like(w) for path, w in flat.items()}
    dropout = generator(2)
    for x, labels in problem.task.train.batches(4, generator=generator(1)):
        loss = F.cross_entropy(reference.logits(weights, alpha, x, dropout), labels)
        (gradient,) = torch.autograd.grad(loss, alpha)
        with torch.no_grad():
            naive_rmsprop(alpha, gradient, alpha_squares, 0.02)
        loss = reference.training_loss(weights, alpha.detach(), Batch(x, labels, "task"), dropout)
        slopes = torch.autograd.grad(loss, list(flat.values()))
        with torch.no_grad():
            for (path, w), slope in zip(flat.items(), slopes, strict=True):
                naive_rmsprop(w, slope, squares[path], 0.02 * phase.scale(path))
    torch.testing.assert_close(phase.alpha, alpha, rtol=1e-4, atol=1e-6)
    assert alpha.abs().min() > 0
    trained = flatten(loop.weights)
    for path, w in flat.items():
        torch.testing.assert_close(trained[path], w, rtol=1e-4, atol=1e-5)


def test_alpha_follows_the_decayed_step_size_of_later_tasks() -> None:
    config = replace(QUICK, schedule="inverse", learning_rate_decay=0.5)
    phase = phase_of(DARTS(alpha_learning_rate=None), config=config)
    loop = Loop(phase, seeds=(1, 2), epochs_before=5, device=CPU)
    for epoch in range(2):
        loop.run_epoch()
        assert phase._optimiser.param_groups[0]["lr"] == 0.01 / (1 + (5 + epoch) * 0.5)


def test_alpha_goes_where_the_held_out_loss_falls() -> None:
    """To the branch that was trained with the head, away from one that is nearly nothing."""
    problem = problem_of(tiny_net(depth=1, dropout=0), config=replace(QUICK, epochs=20))
    trained = run(Fixed("T"), problem.only(listed(["T"])[0]))[0].best.weights
    for good, expected in (("shared", "T"), ("specific", "S")):
        branches = {
            part: {n: w * (1.0 if part == good else 1e-3) for n, w in trained.layers[0].shared.items()}
            for part in ("shared", "specific")
        }
        weights = TaskWeights((LayerWeights(**branches, factors={}),), trained.head)
        config = replace(QUICK, learning_rate=1e-6, epochs=20)
        phase = DARTSPhase(DARTS(alpha_learning_rate=0.03), replace(problem, weights=weights, config=config))
        train(loop_over(phase))
        assert str(phase.configuration) == expected
        assert max(phase.summary().probabilities) > 0.65


def test_an_alpha_of_another_shape_is_refused() -> None:
    state = pack(loop_over(phase_of()).state())
    with pytest.raises(StorageError, match="alpha has another shape"):
        loop_over(phase_of(DARTS(groups=(2,)), space=grouped((2,)))).load_state(*state)


@pytest.mark.parametrize("restore_best", [True, False])
def test_what_is_kept(restore_best: bool) -> None:
    problem = problem_of(config=replace(QUICK, epochs=5, restore_best=restore_best, tolerance=0))
    found, records = run(DARTS(alpha_learning_rate=0.2), problem)
    best = max(range(5), key=lambda epoch: (records[epoch].valid_accuracy, -epoch))
    assert (found.best_epoch, found.num_epochs, found.commit_epoch) == (best + 1, 5, None)
    kept = records[best if restore_best else 4].configuration
    assert (str(found.best.configuration), str(found.kept.configuration)) == (records[best].configuration, kept)
    assert {record.phase for record in records} == {""}


@every_sharing
def test_retraining_is_the_training_of_the_chosen_configuration(sharing: AbstractSharing) -> None:
    problem = problem_of(sharing=sharing, config=replace(QUICK, epochs=3))
    searched, before = run(DARTS(), problem)
    found, records = run(DARTS(retrain=True), problem)
    chosen = searched.kept.configuration
    assert [(r.phase, r.epoch) for r in records] == [("search" if e < 4 else "retraining", e) for e in range(1, 7)]
    assert [replace(r, phase="") for r in records[:3]] == before
    loop = Loop(MixturePhase(Fixed(str(chosen)), problem.only(chosen)), seeds=phase_seeds((3, 1), 1), device=CPU)
    train(loop)
    fitted = loop.result()
    for choice, moment in ((found.best, fitted.best), (found.kept, fitted.kept(True))):
        assert choice.configuration == chosen
        assert_same_tensors(choice.weights, moment.weights)
    assert (found.num_epochs, found.commit_epoch, found.best_epoch) == (6, 4, 3 + fitted.best.epoch)


def test_one_configuration_is_trained_plainly() -> None:
    problem = problem_of(space=listed(["TS"]))
    for retrain in (False, True):
        darts, fixed = run(DARTS(retrain=retrain), problem), run(Fixed("TS"), problem)
        assert darts[1] == fixed[1]
        assert_same_tensors(darts[0].kept.weights, fixed[0].kept.weights)


def second_problem(training: TrainingConfig, sharing: AbstractSharing) -> tuple[Learner, Task, TaskStart]:
    learner = Learner(tiny_net(), sharing=sharing, search=DARTS(), training=training)
    learner.learn(tiny_task("first"))
    task = tiny_task("second", seed=1)
    return learner, task, start_of(learner, task)


@every_sharing
def test_branches_that_were_taken_over_start_apart(sharing: AbstractSharing) -> None:
    """Task-specific weights start from the first task's, which are the shared ones: half of that, the rest fresh."""
    _, _, problem = second_problem(replace(QUICK, specific_shrink=0.6), sharing)
    given, start = copied(problem.weights), DARTSPhase(DARTS(), problem).initial()
    assert set(problem.fresh_weights) >= {(0, False), (1, False)}
    for i, layer in enumerate(given.layers):
        for name, value in layer.specific.items():
            expected = 0.6 * value + 0.8 * problem.fresh_weights[i, False][name]
            torch.testing.assert_close(start.layers[i].specific[name], expected)
    assert_same_tensors(problem.weights, given)


def test_branches_that_could_never_part_are_refused() -> None:
    learner, task, _ = second_problem(replace(QUICK, specific_shrink=1.0), HardSharing())
    with pytest.raises(ConfigError, match=r"branches of layer 1 apart.*specific_shrink below 1 or specific_start to"):
        learner.learn(task)
    assert learner.task_names == ("first",)
    learner, task, _ = second_problem(replace(QUICK, specific_shrink=1.0), TensorFactorization())
    learner.learn(task)  # the core moves otherwise than a kernel does
    learner, task, _ = second_problem(replace(QUICK, specific_start="fresh", specific_shrink=1.0), HardSharing())
    learner.learn(task)
