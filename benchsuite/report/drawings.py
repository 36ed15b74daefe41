"""Drawings that a metric or a model attaches to its rows as data; the page makes the pictures.

Every entry of a row's ``extra`` whose key starts with "drawing" is one::

    {"title": str, "panels": [{"title": str, "x": axis, "y": axis, "square": bool, "layers": [layer, …]}, …]}

An axis is {"name": str, "low": number, "high": number, "log": bool}; it and all its keys may be left out, the ends
are then those of what is drawn. A layer is {"kind": "line" or "dots", "name": str, "style": one of `STYLES`,
"x": [number or null, …], "y": […]} with lists of one length; null breaks a line. In a "square" panel the two axes
are equally long. What is not of this form is not drawn.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from benchsuite.boards import Board
from benchsuite.report.axes import level, text, ticks, upright
from benchsuite.report.markup import Markup, el
from benchsuite.report.svg import Scale, dots_path, line_path

STYLES = ("ink", "grey", "c0", "c1", "c2", "c3")
WIDTH, LEFT, RIGHT, TOP, BOTTOM = 300, 44, 292, 8, 190  #: of a panel and its plot, in pixels of the view box


@dataclass(frozen=True)
class Axis:
    """One axis; logarithmic ones hold decimal logarithms."""

    name: str
    low: float | None
    high: float | None
    log: bool


@dataclass(frozen=True)
class Layer:
    """A line, or dots, in the coordinates of its axes; NaN where there is nothing."""

    kind: str
    name: str
    style: str
    x: tuple[float, ...]
    y: tuple[float, ...]


def drawings(board: Board) -> Markup | None:
    """The drawings of a board's rows, folded away one by one; None if there are none."""
    folded = []
    for line in board.lines:
        for route, row in line.rows.items():
            for data in (value for key, value in row.extra.items() if row.ok and key.startswith("drawing")):
                if isinstance(data, Mapping) and (drawn := drawing(data)):
                    summary = el("summary", None, f"{line.title} · {route} · {_said(data, 'title')}")
                    folded.append(el("details", None, summary, drawn))
    return el("figure", {"class": "drawings"}, el("h3", None, "Drawings"), *folded) if folded else None


def drawing(data: Mapping[str, Any]) -> Markup | None:
    """Key and panels of one drawing; None if it holds nothing that can be drawn."""
    cells: list[Markup] = []
    names: dict[tuple[str, str, str], None] = {}
    panels = data.get("panels")
    for panel in panels if isinstance(panels, list) else ():
        if not isinstance(panel, Mapping):
            continue
        x, y = _axis(panel.get("x")), _axis(panel.get("y"))
        layers = list(_layers(panel.get("layers"), x, y))
        if layers:
            names |= dict.fromkeys((layer.name, layer.kind, layer.style) for layer in layers)
            title = _said(panel, "title")
            svg = _panel(layers, x, y, panel.get("square") is True, title)
            cells.append(el("div", {"class": "cell"}, el("h4", None, title), svg))
    if not cells:
        return None
    key = [el("span", None, _swatch(kind, style), name) for name, kind, style in names]
    return el("div", None, el("p", {"class": "key"}, *key), el("div", {"class": "panels"}, *cells))


# ------------------------------------------------------------------------------------------ drawing


def _panel(layers: Sequence[Layer], x_axis: Axis, y_axis: Axis, square: bool, title: str) -> Markup:
    bottom = TOP + RIGHT - LEFT if square else BOTTOM
    x = Scale(_domain(x_axis, [v for layer in layers for v in layer.x]), (LEFT, RIGHT))
    y = Scale(_domain(y_axis, [v for layer in layers for v in layer.y]), (bottom, TOP))
    below, beside = list(ticks(x, x_axis.log)), list(ticks(y, y_axis.log))
    grid = [upright([at for at, _ in below], TOP, bottom, "grid")]
    grid += [text(at, bottom + 14, said, None) for at, said in below]
    grid += [level([at for at, _ in beside], LEFT, RIGHT, "grid")]
    grid += [text(LEFT - 5, at + 4, said, "end") for at, said in beside]
    inside = {"x": LEFT, "y": TOP, "width": RIGHT - LEFT, "height": bottom - TOP}
    view = " ".join(map(str, inside.values()))  # an inner svg cuts off what leaves the plot
    return el(
        "svg",
        {"class": "panel", "viewBox": f"0 0 {WIDTH} {bottom + 34}", "role": "img", "aria-label": title},
        el("rect", {**inside, "class": "back"}),
        el("g", {"class": "axis", "text-anchor": "middle"}, *grid),
        text((LEFT + RIGHT) / 2, bottom + 29, x_axis.name, style="name") if x_axis.name else None,
        el("svg", {**inside, "viewBox": view}, *(_draw(layer, x, y) for layer in layers)),
    )


def _draw(layer: Layer, x: Scale, y: Scale) -> Markup:
    style = {"class": f"{'line' if layer.kind == 'line' else 'dots'} {layer.style}"}
    if layer.kind == "line":
        return el("path", {**style, "d": line_path(layer.x, layer.y, x, y)})
    return el("path", {**style, "d": dots_path(layer.x, layer.y, x, y)})


def _swatch(kind: str, style: str) -> Markup:
    size = {"class": "swatch", "viewBox": "0 0 32 14", "width": "32", "height": "14", "aria-hidden": "true"}
    mark = (
        {"class": f"line {style}", "d": "M2 7H30"}
        if kind == "line"
        else {"class": f"dots {style}", "d": "M16 7h0"}
    )
    return el("svg", size, el("path", mark))


# ------------------------------------------------------------------------------------------ reading


def _domain(axis: Axis, values: Sequence[float]) -> tuple[float, float]:
    """The stated ends, else those of the values with a little room."""
    finite = [value for value in values if math.isfinite(value)]
    low, high = min(finite), max(finite)
    room = 0.04 * (high - low)
    low = low - room if axis.low is None else axis.low
    high = high + room if axis.high is None else axis.high
    return (low, high) if high > low else (low - 0.5, low + 0.5)


def _axis(data: Any) -> Axis:
    if not isinstance(data, Mapping):
        return Axis("", None, None, False)
    log = data.get("log") is True
    ends = (_number(data.get(key), log) for key in ("low", "high"))
    low, high = (end if math.isfinite(end) else None for end in ends)
    return Axis(_said(data, "name"), low, high, log)


def _layers(data: Any, x: Axis, y: Axis) -> Iterator[Layer]:
    """The layers that can be drawn."""
    for layer in data if isinstance(data, list) else ():
        if not isinstance(layer, Mapping) or layer.get("kind") not in ("line", "dots"):
            continue
        xs, ys = layer.get("x"), layer.get("y")
        if not (isinstance(xs, list) and isinstance(ys, list) and len(xs) == len(ys)):
            continue
        columns = tuple(_number(v, x.log) for v in xs), tuple(_number(v, y.log) for v in ys)
        if any(math.isfinite(a + b) for a, b in zip(*columns, strict=True)):
            style = layer.get("style")
            known = style if style in STYLES else "ink"
            yield Layer(str(layer["kind"]), _said(layer, "name"), str(known), *columns)


def _number(value: Any, log: bool) -> float:
    """A number, or its decimal logarithm; NaN if it is none, or not finite or positive where it must be."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return math.nan
    if not log:
        return float(value)
    return math.log10(value) if value > 0 else math.nan


def _said(data: Mapping[str, Any], key: str) -> str:
    value = data.get(key, "")
    return value if isinstance(value, str) else ""
