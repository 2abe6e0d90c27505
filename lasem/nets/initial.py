"""Initial values of plain weights, drawn from a generator that is passed as an argument."""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
import torch
from torch import Tensor

InitialWeights = Literal["he", "paper"]
"""``he``: normal, variance 2 / fan-in, biases 0. ``paper``: normal, deviation .05, cut at twice that, biases .2."""

PAPER_DEVIATION = 0.05
PAPER_BIAS = 0.2


def initial_weight(shape: tuple[int, ...], generator: torch.Generator, rule: InitialWeights) -> Tensor:
    """Draw a weight of shape ``(out, in, ...)``, on the CPU."""
    if rule == "paper":
        bound = 2 * PAPER_DEVIATION
        return torch.nn.init.trunc_normal_(
            torch.empty(shape), std=PAPER_DEVIATION, a=-bound, b=bound, generator=generator
        )
    return torch.randn(shape, generator=generator) * math.sqrt(2 / math.prod(shape[1:]))


def initial_bias(size: int, rule: InitialWeights) -> Tensor:
    """Return a bias of shape ``(size,)``."""
    return torch.full((size,), PAPER_BIAS if rule == "paper" else 0.0)


def glorot_uniform(shape: tuple[int, ...], fan_in: int, fan_out: int, generator: torch.Generator) -> Tensor:
    """Draw uniform numbers with variance 2 / (fan_in + fan_out), as the paper starts the factors of TF and DF-CNN."""
    bound = math.sqrt(6 / (fan_in + fan_out))
    return (torch.rand(shape, generator=generator) * 2 - 1) * bound


def start_generator(seed: int, task_index: int, layer: int, part: int = 0) -> torch.Generator:
    """Make the source for the start of one layer of one task, so that methods are compared on equal starts.

    The head is the layer after the last. Part 0 is the start of a plain network, others are a method's further needs.
    """
    state = np.random.SeedSequence([seed, task_index, layer, part]).generate_state(1)
    return torch.Generator().manual_seed(int(state[0]))
