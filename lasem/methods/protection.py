"""Protection of earlier tasks when a new one changes the shared knowledge that they use.

.. [Kirkpatrick2017] J. Kirkpatrick et al. Overcoming catastrophic forgetting in neural networks. PNAS 114(13), 2017.
"""

from abc import ABC
from dataclasses import dataclass
from typing import Annotated, ClassVar, final

from lasem.settings import Range, Settings
from lasem.training import FisherKind, Quadratic, SharedProtection


@dataclass(frozen=True, kw_only=True)
class AbstractProtection(ABC):
    """What holds shared knowledge that earlier tasks use. Holds settings only."""

    name: ClassVar[str]
    """How the command line and saved files call it."""
    keeps: ClassVar[bool] = False
    """Whether earlier tasks always answer the same, to the bit."""
    branches: ClassVar[bool] = False
    """Whether a layer that a new task changes becomes a new version, and earlier tasks keep the one they know."""
    reuses: ClassVar[bool] = False
    """Whether a search may take what any earlier task answers with, as it is, for the layers that are transferred."""

    @property
    def measures(self) -> FisherKind | None:
        """How it measures what each shared weight matters to a task, once that was learned; None: it does not."""
        return None

    def guard(self, used: frozenset[int], needed: Quadratic | None) -> SharedProtection:
        """What holds shared knowledge while a new task is learned.

        Args:
            used: layers, counted from 0, that an earlier task transfers.
            needed: where earlier tasks need the shared weights, and how much; None if that was not measured.
        """
        return SharedProtection()


@final
@dataclass(frozen=True, kw_only=True)
class Unprotected(AbstractProtection):
    """Nothing, as in the paper: a new task changes what it transfers, for better or worse for earlier tasks."""

    name: ClassVar[str] = "none"


@final
@dataclass(frozen=True, kw_only=True)
class Freeze(AbstractProtection):
    """Shared knowledge that somebody uses is only read: earlier tasks always answer the same, to the bit.

    A new task takes it as it is, with a part of its own where the mechanism has one, or learns the layer for itself. A
    search that reuses (``TaskStart.sources``) may take any earlier task's layers, also those that only that one owns.
    """

    name: ClassVar[str] = "freeze"
    keeps: ClassVar[bool] = True
    reuses: ClassVar[bool] = True

    def guard(self, used: frozenset[int], needed: Quadratic | None) -> SharedProtection:
        return SharedProtection(read_only=used)


@final
@dataclass(frozen=True, kw_only=True)
class Penalty(AbstractProtection, Settings):
    """A quadratic penalty pulls shared weights back to where earlier tasks need them ([Kirkpatrick2017]_, equation 3).

    Each task's importances are the diagonal of the Fisher information of its answers, for the layers it transfers.
    """

    name: ClassVar[str] = "penalty"

    strength: Annotated[float, Range(least=0)] = 10000.0
    """Half of it times the sum of the tasks' quadratic terms is added to the loss; not negative."""
    fisher: FisherKind = "exact"
    """How importances are measured: over all labels by their probability, which is the definition (exact); for one
    label drawn from them (sampled); for the true label (empirical)."""

    @property
    def measures(self) -> FisherKind:
        return self.fisher

    def guard(self, used: frozenset[int], needed: Quadratic | None) -> SharedProtection:
        return SharedProtection(quadratic=needed, strength=self.strength)


@final
@dataclass(frozen=True, kw_only=True)
class Branch(AbstractProtection):
    """A layer that a new task changes becomes a new version: earlier tasks always answer the same, to the bit.

    A new task goes on from the latest version of each layer. A version is kept as long as a task uses it.
    """

    name: ClassVar[str] = "branch"
    keeps: ClassVar[bool] = True
    branches: ClassVar[bool] = True


PROTECTIONS: dict[str, type[AbstractProtection]] = {
    protection.name: protection for protection in (Unprotected, Freeze, Penalty, Branch)
}
"""The protections that a file or a command line can name."""
