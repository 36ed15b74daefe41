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

    draws: int = 1  #: U-turns per item and level, in antithetic pairs

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

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.k < 2:
            raise UsageError(f"ForkSettings.k must be at least 2, got {self.k}")
        _check_positive("ForkSettings", "items", self.items)


def _check_range(where: str, low: float, high: float) -> None:
    if not -50 < low < high < 50:
        raise UsageError(f"{where} needs -50 < low < high < 50, got {low} and {high}")


def _check_positive(where: str, name: str, value: float) -> None:
    if not value > 0:
        raise UsageError(f"{where}.{name} must be positive, got {value}")
