"""Drawings: data of a row become pictures, whatever is in them, and nothing in them becomes markup."""

from __future__ import annotations

import math
import re
from typing import Any

import pytest
from results_factory import MI, document, measured

from benchsuite.report.drawings import LEFT, RIGHT, TOP, drawing
from benchsuite.report.html import html_text
from benchsuite.results import parse_results


def layer(**changes: Any) -> dict[str, Any]:
    return {"kind": "line", "name": "a", "style": "c0", "x": [0.0, 1.0, 2.0], "y": [1.0, 3.0, 2.0], **changes}


def one(*layers: Any, **panel: Any) -> dict[str, Any]:
    return {"title": "all", "panels": [{"title": "one", "layers": list(layers), **panel}]}


def paths(data: dict[str, Any]) -> list[str]:
    drawn = drawing(data)
    assert drawn is not None
    return re.findall(r'<path class="(?!grid)[^"]*" d="([^"]*)">', drawn.split('<svg class="panel"')[1])


def numbers(path: str) -> list[float]:
    return [float(v) for v in re.findall(r"-?[0-9.]+", path)]


def test_ends_of_an_axis_are_the_edges_of_the_plot() -> None:
    ends = {"low": 0.0, "high": 2.0}
    (path,) = paths(one(layer(y=[0.0, 1.0, 2.0]), x=ends, y=ends, square=True))
    side = RIGHT - LEFT
    expected = [LEFT, TOP + side, LEFT + side / 2, TOP + side / 2, RIGHT, TOP]
    assert numbers(path) == pytest.approx(expected)


def test_logarithmic_axes() -> None:
    axis = {"low": 0.01, "high": 100.0, "log": True}
    (path,) = paths(one(layer(x=[0.01, 1.0, 100.0]), x=axis))
    assert numbers(path)[::2] == pytest.approx([LEFT, (LEFT + RIGHT) / 2, RIGHT])
    text = str(drawing(one(layer(x=[0.01, 1.0, 100.0]), x=axis)))
    assert all(f">{label}<" in text for label in ("0.01", "0.1", "1", "10", "100"))
    # what has no logarithm is left out
    (path,) = paths(one(layer(x=[0.0, 1.0, 100.0]), x={"log": True}))
    assert len(numbers(path)) == 4


def test_null_breaks_a_line_and_dots_are_dots() -> None:
    (path,) = paths(one(layer(x=[0.0, 1.0, None, 3.0, 4.0], y=[0.0, 1.0, 2.0, 3.0, 4.0])))
    assert path.count("M") == 2
    (path,) = paths(one(layer(kind="dots", y=[1.0, None, 2.0])))
    assert path.count("M") == path.count("h0") == 2


@pytest.mark.parametrize(
    "data",
    [
        {},
        {"panels": 3},
        {"panels": [3, {"title": "x"}, {"layers": "none"}]},
        one(3),
        one(layer(kind="<script>")),
        one(layer(x=[1.0])),
        one(layer(x="abc")),
        one(layer(x=[None] * 3)),
        one(layer(y=["1", True, math.nan])),
        one(layer(y=[-1.0, 0.0, -2.0]), y={"log": True}),
    ],
)
def test_what_is_of_another_form_is_not_drawn(data: dict[str, Any]) -> None:
    assert drawing(data) is None


def test_one_point_and_a_constant_have_an_axis_too() -> None:
    assert paths(one(layer(x=[1.0], y=[2.0]))) != [""]
    assert paths(one(layer(y=[2.0, 2.0, 2.0]))) != [""]
    assert paths(one(layer(y=[2.0, 2.0, 2.0]), y={"log": True})) != [""]


def test_strings_are_escaped_and_styles_are_those_of_the_page() -> None:
    evil = '"><script>alert(1)</script>'
    data = one(layer(name=evil, style=evil), x={"name": evil}, title=evil) | {"title": evil}
    text = str(drawing(data))
    assert "<script" not in text
    assert 'class="line ink"' in text


def test_the_page_shows_the_drawings_of_its_rows() -> None:
    extra = {"drawing one": one(layer()), "drawing broken": {"panels": [{}]}, "other": 1}
    rows = [measured("ddpm", MI, 0.0, None, extra=extra)]
    page = html_text(parse_results(document(rows=rows, ranks=[])))
    assert page.count('<figure class="drawings">') == 1
    assert len(re.findall(r"<summary>[^<]* · all</summary>", page)) == 1
    without = html_text(parse_results(document(rows=[measured("ddpm", MI, 0.0, None)], ranks=[])))
    assert '<figure class="drawings">' not in without


def test_level_stretches_are_drawn_by_their_ends() -> None:
    (path,) = paths(one(layer(x=[0.0, 1.0, 2.0, 3.0, 4.0, 5.0], y=[0.0, 1.0, 1.0, 1.0, 1.0, 2.0])))
    places = numbers(path)
    assert len(places) == 2 * 4
    whole = numbers(paths(one(layer(x=[0.0, 1.0, 4.0, 5.0], y=[0.0, 1.0, 1.0, 2.0])))[0])
    assert places == pytest.approx(whole)
