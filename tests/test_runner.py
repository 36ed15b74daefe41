"""The runner: every planned cell becomes one row, whatever happens to it, and the others finish."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from toy_runs import ROUTES, document, plan_of, raising, ranged, rows_of
from toys import CLASS, Missing, ToyData, ToyModel, Unconditional, mislabelled

from benchsuite import (
    Curve,
    Metric,
    ModelLoadError,
    NoiseSweep,
    NotApplicableError,
    Readout,
    Record,
)
from benchsuite.store import Store

# ------------------------------------------------------------------------------- one row per cell


def test_every_cell_is_one_row() -> None:
    found = document(plan_of(ToyModel, Unconditional))
    cells = [(row["label"], row["metric"], row["factor"], row["status"]) for row in found["rows"]]
    assert cells == [
        ("toy", "mutual-information", "class", "ok"),
        ("toy", "class-retention", "class", "ok"),
        ("toy", "tap-mean", "class", "ok"),
        ("toy-unconditional", "mutual-information", "class", "not_applicable"),
        ("toy-unconditional", "class-retention", "class", "ok"),
        ("toy-unconditional", "tap-mean", "class", "ok"),
    ]
    assert len({row["cell_id"] for row in found["rows"]}) == 6
    for row in found["rows"]:
        assert (row["dataset"], row["split"], row["n_items"]) == ("toy-data", "test", 6)
        assert row["entropy"] == pytest.approx(np.log(2))
        assert row["readout_accuracy"] == {"class": 1.0}


def starved(batch: int) -> Callable[..., torch.Tensor]:
    """A `denoise` that runs out of memory on more than `batch` rows."""

    def denoise(
        self: ToyModel, x: torch.Tensor, sigma: torch.Tensor, labels: torch.Tensor | None = None
    ) -> torch.Tensor:
        if len(x) > batch:
            raise torch.OutOfMemoryError(f"no room for {len(x)} rows")
        return ToyModel.denoise(self, x, sigma, labels)

    return denoise


def shaped(*shape: int) -> Callable[..., None]:
    def build(self: ToyModel) -> None:
        ToyModel.__init__(self)
        self.shape = shape

    return build


def tapped(self: ToyModel) -> None:
    ToyModel.__init__(self)
    self.taps = ("down", "up.3")


def nan_weights(self: ToyModel, device: str = "cpu", dtype: str = "float32") -> None:
    ToyModel.load(self, device, dtype)
    assert self.network is not None
    with torch.no_grad():
        next(self.network.parameters()).fill_(float("nan"))


def missing(name: str) -> ModuleNotFoundError:
    return ModuleNotFoundError(f"No module named {name!r}", name=name)


#: what is replaced in a healthy toy, and the rows' (status, stage, words of the reason)
BROKEN_MODELS: dict[str, tuple[dict[str, Any], tuple[str, str, str]]] = {
    "constructor": ({"__init__": raising(ValueError("no such size"))}, ("failed", "model", "no such size")),
    "bind": (
        {"bind": raising(NotApplicableError("not for digits"))},
        ("not_applicable", "model", "not for digits"),
    ),
    "load": (
        {"load": raising(ModelLoadError("weights.safetensors: 3 keys missing"))},
        ("failed", "model", "weights.safe"),
    ),
    "exit": ({"load": raising(SystemExit("bye"))}, ("failed", "model", "SystemExit: bye")),
    "import": (
        {"load": raising(missing("xformers.ops"))},
        ("not_installed", "model", "try: pip install xformers"),
    ),
    "alias": ({"load": raising(missing("sklearn.svm"))}, ("not_installed", "model", "pip install scikit-learn")),
    "load memory": ({"load": raising(MemoryError())}, ("oom", "model", "MemoryError")),
    "fingerprint": ({"fingerprint": raising(RuntimeError("lost"))}, ("failed", "fit", "RuntimeError: lost")),
    "clock": ({"native_time": raising(KeyError("t"))}, ("failed", "fit", "KeyError: 't'")),
    "channels": ({"__init__": shaped(3, 4, 4)}, ("failed", "fit", "wrong channel count: ")),
    "size": (
        {"__init__": shaped(1, 8, 8)},
        ("not_applicable", "fit", "works on (1, 8, 8), the data set has (1, 4, 4)"),
    ),
    "range": ({"__init__": ranged(1e-6, 1e-5)}, ("failed", "noise_sweep", "only 0 levels of the grid")),
    "tap": ({"__init__": tapped}, ("failed", "noise_sweep", "no module 'up.3' to tap")),
    "denoise": (
        {"denoise": raising(RuntimeError("two\nlines"))},
        ("failed", "noise_sweep", "RuntimeError: two lines"),
    ),
    "nan": ({"load": nan_weights}, ("failed", "noise_sweep", "returned non-finite values at sigma = 7.38906")),
    "memory": ({"denoise": starved(0)}, ("oom", "noise_sweep", "no room for 2 rows")),
}


@pytest.mark.parametrize("kind", BROKEN_MODELS)
def test_a_broken_model_is_rows_and_the_others_finish(kind: str) -> None:
    members, (status, stage, words) = BROKEN_MODELS[kind]
    broken = type("Broken", (ToyModel,), {"name": "broken", **members})
    found = document(
        plan_of(
            ToyModel,
            broken,
            models=["toy", "broken", "toy:seed=1"],
            metrics=["mutual-information", "tap-mean"],
        )
    )
    assert [row["status"] for label in ("toy", "toy:seed=1") for row in rows_of(found, label)] == ["ok"] * 4
    rows = rows_of(found, "broken")
    assert [row["metric"] for row in rows] == ["mutual-information", "tap-mean"]
    for row in rows:
        assert (row["status"], row["stage"]) == (status, stage)
        assert words in row["reason"]
        assert "\n" not in row["reason"]
        assert (row["curves"], row["forward_passes"], row["scalars"]["log_snr_50"]) == ([], None, None)


def test_one_protocol_may_fail_where_another_works() -> None:
    class NoReadout(ToyData):
        name = "toy-data"

        def readout(self) -> Readout | None:
            return None

    found = document(plan_of(ToyModel, NoReadout, datasets=["toy-data"]))
    assert [(row["metric"], row["status"], row["stage"]) for row in found["rows"]] == [
        ("mutual-information", "ok", ""),
        ("class-retention", "not_applicable", "u_turn"),
        ("tap-mean", "ok", ""),
    ]
    assert "no readout" in found["rows"][1]["reason"]


@pytest.mark.parametrize("split", ["train", "val", "test"])
@pytest.mark.parametrize("value", [-1, 2])
def test_a_label_outside_its_range(split: str, value: int) -> None:
    found = document(plan_of(ToyModel, mislabelled(split, value), datasets=["toy-data"]))
    for row in found["rows"]:
        assert (row["status"], row["stage"]) == ("failed", "fit")
        low, high = min(0, value), max(1, value)
        assert row["reason"] == (
            f"labels of factor 'class' must lie in 0..1, found {low}..{high} in split {split!r}"
        )


def test_missing_data_are_asked_for_once_and_other_data_sets_finish() -> None:
    found = document(plan_of(ToyModel, Unconditional, Missing, ToyData, datasets=["missing", "toy-data"]))
    lost = [row for row in found["rows"] if row["dataset"] == "missing"]
    assert [(row["status"], row["stage"], row["factor"]) for row in lost] == [("failed", "data", "")] * 6
    assert {row["reason"] for row in lost} == {"no images in ./data; get them with: fetch-the-data"}
    assert sum(row["status"] == "ok" for row in found["rows"]) == 5


def scoring(compute: Callable[..., Any], **members: Any) -> type[Metric]:
    base = {"name": "mine", "unit": "nats", "bounds": (0.0, 1.0), "needs": (NoiseSweep(heads=True),)}
    return type("Mine", (Metric,), base | members | {"compute": compute})


def curve(**changes: Any) -> Curve:
    facts: dict[str, Any] = {
        "factor": "class",
        "log_snr": np.array([0.0, 1.0]),
        "per_item": np.zeros((3, 2)),
        "items": ("a", "b", "c"),
        "unit": "nats",
    }
    return Curve(**(facts | changes))


def writes(self: Metric, records: Mapping[str, Record]) -> list[Curve]:
    records["noise_sweep"]["log_snr"][0] = 0.0
    return []


BROKEN_METRICS: dict[str, tuple[Callable[..., Any], tuple[str, str]]] = {
    "raises": (raising(ZeroDivisionError("0 / 0")), ("failed", "ZeroDivisionError: 0 / 0")),
    "reason": (raising(NotApplicableError("not for toys")), ("not_applicable", "not for toys")),
    "silent": (lambda self, records: [], ("not_applicable", "mine says nothing about class")),
    "other": (lambda self, r: [curve(variant="x")], ("not_applicable", "mine says nothing about class")),
    "writes": (writes, ("failed", "read-only")),
    "unknown array": (
        lambda self, r: r["noise_sweep"]["gap/hue"],
        ("failed", "noise_sweep record has no 'gap/hue'"),
    ),
    "unknown record": (lambda self, r: r["fork"], ("failed", "KeyError: 'fork'")),
    "rows": (lambda self, r: [curve(items=("a", "b"))], ("failed", "per_item (3, 2) for 2 items and 2 levels")),
    "levels": (lambda self, r: [curve(per_item=np.zeros((3, 4)))], ("failed", "(3, 4) for 3 items and 2 levels")),
    "empty": (
        lambda self, r: [curve(per_item=np.zeros((0, 2)), items=())],
        ("failed", "for 0 items and 2 levels"),
    ),
    "order": (
        lambda self, r: [curve(log_snr=np.array([1.0, 0.0]))],
        ("failed", "not two or more ascending levels"),
    ),
    "one level": (
        lambda self, r: [curve(log_snr=np.zeros(1), per_item=np.zeros((3, 1)))],
        ("failed", "not two or more ascending levels"),
    ),
    "twice": (lambda self, r: [curve(), curve()], ("failed", "for 'class' (published) more than one curve")),
    "extra": (lambda self, r: [curve(extra={"a": np.zeros(2)})], ("failed", "extra facts that are not JSON")),
}


@pytest.mark.parametrize("stored", [True, False])
@pytest.mark.parametrize("kind", BROKEN_METRICS)
def test_a_broken_metric_is_a_row_and_the_others_finish(kind: str, stored: bool, tmp_path: Path) -> None:
    compute, (status, words) = BROKEN_METRICS[kind]
    plan = plan_of(ToyModel, scoring(compute), metrics=["mine", "mutual-information"])
    found = document(plan, Store(tmp_path) if stored else None)
    mine, other = found["rows"]
    assert (mine["metric"], mine["status"], mine["stage"]) == ("mine", status, "score")
    assert words in mine["reason"]
    assert other["status"] == "ok"


def test_values_that_are_not_finite_become_null() -> None:
    """A metric may have nothing to say at a level; the document stays JSON."""
    values = np.array([[0.0, np.nan], [0.2, np.inf], [0.1, 0.5]])
    mine = scoring(lambda self, r: [curve(per_item=values, extra={"ratio": float("nan")})])
    (row,) = document(plan_of(ToyModel, mine, metrics=["mine"]))["rows"]
    assert row["status"] == "ok"
    assert row["curves"][0]["value"] == [pytest.approx(0.1), None]
    assert row["extra"]["ratio"] is None
    assert row["scalars"]["log_snr_50"] is None


def test_a_metric_without_onset_has_no_scalars() -> None:
    rising = np.array([[0.0, 1.0]] * 3)
    for onset in (True, False):
        mine = scoring(lambda self, r: [curve(per_item=rising)], onset=onset)
        (row,) = document(plan_of(ToyModel, mine, metrics=["mine"]))["rows"]
        assert (row["scalars"]["log_snr_50"] is not None) is onset


# --------------------------------------------------------------------------------- memory, batches


def test_the_batch_is_halved_until_it_fits() -> None:
    """Same numbers from a model that can take only three rows at a time."""
    small = type("Small", (ToyModel,), {"name": "small", "denoise": starved(3)})
    found = document(plan_of(ToyModel, small))
    for whole, cut in zip(rows_of(found, "toy"), rows_of(found, "small"), strict=True):
        assert (whole["status"], cut["status"]) == ("ok", "ok")
        assert whole["forward_passes"] == cut["forward_passes"]
        same(whole["curves"], cut["curves"], 1e-5)


def same(a: Any, b: Any, tolerance: float) -> None:
    """Equal but for rounding, all the way down."""
    if isinstance(a, dict):
        assert a.keys() == b.keys()
        for key in a:
            same(a[key], b[key], tolerance)
    elif isinstance(a, list):
        assert len(a) == len(b)
        for x, y in zip(a, b, strict=True):
            same(x, y, tolerance)
    elif isinstance(a, float):
        assert a == pytest.approx(b, abs=tolerance, rel=tolerance)
    else:
        assert a == b


def test_results_do_not_depend_on_the_batch_size() -> None:
    """Every number of every row, for both kinds of model, within 1e-5."""
    found = [
        document(plan_of(ToyModel, Unconditional, metrics=[*ROUTES, "linear-probe"], batch=batch))["rows"]
        for batch in (4096, 5)
    ]
    same(found[0], found[1], 1e-5)


def test_factors_of_the_data_set_are_those_of_the_rows() -> None:
    """A model conditioned on something else has no head here, and is measured by the other routes."""

    class Elsewhere(ToyModel):
        name = "elsewhere"

        def __init__(self) -> None:
            super().__init__()
            self.factors = (replace(CLASS, name="hue"),)

    found = document(plan_of(Elsewhere))
    assert [(row["factor"], row["status"]) for row in found["rows"]] == [
        ("class", "not_applicable"),
        ("class", "ok"),
        ("class", "ok"),
    ]
