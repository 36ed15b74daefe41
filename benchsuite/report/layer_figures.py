"""All hidden layers that a metric follows on one pair of axes, a panel per model: shallow ones first.

A metric says so by ``extra["layers"]`` of its published curve: the `tap` of every layer's curve, shallow to deep.
If their order turns over somewhere, ``extra["flip"]`` holds where: {"log_snr": number, "low": …, "high": …}.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, TypeGuard

from benchsuite.boards import Board
from benchsuite.report.small_panels import Figure, Small, Stroke, factor_styles
from benchsuite.report.svg import tick_text
from benchsuite.results import Row


def layer_figures(board: Board) -> list[Figure]:
    """One figure for every metric of a board that follows several layers."""
    return [figure for route in board.routes if (figure := _figure(board, route))]


def _figure(board: Board, route: str) -> Figure | None:
    panels: list[Small] = []
    styles: dict[str, str] = {}
    for line in board.lines:
        row = line.rows.get(route)
        if row and row.ok and len(names := _layers(row)) > 1:
            looks = factor_styles(names, ())
            published = row.published
            assert published is not None
            strokes = [
                Stroke(curve.tap, looks[curve.tap], curve)
                for name in names
                for curve in row.curves
                if curve.tap == name and curve.unit == published.unit and curve.clocked
            ]
            styles |= looks
            top, says = published.ceiling, f"{published.unit} of every layer"
            panel = Small(line.title, "", tuple(strokes), top, "ceiling", says, note=_flip(row.extra))
            panels.append(panel)
    return Figure(f"{route}: all layers", tuple(styles.items()), tuple(panels)) if panels else None


def _layers(row: Row) -> list[str]:
    """The layers with a curve, shallow to deep."""
    stated = row.extra.get("layers")
    taps = {curve.tap for curve in row.curves}
    published = row.published
    if not isinstance(stated, list) or published is None or not published.ceiling > 0:
        return []
    return [name for name in stated if isinstance(name, str) and name in taps]


def _flip(extra: Mapping[str, Any]) -> str:
    flip = extra.get("flip")
    if not isinstance(flip, Mapping):
        return ""
    value, low, high = (flip.get(key) for key in ("log_snr", "low", "high"))
    if not _finite(value):
        return ""
    ends = f" [{tick_text(low, 0.01)}, {tick_text(high, 0.01)}]" if _finite(low) and _finite(high) else ""
    return f"flip {tick_text(value, 0.01)}{ends}"


def _finite(value: Any) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
