"""Level retention: how much of every level of a hierarchy is left behind each noise channel, and where it is lost.

Sclocchi, Favero & Wyart (arXiv:2402.16991) and Sclocchi, Favero, Levi & Wyart (arXiv:2410.13770): the class of
hierarchical data is lost at a threshold, ever more abruptly the deeper the hierarchy; tokens are lost gradually.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from benchsuite import Channels, Curve, Metric, Record
from benchsuite_metrics.channel_curves import Channel, channels_of, expected, with_theory

#: a smaller lead is none: where nothing is lost both factors are kept, and rounding would decide
NO_LEAD = 1e-6


class LevelRetention(Metric):
    """Probability that an exact posterior draw keeps a factor, on average over its places, by noise channel.

    The published curve is that of the Gaussian channel, against log-SNR. Variants are the other channels, such as
    ``masking`` (against the masked fraction) and ``epsilon``, whose onset is the threshold in the channel's own
    unit, half way between 1 / K and 1, and whose width goes from 10 % to 90 %; ``… · mean field`` is a theory of
    the model. On the first (most abstract) factor, ``… · class minus level-0`` is its lead over the last (most
    concrete) one: where it crosses 0 the order of the levels inverts.

    With ``channels.redraws`` > 1 it is an average over random models, such as the rules of a grammar, which is
    what theories are about; intervals are then over redraws. Thresholds of the theory, in the limit and at the
    model's own size, are in ``extra``.

    One-shot draws from the posterior equal the end of an ideal reverse process, so that ``class-retention`` by
    real reverse steps must agree with it, see the consistency check of that metric.
    """

    name = "level-retention"
    version = "1"
    paper = "arXiv:2402.16991"
    unit = "probability"
    bounds: ClassVar[tuple[float, float]] = (0.0, 1.0)
    needs = (Channels(),)
    tolerance = 0.01

    def compute(self, records: Mapping[str, Record]) -> list[Curve]:
        """One curve per factor and channel, and what theory expects of it."""
        record = records["channels"]
        found = channels_of(record)
        factors = list(record.meta["factors"])
        redraws = {"redraws": record.meta["redraws"]}
        theory = {"theory": record.meta["theory"]}  # said once, with the most abstract factor
        curves = []
        for channel in found:
            for factor in factors:
                floor = 1 / record.factor_size(factor)
                curve = Curve(
                    factor=factor,
                    log_snr=channel.levels,
                    per_item=record[f"kept/{channel.name}/{factor}"],
                    items=tuple(record["items"]),
                    unit=self.unit,
                    floor=floor,
                    variant=channel.variant,
                    axis=channel.axis,
                    extra={} if channel.variant else redraws | (theory if factor == factors[0] else {}),
                )
                curves += with_theory(curve, record, channel, expected(record, channel, f"kept/{factor}"))
            if len(factors) > 1:
                curves += self._lead(record, channel, factors[0], factors[-1])
        return curves

    def _lead(self, record: Record, channel: Channel, first: str, last: str) -> list[Curve]:
        """Retention of the first factor minus that of the last; its half-way point is 0."""
        ahead = Curve(
            factor=first,
            log_snr=channel.levels,
            per_item=record[f"kept/{channel.name}/{first}"] - record[f"kept/{channel.name}/{last}"],
            items=tuple(record["items"]),
            unit=self.unit,
            floor=-1.0,
            ceiling=1.0 + 2 * NO_LEAD,
            variant=channel.called(f"{first} minus {last}"),
            axis=channel.axis,
        )
        theory = [expected(record, channel, f"kept/{factor}") for factor in (first, last)]
        return with_theory(
            ahead, record, channel, None if theory[0] is None or theory[1] is None else theory[0] - theory[1]
        )
