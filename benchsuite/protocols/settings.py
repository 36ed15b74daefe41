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
        _check_range("sweep", self.low, self.high)
        for name in ("draws", "tap_stride"):
            _check_positive("sweep", name, getattr(self, name))
        if self.nodes < 2:
            raise UsageError(f"sweep.nodes must be at least 2, got {self.nodes}")


@dataclass(frozen=True)
class UTurnSettings:
    """U-turns and forks; everything their numbers depend on besides model and items."""

    low: float = -7.0  #: log_snr of the noisiest starting level
    high: float = 7.0  #: log_snr of the cleanest starting level
    every: float = 0.5  #: spacing of starting levels
    steps_per_level: int = 1  #: reverse steps between neighbouring starting levels
    end: float = 8.0  #: log_snr of the last forward pass, whose denoised image is the result
    method: str = "sde-2m"  #: see `benchsuite.samplers`
    draws: int = 1  #: U-turns per item and level, in antithetic pairs

    def __post_init__(self) -> None:
        _check_range("u_turn", self.low, self.high)
        _check_positive("u_turn", "every", self.every)
        _check_positive("u_turn", "steps_per_level", self.steps_per_level)
        _check_positive("u_turn", "draws", self.draws)
        if self.end < self.high:
            raise UsageError(f"u_turn.end {self.end} must not lie below u_turn.high {self.high}")
        if self.method not in METHODS:
            raise UsageError(f"u_turn.method must be one of {', '.join(METHODS)}, got {self.method!r}")


def _check_range(where: str, low: float, high: float) -> None:
    if not -50 < low < high < 50:
        raise UsageError(f"{where} needs -50 < low < high < 50, got {low} and {high}")


def _check_positive(where: str, name: str, value: float) -> None:
    if not value > 0:
        raise UsageError(f"{where}.{name} must be positive, got {value}")
