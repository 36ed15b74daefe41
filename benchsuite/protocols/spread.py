"""How far an exact model's conditional heads lie apart on average: the information rate without label noise.

sum_k p(k | x) ‖D_k(x) - D(x)‖² is the conditional expectation, given the noisy item, of both integrands of mutual
information (Rao–Blackwell). It takes one conditional head per value of the factor, which exact models can afford.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch

from benchsuite.contracts import ExactModel, Factor
from benchsuite.protocols.common import Meter, denoise_batched

#: factors with more values than this are left out: every value costs a conditional pass
MOST_VALUES = 32


def values_in_use(model: ExactModel, factors: Sequence[Factor]) -> dict[str, list[int]]:
    """{factor: its values of non-zero probability}, for the factors that the model shares with the data."""
    prior = model.prior()
    known = {f.name for f in model.factors}
    return {
        f.name: [k for k in range(f.size) if float(prior[f.name][k]) > 0]
        for f in factors
        if f.name in known and f.size <= MOST_VALUES
    }


def head_spread(
    model: ExactModel,
    x: torch.Tensor,
    sigma: float,
    denoised: torch.Tensor,
    posterior: Mapping[str, torch.Tensor],
    values: Mapping[str, Sequence[int]],
    meter: Meter,
) -> dict[str, torch.Tensor]:
    """{factor: sum_k p(k | x) ‖eps_k - eps‖² (B,)} at one noise level.

    Args:
        x: (B, *shape) noisy items.
        denoised: (B, *shape), the unconditional D(x).
        posterior: {factor: (B, K)}.
        values: from `values_in_use`.
    """
    names = [f.name for f in model.factors]
    sigmas = x.new_full((len(x),), sigma)
    short = model.head_spread(x, sigmas)
    if short is not None:
        meter.add(len(x))
        return {factor: (short[factor] / sigma**2).float() for factor in values}
    found = {}
    for factor, used in values.items():
        total = x.new_zeros(len(x), dtype=torch.float64)
        for value in used:
            labels = torch.full((len(x), len(names)), -1, dtype=torch.int64, device=x.device)
            labels[:, names.index(factor)] = value
            head = denoise_batched(model, x, sigmas, labels, len(x), meter)
            apart = ((head - denoised) / sigma).double().square().flatten(1).sum(dim=1)
            total += posterior[factor][:, value].double() * apart
        found[factor] = total.float()
    return found
