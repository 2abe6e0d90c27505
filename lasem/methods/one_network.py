"""One network for all tasks, trained on one after another without any protection: the naive lower bound."""

from dataclasses import dataclass
from typing import ClassVar, Literal, final

import torch
from torch import Tensor

from lasem.data import Task
from lasem.methods.method import AbstractMethod, Learned, Setup
from lasem.methods.model import Model
from lasem.methods.plain import NetworkPhase, initial_head, initial_layers, run
from lasem.nets import Net
from lasem.settings import Settings
from lasem.training import PhaseResult, Plan, Snapshot


@final
@dataclass(frozen=True, kw_only=True)
class OneNetwork(Settings, AbstractMethod):
    """All layers and the head's hidden layers shared; each task goes on from the weights that the one before left.

    With hidden layers in the head it shares more than hard parameter sharing of all layers, where heads are apart.
    A task trains no more outputs than it has classes: the others stay as they are.
    """

    name: ClassVar[str] = "one-network"

    outputs: Literal["own", "shared"] = "own"
    """``own``: every task has an output layer of its own, which later tasks leave as it is. ``shared``: output k serves
    class k of every task, as in the code of LASEM's authors; there are as many as the largest task has classes."""

    def plan(self, model: Model, task: Task, setup: Setup) -> Plan[Learned]:
        # the head's last layer, the only one whose shape depends on the task
        outputs = [f"head.{part}.{len(setup.net.hidden)}" for part in ("weight", "bias")]
        fresh = {**initial_layers(setup), **initial_head(setup, task.num_classes)}
        start = {name: model.shared.get(name, value) for name, value in fresh.items()}
        for name in outputs:
            before = model.shared.get(name, fresh[name][:0]).to(setup.device)[: task.num_classes]
            start[name] = torch.cat([before, fresh[name][len(before) :].to(setup.device)])
        fitted: PhaseResult = yield NetworkPhase(task, setup, start)

        def model_of(snapshot: Snapshot) -> Model:
            shared = dict(snapshot.weights)
            own = {name: shared.pop(name) for name in outputs}
            if self.outputs == "shared":
                for name, value in own.items():
                    shared[name] = torch.cat([value, model.shared.get(name, value)[task.num_classes :]])
                # a mask of the outputs that are the task's; its length is read, which waits for no device
                own = {"outputs": torch.ones(task.num_classes, dtype=torch.bool, device=setup.device)}
            return model.having(shared=shared, own={**model.own, task.name: own})

        return Learned.of(setup, fitted, model_of)

    def logits(self, net: Net, model: Model, name: str, x: Tensor) -> Tensor:
        own = model.own[name]
        if self.outputs == "own":
            return run(net, {**model.shared, **own}, x)
        return run(net, model.shared, x)[:, : len(own["outputs"])]
