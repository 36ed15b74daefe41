"""U-turns in blocks: the same bits as in one piece, and a killed run loses at most one block."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from toy_runs import Counted, document, plan_of
from toys import SMALL, ToyData, ToyModel, ToyReadout

from benchsuite import Record, UTurn
from benchsuite.blocks import Blocks, StoredBlocks
from benchsuite.errors import UsageError
from benchsuite.protocols.common import Items, Meter
from benchsuite.protocols.settings import UTurnSettings
from benchsuite.protocols.u_turn import count_passes, u_turn
from benchsuite.request import Settings
from benchsuite.runner import Reporter
from benchsuite.runner import count_passes as count_plan
from benchsuite.store import Store

SETTINGS = UTurnSettings(low=-3.0, high=3.0, every=2.0, steps_per_level=2, end=4.0, draws=2)  # four levels


@pytest.fixture(autouse=True)
def no_grad() -> Iterator[None]:
    with torch.no_grad():
        yield


class Seeing(ToyReadout):
    """Shows a hidden layer and positions too."""

    def features(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"pixels": images, "mean": images.flatten(1).mean(dim=1, keepdim=True)}

    def positions(self, images: torch.Tensor) -> torch.Tensor:
        return images.flatten(1)

    def position_distances(self) -> np.ndarray:
        return np.abs(np.subtract.outer(np.arange(16.0), np.arange(16.0)))


def run(blocks: Blocks | None, batch: int = 16, meter: Meter | None = None) -> Record:
    data, model = ToyData(), ToyModel()
    data.load()
    model.load()
    part = data.split("test")
    items = Items(part.images, part.labels, part.ids, data.factors)
    return u_turn(
        model,
        items,
        Seeing(),
        SETTINGS,
        seed=0,
        dataset="d",
        batch=batch,
        meter=meter or Meter(),
        request=UTurn(features=True, positions=True),
        blocks=blocks,
    )


@pytest.mark.parametrize("limit", [4, 8, 12, 100])
def test_blocks_change_no_bit(tmp_path: Path, limit: int) -> None:
    """A forward pass holds 16 // 4 = 4 items; blocks of a multiple of that see the very same batches."""
    whole, blocks = run(None), StoredBlocks(Store(tmp_path), {"op": "u_turn"}, limit)
    for _ in ("computed", "found"):
        found = run(blocks)
        assert found.meta == whole.meta
        assert found.arrays.keys() == whole.arrays.keys()
        for name, array in whole.arrays.items():
            assert np.array_equal(found[name], array), name
            assert found[name].dtype == array.dtype
    assert {"similarity/pixels", "unrelated/mean", "changed", "position_distances"} <= whole.arrays.keys()


@pytest.mark.parametrize("limit", [1, 5, 7])
def test_blocks_that_cut_batches_change_only_rounding(tmp_path: Path, limit: int) -> None:
    whole, found = run(None), run(StoredBlocks(Store(tmp_path), {}, limit))
    for name, array in whole.arrays.items():
        if array.dtype.kind == "f":
            np.testing.assert_allclose(found[name], array, rtol=1e-5, atol=1e-5)  # float32
        else:
            assert np.array_equal(found[name], array), name


def test_passes_and_seconds_are_those_behind_the_result(tmp_path: Path) -> None:
    everything = count_passes(SETTINGS, 12, ToyModel().sigma_range)
    first, second = (StoredBlocks(Store(tmp_path), {}, 5) for _ in range(2))
    for blocks in (first, second):
        meter = Meter()
        run(blocks, meter=meter)
        assert meter.rows == everything
    assert first.seconds == 0
    assert second.seconds > 0


def test_blocks_serve_only_the_run_they_were_made_for(tmp_path: Path) -> None:
    store = Store(tmp_path)
    run(StoredBlocks(store, {"seed": 0}, 6))
    count = len(list(tmp_path.rglob("*.npz")))
    assert count == 2 * 2  # two draws of two blocks
    run(StoredBlocks(store, {"seed": 0}, 6), batch=40)  # the batch makes no difference to what is found
    assert len(list(tmp_path.rglob("*.npz"))) == count
    other = StoredBlocks(store, {"seed": 1}, 6)
    run(other)
    assert len(list(tmp_path.rglob("*.npz"))) == 2 * count
    other.discard()
    assert len(list(tmp_path.rglob("*.npz"))) == count


# ------------------------------------------------------------------------------------- whole runs


class Killed(Reporter):
    """Interrupts when so many rows of U-turns are done."""

    def __init__(self, rows: int) -> None:
        self.left = rows

    def protocol(self, name: str, passes: int, stored: bool) -> Callable[[int], None]:
        def advance(rows: int) -> None:
            self.left -= rows
            if self.left <= 0:
                raise KeyboardInterrupt

        return advance if name == "u_turn" else super().protocol(name, passes, stored)


def plan() -> object:
    return plan_of(Counted, metrics=("class-retention",), items=6, block=2, batch=16)


def test_a_run_killed_in_the_middle_of_its_u_turns_loses_one_block(tmp_path: Path) -> None:
    store, whole = Store(tmp_path), document(plan())  # type: ignore[arg-type]
    ((_, counted),) = count_plan(plan(), "cpu")  # type: ignore[arg-type]
    assert isinstance(counted, dict)
    block = counted["u_turn"] // 3
    Counted.asked = 0
    with pytest.raises(KeyboardInterrupt):
        document(plan(), store, Killed(rows=2 * block + 1))  # type: ignore[arg-type]
    assert 2 * block < Counted.asked < 3 * block
    Counted.asked = 0
    resumed = document(plan(), store)  # type: ignore[arg-type]
    assert Counted.asked == block
    resumed.pop("provenance"), whole.pop("provenance")
    assert resumed == whole
    # the record is whole now: its blocks are gone, and nothing is computed any more
    assert len(list(tmp_path.rglob("*.npz"))) == 2
    Counted.asked = 0
    document(plan(), store)  # type: ignore[arg-type]
    assert Counted.asked == 0


def test_blocks_survive_running_out_of_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The batch is halved and the run starts again; blocks that were done are not done twice."""
    ((_, counted),) = count_plan(plan(), "cpu")  # type: ignore[arg-type]
    assert isinstance(counted, dict)
    total, once, original = counted["u_turn"], [True], Counted.denoise

    def narrow(self: Counted, x: torch.Tensor, sigma: torch.Tensor, labels: object = None) -> torch.Tensor:
        if Counted.asked >= total // 3 and once:
            once.clear()
            raise MemoryError("full")
        return original(self, x, sigma)

    monkeypatch.setattr(Counted, "denoise", narrow)
    Counted.asked = 0
    (row,) = document(plan(), Store(tmp_path))["rows"]  # type: ignore[arg-type]
    assert (row["status"], row["forward_passes"]) == ("ok", total)
    assert Counted.asked == total


def test_a_block_holds_at_least_one_item() -> None:
    with pytest.raises(UsageError, match="block must be at least 1, got 0"):
        replace(SMALL, block=0)
    assert Settings().block > Settings().items  # the default run is one block
