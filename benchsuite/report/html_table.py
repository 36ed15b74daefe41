"""The board as an HTML table: rank, model, oracle gap, and per route onset, width and gap with intervals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from benchsuite.boards import Board, Line, status_words
from benchsuite.report import losses, words
from benchsuite.report.citation import works_in
from benchsuite.report.clocks import native_time_at
from benchsuite.report.losses import TextTable
from benchsuite.report.markup import Markup, el, join
from benchsuite.report.series import Series
from benchsuite.results import Check, Estimate, Row

MINUS = "−"

SeriesOf = Mapping[tuple[str, str], Series]


class _Notes:
    """Numbered notes under one table; the same text is one note."""

    def __init__(self, ident: str) -> None:
        self.ident = ident
        self.texts: list[str] = []

    def mark(self, text: str) -> Markup:
        """A raised number that leads to the note."""
        if text not in self.texts:
            self.texts.append(text)
        number = self.texts.index(text) + 1
        return el("sup", None, el("a", {"href": f"#{self.ident}-n{number}", "title": text}, number))

    def list(self) -> Markup | None:
        """The notes themselves."""
        items = [el("li", {"id": f"{self.ident}-n{i}"}, text) for i, text in enumerate(self.texts, start=1)]
        return el("ol", {"class": "notes"}, *items) if items else None


def board_table(board: Board, series: SeriesOf, ident: str) -> Markup:
    """The table with its caption and notes, or those that stand in its place; `ident` is unique on the page."""
    notes = _Notes(ident)
    found = [_ranks(board, series, notes)] if board.columns else _instead(board, series, notes)
    region = {"class": "scroll", "tabindex": "0", "role": "region", "aria-label": "Leaderboard table"}
    return join([*(el("div", region, table) for table in found), notes.list()])


def _ranks(board: Board, series: SeriesOf, notes: _Notes) -> Markup:
    """Rank, oracle gap and the scalars of every route that has a column."""
    top = [
        *([el("th", {"scope": "col", "rowspan": 2}, "rank")] if board.ranks else []),
        el("th", {"scope": "col", "rowspan": 2, "class": "model"}, "model"),
        *([el("th", {"scope": "col", "rowspan": 2}, "oracle gap")] if board.ranks else []),
        *(_group(board, route, len(board.scalars(route))) for route in board.columns),
    ]
    below = [
        el("th", {"scope": "col", "class": "route" if index == 0 else None}, _scalar_head(name, board.unit(route)))
        for route in board.columns
        for index, name in enumerate(board.scalars(route))
    ]
    body = [_line(board, line, series, notes) for line in board.lines]
    ranked = (
        f"Ranked by the mean |gap| over {words.enumeration(list(board.ranked_by))}. " if board.ranked_by else ""
    )
    caption = f"{ranked}Small print: 95 % interval, native time t/T at the onset, and the layer read."
    said = " ".join(filter(None, [caption, words.curves_only(board, verdicts=True)]))
    return el(
        "table",
        {"class": "ranks"},
        el("caption", None, el("span", None, said)),
        el("thead", None, el("tr", None, *top), el("tr", None, *below)),
        el("tbody", None, *body),
    )


def _instead(board: Board, series: SeriesOf, notes: _Notes) -> list[Markup]:
    """The scalars of metrics without onsets as the board's tables, with the notes on cells that have no value."""
    tables = []
    for found in losses.own_tables(board):
        group = [_group(board, found.route, len(found.head) - 1)] if found.route else []
        span = {"rowspan": 2} if found.route else {}
        top = [el("th", {"scope": "col", **span, "class": "model"}, "model"), *group]
        heads = [el("th", {"scope": "col", "class": _first(i)}, name) for i, name in enumerate(found.head[1:])]
        body = []
        for line, row in zip(board.lines, found.rows, strict=True):
            name = _name(board, line, series, notes)
            cell = line.rows.get(found.route)
            if found.route and not (cell and cell.ok):
                cells = [_without(cell, len(row) - 1, notes)]
            else:
                cells = [el("td", {"class": _first(i)}, _with_interval(said)) for i, said in enumerate(row[1:])]
            body.append(el("tr", {"class": "oracle" if line.oracle else None}, name, *cells))
        caption = "Small print: 95 % interval." if found.route else ""
        said = " ".join(filter(None, [caption, words.curves_only(board, verdicts=True)]))
        table = el(
            "table",
            {"class": "ranks scalars"},
            el("caption", None, el("span", None, said)),
            el("thead", None, el("tr", None, *top), el("tr", None, *heads) if heads else None),
            el("tbody", None, *body),
        )
        tables.append(table)
    return tables


def consistency_table(board: Board) -> Markup | None:
    """How far the identities between the routes are missed by each line; None when none was checked."""
    if not board.checks:
        return None
    body = []
    for line in board.lines:
        found = [line.checks.get(name) for name in board.checks]
        if any(found):
            cells = [el("td", None, _check(c)) for c in found]
            body.append(el("tr", None, el("th", {"scope": "row"}, line.title), *cells))
    units = {c.check: c.unit for line in board.lines for c in line.checks.values()}
    heads = [el("th", {"scope": "col"}, name, el("small", None, f" {units[name]}")) for name in board.checks]
    table = el(
        "table",
        {"class": "checks"},
        el(
            "caption",
            None,
            el(
                "span",
                None,
                "How far each identity is missed, with its interval; 0 for a perfect model, whatever the data.",
            ),
        ),
        el("thead", None, el("tr", None, el("th", {"scope": "col"}, "identity"), *heads)),
        el("tbody", None, *body),
    )
    region = {"class": "scroll", "tabindex": "0", "role": "region", "aria-label": "Consistency"}
    return join([el("h3", {"class": "apart"}, "Consistency of the routes"), el("div", region, table)])


def _check(check: Check | None) -> Markup | str:
    if check is None:
        return "–"
    failed = el("small", {"class": "failed"}, f"fails: {', '.join(check.failed)}") if check.failed else None
    return join([_estimate(check.deviation, digits=3), failed])


def text_table(board: Board, found: TextTable) -> Markup:
    """A plain table of what log-SNR₅₀ has no place for."""
    lone = found.route and found.route not in board.columns  # no column says the version and the verdict
    first_head, *others = found.head
    heads = [el("th", {"scope": "col"}, _route(board, found.route) if lone else first_head)]
    heads += [el("th", {"scope": "col"}, name) for name in others]
    body = [
        el(
            "tr",
            None,
            el("th", {"scope": "row"}, first),
            *(el("td", None, _with_interval(cell) if found.route else cell) for cell in rest),
        )
        for first, *rest in found.rows
    ]
    look = {"class": "checks scalars" if found.route else "checks"}
    table = el("table", look, el("thead", None, el("tr", None, *heads)), el("tbody", None, *body))
    region = {"class": "scroll", "tabindex": "0", "role": "region", "aria-label": found.title}
    return join([el("h3", {"class": "apart"}, found.title), el("div", region, table)])


def _with_interval(said: str) -> Markup:
    """A number in text, its interval below it in small print."""
    value, bracket, interval = said.replace("-", MINUS).partition(" [")
    return join([value, el("small", None, f"[{interval}") if bracket else None])


def _first(index: int) -> str | None:
    """The class of the first column of a route, which keeps its distance from the one before it."""
    return "route" if index == 0 else None


def _group(board: Board, route: str, columns: int) -> Markup:
    return el("th", {"scope": "colgroup", "colspan": columns, "class": "route"}, _route(board, route))


def _route(board: Board, route: str) -> Markup:
    row = next(row for row in board.rows if row.metric == route)
    version = el("small", None, f" v{row.metric_version}") if row.metric_version else None
    verdict = board.calibration.get(route)
    said = words.verdict_words(board, route)
    style = "verdict" if verdict and verdict.passed else "verdict failed"
    return join([route, version, el("small", {"class": style}, said) if said else None])


def _scalar_head(name: str, unit: str) -> Markup:
    said = words.scalar_unit(name, unit)
    return join([words.scalar_title(name), el("small", {"class": "unit"}, said) if said else None])


def _name(board: Board, line: Line, series: SeriesOf, notes: _Notes) -> Markup:
    """The head of a line; its notes are why it has no rank, and the flags that no column shows."""
    facts = line.any_row
    said = dict.fromkeys(filter(None, [facts.family, facts.space, *works_in(facts.paper)]))
    about = " · ".join(word for word in said if word != line.label)
    stroke = el("path", {"class": f"line {series[line.label, line.split].style}", "d": "M1 6H23"})
    swatch = el(
        "svg",
        {"class": "swatch", "viewBox": "0 0 24 12", "width": 24, "height": 12, "aria-hidden": "true"},
        stroke,
    )
    marks = [notes.mark(f"No rank: {line.unranked}.")] if line.unranked and board.ranks else []
    unseen = [row for route, row in line.rows.items() if row.ok and route not in board.columns]
    marks += [notes.mark(f"{line.title}, {row.metric}: {flag}") for row in unseen for flag in row.flags]
    name = join([swatch, line.title, *marks])
    return el("th", {"scope": "row", "class": "model"}, name, el("small", None, about))


def _line(board: Board, line: Line, series: SeriesOf, notes: _Notes) -> Markup:
    cells = [name := _name(board, line, series, notes)]
    if board.ranks:
        score = el("td", {"class": "score"}, "–" if line.oracle else _estimate(line.score))
        cells = [el("td", {"class": "rank"}, line.place or "–"), name, score]
    for route in board.columns:
        cells += _cells(line, route, board.scalars(route), notes)
    return el("tr", {"class": "oracle" if line.oracle else None}, *cells)


def _without(row: Row | None, columns: int, notes: _Notes) -> Markup:
    """The status of a cell that has no value."""
    note = notes.mark(row.reason) if row and row.reason else None
    status = el("span", {"class": f"status {row.status if row else 'absent'}"}, status_words(row), note)
    return el("td", {"class": "route none", "colspan": columns}, status)


def _cells(line: Line, route: str, scalars: Sequence[str], notes: _Notes) -> list[Markup]:
    row = line.rows.get(route)
    if row is None or not row.ok:
        return [_without(row, len(scalars), notes)]
    cells = []
    for index, name in enumerate(scalars):
        estimate = row.scalars.get(name)
        marks = (
            [notes.mark(f"{line.title}, {route}, {words.scalar_title(name)}: {row.scalar_notes[name]}")]
            if name in row.scalar_notes
            else []
        )
        extra = None
        if index == 0:
            marks += [notes.mark(f"{line.title}, {route}: {flag}") for flag in row.flags]
        if name == "log_snr_50":
            extra = _onset_note(line, route, estimate)
        content = join([_estimate(estimate, join(marks)), extra])
        cells.append(el("td", {"class": "route" if index == 0 else None}, content))
    return cells


def _onset_note(line: Line, route: str, onset: Estimate | None) -> Markup | None:
    time = native_time_at(line, onset.value) if onset else None
    curve = line.rows[route].published
    said = [f"t/T {time:.2f}"] if time is not None else []
    said += [curve.tap] if curve and curve.tap else []
    return el("small", None, " · ".join(said)) if said else None


def _estimate(estimate: Estimate | None, marks: Markup | None = None, digits: int = 2) -> Markup:
    if estimate is None:
        return join(["–", marks])
    interval = words.interval(estimate, digits, MINUS)
    small = el("small", None, interval) if interval else None
    return join([el("b", None, words.number(estimate.value, digits, MINUS)), marks, small])
