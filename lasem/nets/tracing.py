"""The flow of values through a torch module, and the places between its steps where it can be cut."""

from __future__ import annotations

import warnings
from collections.abc import Collection, Sequence
from operator import attrgetter, getitem
from typing import Any, final

import torch
from torch import fx, nn
from torch.fx import Graph, GraphModule, Node

from lasem.errors import ConfigError
from lasem.nets.cut_block import is_kernel

_ROOT = "module."
_PLAIN = (nn.Module, nn.Sequential, nn.ModuleList, nn.ModuleDict, nn.ParameterList, nn.ParameterDict)
"""Torch's own modules that are no layers."""


@final
class _Single(nn.Module):
    """A module with one input; its other arguments have their defaults."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, x: torch.Tensor) -> Any:
        return self.module(x)


class _Tracer(fx.Tracer):
    """A tracer that looks into all but torch's own layers, or layers derived from them, and named submodules."""

    def __init__(self, whole: Collection[str]) -> None:
        super().__init__()
        self._whole = whole
        self.stuck = ""
        """The innermost submodule in which it failed; empty for none."""

    def call_module(self, m: nn.Module, forward: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        try:
            return super().call_module(m, forward, args, kwargs)
        except Exception:
            self.stuck = self.stuck or _name(self.path_of_module(m))
            raise

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        derived = any(kind.__module__.startswith("torch.nn.modules") and kind not in _PLAIN for kind in type(m).__mro__)
        return _name(module_qualified_name) in self._whole or derived


@final
class Flow:
    """The steps of a module in their order, from its input to the features for a head."""

    def __init__(self, module: nn.Module, whole: Collection[str]) -> None:
        """Trace a module that takes images and gives one tensor; ``whole`` names submodules that are one step each.

        Further ones are, with all of their class, if they cannot be traced or do something else in training.
        """
        self.root = _Single(module)
        steps, graph = set(whole), None
        while graph is None:
            graph, where, reason = self._traced(steps)
            if graph is None:
                further = {name for name in _alike(module, where) if not any(within(other, name) for other in whole)}
                if where not in further - steps:
                    raise ConfigError(f"{type(module).__name__} cannot be cut: {reason}")
                steps |= further
        self.graph = graph
        self.steps = [node for node in graph.nodes if node.op not in ("placeholder", "output", "get_attr")]
        (output,) = (node for node in graph.nodes if node.op == "output")
        self.result = output.args[0]
        if not isinstance(self.result, Node):
            kind = type(self.result).__name__.removeprefix("immutable_")
            raise ConfigError(
                f"{type(module).__name__} gives a {kind}; expected one tensor. Wrap it in a module whose forward gives "
                f"the features that a classifier would get."
            )

    def _traced(self, whole: Collection[str]) -> tuple[Graph | None, str, str]:
        """Return the steps; or None, the submodule that is in the way ("" for the whole module), and the reason."""
        tracer = _Tracer(whole)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of torch about its own modules
                in_training = tracer.trace(self.root.train())
                graph = tracer.trace(self.root.eval())
        except Exception as error:  # anything that the module's own code raises when it gets no numbers
            reason = str(error).strip().split("\n")[0]
            return (
                None,
                tracer.stuck,
                f"what its forward does depends on the values of tensors, or it is no plain Python "
                f"({type(error).__name__}: {reason}). Name the submodules that do so as whole blocks: "
                f"blocks=['stem', 'layers.0', ...]; or put the module's parts into an nn.Sequential.",
            )
        other = self._first_difference(graph, in_training)
        if other is None:
            return graph, "", ""
        where = [_name(path) for path in other.meta.get("nn_module_stack") or {}]
        where = where[:-1] if other.op == "call_module" else where  # a layer's own name is the last
        return (
            None,
            where[-1] if where else "",
            f"what it does in training differs from what it does in evaluation "
            f"('{getattr(other.target, '__name__', other.target)}'), outside of torch's own layers. Random steps such "
            f"as dropout must be off; put anything else into a submodule.",
        )

    def _first_difference(self, graph: Graph, in_training: Graph) -> Node | None:
        """Return the first step of training that evaluation does not have; constants are compared by their values."""
        same: dict[Node, Node] = {}
        for node, other in zip(graph.nodes, in_training.nodes, strict=False):
            args, kwargs = fx.map_arg((other.args, other.kwargs), lambda used: same.get(used, used))
            equal = (node.op, node.args, node.kwargs) == (other.op, args, kwargs)
            if node.op == other.op == "get_attr":
                values = [attrgetter(str(of.target))(self.root) for of in (node, other)]
                equal = torch.equal(*values)
            elif node.target != other.target:
                equal = False
            if not equal:
                found: Node = other
                return found
            same[other] = node
        return None

    def module_of(self, node: Node) -> nn.Module | None:
        """Return the submodule that a step calls, if it calls one."""
        return self.root.get_submodule(str(node.target)) if node.op == "call_module" else None

    def name_of(self, node: Node) -> str:
        """Return a name of a step for messages: the submodule's, or the function's."""
        target = node.target
        name = target if isinstance(target, str) else getattr(target, "__name__", str(target))
        return _name(name)

    def parameters_of(self, node: Node) -> dict[str, nn.Parameter]:
        """Return the parameters that a step uses and that require gradients, by their path from ``root``."""
        found: dict[str, nn.Parameter] = {}
        module = self.module_of(node)
        if module is not None:
            found = dict(module.named_parameters(prefix=str(node.target)))
        for used in node.all_input_nodes:
            if used.op == "get_attr":
                value = attrgetter(str(used.target))(self.root)
                if isinstance(value, nn.Parameter):
                    found[str(used.target)] = value
        return {path: value for path, value in found.items() if value.requires_grad}

    def title(self, start: int, end: int) -> str:
        """Return a name of a stretch of steps for messages: its first submodule with weights."""
        return self.name_of(next(filter(self.parameters_of, self.steps[start:end]), self.steps[start]))

    def cut_before_classifier(self, classifier: str | None, named: Collection[str]) -> nn.Linear | None:
        """End before the linear layer that serves only the module's own classes, and return it if there is one.

        ``classifier`` is its name, ``"auto"`` to find it, or None for none; ``named`` are submodules that stay.
        """
        node = self.result
        assert isinstance(node, Node)
        if classifier is None:
            return None
        while classifier == "auto" and not self.parameters_of(node) and node in self.steps:
            tensors = [used for used in node.all_input_nodes if used.op != "get_attr"]
            if len(tensors) != 1:
                return None
            (node,) = tensors
        if classifier != "auto":
            found = [step for step in self.steps if self.name_of(step) == classifier]
            if len(found) != 1:
                raise ConfigError(f"Expected the name of a linear layer as classifier; got '{classifier}'.")
            (node,) = found
        layer = self.module_of(node)
        if not isinstance(layer, nn.Linear) or self.name_of(node) in named:
            return None
        (features,) = node.all_input_nodes
        while isinstance(self.module_of(features), nn.Dropout):  # the head has its own
            (features,) = features.all_input_nodes
        self.result = features
        self.steps = self.steps[: self.steps.index(features) + 1] if features in self.steps else []
        return layer

    def crossing(self, position: int) -> list[Node]:
        """Return the values from before a position that the steps from there on need."""
        later = set(self.steps[position:])
        known = [node for node in self.graph.nodes if node.op == "placeholder"] + self.steps[:position]
        passing = [node for node in known if any(user in later for user in node.users) or node is self.result]
        return [part for node in passing for part in self._parts(node)]

    @staticmethod
    def _parts(node: Node) -> list[Node]:
        """Return a value and its parts, if it is a tuple that its users take apart."""
        return [node, *(user for user in node.users if user.target is getitem and isinstance(user.args[1], int))]

    def part(self, start: int, end: int) -> GraphModule:
        """Make a module of one stretch of steps, from the one value before it to the one after it."""
        graph = Graph()
        given = self.crossing(start)[0]
        new: dict[Node, Node] = {given: graph.placeholder("x")}
        held: dict[str, Any] = {}
        for node in self.steps[start:end]:
            for used in node.all_input_nodes:
                if used.op == "get_attr" and used not in new:
                    new[used] = graph.create_node("get_attr", self.name_of(used))
                    held[self.name_of(used)] = attrgetter(str(used.target))(self.root)
            new[node] = graph.node_copy(node, new.__getitem__)
            if node.op == "call_module":
                new[node].target = self.name_of(node)
                held[self.name_of(node)] = self.module_of(node)
        result = self.crossing(end)[0] if end < len(self.steps) else self.result
        assert isinstance(result, Node)
        graph.output(new[result])
        return GraphModule(held, graph)


def borders(flow: Flow, groups: Sequence[Sequence[str]]) -> list[int]:
    """Return the first step of each block, of which there is one for each group of submodules."""
    group_of = {name: i for i, names in enumerate(groups) for name in names}
    called = [flow.name_of(step) if step.op == "call_module" else "" for step in flow.steps]
    owners = [next((i for name, i in group_of.items() if within(step, name)), None) for step in called]
    for name in group_of:
        outer = next((other for other in group_of if other != name and within(name, other)), None)
        if outer is not None:
            raise ConfigError(f"Submodule '{name}' lies within '{outer}', which is named too. Name one of them.")
        if not any(within(step, name) for step in called):
            raise ConfigError(f"Submodule '{name}' is not used before the classifier, so that it is no block.")
    begins = [0]
    for i in range(1, len(groups)):
        first, last = owners.index(i), max(k for k, owner in enumerate(owners) if owner == i - 1)
        if first < last:
            raise ConfigError(
                f"Submodule '{called[last]}' runs after '{called[first]}', which stands in a later block. Put them "
                f"into one group, or the blocks into the order in which they run."
            )
        fitting = [k for k in range(first, last, -1) if len(flow.crossing(k)) == 1]
        if not fitting:
            values = ", ".join(f"'{flow.name_of(node)}'" for node in flow.crossing(first))
            before, after = groups[i - 1][-1], groups[i][0]
            raise ConfigError(
                f"Between block '{before}' and block '{after}' more than one value passes (those of {values}): a skip "
                f"connection or the like is used across them. Group them into one block: ('{before}', '{after}')."
            )
        begins.append(fitting[0])
    for step, name, owner in zip(flow.steps, called, owners, strict=True):
        if name and owner is None and flow.parameters_of(step):
            raise ConfigError(
                f"Submodule '{name}' has weights and stands in no block. Add it to the group of the submodules that "
                f"run before or after it."
            )
    return begins


def automatic_borders(flow: Flow) -> list[int]:
    """Return the first step of each block, if every stretch with a kernel between two single values is a block.

    So a skip connection lies within a block, and steps after a kernel (normalisation, activation, pooling) belong to
    its block.
    """
    has_kernel = [any(is_kernel(flow.root, path) for path in flow.parameters_of(step)) for step in flow.steps]
    singles = [k for k in range(1, len(flow.steps)) if len(flow.crossing(k)) == 1]
    begins, start = [0], 0
    for place, following in zip(singles, [*singles[1:], len(flow.steps)], strict=False):
        if any(has_kernel[start:place]) and any(has_kernel[place:following]):
            begins.append(place)
            start = place
    return begins


def within(step: str, name: str) -> bool:
    """Return whether a step is a submodule or lies within it."""
    return step == name or step.startswith(name + ".")


def _name(path: str) -> str:
    """Return a submodule's name in the traced module, which is the root's ``module``; empty for the module itself."""
    return path.removeprefix(_ROOT) if path != _ROOT[:-1] else ""


def _alike(module: nn.Module, name: str) -> set[str]:
    """Name a submodule and all of the same class, but for torch's own lists of modules."""
    kind = type(module.get_submodule(name))
    return {name, *(other for other, part in module.named_modules() if type(part) is kind and kind not in _PLAIN)} - {
        ""
    }


def without_dropout(module: nn.Module) -> list[str]:
    """Set all rates of dropout and of stochastic depth to 0, and return their names."""
    found = []
    for path, part in module.named_modules():
        kind = type(part).__name__.lower()
        rates = ["drop_rate", "drop_prob", "attn_drop_rate"]
        rates += ["p"] if "drop" in kind or "stochasticdepth" in kind else []
        rates += ["dropout"] if isinstance(part, nn.MultiheadAttention | nn.RNNBase) else []
        for name in rates:
            value = getattr(part, name, None)
            if isinstance(value, float | int) and value > 0:
                setattr(part, name, 0.0)
                found.append(f"{path}.{name}".removeprefix("."))
    return found
