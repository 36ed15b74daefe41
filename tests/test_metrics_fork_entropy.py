"""Estimators of entropy and agreement from k votes, against their exact expectations."""

from __future__ import annotations

from itertools import product
from math import factorial, prod

import numpy as np
import pytest
import torch
from benchsuite_metrics.fork_entropy import ForkEntropy, chao_wang_jost, miller_madow, pair_agreement, plug_in
from benchsuite_models.exact_mixture import ExactMixture
from closed_forms import two_gaussians
from numpy.typing import NDArray
from scipy.stats import binom

from benchsuite import Fork, NotApplicableError, Record
from benchsuite.errors import UsageError
from benchsuite.own_data import ExactReadout
from benchsuite.protocols.common import Items, Meter
from benchsuite.protocols.fork import count_passes, fork
from benchsuite.protocols.settings import ForkSettings

Array = NDArray[np.float64]
LAWS = [np.array([0.5, 0.5]), np.array([0.7, 0.2, 0.1]), np.array([1.0, 0.0]), np.full(4, 0.25)]


def all_votes(p: Array, k: int) -> tuple[NDArray[np.int64], Array]:
    """Every outcome of k votes with its multinomial probability."""
    votes = np.array([v for v in product(range(k + 1), repeat=len(p)) if sum(v) == k])
    ways = [factorial(k) / prod(factorial(n) for n in v) for v in votes.tolist()]
    return votes, np.array(ways) * np.prod(p**votes, axis=1)


def entropy(p: Array) -> float:
    return float(-sum(q * np.log(q) for q in p if q > 0))


def expected_plug_in(p: Array, k: int) -> Array:
    """E of the plug-in entropy and of the number of values seen, from binomial margins."""
    n = np.arange(1, k + 1)
    weights = binom.pmf(n[:, None], k, p[None])
    return np.array([-(weights * (n / k * np.log(n / k))[:, None]).sum(), weights.sum()])


@pytest.mark.parametrize("k", [2, 5, 8])
@pytest.mark.parametrize("p", LAWS)
def test_agreement_is_unbiased(p: Array, k: int) -> None:
    votes, weight = all_votes(p, k)
    assert weight @ pair_agreement(votes) == pytest.approx((p**2).sum())


@pytest.mark.parametrize("p", LAWS)
def test_plug_in_and_miller_madow_have_their_textbook_expectations(p: Array) -> None:
    votes, weight = all_votes(p, 6)
    naive, seen = expected_plug_in(p, 6)
    assert weight @ plug_in(votes, 6) == pytest.approx(naive)
    assert weight @ miller_madow(votes) == pytest.approx(naive + (seen - 1) / 12)


def test_published_bias_at_ten_values() -> None:
    """shared finding for K = 10: k = 2, 5, 10, 20, 50 votes show .62, 1.34, 1.76, 2.04, 2.21 of 2.303 nats."""
    ten = np.full(10, 0.1)
    for k, naive, corrected in (
        (2, 0.62, None),
        (5, 1.34, None),
        (10, 1.76, 2.04),
        (20, 2.04, 2.24),
        (50, 2.21, 2.298),
    ):
        expected, seen = expected_plug_in(ten, k)
        assert expected == pytest.approx(naive, abs=0.01)
        votes = np.random.default_rng(k).multinomial(k, ten, size=40_000)
        assert plug_in(votes, k).mean() == pytest.approx(expected, abs=0.005)
        if corrected is not None:
            assert expected + (seen - 1) / (2 * k) == pytest.approx(corrected, abs=0.01)
            assert miller_madow(votes).mean() == pytest.approx(corrected, abs=0.01)


@pytest.mark.parametrize("p", LAWS)
def test_the_shown_part_of_chao_wang_jost_is_unbiased(p: Array) -> None:
    """On average it is the truncated series sum_{r<k} (1/r) sum p (1 - p)^r; values seen once add the rest."""
    k = 8
    votes, weight = all_votes(p, k)
    once = (votes == 1).any(axis=1)
    harmonic = np.array([sum(1 / r for r in range(1, n)) for n in range(k + 2)])  # sum_{r<n} 1/r
    shown = (votes / k * (harmonic[k] - harmonic[np.maximum(votes, 1)])).sum(axis=1)
    series = sum((p * (1 - p) ** r).sum() / r for r in range(1, k))
    assert weight @ shown == pytest.approx(series)
    np.testing.assert_allclose(chao_wang_jost(votes)[~once], shown[~once])
    assert (chao_wang_jost(votes)[once] >= shown[once] - 1e-12).all()


@pytest.mark.parametrize("values", [2, 4, 10])
@pytest.mark.parametrize("concentration", [0.3, 1.0, 100.0])
def test_chao_wang_jost_at_sixteen_votes(values: int, concentration: float) -> None:
    """The claim beside the metric: bias below 0.04 nats at k = 16 for up to ten values.

    Averaged over posteriors of a kind (sparse, any, even), which is what a point of a curve is.
    """
    rng = np.random.default_rng(values)
    laws = rng.dirichlet(np.full(values, concentration), size=20_000)
    votes = np.array([rng.multinomial(16, p) for p in laws])
    truth = np.mean([entropy(p) for p in laws])
    assert chao_wang_jost(votes).mean() == pytest.approx(truth, abs=0.04)
    if values == 10 and concentration == 100.0:
        assert truth - miller_madow(votes).mean() > 0.05
        assert truth - plug_in(votes, 16).mean() > 0.2


def test_unanimous_votes_have_no_entropy() -> None:
    votes = np.array([[9, 0, 0], [0, 9, 0]])
    for estimator in (chao_wang_jost, miller_madow, lambda v: plug_in(v, 9)):
        np.testing.assert_array_equal(estimator(votes), 0)
    np.testing.assert_array_equal(pair_agreement(votes), 1)


def record(votes: dict[str, Array]) -> Record:
    arrays = {f"votes/{name}": value for name, value in votes.items()}
    arrays |= {"log_snr": np.array([-2.0, 2.0]), "items": np.array(["a", "b"])}
    meta = {"k": 4, "steps": 9, "method": "sde-2m", "spacing": 0.5, "readout_accuracy": {"class": 0.97}}
    return Record("fork", arrays, meta | {"entropy": {"class": np.log(2)}, "factors": {"class": 2}})


def test_curves() -> None:
    votes = np.array([[[2, 2], [4, 0]], [[1, 3], [0, 4]]])  # (items, levels, values)
    curves = {c.variant: c for c in ForkEntropy().compute({"fork": record({"class": votes})})}
    assert curves.keys() == {"", "miller-madow", "agreement"}
    published, agreement = curves[""], curves["agreement"]
    assert (published.floor, published.ceiling, published.unit) == (np.log(2), 0.0, "nats")  # falls as it decides
    np.testing.assert_allclose(published.per_item, chao_wang_jost(votes))
    np.testing.assert_allclose(agreement.per_item, [[1 / 3, 1], [1 / 2, 1]])
    # agreement of unrelated items at the noisiest level: shares 3/8 and 5/8
    assert agreement.floor == pytest.approx((3 / 8) ** 2 + (5 / 8) ** 2)
    assert published.extra["k"] == 4
    assert published.extra["readout_accuracy"] == 0.97


def test_nothing_to_judge_is_not_applicable() -> None:
    with pytest.raises(NotApplicableError, match="judges no factor"):
        ForkEntropy().compute({"fork": record({})})


def test_truth_is_the_mean_entropy_of_the_posterior() -> None:
    posterior = np.array([[0.5, 0.5], [1.0, 0.0]])
    assert ForkEntropy().truth(posterior, np.array([0.5, 0.5])) == pytest.approx(np.log(2) / 2)


def test_own_paths_are_a_variant_of_those_who_ask() -> None:
    votes = np.array([[[2, 2], [4, 0]], [[1, 3], [0, 4]]])
    made = record({"class": votes})
    made.arrays |= {"own_items": np.array(["path/1", "path/2"]), "own/class": votes[:, ::-1]}
    metric = ForkEntropy(paths=True)
    assert metric.needs == (Fork(paths=True),)
    assert ForkEntropy().needs == (Fork(),)
    curves = {c.variant: c for c in metric.compute({"fork": made})}
    assert curves.keys() == {"", "miller-madow", "agreement", "own paths"}
    np.testing.assert_array_equal(curves["own paths"].per_item, curves[""].per_item[:, ::-1])
    assert curves["own paths"].items == ("path/1", "path/2")
    assert "own paths" not in {c.variant for c in ForkEntropy().compute({"fork": made})}


@torch.no_grad()
def test_on_a_perfect_model_its_own_paths_and_noised_images_agree() -> None:
    """Two wells at ±m: E[H(p)] by one-dimensional integrals, whichever way the state was reached."""
    model = ExactMixture([[1.3, 0.0], [-1.3, 0.0]], covariances=0.16)
    model.load()
    x, labels = model.sample(300, torch.Generator().manual_seed(1))
    items = Items(x, labels, tuple(f"i{n}" for n in range(300)), model.factors)
    settings = ForkSettings(low=-3.0, high=3.0, every=2.0, steps_per_level=8, end=6.0, k=16, items=300)
    request, meter = Fork(paths=True), Meter()
    made = fork(
        model,
        items,
        ExactReadout(model),
        settings,
        seed=0,
        dataset="d",
        batch=65536,
        meter=meter,
        request=request,
        train=items,
    )
    assert meter.rows == count_passes(settings, 300, model.sigma_range, request)
    # twice the forks, and 8 / 2 levels per log-SNR from -8 (the noisiest) to 3
    assert meter.rows - 2 * count_passes(settings, 300, model.sigma_range) == 300 * (4 * 11 + 1)
    made.meta["entropy"] = {"class": np.log(2)}
    curves = {c.variant: c.per_item for c in ForkEntropy(paths=True).compute({"fork": made})}
    rho = 1.3**2 / (0.16 + np.exp(-made["log_snr"]))
    exact = np.log(2) - np.array([two_gaussians(r)[0] for r in rho])
    for variant in ("", "own paths"):
        error = curves[variant].std(axis=0) / np.sqrt(300)
        np.testing.assert_array_less(np.abs(curves[variant].mean(axis=0) - exact), 0.02 + 3 * error)
    # the paths come from nowhere: both wells, evenly
    first = made["own/class"][:, -1].sum(axis=0) / made["own/class"][:, -1].sum()
    assert first[0] == pytest.approx(0.5, abs=0.08)


def test_own_paths_start_no_cleaner_than_the_forks() -> None:
    with pytest.raises(UsageError, match=r"paths_from -2\.0 must not lie above its low -5\.0"):
        ForkSettings(paths_from=-2.0)
