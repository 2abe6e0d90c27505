"""Settings of the training of one task."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal, final

from lasem.settings import Range, Settings
from lasem.training.precision import Precision

OPTIMISERS = ("adam", "adamw", "sgd", "rmsprop", "rmsprop-tf")


@final
@dataclass(frozen=True, kw_only=True)
class TrainingConfig(Settings):
    """How one task is trained. Knows neither the stream nor the search.

    Raises:
        ConfigError: if a setting is out of range.
    """

    epochs: Annotated[int, Range(least=1)] = 30
    """Passes over a task's training images; at least 1."""
    batch_size: Annotated[int, Range(least=1)] = 10
    """Images in a mini-batch; at least 1."""
    drop_last: bool = False
    """Whether an incomplete last mini-batch is passed over, as in the paper."""
    optimiser: Literal["adam", "adamw", "sgd", "rmsprop", "rmsprop-tf"] = "adam"
    """``rmsprop-tf`` is RMSProp as TensorFlow defines it. The optimiser's state starts afresh with each task."""
    learning_rate: Annotated[float, Range(above=0)] = 5e-4
    """Step size at the start; positive."""
    schedule: Literal["constant", "cosine", "inverse"] = "cosine"
    """``cosine``: to 0 over each task's epochs. ``inverse``: learning_rate / (1 + epoch * learning_rate_decay), the
    epochs counted over all tasks, as in the paper."""
    learning_rate_decay: Annotated[float, Range(least=0)] = 0.0
    """For ``inverse``; not negative."""
    momentum: Annotated[float, Range(least=0, below=1)] = 0.9
    """For ``sgd``; in [0, 1)."""
    weight_decay: Annotated[float, Range(least=0)] = 0.0
    """L2 penalty of the optimiser; not negative."""
    patience: Annotated[int, Range(least=0)] = 20
    """Epochs without a better validation accuracy before training stops; 0 never stops early."""
    restore_best: bool = True
    """Keep the weights and the configuration of the best epoch (see ``tolerance``), not the last ones."""
    tolerance: Annotated[float, Range(least=0)] = 2.0
    """The best epoch is the latest one whose validation accuracy is at most this many standard errors below the highest
    so far. The highest of 25 accuracies that differ by chance alone lies two standard errors above their mean; with 30
    images that is 18 points, so that only what is clearly worse is passed over, with 3000 images it is 1.8. 0: the
    first epoch with the highest accuracy, as in the paper."""
    specific_start: Literal["fresh", "shared", "latest"] = "latest"
    """How task-specific weights start: at random (``fresh``, as in the paper), from what the layer would be if it were
    transferred (``shared``), or from the latest task's own ones and, where it has none, as with shared (``latest``).
    Layers that the search may not transfer start at random."""
    specific_shrink: Annotated[float, Range(least=0, most=1)] = 0.25
    """What is kept of weights that ``specific_start`` took over when the search commits to them: they go on from
    s w + sqrt(1 - s^2) w', w' drawn at random; 1 keeps all. Networks that go on from weights fitted to little data
    generalise worse than fresh ones, which this mends (Ash and Adams, On Warm-Starting Neural Network Training, NeurIPS
    2020); while the search lasts it would make them look worse than they are. In [0, 1]."""
    precision: Precision = "float32"
    """Of the network's arithmetic, in training and when it answers. ``bf16``: convolutions and matrix products in
    bfloat16, which GPUs from about 2020 on do several times faster; weights, losses and likelihoods stay float32."""
    images_share: Annotated[float, Range(least=0, most=1)] = 0.25
    """Share of a GPU's free memory that a task's training and validation images may take: where they fit, they are
    moved there once, else a part of them whenever it is needed. Changes no result. In [0, 1]; 0: never."""
