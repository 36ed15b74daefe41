"""The channel protocol: its grid, its randomness, what it counts, and redraws."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from benchsuite_models.exact_rhm import ExactRHM

from benchsuite import Channels, Record, UsageError
from benchsuite.protocols.channels import channels, count_passes, finer_levels
from benchsuite.protocols.common import Meter
from benchsuite.protocols.settings import ChannelSettings

SETTINGS = ChannelSettings(nodes=6, refine=3, redraws=2, items=4, draws=3, shared_draws=5)


def run(
    copies: bool = False, settings: ChannelSettings = SETTINGS, batch: int = 64, model: ExactRHM | None = None
) -> tuple[Record, Meter]:
    meter = Meter()
    with torch.no_grad():
        record = channels(
            model or ExactRHM(4, 2, 2, 2),
            Channels(copies=copies),
            settings,
            seed=0,
            dataset="own",
            batch=batch,
            meter=meter,
        )
    return record, meter


def test_arrays_of_the_record() -> None:
    record, _ = run(copies=True)
    assert record["items"].tolist() == ["redraw/00000"] * 4 + ["redraw/00001"] * 4
    assert [c["name"] for c in record.meta["channels"]] == ["gaussian", "masking", "epsilon"]
    for channel, draws in (("gaussian", 3), ("masking", 3), ("epsilon", 5)):
        levels = record[f"levels/{channel}"]
        assert len(levels) == 9
        assert (np.diff(levels) > 0).all()
        for factor in ("class", "level-1", "level-0"):
            kept = record[f"kept/{channel}/{factor}"]
            assert kept.shape == (8, 9)
            assert (kept >= 0).all()
            assert (kept <= 1 + 1e-9).all()
        assert record[f"changed/{channel}"].shape == (8, 9, draws, 4)
        assert record[f"changed/{channel}"].dtype == bool
        assert record[f"theory/{channel}/kept/class"].shape == record[f"theory_levels/{channel}"].shape
    assert record["theory/epsilon/susceptibility"].min() >= 1
    assert record.meta["theory"]["epsilon_star"] == pytest.approx(2 / 3)


@pytest.mark.parametrize("copies", [False, True])
def test_passes_are_counted_before_and_during(copies: bool) -> None:
    _, meter = run(copies)
    assert meter.rows == count_passes(ExactRHM(4, 2, 2, 2), Channels(copies=copies), SETTINGS)
    assert meter.rows == 2 * 4 * 9 * (3 + 3 + 1 if copies else 3)


def test_batches_make_no_difference() -> None:
    whole, part = run(copies=True)[0], run(copies=True, batch=1)[0]
    for name, array in whole.arrays.items():
        if array.dtype.kind == "f":
            np.testing.assert_allclose(array, part[name], atol=1e-12)
        else:
            np.testing.assert_array_equal(array, part[name])


def test_a_redraw_does_not_depend_on_how_many_there_are() -> None:
    more = run(settings=replace(SETTINGS, redraws=3))[0]
    assert len(more["items"]) == 12
    few = run()[0]
    np.testing.assert_allclose(few["kept/epsilon/class"][:, 0], more["kept/epsilon/class"][:8, 0])
    np.testing.assert_allclose(few["kept/masking/class"][:, 0], more["kept/masking/class"][:8, 0])


def test_without_redraws_items_are_the_sampling_unit() -> None:
    one = run(settings=replace(SETTINGS, redraws=1))[0]
    assert len(set(one["items"].tolist())) == 4
    rules = ExactRHM(4, 2, 2, 2).grammar.rules
    given = run(model=ExactRHM(4, 2, 2, 2, rules=rules))[0]  # nothing to draw anew
    assert len(set(given["items"].tolist())) == 4
    assert given.meta["redraws"] == 1


def test_levels_are_dense_where_the_first_factor_is_lost() -> None:
    grid = np.linspace(0, 1, 6)
    kept = np.array([1.0, 0.9, 0.3, 0.2, 0.2, 0.2])
    np.testing.assert_allclose(finer_levels(grid, kept, 1), [0.3])
    np.testing.assert_allclose(finer_levels(grid, kept, 3), [0.25, 0.3, 0.35])
    np.testing.assert_allclose(sorted(finer_levels(grid, kept[::-1], 3)), [0.65, 0.7, 0.75])
    # the fourth part of the steep interval moves by less than the whole first interval
    kept[1] = 0.88
    np.testing.assert_allclose(finer_levels(grid, kept, 5), [0.1, 0.24, 0.28, 0.32, 0.36])
    assert finer_levels(grid, kept, 0) == []


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"nodes": 4}, "nodes must be at least 5, got 4"),
        ({"draws": 1}, "draws must be at least 2, got 1"),
        ({"shared_draws": 1}, "shared_draws must be at least 2, got 1"),
        ({"redraws": 1, "items": 1}, "two items or more"),
    ],
)
def test_bad_settings_are_refused(change: dict[str, int], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        replace(SETTINGS, **change)
