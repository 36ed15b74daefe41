"""Native time t/T as a view on the log-SNR axis: each model's own clock, and the DDPM one for reference."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from benchsuite.boards import Board, Line
from benchsuite.noise import log_snr_from_alpha_bar
from benchsuite.results import Row


@dataclass(frozen=True)
class Clock:
    """A map from log-SNR to t/T: `log_snr` ascending, `time` non-increasing (1 = noise), same length."""

    label: str
    log_snr: tuple[float, ...]
    time: tuple[float, ...]

    def at(self, log_snr: float) -> float | None:
        """The t/T at `log_snr`, linear between nodes; None outside them."""
        if not self.log_snr[0] <= log_snr <= self.log_snr[-1]:
            return None
        return float(np.interp(log_snr, self.log_snr, self.time))

    def place(self, time: float) -> float | None:
        """The log-SNR at t/T = `time`, linear between nodes; None if the clock does not show that time."""
        if not self.time[-1] <= time <= self.time[0]:
            return None
        return float(np.interp(time, self.time[::-1], self.log_snr[::-1]))


def ddpm_linear_clock() -> Clock:
    """The schedule of Ho et al. 2020 (arXiv:2006.11239): beta linear from 1e-4 to 0.02 over T = 1000 steps."""
    alpha_bar = np.cumprod(1 - np.linspace(1e-4, 0.02, 1000))
    log_snr, time = log_snr_from_alpha_bar(alpha_bar), np.arange(1, 1001) / 1000
    return Clock("DDPM linear schedule", tuple(log_snr[::-1].tolist()), tuple(time[::-1].tolist()))


def clock_of(label: str, rows: Sequence[Row]) -> Clock | None:
    """The native clock that the curves of a model carry, the widest if there are several; None if none do."""
    clocks = [
        clock for row in rows for curve in row.curves if (clock := _clock(label, curve.log_snr, curve.native_time))
    ]
    return max(clocks, key=lambda clock: clock.log_snr[-1] - clock.log_snr[0], default=None)


def clocks_of(board: Board) -> list[Clock]:
    """The clock of every model of a board that has one, in the order of its lines, then the DDPM reference."""
    labels = dict.fromkeys(line.label for line in board.lines)
    rows = {label: [row for row in board.rows if row.label == label] for label in labels}
    found = [clock for label in labels if (clock := clock_of(label, rows[label]))]
    return [*found, ddpm_linear_clock()]


def native_time_at(line: Line, log_snr: float) -> float | None:
    """t/T of the line's model at `log_snr`; None if the model has no clock there."""
    clock = clock_of(line.label, list(line.rows.values()))
    return clock.at(log_snr) if clock else None


def _clock(label: str, log_snr: Sequence[float], time: Sequence[float] | None) -> Clock | None:
    nodes = [(x, t) for x, t in zip(log_snr, time or (), strict=False) if math.isfinite(t)]
    falls = all(a[1] >= b[1] for a, b in pairwise(nodes))
    if len(nodes) < 2 or not falls or nodes[0][1] == nodes[-1][1]:
        return None
    return Clock(label, tuple(x for x, _ in nodes), tuple(t for _, t in nodes))
