"""Selective layer transfer, the method of LASEM: shared knowledge, and for each task a choice layer by layer.

.. [Lee2021] S. Lee, S. Behpour, E. Eaton. Sharing Less is More: Lifelong Learning in Deep Networks with Selective Layer
   Transfer. ICML 2021.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields, replace
from functools import partial
from typing import ClassVar, final

import torch
from torch import Tensor

from lasem.data import Task
from lasem.errors import ConfigError, StorageError
from lasem.methods.method import AbstractMethod, Learned, Setup, Shapes
from lasem.methods.model import Model, Parts, Route, prefixed
from lasem.methods.plain import Paths
from lasem.methods.protection import AbstractProtection, Unprotected
from lasem.nets import AbstractBlock, AbstractNet, full_precision, part_of, start_generator
from lasem.search import EM, AbstractSelection, Choice, Selected
from lasem.search.abstract import Outcome
from lasem.sharing import AbstractSharing, HardSharing
from lasem.space import Configuration, Space
from lasem.space.configuration import TRANSFER
from lasem.training import (
    MAX_IMAGES,
    FreshWeights,
    LayerWeights,
    Named,
    Plan,
    Quadratic,
    Source,
    TaskStart,
    TaskWeights,
    TrainingConfig,
    fisher_information,
    initial_statistics,
    with_term,
)


@final
@dataclass(frozen=True, kw_only=True)
class Transfer(AbstractMethod):
    """Three choices: how layers are shared, which configuration a task gets, and what holds what earlier tasks use.

    With ``EM()`` it is LASEM ([Lee2021]_), with ``Fixed("all")`` hard parameter sharing as usual, with
    ``Fixed("none")`` single-task learning. The model's ``versions`` hold the shared knowledge; a task owns, for each
    layer, the mechanism's task parameters if it transfers the layer, else plain weights, and the head.
    """

    name: ClassVar[str] = "lasem"
    unused: ClassVar[frozenset[str]] = frozenset()

    sharing: AbstractSharing = field(default_factory=HardSharing)
    """How shared knowledge becomes a layer's weights."""
    search: AbstractSelection | None = field(default_factory=EM)
    """Which configuration a task gets; None: of a model that was read and has learned nothing since."""
    protect: AbstractProtection = field(default_factory=Unprotected)
    """What holds shared knowledge that earlier tasks use."""

    @property
    def keeps(self) -> bool:  # type: ignore[override]
        return self.protect.keeps

    @property
    def rewrites(self) -> bool:  # type: ignore[override]
        return self._imposes or self.protect.reuses

    @property
    def _imposes(self) -> bool:
        return self.search is not None and self.search.imposes

    def check(self, net: AbstractNet, training: TrainingConfig) -> None:
        for block in net.blocks:
            self.sharing.check(block)
        if self.search is None:
            return
        if self.search.reuses and not self._reuses(net):
            raise ConfigError(
                f"Search '{self.search.name}' takes earlier tasks' layers as they are: expected protect 'freeze', and "
                f"sharing 'hps' that trains what is shared; got protect '{self.protect.name}', sharing "
                f"'{self.sharing.name}'. Set them (--protect freeze --sharing hps)."
            )
        first, _ = (self.search.space(net.depth, index) for index in (0, 1))
        owned = any(first.can(i, transfer=False) and self.sharing.task_shapes(b) for i, b in enumerate(net.blocks))
        if self.search.imposes and (owned or self.protect != Unprotected()):
            raise ConfigError(
                f"{type(self.search).__name__}.form='paper' lets the second task change the first: expected protect "
                f"'none', and a first task that transfers all layers or shares them as they are (hps); got protect "
                f"'{self.protect.name}', sharing '{self.sharing.name}'. Set protect to none and first_task to all."
            )

    def remark(self, net: AbstractNet) -> str:
        return f"{net.remark} {self.search.remark(net.depth) if self.search is not None else ''}".strip()

    def reason(self, model: Model, setup: Setup) -> str:
        return self._learning_search.reason(setup.net, self._position(model, setup))

    def plan(self, model: Model, task: Task, setup: Setup) -> Plan[Learned]:
        start = self.start(model, task, setup)
        found = yield from self._learning_search.plan(start)
        if found.source is not None:
            source = start.sources[found.source]
            layers = source.layers
            best, kept = (_complete(setup.net, choice, layers) for choice in (found.best, found.kept))
            found = replace(found, best=best, kept=kept)
            model = self._lending(model, setup.net, source.name, found.best.configuration)
        peak = self._with_task(model, task, setup, found, found.best)
        last = peak if found.kept is found.best else self._with_task(model, task, setup, found, found.kept)
        space, outcome = start.space, {part.name: getattr(found, part.name) for part in fields(Outcome)}
        if not any(found.best.configuration):
            outcome["source"] = None
        return Learned(
            model=last.having(memory=self._memory(model, task, setup, found.kept)),
            best=peak,
            configurations=tuple(map(str, space)) if space.is_listed else (str(found.kept.configuration),),
            **outcome,
        )

    def start(self, model: Model, task: Task, setup: Setup) -> TaskStart:
        """Return what a search of the next task starts from."""
        space = self._learning_search.space(setup.net.depth, self._position(model, setup))
        weights, replaced = self._initial(model, task, setup, space)
        used = frozenset(i for i in range(setup.net.depth) if _in_use(model, i))
        needed = Quadratic.from_named(model.memory) if model.memory else None
        return TaskStart(
            setup.net,
            self.sharing,
            setup.training,
            task,
            space,
            weights,
            replaced,
            setup.device,
            (setup.seed, setup.index),
            protection=self.protect.guard(used, needed),
            sources=self._sources(setup.net, model),
            evidence=tuple(route.evidence for route in model.routes.values() if route.evidence),
        )

    def plain_weights(self, net: AbstractNet, model: Model, name: str) -> dict[str, Tensor]:
        weights = prefixed("head", self.layer_weights(net, model, name, net.depth))
        for i in range(net.depth):
            weights |= prefixed(f"layer.{i}", self.layer_weights(net, model, name, i))
        return weights

    def layer_weights(self, net: AbstractNet, model: Model, name: str, layer: int) -> dict[str, Tensor]:
        route, own = model.routes[name], model.own[name]
        if layer == net.depth:
            return part_of(own, "head")
        block, mine = net.blocks[layer], part_of(own, f"layer.{layer}")
        if not route.transfers[layer]:
            return mine
        statistics = {key: mine.pop(key) for key in block.statistics if key in mine}
        head = own["head.weight.0"]
        with full_precision(head.device):
            made = self.sharing.weights(block, model.versions.get(_key(layer, route.versions[layer]), {}), mine)
        return {**block.held(head), **made, **statistics}

    def paths(self, net: AbstractNet, model: Model, names: Iterable[str]) -> Paths:
        whole = [  # shared as it is, so that no task has a part of it
            not self.sharing.task_shapes(block) and (not block.statistics or self.sharing.keeps(block))
            for block in net.blocks
        ]
        routes = {name: model.routes[name] for name in names}
        return {
            name: [
                number if shared and transferred else name
                for shared, transferred, number in zip(whole, route.transfers, route.versions, strict=True)
            ]
            for name, route in routes.items()
        }

    def source(self, net: AbstractNet, model: Model, name: str) -> str | None:
        if not self._reuses(net):
            return None
        before = {other: set(route.keys) for other, route in model.routes.items()}
        before = dict(list(before.items())[: list(before).index(name)])
        wanted = set().union(*before.values()) & set(model.routes[name].keys)  # the rest is what it lends itself
        return next((other for other, keys in before.items() if wanted and wanted <= keys), None)

    def answers_with(self, model: Model, name: str) -> Model:
        route = model.routes[name]
        used = set(route.keys)
        versions = model.versions.only(lambda key: key in used)
        return Model(own={name: model.own[name]}, versions=versions, routes={name: route})

    def forget(self, net: AbstractNet, model: Model, name: str) -> Model:
        """Give up a task, and the shared knowledge that no other task transfers.

        What a penalty held for it goes on being held, as long as the layer is shared.
        """
        routes = {other: route for other, route in model.routes.items() if other != name}
        used = {key for route in routes.values() for key in route.keys}
        versions = model.versions.only(lambda key: key in used)
        own = Parts.of(model.own).only(lambda other: other != name)
        shared = {_numbers(key)[0] for key in versions}
        memory = dict(model.memory)
        if memory:
            needed = Quadratic.from_named(memory).of(lambda flat: int(flat.split(".")[1]) in shared)
            memory = {} if needed is None else needed.named()
        return Model(own=own, memory=memory, versions=versions, routes=routes)

    def shapes(self, net: AbstractNet, model: Model, name: str, num_classes: int) -> Shapes:
        found = {f"head.{key}": shape for key, shape in net.head.shapes(num_classes).items()}
        for i, (block, transferred) in enumerate(zip(net.blocks, model.routes[name].transfers, strict=True)):
            own = self.sharing.task_shapes(block) if transferred else block.shapes
            if block.statistics and not (transferred and self.sharing.keeps(block)):
                own = own | block.statistics
            found |= {f"layer.{i}.{key}": shape for key, shape in own.items()}
        return found

    def version_shapes(self, net: AbstractNet, key: str) -> Shapes:
        try:
            layer, number = _numbers(key)
            if number >= 0 <= layer < net.depth and key == _key(layer, number):
                return self.sharing.shared_shapes(net.blocks[layer])
        except ValueError:
            pass
        raise StorageError(f"Expected versions such as 0@1 of {net.depth} layers; got {key!r}. The model is damaged.")

    def check_stored(
        self, net: AbstractNet, model: Model, num_classes: Mapping[str, int], device: torch.device
    ) -> None:
        """Raise StorageError if a task's route does not fit the network; shapes are checked where tensors are read."""
        if num_classes:  # tasks that are read now: routes were checked when the model was loaded
            return
        for key in model.versions:
            self.version_shapes(net, key)
        for name, route in model.routes.items():
            for what, length in (("layers", len(route.configuration)), ("versions", len(route.versions))):
                if length != net.depth:
                    raise StorageError(f"Task '{name}' has {length} {what}; the network has {net.depth} layers.")
            missing = [key for key in route.keys if key not in model.versions]
            if missing and not self.sharing.keeps(net):
                raise StorageError(f"Task '{name}' uses version {missing[0]}, which the model lacks: it is damaged.")
        if model.memory:
            _check_needed(model.memory, [self.sharing.shared_shapes(block) for block in net.blocks])

    def _reuses(self, net: AbstractNet) -> bool:
        """Return whether what one task owns can be shared with another: it is kept, and whole weights are shared."""
        return self.protect.reuses and all(self.sharing.shared_shapes(b) == b.shapes for b in net.blocks)

    def _sources(self, net: AbstractNet, model: Model) -> Mapping[str, Source]:
        """Return the earlier tasks whose layers a new one can use as they are."""
        if not self._reuses(net):
            return {}
        paths: dict[tuple[tuple[int, int] | str, ...], str] = {}
        for name, route in model.routes.items():
            layers = enumerate(zip(route.transfers, route.versions, strict=True))
            path = tuple((i, number) if taken else name for i, (taken, number) in layers)
            paths[path] = paths.pop(path, name)  # what was used again is among the last

        def read(name: str) -> tuple[dict[str, Tensor], ...]:
            plain = self.plain_weights(net, model, name)
            return tuple(part_of(plain, f"layer.{i}") for i in range(net.depth))

        return {name: Source(name, partial(read, name)) for name in paths.values()}

    def _position(self, model: Model, setup: Setup) -> int:
        """Return the next task's position; 0 if it has nothing to transfer, as also when all others were forgotten."""
        if self.sharing.keeps(setup.net):
            return setup.index + 1
        return setup.index if model.own else 0

    @property
    def _learning_search(self) -> AbstractSelection:
        if self.search is None:
            raise ConfigError("A model needs a search to learn another task; pass search=... to load.")
        return self.search

    def _lending(self, model: Model, net: AbstractNet, name: str, wanted: Configuration) -> Model:
        """Return a model in which a task shares the layers that another one transfers from it.

        What it owns of these becomes a version of them; its answers stay the same, to the bit.
        """
        route, own, versions = model.routes[name], dict(model.own[name]), model.versions
        letters, numbers = list(route.configuration), list(route.versions)
        for i, (block, transferred) in enumerate(zip(net.blocks, wanted, strict=True)):
            if transferred and not route.transfers[i]:
                numbers[i] = 1 + max((number for layer, number in map(_numbers, versions) if layer == i), default=-1)
                lent = {key: own.pop(f"layer.{i}.{key}") for key in block.shapes}
                versions, letters[i] = versions.with_part(_key(i, numbers[i]), lent), TRANSFER
        if "".join(letters) == route.configuration:
            return model
        routes = {**model.routes, name: replace(route, configuration="".join(letters), versions=tuple(numbers))}
        return model.having(own=Parts.of(model.own).with_part(name, own), versions=versions, routes=routes)

    def _with_task(self, model: Model, task: Task, setup: Setup, found: Selected, choice: Choice) -> Model:
        """Take over the chosen configuration's weights; shared weights of other layers stay as they are."""
        configuration, weights = choice.configuration, choice.weights
        own = {f"head.{key}": value for key, value in weights.head.items()}
        versions, used = model.versions, []
        for i, (block, layer) in enumerate(zip(setup.net.blocks, weights.layers, strict=True)):
            mine = layer.factors if configuration[i] else layer.specific
            mine = mine | layer.statistics_of(str(configuration)[: i + 1])
            own |= {f"layer.{i}.{key}": value for key, value in mine.items()}
            number = 0
            if configuration[i] and found.source is not None:
                number = model.routes[found.source].versions[i]
            elif configuration[i]:
                stays = self.protect.branches and self._moves(block) and _in_use(model, i)
                number = _latest(model.versions, i) + (1 if stays else 0)
                if not self.sharing.keeps(block):
                    versions = versions.with_part(_key(i, number), layer.shared)
            used.append(number)
        route = Route(str(configuration), tuple(used), found.evidence)
        before, routes = Parts.of(model.own), dict(model.routes)
        first = self._imposed_on(model, setup)
        if first is not None:
            before, routes[first] = before.with_part(first, self._own_in(model, first, configuration, setup)), route
            versions = versions.only(lambda key: key in route.keys)
        return Model(
            own=before.with_part(task.name, own),
            memory=model.memory,
            versions=versions,
            routes={**routes, task.name: route},
        )

    def _imposed_on(self, model: Model, setup: Setup) -> str | None:
        """Return the first task, if the next one's configuration is imposed on it."""
        return next(iter(model.own)) if self._imposes and setup.index == len(model.own) == 1 else None

    def _own_in(self, model: Model, name: str, configuration: Configuration, setup: Setup) -> dict[str, Tensor]:
        """Return what a task owns if it has another configuration: of a layer that it gives to all, no weights."""
        own, plain = dict(model.own[name]), self.plain_weights(setup.net, model, name)
        for i, (block, transferred) in enumerate(zip(setup.net.blocks, configuration, strict=True)):
            if transferred != model.routes[name].transfers[i]:
                mine = part_of(plain, f"layer.{i}")
                mine = {key: mine[key] for key in block.statistics} if transferred else mine
                own = {key: value for key, value in own.items() if not key.startswith(f"layer.{i}.")}
                own |= prefixed(f"layer.{i}", mine)
        return own

    def _memory(self, model: Model, task: Task, setup: Setup, kept: Choice) -> Named:
        """Return where earlier tasks and this one need the shared weights, if the protection measures that."""
        net, weights, configuration = setup.net, kept.weights, kept.configuration
        held = weights.shared(configuration)
        if self.protect.measures is None or not held:
            return model.memory

        def answer(shared: Named, x: Tensor) -> Tensor:  # what is not shared is constant
            for i, (block, own) in enumerate(zip(net.blocks, weights.layers, strict=True)):
                made = own.specific
                if configuration[i]:
                    made = self.sharing.weights(block, part_of(shared, f"layer.{i}.shared"), own.factors)
                x = block.apply({**made, **own.statistics_of(str(configuration)[: i + 1])}, x)
            logits: Tensor = net.head.apply(weights.head, x)
            return logits

        draws = start_generator(setup.seed, setup.index, net.depth, 1)
        images = task.train.batches(MAX_IMAGES, device=setup.device)
        measured = fisher_information(answer, held, images, self.protect.measures, draws)
        before = Quadratic.from_named(model.memory) if model.memory else None
        return with_term(before, measured, held).named()

    def _moves(self, block: AbstractBlock) -> bool:
        """Return whether learning changes anything of what tasks share of a layer."""
        return any(self.sharing.step(name) > 0 for name in self.sharing.shared_shapes(block))

    def _initial(self, model: Model, task: Task, setup: Setup, space: Space) -> tuple[TaskWeights, FreshWeights]:
        """Shared knowledge as it is, or fresh where there is none; what the task may own starts as the settings say.

        Returns:
            The weights, and fresh ones where something was taken over from another task instead.
        """
        net, layers, first = setup.net, [], self._imposed_on(model, setup)
        replaced: dict[tuple[int, bool], dict[str, Tensor]] = {}
        for i, block in enumerate(net.blocks):
            sources = [start_generator(setup.seed, setup.index, i, part) for part in range(4)]
            plain = block.initial(sources[0], net.initial)
            transferable, ownable = space.can(i, transfer=True), space.can(i, transfer=False)
            latest = model.versions.get(_key(i, _latest(model.versions, i)), {})
            known = {key: value.cpu() for key, value in latest.items()}
            taken = self._latest_factors(net, model, i)
            # one start for all methods; but where the task may choose, both choices must not start as the same
            made_fresh = not known or (not taken and bool(self.sharing.task_shapes(block)))
            other = block.initial(sources[1], net.initial) if ownable and made_fresh else plain
            if first is not None and not known:
                other = _own_weights(net, model, first, i)
            shared: dict[str, Tensor] = {}
            factors: dict[str, Tensor] = {}
            specific: dict[str, Tensor] = {}
            if transferable:
                shared = known or self.sharing.initial_shared(block, other, sources[2])
                factors = taken or self.sharing.initial_task(block, shared, other, sources[3])
                if taken:
                    replaced[i, True] = plain
            if ownable:
                taken = self._taken_over(model, setup, i, shared, factors) if shared else {}
                specific = taken or plain
                if taken:
                    replaced[i, False] = plain
            statistics = initial_statistics(block, i, space, kept=self.sharing.keeps(block))
            layers.append(LayerWeights(shared, factors, specific, statistics))
        head = net.head.initial(task.num_classes, start_generator(setup.seed, setup.index, net.depth), net.initial)
        return TaskWeights(tuple(layers), head), replaced

    def _latest_factors(self, net: AbstractNet, model: Model, layer: int) -> dict[str, Tensor]:
        """The latest transferring task's part of a layer, if the mechanism goes on from it."""
        if self.sharing.factors_start == "latest":
            for name, route in reversed(list(model.routes.items())):
                if route.transfers[layer]:
                    return _own_weights(net, model, name, layer)
        return {}

    def _taken_over(
        self, model: Model, setup: Setup, layer: int, shared: dict[str, Tensor], factors: dict[str, Tensor]
    ) -> dict[str, Tensor]:
        """What task-specific weights start from instead of fresh ones; nothing where they do start fresh."""
        begin = setup.training.specific_start
        if begin == "fresh" or not model.routes:
            return {}
        latest = list(model.routes)[-1]
        if begin == "latest" and not model.routes[latest].transfers[layer]:
            return _own_weights(setup.net, model, latest, layer)
        return self.sharing.weights(setup.net.blocks[layer], shared, factors)


def _complete(net: AbstractNet, choice: Choice, known: tuple[Mapping[str, Tensor], ...]) -> Choice:
    """Return a choice with the running statistics of the layers that are an earlier task's."""
    layers = []
    for i, (block, own) in enumerate(zip(net.blocks, choice.weights.layers, strict=True)):
        statistics = {TRANSFER: {key: known[i][key] for key in block.statistics}}
        layers.append(replace(own, statistics=statistics) if choice.configuration[i] else own)
    return replace(choice, weights=replace(choice.weights, layers=tuple(layers)))


def num_kept(model: Model) -> int:
    """Return the numbers in versions of shared layers that are not the latest: no new task goes on from them."""
    latest = {_numbers(key)[0]: key for key in sorted(model.versions, key=_numbers)}
    return sum(model.versions.num_parameters(key) for key in model.versions if key not in latest.values())


def _own_weights(net: AbstractNet, model: Model, name: str, layer: int) -> dict[str, Tensor]:
    """What a task owns of a layer but for its statistics, on the CPU."""
    statistics = net.blocks[layer].statistics
    own = part_of(model.own[name], f"layer.{layer}")
    return {key: value.cpu() for key, value in own.items() if key not in statistics}


def _key(layer: int, version: int) -> str:
    return f"{layer}@{version}"


def _numbers(key: str) -> tuple[int, int]:
    layer, version = key.split("@")
    return int(layer), int(version)


def _latest(versions: Parts, layer: int) -> int:
    """The number of a layer's latest version; 0 if there is none."""
    return max((number for i, number in map(_numbers, versions) if i == layer), default=0)


def _in_use(model: Model, layer: int) -> bool:
    """Whether a task transfers the latest version of a layer."""
    latest = _latest(model.versions, layer)
    return any(route.transfers[layer] and route.versions[layer] == latest for route in model.routes.values())


def _check_needed(memory: Named, shapes: list[dict[str, tuple[int, ...]]]) -> None:
    """Raise StorageError unless a file's importances and anchors are of shared weights."""
    expected = {f"layer.{i}.shared.{key}": shape for i, layer in enumerate(shapes) for key, shape in layer.items()}
    needed = Quadratic.from_named(memory)
    fits = set(needed.importance) == set(needed.anchor) and tuple(needed.constant.shape) == ()
    for part in (needed.importance, needed.anchor):
        fits = fits and all(tuple(value.shape) == expected.get(key) for key, value in part.items())
    if not fits:
        raise StorageError("Expected importances of the shared weights in the model's memory; it is damaged.")
