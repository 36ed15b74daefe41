"""Figures of small panels on the page: their key, and a grid with a read-out for each panel."""

from __future__ import annotations

from benchsuite.report.markup import Markup, el
from benchsuite.report.small_panels import Figure, Span, panel_attributes, panel_body


def key(figure: Figure) -> Markup:
    """Which line is what."""
    entries = [
        el("span", None, swatch(el("path", {"class": f"line {style}", "d": "M2 7H30"}), 32), name)
        for name, style in figure.key
    ]
    return el("p", {"class": "key"}, *entries)


def swatch(drawing: Markup, width: int) -> Markup:
    """A sample of a line or mark, `width` pixels wide."""
    size = {"width": str(width), "height": "14"}
    box = {"class": "swatch", "viewBox": f"0 0 {width} 14", **size, "aria-hidden": "true"}
    return el("svg", box, drawing)


def framed(figure: Figure, span: Span, ident: str, caption: str) -> Markup:
    """The whole figure: title, key, panels on the axis `span`, caption."""
    return el(
        "figure",
        {"class": "small"},
        el("h3", None, figure.title),
        key(figure),
        grid(figure, span, ident),
        el("figcaption", None, caption),
    )


def grid(figure: Figure, span: Span, ident: str) -> Markup:
    """The panels on one axis; `ident` is unique on the page."""
    cells = []
    for index, panel in enumerate(figure.panels):
        own = f"{ident}{index}"
        attributes = {"class": "panel routes", "tabindex": "0", **panel_attributes(panel, span, own)}
        tip = el("div", {"class": "tip", "role": "status", "hidden": ""})
        cells.append(el("div", {"class": "cell"}, el("svg", attributes, panel_body(panel, span, own)), tip))
    return el("div", {"class": "panels"}, *cells)
