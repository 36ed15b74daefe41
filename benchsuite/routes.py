"""Which curves are routes to one number, the information about a factor, and how to read each of them as that."""

from __future__ import annotations

import math

from benchsuite.contracts import Curve
from benchsuite.results import CurvePoints

#: what says about its values how they are to be read
Ranged = Curve | CurvePoints


def reads_information(curve: Ranged, entropy: float | None) -> bool:
    """Whether a curve estimates I(factor; x): in nats on the log-SNR clock, between 0 and H = `entropy`.

    A curve that rises from 0 to H is information as it stands; one that falls from H to 0 (the entropy left) is
    H minus it. A metric's diagnostics are no routes of their own.
    """
    if not entropy or curve.variant or curve.unit != "nats" or curve.axis != "log_snr":
        return False
    low, high = sorted((curve.floor, curve.ceiling))
    return abs(low) <= 0.02 * entropy and math.isclose(high, entropy, rel_tol=0.02)


def falls(curve: Ranged) -> bool:
    """Whether the curve falls while the factor becomes fixed."""
    return curve.floor > curve.ceiling


def route_name(metric: str, curve: Ranged) -> str:
    """What a route is called when it is read as information: "mutual-information", "H − fork-entropy"."""
    return f"H − {metric}" if falls(curve) else metric
