"""The suite of paper B, and parameter sets of one's own through the command line."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

from benchsuite import cli
from benchsuite.boards import boards
from benchsuite.discovery import Catalog
from benchsuite.plan import make_plan
from benchsuite.results import CurvePoints, Row, load_results, parse_results
from benchsuite.suite_files import load_suite

SMALL = [
    *("--set", "bootstrap=50"),
    *("--set", "items=4"),
    *("--set", "probe_items=4"),
    *("--set", "channels.nodes=6"),
    *("--set", "channels.refine=4"),
    *("--set", "channels.items=4"),
    *("--set", "channels.draws=4"),
    "--device=cpu",
]


def run(
    monkeypatch: pytest.MonkeyPatch, out: Path, models: str, metrics: str, *more: str
) -> tuple[int, list[Row]]:
    """Exit code and rows of one `benchsuite run`."""
    words = ["run", "phase-transition", "--models", models, "--metrics", metrics, *SMALL, *more, "--out", str(out)]
    monkeypatch.setattr("sys.argv", ["benchsuite", *words])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    return int(ended.value.code or 0), list(parse_results(load_results(out)).rows)


def variant(row: Row, name: str) -> CurvePoints:
    return next(curve for curve in row.curves if curve.variant == name)


def test_the_suite_holds_what_the_paper_shows(first_party: Catalog) -> None:
    plan = make_plan(load_suite("phase-transition"), first_party)
    asked = {unit.label: set(unit.metrics or ()) for unit in plan.units}
    depths = [f"exact-rhm:v=32,m=8,s=2,L={depth}" for depth in (3, 5, 7, 9)]
    assert all("level-retention" in asked[label] for label in depths)
    assert "channel-susceptibility" in asked[depths[2]]
    assert all("class-retention" in asked[label] for label in depths[:3])
    for label in ("ddpm", "score-sde", "latent-diffusion"):
        assert asked[label] == {"class-retention", "feature-similarity"}
    for unit in plan.units:
        settings = plan.settings_of(unit)
        assert settings.channels.redraws >= 24  # the theory is about the average over rules
        # the transition of a deep hierarchy is narrower than one log-SNR unit
        fine = unit.label in depths[:3]
        assert settings.u_turn.every == (0.25 if fine else 1.0)


def test_a_parameter_set_of_ones_own(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    spec = "exact-rhm:v=16,m=4,s=2,L=3"
    code, rows = run(
        monkeypatch, tmp_path, spec, "level-retention channel-susceptibility", "--set", "channels.redraws=3"
    )
    assert code == 0
    assert all(row.ok for row in rows)
    root = next(row for row in rows if row.factor == "class")
    assert root.n_items == 3  # redraws of the rules
    assert root.scalars["log_snr_50"] is not None
    theory = root.extra["theory"]
    assert theory["epsilon_star"] == pytest.approx(4 / 5)
    assert theory["p_star"] == pytest.approx(1 / 4)
    assert theory["nu"] == pytest.approx(2.254249, abs=1e-6)
    epsilon, expected = variant(root, "epsilon"), variant(root, "epsilon · mean field")
    assert (epsilon.axis, epsilon.log_snr[0], epsilon.log_snr[-1]) == ("epsilon", 0.0, 1.0)
    assert epsilon.value[0] == pytest.approx(1.0)
    assert epsilon.value[-1] == pytest.approx(1 / 16)
    assert epsilon.onset is not None
    assert expected.onset is not None
    assert expected.beside == "epsilon"
    assert expected.onset.value == pytest.approx(theory["threshold"], abs=1e-3)
    assert epsilon.onset.value == pytest.approx(theory["threshold"], abs=0.1)
    assert epsilon.native_time is None
    assert epsilon.low is not None
    assert expected.low is expected.high is None
    tokens = next(row for row in rows if row.metric == "channel-susceptibility")
    assert tokens.factor == ""
    assert set(tokens.extra["peaks"]) == {"gaussian", "masking", "epsilon"}
    assert [board.factor for board in boards(parse_results(load_results(tmp_path)))][-1] == ""
    with (tmp_path / "leaderboard.csv").open() as file:
        record = next(r for r in csv.DictReader(file) if r["factor"] == "class")
    assert record["other_thresholds"].startswith("masking: 0.")
    assert "epsilon: 0." in record["other_thresholds"]
    assert "Thresholds on other noise channels" in (tmp_path / "leaderboard.html").read_text()
    markdown = (tmp_path / "leaderboard.md").read_text()
    assert "| exact-rhm:v=16,m=4,s=2,L=3 | a transition as L grows | 0.8000 | 0.2500 | 2.2542 |" in markdown


def test_no_transition_is_said_in_words(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    code, rows = run(monkeypatch, tmp_path, "exact-rhm:v=8,m=5,s=2,L=2", "level-retention")
    assert code == 0
    theory = rows[0].extra["theory"]
    assert theory["epsilon_star"] is theory["p_star"] is theory["nu"] is None
    assert theory["transition"] == (
        "no transition: F'(1) = s m (v - 1) / (v^s - 1) = 1.11111 >= 1, the class is lost at every epsilon > 0"
    )
    assert "no transition: F'(1)" in (tmp_path / "leaderboard.md").read_text()
    document = json.loads((tmp_path / "leaderboard.json").read_text())
    assert document["rows"][0]["extra"]["theory"]["epsilon_star"] is None


def test_an_impossible_parameter_set_is_refused_with_the_reason(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    code, rows = run(monkeypatch, tmp_path, "exact-rhm:v=4,m=5,s=2,L=2", "level-retention")
    assert code == 3
    (row,) = rows
    assert row.status == "failed"
    assert "m·v = 20 rules of one level need as many different tuples, but there are only v^s = 16" in row.reason


def test_models_without_channels_say_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    code, rows = run(monkeypatch, tmp_path, "exact-mixture", "level-retention")
    assert code == 0
    assert {row.status for row in rows} == {"not_applicable"}
    assert "exact-mixture states no noise channels" in rows[0].reason


def test_reverse_steps_come_to_one_shot_retention(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Within 0.02, as coarse steps may inflate it (B §5.9), and four standard errors of the check's interval."""
    steps = ["--set", "u_turn.low=0.0", "--set", "u_turn.high=3.0", "--set", "items=150"]
    _, rows = run(monkeypatch, tmp_path, "exact-rhm:v=8,m=2,s=2,L=3", "class-retention", *steps)
    checks = parse_results(load_results(tmp_path)).consistency
    found = [check for check in checks if check.check == "retention = one-shot retention"]
    assert {check.factor for check in found} == {row.factor for row in rows}
    for check in found:
        low, high = check.deviation.low, check.deviation.high
        assert low is not None
        assert high is not None
        assert abs(check.deviation.value) < 0.02 + (high - low)
