"""Additive parameter decomposition (APD): one shared tensor a layer, and a sparse one of each task's own.

Published APD and what LASEM's authors compared with under that name are not the same: theirs takes the mean of both
penalties over a layer's numbers and over layers (so its weights mean something else), halves the second, and has
neither retroactive updates nor consolidation, so that earlier tasks drift with the shared tensors. This is the former.

.. [Yoon2020] J. Yoon, S. Kim, E. Yang, S. J. Hwang. Scalable and Order-robust Continual Learning with Additive
   Parameter Decomposition. ICLR 2020.
.. [Andrew2007] G. Andrew, J. Gao. Scalable Training of L1-Regularized Log-Linear Models. ICML 2007.
.. [Arthur2007] D. Arthur, S. Vassilvitskii. k-means++: The Advantages of Careful Seeding. SODA 2007.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal, final

import torch
import torch.nn.functional as F
from torch import Tensor

from lasem.data import Task
from lasem.methods.method import AbstractMethod, Learned, Setup
from lasem.methods.model import Model, prefixed
from lasem.methods.plain import NetworkPhase, gradient_of, initial_head, initial_layers
from lasem.nets import Net
from lasem.settings import Range, Settings
from lasem.training import Batch, Named, PhaseResult, Plan, Snapshot, Step

NUM_STARTS = 10
"""Of k-means; the best of them is taken."""
MAX_ROUNDS = 100
"""Of k-means after each start; with a few dozen tasks it settles in a few."""


@final
@dataclass(frozen=True, kw_only=True)
class APD(Settings, AbstractMethod):
    """Kernels theta_t = sigma * sigmoid(v_t) + tau_t, one number of v_t for each output channel ([Yoon2020]_).

    The first task minimises ``CE + l1 |tau_1|_1``, a later one, over sigma, v_t and tau_1 ... tau_t::

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
    harm_of_decay: ClassVar[str] = "pull on what earlier tasks use. Set APD.weight_decay instead"

    retroactive: bool = True
    """Whether earlier tasks' sparse tensors (tau) are trained along, to take up what changes in the shared ones
    (sigma). False is the simple form: only how far sigma moves is penalised, ``l2 |sigma - sigma*|_2^2``, and earlier
    tasks change as it does."""
    l1: Annotated[float, Range(least=0)] = 4e-4
    """Weight of the penalty that makes each task's own tensors (tau) sparse, and the size up to which their numbers are
    set to zero; not negative."""
    l2: Annotated[float, Range(least=0)] = 100.0
    """Weight of the penalty that keeps earlier tasks' weights; not negative."""
    weight_decay: Annotated[float, Range(least=0)] = 1e-4
    """Weight of half the squares of a new task's own tensors (tau) and masks (v), in the first task also of the shared
    ones (sigma); not negative."""
    period: Annotated[int, Range(least=0)] = 5
    """Tasks between consolidations, each of which groups all tasks and lets a group share what its members have in
    common; 0 never consolidates."""
    groups: Annotated[int, Range(least=1)] = 2
    """Groups of tasks at the first consolidation, and how many more at each later one; at least 1."""
    threshold: Annotated[float, Range(least=0)] = 1e-2
    """Largest difference within a group of numbers that the group comes to share; not negative."""
    start: Literal["zero", "shared"] = "zero"
    """Where a task's own tensors (tau) start: at ``zero``, or at the ``shared`` ones, as in the authors' program, so
    that a later task's kernels start at three times what is shared."""

    def plan(self, model: Model, task: Task, setup: Setup) -> Plan[Learned]:
        fitted: PhaseResult = yield _Phase(task, setup, initial_head(setup, task.num_classes), self, model)

        def model_of(snapshot: Snapshot) -> Model:
            learned = _divided(model, task.name, snapshot.weights, setup.net.depth, self.l1)
            due = self.period and len(learned.own) % self.period == 0
            return self._consolidated(learned, setup) if due else learned

        return Learned.of(setup, fitted, model_of)

    def plain_weights(self, net: Net, model: Model, name: str) -> dict[str, Tensor]:
        return _composed(model.shared, model.own[name], [adaptive(model, name, i) for i in range(net.depth)])

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
    """Return the decomposed kernel sigma * sigmoid(v) + tau ([Yoon2020]_ Section 3.1).

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
    """Set numbers up to ``l1`` in size to zero."""
    return torch.where(tau.abs() > l1, tau, 0.0)


def sparse(name: str, tensor: Tensor) -> dict[str, Tensor]:
    """Take a tensor apart to its numbers other than zero, ``NAME.values``, and their mask, ``NAME.kept``."""
    kept = tensor != 0
    return {f"{name}.values": tensor[kept], f"{name}.kept": kept}


def dense(name: str, tensors: Named) -> Tensor:
    """Return the tensor that ``sparse`` took apart."""
    values, kept = tensors[f"{name}.values"], tensors[f"{name}.kept"]
    return values.new_zeros(kept.shape).masked_scatter(kept, values)


def adaptive(model: Model, name: str, layer: int) -> Tensor:
    """Return what a task adds to a layer's masked sigma: its group's sigma_g, if it has one, and its tau."""
    own = model.own[name]
    tau = dense(f"layer.{layer}.tau", own)
    member = own.get(f"layer.{layer}.member")
    if member is None:
        return tau
    local = dense(f"layer.{layer}.local", model.shared)
    # a product and a sum and no index, which a GPU would have to wait for; one member is true, so nothing is rounded
    return (local * member.reshape(-1, *(1,) * tau.dim())).sum(dim=0) + tau


def _composed(shared: Named, own: Named, added: list[Tensor]) -> dict[str, Tensor]:
    """The plain network: kernels with what is added to each layer's masked sigma, biases and head."""
    weights = {key: value for key, value in own.items() if key.startswith("head.")}
    for i, tau in enumerate(added):
        weights[f"layer.{i}.weight"] = kernel(shared[f"layer.{i}.sigma"], own[f"layer.{i}.mask"], tau)
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


@dataclass(eq=False)
class _Phase(NetworkPhase):
    """Trains ``layer.I.sigma``, ``.tau``, ``.mask``, ``.bias`` and ``head.*``.

    In the retroactive form also ``layer.I.past``, the tau of all earlier tasks in one tensor, (n, out, in, ...).
    """

    method: APD
    model: Model

    def __post_init__(self) -> None:
        super().__post_init__()
        method, model, device = self.method, self.model, self.setup.device
        self._sigma: list[Tensor] = []
        """Before training."""
        self._masks: list[Tensor] = []
        """v of all earlier tasks, (n, out)."""
        self._theta: list[Tensor] = []
        """Kernels of all earlier tasks before training, less sigma_g, which does not change: (n, out, in, ...)."""
        self._orthant: dict[str, Tensor] = {}
        """The sign that each number may have after the step that is under way; 0 keeps it at zero."""
        fresh = initial_layers(self.setup)
        for i in range(self.setup.net.depth):
            weight, bias = (fresh[f"layer.{i}.{part}"].to(device) for part in ("weight", "bias"))
            # so that the first task's kernels start as a plain network's
            first = weight / (0.5 + (method.start == "shared"))
            sigma = model.shared[f"layer.{i}.sigma"] if model.own else first
            tau = sigma if method.start == "shared" else torch.zeros_like(sigma)
            self._sigma.append(sigma)
            new = {"sigma": sigma, "tau": tau, "mask": torch.zeros_like(bias), "bias": bias}
            if model.own and method.retroactive:
                past = torch.stack([dense(f"layer.{i}.tau", own) for own in model.own.values()])
                self._masks.append(torch.stack([own[f"layer.{i}.mask"] for own in model.own.values()]))
                self._theta.append(kernel(sigma, self._masks[i], past))
                new["past"] = past
            self.start |= prefixed(f"layer.{i}", new)
        self._sparse = tuple(name for name in self.start if name.endswith((".tau", ".past")))

    def answer(self, weights: Named, dropout: torch.Generator | None = None) -> Callable[[Tensor], Tensor]:
        # without dropout it answers, and small numbers are zero, as they will be when the task has been learned
        taus = [weights[f"layer.{i}.tau"] for i in range(self.setup.net.depth)]
        taus = taus if dropout is not None else [prune(tau, self.method.l1) for tau in taus]
        return super().answer(_composed(weights, weights, taus), dropout)

    def loss(self, weights: Named, batch: Batch, dropout: torch.Generator) -> Tensor:
        return super().loss(weights, batch, dropout) + self._penalty(weights)

    def change_gradients(self, weights: Named, step: Step) -> None:
        for name in self._sparse:
            tau, gradient = weights[name].detach(), gradient_of(weights[name])
            at_zero = tau == 0  # where the penalty itself has no gradient, and only what exceeds l1 counts
            gradient.copy_(torch.where(at_zero, F.softshrink(gradient, self.method.l1), gradient))
            self._orthant[name] = torch.where(at_zero, -gradient, tau).sign_()

    def after_step(self, weights: Named, step: Step) -> None:
        # numbers that went through zero, or left it other than down their gradient, are set to zero
        for name in self._sparse:
            tau = weights[name]
            tau.masked_fill_(tau * self._orthant[name] <= 0, 0.0)  # what is not a number stays, to be noticed

    def _penalty(self, weights: Named) -> Tensor:
        """What is added to the cross-entropy; see APD."""
        method = self.method
        sparsity, drift, decay = [], [], []
        for i, before in enumerate(self._sigma):
            sigma, tau, mask = (weights[f"layer.{i}.{part}"] for part in ("sigma", "tau", "mask"))
            sparsity.append(tau.abs().sum())
            decay += [tau.square().sum(), mask.square().sum()]
            if not self.model.own:
                decay.append(sigma.square().sum())
            elif method.retroactive:
                past = weights[f"layer.{i}.past"]
                sparsity.append(past.abs().sum())
                drift.append((self._theta[i] - kernel(sigma, self._masks[i], past)).square().sum())
            else:
                drift.append((sigma - before).square().sum())
        penalty = method.l1 * torch.stack(sparsity).sum() + method.weight_decay / 2 * torch.stack(decay).sum()
        return penalty + method.l2 * torch.stack(drift).sum() if drift else penalty


def consolidate(tau: Tensor, group: Tensor, threshold: float) -> tuple[Tensor, Tensor, Tensor]:
    """Move what the members of a group nearly agree on to the group ([Yoon2020]_ Section 3.2).

    Where max_i tau_ij - min_i tau_ij <= threshold over the members i of a group, sigma_gj = (max + min) / 2 and
    tau_ij = 0; elsewhere sigma_gj = 0 and tau_ij stays. So sigma_g + tau_i differs from tau_i by at most half the
    threshold, and not at all where nothing is moved. A group of one keeps its tau.
    Given are one layer's ``tau`` of all tasks, (n, ...), and each task's ``group``, (n,), on the CPU.

    Returns:
        What is still each task's own, (n, ...); what groups share, (G, ...), of those that share anything; and which
        of these groups a task belongs to, bool of shape (n, G), at most one in a row.
    """
    rest = tau.clone()
    locals_, members = [tau.new_zeros(0, *tau.shape[1:])], [tau.new_zeros(len(tau), 0, dtype=torch.bool)]
    for g in sorted(set(group.tolist())):
        member = (group == g).to(tau.device)
        high, low = tau[member].amax(dim=0), tau[member].amin(dim=0)
        agreed = high - low <= threshold
        local = torch.where(agreed, (high + low) / 2, 0.0)
        if int(member.sum()) < 2 or not bool(local.any()):
            continue  # alone, or agreed on zeros only, which take no room
        rest[member] = torch.where(agreed, 0.0, tau[member])
        locals_.append(local[None])
        members.append(member[:, None])
    return rest, torch.cat(locals_), torch.cat(members, dim=1)


def k_means(points: Tensor, num_groups: int, generator: torch.Generator) -> Tensor:
    """Group points so that the squared distances to their groups' means are small (Lloyd, seeded as [Arthur2007]_).

    How far a point is from a mean of points follows from inner products alone, so that after these, in float64 on the
    CPU, only one number for each pair of points is computed with, however many numbers a point has.

    Returns:
        The group of each of the points (n, d), counted from 0: int64 of shape (n,), on the CPU. There are fewer than
        ``num_groups`` if there are fewer different points.
    """
    wide = points.cpu().double()  # not every device has float64
    products = wide @ wide.T
    best, least = torch.zeros(len(points), dtype=torch.int64), float("inf")
    for _ in range(NUM_STARTS):
        group = _seeds(products, num_groups, generator)
        one_hot = torch.eye(int(group.max()) + 1, dtype=products.dtype)
        for _ in range(MAX_ROUNDS):
            distances = _distances(products, one_hot[group])
            before, group = group, _nearest(distances)
            if torch.equal(group, before):
                break
        scatter = float(distances.gather(1, group[:, None]).sum())
        if scatter < least:  # the first of equally good ones
            best, least = group, scatter
    return best


def _seeds(products: Tensor, num_groups: int, generator: torch.Generator) -> Tensor:
    """A first grouping: by the nearest of ``num_groups`` points, each drawn by its squared distance to those before."""
    alone = torch.eye(len(products), dtype=products.dtype)
    chosen = [int(torch.randint(len(products), (1,), generator=generator))]
    while len(chosen) < num_groups:
        nearest = _distances(products, alone[:, chosen]).amin(dim=1)
        nearest[chosen] = 0
        if float(nearest.sum()) == 0:  # no different point is left
            break
        chosen.append(int(torch.multinomial(nearest, 1, generator=generator)))
    return _nearest(_distances(products, alone[:, chosen]))


def _distances(products: Tensor, member: Tensor) -> Tensor:
    """Squared distance of each point to each group's mean, (n, K), infinite for empty groups.

    ``products`` are the points' inner products, (n, n); ``member`` (n, K) is 1 where a point is in a group, else 0.
    """
    sizes = member.sum(dim=0)
    share = member / sizes.clamp(min=1)
    squares = products.diagonal()[:, None] - 2 * products @ share + torch.einsum("ig,ij,jg->g", share, products, share)
    return squares.clamp(min=0).masked_fill(sizes == 0, float("inf"))  # rounding may end below 0


def _nearest(distances: Tensor) -> Tensor:
    """The first of the nearest, which ``argmin`` does not promise."""
    return (distances == distances.amin(dim=1, keepdim=True)).to(torch.int8).argmax(dim=1)
