"""Results of conformance checks as a terminal table."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console

_STYLE = {"passed": "green", "skipped": "dim", "failed as expected": "yellow"}


def render(results: Sequence[Mapping[str, Any]], console: Console) -> None:
    """Print one line per check, and what each failed one promises; `results` as `CheckResult.plain` gives them."""
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False)
    for heading in ("check", "verdict", "observed", "expected"):
        table.add_column(heading, overflow="fold")
    for result in results:
        status, skipped = result["status"], result["status"] == "skipped"
        seen, wanted = (result["reason"], "") if skipped else (result["observed"], result["expected"])
        cells = [Text(result["name"]), Text(status, _STYLE.get(status, "red"))]
        table.add_row(*cells, *(Text(text, "dim" if skipped else "") for text in (seen, wanted)))
    console.print(table)
    for result in results:
        if not result["ok"]:
            line = f"{result['name']}: {result['subject']} promises that {result['promise']}"
            console.print(Text(line, "red"))
    counted = Counter(result["status"] for result in results)
    console.print(", ".join(f"{count} {status}" for status, count in counted.items()))
