"""The board as an HTML table: rank, model, oracle gap, and per route onset, width and gap with intervals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from benchsuite.boards import Board, Line, status_words
from benchsuite.report import words
from benchsuite.report.citation import works_in
from benchsuite.report.clocks import native_time_at
from benchsuite.report.losses import TextTable
from benchsuite.report.markup import Markup, el, join
from benchsuite.report.series import Series
from benchsuite.results import Check, Estimate

MINUS = "−"


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


def board_table(board: Board, series: Mapping[tuple[str, str], Series], ident: str) -> Markup:
    """The table with its caption and notes; `ident` is unique on the page."""
    notes = _Notes(ident)
    top = [
        el("th", {"scope": "col", "rowspan": 2}, "rank"),
        el("th", {"scope": "col", "rowspan": 2, "class": "model"}, "model"),
        el("th", {"scope": "col", "rowspan": 2}, "oracle gap"),
        *(
            el("th", {"scope": "colgroup", "colspan": len(board.scalars(x)), "class": "route"}, _route(board, x))
            for x in board.routes
        ),
    ]
    below = [
        el("th", {"scope": "col", "class": "route" if index == 0 else None}, _scalar_head(name, board.unit(route)))
        for route in board.routes
        for index, name in enumerate(board.scalars(route))
    ]
    body = [_line(board, line, series[line.label, line.split], notes) for line in board.lines]
    ranked = (
        f"Ranked by the mean |gap| over {words.enumeration(list(board.ranked_by))}. " if board.ranked_by else ""
    )
    caption = f"{ranked}Small print: 95 % interval, native time t/T at the onset, and the layer read."
    table = el(
        "table",
        {"class": "ranks"},
        el("caption", None, el("span", None, caption)),
        el("thead", None, el("tr", None, *top), el("tr", None, *below)),
        el("tbody", None, *body),
    )
    region = {"class": "scroll", "tabindex": "0", "role": "region", "aria-label": "Leaderboard table"}
    return join([el("div", region, table), notes.list()])


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


def text_table(found: TextTable) -> Markup:
    """A plain table of what log-SNR₅₀ has no place for."""
    heads = [el("th", {"scope": "col"}, name) for name in found.head]
    body = [
        el("tr", None, el("th", {"scope": "row"}, first), *(el("td", None, cell) for cell in rest))
        for first, *rest in found.rows
    ]
    table = el("table", {"class": "checks"}, el("thead", None, el("tr", None, *heads)), el("tbody", None, *body))
    region = {"class": "scroll", "tabindex": "0", "role": "region", "aria-label": found.title}
    return join([el("h3", {"class": "apart"}, found.title), el("div", region, table)])


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


def _line(board: Board, line: Line, series: Series, notes: _Notes) -> Markup:
    facts = line.any_row
    said = dict.fromkeys(filter(None, [facts.family, facts.space, *works_in(facts.paper)]))
    about = " · ".join(word for word in said if word != line.label)
    stroke = el("path", {"class": f"line {series.style}", "d": "M1 6H23"})
    swatch = el(
        "svg",
        {"class": "swatch", "viewBox": "0 0 24 12", "width": 24, "height": 12, "aria-hidden": "true"},
        stroke,
    )
    name = join([swatch, line.title, notes.mark(f"No rank: {line.unranked}.") if line.unranked else None])
    cells = [
        el("td", {"class": "rank"}, line.place or "–"),
        el("th", {"scope": "row", "class": "model"}, name, el("small", None, about)),
        el("td", {"class": "score"}, "–" if line.oracle else _estimate(line.score)),
    ]
    for route in board.routes:
        cells += _cells(line, route, board.scalars(route), notes)
    return el("tr", {"class": "oracle" if line.oracle else None}, *cells)


def _cells(line: Line, route: str, scalars: Sequence[str], notes: _Notes) -> list[Markup]:
    row = line.rows.get(route)
    if row is None or not row.ok:
        note = notes.mark(row.reason) if row and row.reason else None
        status = el("span", {"class": f"status {row.status if row else 'absent'}"}, status_words(row), note)
        return [el("td", {"class": "route none", "colspan": len(scalars)}, status)]
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
