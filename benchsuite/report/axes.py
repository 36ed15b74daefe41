"""The frame of a curve panel: log-SNR below, native time above, one y axis with its floor, half and ceiling."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from benchsuite.report.clocks import Clock
from benchsuite.report.markup import Markup, el, join
from benchsuite.report.svg import Scale, fixed, nice_step, nice_ticks, tick_text
from benchsuite.results import CurvePoints

#: Times worth a label on a native axis, the most wanted first.
_TIMES = (0.2, 0.4, 0.6, 0.8, 0.0, 1.0, 0.5, 0.1, 0.3, 0.7, 0.9, 0.05, 0.95, 0.02, 0.01, 0.98, 0.99)


def text(x: float, y: float, said: str, anchor: str | None = "middle", style: str = "") -> Markup:
    """A label at a point; `style` are CSS classes, and without an `anchor` that of the group holds."""
    return el("text", {"x": fixed(x), "y": fixed(y), "text-anchor": anchor, "class": style or None}, said)


def rule(x1: float, y1: float, x2: float, y2: float, style: str) -> Markup:
    """A straight line of a CSS class."""
    ends = {"x1": fixed(x1), "y1": fixed(y1), "x2": fixed(x2), "y2": fixed(y2)}
    return el("line", {**ends, "class": style})


def upright(xs: Sequence[float], top: float, bottom: float, style: str) -> Markup:
    """Vertical lines as one path: pages hold thousands of them."""
    return el("path", {"class": style, "d": "".join(f"M{fixed(x)} {fixed(top)}V{fixed(bottom)}" for x in xs)})


def level(ys: Sequence[float], left: float, right: float, style: str) -> Markup:
    """Horizontal lines as one path."""
    return el("path", {"class": style, "d": "".join(f"M{fixed(left)} {fixed(y)}H{fixed(right)}" for y in ys)})


def x_axis(x: Scale, top: float, bottom: float, most: int = 9, loss: str = "") -> Markup:
    """Grid, ticks and numbers of the log-SNR axis, or of the axis of a `loss`, and which end is noise."""
    step = nice_step(x.domain[1] - x.domain[0], most)
    at = nice_ticks(*x.domain, most)
    parts = [upright([x(tick) for tick in at], top, bottom, "grid")]
    parts += [text(x(tick), bottom + 14, tick_text(tick, step), None) for tick in at]
    left, right = x.pixels
    parts += [
        text((left + right) / 2, bottom + 30, loss or "log-SNR", None, "name"),
        text(left, bottom + 30, "← clean" if loss else "← noise", "start"),
        text(right, bottom + 30, "noise →" if loss else "clean →", "end"),
    ]
    return el("g", {"class": "axis", "text-anchor": "middle"}, *parts)


def y_axis(y: Scale, left: float, right: float, most: int = 6, log: bool = False) -> Markup:
    """Grid and numbers of the value axis; a logarithmic one holds decimal logarithms."""
    at = list(ticks(y, log, most))
    labels = [text(left - 6, pixel + 4, said, None) for pixel, said in at]
    lines = level([pixel for pixel, _ in at], left, right, "grid")
    return el("g", {"class": "axis", "text-anchor": "end"}, lines, *labels)


def ticks(scale: Scale, log: bool, most: int = 6) -> Iterator[tuple[float, str]]:
    """(pixel, label) of an axis; a logarithmic one has decades, or 1, 2, 5 of each where there are few of them."""
    low, high = scale.domain
    if log:
        decades = range(math.floor(low), math.ceil(high) + 1)
        every = max(1, math.ceil(len(decades) / (most + 1)))
        for decade in decades[::every]:
            for leading in (1, 2, 5) if len(decades) <= 4 else (1,):
                if low <= (tick := decade + math.log10(leading)) <= high:
                    yield scale(tick), _decade_text(leading, decade)
    else:
        step = nice_step(high - low, most)
        for tick in nice_ticks(low, high, most):
            yield scale(tick), tick_text(tick, step)


def _decade_text(leading: int, decade: int) -> str:
    """The number `leading` × 10^`decade`, written out where that is short."""
    return f"{leading * 10.0**decade:g}" if -3 <= decade < 3 else f"{leading}e{decade}".replace("-", "−")


def time_axis(clock: Clock, x: Scale, top: float, classes: str) -> Markup:
    """The t/T axis of one clock along the upper edge; hidden or shown by its classes."""
    at = time_ticks(clock, x)
    name = text(x.pixels[0], top - 24, f"t/T, {clock.label}", "start", "name")
    lines = upright([pixel for _, pixel in at], top - 5, top, "tick")
    labels = [text(pixel, top - 9, f"{time:g}", None) for time, pixel in at]
    return el("g", {"class": classes, "text-anchor": "middle"}, name, lines, *labels)


def time_ticks(
    clock: Clock, x: Scale, room: float = 25, times: Sequence[float] = _TIMES
) -> list[tuple[float, float]]:
    """(t/T, pixel) of the ticks that fit with `room` pixels between them, left to right."""
    left, right = x.pixels
    kept: list[tuple[float, float]] = []
    for time in times:
        place = clock.place(time)
        if place is None or not left <= (pixel := x(place)) <= right:
            continue
        if all(abs(pixel - other) >= room for _, other in kept):
            kept.append((time, pixel))
    return sorted(kept, key=lambda tick: tick[1])


def levels(y: Scale, left: float, right: float, curve: CurvePoints, entropy: bool) -> Markup:
    """The lines that mean not fixed, half and entirely fixed; `entropy` when the upper one is H.

    A curve that falls while the factor is fixed (fork entropy) has its floor above its ceiling.
    """
    lower, upper = sorted((curve.floor, curve.ceiling))
    names = ("H", "H/2", "") if entropy else ("ceiling", "half way", "floor")
    if not entropy and curve.floor > curve.ceiling:
        names = ("floor", "half way", "ceiling")
    parts = [
        rule(left, y(upper), right, y(upper), "level"),
        text(left + 5, y(upper) - 4, f"{names[0]} = {tick_text(upper, 0.01)}", "start", "note"),
        rule(left, y(curve.half), right, y(curve.half), "level half"),
        text(left + 5, y(curve.half) - 4, names[1], "start", "note"),
    ]
    if lower > y.domain[0]:
        parts.append(rule(left, y(lower), right, y(lower), "level"))
    if lower and names[2]:
        parts.append(text(right - 5, y(lower) - 4, f"{names[2]} = {tick_text(lower, 0.01)}", "end", "note"))
    return join(parts)
