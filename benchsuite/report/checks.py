"""Results of conformance checks as a terminal table."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

    from benchsuite.testing import CheckResult

_STYLE = {"passed": "green", "skipped": "dim", "failed as expected": "yellow"}


def render(results: Sequence[CheckResult], console: Console) -> None:
    """Print one line per check, and what each failed one promises."""
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False)
    for heading in ("check", "verdict", "observed", "expected"):
        table.add_column(heading, overflow="fold")
    for result in results:
        style = _STYLE.get(result.status, "red")
        seen, wanted = (result.reason, "") if result.status == "skipped" else (result.observed, result.expected)
        cells = [Text(result.name), Text(result.status, style)]
        table.add_row(
            *cells, *(Text(text, "dim" if result.status == "skipped" else "") for text in (seen, wanted))
        )
    console.print(table)
    for result in results:
        if not result.ok:
            console.print(Text(f"{result.name}: {result.subject} promises that {result.promise}", "red"))
    counted = Counter(result.status for result in results)
    console.print(", ".join(f"{count} {status}" for status, count in counted.items()))
