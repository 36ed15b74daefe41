"""Controls: records in which there is nothing to find, and one with a trap for whoever looks at the test split."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchsuite.contracts import Record
from benchsuite.testing.records import ROLES, Records, copied, factor_of, measured, tap_order


def shuffled(records: Mapping[str, Record], seed: int) -> Records:
    """What a model of the same images leaves if the labels are dealt out at random.

    Labels are permuted within each role, heads that learn from them equal the unconditional one, copies are
    compared to another item, votes are drawn from the prior, positions change independently.
    """
    rng = np.random.default_rng(seed)
    changed = copied(records)
    for record in measured(changed):
        _forget_posterior(record)
        arrays = record.arrays
        n = len(np.unique(record["items"]))
        order = rng.permutation(n)
        for name in list(arrays):
            if name.startswith("tap_labels/"):
                arrays[name] = arrays[name][tap_order(record, rng, order)]
            elif name.startswith("error/") and name != "error/unconditional":
                arrays[name] = arrays["error/unconditional"].copy()
            elif record.protocol == "label_filter" and name.startswith(("filter/", "coarse/")):
                arrays[name][:] = np.log(np.maximum(_frequencies(record, factor_of(name)), 1e-12))
            elif name.startswith(("gap/", "mixture/")):
                arrays[name] = np.zeros_like(arrays[name])
            elif name.startswith("labels/"):
                arrays[name] = arrays[name].reshape(-1, n)[:, order].ravel()
            elif name.startswith("judged/"):
                for level in range(arrays[name].shape[1]):  # what came back is some other item's
                    arrays[name][:, level] = _one_hot(rng, rng.permutation(arrays[name][:, level]))
            elif name.startswith("reference/"):
                arrays[name] = _one_hot(rng, arrays[name][:, -1])[:, None]
            elif name.startswith("similarity/"):  # a copy is no more like its item than like another
                arrays[name] = arrays[name.replace("similarity/", "unrelated/")].copy()
            elif name == "changed":  # every position changes in U-turns of its own
                draws = arrays[name].reshape(-1, n, *arrays[name].shape[1:])
                arrays[name] = rng.permuted(draws, axis=0).reshape(arrays[name].shape)
            elif name.startswith("kept/"):
                arrays[name] = np.full_like(arrays[name], 1 / record.factor_size(name.rpartition("/")[2]))
            elif name.startswith("changed/"):  # every position changes in passages of its own
                arrays[name] = rng.permuted(arrays[name], axis=2)
            elif name.startswith(("votes/", "own/")):
                votes = arrays[name]
                prior = _frequencies(record, factor_of(name))
                arrays[name] = rng.multinomial(int(votes[0, 0].sum()), prior, size=votes.shape[:2]).astype(
                    votes.dtype
                )
    return changed


def constant(records: Mapping[str, Record]) -> Records:
    """Activations that never vary, copies of which the judge says nothing, equally many items of each value.

    Every answer is then a tie between all values. Records of other kinds are left out.
    """
    changed = copied(records)
    for record in changed.values():
        _forget_posterior(record)
        arrays = record.arrays
        for factor, size in record.meta["factors"].items():
            record.meta["entropy"][factor] = float(np.log(size))
            for name in (f"labels/{factor}", f"tap_labels/{factor}"):
                if name in arrays:
                    arrays[name] = _balanced(arrays[name], size, record["tap_role"] if "tap" in name else None)
            if f"judged/{factor}" in arrays:
                arrays[f"judged/{factor}"][:] = 1 / size
                labels = arrays[f"labels/{factor}"]
                arrays[f"reference/{factor}"] = np.eye(size, dtype=np.float32)[labels][:, None]
        for name in arrays:
            if name.startswith("tap/"):
                arrays[name] = np.zeros_like(arrays[name])
    return {name: r for name, r in changed.items() if any(k.startswith(("tap/", "judged/")) for k in r.arrays)}


def with_trap(records: Mapping[str, Record], sprung: bool, seed: int) -> Records:
    """Two taps more: one that tells a little everywhere, and one that tells all in train and nothing in val.

    On the test items the second tells all if the trap is `sprung`, else nothing: whoever chooses by validation
    never sees the difference.
    """
    changed = copied(records)
    for record in changed.values():
        rng = np.random.default_rng(seed)
        if "tap_role" not in record.arrays:
            continue
        _forget_posterior(record)
        roles, levels = record["tap_role"], len(record["tap_log_snr"])
        for factor, size in record.meta["factors"].items():
            told = np.eye(size)[record[f"tap_labels/{factor}"]]
            noise = rng.standard_normal((2, *told.shape))
            taps = {"honest": 0.7 * told + noise[0] / 2, "trap": 3.0 * told + noise[1] / 2}
            for role in ("val", "test"):
                rows = np.flatnonzero(roles == role)
                others = rng.permutation(rows)
                if role == "val" or not sprung:
                    taps["trap"][rows] = taps["trap"][others]
            for name, tap in taps.items():
                wide = np.broadcast_to(tap.astype(np.float32), (levels, *tap.shape))
                known = record.arrays.get(f"tap/{name}", wide[:, :, :0])
                record.arrays[f"tap/{name}"] = np.concatenate([known, wide], axis=2)
    return changed


def _forget_posterior(record: Record) -> None:
    """Leave only what a model that is not exact would."""
    record.meta["exact"] = False
    for name in list(record.arrays):
        if name.startswith(("posterior/", "spread/")) or name == "tap/log-posterior":
            del record.arrays[name]


def _frequencies(record: Record, factor: str) -> NDArray[Any]:
    counts = np.bincount(record[f"labels/{factor}"], minlength=record.factor_size(factor))
    frequencies: NDArray[Any] = counts / counts.sum()
    return frequencies


def _one_hot(rng: np.random.Generator, p: NDArray[Any]) -> NDArray[Any]:
    """One value drawn from each row of p (N, K): one-hot (N, K)."""
    index = (p.cumsum(axis=1) < rng.random((len(p), 1))).sum(axis=1).clip(max=p.shape[1] - 1)
    hot: NDArray[Any] = np.eye(p.shape[1], dtype=p.dtype)[index]
    return hot


def _balanced(labels: NDArray[Any], size: int, roles: NDArray[Any] | None) -> NDArray[Any]:
    """Values 0 … size-1 in turn, within each role."""
    values = np.empty_like(labels)
    for role in ROLES if roles is not None else (None,):
        mine = np.flatnonzero(roles == role) if roles is not None else np.arange(len(labels))
        values[mine] = np.arange(len(mine)) % size
    return values
