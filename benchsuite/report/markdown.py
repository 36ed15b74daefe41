"""leaderboard.md: the boards as GitHub tables, every cell without a value, the legend and the provenance."""

from __future__ import annotations

import re
from collections.abc import Sequence

from benchsuite.boards import Board, Line, board_notes, boards, cells_without_values, status_words
from benchsuite.report import losses, orders, words
from benchsuite.report.citation import bibtex
from benchsuite.results import Check, Results

_ESCAPES = {"&": "&amp;", "<": "&lt;", ">": "&gt;"} | {c: f"\\{c}" for c in "\\`*[]|~$"}
#: Underscores inside a word are literal in GitHub's dialect; only those at an edge of a word can open emphasis.
_EDGE_UNDERSCORE = re.compile(r"(?<![^\W_])_|_(?![^\W_])")


def markdown_text(results: Results) -> str:
    """The whole report in Markdown; every string of the document is escaped."""
    parts = ["# Leaderboard", _provenance_line(results)]
    pivoted = boards(results)
    for board in pivoted:
        parts += _orders(results, board, pivoted) + _board(board)
    parts += _missing(results)
    parts += ["## How to read it", *(f"* **{term}**: {text}" for term, text in words.LEGEND)]
    parts += ["## Provenance", *(f"* {name}: {escape(value)}" for name, value in words.provenance_items(results))]
    parts += ["## How to cite", f"{fence}bibtex\n{bibtex(results)}{fence}"]
    return _join(parts)


def escape(text: str) -> str:
    """`text` as literal Markdown on one line, safe inside a table cell."""
    literal = "".join(_ESCAPES.get(character, character) for character in " ".join(text.split()))
    return _EDGE_UNDERSCORE.sub(r"\\_", literal)


fence = "```"


def _board(board: Board) -> list[str]:
    facts = "; ".join(f"{escape(name)}: {escape(value)}" for name, value in words.board_facts(board))
    parts = [f"## {escape(board.title)}", escape(words.headline(board))]
    parts += [f"{facts}."] if facts else []
    parts += [_table(board)] if board.columns else [_own_table(board, x) for x in losses.own_tables(board)]
    parts += [escape(said)] if (said := words.curves_only(board)) else []
    verdicts = [(route, words.verdict_words(board, route)) for route in board.routes]
    parts += [f"* {escape(route)}: {escape(said)}" for route, said in verdicts if said]
    if board.ranked_by:
        parts.append(f"Ranked by the mean oracle gap over {escape(words.enumeration(list(board.ranked_by)))}.")
    parts += [_text_table(table) for table in losses.tables(board)]
    parts += _consistency(board)
    parts += [
        f"* {escape(x.title)} has no rank: {escape(x.unranked)}" for x in board.lines if x.unranked and board.ranks
    ]
    parts += [f"* {escape(title)}, {escape(route)}: {escape(text)}" for title, route, text in board_notes(board)]
    return parts


def _table(board: Board) -> str:
    head = ["rank", "model", "oracle gap"] if board.ranks else ["model"]
    under = ["--:", ":--", "--:"] if board.ranks else [":--"]
    for route in board.columns:
        head += [f"{escape(route)} {_scalar_head(name, board.unit(route))}" for name in board.scalars(route)]
    table = [head, [*under, *["--:"] * (len(head) - len(under))], *(_line(board, line) for line in board.lines)]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in table)


def _line(board: Board, line: Line) -> list[str]:
    score = "–" if line.oracle or line.score is None else words.estimate_text(line.score)
    name = f"**{escape(line.title)}**" if line.oracle else escape(line.title)
    cells = [line.place or "–", name, score] if board.ranks else [name]
    for route in board.columns:
        row = line.rows.get(route)
        if row is None or not row.ok:
            cells += [status_words(row), *[""] * (len(board.scalars(route)) - 1)]
        else:
            cells += [words.estimate_text(row.scalars.get(name)) for name in board.scalars(route)]
    return cells


def _scalar_head(name: str, unit: str) -> str:
    said = words.scalar_unit(name, unit)
    return escape(words.scalar_title(name) + (f" ({said})" if said else ""))


def _orders(results: Results, board: Board, pivoted: Sequence[Board]) -> list[str]:
    """The orders of emergence of a data set, above the first of its boards."""
    found = orders.orders_of(results, board.dataset)
    if not found or next(b for b in pivoted if b.dataset == board.dataset) is not board:
        return []
    titles = orders.titles_of(pivoted)
    parts = [f"## {escape(board.dataset)} · order of emergence"]
    for metric, entries in found.items():
        head = f"by {escape(metric)}, the earliest first, with log-SNR₅₀"
        table = [["model", head, "Kendall's τ"], [":--", ":--", "--:"]]
        for entry in entries:
            title = titles.get((entry.label, entry.dataset, entry.split), entry.label)
            table.append([escape(title), escape(orders.arrows(entry, values=True)), orders.tau_text(entry)])
        parts.append("\n".join(f"| {' | '.join(cells)} |" for cells in table))
    left = {f"{f}: {why}" for entries in found.values() for e in entries for f, why in e.left_out.items()}
    parts.append("≈: cannot be told apart. τ: rank correlation with the oracle's order by the same route.")
    return parts + [f"* without a place: {escape(text)}" for text in sorted(left)]


def _consistency(board: Board) -> list[str]:
    if not board.checks:
        return []
    table = [["consistency", *map(escape, board.checks)], [":--", *["--:"] * len(board.checks)]]
    for line in board.lines:
        found = [line.checks.get(name) for name in board.checks]
        if any(found):
            said = [_check(c) if c else "–" for c in found]
            table.append([escape(line.title), *said])
    return ["\n".join(f"| {' | '.join(cells)} |" for cells in table)]


def _check(check: Check) -> str:
    failed = f", fails: {', '.join(check.failed)}" if check.failed else ""
    return f"{words.estimate_text(check.deviation, 3)} {escape(check.unit + failed)}"


def _text_table(table: losses.TextTable) -> str:
    rows = [table.head, [":--", *["--:"] * (len(table.head) - 1)], *table.rows]
    return "\n".join(f"| {' | '.join(map(escape, cells) if cells is not rows[1] else cells)} |" for cells in rows)


def _own_table(board: Board, table: losses.TextTable) -> str:
    """A table in the place of the board's: a row for every line, oracles in bold."""
    head, under, *rows = _text_table(table).splitlines()
    titles = [escape(line.title) for line in board.lines]
    bold = [
        row.replace(f"| {title} ", f"| **{title}** ", 1) if line.oracle else row
        for line, title, row in zip(board.lines, titles, rows, strict=True)
    ]
    return "\n".join([head, under, *bold])


def _missing(results: Results) -> list[str]:
    groups = cells_without_values(results)
    if not groups:
        return []
    lines = [
        f"* {escape(row.label)}: **{status_words(row)}**{f' at {escape(row.stage)}' if row.stage else ''}"
        f"{f', {escape(row.reason)}' if row.reason else ''}. Cells: {escape(', '.join(cells))}"
        for row, cells in groups
    ]
    return ["## Cells without a value", *lines]


def _provenance_line(results: Results) -> str:
    facts = dict(words.provenance_items(results))
    said = [f"benchsuite {facts['benchsuite']}"] + [
        facts[name] for name in ("started", "wall time") if name in facts
    ]
    return escape(", ".join([*said, f"cells: {facts['cells']}"])) + "."


def _join(parts: list[str]) -> str:
    """Blank line between blocks, none between the items of one list."""
    text = ""
    for previous, part in zip(["", *parts], parts, strict=False):
        both_items = previous.startswith("* ") and part.startswith("* ")
        text += ("" if not text else "\n" if both_items else "\n\n") + part
    return text + "\n"
