"""Logarithmic value axes: when, where the points lie, and what the cursor reads off them."""

from __future__ import annotations

import json
import math
import re
import shutil
import subprocess
from importlib.resources import files
from typing import Any

import pytest
from results_factory import MI, document, estimate, row

from benchsuite.boards import boards
from benchsuite.report.axes import ticks
from benchsuite.report.html import html_text
from benchsuite.report.panels import BOTTOM, TOP, panels_of, value_axis, y_domain
from benchsuite.report.svg import Scale
from benchsuite.results import Results, parse_results


def results(
    value: list[float | None], low: Any = None, high: Any = None, onset: bool = False, **changes: Any
) -> Results:
    """One model, one curve on log-SNR 0, 1, 2 …"""
    levels = [float(k) for k in range(len(value))]
    drawn = {"variant": "", "unit": "noise floor", "floor": 0.0, "ceiling": 1.0, "log_snr": levels, "value": value}
    scalars = {"log_snr_50": estimate(1.0, 0.1)} if onset else {}
    drawn |= {"low": low, "high": high} | changes
    return parse_results(document([row("ddpm", MI, curves=[drawn], scalars=scalars, entropy=None)], []))


def axis_of(found: Results) -> Any:
    (board,) = boards(found)
    return value_axis([*panels_of(board, True), *panels_of(board, False)])


def panel(found: Results) -> tuple[dict[str, str], list[tuple[float, float]], str]:
    """Attributes, points of the line and markup of the only panel."""
    text = html_text(found)
    svg = re.search(r'<svg class="panel.*?</svg></?div', text, re.DOTALL)
    assert svg is not None
    attributes = dict(re.findall(r' ([\w-]+)(?:="([^"]*)")?', svg[0].partition(">")[0]))
    path = re.search(r'<path class="line series[^"]*" data-name="[^"]*" d="([^"]*)"', svg[0])
    assert path is not None
    pairs = [tuple(map(float, p.split())) for p in re.split("[ML]", path[1]) if p]
    return attributes, [(x, y) for x, y in pairs], svg[0]


def height(value: float, low: float, high: float) -> float:
    """Where a value lies between the decimal logarithms of an axis, with 4 % of room at either end."""
    room = 0.04 * (high - low)
    way = (math.log10(value) - (low - room)) / (high - low + 2 * room)
    return 278 + (44 - 278) * way


def test_points_lie_at_their_logarithms_on_decades() -> None:
    attributes, points, svg = panel(results([1.0, 5.0, 100.0]))
    assert "data-log" in attributes
    assert [y for _, y in points] == pytest.approx([height(v, 0, 2) for v in (1.0, 5.0, 100.0)], abs=0.006)
    (axis,) = re.findall(r'<g class="axis" text-anchor="end">.*?</g>', svg)
    labels = re.findall(r">([^<]+)</text>", axis)
    assert [label for label in labels if label in {"0.1", "1", "10", "100", "1000"}] == ["1", "10", "100"]
    rules = {float(y) for y in re.findall(r"M36 ([\d.]+)H388", axis)}
    assert rules == {round(height(v, 0, 2), 2) for v in (1, 10, 100)}


def test_bands_have_the_logarithms_of_their_ends() -> None:
    _, _, svg = panel(results([1.0, 10.0, 100.0], low=[0.5, 9.0, 80.0], high=[2.0, 11.0, 120.0]))
    band = re.search(r'<path class="band[^"]*" d="M([^"]*)Z"', svg)
    assert band is not None
    heights = [float(p.split()[1]) for p in band[1].split("L")]
    low, high = math.log10(0.5), math.log10(120)
    ends = [0.5, 9, 80, 120, 11, 2]
    assert heights == pytest.approx([height(v, low, high) for v in ends], abs=0.006)


@pytest.mark.parametrize(
    "found",
    [
        results([1.0, 2.0, 30.0]),  # not more than 30 times
        results([0.0, 1.0, 100.0]),
        results([-1.0, 1.0, 100.0]),
        results([1.0, 10.0, 100.0], low=[-0.1, 9.0, 90.0], high=[2.0, 11.0, 110.0]),
        results([1.0, 10.0, 100.0], onset=True),
    ],
)
def test_other_curves_keep_the_linear_axis(found: Results) -> None:
    (board,) = boards(found)
    panels = panels_of(board, True)
    assert not value_axis(panels).log
    assert value_axis(panels).domain == y_domain(panels)
    attributes, _, _ = panel(found)
    assert "data-log" not in attributes


def test_one_metric_with_onsets_keeps_a_shared_axis_linear() -> None:
    together = [*panels_of(boards(results([1.0, 100.0]))[0], True)]
    assert value_axis(together).log
    assert not value_axis([*together, *panels_of(boards(results([0.0, 1.0], onset=True))[0], True)]).log


def test_intervals_count_and_an_end_near_zero_adds_a_decade_at_most() -> None:
    axis = axis_of(results([1.0, 2.0], low=[1e-12, 1.0], high=[2.0, 4.0]))
    assert axis.log
    low, high = math.log10(0.1), math.log10(4.0)
    assert axis.domain == pytest.approx((low - 0.04 * (high - low), high + 0.04 * (high - low)))


def test_a_missing_point_breaks_a_line_on_a_logarithmic_axis_too() -> None:
    _, points, svg = panel(results([1.0, 2.0, None, 90.0, 100.0]))
    assert len(points) == 4
    (nodes,) = re.findall(r'class="node[^"]*" d="([^"]*)"', svg)
    assert nodes.count("h0") == 4


def test_without_onsets_nothing_is_above_the_upper_level() -> None:
    tint = '<rect x="36" y="44" width="352"'
    for values in ([1.0, 1.5, 2.0], [1.0, 10.0, 100.0]):
        _, _, svg = panel(results(values))
        assert 'class="above"' not in svg
        assert "above the upper level" not in svg
        assert tint in svg, "the frame itself"
    _, _, svg = panel(results([0.0, 1.0, 2.0], onset=True))
    assert "above the upper level" in svg


@pytest.mark.parametrize(
    ("domain", "labels"),
    [
        ((-4.2, 0.3), ["1e−4", "0.001", "0.01", "0.1", "1"]),
        ((1.5, 5.2), ["100", "1e3", "1e4", "1e5"]),
        ((0.2, 1.8), ["2", "5", "10", "20", "50"]),
        ((-8.0, 8.0), ["1e−8", "1e−5", "0.01", "10", "1e4", "1e7"]),
    ],
)
def test_ticks_of_a_logarithmic_axis(domain: tuple[float, float], labels: list[str]) -> None:
    found = list(ticks(Scale(domain, (0.0, 100.0)), log=True))
    assert [label for _, label in found] == labels
    for pixel, label in found:
        value = math.log10(float(label.replace("−", "-")))
        assert pixel == pytest.approx(100 * (value - domain[0]) / (domain[1] - domain[0]))


#: Just enough of a page for the script: panels with one line each, and what it writes into their tips.
STUB = """
const made = PANELS.map((data) => {
  const said = [];
  const listeners = {};
  const path = { dataset: { name: "ddpm" }, getAttribute: (key) => (key === "d" ? data.d : "line") };
  const box = { left: 0, top: 0, width: 400, height: 320 };
  const replaceChildren = (...rows) => said.splice(0, 9, ...rows);
  const tip = { style: {}, offsetWidth: 0, offsetHeight: 0, replaceChildren };
  return {
    said, listeners, dataset: data.dataset, viewBox: { baseVal: { width: 400 } }, classList: { add() {} },
    querySelector: () => ({ setAttribute() {} }), querySelectorAll: () => [path], closest: () => null,
    parentElement: { querySelector: () => tip, getBoundingClientRect: () => box },
    getBoundingClientRect: () => box, addEventListener: (name, run) => (listeners[name] = run),
  };
});
const element = () => ({ parts: [], append(...parts) { this.parts.push(...parts); } });
globalThis.document = {
  querySelectorAll: (which) => made.filter((panel) => !which.endsWith("[data-x]") || "x" in panel.dataset),
  createElement: element,
};
globalThis.getComputedStyle = () => ({ display: "inline" });
SCRIPT
const read = made.filter((panel) => panel.listeners.pointermove).map((panel) => {
  panel.listeners.pointermove({ clientX: AT });
  return panel.said[1].parts[1];
});
console.log(JSON.stringify(read));
"""


@pytest.mark.skipif(shutil.which("node") is None, reason="needs node to run the script of the page")
def test_the_cursor_reads_values_on_both_axes_past_panels_without_any() -> None:
    panels: list[dict[str, Any]] = [{"d": "", "dataset": {}}]  # a drawing has no axes that the script knows
    for values in ([1.0, 40.0, 100.0], [1.0, 4.0, 10.0]):
        attributes, _, svg = panel(results(values))
        path = re.search(r'data-name="ddpm" d="([^"]*)"', svg)
        assert path is not None
        data = {k.removeprefix("data-"): v for k, v in attributes.items() if k.startswith("data-")}
        panels.append({"d": path[1], "dataset": data})
    source = files("benchsuite.report").joinpath("page.js").read_text("utf-8").replace('"use strict";', "")
    script = STUB.replace("PANELS", json.dumps(panels)).replace("AT }", "212 }").replace("SCRIPT", source)
    run = subprocess.run(["node", "-e", script], capture_output=True, text=True, check=True, timeout=60)
    log, linear = (float(said) for said in json.loads(run.stdout))  # at log-SNR 1, which is pixel 212
    assert log == pytest.approx(40.0, rel=0.005)
    assert linear == pytest.approx(4.0, abs=0.005)


def test_the_edges_of_the_axis_stand_in_the_panel_as_logarithms() -> None:
    attributes, points, _ = panel(results([0.02, 1.0, 300.0]))
    low, high, bottom, top = map(float, attributes["data-y"].split())
    assert (bottom, top) == (BOTTOM, TOP)
    read = [10 ** (low + (y - bottom) / (top - bottom) * (high - low)) for _, y in points]
    assert read == pytest.approx([0.02, 1.0, 300.0], rel=1e-3)
