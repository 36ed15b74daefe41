"""How protocols are carried out: light, so that planning and `--help` need no torch."""

from __future__ import annotations

from dataclasses import dataclass

from benchsuite.errors import UsageError

METHODS = ("ancestral", "sde-2m", "ode-heun")


@dataclass(frozen=True)
class SweepSettings:
    """A noise sweep; everything its numbers depend on besides model and items."""

    low: float = -8.0  #: log_snr of the noisiest level
    high: float = 9.0  #: log_snr of the cleanest level
    nodes: int = 69  #: equidistant levels, at least 64 for the information integral
    draws: int = 2  #: noise draws per item, in antithetic pairs
    tap_stride: int = 4  #: taps are kept at every this many levels

    def __post_init__(self) -> None:
        _check_range("SweepSettings", self.low, self.high)
        for name in ("draws", "tap_stride"):
            _check_positive("SweepSettings", name, getattr(self, name))
        if self.nodes < 2:
            raise UsageError(f"SweepSettings.nodes must be at least 2, got {self.nodes}")


@dataclass(frozen=True)
class FilterSettings:
    """The filter of a label on its item's way down; everything its numbers depend on besides model and items."""

    low: float = -8.0  #: log_snr of the noisiest level, where the filter starts from the prior
    high: float = 9.0  #: log_snr of the cleanest level
    nodes: int = 69  #: equidistant recorded levels
    #: steps between them; at 0.25 log-SNR a step the extrapolated bias on exact models is below 0.02 nats
    steps_per_level: int = 1
    draws: int = 1  #: paths per item, in antithetic pairs
    items: int = 2000  #: items that are filtered, at most
    most_values: int = 12  #: factors with more values are left out: every value costs a pass
    negligible: float = 1e-6  #: a value that is less probable than this is ruled out for the rest of the path

    def __post_init__(self) -> None:
        _check_range("FilterSettings", self.low, self.high)
        for name in ("steps_per_level", "draws", "items"):
            _check_positive("FilterSettings", name, getattr(self, name))
        if self.nodes < 2:
            raise UsageError(f"FilterSettings.nodes must be at least 2, got {self.nodes}")
        if not 0 <= self.negligible < 0.1:
            raise UsageError(f"FilterSettings.negligible must lie in [0, 0.1), got {self.negligible}")


@dataclass(frozen=True)
class ReturnSettings:
    """The reverse schedule that U-turns and forks come back by."""

    low: float = -7.0  #: log_snr of the noisiest starting level
    high: float = 7.0  #: log_snr of the cleanest starting level
    every: float = 0.5  #: spacing of starting levels
    #: reverse steps between neighbouring starting levels; 0.25 log-SNR a step is the coarsest at which
    #: second-order steps inflate retention by less than 0.01 on the cases of the calibration
    steps_per_level: int = 2
    end: float = 8.0  #: log_snr of the last forward pass, whose denoised image is the result
    method: str = "sde-2m"  #: see `benchsuite.samplers`

    def __post_init__(self) -> None:
        where = type(self).__name__
        _check_range(where, self.low, self.high)
        _check_positive(where, "every", self.every)
        _check_positive(where, "steps_per_level", self.steps_per_level)
        if self.end < self.high:
            raise UsageError(f"{where}.end {self.end} must not lie below its high {self.high}")
        if self.method not in METHODS:
            raise UsageError(f"{where}.method must be one of {', '.join(METHODS)}, got {self.method!r}")


@dataclass(frozen=True)
class UTurnSettings(ReturnSettings):
    """U-turns; everything their numbers depend on besides model and items."""

    draws: int = 1  #: U-turns per item and level
    #: draws come in pairs of opposite noise, which spares variance of means; what correlates several U-turns of
    #: one item needs independent ones and uses every other draw, or all of them if this is off
    antithetic: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_positive("UTurnSettings", "draws", self.draws)


@dataclass(frozen=True)
class ForkSettings(ReturnSettings):
    """Forks; everything their numbers depend on besides model and items."""

    low: float = -5.0
    high: float = 5.0
    every: float = 1.0
    steps_per_level: int = 4
    k: int = 16  #: continuations per item and level
    items: int = 64  #: items that are forked, at most
    paths_from: float = -8.0  #: log_snr where own paths begin, or the noisiest level that the model accepts

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.k < 2:
            raise UsageError(f"ForkSettings.k must be at least 2, got {self.k}")
        _check_positive("ForkSettings", "items", self.items)
        if not -50 < self.paths_from <= self.low:
            raise UsageError(
                f"ForkSettings.paths_from {self.paths_from} must not lie above its low {self.low}, nor below -50"
            )


@dataclass(frozen=True)
class TrajectorySettings(ReturnSettings):
    """Reverse paths from the prior; everything their numbers depend on besides the model.

    They start at the noisiest recorded level in the model's range; `every` is the spacing of recorded levels.
    """

    low: float = -7.0  #: log_snr of the noisiest recorded level
    high: float = 8.0  #: log_snr of the cleanest recorded level
    every: float = 1.0
    steps_per_level: int = 8
    method: str = "ancestral"  #: the increments of a filter are exactly Gaussian for "ancestral" only
    paths: int = 200

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_positive("TrajectorySettings", "paths", self.paths)


@dataclass(frozen=True)
class ChannelSettings:
    """Other noise channels of exact models; everything their numbers depend on besides the model."""

    nodes: int = 21  #: equidistant levels from one end of a channel to the other
    refine: int = 9  #: levels more, where the first factor falls fastest
    redraws: int = 1  #: copies of the model with its random parameters drawn anew; 1 = the model as it is
    items: int = 64  #: items of each copy
    draws: int = 8  #: passages per item and level, each with its own noise, when posterior draws are asked for
    shared_draws: int = 32  #: the same for a channel without randomness, where they share one forward pass

    def __post_init__(self) -> None:
        for name, least in (("nodes", 5), ("refine", 0), ("redraws", 1), ("items", 1), ("draws", 2)):
            if getattr(self, name) < least:
                raise UsageError(f"ChannelSettings.{name} must be at least {least}, got {getattr(self, name)}")
        if self.shared_draws < 2:
            raise UsageError(f"ChannelSettings.shared_draws must be at least 2, got {self.shared_draws}")
        if self.redraws * self.items < 2:
            raise UsageError("ChannelSettings needs two items or more: raise items or redraws")


def _check_range(where: str, low: float, high: float) -> None:
    if not -50 < low < high < 50:
        raise UsageError(f"{where} needs -50 < low < high < 50, got {low} and {high}")


def _check_positive(where: str, name: str, value: float) -> None:
    if not value > 0:
        raise UsageError(f"{where}.{name} must be positive, got {value}")
