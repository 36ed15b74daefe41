"""What is stored is not computed again, what a value depends on is in its key, and killed runs go on."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import pytest
from toy_runs import ROUTES, Counted, TapMean, document, plan_of, raising, ranged
from toys import SMALL, ToyData, ToyModel, ToyReadout

from benchsuite import (
    Curve,
    ModelLoadError,
    Record,
)
from benchsuite import bench as bench_module
from benchsuite.runner import Fault, Outcome, Reporter, _Runner, count_passes
from benchsuite.store import Store, key_of


def without_provenance(found: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in copy.deepcopy(dict(found)).items() if key != "provenance"}


@pytest.fixture
def asked() -> Callable[[], int]:
    """Rows that `Counted` was asked for since the last call."""
    Counted.asked = 0

    def since() -> int:
        found, Counted.asked = Counted.asked, 0
        return found

    return since


def test_counted_passes_are_those_made_and_those_reported(asked: Callable[[], int]) -> None:
    plan = plan_of(Counted)
    ((unit, counted),) = count_passes(plan, "cpu")
    assert unit.label == "counted"
    assert asked() == 0
    assert isinstance(counted, dict)
    found = document(plan)
    assert asked() == sum(counted.values())
    reported = {row["metric"]: row["forward_passes"] for row in found["rows"]}
    sweep, turns = counted["noise_sweep"], counted["u_turn"]
    assert reported == {
        "mutual-information": sweep + counted["label_filter"],
        "class-retention": turns,
        "tap-mean": sweep,
    }


def test_counting_survives_what_cannot_run() -> None:
    broken = type("Broken", (ToyModel,), {"name": "broken", "__init__": ranged(1e-6, 1e-5)})
    unread = type("Unread", (ToyModel,), {"name": "unread", "load": raising(ModelLoadError("no weights"))})
    (_, first), (_, second), (_, third) = count_passes(plan_of(broken, unread, ToyModel), "cpu")
    assert isinstance(first, Fault)
    assert (first.status, first.stage) == ("failed", "count")
    assert second == Fault("failed", "model", "no weights")
    assert isinstance(third, dict)


def test_a_second_run_computes_nothing_and_says_the_same(tmp_path: Path, asked: Callable[[], int]) -> None:
    plan = plan_of(Counted)
    first = document(plan, Store(tmp_path))
    assert asked() > 0
    second = document(plan_of(Counted), Store(tmp_path))
    assert asked() == 0
    assert without_provenance(second) == without_provenance(first)
    assert second["provenance"]["seed"] == first["provenance"]["seed"]
    # and the same again without any store
    assert without_provenance(document(plan)) == without_provenance(first)


def test_a_killed_run_goes_on_from_the_cell_it_was_in(tmp_path: Path, asked: Callable[[], int]) -> None:
    class Killed(Reporter):
        """Interrupts when the second unit's second protocol begins, the fifth of all."""

        begun = 0

        def protocol(self, name: str, passes: int, stored: bool) -> Callable[[int], None]:
            self.begun += 1
            if self.begun == 5:
                raise KeyboardInterrupt
            return lambda rows: None

    plan = plan_of(Counted, models=["counted", "counted:seed=1"])
    per_unit = count_passes(plan, "cpu")[0][1]
    assert isinstance(per_unit, dict)
    with pytest.raises(KeyboardInterrupt):
        document(plan, Store(tmp_path), Killed())
    assert asked() == sum(per_unit.values()) + per_unit["noise_sweep"]
    found = document(plan, Store(tmp_path))
    assert asked() == per_unit["label_filter"] + per_unit["u_turn"]
    assert {row["status"] for row in found["rows"]} == {"ok"}


def test_failures_are_not_stored(tmp_path: Path) -> None:
    flaky = type("Flaky", (ToyModel,), {"name": "flaky", "denoise": raising(RuntimeError("busy"))})
    plan = plan_of(flaky)
    assert {row["status"] for row in document(plan, Store(tmp_path))["rows"]} == {"failed"}
    flaky.denoise = ToyModel.denoise  # type: ignore[attr-defined]
    assert {row["status"] for row in document(plan, Store(tmp_path))["rows"]} == {"ok"}


def test_a_damaged_value_is_computed_again(tmp_path: Path, asked: Callable[[], int]) -> None:
    plan = plan_of(Counted)
    first = document(plan, Store(tmp_path))
    asked()
    for path in tmp_path.rglob("*.npz"):
        path.write_bytes(path.read_bytes()[:-30])
    again = document(plan, Store(tmp_path))
    assert asked() == sum(row["forward_passes"] for row in again["rows"][:2])
    assert without_provenance(again) == without_provenance(first)
    document(plan, Store(tmp_path))
    assert asked() == 0


class Weighted(TapMean):
    """A metric with options of all kinds."""

    name = "weighted"
    computed: ClassVar[int] = 0

    def __init__(self, weight: float = 1.0) -> None:
        self.weight = weight
        self.taps = ("mid",)

    def compute(self, records: Mapping[str, Record]) -> list[Curve]:
        type(self).computed += 1
        return [replace(c, per_item=c.per_item * self.weight) for c in super().compute(records)]


def test_a_metric_is_scored_again_when_its_options_change_and_without_the_model(
    tmp_path: Path, asked: Callable[[], int]
) -> None:
    def value(weight: float, taps: tuple[str, ...] = ("mid",)) -> float:
        plan = plan_of(Counted, Weighted, metrics=[f"weighted:weight={weight}"])
        plan.metrics[0].taps = taps  # type: ignore[attr-defined]
        (row,) = document(plan, Store(tmp_path))["rows"]
        return float(row["curves"][0]["value"][0])

    Weighted.computed = 0
    once = value(1.0)
    assert asked() > 0
    assert value(2.0) == pytest.approx(2 * once)
    assert value(1.0) == once
    assert Weighted.computed == 2
    value(1.0, taps=("down",))  # an option that no command line can set counts as well
    assert Weighted.computed == 3
    assert asked() == 0


@pytest.mark.parametrize(
    ("changes", "repeated"),
    [
        ({}, set()),
        ({"batch": 3}, set()),
        ({"bootstrap": 50}, set()),
        ({"seed": 1}, {"noise_sweep", "label_filter", "u_turn"}),
        ({"items": 5}, {"noise_sweep", "label_filter", "u_turn"}),
        ({"probe_items": 8}, {"noise_sweep"}),
        ({"sweep": replace(SMALL.sweep, nodes=5)}, {"noise_sweep"}),
        ({"sweep": replace(SMALL.sweep, draws=4)}, {"noise_sweep"}),
        ({"sweep": replace(SMALL.sweep, tap_stride=2)}, {"noise_sweep"}),
        ({"label_filter": replace(SMALL.label_filter, nodes=5)}, {"label_filter"}),
        ({"label_filter": replace(SMALL.label_filter, steps_per_level=2)}, {"label_filter"}),
        ({"u_turn": replace(SMALL.u_turn, draws=2)}, {"u_turn"}),
        ({"u_turn": replace(SMALL.u_turn, method="ancestral")}, {"u_turn"}),
        ({"fork": replace(SMALL.fork, k=5)}, set()),
        ({"metrics": ("mutual-information",)}, {"noise_sweep"}),  # no taps asked for: another record
        ({"metrics": ("class-retention",)}, set()),
        ({"models": ("counted:seed=5",)}, {"noise_sweep", "label_filter", "u_turn"}),
        ({"datasets": ("toy-data:shift=0.1",)}, {"noise_sweep", "label_filter", "u_turn"}),
    ],
)
def test_a_change_repeats_what_it_must(
    tmp_path: Path, asked: Callable[[], int], changes: dict[str, Any], repeated: set[str]
) -> None:
    document(plan_of(Counted, ToyData, models=["counted"], datasets=["toy-data"]), Store(tmp_path))
    asked()
    again = {"models": ["counted"], "datasets": ["toy-data"], "metrics": ROUTES} | changes
    plan = plan_of(Counted, ToyData, **again)
    ((_, counted),) = count_passes(plan, "cpu")
    assert isinstance(counted, dict)
    document(plan, Store(tmp_path))
    assert asked() == sum(passes for name, passes in counted.items() if name in repeated)


def keys(monkeypatch: pytest.MonkeyPatch, *patches: tuple[Any, str, Any], **settings: Any) -> dict[str, str]:
    """Store keys of the toy's records, with something changed."""
    plan = plan_of(ToyModel, ToyData, datasets=["toy-data"], **settings)
    with monkeypatch.context() as patch:
        for where, name, value in patches:
            patch.setattr(where, name, value)
        runner = _Runner(plan, None, "cpu", Reporter())
        bench = runner.prepare(plan.units[0], Outcome(plan.units[0], "toy-data"))
        return {name: key_of(bench.origin(need)) for name, need in plan.needs.items()}


@pytest.mark.parametrize(
    ("patch", "changed"),
    [
        ((ToyModel, "version", "2"), {"noise_sweep", "label_filter", "u_turn"}),
        ((ToyModel, "fingerprint", lambda self: "other weights"), {"noise_sweep", "label_filter", "u_turn"}),
        ((ToyData, "version", "2"), {"noise_sweep", "label_filter", "u_turn"}),
        ((ToyData, "fingerprint", lambda self: "other images"), {"noise_sweep", "label_filter", "u_turn"}),
        ((ToyReadout, "fingerprint", lambda self: "other judge"), {"u_turn"}),
        ((bench_module, "engine_identity", lambda: "other engine"), {"noise_sweep", "label_filter", "u_turn"}),
        ((ToyModel, "paper", "another"), set()),
        ((ToyReadout, "name", "another"), set()),
    ],
)
def test_keys_see_code_and_weights(
    monkeypatch: pytest.MonkeyPatch, patch: tuple[Any, str, Any], changed: set[str]
) -> None:
    before, after = keys(monkeypatch), keys(monkeypatch, patch)
    assert {name for name in before if before[name] != after[name]} == changed


@pytest.mark.parametrize("change", [{"seed": 9}, {"dtype": "float64"}])
def test_keys_see_the_seed_and_the_precision(monkeypatch: pytest.MonkeyPatch, change: dict[str, Any]) -> None:
    """Also where the seed chooses no items."""
    in_order = (bench_module, "_order", lambda ids, seed: list(range(len(ids))))
    before, after = keys(monkeypatch, in_order), keys(monkeypatch, in_order, **change)
    assert all(before[name] != after[name] for name in before)
