"""Freed memory stays with the process, so that large temporaries do not fault their pages in again and again."""

from __future__ import annotations

import ctypes
import subprocess
import sys

import pytest

from benchsuite.allocator import keep_freed_memory

BLOCKS = 10
#: pages that blocks of 128 MB fault in, one after the other, when one has been there before. Plain malloc, for
#: torch asks for aligned blocks, and a freed one may not fit the next such request, which is chance (glibc 2.36)
CHURN = f"""
import ctypes, resource, sys
from benchsuite.allocator import keep_freed_memory
library = ctypes.CDLL(None)
library.malloc.argtypes, library.malloc.restype = [ctypes.c_size_t], ctypes.c_void_p
library.free.argtypes, library.free.restype = [ctypes.c_void_p], None

class Before235:
    gnu_get_libc_version = library.gnu_get_libc_version
    def __init__(self, name): pass
    def mallopt(self, option, value):
        return 0 if option == -3 and value > 2**25 else library.mallopt(option, value)

def churn():
    block = library.malloc(2**27)
    ctypes.memset(block, 1, 2**27)
    library.free(block)

if sys.argv[1] == "old":
    ctypes.CDLL = Before235
if sys.argv[1] != "return":
    assert keep_freed_memory()
churn()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range({BLOCKS}):
    churn()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(mode: str) -> int:
    return int(subprocess.check_output([sys.executable, "-c", CHURN, mode], text=True))


@pytest.mark.skipif(
    not sys.platform.startswith("linux") or not hasattr(ctypes.CDLL(None), "gnu_get_libc_version"),
    reason="only glibc can be told",
)
@pytest.mark.parametrize("library", ["keep", "old"])
def test_large_blocks_are_used_again(library: str) -> None:
    # the heap may grow by what else the interpreter puts into it, but by less than a block
    assert faults(library) < faults("return") / BLOCKS


def test_a_library_that_refuses_is_left_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    class Refusing:
        gnu_get_libc_version = None

        def mallopt(self, option: int, value: int) -> int:
            asked.append(option)
            return 0

    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr("ctypes.CDLL", lambda name: Refusing())
    assert keep_freed_memory() is False
    assert -1 not in asked  # the trim threshold alone would freeze the other at its lowest


def test_where_it_cannot_be_told_nothing_happens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    assert keep_freed_memory() is False
