"""Curves on the axis of a loss, and theory beside them, in every report."""

from __future__ import annotations

from typing import Any

from results_factory import RETENTION, document, estimate, measured

from benchsuite.boards import boards
from benchsuite.report.html import html_text
from benchsuite.report.losses import tables, thresholds_text
from benchsuite.report.markdown import markdown_text
from benchsuite.report.panels import panels_of
from benchsuite.results import Results, parse_results


def loss_curve(variant: str, at: float | None, beside: str | None = None) -> dict[str, Any]:
    levels = [0.0, 0.25, 0.5, 0.75, 1.0]
    return {
        "variant": variant,
        "axis": "masked fraction",
        "beside": beside,
        "unit": "fraction",
        "floor": 0.1,
        "ceiling": 1.0,
        "log_snr": levels,
        "value": [1.0, 0.9, 0.5, 0.2, 0.1],
        "low": None,
        "high": None,
        "onset": None if at is None else estimate(at, 0.02),
        "width": None if at is None else estimate(0.3, 0.01),
    }


def results(at: float | None = 0.456) -> Results:
    base = document()
    row = measured("tree", RETENTION, 1.0, None, dataset="own data", oracle=True, reference=None)
    row["curves"] += [loss_curve("masking", at), loss_curve("masking · guess", 0.512, "masking")]
    row["extra"] = {
        "theory": {"transition": "yes", "epsilon_star": 0.75, "nu": None, "names": {"masking": "guess"}}
    }
    other = measured("bush", RETENTION, 0.5, None, dataset="own data", oracle=True, reference=None)
    return parse_results(base | {"rows": [row, other], "ranking": [], "consistency": []})


def test_a_theory_shares_the_panel_of_what_it_is_about() -> None:
    (board,) = boards(results())
    (panel,) = panels_of(board, published=False)
    assert (panel.variant, panel.loss, panel.axis) == ("masking", "masked fraction", "masked fraction")
    assert [drawn.theory for drawn in panel.drawn] == [False, True]
    assert panel.drawn[0].onset is not None
    assert panel.drawn[0].onset.value == 0.456
    (published,) = panels_of(board, published=True)
    assert published.loss == ""


def test_thresholds_stand_beside_their_theory() -> None:
    (board,) = boards(results())
    thresholds, theory = tables(board)
    assert thresholds.rows == (
        (
            "tree",
            f"{RETENTION} · masking",
            "masked fraction",
            "0.456 [0.436, 0.476]",
            "0.300 [0.290, 0.310]",
            "0.512, width 0.300 (guess)",
        ),
    )
    assert theory.head == ("theory", "transition", "epsilon star", "nu")
    assert theory.rows == (("tree", "yes", "0.7500", "none"),)
    line = next(line for line in board.lines if line.label == "tree")
    assert thresholds_text(line, RETENTION).startswith(
        "masking: 0.456 [0.436, 0.476] masked fraction, width 0.300"
    )


def test_without_a_threshold_there_is_no_row() -> None:
    (board,) = boards(results(at=None))
    assert [table.title for table in tables(board)] == ["Theory"]


def test_reports_show_the_axis() -> None:
    page = html_text(results())
    assert 'data-loss="masked fraction"' in page
    assert 'class="line theory' in page
    assert "against masked fraction from 0 (nothing) to 1 (everything lost)" in page
    assert "Thin dotted lines are what a theory expects." in page
    assert "| tree | " + RETENTION + " · masking | masked fraction | 0.456" in markdown_text(results())


def test_models_on_data_of_their_own_have_colours_of_their_own() -> None:
    page = html_text(results())
    assert "line series s0 c0 d0" in page
    assert "line series s1 c1 d1" in page
