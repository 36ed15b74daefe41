"""Multinomial logistic regression, many problems at once.

Böhning's bound on the Hessian (1992, "Multinomial logistic regression algorithm", Ann. Inst. Stat. Math. 44)
gives one fixed matrix per problem, ½ XᵀX / n + ridge, that majorises it everywhere; with that preconditioner
plain gradient steps never increase the loss, and Nesterov's momentum with gradient restart (O'Donoghue & Candès
2015) makes them fast. No line search, so all problems advance together on one device, and those that have
arrived leave the batch. Several labels of the same items are solved on one pass over the features, which is what
an iteration spends its time on.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Fit:
    """Fitted weights of S problems; K is the sum of `classes`, the classes of several labels side by side."""

    weights: torch.Tensor  #: (S, D, K)
    bias: torch.Tensor  #: (S, 1, K)
    classes: tuple[int, ...]
    iterations: int
    gradient: float  #: largest gradient entry left in any problem

    def log_probabilities(self, x: torch.Tensor) -> torch.Tensor:
        """Features (S, N, D) => log p (S, N, K), normalised within each label's classes."""
        import torch

        parts = (x @ self.weights + self.bias).split(self.classes, dim=2)
        return torch.cat([part.log_softmax(dim=2) for part in parts], dim=2)

    def of(self, problems: torch.Tensor) -> Fit:
        """The fit of some of the problems, by index."""
        return Fit(self.weights[problems], self.bias[problems], self.classes, self.iterations, self.gradient)


def fit(
    x: torch.Tensor,
    y: torch.Tensor,
    classes: int | Sequence[int],
    ridge: torch.Tensor,
    start: Fit | None = None,
    max_iterations: int = 400,
    tol: float = 2e-4,
) -> Fit:
    """Minimise mean NLL + ridge / 2 ‖W‖² (the bias is free) for S problems.

    Args:
        x: (S, N, D) features, ideally standardised.
        y: (N,) int64 labels in [0, classes); or several of each item, (N, F), with as many `classes`.
        ridge: (S,) penalties > 0.
        start: where to begin, such as the fit with a larger ridge; default 0.
        tol: a problem stops when every entry of its gradient is below, for all its labels.

    Returns:
        The fit; `gradient` says how close to stationary it is.
    """
    import torch

    # classes before items: with few classes that is several times faster for products and softmax
    problems, n, dim = x.shape
    ones = torch.cat([x, x.new_ones(problems, n, 1)], dim=2)  # the bias is the last feature
    across = ones.transpose(1, 2).contiguous()  # (S, D + 1, N)
    sizes = (classes,) if isinstance(classes, int) else tuple(classes)
    hot = [torch.nn.functional.one_hot(column, k) for column, k in zip(y.view(n, -1).T, sizes, strict=True)]
    target = torch.cat(hot, dim=1).to(x.dtype).T  # (K, N)
    label = torch.repeat_interleave(torch.tensor(sizes, device=x.device))  # (K,), whose class it is
    penalty = x.new_ones(dim + 1)
    penalty[-1] = 0.0
    penalty = (ridge[:, None] * penalty)[:, None]  # (S, 1, D + 1)
    # a whisker on the diagonal keeps the factorisation safe for features that never vary
    bound = 0.5 * (across @ ones) / n + torch.diag_embed(penalty[:, 0] + 1e-6)
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(bound))
    w = x.new_zeros(problems, sum(sizes), dim + 1)
    if start is not None:
        w = torch.cat([start.weights, start.bias], dim=1).transpose(1, 2).contiguous()
    lead, momentum = w, x.new_ones(problems, len(sizes))
    result, left = w.clone(), x.new_zeros(problems)
    going = torch.arange(problems, device=x.device)  # problems that are still in the batch
    steps = 0
    while len(going):
        steps += 1
        logits = (lead @ across).split(sizes, dim=1)
        residual = torch.cat([part.softmax(dim=1) for part in logits], dim=1) - target  # (S, K, N)
        gradient = residual @ ones / n + penalty * lead
        largest = gradient.abs().amax(dim=(1, 2))
        w_next = lead - gradient @ inverse
        result[going], left[going] = w_next, largest
        on = largest >= tol
        unfinished = int(on.sum())
        if steps == max_iterations or not unfinished:
            break
        # restart the momentum of a label whose step points uphill
        slope = (gradient * (w_next - w)).sum(dim=2)  # (S, K)
        uphill = torch.zeros_like(momentum).index_add_(1, label, slope) > 0
        momentum = torch.where(uphill, torch.ones_like(momentum), momentum)
        faster = (1 + (1 + 4 * momentum**2).sqrt()) / 2
        lead = w_next + ((momentum - 1) / faster)[:, label, None] * (w_next - w)
        w, momentum = w_next, faster
        if unfinished <= 0.7 * len(going):  # the others stay as they are; moving the rest together is not free
            going, ones, across, penalty, inverse = (z[on] for z in (going, ones, across, penalty, inverse))
            lead, w, momentum = lead[on], w[on], momentum[on]
    result = result.transpose(1, 2)
    return Fit(result[:, :-1], result[:, -1:], sizes, steps, float(left.max()))
