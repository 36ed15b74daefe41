"""Susceptibility by noise channel: how many tokens a posterior draw changes together, for exact models.

Sclocchi, Favero, Levi & Wyart (arXiv:2410.13770), see `benchsuite_metrics.susceptibility` for the definition and
for what a peak does not prove.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np

from benchsuite import Channels, Curve, Metric, Record
from benchsuite.contracts import FloatArray
from benchsuite_metrics.channel_curves import Channel, channels_of, theory_curves
from benchsuite_metrics.susceptibility import susceptibility

#: the peak is the vertex of a parabola through the levels whose chi lies this far up from 1 to the maximum
PEAK_SHARE = 0.7


class ChannelSusceptibility(Metric):
    """chi of one-shot U-turns, against log-SNR (published) and, as variants, on the axes of the other channels.

    Every passage sees noise of its own and ends in one exact draw from the posterior. ``extra["peaks"]`` has the
    level and the height of the maximum of every channel. Levels at which nothing changes have no value.
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
        chi = {channel.name: self._chi(record, channel) for channel in found}
        positions = record[f"changed/{found[0].name}"].shape[3]
        peaks = {c.name: {"axis": c.axis, **peak(c.levels, chi[c.name])} for c in found}
        curves = []
        for channel in found:
            extra = {"peaks": peaks, "theory": record.meta["theory"], "redraws": record.meta["redraws"]}
            curves.append(
                Curve(
                    factor="",
                    log_snr=channel.levels,
                    per_item=chi[channel.name],
                    items=tuple(record["items"]),
                    unit=self.unit,
                    floor=1.0,
                    ceiling=float(positions),
                    variant=channel.variant,
                    axis=channel.axis,
                    extra={} if channel.variant else extra,
                )
            )
            curves += theory_curves(record, channel, "susceptibility", "", self.unit, 1.0, float(positions))
        return curves

    def _chi(self, record: Record, channel: Channel) -> FloatArray:
        changed = record[f"changed/{channel.name}"]  # (N, T, R, P)
        return np.stack([susceptibility(changed[:, level]) for level in range(changed.shape[1])], axis=1)


def peak(levels: FloatArray, chi: FloatArray) -> dict[str, Any]:
    """Where chi (N, T) is largest: ``at`` and ``value`` of the vertex of a parabola; None inside an end.

    The parabola goes through the neighbours of the maximum that lie more than `PEAK_SHARE` of the way up, so that
    noise on one of them moves it little.
    """
    known = np.isfinite(chi).all(axis=0)
    x, y = levels[known], chi[:, known].mean(axis=0)
    if len(x) < 3:
        return {"at": None, "value": None}
    best = int(np.argmax(y))
    high = y > 1 + PEAK_SHARE * (y[best] - 1)
    left, right = best, best
    while left > 0 and high[left - 1]:
        left -= 1
    while right < len(x) - 1 and high[right + 1]:
        right += 1
    left, right = max(min(left, best - 1), 0), min(max(right, best + 1), len(x) - 1)
    if left == best or right == best:
        return {"at": None, "value": None}
    bend, tilt, base = np.polyfit(x[left : right + 1] - x[best], y[left : right + 1], 2)
    vertex = -tilt / (2 * bend)
    return {"at": float(x[best] + vertex), "value": float(base + tilt * vertex / 2)}
