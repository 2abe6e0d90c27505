"""Settings of the training of one task, and what they name: precision, optimisers, step sizes.

With the precision ``bf16`` (8 bits of exponent, as float32 has, and 8 of mantissa) convolutions and matrix products
read and give bfloat16. Weights, their gradients, the optimiser, running statistics, losses and likelihoods stay in
float32, and what a search knows in float64 ([Kalamkar2019]_ for the first); ``full_precision`` surrounds what must not
be rounded. With ``tf32`` all numbers are float32, and NVIDIA GPUs may round what such operations read to 10 bits.

.. [Kalamkar2019] D. Kalamkar et al. A Study of BFLOAT16 for Deep Learning Training. arXiv 1905.12322, 2019.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Annotated, Any, Literal, final

import torch
from torch import Tensor
from torch.optim import Optimizer

from lasem.errors import DeviceError
from lasem.settings import Range, Settings
from lasem.training.augment import Augment, Mix

Precision = Literal["float32", "tf32", "bf16"]
EARLIER = {"augment": "none", "refit": False}
"""Settings that files of earlier versions lack, and what all trainings had then."""

RENEWED = 0.25
"""What is kept of a weight that is renewed, where settings do not say."""

_FEW_EPOCHS, _FEW_STEPS = 30, 500

OPTIMISERS = ("adam", "adamw", "sgd", "rmsprop", "rmsprop-tf")


EVALUATION_BATCH = 500
"""Most images at a time where no gradients are needed."""


@final
@dataclass(frozen=True, kw_only=True)
class TrainingConfig(Settings):
    """How one task is trained. Knows neither the stream nor the search."""

    epochs: Annotated[int, Range(least=1)] = 60
    """Passes over a task's training images; at least 1."""
    batch_size: Annotated[int, Range(least=1)] = 10
    """Images in a mini-batch; at least 1. A single image that is left over at the end goes into the last one."""
    drop_last: bool = False
    """Whether an incomplete last mini-batch is passed over, as in the paper."""
    class_weights: Literal["none", "balanced"] = "none"
    """``balanced``: all classes of a task count the same in its loss, however many training images each has."""
    augment: Augment = "auto"
    """Random changes of the training images, the same for every method: ``shift`` (small shifts), ``photo`` (crops,
    mirror images and colour), ``trivial`` (one strong change of fourteen, for long training) or ``none``. ``auto``: by
    the images' channels and size; see ``lasem.training.augment``."""
    mix: Mix = "none"
    """After that each training image is mixed with another one, for long training: ``mixup`` or ``cutmix``. Outputs of
    frozen layers are then computed anew for every mini-batch."""
    fit_head: bool = True
    """Begin the linear head of a pretrained network at the solution of logistic regression; false: at random."""
    steps: tuple[Annotated[float, Range(above=0)], ...] = (0.1, 1.0)
    """Where a task trains layers of a pretrained network in one configuration, it tries each of these multiples of
    ``learning_rate``, in half of its epochs, and the likelihood of the validation images chooses the one for the other
    half; empty: all epochs with ``learning_rate``."""
    refit: bool = True
    """Once the validation images have chosen the step, the penalty of a head or the configuration (search evidence),
    train a pretrained network's task, or one searched so, again on them as well, to the last epoch. The validation
    accuracy is that of the training before."""
    views: Annotated[int, Range(least=1)] = 4
    """Versions of each training image, by augmentation, of which a pretrained network's frozen layers compute and keep
    outputs; the first is the image itself."""
    optimiser: Literal["adam", "adamw", "sgd", "rmsprop", "rmsprop-tf"] = "adam"
    """``rmsprop-tf`` is RMSProp as TensorFlow defines it. The optimiser's state starts afresh with each task."""
    learning_rate: Annotated[float, Range(above=0)] = 1e-3
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
    patience: Annotated[int, Range(least=0)] = 30
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
    specific_shrink: Annotated[float, Range(least=0, most=1)] | None = None
    """What is kept of weights that ``specific_start`` took over when the search commits to them: they go on from
    s w + sqrt(1 - s^2) w', w' drawn at random, and the head starts again; 1 keeps all, the head too. Networks that go
    on from weights fitted to little data generalise worse than fresh ones, which this mends (Ash and Adams, On
    Warm-Starting Neural Network Training, NeurIPS 2020); while the search lasts it would make them look worse than they
    are. In [0, 1]; none: 0.25, but 1 with fewer than 30 epochs or 500 steps, too few to fit new weights."""
    precision: Precision = "float32"
    """Of the network's arithmetic, in training and when it answers. ``bf16``: convolutions and matrix products in
    bfloat16, which GPUs from about 2020 on do several times faster, and CPUs with AMX where layers are not depthwise;
    weights, losses and likelihoods stay float32.
    ``tf32``: NVIDIA GPUs from 2020 on may round what such operations read; elsewhere the same as ``float32``."""
    images_share: Annotated[float, Range(least=0, most=1)] = 0.25
    """Share of a GPU's free memory that a task's training and validation images may take: where they fit, they are
    moved there once, else a part of them whenever it is needed. Changes no result. In [0, 1]; 0: never."""
    calibrate: bool = True
    """Fit a temperature to the validation images when the task is learned, which divides its logits: probabilities come
    nearer to how often answers are right, and no answer changes."""

    def kept_when_searched(self, num_batches: int) -> float:
        """Return what ``specific_shrink`` comes to with so many mini-batches in an epoch."""
        if self.specific_shrink is None:
            return 1.0 if self.epochs < _FEW_EPOCHS or self.epochs * num_batches < _FEW_STEPS else RENEWED
        return self.specific_shrink


def autocast(precision: Precision, device: torch.device) -> AbstractContextManager[object]:
    """Within it, convolutions and matrix products are in bfloat16 if the precision is; else it changes nothing."""
    if precision != "bf16":
        return nullcontext()
    # no copies of weights are kept: older torch hands one that was made without gradients, as in the E-step, to
    # code that asks with them, as the M-step does (pytorch#165068)
    return torch.autocast(device.type, dtype=torch.bfloat16, cache_enabled=False)


@contextmanager
def tf32(precision: Precision) -> Iterator[None]:
    """Within it, NVIDIA GPUs may round to TF32 only if the precision says so; torch lets convolutions by default.

    Torch has one switch for all threads of a process, which also holds for gradients that are computed within.
    """
    places: tuple[Any, ...] = (torch.backends.cuda.matmul, torch.backends.cudnn)
    before = [place.allow_tf32 for place in places]
    for place in places:
        place.allow_tf32 = precision == "tf32"
    try:
        yield
    finally:
        for place, allowed in zip(places, before, strict=True):
            place.allow_tf32 = allowed


def evaluation_batch(shape: tuple[int, int, int]) -> int:
    """Return how many images of (channels, height, width) are looked at together: 8 MiB of them at most.

    Large images are faster in few at a time on a CPU, whose caches then hold a layer's outputs. Of texts, each token of
    which becomes hundreds of numbers, there are at most 4,096 tokens.
    """
    channels, height, width = shape
    if channels == height == 1:
        return max(1, min(EVALUATION_BATCH, 2**12 // width))
    return max(1, min(EVALUATION_BATCH, 2**21 // (channels * height * width)))


def check_precision(precision: Precision, device: torch.device) -> None:
    """Raise DeviceError if the device cannot compute so."""
    if precision != "bf16" or _has_bf16(device):
        return
    raise DeviceError(
        f"Expected a device that computes in bf16, which training.precision asks for; '{device}' does not. Set "
        f"training.precision to float32, or choose another device (a CPU can, and NVIDIA GPUs from compute capability "
        f"8.0)."
    )


def _has_bf16(device: torch.device) -> bool:
    if device.type == "cuda":
        with torch.cuda.device(device):
            return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return bool(torch.amp.is_autocast_available(device.type))


@final
class RMSpropTF(Optimizer):
    """RMSProp as TensorFlow 1 defines it, which the paper's settings were chosen for.

    The running mean of squared gradients starts at 1, and epsilon is inside the square root (``torch.optim.RMSprop``
    starts at 0 and adds epsilon outside): a <- decay a + (1 - decay) g^2, w <- w - lr g / sqrt(a + epsilon).
    """

    def __init__(
        self,
        params: Iterable[Tensor] | Iterable[dict[str, Any]],
        lr: float,
        decay: float = 0.9,
        eps: float = 1e-10,
        weight_decay: float = 0.0,
    ) -> None:
        """Take settings as torch's own optimisers do."""
        super().__init__(params, {"lr": lr, "decay": decay, "eps": eps, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> None:  # type: ignore[override]
        """Take one step for every parameter that has a gradient."""
        for group in self.param_groups:
            moved = [p for p in group["params"] if p.grad is not None]
            if not moved:
                continue
            for p in moved:
                if not self.state[p]:
                    self.state[p]["mean_square"] = torch.ones_like(p)
            gradients: Any = [p.grad for p in moved]
            means = [self.state[p]["mean_square"] for p in moved]
            if group["weight_decay"] != 0:
                gradients = torch._foreach_add(gradients, torch._foreach_mul(moved, group["weight_decay"]))
            torch._foreach_mul_(means, group["decay"])  # one kernel for all parameters, on a GPU
            torch._foreach_addcmul_(means, gradients, gradients, value=1 - group["decay"])
            roots = torch._foreach_sqrt(torch._foreach_add(means, group["eps"]))
            torch._foreach_addcdiv_(moved, gradients, roots, value=-group["lr"])


def build_optimiser(weights: Sequence[tuple[Tensor, float]], config: TrainingConfig) -> Optimizer:
    """Return the optimiser that the settings name, for weights with step sizes relative to plain weights'."""
    lr, decay = config.learning_rate, config.weight_decay
    parameters: list[dict[str, Any]] = [
        {"params": [tensor for tensor, own in weights if own == scale], "scale": scale}
        for scale in dict.fromkeys(own for _, own in weights)
    ]
    # the fused kernels take one pass over each parameter; torch has them for every device that lasem supports
    match config.optimiser:
        case "adam":
            return torch.optim.Adam(parameters, lr=lr, weight_decay=decay, fused=True)
        case "adamw":
            return torch.optim.AdamW(parameters, lr=lr, weight_decay=decay, fused=True)
        case "sgd":
            sgd = torch.optim.SGD(parameters, lr=lr, weight_decay=decay, momentum=config.momentum, fused=True)
            sgd.register_step_pre_hook(_give_momentum)
            return sgd
        case "rmsprop":
            return torch.optim.RMSprop(parameters, lr=lr, weight_decay=decay)
        case "rmsprop-tf":
            return RMSpropTF(parameters, lr=lr, weight_decay=decay)


def _give_momentum(optimiser: Optimizer, *_: Any) -> None:
    """Let weights join whose first gradient comes late: torch's fused step fails where only some have momentum.

    From zero, momentum becomes the gradient, as in any first step.
    """
    for group in optimiser.param_groups:
        moved = [p for p in group["params"] if p.grad is not None]
        late = [p for p in moved if optimiser.state[p].get("momentum_buffer") is None]
        if len(late) < len(moved):
            for p in late:
                optimiser.state[p]["momentum_buffer"] = torch.zeros_like(p.grad)


def set_learning_rate(optimiser: Optimizer, rate: float) -> None:
    """Set the step size of plain weights; the others follow in proportion."""
    for group in optimiser.param_groups:
        group["lr"] = rate * group["scale"]


def learning_rate(config: TrainingConfig, epoch: int, epochs_before: int) -> float:
    """Return the step size after some epochs of this task and of earlier tasks."""
    if config.schedule == "cosine":
        return config.learning_rate * 0.5 * (1 + math.cos(math.pi * epoch / config.epochs))
    if config.schedule == "inverse":
        return config.learning_rate / (1 + (epochs_before + epoch) * config.learning_rate_decay)
    return config.learning_rate
