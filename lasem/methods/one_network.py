"""One network for all tasks, trained on one after another without any protection: the naive lower bound."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal, final

import torch
from torch import Tensor

from lasem.data import Task
from lasem.errors import check_choice
from lasem.methods.method import AbstractMethod, Learned, Model, Setup
from lasem.methods.phase import NetworkPhase
from lasem.methods.plain import initial_head, initial_layers, run
from lasem.nets import Net
from lasem.training import PhaseResult, Plan, Snapshot


@final
@dataclass(frozen=True, kw_only=True)
class OneNetwork(AbstractMethod):
    """All layers and the head's hidden layers shared; each task goes on from the weights that the one before left.

    With hidden layers in the head it shares more than hard parameter sharing of all layers, where heads are apart.
    """

    name: ClassVar[str] = "one-network"

    outputs: Literal["own", "shared"] = "own"
    """``own``: every task has an output layer of its own, which later tasks leave as it is. ``shared``: output k serves
    class k of every task, as in the code of LASEM's authors; there are as many as the largest task has classes."""

    def __post_init__(self) -> None:
        check_choice("OneNetwork.outputs", self.outputs, ("own", "shared"))

    def plan(self, model: Model, task: Task, setup: Setup) -> Plan[Learned]:
        """One phase. A task trains no more outputs than it has classes: the others stay as they are."""
        output = _output_names(setup.net)
        fresh = {**initial_layers(setup), **initial_head(setup, task.num_classes)}
        start = {name: model.shared.get(name, value) for name, value in fresh.items() if name not in output}
        for name in output:
            before = model.shared.get(name, fresh[name][:0]).to(setup.device)[: task.num_classes]
            start[name] = torch.cat([before, fresh[name][len(before) :].to(setup.device)])
        fitted: PhaseResult = yield NetworkPhase(task, setup, start)

        def made(snapshot: Snapshot) -> Model:
            shared = {name: value for name, value in snapshot.weights.items() if name not in output}
            own = {name: snapshot.weights[name] for name in output}
            if self.outputs == "shared":
                shared |= {
                    name: torch.cat([own[name], model.shared.get(name, own[name])[task.num_classes :]]) for name in own
                }
                own = {"outputs": torch.ones(task.num_classes, dtype=torch.bool, device=setup.device)}
            return model.having(shared=shared, own={**model.own, task.name: own})

        return Learned.of(setup, fitted, made)

    def logits(self, net: Net, model: Model, name: str, x: Tensor) -> Tensor:
        """The shared network with the task's output layer, or its first outputs.

        A task without an output layer owns the mask of the outputs that are its own; its length is read, not its
        values, so the device need not be waited for.
        """
        own = model.own[name]
        if self.outputs == "own":
            return run(net, {**model.shared, **own}, x)
        return run(net, model.shared, x)[:, : len(own["outputs"])]


def _output_names(net: Net) -> tuple[str, str]:
    """Names of the head's last layer, the only one whose shape depends on the task."""
    return f"head.weight.{len(net.hidden)}", f"head.bias.{len(net.hidden)}"
