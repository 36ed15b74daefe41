"""Forward passes of the shipped DDPM with and without `keep_freed_memory`, in processes of their own, in turns.

`python benchmarks/allocator.py` prints the time and the page faults of a pass and their ratios.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys

PASSES = """
import json, resource, sys, time, torch
from benchsuite.allocator import keep_freed_memory
if sys.argv[1] == "keep":
    assert keep_freed_memory(), "the C library cannot be told"
from benchsuite.discovery import discover
model = discover().models["ddpm"](sys.argv[2])
model.load()
x = torch.randn(int(sys.argv[3]), *model.shape)
seconds = []
with torch.no_grad():
    model.denoise(x, torch.ones(len(x)))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(8):
        started = time.perf_counter()
        model.denoise(x, torch.ones(len(x)))
        seconds.append((time.perf_counter() - started) / len(x))
faults = (resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before) / 8 / len(x)
print(json.dumps([min(seconds), faults]))
"""
ROUNDS = 3


def main() -> None:
    """Measure both ways in turns, for a machine's mood changes."""
    from benchsuite_models.diffusers_model import REFERENCE

    print("rows  ms a row, returned  kept  ratio  page faults a row, returned  kept")
    for rows in (128, 256, 512):
        found: dict[str, list[list[float]]] = {"return": [], "keep": []}
        for _ in range(ROUNDS):
            for mode, measured in found.items():
                command = [sys.executable, "-c", PASSES, mode, str(REFERENCE / "shapes" / "ddpm"), str(rows)]
                measured.append(json.loads(subprocess.check_output(command, text=True)))
        (slow, many), (quick, few) = (
            [statistics.median(column) for column in zip(*measured, strict=True)] for measured in found.values()
        )
        print(f"{rows:4}  {slow * 1e3:18.3f}  {quick * 1e3:4.3f}  {quick / slow:5.2f}  {many:27.0f}  {few:4.0f}")


if __name__ == "__main__":
    main()
