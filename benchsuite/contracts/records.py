"""What a metric may ask of the protocols, and what those leave behind."""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace
from typing import Any, ClassVar, TypeVar

from numpy.typing import NDArray

P = TypeVar("P", bound="ProtocolOptions")


@dataclass(frozen=True)
class ProtocolOptions:
    """What a metric asks of one protocol. Requests are united: booleans by or, numbers by max, names by union."""

    protocol: ClassVar[str]

    def union(self: P, other: P) -> P:
        """The smallest request that satisfies both."""
        merged: dict[str, Any] = {}
        for f in fields(self):
            mine, theirs = getattr(self, f.name), getattr(other, f.name)
            if isinstance(mine, bool):
                merged[f.name] = mine or theirs
            elif isinstance(mine, tuple):
                merged[f.name] = tuple(dict.fromkeys(mine + theirs))
            else:
                merged[f.name] = max(mine, theirs)
        return replace(self, **merged)


@dataclass(frozen=True)
class NoiseSweep(ProtocolOptions):
    """Ask for a noise sweep: one forward pass per (image, noise, level)."""

    protocol: ClassVar[str] = "noise_sweep"
    heads: bool = False  #: squared errors of the unconditional and the conditional heads
    taps: bool = False  #: pooled activations, for items of the probe's splits too
    tap_levels: tuple[float, ...] = ()  #: log_snr at which activations are kept too, wherever the grid is
    layers: bool = False  #: taps on every convolution and linear layer too, except those of embeddings


@dataclass(frozen=True)
class UTurn(ProtocolOptions):
    """Ask for U-turns: noise to sigma, reverse SDE back to 0, judge what comes out."""

    protocol: ClassVar[str] = "u_turn"
    features: bool = False  #: how similar the judge's hidden layers stay, see `Readout.features`
    positions: bool = False  #: how much every position changes, see `Readout.positions`


@dataclass(frozen=True)
class LabelFilter(ProtocolOptions):
    """Ask what all conditional heads conclude about an item along its own path to the clean image."""

    protocol: ClassVar[str] = "label_filter"


@dataclass(frozen=True)
class Fork(ProtocolOptions):
    """Ask for forks: k independent continuations from one noised image."""

    protocol: ClassVar[str] = "fork"
    paths: bool = False  #: fork the model's own generative paths too


@dataclass(frozen=True)
class Trajectory(ProtocolOptions):
    """Ask for reverse paths from the model's prior: x and D(x) at the recorded levels, and where they end."""

    protocol: ClassVar[str] = "trajectory"
    conditional: bool = False  #: the filter of every factor along the paths, from all of its conditional heads
    errors: bool = False  #: denoising errors of training and evaluated items at the recorded levels


@dataclass(frozen=True)
class Population(ProtocolOptions):
    """Ask for the model's training items in its own space; not applicable to models whose are unknown."""

    protocol: ClassVar[str] = "population"


@dataclass
class Record:
    """What a protocol leaves behind: named arrays and JSON-able facts. Metrics read records, never models.

    The arrays of each protocol are documented in `benchsuite.protocols`.
    """

    protocol: str
    arrays: dict[str, NDArray[Any]]
    meta: dict[str, Any] = field(default_factory=dict)

    def __getitem__(self, name: str) -> NDArray[Any]:
        try:
            return self.arrays[name]
        except KeyError:
            raise KeyError(f"{self.protocol} record has no {name!r}; it has {sorted(self.arrays)}") from None

    def factor_size(self, factor: str) -> int:
        """Number of values of `factor`."""
        return int(self.meta["factors"][factor])
