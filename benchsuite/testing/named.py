"""`benchsuite check NAME`: find what a spec names and run the checks of its kind."""

from __future__ import annotations

from functools import partial

from benchsuite import specs
from benchsuite.contracts import Dataset
from benchsuite.discovery import Catalog
from benchsuite.errors import unknown
from benchsuite.samplers import ORDER, STOCHASTIC, reverse
from benchsuite.suite_files import DEFAULT_SUITE, load_suite
from benchsuite.testing.datasets import check_dataset
from benchsuite.testing.metrics import check_metric
from benchsuite.testing.models import check_model
from benchsuite.testing.results import CheckResult
from benchsuite.testing.samplers import check_sampler


def check_named(spec: str, catalog: Catalog, dataset: str | None = None, device: str = "cpu") -> list[CheckResult]:
    """Check the model, metric, data set or sampling method that `spec` names; all of them, if several do.

    Args:
        dataset: spec of the data set that a model is bound to; by default that of the default suite, unless the
            model is its own data.
        device: where a model is loaded.

    Raises:
        UsageError: nothing has that name, or an option is wrong.
    """
    name, rest = specs.split_spec(spec)
    results: list[CheckResult] = []
    if cls := catalog.models.get(name):
        options = specs.parse_options(cls, "model", name, rest)
        if dataset is None and not cls.own_data:
            dataset = load_suite(DEFAULT_SUITE).datasets[0]
        data = None if dataset is None else _dataset(dataset, catalog)
        results += check_model(specs.build(cls, "model", spec), data, options=options, device=device)
    if kind := catalog.metrics.get(name):
        options = specs.parse_options(kind, "metric", name, rest)
        results += check_metric(specs.build(kind, "metric", spec), options=options)
    if found := catalog.datasets.get(name):
        options = specs.parse_options(found, "data set", name, rest)
        results += check_dataset(specs.build(found, "data set", spec), options=options)
    if name in ORDER and not rest:
        sampler = partial(reverse, method=name)
        results += check_sampler(sampler, order=ORDER[name], stochastic=name in STOCHASTIC, name=name)
    if not results:
        raise unknown("name", name, [*catalog.models, *catalog.metrics, *catalog.datasets, *ORDER])
    return results


def _dataset(spec: str, catalog: Catalog) -> Dataset:
    built: Dataset = specs.build(catalog.get("datasets", specs.split_spec(spec)[0]), "data set", spec)
    built.load()
    return built
