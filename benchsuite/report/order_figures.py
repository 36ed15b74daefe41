"""All factors of a data set on one pair of axes, a panel per model: what is fixed before what, and how sharply.

Where models have routes to information it is I/H by the first of them. Else it is the metric that leads the orders
of emergence, such as the retention of every level of a hierarchy, read as the share of the way from its floor to
its ceiling. A metric that was measured under other kinds of noise has a figure for each of them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from benchsuite.boards import Board, Line, merged_names
from benchsuite.report.orders import orders_of, tau_text
from benchsuite.report.route_curves import Data, RouteCurve, routes_of
from benchsuite.report.small_panels import Figure, Small, Stroke, factor_styles
from benchsuite.results import CurvePoints, Emergence, Estimate, Results


@dataclass(frozen=True)
class Reading:
    """One factor by one model, from 0 (nothing is fixed) to 1 (entirely)."""

    says: str
    curve: CurvePoints
    onset: Estimate | None
    ideal: Estimate | None = None  #: onset of the oracle
    theory: CurvePoints | None = None  #: what is expected beside the curve


Read = Callable[[Board, Line], Reading | None]


def overview(results: Results, data: Data) -> Figure | None:
    """All factors against log-SNR, a panel per model, the oracle's first; None for a single factor."""
    if len(data.factors) < 2:
        return None
    entry = leading_entry(results, data)
    routes = {(line.label, line.split): _leading_route(data, line) for line in data.lines}
    read: Read
    if any(routes.values()):
        read, level = _information, "H"
    elif entry:
        read, level = _shares(entry.metric), "ceiling"
        routes = dict.fromkeys(routes, entry.metric)
    else:
        return None
    asides = {
        (found.label, found.split): f"τ {tau_text(found, '−')}"
        for metric, entries in orders_of(results, data.name).items()
        for found in entries
        if found.tau and routes.get((found.label, found.split)) == metric
    }
    return _figure(results, data, read, "Order of emergence at a glance", asides, level)


def channel_overviews(results: Results, data: Data) -> list[Figure]:
    """The same under every other kind of noise that the leading metric was measured under for several factors."""
    entry = leading_entry(results, data)
    if entry is None:
        return []
    factors: dict[str, set[str]] = {}
    for board in data.boards:
        for row in board.rows:
            for curve in row.curves if row.metric == entry.metric and row.ok else ():
                if not curve.clocked and curve.beside is None:
                    factors.setdefault(curve.variant, set()).add(board.factor)
    figures = (
        _figure(results, data, _shares(entry.metric, variant), f"Under {variant}", {}, "ceiling")
        for variant, found in factors.items()
        if len(found) > 1
    )
    return [figure for figure in figures if figure]


def leading_order(results: Results, data: Data) -> list[str]:
    """The factors along the orders others are read against: by the first route, the oracles' if there are any.

    Exact models that are their own data may differ in their factors: what only a later one has is put between.
    """
    first = leading_entry(results, data)
    if first is None:
        return []
    entries = [e for e in orders_of(results, data.name)[first.metric] if e is first or e.reference is None]
    merged = merged_names([[place.factor for place in entry.order] for entry in entries])
    return [name for name in merged if name in data.factors]


def leading_entry(results: Results, data: Data) -> Emergence | None:
    """The order that the others are read against."""
    entries = [entry for found in orders_of(results, data.name).values() for entry in found]
    return next((entry for entry in entries if entry.reference is None), entries[0] if entries else None)


# ------------------------------------------------------------------------------------------ drawing


def _figure(
    results: Results, data: Data, read: Read, title: str, asides: Mapping[tuple[str, str], str], level: str
) -> Figure | None:
    order = leading_order(results, data)
    styles = factor_styles(order, data.factors)
    panels = []
    for line in data.lines:
        found = {board.factor: reading for board in data.boards if (reading := read(board, line))}
        if found:
            aside = asides.get((line.label, line.split), "")
            panels.append(_panel(line, found, styles, aside, level))
    key = [(name, styles[name]) for name in dict.fromkeys([*order, *data.factors])]
    if any(stroke.theory for panel in panels for stroke in panel.strokes):
        key.append(("what a theory expects", "theory grey"))
    return Figure(title, tuple(key), tuple(panels)) if panels else None


def _panel(line: Line, found: Mapping[str, Reading], styles: Mapping[str, str], aside: str, level: str) -> Small:
    strokes = [
        Stroke(factor, styles[factor], read.curve, read.onset, read.ideal, read.theory)
        for factor, read in found.items()
    ]
    early_last = sorted(strokes, key=lambda s: s.onset.value if s.onset else math.inf, reverse=True)
    loss = "" if strokes[0].curve.clocked else strokes[0].curve.axis
    says = " and ".join(dict.fromkeys(read.says for read in found.values()))
    return Small(line.title, aside, tuple(early_last), 1.0, level, says, half=True, loss=loss)


# ------------------------------------------------------------------------------------------ reading


def _information(board: Board, line: Line) -> Reading | None:
    """I/H by the route that stands for the model."""
    found = routes_of(board, line)
    if found is None:
        return None
    route = _leading(found.routes)
    curve = _share(replace(route.curve, floor=0.0, ceiling=found.entropy))
    return Reading(f"I/H by {route.name}", curve, route.onset, found.ideal_onsets.get(route.metric))


def _shares(metric: str, variant: str = "") -> Read:
    """How to read one curve of a metric: the share of its way from floor to ceiling."""

    def read(board: Board, line: Line) -> Reading | None:
        own = board.line(line.label, line.split)
        row = own.rows.get(metric) if own else None
        curve = row.curve(variant) if row and row.ok else None
        if own is None or row is None or curve is None or curve.floor == curve.ceiling:
            return None
        reference = board.reference(own)
        ideal = reference.rows.get(metric) if reference else None
        stated = ideal.curve(variant) if ideal else None
        theory = row.theory(variant)
        return Reading(
            f"share of the way from floor to ceiling by {metric}",
            _share(curve),
            row.onset_of(curve),
            ideal.onset_of(stated) if ideal and stated else None,
            _share(theory) if theory else None,
        )

    return read


def _share(curve: CurvePoints) -> CurvePoints:
    way = curve.ceiling - curve.floor
    value = tuple((value - curve.floor) / way for value in curve.value)
    return replace(curve, value=value, low=None, high=None, floor=0.0, ceiling=1.0)


def _leading(routes: Sequence[RouteCurve]) -> RouteCurve:
    """The route that stands for a model: the first that is no lower bound, else the first."""
    return next((route for route in routes if not route.bound), routes[0])


def _leading_route(data: Data, line: Line) -> str | None:
    found = next((routes for board in data.boards if (routes := routes_of(board, line))), None)
    return _leading(found.routes).metric if found else None
