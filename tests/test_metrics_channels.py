"""Level retention and susceptibility by channel on records made by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from benchsuite_metrics.channel_susceptibility import ChannelSusceptibility, peak
from benchsuite_metrics.level_retention import LevelRetention

from benchsuite import Curve, NotApplicableError, Record
from benchsuite.statistics import summarise

LEVELS = np.linspace(0, 1, 101)


def falling(at: float, width: float, floor: float) -> np.ndarray:
    """From 1 to about `floor`, half way at `at`, 10-90 % over `width`."""
    return floor + (1 - floor) / (1 + np.exp((LEVELS - at) * 2 * np.log(9) / width))


def record(**changes: Any) -> Record:
    rows = np.ones((6, 1))
    arrays = {
        "items": np.array([f"redraw/{i // 2}" for i in range(6)]),
        "levels/gaussian": 10 * LEVELS - 5,
        "levels/masking": LEVELS,
        "kept/gaussian/class": rows * falling(0.4, 0.1, 0.25)[::-1],
        "kept/gaussian/level-0": rows * falling(0.5, 0.4, 0.25)[::-1],
        "kept/masking/class": rows * falling(0.6, 0.1, 0.25),
        "kept/masking/level-0": rows * falling(0.6, 0.4, 0.25),
        "theory_levels/masking": LEVELS,
        "theory/masking/kept/class": falling(0.7, 0.2, 0.25),
        "theory/masking/kept/level-0": falling(0.8, 0.2, 0.25),
    }
    meta = {
        "channels": [{"name": "masking", "axis": "masked fraction"}, {"name": "gaussian", "axis": "log_snr"}],
        "factors": {"class": 4, "level-0": 4},
        "redraws": 3,
        "theory": {"names": {"masking": "guess", "gaussian": "guess"}, "epsilon_star": 0.7},
    }
    return Record("channels", arrays, meta | changes)


def curves() -> dict[tuple[str, str], Curve]:
    found = LevelRetention().compute({"channels": record()})
    return {(curve.factor, curve.variant): curve for curve in found}


def test_the_gaussian_channel_is_published() -> None:
    published = curves()["class", ""]
    assert published.axis == "log_snr"
    assert published.floor == 0.25
    summary = summarise(published, replicates=20, seed=0)
    assert summary.n_items == 3
    assert summary.log_snr_50.value == pytest.approx(1.0, abs=0.01)  # -5 + 10 (1 - 0.4)
    assert published.extra == {"redraws": 3, "theory": record().meta["theory"]}
    assert curves()["level-0", ""].extra == {"redraws": 3}


def test_thresholds_of_a_loss_are_in_its_own_unit() -> None:
    loss = curves()["class", "masking"]
    assert loss.axis == "masked fraction"
    summary = summarise(loss, replicates=20, seed=0)
    assert summary.log_snr_50.value == pytest.approx(0.6, abs=1e-3)
    assert summary.width.value == pytest.approx(0.1, abs=2e-3)


def test_theory_stands_beside_what_was_measured() -> None:
    theory = curves()["class", "masking · guess"]
    assert (theory.beside, theory.axis, theory.per_item.shape) == ("masking", "masked fraction", (1, 101))
    assert summarise(theory, replicates=20, seed=0).log_snr_50.value == pytest.approx(0.7, abs=1e-3)
    assert ("class", "guess") not in curves()  # nothing is expected of the Gaussian channel


def test_the_order_of_the_levels_inverts_where_the_lead_is_zero() -> None:
    lead = summarise(curves()["class", "masking · class minus level-0"], replicates=20, seed=0)
    assert lead.log_snr_50.value == pytest.approx(0.6, abs=1e-3)
    expected = curves()["class", "masking · class minus level-0 · guess"]
    assert summarise(expected, replicates=20, seed=0).log_snr_50.value is None  # behind at every level


def test_equal_factors_have_no_lead() -> None:
    made = record()
    made.arrays["kept/masking/class"] = made["kept/masking/level-0"]
    found = {(c.factor, c.variant): c for c in LevelRetention().compute({"channels": made})}
    lead = summarise(found["class", "masking · class minus level-0"], replicates=20, seed=0)
    assert lead.log_snr_50.value is None


def test_a_model_without_a_gaussian_channel_is_not_applicable() -> None:
    made = record(channels=[{"name": "masking", "axis": "masked fraction"}])
    for metric in (LevelRetention(), ChannelSusceptibility()):
        with pytest.raises(NotApplicableError, match="no Gaussian channel"):
            metric.compute({"channels": made})


# ---------------------------------------------------------------------------------- susceptibility


def blocks(n: int, levels: int, draws: int, rigid: int, positions: int = 24) -> np.ndarray:
    """Changes (N, T, R, P) of independent rigid blocks; nothing changes at the first level."""
    rng = np.random.default_rng(0)
    p = np.linspace(0, 0.5, levels)[None, :, None, None]
    return np.repeat(rng.random((n, levels, draws, positions // rigid)) < p, rigid, axis=3)


@pytest.mark.parametrize("rigid", [1, 4, 24])
def test_rigid_blocks_have_their_size(rigid: int) -> None:
    made = record(theory={"names": {}})
    changed = blocks(400, 5, 16, rigid)
    made.arrays |= {"items": np.array([f"{i}" for i in range(400)])}
    made.arrays |= {f"levels/{c}": np.arange(5.0) for c in ("gaussian", "masking")}
    made.arrays |= {f"changed/{c}": changed for c in ("gaussian", "masking")}
    published, masking = ChannelSusceptibility().compute({"channels": made})
    assert (published.factor, published.axis, masking.variant) == ("", "log_snr", "masking")
    np.testing.assert_array_equal(published.log_snr, [1, 2, 3, 4])  # where nothing changes chi is undefined
    means = published.per_item.mean(axis=0)
    errors = published.per_item.std(axis=0, ddof=1) / 20
    assert (np.abs(means - rigid) < 4 * errors + 1e-9).all()
    assert published.ceiling == 24


def test_nothing_changed_is_said() -> None:
    made = record()
    still = np.zeros((6, 101, 4, 8), dtype=bool)
    made.arrays |= {f"changed/{c}": still for c in ("gaussian", "masking")}
    with pytest.raises(NotApplicableError, match="positions changed at 0 levels of gaussian"):
        ChannelSusceptibility().compute({"channels": made})


def test_the_peak_is_the_vertex_of_a_parabola() -> None:
    x = np.linspace(0, 1, 11)
    chi = np.maximum(5.0 - 40 * (x - 0.47) ** 2, 1.0)
    found = peak(x, np.stack([chi - 0.1, chi + 0.1]))
    assert found["at"] == pytest.approx(0.47, abs=1e-9)
    assert found["value"] == pytest.approx(5.0, abs=1e-9)
    for monotone in (x, -x):
        assert peak(x, monotone[None]) == {"at": None, "value": None}
