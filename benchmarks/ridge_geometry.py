"""What the geometry of paths costs: `python benchmarks/ridge_geometry.py [points dims queries levels]`.

Responsibilities, frames for ridges of dimension 1, 2, 4 and 8, and Newton distances of `queries` states at each of
`levels` noise levels from log-SNR -6 to 8, against a curved cloud of `points` points. Half of the levels are
where the posterior is about many points, which costs most. CPU seconds are those of all threads together: they
tell the cost on a machine that others use at the same time.
"""

from __future__ import annotations

import resource
import sys
import time

import numpy as np
from benchsuite_metrics.ridge_geometry.paths import along_paths
from benchsuite_metrics.ridge_geometry.responsibilities import KEEP

SIZES = (60_000, 64, 256, 12)
DIMS = (1, 2, 4, 8)


def main(count: int, width: int, queries: int, levels: int) -> None:
    rng = np.random.default_rng(0)
    inner = rng.standard_normal((count, 6), dtype=np.float32)
    curved = np.tanh(inner @ (rng.standard_normal((6, width), dtype=np.float32) / 3))
    points = curved + 0.02 * rng.standard_normal((count, width), dtype=np.float32)
    sigma = np.exp(-np.linspace(-6, 8, levels) / 2)
    noise = rng.standard_normal((queries, levels, width))
    x = (points[:queries, None] + sigma[:, None] * noise).astype(np.float32)
    start = time.perf_counter(), time.process_time()
    found = along_paths(x, x, x[:, -1], sigma, points, [d for d in DIMS if d < width], KEEP)
    wall, cpu = time.perf_counter() - start[0], time.process_time() - start[1]
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"{count} points x {width} dimensions x {queries} queries x {levels} levels")
    print(f"{wall:.1f} s by the clock, {cpu:.1f} CPU seconds, {memory:.2f} GiB at most")
    print("K_eff by level: " + ", ".join(f"{k:.3g}" for k in found.k_eff.mean(axis=0)))


if __name__ == "__main__":
    main(*([int(value) for value in sys.argv[1:]] or SIZES))
