"""Keep freed memory in the process, for glibc would rather give it back.

Blocks of more than 32 MB, which is what a network's activations are, come from the kernel and return to it with
every operation, so that each forward pass faults the same pages in again: 5 to 9 % of its time, says
benchmarks/allocator.py.
"""

from __future__ import annotations

import ctypes
import sys

#: of glibc's malloc.h
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_MMAP_MAX = -1, -3, -4
_LARGEST_BLOCK, _NEVER = 2**30, 2**31 - 1


def keep_freed_memory() -> bool:
    """Let blocks of up to 1 GiB (of any size before glibc 2.35) be used again instead of returned.

    The heap of this process never shrinks from now on.

    Meant for a process of our own, such as the command line, not for one that we are a guest in. Memory on a GPU
    is torch's own business, which keeps it too.

    Returns:
        Whether the C library is one that can (glibc).
    """
    if not sys.platform.startswith("linux"):
        return False
    library = ctypes.CDLL(None)
    if not hasattr(library, "gnu_get_libc_version"):
        return False
    # Before 2.35 a threshold above 32 MB is refused. Going on to the trim threshold without one would freeze the
    # other where it happens to stand, 128 KB at first, and make matters worse: there, no block is mapped at all.
    reused = library.mallopt(_M_MMAP_THRESHOLD, _LARGEST_BLOCK) or library.mallopt(_M_MMAP_MAX, 0)
    return bool(reused and library.mallopt(_M_TRIM_THRESHOLD, _NEVER))
