"""Routes that should agree: which one is flagged, where, and when nothing is said. Curves are planted."""

from __future__ import annotations

import numpy as np
import pytest

from benchsuite.contracts import Curve
from benchsuite.route_agreement import agreements
from benchsuite.statistics import summarise

H = float(np.log(4))
FINE, COARSE = np.linspace(-8, 8, 33), np.linspace(-5, 5, 11)
IDS = tuple(f"item{i:03d}" for i in range(200))
MI, FORK, PROBE, RETENTION = "mutual-information", "fork-entropy", "linear-probe", "class-retention"


def ideal(log_snr):
    """I / H of the planted truth."""
    return 1 / (1 + np.exp(-log_snr))


def measured(values, log_snr, floor=0.0, ceiling=H, unit="nats", noise=0.02, variant="", seed=0):
    """A curve whose items scatter around `values`, in the unit of the curve, and its summary."""
    scatter = noise * np.random.default_rng(seed).standard_normal((len(IDS), len(log_snr)))
    curve = Curve("hue", log_snr, values + scatter, IDS, unit, floor, ceiling, variant)
    return curve, summarise(curve, replicates=200, seed=0)


def routes(mi=None, fork=None, probe=None, noise=0.02):
    """Curves by route, from functions of log-SNR that give I / H; None leaves a route out."""
    found = {}
    if mi:
        found[MI, "", "hue"] = measured(H * mi(FINE), FINE, noise=noise)
    if fork:
        found[FORK, "", "hue"] = measured(H * (1 - fork(COARSE)), COARSE, H, 0.0, noise=noise, seed=1)
    if probe:
        found[PROBE, "", "hue"] = measured(H * probe(FINE), FINE, noise=noise, seed=2)
    return found


def bump(size, at=1.0):
    """The planted truth, off by `size` of H around one level."""
    return lambda x: ideal(x) + size * np.exp(-2 * (x - at) ** 2)


def judged(curves, truth=None):
    (one,) = agreements(curves, {"hue": H}, [PROBE], truth or {})
    return one


TRUTH = routes(mi=ideal)


def test_routes_that_agree_are_not_flagged_and_the_largest_difference_is_said():
    found = judged(routes(ideal, bump(0.1), ideal))
    assert not found.flags
    assert not found.check.failed
    assert found.check.name == "information routes agree to 0.15 H"
    assert found.check.deviation.value == pytest.approx(0.1, abs=0.01)
    low, high = found.check.deviation.interval()
    assert low < 0.1 < high < 0.12
    assert found.check.at_log_snr == 1.0


@pytest.mark.parametrize(
    ("curves", "metric", "said"),
    [
        (routes(bump(-0.3), ideal), MI, "disagrees with H − fork-entropy: 0.30 H below it at log-SNR 1.0"),
        (routes(ideal, bump(0.3)), FORK, "disagrees with mutual-information: 0.30 H above it at log-SNR 1.0"),
        (
            routes(ideal, bump(-0.3, at=-2.0)),
            FORK,
            "disagrees with mutual-information: 0.30 H below it at log-SNR -2.0",
        ),
    ],
)
def test_the_route_farther_from_the_oracle_fails(curves, metric, said):
    found = judged(curves, TRUTH)
    assert found.flags == {metric: (said,)}
    assert found.check.failed == (metric,)


def test_without_an_oracle_the_median_of_three_decides_and_two_are_both_named():
    three = judged(routes(bump(0.3), ideal, ideal))
    assert list(three.flags) == [MI]
    assert len(three.flags[MI]) == 1, "a probe below it is no disagreement"
    two = judged(routes(bump(0.3), ideal))
    assert set(two.flags) == {MI, FORK}


def test_a_probe_may_lose_anything_but_gain_nothing():
    assert not judged(routes(ideal, ideal, bump(-0.6)), TRUTH).flags
    found = judged(routes(ideal, ideal, bump(0.3)), TRUTH)
    assert set(found.flags) == {PROBE}
    assert sorted(found.flags[PROBE]) == [
        "disagrees with H − fork-entropy: 0.30 H above it at log-SNR 1.0",
        "disagrees with mutual-information: 0.30 H above it at log-SNR 1.0",
    ]


def test_a_probe_that_is_right_shows_which_other_route_is_too_low():
    found = judged(routes(mi=bump(-0.3), probe=ideal), TRUTH)
    assert found.flags == {MI: ("disagrees with linear-probe: 0.30 H below it at log-SNR 1.0",)}


def test_what_sampling_may_explain_is_no_disagreement():
    assert judged(routes(ideal, bump(0.2)), TRUTH).flags
    noisy = judged(routes(ideal, bump(0.2), noise=1.0), TRUTH)  # standard error 0.07 nats each, H / 14
    assert noisy.check.deviation.value > 0.15
    assert not noisy.flags


def test_retention_is_compared_with_fork_agreement_on_the_scale_of_its_floor():
    kept = 0.25 + 0.75 * ideal(FINE)
    curves = {
        (RETENTION, "", "hue"): measured(kept, FINE, 0.25, 1.0, "probability"),
        (FORK, "agreement", "hue"): measured(
            0.25 + 0.75 * bump(-0.3)(COARSE), COARSE, 0.27, 1.0, "probability", variant="agreement"
        ),
    }
    truth = {(RETENTION, "", "hue"): measured(kept, FINE, 0.25, 1.0, "probability", seed=4)}
    found = judged(curves, truth)
    assert found.flags == {
        FORK: ("agreement disagrees with class-retention: 0.30 of range below it at log-SNR 1.0",)
    }
    assert found.check.unit == "of range"


def test_any_metric_in_nats_from_0_to_h_is_a_route_and_diagnostics_are_none():
    curves = routes(ideal)
    curves[MI, "plug-in", "hue"] = measured(2 * H * ideal(FINE), FINE, variant="plug-in")
    curves["loss", "", "hue"] = measured(5 - ideal(FINE), FINE, 5.0, 4.0)
    curves["accuracy", "", "hue"] = measured(ideal(FINE), FINE, 0.25, 1.0, "probability")
    assert not agreements(curves, {"hue": H}, [PROBE], {})
    curves["third-party", "", "hue"] = measured(H * bump(0.3)(FINE), FINE)
    (found,) = agreements(curves, {"hue": H}, [PROBE], TRUTH)
    assert found.flags == {"third-party": ("disagrees with mutual-information: 0.30 H above it at log-SNR 1.0",)}


def test_no_common_level_no_factor_no_verdict():
    curves = routes(ideal)
    curves[FORK, "", "hue"] = measured(np.zeros(3), np.array([20.0, 21.0, 22.0]), H, 0.0)
    assert not agreements(curves, {"hue": H}, [], {})
    assert not agreements(routes(ideal, ideal), {"shape": H}, [], {})
