"""Curve panels: one quantity of every model against log-SNR (or a loss), as an SVG that needs no script."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from benchsuite.boards import Board, Line
from benchsuite.report.axes import levels, text, time_axis, x_axis, y_axis
from benchsuite.report.clocks import Clock
from benchsuite.report.markup import Markup, el, join
from benchsuite.report.series import Series
from benchsuite.report.svg import Scale, band_path, dots_path, fixed, line_path, tick_text
from benchsuite.results import CurvePoints, Estimate

WIDTH, HEIGHT = 400, 320
LEFT, RIGHT, TOP, BOTTOM = 36, 388, 44, 278  #: edges of the plot in the view box
_BELOW, _ABOVE = 0.25, 1.2  #: how far beyond floor and ceiling values are in view
_FEW = 24  #: curves with at most this many nodes show them
_DECADES = 30  #: values whose largest is more than this many times their smallest have a logarithmic axis

Domain = tuple[float, float]


@dataclass(frozen=True)
class Drawn:
    """One curve of one line, and the onset marked on it."""

    line: Line
    curve: CurvePoints
    onset: Estimate | None
    aims: bool = True  #: whether the way from floor to ceiling means something: its metric has onsets

    @property
    def theory(self) -> bool:
        """Whether it is an expectation beside a measured curve."""
        return self.curve.beside is not None


@dataclass(frozen=True)
class ValueAxis:
    """The range of values in view: decimal logarithms if it is logarithmic."""

    domain: Domain
    log: bool = False


@dataclass(frozen=True)
class Panel:
    """One quantity: a route and a variant of it ("" is the published curve)."""

    route: str
    variant: str
    drawn: tuple[Drawn, ...]

    @property
    def unit(self) -> str:
        """Unit of the values."""
        return self.drawn[0].curve.unit

    @property
    def axis(self) -> str:
        """What its curves are drawn against."""
        return self.drawn[0].curve.axis

    @property
    def loss(self) -> str:
        """Name of the axis if it is not log-SNR, else empty."""
        return "" if self.drawn[0].curve.clocked else self.axis


def panels_of(board: Board, published: bool) -> list[Panel]:
    """The panels of a board that have anything to draw: published curves, or the diagnostics beside them."""
    found: dict[tuple[str, str], list[Drawn]] = {}
    for route in board.routes:
        for line in board.lines:
            row = line.rows.get(route)
            for curve in row.curves if row and row.ok else ():
                panel = curve.variant if curve.beside is None else curve.beside
                if (panel == "") is published:
                    onset = row.onset_of(curve) if row else None
                    aims = bool(row and (row.scalars["log_snr_50"] or "log_snr_50" in row.scalar_notes))
                    found.setdefault((route, panel), []).append(Drawn(line, curve, onset, aims))
    # theories last: a panel is described by what was measured
    return [
        Panel(route, variant, tuple(sorted(drawn, key=lambda d: d.theory)))
        for (route, variant), drawn in found.items()
    ]


def x_domain(panels: Sequence[Panel]) -> Domain:
    """The range of the axis that holds every curve, out to whole numbers."""
    curves = [drawn.curve for panel in panels for drawn in panel.drawn]
    low = math.floor(min(curve.log_snr[0] for curve in curves))
    high = math.ceil(max(curve.log_snr[-1] for curve in curves))
    return (low, max(high, low + 1))


def y_domain(panels: Sequence[Panel]) -> Domain:
    """From the lowest to the highest thing drawn, with room above.

    Tails above the ceiling are in view up to `_ABOVE` times the way from floor to ceiling, values below the floor
    down to `_BELOW` of it; what lies beyond is said in the panel, so that one broken curve does not flatten all.
    A ceiling that means nothing to a metric is left out unless curves come near it.
    """
    curves = [drawn.curve for panel in panels for drawn in panel.drawn]
    levels = [level for curve in curves for level in (curve.floor, curve.ceiling)]
    if not any(drawn.aims for panel in panels for drawn in panel.drawn):
        finite = [value for curve in curves for value in curve.value if math.isfinite(value)]
        levels = [curve.floor for curve in curves] + [max(finite, default=1.0)]
    way = (max(levels) - min(levels)) or 1.0
    lowest, highest = min(levels) - _BELOW * way, max(levels) + _ABOVE * way
    values = [0.0, *levels]
    for curve in curves:
        drawn = (*curve.value, *(curve.low or ()), *(curve.high or ()))
        values += [min(max(value, lowest), highest) for value in drawn if math.isfinite(value)]
    low, high = min(values), max(values)
    span = (high - low) or 1.0
    return (low - (0.03 * span if low < 0 else 0), high + 0.09 * span)


def value_axis(panels: Sequence[Panel]) -> ValueAxis:
    """The axis of panels that share one: `y_domain`, or logarithmic where no metric has onsets and values spread.

    Intervals may add at most a decade at either end, so that one near 0 does not flatten all curves.
    """
    drawn = [drawn for panel in panels for drawn in panel.drawn]
    values = [value for one in drawn for value in one.curve.value if math.isfinite(value)]
    bounds = [end for one in drawn for end in (*(one.curve.low or ()), *(one.curve.high or ()))]
    ends = [*values, *(end for end in bounds if math.isfinite(end))]
    aims = any(one.aims for one in drawn)
    if aims or not values or min(ends) <= 0 or max(ends) <= _DECADES * min(ends):
        return ValueAxis(y_domain(panels))
    low, high = (math.log10(end) for end in (max(min(ends), min(values) / 10), min(max(ends), max(values) * 10)))
    room = 0.04 * (high - low)
    return ValueAxis((low - room, high + room), log=True)


def panel_svg(
    panel: Panel,
    axes: tuple[Domain, ValueAxis],
    clocks: Sequence[Clock],
    series: Mapping[tuple[str, str], Series],
    entropy: float | None,
    ident: str,
) -> Markup:
    """The panel on its `axes` (log-SNR, value); `ident` is unique on the page."""
    span, values = axes
    x, y = Scale(span, (LEFT, RIGHT)), Scale(values.domain, (BOTTOM, TOP))
    panel = _logarithms(panel) if values.log else panel
    first = panel.drawn[0].curve
    is_entropy = entropy is not None and math.isclose(max(first.floor, first.ceiling), entropy, rel_tol=1e-3)
    title = " · ".join(filter(None, [panel.route, panel.variant]))
    ends = ("nothing", "everything lost") if panel.loss else ("noise", "clean")
    described = (
        f"{title} in {panel.unit} against {panel.loss or 'log-SNR'} from {span[0]:g} ({ends[0]}) to "
        f"{span[1]:g} ({ends[1]}) for {', '.join(drawn.line.title for drawn in panel.drawn)}. "
        "The numbers are in the table and in leaderboard.json."
    )
    back = el(
        "rect",
        {"x": LEFT, "y": TOP, "width": RIGHT - LEFT, "height": BOTTOM - TOP, "class": "back"},
    )
    parts: list[Markup] = [
        el("title", {"id": f"{ident}-t"}, title),
        el("desc", {"id": f"{ident}-d"}, described),
        back,
        _above(panel, y, is_entropy),
        x_axis(x, TOP, BOTTOM, loss=panel.loss),
        y_axis(y, LEFT, RIGHT, log=values.log),
        *(
            time_axis(clock, x, TOP, f"axis clock k{index}{' first' if index == 0 else ''}")
            for index, clock in enumerate(clocks if not panel.loss else ())
        ),
        text(RIGHT, TOP - 24, panel.unit, "end", "name"),
    ]
    if panel.drawn[0].aims and _alike([drawn.curve for drawn in panel.drawn]):
        parts.append(levels(y, LEFT, RIGHT, first, is_entropy))
    measured = [drawn for drawn in panel.drawn if not drawn.theory]
    curves = [_band(drawn, x, y, series) for drawn in measured if drawn.curve.low and drawn.curve.high]
    curves += [_line(drawn, x, y, series) for drawn in panel.drawn]  # oracles lie under the models
    curves += [_onset(drawn, x, y, series) for drawn in measured if drawn.onset]
    # An inner svg cuts off what leaves the plot; its view box keeps the coordinates of the outer one.
    inside = {"x": LEFT, "y": TOP, "width": RIGHT - LEFT, "height": BOTTOM - TOP}
    parts.append(el("svg", {**inside, "viewBox": " ".join(map(str, inside.values()))}, *curves))
    parts += _beyond(panel, y)
    parts.append(el("line", {"class": "cursor", "y1": TOP, "y2": BOTTOM, "x1": LEFT, "x2": LEFT}))
    return el(
        "svg",
        {
            "class": "panel" if panel.variant == "" else "panel diagnostic",
            "viewBox": f"0 0 {WIDTH} {HEIGHT}",
            "role": "img",
            "tabindex": "0",
            "aria-labelledby": f"{ident}-t {ident}-d",
            "data-loss": panel.loss or None,
            "data-x": f"{span[0]:g} {span[1]:g} {LEFT} {RIGHT}",
            "data-y": f"{values.domain[0]:.6g} {values.domain[1]:.6g} {BOTTOM} {TOP}",
            "data-log": "" if values.log else None,
        },
        *parts,
    )


def _logarithms(panel: Panel) -> Panel:
    """The panel with the decimal logarithms of its values, which are positive; levels mean nothing on it."""

    def logs(values: Sequence[float] | None) -> tuple[float, ...] | None:
        return tuple(math.log10(v) if math.isfinite(v) else math.nan for v in values) if values else None

    curves = (
        replace(one.curve, value=logs(one.curve.value) or (), low=logs(one.curve.low), high=logs(one.curve.high))
        for one in panel.drawn
    )
    pairs = zip(panel.drawn, curves, strict=True)
    return replace(panel, drawn=tuple(replace(one, curve=curve) for one, curve in pairs))


def _above(panel: Panel, y: Scale, entropy: bool) -> Markup:
    """A tint over the values above the upper level, when a curve goes there: no perfect model can.

    A level that means nothing to the metrics is not said.
    """
    if not any(drawn.aims for drawn in panel.drawn):
        return join([])
    upper = max(max(drawn.curve.floor, drawn.curve.ceiling) for drawn in panel.drawn)
    tops = [value for drawn in panel.drawn for value in drawn.curve.value if math.isfinite(value)]
    if max(tops, default=upper) <= upper + 0.01 * abs(upper):
        return join([])
    said = "above H" if entropy else "above the upper level"
    area: dict[str, str | int] = {
        "x": LEFT,
        "y": TOP,
        "width": RIGHT - LEFT,
        "height": fixed(y(upper) - TOP),
        "class": "above",
    }
    return join([el("rect", area), text((LEFT + RIGHT) / 2, TOP + 13, said, "middle", "note warn")])


def _alike(curves: Sequence[CurvePoints]) -> bool:
    """Whether one set of level lines serves all curves (floors differ a little with the items measured)."""
    way = abs(curves[0].ceiling - curves[0].floor)
    floors, ceilings = [curve.floor for curve in curves], [curve.ceiling for curve in curves]
    return max(max(floors) - min(floors), max(ceilings) - min(ceilings)) < 0.02 * way


def _beyond(panel: Panel, y: Scale) -> list[Markup]:
    """One note per curve that leaves the plot, with how far it goes."""
    low, high = y.domain
    said = []
    for drawn in panel.drawn:
        finite = [value for value in drawn.curve.value if math.isfinite(value)]
        if finite and min(finite) < low:
            said.append(f"▼ {drawn.line.title}: down to {tick_text(min(finite), 0.1)}")
        if finite and max(finite) > high:
            said.append(f"▲ {drawn.line.title}: up to {tick_text(max(finite), 0.1)}")
    return [text(RIGHT - 5, BOTTOM - 8 - 13 * row, note, "end", "note warn") for row, note in enumerate(said)]


def _series(drawn: Drawn, series: Mapping[tuple[str, str], Series]) -> Series:
    return series[drawn.line.label, drawn.line.split]


def _band(drawn: Drawn, x: Scale, y: Scale, series: Mapping[tuple[str, str], Series]) -> Markup:
    curve = drawn.curve
    path = band_path(curve.log_snr, curve.low or (), curve.high or (), x, y)
    return el("path", {"class": f"band {_series(drawn, series).classes}", "d": path})


def _line(drawn: Drawn, x: Scale, y: Scale, series: Mapping[tuple[str, str], Series]) -> Markup:
    curve, classes = drawn.curve, _series(drawn, series).classes
    path = line_path(curve.log_snr, curve.value, x, y)
    name = f"{drawn.line.title}, {curve.variant}" if drawn.theory else drawn.line.title
    shape = "line theory" if drawn.theory else "line"
    line = el("path", {"class": f"{shape} {classes}", "data-name": name, "d": path})
    if drawn.theory or len(curve.log_snr) > _FEW:
        return line
    dots = dots_path(curve.log_snr, curve.value, x, y)
    return join([line, el("path", {"class": f"node {classes}", "d": dots})])


def _onset(drawn: Drawn, x: Scale, y: Scale, series: Mapping[tuple[str, str], Series]) -> Markup:
    """The published log_snr_50, on the level that defines it."""
    assert drawn.onset is not None
    at: dict[str, str | int] = {"cx": fixed(x(drawn.onset.value)), "cy": fixed(y(drawn.curve.half)), "r": 4}
    what = "log-SNR₅₀" if drawn.curve.clocked else f"{drawn.curve.axis} at half"
    said = f"{drawn.line.title}: {what} = {drawn.onset.value:.{2 if drawn.curve.clocked else 3}f}"
    return el("circle", {"class": f"onset {_series(drawn, series).classes}", **at}, el("title", None, said))
