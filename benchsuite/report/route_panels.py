"""Small panels on the log-SNR axis: all routes to one factor, and all factors by one route."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from benchsuite.boards import Line
from benchsuite.report.axes import rule, text, x_axis, y_axis
from benchsuite.report.markup import Markup, el, join
from benchsuite.report.route_curves import Data, FactorRoutes, RouteCurve, routes_of
from benchsuite.report.series import DASHES
from benchsuite.report.svg import Scale, band_path, dots_path, fixed, line_path, tick_text
from benchsuite.results import CurvePoints, Estimate

WIDTH, HEIGHT = 300, 226
LEFT, RIGHT, TOP, BOTTOM = 34, 292, 26, 188  #: edges of the plot in the view box
ROUTES, ORDERED = 7, 8  #: colours of routes (.c0 …) and, from early to late, of factors (.o0 …) in the style sheet
_BELOW, _ABOVE = 0.08, 1.15  #: what is in view, in units of H
_FEW = 24  #: curves with at most this many nodes show them

Span = tuple[float, float]


@dataclass(frozen=True)
class Stroke:
    """One curve of a panel."""

    name: str
    style: str  #: CSS classes
    curve: CurvePoints
    onset: Estimate | None = None
    ideal: Estimate | None = None  #: where the oracle has its onset


@dataclass(frozen=True)
class Small:
    """A panel: its title, the words at its right end, its curves (the first lies lowest) and the level of H."""

    title: str
    aside: str
    strokes: tuple[Stroke, ...]
    top: float  #: H in the unit of the curves
    half: bool  #: whether H/2 is drawn, with the onsets on it
    unit: str


def route_style(index: int) -> str:
    """Look of the n-th route of a data set."""
    return f"c{index % ROUTES} d{index % DASHES}"


def factor_styles(order: Sequence[str], others: Sequence[str]) -> dict[str, str]:
    """Looks of factors: the colours run from early to late along `order`; `others` have no place and are grey."""
    last = max(len(order) - 1, 1)
    spread = min(1.0, last / (ORDERED - 1))  # few factors need not be as far apart as red from violet
    found = {
        name: f"o{round(index / last * spread * (ORDERED - 1))} d{index % 2}" for index, name in enumerate(order)
    }
    rest = [name for name in others if name not in found]
    return found | {name: f"grey d{2 + index % 3}" for index, name in enumerate(rest)}


def routes_panel(found: FactorRoutes, routes: Mapping[str, str], title: str) -> Small:
    """Every route of one model to one factor over the grey ideal; `routes` = {metric: style}."""
    strokes = [Stroke("oracle", "ideal", found.ideal)] if found.ideal else []
    strokes += [Stroke(route.name, routes[route.metric], route.curve) for route in found.routes]
    return Small(title, "nats", tuple(strokes), found.entropy, False, "nats")


def overview_panel(data: Data, line: Line, styles: Mapping[str, str], aside: str) -> Small | None:
    """I/H of every factor by one model, each by the first route that it has; None if it has none."""
    strokes, used = [], []
    for board in data.boards:
        found = routes_of(board, line)
        if found:
            route = leading(found.routes)
            used.append(route.name)
            curve = _fraction(route.curve, found.entropy)
            ideal = found.ideal_onsets.get(route.metric)
            strokes.append(Stroke(board.factor, styles[board.factor], curve, route.onset, ideal))
    if not strokes:
        return None
    early_last = sorted(strokes, key=lambda s: s.onset.value if s.onset else math.inf, reverse=True)
    return Small(line.title, aside, tuple(early_last), 1.0, True, " and ".join(dict.fromkeys(used)))


def leading(routes: Sequence[RouteCurve]) -> RouteCurve:
    """The route that stands for a model: the first that is no lower bound, else the first."""
    return next((route for route in routes if not route.bound), routes[0])


def span_of(panels: Sequence[Small]) -> Span:
    """The log-SNR range that holds every curve, out to whole numbers."""
    curves = [stroke.curve for panel in panels for stroke in panel.strokes]
    low = math.floor(min(curve.log_snr[0] for curve in curves))
    high = math.ceil(max(curve.log_snr[-1] for curve in curves))
    return (low, max(high, low + 1))


def panel_body(panel: Small, span: Span, ident: str) -> Markup:
    """What is inside the view box ``0 0 WIDTH HEIGHT``; `ident` is unique in the file."""
    x, y = Scale(span, (LEFT, RIGHT)), Scale(_heights(panel.top), (BOTTOM, TOP))
    inside = {"x": LEFT, "y": TOP, "width": RIGHT - LEFT, "height": BOTTOM - TOP}
    of = "I / H" if panel.half else f"I in {panel.unit}"
    described = (
        f"{of} against log-SNR from {span[0]:g} (noise) to {span[1]:g} (clean): "
        f"{', '.join(stroke.name for stroke in panel.strokes)}. The numbers are in leaderboard.json."
    )
    bands = [_band(stroke, x, y) for stroke in panel.strokes if not panel.half]
    onsets = [_onset(stroke, panel, x, y) for stroke in panel.strokes if panel.half]
    drawn = [*bands, *(_line(stroke, x, y) for stroke in panel.strokes), *onsets]
    return join(
        [
            el("title", {"id": f"{ident}-t"}, panel.title),
            el("desc", {"id": f"{ident}-d"}, described),
            el("rect", {**inside, "class": "back"}),
            x_axis(x, TOP, BOTTOM, most=6),
            y_axis(y, LEFT, RIGHT, most=4),
            *_levels(panel, y),
            # an inner svg cuts off what leaves the plot; its view box keeps the coordinates of the outer one
            el("svg", {**inside, "viewBox": " ".join(map(str, inside.values()))}, *drawn),
            text(LEFT, TOP - 10, _cut(panel.title, 36 - len(panel.aside)), "start", "who"),
            text(RIGHT, TOP - 10, panel.aside, "end"),
            el("line", {"class": "cursor", "y1": TOP, "y2": BOTTOM, "x1": LEFT, "x2": LEFT}),
        ]
    )


def panel_attributes(panel: Small, span: Span, ident: str) -> dict[str, str]:
    """Attributes of the svg element around a body: what the script and a screen reader need."""
    low, high = _heights(panel.top)
    return {
        "viewBox": f"0 0 {WIDTH} {HEIGHT}",
        "role": "img",
        "aria-labelledby": f"{ident}-t {ident}-d",
        "data-x": f"{span[0]:g} {span[1]:g} {LEFT} {RIGHT}",
        "data-y": f"{low:.6g} {high:.6g} {BOTTOM} {TOP}",
    }


def _cut(said: str, most: int) -> str:
    """A title that would run into what stands right of it, cut off; the svg's own title has all of it."""
    return said if len(said) <= most else f"{said[: most - 1].rstrip()}…"


def _heights(top: float) -> Span:
    return (-_BELOW * top, _ABOVE * top)


def _fraction(curve: CurvePoints, entropy: float) -> CurvePoints:
    def share(values: Sequence[float]) -> tuple[float, ...]:
        return tuple(value / entropy for value in values)

    return replace(curve, value=share(curve.value), low=None, high=None, floor=0.0, ceiling=1.0)


def _levels(panel: Small, y: Scale) -> list[Markup]:
    said = "H" if panel.half else f"H = {tick_text(panel.top, 0.01)}"
    parts = [
        rule(LEFT, y(panel.top), RIGHT, y(panel.top), "level"),
        text(LEFT + 4, y(panel.top) - 4, said, "start", "note"),
    ]
    if panel.half:
        parts.append(rule(LEFT, y(panel.top / 2), RIGHT, y(panel.top / 2), "level half"))
    return parts


def _band(stroke: Stroke, x: Scale, y: Scale) -> Markup:
    curve = stroke.curve
    if not curve.low or not curve.high or stroke.style == "ideal":
        return join([])
    return el(
        "path", {"class": f"band {stroke.style}", "d": band_path(curve.log_snr, curve.low, curve.high, x, y)}
    )


def _line(stroke: Stroke, x: Scale, y: Scale) -> Markup:
    curve = stroke.curve
    path = line_path(curve.log_snr, curve.value, x, y)
    line = el("path", {"class": f"line {stroke.style}", "data-name": stroke.name, "d": path})
    if len(curve.log_snr) > _FEW or stroke.style == "ideal":
        return line
    dots = dots_path(curve.log_snr, curve.value, x, y)
    return join([line, el("path", {"class": f"node {stroke.style}", "d": dots})])


def _onset(stroke: Stroke, panel: Small, x: Scale, y: Scale) -> Markup:
    """A ring on H/2, and a tick where the oracle has its own."""
    half, parts = y(panel.top / 2), []
    if stroke.ideal:
        at = x(stroke.ideal.value)
        parts.append(rule(at, half - 9, at, half + 9, f"ideal-onset {stroke.style}"))
    if stroke.onset:
        ring: dict[str, str | int] = {"cx": fixed(x(stroke.onset.value)), "cy": fixed(half), "r": 4}
        said = f"{stroke.name}: log-SNR₅₀ = {tick_text(stroke.onset.value, 0.01)}"
        parts.append(el("circle", {"class": f"onset {stroke.style}", **ring}, el("title", None, said)))
    return join(parts)
