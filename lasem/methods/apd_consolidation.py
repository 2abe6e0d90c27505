"""Hierarchical consolidation of APD: tasks with similar parameters of their own come to share what they have in common.

.. [Yoon2020] J. Yoon, S. Kim, E. Yang, S. J. Hwang. Scalable and Order-robust Continual Learning with Additive
   Parameter Decomposition. ICLR 2020, Section 3.2.
.. [Arthur2007] D. Arthur, S. Vassilvitskii. k-means++: The Advantages of Careful Seeding. SODA 2007.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

NUM_STARTS = 10
"""Of k-means; the best of them is taken."""
MAX_ROUNDS = 100
"""Of k-means after each start; with a few dozen tasks it settles in a few."""


class Consolidated(NamedTuple):
    """One layer's adaptive parameters, taken apart: tau_i before = sum_g member[i, g] local[g] + tau[i]."""

    tau: Tensor
    """What is still each task's own, shape (n, ...)."""
    local: Tensor
    """What a group shares, shape (G, ...); groups that share nothing are left out."""
    member: Tensor
    """Which group a task belongs to, bool of shape (n, G), at most one in a row."""


def k_means(points: Tensor, num_groups: int, generator: torch.Generator) -> Tensor:
    """Group points so that the squared distances to their groups' means are small (Lloyd, seeded as [Arthur2007]_).

    How far a point is from a mean of points follows from inner products alone, so that after these, in float64 on the
    CPU, only one number for each pair of points is computed with, however many numbers a point has.

    Args:
        points: shape (n, d).
        num_groups: at most; from 1. Fewer come out if there are fewer different points.
        generator: on the CPU.

    Returns:
        Each point's group in [0, num_groups), int64 of shape (n,), on the CPU.
    """
    wide = points.cpu().double()  # not every device has float64
    products = wide @ wide.T
    starts = [_settled(products, _seeds(products, num_groups, generator)) for _ in range(NUM_STARTS)]
    return min(starts, key=lambda start: start[0])[1]  # the first of equally good ones


def consolidate(tau: Tensor, group: Tensor, threshold: float) -> Consolidated:
    """Move what the members of a group nearly agree on to the group ([Yoon2020]_ Section 3.2).

    Where max_i tau_ij - min_i tau_ij <= threshold over the members i of a group, sigma_gj = (max + min) / 2 and
    tau_ij = 0; elsewhere sigma_gj = 0 and tau_ij stays. So sigma_g + tau_i differs from tau_i by at most half the
    threshold, and not at all where nothing is moved. A group of one keeps its tau.

    Args:
        tau: one layer's, of all tasks, shape (n, ...).
        group: each task's, int64 of shape (n,), on the CPU.
        threshold: not negative.
    """
    rest, locals_, members = tau.clone(), [], []
    for g in sorted(set(group.tolist())):
        member = group == g
        if int(member.sum()) < 2:
            continue
        member = member.to(tau.device)
        high, low = tau[member].amax(dim=0), tau[member].amin(dim=0)
        agreed = high - low <= threshold
        local = torch.where(agreed, (high + low) / 2, 0.0)
        if not bool(local.any()):
            continue  # all that they agree on is zero, which takes no room
        rest[member] = torch.where(agreed, 0.0, tau[member])
        locals_.append(local)
        members.append(member)
    if not locals_:
        return Consolidated(rest, tau.new_zeros(0, *tau.shape[1:]), tau.new_zeros(len(tau), 0, dtype=torch.bool))
    return Consolidated(rest, torch.stack(locals_), torch.stack(members, dim=1))


def _distances(products: Tensor, group: Tensor, num_groups: int) -> Tensor:
    """Squared distance of each point to each group's mean, (n, K), infinite for empty groups."""
    among = torch.nn.functional.one_hot(group, num_groups).to(products.dtype)
    sizes = among.sum(dim=0)
    share = among / sizes.clamp(min=1)
    squares = products.diagonal()[:, None] - 2 * products @ share + torch.einsum("ig,ij,jg->g", share, products, share)
    return squares.clamp(min=0).masked_fill(sizes == 0, float("inf"))  # rounding may end below 0


def _to_points(products: Tensor, chosen: list[int]) -> Tensor:
    """Squared distance of each point to each of the chosen ones, (n, number of chosen)."""
    norms = products.diagonal()
    return (norms[:, None] - 2 * products[:, chosen] + norms[chosen]).clamp(min=0)


def _seeds(products: Tensor, num_groups: int, generator: torch.Generator) -> Tensor:
    """A first grouping: by the nearest of ``num_groups`` points, each drawn by its squared distance to those before."""
    chosen = [int(torch.randint(len(products), (1,), generator=generator))]
    while len(chosen) < num_groups:
        nearest = _to_points(products, chosen).amin(dim=1)
        nearest[chosen] = 0
        if float(nearest.sum()) == 0:  # no different point is left
            break
        chosen.append(int(torch.multinomial(nearest, 1, generator=generator)))
    return _nearest(_to_points(products, chosen))


def _settled(products: Tensor, group: Tensor) -> tuple[float, Tensor]:
    """Lloyd's rounds from a first grouping: the sum of squared distances, and the grouping."""
    num_groups = int(group.max()) + 1
    for _ in range(MAX_ROUNDS):
        distances = _distances(products, group, num_groups)
        new = _nearest(distances)
        if torch.equal(new, group):
            break
        group = new
    return float(_distances(products, group, num_groups).gather(1, group[:, None]).sum()), group


def _nearest(distances: Tensor) -> Tensor:
    """The first of the nearest, which ``argmin`` does not promise."""
    return (distances == distances.amin(dim=1, keepdim=True)).to(torch.int8).argmax(dim=1)
