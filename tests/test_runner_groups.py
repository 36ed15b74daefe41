"""Plans of several groups: what each asked for is measured, and nothing else."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from toy_runs import METRICS
from toys import CLASS, Missing, ToyData, ToyModel, Unconditional, catalog_of, mislabelled, request

from benchsuite.api import carry_out
from benchsuite.assemble import _ranking
from benchsuite.plan import make_plan
from benchsuite.request import Group
from benchsuite.runner import Outcome
from benchsuite.statistics import Estimate


class OtherToyData(ToyData):
    name = "other-toy-data"


def test_groups_leave_rows_for_what_they_asked_only() -> None:
    """No protocol is run for a unit whose metrics do not need it, and ranks know the routes of a data set."""
    catalog = catalog_of(ToyModel, ToyData, OtherToyData, *METRICS)
    asked = Group(("toy",), ("toy-data",), ("mutual-information",))
    also = Group(("toy",), ("other-toy-data",), ("class-retention", "tap-mean"))
    found, outcomes = carry_out(make_plan(replace(request(), cells=(asked, also)), catalog), catalog, "cpu", None)
    cells = {(row["dataset"], row["metric"], row["status"]) for row in found["rows"]}
    assert cells == {
        ("toy-data", "mutual-information", "ok"),
        ("other-toy-data", "class-retention", "ok"),
        ("other-toy-data", "tap-mean", "ok"),
    }
    assert [sorted(outcome.passes) for outcome in outcomes] == [
        ["label_filter", "noise_sweep"],
        ["noise_sweep", "u_turn"],
    ]


def test_missing_data_of_an_optional_group_are_a_remark() -> None:
    """Unless a group that insists on them asks for the same cell; an optional model that fails is a failure."""
    catalog = catalog_of(ToyModel, Unconditional, Missing, OtherToyData, mislabelled("test", 2), *METRICS)
    metrics = ("mutual-information",)
    optional = Group(("toy", "toy-unconditional"), ("missing", "toy-data"), metrics, optional=True)
    insists = Group(("toy",), ("missing",), metrics)
    asked = replace(request(), cells=(optional, insists))
    found, _ = carry_out(make_plan(asked, catalog), catalog, "cpu", None)
    assert [(row["model"], row["dataset"], row["status"], row["stage"]) for row in found["rows"]] == [
        ("toy", "missing", "failed", "data"),
        ("toy-unconditional", "missing", "not_applicable", "data"),
        ("toy", "toy-data", "failed", "fit"),
        ("toy-unconditional", "toy-data", "failed", "fit"),
    ]
    assert found["rows"][1]["reason"] == "no images in ./data; get them with: fetch-the-data"


def test_ranks_are_over_the_routes_that_a_data_set_was_asked_for() -> None:
    """A route that was only asked for on other data makes no row incomplete; one asked of a rival does."""
    catalog = catalog_of(ToyModel, Unconditional, ToyData, OtherToyData, *METRICS)
    cells = (
        Group(("toy",), ("toy-data",), ("mutual-information", "class-retention")),
        Group(("toy", "toy-unconditional"), ("other-toy-data",), ("mutual-information",)),
        Group(("toy",), ("other-toy-data",), ("class-retention",)),
    )
    plan = make_plan(replace(request(), cells=cells), catalog)
    outcomes = [Outcome(unit, unit.dataset, factors=(CLASS,)) for unit in plan.units]
    gaps = {
        (unit.label, "test", unit.dataset, "class", metric.name): Estimate(0.5, np.full(4, 0.5))
        for unit in plan.units
        for metric in plan.metrics_of(unit)
    }
    passed = {metric.name: {"passed": True} for metric in plan.metrics}
    ranks = _ranking(plan, outcomes, gaps, passed)
    routes = ["mutual-information", "class-retention"]
    assert [(r["dataset"], r["label"], r["routes"]) for r in ranks] == [
        ("toy-data", "toy", routes),
        ("other-toy-data", "toy", routes),
    ]
    alone = make_plan(replace(request(), cells=cells[:2]), catalog)
    ranks = _ranking(alone, [Outcome(u, u.dataset, factors=(CLASS,)) for u in alone.units], gaps, passed)
    assert [(r["dataset"], r["label"], len(r["routes"])) for r in ranks] == [
        ("toy-data", "toy", 2),
        ("other-toy-data", "toy", 1),
        ("other-toy-data", "toy-unconditional", 1),
    ]
