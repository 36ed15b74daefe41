"""The HTML page: self-contained, well-formed, escaped; its drawings say what the numbers say."""

from __future__ import annotations

import base64
import hashlib
import math
import re
from html.parser import HTMLParser

import pytest
from results_factory import MI, NASTY, PROBE, board_rows, crowded_document, curve, document, measured, row

from benchsuite.boards import boards
from benchsuite.report.axes import time_ticks
from benchsuite.report.clocks import Clock, clock_of, clocks_of, ddpm_linear_clock
from benchsuite.report.html import html_text
from benchsuite.report.markup import el, raw
from benchsuite.report.onsets import onset_domain
from benchsuite.report.panels import panels_of, y_domain
from benchsuite.report.series import assign_series
from benchsuite.report.svg import Scale, band_path, fixed, line_path, nice_step, nice_ticks, tick_text
from benchsuite.results import parse_results

VOID = {"meta", "input", "br", "hr", "link", "img"}


class Page(HTMLParser):
    """Every element with its attributes and text; fails on tags that do not nest."""

    def __init__(self, text):
        super().__init__(convert_charrefs=True)
        self.open, self.elements = [], []
        self.feed(text)
        self.close()
        assert not self.open, f"never closed: {self.open}"

    def handle_starttag(self, tag, attrs):
        element = {"tag": tag, "text": "", **dict(attrs)}
        element["inside"] = list(self.open)
        self.elements.append(element)
        if tag not in VOID:
            self.open.append(element)

    def handle_endtag(self, tag):
        assert self.open, f"</{tag}> closes nothing"
        assert self.open[-1]["tag"] == tag, f"</{tag}> closes <{self.open[-1]['tag']}>"
        self.open.pop()

    def handle_data(self, data):
        for element in self.open:
            element["text"] += data

    def all(self, tag, **wanted):
        wanted = {key.rstrip("_").replace("_", "-"): value for key, value in wanted.items()}
        return [
            e for e in self.elements if e["tag"] == tag and all(v in (e.get(k) or "") for k, v in wanted.items())
        ]


def page(results=None):
    return Page(html_text(parse_results(results or document())))


def points(path):
    return [tuple(map(float, p.split())) for p in re.split("[ML]", path["d"]) if p]


# ------------------------------------------------------------------------------------------ the page


def test_page_is_well_formed_with_unique_ids_and_working_anchors():
    found = page(crowded_document())
    ids = [e["id"] for e in found.elements if "id" in e]
    assert len(ids) == len(set(ids))
    anchors = [e["href"] for e in found.all("a")]
    assert anchors
    assert all(href[0] == "#" and href[1:] in ids for href in anchors)
    for svg in found.all("svg", aria_labelledby="-t"):
        assert set(svg["aria-labelledby"].split()) <= set(ids)


def test_page_refers_to_nothing_outside_itself():
    text = html_text(parse_results(crowded_document()))
    assert not re.search(r"https?:|//[a-z]|url\(|@import|<link|<img|<iframe|\bsrc=", text)
    found = page(crowded_document())
    assert not [e for e in found.elements if {"src", "srcset", "style", "onclick", "onload"} & set(e)]


def test_policy_allows_exactly_the_inline_style_and_script():
    found = page()
    (policy,) = [e["content"] for e in found.all("meta") if e.get("http-equiv") == "Content-Security-Policy"]
    for tag, directive in (("style", "style-src"), ("script", "script-src")):
        (element,) = found.all(tag)
        digest = base64.b64encode(hashlib.sha256(element["text"].encode()).digest()).decode()
        assert f"{directive} 'sha256-{digest}'" in policy
    assert policy.startswith("default-src 'none'")


def test_strings_of_the_document_stay_text():
    nasty = '"><script>alert(1)</script>&amp;'
    rows = [measured(nasty, MI, 0.0, None, family=nasty, paper=nasty, flags=[nasty], dataset=nasty, factor=nasty)]
    rows[0]["curves"][0] |= {"tap": nasty, "unit": nasty, "native_time": [1 - i / 63 for i in range(64)]}
    rows[0]["curves"].append(curve(MI, 0.0, 4.0, variant=nasty))
    rows.append(row(nasty, nasty, status="failed", stage=nasty, reason=nasty, dataset=nasty, factor=nasty))
    results = document(rows, [])
    results["provenance"] |= {"command": [nasty], "versions": {nasty: nasty}, "git": {"revision": nasty}}
    results["settings"] = {nasty: nasty}
    found = page(results)
    assert len(found.all("script")) == 1
    (shown,) = found.all("body")
    assert shown["text"].count(nasty) > 20, "and every one of them is shown"


def test_a_nasty_model_name_reads_as_itself():
    names = [e["text"] for e in page(crowded_document()).all("th", scope="row")]
    assert any(NASTY in name for name in names)


def test_table_shows_rank_estimates_intervals_and_native_time():
    table = page().all("table", class_="ranks")[0]["text"]
    assert "1=" in table
    assert "−0.90[−0.97, −0.83]t/T 0.35" in table
    assert "4.08[3.93, 4.23]" in table
    assert "t/T 0.32 · mid_block" in table
    assert "not applicable" in table


def test_verdicts_stand_with_their_route_and_consistency_has_a_table():
    found = page()
    verdicts = {e["text"]: e["class"] for e in found.all("small", class_="verdict")}
    assert verdicts["calibrated, bias 0.012 of 0.030 nats allowed"] == "verdict"
    assert [c for t, c in verdicts.items() if t.startswith("failed calibration")] == ["verdict failed"]
    (table,) = found.all("table", class_="checks")
    assert "score-sde0.045[0.035, 0.055]0.004[0.004, 0.004]" in table["text"]


def test_notes_explain_flags_missing_scalars_and_missing_ranks():
    notes = [e["text"] for e in page(crowded_document()).all("li") if (e.get("id") or "").startswith("b0-n")]
    assert "latent-diffusion, mutual-information: tail 0.21 nats above H at log-SNR 9.0" in notes
    assert "score-sde, linear-probe, width: never reaches 90 %" in notes
    assert "No rank: mutual-information oom, class-retention oom." in notes
    assert notes.count("weights.safetensors: NaN in 3 of 214 tensors") == 1


def test_every_table_has_a_caption_and_every_drawing_a_description():
    found = page(crowded_document())
    for table in found.all("table"):
        assert [c for c in found.all("caption") if table in c["inside"]]
    for svg in found.all("svg", role="img"):
        assert [d for d in found.all("desc") if svg in d["inside"]]


def test_legend_settings_and_citations_are_on_the_page():
    text = page().all("main")[0]["text"]
    assert "The lower, the earlier in generation" in text
    assert "@misc{arXiv:2006.11239," in text
    assert '"nodes": 64' in text
    assert "benchsuite run --seed 0" in text


def test_an_empty_document_gives_a_page():
    assert page(document([], [])).all("h1")


# -------------------------------------------------------------------------------------------- panels


def tiny(values, high=None, **changes):
    """One model, one curve on log-SNR 0, 1, 2 between floor 0 and ceiling 2."""
    drawn = {"variant": "", "unit": "nats", "floor": 0.0, "ceiling": 2.0, "tap": None, "native_time": None}
    drawn |= {"log_snr": [0.0, 1.0, 2.0], "value": values, "low": None, "high": high}
    drawn |= {"low": values} if high else {}
    scalars = {"log_snr_50": {"value": 1.0, "low": 0.9, "high": 1.1}}
    return document([row("ddpm", MI, curves=[drawn | changes], scalars=scalars, entropy=2.0)], [])


# The plot is x 36 … 388, y 278 … 44. log-SNR 0 … 2 → 176 px per unit. Values 0 … 2 + 9 % = 2.18 → 234 / 2.18 px.
PER_UNIT = 234 / 2.18


def test_curve_points_are_where_the_numbers_say():
    (line,) = page(tiny([0.0, 1.0, 2.0])).all("path", class_="line series")
    assert points(line) == [
        (36.0, 278.0),
        (212.0, pytest.approx(278 - PER_UNIT, abs=0.006)),
        (388.0, pytest.approx(278 - 2 * PER_UNIT, abs=0.006)),
    ]


def test_onset_ring_sits_on_the_half_level():
    (ring,) = page(tiny([0.0, 1.0, 2.0])).all("circle", class_="onset")
    assert (float(ring["cx"]), float(ring["cy"])) == (212.0, pytest.approx(278 - PER_UNIT, abs=0.006))


def test_band_runs_there_and_back():
    (band,) = page(tiny([0.0, 1.0, 2.0], high=[0.0, 1.5, 2.0])).all("path", class_="band")
    assert band["d"].endswith("Z")
    xy = points({"d": band["d"].rstrip("Z")})
    assert [x for x, _ in xy] == [36.0, 212.0, 388.0, 388.0, 212.0, 36.0]
    assert xy[4][1] == pytest.approx(278 - 1.5 * PER_UNIT, abs=0.006)


def test_a_missing_point_breaks_the_line():
    values = [0.0, 0.5, None, 1.5, 2.0]
    (line,) = page(tiny(values, log_snr=[0.0, 0.5, 1.0, 1.5, 2.0])).all("path", class_="line series")
    assert line["d"].count("M") == 2
    assert [x for x, _ in points(line)] == [36.0, 124.0, 300.0, 388.0]


def test_a_tail_above_h_is_in_view_and_marked():
    found = page(tiny([0.0, 1.0, 3.0]))
    (line,) = found.all("path", class_="line series")
    assert min(y for _, y in points(line)) > 44
    (area,) = found.all("rect", class_="above")
    assert float(area["y"]) == 44.0
    assert float(area["height"]) == pytest.approx(234 - 2 * 234 / 3.27, abs=0.01)
    assert "above H" in [e["text"] for e in found.all("text")]
    assert not page(tiny([0.0, 1.0, 2.0])).all("rect", class_="above")


def test_a_curve_that_falls_has_its_floor_on_top_and_nothing_above():
    found = page(tiny([2.0, 1.0, 0.0], floor=2.0, ceiling=0.0))
    assert not found.all("rect", class_="above")
    said = [e["text"] for e in found.all("text")]
    assert {"H = 2.00", "H/2"} <= set(said)
    (ring,) = found.all("circle", class_="onset")
    assert float(ring["cy"]) == pytest.approx(278 - PER_UNIT, abs=0.006)
    said = {e["text"] for e in page(tiny([0.9, 0.5, 0.1], floor=0.9, ceiling=0.1)).all("text")}
    assert {"floor = 0.90", "ceiling = 0.10"} <= said


def test_a_curve_that_leaves_the_plot_says_how_far_it_goes():
    said = [e["text"] for e in page(tiny([0.0, 1.0, -107.3])).all("text")]
    assert "▼ ddpm: down to −107.3" in said
    assert [e for e in page(tiny([0.0, 1.0, 50.0])).all("text") if e["text"] == "▲ ddpm: up to 50.0"]


def test_published_curves_of_one_unit_share_an_axis_and_diagnostics_do_not_stretch_it():
    (board,) = boards(parse_results(document()))
    published, diagnostics = panels_of(board, True), panels_of(board, False)
    assert [panel.route for panel in published if panel.unit == "nats"] == [MI, PROBE]
    assert [(p.route, p.variant) for p in diagnostics] == [(MI, "plug-in"), (PROBE, "accuracy")]
    found = page()
    nats = {e["data-y"] for e in found.all("svg", class_="panel") if e["class"] == "panel"}
    assert len(nats) == 2, "one for nats, one for fractions"
    assert y_domain([diagnostics[0]])[1] > 4.0


def test_level_lines_are_named():
    said = {e["text"] for e in page().all("text")}
    assert {"H = 2.30", "H/2", "ceiling = 1.00", "half way", "floor = 0.10"} <= said


def test_every_series_has_its_own_look_everywhere():
    pivoted = boards(parse_results(crowded_document()))
    series = assign_series(pivoted)
    looks = [s.style for s in series.values()]
    assert len(set(looks)) == len(looks)
    assert series["empirical-bayes", "train"].style == "ink d0"
    assert series["empirical-bayes", "test"].style == "ink d1"


def test_oracles_of_several_spaces_have_looks_of_their_own():
    rows = board_rows()
    for split in ("train", "test"):
        ideal = {
            "family": "exact",
            "oracle": True,
            "reference": None,
            "extra": {"population": 1200},
            "split": split,
        }
        rows.append(measured("empirical-bayes [latent-diffusion]", MI, -2.0, None, **ideal))
    looks = {key: s.style for key, s in assign_series(boards(parse_results(document(rows)))).items()}
    inked = [look for look in looks.values() if look.startswith("ink")]
    assert len(inked) == len(set(inked)) == 4


# -------------------------------------------------------------------------------------------- onsets


def test_onset_marks_of_a_model_and_its_oracle_are_a_gap_apart():
    found = page()
    (wide,) = found.all("svg", class_="onsets wide")
    marks = [m for m in found.all("path") if wide in m["inside"]]

    def x(said):
        (place,) = [
            m["transform"]
            for m in marks
            if [t for t in found.all("title") if m in t["inside"] and t["text"] == said]
        ]
        return float(re.match(r"translate\(([\d.]+)", place)[1])

    # ddpm by MI at −0.90, latent-diffusion by MI at −0.57: a third of a log-SNR unit in pixels.
    low, high = onset_domain(boards(parse_results(document()))[0].lines)
    assert x(f"{MI}: -0.57") - x(f"{MI}: -0.90") == pytest.approx(0.33 * (984 - 190) / (high - low), abs=0.02)
    ghosts = [t["text"] for t in found.all("title") if any(m.get("class") == "ghost" for m in t["inside"])]
    assert ghosts.count(f"oracle, {MI}: -0.95") == 2 * 3, "one per model, wide and narrow"


def test_onset_range_holds_all_intervals_and_is_never_a_sliver():
    (board,) = boards(parse_results(document(board_rows())))
    low, high = onset_domain(board.lines)
    assert low < -0.95 - 0.09 - 0.07
    assert high > -0.17 + 0.07
    assert high - low >= 3


# -------------------------------------------------------------------------------------------- clocks


def test_ddpm_clock_spans_the_published_noise_levels():
    clock = ddpm_linear_clock()
    assert math.exp(-clock.log_snr[0] / 2) == pytest.approx(157.41, abs=0.01)  # sigma at t = T
    assert math.exp(-clock.log_snr[-1] / 2) == pytest.approx(0.0100, abs=1e-4)  # sigma at t = 1
    assert clock.at(clock.log_snr[0]) == 1.0
    # Continuous limit: -ln alpha_bar(t/T) = 0.1 t + 9.95 t² = ln 2 where log-SNR is 0.
    assert clock.at(0.0) == pytest.approx((-0.1 + math.sqrt(0.01 + 39.8 * math.log(2))) / 19.9, abs=2e-3)


def test_clock_reads_both_ways_and_only_where_it_is_known():
    clock = Clock("x", (0.0, 1.0, 3.0), (0.9, 0.5, 0.1))
    assert clock.at(2.0) == pytest.approx(0.3)
    assert clock.place(0.3) == pytest.approx(2.0)
    assert clock.at(3.1) is None
    assert clock.place(0.95) is None


def test_only_a_falling_native_time_is_a_clock():
    def clock(times):
        rows = parse_results(tiny([0.0, 1.0, 2.0], native_time=times)).rows
        return clock_of("ddpm", rows)

    assert clock([0.9, None, 0.1]).log_snr == (0.0, 2.0)
    assert clock([0.1, 0.5, 0.9]) is None
    assert clock([0.5, 0.5, 0.5]) is None
    assert clock(None) is None


def test_each_model_brings_its_clock_and_the_reference_comes_last():
    (board,) = boards(parse_results(document()))
    assert [c.label for c in clocks_of(board)] == ["ddpm", "score-sde", "latent-diffusion", "DDPM linear schedule"]
    axes = [e["text"] for e in page().all("text", class_="name")]
    assert axes.count("t/T, score-sde") == 5, "three published panels and two diagnostics"


def test_time_ticks_are_placed_by_the_clock_with_room_between_them():
    ticks = time_ticks(Clock("linear", (0.0, 10.0), (1.0, 0.0)), Scale((0.0, 10.0), (0.0, 100.0)), room=15)
    assert dict(ticks) == {1.0: 0.0, 0.8: 20.0, 0.6: 40.0, 0.4: 60.0, 0.2: 80.0, 0.0: 100.0}


# ------------------------------------------------------------------------------------ svg and markup


@pytest.mark.parametrize(
    ("low", "high", "ticks"),
    [(0, 2.5, [0.0, 0.5, 1.0, 1.5, 2.0, 2.5]), (-8, 9, [-5.0, 0.0, 5.0]), (0.12, 0.18, [0.12, 0.14, 0.16, 0.18])],
)
def test_nice_ticks(low, high, ticks):
    assert nice_ticks(low, high, 5) == pytest.approx(ticks)


def test_tick_text_has_the_decimals_of_its_step():
    assert [tick_text(v, nice_step(3, 6)) for v in (-1.0, 0.0, 2.5)] == ["−1.0", "0.0", "2.5"]
    assert tick_text(-0.001, 0.1) == "0.0"
    assert tick_text(20, 10) == "20"


def test_paths():
    unit = Scale((0, 1), (0, 10))
    assert line_path([0, 0.5, 1], [0, math.nan, 1], unit, unit) == "M0 0L0 0M10 10L10 10"
    assert band_path([0, 1], [0, 0], [1, 1], unit, unit) == "M0 0L10 0L10 10L0 10Z"
    assert [fixed(v) for v in (-0.001, 1.50, 2.0, 10.0)] == ["0", "1.5", "2", "10"]


def test_markup_escapes_children_and_attributes():
    assert el("p", {"title": '"<'}, "a<b", raw("<i></i>"), None) == '<p title="&quot;&lt;">a&lt;b<i></i></p>'
    assert el("input", {"checked": "", "id": None}) == "<input checked>"
