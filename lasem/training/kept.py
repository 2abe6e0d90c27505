"""Outputs of layers that never change, computed once for a task's images and kept, so that the rest trains on them."""

import os
import shutil
import tempfile
import warnings
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import Any, final

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from lasem.data import Split, Task
from lasem.data.images import TensorImages
from lasem.nets import AbstractBlock, AbstractNet, Head, InitialWeights, Value, Weights, as_float32, full_precision
from lasem.nets.block import AbstractWholeBlock, generator_of
from lasem.space import Configuration, Space
from lasem.training.augment import augmented, preset_for
from lasem.training.config import TrainingConfig, autocast, evaluation_batch
from lasem.training.task_start import LayerWeights, SharedProtection, TaskStart, TaskWeights

_IN_MEMORY = 2**30
"""Bytes of kept outputs up to which they wait in memory; more wait in a temporary file."""
_MOST_ROWS = 20_000
"""Of images and their versions to which a head is fitted."""
STRENGTHS = (0.01, 0.1, 1.0)
"""The inverse penalties of a head that the validation images choose from."""
_WARMUP = 3
"""Epochs in which steps grow, so that pretrained weights are not lost to the optimiser's first ones."""
_LEAST_DEVIATION = 0.5
"""Of a feature, of the root of the mean of all variances: slopes of features that hardly differ would be so steep that
the first steps of training the layers before them throw the answers about."""
_ABSENT = -20.0
"""Bias of a class without training images."""


@final
class MadeNet(AbstractNet):
    """Layers in the place of a network's, with its head, for the training of one task; it is never saved."""

    def __init__(self, net: AbstractNet, blocks: Sequence[AbstractBlock], image_shape: tuple[int, int, int]) -> None:
        """Take the network, the layers, and what the first one takes."""
        self._head, self.initial, self._blocks, self.image_shape = net.head, net.initial, tuple(blocks), image_shape

    @property
    def blocks(self) -> tuple[AbstractBlock, ...]:
        return self._blocks

    @property
    def head(self) -> Head:
        return self._head

    def description(self) -> dict[str, Any]:
        raise NotImplementedError


def _rest(net: AbstractNet, first: int, shape: tuple[int, ...]) -> MadeNet:
    """Return the layers of a network from one on, whose input has a shape (...); they may be none."""
    blocks = [_Reshaped(block, shape) for block in net.blocks[first:]][:1] + list(net.blocks[first + 1 :])
    return MadeNet(net, blocks or [_Passing()], _as_image(shape))


class _Passing(AbstractWholeBlock):
    """A layer that changes nothing."""

    pretrained = True

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        return {}

    def initial(self, generator: torch.Generator, rule: InitialWeights) -> dict[str, Tensor]:
        return {}

    def apply(self, weights: Weights, x: Value) -> Value:
        return x


class WrappedBlock(AbstractWholeBlock):
    """A layer that is another one, but for what a subclass changes."""

    def __init__(self, block: AbstractBlock) -> None:
        """Take the other layer."""
        self.block, self.pretrained = block, block.pretrained

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        return self.block.shapes

    @property
    def kernels(self) -> tuple[str, ...]:
        return self.block.kernels

    @property
    def statistics(self) -> dict[str, tuple[int, ...]]:
        return self.block.statistics

    def held(self, like: Tensor) -> Weights:
        return self.block.held(like)

    def initial(self, generator: torch.Generator, rule: InitialWeights) -> dict[str, Tensor]:
        return self.block.initial(generator, rule)

    def apply(self, weights: Weights, x: Value) -> Value:
        return self.block.apply(weights, x)

    def measure(self, weights: Weights, x: Value) -> tuple[Value, dict[str, Tensor]]:
        return self.block.measure(weights, x)


@final
class _Reshaped(WrappedBlock):
    """A layer whose inputs come as images."""

    def __init__(self, block: AbstractBlock, shape: tuple[int, ...]) -> None:
        """Take the layer, and its inputs' shape (...)."""
        super().__init__(block)
        self._shape = shape

    def apply(self, weights: Weights, x: Value) -> Value:
        return super().apply(weights, x.reshape(-1, *self._shape))

    def measure(self, weights: Weights, x: Value) -> tuple[Value, dict[str, Tensor]]:
        return super().measure(weights, x.reshape(-1, *self._shape))


def prepared(start: TaskStart) -> TaskStart:
    """Return the start of a pretrained network's training: nothing is computed twice, and the head suits the features.

    Where there is one configuration, the outputs of its first layers, as far as they are transferred and never change,
    are kept, and the network is what comes after them. A linear head begins at the solution of logistic regression on
    its inputs, as they are before training; if nothing else is trained, that is the result.

    Other starts are returned as they are.
    """
    if not start.net.pretrained or start.is_prepared:
        return start
    start = replace(start, is_prepared=True)
    start = _kept(start) if start.space.size == 1 else start
    can_fit = (
        start.config.fit_head
        and not start.net.head.hidden
        and int(start.task.train.labels.bincount().count_nonzero()) > 1
    )
    return _with_fitted_head(start) if can_fit else start


def in_one_configuration(start: TaskStart, configuration: Configuration, num_epochs: int) -> TaskStart:
    """Return a prepared start that goes on in one configuration; of its network only the last layers may be left."""
    config = replace(start.config, views=min(start.config.views, num_epochs), refit=False)
    start = replace(start, space=Space((configuration,)), config=config)
    return _kept(start) if start.is_prepared else start


def _kept(start: TaskStart) -> TaskStart:
    can_keep = start.protection.quadratic is None and start.config.mix == "none"
    return _without_frozen(start) if can_keep else start


def _without_frozen(start: TaskStart) -> TaskStart:
    configuration, layers = start.space[0], start.weights.layers
    first = 0
    for block, transferred, own in zip(start.net.blocks, configuration, layers, strict=True):
        if not (transferred and start.sharing.keeps(block) and not own.factors):
            break
        first += 1
    if first == 0:
        return start
    task, config = start.task, start.config
    preset = preset_for(config.augment, task.train.images)
    outputs = partial(_outputs, start, range(first))
    views, valid_views = [outputs(task.train)], [outputs(task.valid)]
    for k in range(1, 1 if preset == "none" else config.views):
        change = partial(augmented, generator=generator_of((*start.seed, 3, k)), preset=preset)
        views.append(outputs(task.train, change=change))
        valid_views += [outputs(task.valid, change=change)] if config.refit else []
    valid = _as_split(valid_views[0], task.valid)
    splits = [_as_split(view, task.train) for view in views]
    rest = len(configuration) - first
    return replace(
        start,
        net=_rest(start.net, first, tuple(views[0].shape[1:])),
        config=replace(config, augment="none"),
        task=Task(task.name, task.classes, splits[0], valid, valid),
        space=Space((Configuration(configuration.bits[first:] or (True,)),)),
        weights=TaskWeights(layers[first:] or (LayerWeights({}, {}, {}),), start.weights.head),
        fresh_weights={(i - first, kind): w for (i, kind), w in start.fresh_weights.items() if i >= first},
        protection=SharedProtection(frozenset(i - first for i in start.protection.read_only)),
        views=tuple(splits),
        valid_views=tuple(_as_split(view, task.valid) for view in valid_views),
        prefix="T" * (first if rest else first - 1),
    )


def _with_fitted_head(start: TaskStart) -> TaskStart:
    task, views = start.task, start.views or (start.task.train,)
    views = views[: max(1, _MOST_ROWS // len(task.train))]
    outputs = partial(_outputs, start, range(start.net.depth))
    x = torch.cat([outputs(view).flatten(1) for view in views])
    y = torch.cat([view.labels for view in views])
    strengths = STRENGTHS if start.strength is None else (start.strength,)
    head, loss, strength = fit_head(
        x, y, outputs(task.valid).flatten(1), task.valid.labels, task.num_classes, start.config, strengths
    )
    solved = loss if isinstance(start.net.blocks[0], _Passing) else None
    weights = TaskWeights(start.weights.layers, head)
    return replace(start, weights=weights, warmup=_WARMUP, solved=solved, strength=strength)


def with_all_images(start: TaskStart, valid_accuracy: float) -> TaskStart | None:
    """Return a prepared start that trains on the validation images as well, to the last epoch.

    ``valid_accuracy``, of the same training without them, takes the place of what could be measured now. None if
    validation images are standardised by their own moments.
    """
    train = start.task.train.joined(start.task.valid)
    if train is None:
        return None
    views = (first.joined(second) for first, second in zip(start.views, start.valid_views, strict=False))
    start = replace(
        start,
        config=replace(start.config, patience=0, tolerance=1.0),
        task=replace(start.task, train=train),
        views=tuple(view for view in views if view is not None),
        valid_accuracy=valid_accuracy,
    )
    return start if start.strength is None else _with_fitted_head(start)


def fit_head(
    x: Tensor,
    labels: Tensor,
    valid_x: Tensor,
    valid_labels: Tensor,
    num_classes: int,
    config: TrainingConfig,
    strengths: Sequence[float] = STRENGTHS,
) -> tuple[dict[str, Tensor], float, float]:
    """Fit a linear head by logistic regression on standardised features; validation images choose the penalty.

    Features of a small deviation are divided by half the usual one.

    Args:
        x: features, shape (N, F).
        labels: shape (N,).
        valid_x: features of the validation images.
        valid_labels: their labels.
        num_classes: K.
        config: says how classes count.
        strengths: inverse penalties to choose from.

    Returns:
        ``weight.0`` (K, F) and ``bias.0`` (K,) for features as they are, the mean training loss, and the inverse
        penalty.
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    mean, std = x.mean(dim=0), x.std(dim=0, correction=0)
    std = std.clamp(min=max(1e-12, _LEAST_DEVIATION * float(std.square().mean().sqrt())))
    inputs = ((x - mean) / std).numpy()
    best: tuple[float, dict[str, Tensor], float] | None = None
    for strength in strengths:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            fitted = LogisticRegression(
                C=strength, max_iter=1000, class_weight="balanced" if config.class_weights == "balanced" else None
            ).fit(inputs, labels.numpy())
        slopes, offsets = torch.tensor(fitted.coef_).float(), torch.tensor(fitted.intercept_).float()
        if len(fitted.classes_) == 2:  # of two classes it gives the second one's
            slopes, offsets = torch.cat([-slopes, slopes]) / 2, torch.cat([-offsets, offsets]) / 2
        weight, bias = torch.zeros(num_classes, x.shape[1]), torch.full((num_classes,), _ABSENT)
        places = torch.tensor(fitted.classes_)
        weight[places], bias[places] = slopes / std, offsets - slopes @ (mean / std)
        right = (F.linear(valid_x, weight, bias).argmax(dim=1) == valid_labels).float().mean()
        if best is None or float(right) > best[0]:
            best = float(right), {"weight.0": weight, "bias.0": bias}, strength
    assert best is not None
    _, head, strength = best
    return head, float(F.cross_entropy(F.linear(x, head["weight.0"], head["bias.0"]), labels)), strength


@torch.no_grad()
def _outputs(
    start: TaskStart, layers: Sequence[int], split: Split, change: Callable[[Tensor], Tensor] | None = None
) -> Tensor:
    """Return what some layers in a row make of a split's images at their start, on the CPU, shape (N, ...)."""
    space, device = start.space, start.device
    configuration = (
        max(space, key=lambda c: c.num_transferred) if space.is_listed else Configuration((True,) * start.net.depth)
    )
    made: list[Weights] = []
    for i in layers:
        block, own = start.net.blocks[i], start.weights.layers[i].on(device)
        weights: Weights = own.specific
        if configuration[i]:
            with full_precision(device):
                weights = start.sharing.weights(block, own.shared, own.factors)
        made.append({**weights, **own.statistics_of(str(configuration)[: i + 1])})
    kept, place = torch.empty(0), 0
    for images, _ in split.batches(evaluation_batch(split.images.shape), device=device):
        x = images if change is None else change(images)
        x = x.contiguous(memory_format=torch.channels_last) if x.ndim == 4 else x
        with autocast(start.config.precision, device):
            for i, weights in zip(layers, made, strict=True):
                x = start.net.blocks[i].apply(weights, x)
        if place == 0:
            kept = _room((len(split), *x.shape[1:]))
        kept[place : place + len(x)] = as_float32(x).cpu()
        place += len(x)
    return kept


def _room(shape: tuple[int, ...]) -> Tensor:
    """Return an empty tensor, in a temporary file if it is large and there is room on the disk."""
    size = int(np.prod(shape))
    folder = tempfile.gettempdir()
    if 4 * size <= _IN_MEMORY or shutil.disk_usage(folder).free < 5 * size:
        return torch.empty(shape)
    handle, path = tempfile.mkstemp(prefix="lasem-", dir=folder)
    os.close(handle)
    kept = torch.from_file(path, shared=True, size=size).view(shape)
    with suppress(OSError):  # where a file in use can be removed, it is gone with the tensor
        os.unlink(path)
    return kept


def _as_image(shape: tuple[int, ...]) -> tuple[int, int, int]:
    channels, height, width = (*shape, 1, 1)[:3] if len(shape) != 2 else (1, *shape)
    return channels, height, width


def _as_split(outputs: Tensor, split: Split) -> Split:
    """Return outputs with the labels of the images that they are of."""
    images = outputs.reshape(len(outputs), *_as_image(tuple(outputs.shape[1:])))
    num = images.shape[1]
    return Split(TensorImages.placed(images, None), split.labels.cpu(), torch.zeros(num), torch.ones(num))
