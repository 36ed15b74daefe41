"""All factors, and all layers, on one pair of axes where no metric reads information: hierarchies and U-turns."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET

import pytest
from results_factory import RETENTION, document, estimate, row
from test_report_html import Page, points

from benchsuite.boards import boards
from benchsuite.report.figure_files import figure_files
from benchsuite.report.html import html_text
from benchsuite.report.layer_figures import layer_figures
from benchsuite.report.order_figures import channel_overviews, overview
from benchsuite.report.route_curves import data_sets
from benchsuite.report.small_panels import BOTTOM, LEFT, RIGHT, TOP
from benchsuite.results import parse_results

UNIT = (BOTTOM - TOP) / 1.23  #: pixels from floor to ceiling: -0.08 to 1.15 of the way are in view
SIMILARITY = "feature-similarity"


def at(x, share):
    """Pixel of a share of the way at `x`, in units of the whole axis."""
    return (LEFT + x * (RIGHT - LEFT), BOTTOM - (share + 0.08) * UNIT)


def drawn(floor, values, variant="", **more):
    base = {"variant": variant, "unit": "probability", "floor": floor, "ceiling": 1.0, "low": None, "high": None}
    return base | {"log_snr": [0.0, 1.0, 2.0], "value": values, "tap": None, "native_time": None} | more


def channel(floor, values, variant, **more):
    """A curve over a loss of 0, 0.5 and 1."""
    return drawn(floor, values, variant, log_snr=[0.0, 0.5, 1.0], axis="epsilon", **more)


def levels(label, onsets, **more):
    """One row per level: chance 0.2, at 0.2, 0.4 and 1.0 over log-SNR, and the same lost again over epsilon."""
    rows = []
    for factor, onset in onsets.items():
        curves = [
            drawn(0.2, [0.2, 0.4, 1.0]),
            channel(0.2, [1.0, 0.6, 0.2], "epsilon", onset=estimate(0.5, 0.05)),
            channel(0.2, [1.0, 0.84, 0.2], "mean field", beside="epsilon"),
        ]
        if factor == "class":
            curves.append(channel(-1.0, [0.0, -0.2, 0.0], "class minus level-0"))
        facts = {"oracle": True, "reference": None, "dataset": "", "factor": factor, "entropy": None}
        scalars = {"log_snr_50": estimate(onset, 0.1)}
        rows.append(row(label, RETENTION, curves=curves, scalars=scalars, unit="probability", **facts | more))
    return rows


def emergence(label, onsets, **more):
    order = [{"factor": name, "tied": False} | places(onset) for name, onset in onsets.items()]
    entry = {"label": label, "dataset": "own data", "split": "test", "metric": RETENTION, "reference": None}
    return entry | {"order": order, "left_out": {}, "tau": None, "compared": 0} | more


def places(onset):
    return {"log_snr_50": onset, "low": onset - 0.1, "high": onset + 0.1}


SHALLOW = {"level-0": 1.4, "class": 1.8}
DEEP = {"level-0": 1.4, "level-1": 1.6, "class": 1.8}


@pytest.fixture(scope="module")
def hierarchies():
    made = document([*levels("shallow", SHALLOW), *levels("deep", DEEP)], []) | {"schema_version": 2}
    for entry in made["rows"]:
        entry["dataset"] = "own data"
    made["emergence"] = [emergence("shallow", SHALLOW), emergence("deep", DEEP)]
    return parse_results(made)


@pytest.fixture(scope="module")
def data(hierarchies):
    (found,) = data_sets(boards(hierarchies))
    return found


# ------------------------------------------------------------------------------------------ all factors


def test_without_a_route_to_information_factors_are_read_from_floor_to_ceiling(hierarchies, data):
    figure = overview(hierarchies, data)
    assert figure.says == f"share of the way from floor to ceiling by {RETENTION}"
    assert [panel.title for panel in figure.panels] == ["deep", "shallow"]
    for panel in figure.panels:
        assert panel.level == "ceiling"
        for stroke in panel.strokes:
            assert stroke.curve.value == pytest.approx((0.0, 0.25, 1.0))


def test_levels_that_only_a_deeper_model_has_have_their_place_and_colour(hierarchies, data):
    key = dict(overview(hierarchies, data).key)
    assert list(key) == ["level-0", "level-1", "class"]
    colours = [style.split()[0] for style in key.values()]
    assert colours == sorted(set(colours))
    assert "grey" not in colours


def test_another_channel_has_a_figure_if_several_factors_were_measured_under_it(hierarchies, data):
    (figure,) = channel_overviews(hierarchies, data)
    assert figure.title == "Under epsilon"
    assert figure.key[-1] == ("what a theory expects", "theory grey")
    deep = figure.panels[0]
    assert (deep.loss, [stroke.name for stroke in deep.strokes]) == ("epsilon", ["level-0", "level-1", "class"])
    for stroke in deep.strokes:
        assert stroke.curve.value == pytest.approx((1.0, 0.5, 0.0))
        assert stroke.theory.value == pytest.approx((1.0, 0.8, 0.0)), "on the same axis"


def test_the_page_draws_shares_onsets_and_theory_where_the_numbers_say(hierarchies):
    found = Page(html_text(hierarchies))
    (clock, _) = found.all("svg", class_="panel routes", aria_labelledby="d0-o")
    (loss, _) = found.all("svg", class_="panel routes", aria_labelledby="d0-c0-")
    for svg, shares in ((clock, (0, 0.25, 1)), (loss, (1, 0.5, 0))):
        lines = [e for e in found.all("path", class_="line") if svg in e["inside"] and "theory" not in e["class"]]
        assert len(lines) == len(DEEP)
        for line in lines:
            expected = [pytest.approx(at(i / 2, share), abs=0.006) for i, share in enumerate(shares)]
            assert points(line) == expected
    theories = [e for e in found.all("path", class_="line theory") if loss in e["inside"]]
    assert {line["data-name"] for line in theories} == {f"{name}, theory" for name in DEEP}
    assert points(theories[0])[1] == pytest.approx(at(0.5, 0.8), abs=0.006)
    rings = [e for e in found.all("circle", class_="onset") if loss in e["inside"]]
    assert (float(rings[0]["cx"]), float(rings[0]["cy"])) == pytest.approx(at(0.5, 0.5), abs=0.006)
    assert (clock.get("data-loss"), loss["data-loss"]) == (None, "epsilon")
    captions = [e["text"] for e in found.all("figcaption")]
    assert not any("ticks that of the oracle" in text for text in captions), "there is no model to compare"


# ------------------------------------------------------------------------------------------- all layers


def similarity_row(label="ddpm", **extra):
    curves = [
        drawn(0.1, [0.1, 0.5, 0.9], tap="logits", unit="cosine"),
        drawn(0.3, [0.3, 0.5, 0.8], "stage1", tap="stage1", unit="cosine"),
        drawn(
            1.8, [1.8, 0.4, 0.1], "distance/stage1", tap="stage1", unit="normalised squared distance", ceiling=0.0
        ),
        drawn(0.1, [0.1, 0.6, 0.9], "top-1/class"),
    ]
    scalars = {"log_snr_50": estimate(1.0, 0.1)}
    facts = {"factor": "", "unit": "cosine", "curves": curves, "scalars": scalars, "reference": None}
    return row(label, SIMILARITY, extra=extra, **facts)


FLIP = {"log_snr": -1.214, "low": -2.27, "high": -0.16, "deep": "logits", "shallow": "stage1"}


def test_layers_are_drawn_from_shallow_to_deep_in_the_unit_of_the_published_one():
    results = parse_results(document([similarity_row(layers=["stage1", "logits"], flip=FLIP)], []))
    (board,) = boards(results)
    (figure,) = layer_figures(board)
    (panel,) = figure.panels
    assert [(stroke.name, stroke.curve.value) for stroke in panel.strokes] == [
        ("stage1", (0.3, 0.5, 0.8)),
        ("logits", (0.1, 0.5, 0.9)),
    ]
    assert panel.note == "flip −1.21 [−2.27, −0.16]"
    assert "digits-feature-similarity-all-layers.svg" in figure_files(results)
    titles = [e["text"] for e in Page(html_text(results)).all("h3")]
    assert "feature-similarity: all layers" in titles
    assert "When half of the way is gone" in titles, "they are about no factor"


@pytest.mark.parametrize(
    "extra",
    [{}, {"layers": ["logits"]}, {"layers": "stage1"}, {"layers": ["unknown", 3, "logits"]}],
    ids=["unsaid", "one", "no list", "unknown"],
)
def test_nothing_to_compare_has_no_figure(extra):
    (board,) = boards(parse_results(document([similarity_row(**extra)], [])))
    assert layer_figures(board) == []


@pytest.mark.parametrize("flip", [None, "late", {}, {"log_snr": "x"}, {"log_snr": True}])
def test_a_flip_that_is_none_is_not_said(flip):
    (board,) = boards(parse_results(document([similarity_row(layers=["stage1", "logits"], flip=flip)], [])))
    (figure,) = layer_figures(board)
    assert figure.panels[0].note == ""


# ------------------------------------------------------------------------------------------------ files


def test_files_hold_every_figure_and_a_rule_for_every_line(hierarchies):
    found = figure_files(hierarchies)
    assert list(found) == ["own-data-order-of-emergence.svg", "own-data-order-of-emergence-under-epsilon.svg"]
    text = found["own-data-order-of-emergence-under-epsilon.svg"]
    root = ET.fromstring(text)
    theories = re.findall(r'class="line theory (\w+)"', text)
    assert theories.pop(0) == "grey", "in the key"
    assert len(theories) == len(SHALLOW) + len(DEEP)
    style = root.find("{http://www.w3.org/2000/svg}style").text
    assert ".line.theory {" in style
    assert all(f".line.{colour}" in style for colour in theories)
