"""The results document: what is accepted, what is refused and with which words."""

from __future__ import annotations

import json
import math
import re

import numpy as np
import pytest
from results_factory import MI, curve, document, measured, row

from benchsuite.errors import UsageError
from benchsuite.json_reading import plain
from benchsuite.results import load_results, parse_results


def one_row(**changes):
    return document([row("ddpm", MI, **changes)], [])


def test_a_good_document_keeps_its_values():
    parsed = parse_results(document())
    ddpm = next(r for r in parsed.rows if (r.label, r.metric) == ("ddpm", MI))
    assert ddpm.scalars["log_snr_50"].value == pytest.approx(-0.90)
    assert ddpm.scalars["log_snr_50"].high == pytest.approx(-0.83)
    assert ddpm.readout_accuracy == 0.985
    assert [c.variant for c in ddpm.curves] == ["", "plug-in"]
    assert ddpm.published.half == pytest.approx(math.log(10) / 2)
    assert [(r.label, r.rank) for r in parsed.ranking] == [("ddpm", 1), ("score-sde", 1), ("latent-diffusion", 3)]


def test_null_and_nan_are_missing_values():
    drawn = curve(MI, 0.0, 4.0)
    drawn["value"][3] = None
    drawn["low"][4] = math.nan
    drawn["high"][5] = math.inf
    scalars = {"log_snr_50": {"value": math.nan, "low": None, "high": 1.0}, "width": {"value": 2.0}}
    parsed = parse_results(one_row(curves=[drawn], scalars=scalars)).rows[0]
    assert [math.isnan(x) for x in parsed.published.value[2:5]] == [False, True, False]
    assert math.isnan(parsed.published.low[4])
    assert math.isnan(parsed.published.high[5])
    assert parsed.scalars["log_snr_50"] is None
    assert parsed.scalars["gap"] is None
    assert (parsed.scalars["width"].value, parsed.scalars["width"].low) == (2.0, None)


def test_plain_turns_numpy_into_json():
    mixed = {"a": np.float32(0.5), "b": np.array([1.0, np.nan]), "c": (np.int64(3), True), 4: None}
    assert plain(mixed) == {"a": 0.5, "b": [1.0, None], "c": [3, True], "4": None}
    with pytest.raises(TypeError, match=r"cannot hold .* of type set"):
        plain({"a": {1}})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"status": "great"}, r"rows\[0\].status must be one of ok, .*, found 'great'"),
        ({"label": None}, r"rows\[0\].label must be a string, found null"),
        ({"oracle": "no"}, r'rows\[0\].oracle must be true or false, found "no"'),
        ({"n_items": -3}, r"rows\[0\].n_items must be a whole number >= 0 or null, found -3"),
        ({"draws": True}, r"rows\[0\].draws must be a whole number"),
        ({"entropy": "2.3"}, r'rows\[0\].entropy must be a number or null, found "2.3"'),
        ({"flags": "tail"}, r'rows\[0\].flags must be a list of strings, found "tail"'),
        ({"scalars": {"width": 3.0}}, r"rows\[0\].scalars.width must be an object, found 3.0"),
        ({"scalars": [1]}, r"rows\[0\].scalars must be an object, found \[1\]"),
        ({"curves": {}}, r"rows\[0\].curves must be a list, found {}"),
    ],
)
def test_a_bad_row_is_named_with_its_value(changes, message):
    with pytest.raises(UsageError, match=message):
        parse_results(document([row("ddpm", MI) | changes], []))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"value": [1.0]}, r"curves\[0\].value has 1 entries, log_snr has 64"),
        ({"low": [0.0] * 63}, r"curves\[0\].low has 63 entries, log_snr has 64"),
        ({"log_snr": []}, r"curves\[0\].log_snr must be a non-empty list of ascending finite numbers"),
        ({"log_snr": [0.0, 0.0]}, r"ascending finite numbers"),
        ({"log_snr": [0.0, math.nan]}, r"ascending finite numbers"),
        ({"value": ["1"] * 64}, r"curves\[0\].value must be a list of numbers"),
        ({"ceiling": None}, r"curves\[0\] must have value, floor and ceiling"),
    ],
)
def test_a_bad_curve_is_named(change, message):
    with pytest.raises(UsageError, match=message):
        parse_results(one_row(curves=[curve(MI, 0.0, 4.0) | change]))


def test_another_schema_version_names_the_release_that_wrote_it():
    newer = document() | {"schema_version": 3, "provenance": {"benchsuite": "9.1"}}
    with pytest.raises(UsageError, match=r"schema version 3, this benchsuite reads 1 to 2; .*wrote it \(9\.1\)"):
        parse_results(newer)


@pytest.mark.parametrize("other", [{}, {"rows": []}, {"schema_version": 1}])
def test_other_objects_are_not_results(other):
    with pytest.raises(UsageError, match="not a benchsuite results document"):
        parse_results(other)


def test_the_same_cell_twice_is_refused():
    rows = [measured("ddpm", MI, -0.9, 0.05), measured("ddpm", MI, -0.8, 0.15)]
    with pytest.raises(UsageError, match=r"rows\[1\] repeats the cell ddpm × digits × test × class"):
        parse_results(document(rows, []))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"label": "nobody"}, r"ranking\[0\] ranks 'nobody', which has no row"),
        ({"rank": 0}, r"ranking\[0\] must have a rank >= 1 and a score"),
        ({"score": math.nan}, r"ranking\[0\] must have a rank >= 1 and a score"),
    ],
)
def test_a_bad_ranking_is_refused(change, message):
    good = document()
    good["ranking"] = [good["ranking"][0] | change]
    with pytest.raises(UsageError, match=message):
        parse_results(good)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"consistency": [{"value": 0.1}]}, r"consistency\[0\].label must be a string, found nothing"),
        ({"consistency": {"a": 1}}, r"consistency must be a list"),
        ({"calibration": {MI: {"passed": "yes"}}}, r'calibration.mutual-information.passed must be .*found "yes"'),
        ({"calibration": [1]}, r"calibration must be an object"),
    ],
)
def test_bad_checks_and_verdicts_are_refused(change, message):
    with pytest.raises(UsageError, match=message):
        parse_results(document() | change)


def test_checks_without_a_number_are_left_out_and_both_parts_are_optional():
    older = document()
    older["consistency"] = [older["consistency"][0] | {"value": None}]
    del older["calibration"]
    parsed = parse_results(older)
    assert (parsed.consistency, parsed.calibration) == ((), {})


def test_load_reads_a_file_or_its_directory(tmp_path):
    (tmp_path / "leaderboard.json").write_text(json.dumps(document()), encoding="utf-8")
    assert load_results(tmp_path / "leaderboard.json") == load_results(str(tmp_path)) == document()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, r"no results at .*absent.json; `benchsuite run --out DIR`"),
        (b"{", r"absent.json is not a JSON document: Expecting property name"),
        (b"\xff\xfe", r"absent.json is not a JSON document"),
        (b"[1]", r"absent.json must be an object, found \[1\]"),
    ],
)
def test_load_says_what_is_wrong_with_the_file(tmp_path, content, message):
    path = tmp_path / "absent.json"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UsageError, match=message) as caught:
        load_results(path)
    assert re.fullmatch(r".+", str(caught.value)), "one line"
