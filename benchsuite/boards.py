"""Pivot a results document into boards: one table per (data set, factor), a line per model, a cell per route.

A *route* is a metric that leads to ``log_snr_50``. Nothing is averaged here and nothing is dropped: a line
without a value in one of the routes that rank keeps its place on the board, shows the status, and has no rank.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from benchsuite.results import SCALARS, Check, Estimate, Rank, Results, Row, Verdict

#: What exact models that draw their own items have in place of a data set.
OWN_DATA = "own data"
#: Splits in the order in which an oracle's rows are shown: its own population, then images it has not seen.
_SPLIT_ORDER = {"train": 0, "val": 1, "test": 2}
_SPLIT_TITLES = {"train": "population", "val": "validation", "test": "held out"}
#: Of an oracle on an enumerated data set, whose every image it knows: the images that models are measured on.
_SAME = "same images"


@dataclass(frozen=True)
class Line:
    """One model on one board."""

    label: str
    split: str
    oracle: bool
    rows: Mapping[str, Row]  #: by route; a route without a row is a cell that was not planned
    checks: Mapping[str, Check]  #: identities between the routes, by name
    rank: int | None = None
    tied: bool = False  #: shares its rank
    score: Estimate | None = None  #: mean |oracle gap| over the routes that rank, log-SNR units
    unranked: str = ""  #: why a model has no rank

    @property
    def any_row(self) -> Row:
        """A row to read the model's own facts from (family, paper, space)."""
        return next(iter(self.rows.values()))

    @property
    def title(self) -> str:
        """The label, and the images measured where these can be in doubt (an oracle of a data set)."""
        if self.split == "test" and not (self.oracle and "population" in self.any_row.extra):
            return self.label
        known = self.oracle and self.split == "test" and self.any_row.extra.get("enumerated") is True
        return f"{self.label} · {_SAME if known else _SPLIT_TITLES.get(self.split, self.split)}"

    @property
    def place(self) -> str:
        """The rank as printed: "2", "2=" when shared, "" when there is none."""
        return "" if self.rank is None else f"{self.rank}{'=' if self.tied else ''}"


@dataclass(frozen=True)
class Board:
    """All lines for one factor of one data set: oracles first, then by rank, then the models without one."""

    dataset: str
    factor: str  #: "" when every cell failed before the factors were known
    routes: tuple[str, ...]  #: metrics in the order of the document
    ranked_by: tuple[str, ...]  #: routes that enter the score
    lines: tuple[Line, ...]
    calibration: Mapping[str, Verdict | None]  #: of the routes; None = never calibrated, absent = not stated

    @property
    def title(self) -> str:
        """What it is called: "digits · class"."""
        return " · ".join(filter(None, [self.dataset, self.factor]))

    def line(self, label: str, split: str) -> Line | None:
        """The line of one model."""
        return next((line for line in self.lines if (line.label, line.split) == (label, split)), None)

    @property
    def checks(self) -> tuple[str, ...]:
        """Names of the identities that any line was held to."""
        return tuple(dict.fromkeys(name for line in self.lines for name in line.checks))

    @property
    def rows(self) -> tuple[Row, ...]:
        """Every row on the board, line by line."""
        return tuple(row for line in self.lines for row in line.rows.values())

    def silent(self, route: str) -> bool:
        """Whether a route is known to have no onset: it has values, and neither an onset nor a note about one."""
        ok = [row for row in self.rows if row.metric == route and row.ok]
        return bool(ok) and not any(row.scalars["log_snr_50"] or "log_snr_50" in row.scalar_notes for row in ok)

    @property
    def ranks(self) -> bool:
        """Whether a model could have a rank here: some route has onsets, or may once its cells have values."""
        return bool(self.ranked_by) or not all(map(self.silent, self.routes))

    def stated(self, route: str) -> tuple[str, ...]:
        """Names of the scalars that a metric states beside its curve: ``extra["columns"]`` of its rows."""
        found = (row.extra.get("columns") for row in self.rows if row.metric == route and row.ok)
        return tuple(dict.fromkeys(name for columns in found if isinstance(columns, dict) for name in columns))

    def scalars(self, route: str) -> tuple[str, ...]:
        """Scalars that a line has on a route, or a note why it has not.

        Where there are none at all it is log_snr_50, whose column says the statuses. A silent route goes without
        where it has no status to say, or a table of its own to say it in.
        """
        rows = [row for row in self.rows if row.metric == route]
        ok = [row for row in rows if row.ok]
        named = [name for row in ok for name, value in row.scalars.items() if value or name in row.scalar_notes]
        found = tuple(name for name in dict.fromkeys([*SCALARS, *named]) if name in named)
        spared = self.silent(route) and (len(ok) == len(rows) or bool(self.stated(route)))
        return found or (() if spared else SCALARS[:1])

    @property
    def columns(self) -> tuple[str, ...]:
        """Routes that have a place in the table of the board."""
        return tuple(route for route in self.routes if self.scalars(route))

    def unit(self, route: str) -> str:
        """Unit of the values of a route."""
        return next((row.unit for row in self.rows if row.metric == route and row.unit), "")

    @property
    def entropy(self) -> float | None:
        """H(factor) in nats; None if no row states it, or if models that are their own data differ in it."""
        found = [row.entropy for row in self.rows if row.entropy is not None and row.factor == self.factor]
        return found[0] if found and max(found) - min(found) < 1e-6 else None

    @property
    def readout_accuracy(self) -> float | None:
        """Held-out accuracy of the data set's frozen judge, if it has one."""
        return next((row.readout_accuracy for row in self.rows if row.readout_accuracy is not None), None)

    @property
    def population(self) -> int | None:
        """Number of images the oracle is made of: the N of the finite set it is exact for."""
        values = [row.extra.get("population") for row in self.rows if row.oracle]
        return next((value for value in values if isinstance(value, int)), None)

    @property
    def enumerated(self) -> bool:
        """Whether the images are the whole population, so that the oracle is the truth."""
        return any(row.extra.get("enumerated") is True for row in self.rows)

    @property
    def held_out(self) -> dict[str, tuple[int, int | None]]:
        """Held-out images that each route was measured on, and noise draws of each of them."""
        found: dict[str, tuple[int, int | None]] = {}
        for row in self._on_items:
            if row.split == "test" and row.n_items:
                found.setdefault(row.metric, (row.n_items, row.draws))
        return {route: found[route] for route in self.routes if route in found}

    @property
    def _on_items(self) -> list[Row]:
        """Rows whose sampling unit is the item: those of redrawn models count redraws instead."""
        return [row for row in self.rows if row.n_items and (row.extra.get("redraws") or 1) == 1]

    def reference(self, line: Line) -> Line | None:
        """The oracle line that the gaps of a model are taken from, in the model's space."""
        wanted = next(((row.reference, row.reference_split) for row in line.rows.values() if row.reference), None)
        found = [other for other in self.lines if other.oracle and (other.label, other.split) == wanted]
        return next(iter(found), None)


def boards(results: Results) -> tuple[Board, ...]:
    """One board per (data set, factor), in the order of each model's rows; last, what is about no factor.

    Rows without values and without a factor, which failed before theirs were known, appear on every board of their
    data set.
    """
    factors: dict[str, dict[str, list[str]]] = {}
    for row in results.rows:
        known = factors.setdefault(row.dataset, {}).setdefault(row.label, [])
        if row.factor and row.factor not in known:
            known.append(row.factor)
    general = {row.dataset for row in results.rows if row.ok and not row.factor}
    return tuple(
        _board(results, dataset, factor)
        for dataset, names in ((dataset, merged_names(each.values())) for dataset, each in factors.items())
        for factor in ([*names, ""] if dataset in general else names or [""])
    )


def merged_names(orders: Iterable[list[str]]) -> list[str]:
    """All names, each before those that follow it in the order that brings it: deeper models have more levels."""
    merged: list[str] = []
    for names in orders:
        for i, name in enumerate(names):
            if name not in merged:
                later = (merged.index(other) for other in names[i + 1 :] if other in merged)
                merged.insert(min(later, default=len(merged)), name)
    return merged


def _board(results: Results, dataset: str, factor: str) -> Board:
    there = [row for row in results.rows if row.dataset == dataset]
    about_none = {row.metric for row in there if row.ok and not row.factor}  # metrics that are about no factor
    if factor:
        rows = [row for row in there if row.factor == factor or not (row.factor or row.metric in about_none)]
    else:
        rows = [row for row in there if not row.factor and (row.metric in about_none or not about_none)]
    ranks = {e.label: e for e in results.ranking if (e.dataset, e.factor) == (dataset, factor)}
    routes = tuple(dict.fromkeys(row.metric for row in rows))
    ranking_routes = {route for entry in ranks.values() for route in entry.routes}
    ranked_by = tuple(route for route in routes if route in ranking_routes)
    cells: dict[tuple[str, str], dict[str, Row]] = {}
    for row in rows:
        by_route = cells.setdefault((row.label, row.split), {})
        if row.metric not in by_route or row.factor:  # a row of this very factor says more
            by_route[row.metric] = row
    lines = []
    for (label, split), by_route in cells.items():
        here = (label, dataset, split, factor)
        checks = {c.check: c for c in results.consistency if (c.label, c.dataset, c.split, c.factor) == here}
        line = Line(label, split, next(iter(by_route.values())).oracle, by_route, checks)
        lines.append(_ranked(line, ranks.get(label), ranked_by))
    lines = _with_ties(sorted(lines, key=_order))
    calibration = {route: results.calibration[route] for route in routes if route in results.calibration}
    return Board(dataset, factor, routes, ranked_by, tuple(lines), calibration)


def _ranked(line: Line, entry: Rank | None, ranked_by: Sequence[str]) -> Line:
    if line.oracle:
        return line
    rows = line.rows
    holes = [route for route in ranked_by or rows if route not in rows or not rows[route].ok]
    if holes:  # a score over fewer routes is another quantity: it cannot be compared with the others
        said = ", ".join(f"{route} {status_words(rows.get(route))}" for route in holes)
        return replace(line, unranked=said)
    if entry is None:
        return replace(line, unranked="no oracle gap on the routes that rank" if ranked_by else "no route ranks")
    return replace(line, rank=entry.rank, score=entry.score)


def _order(line: Line) -> tuple[bool, float, float, list[str | int], int]:
    if line.oracle:
        return (False, 0.0, 0.0, _natural(line.label), _SPLIT_ORDER.get(line.split, len(_SPLIT_ORDER)))
    if line.rank is None or line.score is None:
        return (True, math.inf, math.inf, _natural(line.label), 0)
    return (True, line.rank, line.score.value, _natural(line.label), 0)


def _natural(label: str) -> list[str | int]:
    """A key under which step=400 comes before step=1600: text and whole numbers in turn."""
    return [int(part) if part.isdecimal() else part for part in re.split(r"(\d+)", label)]


def _with_ties(lines: list[Line]) -> list[Line]:
    places = [line.rank for line in lines]
    return [replace(line, tied=line.rank is not None and places.count(line.rank) > 1) for line in lines]


def status_words(row: Row | None) -> str:
    """The status of a cell in words; a cell without a row was never planned."""
    return "not measured" if row is None else row.status.replace("_", " ")


def board_notes(board: Board) -> list[tuple[str, str, str]]:
    """(line title, route, text) of everything that qualifies a number: flags and scalars that do not exist."""
    notes = []
    for line in board.lines:
        for route, row in line.rows.items():
            if row.ok:
                notes += [(line.title, route, flag) for flag in row.flags]
                notes += [(line.title, route, f"{name}: {text}") for name, text in row.scalar_notes.items()]
    return notes


def cells_without_values(results: Results) -> list[tuple[Row, list[str]]]:
    """(a row, its cells) for every model, status, stage and reason that left cells without a value.

    A cell reads "dataset · factor · metric"; the same one on two splits is named once.
    """
    groups: dict[tuple[str, ...], tuple[Row, list[str]]] = {}
    for row in results.rows:
        if not row.ok:
            _, cells = groups.setdefault((row.label, row.status, row.stage, row.reason), (row, []))
            cell = " · ".join(filter(None, [row.dataset, row.factor, row.metric]))
            if cell not in cells:
                cells.append(cell)
    return list(groups.values())
