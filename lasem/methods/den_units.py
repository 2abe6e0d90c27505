"""Units of a dynamically expandable network: which ones a task needs, how they are added, removed, split and hidden.

A unit is an output channel of a convolution or an output of a fully-connected layer; the edge between two units holds
one or several numbers: kernel x kernel of them between convolutions, height x width where a channel is flattened. Every
function here looks at the weights as edges of shape (units above, units below, numbers), so that convolutions, linear
layers, the boundary between them and the head are the same thing. The image's channels are the lowest units.

.. [Yoon2018] J. Yoon, E. Yang, J. Lee, S. J. Hwang. Lifelong Learning with Dynamically Expandable Networks. ICLR 2018.
.. [Yuan2006] M. Yuan, Y. Lin. Model Selection and Estimation in Regression with Grouped Variables. JRSS B 68(1), 2006.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from lasem.nets import Net
from lasem.training import Named


def bias_name(weight: str) -> str:
    """Return the name of the bias that belongs to a weight."""
    return weight.replace("weight", "bias")


def num_units(net: Net, weights: Named) -> list[int]:
    """Return the number of units of every block, input side first."""
    return [len(weights[f"layer.{i}.bias"]) for i in range(net.depth)]


def edges_of(net: Net, weights: Named) -> dict[str, Tensor]:
    """Return weights by name, image side first, as edges (units above, units below, numbers).

    They are those of the blocks and, if there is a head, of its layers.
    """
    names = [f"layer.{i}.weight" for i in range(net.depth)] + [f"head.weight.{j}" for j in range(len(net.hidden) + 1)]
    found, below = {}, net.image_shape[0]
    for name in names:
        if name in weights:
            above = len(weights[name])
            found[name] = weights[name].reshape(above, below, -1)
            below = above
    return found


def weight_of(edges: Tensor, like: Tensor) -> Tensor:
    """Give edges the form of a weight, (out, in, kernel, kernel) or (out, in), whatever the number of units now."""
    return edges.reshape(len(edges), -1, *like.shape[2:]).contiguous()


def select(net: Net, weights: Named) -> list[Tensor]:
    """Find the units that the task's outputs depend on, by breadth-first search down from all of its outputs.

    A unit is selected if an edge to a selected unit of the layer above is not exactly zero; the outputs are all
    selected, and the head's hidden layers are walked through like any other.

    Returns:
        For the outputs of each layer of ``edges_of``, whether they are selected; bool, one-dimensional.
    """
    above = list(edges_of(net, weights).values())
    chosen = [torch.ones(len(above[-1]), dtype=torch.bool, device=above[-1].device)]
    for edges in reversed(above[1:]):
        chosen.insert(0, (edges[chosen[0]] != 0).any(dim=2).any(dim=0))
    return chosen


def within(net: Net, weights: Named, chosen: Sequence[Tensor]) -> dict[str, Tensor]:
    """Return masks of the edges between chosen units and of their biases; the image's channels are all chosen."""
    masks: dict[str, Tensor] = {}
    below = torch.ones(net.image_shape[0], dtype=torch.bool, device=chosen[0].device)
    for (name, edges), above in zip(edges_of(net, weights).items(), chosen, strict=True):
        inside = (above[:, None] & below)[:, :, None].expand_as(edges)
        masks |= {name: weight_of(inside, weights[name]), bias_name(name): above}
        below = above
    return masks


# In what follows, the list of a value for each block ends with None, for the first layer of the head: units of the last
# block are among its inputs, and its own units and the layers after it stay as they are.


def added(net: Net, weights: Named, num_before: Sequence[int]) -> dict[str, Tensor]:
    """Return masks of the edges that begin or end at a unit after the first ``num_before`` of its block, and of biases.

    Of the head they hold the edges from such units, which have no bias.
    """
    masks = {}
    below = torch.zeros(net.image_shape[0], dtype=torch.bool, device=weights["layer.0.bias"].device)
    for (name, edges), before in zip(edges_of(net, weights).items(), [*num_before, None], strict=False):
        above = torch.arange(len(edges), device=below.device) >= (len(edges) if before is None else before)
        touched = (above[:, None] | below)[:, :, None].expand_as(edges)
        masks[name] = weight_of(touched, weights[name])
        if before is not None:
            masks[bias_name(name)] = above
        below = above
    return masks


def expand(net: Net, weights: Named, num_new: int) -> dict[str, Tensor]:
    """Append units to every block; their edges, to the head as well, and their biases are 0."""
    grown, below = dict(weights), 0
    for (name, edges), above in zip(edges_of(net, weights).items(), [num_new] * net.depth + [0], strict=False):
        padding = (0, 0, 0, below, 0, above)  # last dimension first: numbers, units below, units above
        grown[name] = weight_of(F.pad(edges, padding), weights[name])
        grown[bias_name(name)] = F.pad(weights[bias_name(name)], (0, above))
        below = above
    return grown


def useful(net: Net, weights: Named, num_before: Sequence[int]) -> list[Tensor]:
    """Find each block's first ``num_before`` units and those after them that do not put out 0 whatever comes in."""
    found = []
    for (name, edges), before in zip(edges_of(net, weights).items(), num_before, strict=False):
        alive = (edges != 0).flatten(1).any(dim=1) | (weights[bias_name(name)] != 0)
        found.append(alive | (torch.arange(len(edges), device=edges.device) < before))
    return found


def keep(net: Net, weights: Named, kept: Sequence[Tensor]) -> dict[str, Tensor]:
    """Return the network without the units of the blocks that are not kept."""
    shrunk = dict(weights)
    below = torch.ones(net.image_shape[0], dtype=torch.bool, device=kept[0].device)
    for (name, edges), above in zip(edges_of(net, weights).items(), [*kept, None], strict=False):
        edges = edges[:, below]
        if above is not None:
            edges, below = edges[above], above
            shrunk[bias_name(name)] = weights[bias_name(name)][above]
        shrunk[name] = weight_of(edges, weights[name])
    return shrunk


def visible(net: Net, shared: Named, index: int) -> dict[str, Tensor]:
    """Return the blocks' weights as the task at a position sees them: units that it or an earlier task made.

    Units are only ever appended, so these are the first ones of each layer; copied to tensors of their own, they give
    the same bits whatever has been appended since. ``stamp.I`` in ``shared`` is the position of each unit's task.
    """
    return keep(net, shared, [shared[f"stamp.{i}"] <= index for i in range(net.depth)])


def drift(net: Net, weights: Named, before: Named) -> list[Tensor]:
    """Return rho_i = ||w_i^t - w_i^(t-1)||_2 of every unit that was there before, by block ([Yoon2018]_).

    Its incoming weights count as far as they were there before, and its bias as the weight of a constant input.
    """
    now, drifts = edges_of(net, weights), []
    for name, edges in edges_of(net, before).items():
        moved = (now[name][: edges.shape[0], : edges.shape[1]] - edges).flatten(1)
        bias = bias_name(name)
        moved_bias = weights[bias][: len(edges)] - before[bias]
        drifts.append(torch.cat([moved, moved_bias[:, None]], dim=1).norm(dim=1))
    return drifts


def split(net: Net, weights: Named, before: Named, drifted: Sequence[Tensor]) -> dict[str, Tensor]:
    """Restore the units that have drifted too far, and append a copy of each that has the drifted weights.

    Where the edges to a drifted unit's upper neighbours go:

    * what is the new task's alone (units that were not there before, copies, the head) reads the copy in its place,
      and the restored unit with weight 0;
    * older units, which serve older tasks, go on reading the restored unit; their edge from the copy starts at 0, and
      older tasks do not see it.

    ``before`` are the blocks' weights before the task. ``drifted`` says for each block which of the units that were
    there then have drifted too far.
    """
    result, old = dict(weights), edges_of(net, before)
    below = torch.zeros(0, dtype=torch.int64, device=drifted[0].device)  # the drifted units of the layer below
    for (name, edges), above in zip(edges_of(net, weights).items(), [*drifted, None], strict=False):
        edges, num_old = edges.clone(), 0
        if above is not None:
            above, num_old, bias = above.nonzero()[:, 0], len(above), weights[bias_name(name)].clone()
            edges, bias = torch.cat([edges, edges[above]]), torch.cat([bias, bias[above]])
            edges[above] = 0  # with the edges from units that are newer than this one
            edges[above, : old[name].shape[1]] = old[name][above]
            bias[above] = before[bias_name(name)][above]
            result[bias_name(name)] = bias
        copied = edges[:, below]
        copied[:num_old] = 0
        edges[num_old:, below] = 0
        result[name] = weight_of(torch.cat([edges, copied], dim=1), weights[name])
        if above is not None:
            below = above
    return result


def group_soft_threshold_(weight: Tensor, bias: Tensor, first: int, threshold: float) -> None:
    """Proximal step of threshold x sum_g sqrt(d) ||w_g||_2, in place: w_g max(0, 1 - threshold sqrt(d) / ||w_g||).

    A group is all incoming weights of one unit, d in number ([Yuan2006]_ for the square root, which makes one threshold
    fit layers of any size). A unit whose group is 0 loses its bias as well: it puts out exactly 0.
    The units from ``first`` on are groups.
    """
    groups = weight[first:].flatten(1)
    norms = groups.norm(dim=1)
    # a group of zeros: 0 x max(0, 1 - x / tiny) = 0
    factors = (1 - threshold * math.sqrt(groups.shape[1]) / norms.clamp(min=1e-30)).clamp(min=0)
    weight[first:] *= factors.reshape(-1, *[1] * (weight.ndim - 1))
    bias[first:] *= (factors > 0).to(bias.dtype)
