"""From planted curves to the document: orders of emergence, and flags on the rows of routes that disagree."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from toy_runs import plan_of
from toys import ToyModel

from benchsuite import Curve
from benchsuite.assemble import assemble
from benchsuite.contracts import Factor
from benchsuite.request import Settings
from benchsuite.results import SCHEMA_VERSION, parse_results
from benchsuite.runner import Outcome

MI, RETENTION = "mutual-information", "class-retention"
H = float(np.log(4))
LOG_SNR = np.linspace(-10, 10, 41)
IDS = tuple(f"item{i:03d}" for i in range(60))
ONSETS = {"floor": -3.0, "shape": 0.0, "texture": 3.0}


def curve(factor, onset, metric=MI):
    """A logistic through half way at `onset`; None never leaves its floor."""
    way = np.zeros(len(LOG_SNR)) if onset is None else 1 / (1 + np.exp(-(LOG_SNR - onset)))
    scatter = 0.05 * np.random.default_rng(len(factor)).standard_normal((len(IDS), 1)) * way * (1 - way)
    if metric == MI:
        return Curve(factor, LOG_SNR, H * (way + scatter), IDS, "nats", 0.0, H)
    return Curve(factor, LOG_SNR, 0.25 + 0.75 * (way + scatter), IDS, "probability", 0.25, 1.0)


def outcome(unit, mi, retention=None):
    """An outcome of planted curves: {factor: onset} by route."""
    factors = tuple(Factor(name, ("a", "b", "c", "d")) for name in mi)
    curves = {MI: [curve(*pair) for pair in mi.items()]}
    curves[RETENTION] = [curve(*pair, RETENTION) for pair in (retention or mi).items()]
    entropy = dict.fromkeys(mi, H)
    passes = {"noise_sweep": 1, "u_turn": 1, "label_filter": 1}
    return Outcome(unit, unit.dataset, factors, entropy, curves, passes=passes)


@pytest.fixture(scope="module")
def found():
    plan = plan_of(ToyModel, metrics=(MI, RETENTION))
    plan = replace(plan, settings=replace(Settings(), bootstrap=100))
    (unit,) = plan.units
    ideal = replace(unit, label="ideal", split="train", oracle=True)
    held_out = replace(ideal, split="test")
    model = replace(unit, reference="ideal")
    never = ONSETS | {"dummy": None}
    swapped = {"floor": 0.5, "shape": 0.0, "texture": 3.0, "dummy": None}
    outcomes = [outcome(ideal, never), outcome(held_out, never), outcome(model, swapped, never)]
    document = json.loads(json.dumps(assemble(plan, outcomes, {"benchsuite": "x"}), allow_nan=False))
    return document, parse_results(document)


def test_a_gap_is_taken_where_the_unit_says_and_luck_with_the_items_is_none():
    """The oracle's two rows differ; on the model's own items what the items do is the same on both sides."""
    plan = plan_of(ToyModel, metrics=(MI,))
    plan = replace(plan, settings=replace(Settings(), bootstrap=100))
    (unit,) = plan.units
    ideal = replace(unit, label="ideal", split="train", oracle=True)
    same = replace(ideal, split="test")
    found = {}
    for name, split, facts in (
        ("population", "train", {}),
        ("test", "test", {"enumerated": True}),
        ("draws", "test", {"enumerated": False}),  # its options decided otherwise than its class
    ):
        measured = outcome(replace(unit, reference="ideal", reference_split=split), {"shape": 0.5})
        measured.facts = facts
        outcomes = [outcome(ideal, {"shape": 0.0}), outcome(same, {"shape": 0.5}), measured]
        results = parse_results(json.loads(json.dumps(assemble(plan, outcomes, {}))))
        found[name] = next(row for row in results.rows if row.label == "toy")
    assert [row.reference_split for row in found.values()] == ["train", "test", "train"]
    for name in ("population", "draws"):
        assert found[name].scalars["gap"].value == pytest.approx(0.5, abs=0.02)
    gap, area = found["test"].scalars["gap"], found["test"].scalars["area"]
    assert (gap.value, gap.low, gap.high) == pytest.approx((0, 0, 0), abs=1e-12)
    assert area.value == pytest.approx(0, abs=1e-12)
    onset = found["test"].scalars["log_snr_50"]
    assert onset.high - onset.low > 0.01


def order(results, label, metric, split="test"):
    (one,) = [e for e in results.emergence if (e.label, e.metric, e.split) == (label, metric, split)]
    return one


def test_orders_are_in_the_document_and_read_back(found):
    document, results = found
    assert document["schema_version"] == SCHEMA_VERSION == 2
    assert len(document["emergence"]) == 3 * 2
    one = order(results, "toy", MI)
    assert [place.factor for place in one.order] == ["shape", "floor", "texture"]
    assert [place.log_snr_50.value for place in one.order] == pytest.approx([0.0, 0.5, 3.0], abs=0.06)
    assert one.order[0].log_snr_50.low <= one.order[0].log_snr_50.value <= one.order[0].log_snr_50.high
    assert one.reference == "ideal"
    assert one.left_out["dummy"].startswith("never reaches 50%")


def test_tau_is_against_the_oracle_on_the_same_route(found):
    _, results = found
    assert order(results, "toy", MI).tau.value == pytest.approx(1 / 3), "one of three pairs is reversed"
    assert order(results, "toy", RETENTION).tau.value == 1.0
    assert order(results, "toy", MI).compared == 3
    for split in ("train", "test"):
        oracle = order(results, "ideal", MI, split)
        assert (oracle.tau, oracle.reference) == (None, None)
        assert [place.factor for place in oracle.order] == list(ONSETS)


def test_retention_and_information_are_different_quantities_and_flag_nothing(found):
    document, _ = found
    assert not [row["flags"] for row in document["rows"] if row["flags"]]


def test_a_route_that_fails_is_flagged_on_its_row_and_named_by_the_check():
    plan = plan_of(ToyModel, metrics=(MI, "tap-mean"))
    plan = replace(plan, settings=replace(Settings(), bootstrap=100))
    (unit,) = plan.units
    ideal, model = replace(unit, label="ideal", split="train", oracle=True), replace(unit, reference="ideal")

    def measured(unit, tap):
        made = outcome(unit, {"class": 0.0})
        made.curves = {MI: made.curves[MI], "tap-mean": [curve("class", tap)]}
        return made

    document = assemble(plan, [measured(ideal, 0.0), measured(model, 4.0)], {})
    flags = {(row["label"], row["metric"]): row["flags"] for row in document["rows"]}
    (said,) = flags.pop(("toy", "tap-mean"))
    # the two logistics are tanh(1) = 0.76 apart half way between their onsets
    assert said == "disagrees with mutual-information: 0.76 H below it at log-SNR 2.0"
    assert not any(flags.values())
    failed = {c.label: c.failed for c in parse_results(document).consistency}
    assert failed == {"ideal": (), "toy": ("tap-mean",)}
    assert document["emergence"] == [], "one factor has no order"
