"""The figures of every data set as stand-alone SVG files, for papers: light, without a script or CSS variables."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from importlib.resources import files

from benchsuite.boards import boards
from benchsuite.report.axes import text
from benchsuite.report.layer_figures import layer_figures
from benchsuite.report.markup import Markup, el, raw
from benchsuite.report.order_figures import channel_overviews, overview
from benchsuite.report.route_curves import data_sets
from benchsuite.report.route_figures import routes_figures
from benchsuite.report.small_panels import HEIGHT, WIDTH, Figure, Span, panel_attributes, panel_body, span_of
from benchsuite.results import Results

COLUMNS = 4
PAD, TITLE, KEY_LINE, GAP = 12, 34, 20, 14  #: margins and heights in the figure's own pixels
_PER_LETTER = 6.4  #: width of an average letter of the key, with some room


def figure_files(results: Results) -> dict[str, str]:
    """{file name: SVG document}: of a data set the overviews of its factors, all routes by model, and layers."""
    found: dict[str, str] = {}
    pivoted = boards(results)

    def add(where: str, name: str, figure: Figure, span: Span, title: str = "") -> None:
        found[_file_name(f"{where} {name}", found)] = _sheet(title or f"{where}: {name}", figure, span)

    for data in data_sets(pivoted):
        if whole := overview(results, data):
            name = "order of emergence"
            add(data.name, name, whole, span_of(whole.panels), f"{data.name}: {name}, {whole.says}")
            for figure in channel_overviews(results, data):
                add(data.name, f"{name} {figure.title.lower()}", figure, (0.0, 1.0))
        figures = routes_figures(data)
        panels = [panel for figure in figures for panel in figure.panels]  # one axis, so that models compare
        for figure in figures:
            add(data.name, f"routes, {figure.title}", figure, span_of(panels))
    for board in pivoted:
        for figure in layer_figures(board):
            add(board.title, figure.title, figure, span_of(figure.panels))
    return found


def _file_name(said: str, taken: Mapping[str, str]) -> str:
    stem = re.sub(r"[^a-z0-9]+", "-", said.lower()).strip("-")
    names = (f"{stem}{'' if n == 1 else f'-{n}'}.svg" for n in range(1, len(taken) + 2))
    return next(name for name in names if name not in taken)


def _sheet(title: str, figure: Figure, span: Span) -> str:
    columns = min(COLUMNS, len(figure.panels))
    rows = -(-len(figure.panels) // columns)
    width = max(columns * (WIDTH + GAP) - GAP, 480) + 2 * PAD
    key, below = _key(figure, width)
    height = below + rows * (HEIGHT + GAP) - GAP + PAD
    panels = []
    for index, panel in enumerate(figure.panels):
        place = {
            "x": PAD + index % columns * (WIDTH + GAP),
            "y": below + index // columns * (HEIGHT + GAP),
            "width": WIDTH,
            "height": HEIGHT,
        }
        ident = f"p{index}"
        attributes = {k: v for k, v in panel_attributes(panel, span, ident).items() if not k.startswith("data-")}
        panels.append(el("svg", {**place, **attributes}, panel_body(panel, span, ident)))
    document = el(
        "svg",
        {
            "xmlns": "http://www.w3.org/2000/svg",
            "viewBox": f"0 0 {width} {height}",
            "width": width,
            "height": height,
            "role": "img",
            "aria-labelledby": "title",
        },
        el("title", {"id": "title"}, title),
        el("style", None, raw(_style())),
        el("rect", {"width": width, "height": height, "fill": "#ffffff"}),
        text(PAD, 24, title, "start", "title"),
        *key,
        *panels,
    )
    return f"{document}\n"


def _key(figure: Figure, width: int) -> tuple[list[Markup], int]:
    """The key in lines that fit, and where the panels begin below it."""
    parts, x, y = [], PAD, TITLE + 12
    for name, style in figure.key:
        room = 38 + round(_PER_LETTER * len(name))
        if x > PAD and x + room > width - PAD:
            x, y = PAD, y + KEY_LINE
        parts.append(el("path", {"class": f"line {style}", "d": f"M{x + 2} {y - 4}H{x + 30}"}))
        parts.append(text(x + 36, y, name, "start"))
        x += room + 18
    return parts, y + GAP


@cache
def _style() -> str:
    """figure.css and the looks of series, with the colours and dashes of the page written out."""
    page, own = (
        files("benchsuite.report").joinpath(name).read_text("utf-8") for name in ("page.css", "figure.css")
    )
    light = page[: page.index("@media")]
    colours = dict(re.findall(r"--([\w-]+): (#\w+)", light))
    looks = {name: colours[name] for name in colours if re.fullmatch(r"[co]\d", name)}
    looks |= {"grey": colours["ink-2"], "ideal": colours["ink-2"]}
    rules = [re.sub(r"var\(--([\w-]+)\)", lambda found: colours[found[1]], own)]
    for name, colour in looks.items():
        rules.append(f".line.{name}, .node.{name}, .onset.{name}, .ideal-onset.{name} {{ stroke: {colour}; }}")
        rules.append(f".band.{name} {{ fill: {colour}; }}")
    rules += [
        f".line.{name} {{ stroke-dasharray: {dash}; }}"
        for name, dash in re.findall(r"\.(d\d) \{ --d: ([^;]+);", page)
    ]
    return "\n".join(rules)
