"""Records of the reference case, and changes to a record that a metric must not notice."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from benchsuite.bench import Bench
from benchsuite.contracts import Factor, Population, ProtocolOptions, Record
from benchsuite.own_data import OwnData
from benchsuite.plan import Unit
from benchsuite.protocols.settings import (
    ChannelSettings,
    FilterSettings,
    ForkSettings,
    SweepSettings,
    TrajectorySettings,
    UTurnSettings,
)
from benchsuite.request import Settings
from benchsuite.testing.reference import ReferenceMixture

Records = dict[str, Record]

#: a small run; its noisiest level is noise and its cleanest level decided
SETTINGS = Settings(
    items=96,
    probe_items=256,
    bootstrap=100,
    sweep=SweepSettings(low=-7.0, high=6.0, nodes=27, draws=2, tap_stride=8),
    u_turn=UTurnSettings(low=-6.0, high=5.0, every=1.0, steps_per_level=2, end=6.0, draws=2, antithetic=False),
    fork=ForkSettings(low=-6.0, high=4.0, every=2.0, steps_per_level=4, end=6.0, items=64),
    label_filter=FilterSettings(low=-7.0, high=6.0, nodes=53, draws=2),
    trajectory=TrajectorySettings(low=-6.0, high=6.0, end=6.0, paths=96),
    channels=ChannelSettings(items=96),
)
#: axes (rows, levels, values) of the arrays called so, or whose name starts so; see `benchsuite.protocols`
AXES: dict[str, tuple[int | None, int | None, int | None]] = {
    "log_snr": (None, 0, None),
    "items": (0, None, None),
    "labels/": (0, None, None),
    "error/": (0, 1, None),
    "gap/": (0, 1, None),
    "posterior/": (0, 1, 2),
    "spread/": (0, 1, None),
    "judged/": (0, 1, 2),
    "reference/": (0, 1, 2),
    "votes/": (0, 1, 2),
    "own_items": (0, None, None),
    "own/": (0, 1, 2),
    "similarity/": (0, 1, None),
    "unrelated/": (0, 1, None),
    "distance/": (0, 1, None),
    "changed": (0, 1, None),
    # of channels, each of which has levels of its own
    "kept/": (0, None, None),
    "changed/": (0, None, None),
    "levels/": (None, None, None),
    "theory/": (None, None, None),
    "theory_levels/": (None, None, None),
    "position_distances": (None, None, None),
    "tap_log_snr": (None, 0, None),
    "tap_items": (0, None, None),
    "tap_role": (0, None, None),
    "tap_labels/": (0, None, None),
    "tap/": (1, 0, None),
    # of paths; a population, which has x too but no levels, is left as it is
    "x": (0, 1, None),
    "denoised": (0, 1, None),
    "final": (0, None, None),
    "verdict/": (0, None, 1),
    "sure/": (0, 1, None),
    "sure_end/": (0, None, None),
    "filter/": (0, 1, 2),
    "coarse/": (0, 1, 2),
    "mixture/": (0, 1, None),
    "mse/": (None, 1, None),
    "items/": (None, None, None),
    "ids": (None, None, None),
}
#: of the rows of taps
ROLES = ("train", "val", "test")


@lru_cache(maxsize=16)
def _reference(needs: tuple[ProtocolOptions, ...], seed: int) -> Records:
    model = ReferenceMixture()
    model.load()
    settings = SETTINGS
    sizes = {"train": settings.probe_items, "val": settings.probe_items // 4, "test": settings.items}
    data = OwnData(model, sizes, seed)
    data.load()
    unit = Unit(model.name, model.name, ReferenceMixture, ReferenceMixture, "", "test", oracle=True)
    with torch.no_grad():
        bench = Bench.build(model, data, unit, settings, "cpu")
        found = {need.protocol: bench.run(need, lambda rows: None) for need in needs if need != Population()}
    if Population() in needs:
        found["population"] = _population(data, model.factors)
    return {need.protocol: found[need.protocol] for need in needs}


def _population(data: OwnData, factors: Sequence[Factor]) -> Record:
    """The training draws as if they were all there is: the reference case itself is no finite set."""
    train = data.split("train")
    labels = {f"labels/{f.name}": train.labels[:, i].numpy() for i, f in enumerate(factors)}
    arrays: dict[str, NDArray[Any]] = {"x": train.images.numpy(), "ids": np.array(train.ids), **labels}
    return Record("population", arrays, {"factors": {f.name: f.size for f in factors}, "seed": 0})


def reference_records(needs: Sequence[ProtocolOptions], seed: int = 0) -> Records:
    """Fresh copies of exactly the records that `needs` declare, on the reference case."""
    return copied(_reference(tuple(needs), seed))


def copied(records: Mapping[str, Record]) -> Records:
    """Deep copies, writeable."""
    return {
        name: Record(record.protocol, {k: v.copy() for k, v in record.arrays.items()}, copy.deepcopy(record.meta))
        for name, record in records.items()
    }


def frozen(records: Mapping[str, Record]) -> Records:
    """Deep copies that refuse to be written to, as the runner hands them out."""
    copies = copied(records)
    for record in copies.values():
        for array in record.arrays.values():
            array.flags.writeable = False
    return copies


def measured(records: Mapping[str, Record]) -> list[Record]:
    """The records of a model at work; a population is what it comes from."""
    return [record for record in records.values() if record.protocol != "population"]


def axes(name: str) -> tuple[int | None, int | None, int | None]:
    """(rows, levels, values) axes of the array called `name`."""
    head, slash, _ = name.partition("/")
    return AXES[head + slash]


def factor_of(name: str) -> str:
    """``posterior/class`` → ``class``."""
    return name.partition("/")[2]


def reordered(records: Mapping[str, Record], seed: int) -> Records:
    """The same items in another order (rows stay draw by draw, as protocols promise)."""
    rng = np.random.default_rng(seed)
    changed = copied(records)
    for record in measured(changed):
        n = len(np.unique(record["items"]))
        order = rng.permutation(n)
        rows = (np.arange(len(record["items"]) // n)[:, None] * n + order).ravel()
        taps = tap_order(record, rng, order)
        for name, array in record.arrays.items():
            axis = axes(name)[0]
            if axis is not None:
                record.arrays[name] = array.take(taps if name.startswith("tap") else rows, axis=axis)
    return changed


def tap_order(record: Record, rng: np.random.Generator, order: NDArray[Any]) -> NDArray[Any]:
    """Rows of the taps: the test items as given by `order`, the others shuffled within their role."""
    if "tap_role" not in record.arrays:
        return np.arange(0)
    rows = np.arange(len(record["tap_role"]))
    for role in ROLES:
        mine = np.flatnonzero(record["tap_role"] == role)
        rows[mine] = mine[order] if role == "test" else rng.permutation(mine)
    return rows


def relabelled(records: Mapping[str, Record], seed: int) -> Records:
    """The same values of every factor under other numbers."""
    rng = np.random.default_rng(seed)
    changed = copied(records)
    new: dict[str, NDArray[Any]] = {}  # factor -> new number of each old value, for all records alike
    for record in changed.values():
        for factor, size in record.meta["factors"].items():
            # a cyclic shift would let a neighbour go on being a neighbour
            new.setdefault(factor, _derangement(rng, size))
        for name, array in record.arrays.items():
            if name.startswith(("labels/", "tap_labels/")):
                record.arrays[name] = new[factor_of(name)][array]
            elif axes(name)[2] is not None:
                record.arrays[name] = array[..., np.argsort(new[factor_of(name)])]
    return changed


def _derangement(rng: np.random.Generator, size: int) -> NDArray[Any]:
    """A permutation that is no rotation, if `size` has any."""
    while True:
        order = rng.permutation(size)
        if size < 4 or len(set((order - np.arange(size)) % size)) > 1:
            return order if size > 2 else np.arange(size)[::-1]


def between(records: Mapping[str, Record], low: float, high: float) -> Records:
    """The levels from `low` to `high` only."""
    changed = copied(records)
    for record in measured(changed):
        keep = {
            prefix: np.flatnonzero((record[name] >= low - 1e-9) & (record[name] <= high + 1e-9))
            for prefix, name in (("", "log_snr"), ("tap", "tap_log_snr"))
            if name in record.arrays
        }
        for name, array in record.arrays.items():
            axis = axes(name)[1]
            if axis is not None and array.shape[axis] > 1:
                record.arrays[name] = array.take(keep["tap" if name.startswith("tap") else ""], axis=axis)
    return changed


def halved(records: Mapping[str, Record]) -> Records:
    """Every second test item only; what probes learn from stays."""
    changed = copied(records)
    for record in measured(changed):
        kept = np.unique(record["items"])[::2]
        rows = np.flatnonzero(np.isin(record["items"], kept))
        taps = np.arange(0)
        if "tap_role" in record.arrays:
            taps = np.flatnonzero((record["tap_role"] != "test") | np.isin(record["tap_items"], kept))
        for name, array in record.arrays.items():
            axis = axes(name)[0]
            if axis is not None:
                record.arrays[name] = array.take(taps if name.startswith("tap") else rows, axis=axis)
    return changed
