"""What a growing model is made with."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

from lasem.data.decode import Channels
from lasem.errors import ConfigError
from lasem.learner.learner import Learner
from lasem.learner.model_files import damage_told
from lasem.learner.protection import AbstractProtection, Branch
from lasem.learner.storage import KNOWN
from lasem.nets import AbstractNet, ImageShape, for_images
from lasem.search import AbstractSelection, Fixed
from lasem.settings import flat, to_named
from lasem.sharing import AbstractSharing
from lasem.training import TrainingConfig


@final
@dataclass(frozen=True, kw_only=True)
class Choices:
    """What was given; None stands for what the model has, or for the default when it is made."""

    net: AbstractNet | Callable[[ImageShape], AbstractNet] | None = None
    """Or a function of the image shape."""
    sharing: AbstractSharing | None = None
    search: AbstractSelection | None = None
    training: TrainingConfig | None = None
    protect: AbstractProtection | None = None
    """A new model branches: no task that it has learned ever answers otherwise."""
    image_size: int | None = None
    channels: Channels | None = None
    seed: int | None = None
    device: str = "cpu"

    def fresh(self, image_shape: ImageShape) -> Learner:
        """A learner without tasks."""
        return Learner(
            self._net_for(image_shape) or for_images(image_shape),
            sharing=self.sharing,
            search=self.search,
            training=self.training,
            protect=self.protect or Branch(),
            seed=self.seed or 0,
            device=self.device,
        )

    def load(self, directory: Path, stored: Mapping[str, Any], *, to_learn: bool) -> Learner:
        """The model in a folder; how it learns does not matter to one that only asks it.

        Args:
            directory: the model's folder.
            stored: see ``GrowingModel.settings``.
            to_learn: whether it is to learn one more task.
        """
        return Learner.load(
            directory,
            sharing=self.sharing,
            search=self.search if to_learn else self.search or Fixed("none"),
            training=self.training if to_learn else self.training or _answering(directory, stored),
            protect=self.protect,
            net=self._net_for(tuple(stored["net"]["image_shape"])),
            device=self.device,
            lazy=True,
        )

    def check(self, directory: Path, stored: Mapping[str, Any]) -> None:
        """Raise ConfigError if something was given that a model was not made with.

        Args:
            directory: the model's folder.
            stored: see ``GrowingModel.settings``.
        """
        shape = tuple(stored["net"]["image_shape"])
        held = {key: value for part in stored for key, value in called(part, stored[part]).items()}
        held |= {"image_size": shape[1], "channels": shape[0]}
        net = self._net_for(shape)
        given = {} if net is None else called("net", net.description())
        for part in CHOSEN:
            value = getattr(self, part)
            given |= {} if value is None else plain_choice(part, value)
        numbers = {part: getattr(self, part) for part in ("seed", "image_size", "channels")}
        given |= {part: value for part, value in numbers.items() if value is not None}
        for name, value in given.items():
            if held.get(name) != value:
                raise ConfigError(
                    f"The model in {directory} was made with {name} = {_words(held.get(name))}; got {_words(value)}. "
                    f"Leave {name} out, or begin another model."
                )

    def _net_for(self, image_shape: ImageShape) -> AbstractNet | None:
        return self.net if self.net is None or isinstance(self.net, AbstractNet) else self.net(image_shape)


def _answering(directory: Path, stored: Mapping[str, Any]) -> TrainingConfig:
    """Of a model's stored settings of training, what its answers depend on."""
    with damage_told(f"{directory} holds no model that can be read"):
        return TrainingConfig(precision=stored["training"]["precision"])


CHOSEN = ("sharing", "search", "training", "protect")
"""The parts beside the network."""


def plain_choice(part: str, value: Any) -> dict[str, Any]:
    """A choice's name and settings by what a person calls them, such as ``training.epochs``."""
    return called(part, to_named(value, KNOWN.get(part, {})))


def called(part: str, plain: Any) -> dict[str, Any]:
    """A part's plain settings by what a person calls them; its name is what the part is."""
    return {name.removesuffix(".name"): value for name, value in flat(plain, part).items()}


def _words(value: Any) -> str:
    if value is None:
        return "none"
    return ",".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
