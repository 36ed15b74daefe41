"""What the exact models share: checks of their input, and draws that do not depend on batching or device."""

from __future__ import annotations

from typing import TYPE_CHECKING

from benchsuite import Dataset, ExactModel, Factor, NotApplicableError, UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    import torch


def numbered(name: str, size: int) -> Factor:
    """A factor whose values are called "0" … "size - 1"."""
    return Factor(name, tuple(str(value) for value in range(size)))


def check_query(name: str, shape: tuple[int, ...], x: torch.Tensor, sigma: torch.Tensor) -> None:
    """Refuse a query that is not x (B, *shape) and sigma (B,) > 0.

    Raises:
        UsageError: naming the model, the shapes and the values.
    """
    if tuple(x.shape[1:]) != tuple(shape) or sigma.shape != x.shape[:1]:
        raise UsageError(
            f"{name} takes x (B, {', '.join(map(str, shape))}) and sigma (B,), "
            f"got {tuple(x.shape)} and {tuple(sigma.shape)}"
        )
    if not bool((sigma > 0).all()):
        raise UsageError(f"{name} needs sigma > 0, got {sigma.min().item():g}")


def check_labels(
    name: str, factors: Sequence[Factor], labels: torch.Tensor | None, x: torch.Tensor
) -> torch.Tensor:
    """Labels (B, F) int64 on the device of `x`, all -1 (null) where None is given.

    Raises:
        UsageError: for a wrong shape, or a label that is neither -1 nor one of its factor's values.
    """
    import torch

    rows = x.shape[0]
    if labels is None:
        return torch.full((rows, len(factors)), -1, dtype=torch.int64, device=x.device)
    if labels.shape != (rows, len(factors)) or labels.is_floating_point():
        raise UsageError(
            f"{name} takes integer labels ({rows}, {len(factors)}), got {labels.dtype} {tuple(labels.shape)}"
        )
    for column, factor in enumerate(factors):
        wrong = labels[(labels[:, column] < -1) | (labels[:, column] >= factor.size), column]
        if wrong.numel():
            raise UsageError(
                f"{name}: label {wrong[0].item()} of factor {factor.name!r} is outside "
                f"0 … {factor.size - 1} (-1 = null)"
            )
    return labels.to(device=x.device, dtype=torch.int64)


def one_hot(labels: torch.Tensor, factors: Sequence[Factor]) -> torch.Tensor:
    """Labels (N, F) => indicator (N, sum of K) float64, the factors' columns side by side."""
    import torch

    columns = [torch.nn.functional.one_hot(labels[:, i], factor.size) for i, factor in enumerate(factors)] or [
        labels.new_zeros(labels.shape[0], 0)
    ]
    return torch.cat(columns, dim=1).double()


def by_factor(joined: torch.Tensor, factors: Sequence[Factor], dtype: torch.dtype) -> dict[str, torch.Tensor]:
    """Side-by-side columns (…, sum of K) => {factor: (…, K)} of `dtype`, normalised over K."""
    import torch

    parts = torch.split(joined, [factor.size for factor in factors], dim=-1)
    return {
        factor.name: (part / part.sum(-1, keepdim=True)).to(dtype)
        for factor, part in zip(factors, parts, strict=True)
    }


def uniform(shape: Sequence[int], device: torch.device, generator: torch.Generator | None = None) -> torch.Tensor:
    """Uniform float64 draws; made where the generator lives, so a CPU seed serves every device."""
    import torch

    where = device if generator is None else generator.device
    return torch.rand(*shape, generator=generator, device=where, dtype=torch.float64).to(device)


def normal(shape: Sequence[int], device: torch.device, generator: torch.Generator | None = None) -> torch.Tensor:
    """Standard normal float64 draws; made where the generator lives, so a CPU seed serves every device."""
    import torch

    where = device if generator is None else generator.device
    return torch.randn(*shape, generator=generator, device=where, dtype=torch.float64).to(device)


def choose(weights: torch.Tensor, u: torch.Tensor) -> torch.Tensor:
    """Index drawn with probability proportional to `weights` (…, N), float64; `u` (…) uniform in [0, 1).

    Inverts the cumulative sum: one uniform per draw whatever N, so that draws do not depend on batching.
    """
    import torch

    total = weights.cumsum(-1)
    # side="right" never lands on an entry of weight 0, whose cumulative sum equals its neighbour's.
    index = torch.searchsorted(total, u[..., None] * total[..., -1:], right=True)[..., 0]
    # Rounding can push u * total onto the last sum; the last entry with weight is then the right one.
    last = (total < total[..., -1:]).sum(-1)
    return torch.minimum(index, last)


def check_bound(model: ExactModel, dataset: Dataset) -> None:
    """Refuse a data set that the model's distribution cannot have produced.

    Raises:
        NotApplicableError: if the shapes or the factors (names and numbers of values) differ.
    """
    mine = (tuple(model.shape), tuple((factor.name, factor.size) for factor in model.factors))
    theirs = (tuple(dataset.shape), tuple((factor.name, factor.size) for factor in dataset.factors))
    if mine != theirs:
        raise NotApplicableError(
            f"{model.name} is exact for its own distribution, shape and factors {mine}; "
            f"data set {dataset.name} has {theirs}"
        )
