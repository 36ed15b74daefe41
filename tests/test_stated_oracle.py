"""Filters, U-turns and forks of an oracle: its posterior answers, with what running it would come to."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
import torch
from benchsuite_metrics.class_retention import ClassRetention
from benchsuite_metrics.feature_similarity import agreement
from benchsuite_metrics.fork_entropy import ForkEntropy, chao_wang_jost
from benchsuite_metrics.mutual_information import MutualInformation
from benchsuite_models.exact_mixture import ExactMixture
from closed_forms import two_gaussians
from numpy.typing import NDArray
from toys import DrawnData

from benchsuite import Fork, NotApplicableError, Readout, Record, UTurn
from benchsuite.protocols import fork, label_filter, u_turn
from benchsuite.protocols.common import Items, Meter
from benchsuite.protocols.returns import Streams, schedule
from benchsuite.protocols.settings import FilterSettings, ForkSettings, UTurnSettings

M, VARIANCE, N = 1.3, 0.16, 600
TURNS = UTurnSettings(low=-4.0, high=3.0, every=1.0, steps_per_level=4, end=7.0, draws=2)
FORKS = ForkSettings(low=-4.0, high=3.0, every=1.0, steps_per_level=4, end=7.0, k=16, items=100)
FILTER = FilterSettings(low=-8.0, high=4.0, nodes=25, steps_per_level=4, draws=2, items=200)


@pytest.fixture(autouse=True)
def no_grad() -> Iterator[None]:
    with torch.no_grad():
        yield


class Judge(Readout):
    """The nearer of the two means; a classifier's opinion, not a posterior. It shows two hidden layers."""

    name = "nearer"
    accuracy = {"component": 0.999}  # noqa: RUF012

    def to(self, device: str) -> Readout:
        return self

    def fingerprint(self) -> str:
        return "nearer"

    def probabilities(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        right = (images[:, :1] < 0).float()
        return {model().factors[0].name: torch.cat([1 - right, right], dim=1)}

    def features(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"shallow": images, "deep": images.abs()}


def model() -> ExactMixture:
    found = ExactMixture([[M, 0.0], [-M, 0.0]], covariances=VARIANCE)
    found.load()
    return found


FACTOR = model().factors[0].name


def items() -> Items:
    data = DrawnData(model(), N)
    data.load()
    part = data.split("test")
    return Items(part.images, part.labels, part.ids, data.factors)


def turned(stated: bool, request: UTurn = UTurn(), exact: bool = True, batch: int = 4096) -> tuple[Record, int]:  # noqa: B008
    meter = Meter()
    record = u_turn.u_turn(
        model(), items(), Judge(), TURNS, seed=0, dataset="d", batch=batch, meter=meter,
        request=request, stated=stated, exact=exact,
    )  # fmt: skip
    return record, meter.rows


def filtered(stated: bool, settings: FilterSettings = FILTER) -> tuple[Record, int]:
    meter, priors = Meter(), {FACTOR: np.array([0.5, 0.5])}
    record = label_filter.label_filter(
        model(), items(), priors, settings, seed=0, dataset="d", batch=4096, meter=meter, stated=stated
    )
    record.meta |= {"exact": False}
    return record, meter.rows


def forked(stated: bool, request: Fork = Fork(), k: int = 16, exact: bool = True) -> tuple[Record, int]:  # noqa: B008
    meter, everyone = Meter(), items()
    record = fork.fork(
        model(), everyone, Judge(), replace(FORKS, k=k), seed=0, dataset="d", batch=4096, meter=meter,
        request=request, train=everyone, stated=stated, exact=exact,
    )  # fmt: skip
    record.meta |= {"entropy": {FACTOR: np.log(2)}}
    return record, meter.rows


def posterior_at(starts: list[torch.Tensor], sigmas: list[float]) -> NDArray[np.float64]:
    """1 / (1 + exp(-2 m x / (variance + sigma²))), (N, U, K)."""
    first = [
        1 / (1 + np.exp(-2 * M * x[:, 0].double().numpy() / (VARIANCE + sigma**2)))
        for x, sigma in zip(starts, sigmas, strict=True)
    ]
    return np.stack([np.stack([p, 1 - p], axis=-1) for p in first], axis=1)


def test_u_turns_are_the_posterior_at_the_turn_and_cost_nothing() -> None:
    record, passes = turned(stated=True)
    assert passes == 0 == u_turn.count_passes(TURNS, N, model().sigma_range, UTurn(), stated=True)
    assert record["judged/" + FACTOR].shape == (2 * N, 8, 2)
    plan, everyone = schedule(TURNS, model().sigma_range), items()
    streams = Streams.of(0, "d", "u_turn", 0, everyone, plan.entry_sigmas, antithetic=TURNS.antithetic)
    expected = posterior_at(streams.noised(everyone.x, plan.entry_sigmas), plan.entry_sigmas)
    np.testing.assert_allclose(record["judged/" + FACTOR][:N], expected, atol=1e-5)
    np.testing.assert_array_equal(record["judged/" + FACTOR], record["reference/" + FACTOR])
    [curve] = ClassRetention().compute({"u_turn": record})  # no variant says the same once more
    for level, log_snr in enumerate(curve.log_snr):
        truth = two_gaussians(M**2 / (VARIANCE + np.exp(-log_snr)))[1]
        error = curve.per_item[:, level].std() / np.sqrt(N)
        assert curve.per_item[:, level].mean() == pytest.approx(truth, abs=1e-4 + 4 * error)


def test_running_it_comes_to_the_same() -> None:
    """Real reverse steps from the same noised items: equal within their sampling error and the bias of a step."""
    stated, _ = turned(stated=True, exact=False)
    run, passes = turned(stated=False)
    assert passes == u_turn.count_passes(TURNS, N, model().sigma_range)
    # images of another origin than the posterior's are compared with what the judge says of them
    np.testing.assert_array_equal(stated["reference/" + FACTOR], run["reference/" + FACTOR])
    by_law, by_steps = ((r["judged/" + FACTOR] * r["reference/" + FACTOR]).sum(axis=2) for r in (stated, run))
    error = (by_law - by_steps).std(axis=0) / np.sqrt(N)
    assert (np.abs((by_law - by_steps).mean(axis=0)) < 0.01 + 3 * error).all()


def test_features_are_still_measured_on_what_came_back() -> None:
    record, passes = turned(stated=True, request=UTurn(features=True))
    assert passes == u_turn.count_passes(TURNS, N, model().sigma_range, UTurn(features=True), stated=True) > 0
    run, _ = turned(stated=False, request=UTurn(features=True))
    for layer in ("shallow", "deep"):
        np.testing.assert_array_equal(record[f"similarity/{layer}"], run[f"similarity/{layer}"])
    alone, _ = turned(stated=True)
    np.testing.assert_array_equal(record["judged/" + FACTOR], alone["judged/" + FACTOR])  # whatever else is asked
    # how often the likeliest value of what came back is the item's own: the law says it without a draw
    record.meta["factors"] = run.meta["factors"] = {FACTOR: 2}
    (law, by_law), (hits, by_chance) = (agreement(r, FACTOR) for r in (record, run))
    assert ((law > 0.1) & (law < 0.9)).any()
    error = (law - hits).std(axis=0) / np.sqrt(N)
    assert (np.abs((law - hits).mean(axis=0)) < 0.01 + 3 * error).all()
    assert by_law == pytest.approx(by_chance, abs=0.03)


def test_forks_are_the_entropy_of_the_posterior() -> None:
    record, passes = forked(stated=True)
    assert passes == 0 == fork.count_passes(FORKS, N, model().sigma_range, Fork(), stated=True)
    assert len(record["items"]) == N  # all of them: they are free
    law = record["posterior/" + FACTOR].astype(float)
    curves = {curve.variant: curve for curve in ForkEntropy().compute({"fork": record})}
    assert curves.keys() == {"", "miller-madow", "agreement", "votes"}
    with np.errstate(divide="ignore", invalid="ignore"):
        entropy = -np.nansum(law * np.log(law), axis=2)
    np.testing.assert_allclose(curves[""].per_item, entropy, atol=1e-9)
    np.testing.assert_allclose(curves["agreement"].per_item, (law**2).sum(axis=2))
    np.testing.assert_array_equal(curves["votes"].per_item, chao_wang_jost(record["votes/" + FACTOR].astype(int)))
    for level, log_snr in enumerate(record["log_snr"]):
        information, agreed, _ = two_gaussians(M**2 / (VARIANCE + np.exp(-log_snr)))
        error = 4 * entropy[:, level].std() / np.sqrt(N) + 1e-4
        assert entropy[:, level].mean() == pytest.approx(np.log(2) - information, abs=error)
        error = 4 * curves["agreement"].per_item[:, level].std() / np.sqrt(N) + 1e-4
        assert curves["agreement"].per_item[:, level].mean() == pytest.approx(agreed, abs=error)


def test_beside_models_an_oracle_forks_the_items_that_they_fork() -> None:
    all_of_them, _ = forked(stated=True)
    as_run, _ = forked(stated=True, exact=False)
    run, _ = forked(stated=False)
    assert as_run["items"].tolist() == run["items"].tolist() == all_of_them["items"].tolist()[:100]
    np.testing.assert_array_equal(as_run["posterior/" + FACTOR], all_of_them["posterior/" + FACTOR][:100])


def test_filters_are_the_posterior_on_the_same_paths() -> None:
    """Steps of 1/8 come to within their own error of it, path by path; stated, it costs no pass."""
    record, passes = filtered(stated=True)
    run, taken = filtered(stated=False)
    assert passes == 0 == label_filter.count_passes(FILTER, N, 2, model().sigma_range, stated=True)
    assert 0 < taken <= label_filter.count_passes(FILTER, N, 2, model().sigma_range)
    for name in ("log_snr", "items", "labels/" + FACTOR, "posterior/" + FACTOR):
        np.testing.assert_array_equal(record[name], run[name])
    law = np.exp(record["filter/" + FACTOR].astype(float))
    np.testing.assert_allclose(law, record["posterior/" + FACTOR], atol=1e-6)
    extrapolated = 2 * run["filter/" + FACTOR].astype(float) - run["coarse/" + FACTOR]
    apart = np.abs(np.exp(extrapolated) - law)
    assert apart.mean() < 0.004
    assert np.quantile(apart, 0.99) < 0.05


def test_information_of_an_oracle_beside_models_is_the_log_score_of_its_posterior() -> None:
    record, _ = filtered(stated=True)
    rows, levels = len(record["items"]), len(record["log_snr"])
    nothing = np.zeros((rows, levels))
    sweep = Record(
        "noise_sweep",
        {"log_snr": record["log_snr"], "items": record["items"], "error/unconditional": nothing}
        | {f"{name}/{FACTOR}": nothing for name in ("error", "gap")},
        {"heads": [FACTOR], "exact": False, "entropy": {FACTOR: np.log(2)}},
    )
    records = {"noise_sweep": sweep, "label_filter": record}
    curves = {curve.variant: curve for curve in MutualInformation().compute(records)}
    assert curves.keys() == {"", "mse-difference", "plug-in"}
    p = record["posterior/" + FACTOR].astype(float)[np.arange(rows), :, record["labels/" + FACTOR]]
    np.testing.assert_allclose(curves[""].per_item, np.log(2) + np.log(np.maximum(p, 1e-12)), atol=1e-5)
    for level, log_snr in enumerate(record["log_snr"]):
        truth = two_gaussians(M**2 / (VARIANCE + np.exp(-log_snr)))[0]
        error = curves[""].per_item[:, level].std() / np.sqrt(FILTER.items)
        assert curves[""].per_item[:, level].mean() == pytest.approx(truth, abs=1e-4 + 4 * error)


def test_votes_are_drawn_from_the_posterior() -> None:
    record, _ = forked(stated=True, k=40)
    votes, law = record["votes/" + FACTOR], record["posterior/" + FACTOR]
    np.testing.assert_array_equal(votes.sum(axis=2), 40)
    deviation = votes[..., 0] - 40 * law[..., 0]
    variance = 40 * law[..., 0] * law[..., 1]
    assert np.abs(deviation.sum() / np.sqrt(variance.sum())) < 4
    assert (deviation**2).sum() / variance.sum() == pytest.approx(1.0, abs=0.1)  # binomial, and independent
    other, _ = forked(stated=True, k=20)
    assert (other["votes/" + FACTOR] <= votes).all()  # continuation by continuation, streams of their own


def test_own_paths_are_run_and_then_asked() -> None:
    request = Fork(paths=True)
    record, passes = forked(stated=True, request=request)
    assert passes == fork.count_passes(FORKS, N, model().sigma_range, request, stated=True) > 0
    run, _ = forked(stated=False, request=request)
    assert record["own_items"].tolist() == run["own_items"].tolist()
    law, votes = record["own_posterior/" + FACTOR].astype(float), run["own/" + FACTOR]
    assert law.shape == votes.shape
    # the same states were forked: the votes of real continuations follow the law at each of them
    deviation = votes[..., 0] / 16 - law[..., 0]
    variance = (law[..., 0] * law[..., 1] / 16).sum(axis=0) / len(law) ** 2
    assert (np.abs(deviation.mean(axis=0)) < 0.01 + 4 * np.sqrt(variance)).all()
    published = {c.variant: c for c in ForkEntropy(paths=True).compute({"fork": record})}["own paths"]
    with np.errstate(divide="ignore", invalid="ignore"):
        np.testing.assert_allclose(published.per_item, -np.nansum(law * np.log(law), axis=2), atol=1e-9)


class Silent(Judge):
    """A judge of nothing that the model knows."""

    def probabilities(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        return {}


def test_a_judge_of_nothing_costs_nothing() -> None:
    meter, common = Meter(), {"seed": 0, "dataset": "d", "batch": 4096, "stated": True}
    record = fork.fork(model(), items(), Silent(), FORKS, meter=meter, **common)  # type: ignore[arg-type]
    with pytest.raises(NotApplicableError, match="judges no factor"):
        ForkEntropy().compute({"fork": record})
    u_turn.u_turn(model(), items(), Silent(), TURNS, meter=meter, exact=True, **common)  # type: ignore[arg-type]
    assert meter.rows == 0
