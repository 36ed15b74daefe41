"""Fixed splits: membership and order follow from hashes of item ids, never from a library's generator."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray


def item_hash(text: str) -> int:
    """64 bits of BLAKE2b of `text`, as a non-negative integer; the same on every machine and version."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big")


def stratified_order(ids: Sequence[str], labels: NDArray[Any]) -> NDArray[np.int64]:
    """A fixed pseudo-random order in which every prefix holds the classes in their overall proportions.

    Within a class, items are ranked by the hash of their id; item r of a class of n sits at (r + ½) / n.
    Cutting this order gives stratified splits, and the first k items of a split are themselves balanced.

    Args:
        ids: N unique names.
        labels: (N,) the class that is balanced.

    Returns:
        (N,) indices.
    """
    hashes = np.array([item_hash(i) for i in ids], dtype=np.uint64)
    position = np.empty(len(ids))
    for value in np.unique(labels):
        members = np.flatnonzero(labels == value)
        ranked = members[np.argsort(hashes[members], kind="stable")]
        position[ranked] = (np.arange(len(ranked)) + 0.5) / len(ranked)
    return np.lexsort((hashes, position)).astype(np.int64)


def cut(order: NDArray[np.int64], sizes: dict[str, int]) -> dict[str, NDArray[np.int64]]:
    """Consecutive pieces of `order` called and sized as in `sizes`, which must add up to its length."""
    if sum(sizes.values()) != len(order):
        raise ValueError(f"split sizes {sizes} add up to {sum(sizes.values())}, not to {len(order)} items")
    ends = np.cumsum(list(sizes.values()))
    return dict(zip(sizes, np.split(order, ends[:-1]), strict=True))
