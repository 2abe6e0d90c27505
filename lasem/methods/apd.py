"""Additive parameter decomposition (APD): one shared tensor a layer, and a sparse one of each task's own beside it.

Published APD and what LASEM's authors compared with under that name are not the same: theirs takes the mean of both
penalties over a layer's numbers and over layers (so its weights mean something else), halves the second, and has
neither retroactive updates nor consolidation, so that earlier tasks drift with the shared tensors. This is the former.

.. [Yoon2020] J. Yoon, S. Kim, E. Yang, S. J. Hwang. Scalable and Order-robust Continual Learning with Additive
   Parameter Decomposition. ICLR 2020.
.. [Andrew2007] G. Andrew, J. Gao. Scalable Training of L1-Regularized Log-Linear Models. ICML 2007.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Literal, final

import torch
import torch.nn.functional as F
from torch import Tensor

from lasem.data import Task
from lasem.errors import ConfigError, check_choice, check_range
from lasem.methods.apd_consolidation import consolidate, k_means
from lasem.methods.method import AbstractMethod, Learned, Model, Setup
from lasem.methods.phase import NetworkPhase
from lasem.methods.plain import initial_head, initial_layers, run
from lasem.nets import Net
from lasem.training import Batch, Named, PhaseResult, Plan, Snapshot, Step, TrainingConfig


@final
@dataclass(frozen=True, kw_only=True)
class APD(AbstractMethod):
    """Kernels theta_t = sigma * sigmoid(v_t) + tau_t, one number of v_t for each output channel ([Yoon2020]_).

    The first task minimises CE + l1 |tau_1|_1, a later one, over sigma, v_t and tau_1 ... tau_t::

        CE_t + l1 sum_{i<=t} |tau_i|_1 + l2 sum_{i<t} |theta_i* - (sigma * sigmoid(v_i) + sigma_g(i) + tau_i)|_2^2

    where theta_i* is what task i answered with before, so that tau_i takes up what changes in sigma, without old
    images. Biases and heads are each task's own; they and v_i are never changed afterwards. Every ``period`` tasks,
    what similar tasks have in common goes to sigma_g, which groups of tasks share (``consolidate``); it stays fixed
    until the next time, when it is added to its members' tau again and all are grouped anew.

    Both penalties are sums over all numbers of all layers. ``l1`` goes through the optimiser with the rest of the loss,
    as published; what makes numbers exactly zero is that no step takes one through zero and that one at zero leaves it
    only against a gradient steeper than ``l1`` (orthant-wise, [Andrew2007]_; for plain SGD that is the proximal step,
    whose threshold of learning rate times ``l1`` would be far too small for the steps of Adam). Numbers up to
    ``l1`` become zero when the task has been learned, and whenever validation accuracy is measured.
    """

    name: ClassVar[str] = "apd"
    rewrites: ClassVar[bool] = True

    retroactive: bool = True
    """Whether earlier tasks' sparse tensors (tau) are trained along, to take up what changes in the shared ones
    (sigma). False is the simple form: only how far sigma moves is penalised, l2 |sigma - sigma*|_2^2, and earlier tasks
    change as it does."""
    l1: float = 4e-4
    """Weight of the penalty that makes each task's own tensors (tau) sparse, and the size up to which their numbers are
    set to zero; not negative."""
    l2: float = 100.0
    """Weight of the penalty that keeps earlier tasks' weights; not negative."""
    weight_decay: float = 1e-4
    """Weight of half the squares of a new task's own tensors (tau) and masks (v), in the first task also of the shared
    ones (sigma); not negative."""
    period: int = 5
    """Tasks between consolidations, each of which groups all tasks and lets a group share what its members have in
    common; 0 never consolidates."""
    groups: int = 2
    """Groups of tasks at the first consolidation, and how many more at each later one; at least 1."""
    threshold: float = 1e-2
    """Largest difference within a group of numbers that the group comes to share; not negative."""
    start: Literal["zero", "shared"] = "zero"
    """Where a task's own tensors (tau) start: at ``zero``, or at the ``shared`` ones, as in the authors' program, so
    that a later task's kernels start at three times what is shared."""

    def __post_init__(self) -> None:
        for field in ("l1", "l2", "weight_decay", "period", "threshold"):
            check_range(f"APD.{field}", getattr(self, field), least=0)
        check_range("APD.groups", self.groups, least=1)
        check_choice("APD.start", self.start, ("zero", "shared"))

    def check(self, net: Net, training: TrainingConfig) -> None:
        """Refuse the optimiser's weight decay: it would pull on sigma and the earlier tasks' tau."""
        if training.weight_decay != 0:
            raise ConfigError(
                f"APD decays its own tensors: expected TrainingConfig.weight_decay 0, got {training.weight_decay}. "
                f"Set APD.weight_decay instead."
            )

    def plan(self, model: Model, task: Task, setup: Setup) -> Plan[Learned]:
        """One phase; then small numbers are set to zero and, every ``period`` tasks, tasks are consolidated."""
        fitted: PhaseResult = yield _Phase(self, model, task, setup)

        def made(snapshot: Snapshot) -> Model:
            learned = _divided(model, task.name, snapshot.weights, setup.net.depth, self.l1)
            due = self.period and len(learned.own) % self.period == 0
            return self._consolidated(learned, setup) if due else learned

        return Learned.of(setup, fitted, made)

    def logits(self, net: Net, model: Model, name: str, x: Tensor) -> Tensor:
        """The network with the task's kernels, biases and head."""
        return run(net, plain_weights(model, name, net.depth), x)

    def _consolidated(self, model: Model, setup: Setup) -> Model:
        """All tasks grouped anew, layer by layer, into as many groups as the number of tasks asks for."""
        own = {name: dict(tensors) for name, tensors in model.own.items()}
        shared = {name: tensor for name, tensor in model.shared.items() if ".local." not in name}
        num_groups = min(int(self.groups * len(own) / self.period), len(own))
        for i in range(setup.net.depth):
            whole = torch.stack([adaptive(model, name, i) for name in own])
            group = k_means(whole.flatten(1), num_groups, setup.generator("groups", i))
            tau, local, member = consolidate(whole, group, self.threshold)
            for k, tensors in enumerate(own.values()):
                tensors.pop(f"layer.{i}.member", None)
                tensors |= sparse(f"layer.{i}.tau", prune(tau[k], self.l1))
                if len(local):
                    tensors[f"layer.{i}.member"] = member[k].clone()
            if len(local):
                shared |= sparse(f"layer.{i}.local", local)
        return model.having(shared=shared, own=own)


def kernel(sigma: Tensor, mask: Tensor, tau: Tensor) -> Tensor:
    """Decomposed kernel sigma * sigmoid(v) + tau ([Yoon2020]_ Section 3.1).

    Args:
        sigma: shape (out, in, ...).
        mask: v, shape (out,); or (n, out) for n tasks at once.
        tau: shape of sigma, or (n, out, in, ...).

    Returns:
        Shape of tau.
    """
    gate = torch.sigmoid(mask)
    return sigma * gate.reshape(*gate.shape, *(1,) * (sigma.dim() - 1)) + tau


def prune(tau: Tensor, l1: float) -> Tensor:
    """Numbers up to ``l1`` in size become zero."""
    return torch.where(tau.abs() > l1, tau, 0.0)


def sparse(name: str, tensor: Tensor) -> dict[str, Tensor]:
    """A tensor as its numbers other than zero, ``NAME.values``, and where they are, ``NAME.kept`` of its shape."""
    kept = tensor != 0
    return {f"{name}.values": tensor[kept], f"{name}.kept": kept}


def dense(name: str, tensors: Named) -> Tensor:
    """The tensor of which ``sparse`` made these."""
    values, kept = tensors[f"{name}.values"], tensors[f"{name}.kept"]
    return values.new_zeros(kept.shape).masked_scatter(kept, values)


def adaptive(model: Model, name: str, layer: int) -> Tensor:
    """What a learned task adds to a layer's masked sigma: its group's sigma_g, if it has one, and its tau."""
    own = model.own[name]
    tau = dense(f"layer.{layer}.tau", own)
    member = own.get(f"layer.{layer}.member")
    if member is None:
        return tau
    local = dense(f"layer.{layer}.local", model.shared)
    # a product and a sum and no index, which a GPU would have to wait for; one member is true, so nothing is rounded
    return (local * member.reshape(-1, *(1,) * tau.dim())).sum(dim=0) + tau


def plain_weights(model: Model, name: str, depth: int) -> dict[str, Tensor]:
    """A learned task's plain network, by flat name."""
    own = model.own[name]
    weights = {key: value for key, value in own.items() if key.startswith("head.")}
    for i in range(depth):
        weights[f"layer.{i}.weight"] = kernel(
            model.shared[f"layer.{i}.sigma"], own[f"layer.{i}.mask"], adaptive(model, name, i)
        )
        weights[f"layer.{i}.bias"] = own[f"layer.{i}.bias"]
    return weights


def _divided(model: Model, name: str, weights: Named, depth: int, l1: float) -> Model:
    """The model with what a phase has trained: a new task, and the earlier tasks' tau if they were trained along."""
    shared = {**model.shared, **{f"layer.{i}.sigma": weights[f"layer.{i}.sigma"] for i in range(depth)}}
    own = {old: dict(tensors) for old, tensors in model.own.items()}
    taken = ("head.", *(f"layer.{i}.{part}" for i in range(depth) for part in ("mask", "bias")))
    own[name] = {key: value for key, value in weights.items() if key.startswith(taken)}
    for i in range(depth):
        own[name] |= sparse(f"layer.{i}.tau", prune(weights[f"layer.{i}.tau"], l1))
        if f"layer.{i}.past" in weights:
            for old, tau in zip(model.own, weights[f"layer.{i}.past"], strict=True):
                own[old] |= sparse(f"layer.{i}.tau", prune(tau, l1))
    return model.having(shared=shared, own=own)


class _Phase(NetworkPhase):
    """Trains ``layer.I.sigma``, ``.tau``, ``.mask``, ``.bias`` and ``head.*``.

    In the retroactive form also ``layer.I.past``, the tau of all earlier tasks in one tensor, (n, out, in, ...).
    """

    def __init__(self, method: APD, model: Model, task: Task, setup: Setup) -> None:
        super().__init__(task, setup, initial_head(setup, task.num_classes))
        self._method, self._depth, self._first = method, setup.net.depth, not model.own
        self._sigma: list[Tensor] = []
        """Before training."""
        self._masks: list[Tensor] = []
        """v of all earlier tasks, (n, out)."""
        self._theta: list[Tensor] = []
        """Kernels of all earlier tasks before training, less sigma_g, which does not change: (n, out, in, ...)."""
        self._orthant: dict[str, Tensor] = {}
        """The sign that each number may have after the step that is under way; 0 keeps it at zero."""
        fresh = initial_layers(setup)
        for i in range(self._depth):
            weight, bias = (fresh[f"layer.{i}.{part}"].to(setup.device) for part in ("weight", "bias"))
            mask = bias.new_zeros(bias.shape)
            # so that the first task's kernels start as a plain network's
            first = weight / (0.5 + (method.start == "shared"))
            sigma = first if self._first else model.shared[f"layer.{i}.sigma"]
            tau = sigma if method.start == "shared" else torch.zeros_like(sigma)
            self._sigma.append(sigma)
            new = {"sigma": sigma, "tau": tau, "mask": mask, "bias": bias}
            if not self._first and method.retroactive:
                past = torch.stack([dense(f"layer.{i}.tau", own) for own in model.own.values()])
                self._masks.append(torch.stack([own[f"layer.{i}.mask"] for own in model.own.values()]))
                self._theta.append(kernel(sigma, self._masks[i], past))
                new["past"] = past
            self._initial |= {f"layer.{i}.{part}": tensor for part, tensor in new.items()}
        self._sparse = tuple(name for name in self._initial if name.endswith((".tau", ".past")))

    def answer(self, weights: Named, dropout: torch.Generator | None = None) -> Callable[[Tensor], Tensor]:
        """Small numbers are zero when the network answers, as they will be when the task has been learned."""
        plain = {name: value for name, value in weights.items() if name.startswith("head.")}
        for i in range(self._depth):
            tau = weights[f"layer.{i}.tau"]
            tau = tau if dropout is not None else prune(tau, self._method.l1)
            plain[f"layer.{i}.weight"] = kernel(weights[f"layer.{i}.sigma"], weights[f"layer.{i}.mask"], tau)
            plain[f"layer.{i}.bias"] = weights[f"layer.{i}.bias"]
        return super().answer(plain, dropout)

    def loss(self, weights: Named, batch: Batch, dropout: torch.Generator) -> Tensor:
        return super().loss(weights, batch, dropout) + self._penalty(weights)

    def change_gradients(self, weights: Named, step: Step) -> None:
        """Numbers at zero: only what of their gradient exceeds ``l1``."""
        for name in self._sparse:
            tau, gradient = weights[name].detach(), weights[name].grad
            assert gradient is not None
            at_zero = tau == 0  # where the penalty itself has no gradient
            gradient.copy_(torch.where(at_zero, F.softshrink(gradient, self._method.l1), gradient))
            self._orthant[name] = torch.where(at_zero, -gradient, tau).sign_()

    def after_step(self, weights: Named, step: Step) -> None:
        """Numbers that went through zero, or left it other than down their gradient, are set to zero."""
        for name in self._sparse:
            tau = weights[name]
            tau.masked_fill_(tau * self._orthant[name] <= 0, 0.0)  # what is not a number stays, to be noticed

    def _penalty(self, weights: Named) -> Tensor:
        """What is added to the cross-entropy; see APD."""
        method = self._method
        sparsity, drift, decay = [], [], []
        for i in range(self._depth):
            sigma, tau, mask = (weights[f"layer.{i}.{part}"] for part in ("sigma", "tau", "mask"))
            sparsity.append(tau.abs().sum())
            decay += [tau.square().sum(), mask.square().sum()]
            if self._first:
                decay.append(sigma.square().sum())
            elif method.retroactive:
                past = weights[f"layer.{i}.past"]
                sparsity.append(past.abs().sum())
                drift.append((self._theta[i] - kernel(sigma, self._masks[i], past)).square().sum())
            else:
                drift.append((sigma - self._sigma[i]).square().sum())
        penalty = method.l1 * torch.stack(sparsity).sum() + method.weight_decay / 2 * torch.stack(decay).sum()
        return penalty + method.l2 * torch.stack(drift).sum() if drift else penalty
