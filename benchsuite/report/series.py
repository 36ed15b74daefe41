"""Which colour, dash and mark stand for which line: the same model looks the same on the whole page."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from benchsuite.boards import Board

COLOURS = 7  #: .c0 … in the style sheet, told apart with any of the usual colour-vision deficiencies
DASHES = 5  #: .d0 …; no common factor with COLOURS, so 35 models are distinct even without colour


@dataclass(frozen=True)
class Series:
    """How one line is drawn: `key` toggles it, `style` are its CSS classes."""

    key: str
    style: str

    @property
    def classes(self) -> str:
        """All classes of an element that belongs to the series."""
        return f"series {self.key} {self.style}"


def assign_series(boards: tuple[Board, ...]) -> Mapping[tuple[str, str], Series]:
    """{(label, split): series}: models in colour, oracles in ink, dashed on images they have not seen."""
    found: dict[tuple[str, str], Series] = {}
    counts = {True: 0, False: 0}
    for line in (line for board in boards for line in board.lines):
        identity = (line.label, line.split)
        if identity in found:
            continue
        index, counts[line.oracle] = counts[line.oracle], counts[line.oracle] + 1
        ink = "ink d1" if line.title != line.label and line.split != "train" else "ink d0"
        style = ink if line.oracle else f"c{index % COLOURS} d{index % DASHES}"
        found[identity] = Series(f"s{len(found)}", style)
    return found
