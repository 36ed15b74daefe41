"""How fast the images of `shapes` are rendered: `python benchmarks/shapes_rendering.py`.

Only rendering is timed (ray casting and painting), not splits or fingerprints. Ray casting is done once per
geometry, so that images that differ in hue only cost a sum. CPU seconds are those of all threads together: they
tell the cost on a machine that others use at the same time.
"""

from __future__ import annotations

import math
import time

import torch
from benchsuite_datasets.shapes import Shapes

CASES = ({}, {"resolution": 64}, {"floor": 10, "wall": 10, "object": 10}, {"scale": 8, "orientation": 15})
REPEATS = 3


def main() -> None:
    print(f"{torch.get_num_threads()} threads; images/s by the clock, and per CPU second")
    for options in CASES:
        data = Shapes(**options)
        count = math.prod(data.levels.values())
        wall, cpu = [], []
        for _ in range(REPEATS):
            start = time.perf_counter(), time.process_time()
            data.render()
            wall.append(time.perf_counter() - start[0])
            cpu.append(time.process_time() - start[1])
        text = ", ".join(f"{key}={value}" for key, value in options.items()) or "as by default"
        print(f"{text:<32} {count:>7} images {count / min(wall):>9.0f} {count / min(cpu):>9.0f}")


if __name__ == "__main__":
    main()
