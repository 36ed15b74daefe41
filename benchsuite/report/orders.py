"""Orders of emergence in words: what becomes fixed first, and how far each model follows the oracle."""

from __future__ import annotations

from collections.abc import Sequence

from benchsuite.boards import Board
from benchsuite.report import words
from benchsuite.results import Emergence, Results


def orders_of(results: Results, dataset: str) -> dict[str, list[Emergence]]:
    """{route: the order of every model by it}, oracles first, in the order of the document."""
    found: dict[str, list[Emergence]] = {}
    for entry in results.emergence:
        if entry.dataset == dataset:
            found.setdefault(entry.metric, []).append(entry)
    for entries in found.values():
        entries.sort(key=lambda entry: entry.reference is not None)
    return found


def titles_of(boards: Sequence[Board]) -> dict[tuple[str, str, str], str]:
    """{(label, data set, split): how the boards call that line}."""
    return {(line.label, board.dataset, line.split): line.title for board in boards for line in board.lines}


def arrows(entry: Emergence, values: bool = False, minus: str = "-") -> str:
    """The text "floor ≈ wall → shape"; ≈ joins factors that cannot be told apart, `values` adds their onsets."""
    text = ""
    for place in entry.order:
        sign = " ≈ " if place.tied else " → "
        value = f" {words.number(place.log_snr_50.value, 2, minus)}" if values else ""
        text += (sign if text else "") + place.factor + value
    return text or "no factor is fixed"


def tau_text(entry: Emergence, minus: str = "-") -> str:
    """The text "0.93 [0.87, 1.00]", "–" where there is nothing to compare with."""
    if entry.tau is None:
        return "–"
    return f"{words.number(entry.tau.value, 2, minus)} {words.interval(entry.tau, 2, minus)}".rstrip()
