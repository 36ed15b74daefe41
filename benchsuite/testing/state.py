"""Process-wide state that a plugin must leave alone: random generators, autograd's mode, the default dtype."""

from __future__ import annotations

import random
from collections.abc import Callable

import numpy as np
import torch


def changed_by(call: Callable[[], object]) -> list[str]:
    """Names of the global states that `call` leaves different; puts everything back."""
    kept = _state()
    # a state that no seed leads to: whoever seeds a generator once more is seen too
    random.random()
    np.random.random()  # noqa: NPY002
    torch.rand(1)
    before = _state()
    try:
        call()
        after = _state()
    finally:
        _restore(kept)
    return [name for name in before if not _same(before[name], after[name])]


def _state() -> dict[str, object]:
    state: dict[str, object] = {
        "torch's random generator": torch.get_rng_state(),
        "numpy's random generator": np.random.get_state(),  # noqa: NPY002 - the global one is what is watched
        "Python's random generator": random.getstate(),
        "grad mode": torch.is_grad_enabled(),
        "default dtype": torch.get_default_dtype(),
    }
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        state["CUDA's random generator"] = torch.cuda.get_rng_state()
    return state


def _restore(state: dict[str, object]) -> None:
    torch.set_rng_state(state["torch's random generator"])  # type: ignore[arg-type]
    np.random.set_state(state["numpy's random generator"])  # type: ignore[arg-type]  # noqa: NPY002
    random.setstate(state["Python's random generator"])  # type: ignore[arg-type]
    torch.set_grad_enabled(state["grad mode"])  # type: ignore[arg-type]
    torch.set_default_dtype(state["default dtype"])  # type: ignore[arg-type]
    if "CUDA's random generator" in state:
        torch.cuda.set_rng_state(state["CUDA's random generator"])  # type: ignore[arg-type]


def _same(a: object, b: object) -> bool:
    if isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor):
        return torch.equal(a, b)
    if isinstance(a, tuple) and isinstance(b, tuple):
        return len(a) == len(b) and all(_same(x, y) for x, y in zip(a, b, strict=True))
    if isinstance(a, np.ndarray):
        return np.array_equal(a, b)  # type: ignore[arg-type]
    return a == b
