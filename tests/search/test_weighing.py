import math
import statistics
from dataclasses import replace
from typing import Any

import pytest
import torch
from learner.fixture import SHARINGS, Scripted, assert_same_tensors, copied, every_sharing, tiny_net, tiny_task
from training.fixture import CPU, NEVER, loop_of, seconds_pass, stored, train

from lasem import DigitsReader, Learner, Net, TrainingConfig, for_images
from lasem.errors import ConfigError, StorageError, TrainingError
from lasem.search import EM, AbstractSearch, DeepEM, Fixed, FixedProbability, configuration_accuracy
from lasem.search.mixture import drop_negligible
from lasem.sharing import AbstractSharing, Deconvolution, HardSharing, TensorFactorization
from lasem.space import Configuration, full, listed, top
from lasem.training.config import OPTIMISERS
from lasem.tree import Path, flatten


def used_by(configuration: Configuration, path: Path) -> bool:
    match path:
        case ("layers", int(layer), part, _):
            return configuration[layer] == (part != "specific")
    return True


@pytest.mark.parametrize("optimiser", OPTIMISERS)
@every_sharing
def test_after_commitment_only_the_chosen_weights_move(sharing: AbstractSharing, optimiser: Any) -> None:
    search = EM(first_task="search", commit_probability=1.01, commit_share=0.5)
    config = TrainingConfig(epochs=4, batch_size=5, optimiser=optimiser, schedule="constant", weight_decay=0.01)
    trainer = loop_of(tiny_net(), sharing, search, full(2), config)
    before = flatten(copied(trainer.weights))
    records = train(trainer, 2)
    searched = flatten(copied(trainer.weights))
    assert all(not torch.equal(before[path], searched[path]) for path in before)
    records += train(trainer)
    assert ([r.num_evaluated for r in records], trainer.phase.commit_epoch) == ([4, 4, 1, 1], 3)
    chosen = Configuration.parse(records[-1].configuration)
    assert records[-2].configuration == records[-1].configuration
    assert sorted(records[-1].probabilities) == [0, 0, 0, 1]
    for path, value in flatten(trainer.weights).items():
        assert torch.equal(value, searched[path]) != used_by(chosen, path), path


@pytest.mark.parametrize("search", [EM(first_task="search"), EM(first_task="search", prior_form="average")])
def test_the_prior_begins_as_set_or_else_as_the_mechanism_has_it(search: EM) -> None:
    def start(sharing: AbstractSharing, search: EM) -> list[float]:
        loop = loop_of(tiny_net(depth=2), sharing, search, full(2))
        return list(loop.phase.summary().probabilities)  # of SS, ST, TS, TT

    general, tensors = [0.4 * 0.8, 0.4 * 0.2, 0.6 * 0.8, 0.6 * 0.2], [0.2 * 0.9, 0.2 * 0.1, 0.8 * 0.9, 0.8 * 0.1]
    assert start(HardSharing(), search) == start(Deconvolution(), search) == pytest.approx(general)
    assert start(TensorFactorization(), search) == pytest.approx(tensors)
    for sharing in SHARINGS:
        assert start(sharing, replace(search, prior_start=(0.5, 0.5))) == [0.25] * 4


@pytest.mark.parametrize(
    ("search", "letters", "commit_epoch", "num_evaluated"),
    [
        (EM(first_task="search", commit_probability=0.5, commit_share=1), ["S", "T"], 2, [2, 1, 1, 1]),
        (EM(**NEVER), ["S", "T"], None, [2] * 4),
        (EM(), ["T"], None, [1] * 4),  # nothing to choose
        (Fixed("all"), ["T"], None, [1] * 4),
    ],
)
def test_commitment_by_probability_and_never(search: Any, letters: Any, commit_epoch: Any, num_evaluated: Any) -> None:
    trainer = loop_of(tiny_net(depth=1), HardSharing(), search, listed(letters))
    records = train(trainer)
    assert ([r.num_evaluated for r in records], trainer.phase.commit_epoch) == (num_evaluated, commit_epoch)
    assert (max(records[-1].probabilities) == 1) == (num_evaluated[-1] == 1)
    assert [r.num_batches is None for r in records] == [num == 1 for num in num_evaluated]


def test_records_hold_what_the_trainer_measures(monkeypatch: pytest.MonkeyPatch) -> None:
    seconds_pass(monkeypatch, in_loss=4, in_accuracy=16)
    net, task = tiny_net(), tiny_task()
    trainer = loop_of(net, HardSharing(), EM(**NEVER), full(2), task=task)
    for epoch in (1, 2):
        record, timing = trainer.run_epoch()
        chosen = full(2)[trainer.phase.leading]
        assert (record.task, record.epoch, record.configuration) == (task.name, epoch, str(chosen))
        assert record.valid_accuracy == configuration_accuracy(net, HardSharing(), chosen, trainer.weights, task.valid)
        assert record.probabilities.index(max(record.probabilities)) == trainer.phase.leading
        assert (record.num_batches, record.trace is None) == (2, False)
        assert record.trace[4:] == tuple(round(p, 4) for p in record.probabilities) != record.trace[:4]  # type: ignore[index]
        # of two mini-batches
        assert (timing.epoch, timing.seconds_training, timing.seconds_evaluating) == (epoch, 2 * 4, 16)


def naive_best(accuracies: list[float], num_valid: int, tolerance: float) -> int:
    """The rule of ``TrainingConfig.tolerance``, epoch by epoch."""
    best = 0
    for epoch, value in enumerate(accuracies):
        highest = max(accuracies[: epoch + 1])
        error = math.sqrt(highest * (1 - highest) / num_valid)
        first = value == highest and value not in accuracies[:epoch]
        if first or (tolerance > 0 and value >= highest - tolerance * error):
            best = epoch
    return best


@pytest.mark.parametrize("tolerance", [0.0, 0.7, 1.5])
def test_the_best_epoch_keeps_its_weights_and_its_configuration(tolerance: float) -> None:
    config = TrainingConfig(epochs=7, batch_size=5, learning_rate=0.01, schedule="constant", tolerance=tolerance)
    num_other = 0
    for seed in range(4):
        task = tiny_task(seed=seed, num_classes=3)
        trainer = loop_of(tiny_net(), HardSharing(), Scripted(), full(2), config, task=task)
        history = []
        while not trainer.finished:
            record, _ = trainer.run_epoch()
            history.append((record.valid_accuracy, trainer.phase.leading, copied(trainer.weights)))
        best = trainer.best
        at = naive_best([value for value, _, _ in history], len(task.valid), tolerance)
        leading = str(full(2)[history[at][1]])
        assert (best.epoch, best.valid_accuracy, best.summary.configuration) == (at + 1, history[at][0], leading)
        assert_same_tensors(best.weights, history[at][2])
        num_other += leading != str(full(2)[trainer.phase.leading])
    assert num_other > 0  # the case that matters came up


@pytest.mark.parametrize(("patience", "num_epochs"), [(3, 4), (0, 6)])
def test_patience_counts_epochs_without_a_better_accuracy(patience: int, num_epochs: int) -> None:
    config = TrainingConfig(epochs=6, batch_size=5, learning_rate=1e-12, patience=patience)
    records = train(loop_of(tiny_net(), HardSharing(), Fixed("all"), listed(["TT"]), config))
    assert len({record.valid_accuracy for record in records}) == 1  # nothing moves: the first epoch is the best
    assert len(records) == num_epochs


@pytest.mark.parametrize(
    ("learning_rate", "weight_decay", "num_train"),
    [(1e6, 1.0, 10), (3e38, 1e3, 5)],  # the second takes one step: its loss is finite, only the weights are not
)
def test_training_that_diverges_is_an_error(learning_rate: float, weight_decay: float, num_train: int) -> None:
    config = TrainingConfig(batch_size=5, optimiser="sgd", learning_rate=learning_rate, weight_decay=weight_decay)
    task = tiny_task(num_train=num_train)
    trainer = loop_of(tiny_net(dropout=0), HardSharing(), EM(**NEVER), full(2), config, task=task)
    with pytest.raises(TrainingError, match=r"not finite in epoch \d+ .*Try a smaller learning_rate"):
        train(trainer, 1 if num_train == 5 else 8)


@pytest.mark.parametrize(
    ("batch_size", "drop_last", "steps"), [(5, True, 1), (5, False, 2), (1, False, 7), (8, True, None)]
)
def test_incomplete_mini_batches_are_dropped_if_asked_for(batch_size: int, drop_last: bool, steps: int | None) -> None:
    config = TrainingConfig(epochs=1, batch_size=batch_size, drop_last=drop_last)
    trainer = loop_of(tiny_net(), HardSharing(), EM(**NEVER), full(2), config, task=tiny_task(num_train=7))
    if steps is None:
        with pytest.raises((TrainingError, ConfigError), match="batch_size"):
            trainer.run_epoch()
    else:
        trainer.run_epoch()
        assert stored(trainer)[0]["optimiser.head.bias.1.step"].item() == steps


@pytest.mark.parametrize("kind", [TensorFactorization, Deconvolution])
def test_what_makes_a_kernel_takes_steps_of_its_own_size(kind: type[TensorFactorization | Deconvolution]) -> None:
    """One step of plain gradient descent: a quarter of the step for shared knowledge and factors."""
    config = TrainingConfig(epochs=1, batch_size=10, optimiser="sgd", momentum=0, learning_rate=0.01)
    moved = []
    for step_scale in (1.0, 0.25):
        trainer = loop_of(tiny_net(dropout=0), kind(step_scale=step_scale), EM(**NEVER), full(2), config)
        before = flatten(copied(trainer.weights))
        trainer.run_epoch()
        moved.append({path: (value - before[path]).detach() for path, value in flatten(trainer.weights).items()})
    for path, distance in moved[0].items():
        plain = path[0] == "head" or "specific" in path
        scale = 1.0 if plain or kind(step_scale=0.25).step(str(path[-1])) == 1.0 else 0.25
        assert float(distance.abs().max()) > 0
        torch.testing.assert_close(moved[1][path], scale * distance, rtol=1e-3, atol=1e-6)


def test_a_state_of_something_else_is_refused() -> None:
    def fresh(depth: int = 2, name: str = "task", search: Any = None) -> Any:
        return loop_of(tiny_net(depth=depth), HardSharing(), search or EM(**NEVER), full(depth), task=tiny_task(name))

    trainer = fresh()
    train(trainer, 1)
    tensors, plain = stored(trainer)
    with pytest.raises(StorageError, match=r"training state of task 'other' .* got another \(it is of task 'task'\)"):
        fresh(name="other").load_state(tensors, plain)
    with pytest.raises(StorageError, match="other names or shapes"):
        fresh(depth=3).load_state(tensors, plain)
    with pytest.raises(StorageError, match="bits, log_factor, mass"):
        fresh(search=DeepEM()).load_state(tensors, plain)
    for name in ("order", "dropout", "phase.search"):
        with pytest.raises(StorageError, match=name):
            fresh().load_state({k: v for k, v in tensors.items() if k != name}, plain)
    for name in plain:
        with pytest.raises(StorageError, match=name):
            fresh().load_state(tensors, {k: v for k, v in plain.items() if k != name})
    with pytest.raises(StorageError):
        fresh().load_state(tensors | {"order": torch.zeros(3)}, plain)
    with pytest.raises(StorageError, match=r"another shape for 'head\.bias\.1\.exp_avg'"):  # memory would be overrun
        fresh().load_state(tensors | {"optimiser.head.bias.1.exp_avg": torch.zeros(99)}, plain)


@pytest.mark.parametrize("chosen", ["ST", "TS", "SS", "TT"])
def test_committed_weights_that_were_taken_over_are_shrunk_and_perturbed(chosen: str) -> None:
    net = Net(image_shape=(1, 6, 6), channels=(2, 3), kernels=(3, 3), pools=(1, 2), hidden=(4,))
    search, space = EM(commit_share=0.5, commit_probability=2), full(2)
    config = TrainingConfig(epochs=2, optimiser="sgd", learning_rate=1e-30, specific_shrink=0.6)
    fresh = {"weight": torch.randn(3, 2, 3, 3), "bias": torch.randn(3)}
    trainer = loop_of(net, HardSharing(), search, space, config, fresh_weights={(1, False): fresh})
    trainer.run_epoch()
    before = flatten(copied(trainer.weights))
    mass = torch.ones(len(space), dtype=torch.float64)
    mass[space.index(Configuration.parse(chosen))] = 9
    trainer.phase.search_state = mass
    trainer.run_epoch()
    assert trainer.phase.commit_epoch == 2
    assert_same_tensors(trainer.weights.head, trainer.phase.initial().head)
    for path, value in flatten(trainer.weights.layers).items():
        moved = path[:2] == (1, "specific") and chosen[1] == "S"
        expected = before[("layers", *path)]
        expected = 0.6 * expected + 0.8 * fresh[str(path[-1])] if moved else expected
        torch.testing.assert_close(value, expected, rtol=1e-6, atol=1e-6 if moved else 0)


@pytest.mark.parametrize("chosen", ["T", "S"])
def test_a_mechanisms_part_that_was_taken_over_is_renewed_where_it_is_kept(chosen: str) -> None:
    net, sharing = Net(image_shape=(3, 6, 6), channels=(12,), kernels=(3,), pools=(1,), hidden=(4,)), Deconvolution()
    block = net.blocks[0]
    config = TrainingConfig(epochs=1, optimiser="sgd", learning_rate=1e-30, specific_shrink=0.6)
    fresh = block.initial(torch.Generator().manual_seed(4), "he")
    trainer = loop_of(net, sharing, Fixed(chosen), listed([chosen]), config, fresh_weights={(0, True): fresh})
    before = copied(trainer.weights)
    trainer.run_epoch()
    after = copied(trainer.weights)
    if chosen == "S":
        assert_same_tensors(after, before)
        return
    expected = sharing.blend_with_fresh(block, before.layers[0].shared, before.layers[0].factors, fresh, 0.6)
    torch.testing.assert_close(after.layers[0].factors, expected, rtol=0, atol=1e-20)  # one step of 1e-30
    assert not torch.equal(expected["combine"], before.layers[0].factors["combine"])


@pytest.mark.parametrize(("keep", "epochs"), [(1.0, 400), (0.5, 4), (None, 29), (None, 30), (None, 400)])
def test_the_head_starts_again_when_what_it_was_fitted_to_is_renewed(keep: float | None, epochs: int) -> None:
    config = TrainingConfig(epochs=epochs, batch_size=5, learning_rate=0.05, specific_shrink=keep)
    search = EM(first_task="search", commit_share=1 / epochs, commit_probability=2)
    trainer = loop_of(tiny_net(), HardSharing(), search, full(2), config)
    trainer.run_epoch()
    trained = copied(trainer.weights.head)
    trainer.phase.begin_epoch(trainer.weights, 1, 0.05)
    assert trainer.phase.commit_epoch == 2
    start = trainer.phase.initial().head
    assert_same_tensors(trainer.weights.head, trained if keep == 1 or (keep is None and epochs < 400) else start)
    assert not torch.equal(trained["weight.0"], start["weight.0"])


def test_with_few_epochs_a_search_does_as_well_as_transferring_everything_or_nothing() -> None:
    stream = DigitsReader(num_tasks=5).open(seed=3)

    def peak(search: AbstractSearch[Any]) -> float:
        learner = Learner(for_images((1, 8, 8)), search=search, training=TrainingConfig(epochs=6), seed=3)
        return statistics.mean(learner.learn(task).peak_accuracy for task in stream)

    assert peak(EM()) > max(peak(Fixed("all")), peak(Fixed("none"))) - 0.02


@pytest.mark.parametrize(("weight", "is_felt"), [(1e-12, True), (1e-15, False), (1e-30, False)])
def test_no_gradient_is_subnormal(weight: float, is_felt: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Weights that no sum feels are zero."""
    weights = torch.tensor([1.0, weight], dtype=torch.float64)
    monkeypatch.setattr(Scripted, "step", lambda self, state, evidence: (weights, state))
    trainer = loop_of(tiny_net(depth=1), HardSharing(), Scripted(), full(1))
    batch = next(iter(trainer.phase.batches(CPU, torch.Generator().manual_seed(0))))
    trainer.phase.loss(trainer.weights, batch, torch.Generator().manual_seed(0)).backward()
    for path, value in flatten(trainer.weights).items():
        size = value.grad.abs()
        assert not ((size > 0) & (size < torch.finfo(torch.float32).tiny)).any(), path
        assert bool(size.any()) == (is_felt or used_by(full(1)[0], path)), path


def test_a_weight_that_is_no_number_stays_one() -> None:
    assert drop_negligible(torch.tensor([0.5, float("nan"), 1e-20])).isnan().tolist() == [False, True, False]
    assert drop_negligible(torch.tensor([0.5, 1e-20], dtype=torch.float64)).tolist() == [0.5, 1e-20]


def test_one_configuration_for_every_task() -> None:
    for index in range(3):
        assert [str(c) for c in Fixed(top(1)).space(3, index)] == ["SST"]
        assert [str(c) for c in Fixed().space(3, index)] == ["TTT"]
    assert Fixed(top(1)) == Fixed("top-1")


def test_a_name_that_is_none_is_refused() -> None:
    with pytest.raises(ConfigError, match="Did you mean 'all'"):
        Fixed("al")
    with pytest.raises(ConfigError, match="2 letters, one for each layer of the network; got 'STT' with 3"):
        Fixed("STT").space(2, 0)


def test_the_probable_configuration_stands_first_among_all() -> None:
    search = FixedProbability(configuration="top-1")
    space = search.space(3, task_index=1)
    assert (len(space), str(space[0])) == (8, "SST")
    assert [str(c) for c in search.space(3, task_index=0)] == ["TTT"]  # nothing to transfer yet
    assert str(FixedProbability(configuration="bottom-2", groups=(2, 2)).space(4, 1)[0]) == "TTSS"


def test_probabilities_stay_as_they_were_given() -> None:
    search = FixedProbability(probability=0.7)
    state = search.init(4)
    weights, after = search.step(state, torch.tensor([[-9.0] * 5, [-0.1] * 5, [-9.0] * 5, [-9.0] * 5]))
    torch.testing.assert_close(weights, torch.tensor([0.7, 0.1, 0.1, 0.1], dtype=torch.float64))
    assert torch.equal(after, state)
    assert (search.best(state), search.commits(state, 9, 10), search.commits(state, 10, 10)) == (0, False, True)


def test_a_task_gets_what_was_given() -> None:
    search = FixedProbability(configuration="bottom-1", commit_share=0.5)
    learner = Learner(tiny_net(), search=search, sharing=HardSharing(), training=TrainingConfig(epochs=4), seed=0)
    records = [learner.learn(tiny_task(name, seed=seed)) for seed, name in enumerate(("one", "two", "three"))]
    assert [record.configuration for record in records] == ["TT", "TS", "TS"]
    assert [record.commit_epoch for record in records[1:]] == [3, 3]
