"""What reports say beyond single rows: orders of emergence, all routes on one pair of axes, figures as files."""

from __future__ import annotations

import io
import math
import re
import xml.etree.ElementTree as ET
from importlib.resources import files
from itertools import pairwise

import pytest
from results_factory import (
    FACTORS,
    FORK,
    MI,
    PROBE,
    ZOO,
    document,
    estimate,
    factors_document,
    measured,
    row,
)
from rich.console import Console
from test_report_html import Page, points

from benchsuite.boards import boards
from benchsuite.leaderboard import render_terminal
from benchsuite.report.figure_files import figure_files
from benchsuite.report.html import html_text
from benchsuite.report.markdown import markdown_text
from benchsuite.report.order_figures import overview
from benchsuite.report.route_curves import data_sets
from benchsuite.report.route_figures import routes_figures
from benchsuite.report.small_panels import BOTTOM, LEFT, RIGHT, TOP, factor_styles
from benchsuite.results import parse_results

SVG = "{http://www.w3.org/2000/svg}"
EMERGING = [name for name, (_, onset) in FACTORS.items() if onset is not None]


@pytest.fixture(scope="module")
def results():
    return parse_results(factors_document())


@pytest.fixture(scope="module")
def page(results):
    return Page(html_text(results))


@pytest.fixture(scope="module")
def data(results):
    (found,) = data_sets(boards(results))
    return found


def within(page, ancestor, tag, **wanted):
    return [e for e in page.all(tag, **wanted) if ancestor in e["inside"]]


# ---------------------------------------------------------------------------------------- what is drawn


def test_every_route_is_read_as_information(data):
    figure = next(figure for figure in routes_figures(data) if figure.title == "ddpm")
    shape = next(panel for panel in figure.panels if panel.title == "shape")
    curves = {stroke.name: stroke.curve for stroke in shape.strokes}
    assert list(curves) == ["oracle", MI, f"H − {FORK}", "path-filter", PROBE]
    row = next(
        r
        for r in parse_results(factors_document()).rows
        if (r.label, r.factor, r.metric) == ("ddpm", "shape", FORK)
    )
    turned = curves[f"H − {FORK}"]
    assert turned.value == tuple(math.log(4) - value for value in row.published.value)
    assert turned.low == tuple(math.log(4) - value for value in row.published.high), "the ends change places"
    assert (turned.floor, turned.ceiling) == (0.0, math.log(4))


def test_a_model_is_drawn_over_its_oracle_and_an_oracle_over_nothing(data):
    figures = {figure.title: figure for figure in routes_figures(data)}
    assert set(figures) == {"empirical-bayes · population", "empirical-bayes · same images", *ZOO}
    for title, figure in figures.items():
        assert [panel.title for panel in figure.panels] == list(FACTORS)
        assert ("ideal" in dict(figure.key).values()) is (title in ZOO)
    assert f"{PROBE} (a lower bound)" in dict(figures["dit"].key)


def test_the_overview_has_a_panel_per_model_and_colours_run_from_early_to_late(results, data):
    figure = overview(results, data)
    assert [panel.title for panel in figure.panels][:2] == [
        "empirical-bayes · population",
        "empirical-bayes · same images",
    ]
    assert len(figure.panels) == 2 + len(ZOO)
    key = dict(figure.key)
    assert list(key) == list(FACTORS)
    colours = [key[name].split()[0] for name in EMERGING]
    assert colours == sorted(colours)
    assert len(set(colours)) == len(EMERGING)
    assert key["dummy"].startswith("grey")
    asides = {panel.title: panel.aside for panel in figure.panels}
    assert asides["dit"] == "τ 0.90 [0.80, 1.00]"
    assert asides["empirical-bayes · population"] == ""


@pytest.mark.parametrize("number", [1, 2, 8, 12])
def test_neighbours_in_an_order_never_look_alike(number):
    looks = list(factor_styles([f"f{i}" for i in range(number)], []).values())
    assert all(a != b for a, b in pairwise(looks))
    apart = factor_styles(["f0"], ["joint", "dummy"])
    assert apart["joint"] != apart["dummy"]


def test_curves_and_rings_of_the_overview_are_where_the_numbers_say():
    """Two models on log-SNR 0, 1, 2: the plot maps it to LEFT … RIGHT, I/H from -0.08 to 1.15 to BOTTOM … TOP."""

    def cell(label, factor, onset, oracle=False):
        drawn = {"variant": "", "unit": "nats", "floor": 0.0, "ceiling": 2.0, "log_snr": [0.0, 1.0, 2.0]}
        drawn |= {"value": [0.0, 1.0, 2.0], "low": None, "high": None, "tap": None, "native_time": None}
        facts = {
            "oracle": oracle,
            "reference": None if oracle else "ideal",
            "split": "train" if oracle else "test",
        }
        scalars = {"log_snr_50": estimate(onset, 0.1)}
        return row(label, MI, factor=factor, curves=[drawn], scalars=scalars, entropy=2.0, **facts)

    rows = [cell("ideal", name, 1.0, True) for name in "ab"] + [cell("ddpm", name, 1.5) for name in "ab"]
    found = Page(html_text(parse_results(document(rows, []))))
    _, svg = found.all("svg", class_="panel routes", aria_labelledby="d0-o")
    lines = within(found, svg, "path", class_="line")
    middle, unit = (LEFT + RIGHT) / 2, (BOTTOM - TOP) / 1.23
    expected = [(LEFT, BOTTOM - 0.08 * unit), (middle, BOTTOM - 0.58 * unit), (RIGHT, BOTTOM - 1.08 * unit)]
    for line in lines:
        assert points(line) == [pytest.approx(point, abs=0.006) for point in expected]
    (ring, _) = within(found, svg, "circle", class_="onset")
    at = (LEFT + 0.75 * (RIGHT - LEFT), BOTTOM - 0.58 * unit)
    assert (float(ring["cx"]), float(ring["cy"])) == pytest.approx(at, abs=0.006)
    (tick, _) = within(found, svg, "line", class_="ideal-onset")
    assert float(tick["x1"]) == pytest.approx(middle, abs=0.006)


# --------------------------------------------------------------------------------------------- the page


def test_the_page_opens_with_the_overview_and_folds_the_models_away(page):
    (section,) = page.all("section", id="d0")
    ids = [e["id"] for e in page.elements if "id" in e]
    assert len(ids) == len(set(ids))
    assert page.all("a", href="#d0")
    assert ids.index("d0") < ids.index("b0")
    folds = within(page, section, "details")
    assert not any("open" in fold for fold in folds)
    shown = [e for e in within(page, section, "svg", class_="panel") if not any(f in e["inside"] for f in folds)]
    assert len(shown) == 2 + len(ZOO)
    assert len(within(page, section, "svg", class_="panel")) == (2 + len(ZOO)) * (1 + len(FACTORS))


def test_the_order_table_says_who_fixes_what_first(page):
    table = page.all("table", class_="orders")[0]
    rows = {e["text"] for e in within(page, table, "tr")}
    ddpm = next(text for text in rows if text.startswith("ddpmfloor"))
    assert ddpm.startswith("ddpmfloor−5.90 ≈ wall−5.70 → object−3.10 → scale−0.90 → shape−0.10 → orientation1.00")
    assert "1.00[0.90, 1.00] of 7 factors" in ddpm
    dit = next(text for text in rows if text.startswith("ditfloor"))
    assert "object−2.95 → shape−0.55 → scale−0.15" in dit
    assert dit.endswith("dummy")
    notes = [e["text"] for e in page.all("li")]
    assert "dummy: never reaches 50% of the way from floor to ceiling" in notes
    (headline,) = [e["text"] for e in page.all("p", class_="headline") if "Kendall" in e["text"]]
    assert headline.startswith("By mutual-information, empirical-bayes · population fixes floor ≈ wall → object")


def test_a_data_set_of_one_factor_has_its_routes_side_by_side_after_its_board():
    found = Page(html_text(parse_results(document())))
    ids = [e["id"] for e in found.elements if "id" in e]
    assert ids.index("b0") < ids.index("d0")
    (section,) = found.all("section", id="d0")
    titles = [e["text"] for e in within(found, section, "text", class_="who")]
    assert titles == ["ddpm", "score-sde", "latent-diffusion"], (
        "an oracle with a single route has nothing to compare"
    )
    assert not within(found, section, "details")
    assert not within(found, section, "table")


def test_a_single_curve_is_compared_with_nothing():
    alone = document([measured("ddpm", MI, 0.0, None, reference=None)], [])
    assert not Page(html_text(parse_results(alone))).all("section", id="d0")


def luminance(colour):
    channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_every_series_colour_stands_out_from_the_page():
    """WCAG 2.1, 1.4.11: graphics need a contrast of 3 : 1."""
    css = files("benchsuite.report").joinpath("page.css").read_text("utf-8")
    for theme in re.findall(r":root \{(.*?)\}", css, re.S):
        colours = dict(re.findall(r"--([\w-]+): (#[0-9a-f]{3,6})\b", theme))
        back = luminance(colours["bg"] if len(colours["bg"]) == 7 else "#ffffff")
        series = {name: value for name, value in colours.items() if re.fullmatch(r"[co]\d", name)}
        assert len(series) == 7 + 8
        for name, colour in series.items():
            bright, dark = sorted((luminance(colour), back), reverse=True)
            assert (bright + 0.05) / (dark + 0.05) >= 3, (name, colour)


# ---------------------------------------------------------------------------------- other forms and files


def test_markdown_and_terminal_say_the_orders(results):
    text = markdown_text(results)
    assert "## shapes · order of emergence" in text
    assert text.count("## shapes · order of emergence") == 1
    (line,) = [
        x for x in text.splitlines() if x.startswith("| dit | floor -5.75 ≈ wall -5.55 → object -2.95 → shape")
    ]
    assert line.endswith("| 0.90 [0.80, 1.00] |")
    assert "* without a place: dummy: never reaches 50% of the way" in text
    out = io.StringIO()
    render_terminal(factors_document(), Console(file=out, width=80, color_system=None))
    assert max(map(len, out.getvalue().splitlines())) <= 80
    flat = " ".join(out.getvalue().split())
    assert "shapes · order of emergence by mutual-information" in flat
    assert (
        "dit: floor ≈ wall → object → shape → scale → orientation → texture (Kendall's tau 0.90 [0.80, 1.00])"
        in flat
    )


def test_a_failing_route_is_named_in_page_and_markdown():
    failing = document()
    failing["consistency"] = [
        {"label": "ddpm", "dataset": "digits", "split": "test", "factor": "class", "unit": "H", "failed": [PROBE]}
        | {"check": "information routes agree to 0.15 H", **estimate(0.31, 0.04)}
    ]
    results = parse_results(failing)
    (table,) = Page(html_text(results)).all("table", class_="checks")
    assert "ddpm0.310[0.270, 0.350]fails: linear-probe" in table["text"]
    assert "| ddpm | 0.310 [0.270, 0.350] H, fails: linear-probe |" in markdown_text(results)


def test_figures_stand_alone(results):
    found = figure_files(results)
    assert next(iter(found)) == "shapes-order-of-emergence.svg"
    assert len(found) == 1 + 2 + len(ZOO)
    for name, text in found.items():
        root = ET.fromstring(text)
        assert root.tag == f"{SVG}svg"
        assert len(root.findall(f"{SVG}svg")) == (2 + len(ZOO) if "order" in name else len(FACTORS))
        assert not re.search(r"var\(|<script|href|url\(|@import|data-x", text)
        style = root.find(f"{SVG}style").text
        for drawn in root.iter(f"{SVG}path"):
            kind, *looks = drawn.get("class").split()
            if kind == "grid":
                assert ".grid {" in style
                continue
            colours = [look for look in looks if not re.fullmatch(r"d\d", look)]
            assert len(colours) == 1
            assert f".{kind}.{colours[0]}" in style, "a class without a rule would be drawn black, or not at all"
        width, height = (float(root.get(side)) for side in ("width", "height"))
        for panel in root.findall(f"{SVG}svg"):
            assert float(panel.get("x")) + float(panel.get("width")) <= width
            assert float(panel.get("y")) + float(panel.get("height")) <= height


def test_names_of_figures_are_safe_and_never_taken_twice():
    rows = []
    for label in ("../a b", "../a*b"):
        rows += [
            measured(label, metric, 0.0, None, factor=f, reference=None) for metric in (MI, PROBE) for f in "xy"
        ]
    names = list(figure_files(parse_results(document(rows, []))))
    assert names == ["digits-order-of-emergence.svg", "digits-routes-a-b.svg", "digits-routes-a-b-2.svg"]
