"""The suite of paper C, and its cells for which the user brings MNIST."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from idx_files import NAMES, write_idx

from benchsuite.discovery import Catalog
from benchsuite.plan import Plan, make_plan
from benchsuite.runner import Outcome, run
from benchsuite.suite_files import load_suite

MODES = ("two-modes", "three-modes", "four-modes", "five-modes", "nine-modes", "planar-13")
DATASETS = ("mnist", "mnist:only=8")
SMALL = {"items": 8, "oracle_items": 8, "bootstrap": 20}


def test_the_suite_holds_what_the_paper_shows(first_party: Catalog) -> None:
    plan = make_plan(load_suite("ridge-manifold"), first_party)
    models: dict[str, set[str]] = {}
    for unit in plan.units:
        models.setdefault(unit.dataset, set()).add(unit.label)
        assert unit.metrics == ("ridge-geometry",)
        assert unit.optional == unit.dataset.startswith("mnist")  # all else is rendered, shipped or a package
    for name in (*MODES, "circle", "sphere"):
        planted = {m for m in models[f"points:{name}"] if m.startswith("planted-error")}
        assert len(planted) == 2
        assert "empirical-bayes" in models[f"points:{name}"]
    for name in (*MODES, "circle"):
        taus = {m for m in models[f"points:{name}"] if m.startswith("random-features")}
        assert taus == {f"random-features:tau={tau}" for tau in ("100", "1000", "10000", "inf")}
    assert {"ddpm:step=100", "ddpm:step=400", "ddpm:step=1600", "ddpm"} <= models["few-digits"]
    for name in ("digits", "fashion-mnist", "mnist"):
        assert "latent-diffusion" in models[name]
    for name in ("fashion-mnist", "mnist"):
        assert sum(data.startswith(f"{name}:only=") for data in models) == 10


def mnist_plan(catalog: Catalog) -> Plan:
    """Two of the suite's own cells of MNIST, with few paths of few steps."""
    suite = load_suite("ridge-manifold").with_settings(SMALL, "test")
    trajectory = {"low": -6.0, "high": 4.0, "every": 2.0, "steps_per_level": 1, "end": 5.0, "paths": 12}
    suite = suite.with_settings({"trajectory": trajectory}, "test")
    (group,) = (group for group in suite.cells if group.optional)
    assert set(DATASETS) < set(group.datasets)
    return make_plan(replace(suite, cells=(replace(group, datasets=DATASETS),)), catalog)


def outcomes(plan: Plan) -> list[Outcome]:
    found = run(plan, None, "cpu")
    assert {outcome.dataset for outcome in found} == set(DATASETS)
    return found


def test_mnist_from_idx_files_in_the_latents_of_its_autoencoder(
    first_party: Catalog, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Digits of scikit-learn at three times their size stand in for those of MNIST."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    images = np.zeros((len(digits.images), 28, 28), dtype=np.uint8)
    images[:, 2:26, 2:26] = np.kron(digits.images * 15.9, np.ones((3, 3))).astype(np.uint8)
    place = tmp_path / "mnist"
    place.mkdir()
    for part, chosen in (("train", slice(0, 400)), ("t10k", slice(400, 500))):
        write_idx(place / f"{NAMES[part, 'images']}.gz", images[chosen])
        write_idx(place / NAMES[part, "labels"], digits.target[chosen])
    monkeypatch.setenv("BENCHSUITE_DATA", str(tmp_path))
    plan = mnist_plan(first_party)
    for outcome in outcomes(plan):
        assert not outcome.faults, outcome.faults
        (curves,) = outcome.curves.values()
        published = next(curve for curve in curves if curve.variant == "")
        # at high noise samples are as far from the ridge as noise is
        assert published.per_item[:, 0].mean() == pytest.approx(1.0, abs=0.05)


def test_without_the_files_the_cells_say_so_and_nothing_fails(
    first_party: Catalog, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("BENCHSUITE_DATA", str(tmp_path))
    for outcome in outcomes(mnist_plan(first_party)):
        (fault,) = outcome.faults.values()
        assert (fault.status, fault.stage) == ("not_applicable", "data")
        assert "train-images-idx3-ubyte.gz" in fault.reason
        assert str(tmp_path / "mnist") in fault.reason
