"""The filter along generated paths: its arithmetic, and that it converges to the exact posterior."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from benchsuite_metrics.path_filter import PathFilter
from benchsuite_models.exact_mixture import ExactMixture
from numpy.typing import NDArray

from benchsuite import Curve, NotApplicableError, Record, Trajectory
from benchsuite.protocols.common import Items, Meter
from benchsuite.protocols.settings import TrajectorySettings
from benchsuite.protocols.trajectory import trajectory

Array = NDArray[np.float64]


def by_variant(record: Record) -> dict[str, Curve]:
    return {curve.variant: curve for curve in PathFilter().compute({"trajectory": record})}


def test_arithmetic() -> None:
    pi = np.array([[[0.5, 0.5], [0.9, 0.1]], [[0.5, 0.5], [0.0, 1.0]]], dtype=np.float32)
    arrays = {
        "log_snr": np.array([-3.0, 3.0]),
        "items": np.array(["path/1", "path/2"]),
        "filter/class": pi,
        "verdict/class": np.array([[1.0, 0.0], [0.25, 0.75]], dtype=np.float32),
        "posterior/class": np.array([[[0.5, 0.5], [0.7, 0.3]], [[0.4, 0.6], [0.0, 1.0]]], dtype=np.float32),
    }
    for array in arrays.values():
        array.flags.writeable = False
    meta = {"entropy": {"class": np.log(2)}, "method": "ancestral", "steps": 8, "spacing": 0.125}
    found = by_variant(Record("trajectory", arrays, meta))
    assert found.keys() == {"", "expected accuracy", "verdict", "total variation"}
    spread = -(0.9 * np.log(0.9) + 0.1 * np.log(0.1))
    np.testing.assert_allclose(found[""].per_item, [[0, np.log(2) - spread], [0, np.log(2)]], atol=1e-6)
    np.testing.assert_allclose(found["expected accuracy"].per_item, [[0.5, 0.9], [0.5, 1.0]], atol=1e-6)
    assert found["expected accuracy"].floor == 0.5
    score = [[0, np.log(1.8)], [0, np.log(2) + 0.25 * np.log(1e-12)]]
    np.testing.assert_allclose(found["verdict"].per_item, score, atol=1e-5)
    np.testing.assert_allclose(found["total variation"].per_item, [[0, 0.2], [0.1, 0]], atol=1e-6)
    assert found[""].ceiling == pytest.approx(np.log(2))


def test_a_model_without_heads() -> None:
    record = Record("trajectory", {"log_snr": np.zeros(2), "items": np.array(["p"])}, {})
    with pytest.raises(NotApplicableError, match="no conditional head"):
        PathFilter().compute({"trajectory": record})


def test_truth_is_the_information() -> None:
    posterior = np.array([[1.0, 0.0], [0.5, 0.5]])
    assert PathFilter().truth(posterior, np.array([0.5, 0.5])) == pytest.approx(np.log(2) / 2)


def paths(model: ExactMixture, steps: int, count: int) -> Record:
    settings = TrajectorySettings(low=-7.0, high=5.0, end=5.0, every=1.0, steps_per_level=steps, paths=count)
    x, labels = model.sample(4000, torch.Generator().manual_seed(0))
    items = Items(x, labels, tuple(f"i{n}" for n in range(len(x))), model.factors)
    priors = {name: p.double().numpy() for name, p in model.prior().items()}
    with torch.no_grad():
        record = trajectory(
            model,
            items,
            items,
            None,
            priors,
            Trajectory(conditional=True),
            settings,
            seed=0,
            dataset="d",
            batch=4096,
            meter=Meter(),
        )
    record.meta["entropy"] = {name: float(-(p * np.log(p)).sum()) for name, p in priors.items()}
    return record


def test_it_converges_to_the_exact_posterior_on_generated_paths() -> None:
    """Ten classes in 16 dimensions: half the step, half the distance; H - E[H] becomes that of the posterior."""
    means = torch.randn(10, 16, generator=torch.Generator().manual_seed(1))
    model = ExactMixture(means.tolist(), covariances=0.05)
    model.load()
    apart = []
    for steps in (4, 8, 16):
        record = paths(model, steps, 250)
        found = by_variant(record)
        apart.append(found["total variation"].per_item.mean(axis=0).max())
    assert 1.4 < apart[0] / apart[1] < 2.8
    assert 1.4 < apart[1] / apart[2] < 2.8
    assert apart[2] < 0.02
    p = record["posterior/class"].astype(np.float64)
    exact = np.log(10) + (p * np.log(np.maximum(p, 1e-30))).sum(axis=2)
    # path by path, not only on average
    gap = found[""].per_item - exact
    assert np.abs(gap.mean(axis=0)).max() < 0.01
    np.testing.assert_allclose(found[""].per_item[:, -1], np.log(10), atol=0.01)
