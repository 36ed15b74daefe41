"""Long protocols, block by block: what is done is kept as soon as it is done.

A killed run then loses at most the block in hand. A block is stored under the address of the whole record plus its
own name, so it serves only the very run that it was made for, and it goes when the whole record is there.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from benchsuite.contracts import Record
from benchsuite.store import Store, key_of

if TYPE_CHECKING:
    from benchsuite.protocols.common import Meter

Arrays = dict[str, NDArray[Any]]


class Blocks:
    """One block of everything, kept nowhere."""

    seconds = 0.0  #: what blocks of an earlier, interrupted run took

    def size(self, items: int) -> int:
        """Items in a block, of so many."""
        return max(items, 1)

    def run(self, name: Mapping[str, Any], meter: Meter, compute: Callable[[], Arrays]) -> Arrays:
        """The arrays of the block called `name`: found, or computed (which counts its passes) and kept."""
        return compute()

    def discard(self) -> None:
        """The whole record is safe; blocks are not needed any more."""


class StoredBlocks(Blocks):
    """Blocks of `limit` items in a store.

    Args:
        store: where they are kept.
        origin: what the whole record depends on.
        limit: items in a block. It does not depend on how many rows fit into a forward pass, so that blocks are
            found again by a run with another batch.
    """

    def __init__(self, store: Store, origin: Mapping[str, Any], limit: int) -> None:
        self.store, self.origin, self.limit = store, origin, limit
        self._made: set[str] = set()
        self._used: list[str] = []

    def size(self, items: int) -> int:
        """See `Blocks.size`."""
        return self.limit

    def run(self, name: Mapping[str, Any], meter: Meter, compute: Callable[[], Arrays]) -> Arrays:
        """See `Blocks.run`."""
        origin = {**self.origin, "block": dict(name)}
        key = key_of(origin)
        self._used.append(key)
        found = self.store.record(key)
        if found is None:
            rows, started = meter.rows, time.perf_counter()
            arrays = compute()
            facts = {"forward_passes": meter.rows - rows, "seconds": time.perf_counter() - started}
            self.store.put_record(key, Record("block", arrays, facts), origin)
            self._made.add(key)
            return arrays
        meter.add(found.meta["forward_passes"])
        if key not in self._made:  # those of this run, found again after running out of memory, are counted
            self.seconds += found.meta["seconds"]
        return found.arrays

    def discard(self) -> None:
        """See `Blocks.discard`."""
        for key in self._used:
            self.store.discard(key)
