"""What metrics of the channel protocol share: its channels, and curves of a theory beside the measured ones."""

from __future__ import annotations

from dataclasses import dataclass, replace

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

    @property
    def unit(self) -> str:
        """What its levels are, in words."""
        return "log-SNR" if self.axis == CLOCK else self.axis

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


def expected(record: Record, channel: Channel, quantity: str) -> FloatArray | None:
    """What the model's theory expects of a quantity (S,), at its own finer levels; None if it says nothing."""
    return record.arrays.get(f"theory/{channel.name}/{quantity}")


def with_theory(measured: Curve, record: Record, channel: Channel, values: FloatArray | None) -> list[Curve]:
    """A measured curve and, if there are `values` (S,), the curve of the theory that is drawn beside it."""
    if values is None:
        return [measured]
    name = record.meta["theory"]["names"][channel.name]
    theory = replace(
        measured,
        log_snr=record[f"theory_levels/{channel.name}"],
        per_item=values[None],
        items=(name,),
        variant=" · ".join(filter(None, [measured.variant, name])),
        beside=measured.variant,
        flags=(),
        extra={},
    )
    return [measured, theory]
