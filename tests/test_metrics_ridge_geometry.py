"""The ridge-geometry metric on models whose errors are planted, and on records made by hand."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import lru_cache
from typing import Any

import numpy as np
import pytest
import torch
from benchsuite_datasets.points import Points
from benchsuite_metrics.ridge_geometry import RidgeGeometry, influence, scalars
from benchsuite_metrics.ridge_geometry.endpoints import is_between, is_memorised, nearest_two
from benchsuite_models.empirical_bayes import EmpiricalBayes
from benchsuite_models.planted_error import PlantedError
from toys import SMALL, ToyData, ToyModel, catalog_of, request

from benchsuite import BenchsuiteError, Curve, DiffusionModel, NotApplicableError, Record, UsageError
from benchsuite.assemble import assemble
from benchsuite.bench import Bench
from benchsuite.boards import boards
from benchsuite.plan import Unit, make_plan
from benchsuite.protocols.settings import TrajectorySettings
from benchsuite.report.losses import own_tables
from benchsuite.results import parse_results
from benchsuite.runner import run as run_plan
from benchsuite.statistics import summarise

R = 3.0  # two modes at (±3, 0)
START = 4.0  # planted errors act from this log-SNR on, when mode and direction are settled
COUNT = 250
PATHS = TrajectorySettings(low=-6.0, high=8.0, every=2.0, steps_per_level=32, end=8.0, paths=COUNT)


@pytest.fixture(autouse=True)
def no_grad() -> Iterator[None]:
    with torch.no_grad():
        yield


def records(model: DiffusionModel, dataset: Any, paths: TrajectorySettings = PATHS) -> dict[str, Record]:
    dataset.load()
    model.bind(dataset)
    model.load()
    unit = Unit("m", model.name, type(model), lambda: model, dataset.name, "test")
    bench = Bench.build(model, dataset, unit, replace(SMALL, items=40, batch=4096, trajectory=paths), "cpu")
    return {need.protocol: bench.run(need, lambda rows: None) for need in RidgeGeometry.needs}


@lru_cache(maxsize=8)
def planted(normal: float = 0.0, tangent: float = 0.0, start: float | None = None) -> dict[str, Record]:
    return records(PlantedError(normal=normal, tangent=tangent, start=start), Points("two-modes"))


def measured(found: dict[str, Record], **options: Any) -> dict[str, Curve]:
    return {curve.variant: curve for curve in RidgeGeometry(**options).compute(found)}


@lru_cache(maxsize=8)
def geometry(normal: float = 0.0, tangent: float = 0.0, start: float | None = None) -> dict[str, Curve]:
    return measured(planted(normal, tangent, start), radius=0.5)


def means(curve: Curve) -> Any:
    return curve.per_item.mean(axis=0)


# --------------------------------------------------------------------------------------- the laws


def test_an_exact_denoiser_stays_at_the_noise_floor() -> None:
    """One normal direction: rho² is chi² with COUNT degrees of freedom over COUNT at every level."""
    curves = geometry()
    assert (np.abs(means(curves[""]) ** 2 - 1) < 4.5 * np.sqrt(2 / COUNT)).all()
    np.testing.assert_allclose(means(curves["normal error d=1"]), 0, atol=1e-5)
    np.testing.assert_allclose(means(curves["newton d=1"]), means(curves["rho d=1"]), rtol=1e-9)  # nothing bends
    assert "error ratio d=1" not in curves
    extra = curves[""].extra
    assert extra["slope"] is extra["correlation"] is extra["late_error_ratio"] is None
    assert (extra["memorised"]["value"], extra["inter_mode"]["value"]) == (1.0, 0.0)
    assert (extra["dim"], extra["dims"]) == (1, [1])
    assert not curves[""].flags


@pytest.mark.parametrize("size", [0.2, 0.4])
def test_a_normal_error_is_recovered_and_becomes_the_offset(size: float) -> None:
    curves = geometry(normal=size)
    np.testing.assert_allclose(means(curves["normal error d=1"]), size, rtol=1e-5)
    assert means(curves["slope d=1"])[-1] == pytest.approx(1, abs=0.02)
    slope = curves[""].extra["slope"]
    assert slope["value"] == pytest.approx(1, abs=0.02)
    assert slope["low"] <= 1 <= slope["high"]
    assert curves[""].extra["correlation"]["value"] > 0.9
    # offset² = size², what late error has become, + sigma², the floor
    sigma = np.exp(-curves[""].log_snr / 2)
    np.testing.assert_allclose(means(curves[""])[-2:] ** 2, 1 + (size / sigma[-2:]) ** 2, rtol=0.05)
    assert abs(planted(size)["trajectory"]["final"][:, 1].mean()) == pytest.approx(size, rel=0.02)


@pytest.mark.parametrize("share", [0.5, 0.9])
def test_a_tangent_error_is_the_share_of_the_way_to_the_mode(share: float) -> None:
    """Where one point is certain, P (m - x) is the way to it; law of the slide for its mean over paths.

    The ancestral step is exact for D = mode + share (x - mode) if the state it starts from stands for the whole
    step: the way shrinks by 1 - (1 - share)(1 - e^{-2h}) a step, and e^{-2h (1 - share)} in the limit.
    """
    record, curves = planted(0.0, share, START)["trajectory"], geometry(0.0, share, START)
    first = int(np.flatnonzero(record["log_snr"] == START)[0])
    way = np.abs(record["x"][:, first:, 0].astype(float)) - R
    late = means(curves["tangent error d=1"])[first:]
    np.testing.assert_allclose(late, share * np.sqrt(np.square(way).mean(axis=0)), rtol=1e-4)
    # x - mode along the ridge: decays, and is fed by the step's noise, sigma'² (1 - e^{-2h})
    step = np.exp(-2 / PATHS.steps_per_level)  # e^{-2h} of an eighth … of 2 units of log-SNR
    keep, variance, sigma2 = 1 - (1 - share) * (1 - step), way[:, 0].var(), np.exp(-START)
    expected = [variance]
    for _ in range(len(late) - 1):
        for _ in range(PATHS.steps_per_level):
            sigma2 *= step
            variance = keep**2 * variance + sigma2 * (1 - step)
        expected.append(variance)
    np.testing.assert_allclose(way.var(axis=0), expected, rtol=5 * np.sqrt(2 / COUNT))


def test_errors_do_not_leak_into_each_other() -> None:
    plain, normal, tangent, both = (geometry(*sizes) for sizes in ((0, 0), (0.2, 0), (0, 0.7), (0.2, 0.7)))
    np.testing.assert_allclose(means(tangent[""]), means(plain[""]), rtol=1e-4)
    np.testing.assert_allclose(means(both[""]), means(normal[""]), rtol=1e-4)
    np.testing.assert_allclose(means(tangent["normal error d=1"]), 0, atol=1e-4)
    np.testing.assert_allclose(means(normal["tangent error d=1"]), 0, atol=1e-4)
    np.testing.assert_allclose(
        means(both["tangent error d=1"]), means(tangent["tangent error d=1"]), rtol=1e-4, atol=1e-6
    )
    assert plain[""].extra["inter_mode"]["value"] == normal[""].extra["inter_mode"]["value"] == 0.0
    assert tangent[""].extra["inter_mode"]["value"] > 0.05


def test_speciation_of_two_points_is_where_the_centre_stops_being_concave() -> None:
    """mu_1 at the centre is R² at every level: h = R²."""
    assert geometry()[""].extra["speciation_log_snr"] == pytest.approx(-2 * np.log(R), abs=1e-6)


def test_dimension_of_the_memorised() -> None:
    """tr C of two points is R² sech²(R x / h)."""
    curves, record = geometry(), planted()["trajectory"]
    x, sigma = record["x"][..., 0].astype(float), np.exp(-record["log_snr"] / 2)
    with np.errstate(over="ignore"):
        expected = (R / np.cosh(R * x / sigma**2) / sigma) ** 2
    np.testing.assert_allclose(curves["dimension"].per_item, expected, rtol=1e-4, atol=1e-8)
    np.testing.assert_allclose(curves["mu 1"].per_item, expected, rtol=1e-4, atol=1e-8)
    assert "train-test gap" not in curves  # the items are the training points: nothing is held out


def test_held_out_items_show_what_is_memorised() -> None:
    """Ideal denoiser of 24 images: nothing is lost on those, all the noise is on others."""
    found = records(EmpiricalBayes(), ToyData(), replace(PATHS, paths=20, steps_per_level=1))
    curves = measured(found)
    assert means(curves["mmse dimension train"])[-1] < 0.05
    assert means(curves["mmse dimension"])[-1] > 10
    gap = means(curves["mmse dimension"]) - means(curves["mmse dimension train"])
    np.testing.assert_allclose(means(curves["train-test gap"]), gap, rtol=1e-6, atol=1e-9)


# ------------------------------------------------------------------------------- ridges by hand


def by_hand(points: Any, x: Any, denoised: Any = None, log_snr: Any = (0.0, 2.0)) -> dict[str, Record]:
    """Paths that stay at x (P, d)."""
    x = np.asarray(x, dtype=np.float32)
    states = np.repeat(x[:, None], len(log_snr), axis=1)
    answers = states if denoised is None else np.repeat(np.asarray(denoised, np.float32)[:, None], len(log_snr), 1)
    arrays = {
        "log_snr": np.asarray(log_snr),
        "items": np.array([f"path/{i}" for i in range(len(x))]),
        "x": states,
        "denoised": answers,
        "final": x + 0.1,
    }
    meta = {"seed": 0, "method": "ancestral", "spacing": 0.5}
    return {
        "trajectory": Record("trajectory", arrays, meta),
        "population": Record("population", {"x": points}, {}),
    }


def cloud(count: int = 200, width: int = 5) -> Any:
    rng = np.random.default_rng(0)
    return rng.normal(size=(count, width)) * np.array([3.0, 2.0, 0.3, 0.2, 0.1])[:width]


def test_the_published_dimension_has_the_widest_gap() -> None:
    x = cloud()[:30] + 0.3
    found = measured(by_hand(cloud(), x, log_snr=(-2.0, 0.0)), dims="1,2,3")
    assert (found[""].extra["dim"], found[""].extra["dim_chosen"]) == (2, True)
    np.testing.assert_array_equal(found[""].per_item, found["rho d=2"].per_item)
    asked = measured(by_hand(cloud(), x, log_snr=(-2.0, 0.0)), dims="1,2", dim=3)
    assert (asked[""].extra["dim"], asked[""].extra["dims"]) == (3, [1, 2, 3])


def test_unresolved_states_are_left_out_and_counted() -> None:
    """In the centre of a square no direction leads; beside two of its corners one does."""
    square = np.array([[1.0, 1], [1, -1], [-1, 1], [-1, -1]])
    x = [[0.0, 0.0], [2.0, 0.3], [-2.0, 0.1], [0.0, 0.0]]
    found = measured(by_hand(square, x))
    assert found[""].extra["unresolved_states"] == 4
    assert found[""].extra["states"] == 8
    np.testing.assert_allclose(means(found["resolved d=1"]), 0.5)
    alone = measured(by_hand(square, x[1:3]))
    for name in ("", "tangent error d=1", "slide d=1"):
        np.testing.assert_allclose(means(found[name]), means(alone[name]), rtol=1e-9, err_msg=name)


def test_without_any_direction_there_is_no_ridge() -> None:
    square = np.array([[1.0, 1], [1, -1], [-1, 1], [-1, -1]])
    with pytest.raises(NotApplicableError, match="dimension 1 is resolved at fewer than two levels"):
        measured(by_hand(square, [[0.0, 0.0]]))


def test_errors_are_split_by_the_frame() -> None:
    """Points on an axis: the frame is known, and so are the parts of D(x) - m."""
    points = np.column_stack([np.linspace(-4, 4, 9), np.zeros(9), np.zeros(9)])
    x = np.array([[0.2, 0.5, -0.4], [1.1, -0.2, 0.3]])
    sigma = np.exp(-np.array([0.0, 2.0]) / 2)
    found = measured(by_hand(points, x, x + np.array([0.0, 0.3, 0.0]), (0.0, 2.0)), dims="1")
    w = np.exp(-np.square(x[:, None, None, 0] - points[:, 0]) / (2 * sigma[:, None] ** 2))
    mean = (w * points[:, 0]).sum(axis=-1) / w.sum(axis=-1)
    error = x[:, :1] - mean
    np.testing.assert_allclose(
        means(found["tangent error d=1"]), np.sqrt(np.square(error).mean(axis=0)), rtol=1e-5
    )
    normal = np.square(x[:, 1:] + [0.3, 0.0]).sum(axis=1).mean() / 2
    np.testing.assert_allclose(means(found["normal error d=1"]), np.sqrt(normal), rtol=1e-5)
    offset = np.square(x[:, 1:]).sum(axis=1).mean()
    np.testing.assert_allclose(means(found["rho d=1"]), np.sqrt(offset / 2) / sigma, rtol=1e-6)
    product = (x[:, 1:] * (x[:, 1:] + [0.3, 0.0])).sum(axis=1).mean()
    np.testing.assert_allclose(means(found["slope d=1"]), product / (2 * normal), rtol=1e-5)
    ratio = np.square(error).mean(axis=0) / normal
    np.testing.assert_allclose(means(found["error ratio d=1"]), ratio, rtol=1e-5)
    # at its level a state does not move, and then it goes by 0.1 in every direction
    np.testing.assert_allclose(means(found["slide d=1"])[-1], 1.0, rtol=1e-5)


def test_ends_of_paths() -> None:
    points = np.array([[0.0, 0.0], [0.0, 0.0], [4.0, 0.0]])
    first, second = nearest_two(np.array([[0.9, 0.0], [1.5, 0.0], [4.0, 0.1]]), points)
    np.testing.assert_allclose(first, [0.9, 1.5, 0.1], rtol=1e-12)
    np.testing.assert_allclose(second, [3.1, 2.5, np.hypot(4, 0.1)], rtol=1e-12)
    assert is_memorised(first, second).tolist() == [True, False, True]
    assert is_between(first, second, None, 2).tolist() == [False, True, False]
    assert is_between(first, second, 0.5, 2).tolist() == [True, True, False]


def test_copies_are_flagged() -> None:
    points = np.concatenate([cloud(), cloud()[:7]])
    flags = measured(by_hand(points, cloud()[:5] + 0.3))[""].flags
    assert flags == ("7 of 207 training points are copies of others and count as often as they occur",)


def test_a_training_set_in_another_range_is_flagged() -> None:
    found = measured(by_hand(0.1 * cloud(), cloud()[:20]))
    assert any("training set in another value range" in flag for flag in found[""].flags)


@pytest.mark.parametrize(
    ("points", "options", "error", "message"),
    [
        (cloud()[:, :4], {}, BenchsuiteError, r"training points have the shape \(4,\), the model's space \(5,\)"),
        (cloud()[:1], {}, NotApplicableError, "at least 2 different training points, there is 1 among 1"),
        (np.ones((9, 5)), {}, NotApplicableError, "at least 2 different training points, there is 1 among 9"),
        (np.full((9, 5), np.nan), {}, BenchsuiteError, "not finite"),
        (cloud(), {"dim": 5}, NotApplicableError, "no ridge of dimension 5: 200 training points in 5 dimensions"),
        (
            cloud()[:3],
            {"dims": "3,4"},
            NotApplicableError,
            "no ridge of dimension 3, 4: 3 training points .* 1 to 2",
        ),
    ],
)
def test_impossible_training_sets_are_refused(
    points: Any, options: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        RidgeGeometry(**options).compute(by_hand(points, cloud()[:5]))


def test_dimensions_that_were_asked_for_in_vain_are_named() -> None:
    found = measured(by_hand(cloud(), cloud()[:5] + 0.3), dims="2,7,9")
    assert found[""].flags == (
        "dimensions 7, 9 left out: 200 training points in 5 dimensions have ridges of dimension 1 to 4 only",
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dims": "1,x"}, "dims takes integers separated by commas, got '1,x'"),
        ({"dims": "0,1"}, "ridge dimensions start at 1, got 0"),
        ({"dim": -2}, "ridge dimensions start at 1, got -2"),
        ({"radius": 0.0}, "radius must be positive, got 0.0"),
        ({"keep": 1}, "keep must be at least 2, got 1"),
    ],
)
def test_impossible_options_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        RidgeGeometry(**options)


# ------------------------------------------------------------------------------ rows and statistics


def test_a_model_of_unknown_training_data_gets_a_row_that_says_so() -> None:
    catalog = catalog_of(ToyModel, ToyData, EmpiricalBayes, RidgeGeometry)
    settings = replace(SMALL, trajectory=replace(PATHS, steps_per_level=1, paths=12, low=-3.0, high=3.0, end=3.0))
    plan = make_plan(request(["toy"], ["toy-data"], ["ridge-geometry"], settings=settings), catalog)
    outcomes = run_plan(plan, None, "cpu")
    document = assemble(plan, outcomes, {})
    rows = document["rows"]
    assert {row["factor"] for row in rows} == {""}
    toy = next(row for row in rows if row["label"] == "toy")
    assert (toy["status"], toy["stage"]) == ("not_applicable", "population")
    assert "the training data of toy are unknown" in toy["reason"]
    oracle = next(row for row in rows if row["oracle"])
    assert oracle["status"] == "ok", oracle["reason"]
    assert oracle["extra"]["training_points"] == 24
    (table,) = [
        t for board in boards(parse_results(document)) for t in own_tables(board) if t.title == "ridge-geometry"
    ]
    assert table.head[:3] == ("ridge-geometry", "d*", "ρ⊥ at the end")
    shown_lines = ["empirical-bayes · population", "empirical-bayes · held out", "toy"]
    assert [row[0] for row in table.rows] == shown_lines
    assert table.rows[2][1] == "not applicable"
    shown = table.rows[0]
    value = oracle["extra"]["columns"]["ρ⊥ at the end"]
    assert shown[2] == f"{value['value']:.3g} [{value['low']:.3g}, {value['high']:.3g}]"
    assert shown[3] == "–"  # an exact denoiser has no error to align with


def test_influence_values_have_the_statistic_as_mean_and_its_error_as_spread() -> None:
    rng = np.random.default_rng(1)
    a, b = rng.gamma(2.0, size=(400, 1)), rng.gamma(3.0, size=(400, 1))
    mask = rng.random((400, 1)) < 0.7
    replicates = [rng.integers(0, 400, 400) for _ in range(400)]
    for values, statistic in (
        (influence.mean_over(a, mask), lambda i: a[i][mask[i]].mean()),
        (influence.root_mean_square(a, mask), lambda i: np.sqrt(a[i][mask[i]].mean())),
        (influence.ratio_of_means(a, b), lambda i: a[i].mean() / b[i].mean()),
    ):
        assert values.mean() == pytest.approx(statistic(np.arange(400)), rel=1e-12)
        spread = np.std([statistic(i) for i in replicates])
        assert values.std() / np.sqrt(400) == pytest.approx(spread, rel=0.12)
    gap = influence.difference_of_means(a[:100], b)
    assert gap.mean() == pytest.approx(a[:100].mean() - b.mean())
    assert np.isnan(influence.root_mean_square(a, np.zeros_like(mask))).all()


def test_reaching_and_leaving() -> None:
    log_snr = np.arange(5.0)
    assert scalars.reach(np.array([3.0, 1.4, 1.0, 1.6, 1.0]), log_snr) == {
        "reach_log_snr": 1.0,
        "leave_log_snr": 3.0,
    }
    assert scalars.reach(np.array([1.0, 1, 1, 1, 1]), log_snr) == {"reach_log_snr": 0.0, "leave_log_snr": None}
    assert scalars.reach(np.full(5, 2.0), log_snr) == {"reach_log_snr": None, "leave_log_snr": None}


def test_curves_can_be_summarised() -> None:
    for curve in geometry(normal=0.2).values():
        summary = summarise(curve, replicates=50, seed=0)
        assert np.isfinite(summary.value).all(), curve.variant
        assert (summary.low <= summary.high).all()


def test_a_radius_decides_in_the_plane_and_the_ratio_in_images() -> None:
    first, second = np.array([0.4, 0.6, 0.2, 3.0]), np.array([0.5, 5.0, 5.0, 4.0])
    assert is_between(first, second, 0.5, 2).tolist() == [False, True, False, True]
    assert is_between(first, second, None, 2).tolist() == [True, False, False, True]
    assert is_between(first, second, 0.5, 64).tolist() == [True, False, False, True]
