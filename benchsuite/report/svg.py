"""SVG primitives: linear scales, round ticks, polylines with gaps, interval bands."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Scale:
    """The linear map that takes `domain` to `pixels`; either may run downwards."""

    domain: tuple[float, float]
    pixels: tuple[float, float]

    def __call__(self, value: float) -> float:
        """Pixel of `value`, not clipped."""
        (a, b), (p, q) = self.domain, self.pixels
        return p + (value - a) / (b - a) * (q - p)


def nice_step(span: float, most: int) -> float:
    """The smallest of 1, 2, 5 × 10^k that cuts `span` > 0 into at most `most` intervals."""
    step = 10.0 ** math.floor(math.log10(span / most))
    return next(step * m for m in (1, 2, 5, 10) if span / (step * m) <= most * (1 + 1e-9))


def nice_ticks(low: float, high: float, most: int = 6) -> list[float]:
    """Round numbers within [low, high], at most `most` + 1 of them, ascending."""
    step = nice_step(high - low, most)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [round(k * step, 10) for k in range(first, last + 1)]


def tick_text(value: float, step: float) -> str:
    """`value` with the decimals that `step` needs, and a true minus sign."""
    digits = max(0, -math.floor(math.log10(step) + 1e-9))
    text = f"{value:.{digits}f}"
    return text.replace("-", "−") if float(text) else text.lstrip("-")


def line_path(xs: Sequence[float], ys: Sequence[float], x: Scale, y: Scale) -> str:
    """Path data of a polyline; a NaN breaks it."""
    # A lone point is drawn as a line of no length, which round caps show as a dot.
    runs = (run * 2 if len(run) == 1 else run for run in _runs(xs, ys))
    return "".join("M" + "L".join(_without_level(list(_points(run, x, y)))) for run in runs)


def dots_path(xs: Sequence[float], ys: Sequence[float], x: Scale, y: Scale) -> str:
    """Path data of dots: lines of no length, which round caps show."""
    return "".join(f"M{point}h0" for run in _runs(xs, ys) for point in _points(run, x, y))


def band_path(xs: Sequence[float], low: Sequence[float], high: Sequence[float], x: Scale, y: Scale) -> str:
    """Path data of the area between two curves; a NaN in either breaks it."""
    path = ""
    for run in _runs(xs, low, high):
        there, back = [(p[0], p[1]) for p in run], [(p[0], p[2]) for p in reversed(run)]
        path += "M" + "L".join(_without_level(list(_points([*there, *back], x, y)))) + "Z"
    return path


def fixed(value: float) -> str:
    """A coordinate to 1/100 pixel, without trailing zeros."""
    text = f"{value:.2f}".rstrip("0").rstrip(".")
    return "0" if text == "-0" else text


def _without_level(points: list[str]) -> list[str]:
    """The same polyline without points in the middle of a level stretch, of which saturated curves are full."""
    heights = [point.partition(" ")[2] for point in points]
    ends = (0, len(points) - 1)
    return [p for i, p in enumerate(points) if i in ends or not heights[i - 1] == heights[i] == heights[i + 1]]


def _points(run: Sequence[Sequence[float]], x: Scale, y: Scale) -> Iterator[str]:
    for point in run:
        yield f"{fixed(x(point[0]))} {fixed(y(point[1]))}"


def _runs(*columns: Sequence[float]) -> Iterator[list[tuple[float, ...]]]:
    """Stretches of consecutive points without a NaN."""
    run: list[tuple[float, ...]] = []
    for point in zip(*columns, strict=True):
        if all(math.isfinite(value) for value in point):
            run.append(point)
        elif run:
            yield run
            run = []
    if run:
        yield run
