"""Progressive neural networks: every task gets a column of its own, which also sees what all earlier columns compute.

.. [Rusu2016] A. A. Rusu et al. Progressive Neural Networks. arXiv:1606.04671, 2016.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Annotated, ClassVar, Literal, final

import torch
import torch.nn.functional as F
from torch import Tensor

from lasem.data import Task
from lasem.errors import TaskError
from lasem.methods.method import AbstractMethod, Learned, Setup
from lasem.methods.model import Model, prefixed
from lasem.methods.plain import NetworkPhase, initial_head, initial_layers
from lasem.nets import AbstractBlock, ConvBlock, LinearBlock, Net
from lasem.nets.block import initial_bias, initial_weight
from lasem.settings import Range, Settings
from lasem.training import EpochSummary, Named, PhaseResult, Plan, part_of


@final
@dataclass(frozen=True, kw_only=True)
class ProgNN(Settings, AbstractMethod):
    """Columns with lateral adapters; earlier columns never change ([Rusu2016]_ Eq. 2).

    Layer i of column k gives f(W h_k + U relu(V [alpha_1 h_1, ..., alpha_{k-1} h_{k-1}] + b)), h_j being the input that
    layer i has in column j, after ReLU and pooling. V reduces the channels pixel by pixel (1x1), U has the kernel and
    the stride of W. The first layer gets no laterals. Only the new column, its adapters and its scalars alpha are
    trained, so no task is ever forgotten; parameters grow with the square of the number of tasks.

    A task's answer takes the columns before its own as well. They are counted once, with the tasks that they were
    learned for.
    """

    name: ClassVar[str] = "prognn"
    keeps: ClassVar[bool] = True

    adapters: Literal["joined", "each"] = "joined"
    """``joined``: one adapter on all earlier columns together, as in the paper. ``each``: one for each of them,
    narrower the more there are, and their outputs added up, as in the code of LASEM's authors."""
    reduction: Annotated[float, Range(least=1)] = 1.0
    """How many times fewer channels an adapter has inside than go into the layer (into a fully-connected layer, or out
    of it if that is fewer); with ``adapters`` each, the number of columns divides them as well. At least 1; LASEM's
    authors take 2."""
    alpha_start: Annotated[float, Range(above=0)] = 0.05
    """Deviation at the start of the factors on what earlier columns give, the paper's alphas: normal, cut at twice
    that; above 0."""
    head_adapters: Literal["all", "first", "none"] = "all"
    """Which layers of the head see earlier columns: ``all`` with the output layer, as in the paper; the ``first``; or
    ``none``, as in the code of LASEM's authors."""

    def plan(self, model: Model, task: Task, setup: Setup) -> Plan[Learned]:
        columns = tuple(model.own.values())
        start = self.initial(setup, len(columns), task.num_classes)
        fitted: PhaseResult = yield _Phase(task, setup, start, self, columns)
        return Learned.of(setup, fitted, lambda seen: model.having(own={**model.own, task.name: seen.weights}))

    def logits(self, net: Net, model: Model, name: str, x: Tensor) -> Tensor:
        columns = [model.own[earlier] for earlier in list(model.own)[: list(model.own).index(name)]]
        return self.answer(net, columns, model.own[name], x)

    def answers_with(self, model: Model, name: str) -> Model:
        earlier = list(model.own)[: list(model.own).index(name) + 1]
        return Model(own={column: model.own[column] for column in earlier})

    def forget(self, net: Net, model: Model, name: str) -> Model:
        later = list(model.own)[list(model.own).index(name) + 1 :]
        if later:
            raise TaskError(
                f"Task '{name}' cannot be forgotten: with method '{self.name}', task '{later[0]}' and those after it "
                f"answer with its weights. Forget those first."
            )
        return super().forget(net, model, name)

    def transferred(self, net: Net) -> str:
        # later columns also read what a layer computes, but have none of their own layers the less
        return "S" * net.depth

    def initial(self, setup: Setup, num_columns: int, num_classes: int) -> dict[str, Tensor]:
        """Return a fresh column, on the CPU.

        Args:
            setup: network and randomness.
            num_columns: earlier columns, K.
            num_classes: of the task.

        Returns:
            The names of a plain network; and for each layer I with laterals, counted on into the head, n being the
            width of an adapter: ``adapter.I.alpha`` (K,), ``adapter.I.reduce.weight``, V, (n, K in), with ``each``
            (K n, in), then 1, 1 for a convolution, ``adapter.I.reduce.bias``, and ``adapter.I.lateral.weight``, U,
            shaped as W but for its inputs, n, with ``each`` K n.
        """
        weights = {**initial_layers(setup), **initial_head(setup, num_classes)}
        layers, rule = _layers(setup.net, num_classes), setup.net.initial
        for i in self._adapted(setup.net) if num_columns else ():
            generator, (num_out, num_in, *kernel) = setup.generator("adapter", i), layers[i].shapes["weight"]
            width, deviation = self.width(layers[i], num_columns), self.alpha_start
            inside, seen = (width, num_columns * num_in) if self.adapters == "joined" else (num_columns * width, num_in)
            adapter = {
                "alpha": torch.nn.init.trunc_normal_(
                    torch.empty(num_columns), std=deviation, a=-2 * deviation, b=2 * deviation, generator=generator
                ),
                "reduce.weight": initial_weight((inside, seen, *(1 for _ in kernel)), generator, rule),
                "reduce.bias": initial_bias(inside, rule),
                "lateral.weight": initial_weight((num_out, inside, *kernel), generator, rule),
            }
            weights |= prefixed(f"adapter.{i}", adapter)
        return weights

    def width(self, layer: AbstractBlock, num_columns: int) -> int:
        """Return the channels inside one adapter of a layer that sees K earlier columns; at least 1.

        The paper projects the inputs of a convolution onto as many channels as the layer has inputs. For
        fully-connected layers it says n_i, the layer's outputs, in words and n_{i-1}, its inputs, in the shape of V.
        The smaller of the two keeps what the words are about, laterals with about as many parameters as the layer:
        after a convolution of 4096 features, n_{i-1} would make V sixty times larger than W.
        """
        outputs, inputs = layer.shapes["weight"][:2]
        full = inputs if isinstance(layer, ConvBlock) else min(inputs, outputs)
        parts = 1 if self.adapters == "joined" else num_columns + 1
        return max(1, int(full / (self.reduction * parts)))

    def answer(
        self, net: Net, columns: Sequence[Named], weights: Named, x: Tensor, dropout: torch.Generator | None = None
    ) -> Tensor:
        """Return the logits (B, num_classes) of a column.

        Args:
            net: the network.
            columns: the earlier ones, in order; no gradient reaches them.
            weights: of the column, as ``initial`` names them.
            x: shape (B, channels, height, width).
            dropout: source of the dropout masks; None switches dropout off. It drops features of all columns where
                the head begins, and nothing inside the earlier columns.
        """
        x = x.contiguous(memory_format=torch.channels_last)
        earlier: list[list[Tensor]] = []
        with torch.no_grad():
            for column in columns:
                earlier.append(self._through(net, column, x, earlier, self._adapted(net).stop - 1))
        return self._through(net, weights, x, earlier, net.depth + len(net.hidden) + 1, dropout)[-1]

    def _through(
        self,
        net: Net,
        weights: Named,
        x: Tensor,
        earlier: Sequence[Sequence[Tensor]],
        num_layers: int,
        dropout: torch.Generator | None = None,
    ) -> list[Tensor]:
        """The inputs of a column's first layers and, at last, what comes out of them; each of ``earlier`` likewise."""
        output = net.depth + len(net.hidden)
        layers = _layers(net, len(weights[f"head.bias.{len(net.hidden)}"]))
        adapted = self._adapted(net)
        passed = [x]
        for i, layer in enumerate(layers[:num_layers]):
            seen = [column[i] for column in earlier] if i in adapted else []
            if i == net.depth and dropout is not None:
                x, *seen = (net.head.dropped(features.flatten(1), dropout) for features in (x, *seen))
            x = layer.preactivate(_own(net, weights, i), x)
            if seen:
                x = x + self._lateral(layer, weights, i, seen)
            if i < output:
                x = layer.reduce(F.relu(x, inplace=True))
            passed.append(x)
        return passed

    def _lateral(self, layer: AbstractBlock, weights: Named, i: int, seen: Sequence[Tensor]) -> Tensor:
        """U relu(V [alpha_1 h_1, ...] + b), what the earlier columns add before the activation."""
        alpha, bias = weights[f"adapter.{i}.alpha"], weights[f"adapter.{i}.reduce.bias"]
        reduce, joined, num_columns = weights[f"adapter.{i}.reduce.weight"], self.adapters == "joined", len(seen)
        # alpha goes into V, which is smaller than the features and needs a gradient anyway
        per_entry = alpha.repeat_interleave(reduce.shape[1 if joined else 0] // num_columns)
        scaled = (reduce.flatten(1) * (per_entry if joined else per_entry[:, None])).view_as(reduce)
        if isinstance(layer, ConvBlock):
            inside = F.conv2d(torch.cat(list(seen), dim=1), scaled, bias, groups=1 if joined else num_columns)
        elif joined:
            inside = F.linear(torch.cat([h.flatten(1) for h in seen], dim=1), scaled, bias)
        else:  # V of each column on its own features
            parts = zip(seen, scaled.chunk(num_columns), bias.chunk(num_columns), strict=True)
            inside = torch.cat([F.linear(h.flatten(1), part, b) for h, part, b in parts], dim=1)
        inside = F.relu(inside, inplace=True)
        # with `each`, U holds those of all columns side by side: one product adds up what they give
        return layer.preactivate({"weight": weights[f"adapter.{i}.lateral.weight"]}, inside)

    def _adapted(self, net: Net) -> range:
        """Layers with laterals, the head's counted on from the blocks."""
        in_head = {"all": len(net.hidden) + 1, "first": 1, "none": 0}[self.head_adapters]
        return range(1, net.depth + in_head)


@dataclass(eq=False)
class _Phase(NetworkPhase):
    method: ProgNN
    columns: Sequence[Named]

    def answer(self, weights: Named, dropout: torch.Generator | None = None) -> Callable[[Tensor], Tensor]:
        return partial(self.method.answer, self.setup.net, self.columns, weights, dropout=dropout)

    def summary(self) -> EpochSummary:
        return EpochSummary(self.method.transferred(self.setup.net))


def _layers(net: Net, num_classes: int) -> tuple[AbstractBlock, ...]:
    """The blocks and, as if they were blocks, the linear layers of the head."""
    sizes = (net.head.in_features, *net.hidden, num_classes)
    return (*net.blocks, *(LinearBlock(fan_in, fan_out) for fan_in, fan_out in pairwise(sizes)))


def _own(net: Net, weights: Named, i: int) -> Mapping[str, Tensor]:
    """W and its bias for one of ``_layers``."""
    if i < net.depth:
        return part_of(weights, f"layer.{i}")
    return {part: weights[f"head.{part}.{i - net.depth}"] for part in ("weight", "bias")}
