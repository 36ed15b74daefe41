"""Muon: steps of a matrix in which no direction learns slower than another."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import overload

import torch

#: of the momentum
MOMENTUM = 0.95
#: odd polynomial a x + b x³ + c x⁵ that takes singular values in (0, 1] to about 1 in a few applications
COEFFICIENTS = (3.4445, -4.7750, 2.0315)
ITERATIONS = 5
#: root mean square of an orthogonal step, that of AdamW's, so that learning rates carry over (arXiv:2502.16982)
STEP = 0.2


class Muon(torch.optim.Optimizer):
    """Momentum made orthogonal (Jordan et al. 2024, https://kellerjordan.github.io/posts/muon), in float32.

    torch has a Muon of its own, from 2.9 on, whose products are made in bfloat16. A CPU without instructions for
    that takes twenty times as long for them as in float32: longer than for the rest of a training step.

    Args:
        weights: of two dimensions or more; a convolution is the matrix of its output channels by all else.
        lr: learning rate, as for AdamW.
        weight_decay: as for AdamW.
    """

    def __init__(self, weights: Iterable[torch.nn.Parameter], lr: float, weight_decay: float) -> None:
        super().__init__(weights, {"lr": lr, "weight_decay": weight_decay})

    @overload
    def step(self, closure: None = None) -> None: ...

    @overload
    def step(self, closure: Callable[[], float]) -> float: ...

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """One step; of a closure too, as torch's optimisers take it."""
        loss = None if closure is None else closure()
        for group in self.param_groups:
            for weight in group["params"]:
                if weight.grad is None:
                    continue
                state = self.state[weight]
                if not state:
                    state["momentum"] = torch.zeros_like(weight)
                momentum = state["momentum"].lerp_(weight.grad, 1 - MOMENTUM)
                update = orthogonal(weight.grad.lerp(momentum, MOMENTUM).flatten(1))  # Nesterov's
                size = STEP * max(update.shape) ** 0.5
                weight.mul_(1 - group["lr"] * group["weight_decay"])
                weight.add_(update.view_as(weight), alpha=-group["lr"] * size)
        return loss


def orthogonal(matrix: torch.Tensor) -> torch.Tensor:
    """U S' V' of a matrix (m, n) = U S V', with S' between about 0.7 and 1.2, by Newton–Schulz iterations."""
    a, b, c = COEFFICIENTS
    tall = matrix.shape[0] > matrix.shape[1]
    x = matrix.T if tall else matrix
    x = x / x.norm().clamp_min(1e-7)
    for _ in range(ITERATIONS):
        gram = x @ x.T
        x = torch.addmm(x, torch.addmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.T if tall else x
