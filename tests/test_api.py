"""The Python surface: what `measure` accepts, returns and refuses; the numbers behind it are tested elsewhere."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from benchsuite_models.exact_mixture import ExactMixture
from toys import SMALL, ToyData, ToyModel, catalog_of

import benchsuite
from benchsuite import UsageError, api, provenance
from benchsuite.api import Report, measure, resolve_device
from benchsuite.discovery import Catalog
from benchsuite.results import parse_results

MEANS = [[1.0, 0.0], [-1.0, 0.0], [0.0, 1.5]]


@pytest.fixture(scope="module")
def report(first_party: Catalog) -> Report:
    model = ExactMixture(MEANS, covariances=0.1, factors={"a": [0, 1, 1], "b": [0, 0, 1]})
    metrics = ("mutual-information", "class-retention")
    return measure(model, metrics=metrics, n=40, settings=SMALL, device="cpu", catalog=first_party)


def test_it_is_the_public_name() -> None:
    assert benchsuite.measure is measure
    assert benchsuite.Report is Report
    with pytest.raises(AttributeError, match="has no attribute 'measurement'"):
        benchsuite.measurement  # noqa: B018


def test_the_revision_is_that_of_the_start(first_party: Catalog, monkeypatch: pytest.MonkeyPatch) -> None:
    """A commit made while a run is under way is not what ran."""
    revision, run = ["before"], api.run

    def committing(*arguments: Any) -> Any:
        revision[0] = "after"
        return run(*arguments)

    monkeypatch.setattr(provenance, "git_revision", lambda folder: {"revision": revision[0], "dirty": False})
    monkeypatch.setattr(api, "run", committing)
    made = measure(
        ExactMixture(MEANS), metrics=["class-retention"], n=4, settings=SMALL, device="cpu", catalog=first_party
    )
    assert revision == ["after"]
    assert made.document["provenance"]["git"]["revision"] == "before"


def test_the_report_holds_what_the_command_line_writes(report: Report) -> None:
    parsed = parse_results(json.loads(json.dumps(report.document, allow_nan=False)))
    assert len(parsed.rows) == len(report.rows)
    cells = [(row["metric"], row["factor"]) for row in report.rows]
    assert cells == [
        ("mutual-information", "a"),
        ("mutual-information", "b"),
        ("mutual-information", "joint"),
        ("class-retention", "a"),
        ("class-retention", "b"),
    ]
    for row in report.rows:
        assert (row["status"], row["n_items"], row["oracle"], row["dataset"]) == ("ok", 40, True, "own data")
        assert row["unit"] in ("nats", "probability")
        assert row["model_fingerprint"]
        assert row["dataset_fingerprint"]
        assert row["forward_passes"] > 0
    facts = report.document["provenance"]
    assert facts["seed"] == 0
    assert facts["device"].startswith("cpu")
    assert facts["versions"]["torch"] == torch.__version__
    assert report.document["settings"]["items"] == 40
    assert report.document["settings"]["sweep"]["nodes"] == SMALL.sweep.nodes


def test_curves(report: Report) -> None:
    curve = report.curve("mutual-information", factor="a")
    np.testing.assert_allclose(curve.log_snr, np.linspace(-4, 4, 9))
    assert curve.value.shape == curve.low.shape == curve.high.shape == (9,)
    assert (curve.low <= curve.value).all()
    assert (curve.value <= curve.high).all()
    assert curve.unit == "nats"
    assert curve.ceiling == pytest.approx(-np.log(2 / 3) * 2 / 3 - np.log(1 / 3) / 3)
    assert curve.log_snr_50 is not None
    row = report.rows[0]
    assert curve.value.tolist() == row["curves"][0]["value"]
    assert curve.log_snr_50 == row["scalars"]["log_snr_50"]["value"]
    assert report.curve("mutual-information", "a", variant="plug-in").log_snr_50 is None


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("class-retension", "a"), "no curve 'class-retension' for factor 'a'; measured: "),
        (("class-retention", "c"), "no curve 'class-retention' for factor 'c'"),
        (("class-retention",), "'class-retention' has several curves; name factor and split"),
        (("class-retention", "a", "worst"), r"has no variant 'worst'; it has \['', 'one-shot'\]"),
        (("class-retention", "a", "", "train"), "no curve"),
    ],
)
def test_curves_that_are_not_there(report: Report, arguments: tuple[Any, ...], message: str) -> None:
    with pytest.raises(KeyError, match=message):
        report.curve(*arguments)


def test_a_failed_cell_says_why(first_party: Catalog) -> None:
    class Broken(ToyModel):
        def denoise(self, x: Any, sigma: Any, labels: Any = None) -> torch.Tensor:
            raise RuntimeError("no luck")

    found = measure(
        Broken(), ToyData(), ("mutual-information",), n=6, settings=SMALL, device="cpu", catalog=first_party
    )
    with pytest.raises(KeyError, match="'mutual-information' is failed: RuntimeError: no luck"):
        found.curve("mutual-information")


def test_objects_and_specs_give_the_same(first_party: Catalog) -> None:
    def values(model: Any, metric: Any) -> list[float]:
        found = measure(model, metrics=[metric], n=10, settings=SMALL, device="cpu", catalog=first_party)
        return list(found.rows[0]["curves"][0]["value"])

    spec = "exact-mixture:preset=two-gaussians,dim=2,distance=2.0,std=0.25"
    model = ExactMixture(preset="two-gaussians", dim=2, distance=2.0, std=0.25)
    metric = first_party.metrics["mutual-information"]()
    assert values(spec, "mutual-information") == values(model, metric)


def test_an_ordinary_model_on_data_by_object_and_by_spec(first_party: Catalog) -> None:
    catalog = catalog_of(ToyModel, ToyData)
    catalog.metrics = first_party.metrics
    model: Any
    data: Any
    found = []
    for model, data in ((ToyModel(seed=3), ToyData(shift=0.1)), ("toy:seed=3", "toy-data:shift=0.1")):
        (row,) = measure(model, data, ["class-retention"], n=5, settings=SMALL, device="cpu", catalog=catalog).rows
        assert (row["status"], row["n_items"], row["split"], row["oracle"]) == ("ok", 5, "test", False)
        found.append(row["curves"])
    assert found[0] == found[1]


@pytest.mark.parametrize(
    ("grid", "levels"),
    [
        ((-3, 3, 7), np.linspace(-3, 3, 7)),
        ((-8, 8, 24), np.linspace(-8, 8, 24)),  # equidistant by accident, still low, high, nodes
        (np.linspace(-2, 2, 5), np.linspace(-2, 2, 5)),
        ([2, 0, -2, -4], np.linspace(-4, 2, 4)),
    ],
)
def test_grids(first_party: Catalog, grid: Any, levels: np.ndarray) -> None:
    found = measure(
        ExactMixture(MEANS),
        metrics=["mutual-information"],
        grid=grid,
        n=4,
        settings=SMALL,
        device="cpu",
        catalog=first_party,
    )
    np.testing.assert_allclose(found.curve("mutual-information").log_snr, levels, atol=1e-9)


@pytest.mark.parametrize("grid", [(-3, 3), (-3, 3, 7.5), (0, 1, 2, 4), (0, 0, 0, 0), (3, -3, 7), (-3, 3, 1)])
def test_impossible_grids(first_party: Catalog, grid: Iterable[float]) -> None:
    with pytest.raises(UsageError):
        measure(ExactMixture(MEANS), grid=tuple(grid), device="cpu", catalog=first_party)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"model": "exact-mixtur"}, "unknown model 'exact-mixtur'; did you mean exact-mixture"),
        ({"model": "exact-mixture", "metrics": ["mutual"]}, "unknown metric 'mutual'"),
        ({"model": "exact-mixture", "dataset": "digit"}, "unknown data set 'digit'"),
        ({"model": ToyModel()}, "model 'toy' is not its own data set; give `dataset`"),
        ({"model": "exact-mixture", "n": 1}, "items must be at least 2, got 1"),
        ({"model": "exact-mixture", "device": "gpu"}, "unknown device 'gpu'"),
    ],
)
def test_what_is_refused(first_party: Catalog, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        measure(**({"device": "cpu", "catalog": first_party, "metrics": ["mutual-information"]} | arguments))


def test_devices() -> None:
    assert resolve_device("cpu") == "cpu"
    assert resolve_device("auto") in ("cpu", "cuda")
    for name in ("gpu", "cuda:x", "meta", "mps"):
        with pytest.raises(UsageError, match=f"unknown device '{name}'; use auto, cpu, cuda or cuda:N"):
            resolve_device(name)
    with pytest.raises(
        UsageError, match=r"device 'cuda:97' is not there: \d+ CUDA devices found; use --device cpu"
    ):
        resolve_device("cuda:97")


def test_a_store_is_shared_between_calls(first_party: Catalog, tmp_path: Path) -> None:
    def ask(n: int = 5, **changes: Any) -> tuple[list[Any], int]:
        model, settings = ToyModel(), replace(SMALL, **changes)
        found = measure(
            model,
            ToyData(),
            ["class-retention"],
            n=n,
            settings=settings,
            device="cpu",
            store=tmp_path / "store",
            catalog=first_party,
        )
        return found.rows, model.rows

    first, made = ask()
    assert made > 0
    assert ask() == (first, 0)
    assert ask(bootstrap=7)[1] == 0
    assert ask(n=6)[1] > made


def test_seeds_change_the_draws(first_party: Catalog) -> None:
    def value(seed: int) -> list[float]:
        found = measure(
            ExactMixture(MEANS),
            metrics=["mutual-information"],
            n=8,
            seed=seed,
            settings=SMALL,
            device="cpu",
            catalog=first_party,
        )
        assert found.document["provenance"]["seed"] == seed
        return found.curve("mutual-information").value.tolist()

    assert value(1) == value(1)
    assert value(1) != value(2)
