"""Estimators of entropy and agreement from k votes, against their exact expectations."""

from __future__ import annotations

from itertools import product
from math import factorial, prod

import numpy as np
import pytest
from benchsuite_metrics.fork_entropy import ForkEntropy, chao_wang_jost, miller_madow, pair_agreement, plug_in
from numpy.typing import NDArray
from scipy.stats import binom

from benchsuite import NotApplicableError, Record

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
