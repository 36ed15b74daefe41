"""Small panels of several curves of one model: all routes to one factor, all factors by one route, all layers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from benchsuite.report.axes import rule, text, x_axis, y_axis
from benchsuite.report.markup import Markup, el, join
from benchsuite.report.series import DASHES
from benchsuite.report.svg import Scale, band_path, dots_path, fixed, line_path, tick_text
from benchsuite.results import CurvePoints, Estimate

WIDTH, HEIGHT = 300, 226
LEFT, RIGHT, TOP, BOTTOM = 34, 292, 26, 188  #: edges of the plot in the view box
ROUTES, ORDERED = 7, 8  #: colours of routes (.c0 …) and, from early to late, of factors (.o0 …) in the style sheet
_BELOW, _ABOVE = 0.08, 1.15  #: what is in view, in units of the upper level
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
    theory: CurvePoints | None = None  #: what is expected of it


@dataclass(frozen=True)
class Small:
    """A panel: its title, the words at its right end, its curves (the first lies lowest) and its upper level."""

    title: str
    aside: str
    strokes: tuple[Stroke, ...]
    top: float  #: the upper level in the unit of the curves
    level: str  #: and what it is called
    says: str  #: what the values are, in words
    half: bool = False  #: whether half of it is drawn, with the onsets on it; intervals then are not
    loss: str = ""  #: name of the axis if it is not log-SNR
    note: str = ""  #: words in the corner where curves that rise leave room


@dataclass(frozen=True)
class Figure:
    """Panels under one title with one key."""

    title: str
    key: tuple[tuple[str, str], ...]  #: (name, CSS classes of its line)
    panels: tuple[Small, ...]

    @property
    def says(self) -> str:
        """What the values are, in words."""
        return " or ".join(dict.fromkeys(panel.says for panel in self.panels))


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


def span_of(panels: Sequence[Small]) -> Span:
    """The range of the axis that holds every curve, out to whole numbers."""
    curves = [stroke.curve for panel in panels for stroke in panel.strokes]
    low = math.floor(min(curve.log_snr[0] for curve in curves))
    high = math.ceil(max(curve.log_snr[-1] for curve in curves))
    return (low, max(high, low + 1))


def panel_body(panel: Small, span: Span, ident: str) -> Markup:
    """What is inside the view box ``0 0 WIDTH HEIGHT``; `ident` is unique in the file."""
    x, y = Scale(span, (LEFT, RIGHT)), Scale(_heights(panel.top), (BOTTOM, TOP))
    inside = {"x": LEFT, "y": TOP, "width": RIGHT - LEFT, "height": BOTTOM - TOP}
    axis, ends = (panel.loss, ("nothing", "everything lost")) if panel.loss else ("log-SNR", ("noise", "clean"))
    described = (
        f"{panel.says} against {axis} from {span[0]:g} ({ends[0]}) to {span[1]:g} ({ends[1]}): "
        f"{', '.join(stroke.name for stroke in panel.strokes)}. The numbers are in leaderboard.json."
    )
    bands = [_band(stroke, x, y) for stroke in panel.strokes if not panel.half]
    onsets = [_onset(stroke, panel, x, y) for stroke in panel.strokes if panel.half]
    theories = [_theory(stroke, x, y) for stroke in panel.strokes if stroke.theory]
    drawn = [*bands, *theories, *(_line(stroke, x, y) for stroke in panel.strokes), *onsets]
    return join(
        [
            el("title", {"id": f"{ident}-t"}, panel.title),
            el("desc", {"id": f"{ident}-d"}, described),
            el("rect", {**inside, "class": "back"}),
            x_axis(x, TOP, BOTTOM, most=6, loss=panel.loss),
            y_axis(y, LEFT, RIGHT, most=4),
            *_levels(panel, y),
            # an inner svg cuts off what leaves the plot; its view box keeps the coordinates of the outer one
            el("svg", {**inside, "viewBox": " ".join(map(str, inside.values()))}, *drawn),
            text(LEFT, TOP - 10, _cut(panel.title, 36 - len(panel.aside)), "start", "who"),
            text(RIGHT, TOP - 10, panel.aside, "end"),
            text(RIGHT - 4, BOTTOM - 6, panel.note, "end", "note") if panel.note else None,
            el("line", {"class": "cursor", "y1": TOP, "y2": BOTTOM, "x1": LEFT, "x2": LEFT}),
        ]
    )


def panel_attributes(panel: Small, span: Span, ident: str) -> dict[str, str | None]:
    """Attributes of the svg element around a body: what the script and a screen reader need."""
    low, high = _heights(panel.top)
    return {
        "viewBox": f"0 0 {WIDTH} {HEIGHT}",
        "role": "img",
        "aria-labelledby": f"{ident}-t {ident}-d",
        "data-loss": panel.loss or None,
        "data-x": f"{span[0]:g} {span[1]:g} {LEFT} {RIGHT}",
        "data-y": f"{low:.6g} {high:.6g} {BOTTOM} {TOP}",
    }


def _cut(said: str, most: int) -> str:
    """A title that would run into what stands right of it, cut off; the svg's own title has all of it."""
    return said if len(said) <= most else f"{said[: most - 1].rstrip()}…"


def _heights(top: float) -> Span:
    return (-_BELOW * top, _ABOVE * top)


def _levels(panel: Small, y: Scale) -> list[Markup]:
    parts = [
        rule(LEFT, y(panel.top), RIGHT, y(panel.top), "level"),
        text(LEFT + 4, y(panel.top) - 4, panel.level, "start", "note"),
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


def _theory(stroke: Stroke, x: Scale, y: Scale) -> Markup:
    assert stroke.theory is not None
    path = line_path(stroke.theory.log_snr, stroke.theory.value, x, y)
    colour = stroke.style.split()[0]  # its dashes are a theory's
    return el("path", {"class": f"line theory {colour}", "data-name": f"{stroke.name}, theory", "d": path})


def _onset(stroke: Stroke, panel: Small, x: Scale, y: Scale) -> Markup:
    """A ring on H/2, and a tick where the oracle has its own."""
    half, parts = y(panel.top / 2), []
    if stroke.ideal:
        at = x(stroke.ideal.value)
        parts.append(rule(at, half - 9, at, half + 9, f"ideal-onset {stroke.style}"))
    if stroke.onset:
        ring: dict[str, str | int] = {"cx": fixed(x(stroke.onset.value)), "cy": fixed(half), "r": 4}
        what, step = (f"{panel.loss} at half", 0.001) if panel.loss else ("log-SNR₅₀", 0.01)
        said = f"{stroke.name}: {what} = {tick_text(stroke.onset.value, step)}"
        parts.append(el("circle", {"class": f"onset {stroke.style}", **ring}, el("title", None, said)))
    return join(parts)
