"""Every planted bug is caught by the check that names it, and by no check that it should not trouble.

The correct counterpart of each passes everything, so that what fails is the mistake and nothing else.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import pytest
from planted import Bug, datasets, exact, learned, samplers
from planted.datasets import DATASET_BUGS
from planted.exact import EXACT_BUGS
from planted.healthy_metrics import HEALTHY_METRICS
from planted.learned import LEARNED_BUGS
from planted.metrics import METRIC_BUGS
from planted.samplers import SAMPLER_BUGS

from benchsuite import Metric
from benchsuite.samplers import ancestral_step
from benchsuite.testing import (
    DATASET_CHECKS,
    METRIC_CHECKS,
    MODEL_CHECKS,
    SAMPLER_CHECKS,
    assert_passed,
    check_dataset,
    check_metric,
    check_model,
    check_sampler,
)


@pytest.mark.parametrize("name", EXACT_BUGS)
def test_exact_models(name: str) -> None:
    bug = EXACT_BUGS[name]
    assert bug.noticed_by(check_model(bug.build())) == bug.expected


@pytest.mark.parametrize("name", LEARNED_BUGS)
def test_adapters(name: str) -> None:
    bug = LEARNED_BUGS[name]
    assert bug.noticed_by(check_model(bug.build(), learned.drawn())) == bug.expected


@pytest.mark.parametrize("name", METRIC_BUGS)
def test_metrics(name: str) -> None:
    bug = METRIC_BUGS[name]
    # the small calibration is the one check that takes long: it runs where it must say something
    only = [check for check in METRIC_CHECKS if check != "calibrated" or check in bug.expected]
    assert bug.noticed_by(check_metric(bug.build(), only=only)) == bug.expected


@pytest.mark.parametrize("name", SAMPLER_BUGS)
def test_samplers(name: str) -> None:
    bug, order = SAMPLER_BUGS[name]
    assert bug.noticed_by(check_sampler(bug.build(), order=order)) == bug.expected


@pytest.mark.parametrize("name", DATASET_BUGS)
def test_datasets(name: str) -> None:
    bug = DATASET_BUGS[name]
    assert bug.noticed_by(check_dataset(bug.build())) == bug.expected


def test_correct_counterparts_pass() -> None:
    assert_passed(check_model(exact.Healthy()))
    assert_passed(check_model(learned.Healthy(), learned.drawn()))
    assert_passed(check_sampler(samplers.loop(ancestral_step), order=1))
    assert_passed(check_dataset(datasets.Healthy()))


@pytest.mark.parametrize("metric", HEALTHY_METRICS)
def test_correct_metrics_pass(metric: type[Metric]) -> None:
    assert_passed(check_metric(metric()))


@pytest.mark.parametrize(
    ("checks", "bugs"),
    [
        (MODEL_CHECKS, [*EXACT_BUGS.values(), *LEARNED_BUGS.values()]),
        (METRIC_CHECKS, METRIC_BUGS.values()),
        (SAMPLER_CHECKS, [bug for bug, _ in SAMPLER_BUGS.values()]),
        (DATASET_CHECKS, DATASET_BUGS.values()),
    ],
    ids=["models", "metrics", "samplers", "datasets"],
)
def test_every_check_is_seen_to_fail(checks: Mapping[str, str], bugs: Iterable[Bug]) -> None:
    """A check that no mistake can fail would only look like a safeguard."""
    assert set(checks) == {bug.caught_by for bug in bugs}
