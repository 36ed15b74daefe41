"""The oracle of `shapes`: its published curves against sums over all images, written here from Bayes' rule."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from benchsuite_datasets.shapes import Shapes
from benchsuite_models.empirical_bayes import EmpiricalBayes

from benchsuite import Readout, measure
from benchsuite.api import Report
from benchsuite.discovery import Catalog
from benchsuite.protocols.settings import ForkSettings, SweepSettings, UTurnSettings
from benchsuite.request import Settings

SETTINGS = Settings(
    probe_items=64,
    bootstrap=50,
    batch=2048,
    sweep=SweepSettings(low=-9.0, high=6.0, nodes=31),
    u_turn=UTurnSettings(low=-6.0, high=4.0, every=2.0, steps_per_level=2, end=6.0, draws=1),
    fork=ForkSettings(low=-6.0, high=4.0, every=2.0, steps_per_level=2, end=6.0, k=4, items=16),
)
METRICS = ("mutual-information", "fork-entropy", "class-retention")


class Small(Shapes):
    """Two values of every factor: 128 images, and a control."""

    def __init__(self) -> None:
        super().__init__(16, floor=2, wall=2, object=2, scale=2, shape=2, orientation=2, texture=2, dummy_factor=2)

    def readout(self) -> Readout:
        return Nearest(self)


class Nearest(Readout):
    """Every image has the labels of the nearest one of the population."""

    name = "nearest"

    def __init__(self, data: Small) -> None:
        self.factors = data.factors[:-1]
        self.accuracy = {factor.name: 1.0 for factor in self.factors}
        train = data.split("train")
        self.images, self.labels = train.images.flatten(1), train.labels

    def to(self, device: str) -> Readout:
        return self

    def fingerprint(self) -> str:
        return "nearest"

    def probabilities(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        found = self.labels[torch.cdist(images.flatten(1), self.images).argmin(dim=1)]
        return {
            factor.name: torch.nn.functional.one_hot(found[:, i], factor.size).float()
            for i, factor in enumerate(self.factors)
        }


class PlainSums(EmpiricalBayes):
    """The same posterior by NumPy: every item of the population, no copies found, no span, no blocks."""

    def weights(self, x: torch.Tensor, sigma: torch.Tensor) -> np.ndarray:
        points = self.population.flatten(1).numpy().astype(np.float64)
        # ‖x‖² is common to a row
        near = x.flatten(1).numpy().astype(np.float64) @ points.T - (points**2).sum(axis=1) / 2
        logs = near / sigma.numpy().astype(np.float64)[:, None] ** 2
        raised = np.exp(logs - logs.max(axis=1, keepdims=True))
        normalised: np.ndarray = raised / raised.sum(axis=1, keepdims=True)
        return normalised

    def denoise(self, x: torch.Tensor, sigma: torch.Tensor, labels: torch.Tensor | None = None) -> torch.Tensor:
        weights = self.weights(x, sigma)
        if labels is not None:
            known = self.population_labels.numpy()[None]
            asked = labels.numpy()[:, None]
            weights = weights * ((asked < 0) | (asked == known)).all(axis=-1)
            weights = weights / weights.sum(axis=1, keepdims=True)
        mean = weights @ self.population.flatten(1).numpy().astype(np.float64)
        return torch.from_numpy(mean).to(x.dtype).view(x.shape)

    def posterior(self, x: torch.Tensor, sigma: torch.Tensor) -> dict[str, torch.Tensor]:
        weights, labels = self.weights(x, sigma), self.population_labels.numpy()
        return {
            factor.name: torch.from_numpy(
                np.stack([weights[:, labels[:, i] == k].sum(axis=1) for k in range(factor.size)], axis=1)
            ).to(x.dtype)
            for i, factor in enumerate(self.factors)
        }

    def head_spread(self, x: torch.Tensor, sigma: torch.Tensor) -> dict[str, torch.Tensor]:
        """Σ_k p_k ‖D_k - D‖² per factor, head by head."""
        weights, labels = self.weights(x, sigma), self.population_labels.numpy()
        points = self.population.flatten(1).numpy().astype(np.float64)
        plain = weights @ points
        found = {}
        for i, factor in enumerate(self.factors):
            total = np.zeros(len(x))
            for k in range(factor.size):
                told = weights * (labels[:, i] == k)
                p = told.sum(axis=1)
                head = told @ points / np.maximum(p, 1e-300)[:, None]
                total += p * ((head - plain) ** 2).sum(axis=1)
            found[factor.name] = torch.from_numpy(total)
        return found


def report(model: EmpiricalBayes, catalog: Catalog) -> Report:
    return measure(model, Small(), METRICS, n=48, settings=SETTINGS, catalog=catalog)


@pytest.fixture(scope="module")
def both(first_party: Catalog) -> tuple[Report, Report]:
    return report(EmpiricalBayes(), first_party), report(PlainSums(), first_party)


FACTORS = ("floor", "wall", "object", "scale", "shape", "orientation", "texture", "dummy")


@pytest.mark.parametrize(
    ("metric", "factor"),  # nothing judges the control
    [(m, f) for m in METRICS for f in FACTORS if f != "dummy" or m == "mutual-information"],
)
def test_curves_equal_those_of_plain_sums(both: tuple[Report, Report], metric: str, factor: str) -> None:
    """Under the same noise, to a thousandth of a nat (or of a probability)."""
    ours, plain = (each.curve(metric, factor) for each in both)
    np.testing.assert_allclose(ours.value, plain.value, atol=1e-3)


@pytest.mark.parametrize("factor", FACTORS[:-1])
def test_curves_are_what_the_posterior_says(both: tuple[Report, Report], factor: str) -> None:
    """H - I = forks = E H(p) and retention = E sum p², p = p(factor | x) under noise drawn here.

    Within three standard errors of both + 0.003.
    """
    model = PlainSums()
    model.bind(data := loaded())
    model.load()
    rng = np.random.default_rng(5)
    images = data.split("train").images[:128].flatten(1)
    information, forks, retention = (both[0].curve(metric, factor) for metric in METRICS)
    for log_snr in (-6.0, -4.0, -2.0, 0.0, 2.0, 4.0):
        sigma = math.exp(-log_snr / 2)
        x = images.repeat(8, 1) + sigma * torch.from_numpy(rng.standard_normal((1024, images.shape[1]))).float()
        p = model.posterior(x.view(-1, 3, 16, 16), torch.full((1024,), sigma))[factor].double()
        opened, agreed = -(p * p.clamp_min(1e-30).log()).sum(dim=1), p.square().sum(dim=1)
        for curve, expected, scale, offset in (
            (information, opened, -1, math.log(2)),
            (forks, opened, 1, 0.0),
            (retention, agreed, 1, 0.0),
        ):
            at = int(np.abs(curve.log_snr - log_snr).argmin())
            assert curve.log_snr[at] == pytest.approx(log_snr)
            error = math.hypot((curve.high[at] - curve.low[at]) / 3.92, expected.std().item() / 128**0.5)
            assert abs(curve.value[at] - (offset + scale * expected.mean().item())) < 3 * error + 0.003


def test_all_factors_together_are_what_the_posterior_over_images_says(both: tuple[Report, Report]) -> None:
    """Every image has labels of its own: joint I = ln N - E H(p(image | x)), and ends a control short of H."""
    model = PlainSums()
    model.bind(data := loaded())
    model.load()
    curve = both[0].curve("mutual-information", "joint")
    rng = np.random.default_rng(6)
    images = data.split("train").images[:128].repeat(8, 1, 1, 1)
    for log_snr in (-4.0, -2.0, 0.0, 2.0, 4.0):
        sigma = math.exp(-log_snr / 2)
        x = images + sigma * torch.from_numpy(rng.standard_normal(images.shape)).float()
        weights = model.weights(x, torch.full((len(x),), sigma))
        known = math.log(weights.shape[1]) + (weights * np.log(np.maximum(weights, 1e-300))).sum(axis=1)
        at = int(np.abs(curve.log_snr - log_snr).argmin())
        error = math.hypot((curve.high[at] - curve.low[at]) / 3.92, known.std() / 128**0.5)
        assert abs(curve.value[at] - known.mean()) < 3 * error + 0.003
    assert curve.value[-1] == pytest.approx(math.log(128), abs=1e-3)


def test_order_and_control(both: tuple[Report, Report]) -> None:
    """Hues of large areas first, the grain last, and nothing is ever known of the control."""
    curves = {factor: both[0].curve("mutual-information", factor) for factor in FACTORS}
    assert np.abs(curves["dummy"].value).max() < 1e-6
    onsets = {factor: curves[factor].log_snr_50 for factor in FACTORS[:-1]}
    assert min(onsets, key=lambda f: onsets[f] or 0.0) == "floor"
    assert max(onsets, key=lambda f: onsets[f] or 0.0) == "texture"
    for factor in FACTORS[:-1]:
        curve = curves[factor]
        assert (curve.value <= math.log(2) + 3 * (curve.high - curve.low) / 3.92 + 1e-3).all()


def loaded() -> Small:
    data = Small()
    data.load()
    return data
