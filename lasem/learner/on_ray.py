"""A growing model that answers on several machines: the application of ``lasem serve`` in replicas of Ray Serve.

``serve run lasem.learner.on_ray:application model=/srv/model num_replicas=2``, or the same import path in a file for
``serve deploy``, where everything else that Ray knows of replicas can be set.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, final

from lasem.errors import ConfigError
from lasem.learner.growing import GrowingModel
from lasem.learner.serving import Limits, Server
from lasem.settings import Range, from_plain

if TYPE_CHECKING:
    from starlette.applications import Starlette


@final
@dataclass(frozen=True, kw_only=True)
class Replicas:
    """What is asked for."""

    model: str
    """The folder, which every machine has at this path."""
    num_replicas: Annotated[int, Range(least=1)] = 1
    threads: Annotated[int, Range(least=1)] = 1
    """Of torch in each of them; Ray sets as many processors aside."""
    device: str = "cpu"


def application(options: Mapping[str, Any]) -> Any:
    """Return an ``Application`` of Ray Serve; errors as of ``Server``, and ConfigError for an option or without Ray.

    Args:
        options: those of ``Replicas``, as text or as values.
    """
    try:
        from ray import serve
    except ImportError as error:
        raise ConfigError("Ray Serve is not installed: pip install 'lasem[ray,serve]'.") from error
    asked = from_plain(Replicas, options, "application")
    place = Path(asked.model).absolute()

    def opened() -> "Starlette":
        return Server(GrowingModel(place, device=asked.device), threads=asked.threads, log=print).application()

    opened()  # what is wrong with the model is said here, and not by each replica
    set_aside = {"num_cpus": asked.threads, "num_gpus": int(asked.device.startswith("cuda"))}
    deployment: Any = serve.deployment(
        serve.ingress(opened)(),
        name="lasem",
        num_replicas=asked.num_replicas,
        max_ongoing_requests=Limits().batch,  # Ray's default of 5 leaves nothing to be answered together
        ray_actor_options=set_aside,
    )
    return deployment.bind()
