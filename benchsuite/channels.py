"""Other ways to lose information than Gaussian noise, for exact models that are solved under them as well.

A *channel* takes a clean item and a level to evidence about it, such as which tokens are visible. A model that
knows its exact posterior given that evidence states how much of every factor is left, and draws items from it: a
U-turn in one shot. The levels of a channel are log-SNR, or a loss from 0 (nothing lost) to 1 (everything lost).
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from benchsuite.contracts import ExactModel, FloatArray, ProtocolOptions

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class NoiseChannel:
    """One channel of a model."""

    name: str  #: "gaussian", "masking", …
    axis: str  #: "log_snr", or what a loss is called: "masked fraction"
    low: float = 0.0  #: the levels worth looking at; 0 and 1 for a loss
    high: float = 1.0
    random: bool = True  #: whether evidence differs from draw to draw


@dataclass(frozen=True)
class Passage:
    """What is left of B items after R passages through a channel."""

    #: {factor: (B, R)} in [0, 1]: probability that an exact posterior draw has the item's value, averaged over the
    #: places of the factor (all nodes of a level of a hierarchy); R = 1 from a channel that is not random
    kept: Mapping[str, torch.Tensor]
    changed: torch.Tensor | None  #: (B, R, P) bool, positions at which one posterior draw differs from the item


class ChannelModel(ExactModel):
    """An exact model that is solved under several noise channels."""

    @abstractmethod
    def channels(self) -> tuple[NoiseChannel, ...]:
        """The channels, by different names."""

    @abstractmethod
    def send(
        self, channel: str, level: float, x: torch.Tensor, keys: torch.Tensor, copies: bool = False
    ) -> Passage:
        """Send items through a channel and look at the exact posterior.

        Args:
            channel: name of one of `channels`.
            level: on the channel's axis.
            x: (B, *shape) clean items of this model.
            keys: (B, R) int64 stream keys (`benchsuite.randomness`), one per passage. The same keys at another
                level are the same noise, so that curves are smooth.
            copies: draw one item per passage from the posterior and say where it differs.
        """

    def theory(self, channel: str, levels: FloatArray) -> dict[str, FloatArray]:
        """What a theory expects at `levels` (S,): ``kept/<factor>``, ``susceptibility``, each (S,); or nothing."""
        return {}

    def theory_facts(self) -> dict[str, Any]:
        """JSON-able facts of that theory, empty if there is none; ``names`` says what it is called by channel."""
        return {}

    def redrawn(self, number: int) -> ChannelModel | None:
        """The model with its random parameters drawn anew (number = 1, 2, …), loaded; None if it has none.

        Theories are about the average over such draws.
        """
        return None


@dataclass(frozen=True)
class Channels(ProtocolOptions):
    """Ask for passages through every channel of an exact model."""

    protocol: ClassVar[str] = "channels"
    copies: bool = False  #: positions that posterior draws change, too
