"""Pivoting rows into boards: order, ties, holes."""

from __future__ import annotations

import pytest
from results_factory import (
    H10,
    MI,
    NASTY,
    PROBE,
    RETENTION,
    board_rows,
    crowded_document,
    document,
    measured,
    ranking,
    unavailable,
)

from benchsuite.boards import board_notes, boards, cells_without_values
from benchsuite.results import parse_results


def only_board(rows=None, ranks=None):
    (board,) = boards(parse_results(document(rows, ranks)))
    return board


def test_oracle_first_population_before_held_out_then_by_rank():
    board = only_board(list(reversed(board_rows())))
    assert [(line.label, line.split) for line in board.lines] == [
        ("empirical-bayes", "train"),
        ("empirical-bayes", "test"),
        ("ddpm", "test"),
        ("score-sde", "test"),
        ("latent-diffusion", "test"),
    ]
    assert [line.title for line in board.lines[:3]] == [
        "empirical-bayes · population",
        "empirical-bayes · held out",
        "ddpm",
    ]


def test_ties_share_a_marked_rank_and_oracles_have_none():
    board = only_board()
    assert [line.place for line in board.lines] == ["", "", "1=", "1=", "3"]
    assert [line.score.value for line in board.lines[2:]] == [0.05, 0.09, 0.38]


def test_within_a_rank_the_smaller_gap_comes_first():
    ranks = ranking()
    ranks[0]["score"] = 0.5
    assert [line.label for line in only_board(ranks=ranks).lines[2:4]] == ["score-sde", "ddpm"]


def test_every_cell_is_where_it_belongs():
    board = only_board()
    assert board.routes == (MI, RETENTION, PROBE)
    assert board.ranked_by == (MI, RETENTION)
    for line in board.lines:
        for route, row in line.rows.items():
            assert (row.label, row.split, row.metric) == (line.label, line.split, route)
    assert board.lines[4].rows[RETENTION].scalars["log_snr_50"].value == pytest.approx(-0.55 + 0.38)


def test_facts_of_the_board():
    board = only_board()
    assert board.entropy == H10
    assert board.readout_accuracy == 0.985
    assert board.population == 1200
    assert board.held_out == dict.fromkeys((MI, RETENTION, PROBE), (397, 2))


def test_a_model_is_compared_to_its_own_oracle_on_the_population():
    latent = [r | {"label": "empirical-bayes [ldm]"} for r in board_rows() if r["oracle"]]
    rows = board_rows() + latent
    for r in rows:
        if r["label"] == "latent-diffusion":
            r["reference"] = "empirical-bayes [ldm]"
    board = only_board(rows)
    found = {line.label: board.reference(line) for line in board.lines}
    assert found["ddpm"].title == "empirical-bayes · population"
    assert found["latent-diffusion"].title == "empirical-bayes [ldm] · population"
    assert found["empirical-bayes"] is None


def test_on_enumerated_data_models_are_compared_on_the_same_images():
    rows = board_rows()
    for r in rows:
        r["extra"] = r["extra"] | {"enumerated": True}
        if not r["oracle"]:
            r["reference_split"] = "test"
    board = only_board(rows)
    assert [line.title for line in board.lines[1:3]] == ["empirical-bayes · same images", "ddpm"]
    assert board.reference(board.lines[2]) is board.lines[1]


def test_entropy_is_not_stated_when_models_bring_different_data():
    rows = [measured("a", MI, 0.0, None, oracle=True), measured("b", MI, 0.0, None, oracle=True, entropy=0.5)]
    board = only_board(rows, [])
    assert board.entropy is None
    assert [line.title for line in board.lines] == ["a", "b"]


def test_one_board_per_dataset_and_factor():
    found = boards(parse_results(crowded_document()))
    assert [(board.dataset, board.factor) for board in found] == [
        ("digits", "class"),
        ("fashion-mnist", "class"),
        ("fashion-mnist", "garment"),
    ]
    garment = found[2]
    assert {row.factor for row in garment.rows if row.ok} == {"garment"}


def test_levels_of_deeper_models_come_where_they_belong():
    rows = [
        measured(f"depth {len(levels)}", MI, 0.0, None, oracle=True, factor=factor)
        for levels in (("1", "0"), ("3", "2", "1", "0"), ("1", "0", "joint"))
        for factor in ("class", *levels)
    ]
    found = boards(parse_results(document(rows, [])))
    assert [board.factor for board in found] == ["class", "3", "2", "1", "0", "joint"]


def test_a_ranked_model_with_a_hole_loses_its_rank_and_says_why():
    rows = [r for r in board_rows() if (r["label"], r["metric"]) != ("ddpm", RETENTION)]
    rows = [r for r in rows if (r["label"], r["metric"]) != ("score-sde", MI)]
    rows.append(unavailable("score-sde", MI, "timeout", "took more than 60 s"))
    lines = {line.label: line for line in only_board(rows).lines}
    assert lines["ddpm"].rank is None
    assert lines["ddpm"].score is None
    assert lines["ddpm"].unranked == "class-retention not measured"
    assert lines["score-sde"].unranked == "mutual-information timeout"
    assert lines["latent-diffusion"].rank == 3
    assert not lines["latent-diffusion"].tied


def test_a_hole_in_a_route_that_does_not_rank_costs_nothing():
    rows = [r for r in board_rows() if (r["label"], r["metric"]) != ("ddpm", PROBE)]
    assert only_board(rows).lines[2].place == "1="


def test_without_a_ranking_the_reason_is_the_missing_cell():
    rows = [unavailable("ddpm", MI, "failed", "no"), measured("sde", MI, 0.0, 0.0)]
    lines = {line.label: line.unranked for line in only_board(rows, []).lines}
    assert lines == {"ddpm": "mutual-information failed", "sde": "no route ranks"}


def test_a_model_without_an_entry_is_last_and_unranked():
    board = only_board(ranks=ranking()[1:])
    assert [line.label for line in board.lines[2:]] == ["score-sde", "latent-diffusion", "ddpm"]
    assert board.lines[-1].unranked == "no oracle gap on the routes that rank"


def test_a_cell_that_failed_before_its_factors_were_known_is_on_every_board_of_its_dataset():
    digits, fashion, garment = boards(parse_results(crowded_document()))
    for board, there in ((digits, False), (fashion, True), (garment, True)):
        assert ("hub-model" in [line.label for line in board.lines]) is there


def test_a_data_set_where_everything_failed_still_has_a_board():
    rows = [unavailable("ddpm", MI, "failed", "no images in /data", factor="", stage="data")]
    board = only_board(rows, [])
    assert (board.factor, board.lines[0].rows[MI].status) == ("", "failed")
    assert (board.population, board.held_out) == (None, {})


def test_cells_without_values_are_grouped_by_cause_and_complete():
    groups = cells_without_values(parse_results(crowded_document()))
    by_label = {row.label: cells for row, cells in groups}
    assert by_label[NASTY] == [f"digits · class · {metric}" for metric in (MI, RETENTION, PROBE)]
    assert by_label["hub-model"] == [f"fashion-mnist · {MI}"]
    assert len(by_label["empirical-bayes"]) == 3, "two splits of one cell are named once"


def test_notes_hold_flags_and_scalars_that_do_not_exist():
    assert board_notes(only_board()) == [
        ("score-sde", PROBE, "width: never reaches 90 %"),
        ("latent-diffusion", MI, "tail 0.21 nats above H at log-SNR 9.0"),
    ]


def test_checks_stand_with_the_line_and_board_they_belong_to():
    results = crowded_document()
    results["consistency"].append(
        results["consistency"][0] | {"factor": "garment", "dataset": "fashion-mnist", "value": 0.7}
    )
    digits, fashion, garment = boards(parse_results(results))
    assert digits.checks == ("fork entropy + I = H", "probe ≤ I")
    found = {line.label: line.checks for line in digits.lines}
    assert found["score-sde"]["probe ≤ I"].deviation.value == 0.004
    assert found["score-sde"]["fork entropy + I = H"].deviation.low == pytest.approx(0.045 - 0.01)
    assert not found["empirical-bayes"]
    assert fashion.checks == ()
    assert [line.checks["fork entropy + I = H"].deviation.value for line in garment.lines if line.checks] == [0.7]


def test_calibration_says_pass_fail_never_and_nothing():
    results = document()
    results["calibration"] = {MI: results["calibration"][MI], PROBE: None}
    (board,) = boards(parse_results(results))
    assert board.calibration[MI].passed
    assert board.calibration[PROBE] is None
    assert RETENTION not in board.calibration


def test_rows_on_two_splits_of_a_trained_model_stay_apart():
    rows = [measured("ddpm", MI, -1.5, 0.1, split="train"), measured("ddpm", MI, -0.9, 0.1)]
    assert {line.title for line in only_board(rows, []).lines} == {"ddpm", "ddpm · population"}
