"""How well a search finds the layers that are truly shared, where a stream's truth is known."""

from __future__ import annotations

from collections.abc import Sequence

from lasem.errors import ShapeError
from lasem.metrics.matrix import mean


def share_of_layers_found(chosen: Sequence[str], truth: Sequence[str]) -> float:
    """Share of all layers of all tasks where the choice is the truth, in [0, 1]; a coin finds half. NaN for no layer.

    Args:
        chosen: the configuration of each task that has a truth, such as ``"STTS"``.
        truth: what its layers are: T truly shared with an earlier task, S its own.

    Raises:
        ShapeError: if tasks or layers do not match.
    """
    return _share_found(chosen, truth, "TS")


def share_of_shared_layers_found(chosen: Sequence[str], truth: Sequence[str]) -> float:
    """Share of the truly shared layers that were transferred, in [0, 1]; see ``share_of_layers_found``."""
    return _share_found(chosen, truth, "T")


def share_of_own_layers_found(chosen: Sequence[str], truth: Sequence[str]) -> float:
    """Share of the layers truly a task's own that were not transferred, in [0, 1]; see ``share_of_layers_found``."""
    return _share_found(chosen, truth, "S")


def _share_found(chosen: Sequence[str], truth: Sequence[str], kinds: str) -> float:
    if [len(configuration) for configuration in chosen] != [len(configuration) for configuration in truth]:
        raise ShapeError(
            f"Expected one chosen layer for each layer of the truth; got {','.join(chosen)} for {','.join(truth)}. A "
            f"planted stream's truth has to be as deep as the network."
        )
    pairs = [(c, t) for one, other in zip(chosen, truth, strict=True) for c, t in zip(one, other, strict=True)]
    return mean([float(c == t) for c, t in pairs if t in kinds])
