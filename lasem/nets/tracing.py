"""The flow of values through a torch module, the places where it can be cut, and its stages."""

import copy
import warnings
from collections.abc import Collection, Iterator, Mapping, Sequence
from itertools import chain, pairwise, takewhile
from operator import attrgetter, getitem
from typing import Any, Literal, final

import torch
from torch import fx, nn
from torch.fx import Graph, GraphModule, Node

from lasem.errors import ConfigError
from lasem.nets.cut_block import is_kernel

_ROOT = "module."
_PLAIN = (nn.Module, nn.Sequential, nn.ModuleList, nn.ModuleDict, nn.ParameterList, nn.ParameterDict)
"""Torch's own modules that are no layers."""

Groups = Literal["stages", "blocks"] | Sequence[int]
MOST_STAGES = 8
_LARGE_STEM = 0.1
"""Share of a model's weights from which on its stem is a stage of its own: a table of words."""
_NEARLY_ALL = 0.8
"""Share of the weights of two stages from which on the larger is taken apart: most of a model is in one list."""


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


def stage_groups(model: nn.Module, groups: Groups = "stages") -> list[list[str]]:
    """Group the submodules of a model, input side first, for ``cut(model, blocks, classifier=None)``.

    A residual or attention block, or else a layer, is never divided, and stages between which more than one tensor
    passes are one. What comes before the first of them belongs to it, unless it holds a tenth of all weights, and what
    comes after the last to the last.

    Args:
        model: from images or texts to features; without its classifier, as ``timm.create_model(..., num_classes=0)``.
        groups: ``"stages"``: the model's stages; more than eight, such as a transformer's blocks, are put together into
            at most eight of nearly equal length. ``"blocks"``: every block for itself. Or the number of blocks in
            each group.

    Raises:
        ConfigError: if the model cannot be traced, or the numbers do not fit its blocks.
    """
    if isinstance(groups, str) and groups not in ("stages", "blocks"):
        raise ConfigError(f"groups must be 'stages', 'blocks' or numbers of blocks; got '{groups}'.")
    flow, inside = _called(model, _stages(model) if groups == "stages" else dict(_units(model)))
    kernels = {name: _num_kernels(model.get_submodule(name)) for name in inside}
    least = 2 if any(inside[name] and kernels[name] > 1 for name in inside) else 1
    is_block = {name for name in inside if inside[name] and kernels[name] >= least}
    separate, between, num_apart = list[list[str]](), list[list[str]](), 0
    for names in _apart(flow, inside):
        if is_block.isdisjoint(names):
            between.append(names)
            continue
        while separate and between and _belongs_before(between[0], separate[-1], names, kernels):
            separate[-1] += between.pop(0)
        if not separate and between and _is_large([*chain(*between)], model):
            separate, between, num_apart = [[*chain(*between)]], [], 1
        separate.append([*chain(*between), *names])
        between = []
    if not separate:
        raise ConfigError(f"{type(model).__name__} has no submodules with weights; there is no stage to transfer.")
    separate[-1] += chain(*between)
    if groups == "blocks":
        return separate
    if groups == "stages":
        return separate[:num_apart] + merged(separate[num_apart:], MOST_STAGES - num_apart)
    return in_groups(separate, groups, f"{type(model).__name__} has {len(separate)} blocks")


def _apart(flow: Flow, names: Collection[str]) -> Iterator[list[str]]:
    """Yield submodules in their order, those together between which more than one tensor passes."""
    found, last = list[str](), 0
    for k, step in enumerate(flow.steps):
        name = flow.name_of(step)
        if step.op != "call_module" or name not in names:
            continue
        if found and any(len(flow.crossing(place)) == 1 for place in range(last + 1, k + 1)):
            yield found
            found = []
        found.append(name)
        last = k
    yield found


def _is_large(stem: list[str], model: nn.Module) -> bool:
    return sum(_num_weights(model.get_submodule(name)) for name in stem) > _LARGE_STEM * _num_weights(model)


def _belongs_before(names: list[str], before: list[str], after: list[str], kernels: Mapping[str, int]) -> bool:
    """Return whether submodules between two blocks lie with the first; if with none, normalisation belongs to it."""
    path = names[0].split(".")
    first, second = (
        sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(path, of.split("."), strict=False)))
        for of in (before[-1], after[0])
    )
    return first > second or (first == second and not any(kernels[name] for name in names))


def in_groups(found: list[list[str]], sizes: Sequence[int], there: str) -> list[list[str]]:
    """Put so many neighbours into each group; ConfigError unless that are all of them: ``there`` says how many are."""
    if sum(sizes) != len(found) or min(sizes) < 1:
        raise ConfigError(f"{there}; expected groups of as many in all, got {', '.join(map(str, sizes))}.")
    rest = iter(found)
    return [[name for _ in range(size) for name in next(rest)] for size in sizes]


def merged(found: list[list[str]], most: int) -> list[list[str]]:
    """Put neighbours together so that at most some groups of nearly equal length are left."""
    num = -(-len(found) // -(-len(found) // most))
    bounds = [round(i * len(found) / num) for i in range(num + 1)]
    return [[name for group in found[a:b] for name in group] for a, b in pairwise(bounds)]


def _called(model: nn.Module, parts: dict[str, bool]) -> tuple[Flow, dict[str, bool]]:
    """Trace a model whose parts are one step each; of parts that it does not call, their submodules are instead."""
    tensors = (*model.parameters(), *model.buffers())
    module = copy.deepcopy(model, {id(tensor): tensor for tensor in tensors})  # they are only looked at
    without_dropout(module)
    while True:
        flow = Flow(module, list(parts))
        steps = {flow.name_of(step) for step in flow.steps if flow.parameters_of(step)} - parts.keys()
        opened = {name for name in parts if any(within(step, name) for step in steps)}
        if not opened:
            return flow, parts
        parts = _opened(model, parts, opened)


def _stages(model: nn.Module) -> dict[str, bool]:
    """Name the parts of a model at the level where its stages are next to each other, and say whether each is one."""
    inner = _inner(model)
    parts = {name: name in inner or not inner for name, _ in _with_weights(model)}
    while True:
        sizes = {name: _num_weights(model.get_submodule(name)) for name, inside in parts.items() if inside}
        largest = max(sizes, key=sizes.__getitem__, default="")
        if len(sizes) > 2 or not largest or not _is_container(model.get_submodule(largest)):
            return parts
        if sizes[largest] < _NEARLY_ALL * sum(sizes.values()):
            return parts
        parts = _opened(model, parts, {largest})


def _opened(model: nn.Module, parts: dict[str, bool], names: Collection[str]) -> dict[str, bool]:
    """Replace some parts by their submodules with weights."""
    opened = dict[str, bool]()
    for name, inside in parts.items():
        of = [f"{name}.{child}" for child, _ in _with_weights(model.get_submodule(name))] if name in names else [name]
        opened |= dict.fromkeys(of, inside)
    return opened


def _units(module: nn.Module, path: str = "", inside: bool = False) -> Iterator[tuple[str, bool]]:
    """Name the parts of a module down to its blocks, and say whether each lies where the blocks are."""
    inner = _inner(module)
    for name, child in _with_weights(module):
        within_blocks = inside or name in inner or not (path or inner)
        if _is_container(child):
            yield from _units(child, f"{path}{name}.", within_blocks)
        else:
            yield path + name, within_blocks


def _inner(module: nn.Module) -> list[str]:
    """Name the submodules that hold a module's blocks."""
    children = dict(_with_weights(module))
    lists = [name for name, child in children.items() if _is_container(child)]
    rich = [
        name
        for name in lists
        if any(_num_kernels(children[name].get_submodule(unit)) > 1 for unit, _ in _units(children[name]))
    ]
    kinds = {type(children[name]) for name in rich}
    return [
        name
        for name, child in children.items()
        if name in (rich or lists) or (name not in lists and type(child) in kinds and _num_kernels(child) > 1)
    ]


def _is_container(module: nn.Module) -> bool:
    """Return whether a module is a list of blocks or holds one."""
    children = [child for _, child in _with_weights(module)]
    blocks = [child for child in children if _num_kernels(child) > 1]
    if isinstance(module, nn.Sequential | nn.ModuleList):
        return _num_kernels(module) > 1
    alike = len(blocks) > 1 and len(blocks) == len(children) and len({type(child) for child in blocks}) == 1
    lists = (child for child in children if isinstance(child, nn.Sequential | nn.ModuleList))
    return alike or any(_num_kernels(part) > 1 for some in lists for _, part in _with_weights(some))


def _with_weights(module: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    return ((name, child) for name, child in module.named_children() if any(True for _ in child.parameters()))


def _num_weights(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def _num_kernels(module: nn.Module) -> int:
    return sum(is_kernel(module, name) for name, _ in module.named_parameters())
