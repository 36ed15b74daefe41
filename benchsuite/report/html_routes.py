"""What the page says about all factors of a data set: overviews, orders of emergence, all routes of each model."""

from __future__ import annotations

from benchsuite.boards import Line
from benchsuite.report.html_panels import framed, grid, key
from benchsuite.report.markup import Markup, el, join
from benchsuite.report.order_figures import channel_overviews, leading_entry, overview
from benchsuite.report.orders import arrows, orders_of, tau_text, titles_of
from benchsuite.report.route_curves import Data
from benchsuite.report.route_figures import routes_figures
from benchsuite.report.small_panels import Figure, span_of
from benchsuite.report.words import interval, number
from benchsuite.results import Emergence, Results

MINUS = "−"


def data_section(results: Results, data: Data, ident: str) -> Markup | None:
    """The section, or None when there is nothing beyond single factors and routes to show."""
    parts = [
        _overview(results, data, ident),
        *_channels(results, data, ident),
        _orders(results, data),
        _routes(data, ident),
    ]
    if not any(parts):
        return None
    return el(
        "section",
        {"class": "all", "id": ident, "aria-labelledby": f"{ident}-h"},
        el("h2", {"id": f"{ident}-h"}, section_title(data)),
        el("p", {"class": "headline"}, said) if (said := headline(results, data, MINUS)) else None,
        *parts,
    )


def section_title(data: Data) -> str:
    """What the section is called."""
    return f"{data.name} · all factors" if len(data.factors) > 1 else f"{data.name} · all routes"


def headline(results: Results, data: Data, minus: str = "-") -> str:
    """One sentence: in which order the ideal fixes the factors, and how close every model comes to it."""
    first = leading_entry(results, data)
    if first is None:
        return ""
    title = titles_of(data.boards).get((first.label, data.name, first.split), first.label)
    said = f"By {first.metric}, {title} fixes {arrows(first)}."
    followers = [e for e in orders_of(results, data.name)[first.metric] if e.tau]
    if followers:
        taus = ", ".join(f"{e.label} {tau_text(e, minus)}" for e in followers)
        said += f" Kendall's τ with the oracle's order: {taus}."
    return said


def _overview(results: Results, data: Data, ident: str) -> Markup | None:
    figure = overview(results, data)
    if figure is None:
        return None
    return framed(figure, span_of(figure.panels), f"{ident}-o", _caption(data, figure))


def _caption(data: Data, figure: Figure) -> str:
    half = "H/2" if figure.panels[0].level == "H" else "half of the way"
    whose = "the oracle's order" if any(line.oracle for line in data.lines) else "the order of the first model"
    compared = any(stroke.ideal for panel in figure.panels for stroke in panel.strokes)
    said = (
        f"{figure.says[0].upper()}{figure.says[1:]} for every factor; colours run from early to late in {whose}, "
        f"rings mark log-SNR₅₀ on {half}{', ticks that of the oracle' if compared else ''}."
    )
    if compared:
        said += (
            " Rings whose colours are out of sequence are factors fixed in another order; τ is Kendall's rank "
            "correlation with the oracle's order, with its 95 % bootstrap interval."
        )
    return said


def _channels(results: Results, data: Data, ident: str) -> list[Markup]:
    caption = "In the same colours; rings mark where half of the way is lost."
    figures = enumerate(channel_overviews(results, data))
    return [framed(figure, (0.0, 1.0), f"{ident}-c{index}-", caption) for index, figure in figures]


def _routes(data: Data, ident: str) -> Markup | None:
    figures = routes_figures(data)
    if not figures:
        return None
    span = span_of([panel for figure in figures for panel in figure.panels])
    parts = []
    for index, figure in enumerate(figures):
        drawn = join([key(figure), grid(figure, span, f"{ident}-r{index}-")])
        if len(data.factors) > 1:
            said = f"{figure.title}: {len(figure.panels)} factors"
            drawn = el("details", None, el("summary", None, said), drawn)
        parts.append(drawn)
    caption = (
        "Every route read as information in nats from 0 to H, entropies turned over, bands 95 % intervals. For a "
        "perfect model all routes that are no lower bound coincide, with each other and with the oracle's curve "
        "in grey; where they part by more than sampling explains, a flag on the row says which one fails."
    )
    return el(
        "figure",
        {"class": "small"},
        el("h3", None, "All routes on one pair of axes"),
        *parts,
        el("figcaption", None, caption),
    )


def _orders(results: Results, data: Data) -> Markup | None:
    """A table per route, all but the first folded away: the order of every model beside the oracle's."""
    found = orders_of(results, data.name)
    if not found:
        return None
    first, *others = (_order_table(data, metric, entries) for metric, entries in found.items())
    more = el("summary", None, f"By the other routes: {', '.join(list(found)[1:])}")
    left = {
        f"{factor}: {why}" for entries in found.values() for e in entries for factor, why in e.left_out.items()
    }
    said = (
        "→ the next factor is fixed later; ≈ the two cannot be told apart (95 % interval of their paired "
        "distance). Kendall's τ-b with the oracle's order on the same route: 1 = the same, −1 = reversed."
    )
    notes = el("ul", {"class": "notes"}, *(el("li", None, text) for text in sorted(left))) if left else None
    return join(
        [
            el("h3", {"class": "apart"}, "Order of emergence"),
            first,
            el("p", {"class": "absent"}, said),
            notes,
            el("details", None, more, *others) if others else None,
        ]
    )


def _order_table(data: Data, metric: str, entries: list[Emergence]) -> Markup:
    """Rows are models; columns the order as arrows, Kendall's tau, and the factors that have no place in it."""
    lines = {(line.label, line.split): line for line in data.lines}
    body = [_order_row(entry, lines.get((entry.label, entry.split))) for entry in entries]
    names = ("model", "the earliest first, with log-SNR₅₀", "Kendall's τ", "without a place")
    head = el("thead", None, el("tr", None, *(el("th", {"scope": "col"}, name) for name in names)))
    caption = el("caption", None, el("span", None, f"By {metric}."))
    table = el("table", {"class": "orders"}, caption, head, el("tbody", None, *body))
    region = {
        "class": "scroll",
        "tabindex": "0",
        "role": "region",
        "aria-label": f"Order of emergence by {metric}",
    }
    return el("div", region, table)


def _order_row(entry: Emergence, line: Line | None) -> Markup:
    steps: list[Markup] = []
    for place in entry.order:
        value, ends = number(place.log_snr_50.value, 2, MINUS), interval(place.log_snr_50, 2, MINUS)
        small = el("small", None, value)
        name = el("span", {"class": "step", "title": f"{value} {ends}".rstrip()}, place.factor, small)
        steps += [el("i", None, " ≈ " if place.tied else " → "), name] if steps else [name]
    tau: Markup | str = "–"
    if entry.tau:
        said = " ".join(filter(None, [interval(entry.tau, 2, MINUS), f"of {entry.compared} factors"]))
        tau = join([el("b", None, number(entry.tau.value, 2, MINUS)), el("small", None, said)])
    return el(
        "tr",
        {"class": "oracle" if line and line.oracle else None},
        el("th", {"scope": "row"}, line.title if line else entry.label),
        el("td", {"class": "arrows"}, *(steps or ("no factor is fixed",))),
        el("td", None, tau),
        el("td", {"class": "absent"}, ", ".join(entry.left_out) or "–"),
    )
