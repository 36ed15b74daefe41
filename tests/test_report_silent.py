"""Boards of metrics without onsets: their own scalars in place of dashes, no status lost, in every report."""

from __future__ import annotations

import io
import re
from typing import Any

import pytest
from results_factory import MI, document, estimate, measured, row, unavailable
from rich.console import Console

from benchsuite.boards import Board, boards
from benchsuite.leaderboard import render_terminal
from benchsuite.report.html import html_text
from benchsuite.report.markdown import markdown_text
from benchsuite.results import parse_results

RIDGE = "ridge-geometry"
FLAG = "53% of the values lie far outside"


def ridge(label: str, distance: float, **changes: Any) -> dict[str, Any]:
    """A row with a curve and two scalars of its own, and no onset."""
    levels = {"log_snr": [-2.0, 0.0, 2.0], "value": [1.0, 1.0, distance], "low": None, "high": None}
    drawn = {"variant": "", "unit": "noise floor", "floor": 0.0, "ceiling": 1.0, **levels}
    columns = {"dimension": 1, "distance": estimate(distance, 0.25)}
    return row(label, RIDGE) | {"curves": [drawn], "extra": {"columns": columns}} | changes


def curve_only(label: str, **changes: Any) -> dict[str, Any]:
    return ridge(label, 2.0, **{"extra": {}, "metric": "sample-validity"} | changes)


def results(*rows: dict[str, Any]) -> dict[str, Any]:
    return document(list(rows), []) | {"consistency": [], "calibration": {RIDGE: None}}


def board_of(*rows: dict[str, Any]) -> Board:
    (board,) = boards(parse_results(results(*rows)))
    return board


def page(*rows: dict[str, Any]) -> str:
    """The section of the board."""
    text = html_text(parse_results(results(*rows)))
    return text[text.index('<section class="board"') :].partition("</section>")[0]


def markdown(*rows: dict[str, Any]) -> str:
    return markdown_text(parse_results(results(*rows))).partition("## How to read it")[0].partition("## Cells")[0]


def terminal(*rows: dict[str, Any], width: int = 100) -> str:
    out = io.StringIO()
    render_terminal(results(*rows), Console(file=out, width=width, color_system=None))
    assert max(map(len, out.getvalue().splitlines())) <= width
    return out.getvalue()


def tables(section: str) -> list[list[list[str]]]:
    """The words in every cell of every table, row by row; parts of a cell are joined by a space."""

    def words(cell: str) -> str:
        return " ".join(re.sub("<[^>]*>", " ", cell).split())

    found = re.findall(r"<table.*?</table>", section, re.DOTALL)
    rows = [re.findall(r"<tr.*?</tr>", table, re.DOTALL) for table in found]
    return [[[words(c) for c in re.findall(r"<t[hd].*?</t[hd]>", line)] for line in table] for table in rows]


TWO = (ridge("ddpm", 2.5, flags=[FLAG]), ridge("sde", 1.5))


def test_the_page_begins_with_the_scalars_of_the_metric() -> None:
    section = page(*TWO)
    (table,) = tables(section)
    assert table == [
        ["model", f"{RIDGE} v1 never calibrated, does not rank"],
        ["dimension", "distance"],
        ["ddpm 1 pixels", "1", "2.5 [2.25, 2.75]"],
        ["sde pixels", "1", "1.5 [1.25, 1.75]"],
    ]
    assert section.index("<table") < section.index('<svg class="panel')
    assert f'<li id="b0-n1">ddpm, {RIDGE}: {FLAG}</li>' in section
    assert "log-SNR₅₀" not in section
    assert "oracle gap" not in section
    assert "No rank" not in section


def test_markdown_begins_with_the_scalars_of_the_metric() -> None:
    text = markdown(*TWO)
    assert text.count("| :--") == 1
    lines = [line.replace("\\", "") for line in text.splitlines() if line.startswith("|")]
    assert lines == [
        f"| {RIDGE} | dimension | distance |",
        "| :-- | --: | --: |",
        "| ddpm | 1 | 2.5 [2.25, 2.75] |",
        "| sde | 1 | 1.5 [1.25, 1.75] |",
    ]
    assert f"* ddpm, {RIDGE}: {FLAG}" in text
    assert f"* {RIDGE}: never calibrated, does not rank" in text
    assert "has no rank" not in text


def test_the_terminal_shows_the_scalars_of_the_metric() -> None:
    text = terminal(*TWO)
    assert re.search(rf"{RIDGE} +dimension +distance", text)
    assert re.search(r"ddpm +1 +2\.5 *\n +\[2\.25, 2\.75\]", text)
    assert f"ddpm, {RIDGE}: {FLAG}" in text
    assert "oracle gap" not in text
    assert "log-SNR₅₀" not in text


@pytest.mark.parametrize("width", [80, 100])
def test_scalars_that_do_not_fit_a_terminal_go_on_below(width: int) -> None:
    columns = {f"quantity {k}": estimate(100.0 + k, 0.5) for k in range(12)}
    text = terminal(ridge("ddpm", 2.5, extra={"columns": columns}), width=width)
    assert text.count("ddpm") >= 2
    assert all(f"{100 + k}" in text for k in range(12))


def test_an_oracle_is_marked_in_the_table_that_stands_instead() -> None:
    rows = (ridge("ideal", 1.0, oracle=True, reference=None), ridge("ddpm", 2.5))
    assert "| **ideal** | 1 | 1 " in markdown(*rows)
    assert '<tr class="oracle"><th' in page(*rows)


def test_beside_a_route_with_onsets_the_silent_one_has_no_column_and_its_flags_stay() -> None:
    rows = (measured("ddpm", MI, 0.5, None), *TWO)
    section = page(*rows)
    ranks, scalars = tables(section)
    assert ranks[0][:3] == ["rank", "model", "oracle gap"]
    assert [head.split()[0] for head in ranks[0][3:]] == [MI]
    assert ranks[1] == ["log-SNR₅₀", "width"]
    assert ranks[2][0:2] == ["–", "ddpm 1 2 pixels"]
    assert scalars[0] == [f"{RIDGE} v1 never calibrated, does not rank", "dimension", "distance"]
    assert scalars[1] == ["ddpm", "1", "2.5 [2.25, 2.75]"]
    assert f">ddpm, {RIDGE}: {FLAG}</li>" in section
    text = markdown(*rows)
    assert f"| rank | model | oracle gap | {MI} log-SNR₅₀ | {MI} width |\n" in text
    assert f"* ddpm, {RIDGE}: {FLAG}" in text
    assert f"| {RIDGE} | dimension | distance |" in text
    printed = terminal(*rows)
    assert RIDGE not in next(line for line in printed.splitlines() if MI in line)
    assert FLAG in printed


def test_a_status_of_a_metric_with_scalars_stands_in_their_table() -> None:
    broken = unavailable("big", RIDGE, "oom", "out of memory at batch 1")
    (table,) = tables(section := page(*TWO, broken))
    (line,) = [line for line in table if line[0].startswith("big")]
    assert re.fullmatch(r"oom \d", line[1])
    assert "out of memory at batch 1</li>" in section
    assert "| big | oom |  |" in markdown(*TWO, broken)
    assert re.search(r"big +oom", terminal(*TWO, broken))
    mixed = (*TWO, broken, measured("ddpm", MI, 0.5, None))
    assert f"big: {RIDGE} oom\n" in terminal(*mixed)
    assert "sde: dimension 1, distance 1.5 [1.25, 1.75]\n" in terminal(*mixed)
    assert ["big", "oom", ""] in tables(page(*mixed))[1]


def test_a_status_of_a_metric_without_scalars_keeps_its_column() -> None:
    rows = (curve_only("ddpm"), unavailable("big", "sample-validity", "failed", "no"))
    (table,) = tables(page(*rows))
    assert table[1] == ["log-SNR₅₀"]
    assert any("failed" in cell for line in table for cell in line)
    assert "| failed |" in markdown(*rows)
    assert "failed" in terminal(*rows)


def test_a_route_that_only_failed_keeps_its_column_and_the_ranks() -> None:
    board = board_of(unavailable("big", RIDGE, "failed", "no"))
    assert board.columns == (RIDGE,)
    assert board.ranks


def test_a_note_about_an_onset_keeps_the_column() -> None:
    note = {"log_snr_50": "never reaches half way"}
    board = board_of(ridge("ddpm", 2.5, scalar_notes=note), ridge("sde", 1.5))
    assert not board.silent(RIDGE)
    assert (board.columns, board.scalars(RIDGE)) == ((RIDGE,), ("log_snr_50",))


def test_a_line_that_was_not_measured_says_so() -> None:
    rows = (*TWO, curve_only("other", flags=["says little"]))
    (line,) = [cells for cells in tables(page(*rows))[0] if cells[0].startswith("other")]
    assert line[1] == "not measured"
    assert "| other | not measured |  |" in markdown(*rows)
    assert "Curves only, without an onset: sample-validity." in page(*rows)
    assert "other, sample-validity: says little</li>" in page(*rows)


def test_without_any_number_the_models_are_named_with_their_flags() -> None:
    rows = (curve_only("ddpm", flags=[FLAG]), curve_only("sde"))
    assert tables(page(*rows)) == [[["model"], ["ddpm 1 pixels"], ["sde pixels"]]]
    assert f"ddpm, sample-validity: {FLAG}</li>" in page(*rows)
    said = "Curves only, without an onset: sample-validity."
    assert all(said in report(*rows) for report in (page, markdown, terminal))
    assert "| model |\n| :-- |\n| ddpm |\n| sde |\n" in markdown(*rows)
    assert re.search("ddpm.*\n.*sde", terminal(*rows))


def test_an_area_without_an_onset_has_a_column_but_no_rank() -> None:
    rows = [curve_only(label, scalars={"area": estimate(0.4, 0.1)}) for label in ("ddpm", "sde")]
    (table,) = tables(page(*rows))
    assert [cell.split()[0] for cell in table[0]] == ["model", "sample-validity"]
    assert table[2] == ["ddpm pixels", "0.40 [0.30, 0.50]"]
    assert "| model | sample-validity area (nats × log-SNR) |" in markdown(*rows)
    assert re.search(r"ddpm +0\.40 *\n +\[0\.30, 0\.50\]", terminal(*rows))


def test_intervals_of_scalars_are_small_print_below_so_that_many_columns_fit() -> None:
    text = html_text(parse_results(results(*TWO)))
    assert "2.5<small>[2.25, 2.75]</small>" in text
    assert re.search(r"\.scalars thead th \{[^}]*white-space: normal", text)
