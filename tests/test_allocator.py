"""Freed memory stays with the process, so that large temporaries do not fault their pages in again and again."""

from __future__ import annotations

import subprocess
import sys

import pytest

from benchsuite.allocator import keep_freed_memory

#: pages that ten tensors of 128 MB fault in, one after the other, when one has been there before
CHURN = """
import resource, sys, torch
from benchsuite.allocator import keep_freed_memory
if sys.argv[1] == "keep":
    keep_freed_memory()
torch.ones(2**25)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    torch.ones(2**25)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(mode: str) -> int:
    return int(subprocess.check_output([sys.executable, "-c", CHURN, mode], text=True))


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only glibc can be told")
def test_large_blocks_are_used_again() -> None:
    kept, returned = faults("keep"), faults("return")
    assert kept < returned / 3  # the heap may grow once or twice before a block fits


def test_where_it_cannot_be_told_nothing_happens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    assert keep_freed_memory() is False
