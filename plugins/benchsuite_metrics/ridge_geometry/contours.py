"""Where a function on a rectangular grid is 0, as polylines; also one whose sign is only known up to a frame."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from benchsuite_metrics.ridge_geometry.points import Floats

#: an edge of the grid: (row, column, 0 to the next column or 1 to the next row)
Edge = tuple[int, int, int]


def level_lines(
    x: Floats,
    y: Floats,
    values: Floats,
    frame: Floats | None = None,
    keep: NDArray[np.bool_] | None = None,
) -> list[Floats]:
    """The zeros of a function by linear interpolation on the edges of a grid (marching squares).

    Args:
        x, y: (n,) and (m,) ascending coordinates.
        values: (m, n), finite.
        frame: (m, n, 2) vectors v such that values (g · v, say) change sign with v, which is only known up to its
            sign: the ends of an edge are compared with their vectors turned the same way.
        keep: (m, n) nodes; cells with another corner are left out.

    Returns:
        Polylines (k, 2), each point (x, y); a closed line ends where it begins.
    """
    across, down = _crossed(values, frame, 1), _crossed(values, frame, 0)  # (m, n - 1) and (m - 1, n)
    cells = np.ones((len(y) - 1, len(x) - 1), dtype=bool)
    if keep is not None:
        cells = keep[:-1, :-1] & keep[:-1, 1:] & keep[1:, :-1] & keep[1:, 1:]
    sides = across[:-1].astype(int) + across[1:] + down[:, :-1] + down[:, 1:]
    joined: dict[Edge, list[Edge]] = {}
    # a cell with one or three crossed sides holds a point around which the frame turns: no line passes
    for i, j in np.argwhere(cells & ((sides == 2) | (sides == 4))).tolist():
        around: list[tuple[Edge, bool]] = [
            ((i, j, 0), across[i, j]),
            ((i, j, 1), down[i, j]),
            ((i + 1, j, 0), across[i + 1, j]),
            ((i, j + 1, 1), down[i, j + 1]),
        ]
        edges = [edge for edge, is_crossed in around if is_crossed]
        for a, b in zip(edges[::2], edges[1::2], strict=True):
            joined.setdefault(a, []).append(b)
            joined.setdefault(b, []).append(a)
    return [np.array([_crossing(edge, x, y, values) for edge in chain]) for chain in _chains(joined)]


def simplified(line: Floats, tolerance: float) -> Floats:
    """Those points of a polyline (k, 2) that leave it within `tolerance` of itself (Ramer, Douglas & Peucker)."""
    kept = np.zeros(len(line), dtype=bool)
    kept[[0, -1]] = True
    pending = [(0, len(line) - 1)]
    while pending:
        first, last = pending.pop()
        if last - first < 2:
            continue
        offset, chord = line[first + 1 : last] - line[first], line[last] - line[first]
        squared = float(chord @ chord)
        # a closed line begins where it ends: its chord is a point
        along = np.clip(offset @ chord / squared, 0, 1) if squared else np.zeros(len(offset))
        distance = np.linalg.norm(offset - along[:, None] * chord, axis=1)
        if distance.max() > tolerance:
            middle = first + 1 + int(distance.argmax())
            kept[middle] = True
            pending += [(first, middle), (middle, last)]
    return line[kept]


def _crossed(values: Floats, frame: Floats | None, axis: int) -> NDArray[np.bool_]:
    """Edges along an axis of the grid whose ends have different signs."""
    first, second = (values[:, :-1], values[:, 1:]) if axis else (values[:-1], values[1:])
    if frame is not None:
        here, there = (frame[:, :-1], frame[:, 1:]) if axis else (frame[:-1], frame[1:])
        second = np.where((here * there).sum(axis=-1) < 0, -second, second)
    found: NDArray[np.bool_] = (first > 0) != (second > 0)
    return found


def _chains(joined: dict[Edge, list[Edge]]) -> list[list[Edge]]:
    """Walks that use every join once: from loose ends first, what is left are loops."""
    chains = []
    loose = [edge for edge, others in joined.items() if len(others) == 1]
    for start in [*loose, *joined]:
        while joined[start]:
            chain = [start]
            while joined[chain[-1]]:
                following = joined[chain[-1]].pop()
                joined[following].remove(chain[-1])
                chain.append(following)
            chains.append(chain)
    return chains


def _crossing(edge: Edge, x: Floats, y: Floats, values: Floats) -> tuple[float, float]:
    i, j, down = edge
    first, second = abs(values[i, j]), abs(values[i + down, j + 1 - down])
    share = float(first / (first + second)) if first + second else 0.5
    if down:
        return float(x[j]), float(y[i] + share * (y[i + 1] - y[i]))
    return float(x[j] + share * (x[j + 1] - x[j])), float(y[i])
