"""Class retention on records made by hand; its values on exact models are tested with the other metrics."""

from __future__ import annotations

import numpy as np
import pytest
from benchsuite_metrics.class_retention import ClassRetention

from benchsuite import NotApplicableError, Record


def record(**arrays: np.ndarray) -> Record:
    named = {name.replace("__", "/"): np.asarray(value, np.float32) for name, value in arrays.items()}
    items = np.array(["a", "b", "a", "b"])
    meta = {"steps": 9, "method": "sde-2m", "spacing": 0.25, "readout_agrees_with_labels": {"class": 0.98}}
    return Record("u_turn", {"log_snr": np.array([-2.0, 2.0]), "items": items, **named}, meta)


JUDGED = np.array(  # (draws × items, levels, values)
    [
        [[1, 0, 0], [1, 0, 0]],
        [[0, 0, 1], [0, 1, 0]],
        [[0, 1, 0], [1, 0, 0]],
        [[0, 1, 0], [0, 1, 0]],
    ]
)


def test_a_hard_verdict_is_kept_or_not() -> None:
    reference = np.array([[[1, 0, 0]], [[0, 1, 0]], [[1, 0, 0]], [[0, 1, 0]]])  # one per item, for all levels
    (curve,) = ClassRetention().compute({"u_turn": record(judged__class=JUDGED, reference__class=reference)})
    np.testing.assert_array_equal(curve.per_item, [[1, 1], [0, 1], [0, 1], [1, 1]])
    assert curve.items == ("a", "b", "a", "b")
    # agreement of unrelated items at the noisiest level: came back (1, 2, 1) / 4, compared to (2, 2, 0) / 4
    assert curve.floor == pytest.approx(0.25 * 0.5 + 0.5 * 0.5)
    assert curve.ceiling == 1.0
    assert curve.extra["readout_agrees_with_labels"] == 0.98
    assert (curve.extra["steps"], curve.extra["method"], curve.extra["spacing"]) == (9, "sde-2m", 0.25)


def test_soft_verdicts_are_compared_as_distributions() -> None:
    """Both posteriors: the probability that two independent draws from them agree."""
    soft = np.tile([[0.5, 0.3, 0.2], [0.9, 0.1, 0.0]], (4, 1, 1))
    curve, _ = ClassRetention().compute({"u_turn": record(judged__class=soft, reference__class=soft)})
    np.testing.assert_allclose(curve.per_item, np.tile([0.38, 0.82], (4, 1)), rtol=1e-6)


def test_a_posterior_at_the_turn_gives_one_shot_retention() -> None:
    """What came back may be anything: the probability that two draws from the posterior agree."""
    posterior = np.tile([[0.5, 0.3, 0.2], [0.9, 0.1, 0.0]], (4, 1, 1))
    curves = ClassRetention().compute({"u_turn": record(judged__class=JUDGED, reference__class=posterior)})
    assert [curve.variant for curve in curves] == ["", "one-shot"]
    np.testing.assert_allclose(curves[1].per_item, np.tile([0.38, 0.82], (4, 1)), rtol=1e-6)
    assert curves[1].floor == curves[0].floor


def test_every_judged_factor_has_its_curve() -> None:
    made = record(judged__class=JUDGED, reference__class=JUDGED, judged__hue=JUDGED, reference__hue=JUDGED)
    curves = [curve for curve in ClassRetention().compute({"u_turn": made}) if not curve.variant]
    assert [curve.factor for curve in curves] == ["class", "hue"]
    assert curves[1].extra["readout_agrees_with_labels"] is None
    assert all((curve.per_item == 1).all() for curve in curves)


def test_a_readout_that_judges_nothing_is_not_applicable() -> None:
    with pytest.raises(NotApplicableError, match="judges no factor"):
        ClassRetention().compute({"u_turn": record()})


def test_truth_is_the_expected_sum_of_squares() -> None:
    posterior = np.array([[0.5, 0.5], [1.0, 0.0]])
    assert ClassRetention().truth(posterior, np.array([0.5, 0.5])) == pytest.approx(0.75)
