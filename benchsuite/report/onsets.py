"""The onset chart: when each model fixes a factor, by every route, with the model's own clock under its row."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from benchsuite.boards import Board, Line
from benchsuite.report import words
from benchsuite.report.axes import rule, text, x_axis
from benchsuite.report.clocks import Clock, clock_of
from benchsuite.report.markup import Markup, el, join
from benchsuite.report.series import Series
from benchsuite.report.svg import Scale, fixed, nice_step, nice_ticks, tick_text
from benchsuite.results import Estimate

LANE, RULER, PAD = 13, 26, 12  #: heights of a route's lane, of a clock, and around a row
TOP = 12


@dataclass(frozen=True)
class Layout:
    """Where things are in the view box; the page shows the one that suits its width."""

    name: str
    width: int
    left: int  #: edges of the plot
    right: int
    ticks: int  #: at most, on either axis
    heading: int  #: height of the line above a row that has its name; 0 = the name stands left of the plot


WIDE = Layout("wide", 1000, left=190, right=984, ticks=10, heading=0)
NARROW = Layout("narrow", 480, left=30, right=470, ticks=6, heading=20)

#: One mark per route; SVG path data centred on the origin.
MARKS = (
    "M-4.5 0A4.5 4.5 0 1 0 4.5 0A4.5 4.5 0 1 0 -4.5 0Z",  # disc
    "M-4 -4H4V4H-4Z",  # square
    "M0 -5.2L4.8 3.6H-4.8Z",  # triangle
    "M0 -5.4L5.4 0L0 5.4L-5.4 0Z",  # diamond
    "M-4.8 -3.6H4.8L0 5.2Z",  # triangle, point down
    "M-1.6 -5H1.6V-1.6H5V1.6H1.6V5H-1.6V1.6H-5V-1.6H-1.6Z",  # plus
)


def onset_chart(
    board: Board, series: Mapping[tuple[str, str], Series], layout: Layout, ident: str
) -> Markup | None:
    """The chart as SVG, or None when no line has an onset. `ident` is unique on the page."""
    lines = [line for line in board.lines if _onsets(line)]
    if not lines:
        return None
    heights = [_height(line, board.routes, layout) for line in lines]
    bottom = TOP + sum(heights)
    x = Scale(onset_domain(lines), (layout.left, layout.right))
    parts = [
        el("title", {"id": f"{ident}-t"}, words.when(board)),
        el("desc", {"id": f"{ident}-d"}, _described(lines)),
        x_axis(x, TOP, bottom, layout.ticks),
    ]
    top = TOP
    for line, height in zip(lines, heights, strict=True):
        parts.append(_row(line, board, x, top, series[line.label, line.split], layout))
        top += height
        if line is not lines[-1]:
            parts.append(rule(0, top, layout.right, top, "divider"))
    box = {"class": f"onsets {layout.name}", "viewBox": f"0 0 {layout.width} {bottom + 40}", "role": "img"}
    return el("svg", {**box, "aria-labelledby": f"{ident}-t {ident}-d"}, *parts)


def onset_domain(lines: Sequence[Line]) -> tuple[float, float]:
    """The log-SNR range of all onsets and their intervals, with room, at least 3 wide."""
    ends = [
        end
        for line in lines
        for _, onset in _onsets(line)
        for end in (onset.value, onset.low, onset.high)
        if end is not None
    ]
    low, high = min(ends), max(ends)
    room = max(0.12 * (high - low), (3 - (high - low)) / 2)
    return (low - room, high + room)


def mark(route_index: int, x: float, y: float, classes: str, said: str | None = None) -> Markup:
    """The mark of a route at a point; `said` is its tooltip."""
    place = {"d": MARKS[route_index % len(MARKS)], "transform": f"translate({fixed(x)} {fixed(y)})"}
    return el("path", {**place, "class": classes}, el("title", None, said) if said else None)


def _onsets(line: Line) -> list[tuple[str, Estimate]]:
    found = [(route, row.scalars["log_snr_50"]) for route, row in line.rows.items() if row.ok]
    return [(route, onset) for route, onset in found if onset]


def _clock(line: Line) -> Clock | None:
    return clock_of(line.label, list(line.rows.values()))


def _height(line: Line, routes: Sequence[str], layout: Layout) -> int:
    return layout.heading + 2 * PAD + _lanes(routes) + (RULER if _clock(line) else 0)


def _lanes(routes: Sequence[str]) -> int:
    """Height of the lanes; of at least two, because the name beside them has two lines."""
    return LANE * max(2, len(routes))


def _row(line: Line, board: Board, x: Scale, top: float, series: Series, layout: Layout) -> Markup:
    routes, reference = board.routes, board.reference(line)
    ideal = dict(_onsets(reference)) if reference else {}
    said = line.title.removeprefix(line.label).lstrip(" ·")
    if not said:
        place = "oracle" if line.oracle else f"rank {line.place}" if line.place else "no rank"
        said = " · ".join(filter(None, [place, line.any_row.space]))
    if layout.heading:
        parts = [text(0, top + 20, line.label, "start", "who"), text(layout.right, top + 20, said, "end")]
    else:
        middle = top + PAD + min(_lanes(routes) / 2, _lanes(routes) - 19)  # both lines end above the clock
        parts = [text(0, middle + 1, line.label, "start", "who"), text(0, middle + 16, said, "start")]
    top += layout.heading + PAD
    for route, onset in _onsets(line):
        index = routes.index(route)
        y = top + (_lanes(routes) - LANE * len(routes)) / 2 + LANE * (index + 0.5)
        if route in ideal:  # the gap to the oracle, as a distance
            parts.append(rule(x(ideal[route].value), y, x(onset.value), y, "gap"))
            parts.append(
                mark(index, x(ideal[route].value), y, "ghost", f"oracle, {route}: {ideal[route].value:.2f}")
            )
        if onset.low is not None and onset.high is not None:
            parts.append(rule(x(onset.low), y, x(onset.high), y, f"whisker {series.style}"))
        parts.append(mark(index, x(onset.value), y, f"mark {series.style}", f"{route}: {onset.value:.2f}"))
    clock = _clock(line)
    if clock:
        parts.append(_ruler(clock, x, top + _lanes(routes) + 8, layout.ticks))
    return el("g", {"class": f"series {series.key}"}, *parts)


def _ruler(clock: Clock, x: Scale, y: float, most: int) -> Markup:
    """The model's native clock along the log-SNR axis."""
    low, high = max(x.domain[0], clock.log_snr[0]), min(x.domain[1], clock.log_snr[-1])
    latest, earliest = clock.at(low), clock.at(high)
    if low >= high or latest is None or earliest is None or latest <= earliest:
        return join([])
    step = nice_step(latest - earliest, most)
    parts = [rule(x(low), y, x(high), y, "ruler"), text(x.pixels[0] - 8, y + 4, "t/T", "end")]
    for time in nice_ticks(earliest, latest, most):
        place = clock.place(time)
        if place is not None:
            parts.append(rule(x(place), y, x(place), y + 5, "ruler"))
            parts.append(text(x(place), y + 16, tick_text(time, step)))
    return el("g", {"class": "axis"}, *parts)


def _described(lines: Sequence[Line]) -> str:
    said = (f"{line.title} {', '.join(f'{e.value:.2f} by {r}' for r, e in _onsets(line))}" for line in lines)
    return f"Log-SNR at which half is fixed: {'; '.join(said)}."
