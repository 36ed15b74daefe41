"""What metrics of the channel protocol share: its channels, and curves of a theory beside the measured ones."""

from __future__ import annotations

from dataclasses import dataclass

from benchsuite import Curve, NotApplicableError, Record
from benchsuite.contracts import FloatArray

#: the axis of published curves, and of all other protocols
CLOCK = "log_snr"


@dataclass(frozen=True)
class Channel:
    """One channel of a record, and the variant that its curves are called: "" on the common clock."""

    name: str
    axis: str
    levels: FloatArray  #: (T,)
    variant: str

    def called(self, what: str) -> str:
        """Name of another variant of this channel."""
        return " · ".join(filter(None, [self.variant, what]))


def channels_of(record: Record) -> list[Channel]:
    """The channels of a record, the one on the log-SNR clock first.

    Raises:
        NotApplicableError: there is none on that clock.
    """
    found = []
    for facts in record.meta["channels"]:
        name, axis = facts["name"], facts["axis"]
        found.append(Channel(name, axis, record[f"levels/{name}"], "" if axis == CLOCK else name))
    if sum(channel.axis == CLOCK for channel in found) != 1:
        raise NotApplicableError("the model has no Gaussian channel, whose curve would be the published one")
    return sorted(found, key=lambda channel: channel.axis != CLOCK)


def theory_curves(
    record: Record, channel: Channel, quantity: str, factor: str, unit: str, floor: float, ceiling: float
) -> list[Curve]:
    """The curve that the model's theory expects, drawn beside the measured one; none if there is none."""
    key = f"theory/{channel.name}/{quantity}"
    if key not in record.arrays:
        return []
    name = record.meta["theory"]["name"]
    return [
        Curve(
            factor=factor,
            log_snr=record[f"theory_levels/{channel.name}"],
            per_item=record[key][None],
            items=(name,),
            unit=unit,
            floor=floor,
            ceiling=ceiling,
            variant=channel.called(name),
            axis=channel.axis,
            beside=channel.variant,
        )
    ]
