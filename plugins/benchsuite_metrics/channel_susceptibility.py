"""Susceptibility by noise channel: how many tokens a posterior draw changes together, for exact models.

Sclocchi, Favero, Levi & Wyart (arXiv:2410.13770), see `benchsuite_metrics.susceptibility` for the definition and
for what a peak does not prove.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np

from benchsuite import Channels, Curve, Metric, NotApplicableError, Record
from benchsuite.contracts import FloatArray
from benchsuite_metrics.channel_curves import Channel, channels_of, expected, with_theory
from benchsuite_metrics.susceptibility import susceptibility

#: the peak is the vertex of a parabola through the levels whose chi lies this far up from 1 to the maximum
PEAK_SHARE = 0.7
CAVEAT = ", which proves no hierarchy (unrelated templates peak too)"


class ChannelSusceptibility(Metric):
    """chi of one-shot U-turns, against log-SNR (published) and, as variants, on the axes of the other channels.

    Every passage sees noise of its own and ends in one exact draw from the posterior. ``extra["peaks"]`` has the
    level and the height of the maximum of every channel. Levels at which nothing changes are left out.
    """

    name = "channel-susceptibility"
    version = "1"
    paper = "arXiv:2410.13770"
    unit = "positions"
    bounds: ClassVar[tuple[float, float]] = (0.0, float("inf"))
    needs = (Channels(copies=True),)
    onset = False
    per_factor = False
    tolerance = 0.1

    def compute(self, records: Mapping[str, Record]) -> list[Curve]:
        """chi by channel, and what theory expects of it."""
        record = records["channels"]
        found = channels_of(record)
        measured = {channel.name: self._chi(record, channel) for channel in found}
        positions = record[f"changed/{found[0].name}"].shape[3]
        peaks = {c.name: {"axis": c.axis, **peak(*measured[c.name])} for c in found}
        curves = []
        for channel in found:
            levels, chi = measured[channel.name]
            extra = {"peaks": peaks, "theory": record.meta["theory"], "redraws": record.meta["redraws"]}
            at, value = peaks[channel.name]["at"], peaks[channel.name]["value"]
            curve = Curve(
                factor="",
                log_snr=levels,
                per_item=chi,
                items=tuple(record["items"]),
                unit=self.unit,
                floor=1.0,
                ceiling=float(positions),
                variant=channel.variant,
                axis=channel.axis,
                flags=() if at is None else (f"peaks at {channel.unit} {at:.3f} with chi = {value:.2f}{CAVEAT}",),
                extra={} if channel.variant else extra,
            )
            curves += with_theory(curve, record, channel, expected(record, channel, "susceptibility"))
        return curves

    def _chi(self, record: Record, channel: Channel) -> tuple[FloatArray, FloatArray]:
        """Levels (T,) at which something changes, and chi (N, T) there."""
        changed = record[f"changed/{channel.name}"]  # (N, all levels, R, P)
        chi = np.stack([susceptibility(changed[:, level]) for level in range(changed.shape[1])], axis=1)
        known = np.flatnonzero(np.isfinite(chi).all(axis=0))
        if len(known) < 2:
            raise NotApplicableError(f"positions changed at {len(known)} levels of {channel.name}; two are needed")
        return channel.levels[known], chi[:, known]


def peak(levels: FloatArray, chi: FloatArray) -> dict[str, Any]:
    """Where chi (N, T) is largest: ``at`` and ``value`` of the vertex of a parabola; None if at an end.

    The parabola goes through the neighbours of the maximum that lie more than `PEAK_SHARE` of the way up, so that
    noise on one of them moves it little.
    """
    x, y = levels, chi.mean(axis=0)
    best = int(np.argmax(y))
    if best in (0, len(x) - 1):
        return {"at": None, "value": None}
    high = y > 1 + PEAK_SHARE * (y[best] - 1)
    left, right = best, best
    while left > 0 and high[left - 1]:
        left -= 1
    while right < len(x) - 1 and high[right + 1]:
        right += 1
    left, right = min(left, best - 1), max(right, best + 1)
    bend, tilt, base = np.polyfit(x[left : right + 1] - x[best], y[left : right + 1], 2)
    vertex = -tilt / (2 * bend)
    return {"at": float(x[best] + vertex), "value": float(base + tilt * vertex / 2)}
