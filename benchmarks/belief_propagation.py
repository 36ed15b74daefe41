"""How long one noise level of the exact RHM takes: `python benchmarks/belief_propagation.py`.

Seconds depend on the machine, so each is also given as a multiple of a float64 matrix product with as many
multiplications as the upward sweep has (rule, node, row, position) terms times 100.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import torch
from benchsuite_models.exact_rhm import ExactRHM

ROWS, SIGMA = 1000, 0.4


def best(call: Callable[[], object], repeats: int = 3) -> float:
    """Shortest of a few runs, in seconds, after a warm-up."""
    call()
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - start)
    return min(seconds)


def main() -> None:
    print(f"{ROWS} rows, sigma = {SIGMA}, {torch.get_num_threads()} threads")
    print(f"{'v m s L':>10} {'posterior':>16} {'denoise':>16} {'sample':>16}   seconds (x reference)")
    for v, m, s, depth in ((8, 3, 2, 4), (32, 8, 2, 5), (32, 8, 2, 7), (16, 16, 3, 4)):
        model = ExactRHM(v, m, s, depth)
        x0, _ = model.sample(ROWS, torch.Generator().manual_seed(0))
        x = x0 + SIGMA * torch.randn(x0.shape, generator=torch.Generator().manual_seed(1))
        sigma = torch.full((ROWS,), SIGMA)
        terms = ROWS * v * m * s * (model.grammar.length - 1) // (s - 1)
        a = torch.randn(100, 1000, dtype=torch.float64)
        b = torch.randn(1000, max(1, terms // 1000), dtype=torch.float64)
        reference = best(lambda a=a, b=b: a @ b)
        cells = [
            best(lambda call=call, x=x, sigma=sigma: call(x, sigma))
            for call in (model.posterior, model.denoise, model.sample_posterior)
        ]
        print(f"{v:>3} {m:>2} {s} {depth} " + " ".join(f"{c:>8.3f} ({c / reference:4.1f})" for c in cells))


if __name__ == "__main__":
    main()
