"""What log-SNR₅₀ has no place for: thresholds on other noise channels, what a theory expects, a metric's scalars.

Plain tables that every report lays out in its own way. A *loss* is an axis from 0 (nothing lost) to 1.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from benchsuite.boards import Board, Line, status_words
from benchsuite.report import words
from benchsuite.results import CurvePoints

DIGITS = 3


@dataclass(frozen=True)
class TextTable:
    """A table of words and numbers in text; the first column names a line of the board."""

    title: str
    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    route: str = ""  #: whose scalars it holds, if they are those of one route


def tables(board: Board) -> list[TextTable]:
    """The tables that have rows, without those that are the board's own, see `own_tables`."""
    columns = [_columns(board, route) for route in board.routes if board.stated(route)] if board.columns else []
    return [table for table in (_thresholds(board), _theory(board), *columns) if table.rows]


def own_tables(board: Board) -> list[TextTable]:
    """What stands in the place of the board's table when no route has a column there, one row for every line.

    It is the scalars of every metric that states some; where none does, the models alone.
    """
    if board.columns:
        return []
    found = [_columns(board, route) for route in board.routes if board.stated(route)]
    return found or [TextTable("Models", ("model",), tuple((line.title,) for line in board.lines))]


def thresholds_text(line: Line, route: str) -> str:
    """The thresholds of one cell on other axes: ``masking: 0.267 masked fraction, width 0.2; …``."""
    said = []
    for curve in _measured(line, route):
        width = f", width {words.estimate_text(curve.width, DIGITS)}" if curve.width else ""
        onset = words.estimate_text(curve.onset, DIGITS)
        said.append(f"{curve.variant}: {onset} {curve.axis}{width}")
    return "; ".join(said)


def _thresholds(board: Board) -> TextTable:
    rows = []
    for line in board.lines:
        for route in board.routes:
            for curve in _measured(line, route):
                numbers = [words.estimate_text(e, DIGITS) for e in (curve.onset, curve.width)]
                theory = _expected(line, route, curve)
                rows.append((line.title, " · ".join([route, curve.variant]), curve.axis, *numbers, theory))
    head = ("thresholds", "route", "axis", "half way at", "10–90 % width", "theory")
    return TextTable("Thresholds on other noise channels", head, tuple(rows))


def _theory(board: Board) -> TextTable:
    """Scalar facts of the theory that rows state about their models."""
    found = {line.title: theory for line in board.lines if (theory := _stated(line))}
    keys = tuple(dict.fromkeys(key for theory in found.values() for key in theory))
    rows = tuple(
        (title, *(_said(theory[key]) if key in theory else "–" for key in keys)) for title, theory in found.items()
    )
    return TextTable("Theory", ("theory", *(key.replace("_", " ") for key in keys)), rows)


def _columns(board: Board, route: str) -> TextTable:
    """The scalars that a metric wants beside its name, see `Curve`; statuses where no column says them."""
    keys = board.stated(route)
    rows = []
    for line in board.lines:
        row = line.rows.get(route)
        columns = row.extra.get("columns") if row and row.ok else None
        if isinstance(columns, dict):
            rows.append((line.title, *(_scalar(columns.get(key)) for key in keys)))
        elif not board.columns or (row and not row.ok and route not in board.columns):
            empty = ("–",) * len(keys) if row and row.ok else (status_words(row), *[""] * (len(keys) - 1))
            rows.append((line.title, *empty))
    return TextTable(route, (route, *keys), tuple(rows), route)


def _scalar(value: Any) -> str:
    """``0.98 [0.95, 1.02]`` of a number with its interval, or the number alone."""
    if isinstance(value, dict):
        ends = [value.get(key) for key in ("value", "low", "high")]
        if not all(isinstance(end, int | float) for end in ends):
            return "–"
        number, low, high = (f"{end:.3g}" for end in ends)
        return f"{number} [{low}, {high}]"
    return f"{value:.3g}" if isinstance(value, int | float) and not isinstance(value, bool) else "–"


def _measured(line: Line, route: str) -> list[CurvePoints]:
    row = line.rows.get(route)
    curves = row.curves if row and row.ok else ()
    return [curve for curve in curves if not curve.clocked and curve.beside is None and curve.onset]


def _expected(line: Line, route: str, curve: CurvePoints) -> str:
    """Onset, width and name of the theory beside a curve."""
    theory = line.rows[route].theory(curve.variant)
    if theory is None:
        return "–"
    width = f", width {words.number(theory.width.value, DIGITS)}" if theory.width else ""
    onset = words.number(theory.onset.value, DIGITS) if theory.onset else "never"
    return f"{onset}{width} ({theory.variant.removeprefix(curve.variant).lstrip(' ·')})"


def _stated(line: Line) -> Mapping[str, Any]:
    theories = (row.extra.get("theory") for row in line.rows.values() if row.ok)
    theory = next((theory for theory in theories if isinstance(theory, dict)), {})
    return {key: value for key, value in theory.items() if value is None or isinstance(value, str | int | float)}


def _said(value: Any) -> str:
    if value is None:
        return "none"
    return f"{value:.4f}" if isinstance(value, float) else str(value)
