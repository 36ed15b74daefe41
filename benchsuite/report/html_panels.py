"""Figures of small panels on the page: their key, and a grid with a read-out for each panel."""

from __future__ import annotations

from benchsuite.report.markup import Markup, el
from benchsuite.report.small_panels import Figure, Span, panel_attributes, panel_body


def key(figure: Figure) -> Markup:
    """Which line is what."""
    box = {"class": "swatch", "viewBox": "0 0 32 14", "width": "32", "height": "14", "aria-hidden": "true"}
    entries = [
        el("span", None, el("svg", box, el("path", {"class": f"line {style}", "d": "M2 7H30"})), name)
        for name, style in figure.key
    ]
    return el("p", {"class": "key"}, *entries)


def grid(figure: Figure, span: Span, ident: str) -> Markup:
    """The panels on one axis; `ident` is unique on the page."""
    cells = []
    for index, panel in enumerate(figure.panels):
        own = f"{ident}{index}"
        attributes = {"class": "panel routes", "tabindex": "0", **panel_attributes(panel, span, own)}
        tip = el("div", {"class": "tip", "role": "status", "hidden": ""})
        cells.append(el("div", {"class": "cell"}, el("svg", attributes, panel_body(panel, span, own)), tip))
    return el("div", {"class": "panels"}, *cells)
