"""The boards as rich tables that fit a terminal of 100 columns."""

from __future__ import annotations

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from benchsuite.boards import Board, Line, board_notes, boards, cells_without_values, status_words
from benchsuite.report import losses, orders, words
from benchsuite.results import Estimate, Results, Row, parse_results

_FIXED, _PER_ROUTE = 40, 19  #: columns that the model's own cells and one route take
_MODEL, _SCALAR = 26, 16  #: the most that the first and any other column of scalars take


def render_terminal(results: object, console: Console) -> None:
    """Print the boards of a results document: rank, oracle gap and log-SNR₅₀ by route, with intervals.

    Routes that do not fit beside each other continue in a further table. Every cell without a value is listed
    with its reason.

    Raises:
        UsageError: `results` is not a results document.
    """
    parsed = parse_results(results)
    pivoted = boards(parsed)
    for dataset in dict.fromkeys(board.dataset for board in pivoted):
        _orders(parsed, dataset, pivoted, console)
    for board in pivoted:
        console.print()
        console.print(_text(board.title, "bold"))
        console.print(_text(words.headline(board)))
        fit = max(1, (console.width - _FIXED) // _PER_ROUTE)
        for start in range(0, len(board.columns), fit):
            console.print(_table(board, board.columns[start : start + fit]))
        for table in losses.own_tables(board):
            for columns in _parts(table, console.width - _MODEL):
                console.print(_scalars(table, columns))
        if said := words.curves_only(board):
            console.print(_text(said, "dim"))
        for table in losses.tables(board):
            for first, *rest in table.rows:
                named = zip(table.head if "" in rest else table.head[1:], filter(None, rest), strict=False)
                facts = ", ".join(f"{name} {cell}" for name, cell in named)  # a status is that of the whole row
                console.print(_text(f"{first}: {facts}", "dim"))
        if board.checks:
            console.print(_checks(board))
        for route in board.routes:
            verdict = board.calibration.get(route)
            if route in board.calibration and not (verdict and verdict.passed):
                console.print(_text(f"* {route}: {words.verdict_words(board, route)}", "yellow"))
        for note in board_notes(board):
            console.print(_text(f"* {note[0]}, {note[1]}: {note[2]}", "yellow"))
    for row, cells in cells_without_values(parsed):
        status = f"{status_words(row)} ({row.stage})" if row.stage else status_words(row)
        told = f"{status}: {row.reason}" if row.reason else status
        console.print(_text(row.label, "bold"), _text(told, _style(row)), _text(", ".join(cells), "dim"))
    if not pivoted or any(board.ranks for board in pivoted):
        console.print(
            _text("log-SNR₅₀: lower = fixed earlier, at more noise. Gap: 0 = ideal. = shared rank.", "dim")
        )


def _orders(results: Results, dataset: str, pivoted: tuple[Board, ...], console: Console) -> None:
    """Who fixes what first: a line per model and route."""
    found, titles = orders.orders_of(results, dataset), orders.titles_of(pivoted)
    for metric, entries in found.items():
        console.print()
        console.print(_text(f"{dataset} · order of emergence by {metric}", "bold"))
        for entry in entries:
            tau = f" (Kendall's tau {orders.tau_text(entry)})" if entry.tau else ""
            title = titles.get((entry.label, dataset, entry.split), entry.label)
            console.print(_text(f"{title}: "), _text(orders.arrows(entry)), _text(tau, "dim"), sep="")


def _table(board: Board, routes: tuple[str, ...]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1), pad_edge=False)
    if board.ranks:
        table.add_column("#", justify="right", no_wrap=True)
    table.add_column("model", max_width=26, overflow="fold")
    if board.ranks:
        table.add_column("oracle gap", justify="right", min_width=12)
    first = {route: board.scalars(route)[0] for route in routes}  # log-SNR₅₀ where there is one
    for route in routes:
        head = _text(f"{route}\n{words.scalar_title(first[route])}")
        table.add_column(head, justify="right", max_width=18, overflow="fold")
    for line in board.lines:
        name = _text(line.title, "bold" if line.rank == 1 else "cyan" if line.oracle else "")
        own = [_text(line.place or "–"), name, _estimate(line.score)] if board.ranks else [name]
        table.add_row(*own, *(_cell(line, route, first[route]) for route in routes))
    return table


def _parts(found: losses.TextTable, room: int) -> list[list[int]]:
    """The columns of a table of scalars that fit beside each other, part by part; the first column is in each."""
    parts: list[list[int]] = [[]]
    left = room
    for index in range(1, len(found.head)):
        width = _width(found, index) + 2
        if width > left and parts[-1]:
            parts.append([])
            left = room
        parts[-1].append(index)
        left -= width
    return parts


def _width(found: losses.TextTable, index: int) -> int:
    """Of a column whose head wraps between words and whose intervals stand below their values."""
    cells = (part for row in found.rows for part in row[index].split(" ", 1))
    return min(_SCALAR, max(map(len, [*found.head[index].split(), *cells])))


def _scalars(found: losses.TextTable, columns: list[int]) -> Table:
    """Some columns of a table of scalars, their intervals below them."""
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1), pad_edge=False)
    table.add_column(_text(found.head[0]), max_width=_MODEL, overflow="fold")
    for index in columns:
        table.add_column(_text(found.head[index]), justify="right", width=_width(found, index), overflow="fold")
    for row in found.rows:
        table.add_row(_text(row[0]), *(_text(row[index].replace(" [", "\n[")) for index in columns))
    return table


def _checks(board: Board) -> Table:
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1), pad_edge=False)
    table.add_column("consistency", max_width=26, overflow="fold")
    for name in board.checks:
        table.add_column(_text(name), justify="right", max_width=18, overflow="fold")
    for line in board.lines:
        if line.checks:
            found = [line.checks.get(name) for name in board.checks]
            table.add_row(_text(line.title), *(_estimate(c.deviation if c else None, 3) for c in found))
    return table


def _cell(line: Line, route: str, scalar: str) -> Text:
    row = line.rows.get(route)
    if row is None or not row.ok:
        return _text(status_words(row), _style(row))
    text = _estimate(row.scalars.get(scalar))
    return text.append(" *", style="yellow") if row.flags or row.scalar_notes else text


def _estimate(estimate: Estimate | None, digits: int = 2) -> Text:
    if estimate is None:
        return _text("–")
    interval = words.interval(estimate, digits)
    return Text.assemble(words.number(estimate.value, digits), ("\n" + interval if interval else "", "dim"))


def _style(row: Row | None) -> str:
    return "dim" if row is None or row.status == "not_applicable" else "red"


def _text(said: str, style: str = "") -> Text:
    """Literal text: no rich markup is read and no control character of a plugin's string reaches the terminal."""
    return Text("".join(c if c.isprintable() or c == "\n" else "�" for c in said), style=style)
