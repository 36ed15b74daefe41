"""The kit's own manners: what a result says, announced failures, plugins that crash, the command."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from typing import Any

import pytest
import torch
from planted import exact
from planted.metrics import HalfForgotten, ReadsMore, Retention
from toys import catalog_of

from benchsuite import Fork, NoiseSweep, NotApplicableError, UsageError, UTurn, cli, discovery
from benchsuite.testing import METRIC_CHECKS, MODEL_CHECKS, CheckResult, assert_passed, check_metric, check_model
from benchsuite.testing.options import others
from benchsuite.testing.records import axes, factor_of, reference_records
from benchsuite.testing.results import worst
from benchsuite.testing.state import changed_by


def one(results: list[CheckResult], name: str) -> CheckResult:
    return next(result for result in results if result.name == name)


def test_results_are_named_and_in_order() -> None:
    results = check_model(exact.Healthy())
    assert [result.name for result in results] == list(MODEL_CHECKS)
    assert all(
        result.subject == "exact-mixture" and result.promise == MODEL_CHECKS[result.name] for result in results
    )


def test_a_failure_says_promise_observation_and_expectation() -> None:
    result = one(check_model(exact.LabelsClamped(), only=["label-range"]), "label-range")
    assert not result.ok
    assert str(result) == (
        "exact-mixture: label-range failed: promised that a label outside its factor's values is refused with a "
        "BenchsuiteError; observed class = 4 is accepted; class = -2 is accepted; "
        "expected UsageError naming factor, label and range"
    )
    with pytest.raises(AssertionError, match=r"^exact-mixture: label-range failed"):
        assert_passed([result])


def test_a_skipped_check_says_why() -> None:
    result = one(check_model(exact.Healthy(), only=["codec"]), "codec")
    assert result.ok
    assert (result.status, result.reason) == ("skipped", "needs a data set")


def test_an_announced_failure_is_not_held_against_the_plugin() -> None:
    announced = {"label-range": "clamps, as the paper does"}
    results = check_model(exact.LabelsClamped(), expected_failed=announced)
    assert_passed(results)
    result = one(results, "label-range")
    assert (result.status, result.reason) == ("failed as expected", "clamps, as the paper does")


def test_announcements_are_strict() -> None:
    """A check that passes although its failure was announced: the announcement is out of date."""
    results = check_model(exact.Healthy(), only=["finite"], expected_failed={"finite": "overflows in float16"})
    assert [result.status for result in results] == ["passed unexpectedly"]
    with pytest.raises(AssertionError, match="finite passed unexpectedly \\(overflows in float16\\)"):
        assert_passed(results)


@pytest.mark.parametrize("where", ["only", "expected_failed"])
def test_unknown_checks_are_refused_with_near_matches(where: str) -> None:
    argument: Any = ["lable-range"] if where == "only" else {"lable-range": "?"}
    with pytest.raises(UsageError, match="unknown check 'lable-range'; did you mean label-range"):
        check_model(exact.Healthy(), **{where: argument})


class Crashing(exact.Healthy):
    """Raises in every call."""

    def denoise(self, x: torch.Tensor, sigma: torch.Tensor, labels: torch.Tensor | None = None) -> torch.Tensor:
        raise SystemExit("no licence\nfor this")


def test_a_plugin_that_crashes_fails_and_stops_nothing() -> None:
    results = check_model(Crashing())
    assert one(results, "finite").observed == "SystemExit: no licence for this"
    assert one(results, "posterior-calibrated").status == "passed"


class Reluctant(Retention):
    """Applies to other records only."""

    def compute(self, records: Any) -> Any:
        raise NotApplicableError("needs a spectrum")


def test_a_metric_that_does_not_apply_is_skipped_with_its_reason() -> None:
    results = check_metric(Reluctant())
    assert one(results, "calibrated").reason == "not applicable: needs a spectrum"
    assert {result.status for result in results if result.name not in ("stated",)} == {"skipped"}


def test_checks_that_need_curves_give_way_to_the_one_that_says_why_there_are_none() -> None:
    results = check_metric(ReadsMore())
    assert [result.name for result in results if result.status == "failed"] == ["needs-declared"]
    assert one(results, "item-order").reason == "compute fails, see computes and needs-declared"


class Widened(Retention):
    """Options of every kind; only `width` is used."""

    def __init__(self, width: float = 1.0, mode: str = "hard", strict: bool = False) -> None:
        self.width = width


def test_options_are_tried_one_by_one_and_words_only_if_told() -> None:
    def said(**arguments: Any) -> str:
        return one(check_metric(Widened(), only=["ignored-option"], **arguments), "ignored-option").observed

    assert said() == "strict=True changes nothing"
    assert said(alternatives={"mode": "soft"}) == "mode='soft' changes nothing; strict=True changes nothing"


@pytest.mark.parametrize(
    ("value", "annotation", "tried"),
    [
        (3, "int", [4, 5, 9]),
        (None, "int | None", [2, 3, 5]),
        (2.0, "float", [3.0, 1.0]),
        (None, "float | None", [0.5, 2.5]),
        (True, "bool", [False]),
        ("a", "str", []),
        (None, "Any", []),
    ],
)
def test_other_values(value: Any, annotation: str, tried: list[Any]) -> None:
    assert others(value, annotation) == tried


def test_nan_is_the_worst_of_all() -> None:
    seen = worst("difference", [("at a", 5.0, 1.0), ("at b", float("nan"), 1.0)])
    assert not seen.ok
    assert seen.observed == "difference at b nan"


def test_state_is_put_back() -> None:
    def spoil() -> None:
        torch.manual_seed(1)
        torch.set_default_dtype(torch.float64)

    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    assert changed_by(spoil) == ["torch's random generator", "default dtype"]
    assert torch.equal(torch.rand(3), expected)
    assert changed_by(lambda: None) == []


def test_the_kit_knows_the_layout_of_every_array() -> None:
    """Rows, levels and values lie where `AXES` says: an array added to a protocol must be added there."""
    records = reference_records((NoiseSweep(heads=True, taps=True), UTurn(), Fork()))
    for record in records.values():
        rows = {"": len(record["items"]), "tap": len(record.arrays.get("tap_role", ()))}
        levels = {"": len(record["log_snr"]), "tap": len(record.arrays.get("tap_log_snr", ()))}
        for name, array in record.arrays.items():
            row, level, value = axes(name)
            kind = "tap" if name.startswith("tap") else ""
            assert row is None or array.shape[row] == rows[kind], name
            assert level is None or array.shape[level] == levels[kind], name
            assert value is None or array.shape[value] == record.factor_size(factor_of(name)), name


# ------------------------------------------------------------------------------------ the command

Check = Callable[..., tuple[int, str, str]]


@pytest.fixture
def check(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str, str]]:
    """`benchsuite check …` with a few planted plugins: (exit code, output, errors)."""

    class Clamped(exact.LabelsClamped):
        name = "clamped"

    class Halved(HalfForgotten):
        name = "halved"

    catalog = catalog_of(Clamped, Halved)
    monkeypatch.setattr(discovery, "discover", lambda: catalog)
    monkeypatch.setenv("COLUMNS", "200")

    def call(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["benchsuite", "check", *arguments])
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            cli.main()
        printed = capsys.readouterr()
        return int(ended.value.code or 0), printed.out, printed.err

    return call


def test_check_a_sampler(check: Check) -> None:
    code, out, _ = check("sde-2m")
    assert code == 0
    assert "empirical-order" in out
    assert "8 passed" in out


def test_check_a_model_exits_with_3(check: Check) -> None:
    code, out, _ = check("clamped")
    assert code == 3
    assert "label-range: clamped promises that a label outside its factor's values is refused" in out
    assert "1 failed" in out


def test_check_as_json(check: Check) -> None:
    code, out, _ = check("halved", "--json")
    found = {entry["name"]: entry for entry in json.loads(out)}
    assert code == 3
    assert list(found) == list(METRIC_CHECKS)
    assert [name for name, entry in found.items() if not entry["ok"]] == ["calibrated"]
    assert found["calibrated"]["expected"] == "at most 0.03"


def test_check_an_unknown_name(check: Check) -> None:
    code, _, errors = check("clampd")
    assert code == 2
    assert errors == "benchsuite: unknown name 'clampd'; did you mean clamped?\n"
