"""Sample validity and denoising loss, against records whose answers are counted by hand."""

from __future__ import annotations

import numpy as np
import pytest
from benchsuite_metrics.denoising_loss import DenoisingLoss
from benchsuite_metrics.sample_validity import SampleValidity, expected_variation, wilson

from benchsuite import NotApplicableError, Record, UsageError
from benchsuite.statistics import Summary, area_between, summarise

LOG_SNR = np.array([-2.0, 0.0, 3.0])


def paths() -> Record:
    """Four paths, two factors: the first path is sure of everything, the second of one factor only, …"""
    arrays = {
        "log_snr": LOG_SNR,
        "items": np.array([f"path/{i}" for i in range(4)]),
        "sure/hue": np.array([[0.5, 0.95, 0.99], [0.2, 0.3, 0.99], [0.2, 0.3, 0.4], [0.9, 0.9, 0.9]]),
        "sure/form": np.array([[0.5, 0.91, 0.99], [0.2, 0.3, 0.5], [0.2, 0.3, 0.99], [0.89, 0.9, 0.9]]),
        "sure_end/hue": np.array([1.0, 1.0, 0.4, 0.9]),
        "sure_end/form": np.array([1.0, 0.5, 1.0, 0.9]),
        "verdict/hue": np.eye(2)[[0, 0, 0, 1]],
        "verdict/form": np.eye(3)[[0, 1, 2, 2]],
    }
    meta = {"prior": {"hue": [0.5, 0.5], "form": [0.25, 0.25, 0.5]}, "method": "sde-2m", "spacing": 0.25}
    return Record("trajectory", arrays, meta)


def test_a_sample_is_valid_if_every_factor_is_clear() -> None:
    (curve,) = SampleValidity().compute({"trajectory": paths()})
    assert curve.per_item.tolist() == [[0, 1, 1], [0, 0, 0], [0, 0, 0], [0, 1, 1]]
    assert curve.extra["samples"] == 0.5
    assert curve.extra["samples_by_factor"] == {"hue": 0.75, "form": 0.75}
    apart = curve.extra["frequencies_apart"]
    assert apart["hue"]["total_variation"] == pytest.approx(0.25)
    assert apart["form"]["total_variation"] == pytest.approx(0.0)
    (strict,) = SampleValidity(confidence=0.95).compute({"trajectory": paths()})
    assert strict.extra["samples"] == 0.25


def test_variation_by_sampling_is_that_of_simulated_draws() -> None:
    prior = np.array([0.1, 0.2, 0.7])
    draws = np.random.default_rng(0).multinomial(400, prior, size=20_000) / 400
    simulated = np.abs(draws - prior).sum(axis=1).mean() / 2
    assert expected_variation(prior, 400) == pytest.approx(simulated, rel=0.02)


def test_the_interval_covers() -> None:
    """Coverage of the Wilson interval at p = 0.93, n = 60, summed over the binomial distribution."""
    from scipy.stats import binom

    p, n = 0.93, 60
    covered = sum(binom.pmf(k, n, p) for k in range(n + 1) if wilson(k, n)[0] <= p <= wilson(k, n)[1])
    assert covered == pytest.approx(0.95, abs=0.025)
    assert wilson(60, 60)[1] == 1.0
    assert wilson(0, 60)[0] == 0.0


def test_no_judge_and_wrong_confidence() -> None:
    record = paths()
    bare = Record("trajectory", {k: v for k, v in record.arrays.items() if "/" not in k}, record.meta)
    with pytest.raises(NotApplicableError, match="no readout to judge"):
        SampleValidity().compute({"trajectory": bare})
    with pytest.raises(UsageError, match=r"confidence=0\.3 is not in"):
        SampleValidity(confidence=0.3)


def sweep(unconditional: np.ndarray, told: np.ndarray) -> Record:
    arrays = {
        "log_snr": LOG_SNR,
        "items": np.array(["a", "b"]),
        "error/unconditional": unconditional,
        "error/hue": told,
    }
    return Record("noise_sweep", arrays, {"heads": ["hue"]})


def test_loss_is_half_the_squared_error_of_the_noise() -> None:
    published, told = DenoisingLoss().compute({"noise_sweep": sweep(np.full((2, 3), 4.0), np.full((2, 3), 2.0))})
    assert (published.variant, told.variant) == ("", "told hue")
    assert published.per_item.tolist() == [[2.0] * 3] * 2
    assert told.per_item.tolist() == [[1.0] * 3] * 2


def test_the_signed_area_is_the_excess_over_the_oracle() -> None:
    """½ ∫ (error - floor): a loss 0.3 above the floor over 5 units of log-SNR costs 1.5 nats."""

    def summary(height: float) -> Summary:
        values = np.full((2, 3), height)
        (curve, _) = DenoisingLoss().compute({"noise_sweep": sweep(2 * values, values)})
        return summarise(curve, replicates=20, seed=0)

    model, oracle = summary(1.3), summary(1.0)
    assert area_between(model, oracle, LOG_SNR, LOG_SNR, signed=True).value == pytest.approx(1.5)
    assert area_between(oracle, model, LOG_SNR, LOG_SNR, signed=True).value == pytest.approx(-1.5)
    assert area_between(oracle, model, LOG_SNR, LOG_SNR).value == pytest.approx(1.5)
