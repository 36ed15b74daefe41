"""All routes to the information about a factor, by model: what the figures of a data set draw."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from benchsuite.boards import Board, Line
from benchsuite.results import CurvePoints, Estimate
from benchsuite.routes import falls, reads_information, route_name


@dataclass(frozen=True)
class RouteCurve:
    """One route of one model, read as information in nats: 0 = nothing known, H = entirely fixed."""

    metric: str
    name: str  #: as it is read: "H − fork-entropy"
    curve: CurvePoints
    onset: Estimate | None
    bound: bool  #: a lower bound of the information


@dataclass(frozen=True)
class FactorRoutes:
    """What one model says about one factor by every route, beside the ideal of the same factor."""

    factor: str
    entropy: float  #: H, nats
    line: Line
    routes: tuple[RouteCurve, ...]
    ideal: CurvePoints | None  #: by the oracle's first route; None for oracles and where there is none
    ideal_onsets: Mapping[str, Estimate | None]  #: of the oracle, by metric


@dataclass(frozen=True)
class Data:
    """Everything about one data set that goes beyond one factor."""

    name: str
    boards: tuple[Board, ...]  #: one per factor
    lines: tuple[Line, ...]  #: one per (label, split), oracles first; of the first board that has it

    @property
    def factors(self) -> tuple[str, ...]:
        """Its factors, in the order of the document."""
        return tuple(board.factor for board in self.boards)


def data_sets(pivoted: Sequence[Board]) -> tuple[Data, ...]:
    """Group boards by data set; boards without a factor have no place in it."""
    found: dict[str, list[Board]] = {}
    for board in pivoted:
        if board.factor:
            found.setdefault(board.dataset, []).append(board)
    groups = []
    for name, boards in found.items():
        lines: dict[tuple[str, str], Line] = {}
        for line in (line for board in boards for line in board.lines):
            lines.setdefault((line.label, line.split), line)
        ordered = sorted(lines.values(), key=lambda line: not line.oracle)
        groups.append(Data(name, tuple(boards), tuple(ordered)))
    return tuple(groups)


def routes_of(board: Board, line: Line) -> FactorRoutes | None:
    """The routes of one line of a board, None if it has none; `line` may come from another board."""
    here = board.line(line.label, line.split)
    if here is None or board.entropy is None:
        return None
    routes = _curves(here, board.entropy)
    if not routes:
        return None
    reference = board.reference(here)
    ideal = _curves(reference, board.entropy) if reference else ()
    exact = next((route.curve for route in ideal if not route.bound), None)
    onsets = {route.metric: route.onset for route in ideal}
    return FactorRoutes(board.factor, board.entropy, here, routes, exact, onsets)


def as_information(curve: CurvePoints, entropy: float) -> CurvePoints:
    """A route read as information: as it is when it rises, H minus it when it falls."""
    if not falls(curve):
        return curve

    def turned(values: tuple[float, ...]) -> tuple[float, ...]:
        return tuple(entropy - value for value in values)

    low, high = (turned(end) if end else None for end in (curve.high, curve.low))
    return replace(curve, value=turned(curve.value), low=low, high=high, floor=0.0, ceiling=entropy)


def _curves(line: Line, entropy: float) -> tuple[RouteCurve, ...]:
    found = []
    for metric, row in line.rows.items():
        published = row.published if row.ok else None
        if published and reads_information(published, entropy):
            onset, read = row.scalars["log_snr_50"], as_information(published, entropy)
            found.append(RouteCurve(metric, route_name(metric, published), read, onset, row.lower_bound))
    return tuple(found)
