"""Optimisers and step sizes."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any, final

import torch
from torch import Tensor
from torch.optim import Optimizer

from lasem.training.config import TrainingConfig


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
            for p in group["params"]:
                if p.grad is None:
                    continue
                state = self.state[p]
                if not state:
                    state["mean_square"] = torch.ones_like(p)
                gradient = p.grad if group["weight_decay"] == 0 else p.grad + group["weight_decay"] * p
                mean_square = state["mean_square"]
                mean_square.mul_(group["decay"]).addcmul_(gradient, gradient, value=1 - group["decay"])
                p.addcdiv_(gradient, (mean_square + group["eps"]).sqrt_(), value=-group["lr"])


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
