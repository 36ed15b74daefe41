"""Which colour, dash and mark stand for which line: the same model looks the same on the whole page."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from benchsuite.boards import OWN_DATA, Board

COLOURS = 7  #: .c0 … in the style sheet, told apart with any of the usual colour-vision deficiencies
DASHES = 5  #: .d0 …; no common factor with COLOURS, so 35 models are distinct even without colour
_INK = {"ideal": (0, 4), "unseen": (1, 3)}  #: dashes of oracles


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
    """{(label, split): series}: models in colour, oracles of data sets in ink.

    The first oracle's line is whole, those of other spaces have long dashes and those on images that they never
    saw short ones.
    """
    found: dict[tuple[str, str], Series] = {}
    counts = {"model": 0, "ideal": 0, "unseen": 0}
    for board, line in ((one, line) for one in boards for line in one.lines):
        identity = (line.label, line.split)
        if identity in found:
            continue
        # an exact model on data of its own is the ideal of nothing else on the board
        ideal = line.oracle and board.dataset != OWN_DATA
        unseen = ideal and line.title != line.label and line.split != "train"
        kind = "unseen" if unseen else "ideal" if ideal else "model"
        index, counts[kind] = counts[kind], counts[kind] + 1
        style = f"ink d{_INK[kind][index % 2]}" if ideal else f"c{index % COLOURS} d{index % DASHES}"
        found[identity] = Series(f"s{len(found)}", style)
    return found
