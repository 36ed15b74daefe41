"""The two optimisers of recipes: AdamW for all weights, or Muon for the matrices among them."""

from __future__ import annotations

from typing import Any

import torch

from benchsuite_models.training.config import Optimisation
from benchsuite_models.training.muon import Muon

_BETAS = (0.9, 0.99)


class Optimiser:
    """One AdamW, or one beside a Muon, with one learning rate. Tables of embeddings stay with AdamW.

    A batch sees a few rows of a table: a step that treats all directions alike would move the others.
    """

    def __init__(self, network: torch.nn.Module, config: Optimisation, step: int) -> None:
        """Fresh state, for the steps from `step` on."""
        self._weights = [p for p in network.parameters() if p.requires_grad]
        matrices: list[torch.nn.Parameter] = []
        if config.muon is not None and step >= config.muon:
            tables = {m.weight for m in network.modules() if isinstance(m, torch.nn.Embedding)}
            matrices = [p for p in self._weights if p.ndim >= 2 and p not in tables]
        chosen = set(matrices)
        rest = [p for p in self._weights if p not in chosen]
        options: dict[str, Any] = {"lr": config.learning_rate, "weight_decay": config.weight_decay}
        self._parts: list[torch.optim.Optimizer] = [torch.optim.AdamW(rest, betas=_BETAS, **options)]
        if matrices:
            self._parts.append(Muon(matrices, **options))

    def step(self, loss: torch.Tensor, learning_rate: float, clip: float) -> None:
        """One step down the gradient of `loss`, whose norm is clipped."""
        for weight in self._weights:
            weight.grad = None
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self._weights, clip)
        for part in self._parts:
            for group in part.param_groups:
                group["lr"] = learning_rate
            part.step()

    def state_dict(self) -> dict[str, Any]:
        """What `load_state_dict` restores."""
        return {str(i): part.state_dict() for i, part in enumerate(self._parts)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` gave."""
        for i, part in enumerate(self._parts):
            part.load_state_dict(state[str(i)])
