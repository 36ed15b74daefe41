"""The linear probe on records made by hand: what it can know, what it must not look at."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from benchsuite_metrics import logistic
from benchsuite_metrics.linear_probe import CLEARLY, RIDGES, LinearProbe
from closed_forms import two_gaussians
from numpy.typing import NDArray

from benchsuite import Curve, NotApplicableError, Record

Array = NDArray[np.float64]
LEVELS = np.array([-2.0, 2.0])


def record(
    taps: dict[str, Array], labels: NDArray[np.int64], roles: list[str], posterior: Array | None = None
) -> Record:
    """A sweep record with taps {name: (S, R, D)} in the order of `roles`."""
    classes = int(labels.max()) + 1
    share = np.bincount(labels) / len(labels)
    arrays = {
        "log_snr": LEVELS,
        "tap_log_snr": LEVELS,
        "tap_role": np.array(roles),
        "tap_items": np.array([f"i{n}" for n in range(len(roles))]),
        "tap_labels/class": labels,
        **{f"tap/{name}": values.astype(np.float32) for name, values in taps.items()},
    }
    if posterior is not None:
        arrays["posterior/class"] = posterior
    for array in arrays.values():
        array.flags.writeable = False  # as the runner hands them out
    entropy = float(-(share * np.log(share)).sum())
    meta = {"factors": {"class": classes}, "entropy": {"class": entropy}, "exact": posterior is not None}
    return Record("noise_sweep", arrays, meta)


def curves(made: Record) -> dict[str, Curve]:
    return {curve.variant: curve for curve in LinearProbe().compute({"noise_sweep": made})}


def split(test: int, train: int, val: int) -> list[str]:
    return ["test"] * test + ["train"] * train + ["val"] * val


def gaussians(rho: Array, roles: list[str], seed: int = 0) -> tuple[Array, NDArray[np.int64]]:
    """Features ±√rho + Z, one level per rho: the T1 problem, whose Bayes classifier is linear."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(2, size=len(roles))
    centre = np.sqrt(rho)[:, None, None] * (1 - 2 * labels)[None, :, None]
    return centre + rng.normal(size=(len(rho), len(roles), 1)), labels


def test_a_probe_attains_the_information_where_the_bayes_classifier_is_linear() -> None:
    """H - NLL → I and accuracy → Φ(√rho) of the two-Gaussian table, on 4 000 test items."""
    roles = split(4000, 4000, 500)
    rho = np.array([0.5, 4.0])
    features, labels = gaussians(rho, roles)
    found = curves(record({"mid": features}, labels, roles))
    for level in range(2):
        information, _, accuracy = two_gaussians(rho[level])
        for variant, truth in (("", information), ("accuracy", accuracy)):
            values = found[variant].per_item[:, level]
            assert values.mean() == pytest.approx(truth, abs=0.005 + 3 * values.std() / np.sqrt(4000))
    assert found[""].ceiling == pytest.approx(np.log(2), abs=1e-3)
    assert found[""].log_snr.tolist() == LEVELS.tolist()
    assert len(found[""].items) == 4000


def test_exact_posteriors_take_the_noise_out_of_the_test_labels() -> None:
    """Rao–Blackwell: the same expectation from the same items, with a smaller spread."""
    roles = split(2000, 4000, 500)
    rho = np.array([0.5, 1.0])
    features, labels = gaussians(rho, roles)
    p = 1 / (1 + np.exp(-2 * np.sqrt(rho)[:, None] * features[:, :2000, 0]))  # p(label 0 | feature)
    posterior = np.stack([p, 1 - p], axis=2).transpose(1, 0, 2)
    plain = curves(record({"mid": features}, labels, roles))
    exact = curves(record({"mid": features}, labels, roles, posterior))
    for level in range(2):
        information, _, accuracy = two_gaussians(rho[level])
        for variant, truth in (("", information), ("accuracy", accuracy)):
            spread = exact[variant].per_item[:, level].std()
            assert spread < 0.8 * plain[variant].per_item[:, level].std()
            mean = exact[variant].per_item[:, level].mean()
            assert mean == pytest.approx(truth, abs=0.005 + 3 * spread / np.sqrt(2000))


def test_shuffled_labels_are_at_chance() -> None:
    roles = split(2000, 1000, 300)
    features, labels = gaussians(np.array([4.0, 9.0]), roles)
    shuffled = np.random.default_rng(1).permutation(labels)
    found = curves(record({"mid": features}, shuffled, roles))
    assert (np.abs(found[""].per_item.mean(axis=0)) < 0.02).all()
    assert np.allclose(found["accuracy"].per_item.mean(axis=0), 0.5, atol=4 * 0.5 / np.sqrt(2000))


def test_the_test_split_chooses_nothing() -> None:
    """Twenty useless taps and few validation items: picking by test score would look far better than chance.

    And whatever the test labels are, the same tap and the same fits are used.
    """
    rng = np.random.default_rng(0)
    roles = split(60, 60, 60)
    labels = rng.integers(2, size=180)
    taps = {f"t{n:02d}": rng.normal(size=(2, 180, 3)) for n in range(20)}
    found = curves(record(taps, labels, roles))
    best_on_test = max(found[f"tap {name}"].per_item[:, 0].mean() for name in taps)
    assert found[""].per_item[:, 0].mean() < best_on_test
    assert found[""].per_item.mean() < 0.01
    other = labels.copy()
    other[:60] = 1 - other[:60]
    flipped = curves(record(taps, other, roles))
    assert flipped[""].extra["taps"] == found[""].extra["taps"]
    # the two labels' log-probabilities belong to one fit: they sum to 1
    entropy = found[""].ceiling, flipped[""].ceiling
    p = [np.exp(c.per_item - e) for c, e in zip((found[""], flipped[""]), entropy, strict=True)]
    np.testing.assert_allclose(p[0] + p[1], 1, atol=1e-5)


def test_the_best_tap_is_chosen_level_by_level_on_validation() -> None:
    """`early` knows at the first level and `late` at the second."""
    roles = split(500, 500, 200)
    known, labels = gaussians(np.array([9.0, 9.0]), roles)
    noise = np.random.default_rng(2).normal(size=known.shape)
    early, late = known.copy(), known.copy()
    early[1], late[0] = noise[1], noise[0]
    found = curves(record({"early": early, "late": late, "input": known}, labels, roles))
    assert found[""].extra["taps"] == ["early", "late"]  # a baseline is not the network's merit
    assert found[""].tap is None
    for level, name in enumerate(("early", "late")):
        np.testing.assert_array_equal(found[""].per_item[:, level], found[f"tap {name}"].per_item[:, level])
        assert found[""].per_item[:, level].mean() > 0.6
    assert {"tap early", "tap late", "raw input", "accuracy", ""} == found.keys()
    assert found["tap late"].tap == "late"


def test_baselines_speak_only_where_the_network_offers_nothing() -> None:
    roles = split(200, 400, 100)
    known, labels = gaussians(np.array([9.0, 9.0]), roles)
    noise = np.random.default_rng(2).normal(size=known.shape)
    alone = curves(record({"input": known, "denoised": noise}, labels, roles))
    assert alone[""].extra["taps"] == ["input", "input"]
    assert alone[""].tap == "input"


def test_ridge_is_chosen_on_validation(monkeypatch: pytest.MonkeyPatch) -> None:
    """40 useless features, 60 training items: the weakest penalty loses nats, and validation sees it in time."""
    rng = np.random.default_rng(0)
    roles = np.array(split(1000, 60, 400))
    labels = rng.integers(2, size=len(roles))
    features = rng.normal(size=(1, len(roles), 40))
    train, val, test = (roles == role for role in ("train", "val", "test"))
    scaled = torch.tensor((features - features[:, train].mean(axis=1)) / features[:, train].std(axis=1, ddof=1))
    nll = {}
    for ridge in RIDGES:
        penalty = torch.tensor([ridge], dtype=torch.float64)
        fitted = logistic.fit(scaled[:, train], torch.tensor(labels[train]), 2, penalty, max_iterations=5000)
        log_p = fitted.log_probabilities(scaled)[0].numpy()
        nll[ridge] = [-log_p[rows, labels[rows]].mean() for rows in (val, test)]
    best = min(nll, key=lambda ridge: nll[ridge][0])
    assert nll[min(RIDGES)][1] > nll[best][1] + 0.5
    tried, solve = [], logistic.fit
    monkeypatch.setattr(logistic, "fit", lambda *given: tried.append(float(given[3][0])) or solve(*given))
    found = curves(record({"mid": np.concatenate([features] * 2)}, labels, roles.tolist()))[""]
    clearly = [ridge for ridge in RIDGES if nll[ridge][0] > nll[best][0] + CLEARLY]
    assert tried == pytest.approx([*RIDGES[: RIDGES.index(clearly[0])], clearly[0]])
    assert len(tried) < len(RIDGES)
    assert found.ceiling - found.per_item.mean() == pytest.approx(nll[best][1], abs=0.01)


def test_constant_features_give_the_frequencies_and_half_a_hit_per_tie() -> None:
    roles = split(100, 400, 100)
    labels = np.arange(600) % 2
    found = curves(record({"dead": np.ones((2, 600, 3)) * 5}, labels, roles))
    np.testing.assert_allclose(found[""].per_item, 0, atol=1e-5)
    np.testing.assert_allclose(found["accuracy"].per_item, 0.5)
    assert found["accuracy"].floor == 0.5
    assert found["accuracy"].ceiling == 1.0


def test_features_of_very_different_size_count_alike() -> None:
    roles = split(500, 1000, 200)
    known, labels = gaussians(np.array([1.0, 4.0]), roles)
    noise = np.random.default_rng(2).normal(size=(2, len(roles), 1))
    plain = curves(record({"mid": np.concatenate([known, noise], axis=2)}, labels, roles))
    scaled = curves(record({"mid": np.concatenate([1e-3 * known + 7, 1e2 * noise], axis=2)}, labels, roles))
    np.testing.assert_allclose(scaled[""].per_item, plain[""].per_item, atol=0.02)


def test_what_does_not_apply() -> None:
    roles = split(4, 4, 2)
    one = np.zeros(10, dtype=np.int64)
    one[:4] = 1
    with pytest.raises(NotApplicableError, match="only one value of 'class'"):
        curves(record({"mid": np.zeros((2, 10, 2))}, one, roles))
    with pytest.raises(NotApplicableError, match="nothing was tapped"):
        curves(record({}, np.arange(10) % 2, roles))
    single = record({"mid": np.zeros((2, 10, 2))}, np.arange(10) % 2, roles)
    arrays = single.arrays | {"tap_log_snr": LEVELS[:1], "tap/mid": single["tap/mid"][:1]}
    with pytest.raises(NotApplicableError, match=r"tapped at one level only.*sweep\.tap_stride"):
        curves(Record("noise_sweep", arrays, single.meta))


def test_truth_is_the_information() -> None:
    posterior = np.array([[1.0, 0.0], [0.5, 0.5]])
    assert LinearProbe().truth(posterior, np.array([0.5, 0.5])) == pytest.approx(np.log(2) / 2)
