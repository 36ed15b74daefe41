"""From a request to units: which model meets what, what is united, and what is refused before any work."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import pytest
import torch
from toys import ToyData, ToyModel, catalog_of, group, request

from benchsuite import Curve, ExactModel, Fork, Metric, NoiseSweep, UTurn
from benchsuite.discovery import Catalog
from benchsuite.errors import UsageError
from benchsuite.plan import Plan, Unit, make_plan, unite
from benchsuite.protocols.settings import ForkSettings, SweepSettings, UTurnSettings
from benchsuite.request import Group, Request, Settings, read_settings, settings_table


class Oracle(ExactModel):
    name = "oracle"
    oracle = True

    def __init__(self, limit: int | None = None) -> None: ...

    def load(self, device: str = "cpu", dtype: str = "float32") -> None: ...

    def denoise(self, x: torch.Tensor, sigma: torch.Tensor, labels: torch.Tensor | None = None) -> torch.Tensor:
        return x

    def posterior(self, x: torch.Tensor, sigma: torch.Tensor) -> dict[str, torch.Tensor]:
        return {}

    def sample_posterior(
        self, x: torch.Tensor, sigma: torch.Tensor, generator: torch.Generator | None = None
    ) -> torch.Tensor:
        return x


class Own(Oracle):
    name = "own"
    oracle = False
    own_data = True


class Latent(ToyModel):
    name = "latent"
    space = "latents"


class OtherData(ToyData):
    name = "other-data"


def metric(name: str, *needs: Any) -> type[Metric]:
    def compute(self: Metric, records: Any) -> list[Curve]:
        return []

    members = {"name": name, "unit": "nats", "bounds": (0.0, 1.0), "needs": needs, "compute": compute}
    return type(name.title(), (Metric,), members)


HEADS, TAPS = metric("heads", NoiseSweep(heads=True)), metric("taps", NoiseSweep(taps=True))
BOTH = metric("both", NoiseSweep(), UTurn())


def catalog() -> Catalog:
    return catalog_of(ToyModel, Latent, Oracle, Own, ToyData, OtherData, HEADS, TAPS, BOTH)


def units(*models: str, datasets: tuple[str, ...] = ("toy-data",)) -> tuple[Unit, ...]:
    return make_plan(request(models, datasets, ["heads"]), catalog()).units


def shown(unit: Unit) -> tuple[Any, ...]:
    return unit.label, unit.dataset, unit.split, unit.oracle, unit.reference, unit.space


class Everything(ToyData):
    name = "everything"
    enumerated = True


def test_a_trained_model_brings_its_oracle() -> None:
    """The oracle on its own population (what gaps refer to) and on held-out items, before the model."""
    assert [shown(unit) for unit in units("toy")] == [
        ("oracle", "toy-data", "train", True, None, "pixels"),
        ("oracle", "toy-data", "test", True, None, "pixels"),
        ("toy", "toy-data", "test", False, "oracle", "pixels"),
    ]
    assert units("toy")[-1].reference_split == "train"


def test_on_an_enumerated_data_set_models_are_compared_on_their_own_items() -> None:
    """There the oracle is the truth of every item. In latents it is run for the gap alone."""
    known = catalog_of(ToyModel, Latent, Oracle, Everything, HEADS)
    plan = make_plan(request(["toy", "latent"], ["everything"], ["heads"]), known)
    space = "latents of latent"
    assert [shown(unit) for unit in plan.units] == [
        ("oracle", "everything", "train", True, None, "pixels"),
        ("oracle", "everything", "test", True, None, "pixels"),
        ("oracle [latent]", "everything", "test", True, None, space),
        ("toy", "everything", "test", False, "oracle", "pixels"),
        ("latent", "everything", "test", False, "oracle [latent]", space),
    ]
    assert [unit.reference_split for unit in plan.units[-2:]] == ["test", "test"]
    alone = make_plan(request(["oracle"], ["everything"], ["heads"]), known)
    assert [shown(unit)[2] for unit in alone.units] == ["train"]


def test_without_a_gap_an_enumerated_data_set_has_no_images_outside_its_population() -> None:
    silent = type("Silent", (HEADS,), {"name": "silent", "onset": False})
    plan = make_plan(
        request(["toy"], ["everything"], ["silent"]), catalog_of(ToyModel, Oracle, Everything, silent)
    )
    assert [shown(unit) for unit in plan.units] == [
        ("oracle", "everything", "train", True, None, "pixels"),
        ("toy", "everything", "test", False, "oracle", "pixels"),
    ]
    assert plan.units[-1].reference_split == "train"


def test_a_latent_model_is_compared_in_its_own_latents() -> None:
    """The oracle of a latent space serves as a reference only: it is not measured on held-out items."""
    found = [shown(unit) for unit in units("toy", "latent")]
    space = "latents of latent"
    assert found == [
        ("oracle", "toy-data", "train", True, None, "pixels"),
        ("oracle [latent]", "toy-data", "train", True, None, space),
        ("oracle", "toy-data", "test", True, None, "pixels"),
        ("toy", "toy-data", "test", False, "oracle", "pixels"),
        ("latent", "toy-data", "test", False, "oracle [latent]", space),
    ]
    oracle, *_, model = units("latent")
    assert oracle.make_codec is not None
    assert isinstance(oracle.make_codec(), Latent)
    assert model.make_codec is None


def test_every_data_set_gets_every_model_and_own_data_stand_alone() -> None:
    found = [shown(unit) for unit in units("own", "toy", "toy:seed=1", datasets=("toy-data", "other-data"))]
    assert found[0] == ("own", "", "test", True, None, "pixels")
    assert [(label, dataset) for label, dataset, *_ in found[1:]] == [
        (label, dataset)
        for dataset in ("toy-data", "other-data")
        for label in ("oracle", "oracle", "toy", "toy:seed=1")
    ]
    assert [shown(unit)[0] for unit in units("own", datasets=())] == ["own"]


def test_an_oracle_asked_for_by_name_is_not_measured_twice() -> None:
    assert [unit.label for unit in units("oracle", "toy")] == ["oracle", "oracle", "toy"]
    asked = units("oracle:limit=5", "toy")
    assert [unit.label for unit in asked] == ["oracle", "oracle:limit=5", "oracle", "oracle:limit=5", "toy"]
    assert asked[-1].reference == "oracle"


def test_options_reach_the_model_only_when_it_is_built() -> None:
    unit = units("toy:seed=7")[-1]
    model = unit.make_model()
    assert isinstance(model, ToyModel)
    assert model.seed == 7
    assert unit.make_model() is not model


def test_needs_are_united() -> None:
    needs = unite([HEADS(), TAPS(), BOTH()])
    assert needs == {"noise_sweep": NoiseSweep(heads=True, taps=True), "u_turn": UTurn()}
    assert unite([]) == {}
    plan = make_plan(request(["toy"], metrics=["heads", "taps", "heads"]), catalog())
    assert plan.needs == {"noise_sweep": NoiseSweep(heads=True, taps=True)}
    assert [m.name for m in plan.metrics] == ["heads", "taps"]
    assert unite([metric("fork", Fork())()]) == {"fork": Fork()}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"models": ["toi"]}, "unknown model 'toi'; did you mean toy"),
        ({"models": ["nothing-like-it"]}, "unknown model 'nothing-like-it'; known: latent, oracle, own, toy"),
        ({"datasets": ["toy-dat"]}, "unknown data set 'toy-dat'; did you mean toy-data"),
        ({"metrics": ["headz"]}, "unknown metric 'headz'; did you mean heads"),
        ({"models": ["toy:sed=1"]}, "unknown option of model 'toy': 'sed'; did you mean seed"),
        ({"datasets": ["toy-data:shift=far"]}, "option 'shift' of data set 'toy-data' must be float, got 'far'"),
        ({"models": []}, "no model asked for"),
        ({"metrics": []}, "no metric asked for"),
        ({"datasets": []}, "model 'toy' needs a data set"),
    ],
)
def test_wrong_requests_are_refused_before_any_work(changes: dict[str, Any], message: str) -> None:
    asked = {"models": ["toy"], "datasets": ["toy-data"], "metrics": ["heads"]} | changes
    with pytest.raises(UsageError, match=message):
        make_plan(request(**asked), catalog())


class Tuned(HEADS):  # type: ignore[misc, valid-type]
    name = "tuned"

    def __init__(self, ridge: float = 1.0) -> None: ...


def test_one_metric_with_two_sets_of_options_is_refused() -> None:
    """Both would be rows of the same name."""
    with pytest.raises(UsageError, match="'tuned' is asked for twice"):
        make_plan(request(metrics=["tuned", "tuned:ridge=2"]), catalog_of(ToyModel, ToyData, Tuned))


# ------------------------------------------------------------------------------------------- groups


def groups(*cells: Group) -> Request:
    return replace(request([], [], []), cells=cells)


def scores(plan: Plan) -> list[tuple[str, str, str, str]]:
    return [(u.label, u.dataset, u.split, " ".join(m.name for m in plan.metrics_of(u))) for u in plan.units]


def test_groups_are_united_without_their_cross_product() -> None:
    plan = make_plan(
        groups(group("own toy", "toy-data", "heads"), group("latent", "other-data", "both")), catalog()
    )
    assert scores(plan) == [
        ("own", "", "test", "heads"),
        ("oracle", "toy-data", "train", "heads"),
        ("oracle", "toy-data", "test", "heads"),
        ("toy", "toy-data", "test", "heads"),
        ("oracle [latent]", "other-data", "train", "both"),
        ("latent", "other-data", "test", "both"),
    ]
    assert plan.needs == {"noise_sweep": NoiseSweep(heads=True), "u_turn": UTurn()}
    assert plan.needs_of(plan.units[0]) == {"noise_sweep": NoiseSweep(heads=True)}
    assert plan.needs_of(plan.units[-1]) == {"noise_sweep": NoiseSweep(), "u_turn": UTurn()}


def test_a_unit_of_two_groups_is_measured_once_with_the_metrics_of_both() -> None:
    plan = make_plan(
        groups(group("toy", "toy-data", "taps"), group("toy own", "toy-data", "heads taps")), catalog()
    )
    assert scores(plan) == [
        ("oracle", "toy-data", "train", "taps heads"),
        ("oracle", "toy-data", "test", "taps heads"),
        ("toy", "toy-data", "test", "taps heads"),
        ("own", "", "test", "taps heads"),
    ]


def test_units_run_with_the_settings_of_their_group() -> None:
    coarse = replace(Settings(), sweep=replace(SweepSettings(), nodes=9))
    plan = make_plan(
        groups(group("own", "", "heads"), replace(group("toy own", "toy-data", "taps"), settings=coarse)),
        catalog(),
    )
    own, *others = plan.units
    assert plan.settings_of(own) == coarse  # one group says nothing, the other does
    assert all(plan.settings_of(unit) == coarse for unit in others)
    assert plan.settings == request([], [], []).settings
    finer = replace(Settings(), sweep=replace(SweepSettings(), nodes=99))
    two = groups(*(replace(group("own", "", "heads"), settings=settings) for settings in (coarse, finer)))
    with pytest.raises(UsageError, match="two cells ask for own with different settings"):
        make_plan(two, catalog())


def test_one_metric_with_two_sets_of_options_is_refused_across_groups() -> None:
    asked = groups(group("toy", "toy-data", "tuned"), group("own", "", "tuned:ridge=2"))
    with pytest.raises(UsageError, match="'tuned' is asked for twice"):
        make_plan(asked, catalog_of(ToyModel, Own, ToyData, Tuned))


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (group("toy", "toy-data"), "no metric asked for"),
        (group("", "toy-data", "heads"), "no model asked for"),
        (group("toy", "", "heads"), "model 'toy' needs a data set"),
    ],
)
def test_every_group_must_be_complete(bad: Group, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        make_plan(groups(group("own", "", "heads"), bad), catalog())


def test_the_command_line_replaces_one_list_in_every_group() -> None:
    asked = groups(group("a", "x", "m"), group("b", "y", "n"), group("c", "y", "n"))
    assert asked.asking_for(metrics=["o"]).groups == (
        group("a", "x", "o"),
        group("b", "y", "o"),
        group("c", "y", "o"),
    )
    assert asked.asking_for(models=["d"]).groups == (group("d", "x", "m"), group("d", "y", "n"))
    assert asked.asking_for(["d"], ["z"], ["o"]).groups == (group("d", "z", "o"),)
    assert asked.asking_for() == asked
    plain = request(["a"], ["x"], ["m"]).asking_for(datasets=["z"])
    assert plain.groups == (group("a", "z", "m"),)


# ----------------------------------------------------------------------------------------- settings


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: Settings(items=1), "items must be at least 2, got 1"),
        (lambda: Settings(batch=0), "batch must be at least 1, got 0"),
        (lambda: Settings(bootstrap=0), "bootstrap must be at least 1, got 0"),
        (lambda: Settings(probe_items=0), "probe_items must be at least 1, got 0"),
        (lambda: Settings(probe_tests=-1), "probe_tests must not be negative, got -1"),
        (lambda: Settings(dtype="int8"), "dtype must be one of float32.* got 'int8'"),
        (lambda: SweepSettings(low=3, high=3), "low < high.* got 3 and 3"),
        (lambda: SweepSettings(high=80), "got -8.0 and 80"),
        (lambda: SweepSettings(nodes=1), "nodes must be at least 2, got 1"),
        (lambda: SweepSettings(draws=0), "draws must be positive, got 0"),
        (lambda: SweepSettings(tap_stride=0), "tap_stride must be positive, got 0"),
        (lambda: UTurnSettings(every=-0.5), "every must be positive, got -0.5"),
        (lambda: UTurnSettings(every=float("nan")), "every must be positive, got nan"),
        (lambda: UTurnSettings(steps_per_level=0), "steps_per_level must be positive, got 0"),
        (lambda: UTurnSettings(end=1.0), "end 1.0 must not lie below its high 7.0"),
        (lambda: UTurnSettings(method="euler"), "ancestral, sde-2m, ode-heun, got 'euler'"),
        (lambda: UTurnSettings(draws=0), "draws must be positive, got 0"),
        (lambda: ForkSettings(k=1), "k must be at least 2, got 1"),
        (lambda: ForkSettings(items=0), "items must be positive, got 0"),
    ],
)
def test_impossible_settings_are_refused(build: Any, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        build()


def test_assignments_of_the_command_line() -> None:
    table = settings_table(["sweep.nodes=129", "items=50", "sweep.low=-6.5", "u_turn.method=ancestral", "seed=3"])
    assert table == {
        "sweep": {"nodes": 129, "low": -6.5},
        "items": 50,
        "u_turn": {"method": "ancestral"},
        "seed": 3,
    }
    found = read_settings(Settings(batch=7), table, "--set")
    assert found.batch == 7
    assert found.sweep == replace(SweepSettings(), nodes=129, low=-6.5)
    assert (found.items, found.u_turn.method, found.seed) == (50, "ancestral", 3)


@pytest.mark.parametrize(
    ("assignments", "message"),
    [
        (["items"], "--set takes key=value, such as sweep.nodes=129; got 'items'"),
        (["=3"], "--set takes key=value"),
        (["item=3"], "unknown key of --set: 'item'; did you mean items"),
        (["sweep.node=3"], "unknown key of --set.sweep: 'node'; did you mean nodes"),
        (["sweep=3"], "--set.sweep must be a table, got 3"),
        (["items=3", "items.x=4"], "'items' is set to a value already"),
        (["items=many"], "--set.items must be int, got 'many'"),
        (["items=3.0"], "--set.items must be int, got 3.0"),
        (["items=true"], "--set.items must be int, got True"),
        (["sweep.low=deep"], "--set.sweep.low must be float, got 'deep'"),
        (["sweep.nodes=1"], "nodes must be at least 2"),
    ],
)
def test_wrong_assignments_are_refused(assignments: list[str], message: str) -> None:
    with pytest.raises(UsageError, match=re.escape(message)):
        read_settings(Settings(), settings_table(assignments), "--set")


def test_union_of_requests_takes_the_most_of_each() -> None:
    assert NoiseSweep(heads=True).union(NoiseSweep(taps=True)) == NoiseSweep(heads=True, taps=True)
    assert NoiseSweep(taps=True).union(NoiseSweep(taps=True)) == NoiseSweep(taps=True)
