"""How factor labels become what a network is conditioned on: a row of one table, or of one table per factor."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from benchsuite import Factor, UsageError

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Conditioning:
    """Factors of a network with `num_class_embeds`, the row that means "not told" included.

    With one factor of K values the table has the K values in order, with the null row at `null` (None: there
    is no null row, so the model is only conditional). With several factors the table is their product, each
    with its null last, first factor slowest: ``num_class_embeds = (K1 + 1)(K2 + 1)…``. With `summed` there is one
    table per factor, each with its null last, and the network is given the sum of the chosen rows.

    Args:
        factors: what the model can be conditioned on; empty for an unconditional network.
        null: index of the null row, for one factor only.
        summed: one embedding table per factor (`benchsuite_models.factor_embedding`).
    """

    factors: tuple[Factor, ...] = ()
    null: int | None = None
    summed: bool = False

    @classmethod
    def with_null_last(cls, factors: tuple[Factor, ...], summed: bool = False) -> Conditioning:
        """The convention of checkpoints that `benchsuite train` makes."""
        single = len(factors) == 1 and not summed
        return cls(tuple(factors), factors[0].size if single else None, summed)

    @property
    def rows(self) -> int:
        """Rows that the embedding table must have; 0 for an unconditional network."""
        if len(self.factors) == 1:
            return self.factors[0].size + (self.null is not None)
        rows = 1 if self.factors else 0
        for factor in self.factors:
            rows *= factor.size + 1
        return rows

    def index(self, labels: torch.Tensor | None, batch: int, device: torch.device) -> torch.Tensor | None:
        """Row of the table, (B,) int64, or of each factor's table, (B, F), for labels (B, F) with -1 = null.

        None for an unconditional network.

        Raises:
            UsageError: labels of a wrong shape or outside their range, or null where there is no null row.
        """
        import torch

        if not self.factors:
            if labels is not None and labels.shape[1:].numel() > 0:
                raise UsageError(f"labels of shape {tuple(labels.shape)} given to an unconditional model")
            return None
        if labels is None:
            labels = torch.full((batch, len(self.factors)), -1, device=device)
        if tuple(labels.shape) != (batch, len(self.factors)):
            names = ", ".join(f.name for f in self.factors)
            raise UsageError(
                f"labels have shape {tuple(labels.shape)}, expected {(batch, len(self.factors))}: one column "
                f"for each of {names}"
            )
        if self.summed:
            for column, factor in enumerate(self.factors):
                self._check(labels[:, column], factor)
            sizes = torch.tensor([factor.size for factor in self.factors], device=device)
            labels = labels.to(device)
            return torch.where(labels < 0, sizes, labels)
        index = torch.zeros(batch, dtype=torch.int64, device=device)
        for column, factor in enumerate(self.factors):
            label = labels[:, column].to(device)
            self._check(label, factor)
            null = factor.size if len(self.factors) > 1 else self.null
            row = label if null is None else torch.where(label < 0, null, label + (label >= null))
            index = index * (factor.size + 1) + row
        return index

    def _check(self, label: torch.Tensor, factor: Factor) -> None:
        if len(label) == 0:
            return
        low, high = int(label.min()), int(label.max())
        if low < -1 or high >= factor.size:
            raise UsageError(
                f"label {low if low < -1 else high} of factor {factor.name!r} is outside "
                f"0 … {factor.size - 1} (-1 = null)"
            )
        if low == -1 and len(self.factors) == 1 and self.null is None and not self.summed:
            raise UsageError(
                f"the model has no null row for factor {factor.name!r}, so it cannot be run unconditionally; "
                "name the row with null_class=… if it has one"
            )
