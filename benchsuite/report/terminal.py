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
        title = " · ".join(filter(None, [board.dataset, board.factor]))
        console.print()
        console.print(_text(title, "bold"))
        console.print(_text(words.headline(board)))
        fit = max(1, (console.width - _FIXED) // _PER_ROUTE)
        for start in range(0, len(board.routes), fit):
            console.print(_table(board, board.routes[start : start + fit]))
        for table in losses.tables(board):
            for first, *rest in table.rows:
                facts = ", ".join(f"{name} {cell}" for name, cell in zip(table.head[1:], rest, strict=True))
                console.print(_text(f"{first}: {facts}", "dim"))
        if board.checks:
            console.print(_checks(board))
        for route in board.routes:
            verdict = board.calibration.get(route)
            if route in board.calibration and not (verdict and verdict.passed):
                console.print(_text(f"* {route}: {words.verdict_words(board, route)}", "yellow"))
        for said in board_notes(board):
            console.print(_text(f"* {said[0]}, {said[1]}: {said[2]}", "yellow"))
    for row, cells in cells_without_values(parsed):
        status = f"{status_words(row)} ({row.stage})" if row.stage else status_words(row)
        told = f"{status}: {row.reason}" if row.reason else status
        console.print(_text(row.label, "bold"), _text(told, _style(row)), _text(", ".join(cells), "dim"))
    console.print(_text("log-SNR₅₀: lower = fixed earlier, at more noise. Gap: 0 = ideal. = shared rank.", "dim"))


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
    table.add_column("#", justify="right", no_wrap=True)
    table.add_column("model", max_width=26, overflow="fold")
    table.add_column("oracle gap", justify="right", min_width=12)
    for route in routes:
        table.add_column(_text(f"{route}\nlog-SNR₅₀"), justify="right", max_width=18, overflow="fold")
    for line in board.lines:
        name = _text(line.title, "bold" if line.rank == 1 else "cyan" if line.oracle else "")
        table.add_row(
            _text(line.place or "–"), name, _estimate(line.score), *(_cell(line, route) for route in routes)
        )
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


def _cell(line: Line, route: str) -> Text:
    row = line.rows.get(route)
    if row is None or not row.ok:
        return _text(status_words(row), _style(row))
    text = _estimate(row.scalars["log_snr_50"])
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
