"""The two optimisers of recipes: AdamW for all weights, or Muon for the matrices among them."""

from __future__ import annotations

from typing import Any

import torch

from benchsuite import UsageError
from benchsuite_models.training.config import Optimisation

_BETAS = (0.9, 0.99)


class Optimiser:
    """One AdamW, or one beside a Muon, with one learning rate.

    Muon (Jordan et al. 2024, https://kellerjordan.github.io/posts/muon) makes the update of a matrix orthogonal,
    so that no direction in it learns slower than another; scaled to the size of AdamW's (arXiv:2502.16982) it
    takes the same learning rates. A convolution is the matrix of its output channels by all else. Tables of
    embeddings, of which a batch sees a few rows, stay with AdamW.
    """

    def __init__(self, network: torch.nn.Module, config: Optimisation, step: int) -> None:
        """Fresh state, for the steps from `step` on.

        Raises:
            UsageError: this version of torch has no Muon.
        """
        self._weights = [p for p in network.parameters() if p.requires_grad]
        self._matrices: list[torch.nn.Parameter] = []
        self._aliases: list[torch.Tensor] = []
        if config.muon is not None and step >= config.muon:
            if not hasattr(torch.optim, "Muon"):
                raise UsageError(
                    f"this recipe needs torch.optim.Muon, which torch {torch.__version__} does not have: 2.9 does"
                )
            tables = {m.weight for m in network.modules() if isinstance(m, torch.nn.Embedding)}
            self._matrices = [p for p in self._weights if p.ndim >= 2 and p not in tables]
            # Muon takes nothing but matrices: these share their storage with the weights
            self._aliases = [p.detach().flatten(1) for p in self._matrices]
        matrices = set(self._matrices)
        rest = [p for p in self._weights if p not in matrices]
        options: dict[str, Any] = {"lr": config.learning_rate, "weight_decay": config.weight_decay}
        self._parts: list[torch.optim.Optimizer] = [torch.optim.AdamW(rest, betas=_BETAS, **options)]
        if self._aliases:
            self._parts.append(torch.optim.Muon(self._aliases, adjust_lr_fn="match_rms_adamw", **options))

    def step(self, loss: torch.Tensor, learning_rate: float, clip: float) -> None:
        """One step down the gradient of `loss`, whose norm is clipped."""
        for weight in self._weights:
            weight.grad = None
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self._weights, clip)
        for alias, matrix in zip(self._aliases, self._matrices, strict=True):
            alias.grad = None if matrix.grad is None else matrix.grad.flatten(1)
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
