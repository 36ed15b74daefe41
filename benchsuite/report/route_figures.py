"""All routes to the information about every factor of a data set, a figure per model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from benchsuite.report.route_curves import Data, FactorRoutes, routes_of
from benchsuite.report.small_panels import Figure, Small, Stroke, route_style
from benchsuite.report.svg import tick_text


def routes_figures(data: Data) -> list[Figure]:
    """All routes to every factor, a figure per model; a data set of one factor has one, with a panel per model.

    Models with a single curve, which nothing can be compared to, are left out.
    """
    known, single = route_styles(data), len(data.factors) == 1
    figures = []
    for line in data.lines:
        found = [routes for board in data.boards if (routes := routes_of(board, line))]
        if any(len(routes.routes) + bool(routes.ideal) > 1 for routes in found):
            panels = [_panel(routes, known, line.title if single else routes.factor) for routes in found]
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


def _panel(found: FactorRoutes, routes: Mapping[str, str], title: str) -> Small:
    """Every route of one model to one factor over the grey ideal; `routes` = {metric: style}."""
    strokes = [Stroke("oracle", "ideal", found.ideal)] if found.ideal else []
    strokes += [Stroke(route.name, routes[route.metric], route.curve) for route in found.routes]
    level = f"H = {tick_text(found.entropy, 0.01)}"
    return Small(title, "nats", tuple(strokes), found.entropy, level, "I in nats")


def _key(found: Sequence[FactorRoutes], styles: dict[str, str]) -> tuple[tuple[str, str], ...]:
    key = {}
    for route in (route for routes in found for route in routes.routes):
        key[route.name + (" (a lower bound)" if route.bound else "")] = styles[route.metric]
    if any(routes.ideal for routes in found):
        key["oracle, exact"] = "ideal"
    return tuple(key.items())
