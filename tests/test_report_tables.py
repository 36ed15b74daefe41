"""Markdown, CSV, JSON, BibTeX and the terminal; writing all of them."""

from __future__ import annotations

import copy
import csv
import io
import json
import math

import pytest
from results_factory import MI, NASTY, PROBE, RETENTION, crowded_document, document, measured, row
from rich.console import Console

import benchsuite.leaderboard as leaderboard
from benchsuite.boards import boards
from benchsuite.errors import UsageError
from benchsuite.leaderboard import load_results, render_terminal, write_board
from benchsuite.report.citation import bibtex, works_cited, works_in
from benchsuite.report.markdown import escape, markdown_text
from benchsuite.report.tables import COLUMNS, csv_text, json_text
from benchsuite.report.words import headline, number
from benchsuite.results import parse_results


def parsed(results=None):
    return parse_results(results or document())


def csv_records(results=None):
    return list(csv.DictReader(io.StringIO(csv_text(boards(parsed(results))))))


def cells(line):
    """Cells of a Markdown table row: split at pipes that are not escaped."""
    return [c.replace("\0", "|").strip() for c in line.replace("\\|", "\0").strip("|").split("|")]


# ---------------------------------------------------------------------------------------------- csv


def test_csv_has_one_record_per_cell_at_full_precision():
    records = csv_records()
    assert list(records[0]) == list(COLUMNS)
    assert len(records) == len(document()["rows"]) == 15
    ddpm = next(r for r in records if (r["label"], r["metric"]) == ("ddpm", MI))
    assert float(ddpm["log_snr_50"]) == -0.95 + 0.05
    assert float(ddpm["gap_low"]) == 0.05 - 0.06
    assert (ddpm["rank"], ddpm["tied"], float(ddpm["oracle_gap_high"])) == ("1", "true", 0.05 + 0.04)
    assert (ddpm["status"], ddpm["oracle"], ddpm["n_items"]) == ("ok", "false", "397")
    assert ddpm["model_fingerprint"] == "0f" * 16


def test_csv_native_time_is_the_models_own_clock_at_the_onset():
    ve = next(r for r in csv_records() if (r["label"], r["metric"]) == ("score-sde", MI))
    onset = -0.95 - 0.09
    by_hand = (math.log(math.exp(-onset / 2)) - math.log(0.01)) / math.log(50 / 0.01)
    assert float(ve["log_snr_50_native_time"]) == pytest.approx(by_hand, abs=1e-9)


def test_csv_leaves_missing_values_empty():
    records = csv_records(crowded_document())
    failed = next(r for r in records if r["label"] == NASTY)
    assert (failed["log_snr_50"], failed["rank"], failed["status"]) == ("", "", "failed")
    assert failed["unranked"] == "mutual-information failed, class-retention failed"
    width = next(r for r in records if (r["label"], r["metric"]) == ("score-sde", PROBE))
    assert (width["width"], width["notes"]) == ("", "width: never reaches 90 %")


def test_csv_text_cannot_run_as_a_formula_and_numbers_stay_numbers():
    rows = [measured("=HYPERLINK(1)", MI, -0.9, -0.1, reason="@x", flags=["-1 nats"])]
    (record,) = csv_records(document(rows, []))
    assert (record["label"], record["reason"], record["flags"]) == ("'=HYPERLINK(1)", "'@x", "'-1 nats")
    assert record["log_snr_50"] == "-0.9"


def test_csv_survives_commas_quotes_and_newlines():
    rows = [row("a,b", MI, flags=['say "no"', "two\nlines"])]
    (record,) = csv_records(document(rows, []))
    assert (record["label"], record["flags"]) == ("a,b", 'say "no"; two\nlines')


# --------------------------------------------------------------------------------------------- json


def test_json_round_trip_keeps_everything_and_turns_nan_into_null():
    results = document() | {"later": {"unknown": [1, 2]}}
    results["rows"][0]["curves"][0]["value"][0] = math.nan
    results["rows"][0]["extra"]["ratio"] = math.inf
    back = json.loads(json_text(results), parse_constant=pytest.fail)
    assert back["rows"][0]["curves"][0]["value"][0] is None
    assert back["rows"][0]["extra"]["ratio"] is None
    expected = copy.deepcopy(results)
    expected["rows"][0]["curves"][0]["value"][0] = None
    expected["rows"][0]["extra"]["ratio"] = None
    assert back == expected


def test_json_puts_a_curve_on_one_line_and_strings_stay_as_they_are():
    results = document(
        [row("a", MI, reason="[\n 1,\n 2\n]", curves=[measured("a", MI, 0.0, None)["curves"][0]])], []
    )
    text = json_text(results)
    (line,) = [x for x in text.splitlines() if '"log_snr":' in x]
    assert line.count(",") >= 63
    assert json.loads(text)["rows"][0]["reason"] == "[\n 1,\n 2\n]"


# ----------------------------------------------------------------------------------------- markdown


def test_markdown_table_has_every_number_of_the_board():
    text = markdown_text(parsed())
    table = text[text.index("| rank") :].partition("\n\n")[0]
    lines = [cells(line) for line in table.splitlines()]
    head, _, *body = lines
    assert len({len(line) for line in lines}) == 1
    ddpm = dict(zip(head, body[2], strict=True))
    assert ddpm["rank"] == "1="
    assert ddpm["model"] == "ddpm"
    assert ddpm["oracle gap"] == "0.05 [0.01, 0.09]"
    assert ddpm[f"{MI} log-SNR₅₀"] == "-0.90 [-0.97, -0.83]"
    assert ddpm[f"{MI} width"] == "4.08 [3.93, 4.23]"
    assert ddpm[f"{RETENTION} gap"] == "0.05 [-0.01, 0.11]"
    sde = dict(zip(head, body[3], strict=True))
    assert sde[f"{MI} area (nats × log-SNR)"] == "0.10 [0.08, 0.12]"
    assert f"{RETENTION} area (fraction × log-SNR)" in head
    assert [line[0] for line in body] == ["–", "–", "1=", "1=", "3"]
    assert [line[1] for line in body[:2]] == ["**empirical-bayes · population**", "**empirical-bayes · held out**"]


def test_markdown_shows_verdicts_and_consistency():
    text = markdown_text(parsed())
    assert "* mutual-information: calibrated, bias 0.012 of 0.030 nats allowed" in text
    assert "* linear-probe: failed calibration, does not rank: bias 0.09 nats on exact-mixture" in text
    assert "| consistency | fork entropy + I = H | probe ≤ I |" in text
    assert "| score-sde | 0.045 [0.035, 0.055] nats | 0.004 [0.004, 0.004] nats |" in text


def test_markdown_says_on_how_many_images_each_route_was_measured():
    assert "; held-out images: 397 × 2 noise draws; oracle:" in markdown_text(parsed())
    results = document()
    for one in results["rows"]:
        one |= {MI: {"n_items": 48, "draws": 1}, PROBE: {"n_items": 1000, "draws": 1}}.get(one["metric"], {})
    counts = "48 × 1 (mutual-information), 397 × 2 (class-retention) and 1000 × 1 (linear-probe) noise draws"
    assert f"; held-out images: {counts}; oracle:" in markdown_text(parsed(results))


def test_csv_carries_verdict_and_consistency():
    record = next(r for r in csv_records() if (r["label"], r["metric"]) == ("score-sde", PROBE))
    assert record["calibration"].startswith("failed calibration")
    assert record["consistency"] == "fork entropy + I = H: 0.045 nats; probe ≤ I: 0.004 nats"


def test_markdown_shows_the_status_and_lists_the_reason_of_every_hole():
    text = markdown_text(parsed(crowded_document()))
    oom = next(cells(line) for line in text.splitlines() if line.startswith("| – | big-dit"))
    assert oom.count("oom") == 2
    assert oom.count("not measured") == 1
    assert "* big-dit: **oom** at noise_sweep, out of memory at batch 1. Cells: digits · class" in text
    assert "* ddpm-unconditional has no rank: mutual-information not applicable" in text
    assert "* hub-model: **not installed**, pip install benchsuite-hub." in text


def test_markdown_escapes_model_names():
    text = markdown_text(parsed(crowded_document()))
    assert "<script>" not in text
    named = [line for line in text.splitlines() if line.startswith("| – | &lt;script&gt;")]
    assert len(named) == 1
    assert len(cells(named[0])) == 3 + 3 * 4, "an escaped pipe opens no cell"


@pytest.mark.parametrize(
    ("text", "literal"),
    [
        ("a|b", r"a\|b"),
        ("*x* `y` [z](u)", r"\*x\* \`y\` \[z\](u)"),
        ("two\n lines", "two lines"),
        ("log_snr_50 _em_", r"log_snr_50 \_em\_"),
        ("a & <b>", "a &amp; &lt;b&gt;"),
        ("back\\slash", r"back\\slash"),
    ],
)
def test_markdown_escape(text, literal):
    assert escape(text) == literal


# ------------------------------------------------------------------------------------------- others


def test_headline_names_the_oracles_onsets_and_the_tied_winners():
    (board,) = boards(parsed())
    assert headline(board) == (
        "The ideal of these 1200 images fixes class at log-SNR -0.95 (mutual-information), "
        "-0.55 (class-retention). ddpm and score-sde come closest to it: oracle gap 0.05 to 0.09, too close to "
        "tell apart."
    )


@pytest.mark.parametrize(
    ("value", "text"), [(-0.001, "0.00"), (0.005, "0.01"), (-1.5, "-1.50"), (None, "–"), (12.0, "12.00")]
)
def test_number(value, text):
    assert number(value) == text


def test_works_cited_name_their_users():
    assert works_cited(parsed())[:2] == [
        ("arXiv:1610.01644", ["metric linear-probe"]),
        ("arXiv:2006.11239", ["model ddpm"]),
    ]


@pytest.mark.parametrize(
    ("paper", "works"),
    [
        ("2402.16991", ["arXiv:2402.16991"]),
        ("arXiv:2402.16991v2", ["arXiv:2402.16991"]),
        ("https://arxiv.org/abs/2006.11239, 2011.13456", ["arXiv:2006.11239", "arXiv:2011.13456"]),
        ("arXiv:cond-mat/9901001", ["arXiv:cond-mat/9901001"]),
        ("doi:10.1103/PhysRevX.1234.56789.", ["doi:10.1103/PhysRevX.1234.56789"]),
        (" A book ", ["A book"]),
        ("", []),
    ],
)
def test_works_in_a_paper_field(paper, works):
    assert works_in(paper) == works


def test_bibtex_escapes_and_balances_braces():
    text = bibtex(parsed(document([row("m", "odd_{metric}", metric_paper="50 % of {this} & that_")], [])))
    assert r"howpublished = {50 \% of \{this\} \& that\_}," in text
    assert r"metric odd\_\{metric\}" in text
    assert text.count("@software{benchsuite-0.1.0,") == 1
    assert text.replace(r"\{", "").count("{") == text.replace(r"\}", "").count("}")


@pytest.mark.parametrize("width", [80, 100])
def test_terminal_fits_and_says_everything(width):
    out = io.StringIO()
    render_terminal(crowded_document(), Console(file=out, width=width, color_system=None))
    text = out.getvalue()
    assert max(map(len, text.splitlines())) <= width
    flat = " ".join(text.split())
    for said in (
        "1=",
        "-0.90",
        "[-0.97, -0.83]",
        "score-sde",
        NASTY,
        "oom (noise_sweep): out of memory at batch 1",
    ):
        assert said in flat
    assert "latent-diffusion, mutual-information: tail 0.21 nats above H" in flat
    assert "linear-probe: failed calibration, does not rank" in flat
    assert "[0.035, 0.055]" in flat, "the consistency table"


def test_terminal_prints_markup_and_control_characters_literally():
    out = io.StringIO()
    rows = [measured("[red]x[/red]", MI, 0.0, None), row("y", MI, status="failed", reason="\x1b[2Jgone")]
    render_terminal(document(rows, []), Console(file=out, width=100, color_system=None))
    assert "[red]x[/red]" in out.getvalue()
    assert "\x1b" not in out.getvalue()


# ---------------------------------------------------------------------------------------- write_board


def files(folder):
    return sorted(path for path in folder.rglob("*") if path.is_file())


def test_write_board_writes_tables_and_figures_that_read_back(tmp_path):
    results = crowded_document()
    paths = write_board(results, tmp_path / "new" / "board")
    assert [p.name for p in paths[:4]] == [f"leaderboard.{x}" for x in ("md", "csv", "json", "html")]
    assert [p.relative_to(tmp_path / "new" / "board").as_posix() for p in paths[4:]] == [
        "figures/digits-routes-all-models.svg",
        "figures/fashion-mnist-order-of-emergence.svg",
        "figures/fashion-mnist-routes-ddpm.svg",
        "figures/fashion-mnist-routes-score-sde.svg",
        "figures/fashion-mnist-routes-latent-diffusion.svg",
    ]
    assert files(tmp_path) == sorted(paths)
    assert load_results(paths[2]) == results


def test_the_same_document_gives_the_same_bytes(tmp_path):
    first = [p.read_bytes() for p in write_board(document(), tmp_path / "a")]
    again = [p.read_bytes() for p in write_board(load_results(tmp_path / "a"), tmp_path / "b")]
    assert first == again


def test_a_bad_document_leaves_the_old_board_alone(tmp_path):
    (old, *_) = write_board(document(), tmp_path)
    before = old.read_bytes()
    with pytest.raises(UsageError):
        write_board(document() | {"schema_version": 0}, tmp_path)
    assert old.read_bytes() == before


def test_a_write_that_fails_leaves_the_old_file_and_no_litter(tmp_path, monkeypatch):
    paths = write_board(document(), tmp_path)
    before = {p: p.read_bytes() for p in paths}

    def no_space(source, target):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(leaderboard.os, "replace", no_space)
    with pytest.raises(OSError, match="No space"):
        write_board(crowded_document(), tmp_path)
    assert {p: p.read_bytes() for p in files(tmp_path)} == before


def test_an_empty_run_still_has_a_board(tmp_path):
    for path in write_board(document([], []), tmp_path):
        assert path.stat().st_size > 0
