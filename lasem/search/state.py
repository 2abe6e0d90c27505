"""What a search has found out about one task so far, and which configurations it evaluates meanwhile."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, final

import torch
from torch import Tensor


@final
@dataclass(frozen=True)
class Pruned:
    """Which configurations a search evaluates at present, and what has happened since it chose them."""

    kept: tuple[int, ...]
    """Their positions, rising."""
    gained: Tensor
    """Mass that mini-batches without the others have added, shape (C,), float64."""
    num_batches: int = 0
    """Mini-batches since the choice."""


@final
@dataclass(frozen=True)
class Drawn:
    """Configurations that a search has drawn from its prior, to be evaluated in place of all."""

    positions: tuple[int, ...] = ()
    """Rising; empty before the first draw."""
    bits: Tensor = field(default_factory=lambda: torch.zeros(0, 0, dtype=torch.float64))
    """1 where a group of layers transfers, shape (len(positions), G), float64."""
    log_factor: Tensor = field(default_factory=lambda: torch.zeros(0, dtype=torch.float64))
    """What the logarithm of prior times likelihood needs for being drawn and not listed, shape (len(positions),)."""
    weights: Tensor = field(default_factory=lambda: torch.zeros(0, dtype=torch.float64))
    """The latest M-step's, shape (len(positions),)."""
    num_batches: int = 0
    """Mini-batches since the draw."""


@final
@dataclass(frozen=True)
class SearchState:
    """What a search has found out about one task so far."""

    mass: Tensor
    """Evidence for each of the C configurations, shape (C,), or for both choices of each of G groups of layers, shape
    (G, 2), where the prior factorises over them; float64. What it counts is the search's own affair."""
    committed: int | None = None
    """The one configuration that is still trained, once the search has ended."""
    pruned: Pruned | None = None
    """Of a search that leaves configurations out as their prior falls."""
    drawn: Drawn | None = None
    """Of a search that evaluates samples."""

    @property
    def is_partial(self) -> bool:
        """Whether the search goes on and may evaluate a part of the configurations, another one in each mini-batch."""
        return self.committed is None and (self.pruned is not None or self.drawn is not None)

    def to(self, device: torch.device) -> SearchState:
        """The same on a device."""
        return _with_tensors(self, {name: value.to(device) for name, value in self.tensors().items()})

    def tensors(self) -> dict[str, Tensor]:
        """Every tensor by name."""
        parts = {"": self, "pruned": self.pruned, "drawn": self.drawn}
        return {name: getattr(parts[part], own) for name, (part, own) in _TENSORS.items() if parts[part] is not None}

    def plain(self) -> dict[str, Any]:
        """Everything else, for JSON."""
        entry: dict[str, Any] = {"committed": self.committed}
        if self.pruned is not None:
            entry["pruned"] = {"kept": list(self.pruned.kept), "num_batches": self.pruned.num_batches}
        if self.drawn is not None:
            entry["drawn"] = {"positions": list(self.drawn.positions), "num_batches": self.drawn.num_batches}
        return entry

    def loaded(self, tensors: Mapping[str, Tensor], plain: Mapping[str, Any]) -> SearchState:
        """A later state of the same search, from what ``tensors`` and ``plain`` gave; KeyError if a part is missing."""
        pruned, drawn = self.pruned, self.drawn
        if pruned is not None:
            entry = plain["pruned"]
            pruned = replace(pruned, kept=tuple(entry["kept"]), num_batches=entry["num_batches"])
        if drawn is not None:
            entry = plain["drawn"]
            drawn = replace(drawn, positions=tuple(entry["positions"]), num_batches=entry["num_batches"])
        state = replace(self, committed=plain["committed"], pruned=pruned, drawn=drawn)
        return _with_tensors(state, {name: tensors[name].to(own).clone() for name, own in self.tensors().items()})


_TENSORS = {
    "mass": ("", "mass"),
    "gained": ("pruned", "gained"),
    "bits": ("drawn", "bits"),
    "log_factor": ("drawn", "log_factor"),
    "weights": ("drawn", "weights"),
}
"""The tensors of a state: name -> (part of the state, its field)."""


def _with_tensors(state: SearchState, tensors: Mapping[str, Tensor]) -> SearchState:
    def of(part: str) -> dict[str, Any]:
        return {own: tensors[name] for name, (whose, own) in _TENSORS.items() if whose == part}

    return replace(
        state,
        **of(""),
        pruned=None if state.pruned is None else replace(state.pruned, **of("pruned")),
        drawn=None if state.drawn is None else replace(state.drawn, **of("drawn")),
    )
