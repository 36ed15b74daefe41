"""Feature similarity on records made by hand and on a hierarchy whose layers are known."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from benchsuite_metrics.feature_similarity import FeatureSimilarity, agreement, flip_point
from numpy.typing import NDArray

from benchsuite import Curve, NotApplicableError, Record, measure
from benchsuite.protocols.settings import UTurnSettings
from benchsuite.request import Settings

Array = NDArray[Any]
LEVELS = np.array([-4.0, -2.0, 0.0, 2.0, 4.0])
SHALLOW = np.array([0.10, 0.30, 0.60, 0.80, 0.95])
DEEP = np.array([0.02, 0.10, 0.70, 0.95, 0.99])
META: dict[str, Any] = {
    "layers": ["stem", "middle", "logits"],
    "steps": 9,
    "method": "sde-2m",
    "spacing": 0.25,
    "seed": 0,
    "factors": {"class": 3},
}


def record(n: int = 40, **meta: Any) -> Record:
    rng = np.random.default_rng(0)
    arrays: dict[str, Array] = {"log_snr": LEVELS, "items": np.array([f"i{k}" for k in range(n)] * 2)}
    middle = (SHALLOW + DEEP) / 2
    for layer, mean in (("stem", SHALLOW), ("middle", middle), ("logits", DEEP)):
        noise = 0.05 * rng.standard_normal((2 * n, 5))
        arrays[f"similarity/{layer}"] = (mean + noise - noise.mean(axis=0)).astype(np.float32)
        arrays[f"distance/{layer}"] = 2 * (1 - arrays[f"similarity/{layer}"])
        arrays[f"unrelated/{layer}"] = np.full((2 * n, 5), 0.05, np.float32)
    judged = rng.integers(3, size=(2 * n, 5))
    judged[:, 4] = np.tile(np.arange(n) % 3, 2)  # every verdict is kept
    arrays["judged/class"] = np.eye(3, dtype=np.float32)[judged]
    arrays["reference/class"] = np.eye(3, dtype=np.float32)[np.tile(np.arange(n) % 3, 2)][:, None]
    arrays["labels/class"] = np.zeros(2 * n, dtype=np.int64)
    return Record("u_turn", arrays, META | meta)


def curves(made: Record) -> dict[str, Curve]:
    return {curve.variant: curve for curve in FeatureSimilarity().compute({"u_turn": made})}


def test_the_deepest_layer_is_published_and_the_others_stand_beside_it() -> None:
    found = curves(record())
    assert list(found) == [
        "", "stem", "middle", "distance/stem", "distance/middle", "distance/logits", "top-1/class",
    ]  # fmt: skip
    assert {curve.factor for curve in found.values()} == {""}
    assert (found[""].tap, found["stem"].tap) == ("logits", "stem")
    np.testing.assert_allclose(found[""].per_item.mean(axis=0), DEEP, atol=1e-6)
    np.testing.assert_allclose(found["stem"].per_item.mean(axis=0), SHALLOW, atol=1e-6)
    assert (found[""].floor, found[""].ceiling) == (pytest.approx(0.05), 1.0)
    assert (found["distance/logits"].floor, found["distance/logits"].ceiling) == (pytest.approx(1.9), 0.0)
    assert found[""].extra["layers"] == ["stem", "middle", "logits"]
    assert found[""].extra["floors"] == {name: pytest.approx(0.05) for name in META["layers"]}


def test_agreement_of_verdicts() -> None:
    made = record()
    hits, chance = agreement(made, "class")
    np.testing.assert_array_equal(hits[:, 4], 1.0)
    assert 0.15 < hits[:, 0].mean() < 0.55
    came = made["judged/class"][:, 0].mean(axis=0)
    assert chance == pytest.approx(float(came @ made["reference/class"][:, 0].mean(axis=0)))
    made.arrays["reference/class"] = np.full((80, 5, 3), 1 / 3, np.float32)  # posteriors: compare with labels
    hits, _ = agreement(made, "class")
    np.testing.assert_array_equal(hits, made["judged/class"][..., 0])


def test_the_flip_is_where_the_lead_of_the_deep_layer_ends() -> None:
    """deep - shallow = -0.08, -0.2, 0.1, 0.15, 0.04: the zero between -2 and 0 lies 2/3 of the way."""
    assert flip_point(DEEP, SHALLOW, LEVELS) == pytest.approx(-2 + 2 * 0.2 / 0.3)
    flip = curves(record())[""].extra["flip"]
    assert flip["log_snr"] == pytest.approx(-2 + 2 * 0.2 / 0.3, abs=1e-4)
    assert (flip["deep"], flip["shallow"]) == ("logits", "stem")
    assert flip["low"] < flip["log_snr"] < flip["high"]
    assert flip["high"] - flip["low"] < 0.5


def test_noise_at_either_end_is_no_flip() -> None:
    both_ends = np.array([0.01, -0.01, -0.3, 0.2, -0.001])
    assert flip_point(both_ends, np.zeros(5), LEVELS) == pytest.approx(1.2)  # not at -3, not above 2
    assert np.isnan(flip_point(SHALLOW - 0.1, SHALLOW, LEVELS))  # never leads
    assert np.isnan(flip_point(SHALLOW + 0.1, SHALLOW, LEVELS))  # leads throughout
    lone = record()
    lone.meta["layers"] = ["logits"]
    assert curves(lone)[""].extra["flip"] is None


def test_a_readout_without_layers_is_not_applicable() -> None:
    with pytest.raises(NotApplicableError, match="no hidden layers"):
        FeatureSimilarity().compute({"u_turn": record(layers=[])})


def test_layers_of_a_hierarchy() -> None:
    """The parse of a random grammar: tokens change at less noise than the class, and the class then falls at once,
    so that deep layers are the more alike ones above the flip.
    """
    turns = UTurnSettings(low=-4.0, high=4.0, every=1.0, steps_per_level=4, end=6.0)
    settings = Settings(batch=4096, bootstrap=50, probe_items=4, u_turn=turns)
    report = measure("exact-rhm:v=6,m=2,s=2,L=3", None, [FeatureSimilarity()], n=60, settings=settings)
    (row,) = report.rows
    assert (row["status"], row["factor"]) == ("ok", "")
    assert row["extra"]["layers"] == ["level-0", "level-1", "level-2", "class"]
    deep, shallow = (report.curve("feature-similarity", variant=v) for v in ("", "level-0"))
    assert deep.value[-1] > 0.98
    assert abs(deep.value[0] - deep.floor) < 0.15
    flip = row["extra"]["flip"]
    above = deep.log_snr > flip["log_snr"] + 1
    assert (deep.value[above] >= shallow.value[above] - 1e-6).all()
    assert deep.log_snr_50 is not None
    agreed = report.curve("feature-similarity", variant="top-1/class").value
    assert (np.diff(agreed) > -0.15).all()
    assert agreed[-1] > 0.98
