"""Everything that ships passes the checks that plugin authors are offered."""

from __future__ import annotations

import importlib
from functools import partial
from pathlib import Path

import pytest
from benchsuite_models.diffusers_model import REFERENCE

from benchsuite import Dataset, specs
from benchsuite.calibration import cases
from benchsuite.discovery import Catalog
from benchsuite.protocols.settings import METHODS
from benchsuite.samplers import ORDER, STOCHASTIC, reverse
from benchsuite.testing import (
    ReferenceMixture,
    assert_passed,
    check_dataset,
    check_metric,
    check_model,
    check_sampler,
)

EXACT = (
    "exact-gaussian",
    "exact-mixture:preset=two-gaussians,dim=8",
    "exact-mixture:preset=simplex,classes=10,dim=16",
    "exact-mixture:preset=hierarchy,dummy=3",
    "exact-mixture:preset=flat",
    "exact-rhm",
)
SHIPPED = sorted(path.name for path in REFERENCE.glob("digits/*") if path.is_dir())


@pytest.fixture(scope="module")
def digits(first_party: Catalog) -> Dataset:
    dataset = first_party.datasets["digits"]()
    dataset.load()
    return dataset


@pytest.mark.parametrize("spec", EXACT)
def test_exact_models(first_party: Catalog, spec: str) -> None:
    name, rest = specs.split_spec(spec)
    cls = first_party.models[name]
    options = specs.parse_options(cls, "model", name, rest)
    assert_passed(check_model(cls(**options), options=options))


def test_the_exact_models_are_those_that_metrics_are_calibrated_on(first_party: Catalog) -> None:
    checked = {specs.split_spec(spec)[0] for spec in EXACT}
    assert {specs.split_spec(case)[0] for case in cases(first_party)} <= checked
    assert {name for name, cls in first_party.models.items() if cls.own_data} <= checked


def test_the_ideal_denoiser_of_the_digits(first_party: Catalog, digits: Dataset) -> None:
    assert_passed(check_model(first_party.models["empirical-bayes"](), digits))


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_checkpoints(first_party: Catalog, digits: Dataset, name: str) -> None:
    assert_passed(check_model(first_party.models[name](), digits))


def test_the_case_that_metrics_are_checked_on() -> None:
    assert_passed(check_model(ReferenceMixture()))


METRICS = (
    "mutual-information",
    "class-retention",
    "linear-probe",
    "fork-entropy",
    "susceptibility",
    "feature-similarity",
    "level-retention",
    "channel-susceptibility",
    "ridge-geometry",
    "denoising-loss",
    "sample-validity",
    "path-filter",
)


@pytest.mark.parametrize("name", METRICS)
def test_metrics(first_party: Catalog, name: str) -> None:
    assert_passed(check_metric(first_party.metrics[name]()))


def test_no_metric_is_left_out(first_party: Catalog) -> None:
    assert set(first_party.metrics) == set(METRICS)


def test_the_digits(first_party: Catalog) -> None:
    assert_passed(check_dataset(first_party.datasets["digits"]()))
    options = {"dummy_factor": 3}
    assert_passed(check_dataset(first_party.datasets["digits"](**options), options=options))  # type: ignore[call-arg]


def test_a_third_partys_model_and_metric(digits: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the example distribution, which knows of the kit no more than its authors read in the contracts."""
    monkeypatch.syspath_prepend(Path(__file__).parent / "third_party" / "benchsuite-example")
    example = importlib.import_module("benchsuite_example")
    assert_passed(check_model(example.Wiener(), digits))
    assert_passed(check_metric(example.LabelGain()))


@pytest.mark.parametrize("method", METHODS)
def test_samplers(method: str) -> None:
    sampler = partial(reverse, method=method)
    assert_passed(check_sampler(sampler, order=ORDER[method], stochastic=method in STOCHASTIC, name=method))
