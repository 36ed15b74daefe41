"""Records become curves, one value per item and level."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from benchsuite.contracts.data import FloatArray
from benchsuite.contracts.records import ProtocolOptions, Record


@dataclass(frozen=True)
class Curve:
    """One quantity against log_snr for one factor, as one value per item so that statistics live in one place.

    `floor` and `ceiling` are the values that mean "not fixed at all" and "entirely fixed"; onsets are where the
    curve passes a fraction of the way between them (for information: 0 and H, never the curve's own maximum).
    """

    factor: str  #: "" if it is about no factor in particular
    log_snr: FloatArray  #: (T,), ascending
    per_item: FloatArray  #: (N, T); the curve is the mean over items
    items: tuple[str, ...]  #: (N,) ids; repeated ids are noise draws of one item and are resampled together
    unit: str
    floor: float = 0.0
    ceiling: float = 1.0
    variant: str = ""  #: "" is the published curve; a name marks a diagnostic beside it
    tap: str | None = None
    #: what the levels measure: "log_snr"; for variants also the name of a loss from 0 (nothing) to 1 (everything)
    axis: str = "log_snr"
    beside: str | None = None  #: variant in whose panel this curve is drawn, as a theory of it; None = its own
    flags: tuple[str, ...] = ()  #: warnings that belong to the number
    #: JSON-able facts for the row; "columns", {heading: number or {"value", "low", "high"}}, are put in a table,
    #: and "layers", the taps of its curves from shallow to deep, in a figure
    extra: Mapping[str, Any] = field(default_factory=dict)


class Metric(ABC):
    """Turns records into curves. It declares what it needs and sees nothing else."""

    name: ClassVar[str]
    version: ClassVar[str] = "1"  #: raise it when the same record would give another number
    paper: ClassVar[str] = ""
    unit: ClassVar[str]
    bounds: ClassVar[tuple[float, float]]  #: of the published value; infinities allowed
    needs: tuple[ProtocolOptions, ...]  #: stated by the class; options of the constructor may ask for more
    onset: ClassVar[bool] = True  #: log_snr_50 and width of the published curve are meaningful
    #: the signed integral of the curve's distance from the oracle's means something in itself (`unit` × log-SNR)
    excess: ClassVar[bool] = False
    per_factor: ClassVar[bool] = True  #: False: its curves are about the items as a whole, with factor ""
    tolerance: ClassVar[float] = 0.03  #: largest bias on exact models, in `unit`; `calibrate` holds it to that

    #: the curve tends to its truth from below and its interval is about the bound, not about the truth
    lower_bound: ClassVar[bool] = False

    @abstractmethod
    def compute(self, records: Mapping[str, Record]) -> list[Curve]:
        """Curves from {protocol name: record}; raise NotApplicableError with the reason if it cannot.

        Records are read-only. Randomness, if any, must come from `Record.meta["seed"]`.
        """

    def truth(self, posterior: FloatArray, prior: FloatArray) -> float | None:
        """What the published curve tends to on a perfect model, from the exact posterior at one level.

        Args:
            posterior: (N, K) rows p(factor | x) for x drawn from the model.
            prior: (K,) p(factor).

        Returns:
            The expected value in `unit`; None if the posterior does not determine it (then the metric cannot
            be calibrated this way).
        """
        return None
