"""The figures of a board: when a factor is fixed (onsets), how (curves, with their controls), and all layers."""

from __future__ import annotations

from collections.abc import Mapping

from benchsuite.boards import Board, status_words
from benchsuite.report import words
from benchsuite.report.clocks import Clock, clock_of, clocks_of
from benchsuite.report.html_panels import framed, swatch
from benchsuite.report.layer_figures import layer_figures
from benchsuite.report.markup import Markup, el, join
from benchsuite.report.onsets import NARROW, WIDE, mark, onset_chart
from benchsuite.report.panels import Panel, panel_svg, panels_of, value_axis, x_domain
from benchsuite.report.series import Series
from benchsuite.report.small_panels import span_of
from benchsuite.report.svg import fixed

SeriesOf = Mapping[tuple[str, str], Series]


def when_figure(board: Board, series: SeriesOf, ident: str) -> Markup | None:
    """The onset chart with its key, wide and narrow (the style sheet shows one); None without an onset."""
    layouts = (WIDE, NARROW)
    charts = [onset_chart(board, series, layout, f"{ident}-{layout.name}") for layout in layouts]
    if not any(charts):
        return None
    own = any(clock_of(line.label, list(line.rows.values())) for line in board.lines)
    clocks = "Under each model, its own clock t/T on the same axis." if own else ""
    hollow = "Hollow: the oracle that a model is compared to. " if any(map(board.reference, board.lines)) else ""
    marks = [
        el("span", None, swatch(mark(index, 7, 7, "mark ink"), 14), route)
        for index, route in enumerate(board.routes)
    ]
    return el(
        "figure",
        {"class": "when"},
        el("h3", None, words.when(board)),
        el("p", {"class": "key"}, *marks),
        *charts,
        el(
            "figcaption",
            None,
            "log-SNR₅₀ by every route with its 95 % interval; further left is earlier in generation, at more "
            f"noise. {hollow}{clocks}",
        ),
    )


def layers_figure(board: Board, ident: str) -> list[Markup]:
    """All layers on one pair of axes, a figure for every metric that follows some."""
    caption = (
        "Colours run from the shallowest layer to the deepest; bands are 95 % intervals. Flip: the log-SNR at "
        "which the order of the layers turns over; above it the deepest stays more alike than the shallowest."
    )
    return [
        framed(figure, span_of(figure.panels), f"{ident}-y{index}-", caption)
        for index, figure in enumerate(layer_figures(board))
    ]


def how_figure(board: Board, series: SeriesOf, ident: str) -> Markup | None:
    """Small multiples of the published curves and, folded away, of the diagnostics; None without a curve."""
    published, others = panels_of(board, True), panels_of(board, False)
    diagnostics, losses = ([panel for panel in others if bool(panel.loss) is lossy] for lossy in (False, True))
    if not published and not others:
        return None
    clocks = clocks_of(board)
    span = x_domain([*published, *diagnostics]) if published or diagnostics else (0.0, 1.0)
    return el(
        "figure",
        {"class": "how"},
        el("h3", None, "How: every curve against log-SNR"),
        _controls(board, series, clocks),
        el("div", {"class": "panels"}, *_panels(board, published, span, clocks, series, f"{ident}-p")),
        _losses(board, losses, clocks, series, ident),
        _diagnostics(board, diagnostics, span, clocks, series, ident),
        el(
            "figcaption",
            None,
            "Bands are 95 % bootstrap intervals over images"
            + ("; a ring marks log-SNR₅₀ on the level that defines it. " if board.ranks else ". ")
            + "The upper axis is native time t/T, which differs from model to model."
            + (" Thin dotted lines are what a theory expects." if _has_theory([*published, *others]) else ""),
        ),
    )


def _has_theory(panels: list[Panel]) -> bool:
    return any(drawn.theory for panel in panels for drawn in panel.drawn)


def _losses(board: Board, panels: list[Panel], clocks: list[Clock], series: SeriesOf, ident: str) -> Markup | None:
    """Panels on the axes of other noise channels, each of which runs from nothing lost to everything lost."""
    if not panels:
        return None
    cells = _panels(board, panels, (0.0, 1.0), clocks, series, f"{ident}-l")
    return join([el("h4", {"class": "apart"}, "Other noise channels"), el("div", {"class": "panels"}, *cells)])


def _panels(
    board: Board,
    panels: list[Panel],
    span: tuple[float, float],
    clocks: list[Clock],
    series: SeriesOf,
    ident: str,
) -> list[Markup]:
    drawn = []
    for index, panel in enumerate(panels):
        # Published curves of one unit share a value axis; a diagnostic may overshoot and has its own.
        alike = [other for other in panels if other.unit == panel.unit and other.variant == ""]
        values = value_axis(alike if panel.variant == "" else [panel])
        svg = panel_svg(panel, (span, values), clocks, series, board.entropy, f"{ident}{index}")
        title = join([panel.route, el("small", None, f" {panel.variant}") if panel.variant else None])
        absent = [
            f"{line.label}: {status_words(line.rows.get(panel.route))}"
            for line in board.lines
            if panel.variant == "" and not (panel.route in line.rows and line.rows[panel.route].ok)
        ]
        note = el("p", {"class": "absent"}, "; ".join(dict.fromkeys(absent))) if absent else None
        tip = el("div", {"class": "tip", "role": "status", "hidden": ""})
        drawn.append(el("div", {"class": "cell"}, el("h4", None, title), svg, tip, note))
    return drawn


def _diagnostics(
    board: Board,
    panels: list[Panel],
    span: tuple[float, float],
    clocks: list[Clock],
    series: SeriesOf,
    ident: str,
) -> Markup | None:
    if not panels:
        return None
    cells = _panels(board, panels, span, clocks, series, f"{ident}-x")
    return el(
        "details",
        None,
        el("summary", None, "Diagnostics: other estimators of the same quantities, each on its own value axis"),
        el("div", {"class": "panels"}, *cells),
    )


def _controls(board: Board, series: SeriesOf, clocks: list[Clock]) -> Markup:
    """Check boxes that show and hide lines and a choice of upper axis; the style sheet alone does the work."""
    boxes = []
    for line in board.lines:
        if not any(row.ok and row.curves for row in line.rows.values()):
            continue
        look = series[line.label, line.split]
        box = el("input", {"type": "checkbox", "class": f"t-{look.key}", "checked": ""})
        stroke = el("path", {"class": f"line {look.style}", "d": "M2 7H30"})
        boxes.append(el("label", {"class": f"l-{look.key}"}, box, swatch(stroke, 32), line.title))
    options = [
        el("option", {"class": f"k{index}", "data-clock": _nodes(clock)}, clock.label)
        for index, clock in enumerate(clocks)
    ]
    choice = el("label", {"class": "choice"}, "upper axis: t/T, ", el("select", None, *options))
    return el("div", {"class": "controls", "role": "group", "aria-label": "Lines shown"}, *boxes, choice)


def _nodes(clock: Clock, most: int = 64) -> str:
    """Up to `most` + 1 nodes of a clock as "log_snr:t/T …" for the read-out."""
    every = max(1, len(clock.log_snr) // most)
    nodes = [*zip(clock.log_snr, clock.time, strict=True)]
    kept = [*nodes[:-1:every], nodes[-1]]
    return " ".join(f"{fixed(log_snr)}:{time:.3f}" for log_snr, time in kept)
