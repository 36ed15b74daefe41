"""The figures of a data set, ready to be laid out: the overview of all factors, and all routes of every model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from benchsuite.boards import Line
from benchsuite.report.orders import orders_of, tau_text
from benchsuite.report.route_curves import Data, FactorRoutes, routes_of
from benchsuite.report.route_panels import Small, factor_styles, leading, overview_panel, route_style, routes_panel
from benchsuite.results import Emergence, Results


@dataclass(frozen=True)
class Figure:
    """Panels under one title with one key."""

    title: str
    key: tuple[tuple[str, str], ...]  #: (name, CSS classes of its line)
    panels: tuple[Small, ...]


def overview(results: Results, data: Data) -> Figure | None:
    """I/H of all factors, a panel per model, the oracle's first; None for a single factor."""
    if len(data.factors) < 2:
        return None
    order = leading_order(results, data)
    styles = factor_styles(order, data.factors)
    taus = {
        (entry.label, entry.split, metric): tau_text(entry, "−")
        for metric, entries in orders_of(results, data.name).items()
        for entry in entries
        if entry.tau
    }
    panels = []
    for line in data.lines:
        route = _leading_route(data, line)
        said = taus.get((line.label, line.split, route or ""))
        panel = overview_panel(data, line, styles, f"τ {said}" if said else "")
        panels += [panel] if panel else []
    key = tuple((name, styles[name]) for name in dict.fromkeys([*order, *data.factors]))
    return Figure("Order of emergence at a glance", key, tuple(panels)) if panels else None


def leading_order(results: Results, data: Data) -> list[str]:
    """The factors as the data set's first order has them: the oracle's by the first route, if there is one."""
    entry = leading_entry(results, data)
    return [place.factor for place in entry.order if place.factor in data.factors] if entry else []


def leading_entry(results: Results, data: Data) -> Emergence | None:
    """The order that the others are read against."""
    entries = [entry for found in orders_of(results, data.name).values() for entry in found]
    return next((entry for entry in entries if entry.reference is None), entries[0] if entries else None)


def routes_figures(data: Data) -> list[Figure]:
    """All routes to every factor, a figure per model; a data set of one factor has one, with a panel per model.

    Models with a single curve, which nothing can be compared to, are left out.
    """
    known, single = route_styles(data), len(data.factors) == 1
    figures = []
    for line in data.lines:
        found = [routes for board in data.boards if (routes := routes_of(board, line))]
        if any(len(routes.routes) + bool(routes.ideal) > 1 for routes in found):
            panels = [routes_panel(routes, known, line.title if single else routes.factor) for routes in found]
            figures.append(Figure(line.title, _key(found, known), tuple(panels)))
    if not single or not figures:
        return figures
    key = dict(entry for figure in figures for entry in figure.key)
    return [Figure("all models", tuple(key.items()), tuple(panel for f in figures for panel in f.panels))]


def route_styles(data: Data) -> dict[str, str]:
    """{metric: look} of every route to information on a data set."""
    found = [routes for board in data.boards for line in data.lines if (routes := routes_of(board, line))]
    metrics = dict.fromkeys(route.metric for routes in found for route in routes.routes)
    return {metric: route_style(index) for index, metric in enumerate(metrics)}


def _key(found: Sequence[FactorRoutes], styles: dict[str, str]) -> tuple[tuple[str, str], ...]:
    key = {}
    for route in (route for routes in found for route in routes.routes):
        key[route.name + (" (a lower bound)" if route.bound else "")] = styles[route.metric]
    if any(routes.ideal for routes in found):
        key["oracle, exact"] = "ideal"
    return tuple(key.items())


def _leading_route(data: Data, line: Line) -> str | None:
    found = next((routes for board in data.boards if (routes := routes_of(board, line))), None)
    return leading(found.routes).metric if found else None
